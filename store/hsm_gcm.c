/*
 * hsm_gcm.c - DEKs as objects inside the token, and AES-256-GCM with them
 */
#include "hsm_internal.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#define OPERATION_TRIES 3

/* The wrapped form stays at hand, for when the object is lost with its session. */
struct kept_dek {
    struct kept_dek *next;
    unsigned char dek_id[16];
    unsigned char cka_id[CKA_ID_SIZE];
    char *label; /* instead of the id; NULL: there is an id */
    unsigned char iv[16];
    unsigned char data[WRAPPED_MAX];
    hsm_wrapped wrapped; /* points to the above */
    bool inside;         /* `object` is good at this generation of the connection */
    uint64_t generation;
    CK_OBJECT_HANDLE object;
};

struct hsm_dek {
    HSM *hsm;
    struct kept_dek *kept;
};

/* ---- AES-GCM --------------------------------------------------------------------------------- */

static CK_RV gcm_in_session(CK_FUNCTION_LIST *functions, CK_SESSION_HANDLE session,
                            CK_OBJECT_HANDLE key, struct gcm_job *job)
{
    struct mechanism mechanism;
    CK_ULONG size = job->out_room;
    unsigned char *in = (unsigned char *)job->in;
    mechanism_set_gcm(&mechanism, job->nonce, job->aad, job->aad_size);
    CK_RV rv = job->seal ? functions->C_EncryptInit(session, &mechanism.mechanism, key)
                         : functions->C_DecryptInit(session, &mechanism.mechanism, key);
    if (rv != CKR_OK)
        return rv;
    /* In one part: some modules hand out plaintext before they have seen the tag. */
    rv = job->seal ? functions->C_Encrypt(session, in, job->in_size, job->out, &size)
                   : functions->C_Decrypt(session, in, job->in_size, job->out, &size);
    job->out_size = size;
    return rv;
}

CK_RV gcm_once(struct hsm_connection *connection, CK_OBJECT_HANDLE key, struct gcm_job *job)
{
    CK_SESSION_HANDLE session;
    CK_RV rv = session_take(connection, &session);
    if (rv != CKR_OK)
        return rv;
    rv = gcm_in_session(connection->module->functions, session, key, job);
    session_give(connection, session, rv != CKR_OK);
    size_t expected = job->seal ? job->in_size + GCM_TAG_SIZE : job->in_size - GCM_TAG_SIZE;
    if (rv == CKR_OK && job->out_size != expected)
        rv = CKR_FUNCTION_FAILED;
    if (rv != CKR_OK)
        OPENSSL_cleanse(job->out, job->out_room); /* some modules leave plaintext there */
    return rv;
}

/* Opens what was sealed, expects `plain`. */
static CK_RV gcm_open_and_compare(struct hsm_connection *connection, CK_OBJECT_HANDLE key,
                                  const struct gcm_job *sealed, const unsigned char *plain,
                                  size_t size)
{
    unsigned char opened[64];
    struct gcm_job job = *sealed;
    job.seal = false;
    job.in = sealed->out;
    job.in_size = size + GCM_TAG_SIZE;
    job.out = opened;
    job.out_room = size + GCM_TAG_SIZE;
    CK_RV rv = gcm_once(connection, key, &job);
    if (rv == CKR_OK && memcmp(opened, plain, size) != 0)
        rv = CKR_FUNCTION_FAILED;
    return rv;
}

/* Seals and opens `size` zero bytes (at most 32); `sealed` gets size + GCM_TAG_SIZE bytes. */
static CK_RV gcm_round_trip(struct hsm_connection *connection, CK_OBJECT_HANDLE key,
                            const unsigned char nonce[GCM_NONCE_SIZE], size_t size,
                            unsigned char *sealed)
{
    static const unsigned char zeros[32];
    struct gcm_job job = {
        .seal = true,
        .nonce = nonce,
        .in = zeros,
        .in_size = size,
        .out = sealed,
        .out_room = size + GCM_TAG_SIZE,
    };
    CK_RV rv = gcm_once(connection, key, &job);
    return rv == CKR_OK ? gcm_open_and_compare(connection, key, &job, zeros, size) : rv;
}

CK_RV gcm_try(struct hsm_connection *connection, CK_OBJECT_HANDLE key)
{
    unsigned char nonce[GCM_NONCE_SIZE], sealed[16 + GCM_TAG_SIZE];
    if (RAND_bytes_ex(hsm_libctx(), nonce, sizeof(nonce), 0) != 1)
        return CKR_HOST_MEMORY;
    return gcm_round_trip(connection, key, nonce, 16, sealed);
}

