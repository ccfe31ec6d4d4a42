/*
 * p11fault.c - a PKCS#11 module that forwards to another one and fails at a chosen call
 *
 * Read from the environment when the module is loaded:
 *     FAULT_MODULE     the module behind it; required
 *     FAULT_AT         number of the call that fails, from 1; 0 or unset: none
 *     FAULT_FUNCTION   count (and fail) only calls of this function
 *     FAULT_COUNTER    a file that holds the counter, shared by processes; unset: one per process
 *     FAULT_STICKY     1: every later call fails too
 *     FAULT_MODE       error (default), garbage, short, hang
 *     FAULT_RV         with error: the CKR code, as strtoul(3) reads it
 *     FAULT_COUNT      a file to which the name of every function called is appended
 *
 * `garbage`: the call succeeds and what it returned is overwritten with 0xA5. `short`: it succeeds
 * and says that it returned half as much. `hang`: the process stops (SIGSTOP, so that its parent
 * sees it) and, if continued, waits there until it is killed.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

#define GARBAGE 0xA5

enum mode { MODE_ERROR, MODE_GARBAGE, MODE_SHORT, MODE_HANG };

static struct {
    CK_FUNCTION_LIST *real;
    unsigned long at;
    const char *function;
    bool sticky;
    enum mode mode;
    CK_RV rv;
    const char *count_path;
    _Atomic unsigned long *counter;
} fault;

static _Atomic unsigned long own_counter;

/* ---- the plan -------------------------------------------------------------------------------- */

static unsigned long number_from(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtoul(text, NULL, 0) : 0;
}

static enum mode mode_from(const char *text)
{
    if (text == NULL || strcmp(text, "error") == 0)
        return MODE_ERROR;
    if (strcmp(text, "garbage") == 0)
        return MODE_GARBAGE;
    if (strcmp(text, "short") == 0)
        return MODE_SHORT;
    if (strcmp(text, "hang") == 0)
        return MODE_HANG;
    fprintf(stderr, "p11fault: FAULT_MODE=%s is unknown\n", text);
    abort();
}

