/*
 * record_view.c - a record's public side for humans and for programs
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "key_input.h"
#include "output.h"
#include "record_view.h"

EVP_PKEY *view_public_key(APP *app, const TPKS_RECORD *record)
{
    size_t size = 0;
    const unsigned char *der = tpks_record_spki(record, &size);
    EVP_PKEY *key = d2i_PUBKEY_ex(NULL, &der, (long)size, app->libctx, NULL);

    ERR_clear_error();
    return key;
}

/* NIST's names are what people know; libcrypto says "prime256v1" for one of them. */
static void group_name(EVP_PKEY *key, char *text, size_t size)
{
    const char *nist;

    if (EVP_PKEY_get_group_name(key, text, size, NULL) != 1)
        snprintf(text, size, "%d", EVP_PKEY_get_bits(key));
    nist = EC_curve_nid2nist(OBJ_txt2nid(text));
    if (nist != NULL)
        snprintf(text, size, "%s", nist);
    ERR_clear_error();
}

static void free_spki(X509_PUBKEY **spki)
{
    X509_PUBKEY_free(*spki);
}

static void free_parts(ASN1_SEQUENCE_ANY **parts)
{
    sk_ASN1_TYPE_pop_free(*parts, ASN1_TYPE_free);
}

/* Of an RSAPublicKey (RFC 8017, A.1.1); 0: it is none. */
static int modulus_bits(const unsigned char *der, int size)
{
    __attribute__((cleanup(free_parts))) ASN1_SEQUENCE_ANY *parts =
        d2i_ASN1_SEQUENCE_ANY(NULL, &der, size);
    const ASN1_TYPE *modulus = parts == NULL ? NULL : sk_ASN1_TYPE_value(parts, 0);
    BIGNUM *number = modulus == NULL || modulus->type != V_ASN1_INTEGER
                         ? NULL
                         : ASN1_INTEGER_to_BN(modulus->value.integer, NULL);
    int bits = number == NULL ? 0 : BN_num_bits(number);

    BN_free(number);
    return bits;
}

/* By what stands around the key, which takes long to decode; false: that does not say it. */
static bool view_key_quickly(APP *app, const TPKS_RECORD *record, char text[KEY_TEXT_SIZE])
{
    __attribute__((cleanup(free_spki))) X509_PUBKEY *spki = X509_PUBKEY_new_ex(app->bare, NULL);
    const char *type = tpks_record_key_type(record), *nist;
    const unsigned char *key = NULL;
    const void *curve = NULL;
    X509_ALGOR *algorithm = NULL;
    int key_size = 0, kind = V_ASN1_UNDEF, nid, bits;
    size_t size = 0;
    const unsigned char *der = tpks_record_spki(record, &size);

    if (spki == NULL || d2i_X509_PUBKEY(&spki, &der, (long)size) == NULL ||
        !X509_PUBKEY_get0_param(NULL, &key, &key_size, &algorithm, spki))
        return false;
    X509_ALGOR_get0(NULL, &kind, &curve, algorithm);
    nid = kind == V_ASN1_OBJECT ? OBJ_obj2nid(curve) : NID_undef;
    if (strcmp(type, "EC") == 0 && nid != NID_undef) {
        nist = EC_curve_nid2nist(nid);
        snprintf(text, KEY_TEXT_SIZE, "EC %s", nist != NULL ? nist : OBJ_nid2sn(nid));
        return true;
    }
    bits = strncmp(type, "RSA", 3) == 0 ? modulus_bits(key, key_size) : 0;
    snprintf(text, KEY_TEXT_SIZE, "%s %d", type, bits);
    return bits != 0;
}