/* The same with libcrypto, 32 zero bytes. */
static bool host_seal(const TPKS_SECRET *dek, const unsigned char nonce[GCM_NONCE_SIZE],
                      unsigned char sealed[32 + GCM_TAG_SIZE])
{
    static const unsigned char zeros[32];
    int size = 0;
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(hsm_libctx(), "AES-256-GCM", NULL);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = cipher != NULL && ctx != NULL &&
              EVP_EncryptInit_ex2(ctx, cipher, tpks_secret_data_const(dek), nonce, NULL) == 1 &&
              EVP_EncryptUpdate(ctx, sealed, &size, zeros, sizeof(zeros)) == 1 &&
              EVP_EncryptFinal_ex(ctx, sealed + size, &size) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, GCM_TAG_SIZE, sealed + 32) == 1;
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    return ok;
}

/* ---- into the token -------------------------------------------------------------------------- */

bool flag_is(struct hsm_connection *connection, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
             CK_BBOOL expected)
{
    CK_BBOOL value = CK_FALSE;
    CK_ATTRIBUTE attribute = {type, &value, sizeof(value)};
    CK_RV rv = connection->module->functions->C_GetAttributeValue(connection->session, object,
                                                                  &attribute, 1);
    return rv == CKR_OK && attribute.ulValueLen == sizeof(value) && !value == !expected;
}

/* Some modules refuse to set what is so already, so only what is wrong is set. */
static bool harden_flag(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                        CK_ATTRIBUTE_TYPE type, CK_BBOOL wanted)
{
    if (flag_is(connection, object, type, wanted))
        return true;
    CK_ATTRIBUTE attribute = {type, &wanted, sizeof(wanted)};
    return connection->module->functions->C_SetAttributeValue(connection->session, object,
                                                              &attribute, 1) == CKR_OK &&
           flag_is(connection, object, type, wanted);
}

static bool harden(struct hsm_connection *connection, CK_OBJECT_HANDLE object)
{
    return harden_flag(connection, object, CKA_SENSITIVE, CK_TRUE) &&
           harden_flag(connection, object, CKA_EXTRACTABLE, CK_FALSE);
}

/*
 * Modules unwrap a wrong CBC padding to a key of another size and say CKR_OK. Some don't tell the
 * size of an unwrapped key, or call it 0: the DEK's check value is the proof in any case.
 */
static bool has_dek_size(struct hsm_connection *connection, CK_OBJECT_HANDLE object)
{
    CK_ULONG size = 0;
    CK_ATTRIBUTE attribute = {CKA_VALUE_LEN, &size, sizeof(size)};
    CK_RV rv = connection->module->functions->C_GetAttributeValue(connection->session, object,
                                                                  &attribute, 1);
    return rv != CKR_OK || size == 0 || size == DEK_SIZE;
}

static void destroy(struct hsm_connection *connection, CK_OBJECT_HANDLE object)
{
    connection->module->functions->C_DestroyObject(connection->session, object);
}

bool dek_proves_inside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                       const hsm_wrapped *wrapped, const TPKS_SECRET *dek)
{
    unsigned char nonce[GCM_NONCE_SIZE], ours[32 + GCM_TAG_SIZE], theirs[32 + GCM_TAG_SIZE];
    CK_OBJECT_HANDLE object;
    if (RAND_bytes_ex(hsm_libctx(), nonce, sizeof(nonce), 0) != 1 || !host_seal(dek, nonce, ours) ||
        unwrap_inside(connection, kek, wrapped, &object) != CKR_OK)
        return false;
    bool proven = harden(connection, object) &&
                  gcm_round_trip(connection, object, nonce, 32, theirs) == CKR_OK &&
                  memcmp(ours, theirs, sizeof(ours)) == 0;
    destroy(connection, object);
    return proven;
}

bool dek_proves_outside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                        const hsm_wrapped *wrapped, const TPKS_SECRET *dek)
{
    TPKS_SECRET *copy = tpks_secret_new(WRAPPED_MAX);
    size_t size = 0;
    bool proven =
        copy != NULL &&
        unwrap_outside(connection, kek, wrapped, tpks_secret_data(copy), &size) == CKR_OK &&
        size == tpks_secret_size(dek) &&
        CRYPTO_memcmp(tpks_secret_data(copy), tpks_secret_data_const(dek), size) == 0;
    tpks_secret_free(copy);
    return proven;
}

