/* trustpoint_walk.c - through the rows, one record after the other */
#include <inttypes.h>
#include <stdio.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "error.h"
#include "trustpoint.h"

#define SHA1_SIZE 20

/* ---- columns ---- */

static void take_managed(reader *r, trustpoint_row *row)
{
    row->uuid = take_borrowed_text(r);
    row->alias = take_borrowed_text(r);
    row->algorithm = take_borrowed_text(r);
    row->spki_sha256 = take_borrowed_text(r);
    row->key_id = take_borrowed_text(r);
    row->imported = take_borrowed_text(r);
    row->encrypted = take_borrowed_blob(r);
    row->password_source = take_borrowed_text(r);
    row->password_ref = take_borrowed_text(r);
}

static tpks_result take_columns(reader *r, trustpoint_row *row)
{
    memset(row, 0, sizeof(*row));
    row->credential = take_integer(r);
    row->type = take_integer(r);
    row->private_key = take_borrowed_text(r);
    row->created = take_borrowed_text(r);
    row->certificate = take_integer_or_zero(r);
    row->cert_pem = take_borrowed_text(r);
    row->active_tls = take_integer_or_zero(r);
    row->ca = take_borrowed_text(r);
    row->signer = take_borrowed_text(r);
    row->owner = take_borrowed_text(r);
    row->device = take_borrowed_text(r);
    row->device_cn = take_borrowed_text(r);
    row->device_cn_repeats = take_integer(r);
    row->key_label = take_borrowed_text(r);
    row->token_label = take_borrowed_text(r);
    row->token_serial = take_borrowed_text(r);
    if (r->d->tables->keys == TRUSTPOINT_KEYS_MANAGED)
        take_managed(r, row);
    if (row->private_key == NULL)
        malformed(r);
    return r->result;
}

/* ---- walking ---- */

typedef struct walk {
    const database *d;
    trustpoint_parser parser;
    const head *h;
    const tpks_selector *by;
    trustpoint_reading reading;
    schema_each_fn *each;
    schema_bad_fn *bad; /* NULL: the walk ends at a record that can't be read */
    void *arg;
    uint64_t seen; /* rows that the statements gave, whatever became of them */
} walk;

static void end_walk(walk *w)
{
    trustpoint_parser_finish(&w->parser);
}
#define WALK __attribute__((cleanup(end_walk))) walk

/* Has the key that is asked for? Of a key without a certificate Trustpoint has the digest. */
static bool has_spki(const walk *w, const trustpoint_row *row, X509 *leaf)
{
    unsigned char *der = NULL;
    unsigned char digest[SHA256_SIZE] = {0};
    size_t size = 0;

    if (row->cert_pem == NULL && row->spki_sha256 != NULL)
        return OPENSSL_hexstr2buf_ex(digest, sizeof(digest), &size, row->spki_sha256, '\0') &&
               size == sizeof(digest) && memcmp(digest, w->by->spki_sha256, size) == 0;
    int der_size = leaf == NULL ? 0 : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &der);
    bool same = der_size > 0 &&
                sha256(w->parser.libctx, der, (size_t)der_size, digest) == TPKS_OK &&
                memcmp(digest, w->by->spki_sha256, sizeof(digest)) == 0;
    OPENSSL_free(der);
    return same;
}

static bool has_sha1(const walk *w, X509 *leaf)
{
    unsigned char *der = NULL;
    unsigned char digest[SHA1_SIZE];
    int der_size = leaf == NULL ? 0 : i2d_X509(leaf, &der);
    bool same = der_size > 0 &&
                EVP_Q_digest(w->parser.libctx, "SHA1", NULL, der, (size_t)der_size, digest, NULL) &&
                memcmp(digest, w->by->cert_sha1, sizeof(digest)) == 0;

    OPENSSL_free(der);
    return same;
}

/* What is no condition of the statement, of a row that may be malformed elsewhere. */
static bool is_wanted(const walk *w, const trustpoint_row *row)
{
    CRYPTO_SCOPE;

    if (w->by == NULL || (w->by->spki_sha256 == NULL && w->by->cert_sha1 == NULL))
        return true;
    X509 *leaf = row->cert_pem == NULL ? NULL : trustpoint_parse(&w->parser, row->cert_pem);
    bool wanted = (w->by->spki_sha256 == NULL || has_spki(w, row, leaf)) &&
                  (w->by->cert_sha1 == NULL || has_sha1(w, leaf));
    X509_free(leaf);
    return wanted;
}

/* What the statement found is looked at once more. */
static tpks_result check_match(const walk *w, const TPKS_RECORD *record)
{
    tpks_selector again = {0};

    if (w->by == NULL)
        return TPKS_OK;
    again = *w->by;
    again.name = NULL; /* there may be several for one record */
    return record_check_match(w->parser.libctx, record, &again);
}

