/*
 * restore_parts.c - where the time of a restore goes; `restore` starts it and makes the table
 *
 *   restore_parts CONFIG PASSWORD     restores, prints microseconds: Argon2 alone at the cost of
 * the password's slot, then from the answer of the password until the end: Argon2, HSM, database,
 * all
 *
 * The program's own argon2_ctx(), sqlite3_...() and p11_kit_module_load() stand before those of the
 * libraries: they call them and look at the clock.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <argon2.h>
#include <p11-kit/p11-kit.h>
#include <sqlite3.h>

#include "keystore.h"

static double in_argon2, in_hsm, in_database, answered;
static int depth; /* SQLite calls itself */

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void add(double *to, double begun)
{
    if (answered > 0)
        *to += now_us() - begun;
}

/* ---- what stands before the libraries' own ---- */

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

int argon2_ctx(argon2_context *context, argon2_type type)
{
    double begun = now_us();
    int result = REAL(argon2_ctx)(context, type);

    add(&in_argon2, begun);
    return result;
}

#define DATABASE(name, parameters, arguments)                                                      \
    int name parameters                                                                            \
    {                                                                                              \
        double begun = now_us();                                                                   \
        depth++;                                                                                   \
        int result = REAL(name) arguments;                                                         \
        if (--depth == 0)                                                                          \
            add(&in_database, begun);                                                              \
        return result;                                                                             \
    }
DATABASE(sqlite3_step, (sqlite3_stmt * s), (s))
DATABASE(sqlite3_reset, (sqlite3_stmt * s), (s))
DATABASE(sqlite3_finalize, (sqlite3_stmt * s), (s))
DATABASE(sqlite3_close, (sqlite3 * d), (d))
DATABASE(sqlite3_exec,
         (sqlite3 * d, const char *sql, int (*each)(void *, int, char **, char **), void *arg,
          char **error),
         (d, sql, each, arg, error))
DATABASE(sqlite3_open_v2, (const char *path, sqlite3 **d, int flags, const char *vfs),
         (path, d, flags, vfs))
DATABASE(sqlite3_prepare_v2,
         (sqlite3 * d, const char *sql, int size, sqlite3_stmt **s, const char **tail),
         (d, sql, size, s, tail))

static CK_FUNCTION_LIST token;

#define HSM(name, parameters, arguments)                                                           \
    static CK_RV name parameters                                                                   \
    {                                                                                              \
        double begun = now_us();                                                                   \
        CK_RV result = token.C_##name arguments;                                                   \
        add(&in_hsm, begun);                                                                       \
        return result;                                                                             \
    }
#define SESSION CK_SESSION_HANDLE s
#define BYTES(name) CK_BYTE *name, CK_ULONG name##_size
HSM(GetSlotList, (CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count), (present, list, count))
HSM(GetTokenInfo, (CK_SLOT_ID id, CK_TOKEN_INFO *info), (id, info))
HSM(OpenSession, (CK_SLOT_ID id, CK_FLAGS flags, void *arg, CK_NOTIFY notify, CK_SESSION_HANDLE *s),
    (id, flags, arg, notify, s))
HSM(CloseSession, (SESSION), (s))
HSM(Login, (SESSION, CK_USER_TYPE user, BYTES(pin)), (s, user, pin, pin_size))
HSM(FindObjectsInit, (SESSION, CK_ATTRIBUTE *a, CK_ULONG count), (s, a, count))
HSM(FindObjects, (SESSION, CK_OBJECT_HANDLE *found, CK_ULONG max, CK_ULONG *count),
    (s, found, max, count))
HSM(FindObjectsFinal, (SESSION), (s))
HSM(GetAttributeValue, (SESSION, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *a, CK_ULONG count),
    (s, o, a, count))
HSM(CreateObject, (SESSION, CK_ATTRIBUTE *a, CK_ULONG count, CK_OBJECT_HANDLE *o), (s, a, count, o))
HSM(DestroyObject, (SESSION, CK_OBJECT_HANDLE o), (s, o))
HSM(GenerateKey, (SESSION, CK_MECHANISM *m, CK_ATTRIBUTE *a, CK_ULONG count, CK_OBJECT_HANDLE *o),
    (s, m, a, count, o))
