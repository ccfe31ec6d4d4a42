/*
 * plan.c - what a URI yields, in order
 */
#include "plan.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/store.h>
#include <openssl/x509.h>

#include "error.h"

#define SHA1_SIZE 20
#define SHA256_SIZE 32

struct plan {
    TPKS_RECORD **records;
    size_t record_count;
    ITEM *items;
    size_t count;
    ITEM *bad; /* ITEM_ERROR */
    size_t bad_count;
};

typedef struct ids {
    unsigned char (*id)[TPKS_ID_SIZE];
    size_t count;
} IDS;

/* What a plan is made from. */
typedef struct making {
    CONTEXT *context;
    const SOURCE *source;
    const TPKS_URI *uri;
    const WISH *wish;
    PLAN *plan;
    IDS *found;         /* by the search that is under way */
    OSSL_LIB_CTX *bare; /* without decoders; NULL: not here */
    OSSL_PROVIDER *nothing;
} MAKING;

static void x509_free(X509 **certificate)
{
    X509_free(*certificate);
}

static void name_free(X509_NAME **name)
{
    X509_NAME_free(*name);
}

static void bignum_free(BIGNUM **number)
{
    BN_free(*number);
}

static bool is_search(const WISH *wish)
{
    return wish->subject != NULL || wish->issuer != NULL || wish->serial != NULL ||
           wish->fingerprint != NULL || wish->alias != NULL;
}

/* ---- the plan itself ----------------------------------------------------------------------- */

/* Room for one more in an array of `count` elements; arrays grow by doubling. */
static void *grown(void *array, size_t count, size_t element)
{
    if ((count & (count - 1)) != 0)
        return array;
    return OPENSSL_realloc(array, (count == 0 ? 1 : count * 2) * element);
}

static tpks_result add_item(PLAN *plan, const ITEM *item)
{
    ITEM *items = grown(plan->items, plan->count, sizeof(*items));

    if (items == NULL)
        return TPKS_NO_MEMORY;
    plan->items = items;
    plan->items[plan->count++] = *item;
    return TPKS_OK;
}

/* tpks_bad_fn. Short of memory there is one error less. */
static void add_bad(void *arg, const char *name, tpks_result result, const char *text)
{
    PLAN *plan = ((MAKING *)arg)->plan;
    ITEM *bad = grown(plan->bad, plan->bad_count, sizeof(*bad));
    size_t size = strlen(name) + strlen(text) + sizeof(": ");
    ITEM item = {.kind = ITEM_ERROR, .result = result, .description = OPENSSL_malloc(size)};

    if (bad != NULL)
        plan->bad = bad;
    if (bad == NULL || item.description == NULL) {
        OPENSSL_free(item.description);
        return;
    }
    BIO_snprintf(item.description, size, "%s: %s", name, text);
    plan->bad[plan->bad_count++] = item;
}

/* Takes the record when it succeeds. */
static tpks_result add_record(PLAN *plan, TPKS_RECORD *record)
{
    TPKS_RECORD **records = grown(plan->records, plan->record_count, sizeof(TPKS_RECORD *));

    if (records == NULL)
        return TPKS_NO_MEMORY;
    plan->records = records;
    plan->records[plan->record_count++] = record;
    return TPKS_OK;
}

void plan_free(PLAN *plan)
{
    if (plan == NULL)
        return;
    for (size_t i = 0; i < plan->count; i++) {
        OPENSSL_free(plan->items[i].uri);
        OPENSSL_free(plan->items[i].description);
    }
    for (size_t i = 0; i < plan->bad_count; i++)
        OPENSSL_free(plan->bad[i].description);
    for (size_t i = 0; i < plan->record_count; i++)
        tpks_record_free(plan->records[i]);
    OPENSSL_free(plan->bad);
    OPENSSL_free(plan->items);
    OPENSSL_free(plan->records);
    OPENSSL_free(plan);
}

size_t plan_size(const PLAN *plan)
{
    return plan->count + plan->bad_count;
}

