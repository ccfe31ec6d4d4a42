/*
 * hsm_kek.c - key encryption keys on the token: find, make, destroy
 */
#include "hsm_internal.h"

#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#define RSA_KEK_BITS 3072
#define VISIBLE_TRIES 8

/* ---- find ------------------------------------------------------------------------------------ */

CK_RV find_objects(struct hsm_connection *connection, CK_OBJECT_CLASS class,
                   const unsigned char *cka_id, CK_OBJECT_HANDLE found[2], CK_ULONG *count)
{
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_ID, (void *)cka_id, CKA_ID_SIZE},
    };
    return connection_search(connection, template, 3, found, 2, count);
}

/* With exactly the attributes that Trustpoint searches by, so that both see the same keys. */
static CK_RV find_by_label(struct hsm_connection *connection, const char *label,
                           CK_OBJECT_HANDLE *kek, CK_ULONG *count)
{
    CK_OBJECT_HANDLE found[2];
    CK_KEY_TYPE type = CKK_AES;
    CK_ATTRIBUTE template[] = {
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_LABEL, (void *)label, strlen(label)},
    };
    CK_RV rv = connection_search(connection, template, 2, found, 2, count);
    if (rv == CKR_OK && *count > 0)
        *kek = found[0];
    return rv;
}

CK_RV find_kek(struct hsm_connection *connection, const struct kek_name *name,
               CK_OBJECT_HANDLE *kek, CK_ULONG *count)
{
    CK_OBJECT_HANDLE secret[2], private[2];
    CK_ULONG secrets = 0, privates = 0;
    if (name->cka_id == NULL)
        return find_by_label(connection, name->label, kek, count);
    CK_RV rv = find_objects(connection, CKO_SECRET_KEY, name->cka_id, secret, &secrets);
    if (rv == CKR_OK)
        rv = find_objects(connection, CKO_PRIVATE_KEY, name->cka_id, private, &privates);
    *count = secrets + privates;
    if (rv == CKR_OK && *count == 1)
        *kek = secrets == 1 ? secret[0] : private[0];
    return rv;
}

static tpks_result check_label_count(const HSM *hsm, const char *label, CK_ULONG count)
{
    if (count == 0)
        return fail(TPKS_KEK_MISSING,
                    "HSM token \"%s\" (%s): found and logged in, but it has no AES key labelled "
                    "\"%.100s\", Trustpoint's KEK: restore it",
                    hsm->label, hsm_module_name(hsm), label);
    return fail(TPKS_KEK_FOREIGN,
                "HSM token \"%s\" (%s): it has several AES keys labelled \"%.100s\", so that "
                "Trustpoint can't use either: destroy or rename the one that is not its KEK",
                hsm->label, hsm_module_name(hsm), label);
}

tpks_result check_kek_count(const HSM *hsm, const struct kek_name *name, CK_ULONG count)
{
    if (count == 1)
        return TPKS_OK;
    if (name->cka_id == NULL)
        return check_label_count(hsm, name->label, count);
    if (count == 0)
        return fail(TPKS_KEK_MISSING,
                    "HSM token \"%s\" (%s): found and logged in, but the keystore's KEK is not on "
                    "it: restore with a backup password or recovery key",
                    hsm->label, hsm_module_name(hsm));
    return fail(TPKS_KEK_FOREIGN,
                "HSM token \"%s\" (%s): it has several keys with the id of the keystore's KEK: "
                "destroy the one that does not belong there",
                hsm->label, hsm_module_name(hsm));
}

/* Does the module still show the token? Under load this fails at times, so try again. */
static tpks_result check_visible(HSM *hsm)
{
    struct hsm_connection *connection = hsm->connection;
    CK_TOKEN_INFO info;
    CK_SLOT_ID slot;
    for (unsigned i = 0; i < VISIBLE_TRIES; i++) {
        unsigned matches = 0;
        {
            HOLD(&connection->module->mutex);
            if (module_find_token(connection->module, &connection->uri, &matches, &slot, &info) ==
                    CKR_OK &&
                matches == 1)
                return TPKS_OK;
        }
        pause_jittered(i);
    }
    return fail(TPKS_TOKEN_MISSING,
                "HSM token \"%s\" (%s): it was removed or replaced while this process used it: "
                "restart the program",
                hsm->label, hsm_module_name(hsm));
}

