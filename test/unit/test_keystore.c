/*
 * test_keystore.c - the keystore as a whole: every change, every lie that a database can tell
 *
 * Storage is SQLite in a temporary folder; the DEK comes from a software slot, which exercises
 * everything above the token. test_hsm.c has the token.
 */
/* Before check.h, which has a macro named fail. */
#include "keystore_internal.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <sqlite3.h>

#define PASSWORD "correct horse battery staple"

static char folder[64];
static TPKS_CONFIG *config;

/* ---- a place to work in ---- */

static const char *path_of(const char *name)
{
    static char path[4][128];
    static unsigned turn;

    char *out = path[turn++ % 4];
    snprintf(out, sizeof(path[0]), "%s/%s", folder, name);
    return out;
}

static void setup(void)
{
    strcpy(folder, "/tmp/test_keystore.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    FILE *file = fopen(path_of("keystore.cnf"), "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file,
            "[keystore]\nstore = sqlite:%s/a.db\nstate = %s/state\nallow = web*\n"
            "[keystore_b]\nstore = sqlite:%s/b.db\nstate = %s/state\n",
            folder, folder, folder, folder);
    fchmod(fileno(file), 0644);
    fclose(file);
    ck_assert_msg(tpks_config_load(path_of("keystore.cnf"), &config) == TPKS_OK, "%s",
                  tpks_error_text());
}

static void teardown(void)
{
    char command[96];

    tpks_config_free(config);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

#define OK(expression) ck_assert_msg((expression) == TPKS_OK, "%s", tpks_error_text())
#define FAILS(result, expression)                                                                  \
    do {                                                                                           \
        tpks_result got_ = (expression);                                                           \
        ck_assert_msg(got_ == (result), "wanted %s, got %s (%s)", tpks_result_name(result),        \
                      tpks_result_name(got_), tpks_error_text());                                  \
    } while (0)

static TPKS_SECRET *secret(const char *text)
{
    TPKS_SECRET *s = tpks_secret_copy(text, strlen(text));

    ck_assert_ptr_nonnull(s);
    return s;
}

static void create(const char *section)
{
    tpks_options options = {.config = config, .keystore = section};
    TPKS_SECRET *password = secret(PASSWORD);
    tpks_create_params params = {
        .software = true, .password = password, .cost = {.t = 1, .m_kib = 8192, .p = 1}};

    OK(tpks_create(&options, &params, NULL));
    tpks_secret_free(password);
}

static TPKS *open_as(const char *section, tpks_access access)
{
    tpks_options options = {.config = config, .keystore = section, .access = access};
    TPKS *ks = NULL;

    OK(tpks_open(&options, &ks));
    return ks;
}

static tpks_result try_open(tpks_access access, bool accept)
{
    tpks_options options = {.config = config, .access = access, .accept_new_anchor = accept};
    TPKS *ks = NULL;
    tpks_result result = tpks_open(&options, &ks);

    if (result == TPKS_OK)
        result = tpks_unlock(ks);
    tpks_close(ks);
    return result;
}

static void sql(const char *db, const char *statement)
{
    sqlite3 *handle = NULL;
    char *error = NULL;

    ck_assert_int_eq(sqlite3_open(path_of(db), &handle), SQLITE_OK);
    sqlite3_exec(handle, statement, NULL, NULL, &error);
    ck_assert_msg(error == NULL, "%s", error);
    sqlite3_close(handle);
}

static void copy_file(const char *from, const char *to)
{
    char command[300];

    snprintf(command, sizeof(command), "cp %s %s", path_of(from), path_of(to));
    ck_assert_int_eq(system(command), 0);
}

/* ---- keys and certificates ---- */

static EVP_PKEY *make_key(const char *type)
{
    EVP_PKEY *key = NULL;

    if (strcmp(type, "RSA") == 0)
        key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
    else if (strcmp(type, "EC") == 0)
        key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    else
        key = EVP_PKEY_Q_keygen(NULL, NULL, type);
    ck_assert_ptr_nonnull(key);
    return key;
}

static TPKS_SECRET *pkcs8_of(EVP_PKEY *key)
{
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der);

    ck_assert_int_gt(size, 0);
    TPKS_SECRET *out = tpks_secret_copy(der, (size_t)size);
    OPENSSL_clear_free(der, (size_t)size);
    PKCS8_PRIV_KEY_INFO_free(info);
    return out;
}

static STACK_OF(X509) * self_signed(EVP_PKEY *key, const char *cn, long serial)
{
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    STACK_OF(X509) *certs = sk_X509_new_null();

    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    const EVP_MD *md =
        EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448") ? NULL : EVP_sha256();
    ck_assert_int_gt(X509_sign(cert, key, md), 0);
    sk_X509_push(certs, cert);
    return certs;
}

static void free_certs(STACK_OF(X509) * certs)
{
    sk_X509_pop_free(certs, X509_free);
}

static void add_key(TPKS *ks, const char *name, const char *type)
{
    EVP_PKEY *key = make_key(type);
    TPKS_SECRET *pkcs8 = pkcs8_of(key);
    STACK_OF(X509) *certs = self_signed(key, name, 4711);

    OK(tpks_add(ks, name, pkcs8, certs, TPKS_MAY_SIGN, NULL));
    free_certs(certs);
    tpks_secret_free(pkcs8);
    EVP_PKEY_free(key);
}

static TPKS_RECORD *find(TPKS *ks, const char *name)
{
    tpks_selector by_name = {.name = name};
    TPKS_RECORD *record = NULL;

    OK(tpks_find(ks, &by_name, &record));
    return record;
}

static tpks_result load(const char *section, const char *name)
{
    TPKS *ks = open_as(section, TPKS_LOAD);
    tpks_selector by_name = {.name = name};
    TPKS_RECORD *record = NULL;
    TPKS_SECRET *pkcs8 = NULL;
    tpks_result result = tpks_find(ks, &by_name, &record);

    if (result == TPKS_OK)
        result = tpks_load_key(ks, record, &pkcs8);
    tpks_secret_free(pkcs8);
    tpks_record_free(record);
    tpks_close(ks);
    return result;
}

static void keystore_with(const char *name, const char *type)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    add_key(ks, name, type);
    tpks_close(ks);
}

/* ---- what must work ---- */

START_TEST(keys_of_every_type_come_back)
{
    static const char *const types[] = {"RSA", "EC", "ED25519", "ED448"};

    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        EVP_PKEY *key = make_key(types[i]);
        TPKS_SECRET *pkcs8 = pkcs8_of(key);
        TPKS_SECRET *again = NULL;
        OK(tpks_add(ks, types[i], pkcs8, NULL, TPKS_MAY_SIGN, NULL));
        TPKS_RECORD *record = find(ks, types[i]);
        ck_assert_str_eq(tpks_record_key_type(record), types[i]);
        OK(tpks_load_key(ks, record, &again));
        ck_assert_uint_eq(tpks_secret_size(again), tpks_secret_size(pkcs8));
        ck_assert_mem_eq(tpks_secret_data(again), tpks_secret_data(pkcs8), tpks_secret_size(pkcs8));
        tpks_secret_free(again);
        tpks_record_free(record);
        tpks_secret_free(pkcs8);
        EVP_PKEY_free(key);
    }
    uint64_t proven = 0;
    OK(tpks_verify(ks, NULL, NULL, NULL, &proven));
    ck_assert_uint_eq(proven, 4);
    tpks_close(ks);
}
END_TEST

START_TEST(records_are_found_by_every_selector)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    add_key(ks, "web", "EC");
    add_key(ks, "mail", "EC");
    TPKS_RECORD *record = find(ks, "web");
    size_t size = 0;
    const unsigned char *der = tpks_record_cert(record, 0, &size);
    const unsigned char *at = der;
    X509 *cert = d2i_X509(NULL, &at, (long)size);
    unsigned char sha256_digest[32], sha1_digest[20];
    X509_digest(cert, EVP_sha256(), sha256_digest, NULL);
    X509_digest(cert, EVP_sha1(), sha1_digest, NULL);
    const unsigned char serial[] = {0x12, 0x67};
    tpks_selector selectors[] = {
        {.id = tpks_record_id(record)},
        {.cert_sha256 = sha256_digest},
        {.cert_sha1 = sha1_digest},
        {.spki_sha256 = tpks_record_spki_sha256(record)},
        {.name = "web", .spki_sha256 = tpks_record_spki_sha256(record)},
        {.serial = serial, .serial_size = 2, .name = "web"},
        {0},
        {0},
    };
    X509_NAME_get0_der(X509_get_subject_name(cert), &selectors[6].subject,
                       &selectors[6].subject_size);
    X509_NAME_get0_der(X509_get_issuer_name(cert), &selectors[7].issuer, &selectors[7].issuer_size);
    selectors[7].serial = serial;
    selectors[7].serial_size = 2;
    for (size_t i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++) {
        TPKS_RECORD *found = NULL;
        OK(tpks_find(ks, &selectors[i], &found));
        ck_assert_str_eq(tpks_record_name(found), "web");
        tpks_record_free(found);
    }
    TPKS_RECORD *none = NULL;
    tpks_selector both = {.serial = serial, .serial_size = 2};
    tpks_selector pinned = {.name = "mail", .spki_sha256 = tpks_record_spki_sha256(record)};
    tpks_selector absent = {.name = "nobody"};
    FAILS(TPKS_AMBIGUOUS, tpks_find(ks, &both, &none));
    ck_assert_ptr_nonnull(strstr(tpks_error_text(), "\"mail\", \"web\""));
    FAILS(TPKS_MISMATCH, tpks_find(ks, &pinned, &none));
    FAILS(TPKS_NOT_FOUND, tpks_find(ks, &absent, &none));
    X509_free(cert);
    tpks_record_free(record);
    tpks_close(ks);
}
END_TEST

