/*
 * cmd_policy.c - trustpoint-keystore policy: what a key may be used for
 */
#include <stdio.h>

#include "options.h"
#include "policy.h"
#include "record_view.h"

static int check(const policy_options *o)
{
    if ((o->allow_decrypt && o->no_decrypt) || (o->allow_agree && o->no_agree))
        return complain(EX_USAGE, "--allow and --no for the same use contradict each other");
    return EX_OK;
}

static int show(const TPKS_RECORD *record)
{
    char text[POLICY_TEXT_SIZE];

    view_policy(tpks_record_policy(record), text);
    printf("%s\n", text);
    return EX_OK;
}

static int policy(APP *app, const char *name, const policy_options *o)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    bool change = o->allow_decrypt || o->no_decrypt || o->allow_agree || o->no_agree;

    DO(check(o));
    DO(app_open(app, change ? TPKS_WRITE : TPKS_LOAD));
    DO(app_find(app, name, &record));
    if (!change)
        return show(record);
    return complain_result(
        tpks_set_policy(app->ks, record, policy_of(o, tpks_record_policy(record))));
}

int command_policy(APP *app, int argc, char **argv)
{
    policy_options o = {false, false, false, false};
    const option_spec specs[] = {
        POLICY_ALLOW_OPTIONS(o),
        POLICY_FORBID_OPTIONS(o),
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"policy", "NAME", "Shows or changes what a key may be used for.",
                                 specs,    1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return policy(app, arguments[0], &o);
}
