/*
 * web_listen.c - where the page listens, under which names, and with which certificate
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <event2/util.h>
#include <netinet/in.h>

#include "socket_path.h"
#include "web.h"

#define UNIX_PREFIX "unix:"
#define BACKLOG 64

static bool is_unix(const char *text)
{
    return strncmp(text, UNIX_PREFIX "/", sizeof(UNIX_PREFIX)) == 0;
}

static unsigned port_of(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)address)->sin6_port)
                                          : ntohs(((const struct sockaddr_in *)address)->sin_port);
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;

    return address->ss_family == AF_INET ? ntohl(four->sin_addr.s_addr) >> 24 == 127
                                         : IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

static bool parse(const char *text, struct sockaddr_storage *address, int *size)
{
    *size = sizeof(*address);
    memset(address, 0, sizeof(*address));
    return evutil_parse_sockaddr_port(text, (struct sockaddr *)address, size) == 0 &&
           port_of(address) != 0;
}

int web_listen_check(const char *text, bool *exposed)
{
    struct sockaddr_storage address;
    int size;

    *exposed = false;
    if (is_unix(text))
        return EX_OK;
    if (!parse(text, &address, &size))
        return complain(EX_USAGE,
                        "--listen needs unix:/PATH, 127.0.0.1:PORT or another numeric address and "
                        "port, not \"%s\"",
                        text);
    *exposed = !is_loopback(&address);
    return EX_OK;
}

/* ---- the names under which a browser may reach us ---- */

static bool add_host(web_setup *setup, const char *host)
{
    size_t n = 0;

    while (setup->hosts[n] != NULL)
        n++;
    if (n == WEB_HOSTS_MAX)
        return false;
    setup->hosts[n] = strdup(host);
    return setup->hosts[n] != NULL;
}

static bool add_given(web_setup *setup)
{
    char *list = strdup(setup->hosts_given != NULL ? setup->hosts_given : "");
    char *rest = NULL;
    bool added = list != NULL;

    for (char *host = added ? strtok_r(list, ", ", &rest) : NULL; host != NULL && added;
         host = strtok_r(NULL, ", ", &rest))
        added = add_host(setup, host);
    free(list);
    return added;
}

static bool add_loopback(web_setup *setup, unsigned port)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    bool added = true;

    for (size_t i = 0; i < sizeof(names) / sizeof(*names) && added; i++) {
        char host[64];

        snprintf(host, sizeof(host), port == 80 ? "%s" : "%s:%u", names[i], port);
        added = add_host(setup, host);
    }
    return added;
}

static int name_hosts(web_setup *setup, const struct sockaddr_storage *address)
{
    bool added = add_given(setup);

    if (added && address == NULL)
        added = add_host(setup, "localhost");
    else if (added && is_loopback(address))
        added = add_loopback(setup, port_of(address));
    else if (added)
        added = add_host(setup, setup->listen);
    return added ? EX_OK
                 : complain(EX_USAGE, "--host names too many hosts: %d at most", WEB_HOSTS_MAX - 3);
}

/* ---- listening ---- */

static int listen_tcp(const char *text, const struct sockaddr_storage *address, int size, int *fd)
{
    const int on = 1;

    *fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd >= 0 && setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        bind(*fd, (const struct sockaddr *)address, (socklen_t)size) == 0 &&
        listen(*fd, BACKLOG) == 0)
        return EX_OK;
    return complain_file("cannot listen on", text);
}

static int listen_unix(web_setup *setup)
{
    int code = socket_reserve(setup->unix_path, &setup->lock);

    if (code == EX_OK)
        code = socket_listen(setup->unix_path, SOCK_STREAM, setup->group, &setup->listener);
    else if (code == EX_CANTCREAT)
        (void)socket_taken(setup->unix_path);
    return code;
}

int web_listen(web_setup *setup)
{
    struct sockaddr_storage address;
    int size;

    if (is_unix(setup->listen)) {
        setup->unix_path = setup->listen + strlen(UNIX_PREFIX);
        DO(name_hosts(setup, NULL));
        return listen_unix(setup);
    }
    if (!parse(setup->listen, &address, &size))
        return EX_USAGE;
    DO(name_hosts(setup, &address));
    return listen_tcp(setup->listen, &address, size, &setup->listener);
}

/* ---- the certificate ---- */

int web_tls(OSSL_LIB_CTX *libctx, const char *cert, const char *key, SSL_CTX **out)
{
    *out = SSL_CTX_new_ex(libctx, NULL, TLS_server_method());
    if (*out == NULL)
        return complain_crypto(EX_SOFTWARE, "cannot start TLS");
    SSL_CTX_set_options(*out, SSL_OP_CLEANSE_PLAINTEXT); /* a form's password is among it */
    if (SSL_CTX_set_min_proto_version(*out, TLS1_2_VERSION) == 1 &&
        SSL_CTX_use_certificate_chain_file(*out, cert) == 1 &&
        SSL_CTX_use_PrivateKey_file(*out, key, SSL_FILETYPE_PEM) == 1 &&
        SSL_CTX_check_private_key(*out) == 1)
        return EX_OK;
    SSL_CTX_free(*out);
    *out = NULL;
    return complain_crypto(EX_CONFIG, "cannot use --tls-cert and --tls-key (two PEM files: the "
                                      "certificate with its chain, and its key)");
}
