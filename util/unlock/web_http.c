/*
 * web_http.c - one HTTP request, answered inside the sandbox
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>

#include "web_check.h"
#include "web_http.h"
#include "web_page.h"

#define BODY_MAX 4096
#define FORM_TYPE "application/x-www-form-urlencoded"

/* ---- asking the parent ---- */

/* A parent that is gone ends the visit. */
static void ask_parent(const web_visit *visit, const web_request *request, web_answer *answer)
{
    ssize_t size;

    if (send(visit->control, request, sizeof(*request), MSG_NOSIGNAL) < 0)
        _exit(1);
    do
        size = recv(visit->control, answer, sizeof(*answer), 0);
    while (size < 0 && errno == EINTR);
    if (size != (ssize_t)sizeof(*answer))
        _exit(1);
}

static void ask_state(const web_visit *visit, web_answer *answer)
{
    web_request request = {.kind = WEB_ASK_STATE};

    ask_parent(visit, &request, answer);
}

/* ---- sending ---- */

static void on_complete(struct evhttp_request *request, void *arg)
{
    const web_visit *visit = arg;

    (void)request;
    visit->answered(visit->arg);
}

/* The ones that libevent has no words for. */
static const char *reason_of(int code)
{
    return code == 421 ? "Misdirected Request" : code == 429 ? "Too Many Requests" : NULL;
}

static void send_body(const web_visit *visit, struct evhttp_request *request, int code,
                      const char *type, struct evbuffer *body)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);

    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "Content-Security-Policy",
                      "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
                      "frame-ancestors 'none'; base-uri 'none'");
    evhttp_add_header(headers, "X-Frame-Options", "DENY");
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    /* Without a referrer at all browsers would send no Origin with the form. */
    evhttp_add_header(headers, "Referrer-Policy", "same-origin");
    evhttp_add_header(headers, "Connection", "close");
    evhttp_request_set_on_complete_cb(request, on_complete, (void *)(uintptr_t)visit);
    alarm(WEB_DEADLINE);
    evhttp_send_reply(request, code, reason_of(code), body);
}

static void send_page(const web_visit *visit, struct evhttp_request *request, int code,
                      struct evbuffer *body)
{
    send_body(visit, request, code, "text/html; charset=utf-8", body);
}

static void refuse(const web_visit *visit, struct evhttp_request *request, int code,
                   const char *heading, const char *text)
{
    struct evbuffer *body = evbuffer_new();

    if (body == NULL || !page_refusal(body, heading, text))
        _exit(1);
    send_page(visit, request, code, body);
    evbuffer_free(body);
}

/* ---- the form ---- */

static void set_cookie(const web_visit *visit, struct evhttp_request *request, const char *cookie)
{
    char text[160];

    snprintf(text, sizeof(text),
             COOKIE_NAME "=%s; Path=/setup-wizard/; HttpOnly; SameSite=Strict%s", cookie,
             visit->setup->tls != NULL ? "; Secure" : "");
    evhttp_add_header(evhttp_request_get_output_headers(request), "Set-Cookie", text);
}

static void send_form(const web_visit *visit, struct evhttp_request *request, int code,
                      const web_answer *answer)
{
    char cookie[COOKIE_SIZE], token[TOKEN_SIZE];
    struct evbuffer *body = evbuffer_new();
    bool fresh;

    if (body == NULL || !web_cookie(visit->setup, request, cookie, &fresh) ||
        !web_token(visit->setup, cookie, token) ||
        !page_form(body, answer, token, visit->setup->code_wanted))
        _exit(1);
    if (fresh)
        set_cookie(visit, request, cookie);
    send_page(visit, request, code, body);
    evbuffer_free(body);
}

static void get_form(const web_visit *visit, struct evhttp_request *request)
{
    web_answer answer;

    ask_state(visit, &answer);
    send_form(visit, request, HTTP_OK, &answer);
}

/* ---- the password ---- */

static int code_of(web_outcome outcome)
{
    switch (outcome) {
    case WEB_WRONG:
        return 403;
    case WEB_WAIT:
        return 429;
    case WEB_FAILED:
    case WEB_TAKEN:
        return 503;
    default:
        return HTTP_OK;
    }
}

static void send_outcome(const web_visit *visit, struct evhttp_request *request,
                         const web_answer *answer)
{
    struct evbuffer *body;
    char wait[16];

    if (answer->wait > 0) {
        snprintf(wait, sizeof(wait), "%u", answer->wait);
        evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After", wait);
    }
    if (answer->outcome != WEB_RESTORED) {
        send_form(visit, request, code_of(answer->outcome), answer);
        return;
    }
    body = evbuffer_new();
    if (body == NULL || !page_done(body, answer))
        _exit(1);
    send_page(visit, request, HTTP_OK, body);
    evbuffer_free(body);
}

/* Overwrites what a form's fields hold; libevent's own buffers end with this process. */
static void wipe_fields(struct evkeyvalq *fields)
{
    for (struct evkeyval *field = fields->tqh_first; field != NULL; field = field->next.tqe_next)
        OPENSSL_cleanse(field->value, strlen(field->value));
    evhttp_clear_headers(fields);
}

