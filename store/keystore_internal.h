/*
 * keystore_internal.h - an open keystore, as the files of this folder share it
 */
#ifndef TRUSTPOINT_KEYSTORE_INTERNAL_H
#define TRUSTPOINT_KEYSTORE_INTERNAL_H

#include "error.h"
#include "schema.h"
#include "slot.h"

struct tpks {
    TPKS_CONFIG *config; /* a reference of our own */
    char *section; /* "" for [keystore] */
    OSSL_LIB_CTX *libctx;
    tpks_access access;
    bool accept_new_anchor;
    tpks_ask_fn *ask;
    void *ask_arg;
    database d;
    head head;
    HSM *hsm;             /* while unlocked through it */
    DEK *dek;             /* NULL: locked */
    const slot_row *slot; /* the slot that unlocked; points into head */
    unsigned char slot_id[TPKS_ID_SIZE];
    bool suspect;   /* something failed: not to be used again for another load */
    bool in_change;             /* between tpks_begin() and its end */
    uint64_t generation_before; /* the change's starting point */
};

/* A directive of this keystore's section. */
const char *keystore_setting(const TPKS *ks, const char *directive);
/* "keystore NAME (1a2b3c4d)" for messages and prompts. */
void keystore_describe(const TPKS *ks, char *out, size_t size);
/* The prompt's and HSM's options as this keystore has them. */
TPKS_CHECK tpks_result keystore_hsm_open(TPKS *ks, bool write, HSM **out);
/* Forgets the DEK. */
void keystore_lock(TPKS *ks);
/* Closes for good. */
void keystore_free(TPKS *ks);
/* Reads header and slots again if another process changed them since. */
TPKS_CHECK tpks_result keystore_refresh(TPKS *ks);
/* Reads header and slots again, after another process changed them; keeps the DEK if it is still
 * current. */
TPKS_CHECK tpks_result keystore_reload(TPKS *ks);
/* Options to handle, without a database. */
TPKS_CHECK tpks_result keystore_new(const tpks_options *options, TPKS **out);

/* ---- anchor.c: what this host last saw of a keystore ---- */

/*
 * Compares the database with this host's anchor. On a contradiction the result says which:
 * TPKS_ROLLED_BACK or TPKS_TAMPERED. TPKS_OK otherwise, with *known telling whether there is one.
 */
TPKS_CHECK tpks_result anchor_check(const TPKS *ks, bool *known);
/* Remembers the present generation. Best effort: a host without a state folder has no anchor. */
void anchor_write(const TPKS *ks);

#endif
