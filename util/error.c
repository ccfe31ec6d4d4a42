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

/* What to do, where the command is used; the reason beside it often says it more exactly. */
static const char *const todos[] = {
    [TPKS_NOT_FOUND] = "see " PROGRAM " list",
    [TPKS_AMBIGUOUS] = "choose one by its name or id",
    [TPKS_EXISTS] = "choose another name or file",
    [TPKS_KEK_MISSING] = "run " PROGRAM " restore; it needs the backup password or recovery key",
    [TPKS_KEK_FOREIGN] = "put the right token or database back, or run " PROGRAM " restore",
    [TPKS_TOKEN_MISSING] = "connect the token, or correct the directive `token`",
    [TPKS_HSM_UNAVAILABLE] = "make the HSM and its PKCS#11 module work, then try again",
    [TPKS_WRONG_SECRET] = "give the right password, recovery key or PIN",
    [TPKS_PIN_LOCKED] = "unlock the PIN with the tools of the HSM, or correct the one in its file",
    [TPKS_TAMPERED] = "restore the database from a backup",
    [TPKS_NOT_PERMITTED] = "run it as an administrator, or correct owner and mode",
    [TPKS_DATABASE_UNAVAILABLE] = "make the database reachable, then try again",
    [TPKS_NOT_A_KEYSTORE] = "correct the directive `store`",
    [TPKS_NEWER_FORMAT] = "use a newer version of this software",
    [TPKS_UNINITIALIZED] = "run " PROGRAM " init, or correct the directive `store`",
    [TPKS_ROLLED_BACK] = "put the newest copy of the database back, or accept this one with "
                         "--accept-new-anchor",
    [TPKS_RESTORE_PENDING] = "answer the other process, or end it and run " PROGRAM " restore",
    [TPKS_BAD_URI] = "correct the URI",
    [TPKS_BAD_CONFIG] = "correct the configuration file",
    [TPKS_BAD_INPUT] = "correct what was given",
    [TPKS_MISMATCH] = "give what belongs together",
    [TPKS_CONFLICT] = "try again",
    [TPKS_UNSUPPORTED] = "use another way, or another token",
    [TPKS_NO_MEMORY] = "close other programs and try again",
    [TPKS_INTERNAL] = "report it",
    [TPKS_KEY_MISSING] = "put the token with the key back",
};

static tpks_result last_result;
static char *last_text;

const char *todo_of(tpks_result result)
{
    size_t i = (size_t)result;

    return i < sizeof(todos) / sizeof(*todos) ? todos[i] : NULL;
}

const char *state_of(tpks_result result)
{
    return result == TPKS_OK ? "unlocked" : tpks_result_name(result);
}

tpks_result complaint_result(void)
{
    return last_result;
}

const char *complaint_text(void)
{
    return last_text != NULL ? last_text : "";
}

int exit_code_of(tpks_result result)
{
    size_t i = (size_t)result;

    return i < sizeof(exit_codes) / sizeof(*exit_codes) ? exit_codes[i] : EX_SOFTWARE;
}

/* Says it; returns the text, which the caller frees. */
static char *vsay(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));

static char *vsay(const char *format, va_list arguments)
{
    char *text = NULL;

    if (vasprintf(&text, format, arguments) < 0)
        return NULL;
    fputs(PROGRAM ": ", stderr);
    output_escaped(stderr, text);
    fputc('\n', stderr);
    return text;
}

void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    free(vsay(format, arguments));
    va_end(arguments);
}

static void remember(tpks_result result, char *text)
{
    free(last_text);
    last_result = result;
    last_text = text;
}

/* For complaints that are not the library's. */
static tpks_result result_of_exit_code(int exit_code)
{
    switch (exit_code) {
    case EX_USAGE:
    case EX_DATAERR:
    case EX_NOINPUT:
        return TPKS_BAD_INPUT;
    case EX_NOPERM:
        return TPKS_NOT_PERMITTED;
    case EX_CANTCREAT:
        return TPKS_EXISTS;
    case EX_UNAVAILABLE:
        return TPKS_UNSUPPORTED;
    case EX_TEMPFAIL:
        return TPKS_CONFLICT;
    case EX_CONFIG:
        return TPKS_BAD_CONFIG;
    default:
        return TPKS_INTERNAL;
    }
}

int complain(int exit_code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    remember(result_of_exit_code(exit_code), vsay(format, arguments));
    va_end(arguments);
    return exit_code;
}

int complain_result(tpks_result result)
{
    if (result == TPKS_OK)
        return EX_OK;
    int code = complain(exit_code_of(result), "%s", tpks_error_text());
    last_result = result;
    return code;
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
