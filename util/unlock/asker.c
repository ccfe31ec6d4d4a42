/*
 * asker.c - a child process that asks a human: at the terminal, or by systemd-ask-password(1)
 *
 * The child writes the answer to a pipe. A wrong one is asked for again after a growing pause, for
 * an agent that gives the same answer always would otherwise keep the machine busy.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "secrets.h"
#include "service.h"

#define PAUSE_MAX 30

struct asker {
    SERVICE *service;
    source_kind kind;
    char id[2 * TPKS_ID_SIZE + 1];
    char prompt[360];
    unsigned refused; /* answers that were wrong */
    pid_t pid;        /* 0: not asking just now */
    int fd;
    struct event *readable;
    struct event *again;
    TPKS_SECRET *answer;
    size_t got;
};

/* ---- in the child ---- */

static void run_agent(const ASKER *asker)
{
    char id[64], key[64];
    const char *arguments[10] = {"systemd-ask-password", id, key};
    size_t n = 3;

    snprintf(id, sizeof(id), "--id=trustpoint:%s", asker->id);
    snprintf(key, sizeof(key), "--keyname=trustpoint-%.8s", asker->id);
    if (asker->refused == 0) /* what the kernel's keyring remembers may be the wrong one */
        arguments[n++] = "--accept-cached";
    arguments[n++] = "--timeout=0";
    arguments[n++] = "-n";
    arguments[n++] = "--no-tty";
    arguments[n++] = asker->prompt;
    execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(127);
}

static void run_terminal(const ASKER *asker)
{
    TPKS_SECRET *answer = NULL;
    char prompt[400];
    ssize_t size;

    snprintf(prompt, sizeof(prompt), "%s: ", asker->prompt);
    if (secrets_prompt(prompt, &answer) != EX_OK)
        _exit(1);
    size = (ssize_t)tpks_secret_size(answer);
    _exit(write(STDOUT_FILENO, tpks_secret_data(answer), (size_t)size) == size ? 0 : 1);
}

static void child(const ASKER *asker, int fd)
{
    if (dup2(fd, STDOUT_FILENO) < 0)
        _exit(1);
    process_keep_only(-1, -1);
    if (asker->kind == SOURCE_AGENT)
        run_agent(asker);
    run_terminal(asker);
}

/* ---- in the parent ---- */

static bool ask(ASKER *asker);

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    ASKER *asker = arg;

    (void)fd;
    (void)what;
    if (!ask(asker))
        service_source_ended(asker->service, asker->kind);
}

static void on_answer(void *arg, tpks_result result, const char *text)
{
    ASKER *asker = arg;
    unsigned pause = 1U << (asker->refused < 5 ? asker->refused : 5);
    const struct timeval later = {pause < PAUSE_MAX ? pause : PAUSE_MAX, 0};

    say("%s", text);
    if (result == TPKS_WRONG_SECRET)
        asker->refused++;
    event_add(asker->again, &later);
}

static void close_pipe(ASKER *asker)
{
    if (asker->readable != NULL)
        event_free(asker->readable);
    asker->readable = NULL;
    if (asker->fd >= 0)
        close(asker->fd);
    asker->fd = -1;
}

/* The child has closed its end. */
static void ended(ASKER *asker)
{
    TPKS_SECRET *answer = asker->answer;
    bool good = process_reap(asker->pid) && asker->got > 0 && asker->got <= OFFER_MAX;

    asker->pid = 0;
    asker->answer = NULL;
    close_pipe(asker);
    if (good) {
        tpks_secret_shrink(answer, asker->got);
        service_offer(asker->service, answer, on_answer, asker);
        return;
    }
    tpks_secret_free(answer);
    service_source_ended(asker->service, asker->kind);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    ASKER *asker = arg;
    ssize_t got =
        read(fd, tpks_secret_data(asker->answer) + asker->got, OFFER_MAX + 1 - asker->got);

    (void)what;
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got > 0)
        asker->got += (size_t)got;
    else
        ended(asker);
}

static bool launch(ASKER *asker)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    asker->fd = ends[0];
    asker->pid = process_fork();
    if (asker->pid == 0)
        child(asker, ends[1]);
    close(ends[1]);
    return asker->pid > 0;
}

static bool ask(ASKER *asker)
{
    asker->got = 0;
    asker->answer = tpks_secret_new(OFFER_MAX + 1);
    if (asker->answer == NULL || !launch(asker))
        return false;
    asker->readable = event_new(service_base(asker->service), asker->fd, EV_READ | EV_PERSIST,
                                on_readable, asker);
    return asker->readable != NULL && event_add(asker->readable, NULL) == 0;
}

ASKER *asker_start(SERVICE *service, source_kind kind, const unsigned char id[TPKS_ID_SIZE],
                   const char *label)
{
    ASKER *asker = calloc(1, sizeof(*asker));

    if (asker == NULL)
        return NULL;
    asker->service = service;
    asker->kind = kind;
    asker->fd = -1;
    hex_text(id, TPKS_ID_SIZE, asker->id);
    snprintf(asker->prompt, sizeof(asker->prompt), "Trustpoint keystore %s (%.8s) backup password",
             label, asker->id);
    asker->again = event_new(service_base(service), -1, 0, on_again, asker);
    if (asker->again != NULL && ask(asker))
        return asker;
    complain(EX_OSERR, "cannot ask for the backup password: %s", strerror(errno));
    asker_stop(asker);
    return NULL;
}

/* The prompt's program puts the terminal in order and removes its question when it is told to
 * end. */
void asker_stop(ASKER *asker)
{
    if (asker == NULL)
        return;
    if (asker->pid > 0)
        process_end(asker->pid);
    close_pipe(asker);
    if (asker->again != NULL)
        event_free(asker->again);
    tpks_secret_free(asker->answer);
    free(asker);
}