HSM(WrapKey,
    (SESSION, CK_MECHANISM *m, CK_OBJECT_HANDLE kek, CK_OBJECT_HANDLE o, CK_BYTE *out,
     CK_ULONG *size),
    (s, m, kek, o, out, size))
HSM(UnwrapKey,
    (SESSION, CK_MECHANISM *m, CK_OBJECT_HANDLE kek, BYTES(in), CK_ATTRIBUTE *a, CK_ULONG count,
     CK_OBJECT_HANDLE *o),
    (s, m, kek, in, in_size, a, count, o))
HSM(EncryptInit, (SESSION, CK_MECHANISM *m, CK_OBJECT_HANDLE o), (s, m, o))
HSM(Encrypt, (SESSION, BYTES(in), CK_BYTE *out, CK_ULONG *size), (s, in, in_size, out, size))
HSM(DecryptInit, (SESSION, CK_MECHANISM *m, CK_OBJECT_HANDLE o), (s, m, o))
HSM(Decrypt, (SESSION, BYTES(in), CK_BYTE *out, CK_ULONG *size), (s, in, in_size, out, size))

CK_FUNCTION_LIST *p11_kit_module_load(const char *path, int flags)
{
    CK_FUNCTION_LIST *list = REAL(p11_kit_module_load)(path, flags);

    if (list == NULL)
        return NULL;
    token = *list;
#define TIME(name) list->C_##name = name
    TIME(GetSlotList), TIME(GetTokenInfo), TIME(OpenSession), TIME(CloseSession), TIME(Login);
    TIME(FindObjectsInit), TIME(FindObjects), TIME(FindObjectsFinal), TIME(GetAttributeValue);
    TIME(CreateObject), TIME(DestroyObject), TIME(GenerateKey), TIME(WrapKey), TIME(UnwrapKey);
    TIME(EncryptInit), TIME(Encrypt), TIME(DecryptInit), TIME(Decrypt);
    return list;
}

/* ---- the restore ---- */

static void need(tpks_result result, const char *what)
{
    if (result == TPKS_OK)
        return;
    fprintf(stderr, "restore_parts: %s: %s\n", what, tpks_error_text());
    exit(1);
}

static int ask(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
               size_t *length)
{
    (void)purpose;
    (void)info;
    *length = strlen(arg);
    if (*length > size)
        return 0;
    memcpy(buffer, arg, *length);
    answered = now_us();
    return 1;
}

static tpks_result keep_cost(void *arg, const tpks_slot_info *slot)
{
    if (slot->cost.t != 0)
        *(tpks_kdf_cost *)arg = slot->cost;
    return TPKS_OK;
}

static double argon2_alone(const tpks_options *options, const char *password)
{
    TPKS *ks = NULL;
    tpks_kdf_cost cost = {0};
    unsigned char salt[32] = {0}, out[32];

    need(tpks_open(options, &ks), "open");
    need(tpks_each_slot(ks, keep_cost, &cost), "slots");
    tpks_close(ks);
    double begun = now_us();
    if (argon2id_hash_raw(cost.t, cost.m_kib, cost.p, password, strlen(password), salt,
                          sizeof(salt), out, sizeof(out)) != ARGON2_OK)
        need(TPKS_INTERNAL, "argon2id_hash_raw");
    return now_us() - begun;
}

int main(int argc, char **argv)
{
    TPKS_CONFIG *config = NULL;
    tpks_restore_params params = {0};
    tpks_restore_report report;

    if (argc != 3)
        return 64;
    need(tpks_config_load(argv[1], &config), argv[1]);
    tpks_options options = {.config = config, .ask = ask, .ask_arg = argv[2]};
    double alone = argon2_alone(&options, argv[2]);
    need(tpks_restore(&options, &params, &report), "restore");
    if (!report.restored || report.upgraded)
        need(TPKS_INTERNAL, "nothing was lost, or the cost was no default");
    printf("%.0f %.0f %.0f %.0f %.0f\n", alone, in_argon2, in_hsm, in_database,
           now_us() - answered);
    tpks_config_free(config);
    return 0;
}
