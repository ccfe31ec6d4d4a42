/*
 * cmd_import_trustpoint.c - trustpoint-keystore import-trustpoint: the keys of another keystore,
 * Trustpoint's database above all, into this one
 *
 * What was copied stays copied: a run that is stopped, or killed, is gone on with by the next.
 */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "output.h"
#include "policy.h"
#include "progress.h"
#include "record_copy.h"
#include "secrets.h"

#define BATCH 32 /* records in one transaction */

typedef struct copy_options {
    const char *from, *prefix, *as, *password_file;
    unsigned long password_fd;
    bool replace, dry_run;
    policy_options policy;
    char **only;
    int only_count;
} copy_options;

/* The records that are meant, in the order of their names. */
typedef struct copy_list {
    const copy_options *options;
    TPKS *from;
    unsigned char (*ids)[TPKS_ID_SIZE]; /* of the words that are URIs; zeros else */
    bool *used;                         /* which words have meant a record */
    copy_item *items;
    size_t count;
    size_t bad; /* how many could not even be read */
    tpks_result first_bad;
} copy_list;

static inline void cleanup_list(copy_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        copy_item_clear(&list->items[i]);
    free(list->items);
    free(list->ids);
    free(list->used);
    tpks_close(list->from);
}

/* ---- which records
 * ------------------------------------------------------------------------------ */

CLEANUP(TPKS_URI *, tpks_uri_free, cleanup_uri)

static int find_uri(copy_list *list, const char *text, unsigned char id[TPKS_ID_SIZE])
{
    AUTO(uri) TPKS_URI *uri = NULL;
    AUTO(record) TPKS_RECORD *record = NULL;

    DO(complain_result(tpks_uri_parse(text, &uri)));
    if (*tpks_uri_keystore(uri) != '\0' && strcmp(tpks_uri_keystore(uri), list->options->from) != 0)
        return complain(EX_USAGE, "%s is not in the keystore of --from", text);
    DO(complain_result(tpks_find(list->from, tpks_uri_selector(uri), &record)));
    memcpy(id, tpks_record_id(record), TPKS_ID_SIZE);
    return EX_OK;
}

static int find_uris(copy_list *list)
{
    size_t count = (size_t)list->options->only_count;

    list->ids = calloc(count + 1, sizeof(*list->ids));
    list->used = calloc(count + 1, sizeof(*list->used));
    if (list->ids == NULL || list->used == NULL)
        return complain_memory();
    for (size_t i = 0; i < count; i++)
        if (tpks_uri_is_ours(list->options->only[i]))
            DO(find_uri(list, list->options->only[i], list->ids[i]));
    return EX_OK;
}

static bool is_meant(copy_list *list, const TPKS_RECORD *record)
{
    const char *name = tpks_record_name(record);
    bool meant = list->options->only_count == 0;

    for (int i = 0; i < list->options->only_count; i++) {
        const char *word = list->options->only[i];
        bool matches = tpks_uri_is_ours(word)
                           ? memcmp(list->ids[i], tpks_record_id(record), TPKS_ID_SIZE) == 0
                           : strcmp(word, name) == 0 || fnmatch(word, name, 0) == 0;

        list->used[i] = list->used[i] || matches;
        meant = meant || matches;
    }
    return meant;
}

static bool name_item(copy_item *item, const copy_options *o, const char *name)
{
    const char *before = o->prefix != NULL ? o->prefix : "";

    item->name = strdup(name);
    if (o->as != NULL)
        item->target = strdup(o->as);
    else if (asprintf(&item->target, "%s%s", before, name) < 0)
        item->target = NULL;
    return item->name != NULL && item->target != NULL;
}

static copy_item *add_item(copy_list *list, const char *name)
{
    copy_item *items = realloc(list->items, (list->count + 1) * sizeof(*items));

    if (items == NULL)
        return NULL;
    list->items = items;
    items[list->count] = (copy_item){.action = COPY_FAILED};
    return name_item(&items[list->count++], list->options, name) ? &items[list->count - 1] : NULL;
}

static tpks_result collect(void *arg, const TPKS_RECORD *record)
{
    copy_list *list = arg;
    copy_item *item;

    if (!is_meant(list, record))
        return TPKS_OK;
    item = add_item(list, tpks_record_name(record));
    if (item == NULL)
        return TPKS_NO_MEMORY;
    memcpy(item->id, tpks_record_id(record), TPKS_ID_SIZE);
    return TPKS_OK;
}

/* A row that cannot be read is no reason to leave the others behind. */
static void collect_bad(void *arg, const char *name, tpks_result result, const char *text)
{
    copy_list *list = arg;
    copy_item *item;

    if (list->bad++ == 0)
        list->first_bad = result;
    if (list->options->only_count > 0)
        return;
    item = add_item(list, name != NULL ? name : "?");
    if (item == NULL)
        return;
    item->result = result;
    item->why = strdup(text);
}

