/*
 * hsm_key_op.c - operations of keys inside a token, and the proof whose key it is
 */
#include "hsm_key_internal.h"

#include <string.h>
#include <strings.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

/* ---- public half ----------------------------------------------------------------------------- */

void key_public_clear(struct key_public *public)
{
    EVP_PKEY_free(public->key);
    OPENSSL_free(public->modulus);
    *public = (struct key_public){0};
}

static tpks_result take_modulus(struct key_public *public)
{
    BIGNUM *n = NULL;
    bool ok = EVP_PKEY_get_bn_param(public->key, OSSL_PKEY_PARAM_RSA_N, &n) == 1;

    public->size = ok ? (size_t)BN_num_bytes(n) : 0;
    public->modulus = ok ? OPENSSL_malloc(public->size) : NULL;
    ok = public->modulus != NULL && public->size <= KEY_BYTES_MAX &&
         BN_bn2binpad(n, public->modulus, (int)public->size) == (int)public->size;
    BN_free(n);
    return ok ? TPKS_OK : fail_crypto(TPKS_BAD_INPUT, "the modulus of a token's key");
}

static tpks_result take_order(struct key_public *public)
{
    BIGNUM *order = NULL;
    bool ok = EVP_PKEY_get_bn_param(public->key, OSSL_PKEY_PARAM_EC_ORDER, &order) == 1;

    public->size = ok ? (size_t)BN_num_bytes(order) : 0;
    BN_free(order);
    if (!ok || 2 * public->size > KEY_BYTES_MAX)
        return fail_crypto(TPKS_BAD_INPUT, "the curve of a token's key");
    return TPKS_OK;
}

tpks_result key_public_set(struct key_public *out, const unsigned char *spki, size_t size)
{
    const unsigned char *at = spki;

    out->key = d2i_PUBKEY_ex(NULL, &at, (long)size, hsm_libctx(), NULL);
    if (out->key == NULL)
        return fail_crypto(TPKS_BAD_INPUT, "the public half of a token's key");
    if (EVP_PKEY_is_a(out->key, "RSA") || EVP_PKEY_is_a(out->key, "RSA-PSS")) {
        out->type = CKK_RSA;
        return take_modulus(out);
    }
    out->type = CKK_EC;
    if (EVP_PKEY_is_a(out->key, "EC"))
        return take_order(out);
    return fail(TPKS_UNSUPPORTED, "keys of type %s can't be used inside a token: only RSA and EC",
                EVP_PKEY_get0_type_name(out->key));
}

/* ---- mechanisms ------------------------------------------------------------------------------ */

struct digest_numbers {
    const char *names[3]; /* as OpenSSL spells them */
    CK_MECHANISM_TYPE digest;
    CK_ULONG mgf;
};

static const struct digest_numbers digests[] = {
    {{"SHA1", "SHA-1", "SSL3-SHA1"}, CKM_SHA_1, CKG_MGF1_SHA1},
    {{"SHA224", "SHA2-224", "SHA-224"}, CKM_SHA224, CKG_MGF1_SHA224},
    {{"SHA256", "SHA2-256", "SHA-256"}, CKM_SHA256, CKG_MGF1_SHA256},
    {{"SHA384", "SHA2-384", "SHA-384"}, CKM_SHA384, CKG_MGF1_SHA384},
    {{"SHA512", "SHA2-512", "SHA-512"}, CKM_SHA512, CKG_MGF1_SHA512},
};

static const struct digest_numbers *digest_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof(digests) / sizeof(digests[0]); i++)
        for (size_t j = 0; j < 3; j++)
            if (strcasecmp(name, digests[i].names[j]) == 0)
                return &digests[i];
    return NULL;
}

static tpks_result set_digests(struct key_job *job, const tpks_token_op *op)
{
    const struct digest_numbers *digest = digest_find(op->digest);
    const struct digest_numbers *mgf1 =
        op->mgf1_digest != NULL ? digest_find(op->mgf1_digest) : digest;

    if (digest == NULL || mgf1 == NULL)
        return fail(TPKS_BAD_INPUT, "token keys know the digests SHA1, SHA224, SHA256, SHA384 and "
                                    "SHA512 only");
    if (op->mechanism == TPKS_RSA_PSS) {
        CK_RSA_PKCS_PSS_PARAMS *pss = &job->parameters.pss;
        *pss = (CK_RSA_PKCS_PSS_PARAMS){digest->digest, mgf1->mgf, op->salt_size};
        job->mechanism = (CK_MECHANISM){CKM_RSA_PKCS_PSS, pss, sizeof(*pss)};
        return TPKS_OK;
    }
    CK_RSA_PKCS_OAEP_PARAMS *oaep = &job->parameters.oaep;
    *oaep = (CK_RSA_PKCS_OAEP_PARAMS){digest->digest, mgf1->mgf, CKZ_DATA_SPECIFIED, NULL, 0};
    job->mechanism = (CK_MECHANISM){CKM_RSA_PKCS_OAEP, oaep, sizeof(*oaep)};
    return TPKS_OK;
}