START_TEST(changes_seal_the_record_again)
{
    keystore_with("web", "EC");
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    TPKS_RECORD *old = find(ks, "web");
    EVP_PKEY *key = make_key("ED25519");
    TPKS_SECRET *pkcs8 = pkcs8_of(key);
    STACK_OF(X509) *certs = self_signed(key, "renewed", 2);

    FAILS(TPKS_MISMATCH, tpks_set_cert(ks, old, NULL, certs));
    OK(tpks_set_cert(ks, old, pkcs8, certs));
    FAILS(TPKS_CONFLICT, tpks_set_cert(ks, old, pkcs8, certs));
    FAILS(TPKS_CONFLICT, tpks_remove(ks, old));
    TPKS_RECORD *new = find(ks, "web");
    ck_assert_str_eq(tpks_record_key_type(new), "ED25519");
    ck_assert_uint_eq(tpks_record_version(new), 2);
    OK(tpks_rename(ks, new,
                   "w\xc3\xa4"
                   "b; ?%"));
    tpks_record_free(new);
    new = find(ks, "w\xc3\xa4"
                   "b; ?%");
    OK(tpks_set_policy(ks, new, TPKS_MAY_SIGN | TPKS_MAY_DECRYPT));
    tpks_record_free(new);
    OK(load(NULL, "w\xc3\xa4"
                  "b; ?%"));
    new = find(ks, "w\xc3\xa4"
                   "b; ?%");
    ck_assert_uint_eq(tpks_record_policy(new), TPKS_MAY_SIGN | TPKS_MAY_DECRYPT);
    OK(tpks_remove(ks, new));
    FAILS(TPKS_NOT_FOUND, load(NULL, "w\xc3\xa4"
                                     "b; ?%"));
    tpks_record_free(new);
    tpks_record_free(old);
    free_certs(certs);
    tpks_secret_free(pkcs8);
    EVP_PKEY_free(key);
    tpks_close(ks);
}
END_TEST

START_TEST(many_changes_can_be_one)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    OK(tpks_begin(ks));
    add_key(ks, "a", "EC");
    tpks_rollback(ks);
    OK(tpks_begin(ks));
    add_key(ks, "b", "EC");
    add_key(ks, "c", "EC");
    OK(tpks_commit(ks));
    tpks_status_info status;
    OK(tpks_status(ks, &status));
    ck_assert_uint_eq(status.records, 2);
    ck_assert_uint_eq(status.generation, 2);
    ck_assert(status.software);
    ck_assert_str_eq(status.dek_location, "process");
    tpks_close(ks);
    FAILS(TPKS_NOT_FOUND, load(NULL, "a"));
    OK(load(NULL, "c"));
}
END_TEST

START_TEST(names_and_keys_are_checked)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    EVP_PKEY *key = make_key("EC");
    EVP_PKEY *x25519 = make_key("X25519");
    TPKS_SECRET *pkcs8 = pkcs8_of(key);
    TPKS_SECRET *unsupported = pkcs8_of(x25519);
    TPKS_SECRET *trailing = tpks_secret_new(tpks_secret_size(pkcs8) + 1);
    memcpy(tpks_secret_data(trailing), tpks_secret_data(pkcs8), tpks_secret_size(pkcs8));

    FAILS(TPKS_BAD_INPUT, tpks_add(ks, "", pkcs8, NULL, TPKS_MAY_SIGN, NULL));
    FAILS(TPKS_BAD_INPUT, tpks_add(ks, "a\nb", pkcs8, NULL, TPKS_MAY_SIGN, NULL));
    FAILS(TPKS_BAD_INPUT, tpks_add(ks, "/etc", pkcs8, NULL, TPKS_MAY_SIGN, NULL));
    FAILS(TPKS_BAD_INPUT, tpks_add(ks, "a", trailing, NULL, TPKS_MAY_SIGN, NULL));
    FAILS(TPKS_BAD_INPUT, tpks_add(ks, "a", pkcs8, NULL, 64, NULL));
    FAILS(TPKS_UNSUPPORTED, tpks_add(ks, "a", unsupported, NULL, TPKS_MAY_SIGN, NULL));
    OK(tpks_add(ks, "a", pkcs8, NULL, TPKS_MAY_SIGN, NULL));
    FAILS(TPKS_EXISTS, tpks_add(ks, "a", pkcs8, NULL, TPKS_MAY_SIGN, NULL));
    OK(tpks_allowed(ks, "web1"));
    FAILS(TPKS_NOT_PERMITTED, tpks_allowed(ks, "a"));
    tpks_secret_free(trailing);
    tpks_secret_free(unsupported);
    tpks_secret_free(pkcs8);
    EVP_PKEY_free(x25519);
    EVP_PKEY_free(key);
    tpks_close(ks);
    ks = open_as(NULL, TPKS_LOAD);
    TPKS_RECORD *record = find(ks, "a");
    FAILS(TPKS_NOT_PERMITTED, tpks_remove(ks, record));
    tpks_record_free(record);
    tpks_close(ks);
}
END_TEST

START_TEST(passwords_and_recovery_keys_unlock)
{
    tpks_options options = {.config = config};
    TPKS_SECRET *password = secret(PASSWORD);
    TPKS_SECRET *wrong = secret("incorrect horse battery");
    TPKS_SECRET *recovery = NULL;
    tpks_create_params params = {.software = true};

    FAILS(TPKS_BAD_INPUT, tpks_create(&options, &params, NULL));
    ck_assert_int_ne(access(path_of("a.db"), F_OK), 0);
    params = (tpks_create_params){.software = true,
                                  .password = password,
                                  .recovery = true,
                                  .cost = {.t = 1, .m_kib = 8192, .p = 1}};
    OK(tpks_create(&options, &params, &recovery));
    FAILS(TPKS_EXISTS, tpks_create(&options, &params, &recovery));
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    FAILS(TPKS_WRONG_SECRET, tpks_unlock_with(ks, wrong));
    OK(tpks_unlock_with(ks, password));
    tpks_close(ks);
    ks = open_as(NULL, TPKS_LOAD);
    OK(tpks_unlock_with(ks, recovery));
    tpks_close(ks);
    /* The 1 TiB that a hostile database asks for is refused before it is allocated. */
    sql("a.db", "UPDATE tpks_slot SET kdf_m_kib = 1073741824 WHERE kind = 3");
    ks = open_as(NULL, TPKS_LOAD);
    FAILS(TPKS_TAMPERED, tpks_unlock_with(ks, password));
    tpks_close(ks);
    tpks_secret_free(recovery);
    tpks_secret_free(wrong);
    tpks_secret_free(password);
}
END_TEST

/* ---- what a database can do to us ---- */

