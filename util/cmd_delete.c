/*
 * cmd_delete.c - trustpoint-keystore delete: deletes a record
 */
#include <stdio.h>
#include <string.h>

#include "options.h"
#include "output.h"
#include "secrets.h"

typedef struct delete_options {
    bool yes, destroy_key;
} delete_options;

static int confirm(const char *name, const delete_options *o, bool in_token)
{
    char question[1400];

    if (o->yes)
        return EX_OK;
    if (in_token && !o->destroy_key)
        snprintf(question, sizeof(question),
                 "Delete the record \"%s\" and its certificates? Its private key stays in the "
                 "token. Type yes: ",
                 name);
    else
        snprintf(question, sizeof(question),
                 "Delete the private key \"%s\" and its certificates for good? Type yes: ", name);
    return secrets_confirm(question);
}

/* ---- what a crash has left of a key in a token; tpks_find() does not find it ---- */

typedef struct leftover_search {
    const char *name;
    bool found;
} leftover_search;

/* tpks_leftover_fn: ends the search with the one that is meant. */
static tpks_result is_meant(void *arg, const tpks_leftover *leftover)
{
    leftover_search *s = arg;

    if (!leftover->unfinished || strcmp(leftover->name, s->name) != 0)
        return TPKS_OK;
    s->found = true;
    return TPKS_EXISTS;
}

/* Unfinished records are told of before the token is looked for, which need not be there. */
static bool is_unfinished(APP *app, const char *name)
{
    leftover_search s = {name, false};
    tpks_result result = tpks_each_leftover(app->ks, is_meant, &s);

    return result == TPKS_EXISTS && s.found;
}

static int discard_unfinished(APP *app, const char *name, const delete_options *o)
{
    DO(confirm(name, o, true));
    return complain_result(tpks_discard_unfinished(app->ks, name));
}

/* ---- records ---- */

static int delete_in_token(APP *app, const TPKS_RECORD *record, const delete_options *o)
{
    if (o->destroy_key)
        return complain_result(tpks_remove_with_key(app->ks, record));
    DO(complain_result(tpks_remove(app->ks, record)));
    say("the private key is still in the token%s%s, where \"" PROGRAM " doctor\" names it",
        *tpks_record_token_serial(record) == '\0' ? "" : " with serial ",
        tpks_record_token_serial(record));
    return EX_OK;
}

static int delete_record(APP *app, const char *name, const delete_options *o)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    const tpks_selector selector = {.name = name};
    bool in_token;

    DO(app_open(app, TPKS_WRITE));
    if (o->destroy_key && tpks_find(app->ks, &selector, &record) == TPKS_NOT_FOUND &&
        is_unfinished(app, name))
        return discard_unfinished(app, name, o);
    if (record == NULL)
        DO(app_find(app, name, &record));
    in_token = tpks_record_home(record) == TPKS_HOME_TOKEN;
    if (o->destroy_key && !in_token)
        return complain(EX_USAGE, "--destroy-key is for keys in a token; %s is in the database",
                        name);
    DO(confirm(name, o, in_token));
    return in_token ? delete_in_token(app, record, o)
                    : complain_result(tpks_remove(app->ks, record));
}

int command_delete(APP *app, int argc, char **argv)
{
    delete_options o = {false, false};
    const option_spec specs[] = {
        {"destroy-key", OPTION_FLAG, &o.destroy_key, NULL,
         "destroy a key that lives in a token there, too"},
        {"yes", OPTION_FLAG, &o.yes, NULL, "do not ask"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "delete", "NAME", "Deletes a record; older copies of the database still have it.",
        specs,    1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return delete_record(app, arguments[0], &o);
}
