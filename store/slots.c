/* slots.c - adding, changing and removing the ways to the DEK */
#include <string.h>

#include <openssl/crypto.h>

#include "keystore_internal.h"
#include "secret.h"
#include "sidecar.h"

#define LOOKS 3
#define NEW_SLOT __attribute__((cleanup(new_slot_clear))) new_slot

static void close_hsm(HSM **hsm)
{
    hsm_close(*hsm);
}

#define HSM_HANDLE __attribute__((cleanup(close_hsm))) HSM

/* ---- the DEK in hand ---- */

/* The slot that unlocked gives it once more, into this process instead of into the token. */
static tpks_result unwrap_again(TPKS *ks, TPKS_SECRET **out)
{
    const slot_row *slot = keystore_slot(ks);
    DEK *dek = NULL;

    if (slot == NULL)
        return fail(TPKS_CONFLICT, "the slot in use was removed meanwhile: try again");
    tpks_result result = TPKS_KEK_MISSING;
    /* It opened a moment ago: one empty search is no loss. */
    for (int i = 0; i < LOOKS && result == TPKS_KEK_MISSING; i++)
        result = slot_open_hsm(ks->libctx, &ks->head, slot, ks->hsm, "process", &dek);
    TRY(result);
    result = ks->schema->prove_dek(&ks->d, ks->libctx, &ks->head, dek);
    if (result == TPKS_OK)
        *out = tpks_secret_copy(tpks_secret_data_const(dek_bytes(dek)), DEK_SIZE);
    dek_free(dek);
    return result == TPKS_OK && *out == NULL ? fail_memory() : result;
}

tpks_result keystore_dek_copy(TPKS *ks, TPKS_SECRET **out)
{
    const TPKS_SECRET *held = dek_bytes(ks->dek);

    if (held == NULL)
        return unwrap_again(ks, out);
    *out = tpks_secret_copy(tpks_secret_data_const(held), DEK_SIZE);
    return *out == NULL ? fail_memory() : TPKS_OK;
}

/* ---- one change of the slots ---- */

/* What is put in and what is taken out. */
typedef struct slot_change {
    const new_slot *put;         /* NULL: nothing */
    bool without_wrap;           /* it is only planned */
    const unsigned char *drop;   /* NULL: nothing */
    bool only_planned;           /* no KEK was made for what is dropped */
    const unsigned char *retire; /* keeps the row of an HSM slot, without what it wrapped */
    bool unclaimed;              /* nobody has the secret of what is dropped: it is no way back */
    const head *beside;          /* whose slots count too; NULL: there are no others */
} slot_change;

static slot_row *find_slot(head *h, const unsigned char id[TPKS_ID_SIZE])
{
    return (slot_row *)head_slot(h, id); /* the head is ours to change */
}

/* A token has one active slot, the newest; what an earlier crash left planned is given up. */
static void outdate_others(head *h, const slot_row *made)
{
    for (size_t i = 0; i < h->slot_count; i++) {
        slot_row *slot = &h->slots[i];
        if (!slot_is_hsm(slot) || memcmp(slot->id, made->id, TPKS_ID_SIZE) == 0 ||
            strcmp(slot->token_serial, made->token_serial) != 0)
            continue;
        if (slot->state == SLOT_PENDING)
            slot->state = SLOT_RETIRED;
        else if (slot->state == SLOT_ACTIVE && made->state == SLOT_ACTIVE)
            slot->state = SLOT_STALE;
    }
}

/* The slot is there. */
static tpks_result retire(head *h, const unsigned char id[TPKS_ID_SIZE])
{
    new_slot kept = {0};
    slot_row *slot = find_slot(h, id);

    kept.slot = *slot;
    memset(slot, 0, sizeof(*slot)); /* its parts moved to the copy */
    memcpy(slot->id, id, TPKS_ID_SIZE);
    kept.slot.state = SLOT_RETIRED;
    tpks_result result = head_put_slot(h, &kept.slot, NULL);
    new_slot_clear(&kept);
    return result;
}

static size_t count_active(const head *h)
{
    size_t active = 0;

    for (size_t i = 0; h != NULL && i < h->slot_count; i++)
        active += h->slots[i].state == SLOT_ACTIVE;
    return active;
}

static size_t count_ways_back(const head *h)
{
    return h == NULL ? 0 : head_ways_back(h);
}

