/*
 * cmd_header.c - trustpoint-keystore header: a copy of header and slots, and putting it back
 */
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "secrets.h"

static int backup(APP *app, const char *path)
{
    DO(app_open(app, TPKS_LOAD));
    return complain_result(tpks_header_backup(app->ks, path));
}

static int restore(APP *app, const char *path)
{
    AUTO(secret) TPKS_SECRET *password = NULL;

    if (access(path, R_OK) != 0)
        return complain_file("cannot read", path);
    DO(app_configure(app));
    if (secrets_given(app))
        DO(secrets_read_given(app, &password));
    tpks_options options = app_options(app, TPKS_WRITE);
    DO(complain_result(tpks_header_restore(&options, path, password)));
    say("header and slots were put back; run " PROGRAM " verify");
    return EX_OK;
}

int command_header(APP *app, int argc, char **argv)
{
    const command_usage usage = {
        "header",
        "backup|restore FILE",
        "Copies header and slots, without any key, to a file, or puts such a copy back.",
        NULL,
        2,
        2};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    if (strcmp(arguments[0], "backup") == 0)
        return backup(app, arguments[1]);
    if (strcmp(arguments[0], "restore") == 0)
        return restore(app, arguments[1]);
    return complain(EX_USAGE, "header takes: backup FILE, restore FILE");
}
