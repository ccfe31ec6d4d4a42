/*
 * cmd_generate.c - trustpoint-keystore generate: a new private key
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "key_input.h"
#include "options.h"
#include "output.h"
#include "policy.h"
#include "request.h"

#define NO_DAYS ((unsigned long)-1)

typedef struct generate_options {
    const char *type, *csr, *name, *san;
    unsigned long days; /* NO_DAYS: no certificate */
    bool in_hsm;
    policy_options policy;
} generate_options;

CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free, cleanup_context)

/* ---- the key
 * ---------------------------------------------------------------------------------------- */

static int generate(EVP_PKEY_CTX *context, const OSSL_PARAM *params, EVP_PKEY **out)
{
    if (context == NULL || EVP_PKEY_keygen_init(context) <= 0 ||
        (params != NULL && EVP_PKEY_CTX_set_params(context, params) <= 0) ||
        EVP_PKEY_generate(context, out) <= 0)
        return complain_crypto(EX_UNAVAILABLE, "OpenSSL cannot generate this key");
    return EX_OK;
}

static int generate_rsa(APP *app, const char *algorithm, const char *bits_text, EVP_PKEY **out)
{
    char *end;
    unsigned long bits = strtoul(bits_text, &end, 10);
    size_t size = (size_t)bits;
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_PKEY_PARAM_RSA_BITS, &size),
                                 OSSL_PARAM_construct_end()};

    if (*end != '\0' || *bits_text < '1' || *bits_text > '9' || bits < 2048 || bits > 8192)
        return complain(EX_USAGE, "--type: RSA keys can have 2048 to 8192 bits, not \"%s\"",
                        bits_text);
    AUTO(context) EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(app->libctx, algorithm, NULL);

    return generate(context, params, out);
}

static int generate_ec(APP *app, const char *group, EVP_PKEY **out)
{
    char *name = (char *)(uintptr_t)group; /* OSSL_PARAM has no read-only text */
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name, 0),
        OSSL_PARAM_construct_end()};

    if (strcmp(group, "P-256") != 0 && strcmp(group, "P-384") != 0 && strcmp(group, "P-521") != 0)
        return complain(EX_USAGE, "--type: the curve can be P-256, P-384 or P-521, not \"%s\"",
                        group);
    AUTO(context) EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(app->libctx, "EC", NULL);

    return generate(context, params, out);
}

static int generate_plain(APP *app, const char *algorithm, EVP_PKEY **out)
{
    AUTO(context) EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(app->libctx, algorithm, NULL);

    return generate(context, NULL, out);
}

static int generate_key(APP *app, const char *type, EVP_PKEY **out)
{
    if (strncmp(type, "rsa:", 4) == 0)
        return generate_rsa(app, "RSA", type + 4, out);
    if (strncmp(type, "rsa-pss:", 8) == 0)
        return generate_rsa(app, "RSA-PSS", type + 8, out);
    if (strncmp(type, "ec:", 3) == 0)
        return generate_ec(app, type + 3, out);
    if (strcmp(type, "ed25519") == 0)
        return generate_plain(app, "ED25519", out);
    if (strcmp(type, "ed448") == 0)
        return generate_plain(app, "ED448", out);
    return complain(EX_USAGE,
                    "--type: \"%s\" is not one of rsa:3072, rsa-pss:3072 (2048 to 8192), ec:P-256, "
                    "ec:P-384, ec:P-521, ed25519, ed448",
                    type);
}

/* ---- its certificate or request
 * ------------------------------------------------------------------------ */

/* Without --subject and --san the record's name is the common name, which has room for 64. */
static int make_subject(const generate_options *o, const char *name, SUBJECT *out)
{
    DO(subject_from_text(o->name, o->san, out));
    if (o->name != NULL || o->san != NULL)
        return EX_OK;
    if (X509_NAME_add_entry_by_NID(out->name, NID_commonName, MBSTRING_UTF8,
                                   (const unsigned char *)name, -1, -1, 0) == 1)
        return EX_OK;
    ERR_clear_error();
    return complain(EX_USAGE, "the name \"%s\" cannot be a common name; give --subject", name);
}

static int make_cert(APP *app, const generate_options *o, const SIGNER *signer,
                     const SUBJECT *subject, STACK_OF(X509) * *certs)
{
    AUTO(x509) X509 *cert = NULL;

    if (o->days == NO_DAYS)
        return EX_OK;
    DO(self_sign(app, signer, subject, o->days, policy_of(&o->policy, TPKS_MAY_SIGN), &cert));
    *certs = sk_X509_new_null();
    if (*certs == NULL || sk_X509_push(*certs, cert) <= 0)
        return complain_memory();
    cert = NULL;
    return EX_OK;
}

static int make_csr(APP *app, const generate_options *o, const SIGNER *signer,
                    const SUBJECT *subject, BIO *csr)
{
    return o->csr != NULL ? request_write(app, signer, subject, csr) : EX_OK;
}

static int check_absent(const char *path)
{
    if (path == NULL || strcmp(path, "-") == 0 || access(path, F_OK) != 0)
        return EX_OK;
    return complain(EX_CANTCREAT, "%s exists already; name a new file", path);
}

