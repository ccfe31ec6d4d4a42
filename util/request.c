/*
 * request.c - certificate requests and self-signed certificates
 */
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "key_input.h"
#include "output.h"
#include "request.h"

#define SUBJECT_MAX 4096

CLEANUP(X509_REQ *, X509_REQ_free, cleanup_req)
CLEANUP(BIGNUM *, BN_free, cleanup_bn)
CLEANUP(EVP_MD *, EVP_MD_free, cleanup_md)

void subject_free(SUBJECT *subject)
{
    X509_NAME_free(subject->name);
    sk_X509_EXTENSION_pop_free(subject->extensions, X509_EXTENSION_free);
    *subject = (SUBJECT){NULL, NULL};
}

/* ---- from the command line
 * ------------------------------------------------------------------------ */

/* Takes one "TYPE=VALUE" up to the next '/' in place; returns where that ends, NULL without '='. */
static char *split_part(char *part, char **value)
{
    char *to = part;

    *value = NULL;
    for (; *part != '\0' && *part != '/'; part++) {
        if (*part == '\\' && part[1] != '\0')
            *to++ = *++part;
        else if (*part == '=' && *value == NULL) {
            *to++ = '\0';
            *value = to;
        } else
            *to++ = *part;
    }
    part += *part == '/';
    *to = '\0';
    return *value != NULL ? part : NULL;
}

static int add_part(X509_NAME *name, const char *type, const char *value)
{
    if (*value == '\0')
        return complain(EX_USAGE, "--subject: %s is empty; leave it out", type);
    if (X509_NAME_add_entry_by_txt(name, type, MBSTRING_UTF8, (const unsigned char *)value, -1, -1,
                                   0) == 1)
        return EX_OK;
    ERR_clear_error();
    return complain(EX_USAGE,
                    "--subject: \"%s=%s\" is not possible: the type must be one that OpenSSL "
                    "knows (such as CN, O, OU, C) and the value must fit it",
                    type, value);
}

static int parse_name(const char *text, X509_NAME *name)
{
    char copy[SUBJECT_MAX];
    char *part = copy + 1;

    if (*text != '/' || text[1] == '\0' || strlen(text) >= sizeof(copy))
        return complain(EX_USAGE, "--subject must look like /CN=www.example.org/O=Example");
    strcpy(copy, text);
    while (*part != '\0') {
        char *value;
        char *next = split_part(part, &value);

        if (next == NULL)
            return complain(EX_USAGE,
                            "--subject: \"%s\" has no '='; it must look like "
                            "/CN=www.example.org/O=Example",
                            part);
        DO(add_part(name, part, value));
        part = next;
    }
    return EX_OK;
}

/* RFC 5280 section 4.2.1.6: alternative names are critical when the subject is empty. */
static int add_san(SUBJECT *subject, const char *san)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, NULL, NULL, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, san);
    if (extension == NULL) {
        ERR_clear_error();
        return complain(EX_USAGE,
                        "--san: \"%s\" is not possible; it must look like "
                        "DNS:www.example.org,IP:192.0.2.1",
                        san);
    }
    X509_EXTENSION_set_critical(extension, X509_NAME_entry_count(subject->name) == 0);
    X509v3_add_ext(&subject->extensions, extension, -1);
    X509_EXTENSION_free(extension);
    return subject->extensions != NULL ? EX_OK : complain_memory();
}

int subject_from_text(const char *name, const char *san, SUBJECT *out)
{
    out->name = X509_NAME_new();
    if (out->name == NULL)
        return complain_memory();
    if (name != NULL)
        DO(parse_name(name, out->name));
    if (san != NULL)
        DO(add_san(out, san));
    return EX_OK;
}

int subject_from_cert(const X509 *cert, SUBJECT *out)
{
    int at = X509_get_ext_by_NID(cert, NID_subject_alt_name, -1);

    out->name = X509_NAME_dup(X509_get_subject_name(cert));
    if (out->name == NULL)
        return complain_memory();
    if (at >= 0 && X509v3_add_ext(&out->extensions, X509_get_ext(cert, at), -1) == NULL)
        return complain_memory();
    return EX_OK;
}

