/* trustpoint_record.c - credentials and managed keys as records */
#include <stdio.h>

#include <openssl/crypto.h>
#include <openssl/x509v3.h>

#include "error.h"
#include "secret.h"
#include "trustpoint.h"

#define KEY_AGREEMENT_BIT 4 /* RFC 5280, 4.2.1.3 */
#define KEY_ID_MAX 64       /* bytes of a CKA_ID; Trustpoint makes 16 */

static void free_x509(X509 **cert)
{
    X509_free(*cert);
}

static void free_certs(STACK_OF(X509) * *certs)
{
    sk_X509_pop_free(*certs, X509_free);
}

static void free_text(char **text)
{
    OPENSSL_free(*text);
}

#define CERT __attribute__((cleanup(free_x509))) X509
#define CERTS __attribute__((cleanup(free_certs))) STACK_OF(X509)

/* ---- where the key is ---- */

static tpks_result set_home(TPKS_RECORD *record, tpks_key_home home, uint64_t algorithm,
                            const void *sealed, size_t size)
{
    record->home = home;
    record->seal_algorithm = algorithm;
    return bytes_set(&record->sealed, sealed, size);
}

static tpks_result set_token_id(TPKS_RECORD *record, const trustpoint_row *row)
{
    unsigned char id[KEY_ID_MAX];
    size_t size = 0;

    if (!OPENSSL_hexstr2buf_ex(id, sizeof(id), &size, row->key_id, '\0') || size == 0)
        return fail(TPKS_TAMPERED,
                    "managed key \"%.100s\" has an impossible id in the token: restore the "
                    "database from a backup",
                    row->alias);
    TRY(bytes_set(&record->cka_id, id, size));
    return trustpoint_set_text(&record->token_serial, row->token_serial);
}

/* What password opens it is kept as "source ref". */
static tpks_result set_software(TPKS_RECORD *record, const trustpoint_row *row)
{
    char source[1024];
    int size = snprintf(source, sizeof(source), "%s %s",
                        row->password_source == NULL ? "" : row->password_source,
                        row->password_ref == NULL ? "" : row->password_ref);

    if (size >= (int)sizeof(source))
        return fail(TPKS_TAMPERED, "the software provider's setting is too long");
    TRY(bytes_set(&record->extension, source, (size_t)size));
    return set_home(record, TPKS_HOME_SOFTWARE, SEAL_TRUSTPOINT_MANAGED_SOFTWARE,
                    row->encrypted.data, row->encrypted.size);
}

/* Only in the order in which Trustpoint itself looks. */
static tpks_result set_key(const database *d, TPKS_RECORD *record, const trustpoint_row *row)
{
    bool managed = d->tables->keys == TRUSTPOINT_KEYS_MANAGED;

    if (trustpoint_field_is_plain(row->private_key)) /* the secret itself is read when it is due */
        return set_home(record, TPKS_HOME_PLAIN, SEAL_TRUSTPOINT_PLAIN, NULL, 0);
    if (*row->private_key != '\0')
        return set_home(record, TPKS_HOME_DATABASE,
                        managed ? SEAL_TRUSTPOINT_V2 : SEAL_TRUSTPOINT_V1, row->private_key,
                        strlen(row->private_key));
    if (row->key_label != NULL) {
        TRY(trustpoint_set_text(&record->cka_label, row->key_label));
        return set_home(record, TPKS_HOME_TOKEN, SEAL_TRUSTPOINT_TOKEN, NULL, 0);
    }
    if (row->imported != NULL)
        return set_home(record, TPKS_HOME_DATABASE, SEAL_TRUSTPOINT_IMPORT, row->imported,
                        strlen(row->imported));
    if (row->key_id != NULL) {
        TRY(set_token_id(record, row));
        return set_home(record, TPKS_HOME_TOKEN, SEAL_TRUSTPOINT_TOKEN, NULL, 0);
    }
    if (row->encrypted.type != TPKS_VALUE_NULL)
        return set_software(record, row);
    return set_home(record, TPKS_HOME_NONE, SEAL_TRUSTPOINT_NONE, NULL, 0);
}

/* ---- certificates ---- */

/* `arg` is a stack of certificates. One that can't be parsed is in nobody's path. */
static tpks_result collect(reader *r, trustpoint_parser *parser, STACK_OF(X509) * certs)
{
    const char *pem = take_borrowed_text(r);
    CERT *cert = NULL;

    TRY(r->result);
    if (sk_X509_num(certs) >= CERTS_MAX || pem == NULL)
        return TPKS_OK;
    cert = trustpoint_parse_known(parser, pem);
    if (cert == NULL)
        return TPKS_OK;
    if (!sk_X509_push(certs, cert))
        return fail_memory();
    cert = NULL;
    return TPKS_OK;
}

/* The chain that was stored for the certificate in use: earlier ones of a renewed credential stay.
 */
