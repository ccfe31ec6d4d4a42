/*
 * secrets.c - where the command gets passwords and answers from
 *
 * The terminal is driven by libcrypto's UI (UI_new(3)), which turns echo off and restores it on
 * signals. UI would read standard input where there is no terminal; that is refused before.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ui.h>

#include "secrets.h"

CLEANUP(UI *, UI_free, cleanup_ui)

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

/* Asks for `prompt`, and with `again` for the same a second time; -1 when the two differ. */
static int ask(const char *prompt, const char *again, int flags, char *answer, char *second)
{
    AUTO(ui) UI *ui = UI_new_method(UI_OpenSSL());
    int done;

    if (ui == NULL || UI_add_input_string(ui, prompt, flags, answer, 0, SECRET_MAX) < 0)
        return complain_memory();
    if (again != NULL && UI_add_verify_string(ui, again, flags, second, 0, SECRET_MAX, answer) < 0)
        return complain_memory();
    done = UI_process(ui);
    ERR_clear_error();
    if (done == 0)
        return EX_OK;
    return done == -1 && again != NULL
               ? -1
               : complain(EX_NOPERM, "nothing was entered; start the command again");
}

/* Asks into secret memory; *out is shortened to what was entered. */
static int ask_secret(const char *prompt, const char *again, TPKS_SECRET **out)
{
    AUTO(secret) TPKS_SECRET *answer = tpks_secret_new(SECRET_MAX + 1);
    AUTO(secret) TPKS_SECRET *second = tpks_secret_new(SECRET_MAX + 1);
    char *text;
    int code;

    if (answer == NULL || second == NULL)
        return complain_memory();
    text = (char *)tpks_secret_data(answer);
    code = ask(prompt, again, 0, text, (char *)tpks_secret_data(second));
    if (code != EX_OK)
        return code;
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
    DO(ask_secret(prompt, NULL, out));
    if (tpks_secret_size(*out) > 0)
        return EX_OK;
    tpks_secret_free(*out);
    *out = NULL;
    return complain(EX_NOPERM, "nothing was entered; start the command again");
}

/* One try: -1 means say so and ask again. */
static int prompt_new_once(const char *prompt, bool optional, TPKS_SECRET **out)
{
    AUTO(secret) TPKS_SECRET *answer = NULL;
    int code = ask_secret(prompt, "The same again: ", &answer);

    if (code == -1)
        say("the two entries differ; try again");
    if (code != EX_OK)
        return code;
    if (tpks_secret_size(answer) > 0 || !optional) {
        if (tpks_password_check(answer) != TPKS_OK) {
            say("%s", tpks_error_text());
            return -1;
        }
        *out = answer;
        answer = NULL;
    }
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
    char answer[SECRET_MAX + 1] = "";

    if (!secrets_have_terminal())
        return complain(EX_USAGE, "there is no terminal to ask at for confirmation; "
                                  "see --help for the option that stands for it");
    DO(ask(question, NULL, UI_INPUT_FLAG_ECHO, answer, NULL));
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
    if (ask_secret(prompt, NULL, &answer) != EX_OK)
        return 0;
    return hand_over(answer, buffer, size, length);
}