static _Atomic unsigned long *shared_counter(const char *path)
{
    if (path == NULL)
        return &own_counter;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd == -1 || ftruncate(fd, sizeof(own_counter)) != 0)
        abort();
    void *page = mmap(NULL, sizeof(own_counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        abort();
    close(fd);
    return page;
}

static void read_plan(void)
{
    fault.at = number_from("FAULT_AT");
    fault.function = getenv("FAULT_FUNCTION");
    fault.sticky = number_from("FAULT_STICKY") != 0;
    fault.mode = mode_from(getenv("FAULT_MODE"));
    fault.rv = number_from("FAULT_RV");
    fault.count_path = getenv("FAULT_COUNT");
    fault.counter = shared_counter(getenv("FAULT_COUNTER"));
}

static CK_RV load_real(void)
{
    const char *path = getenv("FAULT_MODULE");
    void *handle = path != NULL ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    CK_C_GetFunctionList get = NULL;
    if (handle != NULL)
        *(void **)&get = dlsym(handle, "C_GetFunctionList");
    if (get == NULL) {
        fprintf(stderr, "p11fault: FAULT_MODULE is not set or can't be loaded\n");
        return CKR_GENERAL_ERROR;
    }
    return get(&fault.real);
}

/* One write(2) for each name, so that lines of several processes do not mix. */
static void note_call(const char *name)
{
    char line[64];
    if (fault.count_path == NULL)
        return;
    int size = snprintf(line, sizeof(line), "%s\n", name);
    int fd = open(fault.count_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd == -1 || write(fd, line, (size_t)size) != size)
        abort();
    close(fd);
}

static bool is_hit(const char *name)
{
    if (fault.function != NULL && strcmp(fault.function, name) != 0)
        return false;
    unsigned long number = atomic_fetch_add(fault.counter, 1) + 1;
    return fault.at != 0 && (number == fault.at || (fault.sticky && number > fault.at));
}

/* Every call begins here. True: it ends with *rv, without the module behind. */
static bool fails_now(const char *name, bool *hit, CK_RV *rv)
{
    note_call(name);
    *hit = is_hit(name);
    *rv = fault.rv;
    while (*hit && fault.mode == MODE_HANG) {
        raise(SIGSTOP);
        pause();
    }
    return *hit && fault.mode == MODE_ERROR;
}

/* ---- spoiling what was returned -------------------------------------------------------------- */

static void spoil(bool hit, void *out, size_t size)
{
    if (hit && fault.mode == MODE_GARBAGE && out != NULL)
        memset(out, GARBAGE, size);
}

static void spoil_buffer(bool hit, void *out, CK_ULONG *count, size_t size_of_one)
{
    if (!hit || count == NULL)
        return;
    spoil(hit, out, *count * size_of_one);
    if (fault.mode == MODE_SHORT)
        *count /= 2;
}

static void spoil_attributes(bool hit, CK_ATTRIBUTE *attributes, CK_ULONG count)
{
    for (CK_ULONG i = 0; hit && i < count; i++) {
        if (attributes[i].ulValueLen != CK_UNAVAILABLE_INFORMATION)
            spoil_buffer(hit, attributes[i].pValue, &attributes[i].ulValueLen, 1);
    }
}

/* ---- the functions --------------------------------------------------------------------------- */

/* CALL: `params` and `args` are parenthesised lists; `after` runs when the call has succeeded. */
#define CALL(name, params, args, after)                                                            \
    static CK_RV fault_##name params                                                               \
    {                                                                                              \
        bool hit;                                                                                  \
        CK_RV rv;                                                                                  \
        if (fails_now(#name, &hit, &rv))                                                           \
            return rv;                                                                             \
        rv = fault.real->name args;                                                                \
        if (rv == CKR_OK) {                                                                        \
            after;                                                                                 \
        }                                                                                          \
        return rv;                                                                                 \
    }
#define PLAIN(name, params, args) CALL(name, params, args, (void)hit)
#define GIVES(name, params, args, out) CALL(name, params, args, spoil(hit, out, sizeof(*(out))))
#define FILLS(name, params, args, out, length)                                                     \
    CALL(name, params, args, spoil_buffer(hit, out, length, sizeof(*(out))))

#define SESSION CK_SESSION_HANDLE session
#define OBJECT CK_OBJECT_HANDLE object
#define MECHANISM CK_MECHANISM *mechanism
#define BYTES(name) CK_BYTE *name, CK_ULONG name##_size
#define BUFFER(name) CK_BYTE *name, CK_ULONG *name##_size
#define TEMPLATE CK_ATTRIBUTE *attributes, CK_ULONG count

PLAIN(C_Initialize, (void *arguments), (arguments))
PLAIN(C_Finalize, (void *reserved), (reserved))
GIVES(C_GetInfo, (CK_INFO * info), (info), info)
FILLS(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count), (present, list, count),
      list, count)
GIVES(C_GetSlotInfo, (CK_SLOT_ID slot, CK_SLOT_INFO *info), (slot, info), info)
GIVES(C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO *info), (slot, info), info)
FILLS(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count),
      (slot, list, count), list, count)
GIVES(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info),
      (slot, type, info), info)
PLAIN(C_InitToken, (CK_SLOT_ID slot, BYTES(pin), CK_BYTE *label), (slot, pin, pin_size, label))
PLAIN(C_InitPIN, (SESSION, BYTES(pin)), (session, pin, pin_size))
PLAIN(C_SetPIN, (SESSION, BYTES(old), BYTES(new)), (session, old, old_size, new, new_size))
GIVES(C_OpenSession,
      (CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify,
       CK_SESSION_HANDLE *session),
      (slot, flags, application, notify, session), session)
PLAIN(C_CloseSession, (SESSION), (session))
PLAIN(C_CloseAllSessions, (CK_SLOT_ID slot), (slot))
GIVES(C_GetSessionInfo, (SESSION, CK_SESSION_INFO *info), (session, info), info)
FILLS(C_GetOperationState, (SESSION, BUFFER(out)), (session, out, out_size), out, out_size)
PLAIN(C_SetOperationState, (SESSION, BYTES(in), CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE other),
      (session, in, in_size, key, other))
PLAIN(C_Login, (SESSION, CK_USER_TYPE user, BYTES(pin)), (session, user, pin, pin_size))
PLAIN(C_Logout, (SESSION), (session))
GIVES(C_CreateObject, (SESSION, TEMPLATE, CK_OBJECT_HANDLE *out), (session, attributes, count, out),
      out)
GIVES(C_CopyObject, (SESSION, OBJECT, TEMPLATE, CK_OBJECT_HANDLE *out),
      (session, object, attributes, count, out), out)
