/*
 * signature.c - signing and verifying: the default provider's, given the key inside ours
 *
 * Every context wraps one of the default provider's, to which everything is handed on. The one
 * exception is a signature with a key that stays in its token: there the default provider's context
 * holds the public half, checks every parameter and answers every question as for any key, while
 * the message is hashed here and the signature made by the token (token.h).
 */
#include "operations.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/proverr.h>
#include <openssl/rsa.h>

#include "error.h"
#include "key.h"
#include "token.h"

/* Added by OpenSSL 3.4; older headers do not name them. */
#define SIGN_MESSAGE_INIT 27
#define SIGN_MESSAGE_UPDATE 28
#define SIGN_MESSAGE_FINAL 29
#define VERIFY_MESSAGE_INIT 30
#define VERIFY_MESSAGE_UPDATE 31
#define VERIFY_MESSAGE_FINAL 32
#define FUNC_LAST VERIFY_MESSAGE_FINAL

/* Added by OpenSSL 3.2. */
#define PARAM_NONCE_TYPE "nonce-type"

static PASSTHROUGH rsa, ecdsa, ed25519, ed448;

typedef struct signature {
    const PASSTHROUGH *algorithm;
    void *inner; /* the default provider's context */
    KEY *key;    /* the last one given */
    bool by_token;
    EVP_MD_CTX *message; /* by a token: what is hashed, NULL if the program does it itself */
} SIGNATURE;