/* Flips every bit of a piece of memory, one after the other; `check` must fail for each. */
typedef bool check_fn(void *arg);
static void flip_all(void *data, size_t size, check_fn *still_good, void *arg, const char *what)
{
    unsigned char *flipped = data;

    for (size_t bit = 0; bit < 8 * size; bit++) {
        flipped[bit / 8] ^= (unsigned char)(1u << bit % 8);
        ck_assert_msg(!still_good(arg), "%s: bit %zu can be flipped", what, bit);
        flipped[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static bool head_is_good(void *arg)
{
    const TPKS *ks = arg;

    return head_prove_dek(&ks->head, ks->dek) == TPKS_OK &&
           head_check_seal(&ks->head, ks->dek) == TPKS_OK;
}

#define FLIP(member, check, arg) flip_all(&(member), sizeof(member), check, arg, #member)
#define FLIP_BYTES(member, check, arg) flip_all((member).data, (member).size, check, arg, #member)
#define FLIP_TEXT(member, check, arg) flip_all(member, strlen(member), check, arg, #member)

START_TEST(every_bit_of_the_head_counts)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    OK(tpks_unlock(ks));
    head *h = &ks->head;
    ck_assert(head_is_good(ks));
    FLIP(h->keystore, head_is_good, ks);
    FLIP_TEXT(h->label, head_is_good, ks);
    FLIP(h->format, head_is_good, ks);
    FLIP(h->required, head_is_good, ks);
    FLIP(h->optional, head_is_good, ks);
    FLIP(h->generation, head_is_good, ks);
    FLIP(h->dek, head_is_good, ks);
    FLIP(h->seal_nonce, head_is_good, ks);
    FLIP(h->seal, head_is_good, ks);
    FLIP(h->deks[0].id, head_is_good, ks);
    FLIP(h->deks[0].state, head_is_good, ks);
    FLIP(h->deks[0].check_nonce, head_is_good, ks);
    FLIP(h->deks[0].check_value, head_is_good, ks);
    for (size_t i = 0; i < h->slot_count; i++) {
        slot_row *slot = &h->slots[i];
        FLIP(slot->id, head_is_good, ks);
        FLIP(slot->kind, head_is_good, ks);
        FLIP(slot->state, head_is_good, ks);
        FLIP_TEXT(slot->label, head_is_good, ks);
        FLIP_TEXT(slot->host, head_is_good, ks);
        FLIP(slot->kdf_version, head_is_good, ks);
        FLIP(slot->cost, head_is_good, ks);
        FLIP_BYTES(slot->salt, head_is_good, ks);
        FLIP(slot->created, head_is_good, ks);
    }
    for (size_t i = 0; i < h->wrap_count; i++) {
        wrap_row *wrap = &h->wraps[i];
        FLIP(wrap->slot, head_is_good, ks);
        FLIP(wrap->dek, head_is_good, ks);
        FLIP(wrap->algorithm, head_is_good, ks);
        FLIP_BYTES(wrap->iv, head_is_good, ks);
        FLIP_BYTES(wrap->wrapped, head_is_good, ks);
        FLIP_BYTES(wrap->commitment, head_is_good, ks);
    }
    h->slot_count--; /* a row left out is no better */
    ck_assert(!head_is_good(ks));
    h->slot_count++;
    ck_assert(head_is_good(ks));
    tpks_close(ks);
}
END_TEST

struct record_and_ks {
    TPKS *ks;
    TPKS_RECORD *record;
};

static bool record_is_good(void *arg)
{
    struct record_and_ks *both = arg;
    TPKS_SECRET *pkcs8 = NULL;
    bool good = record_check_certs(NULL, both->record) == TPKS_OK &&
                record_open(both->record, both->ks->dek, &pkcs8) == TPKS_OK;

    tpks_secret_free(pkcs8);
    return good;
}

START_TEST(every_bit_of_a_record_counts)
{
    keystore_with("web", "EC");
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    OK(tpks_unlock(ks));
    TPKS_RECORD *r = find(ks, "web");
    struct record_and_ks both = {ks, r};
    ck_assert(record_is_good(&both));
    FLIP(r->keystore, record_is_good, &both);
    FLIP(r->id, record_is_good, &both);
    FLIP_TEXT(r->name, record_is_good, &both);
    FLIP(r->version, record_is_good, &both);
    FLIP(r->dek, record_is_good, &both);
    FLIP_TEXT(r->key_type, record_is_good, &both);
    FLIP_BYTES(r->spki, record_is_good, &both);
    FLIP(r->spki_sha256, record_is_good, &both);
    FLIP(r->policy, record_is_good, &both);
    FLIP(r->created, record_is_good, &both);
    FLIP(r->changed, record_is_good, &both);
    FLIP(r->seal_algorithm, record_is_good, &both);
    FLIP(r->certs_digest, record_is_good, &both);
    FLIP(r->nonce, record_is_good, &both);
    FLIP_BYTES(r->sealed, record_is_good, &both);
    FLIP_BYTES(r->certs[0], record_is_good, &both);
    ck_assert(record_is_good(&both));
    tpks_record_free(r);
    tpks_close(ks);
}
END_TEST

/* One flipped bit in each column of the file: the whole way through the plugin and the schema. */
START_TEST(a_flipped_bit_in_the_file_is_noticed)
{
    static const char *const changes[] = {
        "UPDATE tpks_header SET label = 'x'",
        "UPDATE tpks_header SET generation = generation + 1",
        "UPDATE tpks_header SET optional = 1",
        "UPDATE tpks_header SET seal = zeroblob(48)",
        "UPDATE tpks_header SET seal = zeroblob(47)",
        "UPDATE tpks_header SET dek = zeroblob(16)",
        "UPDATE tpks_header SET keystore = zeroblob(16)",
        "UPDATE tpks_dek SET check_value = zeroblob(48)",
        "UPDATE tpks_dek SET state = 2",
        "UPDATE tpks_dek SET extension = x'000100000000'",
        "DELETE FROM tpks_slot WHERE kind = 3",
        "UPDATE tpks_slot SET created = created + 1",
        "UPDATE tpks_slot SET host = 'elsewhere'",
        "UPDATE tpks_slot SET salt = x'00' WHERE kind = 3",
        "UPDATE tpks_wrap SET algorithm = 1 WHERE algorithm = 8",
        "UPDATE tpks_wrap SET wrapped = x'00' WHERE algorithm = 7",
        "DELETE FROM tpks_wrap",
        "UPDATE tpks_record SET policy = 7",
        "UPDATE tpks_record SET version = 2",
        "UPDATE tpks_record SET key_type = 'RSA'",
        "UPDATE tpks_record SET nonce = zeroblob(12)",
        "UPDATE tpks_record SET sealed = zeroblob(40)",
        "UPDATE tpks_record SET sealed = x''",
        "UPDATE tpks_record SET spki_sha256 = zeroblob(32)",
        "UPDATE tpks_record SET policy = 'sign'",
        "UPDATE tpks_record SET extension = x'00'",
        "UPDATE tpks_certificate SET der = x'3000'",
        "UPDATE tpks_certificate SET position = 1",
        "DELETE FROM tpks_certificate",
    };

    keystore_with("web", "EC");
    copy_file("a.db", "good.db");
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        copy_file("good.db", "a.db");
        sql("a.db", changes[i]);
        tpks_options options = {.config = config};
        TPKS *ks = NULL;
        tpks_result result = tpks_open(&options, &ks);
        tpks_close(ks);
        if (result == TPKS_OK)
            result = load(NULL, "web");
        /* Where the DEK is not that of the database, the DEK file may as well be to blame. */
        ck_assert_msg(result == TPKS_TAMPERED || result == TPKS_KEK_FOREIGN, "%s: %s (%s)",
                      changes[i], tpks_result_name(result), tpks_error_text());
    }
    copy_file("good.db", "a.db");
    OK(load(NULL, "web"));
}
END_TEST

START_TEST(newer_formats_are_recognised)
{
    keystore_with("web", "EC");
    copy_file("a.db", "good.db");
    static const char *const changes[] = {
        "PRAGMA user_version = 2",
        "UPDATE tpks_header SET format = 2",
        "UPDATE tpks_header SET required = 4",
        "UPDATE tpks_slot SET extension = x'800100000000'",
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        copy_file("good.db", "a.db");
        sql("a.db", changes[i]);
        FAILS(TPKS_NEWER_FORMAT, try_open(TPKS_LOAD, false));
    }
    copy_file("good.db", "a.db");
    sql("a.db", "PRAGMA application_id = 7");
    FAILS(TPKS_NOT_A_KEYSTORE, try_open(TPKS_LOAD, false));
    sql("a.db", "DROP TABLE tpks_wrap");
    ck_assert_int_ne(try_open(TPKS_LOAD, false), TPKS_OK);
}
END_TEST

START_TEST(rows_cannot_be_swapped_or_moved)
{
    create(NULL);
    create("b");
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    add_key(ks, "one", "EC");
    add_key(ks, "two", "EC");
    tpks_close(ks);
    copy_file("a.db", "good.db");
    /* The sealed keys of two records swapped. */
    sql("a.db", "CREATE TEMP TABLE t AS SELECT name, nonce, sealed FROM tpks_record;"
                "UPDATE tpks_record SET (nonce, sealed) = (SELECT nonce, sealed FROM t"
                " WHERE t.name <> tpks_record.name)");
    FAILS(TPKS_TAMPERED, load(NULL, "one"));
    /* The names of two records swapped. */
    copy_file("good.db", "a.db");
    sql("a.db", "UPDATE tpks_record SET name = 'x' WHERE name = 'one';"
                "UPDATE tpks_record SET name = 'one' WHERE name = 'two';"
                "UPDATE tpks_record SET name = 'two' WHERE name = 'x'");
    FAILS(TPKS_TAMPERED, load(NULL, "one"));
    FAILS(TPKS_TAMPERED, load(NULL, "two"));
    /* The certificates of two records swapped. */
    copy_file("good.db", "a.db");
    sql("a.db", "CREATE TEMP TABLE t AS SELECT record, der FROM tpks_certificate;"
                "UPDATE tpks_certificate SET der = (SELECT der FROM t"
                " WHERE t.record <> tpks_certificate.record)");
    FAILS(TPKS_TAMPERED, load(NULL, "one"));
    /* A record copied into another keystore. */
    copy_file("good.db", "a.db");
    char statement[400];
    snprintf(statement, sizeof(statement),
             "ATTACH '%s' AS a; INSERT INTO tpks_record SELECT * FROM a.tpks_record;"
             "INSERT INTO tpks_certificate SELECT * FROM a.tpks_certificate;"
             "UPDATE tpks_record SET keystore = (SELECT keystore FROM tpks_header),"
             " dek = (SELECT dek FROM tpks_header);"
             "UPDATE tpks_certificate SET keystore = (SELECT keystore FROM tpks_header)",
             path_of("a.db"));
    sql("b.db", statement);
    FAILS(TPKS_TAMPERED, load("b", "one"));
    OK(load(NULL, "one"));
}
END_TEST

START_TEST(a_replaced_dek_is_noticed)
{
    char statement[400];

    keystore_with("web", "EC");
    create("b");
    copy_file("a.db", "good.db");
    snprintf(statement, sizeof(statement),
             "ATTACH '%s' AS b;"
             "UPDATE tpks_dek SET (check_nonce, check_value) = (SELECT check_nonce, check_value"
             " FROM b.tpks_dek)",
             path_of("b.db"));
    sql("a.db", statement);
    FAILS(TPKS_KEK_FOREIGN, load(NULL, "web"));
    /* The whole other database in its place, under this host's memory of the first one. */
    copy_file("b.db", "a.db");
    snprintf(statement, sizeof(statement),
             "ATTACH '%s' AS a;"
             "UPDATE tpks_header SET keystore = (SELECT keystore FROM a.tpks_header);"
             "UPDATE tpks_dek SET keystore = (SELECT keystore FROM a.tpks_header);"
             "UPDATE tpks_slot SET keystore = (SELECT keystore FROM a.tpks_header);"
             "UPDATE tpks_wrap SET keystore = (SELECT keystore FROM a.tpks_header)",
             path_of("good.db"));
    sql("a.db", statement);
    FAILS(TPKS_TAMPERED, try_open(TPKS_WRITE, false));
    FAILS(TPKS_KEK_FOREIGN, try_open(TPKS_LOAD, false));
}
END_TEST

START_TEST(a_rolled_back_database_is_noticed)
{
    keystore_with("web", "EC");
    copy_file("a.db", "old.db");
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    add_key(ks, "web2", "EC");
    tpks_close(ks);
    copy_file("a.db", "new.db");
    copy_file("old.db", "a.db");
    FAILS(TPKS_ROLLED_BACK, try_open(TPKS_WRITE, false));
    OK(load(NULL, "web"));
    copy_file("new.db", "a.db");
    OK(try_open(TPKS_WRITE, false));
    copy_file("old.db", "a.db");
    OK(try_open(TPKS_WRITE, true));
    OK(try_open(TPKS_WRITE, false));
}
END_TEST

/* ---- several at once ---- */

START_TEST(many_writers_lose_nothing)
{
    enum { WRITERS = 4, EACH = 6 };
    pid_t pids[WRITERS];

    create(NULL);
    for (int w = 0; w < WRITERS; w++) {
        pids[w] = fork();
        if (pids[w] != 0)
            continue;
        TPKS *ks = open_as(NULL, TPKS_WRITE);
        for (int i = 0; i < EACH; i++) {
            char name[32];
            snprintf(name, sizeof(name), "key %d %d", w, i);
            add_key(ks, name, "ED25519");
        }
        tpks_close(ks);
        _exit(0);
    }
    for (int w = 0; w < WRITERS; w++) {
        int status = 0;
        ck_assert_int_eq(waitpid(pids[w], &status, 0), pids[w]);
        ck_assert_int_eq(status, 0);
    }
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    tpks_status_info status;
    uint64_t proven = 0;
    OK(tpks_status(ks, &status));
    ck_assert_uint_eq(status.records, WRITERS * EACH);
    ck_assert_uint_eq(status.generation, 1 + WRITERS * EACH);
    OK(tpks_verify(ks, NULL, NULL, NULL, &proven));
    ck_assert_uint_eq(proven, WRITERS * EACH);
    tpks_close(ks);
}
END_TEST

/* Before each attempt, another writer is faster. */
typedef struct faster_writer {
    TPKS *ks;
    int times;
} faster_writer;

static tpks_result be_late(TPKS *ks, const void *arg)
{
    const faster_writer *faster = arg;
    static int done; /* each test is a process of its own */

    (void)ks;
    if (done == faster->times)
        return TPKS_OK;
    char name[32];
    snprintf(name, sizeof(name), "faster %d", done++);
    add_key(faster->ks, name, "ED25519");
    return TPKS_OK;
}

static tpks_result change_nothing(TPKS *ks, const void *arg)
{
    (void)ks;
    (void)arg;
    return TPKS_OK;
}

START_TEST(a_writer_waits_for_as_many_as_are_faster)
{
    create(NULL);
    TPKS *slow = open_as(NULL, TPKS_WRITE);
    faster_writer faster = {open_as(NULL, TPKS_WRITE), 12};

    OK(tpks_unlock(slow));
    OK(keystore_change(slow, be_late, change_nothing, &faster));
    ck_assert_uint_eq(slow->head.generation, 1 + 12 + 1);
    tpks_close(slow);
    tpks_close(faster.ks);
}
END_TEST

START_TEST(a_backup_is_a_whole_keystore)
{
    keystore_with("web", "EC");
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    OK(tpks_backup(ks, path_of("copy.db")));
    FAILS(TPKS_EXISTS, tpks_backup(ks, path_of("copy.db")));
    tpks_close(ks);
    copy_file("copy.db", "a.db");
    OK(load(NULL, "web"));
    OK(try_open(TPKS_WRITE, false));
}
END_TEST

START_TEST(a_lost_dek_file_is_a_missing_kek)
{
    char command[200];

    keystore_with("web", "EC");
    snprintf(command, sizeof(command), "rm %s/state/*.dek", folder);
    ck_assert_int_eq(system(command), 0);
    FAILS(TPKS_KEK_MISSING, load(NULL, "web"));
}
END_TEST

static const char *dek_file(void)
{
    static char path[160];
    char id[2 * TPKS_ID_SIZE + 1];
    TPKS *ks = open_as(NULL, TPKS_LOAD);

    hex_text(ks->head.keystore, TPKS_ID_SIZE, id);
    tpks_close(ks);
    snprintf(path, sizeof(path), "%s/state/%s.dek", folder, id);
    return path;
}

static void write_dek_file(const char *text)
{
    FILE *file = fopen(dek_file(), "w");

    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static void expect_dek_file(const char *text)
{
    char found[128] = "";
    FILE *file = fopen(dek_file(), "r");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(found, 1, sizeof(found) - 1, file), strlen(text));
    fclose(file);
    ck_assert_str_eq(found, text);
}

static tpks_result restore_with(const char *password, tpks_restore_report *report)
{
    tpks_options options = {.config = config};
    TPKS_SECRET *given = secret(password);
    tpks_restore_params params = {.secret = given};
    tpks_result result = tpks_restore(&options, &params, report);

    tpks_secret_free(given);
    return result;
}

/* Empty, cut, not hexadecimal, too long, and another keystore's. */
START_TEST(a_damaged_dek_file_is_replaced_on_demand)
{
#define HEX_32 "0123456789abcdef0123456789abcdef"
    static const char *const damaged[] = {"", HEX_32, "no hexadecimal number", HEX_32 HEX_32 HEX_32,
                                          HEX_32 HEX_32};
    tpks_restore_report report;

    keystore_with("web", "EC");
    for (size_t i = 0; i < sizeof(damaged) / sizeof(*damaged); i++) {
        write_dek_file(damaged[i]);
        FAILS(TPKS_KEK_FOREIGN, load(NULL, "web"));
        ck_assert_ptr_nonnull(strstr(tpks_error_text(), dek_file()));
        ck_assert_ptr_nonnull(strstr(tpks_error_text(), "trustpoint-keystore restore"));
        FAILS(TPKS_WRONG_SECRET, restore_with("not the password", &report));
        expect_dek_file(damaged[i]);
        OK(restore_with(PASSWORD, &report));
        ck_assert(report.restored);
        ck_assert_int_eq(report.found, TPKS_KEK_FOREIGN);
        OK(load(NULL, "web"));
    }
}
END_TEST

/* ---- the copy of the header that is kept ---- */

static void kept_header(char *path, size_t size)
{
    char id[2 * TPKS_ID_SIZE + 1];
    TPKS *ks = open_as(NULL, TPKS_LOAD);

    hex_text(ks->head.keystore, TPKS_ID_SIZE, id);
    tpks_close(ks);
    snprintf(path, size, "%s/state/%s.hdr", folder, id);
}

static uint64_t generation_in(const char *path)
{
    sqlite3 *handle = NULL;
    sqlite3_stmt *statement = NULL;

    ck_assert_int_eq(sqlite3_open_v2(path, &handle, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    ck_assert_int_eq(
        sqlite3_prepare_v2(handle, "SELECT generation FROM tpks_header", -1, &statement, NULL),
        SQLITE_OK);
    ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
    uint64_t generation = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(handle);
    return generation;
}

static void add_recovery(TPKS *ks, unsigned char id[TPKS_ID_SIZE])
{
    TPKS_SECRET *key = NULL;

    OK(tpks_slot_add_recovery(ks, &key, id));
    tpks_secret_free(key);
}

START_TEST(a_slow_writer_does_not_lower_the_kept_header)
{
    char kept[200];

    create(NULL);
    kept_header(kept, sizeof(kept));
    TPKS *slow = open_as(NULL, TPKS_WRITE);
    TPKS *fast = open_as(NULL, TPKS_WRITE);
    add_recovery(fast, NULL);
    tpks_close(fast);
    ck_assert_uint_eq(generation_in(kept), 2);
    header_keep(slow);
    ck_assert_uint_eq(generation_in(kept), 2);
    tpks_close(slow);
    /* A database that was put back on purpose begins a history of its own. */
    copy_file("a.db", "old.db");
    TPKS *later = open_as(NULL, TPKS_WRITE);
    add_recovery(later, NULL);
    add_recovery(later, NULL);
    tpks_close(later);
    ck_assert_uint_eq(generation_in(kept), 4);
    copy_file("old.db", "a.db");
    OK(try_open(TPKS_WRITE, true));
    TPKS *again = open_as(NULL, TPKS_WRITE);
    add_recovery(again, NULL);
    tpks_close(again);
    ck_assert_uint_eq(generation_in(kept), 3);
}
END_TEST

/* However many change the slots at once, there is a copy at every moment. */
START_TEST(the_kept_header_is_never_away)
{
    enum { WRITERS = 3, EACH = 4 };
    pid_t pids[WRITERS];
    char kept[200];
    int running = WRITERS;
    bool away = false;

    create(NULL);
    kept_header(kept, sizeof(kept));
    for (int w = 0; w < WRITERS; w++) {
        pids[w] = fork();
        if (pids[w] != 0)
            continue;
        TPKS *ks = open_as(NULL, TPKS_WRITE);
        for (int i = 0; i < EACH; i++)
            add_recovery(ks, NULL);
        tpks_close(ks);
        _exit(0);
    }
    while (running > 0) {
        int status = 0;
        away |= access(kept, F_OK) != 0;
        if (waitpid(-1, &status, WNOHANG) == 0)
            continue;
        ck_assert_int_eq(status, 0);
        running--;
    }
    ck_assert(!away);
    ck_assert_uint_eq(generation_in(kept), 1 + WRITERS * EACH);
}
END_TEST

/* ---- selectors and public halves that a database can lie about ---- */

static tpks_result find_by(const tpks_selector *by)
{
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    TPKS_RECORD *record = NULL;
    tpks_result result = tpks_find(ks, by, &record);

    tpks_record_free(record);
    tpks_close(ks);
    return result;
}

START_TEST(what_is_found_is_what_was_asked_for)
{
    unsigned char cert_sha256[32];
    size_t size = 0;

    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    add_key(ks, "web", "EC");
    add_key(ks, "mail", "EC");
    TPKS_RECORD *web = find(ks, "web");
    const unsigned char *der = tpks_record_cert(web, 0, &size);
    OK(sha256(NULL, der, size, cert_sha256));
    tpks_close(ks);
    copy_file("a.db", "good.db");
    tpks_selector pinned = {.name = "web", .spki_sha256 = tpks_record_spki_sha256(web)};
    tpks_selector by_cert = {.cert_sha256 = cert_sha256};
    tpks_selector by_name = {.name = "web"};
    OK(find_by(&pinned));
    OK(find_by(&by_cert));
    /* Another public key under the pinned digest. */
    sql("a.db", "UPDATE tpks_record SET spki = (SELECT spki FROM tpks_record WHERE name = 'mail')"
                " WHERE name = 'web'");
    FAILS(TPKS_TAMPERED, find_by(&pinned));
    /* Another record under the fingerprint asked for. */
    copy_file("good.db", "a.db");
    sql("a.db", "UPDATE tpks_certificate SET sha256 = zeroblob(32) WHERE record ="
                " (SELECT id FROM tpks_record WHERE name = 'web')");
    FAILS(TPKS_NOT_FOUND, find_by(&by_cert));
    char hex[65], statement[200];
    for (size_t i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", cert_sha256[i]);
    snprintf(statement, sizeof(statement),
             "UPDATE tpks_certificate SET sha256 = x'%s' WHERE record ="
             " (SELECT id FROM tpks_record WHERE name = 'mail')",
             hex);
    sql("a.db", statement);
    FAILS(TPKS_TAMPERED, find_by(&by_cert));
    /* Certificates of another key, their digest with them. */
    copy_file("good.db", "a.db");
    sql("a.db", "CREATE TEMP TABLE c AS SELECT record, der FROM tpks_certificate;"
                "CREATE TEMP TABLE d AS SELECT id, certs_digest FROM tpks_record;"
                "UPDATE tpks_certificate SET der = (SELECT der FROM c"
                " WHERE c.record <> tpks_certificate.record);"
                "UPDATE tpks_record SET certs_digest = (SELECT certs_digest FROM d"
                " WHERE d.id <> tpks_record.id)");
    FAILS(TPKS_TAMPERED, find_by(&by_name));
    tpks_record_free(web);
}
END_TEST

/* ---- handles that live while the database changes below them ---- */

static tpks_result try_add(TPKS *ks, const char *name)
{
    EVP_PKEY *key = make_key("ED25519");
    TPKS_SECRET *pkcs8 = pkcs8_of(key);
    tpks_result result = tpks_add(ks, name, pkcs8, NULL, TPKS_MAY_SIGN, NULL);

    tpks_secret_free(pkcs8);
    EVP_PKEY_free(key);
    return result;
}

START_TEST(what_was_tampered_with_is_never_sealed)
{
    create(NULL);
    for (int batch = 0; batch < 2; batch++) {
        copy_file("a.db", "good.db");
        TPKS *ks = open_as(NULL, TPKS_WRITE);
        OK(tpks_unlock(ks));
        sql("a.db", "UPDATE tpks_header SET generation = generation + 1;"
                    "UPDATE tpks_slot SET label = 'evil'");
        for (int i = 0; i < 3; i++)
            FAILS(TPKS_TAMPERED, batch ? tpks_begin(ks) : try_add(ks, "x"));
        tpks_rollback(ks);
        tpks_close(ks);
        FAILS(TPKS_TAMPERED, try_open(TPKS_LOAD, false));
        copy_file("good.db", "a.db");
    }
}
END_TEST

START_TEST(another_history_of_the_same_length_is_noticed)
{
    TPKS_SECRET *recovery = NULL;
    tpks_options accepting = {.config = config, .access = TPKS_WRITE, .accept_new_anchor = true};
    TPKS *ks = NULL;

    create(NULL);
    copy_file("a.db", "good.db");
    OK(tpks_open(&accepting, &ks));
    OK(tpks_slot_add_recovery(ks, &recovery, NULL));
    tpks_close(ks);
    sql("a.db", "VACUUM"); /* so that SQLite sees another file */
    copy_file("a.db", "other.db");
    tpks_status_info status;
    ks = open_as(NULL, TPKS_LOAD);
    OK(tpks_status(ks, &status));
    tpks_close(ks);
    copy_file("good.db", "a.db");
    OK(tpks_open(&accepting, &ks));
    for (uint64_t g = 1; g < status.generation; g++)
        OK(try_add(ks, g == 1 ? "one" : "two"));
    copy_file("other.db", "a.db");
    OK(try_add(ks, "x"));
    tpks_close(ks);
    OK(load(NULL, "x"));
    OK(try_open(TPKS_WRITE, false));
    tpks_secret_free(recovery);
}
END_TEST

START_TEST(a_rollback_under_an_open_writer_is_noticed)
{
    create(NULL);
    copy_file("a.db", "old.db");
    sql("old.db", "VACUUM; VACUUM; VACUUM");
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    OK(try_add(ks, "one"));
    OK(try_add(ks, "two"));
    copy_file("old.db", "a.db");
    FAILS(TPKS_ROLLED_BACK, try_add(ks, "three"));
    FAILS(TPKS_ROLLED_BACK, try_add(ks, "three"));
    FAILS(TPKS_ROLLED_BACK, tpks_begin(ks));
    tpks_close(ks);
    FAILS(TPKS_ROLLED_BACK, try_open(TPKS_WRITE, false));
}
END_TEST

START_TEST(a_slow_writer_does_not_lower_the_anchor)
{
    create(NULL);
    copy_file("a.db", "old.db");
    TPKS *slow = open_as(NULL, TPKS_WRITE);
    TPKS *fast = open_as(NULL, TPKS_WRITE);
    OK(try_add(fast, "one"));
    tpks_close(fast);
    OK(tpks_unlock(slow));
    tpks_close(slow);
    copy_file("old.db", "a.db");
    FAILS(TPKS_ROLLED_BACK, try_open(TPKS_WRITE, false));
}
END_TEST

/* Who may write in the state folder, but is not us, can neither stop nor fool us. */
START_TEST(only_a_plain_file_is_an_anchor)
{
    char command[400];

    create(NULL);
    snprintf(command, sizeof(command), "cd %s/state && a=$(echo *.anchor) && rm $a && mkfifo $a",
             folder);
    ck_assert_int_eq(system(command), 0);
    OK(try_open(TPKS_LOAD, false));
    snprintf(command, sizeof(command),
             "cd %s/state && a=$(echo *.anchor) && rm $a && ln -s /etc/passwd $a", folder);
    ck_assert_int_eq(system(command), 0);
    OK(try_open(TPKS_WRITE, false));
    snprintf(command, sizeof(command), "test -f %s/state/*.anchor -a ! -h %s/state/*.anchor",
             folder, folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* ---- changes that fail half-way ---- */

static void set_serial(X509 *cert, size_t size, bool negative)
{
    unsigned char number[80];

    memset(number, 0x5a, sizeof(number));
    BIGNUM *serial = BN_bin2bn(number, (int)size, NULL);
    BN_set_negative(serial, negative);
    ck_assert_ptr_nonnull(BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert)));
    BN_free(serial);
}

static tpks_result add_with_serial(TPKS *ks, const char *name, size_t size, bool negative)
{
    EVP_PKEY *key = make_key("ED25519");
    TPKS_SECRET *pkcs8 = pkcs8_of(key);
    STACK_OF(X509) *certs = self_signed(key, name, 1);

    set_serial(sk_X509_value(certs, 0), size, negative);
    ck_assert_int_gt(X509_sign(sk_X509_value(certs, 0), key, NULL), 0);
    tpks_result result = tpks_add(ks, name, pkcs8, certs, TPKS_MAY_SIGN, NULL);
    free_certs(certs);
    tpks_secret_free(pkcs8);
    EVP_PKEY_free(key);
    return result;
}

START_TEST(serial_numbers_of_every_kind)
{
    unsigned char serial[64];
    TPKS_RECORD *record = NULL;
    uint64_t proven = 0;

    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    OK(add_with_serial(ks, "none", 0, false));
    OK(add_with_serial(ks, "negative", 20, true));
    OK(add_with_serial(ks, "long", 64, false));
    FAILS(TPKS_BAD_INPUT, add_with_serial(ks, "too long", 65, false));
    memset(serial, 0x5a, sizeof(serial));
    tpks_selector by_zero = {.serial = serial, .serial_size = 0};
    tpks_selector by_long = {.serial = serial, .serial_size = 64};
    OK(tpks_find(ks, &by_zero, &record));
    ck_assert_str_eq(tpks_record_name(record), "none");
    tpks_record_free(record);
    OK(tpks_find(ks, &by_long, &record));
    ck_assert_str_eq(tpks_record_name(record), "long");
    tpks_record_free(record);
    OK(tpks_verify(ks, NULL, NULL, NULL, &proven));
    ck_assert_uint_eq(proven, 3);
    tpks_close(ks);
}
END_TEST

START_TEST(half_a_change_is_never_committed)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    OK(tpks_begin(ks));
    OK(try_add(ks, "one"));
    FAILS(TPKS_BAD_INPUT, try_add(ks, "")); /* nothing was written: harmless */
    OK(tpks_commit(ks));
    OK(tpks_begin(ks));
    OK(try_add(ks, "two"));
    FAILS(TPKS_EXISTS, try_add(ks, "one"));
    FAILS(TPKS_EXISTS, try_add(ks, "three"));
    FAILS(TPKS_EXISTS, tpks_commit(ks));
    FAILS(TPKS_INTERNAL, tpks_commit(ks));
    OK(try_add(ks, "four"));
    tpks_status_info status;
    OK(tpks_status(ks, &status));
    ck_assert_uint_eq(status.records, 2);
    ck_assert_uint_eq(status.generation, 3);
    tpks_close(ks);
    FAILS(TPKS_NOT_FOUND, load(NULL, "two"));
    OK(load(NULL, "four"));
}
END_TEST

/* ---- keys as other software makes them ---- */

static void round_trip(TPKS *ks, const char *name, EVP_PKEY *key, const char *type)
{
    TPKS_SECRET *pkcs8 = pkcs8_of(key), *again = NULL;
    STACK_OF(X509) *certs = self_signed(key, "odd", 7);
    uint64_t proven = 0;

    tpks_result result = tpks_add(ks, name, pkcs8, certs, TPKS_MAY_SIGN, NULL);
    ck_assert_msg(result == TPKS_OK, "%s: %s", name, tpks_error_text());
    TPKS_RECORD *record = find(ks, name);
    ck_assert_str_eq(tpks_record_key_type(record), type);
    OK(tpks_load_key(ks, record, &again));
    ck_assert_uint_eq(tpks_secret_size(again), tpks_secret_size(pkcs8));
    OK(tpks_verify(ks, NULL, NULL, NULL, &proven));
    OK(tpks_remove(ks, record));
    tpks_record_free(record);
    tpks_secret_free(again);
    tpks_secret_free(pkcs8);
    free_certs(certs);
    EVP_PKEY_free(key);
}

static EVP_PKEY *make_rsa(const char *type, size_t bits, size_t primes, unsigned long exponent)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;
    BIGNUM *e = BN_new();

    ck_assert_int_eq(EVP_PKEY_keygen_init(ctx), 1);
    ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, (int)bits), 1);
    ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_keygen_primes(ctx, (int)primes), 1);
    BN_set_word(e, exponent);
    ck_assert_int_eq(EVP_PKEY_CTX_set1_rsa_keygen_pubexp(ctx, e), 1);
    if (strcmp(type, "RSA-PSS") == 0 && exponent == 65537) {
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_pss_keygen_md(ctx, EVP_sha256()), 1);
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_pss_keygen_mgf1_md(ctx, EVP_sha256()), 1);
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_pss_keygen_saltlen(ctx, 32), 1);
    }
    ck_assert_int_eq(EVP_PKEY_generate(ctx, &key), 1);
    BN_free(e);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