/* ---- unwrap, as work in the keeper session ----------------------------------------------------
 */

struct unwrap_job {
    struct keeper_job base;
    const hsm_wrapped *wrapped;
    CK_ULONG keks;         /* found; the rest is valid with one */
    bool unusable;         /* unwrapped, but the token can't hold or use it as it must */
    bool foreign;          /* unwrapped to something that is no DEK */
    struct kept_dek *kept; /* unwrap into this */
    unsigned char *out;    /* or to here */
    size_t out_size;
};

static void keep_object(struct hsm_connection *connection, struct unwrap_job *job,
                        CK_OBJECT_HANDLE object)
{
    HOLD(&connection->mutex);
    job->kept->object = object;
    job->kept->generation = job->base.generation;
    job->kept->inside = true;
}

/*
 * What tokens say to a wrapped key that is not from this KEK, or damaged. All other codes speak of
 * the token's own state, such as no memory or no session left.
 */
static bool says_foreign(CK_RV rv)
{
    switch (rv) {
    case CKR_WRAPPED_KEY_INVALID:
    case CKR_WRAPPED_KEY_LEN_RANGE:
    case CKR_ENCRYPTED_DATA_INVALID:
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
    case CKR_DATA_INVALID:
    case CKR_DATA_LEN_RANGE:
    case CKR_UNWRAPPING_KEY_SIZE_RANGE:
    case CKR_GENERAL_ERROR: /* SoftHSM; believed of a token that can search */
    case CKR_FUNCTION_FAILED:
        return true;
    default:
        return false;
    }
}

/* Can the token not do AES-GCM with this key, or has it just no room for it? */
static bool says_unusable(CK_RV rv)
{
    return rv != CKR_OK &&
           (ckr_result(rv) == TPKS_UNSUPPORTED || says_foreign(rv) || rv == CKR_BUFFER_TOO_SMALL);
}

static CK_RV unwrap_and_keep(struct hsm_connection *connection, struct unwrap_job *job,
                             CK_OBJECT_HANDLE kek)
{
    CK_OBJECT_HANDLE object;
    CK_RV rv = unwrap_inside(connection, kek, job->wrapped, &object);
    if (rv != CKR_OK)
        return rv;
    job->foreign = !has_dek_size(connection, object);
    job->unusable = !job->foreign && !harden(connection, object);
    if (!job->foreign && !job->unusable) {
        rv = gcm_try(connection, object);
        job->unusable = says_unusable(rv);
    }
    if (rv == CKR_OK && !job->foreign && !job->unusable)
        keep_object(connection, job, object);
    else
        destroy(connection, object);
    return job->unusable ? CKR_OK : rv;
}

static CK_RV unwrap_run(struct hsm_connection *connection, struct keeper_job *base)
{
    struct unwrap_job *job = (struct unwrap_job *)base;
    CK_OBJECT_HANDLE kek;
    const struct kek_name name = {job->wrapped->cka_id, job->wrapped->label};
    job->unusable = job->foreign = false;
    CK_RV rv = find_kek(connection, &name, &kek, &job->keks);
    if (rv != CKR_OK || job->keks != 1)
        return rv;
    rv = job->out != NULL ? unwrap_outside(connection, kek, job->wrapped, job->out, &job->out_size)
                          : unwrap_and_keep(connection, job, kek);
    base->ambiguous = true;
    if (rv != CKR_GENERAL_ERROR && rv != CKR_FUNCTION_FAILED)
        return rv;
    /* The blob, or the token? A token that can still search is well. */
    CK_RV health = find_kek(connection, &name, &kek, &job->keks);
    base->ambiguous = health == CKR_OK;
    return health == CKR_OK ? rv : health;
}

