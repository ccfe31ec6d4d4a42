/* schema_native.c - the tables of native format 1 */
#include "schema.h"

#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "error.h"
#include "rows.h"
#include "slot.h"

/*
 * BYTEA and BIGINT are PostgreSQL's names; SQLite, whose columns take any type, stores byte
 * strings and 64-bit integers under them. Digests of certificates serve searches only.
 */
static const char *const create_statements[] = {
    "CREATE TABLE tpks_header (keystore BYTEA PRIMARY KEY, label TEXT NOT NULL,"
    " format BIGINT NOT NULL, required BIGINT NOT NULL, optional BIGINT NOT NULL,"
    " generation BIGINT NOT NULL, dek BYTEA NOT NULL, extension BYTEA NOT NULL,"
    " seal_nonce BYTEA NOT NULL, seal BYTEA NOT NULL)",
    "CREATE TABLE tpks_dek (keystore BYTEA NOT NULL, id BYTEA NOT NULL, state BIGINT NOT NULL,"
    " check_nonce BYTEA NOT NULL, check_value BYTEA NOT NULL, previous BYTEA NOT NULL,"
    " extension BYTEA NOT NULL, PRIMARY KEY (keystore, id))",
    "CREATE TABLE tpks_slot (keystore BYTEA NOT NULL, id BYTEA NOT NULL, kind BIGINT NOT NULL,"
    " state BIGINT NOT NULL, label TEXT NOT NULL, host TEXT NOT NULL, token_label TEXT NOT NULL,"
    " token_serial TEXT NOT NULL, cka_id BYTEA NOT NULL, kdf_version BIGINT NOT NULL,"
    " kdf_t BIGINT NOT NULL, kdf_m_kib BIGINT NOT NULL, kdf_p BIGINT NOT NULL,"
    " salt BYTEA NOT NULL, created BIGINT NOT NULL, extension BYTEA NOT NULL,"
    " PRIMARY KEY (keystore, id))",
    "CREATE TABLE tpks_wrap (keystore BYTEA NOT NULL, slot BYTEA NOT NULL, dek BYTEA NOT NULL,"
    " algorithm BIGINT NOT NULL, iv BYTEA NOT NULL, wrapped BYTEA NOT NULL,"
    " commitment BYTEA NOT NULL, extension BYTEA NOT NULL, PRIMARY KEY (keystore, slot, dek))",
    "CREATE TABLE tpks_record (keystore BYTEA NOT NULL, id BYTEA NOT NULL, name TEXT NOT NULL,"
    " version BIGINT NOT NULL, dek BYTEA NOT NULL, key_type TEXT NOT NULL, spki BYTEA NOT NULL,"
    " spki_sha256 BYTEA NOT NULL, policy BIGINT NOT NULL, created BIGINT NOT NULL,"
    " changed BIGINT NOT NULL, seal_algorithm BIGINT NOT NULL, certs_digest BYTEA NOT NULL,"
    " token_serial TEXT NOT NULL, cka_id BYTEA NOT NULL, extension BYTEA NOT NULL,"
    " nonce BYTEA NOT NULL, sealed BYTEA NOT NULL, PRIMARY KEY (keystore, id),"
    " UNIQUE (keystore, name))",
    "CREATE INDEX tpks_record_spki ON tpks_record (keystore, spki_sha256)",
    "CREATE TABLE tpks_certificate (keystore BYTEA NOT NULL, record BYTEA NOT NULL,"
    " position BIGINT NOT NULL, der BYTEA NOT NULL, sha256 BYTEA NOT NULL, sha1 BYTEA NOT NULL,"
    " subject BYTEA NOT NULL, issuer BYTEA NOT NULL, serial BYTEA NOT NULL,"
    " PRIMARY KEY (keystore, record, position))",
    "CREATE INDEX tpks_certificate_sha256 ON tpks_certificate (keystore, sha256)",
    "CREATE INDEX tpks_certificate_sha1 ON tpks_certificate (keystore, sha1)",
    "CREATE INDEX tpks_certificate_subject ON tpks_certificate (keystore, subject)",
    "CREATE INDEX tpks_certificate_serial ON tpks_certificate (keystore, serial)",
};