/* d = 1/e mod (p-1)(q-1) instead of the least common multiple, as old key generators had it. */
static EVP_PKEY *old_style_rsa(void)
{
    EVP_PKEY *from = make_rsa("RSA", 2048, 2, 65537), *key = NULL;
    BIGNUM *p = NULL, *q = NULL, *e = NULL, *p1, *q1, *phi = BN_new(), *d;
    BN_CTX *bn = BN_CTX_new();
    OSSL_PARAM *params = NULL;

    EVP_PKEY_get_bn_param(from, OSSL_PKEY_PARAM_RSA_FACTOR1, &p);
    EVP_PKEY_get_bn_param(from, OSSL_PKEY_PARAM_RSA_FACTOR2, &q);
    EVP_PKEY_get_bn_param(from, OSSL_PKEY_PARAM_RSA_E, &e);
    p1 = BN_dup(p);
    q1 = BN_dup(q);
    BN_sub_word(p1, 1);
    BN_sub_word(q1, 1);
    BN_mul(phi, p1, q1, bn);
    d = BN_mod_inverse(NULL, e, phi, bn);
    EVP_PKEY_todata(from, EVP_PKEY_KEYPAIR, &params);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    static const char *const names[] = {"n",
                                        "e",
                                        "rsa-factor1",
                                        "rsa-factor2",
                                        "rsa-exponent1",
                                        "rsa-exponent2",
                                        "rsa-coefficient1"};
    BIGNUM *numbers[7] = {NULL};
    for (size_t i = 0; i < 7; i++) {
        ck_assert(OSSL_PARAM_get_BN(OSSL_PARAM_locate(params, names[i]), &numbers[i]));
        OSSL_PARAM_BLD_push_BN(build, names[i], numbers[i]);
    }
    OSSL_PARAM_BLD_push_BN(build, "d", d);
    OSSL_PARAM *made = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY_fromdata_init(ctx);
    ck_assert_int_eq(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, made), 1);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(made);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    for (size_t i = 0; i < 7; i++)
        BN_free(numbers[i]);
    BN_free(p);
    BN_free(q);
    BN_free(e);
    BN_free(p1);
    BN_free(q1);
    BN_free(phi);
    BN_free(d);
    BN_CTX_free(bn);
    EVP_PKEY_free(from);
    return key;
}

