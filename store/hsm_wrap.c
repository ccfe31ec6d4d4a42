/*
 * hsm_wrap.c - the algorithms that wrap a DEK with a KEK on a token
 */
#include "hsm_internal.h"

#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

static const struct wrap_method methods[] = {
    {WRAP_AES_KW, "aes-kw", KEK_AES_WRAP, CKM_AES_KEY_WRAP, 40, 0, 0},
    {WRAP_AES_KWP, "aes-kwp", KEK_AES_WRAP, MECHANISM_AES_KWP, 40, 0, 0},
    {WRAP_RSA_OAEP_SHA256, "rsa-oaep-sha256", KEK_RSA, CKM_RSA_PKCS_OAEP, 0, 0, 0},
    {WRAP_RSA_OAEP_SHA1, "rsa-oaep-sha1", KEK_RSA, CKM_RSA_PKCS_OAEP, 0, 0, 0},
    {WRAP_AES_CBC_PAD, "aes-cbc-pad", KEK_AES_WRAP, CKM_AES_CBC_PAD, 48, 16, 0},
    {WRAP_AES_GCM, "aes-gcm", KEK_AES_ENCRYPT, CKM_AES_GCM, 48, GCM_NONCE_SIZE, 0},
    {WRAP_TRUSTPOINT_KW_PAD, "aes-kw-pad", KEK_AES_WRAP, CKM_AES_KEY_WRAP_PAD, 40, 0, 0},
    {WRAP_TRUSTPOINT_ECB, "trustpoint-ecb", KEK_AES_ENCRYPT, CKM_AES_ECB, 40, 0, 8},
    {WRAP_TRUSTPOINT_CBC_PAD, "trustpoint-cbc-pad", KEK_AES_ENCRYPT, CKM_AES_CBC_PAD, 48, 16, 0},
    {WRAP_TRUSTPOINT_CBC, "trustpoint-cbc", KEK_AES_ENCRYPT, CKM_AES_CBC, 32, 16, 0},
};

const struct wrap_method *wrap_method(wrap_algorithm algorithm)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (methods[i].algorithm == algorithm)
            return &methods[i];
    }
    return NULL;
}

const char *wrap_algorithm_name(wrap_algorithm algorithm)
{
    const struct wrap_method *method = wrap_method(algorithm);
    if (method != NULL)
        return method->name;
    switch (algorithm) {
    case WRAP_PASSWORD_GCM:
        return "password-gcm";
    case WRAP_FILE:
        return "file";
    case WRAP_TRUSTPOINT_CWRAP:
        return "trustpoint-aes-key-wrap";
    case WRAP_TRUSTPOINT_BACKUP:
        return "trustpoint-backup";
    case WRAP_TRUSTPOINT_RAW:
        return "in-the-clear";
    default:
        return "unknown";
    }
}

bool wrapped_is_well_formed(const hsm_wrapped *wrapped)
{
    const struct wrap_method *method = wrap_method(wrapped->algorithm);
    if (method == NULL || wrapped->iv_size != method->iv_size)
        return false;
    if (method->algorithm == WRAP_TRUSTPOINT_KW_PAD) /* RFC 5649, or PKCS#7 to 8 or 16 bytes */
        return wrapped->size == 40 || wrapped->size == 48 || wrapped->size == 56;
    if (method->wrapped_size != 0)
        return wrapped->size == method->wrapped_size;
    return wrapped->size >= 256 && wrapped->size <= WRAPPED_MAX;
}

void mechanism_set_gcm(struct mechanism *out, const unsigned char nonce[GCM_NONCE_SIZE],
                       const unsigned char *aad, size_t aad_size)
{
    *out = (struct mechanism){0};
    CK_GCM_PARAMS *gcm = &out->parameters.gcm;
    gcm->pIv = (unsigned char *)nonce;
    gcm->ulIvLen = GCM_NONCE_SIZE;
    gcm->ulIvBits = 8 * GCM_NONCE_SIZE;
    gcm->pAAD = aad_size > 0 ? (unsigned char *)aad : NULL;
    gcm->ulAADLen = aad_size;
    gcm->ulTagBits = 8 * GCM_TAG_SIZE;
    out->mechanism = (CK_MECHANISM){CKM_AES_GCM, gcm, sizeof(*gcm)};
}