#define RECORD_COLUMNS                                                                             \
    "r.id, r.name, r.version, r.dek, r.key_type, r.spki, r.spki_sha256, r.policy, r.created,"      \
    " r.changed, r.seal_algorithm, r.certs_digest, r.token_serial, r.cka_id, r.extension,"         \
    " r.nonce, r.sealed"

static tpks_result run(const database *d, const char *sql, const tpks_value *values, size_t count,
                       uint64_t *changed)
{
    return d->backend->run(d->db, sql, values, count, changed);
}

/* ---- header, DEKs, slots, wraps ---- */

tpks_result native_create(const database *d)
{
    for (size_t i = 0; i < COUNT(create_statements); i++)
        TRY(run(d, create_statements[i], NULL, 0, NULL));
    return d->backend->mark(d->db, NATIVE_FORMAT);
}

tpks_result native_recognise(const database *d)
{
    tpks_db_identity identity = {0};
    const char *where = d->backend->describe(d->db);

    TRY(d->backend->identity(d->db, &identity));
    if (identity.empty)
        return fail(TPKS_NOT_A_KEYSTORE,
                    "%s is empty, not a keystore: remove it and run trustpoint-keystore init, or "
                    "restore a backup over it",
                    where);
    if (!identity.marked)
        return fail(TPKS_NOT_A_KEYSTORE,
                    "%s is a database of some other program, not a keystore: check the directive "
                    "`store`",
                    where);
    if (identity.format > NATIVE_FORMAT)
        return fail(TPKS_NEWER_FORMAT,
                    "%s has keystore format %u; this version knows format %d: use a newer version",
                    where, identity.format, NATIVE_FORMAT);
    return TPKS_OK;
}

static tpks_result read_header(const database *d, head *h)
{
    READER r = {.d = d, .table = "tpks_header"};
    bool got = false;

    TRY(reader_start(&r,
                     "SELECT keystore, label, format, required, optional, generation, dek,"
                     " extension, seal_nonce, seal FROM tpks_header",
                     NULL, 0));
    TRY(reader_next(&r, &got));
    if (!got)
        return fail(TPKS_TAMPERED, "%s has no keystore header: restore it from a backup",
                    d->backend->describe(d->db));
    take_fixed(&r, h->keystore, sizeof(h->keystore));
    take_text(&r, &h->label);
    h->format = take_integer(&r);
    h->required = take_integer(&r);
    h->optional = take_integer(&r);
    h->generation = take_integer(&r);
    take_fixed(&r, h->dek, sizeof(h->dek));
    take_bytes(&r, &h->extension);
    take_fixed(&r, h->seal_nonce, sizeof(h->seal_nonce));
    take_fixed(&r, h->seal, sizeof(h->seal));
    TRY(take_end(&r, &h->extension));
    if (h->format != NATIVE_FORMAT || h->required != 0)
        return fail(TPKS_NEWER_FORMAT,
                    "%s needs features that this version does not know: use a newer version",
                    d->backend->describe(d->db));
    TRY(reader_next(&r, &got));
    if (got)
        return fail(TPKS_TAMPERED, "%s has two keystore headers: restore it from a backup",
                    d->backend->describe(d->db));
    return TPKS_OK;
}

static tpks_result read_deks(const database *d, head *h)
{
    READER r = {.d = d, .table = "tpks_dek"};
    tpks_value key[] = {value_blob(h->keystore, TPKS_ID_SIZE)};

    TRY(reader_start(&r,
                     "SELECT id, state, check_nonce, check_value, previous, extension"
                     " FROM tpks_dek WHERE keystore = $1 ORDER BY id",
                     key, COUNT(key)));
    for (bool got;;) {
        TRY(reader_next(&r, &got));
        if (!got)
            return TPKS_OK;
        dek_row *rows = take_row(&r, h->deks, &h->dek_count, sizeof(*rows), SLOTS_MAX);
        if (rows == NULL)
            return r.result;
        h->deks = rows;
        dek_row *dek = &rows[h->dek_count - 1];
        take_fixed(&r, dek->id, sizeof(dek->id));
        dek->state = take_integer(&r);
        take_fixed(&r, dek->check_nonce, sizeof(dek->check_nonce));
        take_fixed(&r, dek->check_value, sizeof(dek->check_value));
        take_bytes(&r, &dek->previous);
        take_bytes(&r, &dek->extension);
        TRY(take_end(&r, &dek->extension));
    }
}

