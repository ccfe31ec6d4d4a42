/*
 * web_http.h - one HTTP request, answered inside the sandbox
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_WEB_HTTP_H
#define TRUSTPOINT_UTIL_UNLOCK_WEB_HTTP_H

#include <event2/http.h>

#include "web.h"

#define WEB_DEADLINE 10 /* seconds to send a whole request, and to take a whole answer */

typedef struct web_visit {
    const web_setup *setup;
    int control; /* to the parent */
    void (*answered)(void *arg);
    void *arg; /* for `answered`, called when an answer has been sent */
} web_visit;

/* evhttp's callback; `arg` is the web_visit. Waits for the parent: there is only one connection. */
void web_answer_request(struct evhttp_request *request, void *arg);

#endif