/* What the codes of C_UnwrapKey and C_Decrypt mean for a wrapped DEK. */
static tpks_result unwrap_result(HSM *hsm, const struct unwrap_job *job, CK_RV rv)
{
    struct hsm_connection *connection = hsm->connection;
    if (rv == CKR_OK && job->unusable)
        return fail(TPKS_UNSUPPORTED,
                    "HSM token \"%s\" (%s): it can't keep the DEK unreadable and do AES-GCM with "
                    "it: set dek = process or auto, or use another token",
                    hsm->label, hsm_module_name(hsm));
    if (rv == CKR_OK && !job->foreign)
        return TPKS_OK;
    if (job->foreign || says_foreign(rv))
        return fail(TPKS_KEK_FOREIGN,
                    "HSM token \"%s\" (%s): its KEK does not unwrap the stored DEK (CKR 0x%lx): "
                    "one of them was replaced or damaged: restore with a backup password or "
                    "recovery key",
                    hsm->label, hsm_module_name(hsm), (unsigned long)rv);
    return fail_ckr(ckr_result(rv), connection, "unwrapping the DEK", rv);
}

static tpks_result unwrap_with(HSM *hsm, struct unwrap_job *job)
{
    CK_RV rv;
    bool again = false;
    if (!wrapped_is_well_formed(job->wrapped))
        return fail(TPKS_KEK_FOREIGN,
                    "HSM token \"%s\": the stored DEK was not wrapped by a key of this token: "
                    "restore with a backup password or recovery key",
                    hsm->label);
    job->base.run = unwrap_run;
    TRY(keeper_run(hsm->connection, &hsm->caller, &job->base, &rv));
    if (rv == CKR_OK && job->keks == 0)
        TRY(confirm_missing(hsm, &again));
    if (again)
        TRY(keeper_run(hsm->connection, &hsm->caller, &job->base, &rv));
    if (rv != CKR_OK && !job->base.ambiguous)
        return fail_ckr(ckr_result(rv), hsm->connection, "searching the KEK", rv);
    TRY(check_kek_count(hsm, &(struct kek_name){job->wrapped->cka_id, job->wrapped->label},
                        job->keks));
    return unwrap_result(hsm, job, rv);
}

static tpks_result unwrap_out(HSM *hsm, const hsm_wrapped *wrapped, TPKS_SECRET *room)
{
    struct unwrap_job job = {.wrapped = wrapped, .out = tpks_secret_data(room)};
    TRY(unwrap_with(hsm, &job));
    if (job.out_size != DEK_SIZE)
        return fail(TPKS_KEK_FOREIGN,
                    "HSM token \"%s\" (%s): what its KEK unwraps is no DEK: restore with a backup "
                    "password or recovery key",
                    hsm->label, hsm_module_name(hsm));
    tpks_secret_shrink(room, DEK_SIZE);
    return TPKS_OK;
}

tpks_result hsm_unwrap_out(HSM *hsm, const hsm_wrapped *wrapped, TPKS_SECRET **dek)
{
    HSM_GUARD guard;
    TRY(hsm_enter(&guard, hsm->process));
    TPKS_SECRET *room = tpks_secret_new(WRAPPED_MAX);
    if (room == NULL)
        return fail_memory();
    tpks_result result = unwrap_out(hsm, wrapped, room);
    if (result == TPKS_OK)
        *dek = room;
    else
        tpks_secret_free(room);
    return result;
}

/* ---- kept DEKs ------------------------------------------------------------------------------- */

static bool same_kek(const struct kept_dek *kept, const hsm_wrapped *wrapped)
{
    if (wrapped->cka_id == NULL || kept->label != NULL)
        return wrapped->cka_id == NULL && kept->label != NULL &&
               strcmp(kept->label, wrapped->label) == 0;
    return memcmp(kept->cka_id, wrapped->cka_id, CKA_ID_SIZE) == 0;
}

static bool is_kept(const struct kept_dek *kept, const hsm_wrapped *wrapped,
                    const unsigned char *dek_id)
{
    return memcmp(kept->dek_id, dek_id, sizeof(kept->dek_id)) == 0 && same_kek(kept, wrapped) &&
           kept->wrapped.algorithm == wrapped->algorithm && kept->wrapped.size == wrapped->size &&
           memcmp(kept->data, wrapped->data, wrapped->size) == 0 &&
           kept->wrapped.iv_size == wrapped->iv_size &&
           (wrapped->iv_size == 0 || memcmp(kept->iv, wrapped->iv, wrapped->iv_size) == 0);
}

static void kept_free(struct kept_dek *kept)
{
    free(kept->label);
    free(kept);
}

