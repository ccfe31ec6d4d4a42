/*
 * cmd_rename.c - trustpoint-keystore rename: gives a record another name
 */
#include "options.h"

static int rename_record(APP *app, const char *old, const char *new)
{
    AUTO(record) TPKS_RECORD *record = NULL;

    DO(complain_result(tpks_name_check(new)));
    DO(app_open(app, TPKS_WRITE));
    DO(app_find(app, old, &record));
    DO(complain_result(tpks_rename(app->ks, record, new)));
    say("URIs and stubs that name \"%s\" no longer work; write new ones", old);
    return EX_OK;
}

int command_rename(APP *app, int argc, char **argv)
{
    const command_usage usage = {"rename", "OLD NEW", "Gives a record another name.", NULL, 2, 2};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return rename_record(app, arguments[0], arguments[1]);
}
