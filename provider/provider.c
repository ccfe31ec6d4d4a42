/*
 * provider.c - the OpenSSL provider trustpoint: see provider(7) and provider-base(7)
 *
 * It gives programs private keys that are encrypted at rest, by name. It offers no other
 * cryptography, so that no other key or digest of a program can come to depend on it.
 */
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>

#include "context.h"
#include "error.h"
#include "key.h"
#include "operations.h"

static OSSL_FUNC_provider_teardown_fn provider_teardown;
static OSSL_FUNC_provider_gettable_params_fn provider_gettable_params;
static OSSL_FUNC_provider_get_params_fn provider_get_params;
static OSSL_FUNC_provider_query_operation_fn provider_query_operation;
static OSSL_FUNC_provider_get_reason_strings_fn provider_get_reason_strings;

/* Nothing of an HSM is touched here: its module may have been taken down before. */
static void provider_teardown(void *provctx)
{
    context_free(provctx);
}

static const OSSL_PARAM *provider_gettable_params(void *provctx)
{
    static const OSSL_PARAM gettable[] = {
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_VERSION, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_BUILDINFO, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0),
        OSSL_PARAM_END,
    };

    (void)provctx;
    return gettable;
}

static int set_text(OSSL_PARAM params[], const char *name, const char *text)
{
    OSSL_PARAM *param = OSSL_PARAM_locate(params, name);

    return param == NULL || OSSL_PARAM_set_utf8_ptr(param, text);
}

static int provider_get_params(void *provctx, OSSL_PARAM params[])
{
    OSSL_PARAM *status = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);

    return set_text(params, OSSL_PROV_PARAM_NAME, "Trustpoint Provider") &&
           set_text(params, OSSL_PROV_PARAM_VERSION, TPKS_VERSION) &&
           set_text(params, OSSL_PROV_PARAM_BUILDINFO,
                    "trustpoint " TPKS_VERSION " for " OPENSSL_VERSION_TEXT) &&
           (status == NULL || OSSL_PARAM_set_int(status, context_works(provctx)));
}

/*
 * Without a library context of our own only the store is there, which says so. `no_cache` stays
 * 0: libcrypto searches what is not cached first, which would prefer us to the default provider.
 */
static const OSSL_ALGORITHM *provider_query_operation(void *provctx, int operation, int *no_cache)
{
    *no_cache = 0;
    if (operation == OSSL_OP_STORE)
        return store_algorithms;
    if (!context_works(provctx))
        return NULL;
    switch (operation) {
    case OSSL_OP_KEYMGMT:
        return keymgmt_algorithms;
    case OSSL_OP_SIGNATURE:
        return signature_algorithms;
    case OSSL_OP_ASYM_CIPHER:
        return asym_cipher_algorithms;
    case OSSL_OP_KEYEXCH:
        return keyexch_algorithms;
    case OSSL_OP_DECODER:
        return context_stubs(provctx) ? decoder_algorithms() : NULL;
    case OSSL_OP_ENCODER:
        return encoder_algorithms;
    default:
        return NULL;
    }
}

static const OSSL_ITEM *provider_get_reason_strings(void *provctx)
{
    (void)provctx;
    return reason_strings;
}

static const OSSL_DISPATCH provider_functions[] = {
    {OSSL_FUNC_PROVIDER_TEARDOWN, (passthrough_fn *)provider_teardown},
    {OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (passthrough_fn *)provider_gettable_params},
    {OSSL_FUNC_PROVIDER_GET_PARAMS, (passthrough_fn *)provider_get_params},
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (passthrough_fn *)provider_query_operation},
    {OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, (passthrough_fn *)provider_get_reason_strings},
    {0, NULL},
};

/*
 * libcrypto ignores a provider that fails here without a word to anybody, so only lack of memory
 * makes it fail; whatever else is wrong is said when a key is wanted.
 */
__attribute__((visibility("default"))) int OSSL_provider_init(const OSSL_CORE_HANDLE *handle,
                                                              const OSSL_DISPATCH *in,
                                                              const OSSL_DISPATCH **out,
                                                              void **provctx)
{
    KEEP_ERRNO;
    CONTEXT *context = context_new(handle, in);

    if (context == NULL)
        return 0;
    key_types_fill(context);
    signature_fill(context);
    asym_cipher_fill(context);
    keyexch_fill(context);
    *out = provider_functions;
    *provctx = context;
    return 1;
}
