/* record.c - sealing, opening and checking one private key with its certificates */
#include "record.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "error.h"
#include "secret.h"

#define TOKEN_FILLER_SIZE 32

void tpks_record_free(TPKS_RECORD *record)
{
    if (record == NULL)
        return;
    for (size_t i = 0; i < record->cert_count; i++)
        OPENSSL_free(record->certs[i].data);
    OPENSSL_free(record->certs);
    OPENSSL_free(record->name);
    OPENSSL_free(record->key_type);
    OPENSSL_free(record->spki.data);
    OPENSSL_free(record->token_serial);
    OPENSSL_free(record->cka_id.data);
    OPENSSL_free(record->cka_label);
    OPENSSL_free(record->extension.data);
    OPENSSL_free(record->sealed.data);
    OPENSSL_free(record);
}

tpks_result record_add_cert(TPKS_RECORD *record, const unsigned char *der, size_t size)
{
    if (record->cert_count == CERTS_MAX)
        return fail(TPKS_BAD_INPUT,
                    "more than %d certificates: leave out those that are not in the chain",
                    CERTS_MAX);
    bytes *certs = rows_grow(record->certs, &record->cert_count, sizeof(*certs));
    if (certs == NULL)
        return fail_memory();
    record->certs = certs;
    return bytes_set(&certs[record->cert_count - 1], der, size);
}

static void drop_certs(TPKS_RECORD *record)
{
    for (size_t i = 0; i < record->cert_count; i++)
        OPENSSL_free(record->certs[i].data);
    OPENSSL_free(record->certs);
    record->certs = NULL;
    record->cert_count = 0;
}

tpks_result record_copy(const TPKS_RECORD *from, TPKS_RECORD **out)
{
    RECORD *to = OPENSSL_memdup(from, sizeof(*from));

    if (to == NULL)
        return fail_memory();
    to->certs = NULL;
    to->cert_count = 0;
    memset(&to->spki, 0, sizeof(to->spki));
    memset(&to->cka_id, 0, sizeof(to->cka_id));
    memset(&to->extension, 0, sizeof(to->extension));
    memset(&to->sealed, 0, sizeof(to->sealed));
    to->name = OPENSSL_strdup(from->name);
    to->key_type = OPENSSL_strdup(from->key_type);
    to->token_serial = OPENSSL_strdup(from->token_serial);
    to->cka_label = from->cka_label == NULL ? NULL : OPENSSL_strdup(from->cka_label);
    if ((to->cka_label == NULL) != (from->cka_label == NULL) || to->name == NULL ||
        to->key_type == NULL || to->token_serial == NULL)
        return fail_memory();
    TRY(bytes_set(&to->spki, from->spki.data, from->spki.size));
    TRY(bytes_set(&to->cka_id, from->cka_id.data, from->cka_id.size));
    TRY(bytes_set(&to->extension, from->extension.data, from->extension.size));
    TRY(bytes_set(&to->sealed, from->sealed.data, from->sealed.size));
    for (size_t i = 0; i < from->cert_count; i++)
        TRY(record_add_cert(to, from->certs[i].data, from->certs[i].size));
    *out = to;
    to = NULL;
    return TPKS_OK;
}

/* ---- accessors ---- */

const char *tpks_record_name(const TPKS_RECORD *record)
{
    return record->name;
}

const unsigned char *tpks_record_id(const TPKS_RECORD *record)
{
    return record->id;
}

const char *tpks_record_key_type(const TPKS_RECORD *record)
{
    return record->key_type;
}

const unsigned char *tpks_record_spki(const TPKS_RECORD *record, size_t *size)
{
    *size = record->spki.size;
    return record->spki.data;
}

const unsigned char *tpks_record_spki_sha256(const TPKS_RECORD *record)
{
    return record->spki_sha256;
}

unsigned tpks_record_policy(const TPKS_RECORD *record)
{
    return (unsigned)record->policy;
}

uint64_t tpks_record_version(const TPKS_RECORD *record)
{
    return record->version;
}

const char *tpks_record_role(const TPKS_RECORD *record)
{
    return record->role == NULL ? "" : record->role;
}

int64_t tpks_record_created(const TPKS_RECORD *record)
{
    return record->created;
}

