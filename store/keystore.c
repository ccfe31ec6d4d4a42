/* keystore.c - opening and closing a keystore, and saying what it is */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "backend_load.h"
#include "cache.h"
#include "config.h"
#include "file.h"
#include "sidecar.h"
#include "text.h"
#include "trustpoint.h"

const char *tpks_version(void)
{
    return TPKS_VERSION;
}

const char *keystore_setting(const TPKS *ks, const char *directive)
{
    return tpks_config_get(ks->config, ks->section, directive);
}

const char *keystore_lock_dir(const TPKS *ks, char *out)
{
    snprintf(out, PATH_SIZE, "%s/lock", keystore_setting(ks, "state"));
    return out;
}

const char *keystore_token(const TPKS *ks)
{
    const char *configured = ks->token != NULL ? ks->token : keystore_setting(ks, "token");

    return configured != NULL ? configured : ks->head.token;
}

const char *tpks_schema_name(const TPKS *ks)
{
    return ks->schema->name;
}

const slot_row *keystore_slot(const TPKS *ks)
{
    return ks->dek == NULL ? NULL : head_slot(&ks->head, ks->slot_id);
}

bool tpks_unlocked_slot(const TPKS *ks, unsigned char id[TPKS_ID_SIZE])
{
    if (ks->dek != NULL)
        memcpy(id, ks->slot_id, TPKS_ID_SIZE);
    return ks->dek != NULL;
}

void keystore_describe(const TPKS *ks, char *out, size_t size)
{
    char label[256]; /* from the database, on its way to a terminal */

    text_escape(ks->head.label == NULL ? "" : ks->head.label, label, sizeof(label));
    snprintf(out, size, "keystore %s (%02x%02x%02x%02x)", label, ks->head.keystore[0],
             ks->head.keystore[1], ks->head.keystore[2], ks->head.keystore[3]);
}

static bool section_exists(const TPKS_CONFIG *config, const char *name)
{
    for (size_t i = 0; i < tpks_config_count(config); i++)
        if (strcmp(tpks_config_name(config, i), name) == 0)
            return true;
    return false;
}

tpks_result keystore_new(const tpks_options *options, TPKS **out)
{
    const char *name = options->keystore == NULL ? "" : options->keystore;

    if (!section_exists(options->config, name))
        return fail(TPKS_BAD_CONFIG, "the configuration has no section [keystore%s%s]",
                    *name == '\0' ? "" : "_", name);
    TPKS *ks = OPENSSL_zalloc(sizeof(*ks));
    if (ks == NULL)
        return fail_memory();
    ks->section = OPENSSL_strdup(name);
    if (ks->section == NULL) {
        OPENSSL_free(ks);
        return fail_memory();
    }
    ks->schema = &schema_native;
    ks->config = config_up_ref(options->config);
    ks->libctx = options->libctx;
    ks->access = options->access;
    ks->accept_new_anchor = options->accept_new_anchor;
    ks->no_restore = options->no_restore;
    ks->caller_compares = options->caller_compares;
    ks->ask = options->ask;
    ks->ask_arg = options->ask_arg;
    *out = ks;
    return TPKS_OK;
}

void keystore_lock(TPKS *ks)
{
    dek_free(ks->dek);
    hsm_close(ks->hsm);
    ks->dek = NULL;
    ks->hsm = NULL;
}

void keystore_free(TPKS *ks)
{
    if (ks->in_change)
        ks->d.backend->rollback(ks->d.db);
    keystore_lock(ks);
    upgrade_forget(ks);
    if (ks->sidecar != NULL)
        keystore_free(ks->sidecar);
    if (ks->d.db != NULL)
        ks->d.backend->close(ks->d.db);
    head_clear(&ks->head);
    tpks_config_free(ks->config);
    OPENSSL_free(ks->section);
    OPENSSL_free(ks->token);
    OPENSSL_free(ks->aside);
    OPENSSL_free(ks);
}

void tpks_close(TPKS *ks)
{
    if (ks != NULL && !cache_give(ks))
        keystore_free(ks);
}

static void free_at(TPKS **ks)
{
    if (*ks != NULL)
        keystore_free(*ks);
}

tpks_result schema_recognise(database *d, const schema **out)
{
    tpks_db_identity identity = {0};
    const schema *found = NULL;

    TRY(d->backend->identity(d->db, &identity));
    if (!identity.marked && !identity.empty)
        TRY(trustpoint_recognise(d, &found));
    if (found == NULL) {
        TRY(native_recognise(d));
        found = &schema_native;
    }
    *out = found;
    return TPKS_OK;
}

