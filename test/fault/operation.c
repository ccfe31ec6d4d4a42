/* operation.c - what is disturbed: each operation on a keystore, and the places they start from */
#include "fault.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <p11-kit/p11-kit.h>
#include <p11-kit/pkcs11.h>

static const tpks_kdf_cost cheap = {.t = 1, .m_kib = 8192, .p = 1};

/* ---- small things ---------------------------------------------------------------------------- */

#define TRY(expression)                                                                            \
    do {                                                                                           \
        tpks_result try_ = (expression);                                                           \
        if (try_ != TPKS_OK)                                                                       \
            return try_;                                                                           \
    } while (0)

static void close_keystore(TPKS **ks)
{
    tpks_close(*ks);
}
static void free_secret(TPKS_SECRET **secret)
{
    tpks_secret_free(*secret);
}
static void free_record(TPKS_RECORD **record)
{
    tpks_record_free(*record);
}
static void free_text(char **text)
{
    free(*text);
}
#define KEYSTORE __attribute__((cleanup(close_keystore))) TPKS
#define SECRET __attribute__((cleanup(free_secret))) TPKS_SECRET
#define RECORD __attribute__((cleanup(free_record))) TPKS_RECORD
#define TEXT __attribute__((cleanup(free_text))) char

TPKS_SECRET *secret_from(const char *text)
{
    TPKS_SECRET *secret = tpks_secret_copy(text, strlen(text));
    must(secret != NULL, "memory");
    return secret;
}

static TPKS_SECRET *secret_file(const char *path)
{
    size_t size = 0;
    TEXT *data = read_all(path, &size);
    TPKS_SECRET *secret = tpks_secret_copy(data, size);
    must(secret != NULL, "memory");
    return secret;
}

tpks_options options_of(const context *c, tpks_access access)
{
    return (tpks_options){
        .config = c->config, .access = access, .ask = c->ask, .ask_arg = (void *)c->place};
}

/* ---- questions ------------------------------------------------------------------------------- */

