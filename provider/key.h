/*
 * key.h - a key that libcrypto holds through this provider
 *
 * A KEY wraps the key data of OSSL's default provider in our own library context (see context.h)
 * with what we know besides: whether it has a private half, where that is, what it may be used for
 * and where it came from. It is counted by reference and not changed once its load is over, so any
 * number of threads may use one.
 */
#ifndef TRUSTPOINT_KEY_H
#define TRUSTPOINT_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "context.h"
#include "passthrough.h"

/* One type of key: its name in OpenSSL and the default provider's key management for it. */
typedef struct key_type {
    const char *name;
    PASSTHROUGH keymgmt;
} KEY_TYPE;

/* Always there, and filled in by key_types_fill(). */
extern KEY_TYPE key_rsa, key_rsa_pss, key_ec, key_ed25519, key_ed448;

/* Takes over the default provider's key management; once per process. */
void key_types_fill(const CONTEXT *context);
/* By the name that records and stubs use; NULL for any other. */
const KEY_TYPE *key_type_find(const char *name);

typedef struct key KEY;

/* An empty key of that type, for imports. NULL: no memory, or this OpenSSL lacks the type. */
KEY *key_new(CONTEXT *context, const KEY_TYPE *type);
/*
 * Decodes DER: `structure` is "PrivateKeyInfo" or "SubjectPublicKeyInfo". Raises the error and
 * returns NULL when it is not a key of that type.
 */
KEY *key_decode(CONTEXT *context, const KEY_TYPE *type, const char *structure,
                const unsigned char *der, size_t size);
KEY *key_up_ref(KEY *key);
/* NULL is ignored. The default provider wipes the private half with the last reference. */
void key_free(KEY *key);
/*
 * Says where a decoded private key came from and what it may do; `configured`: as keystore.cnf says
 * it, for the record itself can't. Returns 0 when memory is short.
 */
int key_set_private(KEY *key, const char *uri, unsigned policy, bool configured);
/*
 * The private half is in a token, after key_set_private(), which says what it may do. Takes
 * `token`, also when it fails; returns 0 when memory is short.
 */
int key_set_token(KEY *key, TPKS_TOKEN_KEY *token);
/* A key of its own that holds the selected parts without the private one; NULL if it can't be. */
KEY *key_dup_public(const KEY *key, int selection);
/*
 * Gives a key to libcrypto as stores and decoders do, by reference (provider-object(7)). Takes the
 * reference; returns what the callback returned.
 */
int key_yield(KEY *key, OSSL_CALLBACK *callback, void *arg);

CONTEXT *key_context(const KEY *key);
const KEY_TYPE *key_type(const KEY *key);
/* The default provider's key data; NULL for NULL. */
void *key_data(const KEY *key);
/* Where its private half is, NULL if that is not a token. */
TPKS_TOKEN_KEY *key_token(const KEY *key);
/* The data for a decrypting context of the default provider: see token_unpadding(). */
void *key_decryption_data(const KEY *key);
/* Of a key in a token: of the modulus, or the order of the curve; and the longest signature, in
 * bytes. */
int key_bits(const KEY *key);
size_t key_signature_size(const KEY *key);
bool key_is_private(const KEY *key);
/* The URI it was loaded by; "" for a public key. */
const char *key_uri(const KEY *key);
/*
 * May it do this (TPKS_MAY_...)? Raises TPKS_NOT_PERMITTED otherwise. A public key may do
 * whatever can be done with it.
 */
bool key_permits(const KEY *key, unsigned use);

#endif
