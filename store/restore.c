/*
 * restore.c - the KEK is gone: a password or recovery key brings the DEK back under a new one
 *
 * One process at a time restores (a lock file); whoever waited looks again and finds nothing left
 * to do. The lock spares people a second question; safety is the generation check of every change.
 * "Gone" is believed only after several looks: token found, logged in, searched, nothing there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "file.h"
#include "keystore_internal.h"
#include "restore_lock.h"
#include "secret.h"
#include "sidecar.h"

#define LOOKS 5
#define LOOK_PAUSE_MS 400
#define SECRET_MAX 1024
#define CREDENTIAL_PASSWORD "trustpoint.backup-password"
#define CREDENTIAL_RECOVERY "trustpoint.recovery-key"
#define SEPARATORS ", \t"
#define FILE_SOURCE "file:"
#define TRIED_SIZE 512

static void pause_ms(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};

    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

/* ---- where a secret comes from ---- */

static bool credential_path(const char *name, char *path, size_t size)
{
    const char *folder = secure_getenv("CREDENTIALS_DIRECTORY");

    if (folder == NULL)
        return false;
    snprintf(path, size, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static bool may_ask(const TPKS *ks)
{
    return ks->ask != NULL && (keystore_token(ks) == NULL || !hsm_pin_is_asked(keystore_token(ks)));
}

/* The same words wherever a program finds it out, so that one is looked up by the other. */
static tpks_result kek_missing(const TPKS *ks, const char *more)
{
    char who[320];

    keystore_describe(ks, who, sizeof(who));
    return fail(
        TPKS_KEK_MISSING,
        "%s: the KEK is not on the token any more, or it is a new token: run "
        "trustpoint-keystore restore, at a terminal or with --password-file, and try again%s",
        who, more);
}

/* *out stays NULL when there is no answer. */
static tpks_result ask(const TPKS *ks, TPKS_SECRET **out)
{
    char info[360], who[320];
    size_t size = 0;
    TPKS_SECRET *answer = tpks_secret_new(SECRET_MAX);

    if (answer == NULL)
        return fail_memory();
    keystore_describe(ks, who, sizeof(who));
    snprintf(info, sizeof(info), "Trustpoint %s backup password", who);
    if (!ks->ask(ks->ask_arg, TPKS_ASK_PASSWORD, info, (char *)tpks_secret_data(answer), SECRET_MAX,
                 &size) ||
        size == 0 || size > SECRET_MAX) {
        tpks_secret_free(answer);
        return TPKS_OK;
    }
    tpks_secret_shrink(answer, size);
    *out = answer;
    return TPKS_OK;
}

/* Where secrets were looked for, and why each place had none. */
typedef struct search {
    bool only_look; /* asks nobody and reads nothing */
    bool has;
    TPKS_SECRET *found; /* NULL with `only_look` */
    char tried[TRIED_SIZE];
} search;

static tpks_result take_file(search *s, const char *path)
{
    s->has = true;
    return s->only_look ? TPKS_OK : tpks_secret_read_file(path, SECRET_MAX, &s->found);
}

static void search_end(search *s)
{
    tpks_secret_free(s->found);
}

static void note_empty(search *s, const char *source, const char *why)
{
    size_t used = strlen(s->tried);

    snprintf(s->tried + used, sizeof(s->tried) - used, "%s%s: %s", used == 0 ? "" : "; ", source,
             why);
}

static tpks_result try_credential(search *s)
{
    char path[PATH_SIZE];

    if (credential_path(CREDENTIAL_PASSWORD, path, sizeof(path)) ||
        credential_path(CREDENTIAL_RECOVERY, path, sizeof(path)))
        return take_file(s, path);
    note_empty(s, "credential",
               secure_getenv("CREDENTIALS_DIRECTORY") == NULL
                   ? "systemd gave none"
                   : "neither " CREDENTIAL_PASSWORD " nor " CREDENTIAL_RECOVERY " is there");
    return TPKS_OK;
}

static tpks_result try_callback(const TPKS *ks, search *s)
{
    if (!may_ask(ks)) {
        note_empty(s, "callback", ks->ask == NULL ? "nobody to ask" : "asked for the PIN already");
        return TPKS_OK;
    }
    if (!s->only_look)
        TRY(ask(ks, &s->found));
    s->has = s->only_look || s->found != NULL;
    if (!s->has)
        note_empty(s, "callback", "no answer");
    return TPKS_OK;
}

static tpks_result try_file(const char *source, search *s)
{
    const char *path = source + strlen(FILE_SOURCE);

    if (access(path, F_OK) == 0)
        return take_file(s, path);
    note_empty(s, source, "is not there");
    return TPKS_OK;
}

/* One source of the directive `restore`. */
static tpks_result try_source(const TPKS *ks, const char *source, search *s)
{
    if (strcmp(source, "credential") == 0)
        return try_credential(s);
    if (strncmp(source, FILE_SOURCE, strlen(FILE_SOURCE)) == 0)
        return try_file(source, s);
    if (strcmp(source, "callback") == 0)
        return try_callback(ks, s);
    note_empty(s, source,
               strcmp(source, "no") == 0 ? "none is allowed"
                                         : "used by trustpoint-keystore unlock-service only");
    return TPKS_OK;
}

/* The first source that has something. */
static tpks_result search_sources(const TPKS *ks, search *s)
{
    char list[PATH_SIZE], *rest = NULL;

    OPENSSL_strlcpy(list, keystore_setting(ks, "restore"), sizeof(list));
    for (char *source = strtok_r(list, SEPARATORS, &rest); source != NULL && !s->has;
         source = strtok_r(NULL, SEPARATORS, &rest))
        TRY(try_source(ks, source, s));
    return TPKS_OK;
}

/* `state`: what is wrong; that no secret was found is no reason of its own. */
static tpks_result no_secret(const TPKS *ks, tpks_result state, const search *s)
{
    char more[TRIED_SIZE + 100], who[320];

    snprintf(more, sizeof(more),
             "; no source of the directive `restore` has a backup password (%s)", s->tried);
    if (state == TPKS_KEK_MISSING)
        return kek_missing(ks, more);
    keystore_describe(ks, who, sizeof(who));
    return fail(state,
                "%s: the %s: run trustpoint-keystore restore, at a terminal or with "
                "--password-file, and try again%s",
                who,
                unlock_is_by_file(ks) ? "DEK file is damaged or another keystore's"
                                      : "key on the token is not its KEK",
                more);
}

/* ---- the restore itself ---- */

/* A foreign KEK or DEK file may be somebody's mistake: only who asks for a restore gets one then.
 */
static bool restorable(tpks_result state, bool in_load)
{
    return state == TPKS_KEK_MISSING || (state == TPKS_KEK_FOREIGN && !in_load);
}

/* Looks several times before it believes a loss. */
static tpks_result look(TPKS *ks)
{
    tpks_result result = unlock_machine(ks);

    for (int i = 1; i < LOOKS && result == TPKS_KEK_MISSING; i++) {
        pause_ms(LOOK_PAUSE_MS);
        TRY(keystore_reload(ks));
        result = unlock_machine(ks);
    }
    return result;
}

static tpks_result restore_trustpoint(TPKS *ks)
{
    tpks_result result = trustpoint_restore(ks);

    if (result != TPKS_CONFLICT)
        return result;
    /* Our lock is this host's: another one was faster, and has brought the KEK back by now. */
    keystore_lock(ks);
    TRY(keystore_reload(ks));
    return look(ks);
}

/* Under the lock, `secret` opens the keystore: gives it what this machine lacks, and proves that.
 */
static tpks_result bring_back(TPKS *ks, const TPKS_SECRET *secret)
{
    TRY(tpks_unlock_with(ks, secret));
    if (ks->schema->rewrap != NULL)
        TRY(restore_trustpoint(ks));
    else if (unlock_is_by_file(
                 ks)) /* where a token is to have it, it is never written in the clear */
        TRY(slot_restore_software(&ks->head, keystore_setting(ks, "state"), dek_bytes(ks->dek)));
    else
        TRY(keystore_add_hsm_slot(ks, NULL));
    keystore_lock(ks);
    TRY(unlock_machine(ks));
    tpks_log(ks, "restored", "", TPKS_OK);
    return TPKS_OK;
}

/* A token that is there is taken as it is. */
static tpks_result make_token(const TPKS *ks, const TPKS_SECRET *so_pin)
{
    char locks[PATH_SIZE];
    hsm_options options = {
        .token_uri = keystore_token(ks),
        .lock_dir = keystore_lock_dir(ks, locks),
        .ask = ks->ask,
        .ask_arg = ks->ask_arg,
        .keystore_label = ks->head.label,
    };
    tpks_result result = hsm_init_token(&options, so_pin);

    return result == TPKS_EXISTS ? TPKS_OK : result;
}

/* A restore may have been killed when all but the last step was done. */
static tpks_result resume(TPKS *ks, bool dry_run, tpks_result *state)
{
    if (ks->schema->rewrap == NULL || dry_run || !restorable(*state, false))
        return TPKS_OK;
    char why[1024];
    OPENSSL_strlcpy(why, tpks_error_text(), sizeof(why));
    TRY(trustpoint_resume(ks));
    *state = unlock_machine(ks);
    if (*state != TPKS_OK)
        *state = fail(*state, "%s", why);
    return TPKS_OK;
}

/* Before anybody is asked for a password: could it be used at all? */
static tpks_result check_restorable(TPKS *ks)
{
    if (ks->schema->rewrap == NULL)
        return keystore_check_writable(ks);
    return trustpoint_check_restorable(ks);
}

/* Trustpoint's token holds more than its KEK, and Trustpoint initialises it itself. */
static tpks_result check_may_make_token(const TPKS *ks)
{
    if (ks->schema->read_only == NULL)
        return TPKS_OK;
    return fail(TPKS_NOT_PERMITTED,
                "a token of Trustpoint's is never initialised from here: let Trustpoint make its "
                "token, then restore without --init-token");
}

static tpks_result restore_open(TPKS *ks, const tpks_restore_params *params, bool in_load,
                                tpks_restore_report *report)
{
    RESTORE_LOCK lock = -1;
    __attribute__((cleanup(search_end))) search s = {.has = params->secret != NULL};

    TRY(restore_lock_take(ks, TPKS_RESTORE_WAIT, &lock));
    if (params->so_pin != NULL)
        TRY(check_may_make_token(ks));
    if (params->so_pin != NULL && !params->dry_run)
        TRY(make_token(ks, params->so_pin));
    TRY(keystore_reload(ks));
    tpks_result state = look(ks);
    TRY(resume(ks, params->dry_run, &state));
    report->found = state;
    report->dek_file = unlock_is_by_file(ks);
    if (state != TPKS_OK)
        OPENSSL_strlcpy(report->why, tpks_error_text(), sizeof(report->why));
    if (state == TPKS_OK)
        return TPKS_OK;
    if (!restorable(state, in_load))
        return params->dry_run ? TPKS_OK : state;
    TRY(check_restorable(ks));
    if (params->dry_run)
        return TPKS_OK;
    if (!s.has)
        TRY(search_sources(ks, &s));
    if (!s.has)
        return no_secret(ks, state, &s);
    tpks_result result = bring_back(ks, s.found != NULL ? s.found : params->secret);
    report->restored = result == TPKS_OK;
    if (result != TPKS_OK)
        tpks_log(ks, "restore-failed", "", result);
    return result;
}

static void close_keystore(TPKS **ks)
{
    tpks_close(*ks);
}

tpks_result tpks_restore(const tpks_options *options, const tpks_restore_params *params,
                         tpks_restore_report *report)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(close_keystore))) TPKS *ks = NULL;
    tpks_options writing = *options;

    memset(report, 0, sizeof(*report));
    writing.access = TPKS_WRITE;
    TRY(tpks_open(&writing, &ks));
    if (params->token_uri != NULL) {
        TRY(hsm_check_uri(params->token_uri));
        ks->token = OPENSSL_strdup(params->token_uri);
        if (ks->token == NULL)
            return fail_memory();
    }
    TRY(restore_open(ks, params, false, report));
    report->upgraded = tpks_upgrade_password(ks); /* the lock is free, others go on meanwhile */
    return TPKS_OK;
}

