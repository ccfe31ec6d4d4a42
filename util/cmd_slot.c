/*
 * cmd_slot.c - trustpoint-keystore slot: adding, removing and testing what unlocks the keystore
 */
#include <stdio.h>
#include <string.h>

#include "new_password.h"
#include "options.h"
#include "output.h"
#include "qr.h"
#include "secrets.h"
#include "slot_choice.h"

typedef struct slot_options {
    new_password password;
    const char *token;
    bool destroy_key, yes, qr;
} slot_options;

static void say_slot(const char *what, const unsigned char id[TPKS_ID_SIZE])
{
    char hex[2 * TPKS_ID_SIZE + 1];

    hex_text(id, TPKS_ID_SIZE, hex);
    say("%s slot %.8s", what, hex);
}

/* A backup of a database of Trustpoint's does not have it. */
static void say_beside(const APP *app)
{
    if (strncmp(tpks_schema_name(app->ks), "Trustpoint", strlen("Trustpoint")) == 0)
        say("it lies beside Trustpoint's database, in the file ID.slots.db of the state folder: "
            "back that up together with the database");
    if (tpks_slots_aside(app->ks) != NULL)
        say("the slots that were there before open nothing any more, or were damaged: they are "
            "kept in %s",
            tpks_slots_aside(app->ks));
}

static int add_password(APP *app, const slot_options *o)
{
    AUTO(secret) TPKS_SECRET *password = NULL;
    unsigned char id[TPKS_ID_SIZE];
    tpks_kdf_cost cost;

    DO(new_password_get(&o->password, &password, &cost));
    DO(complain_result(tpks_slot_add_password(app->ks, password, cost, id)));
    say_slot("added password", id);
    say_beside(app);
    return EX_OK;
}

static int add_recovery(APP *app, const slot_options *o)
{
    AUTO(secret) TPKS_SECRET *key = NULL;
    unsigned char id[TPKS_ID_SIZE];

    DO(complain_result(tpks_slot_add_recovery(app->ks, &key, id)));
    int code = recovery_key_print(key, o->qr);
    if (code == EX_OK) {
        say_slot("added recovery", id);
        say_beside(app);
        return EX_OK;
    }
    /* Nobody has that key: it must not count as a way back. */
    DO(complain_result(tpks_slot_take_back(app->ks)));
    say("the recovery slot was taken back");
    return code;
}

static int add_hsm(APP *app, const slot_options *o)
{
    unsigned char id[TPKS_ID_SIZE];

    DO(complain_result(tpks_slot_add_hsm(app->ks, o->token, id)));
    say_slot("added HSM", id);
    app_say_in_token(app, "a slot does not carry them to another one");
    return EX_OK;
}

static int add(APP *app, const char *kind, const slot_options *o)
{
    if (o->qr && strcmp(kind, "recovery") != 0)
        return complain(EX_USAGE, "--qr is for recovery keys");
    if (o->qr)
        DO(qr_check());
    DO(app_open(app, TPKS_WRITE));
    if (strcmp(kind, "password") == 0)
        return add_password(app, o);
    if (strcmp(kind, "recovery") == 0)
        return add_recovery(app, o);
    if (strcmp(kind, "hsm") == 0)
        return add_hsm(app, o);
    return complain(EX_USAGE, "slot add takes password, recovery or hsm, not %s", kind);
}

static int remove_slot(APP *app, const char *prefix, const slot_options *o)
{
    unsigned char id[TPKS_ID_SIZE];
    char question[128];

    DO(app_open(app, TPKS_WRITE));
    DO(slot_by_prefix(app, prefix, id));
    snprintf(question, sizeof(question), "Remove slot %.32s%s? Type yes: ", prefix,
             o->destroy_key ? " and destroy its KEK" : "");
    if (!o->yes)
        DO(secrets_confirm(question));
    DO(complain_result(tpks_slot_remove(app->ks, id, o->destroy_key)));
    say_slot("removed", id);
    say("older copies of the database can still be opened with it");
    return EX_OK;
}

/* Proves a password or recovery key without changing anything. */
static int test(APP *app)
{
    AUTO(secret) TPKS_SECRET *secret = NULL;
    unsigned char id[TPKS_ID_SIZE];

    app->never_ask = true;
    DO(app_open(app, TPKS_LOAD));
    if (!tpks_unlocked_slot(app->ks, id)) {
        DO(secrets_prompt("Backup password or recovery key to test: ", &secret));
        DO(complain_result(tpks_unlock_with(app->ks, secret)));
    }
    if (tpks_unlocked_slot(app->ks, id))
        say_slot("it is right: it opens", id);
    return EX_OK;
}

static int run(APP *app, char **arguments, int count, const slot_options *o)
{
    const char *verb = arguments[0];

    if (strcmp(verb, "add") == 0 && count == 2)
        return add(app, arguments[1], o);
    if (strcmp(verb, "remove") == 0 && count == 2)
        return remove_slot(app, arguments[1], o);
    if (strcmp(verb, "test") == 0 && count == 1)
        return test(app);
    return complain(EX_USAGE, "slot takes: add password|recovery|hsm, remove ID, test");
}

int command_slot(APP *app, int argc, char **argv)
{
    slot_options o = {.password.fd = NO_FD};
    const option_spec specs[] = {
        NEW_PASSWORD_OPTIONS(o.password),
        {"token", OPTION_TEXT, &o.token, "pkcs11:...", "another token, for add hsm"},
        {"destroy-key", OPTION_FLAG, &o.destroy_key, NULL, "remove: destroy the KEK on the token"},
        QR_OPTION(o.qr),
        {"yes", OPTION_FLAG, &o.yes, NULL, "do not ask"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "slot",
        "add password|recovery|hsm | remove ID | test",
        "Changes or tests what unlocks the keystore; the last way back without the HSM stays.",
        specs,
        1,
        2};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return run(app, arguments, count, &o);
}