bool keystore_was_cut_off(const TPKS *ks, tpks_result result)
{
    return result == TPKS_DATABASE_UNAVAILABLE && ks->d.backend->moved(ks->d.db);
}

static tpks_result read_once(TPKS *ks, head *out)
{
    TRY(ks->d.backend->begin(ks->d.db, false));
    tpks_result result = ks->schema->read_head(&ks->d, ks->libctx, out);
    ks->d.backend->rollback(ks->d.db);
    return result;
}

/* Header and slots in one consistent view. */
static tpks_result read_stored(TPKS *ks, head *out)
{
    tpks_result result = read_once(ks, out);

    return keystore_was_cut_off(ks, result) ? read_once(ks, out) : result;
}

/*
 * An anchor is written after the commit that it speaks of: a database read after it may not be
 * older. One that was read before may, so that a contradiction counts when a second look has it.
 */
static tpks_result compare_with_anchor(TPKS *ks, head *fresh, bool *known)
{
    anchor seen;
    tpks_result result = anchor_read(ks, fresh, &seen);

    *known = seen.known;
    if (result != TPKS_OK || anchor_compare(ks, fresh, &seen) == TPKS_OK)
        return result;
    TRY(read_stored(ks, fresh));
    return anchor_compare(ks, fresh, &seen);
}

/* A writer stops at a database that this host knows better; a reader goes on, and it is logged. */
static tpks_result read_head(TPKS *ks)
{
    __attribute__((cleanup(head_clear))) head fresh = {0};
    bool known = false;

    TRY(read_stored(ks, &fresh));
    if (ks->schema != &schema_native) { /* nothing in it could be compared with an anchor */
        head_swap(&ks->head, &fresh);
        return TPKS_OK;
    }
    tpks_result result = compare_with_anchor(ks, &fresh, &known);
    if (result != TPKS_OK && ks->access == TPKS_WRITE && !ks->accept_new_anchor)
        return result;
    if (result != TPKS_OK)
        tpks_log(ks, "anchor-contradicts", "", result);
    ks->anchor_due = result != TPKS_OK || !known;
    head_swap(&ks->head, &fresh);
    return TPKS_OK;
}

/* Where each record says what its key may do, a second word on it would only be missed. */
static tpks_result check_decrypt(const TPKS *ks)
{
    if (ks->schema != &schema_native || keystore_setting(ks, "decrypt") == NULL)
        return TPKS_OK;
    return fail(TPKS_BAD_CONFIG,
                "[keystore%s%s] decrypt: is for Trustpoint's own databases, and %s is none: remove "
                "it, and run \"trustpoint-keystore policy --allow-decrypt NAME\"",
                *ks->section == '\0' ? "" : "_", ks->section, ks->d.backend->describe(ks->d.db));
}

tpks_result tpks_open(const tpks_options *options, TPKS **out)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(free_at))) TPKS *ks = cache_take(options);
    const char *location = NULL;

    if (ks != NULL) {
        *out = ks;
        ks = NULL;
        return TPKS_OK;
    }
    TRY(keystore_new(options, &ks));
    const char *store = keystore_setting(ks, "store");
    if (store == NULL)
        return fail(TPKS_BAD_CONFIG, "the configuration names no `store`");
    TRY(backend_find(store, &ks->d.backend, &location));
    TRY(ks->d.backend->open(location, ks->access == TPKS_WRITE ? TPKS_DB_WRITE : TPKS_DB_READ,
                            &ks->d.db));
    TRY(schema_recognise(&ks->d, &ks->schema));
    TRY(check_decrypt(ks));
    TRY(read_head(ks));
    *out = ks;
    ks = NULL;
    return TPKS_OK;
}

tpks_result keystore_refresh(TPKS *ks)
{
    bool same = false;

    TRY(ks->schema->is_unchanged(&ks->d, ks->libctx, &ks->head, &same));
    return same ? TPKS_OK : keystore_reload(ks);
}