#define INNER(signature, id, name)                                                                 \
    ORIGINAL((signature)->algorithm, id, OSSL_FUNC_signature_##name##_fn)

/* ---- life ---------------------------------------------------------------------------------- */

static OSSL_FUNC_signature_freectx_fn freectx;
static OSSL_FUNC_signature_dupctx_fn dupctx;

/* Takes `inner`, also when it fails. */
static SIGNATURE *wrap(const PASSTHROUGH *algorithm, void *inner)
{
    SIGNATURE *signature = inner == NULL ? NULL : OPENSSL_zalloc(sizeof(*signature));

    if (signature != NULL) {
        signature->algorithm = algorithm;
        signature->inner = inner;
    } else if (inner != NULL) {
        ORIGINAL(algorithm, OSSL_FUNC_SIGNATURE_FREECTX, OSSL_FUNC_signature_freectx_fn)(inner);
    }
    return signature;
}

/* The program's property query is about its own library context, not about ours. */
static void *newctx(const PASSTHROUGH *algorithm, const CONTEXT *context)
{
    return wrap(algorithm,
                ORIGINAL(algorithm, OSSL_FUNC_SIGNATURE_NEWCTX,
                         OSSL_FUNC_signature_newctx_fn)(context_default_ctx(context), NULL));
}

static void freectx(void *ctx)
{
    SIGNATURE *signature = ctx;

    INNER(signature, OSSL_FUNC_SIGNATURE_FREECTX, freectx)(signature->inner);
    EVP_MD_CTX_free(signature->message);
    key_free(signature->key);
    OPENSSL_free(signature);
}

static bool copy_message(SIGNATURE *to, const SIGNATURE *from)
{
    if (from->message == NULL)
        return true;
    to->message = EVP_MD_CTX_new();
    return to->message != NULL && EVP_MD_CTX_copy_ex(to->message, from->message);
}

static void *dupctx(void *ctx)
{
    const SIGNATURE *from = ctx;
    SIGNATURE *to =
        wrap(from->algorithm, INNER(from, OSSL_FUNC_SIGNATURE_DUPCTX, dupctx)(from->inner));

    if (to == NULL)
        return NULL;
    to->by_token = from->by_token;
    to->key = from->key == NULL ? NULL : key_up_ref(from->key);
    if (!copy_message(to, from)) {
        freectx(to);
        return NULL;
    }
    return to;
}

/* ---- what is refused ----------------------------------------------------------------------- */

static bool is_padding(const OSSL_PARAM params[], int number, const char *name)
{
    const OSSL_PARAM *mode = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
    const char *given = NULL;
    int given_number = 0;

    if (mode == NULL)
        return false;
    if (mode->data_type == OSSL_PARAM_UTF8_STRING)
        return OSSL_PARAM_get_utf8_string_ptr(mode, &given) && given != NULL &&
               strcmp(given, name) == 0;
    return OSSL_PARAM_get_int(mode, &given_number) && given_number == number;
}

/*
 * Signing a block without padding is the same computation as decrypting it, so it would give a key
 * that may only sign the power to decrypt.
 */
static bool refuse_padding(const SIGNATURE *signature, const OSSL_PARAM params[])
{
    const char *why = NULL;

    if (is_padding(params, RSA_NO_PADDING, OSSL_PKEY_RSA_PAD_MODE_NONE))
        why = "trustpoint: keys do not sign without padding, which would be decryption";
    else if (signature->by_token &&
             is_padding(params, RSA_X931_PADDING, OSSL_PKEY_RSA_PAD_MODE_X931))
        why = "trustpoint: keys in a token do not sign with X9.31 padding";
    if (why != NULL)
        ERR_raise_data(ERR_LIB_PROV, PROV_R_ILLEGAL_OR_UNSUPPORTED_PADDING_MODE, "%s", why);
    return why != NULL;
}

/* A token draws its random numbers itself. */
static bool refuse_nonce(const SIGNATURE *signature, const OSSL_PARAM params[])
{
    const OSSL_PARAM *nonce = OSSL_PARAM_locate_const(params, PARAM_NONCE_TYPE);
    unsigned type = 0;

    if (!signature->by_token || nonce == NULL || (OSSL_PARAM_get_uint(nonce, &type) && type == 0))
        return false;
    ERR_raise_data(ERR_LIB_PROV, PROV_R_NOT_SUPPORTED,
                   "trustpoint: keys in a token do not make deterministic signatures");
    return true;
}

static bool refused(const SIGNATURE *signature, const OSSL_PARAM params[])
{
    if (params == NULL)
        return false;
    if (signature->algorithm == &rsa)
        return refuse_padding(signature, params);
    return refuse_nonce(signature, params);
}

/* ---- beginning ----------------------------------------------------------------------------- */

/* libcrypto passes no key when it reuses a context with the key it has. */
static bool begin(SIGNATURE *signature, unsigned use, KEY *given, const OSSL_PARAM params[])
{
    KEY *key = given == NULL ? signature->key : given;

    if (key != NULL && use != 0 && !key_permits(key, use))
        return false;
    if (key != signature->key) {
        key_free(signature->key);
        signature->key = key_up_ref(key);
    }
    EVP_MD_CTX_free(signature->message);
    signature->message = NULL;
    signature->by_token = use == TPKS_MAY_SIGN && key != NULL && key_token(key) != NULL;
    return !refused(signature, params);
}

/* As the default provider begins its own, and with the digest that it has settled on. */
static bool begin_message(SIGNATURE *signature, const OSSL_PARAM params[])
{
    EVP_MD *md;
    bool ok;

    if (!signature->by_token)
        return true;
    md = token_digest(signature->key, signature->algorithm, signature->inner);
    signature->message = EVP_MD_CTX_new();
    ok = md != NULL && signature->message != NULL &&
         EVP_DigestInit_ex2(signature->message, md, params);
    EVP_MD_free(md);
    return ok;
}

static int init(void *ctx, int id, unsigned use, KEY *key, const OSSL_PARAM params[])
{
    SIGNATURE *signature = ctx;

    return begin(signature, use, key, params) &&
           INNER(signature, id, sign_init)(signature->inner, key_data(key), params);
}

static int digest_init(void *ctx, int id, unsigned use, const char *digest, KEY *key,
                       const OSSL_PARAM params[])
{
    SIGNATURE *signature = ctx;

    return begin(signature, use, key, params) &&
           INNER(signature, id, digest_sign_init)(signature->inner, digest, key_data(key),
                                                  params) &&
           begin_message(signature, params);
}

#define INIT(function, id, use)                                                                    \
    static OSSL_FUNC_signature_sign_init_fn function;                                              \
    static int function(void *ctx, void *key, const OSSL_PARAM params[])                           \
    {                                                                                              \
        return init(ctx, id, use, key, params);                                                    \
    }

#define DIGEST_INIT(function, id, use)                                                             \
    static OSSL_FUNC_signature_digest_sign_init_fn function;                                       \
    static int function(void *ctx, const char *digest, void *key, const OSSL_PARAM params[])       \
    {                                                                                              \
        return digest_init(ctx, id, use, digest, key, params);                                     \
    }

INIT(sign_init, OSSL_FUNC_SIGNATURE_SIGN_INIT, TPKS_MAY_SIGN)
INIT(verify_init, OSSL_FUNC_SIGNATURE_VERIFY_INIT, 0)
INIT(verify_recover_init, OSSL_FUNC_SIGNATURE_VERIFY_RECOVER_INIT, 0)
INIT(verify_message_init, VERIFY_MESSAGE_INIT, 0)
DIGEST_INIT(digest_sign_init, OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, TPKS_MAY_SIGN)
DIGEST_INIT(digest_verify_init, OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT, 0)

static OSSL_FUNC_signature_sign_init_fn sign_message_init;
static int sign_message_init(void *ctx, void *key, const OSSL_PARAM params[])
{
    return init(ctx, SIGN_MESSAGE_INIT, TPKS_MAY_SIGN, key, params) && begin_message(ctx, params);
}

/* ---- signing ------------------------------------------------------------------------------- */

static OSSL_FUNC_signature_sign_fn sign;
static OSSL_FUNC_signature_digest_sign_fn digest_sign;
static OSSL_FUNC_signature_digest_sign_update_fn digest_sign_update, sign_message_update;
static OSSL_FUNC_signature_digest_sign_final_fn digest_sign_final, sign_message_final;

/* The default provider gets the call without the data, to say whether it is in order. */
static int update(SIGNATURE *signature, int id, const unsigned char *data, size_t size)
{
    if (!signature->by_token)
        return INNER(signature, id, digest_sign_update)(signature->inner, data, size);
    return INNER(signature, id, digest_sign_update)(signature->inner, data, 0) &&
           EVP_DigestUpdate(signature->message, data, size);
}

static int final_by_token(SIGNATURE *signature, int id, unsigned char *out, size_t *size,
                          size_t room)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_size = 0;
    size_t needed;
    int ok;

    if (!INNER(signature, id, digest_sign_final)(signature->inner, NULL, &needed, 0) ||
        !EVP_DigestFinal_ex(signature->message, digest, &digest_size))
        return 0;
    ok = token_sign(signature->key, signature->algorithm, signature->inner, out, size, room, digest,
                    digest_size);
    if (ok != TOKEN_UNFIT)
        return ok;
    return INNER(signature, id, digest_sign_final)(signature->inner, out, size, room);
}

