/*
 * write.c - changes
 *
 * Everything that needs the DEK (sealing the record, sealing the header of the next generation)
 * is done before the database transaction begins, so that no lock is held across an HSM call. The
 * transaction then succeeds only if the stored generation is still the one that was sealed for.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "keystore_internal.h"
#include "secret.h"

/* An attempt fails only because another change was committed meanwhile: so many writers at once all
 * have their turn. */
#define ATTEMPTS 64

tpks_result keystore_check_access(const TPKS *ks)
{
    if (ks->access == TPKS_WRITE)
        return TPKS_OK;
    return fail(TPKS_NOT_PERMITTED, "the keystore was opened for loading keys, not for changes");
}

tpks_result keystore_check_writable(const TPKS *ks)
{
    if (ks->schema->read_only != NULL)
        return fail(TPKS_NOT_PERMITTED, "%s: %s", ks->d.backend->describe(ks->d.db),
                    ks->schema->read_only);
    return keystore_check_access(ks);
}

/* The header of the next generation, sealed. */
static tpks_result next_generation(TPKS *ks)
{
    ks->generation_before = ks->head.generation;
    memcpy(ks->seal_before, ks->head.seal, PROOF_SIZE);
    ks->head.generation++;
    return head_seal(&ks->head, ks->dek);
}

static tpks_result check_written(TPKS *ks)
{
    __attribute__((cleanup(head_clear))) head stored = {0};

    TRY(native_read_head(&ks->d, &stored));
    return head_check_written(&stored, &ks->head);
}

/* Begins the transaction of the next generation. */
static tpks_result try_start(TPKS *ks, prepare_fn *prepare, const void *arg)
{
    const database *d = &ks->d;

    if (prepare != NULL)
        TRY(prepare(ks, arg));
    TRY(next_generation(ks));
    TRY(d->backend->begin(d->db, true));
    tpks_result result = native_advance(d, &ks->head, ks->generation_before, ks->seal_before);
    if (result != TPKS_OK)
        d->backend->rollback(d->db);
    return result;
}

/* Several processes may write at once: the slower ones start again from what they find then. */
static void random_pause(int round)
{
    unsigned char byte = 0;

    if (random_public(NULL, &byte, 1) == TPKS_OK)
        usleep((useconds_t)(byte % 64 + 1) * 250u << (round < 6 ? round : 6));
}

static tpks_result start_change(TPKS *ks, prepare_fn *prepare, const void *arg)
{
    tpks_result result = TPKS_OK;

    for (int round = 0; round < ATTEMPTS; round++) {
        result = try_start(ks, prepare, arg);
        if (result == TPKS_OK)
            return TPKS_OK;
        TRY(keystore_reload(ks));
        if (result != TPKS_CONFLICT)
            return result;
        random_pause(round);
    }
    return result;
}

bool keystore_is_committed(TPKS *ks)
{
    bool ours = false;

    return ks->schema->is_unchanged(&ks->d, ks->libctx, &ks->head, &ours) == TPKS_OK && ours;
}

static tpks_result finish_change(TPKS *ks)
{
    TRY(check_written(ks));
    tpks_result result = ks->d.backend->commit(ks->d.db);
    if (!keystore_was_cut_off(ks, result))
        return result;
    return keystore_is_committed(ks) ? TPKS_OK : result;
}

/* What a failed statement has left of a change must not be committed with the others. */
static tpks_result change_in_batch(TPKS *ks, apply_fn *apply, const void *arg)
{
    if (ks->change_result != TPKS_OK)
        return fail(ks->change_result,
                    "an earlier change of this transaction failed: nothing of it can be kept");
    ks->change_result = apply(ks, arg);
    return ks->change_result;
}

tpks_result keystore_change(TPKS *ks, prepare_fn *prepare, apply_fn *apply, const void *arg)
{
    if (ks->in_change && prepare != NULL)
        return fail(TPKS_INTERNAL, "slots can't be changed together with records");
    if (ks->in_change)
        return change_in_batch(ks, apply, arg);
    TRY(start_change(ks, prepare, arg));
    tpks_result result = apply(ks, arg);
    if (result == TPKS_OK)
        result = finish_change(ks);
    if (result != TPKS_OK) {
        ks->d.backend->rollback(ks->d.db);
        TRY(keystore_reload(ks));
        return result;
    }
    anchor_write(ks);
    return TPKS_OK;
}

