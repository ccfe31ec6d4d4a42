/*
 * work.c - work with HSM and database in a child process, so that a hang of either is bounded
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "work.h"

#define GRACE 5 /* seconds between SIGTERM, which HSM work may defer, and SIGKILL */

struct work {
    pid_t pid;
    int fd;
    struct event *readable;
    struct event *timer;
    unsigned long limit;
    bool late;
    size_t got;
    work_report report;
    work_done_fn *done;
    void *arg;
};

/* ---- in the child ---- */

static void copy_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
}

static tpks_result note_token(void *arg, const tpks_slot_info *slot)
{
    work_report *report = arg;

    if (*report->token == '\0' && *slot->token_serial != '\0' && strcmp(slot->state, "active") == 0)
        snprintf(report->token, sizeof(report->token), "%s/%s", slot->token_label,
                 slot->token_serial);
    return TPKS_OK;
}

static void describe(TPKS *ks, work_report *report)
{
    tpks_status_info info;

    if (tpks_status(ks, &info) != TPKS_OK || tpks_each_slot(ks, note_token, report) != TPKS_OK)
        return;
    memcpy(report->id, info.keystore_id, TPKS_ID_SIZE);
    copy_text(report->label, sizeof(report->label), info.label);
    report->has_id = true;
}

static tpks_options options_for(APP *app, tpks_access access)
{
    tpks_options options = app_options(app, access);

    options.ask = NULL; /* who answers talks to the parent */
    options.ask_arg = NULL;
    options.no_restore = true;
    return options;
}

static void look(APP *app, work_report *report)
{
    tpks_options options = options_for(app, TPKS_LOAD);
    TPKS *ks = NULL;

    report->result = tpks_open(&options, &ks);
    if (report->result == TPKS_OK) {
        describe(ks, report);
        report->result = tpks_unlock(ks);
    }
    if (report->result != TPKS_OK)
        copy_text(report->text, sizeof(report->text), tpks_error_text());
    tpks_close(ks);
}

static void restore(APP *app, const TPKS_SECRET *secret, work_report *report)
{
    tpks_options options = options_for(app, TPKS_WRITE);
    tpks_restore_params params = {.secret = secret};
    tpks_restore_report found;

    options.no_restore = false;
    report->result = tpks_restore(&options, &params, &found);
    if (report->result != TPKS_OK)
        copy_text(report->text, sizeof(report->text), tpks_error_text());
    report->found = found.found;
    report->restored = found.restored;
}

static void child(int fd, APP *app, const work_order *order)
{
    work_report report;

    process_keep_only(fd, -1);
    memset(&report, 0, sizeof(report));
    if (order->restore)
        restore(app, order->secret, &report);
    else
        look(app, &report);
    /* A report fits into a pipe's buffer, so one write(2) takes all of it. */
    _exit(write(fd, &report, sizeof(report)) == (ssize_t)sizeof(report) ? 0 : 1);
}

/* ---- in the parent ---- */

static void work_free(WORK *work)
{
    if (work->readable != NULL)
        event_free(work->readable);
    if (work->timer != NULL)
        event_free(work->timer);
    close(work->fd);
    free(work);
}

static void no_report(const WORK *work, work_report *report)
{
    memset(report, 0, sizeof(*report));
    report->result = work->late ? TPKS_HSM_UNAVAILABLE : TPKS_INTERNAL;
    if (work->late)
        snprintf(report->text, sizeof(report->text),
                 "neither HSM nor database answered within %lu s: check that the HSM and its "
                 "network work, or allow more time with --hsm-timeout",
                 work->limit);
    else
        copy_text(report->text, sizeof(report->text),
                  "the process that works with the HSM crashed: most likely in the HSM's PKCS#11 "
                  "module; look for a newer one, and into the system's log");
}

static void finish(WORK *work)
{
    work_report report;
    work_done_fn *done = work->done;
    void *arg = work->arg;

    if (work->got == sizeof(work->report))
        report = work->report;
    else
        no_report(work, &report);
    (void)process_reap(work->pid);
    work_free(work);
    done(arg, &report);
}

/* The end of the file is the end of the process. */
static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    WORK *work = arg;
    char extra;
    void *to = work->got < sizeof(work->report) ? (char *)&work->report + work->got : &extra;
    size_t room = work->got < sizeof(work->report) ? sizeof(work->report) - work->got : 1;
    ssize_t got = read(fd, to, room);

    (void)what;
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got > 0 && to != &extra)
        work->got += (size_t)got;
    else
        finish(work);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    WORK *work = arg;
    const struct timeval grace = {GRACE, 0};

    (void)fd;
    (void)what;
    kill(work->pid, work->late ? SIGKILL : SIGTERM);
    work->late = true;
    event_add(work->timer, &grace);
}

static bool watch(WORK *work, struct event_base *base)
{
    const struct timeval limit = {(time_t)work->limit, 0};

    work->readable = event_new(base, work->fd, EV_READ | EV_PERSIST, on_readable, work);
    work->timer = event_new(base, -1, 0, on_limit, work);
    return work->readable != NULL && work->timer != NULL && event_add(work->readable, NULL) == 0 &&
           event_add(work->timer, &limit) == 0;
}

static WORK *work_new(const work_order *order, work_done_fn *done, void *arg)
{
    WORK *work = calloc(1, sizeof(*work));

    if (work == NULL)
        return NULL;
    work->fd = -1;
    work->limit = order->limit;
    work->done = done;
    work->arg = arg;
    return work;
}

static bool launch(WORK *work, APP *app, const work_order *order)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    work->fd = ends[0];
    work->pid = process_fork();
    if (work->pid == 0)
        child(ends[1], app, order);
    close(ends[1]);
    return work->pid > 0;
}

WORK *work_start(struct event_base *base, APP *app, const work_order *order, work_done_fn *done,
                 void *arg)
{
    WORK *work = work_new(order, done, arg);

    if (work == NULL) {
        complain_memory();
        return NULL;
    }
    if (!launch(work, app, order)) {
        complain(EX_OSERR, "cannot start a process for the HSM: %s", strerror(errno));
        close(work->fd);
        free(work);
        return NULL;
    }
    if (watch(work, base))
        return work;
    complain_memory();
    work_stop(work);
    return NULL;
}

void work_stop(WORK *work)
{
    if (work == NULL)
        return;
    kill(work->pid, SIGTERM);
    work_free(work);
}