static int final(SIGNATURE *signature, int id, unsigned char *out, size_t *size, size_t room)
{
    if (!signature->by_token)
        return INNER(signature, id, digest_sign_final)(signature->inner, out, size, room);
    if (out != NULL)
        return final_by_token(signature, id, out, size, room);
    *size = key_signature_size(signature->key); /* as it says, and for ECDSA computes each time */
    return 1;
}

static int sign_by_token(SIGNATURE *signature, unsigned char *out, size_t *size, size_t room,
                         const unsigned char *in, size_t in_size)
{
    int ok;

    if (signature->message != NULL)
        return update(signature, SIGN_MESSAGE_UPDATE, in, in_size) &&
               final(signature, SIGN_MESSAGE_FINAL, out, size, room);
    ok = token_sign(signature->key, signature->algorithm, signature->inner, out, size, room, in,
                    in_size);
    if (ok != TOKEN_UNFIT)
        return ok;
    return INNER(signature, OSSL_FUNC_SIGNATURE_SIGN, sign)(signature->inner, out, size, room, in,
                                                            in_size);
}

static int sign(void *ctx, unsigned char *out, size_t *size, size_t room, const unsigned char *in,
                size_t in_size)
{
    SIGNATURE *signature = ctx;

    if (signature->by_token && out != NULL)
        return sign_by_token(signature, out, size, room, in, in_size);
    return INNER(signature, OSSL_FUNC_SIGNATURE_SIGN, sign)(signature->inner, out, size, room, in,
                                                            in_size);
}

