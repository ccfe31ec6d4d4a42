/*
 * signer.h - who signs a request or a certificate: a key in memory, or one that stays in its token
 */
#ifndef TRUSTPOINT_UTIL_SIGNER_H
#define TRUSTPOINT_UTIL_SIGNER_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "command.h"

typedef struct signer {
    EVP_PKEY *key;         /* only its public half when there is a token's */
    TPKS_TOKEN_KEY *token; /* NULL: `key` is whole */
} SIGNER;

/* The key of a record, wherever it lives. */
int signer_open(APP *app, const TPKS_RECORD *record, SIGNER *out);
void signer_close(SIGNER *signer);

/* Sign what is complete but for algorithm and signature; `digest` is NULL for keys that have one of
 * their own. */
int signer_sign_request(const SIGNER *signer, const EVP_MD *digest, X509_REQ *request);
int signer_sign_cert(const SIGNER *signer, const EVP_MD *digest, X509 *cert);

#endif