static struct kept_dek *kept_new(const hsm_wrapped *wrapped, const unsigned char *dek_id)
{
    struct kept_dek *kept = calloc(1, sizeof(*kept));
    if (kept == NULL)
        return NULL;
    memcpy(kept->dek_id, dek_id, sizeof(kept->dek_id));
    if (wrapped->cka_id != NULL)
        memcpy(kept->cka_id, wrapped->cka_id, CKA_ID_SIZE);
    else if ((kept->label = strdup(wrapped->label)) == NULL) {
        free(kept);
        return NULL;
    }
    memcpy(kept->data, wrapped->data, wrapped->size);
    if (wrapped->iv_size > 0)
        memcpy(kept->iv, wrapped->iv, wrapped->iv_size);
    kept->wrapped = *wrapped;
    kept->wrapped.cka_id = kept->label == NULL ? kept->cka_id : NULL;
    kept->wrapped.label = kept->label;
    kept->wrapped.iv = kept->iv;
    kept->wrapped.data = kept->data;
    return kept;
}

/* A DEK that is wrapped otherwise is another one here, so a wrong blob never hides a right one. */
static struct kept_dek *kept_find_or_add(struct hsm_connection *connection,
                                         const hsm_wrapped *wrapped, const unsigned char *dek_id)
{
    HOLD(&connection->mutex);
    struct kept_dek *kept = connection->shared ? connection->deks : NULL;
    while (kept != NULL && !is_kept(kept, wrapped, dek_id))
        kept = kept->next;
    if (kept == NULL)
        kept = kept_new(wrapped, dek_id);
    else
        return kept;
    if (kept != NULL) {
        kept->next = connection->deks;
        connection->deks = kept;
    }
    return kept;
}

static void kept_remove(struct hsm_connection *connection, struct kept_dek *kept)
{
    HOLD(&connection->mutex);
    struct kept_dek **link = &connection->deks;
    while (*link != kept)
        link = &(*link)->next;
    *link = kept->next;
    kept_free(kept);
}

void kept_deks_free(struct hsm_connection *connection)
{
    while (connection->deks != NULL) {
        struct kept_dek *kept = connection->deks;
        connection->deks = kept->next;
        kept_free(kept);
    }
}

static bool kept_object(struct hsm_connection *connection, const struct kept_dek *kept,
                        CK_OBJECT_HANDLE *object, uint64_t *generation)
{
    HOLD(&connection->mutex);
    *object = kept->object;
    *generation = connection->generation;
    return kept->inside && kept->generation == connection->generation;
}

/* The object, unwrapped anew where it was lost. */
static tpks_result dek_object(const HSM_DEK *dek, CK_OBJECT_HANDLE *object, uint64_t *generation)
{
    struct hsm_connection *connection = dek->hsm->connection;
    for (unsigned i = 0; !kept_object(connection, dek->kept, object, generation); i++) {
        struct unwrap_job job = {.wrapped = &dek->kept->wrapped, .kept = dek->kept};
        if (i == OPERATION_TRIES)
            return fail(TPKS_HSM_UNAVAILABLE,
                        "HSM token \"%s\" (%s): it loses its session again and again: check the "
                        "HSM, then try again",
                        dek->hsm->label, hsm_module_name(dek->hsm));
        TRY(unwrap_with(dek->hsm, &job));
    }
    return TPKS_OK;
}

tpks_result hsm_unwrap(HSM *hsm, const hsm_wrapped *wrapped, const unsigned char dek_id[16],
                       HSM_DEK **out)
{
    HSM_GUARD guard;
    CK_OBJECT_HANDLE object;
    uint64_t generation;
    TRY(hsm_enter(&guard, hsm->process));
    if (wrapped->size > WRAPPED_MAX || wrapped->iv_size > 16)
        return fail(TPKS_KEK_FOREIGN,
                    "HSM token \"%s\": the stored DEK is too long for a wrapped key: restore with "
                    "a backup password or recovery key",
                    hsm->label);
    HSM_DEK *dek = calloc(1, sizeof(*dek));
    if (dek == NULL)
        return fail_memory();
    dek->hsm = hsm;
    dek->kept = kept_find_or_add(hsm->connection, wrapped, dek_id);
    tpks_result result = dek->kept != NULL ? dek_object(dek, &object, &generation) : fail_memory();
    if (result == TPKS_OK) {
        *out = dek;
        return TPKS_OK;
    }
    if (dek->kept != NULL && !hsm->connection->shared)
        kept_remove(hsm->connection, dek->kept);
    free(dek);
    return result;
}