static void take_slot(reader *r, slot_row *slot)
{
    take_fixed(r, slot->id, sizeof(slot->id));
    slot->kind = take_integer(r);
    slot->state = take_integer(r);
    take_text(r, &slot->label);
    take_text(r, &slot->host);
    take_text(r, &slot->token_label);
    take_text(r, &slot->token_serial);
    take_bytes(r, &slot->cka_id);
    slot->kdf_version = take_small(r);
    slot->cost.t = take_small(r);
    slot->cost.m_kib = take_small(r);
    slot->cost.p = take_small(r);
    take_bytes(r, &slot->salt);
    slot->created = (int64_t)take_integer(r);
    take_bytes(r, &slot->extension);
    bool hsm = slot_is_hsm(slot);
    bool secret = slot->kind == SLOT_PASSWORD || slot->kind == SLOT_RECOVERY;
    if (slot->cka_id.size != (hsm ? CKA_ID_SIZE : 0) ||
        slot->salt.size != (secret ? KDF_SALT_SIZE : 0))
        malformed(r);
}

static tpks_result read_slots(const database *d, head *h)
{
    READER r = {.d = d, .table = "tpks_slot"};
    tpks_value key[] = {value_blob(h->keystore, TPKS_ID_SIZE)};

    TRY(reader_start(&r,
                     "SELECT id, kind, state, label, host, token_label, token_serial, cka_id,"
                     " kdf_version, kdf_t, kdf_m_kib, kdf_p, salt, created, extension"
                     " FROM tpks_slot WHERE keystore = $1 ORDER BY id",
                     key, COUNT(key)));
    for (bool got;;) {
        TRY(reader_next(&r, &got));
        if (!got)
            return TPKS_OK;
        slot_row *rows = take_row(&r, h->slots, &h->slot_count, sizeof(*rows), SLOTS_MAX);
        if (rows == NULL)
            return r.result;
        h->slots = rows;
        take_slot(&r, &rows[h->slot_count - 1]);
        TRY(take_end(&r, &rows[h->slot_count - 1].extension));
    }
}

static tpks_result read_wraps(const database *d, head *h)
{
    READER r = {.d = d, .table = "tpks_wrap"};
    tpks_value key[] = {value_blob(h->keystore, TPKS_ID_SIZE)};

    TRY(reader_start(&r,
                     "SELECT slot, dek, algorithm, iv, wrapped, commitment, extension"
                     " FROM tpks_wrap WHERE keystore = $1 ORDER BY slot, dek",
                     key, COUNT(key)));
    for (bool got;;) {
        TRY(reader_next(&r, &got));
        if (!got)
            return TPKS_OK;
        wrap_row *rows = take_row(&r, h->wraps, &h->wrap_count, sizeof(*rows), SLOTS_MAX);
        if (rows == NULL)
            return r.result;
        h->wraps = rows;
        wrap_row *wrap = &rows[h->wrap_count - 1];
        take_fixed(&r, wrap->slot, sizeof(wrap->slot));
        take_fixed(&r, wrap->dek, sizeof(wrap->dek));
        wrap->algorithm = take_small(&r);
        take_bytes(&r, &wrap->iv);
        take_bytes(&r, &wrap->wrapped);
        take_bytes(&r, &wrap->commitment);
        take_bytes(&r, &wrap->extension);
        if (wrap->iv.size > 16 || wrap->wrapped.size > WRAPPED_MAX)
            malformed(&r);
        TRY(take_end(&r, &wrap->extension));
    }
}

tpks_result native_read_head(const database *d, head *out)
{
    head_clear(out);
    TRY(read_header(d, out));
    TRY(read_deks(d, out));
    TRY(read_slots(d, out));
    TRY(read_wraps(d, out));
    if (head_dek(out, out->dek) == NULL)
        return fail(TPKS_TAMPERED,
                    "%s: the header names a DEK that is not there: restore the "
                    "database from a backup",
                    d->backend->describe(d->db));
    return TPKS_OK;
}