int ask_and_refuse(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                   size_t *length)
{
    int fd = open(in_place(arg, "asked"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    (void)purpose;
    (void)info;
    (void)buffer;
    (void)size;
    (void)length;
    must(fd != -1 && write(fd, "?", 1) == 1, "noting a question");
    close(fd);
    return 0;
}

int ask_and_answer(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                   size_t *length)
{
    ask_and_refuse(arg, purpose, info, buffer, size, length);
    *length = strlen(PASSWORD);
    must(*length <= size, "room for the answer");
    memcpy(buffer, PASSWORD, *length);
    return 1;
}

long asked(const char *place)
{
    struct stat info;
    return stat(in_place(place, "asked"), &info) == 0 ? (long)info.st_size : 0;
}

/* ---- operations ------------------------------------------------------------------------------ */

tpks_result load_and_compare(context *c, TPKS *ks, const char *name)
{
    char file[64];
    RECORD *record = NULL;
    SECRET *pkcs8 = NULL;
    SECRET *expected = NULL;
    snprintf(file, sizeof(file), "%s.der", name);
    expected = secret_file(in_place(c->place, file));
    TRY(tpks_find(ks, &(tpks_selector){.name = name}, &record));
    TRY(tpks_load_key(ks, record, &pkcs8));
    c->wrong_key |= tpks_secret_size(pkcs8) != tpks_secret_size(expected) ||
                    memcmp(tpks_secret_data_const(pkcs8), tpks_secret_data_const(expected),
                           tpks_secret_size(expected)) != 0;
    return TPKS_OK;
}

static tpks_result op_load(context *c)
{
    KEYSTORE *ks = NULL;
    tpks_options options = options_of(c, TPKS_LOAD);
    TRY(tpks_open(&options, &ks));
    return load_and_compare(c, ks, "one");
}

static tpks_result open_to_write(const context *c, TPKS **ks)
{
    tpks_options options = options_of(c, TPKS_WRITE);
    return tpks_open(&options, ks);
}

static tpks_result add_key(const context *c, const char *name)
{
    char file[64];
    KEYSTORE *ks = NULL;
    SECRET *pkcs8 = NULL;
    snprintf(file, sizeof(file), "%s.der", name);
    pkcs8 = secret_file(in_place(c->place, file));
    TRY(open_to_write(c, &ks));
    return tpks_add(ks, name, pkcs8, NULL, TPKS_MAY_SIGN, NULL);
}

static tpks_result op_import(context *c)
{
    return add_key(c, "new");
}

static tpks_result op_init(context *c)
{
    SECRET *password = secret_from(PASSWORD);
    tpks_options options = options_of(c, TPKS_WRITE);
    tpks_create_params params = {.label = "fault", .password = password, .cost = cheap};
    return tpks_create(&options, &params, NULL);
}

static tpks_result op_restore(context *c)
{
    SECRET *password = secret_from(PASSWORD);
    tpks_options options = options_of(c, TPKS_WRITE);
    tpks_restore_params params = {.secret = password};
    tpks_restore_report report;
    return tpks_restore(&options, &params, &report);
}

static tpks_result op_rotate(context *c)
{
    KEYSTORE *ks = NULL;
    TRY(open_to_write(c, &ks));
    return tpks_rotate_kek(ks, NULL);
}

static tpks_result op_slot_add(context *c)
{
    KEYSTORE *ks = NULL;
    SECRET *password = secret_from(NEW_PASSWORD);
    TRY(open_to_write(c, &ks));
    return tpks_slot_add_password(ks, password, cheap, NULL);
}

static void read_id(const context *c, const char *file, unsigned char id[TPKS_ID_SIZE])
{
    size_t size = 0;
    TEXT *data = read_all(in_place(c->place, file), &size);
    must(size == TPKS_ID_SIZE, "%s has the wrong size", file);
    memcpy(id, data, TPKS_ID_SIZE);
}

static tpks_result remove_slot(const context *c, const char *file, bool destroy)
{
    KEYSTORE *ks = NULL;
    unsigned char id[TPKS_ID_SIZE];
    read_id(c, file, id);
    TRY(open_to_write(c, &ks));
    return tpks_slot_remove(ks, id, destroy);
}

static tpks_result op_slot_remove(context *c)
{
    return remove_slot(c, "extra.id", false);
}

static tpks_result op_slot_destroy(context *c)
{
    return remove_slot(c, "stale.id", true);
}

static tpks_result op_password_change(context *c)
{
    KEYSTORE *ks = NULL;
    SECRET *password = secret_from(NEW_PASSWORD);
    unsigned char id[TPKS_ID_SIZE];
    read_id(c, "extra.id", id);
    TRY(open_to_write(c, &ks));
    return tpks_password_change(ks, id, password, cheap, NULL);
}

/* Another program: this one's place in memory is taken by openssl, its text goes to PLACE/text. */
static tpks_result op_provider(context *c)
{
    char signature[PATH_ROOM], input[PATH_ROOM];
    int text = open(in_place(c->place, "text"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int none = open("/dev/null", O_RDONLY | O_CLOEXEC);
    must(text != -1 && none != -1 && dup2(text, 1) == 1 && dup2(text, 2) == 2 && dup2(none, 0) == 0,
         "output of openssl");
    snprintf(signature, sizeof(signature), "%s", in_place(c->place, "signature"));
    snprintf(input, sizeof(input), "%s", in_place(c->place, "pin"));
    setenv("OPENSSL_CONF", c->openssl_conf, 1);
    setenv("TRUSTPOINT_KEYSTORE_CONF", in_place(c->place, "keystore.cnf"), 1);
    execlp("openssl", "openssl", "dgst", "-sha256", "-sign", "trustpoint://one", "-out", signature,
           input, (char *)NULL);
    _exit(71);
}

operation_fn *operation_find(const char *name)
{
    static const struct {
        const char *name;
        operation_fn *run;
    } all[] = {
        {"load", op_load},
        {"import", op_import},
        {"init", op_init},
        {"restore", op_restore},
        {"load-restore", op_load},
        {"rotate", op_rotate},
        {"slot-add", op_slot_add},
        {"slot-remove", op_slot_remove},
        {"slot-destroy", op_slot_destroy},
        {"password-change", op_password_change},
        {"provider", op_provider},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i].name, name) == 0)
            return all[i].run;
    return NULL;
}

/* ---- what is on the token -------------------------------------------------------------------- */

static CK_SLOT_ID find_slot(CK_FUNCTION_LIST *functions)
{
    CK_SLOT_ID slots[16];
    CK_ULONG count = 16;
    CK_TOKEN_INFO info;
    must(functions->C_GetSlotList(CK_TRUE, slots, &count) == CKR_OK, "C_GetSlotList");
    for (CK_ULONG i = 0; i < count; i++)
        if (functions->C_GetTokenInfo(slots[i], &info) == CKR_OK &&
            (info.flags & CKF_TOKEN_INITIALIZED) != 0 &&
            memcmp(info.label, TOKEN_LABEL " ", sizeof(TOKEN_LABEL)) == 0)
            return slots[i];
    must(false, "the token is not there");
    return 0;
}

static CK_FUNCTION_LIST *open_session(const char *module, CK_FLAGS flags,
                                      CK_SESSION_HANDLE *session)
{
    CK_FUNCTION_LIST *functions = p11_kit_module_load(module, 0);
    must(functions != NULL, "loading %s", module);
    CK_RV rv = p11_kit_module_initialize(functions);
    must(rv == CKR_OK || rv == CKR_CRYPTOKI_ALREADY_INITIALIZED, "initialising %s", module);
    rv = functions->C_OpenSession(find_slot(functions), CKF_SERIAL_SESSION | flags, NULL, NULL,
                                  session);
    must(rv == CKR_OK, "C_OpenSession: 0x%lx", rv);
    rv = functions->C_Login(*session, CKU_USER, (unsigned char *)PIN, strlen(PIN));
    must(rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN, "C_Login: 0x%lx", rv);
    return functions;
}

static CK_ULONG find_keys(CK_FUNCTION_LIST *functions, CK_SESSION_HANDLE session,
                          CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *found, CK_ULONG room)
{
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG count = 0;
    CK_ATTRIBUTE template[] = {{CKA_TOKEN, &yes, sizeof(yes)}, {CKA_CLASS, &class, sizeof(class)}};
    must(functions->C_FindObjectsInit(session, template, 2) == CKR_OK &&
             functions->C_FindObjects(session, found, room, &count) == CKR_OK &&
             functions->C_FindObjectsFinal(session) == CKR_OK,
         "listing the token");
    return count;
}

/* A key whose CKA_ID can't be read has the id 0: half an object, as a killed process leaves it. */
static void add_ids(CK_FUNCTION_LIST *functions, CK_SESSION_HANDLE session, CK_OBJECT_CLASS class,
                    key_ids *out)
{
    CK_OBJECT_HANDLE found[16];
    CK_ULONG count = find_keys(functions, session, class, found, 16);
    for (CK_ULONG i = 0; i < count && out->count < 32; i++) {
        CK_ATTRIBUTE id = {CKA_ID, out->id[out->count], TPKS_ID_SIZE};
        memset(out->id[out->count], 0, TPKS_ID_SIZE);
        if (functions->C_GetAttributeValue(session, found[i], &id, 1) != CKR_OK ||
            id.ulValueLen != TPKS_ID_SIZE)
            memset(out->id[out->count], 0, TPKS_ID_SIZE);
        out->count++;
    }
}

void list_keks(const char *module, key_ids *out)
{
    CK_SESSION_HANDLE session;
    CK_FUNCTION_LIST *functions = open_session(module, 0, &session);
    out->count = 0;
    add_ids(functions, session, CKO_SECRET_KEY, out);
    add_ids(functions, session, CKO_PRIVATE_KEY, out);
    functions->C_CloseSession(session);
}

static void destroy_keks(const char *module)
{
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE found[16];
    CK_FUNCTION_LIST *functions = open_session(module, CKF_RW_SESSION, &session);
    CK_ULONG count = find_keys(functions, session, CKO_SECRET_KEY, found, 16);
    must(count > 0, "there is no KEK to lose");
    for (CK_ULONG i = 0; i < count; i++)
        must(functions->C_DestroyObject(session, found[i]) == CKR_OK, "C_DestroyObject");
    functions->C_CloseSession(session);
}

/* In a process of its own: a module remembers what it has seen. */
void lose_keks(const char *place)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        use_place(place);
        destroy_keks(getenv("FAULT_MODULE"));
        exit(0);
    }
    must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "losing the KEK of %s", place);
}

