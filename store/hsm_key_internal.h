/*
 * hsm_key_internal.h - what the files of token keys share
 *
 * hsm_key.c (life, finding, trying again), hsm_key_op.c (mechanisms, one operation, the proof),
 * hsm_key_copy.c (copies in the session), hsm_key_make.c (making, destroying, listing).
 */
#ifndef TRUSTPOINT_HSM_KEY_INTERNAL_H
#define TRUSTPOINT_HSM_KEY_INTERNAL_H

#include <openssl/evp.h>

#include "hsm_internal.h"
#include "hsm_key.h"

#define KEY_BYTES_MAX 2048 /* RSA-16384 */
#define PROOF_BYTES 32

/* The public half, as operations and proofs need it. */
struct key_public {
    EVP_PKEY *key;
    CK_KEY_TYPE type;
    size_t size;            /* bytes of the modulus, or of the order of the curve */
    unsigned char *modulus; /* `size` bytes; NULL for EC */
};
TPKS_CHECK tpks_result key_public_set(struct key_public *out, const unsigned char *spki,
                                      size_t size);
void key_public_clear(struct key_public *public);

/* One operation. */
struct key_job {
    bool decrypt;
    CK_MECHANISM mechanism;
    union {
        CK_RSA_PKCS_PSS_PARAMS pss;
        CK_RSA_PKCS_OAEP_PARAMS oaep;
    } parameters;
    const unsigned char *in;
    size_t in_size;
    unsigned char *out;
    size_t out_room;
    size_t out_size;
};
/* Says what `op` is in PKCS#11. TPKS_BAD_INPUT: not with this key, or an unknown digest. */
TPKS_CHECK tpks_result key_job_set(struct key_job *job, const struct key_public *public,
                                   bool decrypt, const tpks_token_op *op);
/* In a session that nobody else uses now. */
CK_RV key_job_run(CK_FUNCTION_LIST *functions, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                  struct key_job *job);

/* How an object was proven. */
struct key_proof {
    bool mismatch; /* it is another key */
    bool by_signature;
    unsigned char random[PROOF_BYTES];
    unsigned char signature[KEY_BYTES_MAX];
    size_t size;
};
/*
 * The part that needs the token: compares the modulus, or lets it sign random bytes. Through the
 * keeper session, which the caller holds, and one of the pool.
 */
CK_RV key_proof_take(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                     const struct key_public *public, struct key_proof *proof);
/* The rest, without the token. */
bool key_proof_holds(const struct key_public *public, const struct key_proof *proof);

/*
 * A copy of a key as an object of the keeper session (C_CopyObject; PKCS#11 3.0, section 5.7.2).
 *
 * NULL: the token refuses, or gives one that can be read more easily than a key made here
 * (PRIVATE, SENSITIVE, not EXTRACTABLE), or has no room, or `generation` is not the present one.
 * Takes connection->keeper.
 */
struct key_copy *key_copy_make(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                               uint64_t generation);
/* Around each operation with it: it is not destroyed meanwhile. NULL is ignored at the end. */
CK_OBJECT_HANDLE key_copy_use(struct key_copy *copy);
void key_copy_end_use(struct key_copy *copy);
/* Gives it up: whoever has the keeper session when nobody uses it any more destroys it. No PKCS#11
 * call; also in a process forked since. NULL is ignored. */
void key_copy_drop(struct hsm_connection *connection, struct key_copy *copy);
/* Destroys those that were given up, in the keeper session, which is open and the caller holds. */
void key_copies_destroy(struct hsm_connection *connection);

#endif