int64_t tpks_record_changed(const TPKS_RECORD *record)
{
    return record->changed;
}

tpks_key_home tpks_record_home(const TPKS_RECORD *record)
{
    if (record->home != 0)
        return record->home;
    return record->seal_algorithm == SEAL_TOKEN ? TPKS_HOME_TOKEN : TPKS_HOME_DATABASE;
}

const char *tpks_record_token_serial(const TPKS_RECORD *record)
{
    return record->token_serial != NULL ? record->token_serial : "";
}

size_t tpks_record_cert_count(const TPKS_RECORD *record)
{
    return record->cert_count;
}

const unsigned char *tpks_record_cert(const TPKS_RECORD *record, size_t i, size_t *size)
{
    if (i >= record->cert_count)
        return NULL;
    *size = record->certs[i].size;
    return record->certs[i].data;
}

/* ---- seal ---- */

static void encode_record(canonical *c, const TPKS_RECORD *record)
{
    canonical_bytes(c, record->keystore, sizeof(record->keystore));
    canonical_bytes(c, record->id, sizeof(record->id));
    canonical_text(c, record->name);
    canonical_integer(c, record->version);
    canonical_bytes(c, record->dek, sizeof(record->dek));
    canonical_text(c, record->key_type);
    canonical_bytes(c, record->spki.data, record->spki.size);
    canonical_bytes(c, record->spki_sha256, sizeof(record->spki_sha256));
    canonical_integer(c, record->policy);
    canonical_integer(c, (uint64_t)record->created);
    canonical_integer(c, (uint64_t)record->changed);
    canonical_integer(c, record->seal_algorithm);
    canonical_bytes(c, record->certs_digest, sizeof(record->certs_digest));
    canonical_text(c, record->token_serial);
    canonical_bytes(c, record->cka_id.data, record->cka_id.size);
    canonical_bytes(c, record->extension.data, record->extension.size);
}

