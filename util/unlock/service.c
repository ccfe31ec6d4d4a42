/*
 * service.c - the waiting unlock service: one loop, the HSM looked at again and again, passwords
 * tried one after the other as the sources offer them
 */
#include "service.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "notify.h"
#include "secrets.h"

#define LOOK_EVERY 5 /* seconds */
/* Seconds for one password: another's lock, Argon2, a new KEK. */
#define TRY_LIMIT (TPKS_RESTORE_WAIT + 60)
#define EXTEND_BY 30 /* seconds of start time asked for with every look */
#define TRIES 5      /* of what a file has, when something passing stood in the way */

typedef struct offer {
    TPKS_SECRET *secret; /* NULL: the child has it */
    answer_fn *answer;
    void *arg;
    struct offer *next;
} offer;

struct service {
    APP *app;
    const service_options *options;
    struct event_base *base;
    struct event *look_timer, *end_timer, *term, *interrupt;
    sources from;
    SOURCE *turn; /* the one whose password is in the queue, of those that only look */
    int refused;  /* exit code of the last one that had something of no use; EX_OK: none */
    WORK *work;
    offer *queue;       /* the first one may be being tried */
    bool leads;         /* we are the process that asks: the socket is ours, or can't be had */
    bool follows;       /* another process is */
    TPKS_SECRET *given; /* with --password-file or --password-fd */
    char state_file[256];
    unsigned char id[TPKS_ID_SIZE];
    char label[256];
    ASKER *terminal, *agent;
    SOCKET_SOURCE *socket;
    unlock_state state;
    bool ended;
    int code;
};

struct event_base *service_base(const SERVICE *service)
{
    return service->base;
}

/* ---- telling ---- */

/*
 * Token, HSM or database may come up later than we do: then whatever waits for us comes up too. To
 * end and be started again would not do, for our first failure is also that of all behind us.
 */
static bool worth_waiting(const SERVICE *service, tpks_result result)
{
    return state_may_pass(result) && service->options->timeout > 0;
}

static const char *waiting_for(const SERVICE *service)
{
    if (state_is_pending(service->state.result))
        return service->leads ? "waiting for the backup password: " : "";
    return worth_waiting(service, service->state.result) ? "waiting: " : "";
}

static void tell(SERVICE *service, bool changed)
{
    const unlock_state *state = &service->state;
    char line[REPORT_TEXT + 64];

    snprintf(line, sizeof(line), "%s%s", waiting_for(service),
             state->result == TPKS_OK ? "the keystore can be unlocked" : state->text);
    notify_status(state->result == TPKS_OK, state->result == TPKS_OK ? 0 : EXTEND_BY, line);
    if (!changed)
        return;
    say("%s", line);
    if (*service->state_file != '\0')
        (void)state_write(state, service->state_file); /* said; the keys matter more */
}

static void end(SERVICE *service, int code)
{
    if (service->ended)
        return;
    service->ended = true;
    service->code = code;
    event_base_loopexit(service->base, NULL);
}

static void give_up(SERVICE *service, int code, const char *why)
{
    const char *text = service->state.text;

    end(service, complain(code, "%s: %s", why,
                          *text != '\0' ? text : "the HSM or the database has not answered yet"));
}

/* ---- work, one thing at a time ---- */

static void on_looked(void *arg, const work_report *report);
static void on_tried(void *arg, const work_report *report);

static void start_work(SERVICE *service, const work_order *order, work_done_fn *done)
{
    service->work = work_start(service->base, service->app, order, done, service);
    if (service->work == NULL)
        end(service, EX_OSERR);
}

static void next_look(SERVICE *service)
{
    const struct timeval later = {LOOK_EVERY, 0};

    if (!service->ended)
        event_add(service->look_timer, &later);
}

static void look(SERVICE *service)
{
    const work_order order = {.limit = service->options->hsm_timeout};

    if (service->work == NULL && !service->ended)
        start_work(service, &order, on_looked);
}

static void try_next(SERVICE *service)
{
    work_order order = {.restore = true, .limit = TRY_LIMIT};

    if (service->queue == NULL || service->work != NULL || service->ended)
        return;
    order.secret = service->queue->secret;
    event_del(service->look_timer);
    start_work(service, &order, on_tried);
    tpks_secret_free(service->queue->secret); /* the child has it */
    service->queue->secret = NULL;
}

static void enqueue(SERVICE *service, TPKS_SECRET *secret, answer_fn *answer, void *arg)
{
    offer *one = calloc(1, sizeof(*one));
    offer **last = &service->queue;

    if (one == NULL) {
        tpks_secret_free(secret);
        end(service, complain_memory());
        return;
    }
    *one = (offer){.secret = secret, .answer = answer, .arg = arg};
    while (*last != NULL)
        last = &(*last)->next;
    *last = one;
    try_next(service);
}