static tpks_result read_chain(const database *d, trustpoint_parser *parser,
                              const trustpoint_row *row, STACK_OF(X509) * certs)
{
    READER r = {.d = d, .table = "pki_certificatechainordermodel"};
    tpks_value values[] = {value_integer(row->credential), value_integer(row->certificate)};

    TRY(reader_start(&r,
                     "SELECT x.cert_pem FROM pki_certificatechainordermodel o"
                     " JOIN pki_certificatemodel x ON x.id = o.certificate_id"
                     " WHERE o.credential_id = $1 AND o.primary_certificate_id = $2",
                     values, COUNT(values)));
    for (bool got;;) {
        TRY(reader_next(&r, &got));
        if (!got)
            return TPKS_OK;
        TRY(collect(&r, parser, certs));
    }
}

/* Leaf first, then the ordered chain. */
static tpks_result read_certs(const database *d, trustpoint_parser *parser,
                              const trustpoint_row *row, X509 *leaf, STACK_OF(X509) * *out)
{
    CERTS *given = sk_X509_new_null();
    CERTS *chain = NULL;

    if (given == NULL)
        return fail_memory();
    TRY(read_chain(d, parser, row, given));
    TRY(trustpoint_chain(parser->libctx, leaf, given, &chain));
    if (!sk_X509_unshift(chain, leaf))
        return fail_memory();
    X509_up_ref(leaf);
    *out = chain;
    chain = NULL;
    return TPKS_OK;
}

/* Without an extension for it (RFC 5280, 4.2.1.3) a key may do anything; one that can't be parsed
 * allows nothing. */
static bool may_agree(const X509 *leaf)
{
    int found = 0;
    ASN1_BIT_STRING *usage = X509_get_ext_d2i(leaf, NID_key_usage, &found, NULL);
    bool agrees = usage == NULL ? found == -1 : ASN1_BIT_STRING_get_bit(usage, KEY_AGREEMENT_BIT);

    ASN1_BIT_STRING_free(usage);
    return agrees;
}

/* Who may agree is said by the certificate; decryption is never offered. */
static unsigned policy_of(const TPKS_RECORD *record, X509 *leaf)
{
    bool agrees =
        record->home != TPKS_HOME_TOKEN && strcmp(record->key_type, "EC") == 0 && may_agree(leaf);

    return TPKS_MAY_SIGN | (agrees ? TPKS_MAY_AGREE : 0);
}

static tpks_result set_certs(const database *d, trustpoint_parser *parser,
                             const trustpoint_row *row, TPKS_RECORD *record)
{
    CERT *leaf = trustpoint_parse(parser, row->cert_pem);
    CERTS *certs = NULL;

    if (leaf == NULL)
        return fail_crypto(TPKS_TAMPERED, "its certificate can't be parsed");
    TRY(record_set_public(parser->libctx, record, leaf));
    record->policy = policy_of(record, leaf);
    TRY(read_certs(d, parser, row, leaf, &certs));
    return record_set_certs(parser->libctx, record, certs);
}

/* All that is known of a managed key without a certificate. */
static tpks_result set_fingerprint(TPKS_RECORD *record, const trustpoint_row *row)
{
    size_t size = 0;

    record->policy = TPKS_MAY_SIGN;
    if (row->spki_sha256 != NULL && strlen(row->spki_sha256) == (size_t)2 * SHA256_SIZE &&
        !OPENSSL_hexstr2buf_ex(record->spki_sha256, SHA256_SIZE, &size, row->spki_sha256, '\0'))
        memset(record->spki_sha256, 0, SHA256_SIZE);
    if (row->algorithm == NULL)
        return TPKS_OK;
    return trustpoint_set_text(&record->key_type, strcmp(row->algorithm, "rsa") == 0 ? "RSA"
                                                  : strcmp(row->algorithm, "ec") == 0
                                                      ? "EC"
                                                      : row->algorithm);
}

/* ---- the whole record ---- */

static bool set_id(TPKS_RECORD *record, const trustpoint_row *row)
{
    if (row->credential == 0)
        return row->uuid != NULL && trustpoint_uuid(row->uuid, record->id);
    for (int i = 0; i < 8; i++)
        record->id[TPKS_ID_SIZE - 1 - i] = (unsigned char)(row->credential >> (8 * i));
    return true;
}

tpks_result trustpoint_name_record(const trustpoint_row *row, TPKS_RECORD *record)
{
    OPENSSL_free(record->name);
    record->name = trustpoint_name(row);
    if (record->name == NULL)
        return fail_memory();
    if (!set_id(record, row))
        return fail(TPKS_TAMPERED, "it has an impossible id: restore the database from a backup");
    return TPKS_OK;
}