const ITEM *plan_item(const PLAN *plan, size_t i)
{
    return i < plan->count ? &plan->items[i] : &plan->bad[i - plan->count];
}

/* ---- certificates that are only looked at -----------------------------------------------------
 */

/* With a certificate OpenSSL 3 decodes its key, which takes most of the time: where there are no
 * decoders it leaves the key alone. */
static void bare_start(MAKING *making)
{
    making->bare = OSSL_LIB_CTX_new();
    making->nothing = making->bare == NULL ? NULL : OSSL_PROVIDER_load(making->bare, "null");
}

static void bare_end(MAKING *making)
{
    if (making->nothing != NULL)
        OSSL_PROVIDER_unload(making->nothing);
    OSSL_LIB_CTX_free(making->bare);
}

/* It must not outlive `making`. */
static X509 *look_at(const MAKING *making, const TPKS_RECORD *record, size_t number)
{
    size_t size = 0;
    const unsigned char *der = tpks_record_cert(record, number, &size);
    OSSL_LIB_CTX *libctx = making->nothing != NULL ? making->bare : context_libctx(making->context);
    X509 *certificate = der == NULL ? NULL : X509_new_ex(libctx, NULL);

    if (certificate != NULL && d2i_X509(&certificate, &der, (long)size) == NULL)
        certificate = NULL; /* d2i_X509() has freed it */
    return certificate;
}

/* ---- does it fit the search? ------------------------------------------------------------------
 */

static bool same_name(const unsigned char *der, size_t size, const X509_NAME *name)
{
    __attribute__((cleanup(name_free))) X509_NAME *wanted = d2i_X509_NAME(NULL, &der, (long)size);

    return wanted != NULL && X509_NAME_cmp(wanted, name) == 0;
}

static bool same_serial(const BIGNUM *wanted, const X509 *certificate)
{
    __attribute__((cleanup(bignum_free))) BIGNUM *serial =
        ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);

    return serial != NULL && BN_cmp(serial, wanted) == 0;
}

static const char *digest_name(const WISH *wish)
{
    if (wish->digest != NULL)
        return wish->digest;
    return wish->fingerprint_size == SHA1_SIZE ? "SHA1" : "SHA256";
}

static bool same_digest(const MAKING *making, const unsigned char *data, size_t size)
{
    const WISH *wish = making->wish;
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t length = 0;

    return EVP_Q_digest(context_libctx(making->context), digest_name(wish), NULL, data, size,
                        digest, &length) &&
           length == wish->fingerprint_size && memcmp(digest, wish->fingerprint, length) == 0;
}

static bool same_fingerprint(const MAKING *making, const TPKS_RECORD *record, size_t number)
{
    size_t size;
    const unsigned char *der;

    if (number < tpks_record_cert_count(record)) {
        der = tpks_record_cert(record, number, &size);
        if (same_digest(making, der, size))
            return true;
    }
    if (number != 0)
        return false;
    der = tpks_record_spki(record, &size);
    return same_digest(making, der, size);
}

static bool certificate_fits(const MAKING *making, const TPKS_RECORD *record, size_t number)
{
    const WISH *wish = making->wish;
    __attribute__((cleanup(x509_free))) X509 *certificate = NULL;

    if (wish->subject == NULL && wish->issuer == NULL && wish->serial == NULL)
        return true;
    certificate = look_at(making, record, number);
    if (certificate == NULL)
        return false;
    return (wish->subject == NULL ||
            same_name(wish->subject, wish->subject_size, X509_get_subject_name(certificate))) &&
           (wish->issuer == NULL ||
            same_name(wish->issuer, wish->issuer_size, X509_get_issuer_name(certificate))) &&
           (wish->serial == NULL || same_serial(wish->serial, certificate));
}

/* A key fits when its leaf certificate, number 0, does. */
static bool fits(const MAKING *making, const TPKS_RECORD *record, size_t number)
{
    const WISH *wish = making->wish;

    if (wish->alias != NULL && strcmp(wish->alias, tpks_record_name(record)) != 0)
        return false;
    if (wish->fingerprint != NULL && !same_fingerprint(making, record, number))
        return false;
    return certificate_fits(making, record, number);
}

