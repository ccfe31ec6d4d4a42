/*
 * cmd_backup.c - trustpoint-keystore backup: a consistent copy of the database
 */
#include "options.h"

static int backup(APP *app, const char *path)
{
    DO(app_open(app, TPKS_LOAD));
    DO(complain_result(tpks_backup(app->ks, path)));
    say("wrote %s; keep it on another machine, and the backup password apart from it", path);
    return EX_OK;
}

int command_backup(APP *app, int argc, char **argv)
{
    const command_usage usage = {
        "backup",
        "FILE|postgresql:CONNINFO",
        "Copies the keystore to a new file, or into another database, while programs go on using "
        "it.",
        NULL,
        1,
        1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return backup(app, arguments[0]);
}
