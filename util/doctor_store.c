/*
 * doctor_store.c - does the keystore open and unlock, and what will be missed soon?
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config_write.h"
#include "doctor.h"
#include "key_input.h"
#include "record_view.h"

#define DAY 86400
#define SOON (30 * DAY)
#define OLD_SLOT (2 * 365 * DAY) /* NIST SP 800-57 part 1: key-wrapping keys, two years of use */

void doctor_config(APP *app, FINDINGS *findings)
{
    tpks_result result = tpks_config_load(app->config_path, &app->config);

    if (result != TPKS_OK)
        finding(findings, FINDING_PROBLEM, config_path(app),
                "correct the file (keystore.cnf.example explains every directive), or make a "
                "keystore with \"" PROGRAM " init\"",
                "%s", tpks_error_text());
    else
        finding(findings, FINDING_OK, config_path(app), NULL, "the configuration is well-formed");
}

static bool open_store(APP *app, FINDINGS *findings, const char *todo)
{
    tpks_options options = app_options(app, TPKS_LOAD);
    tpks_result result = tpks_open(&options, &app->ks);

    if (result == TPKS_OK)
        return true;
    finding(findings, FINDING_PROBLEM, "keystore", todo, "cannot be opened: %s", tpks_error_text());
    return false;
}

/* ---- unlocking
 * ------------------------------------------------------------------------------------ */

static void judge_dek(FINDINGS *findings, const tpks_status_info *info)
{
    if (info->software && info->format == 0)
        finding(findings, FINDING_WARNING, "DEK", "have Trustpoint use an HSM",
                "there is no HSM: whoever copies the database has all keys");
    else if (info->software)
        finding(findings, FINDING_WARNING, "DEK", "use an HSM where the machine has one",
                "there is no HSM: whoever copies the state folder and the database has all keys");
    else if (strcmp(info->dek_location, "hsm") == 0)
        finding(findings, FINDING_OK, "DEK", NULL, "stays in the HSM (token %s)",
                info->token_label);
    else
        finding(
            findings, FINDING_WARNING, "DEK",
            "nothing, if the token cannot do it; dek = hsm in the configuration refuses instead",
            "is held in the memory of programs that load keys, not in the HSM");
}

static void judge_status(FINDINGS *findings, const tpks_status_info *info)
{
    if (info->ways_back == 0)
        finding(findings, FINDING_WARNING, "ways back",
                "add one: \"" PROGRAM " slot add password\" or \"slot add recovery\"",
                "neither a backup password nor a recovery key exists: if the HSM loses its KEK, "
                "all keys are lost");
    else
        finding(findings, FINDING_OK, "ways back", NULL, "%u besides the HSM", info->ways_back);
    if (!info->anchor_known && info->format != 0)
        finding(findings, FINDING_WARNING, "anchor", "unlock the keystore once as root",
                "this host remembers no state of this keystore: an older database put in place "
                "would not be noticed");
    finding(findings, FINDING_OK, "backup", NULL,
            "when the last one was made is not recorded; \"" PROGRAM " backup FILE\" makes one");
}

static bool check_unlock(APP *app, FINDINGS *findings)
{
    tpks_result result = tpks_unlock(app->ks);
    tpks_status_info info;

    if (result != TPKS_OK)
        finding(findings, FINDING_PROBLEM, "unlocking",
                "see the section EXIT STATUS of " PROGRAM "(1)", "%s (%s)", tpks_error_text(),
                tpks_result_name(result));
    if (tpks_status(app->ks, &info) != TPKS_OK)
        return false;
    if (result == TPKS_OK)
        judge_dek(findings, &info);
    judge_status(findings, &info);
    return result == TPKS_OK;
}

/* ---- slots and certificates
 * ------------------------------------------------------------------------ */