static bool same_bytes(const bytes *a, const bytes *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

static bool same_certs(const TPKS_RECORD *a, const TPKS_RECORD *b)
{
    bool same = a->cert_count == b->cert_count;

    for (size_t i = 0; i < a->cert_count && same; i++)
        same = same_bytes(&a->certs[i], &b->certs[i]);
    return same;
}

tpks_result record_check_written(const TPKS_RECORD *stored, const TPKS_RECORD *written)
{
    CANONICAL one = {0}, other = {0};
    bool same = false;

    encode_record(&one, stored);
    encode_record(&other, written);
    TRY(canonical_compare(&one, &other, &same));
    if (!same || memcmp(stored->nonce, written->nonce, NONCE_SIZE) != 0 ||
        !same_bytes(&stored->sealed, &written->sealed) || !same_certs(stored, written))
        return fail(TPKS_DATABASE_UNAVAILABLE,
                    "record \"%s\" does not read back as it was written; nothing was changed",
                    written->name);
    return TPKS_OK;
}

TPKS_SECRET *record_token_filler(void)
{
    return tpks_secret_new(TOKEN_FILLER_SIZE);
}

static tpks_result check_filler(const TPKS_RECORD *record, const TPKS_SECRET *opened)
{
    static const unsigned char zeros[TOKEN_FILLER_SIZE];

    if (record->seal_algorithm != SEAL_TOKEN ||
        (tpks_secret_size(opened) == sizeof(zeros) &&
         memcmp(tpks_secret_data_const(opened), zeros, sizeof(zeros)) == 0))
        return TPKS_OK;
    return fail(TPKS_TAMPERED, "record \"%s\" has something else than a key of a token",
                record->name);
}

tpks_result record_open(const TPKS_RECORD *record, DEK *dek, TPKS_SECRET **pkcs8)
{
    CANONICAL about = {0};

    if (record->seal_algorithm != SEAL_GCM && record->seal_algorithm != SEAL_TOKEN)
        return fail(TPKS_NEWER_FORMAT,
                    "record \"%s\" is sealed with algorithm %llu, which this version does not know",
                    record->name, (unsigned long long)record->seal_algorithm);
    if (record->sealed.size <= TAG_SIZE || record->sealed.size > PKCS8_MAX + TAG_SIZE)
        return fail(TPKS_TAMPERED, "record \"%s\": the sealed key has an impossible length",
                    record->name);
    encode_record(&about, record);
    SECRET *opened = tpks_secret_new(record->sealed.size);
    if (opened == NULL)
        return fail_memory();
    tpks_result result = dek_open(dek, DOMAIN_RECORD, &about, record->nonce, record->sealed.data,
                                  record->sealed.size, tpks_secret_data(opened));
    if (result == TPKS_TAMPERED)
        return fail(TPKS_TAMPERED,
                    "record \"%s\" was changed by someone without the DEK, or belongs to "
                    "another keystore: restore it from a backup",
                    record->name);
    TRY(result);
    tpks_secret_shrink(opened, record->sealed.size - TAG_SIZE);
    TRY(check_filler(record, opened));
    *pkcs8 = opened;
    opened = NULL;
    return TPKS_OK;
}

tpks_result record_seal(OSSL_LIB_CTX *libctx, TPKS_RECORD *record, DEK *dek,
                        const TPKS_SECRET *pkcs8)
{
    CANONICAL about = {0};
    SECRET *again = NULL;
    size_t size = tpks_secret_size(pkcs8);

    encode_record(&about, record);
    OPENSSL_free(record->sealed.data);
    record->sealed.size = size + TAG_SIZE;
    record->sealed.data = OPENSSL_malloc(record->sealed.size);
    if (record->sealed.data == NULL)
        return fail_memory();
    TRY(random_public(libctx, record->nonce, sizeof(record->nonce)));
    TRY(dek_seal(dek, DOMAIN_RECORD, &about, record->nonce, tpks_secret_data_const(pkcs8), size,
                 record->sealed.data));
    TRY(record_open(record, dek, &again));
    if (tpks_secret_size(again) != size ||
        CRYPTO_memcmp(tpks_secret_data_const(again), tpks_secret_data_const(pkcs8), size) != 0)
        return fail(TPKS_HSM_UNAVAILABLE,
                    "record \"%s\": the sealed key does not open to what was "
                    "sealed; nothing was changed",
                    record->name);
    return TPKS_OK;
}

/* ---- certificates ---- */

static void free_pkey(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

#define PKEY __attribute__((cleanup(free_pkey))) EVP_PKEY

static tpks_result certs_digest(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                                unsigned char digest[SHA256_SIZE])
{
    CANONICAL all = {0};

    canonical_integer(&all, record->cert_count);
    for (size_t i = 0; i < record->cert_count; i++)
        canonical_bytes(&all, record->certs[i].data, record->certs[i].size);
    return canonical_digest(&all, libctx, DOMAIN_CERTIFICATES, digest);
}

tpks_result record_check_certs(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record)
{
    unsigned char digest[SHA256_SIZE];

    TRY(certs_digest(libctx, record, digest));
    if (CRYPTO_memcmp(digest, record->certs_digest, sizeof(digest)) != 0)
        return fail(TPKS_TAMPERED,
                    "the certificates of record \"%s\" are not those it was stored with: "
                    "restore it from a backup",
                    record->name);
    return TPKS_OK;
}

static void free_x509(X509 **cert)
{
    X509_free(*cert);
}

/* Is the SubjectPublicKeyInfo `der` (taken over) the stored one, byte for byte? */
static bool is_stored(const bytes *stored, unsigned char *der, int size)
{
    bool same =
        size > 0 && (size_t)size == stored->size && memcmp(der, stored->data, stored->size) == 0;

    OPENSSL_free(der);
    return same;
}

/* The same key in another encoding (a compressed point, say)? */
static bool is_equal(OSSL_LIB_CTX *libctx, const bytes *stored, const EVP_PKEY *key)
{
    const unsigned char *at = stored->data;
    PKEY *other = d2i_PUBKEY_ex(NULL, &at, (long)stored->size, libctx, NULL);

    return other != NULL && key != NULL && EVP_PKEY_eq(other, key) == 1;
}

/* The certificate's key is decoded only when its bytes are others. */
static bool is_leaf(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record, const X509 *cert)
{
    unsigned char *der = NULL;
    int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);

    return is_stored(&record->spki, der, size) ||
           is_equal(libctx, &record->spki, X509_get0_pubkey(cert));
}

tpks_result record_set_certs(OSSL_LIB_CTX *libctx, TPKS_RECORD *record,
                             const STACK_OF(X509) * certs)
{
    int count = certs == NULL ? 0 : sk_X509_num(certs);

    drop_certs(record);
    for (int i = 0; i < count; i++) {
        unsigned char *der = NULL;
        int size = i2d_X509(sk_X509_value(certs, i), &der);
        if (size < 0)
            return fail_crypto(TPKS_BAD_INPUT, "certificate");
        tpks_result result = record_add_cert(record, der, (size_t)size);
        OPENSSL_free(der);
        TRY(result);
    }
    if (count > 0 && !is_leaf(libctx, record, sk_X509_value(certs, 0)))
        return fail(TPKS_MISMATCH,
                    "the certificate does not belong to the key of \"%s\": give the certificate "
                    "that was issued for this key first",
                    record->name);
    return certs_digest(libctx, record, record->certs_digest);
}

static X509 *parse_cert(OSSL_LIB_CTX *libctx, const bytes *der)
{
    const unsigned char *at = der->data;
    X509 *cert = X509_new_ex(libctx, NULL);

    if (cert != NULL && d2i_X509(&cert, &at, (long)der->size) != NULL &&
        at == der->data + der->size)
        return cert;
    X509_free(cert);
    return NULL;
}

static tpks_result check_each_cert(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record)
{
    for (size_t i = 0; i < record->cert_count; i++) {
        __attribute__((cleanup(free_x509))) X509 *cert = parse_cert(libctx, &record->certs[i]);
        if (cert == NULL)
            return fail_crypto(TPKS_TAMPERED, "a stored certificate");
        if (i == 0 && !is_leaf(libctx, record, cert))
            return fail(TPKS_TAMPERED,
                        "the certificate stored with record \"%s\" does not belong to its key: "
                        "restore it from a backup",
                        record->name);
    }
    return TPKS_OK;
}

/* Trustpoint has keys without a certificate, of whose public half it knows the digest at most. */
static bool lacks_public(const TPKS_RECORD *record)
{
    return record->home != 0 && record->spki.size == 0;
}

tpks_result record_check_public(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record)
{
    unsigned char digest[SHA256_SIZE];

    if (lacks_public(record))
        return check_each_cert(libctx, record);
    TRY(sha256(libctx, record->spki.data, record->spki.size, digest));
    if (memcmp(digest, record->spki_sha256, sizeof(digest)) != 0)
        return fail(TPKS_TAMPERED,
                    "the public key of record \"%s\" does not have the digest that it is found "
                    "by: restore it from a backup",
                    record->name);
    TRY(record_check_certs(libctx, record));
    return check_each_cert(libctx, record);
}

/* By the algorithm's identifier: the key itself may be one that libcrypto does not know. */
static const char *type_of_spki(const X509_PUBKEY *spki)
{
    ASN1_OBJECT *algorithm = NULL;

    if (!X509_PUBKEY_get0_param(&algorithm, NULL, NULL, NULL, spki))
        return "unknown";
    switch (OBJ_obj2nid(algorithm)) {
    case NID_rsaEncryption:
        return "RSA";
    case NID_rsassaPss:
        return "RSA-PSS";
    case NID_X9_62_id_ecPublicKey:
        return "EC";
    case NID_ED25519:
        return "ED25519";
    case NID_ED448:
        return "ED448";
    default:
        return "unknown";
    }
}

tpks_result record_set_public(OSSL_LIB_CTX *libctx, TPKS_RECORD *record, const X509 *cert)
{
    const X509_PUBKEY *spki = X509_get_X509_PUBKEY(cert);
    unsigned char *der = NULL;
    int size = i2d_X509_PUBKEY(spki, &der);

    if (size <= 0)
        return fail_crypto(TPKS_TAMPERED, "the certificate's public key");
    OPENSSL_free(record->spki.data);
    record->spki.data = der;
    record->spki.size = (size_t)size;
    OPENSSL_free(record->key_type);
    record->key_type = OPENSSL_strdup(type_of_spki(spki));
    if (record->key_type == NULL)
        return fail_memory();
    return sha256(libctx, der, (size_t)size, record->spki_sha256);
}

/* ---- searches ---- */

static tpks_result index_serial(const X509 *cert, cert_index *out)
{
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    bool fits = serial != NULL && BN_num_bytes(serial) <= SERIAL_MAX;

    if (fits)
        out->serial_size = (size_t)BN_bn2bin(serial, out->serial);
    BN_free(serial);
    if (!fits)
        return fail(TPKS_BAD_INPUT, "the certificate's serial number is longer than %d bytes",
                    SERIAL_MAX);
    return TPKS_OK;
}

tpks_result cert_index_make(OSSL_LIB_CTX *libctx, const bytes *der, cert_index *out)
{
    __attribute__((cleanup(free_x509))) X509 *cert = parse_cert(libctx, der);
    const unsigned char *subject = NULL, *issuer = NULL;
    size_t subject_size = 0, issuer_size = 0, sha1_size = 0;

    if (cert == NULL || !X509_NAME_get0_der(X509_get_subject_name(cert), &subject, &subject_size) ||
        !X509_NAME_get0_der(X509_get_issuer_name(cert), &issuer, &issuer_size))
        return fail_crypto(TPKS_BAD_INPUT, "certificate");
    if (!EVP_Q_digest(libctx, "SHA1", NULL, der->data, der->size, out->sha1, &sha1_size))
        return fail_crypto(TPKS_INTERNAL, "SHA-1");
    TRY(index_serial(cert, out));
    TRY(sha256(libctx, der->data, der->size, out->sha256));
    TRY(sha256(libctx, subject, subject_size, out->subject));
    return sha256(libctx, issuer, issuer_size, out->issuer);
}

static bool same(const unsigned char *wanted, const unsigned char *is, size_t size)
{
    return wanted == NULL || memcmp(wanted, is, size) == 0;
}

static bool same_name(OSSL_LIB_CTX *libctx, const unsigned char *wanted, size_t size,
                      const unsigned char is[SHA256_SIZE])
{
    unsigned char digest[SHA256_SIZE];

    return wanted == NULL || (sha256(libctx, wanted, size, digest) == TPKS_OK &&
                              memcmp(digest, is, sizeof(digest)) == 0);
}

static bool leaf_matches(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record, const tpks_selector *by)
{
    cert_index leaf;

    if (by->cert_sha256 == NULL && by->cert_sha1 == NULL && by->subject == NULL &&
        by->issuer == NULL && by->serial == NULL)
        return true;
    return record->cert_count > 0 && cert_index_make(libctx, &record->certs[0], &leaf) == TPKS_OK &&
           same(by->cert_sha256, leaf.sha256, sizeof(leaf.sha256)) &&
           same(by->cert_sha1, leaf.sha1, sizeof(leaf.sha1)) &&
           same_name(libctx, by->subject, by->subject_size, leaf.subject) &&
           same_name(libctx, by->issuer, by->issuer_size, leaf.issuer) &&
           (by->serial == NULL || (by->serial_size == leaf.serial_size &&
                                   same(by->serial, leaf.serial, leaf.serial_size)));
}

tpks_result record_check_match(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                               const tpks_selector *by)
{
    if (by == NULL || ((by->name == NULL || strcmp(by->name, record->name) == 0) &&
                       same(by->id, record->id, TPKS_ID_SIZE) &&
                       same(by->spki_sha256, record->spki_sha256, SHA256_SIZE) &&
                       leaf_matches(libctx, record, by)))
        return TPKS_OK;
    return fail(TPKS_TAMPERED,
                "it is found by what it does not have: restore the database from a backup");
}

/* ---- the key itself ---- */

static EVP_PKEY *parse_key(OSSL_LIB_CTX *libctx, const TPKS_SECRET *pkcs8)
{
    const unsigned char *at = tpks_secret_data_const(pkcs8);
    const unsigned char *end = at + tpks_secret_size(pkcs8);
    PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, end - at);
    EVP_PKEY *key = info != NULL && at == end ? EVP_PKCS82PKEY_ex(info, libctx, NULL) : NULL;

    PKCS8_PRIV_KEY_INFO_free(info);
    return key;
}