/* By what is beyond doubt: its number. Without memory, or an id, it stays without a name. */
static void name_malformed(const trustpoint_row *row, TPKS_RECORD *record)
{
    trustpoint_row known = {.credential = row->credential, .uuid = row->uuid};

    if (row->credential == 0 && row->uuid == NULL)
        return;
    if (trustpoint_name_record(&known, record) != TPKS_OK)
        memset(record->id, 0, sizeof(record->id));
}

/* `taken` is how taking the row ended. */
static tpks_result read_record(walk *w, const trustpoint_row *row, tpks_result taken,
                               TPKS_RECORD *record)
{
    if (taken != TPKS_OK) {
        name_malformed(row, record);
        return taken;
    }
    TRY(trustpoint_make_record(w->d, &w->parser, w->h, row, record));
    return check_match(w, record);
}

/* By its number the row is found. Who gets to know the record as well says its `name`, which may
 * be the number; NULL: nobody does. */
static tpks_result say_number(const trustpoint_row *row, const char *name, tpks_result result)
{
    char number[sizeof(TRUSTPOINT_CREDENTIAL) + 20];

    if (row->credential == 0)
        return result;
    snprintf(number, sizeof(number), TRUSTPOINT_CREDENTIAL "%" PRIu64, row->credential);
    return name != NULL && strcmp(name, number) == 0 ? result : fail_in(result, "%s", number);
}

/* What was read of a record is freed before the next one. */
static tpks_result visit(walk *w, reader *r)
{
    RECORD *record = OPENSSL_zalloc(sizeof(*record));
    trustpoint_row row;

    if (record == NULL)
        return fail_memory();
    w->seen++;
    tpks_result result = take_columns(r, &row);
    if (!is_wanted(w, &row))
        return TPKS_OK;
    result = read_record(w, &row, result, record);
    if (result == TPKS_OK)
        return w->each(w->arg, record);
    if (w->bad == NULL || !schema_is_of_row(result))
        return say_number(&row, NULL, result);
    return w->bad(w->arg, record, say_number(&row, record->name, result));
}

static tpks_result run(walk *w, const char *table, const trustpoint_search *s)
{
    READER r = {.d = w->d, .table = table};

    if (s->nothing)
        return TPKS_OK;
    TRY(reader_start(&r, s->sql, s->values, s->count));
    for (bool got;;) {
        TRY(reader_next(&r, &got));
        if (!got)
            return TPKS_OK;
        TRY(visit(w, &r));
    }
}

/* Everything, or what a name means in one reading. */
static tpks_result walk_reading(walk *w)
{
    trustpoint_search *s = OPENSSL_zalloc(sizeof(*s));

    if (s == NULL)
        return fail_memory();
    tpks_result result = trustpoint_search_credentials(w->d->tables, w->by, w->reading, s);
    if (result == TPKS_OK)
        result = run(w, "pki_credentialmodel", s);
    memset(s, 0, sizeof(*s));
    if (result == TPKS_OK)
        result = trustpoint_search_keys(w->d->tables, w->by, w->reading, s);
    if (result == TPKS_OK)
        result = run(w, "crypto_managed_key", s);
    OPENSSL_free(s);
    return result;
}

tpks_result trustpoint_each_readable(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                     const tpks_selector *selector, schema_each_fn *each,
                                     schema_bad_fn *bad, void *arg)
{
    static const tpks_selector empty;
    bool all = selector == NULL || memcmp(selector, &empty, sizeof(empty)) == 0;
    WALK w = {.d = d,
              .h = h,
              .by = all ? NULL : selector,
              .reading = TRUSTPOINT_CANONICAL,
              .each = each,
              .bad = bad,
              .arg = arg};

    trustpoint_parser_start(&w.parser, libctx);
    TRY(walk_reading(&w));
    /* One whose record is gone must not come to mean whoever is called so. */
    if (all || selector->name == NULL || w.seen != 0 ||
        trustpoint_name_is_canonical(selector->name))
        return TPKS_OK;
    w.reading = TRUSTPOINT_BARE;
    return walk_reading(&w);
}

tpks_result trustpoint_each_record(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                   const tpks_selector *selector, schema_each_fn *each, void *arg)
{
    return trustpoint_each_readable(d, libctx, h, selector, each, NULL, arg);
}

tpks_result trustpoint_count_in_token(const database *d, const head *h, uint64_t *out)
{
    (void)h;
    *out = 0;
    return d->tables->count_in_token == NULL
               ? TPKS_OK
               : read_integer(d, "of keys in the token", d->tables->count_in_token, NULL, 0, out);
}

tpks_result trustpoint_count_records(const database *d, const head *h, uint64_t *out)
{
    uint64_t keys = 0;

    (void)h;
    TRY(read_integer(d, "pki_credentialmodel", "SELECT count(*) FROM pki_credentialmodel", NULL, 0,
                     out));
    if (d->tables->count_keys != NULL)
        TRY(read_integer(d, "crypto_managed_key", d->tables->count_keys, NULL, 0, &keys));
    *out += keys;
    return TPKS_OK;
}
