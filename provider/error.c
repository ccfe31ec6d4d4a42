/*
 * error.c - errors of the provider in OpenSSL's error queue
 */
#include "error.h"

#include <stdarg.h>

void raise_error(const CONTEXT *context, const char *file, int line, const char *function,
                 tpks_result reason, const char *format, ...)
{
    const CORE *core = context_core(context);
    va_list arguments;

    if (core->new_error == NULL || core->vset_error == NULL)
        return;
    core->new_error(core->handle);
    if (core->set_error_debug != NULL)
        core->set_error_debug(core->handle, file, line, function);
    va_start(arguments, format);
    core->vset_error(core->handle, (uint32_t)reason, format, arguments);
    va_end(arguments);
}

tpks_result raise_result(const CONTEXT *context, const char *file, int line, const char *function,
                         tpks_result result)
{
    if (result != TPKS_OK)
        raise_error(context, file, line, function, result, "%s", tpks_error_text());
    return result;
}

/* The structure has no const: libcrypto only reads the texts. */
#define REASON(number, text)                                                                       \
    {                                                                                              \
        number, (void *)(text)                                                                     \
    }

const OSSL_ITEM reason_strings[] = {
    REASON(TPKS_NOT_FOUND, "no such key"),
    REASON(TPKS_AMBIGUOUS, "several keys match"),
    REASON(TPKS_EXISTS, "exists already"),
    REASON(TPKS_KEK_MISSING, "the HSM has lost the key encryption key"),
    REASON(TPKS_KEK_FOREIGN, "the HSM has another key encryption key"),
    REASON(TPKS_TOKEN_MISSING, "token not found"),
    REASON(TPKS_HSM_UNAVAILABLE, "HSM unavailable"),
    REASON(TPKS_WRONG_SECRET, "wrong or missing password or PIN"),
    REASON(TPKS_PIN_LOCKED, "PIN locked or refused before"),
    REASON(TPKS_TAMPERED, "stored data has been changed"),
    REASON(TPKS_NOT_PERMITTED, "not permitted"),
    REASON(TPKS_DATABASE_UNAVAILABLE, "database unavailable"),
    REASON(TPKS_NOT_A_KEYSTORE, "not a keystore"),
    REASON(TPKS_NEWER_FORMAT, "keystore of a newer format"),
    REASON(TPKS_UNINITIALIZED, "no keystore there yet"),
    REASON(TPKS_ROLLED_BACK, "older than this host has seen"),
    REASON(TPKS_RESTORE_PENDING, "another process is restoring"),
    REASON(TPKS_BAD_URI, "bad URI"),
    REASON(TPKS_BAD_CONFIG, "bad configuration"),
    REASON(TPKS_BAD_INPUT, "bad input"),
    REASON(TPKS_MISMATCH, "does not belong to the key"),
    REASON(TPKS_CONFLICT, "changed by another process"),
    REASON(TPKS_UNSUPPORTED, "not supported"),
    REASON(TPKS_NO_MEMORY, "out of memory"),
    REASON(TPKS_INTERNAL, "internal error"),
    REASON(TPKS_KEY_MISSING, "the token no longer has the key"),
    {0, NULL},
};
