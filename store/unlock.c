/* unlock.c - from slots to a proven DEK */
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "sidecar.h"

tpks_result keystore_hsm_options(const TPKS *ks, bool write, hsm_texts *texts, hsm_options *out)
{
    keystore_describe(ks, texts->label, sizeof(texts->label));
    *out = (hsm_options){
        .token_uri = keystore_token(ks),
        .lock_dir = keystore_lock_dir(ks, texts->locks),
        .keep = strcmp(keystore_setting(ks, "hsm-session"), "process") == 0,
        .write = write,
        .ask = ks->ask,
        .ask_arg = ks->ask_arg,
        .keystore_label = texts->label,
    };
    if (out->token_uri == NULL && ks->head.token_elsewhere != NULL)
        return fail(TPKS_BAD_CONFIG,
                    "the database of %s names a module or PIN file that is not on this host, or a "
                    "module that others than root can replace: set token = %.700s in keystore.cnf, "
                    "with the paths as they are here",
                    texts->label, ks->head.token_elsewhere);
    if (out->token_uri == NULL)
        return fail(TPKS_BAD_CONFIG, "the configuration of %s names no `token`", texts->label);
    return TPKS_OK;
}

tpks_result keystore_hsm_open(TPKS *ks, bool write, HSM **out)
{
    hsm_texts texts;
    hsm_options options;

    TRY(keystore_hsm_options(ks, write, &texts, &options));
    return hsm_open(&options, out);
}

/* A writer leaves an anchor when this host has none yet, or was told to accept what it found. */
static void leave_anchor(TPKS *ks)
{
    if (ks->access == TPKS_WRITE && ks->anchor_due)
        anchor_write(ks);
    ks->anchor_due = false;
}

/*
 * Takes a DEK over if it proves itself and the header. From a slot whose wrap has no integrity a
 * wrong KEK gives a wrong DEK: to the caller both are one error.
 */
static tpks_result accept_dek(TPKS *ks, const slot_row *slot, DEK *dek)
{
    tpks_result result = ks->schema->prove_dek(&ks->d, ks->libctx, &ks->head, dek);

    if (result == TPKS_TAMPERED && slot_is_hsm(slot))
        result = fail(TPKS_KEK_FOREIGN,
                      "the key on token \"%s\" does not open the DEK: it is another key under our "
                      "id, or the database was changed; put the right token or database back, or "
                      "use the backup password",
                      slot->token_label);
    else if (result == TPKS_TAMPERED)
        result =
            fail(TPKS_TAMPERED, "slot \"%s\" gives another DEK: restore the database from a backup",
                 slot->label);
    if (result == TPKS_OK && ks->schema->check_head != NULL)
        result = ks->schema->check_head(&ks->head, dek);
    if (result != TPKS_OK) {
        dek_free(dek);
        return result;
    }
    ks->dek = dek;
    memcpy(ks->slot_id, slot->id, TPKS_ID_SIZE);
    leave_anchor(ks);
    return TPKS_OK;
}

static bool has_slot(const TPKS *ks, bool hsm)
{
    for (size_t i = 0; i < ks->head.slot_count; i++) {
        const slot_row *slot = &ks->head.slots[i];
        if (slot->state == SLOT_ACTIVE && (hsm ? slot_is_hsm(slot) : slot->kind == SLOT_SOFTWARE))
            return true;
    }
    return false;
}

static tpks_result unlock_software(TPKS *ks)
{
    DEK *dek = NULL;

    TRY(ks->schema->open_software(&ks->d, ks->libctx, &ks->head, keystore_setting(ks, "state"),
                                  &dek));
    for (size_t i = 0; i < ks->head.slot_count; i++)
        if (ks->head.slots[i].kind == SLOT_SOFTWARE && ks->head.slots[i].state == SLOT_ACTIVE)
            return accept_dek(ks, &ks->head.slots[i], dek);
    dek_free(dek);
    return fail(TPKS_INTERNAL, "the software slot is gone");
}

static tpks_result try_token_slots(TPKS *ks)
{
    char who[320];
    tpks_result result = TPKS_KEK_MISSING;
    bool tried = false;

    for (size_t i = 0; i < ks->head.slot_count; i++) {
        const slot_row *slot = &ks->head.slots[i];
        DEK *dek = NULL;
        if (slot->state != SLOT_ACTIVE || !slot_is_hsm(slot) || !slot_is_on(slot, ks->hsm))
            continue;
        tried = true;
        result =
            slot_open_hsm(ks->libctx, &ks->head, slot, ks->hsm, keystore_setting(ks, "dek"), &dek);
        if (result == TPKS_OK)
            result = accept_dek(ks, slot, dek);
        /* A token that does not work has not lost its KEK, whatever the next slot would say. */
        if (result != TPKS_KEK_MISSING && result != TPKS_KEK_FOREIGN)
            return result;
    }
    if (tried)
        return result;
    if (*hsm_token_serial(ks->hsm) == '\0')
        return fail(TPKS_HSM_UNAVAILABLE,
                    "token \"%s\" shows no serial number, by which its slot is known: try again",
                    hsm_token_label(ks->hsm));
    keystore_describe(ks, who, sizeof(who));
    return fail(TPKS_KEK_MISSING,
                "%s has no slot for token \"%s\" (serial %s): it is a new or another token", who,
                hsm_token_label(ks->hsm), hsm_token_serial(ks->hsm));
}

