/*
 * key.c - a key that libcrypto holds through this provider
 */
#include "key.h"

#include <stdatomic.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include "error.h"
#include "token.h"

struct key {
    CONTEXT *context; /* outlives the key: libcrypto keeps the provider for every key */
    const KEY_TYPE *type;
    void *data;
    char *uri;
    unsigned policy;
    bool configured; /* keystore.cnf says the policy */
    bool private_half;
    TPKS_TOKEN_KEY *token; /* NULL: the private half is in `data` */
    void *unpadding;       /* with a token: data for decryption, NULL if it does not decrypt */
    int bits;              /* with a token */
    size_t signature_size; /* with a token */
    atomic_int references;
};

KEY_TYPE key_rsa = {.name = "RSA"};
KEY_TYPE key_rsa_pss = {.name = "RSA-PSS"};
KEY_TYPE key_ec = {.name = "EC"};
KEY_TYPE key_ed25519 = {.name = "ED25519"};
KEY_TYPE key_ed448 = {.name = "ED448"};

#define KEYMGMT_FUNCTIONS OSSL_FUNC_KEYMGMT_DUP

void key_types_fill(const CONTEXT *context)
{
    const TAKEOVER list[] = {
        {&key_rsa.keymgmt, OSSL_OP_KEYMGMT, "RSA", KEYMGMT_FUNCTIONS, NULL},
        {&key_rsa_pss.keymgmt, OSSL_OP_KEYMGMT, "RSA-PSS", KEYMGMT_FUNCTIONS, NULL},
        {&key_ec.keymgmt, OSSL_OP_KEYMGMT, "EC", KEYMGMT_FUNCTIONS, NULL},
        {&key_ed25519.keymgmt, OSSL_OP_KEYMGMT, "ED25519", KEYMGMT_FUNCTIONS, NULL},
        {&key_ed448.keymgmt, OSSL_OP_KEYMGMT, "ED448", KEYMGMT_FUNCTIONS, NULL},
        {NULL, 0, NULL, 0, NULL},
    };

    passthrough_fill(context, list);
}

const KEY_TYPE *key_type_find(const char *name)
{
    const KEY_TYPE *const types[] = {&key_rsa, &key_rsa_pss, &key_ec, &key_ed25519, &key_ed448};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i]->name, name) == 0)
            return types[i];
    return NULL;
}

static void data_free(const KEY_TYPE *type, void *data)
{
    OSSL_FUNC_keymgmt_free_fn *free_data =
        ORIGINAL(&type->keymgmt, OSSL_FUNC_KEYMGMT_FREE, OSSL_FUNC_keymgmt_free_fn);

    if (data != NULL && free_data != NULL)
        free_data(data);
}

/* Takes `data`, also when it fails. */
static KEY *wrap(CONTEXT *context, const KEY_TYPE *type, void *data)
{
    KEY *key = data == NULL ? NULL : OPENSSL_zalloc(sizeof(*key));

    if (key == NULL) {
        data_free(type, data);
        return NULL;
    }
    key->context = context;
    key->type = type;
    key->data = data;
    atomic_init(&key->references, 1);
    return key;
}

KEY *key_new(CONTEXT *context, const KEY_TYPE *type)
{
    OSSL_FUNC_keymgmt_new_fn *new_data =
        ORIGINAL(&type->keymgmt, OSSL_FUNC_KEYMGMT_NEW, OSSL_FUNC_keymgmt_new_fn);

    if (new_data == NULL || !context_works(context))
        return NULL;
    return wrap(context, type, new_data(context_default_ctx(context)));
}

KEY *key_up_ref(KEY *key)
{
    atomic_fetch_add_explicit(&key->references, 1, memory_order_relaxed);
    return key;
}

void key_free(KEY *key)
{
    if (key == NULL || atomic_fetch_sub_explicit(&key->references, 1, memory_order_acq_rel) != 1)
        return;
    data_free(key->type, key->data);
    data_free(key->type, key->unpadding);
    tpks_token_key_free(key->token);
    OPENSSL_free(key->uri);
    OPENSSL_free(key);
}

int key_set_private(KEY *key, const char *uri, unsigned policy, bool configured)
{
    key->private_half = true;
    key->configured = configured;
    key->policy = policy;
    key->uri = OPENSSL_strdup(uri);
    return key->uri != NULL;
}

static int read_sizes(KEY *key)
{
    OSSL_FUNC_keymgmt_get_params_fn *get = ORIGINAL(
        &key->type->keymgmt, OSSL_FUNC_KEYMGMT_GET_PARAMS, OSSL_FUNC_keymgmt_get_params_fn);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_PKEY_PARAM_BITS, &key->bits),
        OSSL_PARAM_construct_size_t(OSSL_PKEY_PARAM_MAX_SIZE, &key->signature_size),
        OSSL_PARAM_construct_end()};

    return get != NULL && get(key->data, params) && key->signature_size > 0;
}

int key_set_token(KEY *key, TPKS_TOKEN_KEY *token)
{
    key->token = token;
    if (!read_sizes(key))
        return 0;
    if (key->type != &key_rsa || (key->policy & TPKS_MAY_DECRYPT) == 0)
        return 1;
    key->unpadding = token_unpadding(key->context, key->type, key->data);
    return key->unpadding != NULL;
}

