/*
 * command.h - what all commands of trustpoint-keystore share
 *
 * A function that can fail returns an exit code of sysexits(3) and has then already said on
 * stderr which thing, why, and what to do; 0 means success. Everything here belongs to the one
 * thread of the command.
 */
#ifndef TRUSTPOINT_UTIL_COMMAND_H
#define TRUSTPOINT_UTIL_COMMAND_H

#include <stdbool.h>
#include <sysexits.h>

#include <openssl/crypto.h>
#include <openssl/provider.h>

#include "keystore.h"

#define PROGRAM "trustpoint-keystore"

/* One run of the command: the global options and what was opened for them. */
typedef struct app {
    const char *config_path;   /* --config or TRUSTPOINT_KEYSTORE_CONF; NULL: the default path */
    const char *keystore;      /* --keystore, or NULL */
    const char *password_file; /* --password-file, or NULL */
    unsigned long password_fd; /* --password-fd, or NO_FD */
    bool accept_new_anchor;    /* --accept-new-anchor */
    bool never_ask;            /* commands that only report must not start a restore */
    bool json;                 /* --json: whatever happens, standard output gets JSON */
    OSSL_LIB_CTX *libctx;      /* with the default provider only: this program never loads ours */
    OSSL_PROVIDER *standard;   /* the references that keep its providers */
    OSSL_LIB_CTX *bare;        /* without decoders: see view_cert() */
    OSSL_PROVIDER *nothing;    /* its only provider */
    OSSL_PROVIDER *legacy;     /* NULL until old PKCS#12 files may have to be read */
    TPKS_CONFIG *config;
    TPKS_URI *uri; /* that a record was named with; NULL: none */
    TPKS *ks;
    char *const *become; /* the program that this process turns into after success, or NULL */
} APP;

#define NO_FD ((unsigned long)-1)

typedef int command_fn(APP *app, int argc, char **argv);

command_fn command_apache_config, command_backup, command_cert, command_csr, command_delete,
    command_doctor, command_export, command_generate, command_header, command_import,
    command_import_trustpoint, command_init, command_list, command_nginx_config, command_password,
    command_policy, command_rename, command_restore, command_rotate_kek, command_set_cert,
    command_show, command_slot, command_slots, command_status, command_stub, command_serve_restore,
    command_unlock, command_unlock_service, command_verify;

/* Prints the commands that there are. */
void print_overview(void);

/* Returns on failure, passing the exit code on. */
#define DO(expression)                                                                             \
    do {                                                                                           \
        int do_code_ = (expression);                                                               \
        if (do_code_ != EX_OK)                                                                     \
            return do_code_;                                                                       \
    } while (0)

/* ---- errors (error.c) ------------------------------------------------------------------------ */

/* Says "trustpoint-keystore: TEXT" on stderr, control characters escaped; returns `exit_code`. */
int complain(int exit_code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Says what the library's last failure was; returns the exit code of `result`, 0 for TPKS_OK. */
int complain_result(tpks_result result);
/* Says `what` with the reason of libcrypto's newest error, and empties its queue. */
int complain_crypto(int exit_code, const char *what);
/* Says `what`, the file and errno's text; EX_NOINPUT, EX_NOPERM, EX_CANTCREAT or EX_OSERR. */
int complain_file(const char *what, const char *path);
/* Out of memory. */
int complain_memory(void);
/* Says something on stderr that is no failure. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The exit code that a result stands for. */
int exit_code_of(tpks_result result);
/* What it is called in JSON: "unlocked" for TPKS_OK, else the vocabulary of `status`. */
const char *state_of(tpks_result result);
/* What to do about it, in one sentence; NULL when nothing is to be done. */
const char *todo_of(tpks_result result);
/* What was said last by a complain function, and the result that it stands for: for JSON. Valid
 * until the next one. */
tpks_result complaint_result(void);
const char *complaint_text(void);

/* ---- the keystore (app.c) -------------------------------------------------------------------- */

/* Reads the configuration file once. */
int app_configure(APP *app);
/* Opens the keystore; with --password-file or --password-fd also unlocks it with that password. */
int app_open(APP *app, tpks_access access);
/* Unlocks an open keystore with the password that was given, if one was. */
int app_unlock_given(APP *app);
/* The options that app_open() opens with, for tpks_create(). */
tpks_options app_options(APP *app, tpks_access access);
/* If keys of the open keystore live in a token, says how many, and `what` of them. */
void app_say_in_token(APP *app, const char *what);
/* The record of that name; free with tpks_record_free(). */
int app_find(APP *app, const char *name, TPKS_RECORD **out);
/*
 * Opens the keystore and finds the record that `name` means: its name, or a URI of our scheme with
 * whatever selects one record, which may name the keystore too.
 */
int app_open_record(APP *app, tpks_access access, const char *name, TPKS_RECORD **out);
/* After success: what is worth doing once a password was used (see tpks_upgrade_password()). */
void app_finish(APP *app);
void say_upgraded(void);
/* Closes what is open; may be called twice. */
void app_close(APP *app);

/* ---- cleanup functions for __attribute__((cleanup)) --------------------------------------------
 */

#define CLEANUP(type, function, name)                                                              \
    static inline void name(type *object)                                                          \
    {                                                                                              \
        function(*object);                                                                         \
    }
CLEANUP(TPKS_RECORD *, tpks_record_free, cleanup_record)
CLEANUP(TPKS_SECRET *, tpks_secret_free, cleanup_secret)
#define AUTO(name) __attribute__((cleanup(cleanup_##name)))

#endif