/* ---- what is wanted of one record -------------------------------------------------------------
 */

/*
 * Who looks for a subject's name without saying what is expected is libcrypto, for the issuer of a
 * certificate (-CAstore): it stops at the first key, and must not unlock one.
 */
static bool is_issuer_lookup(const MAKING *making)
{
    return making->wish->subject != NULL && making->wish->expect == 0 &&
           tpks_uri_type_of(making->uri) == TPKS_TYPE_ANY;
}

static bool wants_private(const MAKING *making)
{
    tpks_uri_type type = tpks_uri_type_of(making->uri);
    int expect = making->wish->expect;

    if (is_issuer_lookup(making))
        return false;
    return (type == TPKS_TYPE_ANY || type == TPKS_TYPE_PRIVATE) &&
           (expect == 0 || expect == OSSL_STORE_INFO_PKEY);
}

/* A program that expects a public key gets the public half of any. */
static bool wants_public(const MAKING *making)
{
    tpks_uri_type type = tpks_uri_type_of(making->uri);
    int expect = making->wish->expect;

    if (expect == OSSL_STORE_INFO_PUBKEY)
        return type != TPKS_TYPE_CERT && type != TPKS_TYPE_CHAIN;
    return expect == 0 && type == TPKS_TYPE_PUBLIC;
}

static bool wants_certificate(const MAKING *making, size_t number)
{
    tpks_uri_type type = tpks_uri_type_of(making->uri);
    int expect = making->wish->expect;

    return (expect == 0 || expect == OSSL_STORE_INFO_CERT) &&
           (type == TPKS_TYPE_ANY || type == (number == 0 ? TPKS_TYPE_CERT : TPKS_TYPE_CHAIN));
}

/* Of a certificate alone nobody who asks for whatever there is wants to hear that it has no key. */
static bool has_no_key(const MAKING *making, const TPKS_RECORD *record)
{
    return tpks_record_home(record) == TPKS_HOME_NONE && making->wish->expect == 0 &&
           tpks_uri_type_of(making->uri) == TPKS_TYPE_ANY;
}

static tpks_result add_key(const MAKING *making, const TPKS_RECORD *record)
{
    ITEM item = {.record = record};

    if (has_no_key(making, record))
        return TPKS_OK;
    if (wants_private(making))
        item.kind = ITEM_PRIVATE_KEY;
    else if (wants_public(making))
        item.kind = ITEM_PUBLIC_KEY;
    else
        return TPKS_OK;
    return fits(making, record, 0) ? add_item(making->plan, &item) : TPKS_OK;
}

static tpks_result add_certificate(const MAKING *making, const TPKS_RECORD *record, size_t number)
{
    ITEM item = {.kind = ITEM_CERTIFICATE, .record = record, .certificate = number};

    if (!wants_certificate(making, number) || !fits(making, record, number))
        return TPKS_OK;
    return add_item(making->plan, &item);
}

static tpks_result add_objects(const MAKING *making, const TPKS_RECORD *record)
{
    tpks_result result = add_key(making, record);

    for (size_t i = 0; result == TPKS_OK && i < tpks_record_cert_count(record); i++)
        result = add_certificate(making, record, i);
    return result;
}

/* ---- one record, a search, a list --------------------------------------------------------------
 */

/* Takes the record. */
static tpks_result plan_record(const MAKING *making, TPKS_RECORD *record)
{
    if (add_record(making->plan, record) != TPKS_OK) {
        tpks_record_free(record);
        return TPKS_NO_MEMORY;
    }
    return add_objects(making, record);
}

static tpks_result plan_one(const MAKING *making)
{
    TPKS_RECORD *record = source_find(making->source, tpks_uri_selector(making->uri));

    /* Raised already. */
    return record == NULL ? TPKS_NOT_FOUND : plan_record(making, record);
}

static void ids_free(IDS *ids)
{
    OPENSSL_free(ids->id);
}

