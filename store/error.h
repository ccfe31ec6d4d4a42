/*
 * error.h - one thread's last failure
 *
 * The text has three parts where it can: which thing, why, what to do.
 */
#ifndef TRUSTPOINT_ERROR_H
#define TRUSTPOINT_ERROR_H

#include "keystore.h"

/* Sets the text and returns `result`, so that a failure is one statement: return fail(...). */
tpks_result fail(tpks_result result, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " before the present text; returns `result`. Nothing is done for TPKS_OK. */
tpks_result fail_in(tpks_result result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Failure of libcrypto: takes the reason of its newest error into the text. Its queue is left
 * alone. */
tpks_result fail_crypto(tpks_result result, const char *what);

/*
 * Declared first in a function, gives libcrypto's error queue back at the end of it as it was at
 * the beginning (ERR_set_mark(3)), whichever way the function is left. May be nested.
 */
#define CRYPTO_SCOPE                                                                               \
    __attribute__((cleanup(crypto_scope_end), unused)) int crypto_scope_ = crypto_scope_begin()
int crypto_scope_begin(void);
void crypto_scope_end(int *scope);

/* Out of memory. */
tpks_result fail_memory(void);

/* Returns on failure, passing it on. */
#define TRY(expression)                                                                            \
    do {                                                                                           \
        tpks_result try_result_ = (expression);                                                    \
        if (try_result_ != TPKS_OK)                                                                \
            return try_result_;                                                                    \
    } while (0)

#endif
