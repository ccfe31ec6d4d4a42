/*
 * cmd_slots.c - trustpoint-keystore slots: what can unlock the keystore
 */
#include <stdio.h>
#include <string.h>

#include "options.h"
#include "output.h"

typedef struct slots_state {
    bool json;
    json_stream stream;
    size_t count;
} slots_state;

static struct json_object *cost_json(const tpks_slot_info *slot)
{
    const tpks_kdf_cost *cost = &slot->cost;
    struct json_object *object;

    if (cost->t == 0)
        return NULL;
    object = json_object_new_object();
    json_add_number(object, "passes", cost->t);
    json_add_number(object, "memory_kib", cost->m_kib);
    json_add_number(object, "lanes", cost->p);
    json_add_bool(object, "chosen", slot->cost_chosen);
    return object;
}

static int show_json(slots_state *state, const tpks_slot_info *slot)
{
    struct json_object *object = json_object_new_object();

    json_add_hex(object, "id", slot->id, TPKS_ID_SIZE);
    json_add_text(object, "kind", slot->kind);
    json_add_text(object, "state", slot->state);
    json_add_text(object, "label", slot->label);
    json_add_text(object, "host", slot->host);
    json_add_text(object, "token_label", slot->token_label);
    json_add_text(object, "token_serial", slot->token_serial);
    json_add_text(object, "wrap", slot->wrap);
    json_add_hex(object, "cka_id", slot->cka_id, 16);
    json_object_object_add(object, "argon2id", cost_json(slot));
    json_add_time(object, "created", (time_t)slot->created);
    return output_json_element(&state->stream, object);
}

static void print_where(const tpks_slot_info *slot)
{
    if (slot->token_label != NULL && *slot->token_label != '\0') {
        output_escaped(stdout, slot->token_label);
        if (*slot->token_serial != '\0') {
            printf(" (serial ");
            output_escaped(stdout, slot->token_serial);
            putchar(')');
        }
        printf(", %s", slot->wrap);
    } else if (slot->cost.t != 0) {
        printf("Argon2id t=%u m=%u MiB p=%u", slot->cost.t, slot->cost.m_kib / 1024, slot->cost.p);
    } else {
        putchar('-');
    }
}

static void show_text(const slots_state *state, const tpks_slot_info *slot)
{
    char id[2 * TPKS_ID_SIZE + 1], time[TIME_SIZE];

    if (state->count == 0)
        printf("%-9s %-13s %-8s %-20s %-21s %s\n", "ID", "KIND", "STATE", "HOST", "CREATED",
               "TOKEN OR COST");
    hex_text(slot->id, TPKS_ID_SIZE, id);
    printf("%.8s  ", id);
    output_column(stdout, slot->kind, 14);
    output_column(stdout, slot->state, 9);
    output_column(stdout, slot->host != NULL && *slot->host != '\0' ? slot->host : "-", 21);
    output_column(stdout, slot->created != 0 ? time_text((time_t)slot->created, time) : "-", 22);
    print_where(slot);
    putchar('\n');
}

static tpks_result show(void *arg, const tpks_slot_info *slot)
{
    slots_state *state = arg;

    if (!state->json)
        show_text(state, slot);
    else if (show_json(state, slot) != EX_OK)
        return TPKS_NO_MEMORY;
    state->count++;
    return TPKS_OK;
}

static int slots(APP *app)
{
    slots_state state = {.json = app->json};
    tpks_result result;

    DO(app_open(app, TPKS_LOAD));
    result = tpks_each_slot(app->ks, show, &state);
    if (app->json && (result == TPKS_OK || state.stream.started))
        DO(output_json_end(&state.stream));
    return complain_result(result);
}

int command_slots(APP *app, int argc, char **argv)
{
    const option_spec specs[] = {
        {"json", OPTION_FLAG, &app->json, NULL, "a JSON array"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {"slots", "", "Lists what can unlock the keystore.", specs, 0, 0};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    return slots(app);
}