static tpks_result remember_id(void *arg, const TPKS_RECORD *record)
{
    IDS *ids = ((MAKING *)arg)->found;
    void *grown_ids = grown(ids->id, ids->count, TPKS_ID_SIZE);

    if (grown_ids == NULL)
        return TPKS_NO_MEMORY;
    ids->id = grown_ids;
    memcpy(ids->id[ids->count++], tpks_record_id(record), TPKS_ID_SIZE);
    return TPKS_OK;
}

/* Found meanwhile removed or not allowed: a search passes over it. */
static tpks_result plan_id(const MAKING *making, const unsigned char *id)
{
    TPKS *keystore = source_keystore(making->source);
    const tpks_selector selector = {.id = id};
    TPKS_RECORD *record = NULL;
    tpks_result result = tpks_find(keystore, &selector, &record);

    if (result == TPKS_NOT_FOUND)
        return TPKS_OK;
    if (result != TPKS_OK)
        return RAISE_RESULT(making->context, result);
    if (tpks_allowed(keystore, tpks_record_name(record)) != TPKS_OK) {
        tpks_record_free(record);
        return TPKS_OK;
    }
    return plan_record(making, record);
}

/* Records that can't be read become errors of the plan, behind the others, and no failure of it. */
static tpks_result each_readable(MAKING *making, const tpks_selector *selector, tpks_each_fn *each)
{
    const PLAN *plan = making->plan;
    size_t before = plan->bad_count;
    tpks_result result =
        tpks_each_readable(source_keystore(making->source), selector, each, add_bad, making);

    if (plan->bad_count > before && result == plan->bad[before].result)
        return TPKS_OK;
    return RAISE_RESULT(making->context, result);
}

static tpks_result plan_selected(MAKING *making, const tpks_selector *selector)
{
    __attribute__((cleanup(ids_free))) IDS ids = {NULL, 0};

    making->found = &ids;
    tpks_result result = each_readable(making, selector, remember_id);
    making->found = NULL;
    for (size_t i = 0; result == TPKS_OK && i < ids.count; i++)
        result = plan_id(making, ids.id[i]);
    return result;
}

/* A fingerprint may be that of the leaf certificate or of the public key. */
static tpks_result plan_fingerprint(MAKING *making, tpks_selector *selector)
{
    const WISH *wish = making->wish;
    tpks_result result = TPKS_OK;

    if (wish->fingerprint_size == SHA1_SIZE)
        selector->cert_sha1 = wish->fingerprint;
    else if (wish->fingerprint_size == SHA256_SIZE)
        selector->cert_sha256 = wish->fingerprint;
    else
        return TPKS_OK;
    result = plan_selected(making, selector);
    if (result != TPKS_OK || making->plan->count != 0 || selector->cert_sha256 == NULL)
        return result;
    selector->spki_sha256 = selector->cert_sha256;
    selector->cert_sha256 = NULL;
    return plan_selected(making, selector);
}

/* libcrypto's own stores find nothing quietly, and X509 lookups count on it. */
static tpks_result plan_search(MAKING *making)
{
    const WISH *wish = making->wish;
    unsigned char serial[64];
    tpks_selector selector = {
        .name = wish->alias,
        .subject = wish->subject,
        .subject_size = wish->subject_size,
        .issuer = wish->issuer,
        .issuer_size = wish->issuer_size,
    };

    if (wish->serial != NULL && BN_num_bytes(wish->serial) > (int)sizeof(serial))
        return TPKS_OK;
    if (wish->serial != NULL) {
        selector.serial = serial;
        selector.serial_size = (size_t)BN_bn2bin(wish->serial, serial);
    }
    return wish->fingerprint != NULL ? plan_fingerprint(making, &selector)
                                     : plan_selected(making, &selector);
}

static const char *home_text(const TPKS_RECORD *record)
{
    switch (tpks_record_home(record)) {
    case TPKS_HOME_PLAIN:
        return " in the clear";
    case TPKS_HOME_TOKEN:
        return " in the token";
    case TPKS_HOME_SOFTWARE:
        return " in software";
    case TPKS_HOME_NONE:
        return " elsewhere";
    default:
        return "";
    }
}

