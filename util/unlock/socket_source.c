/*
 * socket_source.c - passwords from trustpoint-keystore unlock
 *
 * A connection of a SOCK_SEQPACKET socket sends one message, the password, and gets one: exit code,
 * space, text, line end. Only root and the service's own user are heard.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/listener.h>

#include "service.h"
#include "socket_path.h"

#define CLIENTS_MAX 4
#define CLIENT_SECONDS 10

struct socket_source {
    SERVICE *service;
    const char *path;
    int lock;
    struct evconnlistener *listener;
    unsigned clients;
};

typedef struct client {
    SOCKET_SOURCE *source;
    int fd;
    struct event *readable;
} client;

static void reply(int fd, int code, const char *text)
{
    char line[ANSWER_MAX];
    int size = snprintf(line, sizeof(line), "%d %s\n", code, text);

    if (size >= (int)sizeof(line))
        size = (int)sizeof(line) - 1;
    (void)send(fd, line, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void client_free(client *one)
{
    one->source->clients--;
    if (one->readable != NULL)
        event_free(one->readable);
    close(one->fd);
    free(one);
}

static void on_answer(void *arg, tpks_result result, const char *text)
{
    client *one = arg;

    reply(one->fd, exit_code_of(result), text);
    client_free(one);
}

static void refuse(client *one, const char *text)
{
    reply(one->fd, EX_DATAERR, text);
    client_free(one);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    client *one = arg;
    TPKS_SECRET *secret = tpks_secret_new(OFFER_MAX);
    ssize_t size;

    event_del(one->readable);
    if ((what & EV_TIMEOUT) != 0 || secret == NULL) {
        tpks_secret_free(secret);
        client_free(one);
        return;
    }
    size = recv(fd, tpks_secret_data(secret), OFFER_MAX, MSG_DONTWAIT | MSG_TRUNC);
    if (size > 0 && size <= OFFER_MAX) {
        tpks_secret_shrink(secret, (size_t)size);
        service_offer(one->source->service, secret, on_answer, one);
        return;
    }
    tpks_secret_free(secret);
    refuse(one, size > OFFER_MAX ? "the password is longer than 1024 bytes"
                                 : "no password came: send it as one message");
}

static bool is_trusted(int fd)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

/* A message that nobody has read would make the closed connection forget the answer. */
static void turn_away(int fd)
{
    AUTO(secret) TPKS_SECRET *unread = tpks_secret_new(OFFER_MAX);

    reply(fd, EX_NOPERM, "only root and the service's own user may unlock, 4 at a time");
    if (unread != NULL)
        (void)recv(fd, tpks_secret_data(unread), OFFER_MAX, MSG_DONTWAIT);
    close(fd);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int size, void *arg)
{
    SOCKET_SOURCE *source = arg;
    const struct timeval limit = {CLIENT_SECONDS, 0};
    client *one;

    (void)listener;
    (void)address;
    (void)size;
    one = source->clients < CLIENTS_MAX && is_trusted(fd) ? calloc(1, sizeof(*one)) : NULL;
    if (one == NULL) {
        turn_away(fd);
        return;
    }
    source->clients++;
    one->source = source;
    one->fd = fd;
    one->readable = event_new(service_base(source->service), fd, EV_READ, on_readable, one);
    if (one->readable == NULL || event_add(one->readable, &limit) != 0)
        client_free(one);
}

static int serve(SOCKET_SOURCE *source)
{
    int fd = -1;

    DO(socket_listen(source->path, SOCK_SEQPACKET, NO_GROUP, &fd));
    source->listener = evconnlistener_new(service_base(source->service), on_accept, source,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (source->listener != NULL)
        return EX_OK;
    close(fd);
    return complain_memory();
}

int socket_source_start(SERVICE *service, const char *path, SOCKET_SOURCE **out)
{
    SOCKET_SOURCE *source = calloc(1, sizeof(*source));
    int code;

    if (source == NULL)
        return complain_memory();
    *source = (SOCKET_SOURCE){.service = service, .path = path, .lock = -1};
    code = socket_reserve(path, &source->lock);
    if (code == EX_OK)
        code = serve(source);
    if (code == EX_OK)
        *out = source;
    else
        socket_source_stop(source);
    return code;
}

/* Clients that still wait see the connection end with the process. */
void socket_source_stop(SOCKET_SOURCE *source)
{
    if (source == NULL)
        return;
    if (source->listener != NULL) {
        evconnlistener_free(source->listener);
        unlink(source->path);
    }
    if (source->lock >= 0)
        close(source->lock);
    free(source);
}