KEY *key_dup_public(const KEY *key, int selection)
{
    OSSL_FUNC_keymgmt_dup_fn *dup =
        ORIGINAL(&key->type->keymgmt, OSSL_FUNC_KEYMGMT_DUP, OSSL_FUNC_keymgmt_dup_fn);

    if (dup == NULL)
        return NULL;
    return wrap(key->context, key->type,
                dup(key->data, selection & ~OSSL_KEYMGMT_SELECT_PRIVATE_KEY));
}

/* ---- decoding ------------------------------------------------------------------------------ */

/*
 * One decoder is named by type and structure and asked directly: a search would run every decoder
 * there is over every key.
 */

typedef struct decoding {
    const KEY_TYPE *type;
    void *data;
} DECODING;

/* The decoder yields a reference that the default provider's key management takes over. */
static int construct(OSSL_DECODER_INSTANCE *instance, const OSSL_PARAM *params, void *arg)
{
    DECODING *decoding = arg;
    const OSSL_PARAM *reference = OSSL_PARAM_locate_const(params, OSSL_OBJECT_PARAM_REFERENCE);
    OSSL_FUNC_keymgmt_load_fn *load =
        ORIGINAL(&decoding->type->keymgmt, OSSL_FUNC_KEYMGMT_LOAD, OSSL_FUNC_keymgmt_load_fn);

    (void)instance;
    if (reference == NULL || reference->data_type != OSSL_PARAM_OCTET_STRING || load == NULL)
        return 0;
    decoding->data = load(reference->data, reference->data_size);
    return decoding->data != NULL;
}

static int decode_with(OSSL_DECODER_CTX *ctx, OSSL_DECODER *decoder, DECODING *decoding,
                       const unsigned char *der, size_t size)
{
    return ctx != NULL && decoder != NULL && OSSL_DECODER_CTX_add_decoder(ctx, decoder) &&
           OSSL_DECODER_CTX_set_input_type(ctx, "DER") &&
           OSSL_DECODER_CTX_set_construct(ctx, construct) &&
           OSSL_DECODER_CTX_set_construct_data(ctx, decoding) &&
           OSSL_DECODER_from_data(ctx, &der, &size);
}

static void *decode(const CONTEXT *context, const KEY_TYPE *type, const char *structure,
                    const unsigned char *der, size_t size)
{
    char properties[64];
    DECODING decoding = {.type = type};
    OSSL_DECODER *decoder;
    OSSL_DECODER_CTX *ctx = OSSL_DECODER_CTX_new();

    BIO_snprintf(properties, sizeof(properties), "input=der,structure=%s", structure);
    decoder = OSSL_DECODER_fetch(context_libctx(context), type->name, properties);
    if (!decode_with(ctx, decoder, &decoding, der, size)) {
        data_free(type, decoding.data);
        decoding.data = NULL;
    }
    OSSL_DECODER_CTX_free(ctx);
    OSSL_DECODER_free(decoder);
    return decoding.data;
}

KEY *key_decode(CONTEXT *context, const KEY_TYPE *type, const char *structure,
                const unsigned char *der, size_t size)
{
    KEY *key;

    ERR_set_mark();
    key = wrap(context, type, decode(context, type, structure, der, size));
    errors_end(key != NULL);
    if (key == NULL)
        RAISE(context, TPKS_TAMPERED,
              "what the keystore holds is not a key of type %s that OpenSSL can read: "
              "run trustpoint-keystore verify",
              type->name);
    return key;
}

int key_yield(KEY *key, OSSL_CALLBACK *callback, void *arg)
{
    int type = OSSL_OBJECT_PKEY, ok;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type),
        OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE, (char *)key_type(key)->name,
                                         0),
        OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &key, sizeof(key)),
        OSSL_PARAM_construct_end()};

    ok = callback(params, arg);
    key_free(key);
    return ok;
}

/* ---- what it is and may -------------------------------------------------------------------- */

CONTEXT *key_context(const KEY *key)
{
    return key->context;
}

const KEY_TYPE *key_type(const KEY *key)
{
    return key->type;
}

void *key_data(const KEY *key)
{
    return key == NULL ? NULL : key->data;
}

TPKS_TOKEN_KEY *key_token(const KEY *key)
{
    return key->token;
}

void *key_decryption_data(const KEY *key)
{
    return key == NULL || key->token == NULL ? key_data(key) : key->unpadding;
}

int key_bits(const KEY *key)
{
    return key->bits;
}

size_t key_signature_size(const KEY *key)
{
    return key->signature_size;
}

bool key_is_private(const KEY *key)
{
    return key->private_half;
}

const char *key_uri(const KEY *key)
{
    return key->uri == NULL ? "" : key->uri;
}

static const char *use_name(unsigned use)
{
    if (use == TPKS_MAY_SIGN)
        return "sign";
    return use == TPKS_MAY_DECRYPT ? "decrypt" : "agree";
}

bool key_permits(const KEY *key, unsigned use)
{
    if (!key->private_half || (key->policy & use) == use)
        return true;
    if (key->configured && use == TPKS_MAY_DECRYPT)
        RAISE(key->context, TPKS_NOT_PERMITTED,
              "key %s is Trustpoint's, which has no policy that would allow it to decrypt: name it "
              "in the directive `decrypt` of keystore.cnf",
              key->uri);
    else if (key->configured)
        RAISE(key->context, TPKS_NOT_PERMITTED,
              "the certificate of key %s does not allow to %s: have one issued that does", key->uri,
              use_name(use));
    else
        RAISE(key->context, TPKS_NOT_PERMITTED,
              "the policy of key %s does not allow to %s: trustpoint-keystore policy --allow-%s",
              key->uri, use_name(use), use_name(use));
    return false;
}
