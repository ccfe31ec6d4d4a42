/*
 * web.c - the restore page's privileged parent: workers, one password at a time, pauses, the end
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/rand.h>

#include "notify.h"
#include "process.h"
#include "service.h"
#include "socket_path.h"
#include "web.h"

#define LOOK_EVERY 5 /* seconds */
#define PAUSE_MAX 60 /* seconds between wrong passwords */
#define FAREWELL 5   /* seconds for the last answers to arrive */
#define CODE_CHARACTERS 8

typedef struct web web;

/* A worker as its parent sees it. */
typedef struct worker {
    web *owner;
    pid_t pid;
    int control;
    bool connected;
    struct event *readable;
    struct worker *next;
} worker;

struct web {
    web_setup *setup;
    struct event_base *base;
    struct event *look_timer, *end_timer, *term, *interrupt;
    WORK *work;
    worker *workers;
    worker *asker;             /* whose password is being tried; NULL: nobody, or it left */
    TPKS_SECRET *next_attempt; /* waits for a look to end */
    unsigned failures;
    struct timespec not_before; /* CLOCK_MONOTONIC */
    char code[WEB_CODE_SIZE];
    char label[256], id[9];
    unlock_state state;
    bool trying, serving, ending;
    int exit_code;
};

static void look(web *self);
static void on_worker(evutil_socket_t fd, short what, void *arg);

/* ---- the end ---- */

static void leave_loop(web *self)
{
    event_base_loopexit(self->base, NULL);
}

static void close_listener(web *self)
{
    if (self->setup->unix_path != NULL && self->setup->listener >= 0)
        unlink(self->setup->unix_path);
    if (self->setup->listener >= 0)
        close(self->setup->listener);
    self->setup->listener = -1;
    if (self->setup->lock >= 0)
        close(self->setup->lock);
    self->setup->lock = -1;
}

static void end_idle_workers(const web *self)
{
    for (const worker *one = self->workers; one != NULL; one = one->next)
        if (!one->connected)
            kill(one->pid, SIGTERM);
}

/* The address is free for what comes next; who has a connection gets an answer first. */
static void end(web *self, int code)
{
    const struct timeval farewell = {FAREWELL, 0};

    if (self->ending)
        return;
    self->ending = true;
    self->exit_code = code;
    close_listener(self);
    end_idle_workers(self);
    event_del(self->look_timer);
    event_add(self->end_timer, &farewell);
    if (self->workers == NULL)
        leave_loop(self);
}

/* ---- workers ---- */

static bool make_pair(int pair[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0;
}

static bool launch(web *self, worker *one)
{
    int pair[2];

    if (!make_pair(pair))
        return false;
    one->control = pair[0];
    one->pid = process_fork();
    if (one->pid == 0)
        web_worker(self->setup, pair[1]);
    close(pair[1]);
    one->readable = event_new(self->base, one->control, EV_READ | EV_PERSIST, on_worker, one);
    return one->pid > 0 && one->readable != NULL && event_add(one->readable, NULL) == 0;
}

static void start_worker(web *self)
{
    worker *one = calloc(1, sizeof(*one));

    if (one == NULL || !launch(self, one)) {
        free(one);
        end(self, complain(EX_OSERR, "cannot start a process for the page: %s", strerror(errno)));
        return;
    }
    one->owner = self;
    one->next = self->workers;
    self->workers = one;
}

/* One idle worker waits for the next connection, unless there are enough connections. */
static void keep_one_idle(web *self)
{
    unsigned connected = 0;

    for (const worker *one = self->workers; one != NULL; one = one->next) {
        if (!one->connected)
            return;
        connected++;
    }
    if (!self->ending && connected < WEB_CONNECTIONS)
        start_worker(self);
}

static void remove_worker(worker *one)
{
    web *self = one->owner;
    worker **place = &self->workers;

    while (*place != one)
        place = &(*place)->next;
    *place = one->next;
    if (self->asker == one)
        self->asker = NULL;
    event_free(one->readable);
    close(one->control);
    kill(one->pid, SIGKILL); /* it has closed its end, so it has nothing left to do */
    (void)process_reap(one->pid);
    free(one);
}

static void worker_ended(worker *one)
{
    web *self = one->owner;
    bool at_once = !one->connected && !self->ending;

    remove_worker(one);
    if (at_once) /* the next one would do the same */
        end(self, complain(EX_OSERR, "the page's process ended before it had a connection: it "
                                     "could not give up its rights, or memory is short"));
    keep_one_idle(self);
    if (self->ending && self->workers == NULL)
        leave_loop(self);
}

/* ---- answers ---- */

static unsigned seconds_left(const web *self)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec > self->not_before.tv_sec ||
        (now.tv_sec == self->not_before.tv_sec && now.tv_nsec >= self->not_before.tv_nsec))
        return 0;
    return (unsigned)(self->not_before.tv_sec - now.tv_sec) + 1;
}

