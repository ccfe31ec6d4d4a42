/*
 * request.h - certificate requests and self-signed certificates
 */
#ifndef TRUSTPOINT_UTIL_REQUEST_H
#define TRUSTPOINT_UTIL_REQUEST_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "command.h"
#include "signer.h"

CLEANUP(X509_NAME *, X509_NAME_free, cleanup_name)

/* What stands in a request besides the key. */
typedef struct request_subject {
    X509_NAME *name;
    STACK_OF(X509_EXTENSION) * extensions; /* the subject's alternative names; NULL: none */
} SUBJECT;

/*
 * From --subject /TYPE=VALUE/... ("\/" is a slash in a value; may be NULL: no name) and --san
 * "DNS:a,IP:b" (see x509v3_config(5); may be NULL).
 */
int subject_from_text(const char *name, const char *san, SUBJECT *out);
/* The same names as a certificate has. */
int subject_from_cert(const X509 *cert, SUBJECT *out);
void subject_free(SUBJECT *subject);

/* PEM of a PKCS#10 request (RFC 2986) into a memory BIO. */
int request_write(APP *app, const SIGNER *signer, const SUBJECT *subject, BIO *out);
#define DAYS_MAX 36500

/* A self-signed certificate (RFC 5280) for 1 to DAYS_MAX days; `policy` is TPKS_MAY_... */
int self_sign(APP *app, const SIGNER *signer, const SUBJECT *subject, unsigned long days,
              unsigned policy, X509 **out);

static inline void cleanup_signer(SIGNER *signer)
{
    signer_close(signer);
}

static inline void cleanup_subject(SUBJECT *subject)
{
    subject_free(subject);
}

#endif
