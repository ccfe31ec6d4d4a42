/*
 * hsm_key.h - private keys that are made in a token and used there
 *
 * An HSM_KEY is not a handle of one load: it stays usable until the process ends, through the
 * keeper connection of the process (hsm.h), whatever `hsm-session` says. The object is found and
 * proven once for each login; operations then take a session of the pool and nothing else, and
 * those that come often a copy of the object in the memory of the module. When the token was away,
 * one thread logs in again and every operation is done once more. A forked child starts from
 * nothing, with its first operation.
 *
 * Raw mechanisms only (CKM_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_RSA_PKCS_OAEP, CKM_RSA_X_509,
 * CKM_ECDSA; PKCS#11 3.0, sections 6.1 and 6.3): those with a digest inside are missing in some
 * modules.
 */
#ifndef TRUSTPOINT_HSM_KEY_H
#define TRUSTPOINT_HSM_KEY_H

#include "hsm.h"

typedef struct hsm_key HSM_KEY;

/* Which object. All is copied. */
typedef struct hsm_key_lookup {
    const char *name;   /* the record's, for messages */
    const char *serial; /* the token must have it; "": any */
    const unsigned char *id;
    size_t id_size;            /* 0: by the label */
    const char *label;         /* CKA_LABEL; looked at only without an id */
    const unsigned char *spki; /* DER of the public half */
    size_t spki_size;
} hsm_key_lookup;

/*
 * Finds the key and proves that it is the private half of `spki`: by its modulus where the token
 * tells it, else by a signature of random bytes. `options->ask` is used during this call only.
 * TPKS_KEY_MISSING, TPKS_MISMATCH, TPKS_TOKEN_MISSING, TPKS_UNSUPPORTED (its type), and what
 * hsm_open() may say.
 */
TPKS_CHECK tpks_result hsm_key_open(const hsm_options *options, const hsm_key_lookup *lookup,
                                    HSM_KEY **out);
/* No PKCS#11 call is made. NULL is ignored. */
void hsm_key_free(HSM_KEY *key);
/* As tpks_token_key_sign() and tpks_token_key_decrypt(). Any thread. */
TPKS_CHECK tpks_result hsm_key_sign(HSM_KEY *key, const tpks_token_op *op, const unsigned char *in,
                                    size_t in_size, unsigned char *out, size_t *out_size);
TPKS_CHECK tpks_result hsm_key_decrypt(HSM_KEY *key, const tpks_token_op *op,
                                       const unsigned char *in, size_t in_size, unsigned char *out,
                                       size_t *out_size);

/* What is to be made. */
typedef struct hsm_key_spec {
    bool rsa;
    unsigned bits;     /* of an RSA key */
    const char *curve; /* of an EC key: "P-256", "P-384", "P-521" */
    bool decrypts;     /* RSA: CKA_DECRYPT too */
    const unsigned char *cka_id;
    const char *label;
} hsm_key_spec;

/* "RSA:2048", "EC:P-256" and so on, letters of either case. TPKS_BAD_INPUT. */
TPKS_CHECK tpks_result hsm_key_spec_parse(const char *text, hsm_key_spec *out);
/*
 * Makes a key pair on the token of a handle that is open for writing, reads back that it is
 * SENSITIVE and not EXTRACTABLE, and proves its halves with one operation. On failure no object is
 * left. *spki gets the DER of the public half; free with OPENSSL_free().
 */
TPKS_CHECK tpks_result hsm_key_make(HSM *hsm, const hsm_key_spec *spec, unsigned char **spki,
                                    size_t *spki_size);

/*
 * Destroys the private and public keys of this type (RSA, else EC) and id, of any length but 0, on
 * the token of a handle that is open for writing. Not finding one is fine.
 */
TPKS_CHECK tpks_result hsm_key_destroy(HSM *hsm, bool rsa, const unsigned char *id, size_t id_size);

/*
 * Calls `each` with CKA_ID and CKA_LABEL of every private key on the token whose label starts with
 * `prefix`. TPKS_UNSUPPORTED, after all others: one that may be meant has an id or a label that is
 * too long to be read.
 */
typedef tpks_result hsm_key_fn(void *arg, const unsigned char *id, size_t id_size,
                               const char *label);
TPKS_CHECK tpks_result hsm_each_key(HSM *hsm, const char *prefix, hsm_key_fn *each, void *arg);

#endif
