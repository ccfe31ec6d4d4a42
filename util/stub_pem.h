/*
 * stub_pem.h - a record's stub as PEM
 */
#ifndef TRUSTPOINT_UTIL_STUB_PEM_H
#define TRUSTPOINT_UTIL_STUB_PEM_H

#include <openssl/bio.h>

#include "command.h"

/*
 * The URI under which programs find the record; with `pin` they refuse any other key than its
 * present one. Free with OPENSSL_free(); NULL: no memory.
 */
char *stub_uri(const APP *app, const TPKS_RECORD *record, bool pin);
/* The stub with that URI, under a PEM label, into a memory BIO. */
int stub_pem(const APP *app, const TPKS_RECORD *record, const char *label, bool pin, BIO *bio);

#endif