static int digest_sign_update(void *ctx, const unsigned char *data, size_t size)
{
    return update(ctx, OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, data, size);
}

static int digest_sign_final(void *ctx, unsigned char *out, size_t *size, size_t room)
{
    return final(ctx, OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, out, size, room);
}

/* Only keys that are never in a token (Ed25519, Ed448) have this one. */
static int digest_sign(void *ctx, unsigned char *out, size_t *size, size_t room,
                       const unsigned char *in, size_t in_size)
{
    SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_DIGEST_SIGN, digest_sign)(signature->inner, out,
                                                                          size, room, in, in_size);
}

static int sign_message_update(void *ctx, const unsigned char *data, size_t size)
{
    return update(ctx, SIGN_MESSAGE_UPDATE, data, size);
}

static int sign_message_final(void *ctx, unsigned char *out, size_t *size, size_t room)
{
    return final(ctx, SIGN_MESSAGE_FINAL, out, size, room);
}

/* ---- verifying ----------------------------------------------------------------------------- */

static OSSL_FUNC_signature_verify_fn verify, digest_verify;
static OSSL_FUNC_signature_verify_recover_fn verify_recover;
static OSSL_FUNC_signature_digest_verify_update_fn digest_verify_update, verify_message_update;
static OSSL_FUNC_signature_digest_verify_final_fn digest_verify_final;

static int verify(void *ctx, const unsigned char *value, size_t size, const unsigned char *in,
                  size_t in_size)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_VERIFY, verify)(signature->inner, value, size, in,
                                                                in_size);
}

static int verify_recover(void *ctx, unsigned char *out, size_t *size, size_t room,
                          const unsigned char *value, size_t value_size)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_VERIFY_RECOVER,
                 verify_recover)(signature->inner, out, size, room, value, value_size);
}

static int digest_verify(void *ctx, const unsigned char *value, size_t size,
                         const unsigned char *in, size_t in_size)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_DIGEST_VERIFY, verify)(signature->inner, value,
                                                                       size, in, in_size);
}

static int digest_verify_update(void *ctx, const unsigned char *data, size_t size)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_UPDATE,
                 digest_verify_update)(signature->inner, data, size);
}

static int digest_verify_final(void *ctx, const unsigned char *value, size_t size)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_FINAL,
                 digest_verify_final)(signature->inner, value, size);
}

static int verify_message_update(void *ctx, const unsigned char *data, size_t size)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, VERIFY_MESSAGE_UPDATE, digest_verify_update)(signature->inner, data,
                                                                         size);
}

typedef int verify_message_final_fn(void *ctx);

static verify_message_final_fn verify_message_final;
static int verify_message_final(void *ctx)
{
    const SIGNATURE *signature = ctx;

    return ORIGINAL(signature->algorithm, VERIFY_MESSAGE_FINAL,
                    verify_message_final_fn)(signature->inner);
}

/* ---- parameters ---------------------------------------------------------------------------- */

static OSSL_FUNC_signature_get_ctx_params_fn get_ctx_params, get_ctx_md_params;
static OSSL_FUNC_signature_set_ctx_params_fn set_ctx_params, set_ctx_md_params;
static OSSL_FUNC_signature_gettable_ctx_md_params_fn gettable_ctx_md_params, settable_ctx_md_params;

