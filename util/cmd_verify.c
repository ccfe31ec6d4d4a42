/*
 * cmd_verify.c - trustpoint-keystore verify: proves the database and every record
 */
#include <stdio.h>

#include "options.h"
#include "output.h"
#include "progress.h"

typedef struct verify_state {
    progress progress;
    struct json_object *bad; /* NULL unless --json */
    size_t count;
} verify_state;

static int on_progress(void *arg, uint64_t done, uint64_t total)
{
    verify_state *state = arg;

    progress_show(&state->progress, done, total);
    return 1;
}

static void on_bad(void *arg, const char *name, tpks_result result, const char *text)
{
    verify_state *state = arg;

    state->count++;
    progress_clear(&state->progress);
    if (state->bad != NULL)
        json_object_array_add(state->bad, output_bad_json(name, result, text));
    else
        say("%s: %s (%s)", name != NULL ? name : "keystore", text, tpks_result_name(result));
}

static int print_json(verify_state *state, tpks_result result, const char *reason, uint64_t proven)
{
    struct json_object *object = json_object_new_object();

    json_add_state(object, result, reason);
    json_add_number(object, "proven", (int64_t)proven);
    json_object_object_add(object, "bad", state->bad);
    return output_json(object);
}

static int verify(APP *app)
{
    verify_state state = {.count = 0};
    uint64_t proven = 0;
    tpks_result result;
    char reason[1024] = "";

    DO(app_open(app, TPKS_LOAD));
    if (app->json)
        state.bad = json_object_new_array();
    progress_start(&state.progress);
    result = tpks_verify(app->ks, on_progress, on_bad, &state, &proven);
    progress_clear(&state.progress);
    snprintf(reason, sizeof(reason), "%s", tpks_error_text());
    if (result != TPKS_OK && state.count == 0)
        say("%s", reason);
    if (app->json)
        DO(print_json(&state, result, reason, proven));
    else
        printf("%llu records proven, %zu bad\n", (unsigned long long)proven, state.count);
    return state.count > 0 ? 1 : exit_code_of(result);
}

int command_verify(APP *app, int argc, char **argv)
{
    const option_spec specs[] = {
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON object"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "verify", "", "Proves the database, its header and every record by opening each key.",
        specs,    0,  0};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return verify(app);
}