static int write_csr(const char *name, const char *path, BIO *csr)
{
    int code = path != NULL ? output_bio(csr, path, 0644) : EX_OK;

    if (code != EX_OK)
        say("the record is in the keystore; \"" PROGRAM " csr %s\" writes its request", name);
    return code;
}

/* All that can fail is done before the record is added; only writing the request comes after. */
static int generate_sealed(APP *app, const generate_options *o, const char *name,
                           const SUBJECT *subject, BIO *csr)
{
    AUTO(pkey) EVP_PKEY *key = NULL;
    AUTO(certs) STACK_OF(X509) *certs = NULL;
    AUTO(secret) TPKS_SECRET *secret = NULL;

    DO(generate_key(app, o->type, &key));
    const SIGNER signer = {key, NULL};
    DO(make_cert(app, o, &signer, subject, &certs));
    DO(make_csr(app, o, &signer, subject, csr));
    DO(key_to_secret(key, &secret));
    return complain_result(
        tpks_add(app->ks, name, secret, certs, policy_of(&o->policy, TPKS_MAY_SIGN), NULL));
}

/* The token's key signs for itself, once it is there. */
static int complete_in_hsm(APP *app, const generate_options *o, const char *name,
                           const SUBJECT *subject, BIO *csr)
{
    __attribute__((cleanup(cleanup_signer))) SIGNER signer = {NULL, NULL};
    AUTO(record) TPKS_RECORD *record = NULL;
    AUTO(certs) STACK_OF(X509) *certs = NULL;

    DO(app_find(app, name, &record));
    DO(signer_open(app, record, &signer));
    DO(make_csr(app, o, &signer, subject, csr));
    DO(make_cert(app, o, &signer, subject, &certs));
    return certs != NULL ? complain_result(tpks_set_cert(app->ks, record, NULL, certs)) : EX_OK;
}

static int generate_in_hsm(APP *app, const generate_options *o, const char *name,
                           const SUBJECT *subject, BIO *csr)
{
    int code;

    DO(complain_result(tpks_generate_in_token(app->ks, name, o->type,
                                              policy_of(&o->policy, TPKS_MAY_SIGN), NULL)));
    say("the key of %s is in the token and nowhere else: no backup or password brings it back, and "
        "programs that use it need the token and its PIN while they run",
        name);
    if (o->csr == NULL && o->days == NO_DAYS)
        return EX_OK;
    code = complete_in_hsm(app, o, name, subject, csr);
    if (code != EX_OK)
        say("the key is made; \"" PROGRAM " csr %s\" and \"set-cert\" do the rest", name);
    return code;
}

static int generate_record(APP *app, const generate_options *o, const char *name)
{
    __attribute__((cleanup(cleanup_subject))) SUBJECT subject = {NULL, NULL};
    AUTO(bio) BIO *csr = BIO_new(BIO_s_mem());

    if (csr == NULL)
        return complain_memory();
    DO(check_absent(o->csr));
    if (o->csr != NULL || o->days != NO_DAYS)
        DO(make_subject(o, name, &subject));
    DO(app_open(app, TPKS_WRITE));
    DO(o->in_hsm ? generate_in_hsm(app, o, name, &subject, csr)
                 : generate_sealed(app, o, name, &subject, csr));
    return write_csr(name, o->csr, csr);
}

/* Before a key is made: one in a token would stay there. */
static int check(const generate_options *o)
{
    if (o->days != NO_DAYS && (o->days == 0 || o->days > DAYS_MAX))
        return complain(EX_USAGE, "--self-signed: 1 to %d days are possible", DAYS_MAX);
    if ((o->name != NULL || o->san != NULL) && o->csr == NULL && o->days == NO_DAYS)
        return complain(EX_USAGE, "--subject and --san need --csr or --self-signed");
    return EX_OK;
}

int command_generate(APP *app, int argc, char **argv)
{
    generate_options o = {.type = "ec:P-256", .days = NO_DAYS};
    const option_spec specs[] = {
        {"type", OPTION_TEXT, &o.type, "TYPE",
         "rsa:BITS, rsa-pss:BITS, ec:CURVE, ed25519 or ed448 (default ec:P-256)"},
        {"csr", OPTION_TEXT, &o.csr, "FILE", "write a certificate request (- is standard output)"},
        {"self-signed", OPTION_NUMBER, &o.days, "DAYS", "make a self-signed certificate"},
        {"subject", OPTION_TEXT, &o.name, "/CN=...", "subject (default: the record's name)"},
        {"san", OPTION_TEXT, &o.san, "DNS:...", "alternative names, such as DNS:a,IP:192.0.2.1"},
        {"in-hsm", OPTION_FLAG, &o.in_hsm, NULL,
         "make it in the token, which it never leaves (rsa:BITS, ec:CURVE); it has no backup"},
        POLICY_ALLOW_OPTIONS(o.policy),
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "generate", "NAME", "Makes a new private key, which never lies outside the keystore.",
        specs,      1,      1};
    char **arguments;
    int count;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    DO(complain_result(tpks_name_check(arguments[0])));
    DO(check(&o));
    return generate_record(app, &o, arguments[0]);
}
