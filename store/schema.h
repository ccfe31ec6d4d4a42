/*
 * schema.h - what the rows mean
 *
 * A schema turns rows into the same heads and records, whoever wrote them: native format 1 (the
 * tables tpks_...), or Trustpoint (its own tables, which are only read). Every value is checked for
 * type and size as it is read, before anyone interprets it. Transactions are the caller's.
 */
#ifndef TRUSTPOINT_SCHEMA_H
#define TRUSTPOINT_SCHEMA_H

#include "backend.h"
#include "record.h"

/* An open database with the plugin that speaks to it. */
typedef struct database {
    const tpks_backend *backend;
    tpks_db *db;
    const struct trustpoint_tables *tables; /* what Trustpoint calls them; NULL: they are ours */
} database;

/* Takes over nothing: whoever is called frees the record after it. */
typedef tpks_result schema_each_fn(void *arg, TPKS_RECORD *record);

/* Called with what could be read of a record that is not as it should be: not for use, but for
 * naming it, which the error's text does not do. */
typedef tpks_result schema_bad_fn(void *arg, const TPKS_RECORD *record, tpks_result result);

/* What is wrong with one row says nothing about the others. */
static inline bool schema_is_of_row(tpks_result result)
{
    return result == TPKS_TAMPERED || result == TPKS_NEWER_FORMAT;
}

/* What a restore writes into a database whose other rows are never changed. */
typedef struct schema_rewrap {
    bool legacy; /* which kind of KEK: see hsm_make_trustpoint_kek() */
    /* Runs what needs the right to store(), without effect; inside a transaction. */
    tpks_result (*check_right)(const database *d);
    /* The wrapped DEK as it is stored; empty: none. */
    tpks_result (*read)(const database *d, bytes *out);
    /* Puts `wrap` in its place while it is still `was`; inside a transaction. TPKS_CONFLICT. */
    tpks_result (*store)(const database *d, const slot_row *slot, const bytes *was,
                         const wrap_row *wrap);
} schema_rewrap;

/* Reading, which every schema can. `d` is open on a database that the schema has recognised. */
typedef struct schema {
    const char *name; /* as tpks_schema_name() says it */
    /* Why keystore.h's changes don't exist here, with what to do instead; NULL: they do. */
    const char *read_only;
    const schema_rewrap *rewrap; /* how a restore changes it all the same; NULL: it does not */

    /* On failure `out` has what could be read: not for use, only to be cleared. */
    tpks_result (*read_head)(const database *d, OSSL_LIB_CTX *libctx, head *out);
    /* Would read_head() still give `h`? */
    tpks_result (*is_unchanged)(const database *d, OSSL_LIB_CTX *libctx, const head *h, bool *out);
    /* Is `dek` the one of this database? One error, TPKS_TAMPERED, for every way of failing. Runs
       inside or outside of a transaction. */
    tpks_result (*prove_dek)(const database *d, OSSL_LIB_CTX *libctx, const head *h, DEK *dek);
    /* With a proven DEK: is the head as its owner left it? NULL: nobody could tell. */
    tpks_result (*check_head)(const head *h, DEK *dek);
    /* The DEK of storage without an HSM. */
    tpks_result (*open_software)(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                 const char *state_dir, DEK **out);

    tpks_result (*count_records)(const database *d, const head *h, uint64_t *out);
    /* Those whose key lives in a token. */
    tpks_result (*count_in_token)(const database *d, const head *h, uint64_t *out);
    /*
     * Calls `each` with every matching record and its certificates, ordered by name (those of
     * Trustpoint: by number); frees it after. The database's word for a match is not taken:
     * TPKS_TAMPERED.
     */
    tpks_result (*each_record)(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                               const tpks_selector *selector, schema_each_fn *each, void *arg);
    /*
     * The same, but goes on behind a record that can't be read (TPKS_TAMPERED,
     * TPKS_NEWER_FORMAT): calls `bad` for it (NULL: the walk ends there).
     */
    tpks_result (*each_readable)(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                 const tpks_selector *selector, schema_each_fn *each,
                                 schema_bad_fn *bad, void *arg);
    /* Must the keystore be unlocked before open_record()? */
    bool (*needs_dek)(const TPKS_RECORD *record);
    /* PKCS#8 DER; `dek` is NULL where it is not needed. */
    tpks_result (*open_record)(const database *d, OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                               DEK *dek, TPKS_SECRET **pkcs8);
} schema;

extern const schema schema_native;

/* Whose database is it? TPKS_NOT_A_KEYSTORE, TPKS_NEWER_FORMAT. */
TPKS_CHECK tpks_result schema_recognise(database *d, const schema **out);

/* ---- native format 1, with its changes ---- */

/* Makes the tables and marks the database; inside a transaction. */
TPKS_CHECK tpks_result native_create(const database *d);
/* Is there a keystore in it, of a format that we know? */
TPKS_CHECK tpks_result native_recognise(const database *d);
TPKS_CHECK tpks_result native_read_head(const database *d, head *out);
/* The first time, with every DEK, slot and wrap. */
TPKS_CHECK tpks_result native_insert_head(const database *d, const head *h);
/* In place of whatever header, DEKs, slots and wraps there are. */
TPKS_CHECK tpks_result native_replace_head(const database *d, const head *h);
/*
 * Writes generation and seal where they are still the ones given: the seal too, for a copy of the
 * database that was put in its place may have come to the same generation on another way.
 * TPKS_CONFLICT: someone else was faster.
 */
TPKS_CHECK tpks_result native_advance(const database *d, const head *h, uint64_t generation,
                                      const unsigned char seal[PROOF_SIZE]);
/* Makes the stored slots and wraps those of `h`. */
TPKS_CHECK tpks_result native_replace_slots(const database *d, const head *h);

TPKS_CHECK tpks_result native_insert_record(const database *d, OSSL_LIB_CTX *libctx,
                                            const TPKS_RECORD *record);
/* Replaces the record that still has version `was`. TPKS_CONFLICT. */
TPKS_CHECK tpks_result native_update_record(const database *d, OSSL_LIB_CTX *libctx,
                                            const TPKS_RECORD *record, uint64_t was);
TPKS_CHECK tpks_result native_delete_record(const database *d, const TPKS_RECORD *record);
/* Records that carry another keystore's id than `h`. */
TPKS_CHECK tpks_result native_count_strangers(const database *d, const head *h, uint64_t *out);

TPKS_CHECK tpks_result native_each_record(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                          const tpks_selector *selector, schema_each_fn *each,
                                          void *arg);
TPKS_CHECK tpks_result native_each_readable(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                            const tpks_selector *selector, schema_each_fn *each,
                                            schema_bad_fn *bad, void *arg);

#endif
