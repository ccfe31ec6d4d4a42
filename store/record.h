/*
 * record.h - one private key, sealed, with its public half and certificates
 *
 * The key's PKCS#8 DER is sealed under the DEK; every other column, the keystore's id and the
 * digest of the certificates are its additional data.
 */
#ifndef TRUSTPOINT_RECORD_H
#define TRUSTPOINT_RECORD_H

#include "head.h"

/*
 * Seal algorithm numbers of format 1. 2 is reserved for RFC 5649 blobs that an HSM unwraps into a
 * key of its own. With 3 the key lives in a token and 32 zero bytes are sealed in its place, so
 * that what says where (token_serial, cka_id) is as authentic as any other column.
 */
#define SEAL_GCM 1
#define SEAL_TOKEN 3

/* How Trustpoint keeps keys: numbers of this process only, never stored. */
#define SEAL_TRUSTPOINT_PLAIN 100            /* in the clear */
#define SEAL_TRUSTPOINT_V1 101               /* its field format 1, under its DEK */
#define SEAL_TRUSTPOINT_V2 102               /* its field format 2 */
#define SEAL_TRUSTPOINT_IMPORT 103           /* base64 within field format 2 */
#define SEAL_TRUSTPOINT_MANAGED_SOFTWARE 104 /* PBES2, under a password of its own */
#define SEAL_TRUSTPOINT_TOKEN 105            /* in a token */
#define SEAL_TRUSTPOINT_NONE 106             /* there is no key */

#define PKCS8_MAX 65536 /* an RSA-16384 key has 9.3 KiB */
#define CERTS_MAX 64

struct tpks_record {
    unsigned char keystore[TPKS_ID_SIZE];
    unsigned char id[TPKS_ID_SIZE];
    char *name;
    uint64_t version;
    unsigned char dek[TPKS_ID_SIZE];
    char *key_type;
    bytes spki;
    unsigned char spki_sha256[SHA256_SIZE];
    uint64_t policy;
    int64_t created;
    int64_t changed;
    uint64_t seal_algorithm;
    unsigned char certs_digest[SHA256_SIZE];
    char *token_serial; /* with cka_id: of a key that lives in a token; else "" */
    bytes cka_id;
    char *cka_label;    /* Trustpoint's older releases find keys in a token by it; else NULL */
    tpks_key_home home; /* where Trustpoint keeps it; 0: seal_algorithm says it */
    const char *role;   /* a constant text; NULL in a native keystore */
    bytes extension;
    unsigned char nonce[NONCE_SIZE];
    bytes sealed;
    bytes *certs; /* DER, the leaf first */
    size_t cert_count;
};

/* A copy whose public columns may then be changed. */
TPKS_CHECK tpks_result record_copy(const TPKS_RECORD *from, TPKS_RECORD **out);
static inline void record_free_at(TPKS_RECORD **record)
{
    tpks_record_free(*record);
}
#define RECORD __attribute__((cleanup(record_free_at))) TPKS_RECORD

/*
 * A record whose key is being made in a token, or destroyed there, has no public half yet, or any
 * more. After a crash it explains what is on the token. It is not found by anyone who wants a key.
 */
static inline bool record_is_unfinished(const TPKS_RECORD *record)
{
    return record->home == 0 && record->seal_algorithm == SEAL_TOKEN && record->spki.size == 0;
}
/* What is sealed in place of a key that lives in a token; NULL: no memory. */
TPKS_SECRET *record_token_filler(void);

/* Seals `pkcs8` for the record as its columns and seal algorithm now are, and opens it again as
 * proof. */
TPKS_CHECK tpks_result record_seal(OSSL_LIB_CTX *libctx, TPKS_RECORD *record, DEK *dek,
                                   const TPKS_SECRET *pkcs8);
/* TPKS_TAMPERED if any column, the keystore or the DEK is not what it was sealed with. The result
 * is no key when it lives in a token. */
TPKS_CHECK tpks_result record_open(const TPKS_RECORD *record, DEK *dek, TPKS_SECRET **pkcs8);

/* Is what was read back, with its certificates, what was written? TPKS_DATABASE_UNAVAILABLE. */
TPKS_CHECK tpks_result record_check_written(const TPKS_RECORD *stored, const TPKS_RECORD *written);

/* One more certificate, whatever it is. */
TPKS_CHECK tpks_result record_add_cert(TPKS_RECORD *record, const unsigned char *der, size_t size);
/* Takes key type and public half from a certificate. */
TPKS_CHECK tpks_result record_set_public(OSSL_LIB_CTX *libctx, TPKS_RECORD *record,
                                         const X509 *cert);
/* Are the certificates the ones whose digest the record authenticates? */
TPKS_CHECK tpks_result record_check_certs(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record);
/* Takes `certs` (NULL: none) in, checking that number 0 carries the record's public key. */
TPKS_CHECK tpks_result record_set_certs(OSSL_LIB_CTX *libctx, TPKS_RECORD *record,
                                        const STACK_OF(X509) * certs);
/* Takes the public half (DER, or nothing: `size` 0) in. */
TPKS_CHECK tpks_result record_set_spki(OSSL_LIB_CTX *libctx, TPKS_RECORD *record,
                                       const unsigned char *spki, size_t size);
/* Takes key type and public half from a PKCS#8 DER key, which must be whole, supported and
 * consistent. */
TPKS_CHECK tpks_result record_set_key(OSSL_LIB_CTX *libctx, TPKS_RECORD *record,
                                      const TPKS_SECRET *pkcs8);
/* Does the opened key have the record's public half? */
TPKS_CHECK tpks_result record_check_key(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                                        const TPKS_SECRET *pkcs8);
/* Do its private and public numbers belong together (recomputed by libcrypto: slow for RSA)? */
TPKS_CHECK tpks_result record_check_halves(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                                           const TPKS_SECRET *pkcs8);
/* What can be said without the DEK: the digests of public key and certificates are right, every
 * certificate parses and the leaf carries the record's public key. TPKS_TAMPERED. */
TPKS_CHECK tpks_result record_check_public(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record);
/* Is it one that `by` (NULL: any) asks for? TPKS_TAMPERED: what a search goes by is not sealed. */
TPKS_CHECK tpks_result record_check_match(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                                          const tpks_selector *by);

#define SERIAL_MAX 64 /* RFC 5280 allows 20 bytes; some issuers go beyond */

/* By what a certificate is searched: digests of its DER and of its names' DER, and its serial
 * number, unsigned big-endian. */
typedef struct cert_index {
    unsigned char sha256[SHA256_SIZE];
    unsigned char sha1[20];
    unsigned char subject[SHA256_SIZE];
    unsigned char issuer[SHA256_SIZE];
    unsigned char serial[SERIAL_MAX];
    size_t serial_size;
} cert_index;
/* TPKS_BAD_INPUT: not a certificate, or its serial number is longer than SERIAL_MAX. */
TPKS_CHECK tpks_result cert_index_make(OSSL_LIB_CTX *libctx, const bytes *der, cert_index *out);

TPKS_CHECK tpks_result sha256(OSSL_LIB_CTX *libctx, const void *data, size_t size,
                              unsigned char digest[SHA256_SIZE]);

#endif
