/*
 * signature.c - signing and verifying: the default provider's, given the key inside ours
 */
#include "operations.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/proverr.h>
#include <openssl/rsa.h>

#include "error.h"
#include "key.h"

/* Added by OpenSSL 3.4; older headers do not name them. */
#define FUNC_SIGN_MESSAGE_INIT 27
#define FUNC_VERIFY_MESSAGE_INIT 30
#define FUNC_LAST 32

static PASSTHROUGH rsa, ecdsa, ed25519, ed448;

static void *newctx(const PASSTHROUGH *algorithm, void *provctx)
{
    /* The program's property query is about its own library context, not about ours. */
    return ORIGINAL(algorithm, OSSL_FUNC_SIGNATURE_NEWCTX,
                    OSSL_FUNC_signature_newctx_fn)(context_default_ctx(provctx), NULL);
}

/*
 * Signing a block without padding is the same computation as decrypting it, so it would give a key
 * that may only sign the power to decrypt.
 */
static bool is_unpadded(const OSSL_PARAM params[])
{
    const OSSL_PARAM *mode = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
    const char *name = NULL;
    int number = 0;

    if (mode == NULL)
        return false;
    if (mode->data_type == OSSL_PARAM_UTF8_STRING)
        return OSSL_PARAM_get_utf8_string_ptr(mode, &name) && name != NULL &&
               strcmp(name, OSSL_PKEY_RSA_PAD_MODE_NONE) == 0;
    return OSSL_PARAM_get_int(mode, &number) && number == RSA_NO_PADDING;
}

static bool refuse_unpadded(const OSSL_PARAM params[])
{
    if (params == NULL || !is_unpadded(params))
        return false;
    ERR_raise_data(ERR_LIB_PROV, PROV_R_ILLEGAL_OR_UNSUPPORTED_PADDING_MODE,
                   "trustpoint: keys do not sign without padding, which would be decryption");
    return true;
}

static bool refused(const PASSTHROUGH *algorithm, unsigned use, const KEY *key,
                    const OSSL_PARAM params[])
{
    if (key != NULL && use != 0 && !key_permits(key, use))
        return true;
    return algorithm == &rsa && refuse_unpadded(params);
}

/* libcrypto passes no key when it reuses a context with the key it has. */
static int init(const PASSTHROUGH *algorithm, int id, unsigned use, void *ctx, const KEY *key,
                const OSSL_PARAM params[])
{
    if (refused(algorithm, use, key, params))
        return 0;
    return ORIGINAL(algorithm, id, OSSL_FUNC_signature_sign_init_fn)(ctx, key_data(key), params);
}

static int digest_init(const PASSTHROUGH *algorithm, int id, unsigned use, void *ctx,
                       const char *digest, const KEY *key, const OSSL_PARAM params[])
{
    if (refused(algorithm, use, key, params))
        return 0;
    return ORIGINAL(algorithm, id, OSSL_FUNC_signature_digest_sign_init_fn)(ctx, digest,
                                                                            key_data(key), params);
}

#define NEWCTX(algorithm)                                                                          \
    static OSSL_FUNC_signature_newctx_fn algorithm##_newctx;                                       \
    static void *algorithm##_newctx(void *provctx, const char *propq)                              \
    {                                                                                              \
        (void)propq;                                                                               \
        return newctx(&algorithm, provctx);                                                        \
    }

#define INIT(algorithm, function, id, use)                                                         \
    static OSSL_FUNC_signature_sign_init_fn algorithm##_##function;                                \
    static int algorithm##_##function(void *ctx, void *key, const OSSL_PARAM params[])             \
    {                                                                                              \
        return init(&algorithm, id, use, ctx, key, params);                                        \
    }

#define DIGEST_INIT(algorithm, function, id, use)                                                  \
    static OSSL_FUNC_signature_digest_sign_init_fn algorithm##_##function;                         \
    static int algorithm##_##function(void *ctx, const char *digest, void *key,                    \
                                      const OSSL_PARAM params[])                                   \
    {                                                                                              \
        return digest_init(&algorithm, id, use, ctx, digest, key, params);                         \
    }

