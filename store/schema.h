/*
 * schema.h - what the rows mean: native format 1
 *
 * Turns rows of the tables tpks_... into heads and records and back. Every value is checked for
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
} database;

/* Makes the tables and marks the database; inside a transaction. */
TPKS_CHECK tpks_result native_create(const database *d);
/* Is there a keystore in it, of a format that we know? */
TPKS_CHECK tpks_result native_recognise(const database *d);
/* On failure `out` has what could be read: not for use, only to be cleared. */
TPKS_CHECK tpks_result native_read_head(const database *d, head *out);
/* Are the stored generation and seal still those of `h`? */
TPKS_CHECK tpks_result native_is_unchanged(const database *d, const head *h, bool *out);
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
TPKS_CHECK tpks_result native_count_records(const database *d, const head *h, uint64_t *out);
/* Records that carry another keystore's id than `h`. */
TPKS_CHECK tpks_result native_count_strangers(const database *d, const head *h, uint64_t *out);

/*
 * Calls `each` with every matching record and its certificates, ordered by name; frees it after.
 * The database's word for a match is not taken: TPKS_TAMPERED.
 */
typedef tpks_result native_each_fn(void *arg, TPKS_RECORD *record);
TPKS_CHECK tpks_result native_each_record(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                          const tpks_selector *selector, native_each_fn *each,
                                          void *arg);

#endif