static void mechanism_set_oaep(struct mechanism *out, bool sha1)
{
    CK_RSA_PKCS_OAEP_PARAMS *oaep = &out->parameters.oaep;
    oaep->hashAlg = sha1 ? CKM_SHA_1 : CKM_SHA256;
    oaep->mgf = sha1 ? CKG_MGF1_SHA1 : CKG_MGF1_SHA256;
    oaep->source = CKZ_DATA_SPECIFIED;
    out->mechanism = (CK_MECHANISM){CKM_RSA_PKCS_OAEP, oaep, sizeof(*oaep)};
}

void mechanism_set(struct mechanism *out, const struct wrap_method *method, const unsigned char *iv)
{
    *out = (struct mechanism){.mechanism = {method->mechanism, NULL, 0}};
    if (method->kind == KEK_RSA)
        mechanism_set_oaep(out, method->algorithm == WRAP_RSA_OAEP_SHA1);
    else if (method->algorithm == WRAP_AES_GCM)
        mechanism_set_gcm(out, iv, NULL, 0);
    else if (method->iv_size > 0) {
        memcpy(out->parameters.iv, iv, method->iv_size);
        out->mechanism.pParameter = out->parameters.iv;
        out->mechanism.ulParameterLen = method->iv_size;
    }
}

/* ---- unwrap ---------------------------------------------------------------------------------- */

#define TEMPLATE_KEPT 8  /* attributes of a DEK that stays inside */
#define TEMPLATE_BASIC 6 /* those without a say in whether it can be read */

static CK_RV unwrap_as(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                       const hsm_wrapped *wrapped, bool keep, CK_ULONG attributes,
                       CK_OBJECT_HANDLE *object)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_BBOOL sensitive = keep ? CK_TRUE : CK_FALSE, extractable = keep ? CK_FALSE : CK_TRUE;
    CK_ATTRIBUTE template[TEMPLATE_KEPT] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_TOKEN, &no, sizeof(no)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_ENCRYPT, &yes, sizeof(yes)},
        {CKA_DECRYPT, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &sensitive, sizeof(sensitive)},
        {CKA_EXTRACTABLE, &extractable, sizeof(extractable)},
    };
    struct mechanism mechanism;
    mechanism_set(&mechanism, wrap_method(wrapped->algorithm), wrapped->iv);
    return connection->module->functions->C_UnwrapKey(connection->session, &mechanism.mechanism,
                                                      kek, (unsigned char *)wrapped->data,
                                                      wrapped->size, template, attributes, object);
}

CK_RV unwrap_inside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                    const hsm_wrapped *wrapped, CK_OBJECT_HANDLE *object)
{
    /* Its KEK may only encrypt and decrypt, so the DEK would pass through this process. */
    if (wrap_method(wrapped->algorithm)->kind == KEK_AES_ENCRYPT)
        return CKR_MECHANISM_INVALID;
    return unwrap_as(connection, kek, wrapped, true, TEMPLATE_KEPT, object);
}

static CK_RV read_value(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                        unsigned char *out, size_t *out_size)
{
    CK_ATTRIBUTE value = {CKA_VALUE, out, WRAPPED_MAX};
    CK_RV rv =
        connection->module->functions->C_GetAttributeValue(connection->session, object, &value, 1);
    if (rv == CKR_OK)
        *out_size = value.ulValueLen;
    return rv;
}

