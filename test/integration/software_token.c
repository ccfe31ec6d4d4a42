/*
 * software_token.c - a token that can do everything, for tests: preloaded, it stands in the place
 * of the library's functions for keys in a token, and does with OpenSSL what a PKCS#11 module would
 *
 * Every record counts as one whose key is in this token. So types, digests and paddings that no
 * token at hand can do are tested as well.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "keystore.h"

#define DEFAULT "provider=default"
#define MODULUS_MAX 2048

struct tpks_token_key {
    EVP_PKEY *key;
    atomic_int references;
};

static _Thread_local int loading;

/* The library asks too, while the key is loaded for this token. */
tpks_key_home tpks_record_home(const TPKS_RECORD *record)
{
    (void)record;
    return loading ? TPKS_HOME_DATABASE : TPKS_HOME_TOKEN;
}

static tpks_result load(TPKS *ks, const TPKS_RECORD *record, TPKS_SECRET **out)
{
    tpks_result result;

    loading = 1;
    result = tpks_load_key(ks, record, out);
    loading = 0;
    return result;
}

tpks_result tpks_token_key_open(TPKS *ks, const TPKS_RECORD *record, TPKS_TOKEN_KEY **out)
{
    TPKS_SECRET *secret = NULL;
    tpks_result result = load(ks, record, &secret);
    const unsigned char *der;
    PKCS8_PRIV_KEY_INFO *info;

    if (result != TPKS_OK)
        return result;
    der = tpks_secret_data_const(secret);
    info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &der, (long)tpks_secret_size(secret));
    *out = calloc(1, sizeof(**out));
    (*out)->key = EVP_PKCS82PKEY_ex(info, NULL, DEFAULT);
    atomic_init(&(*out)->references, 1);
    PKCS8_PRIV_KEY_INFO_free(info);
    tpks_secret_free(secret);
    return (*out)->key != NULL ? TPKS_OK : TPKS_INTERNAL;
}

void tpks_token_key_free(TPKS_TOKEN_KEY *key)
{
    if (key == NULL || atomic_fetch_sub(&key->references, 1) != 1)
        return;
    EVP_PKEY_free(key->key);
    free(key);
}

static int set_pss(EVP_PKEY_CTX *ctx, const tpks_token_op *op)
{
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0 &&
           EVP_PKEY_CTX_set_signature_md(ctx, EVP_get_digestbyname(op->digest)) > 0 &&
           EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_get_digestbyname(op->mgf1_digest)) > 0 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, (int)op->salt_size) > 0;
}

/* From DER to what PKCS#11 has. */
static int split(const TPKS_TOKEN_KEY *key, const unsigned char *der, size_t size,
                 unsigned char *out, size_t *out_size)
{
    int half = (EVP_PKEY_get_bits(key->key) + 7) / 8;
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &der, (long)size);
    int ok = pair != NULL && *out_size >= (size_t)(2 * half) &&
             BN_bn2binpad(ECDSA_SIG_get0_r(pair), out, half) == half &&
             BN_bn2binpad(ECDSA_SIG_get0_s(pair), out + half, half) == half;

    *out_size = (size_t)(2 * half);
    ECDSA_SIG_free(pair);
    return ok;
}

static int do_sign(const TPKS_TOKEN_KEY *key, EVP_PKEY_CTX *ctx, const tpks_token_op *op,
                   const unsigned char *in, size_t in_size, unsigned char *out, size_t *out_size)
{
    unsigned char der[256];
    size_t der_size = sizeof(der);

    if (ctx == NULL || EVP_PKEY_sign_init(ctx) <= 0)
        return 0;
    if (op->mechanism == TPKS_ECDSA)
        return EVP_PKEY_sign(ctx, der, &der_size, in, in_size) > 0 &&
               split(key, der, der_size, out, out_size);
    if (op->mechanism == TPKS_RSA_PSS)
        return set_pss(ctx, op) && EVP_PKEY_sign(ctx, out, out_size, in, in_size) > 0;
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) > 0 &&
           EVP_PKEY_sign(ctx, out, out_size, in, in_size) > 0;
}

tpks_result tpks_token_key_sign(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                const unsigned char *in, size_t in_size, unsigned char *out,
                                size_t *out_size)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->key, DEFAULT);
    int ok = do_sign(key, ctx, op, in, in_size, out, out_size);

    EVP_PKEY_CTX_free(ctx);
    return ok ? TPKS_OK : TPKS_BAD_INPUT;
}

tpks_result tpks_token_key_decrypt(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                   const unsigned char *in, size_t in_size, unsigned char *out,
                                   size_t *out_size)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->key, DEFAULT);
    unsigned char copy[MODULUS_MAX];
    int ok = op->mechanism == TPKS_RSA_RAW && in_size <= sizeof(copy) && ctx != NULL;

    if (ok) {
        memcpy(copy, in, in_size); /* both may be the same place */
        ok = EVP_PKEY_decrypt_init(ctx) > 0 &&
             EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING) > 0 &&
             EVP_PKEY_decrypt(ctx, out, out_size, copy, in_size) > 0;
    }
    EVP_PKEY_CTX_free(ctx);
    return ok ? TPKS_OK : TPKS_BAD_INPUT;
}