/* "2025-12-17", or "" when it is no time. */
static void date_text(const ASN1_TIME *time, char text[16])
{
    struct tm tm;

    *text = '\0';
    if (ASN1_TIME_to_tm(time, &tm) == 1)
        BIO_snprintf(text, 16, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
}

/* What the leaf says of its time, to stand behind the rest. */
static void validity_text(const MAKING *making, const TPKS_RECORD *record, char *text, size_t size)
{
    char from[16], until[16];
    __attribute__((cleanup(x509_free))) X509 *leaf = look_at(making, record, 0);

    *text = '\0';
    if (leaf == NULL)
        return;
    date_text(X509_get0_notBefore(leaf), from);
    date_text(X509_get0_notAfter(leaf), until);
    BIO_snprintf(text, size, ", valid %s to %s", from, until);
}

static tpks_result add_name(void *arg, const TPKS_RECORD *record)
{
    const MAKING *making = arg;
    char text[128], validity[48];
    ITEM item = {.kind = ITEM_NAME};

    if (tpks_allowed(source_keystore(making->source), tpks_record_name(record)) != TPKS_OK)
        return TPKS_OK;
    validity_text(making, record, validity, sizeof(validity));
    BIO_snprintf(text, sizeof(text), "%.16s key%s, %zu certificate%s%s",
                 tpks_record_key_type(record), home_text(record), tpks_record_cert_count(record),
                 tpks_record_cert_count(record) == 1 ? "" : "s", validity);
    item.uri = source_uri(making->source, record);
    item.description = OPENSSL_strdup(text);
    if (item.uri != NULL && item.description != NULL && add_item(making->plan, &item) == TPKS_OK)
        return TPKS_OK;
    OPENSSL_free(item.uri);
    OPENSSL_free(item.description);
    return TPKS_NO_MEMORY;
}

static tpks_result plan_list(MAKING *making)
{
    return each_readable(making, NULL, add_name);
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

/* A program that was told a name and gets nothing must be able to say why. */
static tpks_result check_found(const MAKING *making)
{
    const PLAN *plan = making->plan;
    int expect = making->wish->expect;

    if (plan->count != 0 || plan->record_count == 0 || is_search(making->wish))
        return TPKS_OK;
    if (expect != 0 && expect != OSSL_STORE_INFO_PKEY && expect != OSSL_STORE_INFO_PUBKEY &&
        expect != OSSL_STORE_INFO_CERT)
        return TPKS_OK;
    RAISE(making->context, TPKS_NOT_FOUND, "%s: %s", tpks_record_name(plan->records[0]),
          expect == OSSL_STORE_INFO_PKEY || expect == OSSL_STORE_INFO_PUBKEY
              ? "a key is wanted, but type= in the URI asks for something else"
              : "it has no such certificate: add one with trustpoint-keystore set-cert, or "
                "change type= in the URI");
    return TPKS_NOT_FOUND;
}

static tpks_result make(MAKING *making)
{
    tpks_result result;

    if (!tpks_uri_is_list(making->uri))
        result = plan_one(making);
    else if (is_search(making->wish))
        result = plan_search(making);
    else
        result = plan_list(making);
    return result == TPKS_OK ? check_found(making) : result;
}

PLAN *plan_new(CONTEXT *context, const SOURCE *source, const TPKS_URI *uri, const WISH *wish)
{
    MAKING making = {.context = context,
                     .source = source,
                     .uri = uri,
                     .wish = wish,
                     .plan = OPENSSL_zalloc(sizeof(PLAN))};

    if (making.plan == NULL)
        return NULL;
    if (tpks_uri_is_list(uri))
        bare_start(&making);
    tpks_result result = make(&making);
    bare_end(&making);
    if (result == TPKS_OK)
        return making.plan;
    plan_free(making.plan);
    return NULL;
}
