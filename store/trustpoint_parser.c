/*
 * trustpoint_parser.c - many certificates, parsed quickly
 *
 * With a certificate OpenSSL 3 decodes its public key, which takes ten times as long as everything
 * else about it and which nobody needs who only reads what it says. In a library context without
 * any decoders it leaves the key alone. And most chains consist of the same few certificates.
 */
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>

#include "error.h"
#include "trustpoint.h"

void trustpoint_parser_start(trustpoint_parser *p, OSSL_LIB_CTX *libctx)
{
    memset(p, 0, sizeof(*p));
    p->libctx = libctx;
    p->bare = OSSL_LIB_CTX_new();
    p->nothing = p->bare == NULL ? NULL : OSSL_PROVIDER_load(p->bare, "null");
}

void trustpoint_parser_finish(trustpoint_parser *p)
{
    for (size_t i = 0; i < TRUSTPOINT_KNOWN_CERTS; i++) {
        OPENSSL_free(p->known[i].pem);
        X509_free(p->known[i].cert);
    }
    if (p->nothing != NULL)
        OSSL_PROVIDER_unload(p->nothing);
    OSSL_LIB_CTX_free(p->bare);
}

X509 *trustpoint_parse(const trustpoint_parser *p, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = X509_new_ex(p->nothing != NULL ? p->bare : p->libctx, NULL);
    bool parsed = bio != NULL && cert != NULL &&
                  PEM_read_bio_X509(bio, &cert, trustpoint_no_password, NULL) != NULL;

    BIO_free(bio);
    if (parsed)
        return cert;
    X509_free(cert);
    return NULL;
}

X509 *trustpoint_parse_known(trustpoint_parser *p, const char *pem)
{
    trustpoint_known *next = &p->known[p->next];

    for (size_t i = 0; i < TRUSTPOINT_KNOWN_CERTS; i++)
        if (p->known[i].pem != NULL && strcmp(p->known[i].pem, pem) == 0)
            return X509_up_ref(p->known[i].cert) ? p->known[i].cert : NULL;
    X509 *cert = trustpoint_parse(p, pem);
    if (cert == NULL)
        return NULL;
    OPENSSL_free(next->pem);
    X509_free(next->cert);
    next->cert = NULL;
    next->pem = OPENSSL_strdup(pem);
    if (next->pem != NULL && X509_up_ref(cert))
        next->cert = cert;
    p->next = (p->next + 1) % TRUSTPOINT_KNOWN_CERTS;
    return cert;
}

X509 *trustpoint_parse_key(OSSL_LIB_CTX *libctx, const X509 *cert)
{
    unsigned char *der = NULL;
    int size = i2d_X509(cert, &der);
    const unsigned char *at = der;
    X509 *again = X509_new_ex(libctx, NULL);

    if (again != NULL && size > 0)
        d2i_X509(&again, &at, size); /* frees it when it fails */
    OPENSSL_free(der);
    return again;
}
