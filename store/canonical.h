/*
 * canonical.h - the one byte string that stands for a row
 *
 * Everything that is authenticated is encoded so that different contents can never give equal
 * bytes: integers as 8 bytes big-endian, byte strings and texts behind their 8-byte length. The
 * additional data of each AES-GCM call is SHA-256(domain || encoding), the domain being encoded
 * as a text. The digest keeps the additional data short for tokens that limit it.
 */
#ifndef TRUSTPOINT_CANONICAL_H
#define TRUSTPOINT_CANONICAL_H

#include "keystore.h"

#define SHA256_SIZE 32

/* A growing byte string; zero-initialise. After a failed allocation it stays failed. */
typedef struct canonical {
    unsigned char *data;
    size_t size;
    size_t room;
    bool failed;
} canonical;

void canonical_free(canonical *c);
#define CANONICAL __attribute__((cleanup(canonical_free))) canonical

void canonical_integer(canonical *c, uint64_t value);
void canonical_bytes(canonical *c, const void *data, size_t size);
void canonical_text(canonical *c, const char *text);
/* SHA-256 of all that was put in, the domain first; TPKS_NO_MEMORY if any step before failed. */
TPKS_CHECK tpks_result canonical_digest(const canonical *c, OSSL_LIB_CTX *libctx,
                                        const char *domain, unsigned char digest[SHA256_SIZE]);

/* Compares two encodings; TPKS_NO_MEMORY as canonical_digest(). */
TPKS_CHECK tpks_result canonical_compare(const canonical *a, const canonical *b, bool *same);

/*
 * An extension area: entries of a 2-byte type (highest bit: critical), a 4-byte length and the
 * value. Unknown critical ones are TPKS_NEWER_FORMAT, others are carried along. No critical type is
 * defined yet; the others stand beside the rows that have them.
 */
TPKS_CHECK tpks_result extension_check(const unsigned char *data, size_t size, const char *where);
/* Has an area that was checked an entry of this type? */
bool extension_has(const unsigned char *data, size_t size, unsigned type);
#define EXTENSION_HEAD_SIZE 6
/* An entry of a type below 0x8000 without a value. */
void extension_make(unsigned type, unsigned char out[EXTENSION_HEAD_SIZE]);

#endif