#define ALGORITHM(name)                                                                            \
    NEWCTX(name)                                                                                   \
    INIT(name, sign_init, OSSL_FUNC_SIGNATURE_SIGN_INIT, TPKS_MAY_SIGN)                            \
    INIT(name, verify_init, OSSL_FUNC_SIGNATURE_VERIFY_INIT, 0)                                    \
    INIT(name, verify_recover_init, OSSL_FUNC_SIGNATURE_VERIFY_RECOVER_INIT, 0)                    \
    INIT(name, sign_message_init, FUNC_SIGN_MESSAGE_INIT, TPKS_MAY_SIGN)                           \
    INIT(name, verify_message_init, FUNC_VERIFY_MESSAGE_INIT, 0)                                   \
    DIGEST_INIT(name, digest_sign_init, OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, TPKS_MAY_SIGN)       \
    DIGEST_INIT(name, digest_verify_init, OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT, 0)

ALGORITHM(rsa)
ALGORITHM(ecdsa)
ALGORITHM(ed25519)
ALGORITHM(ed448)

static OSSL_FUNC_signature_set_ctx_params_fn rsa_set_ctx_params;
static int rsa_set_ctx_params(void *ctx, const OSSL_PARAM params[])
{
    if (refuse_unpadded(params))
        return 0;
    return ORIGINAL(&rsa, OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS,
                    OSSL_FUNC_signature_set_ctx_params_fn)(ctx, params);
}

#define OURS(name)                                                                                 \
    {OSSL_FUNC_SIGNATURE_NEWCTX, (passthrough_fn *)name##_newctx},                                 \
        {OSSL_FUNC_SIGNATURE_SIGN_INIT, (passthrough_fn *)name##_sign_init},                       \
        {OSSL_FUNC_SIGNATURE_VERIFY_INIT, (passthrough_fn *)name##_verify_init},                   \
        {OSSL_FUNC_SIGNATURE_VERIFY_RECOVER_INIT, (passthrough_fn *)name##_verify_recover_init},   \
        {FUNC_SIGN_MESSAGE_INIT, (passthrough_fn *)name##_sign_message_init},                      \
        {FUNC_VERIFY_MESSAGE_INIT, (passthrough_fn *)name##_verify_message_init},                  \
        {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, (passthrough_fn *)name##_digest_sign_init},         \
    {                                                                                              \
        OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT, (passthrough_fn *)name##_digest_verify_init        \
    }

static const OSSL_DISPATCH rsa_ours[] = {
    OURS(rsa),
    {OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, (passthrough_fn *)rsa_set_ctx_params},
    {0, NULL},
};
static const OSSL_DISPATCH ecdsa_ours[] = {OURS(ecdsa), {0, NULL}};
static const OSSL_DISPATCH ed25519_ours[] = {OURS(ed25519), {0, NULL}};
static const OSSL_DISPATCH ed448_ours[] = {OURS(ed448), {0, NULL}};

void signature_fill(const CONTEXT *context)
{
    const TAKEOVER list[] = {
        {&rsa, OSSL_OP_SIGNATURE, "RSA", FUNC_LAST, rsa_ours},
        {&ecdsa, OSSL_OP_SIGNATURE, "ECDSA", FUNC_LAST, ecdsa_ours},
        {&ed25519, OSSL_OP_SIGNATURE, "ED25519", FUNC_LAST, ed25519_ours},
        {&ed448, OSSL_OP_SIGNATURE, "ED448", FUNC_LAST, ed448_ours},
        {NULL, 0, NULL, 0, NULL},
    };

    passthrough_fill(context, list);
}

const OSSL_ALGORITHM signature_algorithms[] = {
    {NAMES_RSA, PROPERTIES, rsa.table, NULL},
    {NAMES_ECDSA, PROPERTIES, ecdsa.table, NULL},
    {NAMES_ED25519, PROPERTIES, ed25519.table, NULL},
    {NAMES_ED448, PROPERTIES, ed448.table, NULL},
    {NULL, NULL, NULL, NULL},
};