static const char *type_of(const EVP_PKEY *key)
{
    static const char *const types[] = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (EVP_PKEY_is_a(key, types[i]))
            return types[i];
    return NULL;
}

/* The two halves belong together. A type whose provider offers no such check passes. */
static bool halves_agree(OSSL_LIB_CTX *libctx, EVP_PKEY *key)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(libctx, key, NULL);
    int agree = ctx == NULL ? 0 : EVP_PKEY_pairwise_check(ctx);

    EVP_PKEY_CTX_free(ctx);
    return agree == 1 || agree == -2;
}

tpks_result record_set_spki(OSSL_LIB_CTX *libctx, TPKS_RECORD *record, const unsigned char *spki,
                            size_t size)
{
    TRY(bytes_set(&record->spki, spki, size));
    return sha256(libctx, spki, size, record->spki_sha256);
}

static tpks_result spki_of(EVP_PKEY *key, bytes *spki)
{
    unsigned char *der = NULL;
    int size = i2d_PUBKEY(key, &der);

    if (size <= 0)
        return fail_crypto(TPKS_BAD_INPUT, "the key's public half");
    OPENSSL_free(spki->data);
    spki->data = der;
    spki->size = (size_t)size;
    return TPKS_OK;
}

tpks_result record_set_key(OSSL_LIB_CTX *libctx, TPKS_RECORD *record, const TPKS_SECRET *pkcs8)
{
    PKEY *key = parse_key(libctx, pkcs8);

    if (key == NULL || tpks_secret_size(pkcs8) > PKCS8_MAX)
        return fail_crypto(TPKS_BAD_INPUT,
                           "the private key is not a PKCS#8 key that OpenSSL reads");
    if (type_of(key) == NULL)
        return fail(TPKS_UNSUPPORTED,
                    "keys of type %s can't be stored: use RSA, RSA-PSS, EC, "
                    "Ed25519 or Ed448",
                    EVP_PKEY_get0_type_name(key));
    if (!halves_agree(libctx, key))
        return fail_crypto(TPKS_BAD_INPUT, "the private and the public half of the key disagree");
    OPENSSL_free(record->key_type);
    record->key_type = OPENSSL_strdup(type_of(key));
    if (record->key_type == NULL)
        return fail_memory();
    TRY(spki_of(key, &record->spki));
    return sha256(libctx, record->spki.data, record->spki.size, record->spki_sha256);
}

