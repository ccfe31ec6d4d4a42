/*
 * web_worker.c - the process that parses HTTP: one connection, then it ends
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>

#include "process.h"
#include "web_http.h"

#define HEADERS_MAX 8192
#define BODY_MAX 4096

typedef struct worker {
    web_visit visit;
    struct event_base *base;
    struct evconnlistener *listener;
    struct bufferevent *connection;
    struct event *watch; /* set up in the same turn of the loop, while the connection is there */
    struct event *closed;
} worker;

static void leave_soon(worker *self)
{
    const struct timeval soon = {0, 200000};

    event_base_loopexit(self->base, &soon);
}

static void on_answered(void *arg)
{
    leave_soon(arg);
}

static void on_closed(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    leave_soon(arg);
}

/* Whoever leaves without a request makes room at once. */
static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    worker *self = arg;

    (void)fd;
    (void)what;
    self->closed =
        event_new(self->base, bufferevent_getfd(self->connection), EV_CLOSED, on_closed, self);
    if (self->closed == NULL || event_add(self->closed, NULL) != 0)
        _exit(1);
}

static struct bufferevent *new_connection(worker *self, struct event_base *base)
{
    SSL_CTX *tls = self->visit.setup->tls;
    SSL *ssl;

    if (tls == NULL)
        return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    ssl = SSL_new(tls);
    if (ssl == NULL)
        return NULL;
    return bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                          BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
}

/*
 * evhttp has accepted. Its time-outs start again with every byte; alarm(2) does not, and ends the
 * process.
 */
static struct bufferevent *on_connection(struct event_base *base, void *arg)
{
    worker *self = arg;
    const web_request connected = {.kind = WEB_CONNECTED};

    if (self->connection != NULL)
        return NULL;
    evconnlistener_disable(self->listener);
    alarm(WEB_DEADLINE);
    self->connection = new_connection(self, base);
    if (self->connection == NULL ||
        send(self->visit.control, &connected, sizeof(connected), MSG_NOSIGNAL) < 0)
        _exit(1);
    event_active(self->watch, EV_TIMEOUT, 1);
    return self->connection;
}

/* The parent speaks only when it was asked: anything else is its end. */
static void on_parent(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    _exit(0);
}

static bool serve(worker *self, struct evhttp *http)
{
    struct evhttp_bound_socket *bound;
    struct event *parent = event_new(self->base, self->visit.control, EV_READ, on_parent, NULL);

    evhttp_set_max_headers_size(http, HEADERS_MAX);
    evhttp_set_max_body_size(http, BODY_MAX);
    evhttp_set_timeout(http, WEB_DEADLINE);
    evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST);
    evhttp_set_flags(http, EVHTTP_SERVER_LINGERING_CLOSE);
    evhttp_set_bevcb(http, on_connection, self);
    evhttp_set_gencb(http, web_answer_request, &self->visit);
    bound = evhttp_accept_socket_with_handle(http, self->visit.setup->listener);
    if (bound == NULL || parent == NULL || event_add(parent, NULL) != 0)
        return false;
    self->listener = evhttp_bound_socket_get_listener(bound);
    return web_filter_calls() && event_base_dispatch(self->base) >= 0;
}

/* Ends without atexit handlers and without a farewell: all memory goes with the process. */
_Noreturn void web_worker(const web_setup *setup, int control)
{
    worker self = {.visit = {.setup = setup, .control = control, .answered = on_answered}};
    struct evhttp *http;

    if (!web_sandbox(setup))
        _exit(1);
    process_keep_only(setup->listener, control);
    self.visit.arg = &self;
    self.base = event_base_new();
    http = self.base != NULL ? evhttp_new(self.base) : NULL;
    self.watch = self.base != NULL ? event_new(self.base, -1, 0, on_watch, &self) : NULL;
    _exit(http != NULL && self.watch != NULL && serve(&self, http) ? 0 : 1);
}