static int make_list(copy_list *list)
{
    const copy_options *o = list->options;
    tpks_result result;

    DO(find_uris(list));
    result = tpks_each_readable(list->from, NULL, collect, collect_bad, list);
    if (result == TPKS_NO_MEMORY)
        return complain_memory();
    /* Else the walk ended early, and what comes after is not even on the list. */
    if (list->bad == 0 || result != list->first_bad)
        DO(complain_result(result));
    for (int i = 0; i < o->only_count; i++)
        if (!list->used[i])
            return complain(EX_NOINPUT, "no record of the other keystore is meant by \"%s\"",
                            o->only[i]);
    if (o->as != NULL && list->count != 1)
        return complain(EX_USAGE, "--as names one record, but %zu are to be copied", list->count);
    return EX_OK;
}

/* ---- copying
 * ------------------------------------------------------------------------------------ */

/* One transaction. What it says about its items holds only when it succeeds. */
static tpks_result copy_some(const copy_params *params, copy_item *items, size_t count)
{
    tpks_result result = params->plan ? TPKS_OK : tpks_begin(params->to);

    for (size_t i = 0; result == TPKS_OK && i < count; i++)
        result = record_copy(params, &items[i]);
    if (params->plan)
        return result;
    if (result == TPKS_OK)
        return tpks_commit(params->to);
    return result;
}

/* Items whose transaction was not kept, or was never begun. */
static void stop_items(copy_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (items[i].action == COPY_FAILED && items[i].why != NULL)
            continue;
        items[i].action = COPY_FAILED;
        items[i].result = TPKS_CONFLICT;
        items[i].why = strdup("not copied: something else has failed before");
    }
}

static int copy_all(const copy_params *params, copy_list *list)
{
    progress shown;
    tpks_result result = TPKS_OK;
    int code = EX_OK;

    progress_start(&shown);
    for (size_t at = 0; at < list->count && result == TPKS_OK; at += BATCH) {
        size_t count = list->count - at < BATCH ? list->count - at : BATCH;

        progress_show(&shown, at, list->count);
        result = copy_some(params, &list->items[at], count);
        if (result == TPKS_OK)
            continue;
        progress_clear(&shown);
        code = complain_result(result);
        tpks_rollback(params->to);
        stop_items(&list->items[at], list->count - at);
    }
    progress_clear(&shown);
    return code;
}

/* ---- the report
 * --------------------------------------------------------------------------------- */

/* What is not copied although there is, or may be, a key. */
static bool is_left(copy_action action)
{
    return action == COPY_FAILED || action == COPY_CONFLICT || action == COPY_IN_TOKEN;
}

static const char *explanation(const copy_item *item)
{
    if (item->why != NULL)
        return item->why;
    if (item->action == COPY_CONFLICT)
        return "there is another key under this name; --replace puts this one in its place";
    if (item->action == COPY_IN_TOKEN)
        return "its key stays in the token, which it never leaves, and which this keystore does "
               "not "
               "use";
    return NULL;
}

static void print_item(const copy_item *item)
{
    if (item->action == COPY_UNCHANGED)
        return;
    output_column(stdout, copy_action_name(item->action), 14);
    output_escaped(stdout, item->name);
    if (strcmp(item->name, item->target) != 0) {
        fputs(" as ", stdout);
        output_escaped(stdout, item->target);
    }
    putchar('\n');
    if (explanation(item) != NULL)
        say("%s: %s", item->name, explanation(item));
}

static void count_items(const copy_list *list, size_t counts[COPY_ACTIONS])
{
    for (size_t i = 0; i < list->count; i++)
        counts[list->items[i].action]++;
}

static void print_counts(const size_t counts[COPY_ACTIONS], bool dry_run)
{
    say("%s%zu copied, %zu adopted in the token, %zu replaced, %zu with other certificates, "
        "%zu unchanged; not copied: %zu in a token, %zu conflicts, %zu failed, %zu without a key",
        dry_run ? "this would be: " : "", counts[COPY_NEW], counts[COPY_ADOPTED],
        counts[COPY_REPLACED], counts[COPY_CERTS], counts[COPY_UNCHANGED], counts[COPY_IN_TOKEN],
        counts[COPY_CONFLICT], counts[COPY_FAILED], counts[COPY_NO_KEY]);
}

static struct json_object *item_json(const copy_item *item)
{
    struct json_object *object = json_object_new_object();

    json_add_text(object, "name", item->name);
    json_add_text(object, "target", item->target);
    json_add_text(object, "action", copy_action_name(item->action));
    if (item->action == COPY_FAILED)
        json_add_state(object, item->result, item->why);
    else
        json_add_text(object, "reason", explanation(item));
    return object;
}

