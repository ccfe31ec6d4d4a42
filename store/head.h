/*
 * head.h - what a keystore is made of, besides its records
 *
 * The header, its DEKs, slots and wraps are read and written together: the header's seal covers
 * all of them, so that changing any of them without the DEK is detected.
 */
#ifndef TRUSTPOINT_HEAD_H
#define TRUSTPOINT_HEAD_H

#include "dek.h"
#include "password.h"

#define NATIVE_FORMAT 1
#define SLOTS_MAX                                                                                  \
    1024 /* more than anyone has hosts; bounds what a hostile database can make us read */

typedef enum dek_state { DEK_CURRENT = 1, DEK_OLD = 2, DEK_RETIRED = 3 } dek_state;

typedef enum slot_kind {
    SLOT_HSM_AES = 1,
    SLOT_HSM_RSA_OAEP = 2,
    SLOT_PASSWORD = 3,
    SLOT_RECOVERY = 4,
    SLOT_SOFTWARE = 5
} slot_kind;

typedef enum slot_state {
    SLOT_PENDING = 1,
    SLOT_ACTIVE = 2,
    SLOT_STALE = 3,
    SLOT_RETIRED = 4
} slot_state;

/* Bytes that this structure owns. */
typedef struct bytes {
    unsigned char *data;
    size_t size;
} bytes;

typedef struct dek_row {
    unsigned char id[TPKS_ID_SIZE];
    uint64_t state; /* dek_state */
    unsigned char check_nonce[NONCE_SIZE];
    unsigned char check_value[PROOF_SIZE];
    bytes previous; /* the predecessor sealed under this one; empty: none */
    bytes extension;
} dek_row;

typedef struct slot_row {
    unsigned char id[TPKS_ID_SIZE];
    uint64_t kind;  /* slot_kind */
    uint64_t state; /* slot_state */
    char *label;
    char *host;
    char *token_label;
    char *token_serial;
    bytes cka_id;         /* CKA_ID_SIZE bytes for HSM slots, else empty */
    char *kek_label;      /* Trustpoint's KEK has a label instead of an id, or it is NULL */
    uint64_t kdf_version; /* Argon2 version for password slots, else 0 */
    tpks_kdf_cost cost;
    bytes salt; /* KDF_SALT_SIZE bytes for password and recovery slots, else empty */
    int64_t created;
    bytes extension;
} slot_row;

typedef struct wrap_row {
    unsigned char slot[TPKS_ID_SIZE];
    unsigned char dek[TPKS_ID_SIZE];
    uint64_t algorithm; /* wrap_algorithm */
    bytes iv;
    bytes wrapped;
    bytes commitment; /* COMMITMENT_SIZE bytes for password and recovery slots, else empty */
    bytes extension;
} wrap_row;

/* Arrays are sorted by id, as the seal needs them. */
typedef struct head {
    unsigned char keystore[TPKS_ID_SIZE];
    char *label;
    uint64_t format;
    uint64_t required; /* feature bits a reader must know */
    uint64_t optional;
    uint64_t generation;
    unsigned char dek[TPKS_ID_SIZE]; /* the current one */
    bytes extension;
    unsigned char seal_nonce[NONCE_SIZE];
    unsigned char seal[PROOF_SIZE];
    dek_row *deks;
    size_t dek_count;
    slot_row *slots;
    size_t slot_count;
    wrap_row *wraps;
    size_t wrap_count;
    /* The token URI that a database of Trustpoint's names: it works here, or not; or NULL. */
    char *token;
    char *token_elsewhere;
} head;

void head_clear(head *h);
void head_swap(head *a, head *b);
/* Frees what a row holds, not the row. */
void slot_row_clear(slot_row *slot);
void wrap_row_clear(wrap_row *wrap);

TPKS_CHECK tpks_result bytes_set(bytes *to, const void *data, size_t size);
/* Room for one more zeroed row of `size` bytes in an array that grows by doubling; NULL: no memory.
 */
void *rows_grow(void *array, size_t *count, size_t size);

/* Puts copies in, in place of the slot that has the same id; `wrap` may be NULL. */
TPKS_CHECK tpks_result head_put_slot(head *h, const slot_row *slot, const wrap_row *wrap);
/* Takes a slot and what it wraps out; nothing happens when it is not there. */
void head_drop_slot(head *h, const unsigned char id[TPKS_ID_SIZE]);

const slot_row *head_slot(const head *h, const unsigned char id[TPKS_ID_SIZE]);
const dek_row *head_dek(const head *h, const unsigned char id[TPKS_ID_SIZE]);
/* How `slot` holds the current DEK; NULL if it does not. */
const wrap_row *head_wrap(const head *h, const slot_row *slot);
const char *slot_kind_name(uint64_t kind);
const char *slot_state_name(uint64_t state);
/* As many can be made of passwords and recovery keys together. Each try of a password costs an
 * Argon2id run for each slot: of more, which a hostile database may have, no others are tried. */
#define WAYS_BACK_MAX 32
/* How many active password and recovery slots there are. */
size_t head_ways_back(const head *h);
/* A password or recovery key that works when every HSM is gone. */
bool slot_is_way_back(const slot_row *slot);
bool slot_is_hsm(const slot_row *slot);

/*
 * Is `dek` the current DEK of this keystore? The proof is the check value. One error for every
 * way of failing.
 */
TPKS_CHECK tpks_result head_prove_dek(const head *h, DEK *dek);
/* Makes the check value of a new DEK row. */
TPKS_CHECK tpks_result head_make_check(const head *h, DEK *dek, dek_row *row);
/* Header, deks, slots and wraps are as the owner of the DEK left them. TPKS_TAMPERED. */
TPKS_CHECK tpks_result head_check_seal(const head *h, DEK *dek);
/* Is what was read back, row for row and seal for seal, what was written?
 * TPKS_DATABASE_UNAVAILABLE. */
TPKS_CHECK tpks_result head_check_written(const head *stored, const head *written);
/* Seals the present contents under a fresh nonce. */
TPKS_CHECK tpks_result head_seal(head *h, DEK *dek);

#endif
