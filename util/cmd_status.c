/*
 * cmd_status.c - trustpoint-keystore status: how the keystore is, and how its DEK is held
 */
#include <stdio.h>
#include <string.h>

#include "options.h"
#include "output.h"

static struct json_object *status_json(const APP *app, const tpks_status_info *info,
                                       tpks_result unlocked, const char *reason)
{
    struct json_object *object = json_object_new_object();

    json_add_state(object, unlocked, reason);
    json_add_text(object, "label", info->label);
    json_add_hex(object, "keystore_id", info->keystore_id, TPKS_ID_SIZE);
    json_add_text(object, "tables", tpks_schema_name(app->ks));
    json_add_number(object, "format", info->format);
    json_add_number(object, "generation", (int64_t)info->generation);
    json_add_number(object, "records", (int64_t)info->records);
    json_add_number(object, "records_in_token", (int64_t)info->in_token);
    json_add_number(object, "slots_active", info->slots_active);
    json_add_number(object, "ways_back", info->ways_back);
    json_add_bool(object, "software", info->software);
    json_add_text(object, "dek_location", info->dek_location);
    json_add_text(object, "token_label", info->token_label);
    json_add_text(object, "token_serial", info->token_serial);
    json_add_text(object, "wrap", info->wrap);
    json_add_bool(object, "anchor_known", info->anchor_known);
    return object;
}

static void print_number(const char *label, uint64_t value)
{
    char text[32];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    output_fact(label, text);
}

static const char *dek_text(const tpks_status_info *info)
{
    if (strcmp(info->dek_location, "hsm") == 0)
        return "in the HSM, not in the memory of programs that load keys";
    if (strcmp(info->dek_location, "process") == 0)
        return "in the locked memory of the program that loads a key";
    if (strcmp(info->dek_location, "none") == 0)
        return "none: the keys are in the database in the clear";
    return info->dek_location;
}

static void print_token(const tpks_status_info *info)
{
    char text[64];

    if (*info->token_label == '\0')
        return;
    snprintf(text, sizeof(text), *info->token_serial == '\0' ? "%s%s" : "%s (serial %s)",
             info->token_label, info->token_serial);
    output_fact("token", text);
    output_fact("wrap", info->wrap);
}

/* They share neither the keystore's backup nor its ways back. */
static void print_in_token(uint64_t count)
{
    char text[128];

    snprintf(text, sizeof(text), "%llu, which no backup, password or restore brings back",
             (unsigned long long)count);
    output_fact("keys in a token", text);
}

/* What only a keystore of ours has. */
static void print_history(const tpks_status_info *info)
{
    print_number("format", info->format);
    print_number("generation", info->generation);
    output_fact("anchor", info->anchor_known ? "known on this host" : "none on this host");
}

static void print_status(const APP *app, const tpks_status_info *info, tpks_result unlocked)
{
    char id[2 * TPKS_ID_SIZE + 1];

    output_fact("state", state_of(unlocked));
    output_fact("label", info->label);
    output_fact("id", hex_text(info->keystore_id, TPKS_ID_SIZE, id));
    output_fact("tables", tpks_schema_name(app->ks));
    print_number("records", info->records);
    if (info->in_token != 0)
        print_in_token(info->in_token);
    print_number("active slots", info->slots_active);
    print_number("ways back", info->ways_back);
    output_fact("storage", info->software ? "software, no HSM" : "HSM");
    output_fact("DEK", dek_text(info));
    print_token(info);
    if (info->format != 0)
        print_history(info);
}

static int print(APP *app, tpks_result unlocked, const char *reason)
{
    tpks_status_info info;

    DO(complain_result(tpks_status(app->ks, &info)));
    if (app->json)
        return output_json(status_json(app, &info, unlocked, reason));
    print_status(app, &info, unlocked);
    return EX_OK;
}

/* The reason is copied: the library's next call replaces its text. */
static int status(APP *app)
{
    tpks_result unlocked;
    char reason[1024] = "";
    int code;

    app->never_ask = true;
    DO(app_open(app, TPKS_LOAD));
    unlocked = tpks_unlock(app->ks);
    if (unlocked != TPKS_OK)
        snprintf(reason, sizeof(reason), "%s", tpks_error_text());
    code = complain_result(unlocked);
    DO(print(app, unlocked, reason));
    return code;
}

int command_status(APP *app, int argc, char **argv)
{
    const option_spec specs[] = {
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON object"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "status", "", "Says how the keystore is and whether it can be unlocked.", specs, 0, 0};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return status(app);
}