/* ---- the places to start from ---------------------------------------------------------------- */

static void make_key(const char *place, const char *name)
{
    char file[64];
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
    must(size > 0, "making a key");
    snprintf(file, sizeof(file), "%s.der", name);
    write_bytes(in_place(place, file), der, (size_t)size);
    OPENSSL_free(der);
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
}

static void make_empty(const char *place, const char *module)
{
    must(mkdir(place, 0700) == 0 && mkdir(in_place(place, "tokens"), 0700) == 0 &&
             mkdir(in_place(place, "state"), 0700) == 0,
         "making %s", place);
    init_token(place);
    write_text(in_place(place, "pin"), PIN "\n");
    write_configuration(place, "auto/load", module);
    make_key(place, "one");
    make_key(place, "two");
    make_key(place, "new");
}

static void succeed(tpks_result result, const char *what)
{
    must(result == TPKS_OK, "%s: %s", what, tpks_error_text());
}

static void prepare_full(context *c)
{
    unsigned char id[TPKS_ID_SIZE];
    KEYSTORE *ks = NULL;
    SECRET *password = secret_from(EXTRA_PASSWORD);
    succeed(op_init(c), "init");
    succeed(add_key(c, "one"), "one");
    succeed(add_key(c, "two"), "two");
    succeed(open_to_write(c, &ks), "open");
    succeed(tpks_slot_add_password(ks, password, cheap, id), "slot add");
    write_bytes(in_place(c->place, "extra.id"), id, sizeof(id));
}

