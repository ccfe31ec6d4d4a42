/*
 * error.h - errors of the provider in OpenSSL's error queue
 *
 * Reason codes are tpks_result numbers: stable, and the same in the command's output. Raised
 * through libcrypto's own functions for providers (provider-base(7)), so that the program sees
 * the provider's name with them.
 */
#ifndef TRUSTPOINT_PROVIDER_ERROR_H
#define TRUSTPOINT_PROVIDER_ERROR_H

#include <errno.h>

#include <openssl/err.h>

#include "context.h"

/* Puts one error into the calling thread's queue. */
void raise_error(const CONTEXT *context, const char *file, int line, const char *function,
                 tpks_result reason, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* Raises the library's text unless `result` is TPKS_OK; returns `result`. */
tpks_result raise_result(const CONTEXT *context, const char *file, int line, const char *function,
                         tpks_result result);

#define RAISE(context, reason, ...)                                                                \
    raise_error(context, OPENSSL_FILE, OPENSSL_LINE, OPENSSL_FUNC, reason, __VA_ARGS__)
#define RAISE_RESULT(context, result)                                                              \
    raise_result(context, OPENSSL_FILE, OPENSSL_LINE, OPENSSL_FUNC, result)

/* A short text for every reason code, for OSSL_FUNC_PROVIDER_GET_REASON_STRINGS. */
extern const OSSL_ITEM reason_strings[];

/*
 * Programs look at errno when a key does not load, and take what they find for the reason: a
 * function that declares KEEP_ERRNO leaves it as it was.
 */
static inline void errno_restore(const int *kept)
{
    errno = *kept;
}
#define KEEP_ERRNO __attribute__((cleanup(errno_restore), unused)) const int kept_errno = errno

/*
 * Ends what ERR_set_mark() began: when it went well the error queue is as it was, and when it
 * failed every error since is kept. Returns `ok`.
 */
static inline int errors_end(int ok)
{
    if (ok)
        ERR_pop_to_mark();
    else
        ERR_clear_last_mark();
    return ok;
}

#endif