static tpks_result check_slot(void *arg, const tpks_slot_info *slot)
{
    char id[2 * TPKS_ID_SIZE + 1];

    hex_text(slot->id, 4, id);
    if (strcmp(slot->state, "active") != 0)
        finding(arg, FINDING_WARNING, "slot",
                "when its KEK is not needed any more: \"" PROGRAM " slot remove ID --destroy-key\"",
                "%s (%s) is %s; its KEK may still be on the token%s%s", id, slot->kind, slot->state,
                *slot->token_serial == '\0' ? "" : " with serial ", slot->token_serial);
    else if (slot->created != 0 && slot->created < time(NULL) - OLD_SLOT)
        finding(arg, FINDING_WARNING, "slot", "plan a new one", "%s (%s) is older than two years",
                id, slot->kind);
    return TPKS_OK;
}

typedef struct expiry {
    APP *app;
    FINDINGS *findings;
    size_t records;
    size_t late;
    size_t in_token;
} expiry;

static tpks_result check_expiry(void *arg, const TPKS_RECORD *record)
{
    expiry *state = arg;
    AUTO(x509) X509 *leaf = view_cert(state->app, record, 0);
    time_t now = time(NULL), end = leaf != NULL ? view_not_after(leaf) : 0;
    char text[TIME_SIZE];

    state->records++;
    state->in_token += tpks_record_home(record) == TPKS_HOME_TOKEN;
    if (tpks_record_home(record) == TPKS_HOME_PLAIN)
        finding(state->findings, FINDING_WARNING, tpks_record_name(record),
                "remove it in Trustpoint when it is not in use, else issue a new one there",
                "its private key is in the database in the clear");
    if (leaf == NULL || end >= now + SOON)
        return TPKS_OK;
    state->late++;
    finding(
        state->findings, end < now ? FINDING_PROBLEM : FINDING_WARNING, tpks_record_name(record),
        view_is_trustpoint(state->app) ? "renew it in Trustpoint" : "renew it: csr, then set-cert",
        "its certificate %s %s", end < now ? "has ended" : "ends", time_text(end, text));
    return TPKS_OK;
}

static void tell_unreadable(void *arg, const char *name, tpks_result result, const char *text)
{
    const expiry *state = arg;

    (void)result;
    finding(state->findings, FINDING_PROBLEM, name, "see \"" PROGRAM " verify\"", "%s", text);
}

static void check_records(APP *app, FINDINGS *findings)
{
    expiry state = {.app = app, .findings = findings};

    if (tpks_each_readable(app->ks, NULL, check_expiry, tell_unreadable, &state) != TPKS_OK)
        finding(findings, FINDING_PROBLEM, "records", "see \"" PROGRAM " verify\"", "%s",
                tpks_error_text());
    else if (state.late == 0)
        finding(findings, FINDING_OK, "records", NULL, "%zu, no certificate ends within 30 days",
                state.records);
    if (state.in_token != 0)
        finding(findings, FINDING_OK, "keys in the token", NULL,
                "%zu, which exist only there; workers that use them need the token and its PIN "
                "while they run (\"doctor --as USER\" tries it)",
                state.in_token);
}

/* ---- keys in the token that no record uses
 * ------------------------------------------------------------------------ */

static tpks_result check_leftover(void *arg, const tpks_leftover *leftover)
{
    char id[2 * 64 + 1];
    size_t shown = leftover->cka_id_size < 64 ? leftover->cka_id_size : 64;

    hex_text(leftover->cka_id, shown, id);
    if (leftover->unfinished)
        finding(arg, FINDING_WARNING, leftover->name,
                "generate it again, or \"" PROGRAM " delete NAME --destroy-key\"",
                "making or destroying its key in the token with serial %s was interrupted; its "
                "CKA_ID is %s",
                leftover->token_serial, id);
    else
        finding(arg, FINDING_WARNING, leftover->name,
                "when it is not needed any more, destroy it with the token's own tool",
                "the token with serial %s has a private key that was made for a record of this "
                "name, and none uses it; its CKA_ID is %s",
                leftover->token_serial, id);
    return TPKS_OK;
}