tpks_result tpks_begin(TPKS *ks)
{
    CRYPTO_SCOPE;

    TRY(keystore_check_writable(ks));
    if (ks->in_change)
        return fail(TPKS_INTERNAL, "a change is under way already");
    TRY(tpks_unlock(ks));
    TRY(start_change(ks, NULL, NULL));
    ks->change_result = TPKS_OK;
    ks->in_change = true;
    return TPKS_OK;
}

tpks_result tpks_commit(TPKS *ks)
{
    CRYPTO_SCOPE;

    if (!ks->in_change)
        return fail(TPKS_INTERNAL, "no change is under way");
    tpks_result result = ks->change_result;
    if (result != TPKS_OK)
        result = fail(result, "a change of this transaction failed: nothing of it was kept");
    else
        result = finish_change(ks);
    if (result != TPKS_OK) {
        tpks_rollback(ks);
        return result;
    }
    ks->in_change = false;
    anchor_write(ks);
    return TPKS_OK;
}

void tpks_rollback(TPKS *ks)
{
    CRYPTO_SCOPE;

    if (!ks->in_change)
        return;
    ks->d.backend->rollback(ks->d.db);
    ks->in_change = false;
    if (keystore_reload(ks) != TPKS_OK)
        tpks_log(ks, "reload-failed", "", TPKS_DATABASE_UNAVAILABLE);
}

/* ---- records ---- */

static tpks_result compare_stored(void *arg, TPKS_RECORD *stored)
{
    const TPKS_RECORD **want = arg;

    TRY(record_check_written(stored, *want));
    *want = NULL;
    return TPKS_OK;
}

static tpks_result check_stored(TPKS *ks, const TPKS_RECORD *record)
{
    const TPKS_RECORD *want = record;
    tpks_selector by_id = {.id = record->id};

    TRY(native_each_record(&ks->d, ks->libctx, &ks->head, &by_id, compare_stored, &want));
    if (want != NULL)
        return fail(TPKS_DATABASE_UNAVAILABLE,
                    "record \"%s\" can't be read back; nothing was changed", record->name);
    return TPKS_OK;
}

/* Another process may have changed the DEK while this change waited for its turn. */
static tpks_result check_dek(const TPKS *ks, const TPKS_RECORD *record)
{
    if (memcmp(record->dek, ks->head.dek, TPKS_ID_SIZE) != 0)
        return fail(TPKS_CONFLICT, "another process changed the DEK meanwhile: try again");
    return TPKS_OK;
}

static tpks_result apply_insert(TPKS *ks, const void *arg)
{
    const TPKS_RECORD *record = arg;

    TRY(check_dek(ks, record));
    TRY(native_insert_record(&ks->d, ks->libctx, record));
    return check_stored(ks, record);
}

static tpks_result apply_update(TPKS *ks, const void *arg)
{
    const TPKS_RECORD *record = arg;

    TRY(check_dek(ks, record));
    TRY(native_update_record(&ks->d, ks->libctx, record, record->version - 1));
    return check_stored(ks, record);
}

static tpks_result apply_delete(TPKS *ks, const void *arg)
{
    return native_delete_record(&ks->d, arg);
}

tpks_result keystore_new_record(TPKS *ks, const char *name, unsigned policy, TPKS_RECORD **out)
{
    RECORD *record = OPENSSL_zalloc(sizeof(*record));

    if (record == NULL)
        return fail_memory();
    record->name = OPENSSL_strdup(name);
    record->token_serial = OPENSSL_strdup("");
    if (record->name == NULL || record->token_serial == NULL)
        return fail_memory();
    memcpy(record->keystore, ks->head.keystore, TPKS_ID_SIZE);
    memcpy(record->dek, ks->head.dek, TPKS_ID_SIZE);
    TRY(random_public(ks->libctx, record->id, TPKS_ID_SIZE));
    record->version = 1;
    record->policy = policy;
    record->seal_algorithm = SEAL_GCM;
    record->created = record->changed = (int64_t)time(NULL);
    *out = record;
    record = NULL;
    return TPKS_OK;
}

tpks_result keystore_check_policy(unsigned policy)
{
    if ((policy & ~(unsigned)(TPKS_MAY_SIGN | TPKS_MAY_DECRYPT | TPKS_MAY_AGREE)) != 0)
        return fail(TPKS_BAD_INPUT, "unknown policy bits");
    return TPKS_OK;
}

