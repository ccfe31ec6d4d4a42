/*
 * web.h - the restore page: a privileged parent and, for each connection, an unprivileged process
 *
 * The parent never sees a byte of HTTP. It keeps one idle worker, which takes one connection,
 * parses its request in a sandbox, asks the parent over a socket pair and ends with its connection:
 * so one visitor's memory is never another's. The parent counts the workers, tries passwords one at
 * a time and keeps the pauses between wrong ones.
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_WEB_H
#define TRUSTPOINT_UTIL_UNLOCK_WEB_H

#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

#include "state.h"

#define WEB_PATH "/setup-wizard/auto_restore_password/" /* where Trustpoint has it */
#define WEB_PASSWORD_MAX 1024
#define WEB_CODE_SIZE 9 /* 8 characters, 40 bits */
#define WEB_KEY_SIZE 32
#define WEB_HOSTS_MAX 16
#define WEB_CONNECTIONS 16
#define WEB_TRY_LIMIT 120 /* seconds for one password */

/* ---- what worker and parent say to each other: one message each, this very program ---- */

typedef enum web_kind {
    WEB_CONNECTED = 1, /* no answer: the worker has taken its connection */
    WEB_ASK_STATE,
    WEB_TRY_PASSWORD
} web_kind;

typedef struct web_request {
    web_kind kind;
    uint32_t size;            /* of the password */
    char code[WEB_CODE_SIZE]; /* the console's code, ends with NUL; "" if none is wanted */
    char password[WEB_PASSWORD_MAX];
} web_request;

typedef enum web_outcome {
    WEB_JUST_STATE,
    WEB_RESTORED,
    WEB_WRONG, /* password or code: which is not said */
    WEB_WAIT,  /* too early after a wrong one: it was not looked at */
    WEB_TAKEN, /* another password is being checked: it was not looked at */
    WEB_FAILED /* something else stood in the way: the log says what */
} web_outcome;

typedef struct web_answer {
    web_outcome outcome;
    unsigned wait; /* seconds until the next password is looked at */
    tpks_result state;
    char label[256];
    char id[9]; /* first 8 digits of the keystore's id */
    char json[4096];
} web_answer;

/* ---- set-up, made by the command before anything is served ---- */

typedef struct web_setup {
    APP *app;
    const char *listen; /* as given: unix:PATH or ADDRESS:PORT */
    const char *hosts_given;
    gid_t group;  /* of a unix socket, or NO_GROUP */
    SSL_CTX *tls; /* NULL: plain HTTP */
    bool code_wanted;
    bool drop; /* we are root: workers become this user, in an empty folder */
    uid_t uid;
    gid_t gid;
    unsigned long timeout; /* seconds, or NO_LIMIT */
    unsigned long hsm_timeout;
    /* Filled by web_listen() and web_run(). */
    int listener;
    int lock; /* the right to the unix socket */
    int empty_folder;
    const char *unix_path; /* NULL: TCP */
    char *hosts[WEB_HOSTS_MAX + 1];
    unsigned char key[WEB_KEY_SIZE]; /* for the tokens against forged requests */
} web_setup;

/* web.c: serves until the keystore can be unlocked. Returns the exit code. */
int web_run(web_setup *setup);

/* web_listen.c */
/* Is `text` a form of --listen, and does it need a certificate (not unix:, not loopback)? */
int web_listen_check(const char *text, bool *exposed);
/* Opens the listener and makes the list of Host names. Errors are said. */
int web_listen(web_setup *setup);
/* Reads certificate chain and key (PEM). Errors are said. */
int web_tls(OSSL_LIB_CTX *libctx, const char *cert, const char *key, SSL_CTX **out);

/* web_memory.c: libevent wipes what it frees; called before anything of libevent is used. */
void web_wiping_memory(void);

/* web_sandbox.c: gives up what the worker does not need; false when it could not. */
bool web_sandbox(const web_setup *setup);
/* From now on it can only serve what is open already (seccomp(2)); false when that failed. */
bool web_filter_calls(void);

/* web_worker.c: serves one connection of the listener and ends the process. */
_Noreturn void web_worker(const web_setup *setup, int control);

#endif
