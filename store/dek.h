/*
 * dek.h - a usable data encryption key
 *
 * It is either inside the token (HSM_DEK) or in this process's locked memory; both seal and open
 * with AES-256-GCM (NIST SP 800-38D), a 12-byte random nonce from the host and a 16-byte tag.
 */
#ifndef TRUSTPOINT_DEK_H
#define TRUSTPOINT_DEK_H

#include "canonical.h"
#include "hsm.h"

#define NONCE_SIZE 12
#define TAG_SIZE 16
#define PROOF_SIZE (32 + TAG_SIZE) /* 32 zero bytes sealed: check values and header seals */

/* Domains: what an AES-GCM call is for. */
#define DOMAIN_DEK "trustpoint-keystore/1/dek"
#define DOMAIN_HEADER "trustpoint-keystore/1/header"
#define DOMAIN_RECORD "trustpoint-keystore/1/record"
#define DOMAIN_CERTIFICATES "trustpoint-keystore/1/certificates"
#define DOMAIN_PASSWORD_WRAP "trustpoint-keystore/1/password-wrap"

typedef struct dek DEK;

/* Takes over the secret (DEK_SIZE bytes) or the token's DEK; on failure they are freed. */
TPKS_CHECK tpks_result dek_from_secret(OSSL_LIB_CTX *libctx, TPKS_SECRET *secret, DEK **out);
TPKS_CHECK tpks_result dek_from_hsm(OSSL_LIB_CTX *libctx, HSM_DEK *in_token, DEK **out);
/* Stands for the DEK of storage that has none, because its keys are in the clear: opens nothing. */
TPKS_CHECK tpks_result dek_none(OSSL_LIB_CTX *libctx, DEK **out);
bool dek_is_none(const DEK *dek);
/* Wipes or destroys it. NULL is ignored. */
void dek_free(DEK *dek);
bool dek_is_in_hsm(const DEK *dek);
/* Its bytes, borrowed; NULL when it is in the token. */
const TPKS_SECRET *dek_bytes(const DEK *dek);

/* `out` has room for in_size + TAG_SIZE bytes. */
TPKS_CHECK tpks_result dek_seal(DEK *dek, const char *domain, const canonical *about,
                                const unsigned char nonce[NONCE_SIZE], const unsigned char *in,
                                size_t in_size, unsigned char *out);
/* `out` has room for in_size bytes, gets in_size - TAG_SIZE. TPKS_TAMPERED. */
TPKS_CHECK tpks_result dek_open(DEK *dek, const char *domain, const canonical *about,
                                const unsigned char nonce[NONCE_SIZE], const unsigned char *in,
                                size_t in_size, unsigned char *out);

/* The same with additional data as another program has chosen it; NULL and 0: none. */
TPKS_CHECK tpks_result dek_open_raw(DEK *dek, const unsigned char *aad, size_t aad_size,
                                    const unsigned char nonce[NONCE_SIZE], const unsigned char *in,
                                    size_t in_size, unsigned char *out);

/* Seals 32 zero bytes under a fresh nonce and opens them again: so they prove key and `about`. */
TPKS_CHECK tpks_result dek_prove(DEK *dek, const char *domain, const canonical *about,
                                 unsigned char nonce[NONCE_SIZE], unsigned char proof[PROOF_SIZE]);
TPKS_CHECK tpks_result dek_check(DEK *dek, const char *domain, const canonical *about,
                                 const unsigned char nonce[NONCE_SIZE],
                                 const unsigned char proof[PROOF_SIZE]);

/* AES-256-GCM in this process; the key has 32 bytes. Shared with password slots. */
TPKS_CHECK tpks_result gcm_seal(OSSL_LIB_CTX *libctx, const unsigned char *key,
                                const unsigned char nonce[NONCE_SIZE], const unsigned char *aad,
                                size_t aad_size, const unsigned char *in, size_t in_size,
                                unsigned char *out);
TPKS_CHECK tpks_result gcm_open(OSSL_LIB_CTX *libctx, const unsigned char *key,
                                const unsigned char nonce[NONCE_SIZE], const unsigned char *aad,
                                size_t aad_size, const unsigned char *in, size_t in_size,
                                unsigned char *out);

/* Random bytes that become public (ids, nonces, salts). */
TPKS_CHECK tpks_result random_public(OSSL_LIB_CTX *libctx, unsigned char *out, size_t size);

#endif
