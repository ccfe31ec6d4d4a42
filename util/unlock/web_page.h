/*
 * web_page.h - the pages as people see and hear them: plain HTML, no script
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_WEB_PAGE_H
#define TRUSTPOINT_UTIL_UNLOCK_WEB_PAGE_H

#include <event2/buffer.h>

#include "web.h"

/* The form, with what became of the last password above it. False: no memory. */
bool page_form(struct evbuffer *out, const web_answer *answer, const char *token, bool code_wanted);
/* It worked. */
bool page_done(struct evbuffer *out, const web_answer *answer);
/* A request that is not served: a heading and one sentence. */
bool page_refusal(struct evbuffer *out, const char *heading, const char *text);

#endif
