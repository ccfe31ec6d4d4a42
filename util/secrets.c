/*
 * secrets.c - where the command gets passwords and answers from
 *
 * The terminal is driven by libbsd's readpassphrase(3), which turns echo off and restores it on
 * signals.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bsd/readpassphrase.h>
#include <openssl/crypto.h>

#include "secrets.h"

/* One more than the longest shows that there was more. */
#define ANSWER_SIZE (SECRET_MAX + 2)

bool secrets_have_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        return false;
    close(fd);
    return true;
}

bool secrets_given(const APP *app)
{
    return app->password_file != NULL || app->password_fd != NO_FD;
}

int secrets_read(const char *path, unsigned long fd, TPKS_SECRET **out)
{
    if (path == NULL)
        return complain_result(tpks_secret_read_fd((int)fd, SECRET_MAX, out));
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return complain_file("cannot read the password file", path);
    return complain_result(tpks_secret_read_file(path, SECRET_MAX, out));
}

int secrets_read_given(const APP *app, TPKS_SECRET **out)
{
    return secrets_read(app->password_file, app->password_fd, out);
}

/*
 * Asks for `prompt`; `answer` has room for ANSWER_SIZE bytes. Byte by byte from the terminal, for
 * stdio, and with it libcrypto's UI, would leave a copy in a buffer that nobody wipes.
 */
static int ask(const char *prompt, int flags, char *answer)
{
    if (readpassphrase(prompt, answer, ANSWER_SIZE, flags | RPP_REQUIRE_TTY) == NULL)
        return complain(EX_NOPERM, "cannot ask at the terminal: %s", strerror(errno));
    if (strlen(answer) > SECRET_MAX)
        return complain(EX_NOPERM,
                        "more than %d bytes were entered: nothing that is asked for is as long; "
                        "start the command again",
                        SECRET_MAX);
    return EX_OK;
}

/* Asks into secret memory; *out is shortened to what was entered. */
static int ask_secret(const char *prompt, TPKS_SECRET **out)
{
    AUTO(secret) TPKS_SECRET *answer = tpks_secret_new(ANSWER_SIZE);
    char *text;

    if (answer == NULL)
        return complain_memory();
    text = (char *)tpks_secret_data(answer);
    DO(ask(prompt, RPP_ECHO_OFF, text));
    tpks_secret_shrink(answer, strlen(text));
    *out = answer;
    answer = NULL;
    return EX_OK;
}

static int need_terminal(void)
{
    if (secrets_have_terminal())
        return EX_OK;
    return complain(EX_NOPERM, "a password is needed and there is no terminal to ask at; "
                               "give --password-file FILE or --password-fd N");
}

int secrets_prompt(const char *prompt, TPKS_SECRET **out)
{
    DO(need_terminal());
    DO(ask_secret(prompt, out));
    if (tpks_secret_size(*out) > 0)
        return EX_OK;
    tpks_secret_free(*out);
    *out = NULL;
    return complain(EX_NOPERM, "nothing was entered; start the command again");
}

static bool same_secret(const TPKS_SECRET *one, const TPKS_SECRET *other)
{
    size_t size = tpks_secret_size(one);

    return size == tpks_secret_size(other) &&
           CRYPTO_memcmp(tpks_secret_data_const(one), tpks_secret_data_const(other), size) == 0;
}

/* One try: -1 means say so and ask again. */
static int prompt_new_once(const char *prompt, bool optional, TPKS_SECRET **out)
{
    AUTO(secret) TPKS_SECRET *answer = NULL;
    AUTO(secret) TPKS_SECRET *again = NULL;

    DO(ask_secret(prompt, &answer));
    DO(ask_secret("The same again: ", &again));
    if (!same_secret(answer, again)) {
        say("the two entries differ; try again");
        return -1;
    }
    if (tpks_secret_size(answer) == 0 && optional)
        return EX_OK;
    if (tpks_password_check(answer) != TPKS_OK) {
        say("%s", tpks_error_text());
        return -1;
    }
    *out = answer;
    answer = NULL;
    return EX_OK;
}

int secrets_prompt_new(const char *prompt, bool optional, TPKS_SECRET **out)
{
    int code = -1;

    DO(need_terminal());
    for (int i = 0; i < 3 && code == -1; i++)
        code = prompt_new_once(prompt, optional, out);
    return code == -1 ? complain(EX_NOPERM, "no usable password was entered") : code;
}

int secrets_confirm(const char *question)
{
    char answer[ANSWER_SIZE] = "";

    if (!secrets_have_terminal())
        return complain(EX_USAGE, "there is no terminal to ask at for confirmation; "
                                  "see --help for the option that stands for it");
    DO(ask(question, RPP_ECHO_ON, answer));
    return strcmp(answer, "yes") == 0 ? EX_OK
                                      : complain(EX_NOPERM, "not confirmed: nothing was done");
}

static int hand_over(TPKS_SECRET *secret, char *buffer, size_t size, size_t *length)
{
    if (tpks_secret_size(secret) > size)
        return 0;
    *length = tpks_secret_size(secret);
    memcpy(buffer, tpks_secret_data(secret), *length);
    return 1;
}

int secrets_ask(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
                size_t *length)
{
    const APP *app = arg;
    AUTO(secret) TPKS_SECRET *answer = NULL;
    char prompt[512];

    if (!secrets_have_terminal() || (app->never_ask && purpose == TPKS_ASK_PASSWORD))
        return 0;
    snprintf(prompt, sizeof(prompt), "%s: ", info);
    if (ask_secret(prompt, &answer) != EX_OK)
        return 0;
    return hand_over(answer, buffer, size, length);
}