/* Would anything still open the DEK when `slot` is gone, and then every HSM? */
static tpks_result check_removable(const head *h, const slot_change *change, const slot_row *slot)
{
    const head *beside = change->beside;

    if (slot->kind == SLOT_SOFTWARE)
        return fail(TPKS_UNSUPPORTED, "the slot of a software keystore can't be removed");
    if (!change->unclaimed && slot_is_way_back(slot) &&
        count_ways_back(h) + count_ways_back(beside) == 1)
        return fail(TPKS_NOT_PERMITTED,
                    "this is the last password or recovery key: add another one "
                    "first, or every key is lost with the HSM");
    if (slot->state == SLOT_ACTIVE && count_active(h) + count_active(beside) == 1)
        return fail(TPKS_NOT_PERMITTED, "this is the last slot: without it every key is lost");
    return TPKS_OK;
}

static tpks_result find_to_remove(const head *h, const unsigned char id[TPKS_ID_SIZE],
                                  const slot_row **slot)
{
    *slot = head_slot(h, id);
    if (*slot == NULL)
        return fail(TPKS_NOT_FOUND,
                    "there is no such slot any more: see trustpoint-keystore slots");
    return TPKS_OK;
}

static tpks_result check_drop(const head *h, const slot_change *change)
{
    const slot_row *slot = NULL;

    TRY(find_to_remove(h, change->drop, &slot));
    /* With its row the name of its KEK would go. */
    if (slot_is_hsm(slot) && slot->state != SLOT_RETIRED && !change->only_planned)
        return fail(TPKS_NOT_PERMITTED,
                    "the slot was taken into use again: see trustpoint-keystore slots");
    return change->put != NULL ? TPKS_OK : check_removable(h, change, slot);
}

static tpks_result check_retire(const head *h, const slot_change *change)
{
    const slot_row *slot = NULL;

    TRY(find_to_remove(h, change->retire, &slot));
    return check_removable(h, change, slot);
}

/* Another process may have changed the slots since the caller looked at them: what must hold is
 * asked of the very head that is changed. */
static tpks_result check_change(const head *h, const slot_change *change)
{
    if (change->drop != NULL)
        TRY(check_drop(h, change));
    if (change->retire != NULL)
        TRY(check_retire(h, change));
    /* One in the place of another does not make them more. */
    if (change->put != NULL && change->drop == NULL && slot_is_way_back(&change->put->slot) &&
        head_ways_back(h) >= WAYS_BACK_MAX)
        return fail(TPKS_UNSUPPORTED,
                    "a keystore has at most %d password and recovery slots: remove "
                    "one first",
                    WAYS_BACK_MAX);
    return TPKS_OK;
}

static tpks_result prepare_slots(TPKS *ks, const void *arg)
{
    const slot_change *change = arg;

    TRY(check_change(&ks->head, change));
    if (change->put != NULL) {
        TRY(head_put_slot(&ks->head, &change->put->slot,
                          change->without_wrap ? NULL : &change->put->wrap));
        if (slot_is_hsm(&change->put->slot))
            outdate_others(&ks->head, &change->put->slot);
    }
    if (change->retire != NULL)
        TRY(retire(&ks->head, change->retire));
    if (change->drop != NULL)
        head_drop_slot(&ks->head, change->drop);
    /* More could be written, but not be read again. */
    if (ks->head.slot_count > SLOTS_MAX)
        return fail(TPKS_UNSUPPORTED,
                    "a keystore has at most %d slots: remove stale and retired ones first "
                    "(trustpoint-keystore slots, slot remove)",
                    SLOTS_MAX);
    return TPKS_OK;
}

static tpks_result apply_slots(TPKS *ks, const void *arg)
{
    (void)arg;
    return native_replace_slots(&ks->d, &ks->head);
}

static tpks_result change_slots(TPKS *ks, const slot_change *change, const char *event)
{
    TRY(keystore_change(ks, prepare_slots, apply_slots, change));
    header_keep(ks);
    tpks_log(ks, event, "", TPKS_OK);
    return TPKS_OK;
}

/* `owner`: whose slots change, the keystore's own or, for a database that is not ours, those
 * beside it. */
static tpks_result start(TPKS *ks, TPKS **owner, TPKS_SECRET **dek)
{
    TRY(keystore_check_access(ks));
    if (ks->schema->read_only != NULL)
        TRY(sidecar_check_useful(ks));
    TRY(tpks_unlock(ks));
    TRY(keystore_dek_copy(ks, dek));
    *owner = ks;
    return ks->schema->read_only == NULL ? TPKS_OK : sidecar_for_change(ks, owner);
}

static void give_id(const new_slot *made, unsigned char id[TPKS_ID_SIZE])
{
    if (id != NULL)
        memcpy(id, made->slot.id, TPKS_ID_SIZE);
}

/* ---- HSM slots ---- */

/*
 * No KEK came of the plan. Its row goes again, so that tries that fail do not pile up, if the token
 * shows several times over that it has none; else the row stays, and names what may be there.
 */
