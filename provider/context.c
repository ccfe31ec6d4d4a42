/*
 * context.c - what one loaded instance of the provider knows
 */
#include "context.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

#include "error.h"

/* Those that certificates and TLS sign with, as programs and the default provider call them. */
static const char *const digest_names[] = {"SHA256",   "SHA2-256", "SHA384",
                                           "SHA2-384", "SHA512",   "SHA2-512"};
#define DIGESTS (sizeof(digest_names) / sizeof(digest_names[0]))

struct context {
    CORE core;
    OSSL_LIB_CTX *libctx;
    OSSL_PROVIDER *defaults;
    char *config_path;   /* NULL: the library's own default */
    char *bad_directive; /* what openssl.cnf says wrongly, NULL if nothing */
    bool stubs;
    atomic_flag warm;
    _Atomic(EVP_MD *) digests[DIGESTS]; /* NULL until asked for */
};

static void core_function(CORE *core, const OSSL_DISPATCH *in)
{
    switch (in->function_id) {
    case OSSL_FUNC_CORE_GET_PARAMS:
        core->get_params = OSSL_FUNC_core_get_params(in);
        break;
    case OSSL_FUNC_CORE_NEW_ERROR:
        core->new_error = OSSL_FUNC_core_new_error(in);
        break;
    case OSSL_FUNC_CORE_SET_ERROR_DEBUG:
        core->set_error_debug = OSSL_FUNC_core_set_error_debug(in);
        break;
    case OSSL_FUNC_CORE_VSET_ERROR:
        core->vset_error = OSSL_FUNC_core_vset_error(in);
        break;
    default:
        break;
    }
}

static void set_pem_stub(CONTEXT *context, const char *value)
{
    if (strcasecmp(value, "yes") == 0 || strcasecmp(value, "no") == 0)
        context->stubs = strcasecmp(value, "yes") == 0;
    else
        context->bad_directive = OPENSSL_strdup(value);
}

/* The values belong to libcrypto: those that are kept are copied. */
static void read_openssl_cnf(CONTEXT *context)
{
    char *config = NULL, *pem_stub = NULL;
    OSSL_PARAM wanted[] = {OSSL_PARAM_construct_utf8_ptr("config", &config, 0),
                           OSSL_PARAM_construct_utf8_ptr("pem-stub", &pem_stub, 0),
                           OSSL_PARAM_construct_end()};

    if (context->core.get_params == NULL || !context->core.get_params(context->core.handle, wanted))
        return;
    if (config != NULL)
        context->config_path = OPENSSL_strdup(config);
    if (pem_stub != NULL)
        set_pem_stub(context, pem_stub);
}

/* Programs that wipe their environment later have been asked by then. */
static void read_environment(CONTEXT *context)
{
    const char *path = secure_getenv("TRUSTPOINT_KEYSTORE_CONF");

    if (path == NULL || *path == '\0')
        return;
    OPENSSL_free(context->config_path);
    context->config_path = OPENSSL_strdup(path);
}

static void make_libctx(CONTEXT *context, const OSSL_DISPATCH *in)
{
    ERR_set_mark();
    context->libctx = OSSL_LIB_CTX_new_from_dispatch(context->core.handle, in);
    if (context->libctx != NULL)
        context->defaults = OSSL_PROVIDER_load(context->libctx, "default");
    ERR_pop_to_mark();
}

CONTEXT *context_new(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in)
{
    CONTEXT *context = OPENSSL_zalloc(sizeof(*context));

    if (context == NULL)
        return NULL;
    context->core.handle = handle;
    context->stubs = true;
    atomic_flag_clear(&context->warm);
    for (const OSSL_DISPATCH *function = in; function->function_id != 0; function++)
        core_function(&context->core, function);
    read_openssl_cnf(context);
    read_environment(context);
    make_libctx(context, in);
    return context;
}

void context_free(CONTEXT *context)
{
    if (context == NULL)
        return;
    for (size_t i = 0; i < DIGESTS; i++)
        EVP_MD_free(atomic_load(&context->digests[i]));
    if (context->defaults != NULL)
        OSSL_PROVIDER_unload(context->defaults);
    OSSL_LIB_CTX_free(context->libctx);
    OPENSSL_free(context->config_path);
    OPENSSL_free(context->bad_directive);
    OPENSSL_free(context);
}

const CORE *context_core(const CONTEXT *context)
{
    return &context->core;
}

OSSL_LIB_CTX *context_libctx(const CONTEXT *context)
{
    return context->libctx;
}

static EVP_MD *kept_digest(CONTEXT *context, size_t i)
{
    EVP_MD *kept = atomic_load(&context->digests[i]);

    if (kept != NULL)
        return kept;
    EVP_MD *fresh = EVP_MD_fetch(context->libctx, digest_names[i], NULL);
    if (fresh == NULL || atomic_compare_exchange_strong(&context->digests[i], &kept, fresh))
        return fresh;
    EVP_MD_free(fresh);
    return kept;
}

EVP_MD *context_digest(CONTEXT *context, const char *name)
{
    for (size_t i = 0; i < DIGESTS; i++) {
        if (strcasecmp(name, digest_names[i]) != 0)
            continue;
        EVP_MD *digest = kept_digest(context, i);
        return digest != NULL && EVP_MD_up_ref(digest) ? digest : NULL;
    }
    return EVP_MD_fetch(context->libctx, name, NULL);
}

OSSL_PROVIDER *context_default(const CONTEXT *context)
{
    return context->defaults;
}

void *context_default_ctx(const CONTEXT *context)
{
    return OSSL_PROVIDER_get0_provider_ctx(context->defaults);
}

bool context_stubs(const CONTEXT *context)
{
    return context->stubs;
}

bool context_works(const CONTEXT *context)
{
    return context->defaults != NULL;
}

TPKS_CONFIG *context_config(const CONTEXT *context)
{
    TPKS_CONFIG *config = NULL;

    if (!context_works(context)) {
        RAISE(context, TPKS_INTERNAL,
              "OpenSSL's default provider could not be loaded for the provider's own use: "
              "reinstall OpenSSL or free memory");
        return NULL;
    }
    if (context->bad_directive != NULL) {
        RAISE(context, TPKS_BAD_CONFIG,
              "openssl.cnf: section of provider trustpoint: pem-stub = %s: write yes or no",
              context->bad_directive);
        return NULL;
    }
    if (RAISE_RESULT(context, tpks_config_load(context->config_path, &config)) != TPKS_OK)
        return NULL;
    return config;
}

void context_warm_up(CONTEXT *context)
{
    unsigned char byte;

    if (atomic_flag_test_and_set(&context->warm))
        return;
    ERR_set_mark();
    if (RAND_bytes_ex(context->libctx, &byte, sizeof(byte), 0) <= 0 ||
        RAND_priv_bytes_ex(context->libctx, &byte, sizeof(byte), 0) <= 0)
        atomic_flag_clear(&context->warm);
    ERR_pop_to_mark();
}
