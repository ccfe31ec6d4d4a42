/*
 * service.h - the waiting unlock service: one loop, the HSM looked at again and again, passwords
 * tried one after the other as the sources offer them
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_SERVICE_H
#define TRUSTPOINT_UTIL_UNLOCK_SERVICE_H

#include "sources.h"
#include "state.h"

#define NO_LIMIT ((unsigned long)-1)

typedef struct service_options {
    unsigned long timeout;     /* seconds to wait for what is missing, or NO_LIMIT */
    unsigned long hsm_timeout; /* seconds for one look at the HSM */
    const char *socket;        /* path */
    const char *state_file;    /* NULL: by the keystore's id */
} service_options;

typedef struct service SERVICE;

/* Runs until the keystore is unlocked or nothing more can be hoped for; returns the exit code. */
int service_run(APP *app, const service_options *options);

/* ---- for the sources ---- */

/*
 * What became of a password; called once from the loop. TPKS_WRONG_SECRET: another one may be
 * offered.
 */
typedef void answer_fn(void *arg, tpks_result result, const char *text);
/*
 * Offers a password, which the service takes over. Passwords are tried in the order in which they
 * come.
 */
void service_offer(SERVICE *service, TPKS_SECRET *secret, answer_fn *answer, void *arg);
/* This source has nothing any more (cancelled, or its program is not there). */
void service_source_ended(SERVICE *service, source_kind kind);
struct event_base *service_base(const SERVICE *service);

/* asker.c: a child process that asks a human: at the terminal, or by systemd-ask-password(1). */
typedef struct asker ASKER;
/* SOURCE_TERMINAL or SOURCE_AGENT. `id` names the keystore in the prompt. NULL, with a message,
 * when it can't be started. */
ASKER *asker_start(SERVICE *service, source_kind kind, const unsigned char id[TPKS_ID_SIZE],
                   const char *label);
/* Takes the prompt away. NULL is ignored. */
void asker_stop(ASKER *asker);

/* socket_source.c: passwords from trustpoint-keystore unlock. */
typedef struct socket_source SOCKET_SOURCE;
/*
 * `path` lives as long as the source. EX_CANTCREAT: another process has it, and asks; that is not
 * said. Other errors are.
 */
int socket_source_start(SERVICE *service, const char *path, SOCKET_SOURCE **out);
/* Removes the socket. NULL is ignored. */
void socket_source_stop(SOCKET_SOURCE *source);

/* The longest password in a message. */
#define OFFER_MAX 1024
/* The longest answer: exit code, space, text, line end. */
#define ANSWER_MAX (REPORT_TEXT + 16)

#endif