void service_offer(SERVICE *service, TPKS_SECRET *secret, answer_fn *answer, void *arg)
{
    enqueue(service, secret, answer, arg);
}

/* ---- the sources ---- */

static bool humans_only(const SERVICE *service)
{
    /* A key that is not ours may be somebody's mistake: only a human replaces it. */
    return service->state.result == TPKS_KEK_FOREIGN;
}

static bool somebody_waits(const SERVICE *service)
{
    return service->follows || sources_wait(&service->from);
}

static void nobody_left(SERVICE *service)
{
    const char *why = humans_only(service)
                          ? "a foreign KEK is replaced only with a password that somebody enters"
                          : "no source of the directive `restore` has the backup password";
    int code = service->refused != EX_OK && !humans_only(service)
                   ? service->refused
                   : exit_code_of(service->state.result);

    if (!somebody_waits(service) && service->queue == NULL)
        give_up(service, code, why);
}

static void end_source(SERVICE *service, SOURCE *one, int refused)
{
    one->ended = true;
    if (refused != EX_OK)
        service->refused = refused;
}

/* What became of the password of a source that only looks. */
static void on_looked_up(void *arg, tpks_result result, const char *text)
{
    SERVICE *service = arg;
    /* Still missing, or foreign: they had nothing. */
    bool empty = result == TPKS_KEK_MISSING || result == TPKS_KEK_FOREIGN;
    bool passing = !empty && (state_is_pending(result) || state_may_pass(result));

    say("%s", text);
    if (!passing || ++service->turn->tries >= TRIES)
        end_source(service, service->turn, exit_code_of(result));
}

static TPKS_SECRET *copy_given(const SERVICE *service)
{
    return tpks_secret_copy(tpks_secret_data_const(service->given),
                            tpks_secret_size(service->given));
}

static void look_up(SERVICE *service, SOURCE *one)
{
    TPKS_SECRET *secret = NULL;
    int code = EX_OK;

    if (one->kind == SOURCE_FILE && access(one->path, F_OK) != 0) {
        end_source(service, one, EX_OK);
        return;
    }
    if (one->kind == SOURCE_FILE)
        code = secrets_read(one->path, NO_FD, &secret);
    else if ((secret = copy_given(service)) == NULL)
        code = complain_memory();
    if (code != EX_OK) {
        end_source(service, one, code);
        return;
    }
    service->turn = one;
    enqueue(service, secret, on_looked_up, service);
}

/*
 * Of many processes one asks: the one with the socket. It is open before anybody is asked, so that
 * an administrator can always answer there. False: another process asks.
 */
static bool lead(SERVICE *service)
{
    int code;

    if (service->leads)
        return true;
    code = socket_source_start(service, service->options->socket, &service->socket);
    if (code == EX_CANTCREAT && !service->follows)
        say("another process asks for the backup password; it takes answers at %s",
            service->options->socket);
    service->follows = code == EX_CANTCREAT;
    service->leads = !service->follows;
    if (service->leads)
        tell(service, true);
    return service->leads;
}

static void open_source(SERVICE *service, SOURCE *one)
{
    ASKER *asker = NULL;

    one->open = true;
    if (one->kind == SOURCE_SOCKET) {
        one->ended = service->socket == NULL;
        return;
    }
    asker = asker_start(service, one->kind, service->id, service->label);
    one->ended = asker == NULL;
    if (one->kind == SOURCE_TERMINAL)
        service->terminal = asker;
    else
        service->agent = asker;
}

/* Lets every source have its turn that can have it now. */
static void ask_sources(SERVICE *service)
{
    SOURCE *one;

    while (service->queue == NULL && !service->ended &&
           (one = sources_turn(&service->from, humans_only(service))) != NULL) {
        if (one->kind == SOURCE_GIVEN || one->kind == SOURCE_FILE)
            look_up(service, one);
        else if (lead(service))
            open_source(service, one);
        else
            break;
    }
    nobody_left(service);
}

void service_source_ended(SERVICE *service, source_kind kind)
{
    end_source(service, sources_find(&service->from, kind), EX_OK);
    if (state_is_pending(service->state.result))
        ask_sources(service);
}

/* ---- what a look found ---- */

static void take(SERVICE *service, const work_report *report)
{
    if (report->has_id) {
        memcpy(service->id, report->id, sizeof(service->id));
        memcpy(service->label, report->label, sizeof(service->label));
    }
    if (report->has_id && *service->state_file == '\0')
        state_default_path(report->id, service->state_file, sizeof(service->state_file));
    tell(service, state_take(&service->state, report));
}

