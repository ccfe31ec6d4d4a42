/*
 * sources.h - which sources of the directive `restore` the unlock service can use
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_SOURCES_H
#define TRUSTPOINT_UTIL_UNLOCK_SOURCES_H

#include "command.h"

/* The directive, read. */
typedef struct sources {
    bool unattended;   /* credential or file:PATH, and it is there */
    bool terminal;     /* callback, and there is a terminal to ask at */
    bool ask_password; /* systemd-ask-password(1) */
    bool socket;       /* trustpoint-keystore unlock */
} sources;

/* The configuration has been read. */
sources sources_of(const APP *app);
/* Does one of them wait for a human? */
bool sources_wait(const sources *from);

#endif