static tpks_result give_up(TPKS *ks, HSM *hsm, const new_slot *planned, tpks_result why)
{
    char text[1024];
    slot_change change = {.drop = planned->slot.id, .only_planned = true};

    OPENSSL_strlcpy(text, tpks_error_text(), sizeof(text));
    /* Its halves too, if it was of RSA; but never a key that was there before. */
    tpks_result left = why == TPKS_EXISTS ? why : hsm_destroy_kek(hsm, planned->slot.cka_id.data);
    if (left == TPKS_OK)
        left = TPKS_KEK_MISSING;
    for (int i = 0; i < LOOKS && left == TPKS_KEK_MISSING; i++)
        left = hsm_find_kek(hsm, planned->slot.cka_id.data);
    if (left != TPKS_KEK_MISSING || change_slots(ks, &change, "slot-given-up") != TPKS_OK)
        tpks_log(ks, "slot-left-planned", "", why);
    return fail(why, "%s", text);
}

tpks_result keystore_add_hsm_slot(TPKS *ks, unsigned char id[TPKS_ID_SIZE])
{
    SECRET *dek = NULL;
    NEW_SLOT made = {0};
    HSM_HANDLE *hsm = NULL;
    slot_change change = {.put = &made, .without_wrap = true};

    TRY(keystore_dek_copy(ks, &dek));
    TRY(keystore_hsm_open(ks, true, &hsm));
    TRY(slot_plan_hsm(ks->libctx, &ks->head, hsm, &made));
    TRY(change_slots(ks, &change, "slot-planned"));
    tpks_result result = slot_fill_hsm(&ks->head, hsm, dek, &made);
    if (result != TPKS_OK)
        return give_up(ks, hsm, &made, result);
    change.without_wrap = false;
    TRY(change_slots(ks, &change, "slot-added"));
    give_id(&made, id);
    return TPKS_OK;
}

tpks_result tpks_slot_add_hsm(TPKS *ks, const char *token_uri, unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;

    TRY(keystore_check_writable(ks));
    TRY(tpks_unlock(ks));
    if (token_uri == NULL)
        return keystore_add_hsm_slot(ks, id);
    TRY(hsm_check_uri(token_uri));
    ks->token = OPENSSL_strdup(token_uri);
    if (ks->token == NULL)
        return fail_memory();
    tpks_result result = keystore_add_hsm_slot(ks, id);
    OPENSSL_free(ks->token);
    ks->token = NULL;
    return result;
}

tpks_result tpks_rotate_kek(TPKS *ks, unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;

    TRY(keystore_check_writable(ks));
    TRY(tpks_unlock(ks));
    const slot_row *slot = keystore_slot(ks);
    if (slot == NULL || !slot_is_hsm(slot))
        return fail(TPKS_UNSUPPORTED,
                    "the keystore was not unlocked through an HSM: there is no KEK to rotate");
    return keystore_add_hsm_slot(ks, id);
}

/* ---- passwords and recovery keys ---- */

tpks_result tpks_slot_add_password(TPKS *ks, const TPKS_SECRET *password, tpks_kdf_cost cost,
                                   unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;
    TPKS *owner = NULL;
    SECRET *dek = NULL;
    NEW_SLOT made = {0};
    slot_change change = {.put = &made};

    TRY(tpks_password_check(password));
    TRY(start(ks, &owner, &dek));
    TRY(slot_make_password(ks->libctx, &owner->head, password, cost, dek, &made));
    TRY(slot_prove_secret(ks->libctx, &owner->head, &made, password));
    TRY(change_slots(owner, &change, "slot-added"));
    give_id(&made, id);
    return TPKS_OK;
}

tpks_result tpks_slot_add_recovery(TPKS *ks, TPKS_SECRET **recovery_key,
                                   unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;
    TPKS *owner = NULL;
    SECRET *dek = NULL;
    SECRET *text = NULL;
    NEW_SLOT made = {0};
    slot_change change = {.put = &made};

    TRY(start(ks, &owner, &dek));
    TRY(slot_make_recovery(ks->libctx, &owner->head, dek, &made, &text));
    TRY(slot_prove_secret(ks->libctx, &owner->head, &made, text));
    TRY(change_slots(owner, &change, "slot-added"));
    give_id(&made, id);
    memcpy(ks->added, made.slot.id, TPKS_ID_SIZE);
    ks->has_added = true;
    *recovery_key = text;
    text = NULL;
    return TPKS_OK;
}

