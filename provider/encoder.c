/*
 * encoder.c - what is written where a program writes a key (provider-encoder(7))
 *
 * Where OpenSSL would write the private key, a stub is written, which loads like it: as PEM, and
 * as the DER that Apache makes of every key and reads again. What can only mean the key itself
 * (PKCS#8, PKCS#12) is refused with the reason. Public keys are written by the default provider.
 */
#include "operations.h"

#include <string.h>

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/provider.h>

#include "error.h"
#include "key.h"

static OSSL_FUNC_encoder_newctx_fn encoder_newctx;
static OSSL_FUNC_encoder_freectx_fn encoder_freectx;
static OSSL_FUNC_encoder_does_selection_fn encoder_does_selection;
static OSSL_FUNC_encoder_encode_fn pem_encode, der_encode, refuse_encode, text_encode;

static void *encoder_newctx(void *provctx)
{
    return provctx;
}

static void encoder_freectx(void *ctx)
{
    (void)ctx;
}

static int encoder_does_selection(void *provctx, int selection)
{
    (void)provctx;
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0;
}

static void bio_free(BIO **bio)
{
    BIO_free(*bio);
}

static void memory_free(unsigned char **memory)
{
    OPENSSL_free(*memory);
}

/* ---- stubs --------------------------------------------------------------------------------- */

typedef int write_fn(BIO *out, const unsigned char *der, size_t size);

static int write_pem(BIO *out, const unsigned char *der, size_t size)
{
    return PEM_write_bio(out, TPKS_STUB_LABEL, "", der, (long)size) > 0;
}

static int write_der(BIO *out, const unsigned char *der, size_t size)
{
    size_t written = 0;

    return BIO_write_ex(out, der, size, &written) && written == size;
}

static int encode_stub(const CONTEXT *context, OSSL_CORE_BIO *core_bio, const KEY *key,
                       write_fn *write)
{
    KEEP_ERRNO;
    __attribute__((cleanup(memory_free))) unsigned char *der = NULL;
    __attribute__((cleanup(bio_free))) BIO *out =
        BIO_new_from_core_bio(context_libctx(context), core_bio);
    size_t size = 0;

    /* Without an object there is an abstract one (parameters), which can't be ours. */
    if (out == NULL || key == NULL || !key_is_private(key))
        return 0;
    if (RAISE_RESULT(context, tpks_stub_encode(key_type(key)->name, key_uri(key), &der, &size)) !=
        TPKS_OK)
        return 0;
    return write(out, der, size);
}

static int pem_encode(void *ctx, OSSL_CORE_BIO *out, const void *key, const OSSL_PARAM abstract[],
                      int selection, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
    (void)abstract;
    (void)selection;
    (void)ask;
    (void)ask_arg;
    return encode_stub(ctx, out, key, write_pem);
}

static int der_encode(void *ctx, OSSL_CORE_BIO *out, const void *key, const OSSL_PARAM abstract[],
                      int selection, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
    (void)abstract;
    (void)selection;
    (void)ask;
    (void)ask_arg;
    return encode_stub(ctx, out, key, write_der);
}

static int refuse_encode(void *ctx, OSSL_CORE_BIO *out, const void *key,
                         const OSSL_PARAM abstract[], int selection, OSSL_PASSPHRASE_CALLBACK *ask,
                         void *ask_arg)
{
    (void)out;
    (void)abstract;
    (void)selection;
    (void)ask;
    (void)ask_arg;
    if (key != NULL && key_token(key) != NULL)
        RAISE(ctx, TPKS_NOT_PERMITTED,
              "%s: the private key never leaves its token: use its URI or stub", key_uri(key));
    else
        RAISE(
            ctx, TPKS_NOT_PERMITTED,
            "%s: the private key does not leave the keystore through the provider: use its URI or "
            "stub, or trustpoint-keystore export",
            key == NULL ? "key" : key_uri(key));
    return 0;
}

/* ---- text -------------------------------------------------------------------------------------
 */

static int write_heading(const CONTEXT *context, OSSL_CORE_BIO *core_bio, const KEY *key)
{
    __attribute__((cleanup(bio_free))) BIO *out =
        BIO_new_from_core_bio(context_libctx(context), core_bio);

    return out != NULL &&
           BIO_printf(out, "Trustpoint Private-Key: (%s%s)\nURI: %s\n", key_type(key)->name,
                      key_token(key) == NULL ? "" : ", in a token", key_uri(key)) > 0;
}

static const OSSL_DISPATCH *text_encoder(const OSSL_ALGORITHM *theirs, const char *name)
{
    size_t length = strlen(name);

    for (; theirs != NULL && theirs->algorithm_names != NULL; theirs++)
        if (strncmp(theirs->algorithm_names, name, length) == 0 &&
            (theirs->algorithm_names[length] == ':' || theirs->algorithm_names[length] == '\0') &&
            strstr(theirs->property_definition, "output=text") != NULL)
            return theirs->implementation;
    return NULL;
}