START_TEST(rsa_keys_of_other_makers_are_taken)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    round_trip(ks, "old", old_style_rsa(), "RSA");
    round_trip(ks, "short", make_rsa("RSA", 1024, 2, 65537), "RSA");
    round_trip(ks, "small exponent", make_rsa("RSA", 2048, 2, 3), "RSA");
    round_trip(ks, "three primes", make_rsa("RSA", 2048, 3, 65537), "RSA");
    round_trip(ks, "odd length", make_rsa("RSA", 2049, 2, 65537), "RSA");
    round_trip(ks, "pss", make_rsa("RSA-PSS", 2048, 2, 65537), "RSA-PSS");
    round_trip(ks, "pss unlimited", make_rsa("RSA-PSS", 2048, 2, 17), "RSA-PSS");
    tpks_close(ks);
}
END_TEST

/* Curves of key agreement (RFC 2409) whose base point has no usable order. */
static bool cannot_sign(int curve)
{
    return curve == NID_ipsec3 || curve == NID_ipsec4;
}

START_TEST(ec_keys_on_every_curve_are_taken)
{
    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    size_t count = EC_get_builtin_curves(NULL, 0);
    EC_builtin_curve *curves = OPENSSL_zalloc(count * sizeof(*curves));
    EC_get_builtin_curves(curves, count);
    for (size_t i = 0; i < count; i++) {
        const char *name = OBJ_nid2sn(curves[i].nid);
        EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", name);
        EVP_PKEY *other = EVP_PKEY_Q_keygen(NULL, NULL, "EC", name);
        EVP_PKEY *third = EVP_PKEY_Q_keygen(NULL, NULL, "EC", name);
        if (curves[i].nid == NID_sm2 || cannot_sign(curves[i].nid) || key == NULL) {
            EVP_PKEY_free(key);
            EVP_PKEY_free(other);
            EVP_PKEY_free(third);
            continue;
        }
        EVP_PKEY_set_utf8_string_param(other, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                       "compressed");
        EVP_PKEY_set_utf8_string_param(third, OSSL_PKEY_PARAM_EC_ENCODING, "explicit");
        round_trip(ks, name, key, "EC");
        round_trip(ks, name, other, "EC");
        round_trip(ks, name, third, "EC");
    }
    OPENSSL_free(curves);
    tpks_close(ks);
}
END_TEST