static CK_RV unwrap_and_read(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                             const hsm_wrapped *wrapped, unsigned char *out, size_t *out_size)
{
    CK_OBJECT_HANDLE object;
    CK_RV rv = unwrap_as(connection, kek, wrapped, false, TEMPLATE_KEPT, &object);
    /* Older openCryptoki takes neither attribute, and makes every unwrapped key readable. */
    if (rv == CKR_ATTRIBUTE_READ_ONLY || rv == CKR_TEMPLATE_INCONSISTENT)
        rv = unwrap_as(connection, kek, wrapped, false, TEMPLATE_BASIC, &object);
    if (rv != CKR_OK)
        return rv;
    rv = read_value(connection, object, out, out_size);
    connection->module->functions->C_DestroyObject(connection->session, object);
    return rv;
}

static CK_RV decrypt(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                     const hsm_wrapped *wrapped, unsigned char *out, size_t *out_size)
{
    CK_FUNCTION_LIST *functions = connection->module->functions;
    CK_SESSION_HANDLE session;
    CK_ULONG size = WRAPPED_MAX;
    struct mechanism mechanism;
    const struct wrap_method *method = wrap_method(wrapped->algorithm);
    mechanism_set(&mechanism, method, wrapped->iv);
    CK_RV rv = session_take(connection, &session);
    if (rv != CKR_OK)
        return rv;
    rv = functions->C_DecryptInit(session, &mechanism.mechanism, kek);
    if (rv == CKR_OK)
        rv = functions->C_Decrypt(session, (unsigned char *)wrapped->data + method->skip,
                                  wrapped->size - method->skip, out, &size);
    session_give(connection, session, rv != CKR_OK);
    if (rv == CKR_OK)
        *out_size = size;
    return rv;
}

CK_RV unwrap_outside(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                     const hsm_wrapped *wrapped, unsigned char *out, size_t *out_size)
{
    enum kek_kind kind = wrap_method(wrapped->algorithm)->kind;
    if (kind == KEK_AES_WRAP)
        return unwrap_and_read(connection, kek, wrapped, out, out_size);
    CK_RV rv = decrypt(connection, kek, wrapped, out, out_size);
    if (kind == KEK_RSA && ckr_result(rv) == TPKS_UNSUPPORTED)
        rv = unwrap_and_read(connection, kek, wrapped, out, out_size);
    return rv;
}

/* ---- wrap ------------------------------------------------------------------------------------ */

static CK_RV import_dek(struct hsm_connection *connection, const TPKS_SECRET *dek,
                        CK_OBJECT_HANDLE *object)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_TOKEN, &no, sizeof(no)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &yes, sizeof(yes)},
        {CKA_VALUE, (void *)tpks_secret_data_const(dek), tpks_secret_size(dek)},
    };
    return connection->module->functions->C_CreateObject(
        connection->session, template, sizeof(template) / sizeof(template[0]), object);
}

static tpks_result wrap_in_token(struct hsm_connection *connection,
                                 const struct wrap_method *method, CK_OBJECT_HANDLE kek,
                                 const TPKS_SECRET *dek, const unsigned char *iv,
                                 unsigned char *wrapped, size_t *wrapped_size)
{
    CK_FUNCTION_LIST *functions = connection->module->functions;
    CK_OBJECT_HANDLE object;
    CK_RV rv = import_dek(connection, dek, &object);
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), connection, "C_CreateObject of the DEK", rv);
    struct mechanism mechanism;
    mechanism_set(&mechanism, method, iv);
    CK_ULONG size = WRAPPED_MAX;
    rv = functions->C_WrapKey(connection->session, &mechanism.mechanism, kek, object, wrapped,
                              &size);
    functions->C_DestroyObject(connection->session, object);
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), connection, "C_WrapKey", rv);
    *wrapped_size = size;
    return TPKS_OK;
}

static tpks_result encrypt_in_token(struct hsm_connection *connection, CK_OBJECT_HANDLE kek,
                                    const TPKS_SECRET *dek, const unsigned char *iv,
                                    unsigned char *wrapped, size_t *wrapped_size)
{
    struct gcm_job job = {
        .seal = true,
        .nonce = iv,
        .in = tpks_secret_data_const(dek),
        .in_size = tpks_secret_size(dek),
        .out = wrapped,
        .out_room = WRAPPED_MAX,
    };
    CK_RV rv = gcm_once(connection, kek, &job);
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), connection, "C_Encrypt of the DEK", rv);
    *wrapped_size = job.out_size;
    return TPKS_OK;
}

