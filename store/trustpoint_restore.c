/*
 * trustpoint_restore.c - a Trustpoint database whose KEK is gone gets a new one
 *
 * Only what Trustpoint itself would write is written: the DEK wrapped by the new KEK and, where it
 * is missing, the row that names the KEK. The order makes every moment a good one to be killed: the
 * new KEK lies beside the label, then the database has what it wrapped, then it gets the label. The
 * next run finds which of these is done.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "rows.h"
#include "secret.h"
#include "sidecar.h"
#include "trustpoint.h"

#define LEGACY_TABLE "management_pkcs11token"
#define CURRENT_TABLE "app_secret_pkcs11_config"
#define EMPTY(column) "(" column " IS NULL OR length(" column ") = 0)"
#define CONFLICT                                                                                   \
    "the wrapped DEK was changed meanwhile, perhaps by a restore on another host: look at it "     \
    "with "                                                                                        \
    "trustpoint-keystore status, and try again if the KEK is still missing"
#define NO_KEK "this database of Trustpoint's has no KEK to restore"

static void close_hsm(HSM **hsm)
{
    hsm_close(*hsm);
}

#define HSM_HANDLE __attribute__((cleanup(close_hsm))) HSM

static void bytes_free(bytes *b)
{
    OPENSSL_free(b->data);
}

#define BYTES __attribute__((cleanup(bytes_free))) bytes

/* ---- statements ---- */

/* A statement that must change exactly one row. */
static tpks_result run_one(const database *d, const char *sql, const tpks_value *values,
                           size_t count)
{
    uint64_t changed = 0;

    TRY(d->backend->run(d->db, sql, values, count, &changed));
    return changed == 1 ? TPKS_OK : fail(TPKS_CONFLICT, CONFLICT);
}

/* The one value of a query; empty: it is NULL, or there is no row. */
static tpks_result read_bytes(const database *d, const char *sql, bytes *out)
{
    READER r = {.d = d, .table = "wrapped DEK"};
    bool got = false;

    TRY(reader_start(&r, sql, NULL, 0));
    TRY(reader_next(&r, &got));
    if (!got)
        return TPKS_OK;
    tpks_value value = take_borrowed_blob(&r);
    TRY(r.result);
    return bytes_set(out, value.data, value.size);
}

/* Does the row hold these bytes now? */
static tpks_result check_stored(const database *d, const char *sql, const bytes *want)
{
    uint64_t found = 0;
    tpks_value value = value_bytes(want);

    TRY(read_integer(d, "wrapped DEK", sql, &value, 1, &found));
    return found == 1 ? TPKS_OK
                      : fail(TPKS_DATABASE_UNAVAILABLE,
                             "the wrapped DEK can't be read back; nothing was changed");
}

/* `set` names the parameters $1 (new) and, unless `was` is empty, $2 (old). */
static tpks_result replace(const database *d, const char *if_equal, const char *if_null,
                           const bytes *was, const bytes *now)
{
    const tpks_value values[] = {value_bytes(now), value_bytes(was)};

    return was->size == 0 ? run_one(d, if_null, values, 1) : run_one(d, if_equal, values, 2);
}

/* ---- 0.4 and 0.5 ---- */

/* As Django writes a time, in UTC; both engines read it. */
static void now_text(char out[40])
{
    time_t now = time(NULL);
    struct tm utc;

    gmtime_r(&now, &utc);
    strftime(out, 40, "%Y-%m-%d %H:%M:%S", &utc);
}

static tpks_result find_kek_row(const database *d, const tpks_value names[2], uint64_t *id)
{
    READER r = {.d = d, .table = "pki_pkcs11key"};
    bool got = false;

    TRY(reader_start(&r, "SELECT id FROM pki_pkcs11key WHERE token_label = $1 AND key_label = $2",
                     names, 2));
    TRY(reader_next(&r, &got));
    *id = got ? take_integer(&r) : 0;
    return r.result;
}

/* Trustpoint does not find its KEK without this row, whatever is on the token. */
static tpks_result name_kek(const database *d, const slot_row *slot)
{
    uint64_t has = 0, row = 0;
    char now[40];
    const tpks_value names[] = {value_text(slot->token_label), value_text(slot->kek_label)};

    TRY(read_integer(d, LEGACY_TABLE,
                     "SELECT COUNT(*) FROM " LEGACY_TABLE " WHERE id = 1 AND kek_id IS NOT NULL",
                     NULL, 0, &has));
    if (has != 0)
        return TPKS_OK;
    TRY(find_kek_row(d, names, &row));
    if (row == 0) {
        now_text(now);
        const tpks_value values[] = {names[0], names[1], value_text(now)};
        TRY(run_one(d,
                    "INSERT INTO pki_pkcs11key (token_label, key_label, key_type, created_at) "
                    "VALUES ($1, $2, 'aes', $3)",
                    values, 3));
        TRY(find_kek_row(d, names, &row));
    }
    const tpks_value id = value_integer(row);
    return run_one(d, "UPDATE " LEGACY_TABLE " SET kek_id = $1 WHERE id = 1 AND kek_id IS NULL",
                   &id, 1);
}