START_TEST(attributes_of_a_pkcs8_key_are_kept)
{
    EVP_PKEY *key = make_key("EC");
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    TPKS_SECRET *again = NULL;

    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    ck_assert_int_eq(PKCS8_pkey_add1_attr_by_NID(info, NID_friendlyName, V_ASN1_UTF8STRING,
                                                 (const unsigned char *)"web", 3),
                     1);
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
    TPKS_SECRET *pkcs8 = tpks_secret_copy(der, (size_t)size);
    OK(tpks_add(ks, "web", pkcs8, NULL, TPKS_MAY_SIGN, NULL));
    TPKS_RECORD *record = find(ks, "web");
    OK(tpks_load_key(ks, record, &again));
    ck_assert_uint_eq(tpks_secret_size(again), (size_t)size);
    ck_assert_mem_eq(tpks_secret_data(again), der, (size_t)size);
    tpks_record_free(record);
    tpks_secret_free(again);
    tpks_secret_free(pkcs8);
    OPENSSL_free(der);
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
    tpks_close(ks);
}
END_TEST

START_TEST(the_opened_key_must_have_the_public_half)
{
    keystore_with("web", "EC");
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    TPKS_RECORD *web = find(ks, "web");
    EVP_PKEY *key = make_key("EC");
    TPKS_SECRET *other = pkcs8_of(key), *again = NULL;

    /* As faulty software that has the DEK could leave it. */
    OK(tpks_unlock(ks));
    OK(record_seal(NULL, web, ks->dek, other));
    FAILS(TPKS_TAMPERED, record_check_key(NULL, web, other));
    FAILS(TPKS_TAMPERED, tpks_load_key(ks, web, &again));
    ck_assert_ptr_null(again);
    tpks_secret_free(other);
    tpks_record_free(web);
    EVP_PKEY_free(key);
    tpks_close(ks);
}
END_TEST