/* ---- in a load ---- */

/* `s` NULL: this program was not to look for one. */
static tpks_result nobody_to_ask(const TPKS *ks, const search *s)
{
    RESTORE_LOCK lock = -1;

    TRY(restore_lock_take(ks, 0, &lock));
    return s == NULL ? kek_missing(ks, "") : no_secret(ks, TPKS_KEK_MISSING, s);
}

tpks_result restore_in_load(TPKS *ks)
{
    __attribute__((cleanup(close_keystore))) TPKS *writer = NULL;
    tpks_restore_params params = {0};
    tpks_restore_report report = {0};
    search s = {.only_look = true};
    tpks_options options = {
        .config = ks->config,
        .keystore = ks->section,
        .libctx = ks->libctx,
        .access = TPKS_WRITE,
        .ask = ks->ask,
        .ask_arg = ks->ask_arg,
    };

    if (!ks->no_restore)
        TRY(search_sources(ks, &s));
    if (ks->schema->rewrap != NULL)
        TRY(trustpoint_check_way_back(ks));
    if (!s.has)
        return nobody_to_ask(ks, ks->no_restore ? NULL : &s);
    tpks_result result = tpks_open(&options, &writer);
    if (result != TPKS_OK)
        return fail_in(result, "the KEK is missing and this program can't restore it; run "
                               "trustpoint-keystore restore as an administrator");
    TRY(restore_open(writer, &params, true, &report));
    TRY(keystore_reload(ks));
    return unlock_machine(ks);
}