void view_key(APP *app, const TPKS_RECORD *record, char text[KEY_TEXT_SIZE])
{
    bool known = view_key_quickly(app, record, text);

    ERR_clear_error();
    if (known)
        return;
    AUTO(pkey) EVP_PKEY *key = view_public_key(app, record);
    const char *type = tpks_record_key_type(record);
    char group[32];

    if (key == NULL || strncmp(type, "ED", 2) == 0) {
        snprintf(text, KEY_TEXT_SIZE, "%s", type);
    } else if (strcmp(type, "EC") == 0) {
        group_name(key, group, sizeof(group));
        snprintf(text, KEY_TEXT_SIZE, "EC %s", group);
    } else {
        snprintf(text, KEY_TEXT_SIZE, "%s %d", type, EVP_PKEY_get_bits(key));
    }
}

static const struct {
    unsigned bit;
    const char *name;
} policies[] = {{TPKS_MAY_SIGN, "sign"}, {TPKS_MAY_DECRYPT, "decrypt"}, {TPKS_MAY_AGREE, "agree"}};

void view_policy(unsigned policy, char text[POLICY_TEXT_SIZE])
{
    strcpy(text, "");
    for (size_t i = 0; i < 3; i++) {
        if ((policy & policies[i].bit) == 0)
            continue;
        if (*text != '\0')
            strcat(text, ", ");
        strcat(text, policies[i].name);
    }
    if (*text == '\0')
        strcpy(text, "nothing");
}

X509 *view_cert(APP *app, const TPKS_RECORD *record, size_t i)
{
    size_t size = 0;
    const unsigned char *der;
    X509 *cert;

    if (i >= tpks_record_cert_count(record))
        return NULL;
    der = tpks_record_cert(record, i, &size);
    cert = X509_new_ex(app->bare, NULL);
    if (cert != NULL && d2i_X509(&cert, &der, (long)size) == NULL)
        cert = NULL; /* d2i_X509() has freed it */
    ERR_clear_error();
    return cert;
}

int view_certs_pem(APP *app, const TPKS_RECORD *record, size_t from, size_t to, BIO *bio)
{
    for (size_t i = from; i < to; i++) {
        AUTO(x509) X509 *cert = view_cert(app, record, i);

        if (cert == NULL || PEM_write_bio_X509(bio, cert) != 1)
            return complain(EX_DATAERR, "certificate %zu of %s cannot be read", i,
                            tpks_record_name(record));
    }
    return EX_OK;
}

static time_t time_of(const ASN1_TIME *time)
{
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) == 1 ? timegm(&tm) : 0;
}

time_t view_not_before(const X509 *cert)
{
    return time_of(X509_get0_notBefore(cert));
}

time_t view_not_after(const X509 *cert)
{
    return time_of(X509_get0_notAfter(cert));
}

/* The text that a memory BIO holds, to be freed with free(). */
static char *take_text(BIO *bio)
{
    char *data = NULL;
    long size = bio != NULL ? BIO_get_mem_data(bio, &data) : 0;

    return size > 0 ? strndup(data, (size_t)size) : strdup("");
}

char *view_name(const X509_NAME *name)
{
    AUTO(bio) BIO *bio = BIO_new(BIO_s_mem());

    if (bio != NULL)
        X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
    ERR_clear_error();
    return take_text(bio);
}

static inline void cleanup_text(char **text)
{
    free(*text);
}

/* ---- text
 * ------------------------------------------------------------------------------------------- */

bool view_is_trustpoint(const APP *app)
{
    return strncmp(tpks_schema_name(app->ks), "Trustpoint", strlen("Trustpoint")) == 0;
}

const char *view_home(const TPKS_RECORD *record)
{
    static const char *const homes[] = {
        [TPKS_HOME_DATABASE] = "database", [TPKS_HOME_PLAIN] = "in the clear",
        [TPKS_HOME_TOKEN] = "token",       [TPKS_HOME_SOFTWARE] = "software",
        [TPKS_HOME_NONE] = "none",
    };

    return homes[tpks_record_home(record)];
}

void view_header(const APP *app)
{
    if (view_is_trustpoint(app))
        printf("%-52s %-9s %-12s %-21s %s\n", "URI", "KEY", "KEY IS IN", "BEGINS", "EXPIRES");
    else
        printf("%-24s %-14s %-21s %s\n", "NAME", "KEY", "EXPIRES", "SUBJECT");
}