static passthrough_fn *function_of(const OSSL_DISPATCH *table, int id)
{
    for (; table != NULL && table->function_id != 0; table++)
        if (table->function_id == id)
            return table->function;
    return NULL;
}

static int encode_with(const OSSL_DISPATCH *table, const CONTEXT *context, OSSL_CORE_BIO *out,
                       const KEY *key, int selection)
{
    OSSL_FUNC_encoder_newctx_fn *newctx =
        (OSSL_FUNC_encoder_newctx_fn *)function_of(table, OSSL_FUNC_ENCODER_NEWCTX);
    OSSL_FUNC_encoder_freectx_fn *freectx =
        (OSSL_FUNC_encoder_freectx_fn *)function_of(table, OSSL_FUNC_ENCODER_FREECTX);
    OSSL_FUNC_encoder_encode_fn *encode =
        (OSSL_FUNC_encoder_encode_fn *)function_of(table, OSSL_FUNC_ENCODER_ENCODE);
    void *ctx;
    int ok;

    if (newctx == NULL || freectx == NULL || encode == NULL)
        return 0;
    ctx = newctx(context_default_ctx(context));
    ok = ctx != NULL && encode(ctx, out, key_data((KEY *)key), NULL, selection, NULL, NULL);
    freectx(ctx);
    return ok;
}

/* The default provider's text, of everything but the private half. */
static int write_public(const CONTEXT *context, OSSL_CORE_BIO *out, const KEY *key, int selection)
{
    OSSL_PROVIDER *defaults = context_default(context);
    int no_cache = 0, ok;
    const OSSL_ALGORITHM *theirs =
        OSSL_PROVIDER_query_operation(defaults, OSSL_OP_ENCODER, &no_cache);

    ok = encode_with(text_encoder(theirs, key_type(key)->name), context, out, key,
                     (selection & ~OSSL_KEYMGMT_SELECT_PRIVATE_KEY) |
                         OSSL_KEYMGMT_SELECT_PUBLIC_KEY);
    OSSL_PROVIDER_unquery_operation(defaults, OSSL_OP_ENCODER, theirs);
    return ok;
}

static int text_encode(void *ctx, OSSL_CORE_BIO *out, const void *keydata,
                       const OSSL_PARAM abstract[], int selection, OSSL_PASSPHRASE_CALLBACK *ask,
                       void *ask_arg)
{
    KEEP_ERRNO;
    const KEY *key = keydata;

    (void)abstract;
    (void)ask;
    (void)ask_arg;
    if (key == NULL || !key_is_private(key))
        return 0;
    return write_heading(ctx, out, key) && write_public(ctx, out, key, selection);
}

/* ---- tables -------------------------------------------------------------------------------- */

#define FUNCTIONS(name)                                                                            \
    static const OSSL_DISPATCH name##_functions[] = {                                              \
        {OSSL_FUNC_ENCODER_NEWCTX, (passthrough_fn *)encoder_newctx},                              \
        {OSSL_FUNC_ENCODER_FREECTX, (passthrough_fn *)encoder_freectx},                            \
        {OSSL_FUNC_ENCODER_DOES_SELECTION, (passthrough_fn *)encoder_does_selection},              \
        {OSSL_FUNC_ENCODER_ENCODE, (passthrough_fn *)name##_encode},                               \
        {0, NULL},                                                                                 \
    };

FUNCTIONS(pem)
FUNCTIONS(der)
FUNCTIONS(refuse)
FUNCTIONS(text)

/* libcrypto asks for "type-specific" DER in i2d_PrivateKey(), for "PrivateKeyInfo" as PKCS#8. */
#define TYPE(names)                                                                                \
    {names, PROPERTIES ",output=text", text_functions, NULL},                                      \
        {names, PROPERTIES ",output=pem,structure=PrivateKeyInfo", pem_functions, NULL},           \
        {names, PROPERTIES ",output=der,structure=type-specific", der_functions, NULL},            \
        {names, PROPERTIES ",output=der,structure=PrivateKeyInfo", refuse_functions, NULL},        \
        {names, PROPERTIES ",output=der,structure=EncryptedPrivateKeyInfo", refuse_functions,      \
         NULL},                                                                                    \
        {names, PROPERTIES ",output=pem,structure=EncryptedPrivateKeyInfo", refuse_functions,      \
         NULL},                                                                                    \
    {                                                                                              \
        names, PROPERTIES ",output=pem,structure=type-specific", refuse_functions, NULL            \
    }

const OSSL_ALGORITHM encoder_algorithms[] = {
    TYPE(NAMES_RSA),     TYPE(NAMES_RSA_PSS), TYPE(NAMES_EC),
    TYPE(NAMES_ED25519), TYPE(NAMES_ED448),   {NULL, NULL, NULL, NULL},
};