tpks_result confirm_missing(HSM *hsm, bool *again)
{
    struct hsm_connection *connection = hsm->connection;
    *again = !hsm->missing_confirmed && !connection->shared && !connection->fresh;
    hsm->missing_confirmed = true;
    if (connection->shared)
        return check_visible(hsm);
    if (!*again)
        return TPKS_OK;
    TRY(connection_recover(connection, &hsm->caller, connection_generation(connection),
                           RECOVER_MODULE));
    /* Sessions of others in this process, such as keepers, keep the module as it is. */
    return connection->fresh ? TPKS_OK : check_visible(hsm);
}

struct find_job {
    struct keeper_job base;
    struct kek_name name;
    CK_ULONG count;
};

static CK_RV find_run(struct hsm_connection *connection, struct keeper_job *base)
{
    struct find_job *job = (struct find_job *)base;
    CK_OBJECT_HANDLE kek;
    return find_kek(connection, &job->name, &kek, &job->count);
}

static tpks_result find(HSM *hsm, struct find_job *job)
{
    CK_RV rv;
    job->base.run = find_run;
    TRY(keeper_run(hsm->connection, &hsm->caller, &job->base, &rv));
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), hsm->connection, "searching the KEK", rv);
    return TPKS_OK;
}

static tpks_result find_named(HSM *hsm, struct kek_name name)
{
    HSM_GUARD guard;
    TRY(hsm_enter(&guard, hsm->process));
    struct find_job job = {.name = name};
    bool again = false;
    TRY(find(hsm, &job));
    if (job.count == 0)
        TRY(confirm_missing(hsm, &again));
    if (again)
        TRY(find(hsm, &job));
    return check_kek_count(hsm, &name, job.count);
}

tpks_result hsm_find_kek(HSM *hsm, const unsigned char cka_id[CKA_ID_SIZE])
{
    return find_named(hsm, (struct kek_name){.cka_id = cka_id});
}

tpks_result hsm_find_kek_by_label(HSM *hsm, const char *label)
{
    return find_named(hsm, (struct kek_name){.label = label});
}

/* ---- destroy --------------------------------------------------------------------------------- */

static CK_RV destroy_class(struct hsm_connection *connection, CK_OBJECT_CLASS class,
                           const unsigned char *cka_id)
{
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)},
                               {CKA_TOKEN, &yes, sizeof(yes)},
                               {CKA_ID, (void *)cka_id, CKA_ID_SIZE}};
    return connection_destroy(connection, template, 3);
}

void make_durable(void)
{
    sync();
}

CK_RV destroy_by_id(struct hsm_connection *connection, const unsigned char *cka_id)
{
    static const CK_OBJECT_CLASS classes[] = {CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY};
    SIGNALS_BLOCKED;
    CK_RV rv = CKR_OK;
    for (size_t i = 0; rv == CKR_OK && i < sizeof(classes) / sizeof(classes[0]); i++)
        rv = destroy_class(connection, classes[i], cka_id);
    return rv;
}

tpks_result check_may_write(const HSM *hsm)
{
    if (hsm->connection->write)
        return TPKS_OK;
    return fail(TPKS_NOT_PERMITTED,
                "HSM token \"%s\": it is open for reading only: open it for writing", hsm->label);
}

static CK_RV destroy_run(struct hsm_connection *connection, struct keeper_job *base)
{
    return destroy_by_id(connection, ((struct find_job *)base)->name.cka_id);
}

tpks_result hsm_destroy_kek(HSM *hsm, const unsigned char cka_id[CKA_ID_SIZE])
{
    HSM_GUARD guard;
    TRY(hsm_enter(&guard, hsm->process));
    TRY(check_may_write(hsm));
    struct find_job job = {.base.run = destroy_run, .name = {.cka_id = cka_id}};
    CK_RV rv;
    TRY(keeper_run(hsm->connection, &hsm->caller, &job.base, &rv));
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), hsm->connection, "destroying the KEK", rv);
    make_durable();
    return TPKS_OK;
}

/* ---- make ------------------------------------------------------------------------------------ */

/* What is being made; `kek` unwraps, `wrapper` wraps (the public key with RSA). */
struct making {
    HSM *hsm;
    struct hsm_connection *connection;
    const unsigned char *cka_id;
    const char *label;
    const TPKS_SECRET *dek;
    enum kek_kind kind; /* what is on the token now */
    CK_RV stuck;        /* why a key could not be destroyed */
    CK_OBJECT_HANDLE kek, wrapper;
    unsigned char *wrapped;
    unsigned char *iv;
    hsm_wrapped result;
};

