/*
 * cmd_password.c - trustpoint-keystore password change
 */
#include <string.h>

#include "new_password.h"
#include "options.h"
#include "slot_choice.h"

static int change(APP *app, const char *prefix, const new_password *options)
{
    AUTO(secret) TPKS_SECRET *password = NULL;
    unsigned char old[TPKS_ID_SIZE];
    tpks_kdf_cost cost;

    DO(app_open(app, TPKS_WRITE));
    DO(prefix != NULL ? slot_by_prefix(app, prefix, old) : slot_of_kind(app, "password", old));
    DO(new_password_get(options, &password, &cost));
    DO(complain_result(tpks_password_change(app->ks, old, password, cost, NULL)));
    say("the password was changed; who knows the old one and has an older copy of the database can "
        "still open that copy");
    return EX_OK;
}

int command_password(APP *app, int argc, char **argv)
{
    new_password password = {.fd = NO_FD};
    const char *slot = NULL;
    const option_spec specs[] = {
        NEW_PASSWORD_OPTIONS(password),
        {"slot", OPTION_TEXT, &slot, "ID", "whose password, when there are several"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "password",
        "change",
        "Puts a new backup password in the place of the old one, in one step.",
        specs,
        1,
        1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    if (strcmp(arguments[0], "change") != 0)
        return complain(EX_USAGE, "password takes: change");
    return change(app, slot, &password);
}