tpks_result key_job_set(struct key_job *job, const struct key_public *public, bool decrypt,
                        const tpks_token_op *op)
{
    bool rsa = public->type == CKK_RSA;

    job->decrypt = decrypt;
    if (rsa && op->mechanism == TPKS_RSA_PKCS)
        job->mechanism = (CK_MECHANISM){CKM_RSA_PKCS, NULL, 0};
    else if (rsa && op->mechanism == TPKS_RSA_RAW && decrypt)
        job->mechanism = (CK_MECHANISM){CKM_RSA_X_509, NULL, 0};
    else if (rsa && op->mechanism == (decrypt ? TPKS_RSA_OAEP : TPKS_RSA_PSS))
        return set_digests(job, op);
    else if (!rsa && op->mechanism == TPKS_ECDSA && !decrypt)
        job->mechanism = (CK_MECHANISM){CKM_ECDSA, NULL, 0};
    else
        return fail(TPKS_BAD_INPUT, "this %s key can't %s with mechanism %d", rsa ? "RSA" : "EC",
                    decrypt ? "decrypt" : "sign", (int)op->mechanism);
    return TPKS_OK;
}

CK_RV key_job_run(CK_FUNCTION_LIST *functions, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                  struct key_job *job)
{
    CK_ULONG size = job->out_room;
    unsigned char *in = (unsigned char *)job->in;
    CK_RV rv = job->decrypt ? functions->C_DecryptInit(session, &job->mechanism, object)
                            : functions->C_SignInit(session, &job->mechanism, object);

    if (rv != CKR_OK)
        return rv;
    rv = job->decrypt ? functions->C_Decrypt(session, in, job->in_size, job->out, &size)
                      : functions->C_Sign(session, in, job->in_size, job->out, &size);
    job->out_size = size;
    return rv;
}

/* ---- proof ----------------------------------------------------------------------------------- */

/* Does the token tell the modulus? Then *same says whether it is ours. */
static bool compare_modulus(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                            const struct key_public *public, bool *same)
{
    unsigned char modulus[KEY_BYTES_MAX + 1]; /* some write a leading zero */
    const unsigned char *at = modulus;
    CK_ATTRIBUTE attribute = {CKA_MODULUS, modulus, sizeof(modulus)};
    CK_RV rv = connection->module->functions->C_GetAttributeValue(connection->session, object,
                                                                  &attribute, 1);

    if (rv != CKR_OK || attribute.ulValueLen == 0 || attribute.ulValueLen > sizeof(modulus))
        return false;
    for (; attribute.ulValueLen > 0 && *at == 0; at++)
        attribute.ulValueLen--;
    *same = attribute.ulValueLen == public->size && memcmp(at, public->modulus, public->size) == 0;
    return true;
}

static CK_RV sign_random(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                         const struct key_public *public, struct key_proof *proof)
{
    CK_SESSION_HANDLE session;
    struct key_job job = {.in = proof->random,
                          .in_size = sizeof(proof->random),
                          .out = proof->signature,
                          .out_room = sizeof(proof->signature)};

    job.mechanism.mechanism = public->type == CKK_RSA ? CKM_RSA_PKCS : CKM_ECDSA;
    CK_RV rv = session_take(connection, &session);
    if (rv != CKR_OK)
        return rv;
    rv = key_job_run(connection->module->functions, session, object, &job);
    session_give(connection, session, rv != CKR_OK);
    proof->size = job.out_size;
    return rv;
}

CK_RV key_proof_take(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                     const struct key_public *public, struct key_proof *proof)
{
    bool same = false;

    *proof = (struct key_proof){0};
    if (public->type == CKK_RSA && compare_modulus(connection, object, public, &same)) {
        proof->mismatch = !same;
        return CKR_OK;
    }
    if (RAND_bytes_ex(hsm_libctx(), proof->random, sizeof(proof->random), 0) != 1)
        return CKR_HOST_MEMORY;
    proof->by_signature = true;
    return sign_random(connection, object, public, proof);
}

/* PKCS#11's r|s as DER. */
static int ecdsa_der(const unsigned char *raw, size_t half, unsigned char **der)
{
    ECDSA_SIG *signature = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, (int)half, NULL), *s = BN_bin2bn(raw + half, (int)half, NULL);
    int size = -1;

    if (signature != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(signature, r, s) == 1) {
        r = s = NULL;
        size = i2d_ECDSA_SIG(signature, der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(signature);
    return size;
}

static bool verify(EVP_PKEY *key, bool rsa, const unsigned char *signature, size_t size,
                   const unsigned char random[PROOF_BYTES])
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(hsm_libctx(), key, NULL);
    bool ok = ctx != NULL && EVP_PKEY_verify_init(ctx) == 1 &&
              (!rsa || EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1) &&
              EVP_PKEY_verify(ctx, signature, size, random, PROOF_BYTES) == 1;

    EVP_PKEY_CTX_free(ctx);
    return ok;
}

bool key_proof_holds(const struct key_public *public, const struct key_proof *proof)
{
    unsigned char *der = NULL;

    if (!proof->by_signature)
        return !proof->mismatch;
    if (public->type == CKK_RSA)
        return verify(public->key, true, proof->signature, proof->size, proof->random);
    if (proof->size != 2 * public->size)
        return false;
    int size = ecdsa_der(proof->signature, public->size, &der);
    bool ok = size > 0 && verify(public->key, false, der, (size_t)size, proof->random);
    OPENSSL_free(der);
    return ok;
}
