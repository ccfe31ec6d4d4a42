/*
 * cmd_show.c - trustpoint-keystore show: one record
 */
#include "options.h"
#include "output.h"
#include "record_view.h"

static int show(APP *app, const char *name)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    struct json_object *object;

    DO(app_open(app, TPKS_LOAD));
    DO(app_find(app, name, &record));
    if (!app->json) {
        view_facts(app, record);
        return EX_OK;
    }
    object = view_json(app, record);
    return object != NULL ? output_json(object) : complain_memory();
}

int command_show(APP *app, int argc, char **argv)
{
    const option_spec specs[] = {
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON object"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"show", "NAME", "Shows one record, without unlocking.",
                                 specs,  1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return show(app, arguments[0]);
}