static void prepare_rotated(context *c)
{
    unsigned char old[TPKS_ID_SIZE];
    KEYSTORE *ks = NULL;
    succeed(open_to_write(c, &ks), "open");
    succeed(tpks_unlock(ks), "unlock");
    must(tpks_unlocked_slot(ks, old), "no slot unlocked");
    succeed(tpks_rotate_kek(ks, NULL), "rotate");
    write_bytes(in_place(c->place, "stale.id"), old, sizeof(old));
}

static void prepare(const char *place, const char *module, void (*work)(context *))
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        context c = {.place = place};
        use_place(place);
        write_configuration(place, "auto/load", module);
        succeed(tpks_config_load(in_place(place, "keystore.cnf"), &c.config), "configuration");
        work(&c);
        exit(0);
    }
    must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "making %s", place);
}

void make_bases(const char *base, const char *module)
{
    char empty[PATH_ROOM], full[PATH_ROOM], lost[PATH_ROOM], rotated[PATH_ROOM];
    must(mkdir(base, 0700) == 0, "mkdir %s", base);
    snprintf(empty, sizeof(empty), "%s", in_place(base, "empty"));
    snprintf(full, sizeof(full), "%s", in_place(base, "full"));
    snprintf(lost, sizeof(lost), "%s", in_place(base, "lost"));
    snprintf(rotated, sizeof(rotated), "%s", in_place(base, "rotated"));
    make_empty(empty, module);
    copy_tree(empty, full);
    prepare(full, module, prepare_full);
    copy_tree(full, lost);
    lose_keks(lost);
    copy_tree(full, rotated);
    prepare(rotated, module, prepare_rotated);
}