static CK_RV generate_aes(struct making *making, bool encrypts)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG size = 32;
    CK_ATTRIBUTE template[] = {
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {encrypts ? CKA_ENCRYPT : CKA_WRAP, &yes, sizeof(yes)},
        {encrypts ? CKA_DECRYPT : CKA_UNWRAP, &yes, sizeof(yes)},
        {CKA_VALUE_LEN, &size, sizeof(size)},
        {CKA_ID, (void *)making->cka_id, CKA_ID_SIZE},
        {CKA_LABEL, (void *)making->label, strlen(making->label)},
    };
    CK_RV rv = making->connection->module->functions->C_GenerateKey(
        making->connection->session, &mechanism, template, sizeof(template) / sizeof(template[0]),
        &making->kek);
    making->wrapper = making->kek;
    return rv;
}

/* `unwraps`: some tokens can only decrypt with RSA and refuse a key that shall unwrap. */
static CK_RV generate_rsa(struct making *making, bool unwraps)
{
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG bits = RSA_KEK_BITS;
    unsigned char exponent[] = {1, 0, 1};
    CK_ATTRIBUTE public[] = {
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_ENCRYPT, &yes, sizeof(yes)},
        {CKA_MODULUS_BITS, &bits, sizeof(bits)},
        {CKA_PUBLIC_EXPONENT, exponent, sizeof(exponent)},
        {CKA_ID, (void *)making->cka_id, CKA_ID_SIZE},
        {CKA_LABEL, (void *)making->label, strlen(making->label)},
    };
    CK_ATTRIBUTE private[] = {
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_DECRYPT, &yes, sizeof(yes)},
        {CKA_ID, (void *)making->cka_id, CKA_ID_SIZE},
        {CKA_LABEL, (void *)making->label, strlen(making->label)},
        {CKA_UNWRAP, &yes, sizeof(yes)},
    };
    CK_ULONG count = sizeof(private) / sizeof(private[0]) - (unwraps ? 0 : 1);
    return making->connection->module->functions->C_GenerateKeyPair(
        making->connection->session, &mechanism, public, sizeof(public) / sizeof(public[0]),
        private, count, &making->wrapper, &making->kek);
}

static CK_RV generate(struct making *making, enum kek_kind kind)
{
    SIGNALS_BLOCKED; /* killed here, SoftHSM keeps half an object or loses the token */
    making->kind = kind;
    if (kind != KEK_RSA)
        return generate_aes(making, kind == KEK_AES_ENCRYPT);
    CK_RV rv = generate_rsa(making, true);
    return ckr_result(rv) == TPKS_UNSUPPORTED ? generate_rsa(making, false) : rv;
}

/* A key that can't be destroyed again is the last one made: never more than one is left behind. */
static CK_RV discard(struct making *making)
{
    if (making->kind != KEK_NONE && making->stuck == CKR_OK)
        making->stuck = destroy_by_id(making->connection, making->cka_id);
    making->kind = KEK_NONE;
    return making->stuck;
}

static tpks_result provide_kek(struct making *making, enum kek_kind kind)
{
    if (making->kind == kind)
        return TPKS_OK;
    CK_RV rv = discard(making);
    if (rv == CKR_OK)
        rv = generate(making, kind);
    if (rv == CKR_OK)
        return TPKS_OK;
    discard(making);
    return fail_ckr(ckr_result(rv), making->connection, "generating the KEK", rv);
}

static tpks_result wrap(struct making *making, const struct wrap_method *method)
{
    TRY(provide_kek(making, method->kind));
    if (RAND_bytes_ex(hsm_libctx(), making->iv, method->iv_size, 0) != 1)
        return fail_crypto(TPKS_INTERNAL, "random bytes for the KEK");
    making->result = (hsm_wrapped){.cka_id = making->cka_id,
                                   .algorithm = method->algorithm,
                                   .iv = making->iv,
                                   .iv_size = method->iv_size,
                                   .data = making->wrapped};
    TRY(wrap_dek(making->connection, method, making->wrapper, making->dek, making->iv,
                 making->wrapped, &making->result.size));
    if (!wrapped_is_well_formed(&making->result))
        return fail(TPKS_UNSUPPORTED, "HSM token \"%s\": its %s is not the standard one",
                    making->hsm->label, method->name);
    return TPKS_OK;
}

