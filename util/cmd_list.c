/*
 * cmd_list.c - trustpoint-keystore list: the records, as they are read
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "key_input.h"
#include "options.h"
#include "output.h"
#include "record_view.h"

typedef struct list_options {
    APP *app;
    bool names;
    const char *within;
    time_t before; /* only what ends before this; 0: all */
    json_stream stream;
    size_t shown;
} list_options;

/* "30d", "4w", "12h", or a number of days. */
static int parse_duration(const char *text, time_t *seconds)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    long unit = *end == 'h' ? 3600 : *end == 'w' ? 7 * 86400 : 86400;

    if (*text < '0' || *text > '9' || number > 36500 ||
        (*end != '\0' && (strchr("hdw", *end) == NULL || end[1] != '\0')))
        return complain(EX_USAGE,
                        "--expires-within needs a time such as 30d, 4w or 12h, not \"%s\"", text);
    *seconds = (time_t)number * unit;
    return EX_OK;
}

static bool expires(APP *app, const TPKS_RECORD *record, time_t before)
{
    AUTO(x509) X509 *leaf = view_cert(app, record, 0);

    return leaf != NULL && view_not_after(leaf) < before;
}

static int show_json(list_options *o, const TPKS_RECORD *record)
{
    struct json_object *object = view_json(o->app, record);

    return object != NULL ? output_json_element(&o->stream, object) : complain_memory();
}

static void show_text(list_options *o, const TPKS_RECORD *record)
{
    if (o->names) {
        output_escaped(stdout, tpks_record_name(record));
        putchar('\n');
        return;
    }
    if (o->shown == 0)
        view_header(o->app);
    view_row(o->app, record);
}

static tpks_result show(void *arg, const TPKS_RECORD *record)
{
    list_options *o = arg;

    if (o->before != 0 && !expires(o->app, record, o->before))
        return TPKS_OK;
    if (!o->app->json)
        show_text(o, record);
    else if (show_json(o, record) != EX_OK)
        return TPKS_NO_MEMORY;
    o->shown++;
    return TPKS_OK;
}

/* In its place among the others. */
static void show_bad(void *arg, const char *name, tpks_result result, const char *text)
{
    list_options *o = arg;

    say("%s: %s (%s)", name, text, tpks_result_name(result));
    if (o->app->json)
        (void)output_json_element(&o->stream, output_bad_json(name, result, text));
}

static int list(APP *app, list_options *o)
{
    tpks_result result;

    DO(app_open(app, TPKS_LOAD));
    result = tpks_each_readable(app->ks, NULL, show, show_bad, o);
    if (o->app->json && (result == TPKS_OK || o->stream.started))
        DO(output_json_end(&o->stream));
    DO(complain_result(result));
    return o->before != 0 && o->shown > 0 ? 1 : EX_OK;
}

int command_list(APP *app, int argc, char **argv)
{
    list_options o = {.app = app};
    const option_spec specs[] = {
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON array"},
        {"names", OPTION_FLAG, &o.names, NULL, "only the names, one in each line"},
        {"expires-within", OPTION_TEXT, &o.within, "TIME",
         "only certificates that end within 30d, 4w, 12h; exit code 1 if there are any"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "list", "", "Lists the records, without unlocking: what it says is unauthenticated.",
        specs,  0,  0};
    char **arguments;
    time_t seconds = 0;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    if (o.within != NULL) {
        DO(parse_duration(o.within, &seconds));
        o.before = time(NULL) + seconds;
    }
    return list(app, &o);
}