static void on_looked(void *arg, const work_report *report)
{
    SERVICE *service = arg;

    service->work = NULL;
    take(service, report);
    if (report->result == TPKS_OK)
        end(service, EX_OK);
    else if (state_is_pending(report->result))
        ask_sources(service);
    else if (!worth_waiting(service, report->result))
        end(service, exit_code_of(report->result));
    try_next(service);
    if (service->work == NULL)
        next_look(service);
}

/*
 * May another password do better? A PIN that was refused is TPKS_WRONG_SECRET too, but then it was
 * found so before any password was used, and must not be tried again.
 */
static bool is_final(const work_report *report)
{
    bool of_password = report->result == TPKS_WRONG_SECRET ||
                       report->result == TPKS_NOT_PERMITTED || report->result == TPKS_BAD_INPUT;

    return !state_is_pending(report->result) && !state_may_pass(report->result) &&
           !(of_password && state_is_pending(report->found));
}

static const char *outcome(const work_report *report)
{
    if (report->result != TPKS_OK)
        return report->text;
    return report->restored ? "the KEK is restored; the keystore can be unlocked"
                            : "nothing was missing any more; the keystore can be unlocked";
}

static void on_tried(void *arg, const work_report *report)
{
    SERVICE *service = arg;
    offer *one = service->queue;

    service->work = NULL;
    service->queue = one->next;
    one->answer(one->arg, report->result, outcome(report));
    free(one);
    if (report->result == TPKS_OK || is_final(report)) {
        take(service, report);
        end(service, exit_code_of(report->result));
    }
    try_next(service);
    if (service->work == NULL)
        look(service);
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
    SERVICE *service = arg;

    (void)fd;
    (void)what;
    if (state_is_pending(service->state.result))
        give_up(service, EX_TEMPFAIL, "no password came in time");
    else
        give_up(service, EX_UNAVAILABLE, "the time is over");
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    end(arg, complain(EX_TEMPFAIL, "ended by a signal before the keystore could be unlocked"));
}

static bool watch(SERVICE *service)
{
    const struct timeval end_after = {(time_t)service->options->timeout, 0};
    const unsigned long timeout = service->options->timeout;

    service->look_timer = event_new(service->base, -1, 0, on_look_timer, service);
    service->end_timer = event_new(service->base, -1, 0, on_end_timer, service);
    service->term = evsignal_new(service->base, SIGTERM, on_signal, service);
    service->interrupt = evsignal_new(service->base, SIGINT, on_signal, service);
    return service->look_timer != NULL && service->end_timer != NULL && service->term != NULL &&
           service->interrupt != NULL && event_add(service->term, NULL) == 0 &&
           event_add(service->interrupt, NULL) == 0 &&
           (timeout == NO_LIMIT || timeout == 0 || event_add(service->end_timer, &end_after) == 0);
}

static void say_how(SERVICE *service)
{
    const char **how = service->state.how;

    if (sources_find(&service->from, SOURCE_AGENT) != NULL)
        *how++ = "systemd-tty-ask-password-agent";
    if (sources_find(&service->from, SOURCE_SOCKET) != NULL)
        *how++ = "trustpoint-keystore unlock";
    *how = "trustpoint-keystore restore";
}

static void stop_queue(SERVICE *service)
{
    while (service->queue != NULL) {
        offer *one = service->queue;

        service->queue = one->next;
        if (service->code == EX_OK)
            one->answer(one->arg, TPKS_OK, "the keystore can be unlocked again");
        tpks_secret_free(one->secret);
        free(one);
    }
}

static void free_event(struct event *event)
{
    if (event != NULL)
        event_free(event);
}

static void stop(SERVICE *service)
{
    work_stop(service->work);
    stop_queue(service);
    asker_stop(service->terminal);
    asker_stop(service->agent);
    socket_source_stop(service->socket);
    tpks_secret_free(service->given);
    sources_free(&service->from);
    free_event(service->look_timer);
    free_event(service->end_timer);
    free_event(service->term);
    free_event(service->interrupt);
    event_base_free(service->base);
}

int service_run(APP *app, const service_options *options)
{
    SERVICE service = {.app = app, .options = options};

    if (secrets_given(app))
        DO(secrets_read_given(app, &service.given));
    DO(sources_read(app, options->timeout > 0, &service.from));
    say_how(&service);
    if (options->state_file != NULL)
        snprintf(service.state_file, sizeof(service.state_file), "%s", options->state_file);
    service.base = event_base_new();
    if (service.base == NULL || !watch(&service))
        return complain_memory();
    look(&service);
    if (!service.ended)
        event_base_dispatch(service.base);
    stop(&service);
    return service.code;
}
