/*
 * web_check.c - is this request meant for us, and does it come from our own form?
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "output.h"
#include "web_check.h"

static const char *header(struct evhttp_request *request, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(request), name);
}

/* A name of --host without a port stands for any port. */
static bool host_matches(const char *allowed, const char *host)
{
    size_t size = strlen(allowed);

    if (strncasecmp(allowed, host, size) != 0)
        return false;
    if (host[size] == '\0')
        return true;
    return strrchr(allowed, ':') == NULL && host[size] == ':' &&
           strspn(host + size + 1, "0123456789") == strlen(host + size + 1);
}

bool web_host_ok(const web_setup *setup, struct evhttp_request *request)
{
    const char *host = header(request, "Host");

    for (size_t i = 0; host != NULL && setup->hosts[i] != NULL; i++)
        if (host_matches(setup->hosts[i], host))
            return true;
    return false;
}

/* Without TLS of our own there may be a proxy in front of us that has it. */
bool web_origin_ok(const web_setup *setup, struct evhttp_request *request)
{
    const char *origin = header(request, "Origin");
    const char *host = header(request, "Host");

    if (origin == NULL || host == NULL)
        return false;
    if (strncmp(origin, "https://", 8) == 0)
        return strcasecmp(origin + 8, host) == 0;
    return setup->tls == NULL && strncmp(origin, "http://", 7) == 0 &&
           strcasecmp(origin + 7, host) == 0;
}

/* Copies our cookie out of "a=b; c=d"; false when there is none of the right form. */
static bool find_cookie(struct evhttp_request *request, char cookie[COOKIE_SIZE])
{
    char *list = strdup(header(request, "Cookie") != NULL ? header(request, "Cookie") : "");
    char *rest = NULL;
    bool found = false;

    for (char *item = list != NULL ? strtok_r(list, "; ", &rest) : NULL; item != NULL && !found;
         item = strtok_r(NULL, "; ", &rest)) {
        const char *value = item + strlen(COOKIE_NAME "=");

        if (strncmp(item, COOKIE_NAME "=", strlen(COOKIE_NAME "=")) != 0)
            continue;
        found = strlen(value) == COOKIE_SIZE - 1 &&
                strspn(value, "0123456789abcdef") == COOKIE_SIZE - 1;
        if (found)
            memcpy(cookie, value, COOKIE_SIZE);
    }
    free(list);
    return found;
}

bool web_cookie(const web_setup *setup, struct evhttp_request *request, char cookie[COOKIE_SIZE],
                bool *fresh)
{
    unsigned char bytes[(COOKIE_SIZE - 1) / 2];

    *fresh = !find_cookie(request, cookie);
    if (!*fresh)
        return true;
    if (RAND_bytes_ex(setup->app->libctx, bytes, sizeof(bytes), 0) != 1)
        return false;
    hex_text(bytes, sizeof(bytes), cookie);
    return true;
}

bool web_token(const web_setup *setup, const char *cookie, char token[TOKEN_SIZE])
{
    unsigned char mac[(TOKEN_SIZE - 1) / 2];
    size_t size = 0;

    if (EVP_Q_mac(setup->app->libctx, "HMAC", NULL, "SHA256", NULL, setup->key, sizeof(setup->key),
                  (const unsigned char *)cookie, strlen(cookie), mac, sizeof(mac), &size) == NULL ||
        size != sizeof(mac))
        return false;
    hex_text(mac, sizeof(mac), token);
    return true;
}

bool web_token_ok(const web_setup *setup, struct evhttp_request *request, const char *token)
{
    char cookie[COOKIE_SIZE], expected[TOKEN_SIZE];

    return token != NULL && strlen(token) == TOKEN_SIZE - 1 && find_cookie(request, cookie) &&
           web_token(setup, cookie, expected) &&
           CRYPTO_memcmp(token, expected, TOKEN_SIZE - 1) == 0;
}