/* Of Trustpoint's records: their names are said as they stand in a configuration. */
static void view_trustpoint_row(APP *app, const TPKS_RECORD *record)
{
    AUTO(x509) X509 *leaf = view_cert(app, record, 0);
    char *uri = tpks_uri_build(app->keystore, tpks_record_name(record));
    char key[KEY_TEXT_SIZE], time[TIME_SIZE];

    view_key(app, record, key);
    output_column(stdout, uri != NULL ? uri : "-", 53);
    output_column(stdout, key, 10);
    output_column(stdout, view_home(record), 13);
    output_column(stdout, leaf != NULL ? time_text(time_of(X509_get0_notBefore(leaf)), time) : "-",
                  22);
    output_escaped(stdout, leaf != NULL ? time_text(view_not_after(leaf), time) : "-");
    putchar('\n');
    OPENSSL_free(uri);
}

void view_row(APP *app, const TPKS_RECORD *record)
{
    if (view_is_trustpoint(app)) {
        view_trustpoint_row(app, record);
        return;
    }
    AUTO(x509) X509 *leaf = view_cert(app, record, 0);
    AUTO(text) char *subject = leaf != NULL ? view_name(X509_get_subject_name(leaf)) : NULL;
    char key[KEY_TEXT_SIZE], time[TIME_SIZE];

    view_key(app, record, key);
    output_column(stdout, tpks_record_name(record), 25);
    output_column(stdout, key, 15);
    output_column(stdout, leaf != NULL ? time_text(view_not_after(leaf), time) : "-", 22);
    output_escaped(stdout, subject != NULL ? subject : "-");
    putchar('\n');
}

/* Names a certificate has besides its subject, as "DNS:a, IP Address:b". */
static char *san_text(const X509 *cert)
{
    int at = X509_get_ext_by_NID(cert, NID_subject_alt_name, -1);
    AUTO(bio) BIO *bio = BIO_new(BIO_s_mem());

    if (at < 0 || bio == NULL)
        return NULL;
    X509V3_EXT_print(bio, X509_get_ext(cert, at), 0, 0);
    ERR_clear_error();
    return take_text(bio);
}

static void print_time(const char *label, time_t value)
{
    char text[TIME_SIZE];

    output_fact(label, time_text(value, text));
}

static void print_hex(const char *label, const unsigned char *data, size_t size)
{
    char text[2 * EVP_MAX_MD_SIZE + 1];

    output_fact(label, hex_text(data, size, text));
}

static bool cert_digest(APP *app, const TPKS_RECORD *record, size_t i,
                        unsigned char digest[EVP_MAX_MD_SIZE], size_t *size)
{
    size_t der_size = 0;
    const unsigned char *der = tpks_record_cert(record, i, &der_size);

    return EVP_Q_digest(app->libctx, "SHA256", NULL, der, der_size, digest, size) == 1;
}

static void print_cert(const X509 *cert)
{
    AUTO(text) char *subject = view_name(X509_get_subject_name(cert));
    AUTO(text) char *issuer = view_name(X509_get_issuer_name(cert));
    AUTO(text) char *san = san_text(cert);

    output_fact("  subject", subject);
    output_fact("  issuer", issuer);
    output_fact("  alternative names", san);
    print_time("  not before", view_not_before(cert));
    print_time("  not after", view_not_after(cert));
}

static void print_certs(APP *app, const TPKS_RECORD *record)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t size = 0;

    for (size_t i = 0; i < tpks_record_cert_count(record); i++) {
        AUTO(x509) X509 *cert = view_cert(app, record, i);

        printf(i == 0 ? "certificate\n" : "chain %zu\n", i);
        if (cert != NULL)
            print_cert(cert);
        if (cert != NULL && cert_digest(app, record, i, digest, &size))
            print_hex("  SHA-256", digest, size);
        if (cert == NULL)
            output_fact("  damaged", "this certificate cannot be parsed");
    }
}