static tpks_result fail_unproven(const struct making *making, const struct wrap_method *method)
{
    return fail(TPKS_UNSUPPORTED,
                "HSM token \"%s\" (%s): it does not give back what it wrapped with %s",
                making->hsm->label, hsm_module_name(making->hsm), method->name);
}

/*
 * One algorithm, from generating to proof. `outside` asks for no more than the DEK coming back
 * into this process; *works_outside tells whether that is so.
 */
static tpks_result make_with(struct making *making, const struct wrap_method *method, bool outside,
                             bool *works_outside)
{
    TRY(wrap(making, method));
    *works_outside =
        dek_proves_outside(making->connection, making->kek, &making->result, making->dek);
    if (outside && *works_outside)
        return TPKS_OK;
    if (!outside &&
        dek_proves_inside(making->connection, making->kek, &making->result, making->dek))
        return TPKS_OK;
    return fail_unproven(making, method);
}

/* First an algorithm by which the DEK can stay inside; without one, the first that works at all. */
static tpks_result make_any(struct making *making, const wrap_algorithm *order, size_t size)
{
    tpks_result result = TPKS_UNSUPPORTED;
    const struct wrap_method *fallback = NULL;
    for (size_t i = 0; i < size; i++) {
        bool works_outside = false;
        const struct wrap_method *method = wrap_method(order[i]);
        result = make_with(making, method, false, &works_outside);
        if (result == TPKS_OK)
            return result;
        if (fallback == NULL && works_outside)
            fallback = method;
    }
    bool works_outside = false;
    if (fallback != NULL)
        result = make_with(making, fallback, true, &works_outside);
    if (result != TPKS_OK)
        discard(making);
    return result;
}

tpks_result check_id_is_free(HSM *hsm, const unsigned char *cka_id)
{
    struct find_job job = {.name = {.cka_id = cka_id}};
    TRY(find(hsm, &job));
    if (job.count != 0)
        return fail(TPKS_EXISTS,
                    "HSM token \"%s\": it has a key with this id already: choose another id",
                    hsm->label);
    return TPKS_OK;
}

tpks_result make_kek_from(HSM *hsm, const wrap_algorithm *order, size_t order_size,
                          const unsigned char cka_id[CKA_ID_SIZE], const char *label,
                          const TPKS_SECRET *dek, wrap_algorithm *algorithm, unsigned char *wrapped,
                          size_t *wrapped_size, unsigned char iv[16], size_t *iv_size)
{
    HSM_GUARD guard;
    TRY(hsm_enter(&guard, hsm->process));
    TRY(check_may_write(hsm));
    if (tpks_secret_size(dek) != DEK_SIZE)
        return fail(TPKS_BAD_INPUT, "DEK: it must have %d bytes", DEK_SIZE);
    TRY(check_id_is_free(hsm, cka_id));
    struct making making = {.hsm = hsm,
                            .connection = hsm->connection,
                            .cka_id = cka_id,
                            .label = label,
                            .dek = dek,
                            .wrapped = wrapped,
                            .iv = iv};
    HOLD(&hsm->connection->keeper);
    TRY(make_any(&making, order, order_size));
    make_durable();
    *algorithm = making.result.algorithm;
    *wrapped_size = making.result.size;
    *iv_size = making.result.iv_size;
    return TPKS_OK;
}

tpks_result hsm_make_kek(HSM *hsm, const unsigned char cka_id[CKA_ID_SIZE], const char *label,
                         const TPKS_SECRET *dek, wrap_algorithm *algorithm, unsigned char *wrapped,
                         size_t *wrapped_size, unsigned char iv[16], size_t *iv_size)
{
    static const wrap_algorithm order[] = {WRAP_AES_KW,          WRAP_AES_KWP,
                                           WRAP_RSA_OAEP_SHA256, WRAP_RSA_OAEP_SHA1,
                                           WRAP_AES_CBC_PAD,     WRAP_AES_GCM};
    return make_kek_from(hsm, order, sizeof(order) / sizeof(order[0]), cka_id, label, dek,
                         algorithm, wrapped, wrapped_size, iv, iv_size);
}
