/*
 * error.c - one thread's last failure
 */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

#include "text.h"

#define TEXT_SIZE 1024

static _Thread_local char last_text[TEXT_SIZE];

static const char *const RESULT_NAMES[] = {
    [TPKS_OK] = "ok",
    [TPKS_NOT_FOUND] = "not-found",
    [TPKS_AMBIGUOUS] = "ambiguous",
    [TPKS_EXISTS] = "exists",
    [TPKS_KEK_MISSING] = "kek-missing",
    [TPKS_KEK_FOREIGN] = "kek-foreign",
    [TPKS_TOKEN_MISSING] = "token-missing",
    [TPKS_HSM_UNAVAILABLE] = "hsm-unavailable",
    [TPKS_WRONG_SECRET] = "wrong-secret",
    [TPKS_PIN_LOCKED] = "pin-locked",
    [TPKS_TAMPERED] = "tampered",
    [TPKS_NOT_PERMITTED] = "not-permitted",
    [TPKS_DATABASE_UNAVAILABLE] = "database-unavailable",
    [TPKS_NOT_A_KEYSTORE] = "not-a-keystore",
    [TPKS_NEWER_FORMAT] = "newer-format",
    [TPKS_UNINITIALIZED] = "uninitialized",
    [TPKS_ROLLED_BACK] = "rolled-back",
    [TPKS_RESTORE_PENDING] = "restore-pending",
    [TPKS_BAD_URI] = "bad-uri",
    [TPKS_BAD_CONFIG] = "bad-config",
    [TPKS_BAD_INPUT] = "bad-input",
    [TPKS_MISMATCH] = "mismatch",
    [TPKS_CONFLICT] = "conflict",
    [TPKS_UNSUPPORTED] = "unsupported",
    [TPKS_NO_MEMORY] = "no-memory",
    [TPKS_INTERNAL] = "internal",
    [TPKS_KEY_MISSING] = "key-missing",
};

const char *tpks_result_name(tpks_result result)
{
    size_t count = sizeof(RESULT_NAMES) / sizeof(RESULT_NAMES[0]);
    size_t i = (size_t)result;

    return i < count && RESULT_NAMES[i] != NULL ? RESULT_NAMES[i] : "unknown";
}

const char *tpks_error_text(void)
{
    return last_text;
}

/* Arguments may point into last_text, so the text is made elsewhere first. */
tpks_result fail(tpks_result result, const char *format, ...)
{
    char raw[TEXT_SIZE];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(raw, sizeof(raw), format, arguments);
    va_end(arguments);
    text_escape(raw, last_text, sizeof(last_text));
    return result;
}

tpks_result fail_in(tpks_result result, const char *format, ...)
{
    char context[TEXT_SIZE];
    va_list arguments;

    if (result == TPKS_OK)
        return result;
    va_start(arguments, format);
    vsnprintf(context, sizeof(context), format, arguments);
    va_end(arguments);
    return fail(result, "%s: %s", context, last_text);
}

tpks_result fail_crypto(tpks_result result, const char *what)
{
    unsigned long error = ERR_peek_last_error();
    const char *reason;

    if (error == 0)
        reason = "libcrypto gives no reason";
    else if (ERR_SYSTEM_ERROR(error))
        reason = strerror(ERR_GET_REASON(error));
    else
        reason = ERR_reason_error_string(error);
    return fail(result, "%s: %s", what, reason != NULL ? reason : "libcrypto gives no reason");
}

/* No mark can be set in an empty queue, but then taking back everything is just right. */
int crypto_scope_begin(void)
{
    return ERR_set_mark();
}

void crypto_scope_end(int *scope)
{
    (void)scope;
    (void)ERR_pop_to_mark();
}

tpks_result fail_memory(void)
{
    return fail(TPKS_NO_MEMORY, "out of memory");
}