static int print_json(const copy_list *list, const size_t counts[COPY_ACTIONS], int code)
{
    struct json_object *object = json_object_new_object();
    struct json_object *numbers = json_object_new_object();
    struct json_object *records = json_object_new_array();

    for (size_t i = 0; i < COPY_ACTIONS; i++)
        json_add_number(numbers, copy_action_name((copy_action)i), (int64_t)counts[i]);
    for (size_t i = 0; i < list->count; i++)
        json_object_array_add(records, item_json(&list->items[i]));
    json_add_state(object, code != EX_OK ? complaint_result() : TPKS_OK, complaint_text());
    json_add_text(object, "from", list->options->from);
    json_add_text(object, "schema", tpks_schema_name(list->from));
    json_add_bool(object, "dry_run", list->options->dry_run);
    json_object_object_add(object, "counts", numbers);
    json_object_object_add(object, "records", records);
    return output_json(object);
}

/* `code` is how the copying has ended; the result is how the command does. */
static int report(const APP *app, const copy_list *list, int code)
{
    size_t counts[COPY_ACTIONS] = {0};
    bool left = false;

    count_items(list, counts);
    for (size_t i = 0; i < COPY_ACTIONS; i++)
        left = left || (is_left((copy_action)i) && counts[i] > 0);
    if (app->json)
        DO(print_json(list, counts, code));
    for (size_t i = 0; !app->json && i < list->count; i++)
        print_item(&list->items[i]);
    print_counts(counts, list->options->dry_run);
    return code == EX_OK && left ? 1 : code;
}

/* ---- all of it
 * ---------------------------------------------------------------------------------- */

static int open_source(APP *app, const copy_options *o, TPKS **out)
{
    tpks_options options = app_options(app, TPKS_LOAD);
    AUTO(secret) TPKS_SECRET *password = NULL;

    options.keystore = o->from;
    options.no_restore = true;
    DO(complain_result(tpks_open(&options, out)));
    if (o->password_file == NULL && o->password_fd == NO_FD)
        return EX_OK;
    DO(secrets_read(o->password_file, o->password_fd, &password));
    return complain_result(tpks_unlock_with(*out, password));
}

static int copy_records(APP *app, copy_list *list)
{
    const copy_options *o = list->options;
    copy_params params = {
        .libctx = app->libctx,
        .replace = o->replace,
        .plan = o->dry_run,
        .more = policy_of(&o->policy, 0),
    };

    DO(app_open(app, o->dry_run ? TPKS_LOAD : TPKS_WRITE));
    if (strncmp(tpks_schema_name(app->ks), "native", strlen("native")) != 0)
        return complain(EX_USAGE,
                        "a database of Trustpoint is only read; choose a keystore of " PROGRAM
                        " with --keystore");
    DO(open_source(app, o, &list->from));
    DO(make_list(list));
    params.has_token = tpks_config_get(app->config, app->keystore, "token") != NULL;
    params.from = list->from;
    params.to = app->ks;
    return report(app, list, copy_all(&params, list));
}

static int check(const APP *app, const copy_options *o)
{
    const char *target = app->keystore != NULL ? app->keystore : "";

    if (o->from == NULL)
        return complain(EX_USAGE, "--from NAME is missing: the keystore, section [keystore_NAME], "
                                  "to copy from (--from \"\" for [keystore])");
    if (strcmp(o->from, target) == 0)
        return complain(EX_USAGE, "--from and --keystore name the same keystore");
    if (o->as != NULL && o->prefix != NULL)
        return complain(EX_USAGE, "--as and --prefix contradict each other");
    return EX_OK;
}

int command_import_trustpoint(APP *app, int argc, char **argv)
{
    copy_options o = {.password_fd = NO_FD};
    const option_spec specs[] = {
        {"from", OPTION_TEXT, &o.from, "NAME",
         "the keystore to copy from, section [keystore_NAME]"},
        {"from-password-file", OPTION_TEXT, &o.password_file, "FILE",
         "unlock that one with the backup password in FILE"},
        {"from-password-fd", OPTION_NUMBER, &o.password_fd, "N", "the same from descriptor N"},
        {"prefix", OPTION_TEXT, &o.prefix, "TEXT", "put TEXT before every name"},
        {"as", OPTION_TEXT, &o.as, "NAME", "another name, for a single record"},
        {"replace", OPTION_FLAG, &o.replace, NULL, "other keys of the same names too"},
        POLICY_ALLOW_OPTIONS(o.policy),
        {"dry-run", OPTION_FLAG, &o.dry_run, NULL, "only say what would be done"},
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON object"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"import-trustpoint",
                                 "--from NAME [NAME|PATTERN|URI...]",
                                 "Copies the keys of Trustpoint's database into this keystore.",
                                 specs,
                                 0,
                                 MANY};

    DO(options_parse(app, &usage, argc, argv, &o.only, &o.only_count));
    DO(check(app, &o));

    __attribute__((cleanup(cleanup_list))) copy_list list = {.options = &o};

    return copy_records(app, &list);
}