void doctor_store(APP *app, FINDINGS *findings)
{
    app->never_ask = true;
    if (!open_store(app, findings, "see the section EXIT STATUS of " PROGRAM "(1)"))
        return;
    finding(findings, FINDING_OK, "keystore", NULL, "opens (%s)", tpks_schema_name(app->ks));
    check_unlock(app, findings);
    if (tpks_each_slot(app->ks, check_slot, findings) != TPKS_OK)
        finding(findings, FINDING_PROBLEM, "slots", "see \"" PROGRAM " verify\"", "%s",
                tpks_error_text());
    check_records(app, findings);
    if (tpks_each_leftover(app->ks, check_leftover, findings) != TPKS_OK)
        finding(findings, FINDING_WARNING, "keys in the token", "see what unlocking says above",
                "they cannot be listed: %s", tpks_error_text());
}

/* ---- what another user could load
 * -------------------------------------------------------------------- */

typedef struct name_list {
    char **names;
    size_t count;
} name_list;

static tpks_result add_name(void *arg, const TPKS_RECORD *record)
{
    name_list *list = arg;
    char **names = realloc(list->names, (list->count + 1) * sizeof(*names));

    if (names == NULL)
        return TPKS_NO_MEMORY;
    list->names = names;
    names[list->count] = strdup(tpks_record_name(record));
    if (names[list->count] == NULL)
        return TPKS_NO_MEMORY;
    list->count++;
    return TPKS_OK;
}

static const char *const only_if_needed =
    "only a program that loads keys as this user (such as PostgreSQL) needs that: give the user "
    "the group trustpoint, and access to the HSM; a server whose master loads as root does not";

/* As a program does it that uses the key, wherever that is. */
static tpks_result load(APP *app, const TPKS_RECORD *record)
{
    AUTO(secret) TPKS_SECRET *secret = NULL;
    TPKS_TOKEN_KEY *key = NULL;
    tpks_result result = tpks_record_home(record) == TPKS_HOME_TOKEN
                             ? tpks_token_key_open(app->ks, record, &key)
                             : tpks_load_key(app->ks, record, &secret);

    tpks_token_key_free(key);
    return result;
}

static void check_loading(APP *app, FINDINGS *findings, const char *name)
{
    tpks_selector selector = {.name = name};
    AUTO(record) TPKS_RECORD *record = NULL;
    tpks_result result = tpks_allowed(app->ks, name);

    if (result == TPKS_OK)
        result = tpks_find(app->ks, &selector, &record);
    if (result == TPKS_OK && tpks_record_home(record) == TPKS_HOME_NONE)
        return;
    if (result == TPKS_OK)
        result = load(app, record);
    if (result == TPKS_OK)
        finding(findings, FINDING_OK, name, NULL, "this user can load the private key");
    else
        finding(findings, FINDING_PROBLEM, name, only_if_needed,
                "this user cannot load the private key: %s", tpks_error_text());
}

/* The end of the walk counts them; doctor_store() names them. */
static void pass_over(void *arg, const char *name, tpks_result result, const char *text)
{
    (void)arg;
    (void)name;
    (void)result;
    (void)text;
}

void doctor_loadable(APP *app, FINDINGS *findings)
{
    name_list list = {NULL, 0};

    app->never_ask = true;
    app_close(app);
    if (tpks_config_load(app->config_path, &app->config) != TPKS_OK)
        finding(findings, FINDING_PROBLEM, config_path(app), only_if_needed, "%s",
                tpks_error_text());
    if (app->config == NULL || !open_store(app, findings, only_if_needed))
        return;
    if (tpks_each_readable(app->ks, NULL, add_name, pass_over, &list) != TPKS_OK)
        finding(findings, FINDING_PROBLEM, "records", only_if_needed, "%s", tpks_error_text());
    for (size_t i = 0; i < list.count; i++) {
        check_loading(app, findings, list.names[i]);
        free(list.names[i]);
    }
    free(list.names);
}
