/*
 * context.h - what one loaded instance of the provider knows
 *
 * A CONTEXT is made by OSSL_provider_init() and is what libcrypto calls the provider context. It
 * holds a library context of its own in which OpenSSL's default provider does all cryptography:
 * nothing that the program configures (default properties, order of providers) applies there, and
 * our own provider is not in it. A CONTEXT is immutable once made and may be used by many threads.
 */
#ifndef TRUSTPOINT_CONTEXT_H
#define TRUSTPOINT_CONTEXT_H

#include <stdbool.h>

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/types.h>

#include "keystore.h"

typedef struct context CONTEXT;

/* libcrypto's functions for raising errors: see provider-base(7). */
typedef struct core {
    const OSSL_CORE_HANDLE *handle;
    OSSL_FUNC_core_get_params_fn *get_params;
    OSSL_FUNC_core_new_error_fn *new_error;
    OSSL_FUNC_core_set_error_debug_fn *set_error_debug;
    OSSL_FUNC_core_vset_error_fn *vset_error;
} CORE;

/*
 * Does no I/O and does not fail on bad configuration, which context_config() reports. NULL only
 * when memory is short.
 */
CONTEXT *context_new(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in);
void context_free(CONTEXT *context);

const CORE *context_core(const CONTEXT *context);
/* Our own library context; NULL when it could not be made. */
OSSL_LIB_CTX *context_libctx(const CONTEXT *context);
/* A digest of it; the caller frees it. The usual ones are kept: to fetch takes several locks. */
EVP_MD *context_digest(CONTEXT *context, const char *name);
/* The default provider in it; NULL when it could not be loaded. */
OSSL_PROVIDER *context_default(const CONTEXT *context);
/* The provider context of that default provider, as its functions expect it. */
void *context_default_ctx(const CONTEXT *context);
/* Are PEM stubs to be decoded? */
bool context_stubs(const CONTEXT *context);
/* Is everything there that operations need? */
bool context_works(const CONTEXT *context);

/*
 * Reads keystore.cnf; the caller frees it with tpks_config_free(). Raises the error and returns
 * NULL when that file, or what openssl.cnf says about it, is wrong.
 */
TPKS_CONFIG *context_config(const CONTEXT *context);

/*
 * Seeds the random generators that signatures use, once per context, so that it is done where
 * keys are loaded and not in the first handshake.
 */
void context_warm_up(CONTEXT *context);

#endif