/* ---- signing
 * ------------------------------------------------------------------------------------------ */

/* The digest that suits the key; NULL for keys that have one of their own (Ed25519, Ed448). */
static EVP_MD *digest_for(APP *app, EVP_PKEY *key)
{
    if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"))
        return NULL;
    if (EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) > 256)
        return EVP_MD_fetch(app->libctx, EVP_PKEY_get_bits(key) > 384 ? "SHA512" : "SHA384", NULL);
    return EVP_MD_fetch(app->libctx, "SHA256", NULL);
}

static bool fill_request(X509_REQ *request, EVP_PKEY *key, const SUBJECT *subject)
{
    return X509_REQ_set_version(request, X509_REQ_VERSION_1) == 1 &&
           X509_REQ_set_subject_name(request, subject->name) == 1 &&
           X509_REQ_set_pubkey(request, key) == 1 &&
           (subject->extensions == NULL ||
            X509_REQ_add_extensions(request, subject->extensions) == 1);
}

int request_write(APP *app, const SIGNER *signer, const SUBJECT *subject, BIO *out)
{
    AUTO(req) X509_REQ *request = X509_REQ_new_ex(app->libctx, NULL);
    AUTO(md) EVP_MD *digest = digest_for(app, signer->key);

    if (request == NULL || !fill_request(request, signer->key, subject))
        return complain_crypto(EX_SOFTWARE, "cannot make the certificate request");
    DO(signer_sign_request(signer, digest, request));
    if (PEM_write_bio_X509_REQ(out, request) != 1)
        return complain_crypto(EX_SOFTWARE, "cannot write the certificate request");
    return EX_OK;
}

/* 159 random bits: positive, and at most 20 bytes as RFC 5280 section 4.1.2.2 wants. */
static bool set_serial(X509 *cert)
{
    AUTO(bn) BIGNUM *number = BN_new();

    return number != NULL && BN_rand(number, 159, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
           BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
}

static bool add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;
    bool added;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, cert, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    added = extension != NULL && X509_add_ext(cert, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return added;
}

static const char *key_usage(unsigned policy)
{
    if ((policy & TPKS_MAY_DECRYPT) != 0)
        return "critical,digitalSignature,keyEncipherment";
    if ((policy & TPKS_MAY_AGREE) != 0)
        return "critical,digitalSignature,keyAgreement";
    return "critical,digitalSignature";
}

static bool add_extensions(X509 *cert, const SUBJECT *subject, unsigned policy)
{
    for (int i = 0; i < sk_X509_EXTENSION_num(subject->extensions); i++)
        if (X509_add_ext(cert, sk_X509_EXTENSION_value(subject->extensions, i), -1) != 1)
            return false;
    return add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(cert, NID_key_usage, key_usage(policy)) &&
           add_extension(cert, NID_subject_key_identifier, "hash");
}

static bool fill_cert(X509 *cert, EVP_PKEY *key, const SUBJECT *subject, unsigned long days)
{
    return X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
           X509_set_subject_name(cert, subject->name) == 1 &&
           X509_set_issuer_name(cert, subject->name) == 1 && X509_set_pubkey(cert, key) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(cert), 0) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(cert), (int)days, 0, NULL) != NULL;
}

int self_sign(APP *app, const SIGNER *signer, const SUBJECT *subject, unsigned long days,
              unsigned policy, X509 **out)
{
    AUTO(x509) X509 *cert = X509_new_ex(app->libctx, NULL);
    AUTO(md) EVP_MD *digest = digest_for(app, signer->key);

    if (cert == NULL || !fill_cert(cert, signer->key, subject, days) ||
        !add_extensions(cert, subject, policy))
        return complain_crypto(EX_SOFTWARE, "cannot make the self-signed certificate");
    DO(signer_sign_cert(signer, digest, cert));
    *out = cert;
    cert = NULL;
    return EX_OK;
}