static int get_ctx_params(void *ctx, OSSL_PARAM params[])
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, get_ctx_params)(signature->inner,
                                                                                params);
}

static int set_ctx_params(void *ctx, const OSSL_PARAM params[])
{
    const SIGNATURE *signature = ctx;

    return !refused(signature, params) && INNER(signature, OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS,
                                                set_ctx_params)(signature->inner, params);
}

static int get_ctx_md_params(void *ctx, OSSL_PARAM params[])
{
    const SIGNATURE *signature = ctx;

    if (signature->message != NULL)
        return EVP_MD_CTX_get_params(signature->message, params);
    return INNER(signature, OSSL_FUNC_SIGNATURE_GET_CTX_MD_PARAMS,
                 get_ctx_md_params)(signature->inner, params);
}

static int set_ctx_md_params(void *ctx, const OSSL_PARAM params[])
{
    const SIGNATURE *signature = ctx;

    if (!INNER(signature, OSSL_FUNC_SIGNATURE_SET_CTX_MD_PARAMS,
               set_ctx_md_params)(signature->inner, params))
        return 0;
    return signature->message == NULL || EVP_MD_CTX_set_params(signature->message, params);
}

static const OSSL_PARAM *gettable_ctx_md_params(void *ctx)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_GETTABLE_CTX_MD_PARAMS,
                 gettable_ctx_md_params)(signature->inner);
}

static const OSSL_PARAM *settable_ctx_md_params(void *ctx)
{
    const SIGNATURE *signature = ctx;

    return INNER(signature, OSSL_FUNC_SIGNATURE_SETTABLE_CTX_MD_PARAMS,
                 settable_ctx_md_params)(signature->inner);
}

/* libcrypto asks these without a context too. */
static const OSSL_PARAM *list(const PASSTHROUGH *algorithm, int id, void *ctx,
                              const CONTEXT *context)
{
    const SIGNATURE *signature = ctx;

    return ORIGINAL(algorithm, id, OSSL_FUNC_signature_gettable_ctx_params_fn)(
        signature == NULL ? NULL : signature->inner, context_default_ctx(context));
}

/* ---- tables -------------------------------------------------------------------------------- */