/* Are the stored generation and seal still those of `h`? */
static tpks_result is_unchanged(const database *d, OSSL_LIB_CTX *libctx, const head *h, bool *out)
{
    READER r = {.d = d, .table = "tpks_header"};
    tpks_value values[] = {value_blob(h->keystore, TPKS_ID_SIZE), value_integer(h->generation),
                           value_blob(h->seal, sizeof(h->seal))};

    (void)libctx;
    TRY(reader_start(&r,
                     "SELECT 1 FROM tpks_header WHERE keystore = $1 AND generation = $2"
                     " AND seal = $3",
                     values, COUNT(values)));
    return reader_next(&r, out);
}

static tpks_result insert_dek(const database *d, const head *h, const dek_row *dek)
{
    tpks_value values[] = {
        value_blob(h->keystore, TPKS_ID_SIZE),
        value_blob(dek->id, TPKS_ID_SIZE),
        value_integer(dek->state),
        value_blob(dek->check_nonce, sizeof(dek->check_nonce)),
        value_blob(dek->check_value, sizeof(dek->check_value)),
        value_bytes(&dek->previous),
        value_bytes(&dek->extension),
    };

    return run(d,
               "INSERT INTO tpks_dek (keystore, id, state, check_nonce, check_value, previous,"
               " extension) VALUES ($1, $2, $3, $4, $5, $6, $7)",
               values, COUNT(values), NULL);
}

static tpks_result insert_wrap(const database *d, const head *h, const wrap_row *wrap)
{
    tpks_value values[] = {
        value_blob(h->keystore, TPKS_ID_SIZE),
        value_blob(wrap->slot, TPKS_ID_SIZE),
        value_blob(wrap->dek, TPKS_ID_SIZE),
        value_integer(wrap->algorithm),
        value_bytes(&wrap->iv),
        value_bytes(&wrap->wrapped),
        value_bytes(&wrap->commitment),
        value_bytes(&wrap->extension),
    };

    return run(d,
               "INSERT INTO tpks_wrap (keystore, slot, dek, algorithm, iv, wrapped, commitment,"
               " extension) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
               values, COUNT(values), NULL);
}

static tpks_result insert_slot(const database *d, const head *h, const slot_row *slot)
{
    tpks_value values[] = {
        value_blob(h->keystore, TPKS_ID_SIZE),
        value_blob(slot->id, TPKS_ID_SIZE),
        value_integer(slot->kind),
        value_integer(slot->state),
        value_text(slot->label),
        value_text(slot->host),
        value_text(slot->token_label),
        value_text(slot->token_serial),
        value_bytes(&slot->cka_id),
        value_integer(slot->kdf_version),
        value_integer(slot->cost.t),
        value_integer(slot->cost.m_kib),
        value_integer(slot->cost.p),
        value_bytes(&slot->salt),
        value_integer((uint64_t)slot->created),
        value_bytes(&slot->extension),
    };

    return run(d,
               "INSERT INTO tpks_slot (keystore, id, kind, state, label, host, token_label,"
               " token_serial, cka_id, kdf_version, kdf_t, kdf_m_kib, kdf_p, salt, created,"
               " extension) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
               " $15, $16)",
               values, COUNT(values), NULL);
}

/* Every slot and every wrap that the head has. */
static tpks_result insert_slots(const database *d, const head *h)
{
    for (size_t i = 0; i < h->slot_count; i++)
        TRY(insert_slot(d, h, &h->slots[i]));
    for (size_t i = 0; i < h->wrap_count; i++)
        TRY(insert_wrap(d, h, &h->wraps[i]));
    return TPKS_OK;
}

tpks_result native_replace_slots(const database *d, const head *h)
{
    tpks_value key[] = {value_blob(h->keystore, TPKS_ID_SIZE)};

    TRY(run(d, "DELETE FROM tpks_wrap WHERE keystore = $1", key, COUNT(key), NULL));
    TRY(run(d, "DELETE FROM tpks_slot WHERE keystore = $1", key, COUNT(key), NULL));
    return insert_slots(d, h);
}