tpks_result trustpoint_make_record(const database *d, trustpoint_parser *parser, const head *h,
                                   const trustpoint_row *row, TPKS_RECORD *record)
{
    CRYPTO_SCOPE;
    unsigned microseconds = 0;

    TRY(trustpoint_name_record(row, record));
    memcpy(record->keystore, h->keystore, TPKS_ID_SIZE);
    memcpy(record->dek, h->dek, TPKS_ID_SIZE);
    record->version = 1;
    record->role = trustpoint_role(row);
    if (!trustpoint_time(row->created, &record->created, &microseconds))
        record->created = 0;
    record->changed = record->created;
    TRY(trustpoint_set_text(&record->key_type, "unknown"));
    TRY(trustpoint_set_text(&record->token_serial, ""));
    TRY(set_key(d, record, row));
    return row->cert_pem != NULL ? set_certs(d, parser, row, record) : set_fingerprint(record, row);
}

/* ---- opening ---- */

bool trustpoint_needs_dek(const TPKS_RECORD *record)
{
    return record->seal_algorithm == SEAL_TRUSTPOINT_V1 ||
           record->seal_algorithm == SEAL_TRUSTPOINT_V2 ||
           record->seal_algorithm == SEAL_TRUSTPOINT_IMPORT;
}

static uint64_t credential_of(const TPKS_RECORD *record)
{
    uint64_t number = 0;

    for (size_t i = 8; i < TPKS_ID_SIZE; i++)
        number = number << 8 | record->id[i];
    return number;
}

/* A key in the clear goes from the database into secret memory at the last moment. */
static tpks_result open_plain(const database *d, const TPKS_RECORD *record, TPKS_SECRET **pkcs8)
{
    READER r = {.d = d, .table = "pki_credentialmodel"};
    tpks_value values[] = {value_integer(credential_of(record))};
    bool got = false;

    TRY(reader_start(&r, "SELECT private_key FROM pki_credentialmodel WHERE id = $1", values,
                     COUNT(values)));
    TRY(reader_next(&r, &got));
    const char *pem = got ? take_borrowed_text(&r) : NULL;
    if (pem == NULL || !trustpoint_field_is_plain(pem))
        return fail(TPKS_CONFLICT, "record \"%s\" was changed meanwhile: try again", record->name);
    return trustpoint_pem_to_pkcs8(pem, strlen(pem), pkcs8);
}

static tpks_result open_field(const TPKS_RECORD *record, DEK *dek, TPKS_SECRET **pkcs8)
{
    SECRET *plain = NULL;
    __attribute__((cleanup(free_text))) char *text =
        OPENSSL_strndup((const char *)record->sealed.data, record->sealed.size);

    if (text == NULL)
        return fail_memory();
    if (record->seal_algorithm == SEAL_TRUSTPOINT_V1)
        TRY(trustpoint_field_open_1(dek, text, &plain));
    else
        TRY(trustpoint_field_open_2(dek, text, &plain));
    if (record->seal_algorithm == SEAL_TRUSTPOINT_IMPORT)
        return trustpoint_base64_to_pkcs8(plain, pkcs8);
    return trustpoint_pem_to_pkcs8(tpks_secret_data_const(plain), tpks_secret_size(plain), pkcs8);
}

static tpks_result open_software(OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                                 TPKS_SECRET **pkcs8)
{
    SECRET *password = NULL;
    __attribute__((cleanup(free_text))) char *source =
        OPENSSL_strndup((const char *)record->extension.data, record->extension.size);

    if (source == NULL)
        return fail_memory();
    char *ref = strchr(source, ' ');
    *ref++ = '\0';
    TRY(trustpoint_password(source, ref, &password));
    return trustpoint_decrypt_pkcs8(libctx, &record->sealed, password, pkcs8);
}

static tpks_result open_any(const database *d, OSSL_LIB_CTX *libctx, const TPKS_RECORD *record,
                            DEK *dek, TPKS_SECRET **pkcs8)
{
    switch (record->seal_algorithm) {
    case SEAL_TRUSTPOINT_PLAIN:
        return open_plain(d, record, pkcs8);
    case SEAL_TRUSTPOINT_MANAGED_SOFTWARE:
        return open_software(libctx, record, pkcs8);
    case SEAL_TRUSTPOINT_TOKEN:
        return fail(TPKS_NOT_PERMITTED, "its private key lives in the token and never leaves it");
    case SEAL_TRUSTPOINT_NONE:
        return fail(TPKS_NOT_FOUND,
                    "it has no private key: Trustpoint issued its certificate for a key that is "
                    "elsewhere; ask for type=cert");
    default:
        return open_field(record, dek, pkcs8);
    }
}

tpks_result trustpoint_open_record(const database *d, OSSL_LIB_CTX *libctx,
                                   const TPKS_RECORD *record, DEK *dek, TPKS_SECRET **pkcs8)
{
    tpks_result result = open_any(d, libctx, record, dek, pkcs8);

    return fail_in(result, "record \"%s\"", record->name);
}