static tpks_result unlock_hsm(TPKS *ks)
{
    TRY(keystore_hsm_open(ks, false, &ks->hsm));
    tpks_result result = try_token_slots(ks);
    if (result != TPKS_OK) {
        hsm_close(ks->hsm);
        ks->hsm = NULL;
    }
    return result;
}

bool unlock_is_by_file(const TPKS *ks)
{
    bool has_token = has_slot(ks, true) && keystore_token(ks) != NULL;

    return has_slot(ks, false) &&
           (!has_token || ks->schema->read_only != NULL ||
            slot_has_software_file(&ks->head, keystore_setting(ks, "state")));
}

tpks_result unlock_machine(TPKS *ks)
{
    if (ks->dek != NULL)
        return TPKS_OK;
    if (unlock_is_by_file(ks))
        return unlock_software(ks);
    if (has_slot(ks, true))
        return unlock_hsm(ks);
    return fail(TPKS_KEK_MISSING, "the keystore has no active HSM slot");
}

tpks_result tpks_unlock(TPKS *ks)
{
    CRYPTO_SCOPE;
    tpks_result result = unlock_machine(ks);

    return result == TPKS_KEK_MISSING ? restore_in_load(ks) : result;
}

/* With a slot of ours beside a database that is not ours. `result`: what its own slots said. */
static tpks_result unlock_beside(TPKS *ks, const TPKS_SECRET *secret, tpks_result result)
{
    TPKS *side = NULL;
    const slot_row *slot = NULL;
    DEK *dek = NULL;

    tpks_result beside = sidecar_get(ks, &side);
    if (beside != TPKS_OK && head_ways_back(&ks->head) != 0)
        return fail_in(result, "it opens no slot of Trustpoint's own; of the others");
    TRY(beside);
    if (side == NULL)
        return result;
    TRY(sidecar_open_secret(side, secret, &slot, &dek));
    if (ks->schema->prove_dek(&ks->d, ks->libctx, &ks->head, dek) == TPKS_TAMPERED) {
        dek_free(dek);
        return fail(TPKS_TAMPERED,
                    "slot \"%s\" is right, but opens a DEK that this database does not use: "
                    "Trustpoint has made a new one since; add the password again while its KEK "
                    "works (trustpoint-keystore slot add password)",
                    slot->label);
    }
    return accept_dek(ks, slot, dek);
}

/* Slots that a secret was not tried with: then nobody can say that it is wrong. */
typedef struct untried {
    const slot_row *too_large; /* for the memory that there is; NULL: none */
    bool more;                 /* than are tried: a hostile database must not make them thousands */
} untried;

static tpks_result sum_up(tpks_result result, slot_kind kind, const untried *left)
{
    if (result != TPKS_WRONG_SECRET)
        return result;
    if (left->too_large != NULL)
        return fail(TPKS_NO_MEMORY,
                    "it opens none of the slots that could be tried, but for another one memory is "
                    "short: Argon2id needs %u MiB for it: try again where there is as much",
                    left->too_large->cost.m_kib / 1024);
    if (left->more)
        return fail(TPKS_WRONG_SECRET,
                    "it opens none of the slots of kind %s that were tried; there are more, but "
                    "only the first %d are: remove those that nobody needs",
                    slot_kind_name(kind), WAYS_BACK_MAX);
    return result;
}

/* One slot; TPKS_OK also says that the keystore is unlocked. */
static tpks_result try_secret(TPKS *ks, const slot_row *slot, const TPKS_SECRET *secret)
{
    DEK *dek = NULL;

    TRY(slot_open_secret(ks->libctx, &ks->head, slot, secret, &dek));
    TRY(accept_dek(ks, slot, dek));
    upgrade_note(ks, slot, secret);
    return TPKS_OK;
}

/* With each of `kind`, until one opens. */
static tpks_result try_slots(TPKS *ks, slot_kind kind, const TPKS_SECRET *secret, untried *left)
{
    tpks_result result =
        fail(TPKS_WRONG_SECRET, "the keystore has no active slot of kind %s", slot_kind_name(kind));
    size_t tries = 0;

    for (size_t i = 0; i < ks->head.slot_count; i++) {
        const slot_row *slot = &ks->head.slots[i];
        if (slot->state != SLOT_ACTIVE || slot->kind != kind)
            continue;
        left->more = tries++ == WAYS_BACK_MAX;
        if (left->more)
            return result;
        tpks_result tried = try_secret(ks, slot, secret);
        if (tried == TPKS_NO_MEMORY && kind == SLOT_PASSWORD) {
            left->too_large = slot;
            continue;
        }
        result = tried;
        /* That Trustpoint's own envelope is damaged says nothing of the slots beside it. */
        if (result != TPKS_WRONG_SECRET &&
            (result != TPKS_TAMPERED || ks->schema->read_only == NULL))
            return result;
    }
    return result;
}

tpks_result tpks_unlock_with(TPKS *ks, const TPKS_SECRET *secret)
{
    CRYPTO_SCOPE;
    slot_kind kind = recovery_key_looks_like(secret) ? SLOT_RECOVERY : SLOT_PASSWORD;
    untried left = {0};

    keystore_lock(ks); /* so that success speaks of this secret */
    tpks_result result = try_slots(ks, kind, secret, &left);
    if ((result == TPKS_WRONG_SECRET || result == TPKS_TAMPERED) && ks->schema->read_only != NULL)
        result = unlock_beside(ks, secret, result);
    return sum_up(result, kind, &left);
}