static tpks_result legacy_store(const database *d, const slot_row *slot, const bytes *was,
                                const wrap_row *wrap)
{
    TRY(replace(
        d, "UPDATE " LEGACY_TABLE " SET encrypted_dek = $1 WHERE id = 1 AND encrypted_dek = $2",
        "UPDATE " LEGACY_TABLE " SET encrypted_dek = $1 WHERE id = 1 AND " EMPTY("encrypted_dek"),
        was, &wrap->wrapped));
    TRY(name_kek(d, slot));
    return check_stored(d,
                        "SELECT COUNT(*) FROM " LEGACY_TABLE " WHERE id = 1 AND encrypted_dek = $1",
                        &wrap->wrapped);
}

static tpks_result legacy_read(const database *d, bytes *out)
{
    return read_bytes(d, "SELECT encrypted_dek FROM " LEGACY_TABLE " WHERE id = 1", out);
}

static tpks_result legacy_check_right(const database *d)
{
    return d->backend->run(d->db,
                           "UPDATE " LEGACY_TABLE " SET encrypted_dek = encrypted_dek WHERE 1 = 0",
                           NULL, 0, NULL);
}

const schema_rewrap trustpoint_legacy_rewrap = {
    .legacy = true,
    .check_right = legacy_check_right,
    .read = legacy_read,
    .store = legacy_store,
};

/* ---- 0.6 and later ---- */

static tpks_result store_envelope(const database *d, const bytes *was, const bytes *now)
{
    TRY(replace(d,
                "UPDATE " CURRENT_TABLE
                " SET wrapped_dek = $1 WHERE backend_id = 1 AND wrapped_dek = $2",
                "UPDATE " CURRENT_TABLE
                " SET wrapped_dek = $1 WHERE backend_id = 1 AND " EMPTY("wrapped_dek"),
                was, now));
    return check_stored(
        d, "SELECT COUNT(*) FROM " CURRENT_TABLE " WHERE backend_id = 1 AND wrapped_dek = $1", now);
}

static tpks_result current_store(const database *d, const slot_row *slot, const bytes *was,
                                 const wrap_row *wrap)
{
    BYTES envelope = {0};

    (void)slot;
    TRY(trustpoint_make_envelope(wrap, &envelope));
    return store_envelope(d, was, &envelope);
}

static tpks_result current_read(const database *d, bytes *out)
{
    return read_bytes(d, "SELECT wrapped_dek FROM " CURRENT_TABLE " WHERE backend_id = 1", out);
}

static tpks_result current_check_right(const database *d)
{
    return d->backend->run(
        d->db, "UPDATE " CURRENT_TABLE " SET wrapped_dek = wrapped_dek WHERE 1 = 0", NULL, 0, NULL);
}

const schema_rewrap trustpoint_current_rewrap = {
    .check_right = current_check_right,
    .read = current_read,
    .store = current_store,
};

/* ---- the restore ---- */

static const slot_row *kek_slot(const TPKS *ks)
{
    for (size_t i = 0; i < ks->head.slot_count; i++)
        if (slot_is_hsm(&ks->head.slots[i]))
            return &ks->head.slots[i];
    return NULL;
}

static tpks_result in_transaction(TPKS *ks, const slot_row *slot, const bytes *was,
                                  const wrap_row *wrap)
{
    const tpks_backend *backend = ks->d.backend;

    TRY(backend->begin(ks->d.db, true));
    tpks_result result = ks->schema->rewrap->store(&ks->d, slot, was, wrap);
    if (result == TPKS_OK)
        result = backend->commit(ks->d.db);
    if (result != TPKS_OK)
        backend->rollback(ks->d.db);
    return result;
}

/* The DEK under a new KEK, which has no label that Trustpoint would see yet. */
static tpks_result make_wrap(TPKS *ks, HSM *hsm, const slot_row *slot, wrap_row *out)
{
    SECRET *dek = NULL;
    unsigned char wrapped[WRAPPED_MAX], iv[16];
    size_t wrapped_size = 0, iv_size = 0;
    wrap_algorithm algorithm = WRAP_NONE;

    TRY(keystore_dek_copy(ks, &dek));
    TRY(hsm_make_trustpoint_kek(hsm, slot->kek_label, ks->schema->rewrap->legacy, dek, &algorithm,
                                wrapped, &wrapped_size, iv, &iv_size));
    out->algorithm = algorithm;
    TRY(bytes_set(&out->iv, iv, iv_size));
    return bytes_set(&out->wrapped, wrapped, wrapped_size);
}