tpks_result native_insert_head(const database *d, const head *h)
{
    tpks_value values[] = {
        value_blob(h->keystore, TPKS_ID_SIZE),
        value_text(h->label),
        value_integer(h->format),
        value_integer(h->required),
        value_integer(h->optional),
        value_integer(h->generation),
        value_blob(h->dek, TPKS_ID_SIZE),
        value_bytes(&h->extension),
        value_blob(h->seal_nonce, sizeof(h->seal_nonce)),
        value_blob(h->seal, sizeof(h->seal)),
    };

    TRY(run(d,
            "INSERT INTO tpks_header (keystore, label, format, required, optional, generation,"
            " dek, extension, seal_nonce, seal) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            values, COUNT(values), NULL));
    for (size_t i = 0; i < h->dek_count; i++)
        TRY(insert_dek(d, h, &h->deks[i]));
    return insert_slots(d, h);
}

tpks_result native_replace_head(const database *d, const head *h)
{
    /* The damaged rows may not even carry the right keystore id. */
    TRY(run(d, "DELETE FROM tpks_header", NULL, 0, NULL));
    TRY(run(d, "DELETE FROM tpks_dek", NULL, 0, NULL));
    TRY(run(d, "DELETE FROM tpks_wrap", NULL, 0, NULL));
    TRY(run(d, "DELETE FROM tpks_slot", NULL, 0, NULL));
    return native_insert_head(d, h);
}

tpks_result native_advance(const database *d, const head *h, uint64_t generation,
                           const unsigned char seal[PROOF_SIZE])
{
    uint64_t changed = 0;
    tpks_value values[] = {
        value_integer(h->generation),
        value_blob(h->seal_nonce, sizeof(h->seal_nonce)),
        value_blob(h->seal, sizeof(h->seal)),
        value_blob(h->keystore, TPKS_ID_SIZE),
        value_integer(generation),
        value_blob(seal, PROOF_SIZE),
    };

    TRY(run(d,
            "UPDATE tpks_header SET generation = $1, seal_nonce = $2, seal = $3"
            " WHERE keystore = $4 AND generation = $5 AND seal = $6",
            values, COUNT(values), &changed));
    if (changed != 1)
        return fail(TPKS_CONFLICT, "another process changed the keystore meanwhile: try again");
    return TPKS_OK;
}

/* ---- records ---- */

static tpks_result insert_certs(const database *d, OSSL_LIB_CTX *libctx, const TPKS_RECORD *record)
{
    for (size_t i = 0; i < record->cert_count; i++) {
        cert_index index;
        TRY(cert_index_make(libctx, &record->certs[i], &index));
        tpks_value values[] = {
            value_blob(record->keystore, TPKS_ID_SIZE),
            value_blob(record->id, TPKS_ID_SIZE),
            value_integer(i),
            value_bytes(&record->certs[i]),
            value_blob(index.sha256, sizeof(index.sha256)),
            value_blob(index.sha1, sizeof(index.sha1)),
            value_blob(index.subject, sizeof(index.subject)),
            value_blob(index.issuer, sizeof(index.issuer)),
            value_blob(index.serial, index.serial_size),
        };
        TRY(run(d,
                "INSERT INTO tpks_certificate (keystore, record, position, der, sha256, sha1,"
                " subject, issuer, serial) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                values, COUNT(values), NULL));
    }
    return TPKS_OK;
}

static tpks_result delete_certs(const database *d, const TPKS_RECORD *record)
{
    tpks_value values[] = {value_blob(record->keystore, TPKS_ID_SIZE),
                           value_blob(record->id, TPKS_ID_SIZE)};

    return run(d, "DELETE FROM tpks_certificate WHERE keystore = $1 AND record = $2", values,
               COUNT(values), NULL);
}

#define RECORD_VALUES(record)                                                                      \
    value_blob((record)->keystore, TPKS_ID_SIZE), value_blob((record)->id, TPKS_ID_SIZE),          \
        value_text((record)->name), value_integer((record)->version),                              \
        value_blob((record)->dek, TPKS_ID_SIZE), value_text((record)->key_type),                   \
        value_bytes(&(record)->spki), value_blob((record)->spki_sha256, SHA256_SIZE),              \
        value_integer((record)->policy), value_integer((uint64_t)(record)->created),               \
        value_integer((uint64_t)(record)->changed), value_integer((record)->seal_algorithm),       \
        value_blob((record)->certs_digest, SHA256_SIZE), value_text((record)->token_serial),       \
        value_bytes(&(record)->cka_id), value_bytes(&(record)->extension),                         \
        value_blob((record)->nonce, NONCE_SIZE), value_bytes(&(record)->sealed)

tpks_result native_insert_record(const database *d, OSSL_LIB_CTX *libctx, const TPKS_RECORD *record)
{
    tpks_value values[] = {RECORD_VALUES(record)};
    tpks_result result =
        run(d,
            "INSERT INTO tpks_record (keystore, id, name, version, dek, key_type, spki,"
            " spki_sha256, policy, created, changed, seal_algorithm, certs_digest, token_serial,"
            " cka_id, extension, nonce, sealed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
            " $11, $12, $13, $14, $15, $16, $17, $18)",
            values, COUNT(values), NULL);

    if (result == TPKS_EXISTS)
        return fail(TPKS_EXISTS,
                    "a record named \"%s\" exists already: choose another name, or "
                    "renew it with set-cert",
                    record->name);
    TRY(result);
    return insert_certs(d, libctx, record);
}

tpks_result native_update_record(const database *d, OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                                 uint64_t was)
{
    tpks_value values[] = {RECORD_VALUES(record), value_integer(was)};
    uint64_t changed = 0;
    tpks_result result =
        run(d,
            "UPDATE tpks_record SET name = $3, version = $4, dek = $5, key_type = $6, spki = $7,"
            " spki_sha256 = $8, policy = $9, created = $10, changed = $11, seal_algorithm = $12,"
            " certs_digest = $13, token_serial = $14, cka_id = $15, extension = $16,"
            " nonce = $17, sealed = $18 WHERE keystore = $1 AND id = $2 AND version = $19",
            values, COUNT(values), &changed);

    if (result == TPKS_EXISTS)
        return fail(TPKS_EXISTS, "a record named \"%s\" exists already: choose another name",
                    record->name);
    TRY(result);
    if (changed != 1)
        return fail(TPKS_CONFLICT,
                    "record \"%s\" was changed or removed meanwhile: look at it and try again",
                    record->name);
    TRY(delete_certs(d, record));
    return insert_certs(d, libctx, record);
}

tpks_result native_delete_record(const database *d, const TPKS_RECORD *record)
{
    uint64_t changed = 0;
    tpks_value values[] = {value_blob(record->keystore, TPKS_ID_SIZE),
                           value_blob(record->id, TPKS_ID_SIZE), value_integer(record->version)};

    TRY(run(d, "DELETE FROM tpks_record WHERE keystore = $1 AND id = $2 AND version = $3", values,
            COUNT(values), &changed));
    if (changed != 1)
        return fail(TPKS_CONFLICT,
                    "record \"%s\" was changed or removed meanwhile: look at it and try again",
                    record->name);
    return delete_certs(d, record);
}

static tpks_result count_records(const database *d, const char *sql, const head *h, uint64_t *out)
{
    tpks_value key[] = {value_blob(h->keystore, TPKS_ID_SIZE)};

    return read_integer(d, "tpks_record", sql, key, COUNT(key), out);
}

static tpks_result count_all(const database *d, const head *h, uint64_t *out)
{
    return count_records(d, "SELECT count(*) FROM tpks_record WHERE keystore = $1", h, out);
}

static tpks_result count_in_token(const database *d, const head *h, uint64_t *out)
{
    char sql[128];

    snprintf(sql, sizeof(sql),
             "SELECT count(*) FROM tpks_record WHERE keystore = $1 AND seal_algorithm = %d",
             SEAL_TOKEN);
    return count_records(d, sql, h, out);
}

tpks_result native_count_strangers(const database *d, const head *h, uint64_t *out)
{
    return count_records(d, "SELECT count(*) FROM tpks_record WHERE keystore <> $1", h, out);
}

static tpks_result read_certs(const database *d, TPKS_RECORD *record)
{
    READER r = {.d = d, .table = "tpks_certificate"};
    tpks_value key[] = {value_blob(record->keystore, TPKS_ID_SIZE),
                        value_blob(record->id, TPKS_ID_SIZE)};

    TRY(reader_start(&r,
                     "SELECT position, der FROM tpks_certificate"
                     " WHERE keystore = $1 AND record = $2 ORDER BY position",
                     key, COUNT(key)));
    for (bool got;;) {
        TRY(reader_next(&r, &got));
        if (!got)
            return TPKS_OK;
        bytes *certs = take_row(&r, record->certs, &record->cert_count, sizeof(*certs), CERTS_MAX);
        if (certs == NULL)
            return r.result;
        record->certs = certs;
        if (take_integer(&r) != record->cert_count - 1)
            malformed(&r);
        take_bytes(&r, &certs[record->cert_count - 1]);
        TRY(r.result);
    }
}

static tpks_result take_record(reader *r, const head *h, TPKS_RECORD *record)
{
    memcpy(record->keystore, h->keystore, TPKS_ID_SIZE);
    take_fixed(r, record->id, TPKS_ID_SIZE);
    take_text(r, &record->name);
    record->version = take_integer(r);
    take_fixed(r, record->dek, TPKS_ID_SIZE);
    take_text(r, &record->key_type);
    take_bytes(r, &record->spki);
    take_fixed(r, record->spki_sha256, SHA256_SIZE);
    record->policy = take_integer(r);
    record->created = (int64_t)take_integer(r);
    record->changed = (int64_t)take_integer(r);
    record->seal_algorithm = take_integer(r);
    take_fixed(r, record->certs_digest, SHA256_SIZE);
    take_text(r, &record->token_serial);
    take_bytes(r, &record->cka_id);
    take_bytes(r, &record->extension);
    take_fixed(r, record->nonce, NONCE_SIZE);
    take_bytes(r, &record->sealed);
    return take_end(r, &record->extension);
}

/* A query over records whose conditions are put together from fixed text, values apart. */
typedef struct search {
    char sql[2048];
    tpks_value values[9];
    size_t count;
    unsigned char subject[SHA256_SIZE];
    unsigned char issuer[SHA256_SIZE];
} search;

static void search_and(search *s, const char *condition, tpks_value value)
{
    size_t used = strlen(s->sql);

    s->values[s->count++] = value;
    snprintf(s->sql + used, sizeof(s->sql) - used, " AND %s = $%zu", condition, s->count);
}

/* The same for the leaf certificate. */
static void search_leaf(search *s, const char *column, tpks_value value)
{
    size_t used = strlen(s->sql);

    s->values[s->count++] = value;
    snprintf(s->sql + used, sizeof(s->sql) - used,
             " AND r.id IN (SELECT record FROM tpks_certificate WHERE keystore = $1"
             " AND position = 0 AND %s = $%zu)",
             column, s->count);
}

static tpks_result search_build(search *s, OSSL_LIB_CTX *libctx, const head *h,
                                const tpks_selector *by)
{
    snprintf(s->sql, sizeof(s->sql),
             "SELECT " RECORD_COLUMNS " FROM tpks_record r WHERE r.keystore = $1");
    s->values[s->count++] = value_blob(h->keystore, TPKS_ID_SIZE);
    if (by != NULL && by->name != NULL)
        search_and(s, "r.name", value_text(by->name));
    if (by != NULL && by->id != NULL)
        search_and(s, "r.id", value_blob(by->id, TPKS_ID_SIZE));
    if (by != NULL && by->spki_sha256 != NULL)
        search_and(s, "r.spki_sha256", value_blob(by->spki_sha256, SHA256_SIZE));
    if (by != NULL && by->cert_sha256 != NULL)
        search_leaf(s, "sha256", value_blob(by->cert_sha256, SHA256_SIZE));
    if (by != NULL && by->cert_sha1 != NULL)
        search_leaf(s, "sha1", value_blob(by->cert_sha1, 20));
    if (by != NULL && by->subject != NULL) {
        TRY(sha256(libctx, by->subject, by->subject_size, s->subject));
        search_leaf(s, "subject", value_blob(s->subject, SHA256_SIZE));
    }
    if (by != NULL && by->issuer != NULL) {
        TRY(sha256(libctx, by->issuer, by->issuer_size, s->issuer));
        search_leaf(s, "issuer", value_blob(s->issuer, SHA256_SIZE));
    }
    if (by != NULL && by->serial != NULL)
        search_leaf(s, "serial", value_blob(by->serial, by->serial_size));
    strcat(s->sql, " ORDER BY r.name");
    return TPKS_OK;
}

/* The attributes that only Trustpoint's databases have. */
static const char *foreign_attribute(const tpks_selector *by)
{
    const struct {
        const char *name;
        const char *value;
    } attributes[] = {
        {"role", by->role},     {"credential", by->credential}, {"ca", by->ca},
        {"signer", by->signer}, {"owner", by->owner},           {"device", by->device},
        {"cn", by->cn},         {"alias", by->alias},
    };

    for (size_t i = 0; i < COUNT(attributes); i++)
        if (attributes[i].value != NULL)
            return attributes[i].name;
    return NULL;
}

static tpks_result check_ours(const database *d, const tpks_selector *by)
{
    const char *attribute = by == NULL ? NULL : foreign_attribute(by);

    if (attribute == NULL)
        return TPKS_OK;
    return fail(TPKS_NOT_FOUND,
                "only a Trustpoint database has records by %s=, and %s is none: choose the record "
                "by its name, see trustpoint-keystore list",
                attribute, d->backend->describe(d->db));
}

static tpks_result read_record(reader *r, OSSL_LIB_CTX *libctx, const head *h,
                               const tpks_selector *selector, TPKS_RECORD *record)
{
    TRY(take_record(r, h, record));
    TRY(read_certs(r->d, record));
    return record_check_match(libctx, record, selector);
}

tpks_result native_each_readable(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                 const tpks_selector *selector, schema_each_fn *each,
                                 schema_bad_fn *bad, void *arg)
{
    READER r = {.d = d, .table = "tpks_record"};
    search s = {0};

    TRY(check_ours(d, selector));
    TRY(search_build(&s, libctx, h, selector));
    TRY(reader_start(&r, s.sql, s.values, s.count));
    for (bool got;;) {
        TRY(reader_next(&r, &got));
        if (!got)
            return TPKS_OK;
        RECORD *record = OPENSSL_zalloc(sizeof(*record));
        if (record == NULL)
            return fail_memory();
        tpks_result result = read_record(&r, libctx, h, selector, record);
        if (result == TPKS_OK)
            TRY(each(arg, record));
        else if (bad == NULL || !schema_is_of_row(result))
            return result;
        else
            TRY(bad(arg, record, result));
    }
}

tpks_result native_each_record(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                               const tpks_selector *selector, schema_each_fn *each, void *arg)
{
    return native_each_readable(d, libctx, h, selector, each, NULL, arg);
}

/* ---- as any schema ---- */

static tpks_result read_head(const database *d, OSSL_LIB_CTX *libctx, head *out)
{
    (void)libctx;
    return native_read_head(d, out);
}

static tpks_result prove_dek(const database *d, OSSL_LIB_CTX *libctx, const head *h, DEK *dek)
{
    (void)d;
    (void)libctx;
    return head_prove_dek(h, dek);
}

static tpks_result open_software(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                 const char *state_dir, DEK **out)
{
    (void)d;
    return slot_open_software(libctx, h, state_dir, out);
}

static bool needs_dek(const TPKS_RECORD *record)
{
    (void)record;
    return true;
}

static tpks_result open_record(const database *d, OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                               DEK *dek, TPKS_SECRET **pkcs8)
{
    (void)d;
    (void)libctx;
    return record_open(record, dek, pkcs8);
}

const schema schema_native = {
    .name = "native 1",
    .read_head = read_head,
    .is_unchanged = is_unchanged,
    .prove_dek = prove_dek,
    .check_head = head_check_seal,
    .open_software = open_software,
    .count_records = count_all,
    .count_in_token = count_in_token,
    .each_record = native_each_record,
    .each_readable = native_each_readable,
    .needs_dek = needs_dek,
    .open_record = open_record,
};