/* ---- a new keystore ---- */

START_TEST(a_recovery_key_that_nobody_gets_is_not_made)
{
    tpks_options options = {.config = config, .access = TPKS_WRITE};
    tpks_create_params params = {.software = true, .recovery = true};
    TPKS_SECRET *key = NULL;

    FAILS(TPKS_BAD_INPUT, tpks_create(&options, &params, NULL));
    params.label = "a\033[2Jb";
    FAILS(TPKS_BAD_INPUT, tpks_create(&options, &params, &key));
    params.label = "\xff";
    FAILS(TPKS_BAD_INPUT, tpks_create(&options, &params, &key));
    params.label = "";
    FAILS(TPKS_BAD_INPUT, tpks_create(&options, &params, &key));
    ck_assert_int_ne(access(path_of("a.db"), F_OK), 0);
    params.label = "Gr\xc3\xb6\xc3\x9f"
                   "e";
    OK(tpks_create(&options, &params, &key));
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    OK(tpks_unlock_with(ks, key));
    tpks_close(ks);
    tpks_secret_free(key);
}
END_TEST

/* ---- two processes change the slots ---- */

static const tpks_kdf_cost cheap = {.t = 1, .m_kib = 8192, .p = 1};

typedef struct slots_of {
    const char *kind;
    unsigned char id[64][TPKS_ID_SIZE];
    size_t count;
} slots_of;

static tpks_result keep_slot(void *arg, const tpks_slot_info *slot)
{
    slots_of *s = arg;

    if (strcmp(slot->kind, s->kind) == 0 && strcmp(slot->state, "active") == 0)
        memcpy(s->id[s->count++], slot->id, TPKS_ID_SIZE);
    return TPKS_OK;
}

/* The active slots of a kind, as they are stored now. */
static slots_of active_slots(const char *kind)
{
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    slots_of s = {.kind = kind};

    OK(tpks_each_slot(ks, keep_slot, &s));
    tpks_close(ks);
    return s;
}

static void expect_password_opens(const char *text)
{
    TPKS *ks = open_as(NULL, TPKS_LOAD);
    TPKS_SECRET *password = secret(text);

    OK(tpks_unlock_with(ks, password));
    tpks_secret_free(password);
    tpks_close(ks);
}

/* Both know two ways back; the one that is slower must not take the other one away. */
START_TEST(two_writers_leave_a_way_back)
{
    unsigned char recovery[TPKS_ID_SIZE];

    create(NULL);
    TPKS *a = open_as(NULL, TPKS_WRITE);
    add_recovery(a, recovery);
    TPKS *b = open_as(NULL, TPKS_WRITE);
    slots_of passwords = active_slots("password");
    OK(tpks_slot_remove(a, recovery, false));
    FAILS(TPKS_NOT_PERMITTED, tpks_slot_remove(b, passwords.id[0], false));
    FAILS(TPKS_NOT_FOUND, tpks_slot_remove(b, recovery, false));
    expect_password_opens(PASSWORD);
    /* The refusal is no damage: the slower one goes on. */
    add_recovery(b, recovery);
    OK(tpks_slot_remove(b, passwords.id[0], false));
    tpks_close(a);
    tpks_close(b);
}
END_TEST

START_TEST(two_writers_keep_the_limit_of_ways_back)
{
    TPKS_SECRET *key = NULL;
    TPKS_SECRET *password = secret("another good password");

    create(NULL);
    TPKS *a = open_as(NULL, TPKS_WRITE);
    for (int i = 0; i < WAYS_BACK_MAX - 2; i++)
        add_recovery(a, NULL);
    TPKS *b = open_as(NULL, TPKS_WRITE);
    add_recovery(a, NULL);
    FAILS(TPKS_UNSUPPORTED, tpks_slot_add_recovery(b, &key, NULL));
    ck_assert_ptr_null(key);
    FAILS(TPKS_UNSUPPORTED, tpks_slot_add_password(b, password, cheap, NULL));
    expect_password_opens(PASSWORD);
    /* One for another does not make them more. */
    OK(tpks_password_change(b, active_slots("password").id[0], password, cheap, NULL));
    expect_password_opens("another good password");
    tpks_secret_free(password);
    tpks_close(a);
    tpks_close(b);
}
END_TEST

START_TEST(two_writers_cannot_both_change_a_password)
{
    TPKS_SECRET *first = secret("the first new password");
    TPKS_SECRET *second = secret("the second new password");

    create(NULL);
    TPKS *a = open_as(NULL, TPKS_WRITE);
    TPKS *b = open_as(NULL, TPKS_WRITE);
    slots_of old = active_slots("password");
    OK(tpks_password_change(a, old.id[0], first, cheap, NULL));
    FAILS(TPKS_NOT_FOUND, tpks_password_change(b, old.id[0], second, cheap, NULL));
    ck_assert_uint_eq(active_slots("password").count, 1);
    expect_password_opens("the first new password");
    /* What was removed meanwhile does not come back with another password. */
    add_recovery(a, NULL);
    old = active_slots("password");
    OK(tpks_slot_remove(a, old.id[0], false));
    FAILS(TPKS_NOT_FOUND, tpks_password_change(b, old.id[0], second, cheap, NULL));
    ck_assert_uint_eq(active_slots("password").count, 0);
    tpks_secret_free(first);
    tpks_secret_free(second);
    tpks_close(a);
    tpks_close(b);
}
END_TEST

static tpks_result apply_slots(TPKS *ks, const void *arg)
{
    (void)arg;
    return native_replace_slots(&ks->d, &ks->head);
}

/* More of them than any version of ours adds. */
static tpks_result put_many(TPKS *ks, const void *arg)
{
    new_slot made = *(const new_slot *)arg; /* borrows its parts */

    for (unsigned i = 0; i < WAYS_BACK_MAX + 8; i++) {
        memset(made.slot.id, 0, TPKS_ID_SIZE);
        made.slot.id[TPKS_ID_SIZE - 1] = (unsigned char)i;
        memcpy(made.wrap.slot, made.slot.id, TPKS_ID_SIZE);
        OK(head_put_slot(&ks->head, &made.slot, &made.wrap));
    }
    return TPKS_OK;
}

START_TEST(too_many_ways_back_lock_nobody_out)
{
    TPKS_SECRET *other = secret("another good password");
    TPKS_SECRET *wrong = secret("incorrect horse battery");
    TPKS_SECRET *dek = NULL, *key = NULL;
    new_slot made = {0}, recovery = {0};

    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    OK(tpks_unlock(ks));
    OK(keystore_dek_copy(ks, &dek));
    OK(slot_make_recovery(NULL, &ks->head, dek, &recovery, &key));
    OK(keystore_change(ks, put_many, apply_slots, &recovery));
    expect_password_opens(PASSWORD);
    OK(slot_make_password(NULL, &ks->head, other, cheap, dek, &made));
    OK(keystore_change(ks, put_many, apply_slots, &made));
    FAILS(TPKS_WRONG_SECRET, tpks_unlock_with(ks, wrong));
    ck_assert_ptr_nonnull(strstr(tpks_error_text(), "only the first 32"));
    new_slot_clear(&made);
    new_slot_clear(&recovery);
    tpks_secret_free(key);
    tpks_secret_free(dek);
    tpks_secret_free(wrong);
    tpks_secret_free(other);
    tpks_close(ks);
}
END_TEST

/* As many as can be read; they are retired. */
static tpks_result fill_up(TPKS *ks, const void *arg)
{
    new_slot made = *(const new_slot *)arg; /* borrows its parts */

    made.slot.state = SLOT_RETIRED;
    for (unsigned i = 0; ks->head.slot_count < SLOTS_MAX; i++) {
        memset(made.slot.id, 0, TPKS_ID_SIZE);
        made.slot.id[TPKS_ID_SIZE - 2] = (unsigned char)(i >> 8);
        made.slot.id[TPKS_ID_SIZE - 1] = (unsigned char)i;
        OK(head_put_slot(&ks->head, &made.slot, NULL));
    }
    return TPKS_OK;
}

START_TEST(a_full_keystore_says_what_to_remove)
{
    unsigned char first[TPKS_ID_SIZE] = {0};
    TPKS_SECRET *dek = NULL, *key = NULL;
    new_slot made = {0};

    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    OK(tpks_unlock(ks));
    OK(keystore_dek_copy(ks, &dek));
    OK(slot_make_recovery(NULL, &ks->head, dek, &made, &key));
    tpks_secret_free(key);
    OK(keystore_change(ks, fill_up, apply_slots, &made));
    FAILS(TPKS_UNSUPPORTED, tpks_slot_add_recovery(ks, &key, NULL));
    ck_assert_ptr_nonnull(strstr(tpks_error_text(), "stale and retired"));
    OK(tpks_slot_remove(ks, first, false));
    add_recovery(ks, NULL);
    expect_password_opens(PASSWORD);
    new_slot_clear(&made);
    tpks_secret_free(dek);
    tpks_close(ks);
}
END_TEST

