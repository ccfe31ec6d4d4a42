/*
 * asym_cipher.c - RSA decryption and encryption: the default provider's, given the key inside ours
 */
#include "operations.h"

#include "key.h"

#define FUNC_LAST OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS

static PASSTHROUGH rsa;

static OSSL_FUNC_asym_cipher_newctx_fn rsa_newctx;
static OSSL_FUNC_asym_cipher_encrypt_init_fn rsa_encrypt_init;
static OSSL_FUNC_asym_cipher_decrypt_init_fn rsa_decrypt_init;

static void *rsa_newctx(void *provctx)
{
    return ORIGINAL(&rsa, OSSL_FUNC_ASYM_CIPHER_NEWCTX,
                    OSSL_FUNC_asym_cipher_newctx_fn)(context_default_ctx(provctx));
}

static int rsa_encrypt_init(void *ctx, void *key, const OSSL_PARAM params[])
{
    return ORIGINAL(&rsa, OSSL_FUNC_ASYM_CIPHER_ENCRYPT_INIT,
                    OSSL_FUNC_asym_cipher_encrypt_init_fn)(ctx, key_data(key), params);
}

static int rsa_decrypt_init(void *ctx, void *key, const OSSL_PARAM params[])
{
    if (key != NULL && !key_permits(key, TPKS_MAY_DECRYPT))
        return 0;
    return ORIGINAL(&rsa, OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT,
                    OSSL_FUNC_asym_cipher_decrypt_init_fn)(ctx, key_data(key), params);
}

static const OSSL_DISPATCH rsa_ours[] = {
    {OSSL_FUNC_ASYM_CIPHER_NEWCTX, (passthrough_fn *)rsa_newctx},
    {OSSL_FUNC_ASYM_CIPHER_ENCRYPT_INIT, (passthrough_fn *)rsa_encrypt_init},
    {OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT, (passthrough_fn *)rsa_decrypt_init},
    {0, NULL},
};

void asym_cipher_fill(const CONTEXT *context)
{
    const TAKEOVER list[] = {
        {&rsa, OSSL_OP_ASYM_CIPHER, "RSA", FUNC_LAST, rsa_ours},
        {NULL, 0, NULL, 0, NULL},
    };

    passthrough_fill(context, list);
}

const OSSL_ALGORITHM asym_cipher_algorithms[] = {
    {NAMES_RSA, PROPERTIES, rsa.table, NULL},
    {NULL, NULL, NULL, NULL},
};