static void answer(const web *self, const worker *one, web_outcome outcome)
{
    web_answer message;
    struct json_object *object = state_json(&self->state);

    memset(&message, 0, sizeof(message));
    message.outcome = outcome;
    message.wait = outcome == WEB_RESTORED ? 0 : seconds_left(self);
    message.state = self->state.result;
    memcpy(message.label, self->label, sizeof(message.label));
    memcpy(message.id, self->id, sizeof(message.id));
    snprintf(message.json, sizeof(message.json), "%s",
             json_object_to_json_string_ext(object, JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(object);
    (void)send(one->control, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Pauses of 1, 2, 4 … 60 seconds, for all visitors together. */
static void pause_after_failure(web *self)
{
    unsigned pause = self->failures < 6 ? 1U << self->failures : PAUSE_MAX;

    self->failures++;
    clock_gettime(CLOCK_MONOTONIC, &self->not_before);
    self->not_before.tv_sec += pause;
    say("a password from the page was refused; the next one is looked at in %u s", pause);
}

/* ---- one password at a time ---- */

static bool is_wrong(const work_report *report)
{
    return report->result == TPKS_WRONG_SECRET && state_is_pending(report->found);
}

static void on_tried(void *arg, const work_report *report)
{
    web *self = arg;
    web_outcome outcome = WEB_RESTORED;

    self->work = NULL;
    self->trying = false;
    if (report->result != TPKS_OK) {
        outcome = is_wrong(report) ? WEB_WRONG : WEB_FAILED;
        say("%s", report->text);
        pause_after_failure(self);
    } else {
        (void)state_take(&self->state, report);
        say("the keystore is unlocked by a password from the page");
    }
    if (self->asker != NULL)
        answer(self, self->asker, outcome);
    self->asker = NULL;
    if (report->result == TPKS_OK)
        end(self, EX_OK);
    else
        look(self);
}

static void start_attempt(web *self)
{
    const work_order order = {
        .restore = true, .secret = self->next_attempt, .limit = WEB_TRY_LIMIT};

    event_del(self->look_timer);
    self->work = work_start(self->base, self->setup->app, &order, on_tried, self);
    tpks_secret_free(self->next_attempt); /* the child has it */
    self->next_attempt = NULL;
    if (self->work == NULL)
        end(self, EX_OSERR);
}

static bool code_ok(const web *self, const web_request *request)
{
    return !self->setup->code_wanted ||
           CRYPTO_memcmp(request->code, self->code, sizeof(self->code)) == 0;
}

static void try_password(worker *one, const web_request *request)
{
    web *self = one->owner;

    if (self->trying || self->ending) {
        answer(self, one, WEB_TAKEN);
    } else if (seconds_left(self) > 0) {
        answer(self, one, WEB_WAIT);
    } else if (!code_ok(self, request)) {
        pause_after_failure(self);
        answer(self, one, WEB_WRONG);
    } else {
        self->next_attempt = tpks_secret_copy(request->password, request->size);
        if (self->next_attempt == NULL) {
            end(self, complain_memory());
            return;
        }
        self->trying = true;
        self->asker = one;
        if (self->work == NULL) /* else when the look has ended */
            start_attempt(self);
    }
}

/* What the worker says is believed to be a number of bytes, nothing else. */
static void take_request(worker *one, const web_request *request, ssize_t size)
{
    if (size != (ssize_t)sizeof(*request))
        remove_worker(one);
    else if (request->kind == WEB_CONNECTED)
        one->connected = true;
    else if (request->kind == WEB_ASK_STATE)
        answer(one->owner, one, WEB_JUST_STATE);
    else if (request->kind == WEB_TRY_PASSWORD && request->size > 0 &&
             request->size <= WEB_PASSWORD_MAX && one != one->owner->asker)
        try_password(one, request);
}

static void on_worker(evutil_socket_t fd, short what, void *arg)
{
    worker *one = arg;
    web *self = one->owner;
    AUTO(secret) TPKS_SECRET *memory = tpks_secret_new(sizeof(web_request));
    ssize_t size;

    (void)what;
    if (memory == NULL) {
        end(self, complain_memory());
        return;
    }
    size = recv(fd, tpks_secret_data(memory), sizeof(web_request), MSG_DONTWAIT);
    if (size < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (size <= 0) {
        worker_ended(one);
        return;
    }
    take_request(one, (const web_request *)(const void *)tpks_secret_data(memory), size);
    keep_one_idle(self);
}

/* ---- looking ---- */

static int make_code(web *self)
{
    static const char characters[] = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"; /* 32, none alike */
    unsigned char bytes[CODE_CHARACTERS];

    if (RAND_bytes_ex(self->setup->app->libctx, bytes, sizeof(bytes), 0) != 1)
        return complain_crypto(EX_SOFTWARE, "no random numbers");
    for (size_t i = 0; i < CODE_CHARACTERS; i++)
        self->code[i] = characters[bytes[i] % 32];
    if (self->setup->code_wanted)
        say("one-time code for the page: %s", self->code);
    return EX_OK;
}

/* Without a name nobody can put anything into it. Which folder takes it differs between hosts. */
static int empty_folder_in(const char *parent)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "%s/trustpoint-page.XXXXXX", parent);
    if (mkdtemp(path) == NULL)
        return -1;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    rmdir(path);
    return fd;
}

static void make_empty_folder(web_setup *setup)
{
    static const char *const parents[] = {"/run", "/tmp", "/dev/shm"};

    for (size_t i = 0; i < 3 && setup->drop && setup->empty_folder < 0; i++)
        setup->empty_folder = empty_folder_in(parents[i]);
}

static void open_page(web *self, const work_report *report)
{
    char id[2 * TPKS_ID_SIZE + 1];
    int code;

    self->serving = true;
    snprintf(self->label, sizeof(self->label), "%s", report->label);
    snprintf(self->id, sizeof(self->id), "%.8s", hex_text(report->id, TPKS_ID_SIZE, id));
    make_empty_folder(self->setup);
    code = make_code(self);
    if (code == EX_OK)
        code = web_listen(self->setup);
    if (code != EX_OK) {
        end(self, code);
        return;
    }
    say("%s", report->text);
    say("the restore page is served at %s%s", self->setup->listen, WEB_PATH);
    notify_status(true, 0, "waiting for the backup password on the restore page");
    keep_one_idle(self);
}

static void judge(web *self, const work_report *report)
{
    if (report->result == TPKS_OK && !self->serving) {
        say("the keystore can be unlocked: there is nothing to restore");
        self->setup->app->become = NULL;
        end(self, EX_OK);
    } else if (report->result == TPKS_OK) {
        say("the keystore can be unlocked again");
        end(self, EX_OK);
    } else if (state_is_pending(report->result) && !self->serving) {
        open_page(self, report);
    } else if (!state_is_pending(report->result) &&
               !(self->serving && state_may_pass(report->result))) {
        say("%s", report->text);
        end(self, exit_code_of(report->result));
    }
}

static void on_looked(void *arg, const work_report *report)
{
    web *self = arg;
    const struct timeval later = {LOOK_EVERY, 0};

    self->work = NULL;
    (void)state_take(&self->state, report);
    judge(self, report);
    if (self->ending && self->asker != NULL)
        answer(self, self->asker, report->result == TPKS_OK ? WEB_RESTORED : WEB_FAILED);
    if (self->ending)
        return;
    event_add(self->look_timer, &later);
    if (self->next_attempt != NULL)
        start_attempt(self);
}

static void look(web *self)
{
    const work_order order = {.limit = self->setup->hsm_timeout};

    if (self->work != NULL || self->ending)
        return;
    self->work = work_start(self->base, self->setup->app, &order, on_looked, self);
    if (self->work == NULL)
        end(self, EX_OSERR);
}

/* ---- the loop ---- */

static void on_look_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look(arg);
}

static void on_end_timer(evutil_socket_t fd, short what, void *arg)
{
    web *self = arg;

    (void)fd;
    (void)what;
    if (self->ending)
        leave_loop(self);
    else
        end(self, complain(EX_TEMPFAIL, "no password came in time; the page is closed"));
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    web *self = arg;

    (void)fd;
    (void)what;
    end(self, EX_TEMPFAIL);
    leave_loop(self);
}

static bool watch(web *self)
{
    const struct timeval limit = {(time_t)self->setup->timeout, 0};

    self->look_timer = event_new(self->base, -1, 0, on_look_timer, self);
    self->end_timer = event_new(self->base, -1, 0, on_end_timer, self);
    self->term = evsignal_new(self->base, SIGTERM, on_signal, self);
    self->interrupt = evsignal_new(self->base, SIGINT, on_signal, self);
    return self->look_timer != NULL && self->end_timer != NULL && self->term != NULL &&
           self->interrupt != NULL && event_add(self->term, NULL) == 0 &&
           event_add(self->interrupt, NULL) == 0 &&
           (self->setup->timeout == NO_LIMIT || event_add(self->end_timer, &limit) == 0);
}

static void free_all(web *self)
{
    struct event *const events[] = {self->look_timer, self->end_timer, self->term, self->interrupt};

    work_stop(self->work);
    while (self->workers != NULL)
        remove_worker(self->workers);
    tpks_secret_free(self->next_attempt);
    for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
        event_free(events[i]);
    event_base_free(self->base);
    for (char **host = self->setup->hosts; *host != NULL; host++)
        free(*host);
    OPENSSL_cleanse(self->setup->key, sizeof(self->setup->key));
}

int web_run(web_setup *setup)
{
    web self = {.setup = setup};

    web_wiping_memory();
    self.base = event_base_new();
    self.state.how[0] = "the restore page";
    self.state.how[1] = "trustpoint-keystore restore";
    setup->listener = -1;
    setup->lock = -1;
    setup->empty_folder = -1;
    if (self.base == NULL || !watch(&self))
        return complain_memory();
    if (RAND_bytes_ex(setup->app->libctx, setup->key, sizeof(setup->key), 0) != 1)
        return complain_crypto(EX_SOFTWARE, "no random numbers");
    look(&self);
    event_base_dispatch(self.base);
    free_all(&self);
    return self.exit_code;
}