static void destroy_kept(struct hsm_connection *connection, struct kept_dek *kept)
{
    CK_OBJECT_HANDLE object;
    uint64_t generation;
    HOLD(&connection->keeper);
    if (kept_object(connection, kept, &object, &generation) && connection_is_open(connection))
        destroy(connection, object);
}

void hsm_dek_free(HSM_DEK *dek)
{
    if (dek == NULL)
        return;
    struct hsm_connection *connection = dek->hsm->connection;
    if (!connection->shared) {
        HSM_GUARD guard;
        if (hsm_enter(&guard, dek->hsm->process) == TPKS_OK)
            destroy_kept(connection, dek->kept);
        kept_remove(connection, dek->kept);
    }
    free(dek);
}

/* ---- the two operations -----------------------------------------------------------------------
 */

/*
 * CKR_GENERAL_ERROR is what SoftHSM says for a refused tag, and any module for an inner failure. A
 * key that still seals and opens tells them apart.
 */
static bool is_refused_tag(struct hsm_connection *connection, CK_OBJECT_HANDLE key, CK_RV rv)
{
    switch (rv) {
    case CKR_ENCRYPTED_DATA_INVALID:
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
    case CKR_DATA_INVALID:
    case CKR_SIGNATURE_INVALID:
        return true;
    case CKR_GENERAL_ERROR:
    case CKR_FUNCTION_FAILED:
        return gcm_try(connection, key) == CKR_OK;
    default:
        return false;
    }
}

static tpks_result gcm_failed(HSM *hsm, const struct gcm_job *job, CK_RV rv)
{
    return fail_ckr(
        ckr_result(rv) == TPKS_NO_MEMORY ? TPKS_NO_MEMORY : TPKS_HSM_UNAVAILABLE, hsm->connection,
        job->seal ? "AES-GCM encryption with the DEK" : "AES-GCM decryption with the DEK", rv);
}

static tpks_result gcm_run(HSM_DEK *dek, struct gcm_job *job)
{
    struct hsm_connection *connection = dek->hsm->connection;
    for (unsigned i = 1;; i++) {
        CK_OBJECT_HANDLE object;
        uint64_t generation;
        TRY(dek_object(dek, &object, &generation));
        CK_RV rv = gcm_once(connection, object, job);
        if (rv == CKR_OK)
            return TPKS_OK;
        if (!job->seal && is_refused_tag(connection, object, rv))
            return fail(TPKS_TAMPERED,
                        "HSM token \"%s\": AES-GCM refuses the data: it was changed, or belongs to "
                        "another key: restore the database from a backup",
                        dek->hsm->label);
        enum recovery recovery = recovery_for(rv, false);
        if (recovery == RECOVER_NOT || i == OPERATION_TRIES)
            return gcm_failed(dek->hsm, job, rv);
        TRY(connection_recover(connection, &dek->hsm->caller, generation, recovery));
    }
}

tpks_result hsm_gcm_open(HSM_DEK *dek, const unsigned char nonce[12], const unsigned char *aad,
                         size_t aad_size, const unsigned char *in, size_t in_size,
                         unsigned char *out, size_t *out_size)
{
    HSM_GUARD guard;
    TRY(hsm_enter(&guard, dek->hsm->process));
    if (in_size < GCM_TAG_SIZE)
        return fail(TPKS_TAMPERED, "HSM: sealed data is shorter than its tag: restore the "
                                   "database from a backup");
    struct gcm_job job = {.nonce = nonce,
                          .aad = aad,
                          .aad_size = aad_size,
                          .in = in,
                          .in_size = in_size,
                          .out = out,
                          .out_room = in_size};
    tpks_result result = gcm_run(dek, &job);
    if (result == TPKS_OK)
        *out_size = job.out_size;
    else
        OPENSSL_cleanse(out, in_size);
    return result;
}

tpks_result hsm_gcm_seal(HSM_DEK *dek, const unsigned char nonce[12], const unsigned char *aad,
                         size_t aad_size, const unsigned char *in, size_t in_size,
                         unsigned char *out, size_t *out_size)
{
    HSM_GUARD guard;
    TRY(hsm_enter(&guard, dek->hsm->process));
    struct gcm_job job = {.seal = true,
                          .nonce = nonce,
                          .aad = aad,
                          .aad_size = aad_size,
                          .in = in,
                          .in_size = in_size,
                          .out = out,
                          .out_room = in_size + GCM_TAG_SIZE};
    TRY(gcm_run(dek, &job));
    *out_size = job.out_size;
    return TPKS_OK;
}
