/*
 * upgrade.c - Argon2id of the cost that suits the machine by now
 *
 * What was a good cost when a password slot was made may be too low years later, or on another
 * machine. Only who has the password can make the slot anew, so that it is done after the password
 * was used for something else. A cost that was asked for stays what it is.
 */
#include <string.h>

#include <openssl/crypto.h>

#include "keystore_internal.h"
#include "secret.h"

/* What `slot` should cost by now; false: what it does, or more. */
static bool better_cost(const slot_row *slot, tpks_kdf_cost *better)
{
    tpks_kdf_cost policy;

    return slot->kind == SLOT_PASSWORD && !slot_cost_is_chosen(slot) &&
           kdf_default_cost(&policy) == TPKS_OK && kdf_is_weak(&slot->cost, &policy, better);
}

void upgrade_forget(TPKS *ks)
{
    tpks_secret_free(ks->due_password);
    ks->due_password = NULL;
}

void upgrade_note(TPKS *ks, const slot_row *slot, const TPKS_SECRET *password)
{
    tpks_kdf_cost better;

    upgrade_forget(ks);
    if (ks->access != TPKS_WRITE || ks->schema->read_only != NULL || !better_cost(slot, &better))
        return;
    ks->due_password =
        tpks_secret_copy(tpks_secret_data_const(password), tpks_secret_size(password));
    memcpy(ks->due_slot, slot->id, TPKS_ID_SIZE);
}

typedef struct renewal {
    unsigned char old_salt[KDF_SALT_SIZE];
    new_slot made;
} renewal;

static void renewal_end(renewal *r)
{
    new_slot_clear(&r->made);
}

/* Another process may have removed the slot, given it another password, or changed the DEK. */
static tpks_result put_renewed(TPKS *ks, const void *arg)
{
    const renewal *r = arg;
    const slot_row *slot = head_slot(&ks->head, r->made.slot.id);

    if (slot == NULL || slot->salt.size != KDF_SALT_SIZE ||
        memcmp(slot->salt.data, r->old_salt, KDF_SALT_SIZE) != 0 ||
        memcmp(r->made.wrap.dek, ks->head.dek, TPKS_ID_SIZE) != 0)
        return fail(TPKS_NOT_FOUND, "the password slot was changed meanwhile");
    return head_put_slot(&ks->head, &r->made.slot, &r->made.wrap);
}

static tpks_result replace_slots(TPKS *ks, const void *arg)
{
    (void)arg;
    return native_replace_slots(&ks->d, &ks->head);
}

static tpks_result renew(TPKS *ks)
{
    SECRET *dek = NULL;
    __attribute__((cleanup(renewal_end))) renewal r = {.old_salt = {0}};
    tpks_kdf_cost better;
    const slot_row *slot = head_slot(&ks->head, ks->due_slot);

    if (slot == NULL || slot->state != SLOT_ACTIVE || !better_cost(slot, &better))
        return fail(TPKS_NOT_FOUND, "the password slot was changed meanwhile");
    memcpy(r.old_salt, slot->salt.data, KDF_SALT_SIZE);
    TRY(keystore_dek_copy(ks, &dek));
    TRY(slot_renew_password(ks->libctx, &ks->head, slot, ks->due_password, &better, dek, &r.made));
    TRY(slot_prove_secret(ks->libctx, &ks->head, &r.made, ks->due_password));
    TRY(keystore_change(ks, put_renewed, replace_slots, &r));
    header_keep(ks);
    return TPKS_OK;
}

bool tpks_upgrade_password(TPKS *ks)
{
    CRYPTO_SCOPE;

    if (ks->due_password == NULL || ks->in_change || ks->dek == NULL)
        return false;
    tpks_result result = renew(ks);
    tpks_log(ks, result == TPKS_OK ? "password-upgraded" : "password-not-upgraded", "", result);
    upgrade_forget(ks);
    return result == TPKS_OK;
}
