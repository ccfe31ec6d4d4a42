/*
 * asym_cipher.c - RSA decryption and encryption: the default provider's, given the key inside ours
 *
 * As in signature.c every context wraps one of the default provider's. With a key that stays in its
 * token that one takes the padding off after the token has decrypted (token.h).
 */
#include "operations.h"

#include <openssl/crypto.h>

#include "key.h"
#include "token.h"

#define FUNC_LAST OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS

static PASSTHROUGH rsa;

typedef struct cipher {
    void *inner; /* the default provider's context */
    KEY *key;    /* the last one given */
    bool decrypts;
} CIPHER;

#define INNER(id, name)                                                                            \
    ORIGINAL(&rsa, OSSL_FUNC_ASYM_CIPHER_##id, OSSL_FUNC_asym_cipher_##name##_fn)

static OSSL_FUNC_asym_cipher_newctx_fn newctx;
static OSSL_FUNC_asym_cipher_freectx_fn freectx;
static OSSL_FUNC_asym_cipher_dupctx_fn dupctx;
static OSSL_FUNC_asym_cipher_encrypt_init_fn encrypt_init;
static OSSL_FUNC_asym_cipher_encrypt_fn encrypt;
static OSSL_FUNC_asym_cipher_decrypt_init_fn decrypt_init;
static OSSL_FUNC_asym_cipher_decrypt_fn decrypt;
static OSSL_FUNC_asym_cipher_get_ctx_params_fn get_ctx_params;
static OSSL_FUNC_asym_cipher_set_ctx_params_fn set_ctx_params;
static OSSL_FUNC_asym_cipher_gettable_ctx_params_fn gettable_ctx_params;
static OSSL_FUNC_asym_cipher_settable_ctx_params_fn settable_ctx_params;

/* Takes `inner`, also when it fails. */
static CIPHER *wrap(void *inner)
{
    CIPHER *cipher = inner == NULL ? NULL : OPENSSL_zalloc(sizeof(*cipher));

    if (cipher != NULL)
        cipher->inner = inner;
    else if (inner != NULL)
        INNER(FREECTX, freectx)(inner);
    return cipher;
}

static void *newctx(void *provctx)
{
    return wrap(INNER(NEWCTX, newctx)(context_default_ctx(provctx)));
}

static void freectx(void *ctx)
{
    CIPHER *cipher = ctx;

    INNER(FREECTX, freectx)(cipher->inner);
    key_free(cipher->key);
    OPENSSL_free(cipher);
}

static void *dupctx(void *ctx)
{
    const CIPHER *from = ctx;
    CIPHER *to = wrap(INNER(DUPCTX, dupctx)(from->inner));

    if (to == NULL)
        return NULL;
    to->decrypts = from->decrypts;
    to->key = from->key == NULL ? NULL : key_up_ref(from->key);
    return to;
}

static bool begin(CIPHER *cipher, unsigned use, KEY *given)
{
    KEY *key = given == NULL ? cipher->key : given;

    if (key != NULL && use != 0 && !key_permits(key, use))
        return false;
    if (key != cipher->key) {
        key_free(cipher->key);
        cipher->key = key_up_ref(key);
    }
    cipher->decrypts = use == TPKS_MAY_DECRYPT;
    return true;
}

static int encrypt_init(void *ctx, void *key, const OSSL_PARAM params[])
{
    CIPHER *cipher = ctx;

    return begin(cipher, 0, key) &&
           INNER(ENCRYPT_INIT, encrypt_init)(cipher->inner, key_data(key), params);
}

static int encrypt(void *ctx, unsigned char *out, size_t *size, size_t room,
                   const unsigned char *in, size_t in_size)
{
    const CIPHER *cipher = ctx;

    return INNER(ENCRYPT, encrypt)(cipher->inner, out, size, room, in, in_size);
}

static int decrypt_init(void *ctx, void *key, const OSSL_PARAM params[])
{
    CIPHER *cipher = ctx;

    return begin(cipher, TPKS_MAY_DECRYPT, key) &&
           INNER(DECRYPT_INIT, decrypt_init)(cipher->inner, key_decryption_data(key), params);
}

static int decrypt(void *ctx, unsigned char *out, size_t *size, size_t room,
                   const unsigned char *in, size_t in_size)
{
    const CIPHER *cipher = ctx;

    if (cipher->decrypts && cipher->key != NULL && key_token(cipher->key) != NULL)
        return token_decrypt(cipher->key, &rsa, cipher->inner, out, size, room, in, in_size);
    return INNER(DECRYPT, decrypt)(cipher->inner, out, size, room, in, in_size);
}

static int get_ctx_params(void *ctx, OSSL_PARAM params[])
{
    const CIPHER *cipher = ctx;

    return INNER(GET_CTX_PARAMS, get_ctx_params)(cipher->inner, params);
}

static int set_ctx_params(void *ctx, const OSSL_PARAM params[])
{
    const CIPHER *cipher = ctx;

    return INNER(SET_CTX_PARAMS, set_ctx_params)(cipher->inner, params);
}

/* libcrypto asks these without a context too. */
static const OSSL_PARAM *gettable_ctx_params(void *ctx, void *provctx)
{
    const CIPHER *cipher = ctx;

    return INNER(GETTABLE_CTX_PARAMS, gettable_ctx_params)(cipher == NULL ? NULL : cipher->inner,
                                                           context_default_ctx(provctx));
}

static const OSSL_PARAM *settable_ctx_params(void *ctx, void *provctx)
{
    const CIPHER *cipher = ctx;

    return INNER(SETTABLE_CTX_PARAMS, settable_ctx_params)(cipher == NULL ? NULL : cipher->inner,
                                                           context_default_ctx(provctx));
}

static const OSSL_DISPATCH ours[] = {
    {OSSL_FUNC_ASYM_CIPHER_NEWCTX, (passthrough_fn *)newctx},
    {OSSL_FUNC_ASYM_CIPHER_ENCRYPT_INIT, (passthrough_fn *)encrypt_init},
    {OSSL_FUNC_ASYM_CIPHER_ENCRYPT, (passthrough_fn *)encrypt},
    {OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT, (passthrough_fn *)decrypt_init},
    {OSSL_FUNC_ASYM_CIPHER_DECRYPT, (passthrough_fn *)decrypt},
    {OSSL_FUNC_ASYM_CIPHER_FREECTX, (passthrough_fn *)freectx},
    {OSSL_FUNC_ASYM_CIPHER_DUPCTX, (passthrough_fn *)dupctx},
    {OSSL_FUNC_ASYM_CIPHER_GET_CTX_PARAMS, (passthrough_fn *)get_ctx_params},
    {OSSL_FUNC_ASYM_CIPHER_GETTABLE_CTX_PARAMS, (passthrough_fn *)gettable_ctx_params},
    {OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS, (passthrough_fn *)set_ctx_params},
    {OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS, (passthrough_fn *)settable_ctx_params},
    {0, NULL},
};

void asym_cipher_fill(const CONTEXT *context)
{
    const TAKEOVER takeovers[] = {
        {&rsa, OSSL_OP_ASYM_CIPHER, "RSA", FUNC_LAST, ours},
        {NULL, 0, NULL, 0, NULL},
    };

    passthrough_fill(context, takeovers);
}

const OSSL_ALGORITHM asym_cipher_algorithms[] = {
    {NAMES_RSA, PROPERTIES, rsa.table, NULL},
    {NULL, NULL, NULL, NULL},
};