/*
 * The KEK is gone for the wrapped DEK that was looked at, which may be long ago when somebody had
 * to be asked for the password. What another host has stored meanwhile is not written over.
 */
static tpks_result read_what_was_looked_at(TPKS *ks, bytes *was)
{
    bool same = false;

    TRY(ks->schema->rewrap->read(&ks->d, was));
    TRY(ks->schema->is_unchanged(&ks->d, ks->libctx, &ks->head, &same));
    return same ? TPKS_OK : fail(TPKS_CONFLICT, CONFLICT);
}

/* That nobody depends on the new KEK is sure only when another one was faster. */
static tpks_result store_or_discard(TPKS *ks, HSM *hsm, const slot_row *slot, const bytes *was,
                                    const wrap_row *wrap)
{
    tpks_result result = in_transaction(ks, slot, was, wrap);

    if (result != TPKS_CONFLICT)
        return result;
    if (hsm_discard_trustpoint_kek(hsm) != TPKS_OK)
        tpks_log(ks, "kek-not-discarded", "", TPKS_HSM_UNAVAILABLE);
    return fail(TPKS_CONFLICT, CONFLICT);
}

tpks_result trustpoint_restore(TPKS *ks)
{
    HSM_HANDLE *hsm = NULL;
    __attribute__((cleanup(wrap_row_clear))) wrap_row wrap = {0};
    BYTES was = {0};
    const slot_row *slot = kek_slot(ks);

    if (slot == NULL)
        return fail(TPKS_UNSUPPORTED, NO_KEK);
    TRY(read_what_was_looked_at(ks, &was));
    TRY(keystore_hsm_open(ks, true, &hsm));
    TRY(make_wrap(ks, hsm, slot, &wrap));
    TRY(store_or_discard(ks, hsm, slot, &was, &wrap));
    TRY(hsm_settle_trustpoint_kek(hsm, slot->kek_label));
    keystore_lock(ks);
    return keystore_reload(ks);
}

/* What was only encrypted comes back as something with any key. */
static bool wrap_has_integrity(const wrap_row *wrap)
{
    return wrap->algorithm == WRAP_TRUSTPOINT_CWRAP;
}

/* Does the KEK that has no label yet open what the database has? */
static bool next_is_current(TPKS *ks, HSM *hsm, const slot_row *slot)
{
    char label[KEK_LABEL_MAX];
    slot_row next = *slot;
    DEK *dek = NULL;

    snprintf(label, sizeof(label), "%s" HSM_NEXT_SUFFIX, slot->kek_label);
    next.kek_label = label;
    bool is = slot_open_hsm(ks->libctx, &ks->head, &next, hsm, "process", &dek) == TPKS_OK &&
              trustpoint_is_proven(&ks->d, dek, wrap_has_integrity(head_wrap(&ks->head, slot)));
    dek_free(dek);
    return is;
}

tpks_result trustpoint_resume(TPKS *ks)
{
    HSM_HANDLE *hsm = NULL;
    const slot_row *slot = kek_slot(ks);

    if (slot == NULL || head_wrap(&ks->head, slot) == NULL)
        return TPKS_OK;
    TRY(keystore_hsm_open(ks, true, &hsm));
    return next_is_current(ks, hsm, slot) ? hsm_settle_trustpoint_kek(hsm, slot->kek_label)
                                          : TPKS_OK;
}

/* 0.6 and later keep no copy of their own under a password. */
tpks_result trustpoint_check_way_back(TPKS *ks)
{
    TPKS *side = NULL;

    if (head_ways_back(&ks->head) != 0)
        return TPKS_OK;
    TRY(sidecar_get(ks, &side));
    if (side != NULL && head_ways_back(&side->head) != 0)
        return TPKS_OK;
    return fail(TPKS_KEK_MISSING,
                "this database has no copy of its DEK under a password, and none was added with "
                "trustpoint-keystore slot add password while its KEK worked: only the KEK itself "
                "helps, so bring the token back from a backup");
}

static tpks_result check_database(TPKS *ks)
{
    TRY(ks->d.backend->begin(ks->d.db, true));
    tpks_result result = ks->schema->rewrap->check_right(&ks->d);
    ks->d.backend->rollback(ks->d.db);
    return result;
}

static tpks_result check_token(TPKS *ks)
{
    HSM_HANDLE *hsm = NULL;
    const slot_row *slot = kek_slot(ks);

    if (slot == NULL)
        return fail(TPKS_UNSUPPORTED, NO_KEK);
    TRY(keystore_hsm_open(ks, true, &hsm));
    return hsm_check_trustpoint_kek(hsm, slot->kek_label);
}

tpks_result trustpoint_check_restorable(TPKS *ks)
{
    TRY(trustpoint_check_way_back(ks));
    TRY(check_database(ks));
    return check_token(ks);
}
