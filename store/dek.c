/* dek.c - sealing and opening under the DEK, in the token or in this process */
#include "dek.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "error.h"

struct dek {
    OSSL_LIB_CTX *libctx;
    TPKS_SECRET *secret; /* one of the two */
    HSM_DEK *in_token;
};

static const unsigned char zeros[32];

static tpks_result dek_new(OSSL_LIB_CTX *libctx, TPKS_SECRET *secret, HSM_DEK *in_token, DEK **out)
{
    DEK *dek = OPENSSL_zalloc(sizeof(*dek));

    if (dek == NULL) {
        tpks_secret_free(secret);
        hsm_dek_free(in_token);
        return fail_memory();
    }
    dek->libctx = libctx;
    dek->secret = secret;
    dek->in_token = in_token;
    *out = dek;
    return TPKS_OK;
}

tpks_result dek_from_secret(OSSL_LIB_CTX *libctx, TPKS_SECRET *secret, DEK **out)
{
    if (tpks_secret_size(secret) != DEK_SIZE) {
        tpks_secret_free(secret);
        return fail(TPKS_TAMPERED, "the unwrapped DEK does not have %d bytes", DEK_SIZE);
    }
    return dek_new(libctx, secret, NULL, out);
}

tpks_result dek_from_hsm(OSSL_LIB_CTX *libctx, HSM_DEK *in_token, DEK **out)
{
    return dek_new(libctx, NULL, in_token, out);
}

tpks_result dek_none(OSSL_LIB_CTX *libctx, DEK **out)
{
    return dek_new(libctx, NULL, NULL, out);
}

bool dek_is_none(const DEK *dek)
{
    return dek->secret == NULL && dek->in_token == NULL;
}

void dek_free(DEK *dek)
{
    if (dek == NULL)
        return;
    tpks_secret_free(dek->secret);
    hsm_dek_free(dek->in_token);
    OPENSSL_free(dek);
}

bool dek_is_in_hsm(const DEK *dek)
{
    return dek->in_token != NULL;
}

const TPKS_SECRET *dek_bytes(const DEK *dek)
{
    return dek->secret;
}

static void free_cipher_ctx(EVP_CIPHER_CTX **ctx)
{
    EVP_CIPHER_CTX_free(*ctx);
}

static void free_cipher(EVP_CIPHER **cipher)
{
    EVP_CIPHER_free(*cipher);
}

#define CIPHER_CTX __attribute__((cleanup(free_cipher_ctx))) EVP_CIPHER_CTX
#define CIPHER __attribute__((cleanup(free_cipher))) EVP_CIPHER

/* Key, nonce and additional data set, ready for the text. */
static bool gcm_start(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, const unsigned char *key,
                      const unsigned char nonce[NONCE_SIZE], const unsigned char *aad,
                      size_t aad_size, int encrypt)
{
    int length = 0;

    return ctx != NULL && cipher != NULL && aad_size <= INT32_MAX &&
           EVP_CipherInit_ex2(ctx, cipher, key, nonce, encrypt, NULL) &&
           (aad_size == 0 || EVP_CipherUpdate(ctx, NULL, &length, aad, (int)aad_size));
}

tpks_result gcm_seal(OSSL_LIB_CTX *libctx, const unsigned char *key,
                     const unsigned char nonce[NONCE_SIZE], const unsigned char *aad,
                     size_t aad_size, const unsigned char *in, size_t in_size, unsigned char *out)
{
    CIPHER *cipher = EVP_CIPHER_fetch(libctx, "AES-256-GCM", NULL);
    CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int length = 0, last = 0;

    if (!gcm_start(ctx, cipher, key, nonce, aad, aad_size, 1) || in_size > INT32_MAX ||
        !EVP_CipherUpdate(ctx, out, &length, in, (int)in_size) ||
        !EVP_CipherFinal_ex(ctx, out + length, &last) ||
        !EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, out + in_size))
        return fail_crypto(TPKS_INTERNAL, "AES-256-GCM");
    return TPKS_OK;
}