/* ---- passwords and recovery keys, once more ---- */

/* It would be read as a recovery key whenever it is typed. */
START_TEST(a_password_is_no_recovery_key)
{
    static const char *const texts[] = {"TPRK1 is a fine password", "tprk1-another-password",
                                        " t-p r K 1 and so on"};

    create(NULL);
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        TPKS_SECRET *password = secret(texts[i]);
        FAILS(TPKS_BAD_INPUT, tpks_slot_add_password(ks, password, cheap, NULL));
        ck_assert_ptr_nonnull(strstr(tpks_error_text(), "recovery key"));
        FAILS(TPKS_BAD_INPUT,
              tpks_password_change(ks, active_slots("password").id[0], password, cheap, NULL));
        tpks_secret_free(password);
    }
    ck_assert_uint_eq(active_slots("password").count, 1);
    tpks_close(ks);
}
END_TEST

START_TEST(a_recovery_key_that_nobody_got_is_no_way_back)
{
    tpks_options options = {.config = config, .access = TPKS_WRITE};
    tpks_create_params params = {.software = true, .no_way_back = true};
    unsigned char id[TPKS_ID_SIZE];

    OK(tpks_create(&options, &params, NULL));
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    FAILS(TPKS_NOT_FOUND, tpks_slot_take_back(ks));
    add_recovery(ks, id);
    FAILS(TPKS_NOT_PERMITTED, tpks_slot_remove(ks, id, false));
    OK(tpks_slot_take_back(ks));
    ck_assert_uint_eq(active_slots("recovery").count, 0);
    FAILS(TPKS_NOT_FOUND, tpks_slot_take_back(ks));
    /* Only the handle that added it knows that nobody got it. */
    add_recovery(ks, id);
    tpks_close(ks);
    ks = open_as(NULL, TPKS_WRITE);
    FAILS(TPKS_NOT_FOUND, tpks_slot_take_back(ks));
    FAILS(TPKS_NOT_PERMITTED, tpks_slot_remove(ks, id, false));
    tpks_close(ks);
}
END_TEST

/* ---- handles that are kept ---- */

static TPKS_CONFIG *keeping_config_that_allows(const char *names)
{
    TPKS_CONFIG *keeping = NULL;
    FILE *file = fopen(path_of("keeping.cnf"), "w");

    ck_assert_ptr_nonnull(file);
    fprintf(file,
            "[keystore]\nstore = sqlite:%s/a.db\nstate = %s/state\nhsm-session = process\n"
            "allow = %s\n",
            folder, folder, names);
    fchmod(fileno(file), 0644);
    fclose(file);
    OK(tpks_config_load(path_of("keeping.cnf"), &keeping));
    return keeping;
}

static TPKS_CONFIG *keeping_config(void)
{
    return keeping_config_that_allows("*");
}

/* Opens, loads "web" and closes; says whether the handle had been kept unlocked. */
static bool load_kept(const TPKS_CONFIG *keeping, tpks_result wanted)
{
    tpks_options options = {.config = keeping};
    tpks_selector by_name = {.name = "web"};
    TPKS *ks = NULL;
    TPKS_RECORD *record = NULL;
    TPKS_SECRET *pkcs8 = NULL;

    OK(tpks_open(&options, &ks));
    bool kept = ks->dek != NULL;
    tpks_result result = tpks_find(ks, &by_name, &record);
    if (result == TPKS_OK)
        result = tpks_load_key(ks, record, &pkcs8);
    FAILS(wanted, result);
    tpks_secret_free(pkcs8);
    tpks_record_free(record);
    tpks_close(ks);
    return kept;
}

START_TEST(a_reloaded_configuration_counts_by_what_it_says)
{
    TPKS_CONFIG *first = keeping_config();
    TPKS_CONFIG *same = keeping_config();
    TPKS_CONFIG *other = keeping_config_that_allows("web");

    keystore_with("web", "EC");
    ck_assert(!load_kept(first, TPKS_OK));
    ck_assert(load_kept(same, TPKS_OK));
    ck_assert(!load_kept(other, TPKS_OK));
    ck_assert(load_kept(other, TPKS_OK));
    ck_assert(!load_kept(first, TPKS_OK));
    tpks_config_free(first);
    tpks_config_free(same);
    tpks_config_free(other);
}
END_TEST

START_TEST(a_kept_handle_sees_the_database_of_today)
{
    TPKS_CONFIG *keeping = keeping_config();

    keystore_with("web", "EC");
    copy_file("a.db", "old.db");
    ck_assert(!load_kept(keeping, TPKS_OK));
    /* Changed by another process. */
    TPKS *ks = open_as(NULL, TPKS_WRITE);
    TPKS_RECORD *web = find(ks, "web");
    OK(tpks_rename(ks, web, "gone"));
    tpks_record_free(web);
    tpks_close(ks);
    ck_assert(load_kept(keeping, TPKS_NOT_FOUND));
    /* Replaced by another file: rolled back, and then with a tampered head. */
    ck_assert_int_eq(rename(path_of("old.db"), path_of("a.db")), 0);
    ck_assert(!load_kept(keeping, TPKS_OK));
    sql("a.db", "UPDATE tpks_header SET generation = 9");
    ck_assert(!load_kept(keeping, TPKS_TAMPERED));
    tpks_config_free(keeping);
}
END_TEST

START_TEST(a_fork_inherits_no_kept_handle)
{
    TPKS_CONFIG *keeping = keeping_config();
    int status = 0;

    keystore_with("web", "EC");
    ck_assert(!load_kept(keeping, TPKS_OK));
    ck_assert(load_kept(keeping, TPKS_OK));
    pid_t child = fork();
    if (child == 0) {
        bool kept = load_kept(keeping, TPKS_OK);
        _exit(kept || !load_kept(keeping, TPKS_OK));
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert(!load_kept(keeping, TPKS_OK));
    tpks_config_free(keeping);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("keystore");
    TCase *tests = tcase_create("keystore");

    tcase_set_timeout(tests, 300);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, keys_of_every_type_come_back);
    tcase_add_test(tests, records_are_found_by_every_selector);
    tcase_add_test(tests, changes_seal_the_record_again);
    tcase_add_test(tests, many_changes_can_be_one);
    tcase_add_test(tests, names_and_keys_are_checked);
    tcase_add_test(tests, passwords_and_recovery_keys_unlock);
    tcase_add_test(tests, every_bit_of_the_head_counts);
    tcase_add_test(tests, every_bit_of_a_record_counts);
    tcase_add_test(tests, a_flipped_bit_in_the_file_is_noticed);
    tcase_add_test(tests, newer_formats_are_recognised);
    tcase_add_test(tests, rows_cannot_be_swapped_or_moved);
    tcase_add_test(tests, a_replaced_dek_is_noticed);
    tcase_add_test(tests, a_rolled_back_database_is_noticed);
    tcase_add_test(tests, many_writers_lose_nothing);
    tcase_add_test(tests, a_writer_waits_for_as_many_as_are_faster);
    tcase_add_test(tests, a_backup_is_a_whole_keystore);
    tcase_add_test(tests, a_lost_dek_file_is_a_missing_kek);
    tcase_add_test(tests, a_damaged_dek_file_is_replaced_on_demand);
    tcase_add_test(tests, a_slow_writer_does_not_lower_the_kept_header);
    tcase_add_test(tests, the_kept_header_is_never_away);
    tcase_add_test(tests, what_is_found_is_what_was_asked_for);
    tcase_add_test(tests, what_was_tampered_with_is_never_sealed);
    tcase_add_test(tests, another_history_of_the_same_length_is_noticed);
    tcase_add_test(tests, a_rollback_under_an_open_writer_is_noticed);
    tcase_add_test(tests, a_slow_writer_does_not_lower_the_anchor);
    tcase_add_test(tests, only_a_plain_file_is_an_anchor);
    tcase_add_test(tests, serial_numbers_of_every_kind);
    tcase_add_test(tests, half_a_change_is_never_committed);
    tcase_add_test(tests, rsa_keys_of_other_makers_are_taken);
    tcase_add_test(tests, ec_keys_on_every_curve_are_taken);
    tcase_add_test(tests, attributes_of_a_pkcs8_key_are_kept);
    tcase_add_test(tests, the_opened_key_must_have_the_public_half);
    tcase_add_test(tests, a_recovery_key_that_nobody_gets_is_not_made);
    tcase_add_test(tests, two_writers_leave_a_way_back);
    tcase_add_test(tests, two_writers_keep_the_limit_of_ways_back);
    tcase_add_test(tests, two_writers_cannot_both_change_a_password);
    tcase_add_test(tests, too_many_ways_back_lock_nobody_out);
    tcase_add_test(tests, a_full_keystore_says_what_to_remove);
    tcase_add_test(tests, a_password_is_no_recovery_key);
    tcase_add_test(tests, a_recovery_key_that_nobody_got_is_no_way_back);
    tcase_add_test(tests, a_reloaded_configuration_counts_by_what_it_says);
    tcase_add_test(tests, a_kept_handle_sees_the_database_of_today);
    tcase_add_test(tests, a_fork_inherits_no_kept_handle);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
