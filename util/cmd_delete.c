/*
 * cmd_delete.c - trustpoint-keystore delete: deletes a record
 */
#include <stdio.h>

#include "options.h"
#include "secrets.h"

static int confirm(const char *name)
{
    char question[1400];

    snprintf(question, sizeof(question),
             "Delete the private key \"%s\" and its certificates for good? Type yes: ", name);
    return secrets_confirm(question);
}

static int delete_record(APP *app, const char *name, bool yes)
{
    AUTO(record) TPKS_RECORD *record = NULL;

    DO(app_open(app, TPKS_WRITE));
    DO(app_find(app, name, &record));
    if (!yes)
        DO(confirm(name));
    return complain_result(tpks_remove(app->ks, record));
}

int command_delete(APP *app, int argc, char **argv)
{
    bool yes = false;
    const option_spec specs[] = {
        {"yes", OPTION_FLAG, &yes, NULL, "do not ask"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "delete", "NAME", "Deletes a record; older copies of the database still have it.",
        specs,    1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return delete_record(app, arguments[0], yes);
}