tpks_result keystore_reload(TPKS *ks)
{
    unsigned char dek[TPKS_ID_SIZE];

    memcpy(dek, ks->head.dek, sizeof(dek));
    TRY(read_head(ks));
    if (ks->dek == NULL)
        return TPKS_OK;
    if (memcmp(dek, ks->head.dek, sizeof(dek)) != 0) {
        keystore_lock(ks);
        return unlock_machine(ks);
    }
    tpks_result result = ks->schema->prove_dek(&ks->d, ks->libctx, &ks->head, ks->dek);
    if (result == TPKS_OK && ks->schema->check_head != NULL)
        result = ks->schema->check_head(&ks->head, ks->dek);
    if (result != TPKS_OK)
        keystore_lock(ks);
    return result;
}

tpks_result tpks_allowed(const TPKS *ks, const char *name)
{
    if (config_allows(ks->config, ks->section, name))
        return TPKS_OK;
    return fail(TPKS_NOT_PERMITTED,
                "the directive `allow` does not let programs load \"%s\": add it in the section "
                "[keystore%s%s] if they should",
                name, *ks->section == '\0' ? "" : "_", ks->section);
}

/* ---- what can be said about it ---- */

static const char *wrap_name(const TPKS *ks, const slot_row *slot)
{
    const wrap_row *wrap = head_wrap(&ks->head, slot);

    return wrap == NULL ? "" : wrap_algorithm_name((wrap_algorithm)wrap->algorithm);
}

static tpks_result each_slot_of(const TPKS *ks, tpks_slot_fn *each, void *arg)
{
    for (size_t i = 0; i < ks->head.slot_count; i++) {
        const slot_row *slot = &ks->head.slots[i];
        tpks_slot_info info = {
            .kind = slot_kind_name(slot->kind),
            .state = slot_state_name(slot->state),
            .label = slot->label,
            .host = slot->host,
            .token_label = slot->token_label,
            .token_serial = slot->token_serial,
            .wrap = wrap_name(ks, slot),
            .cka_id = slot->cka_id.data,
            .cost = slot->cost,
            .cost_chosen = slot_cost_is_chosen(slot),
            .created = slot->created,
        };
        memcpy(info.id, slot->id, TPKS_ID_SIZE);
        TRY(each(arg, &info));
    }
    return TPKS_OK;
}

tpks_result tpks_each_slot(TPKS *ks, tpks_slot_fn *each, void *arg)
{
    CRYPTO_SCOPE;
    TPKS *side = NULL;

    TRY(each_slot_of(ks, each, arg));
    TRY(sidecar_get(ks, &side));
    return side == NULL ? TPKS_OK : each_slot_of(side, each, arg);
}

static void count_slots(const TPKS *ks, tpks_status_info *out)
{
    for (size_t i = 0; i < ks->head.slot_count; i++) {
        const slot_row *slot = &ks->head.slots[i];
        out->slots_active += slot->state == SLOT_ACTIVE;
        out->ways_back += slot_is_way_back(slot);
        out->software |= slot->state == SLOT_ACTIVE && slot->kind == SLOT_SOFTWARE;
    }
}

static const char *dek_location(const DEK *dek)
{
    if (dek == NULL)
        return "locked";
    if (dek_is_none(dek))
        return "none";
    return dek_is_in_hsm(dek) ? "hsm" : "process";
}

tpks_result tpks_status(TPKS *ks, tpks_status_info *out)
{
    CRYPTO_SCOPE;
    const slot_row *slot = keystore_slot(ks);
    TPKS *side = NULL;
    anchor seen;

    /* Only tpks_each_slot() says that they can't be read: the rest is true all the same. */
    if (sidecar_get(ks, &side) != TPKS_OK)
        side = NULL;
    memset(out, 0, sizeof(*out));
    memcpy(out->keystore_id, ks->head.keystore, TPKS_ID_SIZE);
    snprintf(out->label, sizeof(out->label), "%s", ks->head.label);
    out->format = (unsigned)ks->head.format;
    out->generation = ks->head.generation;
    count_slots(ks, out);
    if (side != NULL)
        count_slots(side, out);
    out->dek_location = dek_location(ks->dek);
    out->wrap = slot == NULL ? "" : wrap_name(ks, slot);
    if (slot != NULL) {
        snprintf(out->token_label, sizeof(out->token_label), "%s", slot->token_label);
        snprintf(out->token_serial, sizeof(out->token_serial), "%s", slot->token_serial);
    }
    out->anchor_known = anchor_read(ks, &ks->head, &seen) != TPKS_OK || seen.known;
    TRY(ks->schema->count_in_token(&ks->d, &ks->head, &out->in_token));
    return ks->schema->count_records(&ks->d, &ks->head, &out->records);
}
