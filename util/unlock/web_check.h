/*
 * web_check.h - is this request meant for us, and does it come from our own form?
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_WEB_CHECK_H
#define TRUSTPOINT_UTIL_UNLOCK_WEB_CHECK_H

#include <event2/http.h>

#include "web.h"

#define COOKIE_NAME "trustpoint_restore"
#define COOKIE_SIZE 33 /* 32 hexadecimal digits */
#define TOKEN_SIZE 65

/* Is the Host header one of ours (against DNS rebinding)? */
bool web_host_ok(const web_setup *setup, struct evhttp_request *request);
/* Is there an Origin header, and is it this very host? */
bool web_origin_ok(const web_setup *setup, struct evhttp_request *request);
/* The visitor's cookie, or a fresh one (then *fresh). False: no random numbers. */
bool web_cookie(const web_setup *setup, struct evhttp_request *request, char cookie[COOKIE_SIZE],
                bool *fresh);
/* The token that the form must send with this cookie: HMAC-SHA256 under this run's key. */
bool web_token(const web_setup *setup, const char *cookie, char token[TOKEN_SIZE]);
/* Is `token` (may be NULL) the one for the request's cookie? */
bool web_token_ok(const web_setup *setup, struct evhttp_request *request, const char *token);

#endif