static void free_pkey(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

static void free_pkey_ctx(EVP_PKEY_CTX **ctx)
{
    EVP_PKEY_CTX_free(*ctx);
}

#define PKEY __attribute__((cleanup(free_pkey))) EVP_PKEY
#define PKEY_CTX __attribute__((cleanup(free_pkey_ctx))) EVP_PKEY_CTX

static EVP_PKEY *rsa_from_numbers(const CK_ATTRIBUTE *n, const CK_ATTRIBUTE *e)
{
    PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(hsm_libctx(), "RSA", NULL);
    BIGNUM *modulus = BN_bin2bn(n->pValue, (int)n->ulValueLen, NULL);
    BIGNUM *exponent = BN_bin2bn(e->pValue, (int)e->ulValueLen, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY *key = NULL;
    if (build != NULL && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent) == 1)
        params = OSSL_PARAM_BLD_to_param(build);
    if (ctx != NULL && params != NULL && EVP_PKEY_fromdata_init(ctx) == 1)
        (void)!EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(modulus);
    BN_free(exponent);
    return key;
}

CK_RV rsa_read_public(struct hsm_connection *connection, CK_OBJECT_HANDLE object, EVP_PKEY **key)
{
    unsigned char n[WRAPPED_MAX], e[16];
    CK_ATTRIBUTE numbers[] = {{CKA_MODULUS, n, sizeof(n)}, {CKA_PUBLIC_EXPONENT, e, sizeof(e)}};
    CK_RV rv =
        connection->module->functions->C_GetAttributeValue(connection->session, object, numbers, 2);
    if (rv == CKR_OK)
        *key = rsa_from_numbers(&numbers[0], &numbers[1]);
    return rv;
}

/* Needs the public key only, so libcrypto does it: every token then unwraps the same bytes. */
static tpks_result encrypt_oaep(struct hsm_connection *connection, const char *digest,
                                CK_OBJECT_HANDLE public_key, const TPKS_SECRET *dek,
                                unsigned char *wrapped, size_t *wrapped_size)
{
    PKEY *key = NULL;
    CK_RV rv = rsa_read_public(connection, public_key, &key);
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), connection, "reading the KEK's public key", rv);
    PKEY_CTX *ctx = key != NULL ? EVP_PKEY_CTX_new_from_pkey(hsm_libctx(), key, NULL) : NULL;
    *wrapped_size = WRAPPED_MAX;
    if (ctx == NULL || EVP_PKEY_encrypt_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
        EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, digest, NULL) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, digest, NULL) != 1 ||
        EVP_PKEY_encrypt(ctx, wrapped, wrapped_size, tpks_secret_data_const(dek),
                         tpks_secret_size(dek)) != 1)
        return fail_crypto(TPKS_INTERNAL, "RSA-OAEP with the KEK's public key");
    return TPKS_OK;
}

tpks_result wrap_dek(struct hsm_connection *connection, const struct wrap_method *method,
                     CK_OBJECT_HANDLE kek, const TPKS_SECRET *dek, const unsigned char *iv,
                     unsigned char *wrapped, size_t *wrapped_size)
{
    switch (method->kind) {
    case KEK_RSA:
        return encrypt_oaep(connection, method->algorithm == WRAP_RSA_OAEP_SHA1 ? "SHA1" : "SHA256",
                            kek, dek, wrapped, wrapped_size);
    case KEK_AES_ENCRYPT:
        return encrypt_in_token(connection, kek, dek, iv, wrapped, wrapped_size);
    default:
        return wrap_in_token(connection, method, kek, dek, iv, wrapped, wrapped_size);
    }
}
