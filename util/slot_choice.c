/*
 * slot_choice.c - finding a slot among those of the keystore
 */
#include "slot_choice.h"

#include <string.h>

#include "output.h"

#define PREFIX_MIN 4

typedef struct search {
    const char *prefix; /* NULL: by kind */
    const char *kind;
    unsigned char *id;
    int found;
} search;

static tpks_result look(void *arg, const tpks_slot_info *slot)
{
    search *s = arg;
    char id[2 * TPKS_ID_SIZE + 1];

    hex_text(slot->id, TPKS_ID_SIZE, id);
    if (s->prefix != NULL ? strncmp(id, s->prefix, strlen(s->prefix)) != 0
                          : strcmp(slot->kind, s->kind) != 0 || strcmp(slot->state, "active") != 0)
        return TPKS_OK;
    memcpy(s->id, slot->id, TPKS_ID_SIZE);
    s->found++;
    return TPKS_OK;
}

int slot_by_prefix(APP *app, const char *prefix, unsigned char id[TPKS_ID_SIZE])
{
    search s = {.prefix = prefix, .id = id};

    if (strlen(prefix) < PREFIX_MIN || strspn(prefix, "0123456789abcdef") != strlen(prefix))
        return complain(EX_USAGE,
                        "a slot is named by the first hex digits of its id, at least %d: "
                        "see " PROGRAM " slots",
                        PREFIX_MIN);
    DO(complain_result(tpks_each_slot(app->ks, look, &s)));
    if (s.found == 0)
        return complain(EX_NOINPUT, "there is no slot %s: see " PROGRAM " slots", prefix);
    if (s.found > 1)
        return complain(EX_USAGE, "%d slots begin with %s: give more digits", s.found, prefix);
    return EX_OK;
}

int slot_of_kind(APP *app, const char *kind, unsigned char id[TPKS_ID_SIZE])
{
    search s = {.kind = kind, .id = id};

    DO(complain_result(tpks_each_slot(app->ks, look, &s)));
    if (s.found == 0)
        return complain(EX_NOINPUT, "the keystore has no active slot of kind %s", kind);
    if (s.found > 1)
        return complain(EX_USAGE,
                        "the keystore has %d active slots of kind %s: name one with --slot",
                        s.found, kind);
    return EX_OK;
}