PLAIN(C_DestroyObject, (SESSION, OBJECT), (session, object))
GIVES(C_GetObjectSize, (SESSION, OBJECT, CK_ULONG *size), (session, object, size), size)
CALL(C_GetAttributeValue, (SESSION, OBJECT, TEMPLATE), (session, object, attributes, count),
     spoil_attributes(hit, attributes, count))
PLAIN(C_SetAttributeValue, (SESSION, OBJECT, TEMPLATE), (session, object, attributes, count))
PLAIN(C_FindObjectsInit, (SESSION, TEMPLATE), (session, attributes, count))
FILLS(C_FindObjects, (SESSION, CK_OBJECT_HANDLE *list, CK_ULONG limit, CK_ULONG *count),
      (session, list, limit, count), list, count)
PLAIN(C_FindObjectsFinal, (SESSION), (session))
PLAIN(C_EncryptInit, (SESSION, MECHANISM, OBJECT), (session, mechanism, object))
FILLS(C_Encrypt, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size), out,
      out_size)
FILLS(C_EncryptUpdate, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size),
      out, out_size)
FILLS(C_EncryptFinal, (SESSION, BUFFER(out)), (session, out, out_size), out, out_size)
PLAIN(C_DecryptInit, (SESSION, MECHANISM, OBJECT), (session, mechanism, object))
FILLS(C_Decrypt, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size), out,
      out_size)
FILLS(C_DecryptUpdate, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size),
      out, out_size)
FILLS(C_DecryptFinal, (SESSION, BUFFER(out)), (session, out, out_size), out, out_size)
PLAIN(C_DigestInit, (SESSION, MECHANISM), (session, mechanism))
FILLS(C_Digest, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size), out,
      out_size)
PLAIN(C_DigestUpdate, (SESSION, BYTES(in)), (session, in, in_size))
PLAIN(C_DigestKey, (SESSION, OBJECT), (session, object))
FILLS(C_DigestFinal, (SESSION, BUFFER(out)), (session, out, out_size), out, out_size)
PLAIN(C_SignInit, (SESSION, MECHANISM, OBJECT), (session, mechanism, object))
FILLS(C_Sign, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size), out,
      out_size)
PLAIN(C_SignUpdate, (SESSION, BYTES(in)), (session, in, in_size))
FILLS(C_SignFinal, (SESSION, BUFFER(out)), (session, out, out_size), out, out_size)
PLAIN(C_SignRecoverInit, (SESSION, MECHANISM, OBJECT), (session, mechanism, object))
FILLS(C_SignRecover, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size), out,
      out_size)
PLAIN(C_VerifyInit, (SESSION, MECHANISM, OBJECT), (session, mechanism, object))
PLAIN(C_Verify, (SESSION, BYTES(in), BYTES(sign)), (session, in, in_size, sign, sign_size))
PLAIN(C_VerifyUpdate, (SESSION, BYTES(in)), (session, in, in_size))
PLAIN(C_VerifyFinal, (SESSION, BYTES(sign)), (session, sign, sign_size))
PLAIN(C_VerifyRecoverInit, (SESSION, MECHANISM, OBJECT), (session, mechanism, object))
FILLS(C_VerifyRecover, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size),
      out, out_size)
FILLS(C_DigestEncryptUpdate, (SESSION, BYTES(in), BUFFER(out)),
      (session, in, in_size, out, out_size), out, out_size)
FILLS(C_DecryptDigestUpdate, (SESSION, BYTES(in), BUFFER(out)),
      (session, in, in_size, out, out_size), out, out_size)
FILLS(C_SignEncryptUpdate, (SESSION, BYTES(in), BUFFER(out)), (session, in, in_size, out, out_size),
      out, out_size)
FILLS(C_DecryptVerifyUpdate, (SESSION, BYTES(in), BUFFER(out)),
      (session, in, in_size, out, out_size), out, out_size)
GIVES(C_GenerateKey, (SESSION, MECHANISM, TEMPLATE, CK_OBJECT_HANDLE *out),
      (session, mechanism, attributes, count, out), out)
CALL(C_GenerateKeyPair,
     (SESSION, MECHANISM, TEMPLATE, CK_ATTRIBUTE *others, CK_ULONG other_count,
      CK_OBJECT_HANDLE *public, CK_OBJECT_HANDLE *private),
     (session, mechanism, attributes, count, others, other_count, public, private),
     spoil(hit, public, sizeof(*public));
     spoil(hit, private, sizeof(*private)))