static tpks_result fail_other_key(const TPKS_RECORD *record)
{
    return fail(TPKS_TAMPERED,
                "record \"%s\": the private key is not the one of its public key: restore it from "
                "a backup",
                record->name);
}

/* With nothing but a digest, perhaps not even that, to compare; `der` is taken over. */
static tpks_result check_digest(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record, unsigned char *der,
                                int size)
{
    static const unsigned char unknown[SHA256_SIZE];
    unsigned char digest[SHA256_SIZE];
    tpks_result result = sha256(libctx, der, (size_t)size, digest);

    OPENSSL_free(der);
    if (result != TPKS_OK || memcmp(record->spki_sha256, unknown, sizeof(unknown)) == 0)
        return result;
    return memcmp(record->spki_sha256, digest, sizeof(digest)) == 0 ? TPKS_OK
                                                                    : fail_other_key(record);
}

tpks_result record_check_key(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                             const TPKS_SECRET *pkcs8)
{
    PKEY *key = parse_key(libctx, pkcs8);
    unsigned char *der = NULL;
    int size = key == NULL ? 0 : i2d_PUBKEY(key, &der);

    if (size <= 0)
        return fail_crypto(TPKS_TAMPERED, "the opened key");
    if (lacks_public(record))
        return check_digest(libctx, record, der, size);
    return is_stored(&record->spki, der, size) || is_equal(libctx, &record->spki, key)
               ? TPKS_OK
               : fail_other_key(record);
}

tpks_result record_check_halves(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                                const TPKS_SECRET *pkcs8)
{
    PKEY *key = parse_key(libctx, pkcs8);

    return key != NULL && halves_agree(libctx, key) ? TPKS_OK : fail_other_key(record);
}

tpks_result sha256(OSSL_LIB_CTX *libctx, const void *data, size_t size,
                   unsigned char digest[SHA256_SIZE])
{
    size_t length = 0;

    if (!EVP_Q_digest(libctx, "SHA256", NULL, data, size, digest, &length))
        return fail_crypto(TPKS_INTERNAL, "SHA-256");
    return TPKS_OK;
}
