/*
 * sources.h - where the unlock service gets the backup password from, and whose turn it is
 *
 * The list is walked from the left. A source that has nothing, or a wrong password, gives way to
 * the next one. Some sources only look (a file, a credential), some wait for a human (terminal,
 * systemd-ask-password(1), socket): waiting ones that follow one another wait together, and one
 * that only looks has its turn when none before it waits any more.
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_SOURCES_H
#define TRUSTPOINT_UTIL_UNLOCK_SOURCES_H

#include "command.h"

typedef enum source_kind {
    SOURCE_GIVEN,    /* --password-file or --password-fd */
    SOURCE_FILE,     /* file:PATH, or a credential of systemd */
    SOURCE_TERMINAL, /* callback: of a program that is a command it is the terminal */
    SOURCE_AGENT,    /* ask-password */
    SOURCE_SOCKET    /* trustpoint-keystore unlock */
} source_kind;

typedef struct source {
    source_kind kind;
    char *path;     /* of a SOURCE_FILE */
    bool open;      /* it waits for a human */
    bool ended;     /* it has nothing any more */
    unsigned tries; /* with what it has, when something passing stood in the way */
} SOURCE;

typedef struct sources {
    SOURCE *items;
    size_t count;
} sources;

/*
 * The directive `restore`, with what was given on the command line before it, and behind it what it
 * does not name of ask-password and socket: a service that nobody could answer would be useless.
 * Nothing that waits with `may_wait` false or `restore = no`. The configuration has been read.
 * EX_OSERR; free with sources_free() in any case.
 */
int sources_read(const APP *app, bool may_wait, sources *out);
void sources_free(sources *list);

/* The one of this kind; NULL: none. */
SOURCE *sources_find(const sources *list, source_kind kind);
/* Whose turn is it? With `humans_only` those that only look are passed over. NULL: nobody's now. */
SOURCE *sources_turn(const sources *list, bool humans_only);
/* Does one of them wait for a human? */
bool sources_wait(const sources *list);

#endif