/* Functions that can be called without a context must know their algorithm. */
#define ALGORITHM(name)                                                                            \
    static OSSL_FUNC_signature_newctx_fn name##_newctx;                                            \
    static OSSL_FUNC_signature_gettable_ctx_params_fn name##_gettable;                             \
    static OSSL_FUNC_signature_settable_ctx_params_fn name##_settable;                             \
    static void *name##_newctx(void *provctx, const char *propq)                                   \
    {                                                                                              \
        (void)propq;                                                                               \
        return newctx(&name, provctx);                                                             \
    }                                                                                              \
    static const OSSL_PARAM *name##_gettable(void *ctx, void *provctx)                             \
    {                                                                                              \
        return list(&name, OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, ctx, provctx);                 \
    }                                                                                              \
    static const OSSL_PARAM *name##_settable(void *ctx, void *provctx)                             \
    {                                                                                              \
        return list(&name, OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, ctx, provctx);                 \
    }                                                                                              \
    static const OSSL_DISPATCH name##_ours[] = {                                                   \
        {OSSL_FUNC_SIGNATURE_NEWCTX, (passthrough_fn *)name##_newctx},                             \
        {OSSL_FUNC_SIGNATURE_SIGN_INIT, (passthrough_fn *)sign_init},                              \
        {OSSL_FUNC_SIGNATURE_SIGN, (passthrough_fn *)sign},                                        \
        {OSSL_FUNC_SIGNATURE_VERIFY_INIT, (passthrough_fn *)verify_init},                          \
        {OSSL_FUNC_SIGNATURE_VERIFY, (passthrough_fn *)verify},                                    \
        {OSSL_FUNC_SIGNATURE_VERIFY_RECOVER_INIT, (passthrough_fn *)verify_recover_init},          \
        {OSSL_FUNC_SIGNATURE_VERIFY_RECOVER, (passthrough_fn *)verify_recover},                    \
        {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, (passthrough_fn *)digest_sign_init},                \
        {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, (passthrough_fn *)digest_sign_update},            \
        {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, (passthrough_fn *)digest_sign_final},              \
        {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, (passthrough_fn *)digest_sign},                          \
        {OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT, (passthrough_fn *)digest_verify_init},            \
        {OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_UPDATE, (passthrough_fn *)digest_verify_update},        \
        {OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_FINAL, (passthrough_fn *)digest_verify_final},          \
        {OSSL_FUNC_SIGNATURE_DIGEST_VERIFY, (passthrough_fn *)digest_verify},                      \
        {OSSL_FUNC_SIGNATURE_FREECTX, (passthrough_fn *)freectx},                                  \
        {OSSL_FUNC_SIGNATURE_DUPCTX, (passthrough_fn *)dupctx},                                    \
        {OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, (passthrough_fn *)get_ctx_params},                    \
        {OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, (passthrough_fn *)name##_gettable},              \
        {OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, (passthrough_fn *)set_ctx_params},                    \
        {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, (passthrough_fn *)name##_settable},              \
        {OSSL_FUNC_SIGNATURE_GET_CTX_MD_PARAMS, (passthrough_fn *)get_ctx_md_params},              \
        {OSSL_FUNC_SIGNATURE_GETTABLE_CTX_MD_PARAMS, (passthrough_fn *)gettable_ctx_md_params},    \
        {OSSL_FUNC_SIGNATURE_SET_CTX_MD_PARAMS, (passthrough_fn *)set_ctx_md_params},              \
        {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_MD_PARAMS, (passthrough_fn *)settable_ctx_md_params},    \
        {SIGN_MESSAGE_INIT, (passthrough_fn *)sign_message_init},                                  \
        {SIGN_MESSAGE_UPDATE, (passthrough_fn *)sign_message_update},                              \
        {SIGN_MESSAGE_FINAL, (passthrough_fn *)sign_message_final},                                \
        {VERIFY_MESSAGE_INIT, (passthrough_fn *)verify_message_init},                              \
        {VERIFY_MESSAGE_UPDATE, (passthrough_fn *)verify_message_update},                          \
        {VERIFY_MESSAGE_FINAL, (passthrough_fn *)verify_message_final},                            \
        {0, NULL},                                                                                 \
    };

ALGORITHM(rsa)
ALGORITHM(ecdsa)
ALGORITHM(ed25519)
ALGORITHM(ed448)

void signature_fill(const CONTEXT *context)
{
    const TAKEOVER takeovers[] = {
        {&rsa, OSSL_OP_SIGNATURE, "RSA", FUNC_LAST, rsa_ours},
        {&ecdsa, OSSL_OP_SIGNATURE, "ECDSA", FUNC_LAST, ecdsa_ours},
        {&ed25519, OSSL_OP_SIGNATURE, "ED25519", FUNC_LAST, ed25519_ours},
        {&ed448, OSSL_OP_SIGNATURE, "ED448", FUNC_LAST, ed448_ours},
        {NULL, 0, NULL, 0, NULL},
    };

    passthrough_fill(context, takeovers);
}

const OSSL_ALGORITHM signature_algorithms[] = {
    {NAMES_RSA, PROPERTIES, rsa.table, NULL},
    {NAMES_ECDSA, PROPERTIES, ecdsa.table, NULL},
    {NAMES_ED25519, PROPERTIES, ed25519.table, NULL},
    {NAMES_ED448, PROPERTIES, ed448.table, NULL},
    {NULL, NULL, NULL, NULL},
};
