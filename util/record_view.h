/*
 * record_view.h - a record's public side for humans and for programs
 */
#ifndef TRUSTPOINT_UTIL_RECORD_VIEW_H
#define TRUSTPOINT_UTIL_RECORD_VIEW_H

#include <time.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "command.h"

struct json_object;

/* "RSA 3072", "EC P-256", "ED25519": type and size of a record's key. */
#define KEY_TEXT_SIZE 64
void view_key(APP *app, const TPKS_RECORD *record, char text[KEY_TEXT_SIZE]);
/* "sign, decrypt", or "nothing". */
#define POLICY_TEXT_SIZE 32
void view_policy(unsigned policy, char text[POLICY_TEXT_SIZE]);
/* Certificate number `i` of a record, for reading only: its key is not decoded, which takes ten
 * times as long as the rest. NULL if there is none (or it can't be parsed). */
X509 *view_cert(APP *app, const TPKS_RECORD *record, size_t i);
/* Certificates number `from` to before `to` as PEM into a memory BIO. */
int view_certs_pem(APP *app, const TPKS_RECORD *record, size_t from, size_t to, BIO *bio);
/* The record's public key; NULL when it can't be parsed. */
EVP_PKEY *view_public_key(APP *app, const TPKS_RECORD *record);
/* From when and until when a certificate is valid; 0 if that can't be said. */
time_t view_not_before(const X509 *cert);
time_t view_not_after(const X509 *cert);
/* A name as RFC 4514 writes it, UTF-8. Free with free(); NULL: no memory. */
char *view_name(const X509_NAME *name);

/* One row of a table under view_header(). */
void view_header(const APP *app);
/* Is it Trustpoint's own database? */
bool view_is_trustpoint(const APP *app);
/* Where the private key is, in a word or two. */
const char *view_home(const TPKS_RECORD *record);
void view_row(APP *app, const TPKS_RECORD *record);
/* Everything about a record, a fact in each line. */
void view_facts(APP *app, const TPKS_RECORD *record);
/* Everything about a record; the caller frees it. NULL: no memory. */
struct json_object *view_json(APP *app, const TPKS_RECORD *record);

#endif
