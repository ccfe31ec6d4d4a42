/*
 * load.h - from a keystore to keys
 *
 * A SOURCE is an open keystore for the time in which a program loads from it. One thread at a
 * time uses it. Failures raise an error that says which thing, why, and what to do.
 */
#ifndef TRUSTPOINT_LOAD_H
#define TRUSTPOINT_LOAD_H

#include "context.h"
#include "key.h"

typedef struct source SOURCE;

/* Opens the keystore of that name ("" is the default one); asks for nothing. NULL on failure. */
SOURCE *source_open(CONTEXT *context, const char *keystore);
void source_close(SOURCE *source);

/*
 * Whom to ask for a secret during the next calls: valid until changed, asked at most once in the
 * life of the source, since libcrypto answers a second question with the same wrong password.
 */
void source_set_ask(SOURCE *source, OSSL_PASSPHRASE_CALLBACK *ask, void *arg);

TPKS *source_keystore(const SOURCE *source);

/* The one record that matches and that programs may load; NULL on failure. */
TPKS_RECORD *source_find(const SOURCE *source, const tpks_selector *selector);

/* The record's public half: needs neither HSM nor prompt. The caller frees it with key_free(). */
KEY *source_public_key(const SOURCE *source, const TPKS_RECORD *record);
/* The private key, proven to belong to the record's public half. */
KEY *source_private_key(const SOURCE *source, const TPKS_RECORD *record);

/* The canonical URI of a record in this keystore; the caller frees it with OPENSSL_free(). */
char *source_uri(const SOURCE *source, const TPKS_RECORD *record);

#endif