tpks_result gcm_open(OSSL_LIB_CTX *libctx, const unsigned char *key,
                     const unsigned char nonce[NONCE_SIZE], const unsigned char *aad,
                     size_t aad_size, const unsigned char *in, size_t in_size, unsigned char *out)
{
    CIPHER *cipher = EVP_CIPHER_fetch(libctx, "AES-256-GCM", NULL);
    CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int length = 0, last = 0;
    unsigned char tag[TAG_SIZE];

    if (in_size < TAG_SIZE || in_size > INT32_MAX)
        return fail(TPKS_TAMPERED, "the sealed data is too short");
    memcpy(tag, in + in_size - TAG_SIZE, TAG_SIZE);
    if (!gcm_start(ctx, cipher, key, nonce, aad, aad_size, 0))
        return fail_crypto(TPKS_INTERNAL, "AES-256-GCM");
    if (!EVP_CipherUpdate(ctx, out, &length, in, (int)(in_size - TAG_SIZE)) ||
        !EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, tag) ||
        !EVP_CipherFinal_ex(ctx, out + length, &last)) {
        OPENSSL_cleanse(out, in_size - TAG_SIZE);
        return fail(TPKS_TAMPERED, "the authentication tag does not match");
    }
    return TPKS_OK;
}

tpks_result dek_seal(DEK *dek, const char *domain, const canonical *about,
                     const unsigned char nonce[NONCE_SIZE], const unsigned char *in, size_t in_size,
                     unsigned char *out)
{
    unsigned char aad[SHA256_SIZE];
    size_t out_size = in_size + TAG_SIZE;

    TRY(canonical_digest(about, dek->libctx, domain, aad));
    if (dek->in_token != NULL)
        return hsm_gcm_seal(dek->in_token, nonce, aad, sizeof(aad), in, in_size, out, &out_size);
    return gcm_seal(dek->libctx, tpks_secret_data_const(dek->secret), nonce, aad, sizeof(aad), in,
                    in_size, out);
}

tpks_result dek_open(DEK *dek, const char *domain, const canonical *about,
                     const unsigned char nonce[NONCE_SIZE], const unsigned char *in, size_t in_size,
                     unsigned char *out)
{
    unsigned char aad[SHA256_SIZE];

    TRY(canonical_digest(about, dek->libctx, domain, aad));
    return dek_open_raw(dek, aad, sizeof(aad), nonce, in, in_size, out);
}

tpks_result dek_open_raw(DEK *dek, const unsigned char *aad, size_t aad_size,
                         const unsigned char nonce[NONCE_SIZE], const unsigned char *in,
                         size_t in_size, unsigned char *out)
{
    size_t out_size = in_size;

    if (in_size < TAG_SIZE)
        return fail(TPKS_TAMPERED, "the sealed data is too short");
    if (dek_is_none(dek))
        return fail(TPKS_TAMPERED, "it is encrypted, although the database says that its keys are "
                                   "stored in the clear");
    if (dek->in_token == NULL)
        return gcm_open(dek->libctx, tpks_secret_data_const(dek->secret), nonce, aad, aad_size, in,
                        in_size, out);
    TRY(hsm_gcm_open(dek->in_token, nonce, aad, aad_size, in, in_size, out, &out_size));
    if (out_size != in_size - TAG_SIZE) {
        OPENSSL_cleanse(out, in_size);
        return fail(TPKS_HSM_UNAVAILABLE, "the token returned %zu bytes where %zu are due",
                    out_size, in_size - TAG_SIZE);
    }
    return TPKS_OK;
}

tpks_result dek_prove(DEK *dek, const char *domain, const canonical *about,
                      unsigned char nonce[NONCE_SIZE], unsigned char proof[PROOF_SIZE])
{
    TRY(random_public(dek->libctx, nonce, NONCE_SIZE));
    TRY(dek_seal(dek, domain, about, nonce, zeros, sizeof(zeros), proof));
    /* A proof that does not open would lock everybody out, whichever slot they come from. */
    tpks_result result = dek_check(dek, domain, about, nonce, proof);
    if (result == TPKS_TAMPERED)
        return fail(TPKS_HSM_UNAVAILABLE, "what was sealed with the DEK does not open again: the "
                                          "HSM computes wrongly; nothing was changed");
    return result;
}

tpks_result dek_check(DEK *dek, const char *domain, const canonical *about,
                      const unsigned char nonce[NONCE_SIZE], const unsigned char proof[PROOF_SIZE])
{
    unsigned char opened[PROOF_SIZE];

    TRY(dek_open(dek, domain, about, nonce, proof, PROOF_SIZE, opened));
    if (CRYPTO_memcmp(opened, zeros, sizeof(zeros)) != 0)
        return fail(TPKS_TAMPERED, "the check value does not open to zeros");
    return TPKS_OK;
}

tpks_result random_public(OSSL_LIB_CTX *libctx, unsigned char *out, size_t size)
{
    if (RAND_bytes_ex(libctx, out, size, 0) != 1)
        return fail_crypto(TPKS_INTERNAL, "random numbers");
    return TPKS_OK;
}