FILLS(C_WrapKey, (SESSION, MECHANISM, CK_OBJECT_HANDLE kek, OBJECT, BUFFER(out)),
      (session, mechanism, kek, object, out, out_size), out, out_size)
GIVES(C_UnwrapKey,
      (SESSION, MECHANISM, CK_OBJECT_HANDLE kek, BYTES(in), TEMPLATE, CK_OBJECT_HANDLE *out),
      (session, mechanism, kek, in, in_size, attributes, count, out), out)
GIVES(C_DeriveKey, (SESSION, MECHANISM, CK_OBJECT_HANDLE base, TEMPLATE, CK_OBJECT_HANDLE *out),
      (session, mechanism, base, attributes, count, out), out)
PLAIN(C_SeedRandom, (SESSION, BYTES(in)), (session, in, in_size))
CALL(C_GenerateRandom, (SESSION, BYTES(out)), (session, out, out_size), spoil(hit, out, out_size))
PLAIN(C_GetFunctionStatus, (SESSION), (session))
PLAIN(C_CancelFunction, (SESSION), (session))
PLAIN(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved),
      (flags, slot, reserved))

#define ENTRY(name) .name = fault_##name

static CK_FUNCTION_LIST functions = {
    .C_GetFunctionList = C_GetFunctionList,
    ENTRY(C_Initialize),
    ENTRY(C_Finalize),
    ENTRY(C_GetInfo),
    ENTRY(C_GetSlotList),
    ENTRY(C_GetSlotInfo),
    ENTRY(C_GetTokenInfo),
    ENTRY(C_GetMechanismList),
    ENTRY(C_GetMechanismInfo),
    ENTRY(C_InitToken),
    ENTRY(C_InitPIN),
    ENTRY(C_SetPIN),
    ENTRY(C_OpenSession),
    ENTRY(C_CloseSession),
    ENTRY(C_CloseAllSessions),
    ENTRY(C_GetSessionInfo),
    ENTRY(C_GetOperationState),
    ENTRY(C_SetOperationState),
    ENTRY(C_Login),
    ENTRY(C_Logout),
    ENTRY(C_CreateObject),
    ENTRY(C_CopyObject),
    ENTRY(C_DestroyObject),
    ENTRY(C_GetObjectSize),
    ENTRY(C_GetAttributeValue),
    ENTRY(C_SetAttributeValue),
    ENTRY(C_FindObjectsInit),
    ENTRY(C_FindObjects),
    ENTRY(C_FindObjectsFinal),
    ENTRY(C_EncryptInit),
    ENTRY(C_Encrypt),
    ENTRY(C_EncryptUpdate),
    ENTRY(C_EncryptFinal),
    ENTRY(C_DecryptInit),
    ENTRY(C_Decrypt),
    ENTRY(C_DecryptUpdate),
    ENTRY(C_DecryptFinal),
    ENTRY(C_DigestInit),
    ENTRY(C_Digest),
    ENTRY(C_DigestUpdate),
    ENTRY(C_DigestKey),
    ENTRY(C_DigestFinal),
    ENTRY(C_SignInit),
    ENTRY(C_Sign),
    ENTRY(C_SignUpdate),
    ENTRY(C_SignFinal),
    ENTRY(C_SignRecoverInit),
    ENTRY(C_SignRecover),
    ENTRY(C_VerifyInit),
    ENTRY(C_Verify),
    ENTRY(C_VerifyUpdate),
    ENTRY(C_VerifyFinal),
    ENTRY(C_VerifyRecoverInit),
    ENTRY(C_VerifyRecover),
    ENTRY(C_DigestEncryptUpdate),
    ENTRY(C_DecryptDigestUpdate),
    ENTRY(C_SignEncryptUpdate),
    ENTRY(C_DecryptVerifyUpdate),
    ENTRY(C_GenerateKey),
    ENTRY(C_GenerateKeyPair),
    ENTRY(C_WrapKey),
    ENTRY(C_UnwrapKey),
    ENTRY(C_DeriveKey),
    ENTRY(C_SeedRandom),
    ENTRY(C_GenerateRandom),
    ENTRY(C_GetFunctionStatus),
    ENTRY(C_CancelFunction),
    ENTRY(C_WaitForSlotEvent),
};

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    if (fault.real == NULL) {
        read_plan();
        CK_RV rv = load_real();
        if (rv != CKR_OK)
            return rv;
        functions.version = fault.real->version;
    }
    *list = &functions;
    return CKR_OK;
}