static void try_password(const web_visit *visit, struct evhttp_request *request,
                         struct evkeyvalq *fields)
{
    AUTO(secret) TPKS_SECRET *memory = tpks_secret_new(sizeof(web_request));
    const char *password = evhttp_find_header(fields, "password");
    const char *code = evhttp_find_header(fields, "code");
    web_request *message;
    web_answer answer;

    if (password == NULL || *password == '\0' || strlen(password) > WEB_PASSWORD_MAX) {
        refuse(visit, request, 400, "No password", "The form came without a usable password.");
        return;
    }
    if (memory == NULL)
        _exit(1);
    message = (web_request *)(void *)tpks_secret_data(memory);
    message->kind = WEB_TRY_PASSWORD;
    message->size = (uint32_t)strlen(password);
    memcpy(message->password, password, message->size);
    snprintf(message->code, sizeof(message->code), "%s", code != NULL ? code : "");
    alarm(2 * WEB_TRY_LIMIT); /* the whole request is here: now it is our turn */
    ask_parent(visit, message, &answer);
    send_outcome(visit, request, &answer);
}

static bool is_form(struct evhttp_request *request)
{
    const char *type =
        evhttp_find_header(evhttp_request_get_input_headers(request), "Content-Type");

    return type != NULL && strncasecmp(type, FORM_TYPE, strlen(FORM_TYPE)) == 0 &&
           (type[strlen(FORM_TYPE)] == '\0' || type[strlen(FORM_TYPE)] == ';');
}

static bool read_fields(struct evhttp_request *request, struct evkeyvalq *fields)
{
    AUTO(secret) TPKS_SECRET *body = tpks_secret_new(BODY_MAX + 1);
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    size_t size = evbuffer_get_length(input);

    if (body == NULL || size > BODY_MAX || evbuffer_remove(input, tpks_secret_data(body), size) < 0)
        return false;
    return evhttp_parse_query_str((const char *)tpks_secret_data(body), fields) == 0;
}

static void post_form(const web_visit *visit, struct evhttp_request *request)
{
    struct evkeyvalq fields = {NULL, NULL};

    if (!web_origin_ok(visit->setup, request)) {
        refuse(visit, request, 403, "Not from this page",
               "A password is taken from this page's own form only (header Origin).");
    } else if (!is_form(request)) {
        refuse(visit, request, 415, "Not a form", "A password is taken from a form only.");
    } else if (!read_fields(request, &fields)) {
        refuse(visit, request, 400, "Not a form", "The form could not be read.");
    } else {
        if (web_token_ok(visit->setup, request, evhttp_find_header(&fields, "csrf")))
            try_password(visit, request, &fields);
        else
            refuse(visit, request, 403, "The form is not valid any more",
                   "Open the form again; cookies must be allowed for this page.");
        wipe_fields(&fields);
    }
}

/* ---- health ---- */

/* The codes are those that probes of sealed stores know: 503 wants a human, 501 has no keystore. */
static int health_code(tpks_result state)
{
    if (state == TPKS_OK)
        return HTTP_OK;
    if (state == TPKS_UNINITIALIZED)
        return 501;
    if (state_is_pending(state) || state_may_pass(state))
        return 503;
    return 500;
}

static void health(const web_visit *visit, struct evhttp_request *request, bool ready)
{
    struct evbuffer *body = evbuffer_new();
    web_answer answer;

    ask_state(visit, &answer);
    if (body == NULL || evbuffer_add_printf(body, "%s\n", answer.json) < 0)
        _exit(1);
    send_body(visit, request, ready ? health_code(answer.state) : HTTP_OK, "application/json",
              body);
    evbuffer_free(body);
}

/* ---- which request ---- */

static void redirect(const web_visit *visit, struct evhttp_request *request)
{
    evhttp_add_header(evhttp_request_get_output_headers(request), "Location", WEB_PATH);
    refuse(visit, request, 303, "Unlock the Trustpoint keystore", "The form has its own address.");
}

static void route(const web_visit *visit, struct evhttp_request *request, const char *path)
{
    bool post = evhttp_request_get_command(request) == EVHTTP_REQ_POST;

    if (strcmp(path, WEB_PATH) == 0 && post)
        post_form(visit, request);
    else if (strcmp(path, WEB_PATH) == 0)
        get_form(visit, request);
    else if (strcmp(path, "/") == 0 && !post)
        redirect(visit, request);
    else
        refuse(visit, request, HTTP_NOTFOUND, "Nothing here", "There is only one form.");
}

void web_answer_request(struct evhttp_request *request, void *arg)
{
    const web_visit *visit = arg;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;

    if (path == NULL)
        refuse(visit, request, HTTP_BADREQUEST, "Bad request", "The request has no path.");
    else if (strcmp(path, "/livez") == 0 || strcmp(path, "/readyz") == 0)
        health(visit, request, strcmp(path, "/readyz") == 0); /* probes call us by any name */
    else if (!web_host_ok(visit->setup, request))
        refuse(visit, request, 421, "Another host",
               "This page is not served under that name (header Host); --host adds names.");
    else
        route(visit, request, path);
}