tpks_result tpks_password_change(TPKS *ks, const unsigned char old[TPKS_ID_SIZE],
                                 const TPKS_SECRET *password, tpks_kdf_cost cost,
                                 unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;
    TPKS *owner = NULL;
    SECRET *dek = NULL;
    NEW_SLOT made = {0};
    unsigned char retired[TPKS_ID_SIZE];
    slot_change change = {.put = &made, .drop = retired};

    memcpy(retired, old, sizeof(retired));
    TRY(tpks_password_check(password));
    TRY(start(ks, &owner, &dek));
    const slot_row *slot = head_slot(&owner->head, old);
    if (slot == NULL || slot->kind != SLOT_PASSWORD)
        return fail(TPKS_NOT_FOUND,
                    "there is no such password slot: see trustpoint-keystore slots");
    TRY(slot_make_password(ks->libctx, &owner->head, password, cost, dek, &made));
    TRY(slot_prove_secret(ks->libctx, &owner->head, &made, password));
    TRY(change_slots(owner, &change, "password-changed"));
    give_id(&made, id);
    return TPKS_OK;
}

/* ---- removal ---- */

static tpks_result destroy_kek_of(TPKS *ks, const char *serial,
                                  const unsigned char cka_id[CKA_ID_SIZE])
{
    HSM_HANDLE *hsm = NULL;

    TRY(keystore_hsm_open(ks, true, &hsm));
    if (strcmp(hsm_token_serial(hsm), serial) != 0)
        return fail(TPKS_TOKEN_MISSING,
                    "the slot was retired, but its KEK is on the token with serial %s, not on the "
                    "configured one: destroy it there",
                    serial);
    return hsm_destroy_kek(hsm, cka_id);
}

/* Of a database that is not ours, only the slots beside it. */
static tpks_result remove_beside(TPKS *ks, const unsigned char id[TPKS_ID_SIZE])
{
    TPKS *side = NULL;

    TRY(keystore_check_access(ks));
    TRY(sidecar_get(ks, &side));
    const slot_row *slot = side == NULL ? NULL : head_slot(&side->head, id);
    if (slot == NULL && head_slot(&ks->head, id) != NULL)
        return fail(TPKS_NOT_PERMITTED, "this slot is Trustpoint's own: it is not removed here");
    if (slot == NULL)
        return fail(TPKS_NOT_FOUND, "there is no such slot: see trustpoint-keystore slots");
    TRY(tpks_unlock(ks));
    TRY(sidecar_for_change(ks, &side));
    if (head_slot(&side->head, id) == NULL && ks->aside != NULL)
        return fail(TPKS_NOT_FOUND,
                    "nothing was removed: the slots beside this database opened nothing any more, "
                    "or were damaged; they are all kept in %s, and none is left here",
                    ks->aside);
    return change_slots(side, &(slot_change){.drop = id, .beside = &ks->head}, "slot-removed");
}

tpks_result tpks_slot_take_back(TPKS *ks)
{
    CRYPTO_SCOPE;
    TPKS *owner = ks;
    slot_change change = {.drop = ks->added, .unclaimed = true};

    TRY(keystore_check_access(ks));
    if (!ks->has_added)
        return fail(TPKS_NOT_FOUND, "no recovery key was added that could be taken back");
    TRY(tpks_unlock(ks));
    if (ks->schema->read_only != NULL) {
        TRY(sidecar_for_change(ks, &owner));
        change.beside = &ks->head;
    }
    TRY(change_slots(owner, &change, "slot-removed"));
    ks->has_added = false;
    return TPKS_OK;
}

tpks_result tpks_slot_remove(TPKS *ks, const unsigned char id[TPKS_ID_SIZE], bool destroy_key)
{
    CRYPTO_SCOPE;
    unsigned char gone[TPKS_ID_SIZE], cka_id[CKA_ID_SIZE];
    char serial[32];

    memcpy(gone, id, sizeof(gone));
    if (ks->schema->read_only != NULL)
        return remove_beside(ks, gone);
    TRY(keystore_check_writable(ks));
    TRY(tpks_unlock(ks));
    const slot_row *slot = head_slot(&ks->head, gone);
    if (slot == NULL)
        return fail(TPKS_NOT_FOUND, "there is no such slot: see trustpoint-keystore slots");
    if (!slot_is_hsm(slot) || (slot->state == SLOT_RETIRED && !destroy_key))
        return change_slots(ks, &(slot_change){.drop = gone}, "slot-removed");
    memcpy(cka_id, slot->cka_id.data, sizeof(cka_id));
    OPENSSL_strlcpy(serial, slot->token_serial, sizeof(serial));
    TRY(change_slots(ks, &(slot_change){.retire = gone}, "slot-retired"));
    if (!destroy_key)
        return TPKS_OK;
    TRY(destroy_kek_of(ks, serial, cka_id));
    return change_slots(ks, &(slot_change){.drop = gone}, "slot-removed");
}