tpks_result keystore_insert_record(TPKS *ks, TPKS_RECORD *record, const TPKS_SECRET *pkcs8)
{
    TRY(record_seal(ks->libctx, record, ks->dek, pkcs8));
    return keystore_change(ks, NULL, apply_insert, record);
}

tpks_result keystore_update_record(TPKS *ks, TPKS_RECORD *record, const TPKS_SECRET *pkcs8)
{
    TRY(record_seal(ks->libctx, record, ks->dek, pkcs8));
    return keystore_change(ks, NULL, apply_update, record);
}

tpks_result keystore_delete_record(TPKS *ks, const TPKS_RECORD *record)
{
    return keystore_change(ks, NULL, apply_delete, record);
}

tpks_result tpks_add(TPKS *ks, const char *name, const TPKS_SECRET *pkcs8,
                     const STACK_OF(X509) * certs, unsigned policy, unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;
    RECORD *record = NULL;

    TRY(keystore_check_writable(ks));
    TRY(tpks_name_check(name));
    TRY(keystore_check_policy(policy));
    TRY(tpks_unlock(ks));
    TRY(keystore_new_record(ks, name, policy, &record));
    TRY(record_set_key(ks->libctx, record, pkcs8));
    TRY(record_set_certs(ks->libctx, record, certs));
    TRY(keystore_insert_record(ks, record, pkcs8));
    if (id != NULL)
        memcpy(id, record->id, TPKS_ID_SIZE);
    tpks_log(ks, "record-added", name, TPKS_OK);
    return TPKS_OK;
}

/* Every change of a record's columns seals it again. */
static tpks_result start_update(TPKS *ks, const TPKS_RECORD *record, TPKS_SECRET **pkcs8,
                                TPKS_RECORD **out)
{
    TRY(keystore_check_writable(ks));
    TRY(keystore_open_record(ks, record, pkcs8));
    TRY(record_copy(record, out));
    (*out)->version++;
    (*out)->changed = (int64_t)time(NULL);
    return TPKS_OK;
}

static tpks_result finish_update(TPKS *ks, TPKS_RECORD *record, const TPKS_SECRET *pkcs8,
                                 const char *event)
{
    TRY(keystore_update_record(ks, record, pkcs8));
    tpks_log(ks, event, record->name, TPKS_OK);
    return TPKS_OK;
}

tpks_result tpks_set_cert(TPKS *ks, const TPKS_RECORD *record, const TPKS_SECRET *pkcs8,
                          const STACK_OF(X509) * certs)
{
    CRYPTO_SCOPE;
    RECORD *next = NULL;
    SECRET *old = NULL;

    if (pkcs8 != NULL && tpks_record_home(record) == TPKS_HOME_TOKEN)
        return fail(TPKS_UNSUPPORTED,
                    "the key of \"%s\" lives in a token: it can't be replaced by one from a file; "
                    "import that under another name, and rename",
                    record->name);
    TRY(start_update(ks, record, &old, &next));
    if (pkcs8 != NULL)
        TRY(record_set_key(ks->libctx, next, pkcs8));
    TRY(record_set_certs(ks->libctx, next, certs));
    return finish_update(ks, next, pkcs8 != NULL ? pkcs8 : old, "certificate-set");
}

tpks_result tpks_set_policy(TPKS *ks, const TPKS_RECORD *record, unsigned policy)
{
    CRYPTO_SCOPE;
    RECORD *next = NULL;
    SECRET *pkcs8 = NULL;

    TRY(keystore_check_policy(policy));
    TRY(start_update(ks, record, &pkcs8, &next));
    next->policy = policy;
    return finish_update(ks, next, pkcs8, "policy-set");
}

tpks_result tpks_rename(TPKS *ks, const TPKS_RECORD *record, const char *name)
{
    CRYPTO_SCOPE;
    RECORD *next = NULL;
    SECRET *pkcs8 = NULL;

    TRY(tpks_name_check(name));
    TRY(start_update(ks, record, &pkcs8, &next));
    OPENSSL_free(next->name);
    next->name = OPENSSL_strdup(name);
    if (next->name == NULL)
        return fail_memory();
    return finish_update(ks, next, pkcs8, "record-renamed");
}

tpks_result tpks_remove(TPKS *ks, const TPKS_RECORD *record)
{
    CRYPTO_SCOPE;

    TRY(keystore_check_writable(ks));
    TRY(tpks_unlock(ks));
    TRY(keystore_delete_record(ks, record));
    tpks_log(ks, "record-removed", record->name, TPKS_OK);
    return TPKS_OK;
}
