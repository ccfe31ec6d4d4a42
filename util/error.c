/*
 * error.c - what the command says when something fails, and with which exit code it ends
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "command.h"
#include "output.h"

static const int exit_codes[] = {
    [TPKS_OK] = EX_OK,
    [TPKS_NOT_FOUND] = EX_NOINPUT,
    [TPKS_AMBIGUOUS] = EX_DATAERR,
    [TPKS_EXISTS] = EX_CANTCREAT,
    [TPKS_KEK_MISSING] = EX_TEMPFAIL,
    [TPKS_KEK_FOREIGN] = EX_DATAERR,
    [TPKS_TOKEN_MISSING] = EX_UNAVAILABLE,
    [TPKS_HSM_UNAVAILABLE] = EX_UNAVAILABLE,
    [TPKS_WRONG_SECRET] = EX_NOPERM,
    [TPKS_PIN_LOCKED] = EX_NOPERM,
    [TPKS_TAMPERED] = EX_DATAERR,
    [TPKS_NOT_PERMITTED] = EX_NOPERM,
    [TPKS_DATABASE_UNAVAILABLE] = EX_UNAVAILABLE,
    [TPKS_NOT_A_KEYSTORE] = EX_DATAERR,
    [TPKS_NEWER_FORMAT] = EX_CONFIG,
    [TPKS_UNINITIALIZED] = EX_CONFIG,
    [TPKS_ROLLED_BACK] = EX_DATAERR,
    [TPKS_RESTORE_PENDING] = EX_TEMPFAIL,
    [TPKS_BAD_URI] = EX_USAGE,
    [TPKS_BAD_CONFIG] = EX_CONFIG,
    [TPKS_BAD_INPUT] = EX_DATAERR,
    [TPKS_MISMATCH] = EX_DATAERR,
    [TPKS_CONFLICT] = EX_TEMPFAIL,
    [TPKS_UNSUPPORTED] = EX_UNAVAILABLE,
    [TPKS_NO_MEMORY] = EX_OSERR,
    [TPKS_INTERNAL] = EX_SOFTWARE,
    [TPKS_KEY_MISSING] = EX_UNAVAILABLE,
};

int exit_code_of(tpks_result result)
{
    size_t i = (size_t)result;

    return i < sizeof(exit_codes) / sizeof(*exit_codes) ? exit_codes[i] : EX_SOFTWARE;
}

static void vsay(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));

static void vsay(const char *format, va_list arguments)
{
    char *text = NULL;

    if (vasprintf(&text, format, arguments) < 0)
        return;
    fputs(PROGRAM ": ", stderr);
    output_escaped(stderr, text);
    fputc('\n', stderr);
    free(text);
}

void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsay(format, arguments);
    va_end(arguments);
}

int complain(int exit_code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsay(format, arguments);
    va_end(arguments);
    return exit_code;
}

int complain_result(tpks_result result)
{
    if (result != TPKS_OK)
        say("%s", tpks_error_text());
    return exit_code_of(result);
}

int complain_crypto(int exit_code, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    return complain(exit_code, "%s: %s", what,
                    reason != NULL ? reason : "libcrypto says no reason");
}

static int exit_code_of_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return EX_NOINPUT;
    case EACCES:
    case EPERM:
        return EX_NOPERM;
    case EEXIST:
        return EX_CANTCREAT;
    default:
        return EX_OSERR;
    }
}

int complain_file(const char *what, const char *path)
{
    int number = errno;

    return complain(exit_code_of_errno(number), "%s %s: %s", what, path, strerror(number));
}

int complain_memory(void)
{
    return complain(EX_OSERR, "out of memory; close other programs and try again");
}