void view_facts(APP *app, const TPKS_RECORD *record)
{
    char *uri = tpks_uri_build(app->keystore, tpks_record_name(record));
    char key[KEY_TEXT_SIZE], policy[POLICY_TEXT_SIZE];

    view_key(app, record, key);
    view_policy(tpks_record_policy(record), policy);
    output_fact("name", tpks_record_name(record));
    output_fact("uri", uri);
    output_fact("key", key);
    output_fact("key is in", view_home(record));
    if (*tpks_record_role(record) != '\0')
        output_fact("role", tpks_record_role(record));
    if (*tpks_record_token_serial(record) != '\0')
        output_fact("token serial", tpks_record_token_serial(record));
    output_fact("may", policy);
    print_hex("id", tpks_record_id(record), TPKS_ID_SIZE);
    print_hex("public key SHA-256", tpks_record_spki_sha256(record), 32);
    print_time("created", (time_t)tpks_record_created(record));
    print_time("changed", (time_t)tpks_record_changed(record));
    print_certs(app, record);
    OPENSSL_free(uri);
}

/* ---- JSON
 * ------------------------------------------------------------------------------------------- */

static void json_add_serial(struct json_object *object, const X509 *cert)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);

    json_add_hex(object, "serial", ASN1_STRING_get0_data(serial),
                 (size_t)ASN1_STRING_length(serial));
}

static struct json_object *cert_json(APP *app, const TPKS_RECORD *record, size_t i,
                                     const X509 *cert)
{
    struct json_object *object = json_object_new_object();
    AUTO(text) char *subject = view_name(X509_get_subject_name(cert));
    AUTO(text) char *issuer = view_name(X509_get_issuer_name(cert));
    AUTO(text) char *san = san_text(cert);
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t size = 0;

    json_add_text(object, "subject", subject);
    json_add_text(object, "issuer", issuer);
    json_add_text(object, "alternative_names", san);
    json_add_serial(object, cert);
    json_add_time(object, "not_before", view_not_before(cert));
    json_add_time(object, "not_after", view_not_after(cert));
    if (cert_digest(app, record, i, digest, &size))
        json_add_hex(object, "sha256", digest, size);
    return object;
}

static struct json_object *certs_json(APP *app, const TPKS_RECORD *record)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < tpks_record_cert_count(record); i++) {
        AUTO(x509) X509 *cert = view_cert(app, record, i);

        json_object_array_add(array, cert != NULL ? cert_json(app, record, i, cert) : NULL);
    }
    return array;
}

static struct json_object *policy_json(unsigned policy)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < 3; i++)
        if ((policy & policies[i].bit) != 0)
            json_object_array_add(array, json_object_new_string(policies[i].name));
    return array;
}

struct json_object *view_json(APP *app, const TPKS_RECORD *record)
{
    struct json_object *object = json_object_new_object();
    char *uri = tpks_uri_build(app->keystore, tpks_record_name(record));
    char key[KEY_TEXT_SIZE];

    view_key(app, record, key);
    json_add_text(object, "name", tpks_record_name(record));
    json_add_text(object, "uri", uri);
    json_add_hex(object, "id", tpks_record_id(record), TPKS_ID_SIZE);
    json_add_text(object, "key_type", tpks_record_key_type(record));
    json_add_text(object, "key", key);
    json_add_text(object, "home", view_home(record));
    if (*tpks_record_role(record) != '\0')
        json_add_text(object, "role", tpks_record_role(record));
    if (*tpks_record_token_serial(record) != '\0')
        json_add_text(object, "token_serial", tpks_record_token_serial(record));
    json_object_object_add(object, "may", policy_json(tpks_record_policy(record)));
    json_add_hex(object, "spki_sha256", tpks_record_spki_sha256(record), 32);
    json_add_number(object, "version", (int64_t)tpks_record_version(record));
    json_add_time(object, "created", (time_t)tpks_record_created(record));
    json_add_time(object, "changed", (time_t)tpks_record_changed(record));
    json_object_object_add(object, "certificates", certs_json(app, record));
    OPENSSL_free(uri);
    return object;
}
