/*
 * test_trustpoint.c - Trustpoint's own databases: byte formats, names, chains, and what a damaged
 * or hostile row can do
 *
 * The vectors were made by Trustpoint's own code with fixed randomness. The databases are those of
 * test/data/trustpoint, changed here by SQL; what needs their token is in the integration tests.
 */
#include "keystore_internal.h"

#include "unit.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509v3.h>
#include <sqlite3.h>

#include "error.h"
#include "file.h"
#include "trustpoint.h"

#define PASSWORD "correct horse battery staple"

/* ---- keys and fields ---- */

static const unsigned char nonce[NONCE_SIZE] = {0x50, 0x51, 0x52, 0x53, 0x54, 0x55,
                                                0x56, 0x57, 0x58, 0x59, 0x5a, 0x5b};

/* 00 01 02 ... 1f */
static TPKS_SECRET *counting_secret(void)
{
    TPKS_SECRET *secret = tpks_secret_new(DEK_SIZE);

    ck_assert_ptr_nonnull(secret);
    for (size_t i = 0; i < DEK_SIZE; i++)
        tpks_secret_data(secret)[i] = (unsigned char)i;
    return secret;
}

static DEK *counting_dek(void)
{
    DEK *dek = NULL;

    expect_ok(dek_from_secret(NULL, counting_secret(), &dek));
    return dek;
}

/* base64(nonce tag ciphertext) of any plaintext under the counting DEK; `out` has 4096 bytes. */
static const char *seal_field(const char *prefix, const char *aad, const void *plain, size_t size,
                              char *out)
{
    unsigned char sealed[2048], field[2048];
    TPKS_SECRET *dek = counting_secret();

    expect_ok(gcm_seal(NULL, tpks_secret_data(dek), nonce, (const unsigned char *)aad, strlen(aad),
                       plain, size, sealed));
    tpks_secret_free(dek);
    memcpy(field, nonce, NONCE_SIZE);
    memcpy(field + NONCE_SIZE, sealed + size, TAG_SIZE);
    memcpy(field + NONCE_SIZE + TAG_SIZE, sealed, size);
    strcpy(out, prefix);
    EVP_EncodeBlock((unsigned char *)out + strlen(prefix), field,
                    (int)(NONCE_SIZE + TAG_SIZE + size));
    return out;
}

#define AAD_2 "trustpoint-app-secrets-v1"
#define PREFIX_2 "tpsec:v1:"

static void expect_plain(TPKS_SECRET *plain, const void *text, size_t size)
{
    ck_assert_uint_eq(tpks_secret_size(plain), size);
    ck_assert_mem_eq(tpks_secret_data(plain), text, size);
    tpks_secret_free(plain);
}

START_TEST(vectors_of_field_format_1)
{
    static const char *const fields[] = {
        "UFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLUA==",
        "UFFSU1RVVldYWVpbYLnJVb8L4UOnRB1H+w4ci/pCWhiLULnmXw==",
        "UFFSU1RVVldYWVpbU1XZer6Hsvk4BG3lDzPbd/pCWhiLULnmXLY9Zc3hg9XjL/3rLQ==",
    };
    DEK *dek = counting_dek();

    for (size_t i = 0; i < COUNT(fields); i++) {
        TPKS_SECRET *plain = NULL;
        expect_ok(trustpoint_field_open_1(dek, fields[i], &plain));
        expect_plain(plain, "hello", 5);
    }
    dek_free(dek);
}
END_TEST

START_TEST(every_padding_of_format_1)
{
    DEK *dek = counting_dek();

    for (unsigned n = 0; n <= 16; n++) {
        char text[64] = "key\n", field[4096];
        TPKS_SECRET *plain = NULL;
        size_t size = 4 + n;

        text[size++] = (char)n; /* 10 and 13 are line ends: nothing may be trimmed */
        expect_ok(trustpoint_field_open_1(dek, seal_field("", "", text, size, field), &plain));
        if (n < 16)
            expect_plain(plain, "key\n", 4);
        else
            expect_plain(plain, text, size);
    }
    dek_free(dek);
}
END_TEST

START_TEST(padding_that_is_longer_than_the_text)
{
    DEK *dek = counting_dek();
    char field[4096];
    TPKS_SECRET *plain = NULL;

    expect_ok(trustpoint_field_open_1(dek, seal_field("", "", "\x05", 1, field), &plain));
    expect_plain(plain, "\x05", 1);
    expect_ok(trustpoint_field_open_1(dek, seal_field("", "", "", 0, field), &plain));
    expect_plain(plain, "", 0);
    dek_free(dek);
}
END_TEST

START_TEST(vector_of_field_format_2)
{
    DEK *dek = counting_dek();
    TPKS_SECRET *plain = NULL;
    char field[4096];

    expect_ok(trustpoint_field_open_2(dek, "tpsec:v1:UFFSU1RVVldYWVpbJVUqcIbJOr6XN78tmhHo/vpCWhiL",
                                      &plain));
    expect_plain(plain, "hello", 5);
    /* No padding is removed here. */
    expect_ok(trustpoint_field_open_2(dek, seal_field(PREFIX_2, AAD_2, "a\0", 2, field), &plain));
    expect_plain(plain, "a\0", 2);
    dek_free(dek);
}
END_TEST

START_TEST(damaged_fields)
{
    static const char *const bad_1[] = {
        "",
        "=",
        "====",
        "UFFS",
        "UFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLUA",
        "UFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLUA==\n",
        " UFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLUA==",
        "UFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLU===",
        "UFFSU1RVVldYWVpbmnqsjco-lCSmZcAW3zge7_pCWhiLUA==",
        "VFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLUA==", /* of the nonce */
        "UFFSU1RVVldYWVpbonqsjco+lCSmZcAW3zge7/pCWhiLUA==", /* of the tag */
        "tpsec:v1:UFFSU1RVVldYWVpbJVUqcIbJOr6XN78tmhHo/vpCWhiL",
    };
    static const char *const bad_2[] = {
        "tpsec:v1:",
        "UFFSU1RVVldYWVpbJVUqcIbJOr6XN78tmhHo/vpCWhiL",
        "tpsec:v2:UFFSU1RVVldYWVpbJVUqcIbJOr6XN78tmhHo/vpCWhiL",
        "tpsec:v1: UFFSU1RVVldYWVpbJVUqcIbJOr6XN78tmhHo/vpCWhiL",
        "tpsec:v1:UFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLUA==", /* without the AAD */
    };
    DEK *dek = counting_dek();
    TPKS_SECRET *plain = NULL;

    for (size_t i = 0; i < COUNT(bad_1); i++)
        expect(TPKS_TAMPERED, trustpoint_field_open_1(dek, bad_1[i], &plain));
    for (size_t i = 0; i < COUNT(bad_2); i++)
        expect(TPKS_TAMPERED, trustpoint_field_open_2(dek, bad_2[i], &plain));
    ck_assert_ptr_null(plain);
    dek_free(dek);
}
END_TEST

START_TEST(a_database_without_dek_opens_no_field)
{
    DEK *dek = NULL;
    TPKS_SECRET *plain = NULL;

    expect_ok(dek_none(NULL, &dek));
    expect(TPKS_TAMPERED, trustpoint_field_open_1(
                              dek, "UFFSU1RVVldYWVpbmnqsjco+lCSmZcAW3zge7/pCWhiLUA==", &plain));
    expect_text("in the clear");
    dek_free(dek);
}
END_TEST

/* In a process without a terminal libcrypto asks at standard input, where "secret" is the answer.
 * What was read of it becomes the exit code. */
static int open_where_answers_are(const char *pem, size_t size)
{
    TPKS_SECRET *pkcs8 = NULL;
    char line[16];

    if (setsid() < 0 ||
        freopen(write_file("answer", "secret\n", strlen("secret\n"), 0600), "r", stdin) == NULL)
        return 2;
    if (trustpoint_pem_to_pkcs8(pem, size, &pkcs8) != TPKS_TAMPERED)
        return 1;
    return fgets(line, sizeof(line), stdin) == NULL;
}

START_TEST(nobody_is_asked_for_the_password_of_a_key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char password[] = "secret";
    char *text = NULL;
    int status = 0;

    ck_assert_int_eq(PEM_ASN1_write_bio((i2d_of_void *)i2d_PKCS8_PRIV_KEY_INFO, "PRIVATE KEY", bio,
                                        info, EVP_aes_128_cbc(), password, 6, NULL, NULL),
                     1);
    long size = BIO_get_mem_data(bio, &text);
    pid_t child = fork();
    if (child == 0)
        _exit(open_where_answers_are(text, (size_t)size));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
    BIO_free(bio);
}
END_TEST

START_TEST(what_is_no_key)
{
    static const char *const bad[] = {
        "",
        "hello",
        "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n",
    };
    TPKS_SECRET *pkcs8 = NULL, *base64 = secret_of("MAMCAQ");

    for (size_t i = 0; i < COUNT(bad); i++)
        expect(TPKS_TAMPERED, trustpoint_pem_to_pkcs8(bad[i], strlen(bad[i]), &pkcs8));
    expect(TPKS_TAMPERED, trustpoint_base64_to_pkcs8(base64, &pkcs8));
    tpks_secret_free(base64);
    base64 = secret_of("MAMCAQU=");
    expect_ok(trustpoint_base64_to_pkcs8(base64, &pkcs8));
    expect_plain(pkcs8, "\x30\x03\x02\x01\x05", 5);
    tpks_secret_free(base64);
}
END_TEST

/* ---- managed keys in software ---- */

static bytes encrypt_pkcs8(const char *password, int iterations)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    X509_SIG *sig = PKCS8_encrypt(-1, EVP_aes_256_cbc(), password, (int)strlen(password), NULL, 0,
                                  iterations, info);
    bytes out = {0};
    int size = i2d_X509_SIG(sig, &out.data);

    ck_assert_int_gt(size, 0);
    out.size = (size_t)size;
    X509_SIG_free(sig);
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
    return out;
}

START_TEST(managed_keys_open_with_their_password)
{
    bytes sealed = encrypt_pkcs8("secret", 2048), costly = encrypt_pkcs8("secret", 1);
    TPKS_SECRET *right = secret_of("secret"), *wrong = secret_of("Secret"), *pkcs8 = NULL;

    expect_ok(trustpoint_decrypt_pkcs8(NULL, &sealed, right, &pkcs8));
    ck_assert_uint_gt(tpks_secret_size(pkcs8), 100);
    tpks_secret_free(pkcs8);
    expect(TPKS_WRONG_SECRET, trustpoint_decrypt_pkcs8(NULL, &sealed, wrong, &pkcs8));
    sealed.size--;
    expect(TPKS_TAMPERED, trustpoint_decrypt_pkcs8(NULL, &sealed, right, &pkcs8));
    /* One iteration is INTEGER 1; make it a number that would take hours. */
    for (size_t i = 0; i + 3 < costly.size; i++)
        if (memcmp(costly.data + i, "\x02\x01\x01\x30", 4) == 0)
            costly.data[i + 2] = 0x80; /* -128 */
    expect(TPKS_UNSUPPORTED, trustpoint_decrypt_pkcs8(NULL, &costly, right, &pkcs8));
    tpks_secret_free(right);
    tpks_secret_free(wrong);
    OPENSSL_free(sealed.data);
    OPENSSL_free(costly.data);
}
END_TEST

START_TEST(where_a_password_comes_from)
{
    TPKS_SECRET *password = NULL;
    const char *path = write_file("password", " p\xc3\xa4ss \xc2\xa0\r\n", 11, 0600);

    expect_ok(trustpoint_password("file", path, &password));
    expect_plain(password, "p\xc3\xa4ss", 5);
    expect(TPKS_WRONG_SECRET, trustpoint_password("file", "/nonexistent/password", &password));
    path = write_file("password", " \n", 2, 0600);
    expect(TPKS_WRONG_SECRET, trustpoint_password("file", path, &password));
    path = write_file("password", "secret\n", 7, 0644);
    expect(TPKS_NOT_PERMITTED, trustpoint_password("file", path, &password));
    setenv("TPKS_TEST_PASSWORD", "from the environment", 1);
    expect_ok(trustpoint_password("env", "TPKS_TEST_PASSWORD", &password));
    expect_plain(password, "from the environment", 20);
    unsetenv("TPKS_TEST_PASSWORD");
    expect(TPKS_WRONG_SECRET, trustpoint_password("env", "TPKS_TEST_PASSWORD", &password));
    expect_text("TPKS_TEST_PASSWORD");
    expect(TPKS_NEWER_FORMAT, trustpoint_password("vault", "x", &password));
}
END_TEST

/* ---- times ---- */

START_TEST(times_of_both_engines)
{
    static const struct {
        const char *text, *iso;
    } times[] = {
        {"2025-12-17 10:20:30.123450", "2025-12-17T10:20:30.123450+00:00"},
        {"2025-12-17 10:20:30.12345+00", "2025-12-17T10:20:30.123450+00:00"},
        {"2025-12-17 05:20:30.12345-05", "2025-12-17T10:20:30.123450+00:00"},
        {"2025-12-17 15:50:30.12345+05:30", "2025-12-17T10:20:30.123450+00:00"},
        {"2025-12-17T10:20:30Z", "2025-12-17T10:20:30+00:00"},
        {"2026-01-02 03:04:05", "2026-01-02T03:04:05+00:00"},
        {"2026-01-02 03:04:05.000000", "2026-01-02T03:04:05+00:00"},
        {"2026-01-02 03:04:05+00", "2026-01-02T03:04:05+00:00"},
        {"2026-01-01 21:34:05.000007", "2026-01-01T21:34:05.000007+00:00"},
        {"2026-01-01 00:00:00.5+01", "2025-12-31T23:00:00.500000+00:00"},
    };
    static const char *const bad[] = {
        "",
        "now",
        "2025-12-17",
        "2025-12-17 10:20",
        "2025-13-17 10:20:30",
        "2025-00-17 10:20:30",
        "2025-12-17 10:20:30.",
        "2025-12-17 10:20:30.1234567",
        "2025-12-17 10:20:30 ",
        "2025-12-17 10:20:30+0",
        "2025-12-17 10:20:30+25",
        "2025-12-17 24:20:30",
    };
    char iso[48];
    int64_t seconds;
    unsigned microseconds;

    for (size_t i = 0; i < COUNT(times); i++) {
        ck_assert_msg(trustpoint_isoformat(times[i].text, iso), "%s", times[i].text);
        ck_assert_str_eq(iso, times[i].iso);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        ck_assert_msg(!trustpoint_time(bad[i], &seconds, &microseconds), "%s", bad[i]);
    ck_assert(!trustpoint_time(NULL, &seconds, &microseconds));
    ck_assert(trustpoint_time("1970-01-01 01:00:01.000002+01", &seconds, &microseconds));
    ck_assert_int_eq(seconds, 1);
    ck_assert_uint_eq(microseconds, 2);
}
END_TEST

/* ---- names ---- */

static void expect_name(const trustpoint_row *row, const char *name, const char *role)
{
    char *made = trustpoint_name(row);

    ck_assert_str_eq(made, name);
    ck_assert_str_eq(trustpoint_role(row), role);
    OPENSSL_free(made);
}

START_TEST(names_and_roles)
{
    char longest[300];

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    expect_name(&(trustpoint_row){.credential = 7, .active_tls = 1}, "tls-server", "tls-server");
    expect_name(&(trustpoint_row){.credential = 7, .active_tls = 1, .ca = "a"}, "tls-server",
                "tls-server");
    expect_name(&(trustpoint_row){.credential = 7}, "credential/7", "key");
    expect_name(&(trustpoint_row){.credential = 7, .type = 2, .ca = "CA S\xc3\xbc/d"},
                "ca/CA S\xc3\xbc/d", "ca");
    expect_name(&(trustpoint_row){.credential = 7, .type = 5, .signer = "s"}, "signer/s", "signer");
    expect_name(&(trustpoint_row){.credential = 7, .type = 4, .owner = "o"}, "owner/o", "owner");
    expect_name(&(trustpoint_row){.credential = 7, .type = 4}, "credential/7", "owner");
    expect_name(&(trustpoint_row){.credential = 7, .type = 3, .device = "d", .device_cn = "a/b"},
                "device/d/a/b", "device");
    expect_name(&(trustpoint_row){.credential = 7, .type = 3, .device = "d/e", .device_cn = "a"},
                "credential/7", "device");
    expect_name(
        &(trustpoint_row){
            .credential = 7, .type = 3, .device = "d", .device_cn = "a", .device_cn_repeats = 1},
        "credential/7", "device");
    expect_name(&(trustpoint_row){.alias = "k", .uuid = "u"}, "key/k", "key");
    expect_name(&(trustpoint_row){.alias = "k\n", .uuid = "u"}, "key/u", "key");
    expect_name(&(trustpoint_row){.credential = 9, .type = 2, .ca = "a\x1b[31m"}, "credential/9",
                "ca");
    expect_name(&(trustpoint_row){.credential = 9, .type = 2, .ca = longest}, "credential/9", "ca");
    expect_name(&(trustpoint_row){.credential = 9, .type = 99}, "credential/9", "key");
}
END_TEST

START_TEST(uuids)
{
    unsigned char one[TPKS_ID_SIZE], other[TPKS_ID_SIZE];

    ck_assert(trustpoint_uuid("a4e08d21-012f-4d7e-8a83-118865922921", one));
    ck_assert(trustpoint_uuid("A4E08D21012F4d7e8a83118865922921", other));
    ck_assert_mem_eq(one, other, TPKS_ID_SIZE);
    ck_assert(!trustpoint_uuid("", one));
    ck_assert(!trustpoint_uuid("a4e08d21-012f-4d7e-8a83-11886592292", one));
    ck_assert(!trustpoint_uuid("a4e08d21-012f-4d7e-8a83-1188659229210", one));
    ck_assert(!trustpoint_uuid("g4e08d21-012f-4d7e-8a83-118865922921", one));
}
END_TEST

/* ---- chains ---- */

typedef struct issuer {
    X509 *cert;
    EVP_PKEY *key;
} issuer;

static void set_name(X509_NAME *name, const char *cn)
{
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
}

/* Issued by `by`, or by itself; `key` may be one of before. */
static issuer issue(const char *cn, const issuer *by, EVP_PKEY *key)
{
    issuer made = {X509_new(), key != NULL ? key : EVP_EC_gen("P-256")};
    X509V3_CTX ctx;
    static long serial;

    X509_set_version(made.cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made.cert), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(made.cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(made.cert), 3600);
    set_name(X509_get_subject_name(made.cert), cn);
    X509_set_issuer_name(made.cert, X509_get_subject_name(by == NULL ? made.cert : by->cert));
    X509_set_pubkey(made.cert, made.key);
    X509V3_set_ctx(&ctx, by == NULL ? made.cert : by->cert, made.cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
    X509_add_ext(made.cert, ext, -1);
    X509_EXTENSION_free(ext);
    ck_assert_int_gt(X509_sign(made.cert, by == NULL ? made.key : by->key, EVP_sha256()), 0);
    return made;
}

static void free_issuer(issuer *i)
{
    X509_free(i->cert);
    EVP_PKEY_free(i->key);
}

static void expect_chain(X509 *leaf, X509 *const *given, size_t given_count, X509 *const *wanted,
                         size_t wanted_count)
{
    STACK_OF(X509) *set = sk_X509_new_null(), *chain = NULL;

    for (size_t i = 0; i < given_count; i++)
        sk_X509_push(set, given[i]);
    expect_ok(trustpoint_chain(NULL, leaf, set, &chain));
    ck_assert_int_eq(sk_X509_num(chain), (int)wanted_count);
    for (size_t i = 0; i < wanted_count; i++)
        ck_assert_ptr_eq(sk_X509_value(chain, (int)i), wanted[i]);
    sk_X509_pop_free(chain, X509_free);
    sk_X509_free(set);
}

START_TEST(chains_in_any_order)
{
    issuer root = issue("root", NULL, NULL), upper = issue("upper", &root, NULL);
    issuer lower = issue("lower", &upper, NULL), leaf = issue("leaf", &lower, NULL);
    issuer other = issue("other", NULL, NULL);
    X509 *const wanted[] = {lower.cert, upper.cert, root.cert};
    X509 *const all[] = {root.cert, upper.cert, lower.cert, leaf.cert, other.cert};

    /* Every order of five. */
    for (int n = 0; n < 3125; n++) {
        X509 *given[5];
        int seen = 0;
        for (int i = 0, rest = n; i < 5; i++, rest /= 5) {
            given[i] = all[rest % 5];
            seen |= 1 << rest % 5;
        }
        if (seen == 31)
            expect_chain(leaf.cert, given, 5, wanted, 3);
    }
    expect_chain(leaf.cert, all, 0, wanted, 0);
    expect_chain(leaf.cert, (X509 *[]){upper.cert, root.cert}, 2, wanted, 0); /* a gap */
    expect_chain(leaf.cert, (X509 *[]){lower.cert, root.cert}, 2, wanted, 1);
    expect_chain(root.cert, (X509 *[]){root.cert}, 1, wanted, 0); /* lists itself */
    free_issuer(&root);
    free_issuer(&upper);
    free_issuer(&lower);
    free_issuer(&leaf);
    free_issuer(&other);
}
END_TEST

START_TEST(of_two_issuers_the_one_that_signed)
{
    issuer root = issue("root", NULL, NULL), good = issue("ca", &root, NULL);
    issuer bad = issue("ca", &root, NULL), leaf = issue("leaf", &good, NULL);
    X509 *const wanted[] = {good.cert, root.cert};
    X509 *const second[] = {bad.cert, root.cert};

    expect_chain(leaf.cert, (X509 *[]){bad.cert, root.cert, good.cert}, 3, wanted, 2);
    expect_chain(leaf.cert, (X509 *[]){good.cert, root.cert, bad.cert}, 3, wanted, 2);
    /* Trustpoint's older releases sign wrongly in an HSM: the name is all there is. */
    expect_chain(leaf.cert, (X509 *[]){root.cert, bad.cert}, 2, second, 2);
    free_issuer(&root);
    free_issuer(&good);
    free_issuer(&bad);
    free_issuer(&leaf);
}
END_TEST

static char *to_pem(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;

    ck_assert_int_eq(PEM_write_bio_X509(bio, cert), 1);
    long size = BIO_get_mem_data(bio, &data);
    char *pem = strndup(data, (size_t)size);
    BIO_free(bio);
    return pem;
}

START_TEST(certificates_without_their_keys)
{
    issuer root = issue("root", NULL, NULL), good = issue("ca", &root, NULL);
    issuer bad = issue("ca", &root, NULL), leaf = issue("leaf", &good, NULL);
    X509 *const certs[] = {leaf.cert, bad.cert, root.cert, good.cert};
    X509 *parsed[4];
    trustpoint_parser parser;

    trustpoint_parser_start(&parser, NULL);
    ck_assert_ptr_null(trustpoint_parse(&parser, "no certificate"));
    ck_assert_ptr_null(trustpoint_parse_known(&parser, ""));
    for (int i = 0; i < 4; i++) {
        char *pem = to_pem(certs[i]);
        parsed[i] = trustpoint_parse_known(&parser, pem);
        ck_assert_int_eq(X509_cmp(parsed[i], certs[i]), 0);
        X509 *again = trustpoint_parse_known(&parser, pem);
        ck_assert_ptr_eq(again, parsed[i]);
        X509_free(again);
        free(pem);
    }
    /* The signature decides, for which the keys are needed after all. */
    expect_chain(parsed[0], &parsed[1], 3, (X509 *[]){parsed[3], parsed[2]}, 2);
    /* More than are remembered. */
    for (int i = 0; i < 2 * TRUSTPOINT_KNOWN_CERTS; i++) {
        issuer one = issue("one", NULL, leaf.key);
        char *pem = to_pem(one.cert);
        X509 *cert = trustpoint_parse_known(&parser, pem);
        ck_assert_int_eq(X509_cmp(cert, one.cert), 0);
        X509_free(cert);
        X509_free(one.cert);
        free(pem);
    }
    for (int i = 0; i < 4; i++)
        X509_free(parsed[i]);
    trustpoint_parser_finish(&parser);
    free_issuer(&root);
    free_issuer(&good);
    free_issuer(&bad);
    free_issuer(&leaf);
}
END_TEST

/* ---- databases ---- */

static char database_path[256];
static TPKS_CONFIG *config;

static void shell(const char *command)
{
    ck_assert_int_eq(system(command), 0);
}

static void shell_in_state(const char *command)
{
    char line[512];

    snprintf(line, sizeof(line), "cd '%s/state' && %s", scratch(), command);
    shell(line);
}

/* A copy of a sample, to be changed. */
static void use_sample(const char *sample)
{
    char command[1024], text[1024];

    snprintf(database_path, sizeof(database_path), "%s/db.sqlite3", scratch());
    snprintf(command, sizeof(command), "cp -f '%s/trustpoint/%s/db.sqlite3' '%s' && chmod 600 '%s'",
             TEST_DATA, sample, database_path, database_path);
    shell(command);
    tpks_config_free(config);
    snprintf(text, sizeof(text), "[keystore]\nstore = sqlite:%s\nstate = %s/state\nallow = *\n",
             database_path, scratch());
    expect_ok(tpks_config_load(write_file("keystore.cnf", text, strlen(text), 0600), &config));
}

static void sql(const char *statement)
{
    sqlite3 *db = NULL;
    char *why = NULL;

    ck_assert_int_eq(sqlite3_open(database_path, &db), SQLITE_OK);
    ck_assert_msg(sqlite3_exec(db, statement, NULL, NULL, &why) == SQLITE_OK, "%s: %s", statement,
                  why);
    sqlite3_close(db);
}

static TPKS *open_sample(void)
{
    tpks_options options = {.config = config};
    TPKS *ks = NULL;

    expect_ok(tpks_open(&options, &ks));
    return ks;
}

static tpks_result load_by(TPKS *ks, const tpks_selector *by, char *name, size_t size)
{
    TPKS_RECORD *record = NULL;
    TPKS_SECRET *pkcs8 = NULL;
    tpks_result result = tpks_find(ks, by, &record);

    if (result == TPKS_OK && name != NULL)
        snprintf(name, size, "%s", tpks_record_name(record));
    if (result == TPKS_OK)
        result = tpks_load_key(ks, record, &pkcs8);
    tpks_secret_free(pkcs8);
    tpks_record_free(record);
    return result;
}

static tpks_result load_name(TPKS *ks, const char *name)
{
    return load_by(ks, &(tpks_selector){.name = name}, NULL, 0);
}

static void expect_found(TPKS *ks, const char *uri_text, const char *name)
{
    TPKS_URI *uri = NULL;
    TPKS_RECORD *record = NULL;

    expect_ok(tpks_uri_parse(uri_text, &uri));
    tpks_result result = tpks_find(ks, tpks_uri_selector(uri), &record);
    ck_assert_msg(result == TPKS_OK, "%s: %s", uri_text, tpks_error_text());
    ck_assert_str_eq(tpks_record_name(record), name);
    tpks_record_free(record);
    tpks_uri_free(uri);
}

static tpks_result find_uri(TPKS *ks, const char *uri_text)
{
    TPKS_URI *uri = NULL;
    TPKS_RECORD *record = NULL;

    expect_ok(tpks_uri_parse(uri_text, &uri));
    tpks_result result = tpks_find(ks, tpks_uri_selector(uri), &record);
    tpks_record_free(record);
    tpks_uri_free(uri);
    return result;
}

/* Puts a backup envelope of the counting DEK into the token's row. */
static void store_backup(const char *label, const char *created, const char *bek_hex, char *hex)
{
    static const unsigned char iv[NONCE_SIZE] = {0x40, 0x41, 0x42, 0x43, 0x44, 0x45,
                                                 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b};
    unsigned char bek[32], envelope[NONCE_SIZE + DEK_SIZE + TAG_SIZE];
    char statement[1024];
    size_t size = 0;
    TPKS_SECRET *dek = counting_secret();

    ck_assert_int_eq(OPENSSL_hexstr2buf_ex(bek, sizeof(bek), &size, bek_hex, '\0'), 1);
    memcpy(envelope, iv, NONCE_SIZE);
    expect_ok(
        gcm_seal(NULL, bek, iv, NULL, 0, tpks_secret_data(dek), DEK_SIZE, envelope + NONCE_SIZE));
    hex_text(envelope, sizeof(envelope), hex);
    snprintf(statement, sizeof(statement),
             "UPDATE management_pkcs11token SET label = '%s', created_at = '%s',"
             " bek_encrypted_dek = x'%s'",
             label, created, hex);
    sql(statement);
    tpks_secret_free(dek);
}

START_TEST(salts_and_envelopes_of_the_backup)
{
    static const struct {
        const char *label, *created, *password, *salt, *bek;
    } cases[] = {
        {"Trustpoint-SoftHSM", "2025-12-17 10:20:30.123450", PASSWORD,
         "10e8321e7ba5357fcf7b1d76ae924e2f",
         "445c8603fc334dd3aa8f1e849ec6efd7a670b15043fce44cc5d5007bf1a2d44c"},
        {"Trustpoint-SoftHSM", "2026-01-02 03:04:05", "\n\t " PASSWORD "\xe3\x80\x80 \n",
         "2796dd52ea6665863430fdc1f1e2ccba",
         "c4f22824a1ab40b3c38258ed20197b4e72fd1f67e3817540b0493757e6b6f68e"},
        {"Tk \xc3\xbc", "2026-01-01 21:34:05.000007", "p\xc3\xa4ssword \xe2\x82\xac",
         "85dd18b2f1413b4781b624650ea84dc9",
         "171feb1d414e417f3264efd72797a19c92552a538e387a287b0fef310b0593aa"},
    };
    static const char first[] = "404142434445464748494a4b"
                                "15c5e7d8b4c38b5fea412145b73621618a6d5ed5c61398a55769074e16d41c5a"
                                "cb4db59ec2142f457f629518fab3cd7e";
    char hex[256], salt[64];

    use_sample("legacy-0.5");
    for (size_t i = 0; i < COUNT(cases); i++) {
        TPKS_SECRET *wanted = counting_secret(), *password = secret_of(cases[i].password);
        DEK *dek = NULL;
        store_backup(cases[i].label, cases[i].created, cases[i].bek, hex);
        if (i == 0)
            ck_assert_str_eq(hex, first);
        TPKS *ks = open_sample();
        const slot_row *slot = &ks->head.slots[1];
        ck_assert_uint_eq(slot->kind, SLOT_PASSWORD);
        hex_text(slot->salt.data, slot->salt.size, salt);
        ck_assert_str_eq(salt, cases[i].salt);
        expect_ok(slot_open_secret(NULL, &ks->head, slot, password, &dek));
        ck_assert_mem_eq(tpks_secret_data_const(dek_bytes(dek)), tpks_secret_data(wanted),
                         DEK_SIZE);
        dek_free(dek);
        /* It opens, but not the ciphertexts of this database. */
        expect(TPKS_TAMPERED, tpks_unlock_with(ks, password));
        tpks_close(ks);
        tpks_secret_free(wanted);
        tpks_secret_free(password);
    }
}
END_TEST

static tpks_result unlock_with(TPKS *ks, const char *password)
{
    TPKS_SECRET *secret = secret_of(password);
    tpks_result result = tpks_unlock_with(ks, secret);

    tpks_secret_free(secret);
    return result;
}

START_TEST(the_backup_password_opens_the_keys)
{
    use_sample("legacy-0.5-kek-lost");
    TPKS *ks = open_sample();

    ck_assert_str_eq(tpks_schema_name(ks), "Trustpoint 0.5");
    expect(TPKS_WRONG_SECRET, unlock_with(ks, "correct horse battery stapl"));
    expect_ok(unlock_with(ks, PASSWORD));
    expect_ok(load_name(ks, "tls-server"));
    expect_ok(load_name(ks, "ca/fx-issuing-ca"));
    expect_ok(load_name(ks, "owner/fx-owner"));
    expect_ok(load_name(ks, "device/fx-device-01/device-p521.fx-device-01"));
    expect(TPKS_NOT_FOUND, load_name(ks, "device/fx-device-01/device-keyless.fx-device-01"));
    expect(TPKS_NOT_PERMITTED, load_name(ks, "signer/fx-signer"));
    /* A row that does not open does not take away what only the password gave. */
    sql("UPDATE pki_credentialmodel SET private_key = substr(private_key, 5) WHERE id = (SELECT"
        " credential_id FROM pki_activetrustpointtlsservercredentialmodel)");
    expect(TPKS_TAMPERED, load_name(ks, "tls-server"));
    expect_ok(load_name(ks, "owner/fx-owner"));
    tpks_close(ks);
}
END_TEST

START_TEST(a_damaged_envelope)
{
    use_sample("legacy-0.5");
    sql("UPDATE management_pkcs11token SET bek_encrypted_dek = x'00'");
    TPKS *ks = open_sample();
    expect(TPKS_TAMPERED, unlock_with(ks, PASSWORD));
    tpks_close(ks);
    sql("UPDATE management_pkcs11token SET bek_encrypted_dek = NULL");
    ks = open_sample();
    expect(TPKS_WRONG_SECRET, unlock_with(ks, PASSWORD));
    tpks_close(ks);
    sql("UPDATE management_pkcs11token SET created_at = 'yesterday'");
    tpks_options options = {.config = config};
    expect(TPKS_TAMPERED, tpks_open(&options, &ks));
    expect_text("created_at");
}
END_TEST

/* ---- slots beside a database ---- */

static TPKS *open_unlocked(const TPKS_SECRET *secret)
{
    tpks_options options = {.config = config, .access = TPKS_WRITE};
    TPKS *ks = NULL;

    expect_ok(tpks_open(&options, &ks));
    expect_ok(tpks_unlock_with(ks, secret));
    return ks;
}

/* The token is not needed: Trustpoint's own password opens the keystore. */
static TPKS *open_with_password(void)
{
    TPKS_SECRET *password = secret_of(PASSWORD);
    TPKS *ks = open_unlocked(password);

    tpks_secret_free(password);
    return ks;
}

START_TEST(two_writers_leave_a_way_back_beside)
{
    TPKS_SECRET *key[2] = {NULL, NULL};
    unsigned char id[2][TPKS_ID_SIZE];

    use_sample("legacy-0.5-kek-lost");
    TPKS *ks = open_with_password();
    for (int i = 0; i < 2; i++)
        expect_ok(tpks_slot_add_recovery(ks, &key[i], id[i]));
    tpks_close(ks);
    sql("UPDATE management_pkcs11token SET bek_encrypted_dek = NULL");
    TPKS *a = open_unlocked(key[0]), *b = open_unlocked(key[0]);
    expect_ok(tpks_slot_remove(a, id[1], false));
    expect(TPKS_NOT_PERMITTED, tpks_slot_remove(b, id[0], false));
    expect_text("last password or recovery key");
    expect(TPKS_NOT_FOUND, tpks_slot_remove(b, id[1], false));
    tpks_close(a);
    tpks_close(b);
    tpks_close(open_unlocked(key[0]));
    tpks_secret_free(key[0]);
    tpks_secret_free(key[1]);
}
END_TEST

START_TEST(a_recovery_key_that_nobody_got_is_no_way_back_beside)
{
    TPKS_SECRET *key = NULL;
    unsigned char id[TPKS_ID_SIZE];

    use_sample("legacy-0.5-kek-lost");
    TPKS *ks = open_with_password();
    expect_ok(tpks_slot_add_recovery(ks, &key, id));
    sql("UPDATE management_pkcs11token SET bek_encrypted_dek = NULL");
    expect_ok(keystore_reload(ks));
    expect(TPKS_NOT_PERMITTED, tpks_slot_remove(ks, id, false));
    expect_ok(tpks_slot_take_back(ks));
    expect(TPKS_NOT_FOUND, tpks_slot_remove(ks, id, false));
    tpks_close(ks);
    tpks_secret_free(key);
}
END_TEST

/* What opens another DEK is put aside for a change; that is no removal. */
START_TEST(slots_of_another_dek_are_not_removed)
{
    TPKS_SECRET *key = NULL;
    unsigned char id[TPKS_ID_SIZE], there[TPKS_ID_SIZE];

    use_sample("legacy-0.5");
    TPKS *ks = open_with_password();
    expect_ok(tpks_slot_add_recovery(ks, &key, id));
    tpks_secret_free(key);
    tpks_close(ks);
    shell_in_state("mv *.slots.db kept && rm -f *.anchor");
    use_sample("legacy-0.5-kek-lost");
    ks = open_with_password();
    expect_ok(tpks_slot_add_recovery(ks, &key, there));
    tpks_secret_free(key);
    tpks_close(ks);
    shell_in_state("mv kept *.slots.db && rm -f *.anchor");
    ks = open_with_password();
    expect(TPKS_NOT_FOUND, tpks_slot_remove(ks, there, false));
    expect(TPKS_NOT_FOUND, tpks_slot_remove(ks, id, false));
    ck_assert_ptr_nonnull(tpks_slots_aside(ks));
    expect_text(tpks_slots_aside(ks));
    tpks_close(ks);
}
END_TEST

/* ---- what a DEK is proven with ---- */

START_TEST(a_dek_is_proven_before_it_is_used)
{
    use_sample("current-0.6-software");
    TPKS *ks = open_sample();
    expect_ok(tpks_unlock(ks));
    tpks_close(ks);
    /* One damaged ciphertext, even the first that is tried, hides no right DEK. */
    sql("UPDATE pki_credentialmodel SET private_key = replace(private_key, 'tpsec:v1:', "
        "'tpsec:v1:AAAA') WHERE id = 1");
    ks = open_sample();
    expect_ok(tpks_unlock(ks));
    expect(TPKS_TAMPERED, load_name(ks, "tls-server"));
    expect_ok(load_name(ks, "owner/fx-owner"));
    tpks_close(ks);
    sql("UPDATE app_secret_software_config SET raw_dek = zeroblob(32)");
    ks = open_sample();
    expect(TPKS_TAMPERED, tpks_unlock(ks));
    tpks_close(ks);
    sql("UPDATE app_secret_software_config SET raw_dek = zeroblob(16)");
    ks = open_sample();
    expect(TPKS_KEK_MISSING, tpks_unlock(ks));
    tpks_close(ks);
    /* With nothing to open there is nothing to prove it with. */
    sql("UPDATE app_secret_software_config SET raw_dek = zeroblob(32);"
        "UPDATE pki_credentialmodel SET private_key = '';"
        "DELETE FROM crypto_managed_key_protected_import_binding");
    ks = open_sample();
    expect_ok(tpks_unlock(ks));
    tpks_close(ks);
}
END_TEST

/* 0.3 had its keys in the clear, and an upgrade leaves them so. */
START_TEST(keys_in_the_clear_prove_nothing)
{
    use_sample("current-0.6-software");
    sql("DELETE FROM pki_activetrustpointtlsservercredentialmodel;"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)"
        " INSERT INTO pki_credentialmodel (id, credential_type, private_key, created_at)"
        " SELECT -i, 3, '-----BEGIN PRIVATE KEY-----', '2024-01-01 00:00:00' FROM n;"
        "UPDATE app_secret_software_config SET raw_dek = zeroblob(32);"
        "DELETE FROM crypto_managed_key_protected_import_binding");
    TPKS *ks = open_sample();
    expect(TPKS_TAMPERED, tpks_unlock(ks));
    tpks_close(ks);
}
END_TEST

/* Is the token used that the database names? */
static bool uses_token_of_database(void)
{
    TPKS *ks = open_sample();
    bool uses = ks->head.token != NULL;

    ck_assert(uses == (ks->head.token_elsewhere == NULL));
    tpks_close(ks);
    return uses;
}

START_TEST(the_database_names_no_module_that_others_can_write)
{
    char folder[300], module[320], link[320], statement[1200];

    use_sample("current-0.6");
    snprintf(folder, sizeof(folder), "%s/modules", scratch());
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    snprintf(module, sizeof(module), "%s", write_file("modules/module.so", "", 0, 0600));
    snprintf(link, sizeof(link), "%s/link.so", scratch());
    ck_assert_int_eq(symlink(module, link), 0);
    snprintf(statement, sizeof(statement),
             "UPDATE app_secret_pkcs11_config SET module_path = '%s', auth_source = 'file',"
             " auth_source_ref = '%s'",
             link, module);
    sql(statement);
    ck_assert(uses_token_of_database());
    ck_assert_int_eq(chmod(module, 0620), 0);
    ck_assert(!uses_token_of_database());
    ck_assert_int_eq(chmod(module, 0600), 0);
    ck_assert_int_eq(chmod(folder, 0777), 0);
    ck_assert(!uses_token_of_database());
    ck_assert_int_eq(chmod(folder, 01777), 0);
    ck_assert(uses_token_of_database());
    ck_assert_int_eq(chmod(folder, 0700), 0);
    ck_assert_int_eq(unlink(module), 0);
    ck_assert(!uses_token_of_database());
    ck_assert_int_eq(unlink(link), 0);
}
END_TEST

/* Seals the key of the TLS server under the counting DEK, which becomes that of the database. */
static void replace_dek(TPKS *ks)
{
    char field[4096], statement[6000], hex[2 * DEK_SIZE + 1], *pem = NULL;
    TPKS_SECRET *pkcs8 = NULL, *dek = counting_secret();
    TPKS_RECORD *record = NULL;
    BIO *bio = BIO_new(BIO_s_mem());

    expect_ok(tpks_find(ks, &(tpks_selector){.name = "tls-server"}, &record));
    expect_ok(tpks_load_key(ks, record, &pkcs8));
    ck_assert_int_gt(PEM_write_bio(bio, "PRIVATE KEY", "", tpks_secret_data(pkcs8),
                                   (long)tpks_secret_size(pkcs8)),
                     0);
    long size = BIO_get_mem_data(bio, &pem);
    hex_text(tpks_secret_data(dek), DEK_SIZE, hex);
    snprintf(statement, sizeof(statement),
             "UPDATE app_secret_software_config SET raw_dek = x'%s';"
             "UPDATE pki_credentialmodel SET private_key = '%s' WHERE id = 1",
             hex, seal_field(PREFIX_2, AAD_2, pem, (size_t)size, field));
    sql(statement);
    tpks_secret_free(pkcs8);
    tpks_secret_free(dek);
    tpks_record_free(record);
    BIO_free(bio);
}

START_TEST(an_open_keystore_sees_that_the_dek_was_replaced)
{
    use_sample("current-0.6-software");
    TPKS *ks = open_sample();
    replace_dek(ks);
    expect_ok(load_name(ks, "tls-server"));
    expect(TPKS_TAMPERED, load_name(ks, "owner/fx-owner"));
    tpks_close(ks);
}
END_TEST

START_TEST(values_of_another_format)
{
    use_sample("current-0.6-software");
    sql("UPDATE pki_credentialmodel SET private_key = substr(private_key, 10) WHERE id = 1;"
        "UPDATE pki_credentialmodel SET private_key = '-----BEGIN PRIVATE KEY-----' WHERE id = 5;"
        "UPDATE pki_credentialmodel SET private_key = (SELECT private_key FROM pki_credentialmodel"
        " WHERE id = 9) WHERE id = 6;"
        "UPDATE crypto_managed_key_software_binding SET encrypted_private_key_pkcs8_der = x'3000'"
        " WHERE managed_key_id = (SELECT id FROM crypto_managed_key WHERE alias = 'fx-signer')");
    TPKS *ks = open_sample();
    expect(TPKS_TAMPERED, load_name(ks, "tls-server"));
    expect_text("tpsec:v1:");
    expect(TPKS_TAMPERED, load_name(ks, "device/fx-device-01/device-rsa2048.fx-device-01"));
    /* A key in another one's row. */
    expect(TPKS_TAMPERED, load_name(ks, "device/fx-device-01/device-p384.fx-device-01"));
    expect_text("not the one of its public key");
    expect(TPKS_TAMPERED, load_name(ks, "signer/fx-signer"));
    expect_ok(load_name(ks, "ca/fx CA S\xc3\xbc"
                            "d"));
    tpks_close(ks);
}
END_TEST

START_TEST(damaged_certificates)
{
    use_sample("current-0.6-software");
    sql("UPDATE pki_certificatemodel SET cert_pem = 'no certificate' WHERE id = 3;"
        "UPDATE pki_certificatechainordermodel SET certificate_id = 3 WHERE credential_id = 2");
    TPKS *ks = open_sample();
    expect(TPKS_TAMPERED, load_name(ks, "tls-server"));
    /* In a chain it is only left out, and the list goes on. */
    expect_ok(load_name(ks, "ca/fx-issuing-ca"));
    tpks_close(ks);
    sql("UPDATE pki_certificatemodel SET cert_pem = (SELECT cert_pem FROM pki_certificatemodel"
        " WHERE id = 12) WHERE id = 3");
    ks = open_sample();
    expect(TPKS_TAMPERED, load_name(ks, "tls-server"));
    tpks_close(ks);
}
END_TEST

typedef struct seen {
    unsigned good, bad;
    char names[512];
    char text[2048];
} seen;

static tpks_result see(void *arg, const TPKS_RECORD *record)
{
    (void)record;
    ((seen *)arg)->good++;
    return TPKS_OK;
}

static void see_bad(void *arg, const char *name, tpks_result result, const char *text)
{
    seen *s = arg;

    ck_assert_int_eq(result, TPKS_TAMPERED);
    s->bad++;
    strncat(s->names, name, sizeof(s->names) - strlen(s->names) - 1);
    strncat(s->names, " ", sizeof(s->names) - strlen(s->names) - 1);
    strncat(s->text, text, sizeof(s->text) - strlen(s->text) - 1);
}

START_TEST(a_bad_row_hides_no_other)
{
    static const struct {
        const char *sql, *name, *text;
    } damages[] = {
        {"UPDATE pki_certificatemodel SET cert_pem = 'no certificate' WHERE id = (SELECT"
         " certificate_id FROM pki_credentialmodel WHERE id = 1)",
         "tls-server ", "credential/1: its certificate"},
        {"UPDATE pki_credentialmodel SET private_key = x'00' WHERE id = 5", "credential/5 ",
         "pki_credentialmodel, column 3"},
        {"UPDATE pki_credentialmodel SET credential_type = 'x' WHERE id = 5", "credential/5 ",
         "pki_credentialmodel, column 2"},
        {"UPDATE pki_ownercredentialmodel SET unique_name = x'00ff'", "credential/9 ", "column 10"},
        {"UPDATE pki_ownercredentialmodel SET unique_name = 'a' || char(0) || 'b'", "credential/9 ",
         "column 10"},
        {"UPDATE crypto_managed_key_software_binding SET encrypted_private_key_pkcs8_der = 7"
         " WHERE managed_key_id = (SELECT managed_private_key_id FROM pki_credentialmodel WHERE"
         " id = 4)",
         "credential/4 ", "pki_credentialmodel, column"},
        {"UPDATE crypto_provider_software_config SET encryption_source_ref ="
         " printf('%.2000c', 'x')",
         "ca/fx CA Süd signer/fx-signer ", "too long"},
    };
    tpks_status_info info;
    uint64_t proven = 0;

    for (size_t i = 0; i < COUNT(damages); i++) {
        seen s = {0};
        use_sample("current-0.6-software");
        sql(damages[i].sql);
        TPKS *ks = open_sample();
        expect(TPKS_TAMPERED, tpks_each_readable(ks, NULL, see, see_bad, &s));
        ck_assert_str_eq(s.names, damages[i].name);
        ck_assert_msg(strstr(s.text, damages[i].text) != NULL, "%s", s.text);
        ck_assert_msg(strncmp(s.text, s.names, strcspn(s.names, " ")) != 0, "%s", s.text);
        ck_assert_uint_eq(s.good + s.bad, 9);
        memset(&s, 0, sizeof(s));
        expect(TPKS_TAMPERED, tpks_verify(ks, NULL, see_bad, &s, &proven));
        ck_assert_str_eq(s.names, damages[i].name);
        ck_assert_uint_eq(proven + s.bad, 9);
        expect_ok(tpks_status(ks, &info));
        expect_ok(load_name(ks, "device/fx-device-01/device-p384.fx-device-01"));
        expect(TPKS_TAMPERED, tpks_each(ks, NULL, see, &s));
        tpks_close(ks);
    }
}
END_TEST

/* It may be the one that was meant, so that none is taken; but all are named. */
START_TEST(a_bad_row_among_the_matches)
{
    use_sample("current-0.6-software");
    sql("UPDATE pki_issuedcredentialmodel SET common_name = 'twin' WHERE id < 3;"
        "UPDATE pki_credentialmodel SET private_key = x'00' WHERE id = 5;");
    TPKS *ks = open_sample();
    expect(TPKS_TAMPERED, find_uri(ks, "trustpoint://?cn=twin"));
    expect_text("1 that can't be read (credential/5: file ");
    expect_found(ks, "trustpoint://?cn=twin&credential=6", "credential/6");
    expect(TPKS_TAMPERED, find_uri(ks, "trustpoint://?credential=5"));
    ck_assert_msg(strncmp(tpks_error_text(), "credential/5: file ", 19) == 0, "%s",
                  tpks_error_text());
    tpks_close(ks);
}
END_TEST

static void find_a_key(sqlite3_stmt *statement)
{
    for (int i = 0; i < sqlite3_column_count(statement); i++) {
        const char *text = (const char *)sqlite3_column_text(statement, i);
        ck_assert_msg(text == NULL || strstr(text, "PRIVATE KEY") == NULL, "column %d: %s", i,
                      text);
    }
}

/* What only reads what records there are has no private key in its memory. */
START_TEST(a_list_reads_no_key_in_the_clear)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    unsigned rows = 0;

    use_sample("legacy-0.5-software");
    ck_assert_int_eq(sqlite3_open(database_path, &db), SQLITE_OK);
    ck_assert_int_eq(sqlite3_prepare_v2(db, tables_0_5.select_all, -1, &statement, NULL),
                     SQLITE_OK);
    for (; sqlite3_step(statement) == SQLITE_ROW; rows++)
        find_a_key(statement);
    ck_assert_uint_ge(rows, 5);
    sqlite3_finalize(statement);
    sqlite3_close(db);
}
END_TEST

/* ---- finding ---- */

START_TEST(every_way_to_a_record)
{
    use_sample("current-0.6-software");
    TPKS *ks = open_sample();
    static const struct {
        const char *uri, *name;
    } found[] = {
        {"trustpoint://tls-server", "tls-server"},
        {"trustpoint://?role=tls-server", "tls-server"},
        {"trustpoint://?credential=1", "tls-server"},
        {"trustpoint://credential/1", "tls-server"},
        {"trustpoint://?id=00000000000000000000000000000001", "tls-server"},
        {"trustpoint://?serial=1E2C0B4F1F618766329A0A7B2A4F087", "tls-server"},
        {"trustpoint://?serial=01e2c0b4f1f618766329a0a7b2a4f087", "tls-server"},
        {"trustpoint://?cn=localhost", "tls-server"},
        {"trustpoint://ca/fx-issuing-ca", "ca/fx-issuing-ca"},
        {"trustpoint://fx-issuing-ca", "ca/fx-issuing-ca"},
        {"trustpoint://fx-domain", "ca/fx-issuing-ca"},
        {"trustpoint://?ca=fx-issuing-ca", "ca/fx-issuing-ca"},
        {"trustpoint://?alias=fx-issuing-ca", "ca/fx-issuing-ca"},
        {"trustpoint://?alias=25d5cbc7-6691-4fb7-bd64-d3d531826d2d", "ca/fx-issuing-ca"},
        {"trustpoint://?alias=25d5cbc766914fb7bd64d3d531826d2d", "ca/fx-issuing-ca"},
        {"trustpoint://fx%20CA%20S%C3%BCd", "ca/fx CA S\xc3\xbc"
                                            "d"},
        {"trustpoint://signer/fx-signer", "signer/fx-signer"},
        {"trustpoint://?signer=fx-signer&cn=fx%20Signer", "signer/fx-signer"},
        {"trustpoint://fx-owner", "owner/fx-owner"},
        {"trustpoint://?owner=fx-owner", "owner/fx-owner"},
        {"trustpoint://device/fx-device-01/device-p384.fx-device-01",
         "device/fx-device-01/device-p384.fx-device-01"},
        {"trustpoint://?device=fx-device-01&cn=device-p521.fx-device-01",
         "device/fx-device-01/device-p521.fx-device-01"},
    };
    static const char *const missing[] = {
        "trustpoint://nobody",
        "trustpoint://credential/99",
        "trustpoint://credential/0",
        "trustpoint://credential/x",
        "trustpoint://ca/fx-signer",
        "trustpoint://ca/",
        "trustpoint://device/fx-device-01",
        "trustpoint://device/fx-device-01/nobody",
        "trustpoint://key/fx-signer", /* it belongs to a credential */
        "trustpoint://?ca=fx-issuing-ca&signer=fx-signer",
        "trustpoint://?alias=00000000-0000-0000-0000-000000000000",
        "trustpoint://?id=25d5cbc766914fb7bd64d3d531826d2d",
        "trustpoint://?role=tls-server&ca=fx-issuing-ca",
        "trustpoint://%27%20OR%20%271%27%3D%271",
    };

    for (size_t i = 0; i < COUNT(found); i++)
        expect_found(ks, found[i].uri, found[i].name);
    for (size_t i = 0; i < COUNT(missing); i++)
        ck_assert_msg(find_uri(ks, missing[i]) == TPKS_NOT_FOUND, "%s: %s", missing[i],
                      tpks_error_text());
    tpks_close(ks);
}
END_TEST

START_TEST(ambiguous_names)
{
    use_sample("current-0.6-software");
    sql("UPDATE signer_signermodel SET unique_name = 'fx-owner';"
        "UPDATE pki_issuedcredentialmodel SET common_name = 'twin' WHERE id < 3;");
    TPKS *ks = open_sample();
    expect(TPKS_AMBIGUOUS, find_uri(ks, "trustpoint://fx-owner"));
    expect_text("\"signer/fx-owner\", \"owner/fx-owner\"");
    expect(TPKS_AMBIGUOUS, find_uri(ks, "trustpoint://fx-device-01"));
    expect_text("\"credential/5\", \"credential/6\", \"device/fx-device-01/device-p521");
    expect(TPKS_AMBIGUOUS, find_uri(ks, "trustpoint://device/fx-device-01/twin"));
    expect(TPKS_AMBIGUOUS, find_uri(ks, "trustpoint://?device=fx-device-01"));
    expect_found(ks, "trustpoint://credential/5", "credential/5");
    /* A canonical name means what it says, whatever others are called. */
    tpks_close(ks);
    sql("UPDATE signer_signermodel SET unique_name = 'tls-server'");
    ks = open_sample();
    expect_found(ks, "trustpoint://tls-server", "tls-server");
    expect_found(ks, "trustpoint://signer/tls-server", "signer/tls-server");
    tpks_close(ks);
}
END_TEST

START_TEST(canonical_names_of_what_is_gone)
{
    use_sample("current-0.6-software");
    sql("UPDATE pki_activetrustpointtlsservercredentialmodel SET credential_id = NULL;"
        "DELETE FROM pki_issuedcredentialmodel WHERE credential_id <> 5;"
        "UPDATE devices_devicemodel SET common_name = 'tls-server';"
        "UPDATE pki_ownercredentialmodel SET unique_name = 'ca/gone';"
        "UPDATE signer_signermodel SET unique_name = 'credential/99'");
    TPKS *ks = open_sample();
    expect(TPKS_NOT_FOUND, find_uri(ks, "trustpoint://tls-server"));
    expect(TPKS_NOT_FOUND, find_uri(ks, "trustpoint://ca/gone"));
    expect(TPKS_NOT_FOUND, find_uri(ks, "trustpoint://credential/99"));
    expect_found(ks, "trustpoint://owner/ca/gone", "owner/ca/gone");
    expect_found(ks, "trustpoint://?signer=credential/99", "signer/credential/99");
    tpks_close(ks);
}
END_TEST

#define UUID_OF_CA "25d5cbc766914fb7bd64d3d531826d2d"

START_TEST(aliases_that_look_like_a_uuid)
{
    const char *other = "trustpoint://?alias=0123456789abcdef0123456789abcdef";

    use_sample("current-0.6-software");
    sql("UPDATE crypto_managed_key SET alias = '0123456789abcdef0123456789abcdef'"
        " WHERE alias = 'fx-signer'");
    TPKS *ks = open_sample();
    expect_found(ks, other, "signer/fx-signer");
    tpks_close(ks);
    sql("DELETE FROM signer_signermodel; UPDATE pki_credentialmodel SET managed_private_key_id ="
        " NULL WHERE managed_private_key_id IN (SELECT id FROM crypto_managed_key WHERE alias ="
        " '0123456789abcdef0123456789abcdef')");
    ks = open_sample();
    expect_found(ks, other, "key/0123456789abcdef0123456789abcdef");
    expect_found(ks, "trustpoint://key/0123456789abcdef0123456789abcdef",
                 "key/0123456789abcdef0123456789abcdef");
    tpks_close(ks);
    sql("UPDATE crypto_managed_key SET alias = '" UUID_OF_CA "' WHERE alias LIKE '0123%'");
    ks = open_sample();
    expect_found(ks, "trustpoint://key/" UUID_OF_CA, "key/" UUID_OF_CA);
    expect(TPKS_AMBIGUOUS, find_uri(ks, "trustpoint://?alias=" UUID_OF_CA));
    tpks_close(ks);
}
END_TEST

START_TEST(pins_and_fingerprints)
{
    use_sample("current-0.6-software");
    TPKS *ks = open_sample();
    TPKS_RECORD *record = NULL;
    char uri[256], hex[65];
    unsigned char digest[32];
    size_t size = 0;

    expect_ok(tpks_find(ks, &(tpks_selector){.name = "owner/fx-owner"}, &record));
    const unsigned char *der = tpks_record_cert(record, 0, &size);
    expect_ok(sha256(NULL, der, size, digest));
    hex_text(digest, sizeof(digest), hex);
    snprintf(uri, sizeof(uri), "trustpoint://?fingerprint=%s", hex);
    expect_found(ks, uri, "owner/fx-owner");
    hex_text(tpks_record_spki_sha256(record), 32, hex);
    snprintf(uri, sizeof(uri), "trustpoint://owner/fx-owner?spki=%s", hex);
    expect_found(ks, uri, "owner/fx-owner");
    snprintf(uri, sizeof(uri), "trustpoint://tls-server?spki=%s", hex);
    expect(TPKS_MISMATCH, find_uri(ks, uri));
    snprintf(uri, sizeof(uri), "trustpoint://?spki=%s", hex);
    expect_found(ks, uri, "owner/fx-owner");
    uri[strlen(uri) - 1] ^= 1;
    expect(TPKS_NOT_FOUND, find_uri(ks, uri));
    expect(TPKS_NOT_FOUND,
           find_uri(ks, "trustpoint://?fingerprint=0123456789012345678901234567890123456789"));
    ck_assert_int_eq(EVP_Q_digest(NULL, "SHA1", NULL, der, size, digest, NULL), 1);
    hex_text(digest, 20, hex);
    snprintf(uri, sizeof(uri), "trustpoint://?fingerprint=%s", hex);
    expect_found(ks, uri, "owner/fx-owner");
    snprintf(uri, sizeof(uri), "trustpoint://?fingerprint=%s&owner=fx-owner", hex);
    expect_found(ks, uri, "owner/fx-owner");
    snprintf(uri, sizeof(uri), "trustpoint://?fingerprint=%s&role=tls-server", hex);
    expect(TPKS_NOT_FOUND, find_uri(ks, uri));
    tpks_close(ks);
    /* Rows that can't be read are in the way only of those who mean them. */
    sql("UPDATE pki_credentialmodel SET private_key = x'00' WHERE id = 5;"
        "UPDATE pki_certificatemodel SET cert_pem = 'none' WHERE id ="
        " (SELECT certificate_id FROM pki_credentialmodel WHERE id = 1)");
    ks = open_sample();
    snprintf(uri, sizeof(uri), "trustpoint://?fingerprint=%s", hex);
    expect_found(ks, uri, "owner/fx-owner");
    tpks_close(ks);
    sql("UPDATE pki_credentialmodel SET private_key = x'00' WHERE id = 9");
    ks = open_sample();
    expect(TPKS_TAMPERED, find_uri(ks, uri));
    expect_text("credential/9: ");
    tpks_record_free(record);
    tpks_close(ks);
}
END_TEST

START_TEST(the_newest_credential_of_an_owner)
{
    use_sample("current-0.6-software");
    /* An older one, of another credential, and one of another kind that is newer. */
    sql("INSERT INTO pki_remoteissuedcredentialmodel (common_name, issued_credential_type,"
        " issued_using_cert_profile, created_at, credential_id, owner_credential_id)"
        " VALUES ('old', 2, 'x', '2020-01-01 00:00:00', 8, 1),"
        " ('domain', 0, 'x', '2030-01-01 00:00:00', 7, 1)");
    TPKS *ks = open_sample();
    expect_found(ks, "trustpoint://owner/fx-owner", "owner/fx-owner");
    expect_found(ks, "trustpoint://?owner=fx-owner&credential=9", "owner/fx-owner");
    expect(TPKS_NOT_FOUND, find_uri(ks, "trustpoint://?owner=fx-owner&credential=8"));
    tpks_close(ks);
}
END_TEST

START_TEST(managed_keys_without_a_credential)
{
    use_sample("current-0.6-software");
    sql("DELETE FROM signer_signermodel; DELETE FROM pki_certificatechainordermodel WHERE"
        " credential_id IN (2, 4); DELETE FROM pki_primarycredentialcertificate WHERE"
        " credential_id IN (2, 4); UPDATE pki_genericcamodel SET credential_id = NULL WHERE"
        " credential_id = 2; DELETE FROM pki_credentialmodel WHERE id IN (2, 4)");
    TPKS *ks = open_sample();
    TPKS_RECORD *record = NULL, *same = NULL;
    tpks_status_info info;

    expect_ok(tpks_status(ks, &info));
    ck_assert_uint_eq(info.records, 9);
    expect_found(ks, "trustpoint://key/fx-signer", "key/fx-signer");
    expect_found(ks, "trustpoint://fx-signer", "key/fx-signer");
    expect_found(ks, "trustpoint://?alias=fx-signer", "key/fx-signer");
    expect_found(ks, "trustpoint://?alias=c751b75d-a398-4454-9786-1a1a9bcb603f", "key/fx-signer");
    expect_found(ks, "trustpoint://?id=c751b75da398445497861a1a9bcb603f", "key/fx-signer");
    expect_ok(load_name(ks, "key/fx-signer"));
    expect_ok(tpks_find(ks, &(tpks_selector){.name = "key/fx-signer"}, &record));
    expect_ok(
        tpks_find(ks, &(tpks_selector){.spki_sha256 = tpks_record_spki_sha256(record)}, &same));
    ck_assert_str_eq(tpks_record_name(same), "key/fx-signer");
    tpks_record_free(same);
    tpks_record_free(record);
    expect_ok(load_name(ks, "key/fx-issuing-ca"));
    tpks_close(ks);
    sql("UPDATE crypto_managed_key SET public_key_fingerprint_sha256 = (SELECT"
        " public_key_fingerprint_sha256 FROM crypto_managed_key WHERE alias = 'fx-issuing-ca')");
    ks = open_sample();
    expect(TPKS_TAMPERED, load_name(ks, "key/fx-signer"));
    tpks_close(ks);
}
END_TEST

/* ---- releases ---- */

static tpks_result check_one(void *arg, const TPKS_RECORD *record)
{
    unsigned *homes = arg;

    homes[tpks_record_home(record)]++;
    return TPKS_OK;
}

static void expect_homes(const char *sample, const char *name, const unsigned wanted[6])
{
    unsigned homes[6] = {0};
    tpks_status_info info;

    use_sample(sample);
    TPKS *ks = open_sample();
    ck_assert_str_eq(tpks_schema_name(ks), name);
    expect_ok(tpks_each(ks, NULL, check_one, homes));
    expect_ok(tpks_status(ks, &info));
    ck_assert_uint_eq(info.in_token, wanted[TPKS_HOME_TOKEN]);
    for (int i = 1; i < 6; i++)
        ck_assert_msg(homes[i] == wanted[i], "%s: %u records with home %d, not %u", sample,
                      homes[i], i, wanted[i]);
    tpks_close(ks);
}

START_TEST(every_release_is_recognised)
{
    /* unused, database, in the clear, token, software, none */
    expect_homes("legacy-0.4", "Trustpoint 0.4", (unsigned[]){0, 6, 1, 2, 0, 1});
    expect_homes("legacy-0.5", "Trustpoint 0.5", (unsigned[]){0, 6, 1, 2, 0, 1});
    expect_homes("legacy-0.5-software", "Trustpoint 0.5", (unsigned[]){0, 0, 8, 0, 0, 1});
    expect_homes("current-0.6", "Trustpoint 0.6 or later", (unsigned[]){0, 6, 0, 2, 0, 1});
    expect_homes("current-0.6-software", "Trustpoint 0.6 or later", (unsigned[]){0, 6, 0, 0, 2, 1});
}
END_TEST

/* 0.3 is what 0.4 would be without the tables that came with it. */
START_TEST(release_0_3)
{
    use_sample("legacy-0.4");
    sql("PRAGMA foreign_keys = OFF; DROP TABLE management_keystorageconfig;"
        "DROP TABLE management_pkcs11token; DROP TABLE signer_signermodel;"
        "DROP TABLE pki_ownercredentialmodel");
    TPKS *ks = open_sample();
    ck_assert_str_eq(tpks_schema_name(ks), "Trustpoint 0.3");
    expect_ok(load_name(ks, "credential/1"));
    expect_found(ks, "trustpoint://tls-server", "tls-server");
    expect_found(ks, "trustpoint://fx-issuing-ca", "ca/fx-issuing-ca");
    expect_found(ks, "trustpoint://?device=fx-device-01&cn=device-p384.fx-device-01",
                 "device/fx-device-01/device-p384.fx-device-01");
    expect(TPKS_NOT_FOUND, find_uri(ks, "trustpoint://?signer=fx-signer"));
    expect(TPKS_TAMPERED, load_name(ks, "tls-server")); /* not in the clear */
    tpks_close(ks);
}
END_TEST

START_TEST(nothing_is_changed)
{
    use_sample("current-0.6-software");
    tpks_options options = {.config = config, .access = TPKS_WRITE};
    TPKS *ks = NULL;
    TPKS_RECORD *record = NULL;

    expect_ok(tpks_open(&options, &ks));
    expect_ok(tpks_find(ks, &(tpks_selector){.name = "tls-server"}, &record));
    expect(TPKS_NOT_PERMITTED, tpks_rename(ks, record, "web"));
    expect_text("Trustpoint's own database");
    expect(TPKS_NOT_PERMITTED, tpks_remove(ks, record));
    expect(TPKS_NOT_PERMITTED, tpks_set_policy(ks, record, TPKS_MAY_SIGN));
    expect(TPKS_NOT_PERMITTED, tpks_begin(ks));
    tpks_record_free(record);
    tpks_close(ks);
}
END_TEST

/* ---- searches stay searches ---- */

/* What Django makes for foreign keys, which the samples lack. */
static const char django_indexes[] =
    "CREATE INDEX i1 ON pki_credentialmodel (certificate_id);"
    "CREATE INDEX i2 ON pki_activetrustpointtlsservercredentialmodel (credential_id);"
    "CREATE INDEX i3 ON pki_domainmodel (issuing_ca_id);";

static void expect_no_scan(const struct trustpoint_tables *tables, const tpks_selector *by,
                           trustpoint_reading reading)
{
    trustpoint_search *s = calloc(1, sizeof(*s));
    char text[12288];
    sqlite3 *db = NULL;
    sqlite3_stmt *plan = NULL;

    expect_ok(trustpoint_search_credentials(tables, by, reading, s));
    ck_assert(!s->nothing);
    snprintf(text, sizeof(text), "EXPLAIN QUERY PLAN %s", s->sql);
    ck_assert_int_eq(sqlite3_open(database_path, &db), SQLITE_OK);
    ck_assert_msg(sqlite3_prepare_v2(db, text, -1, &plan, NULL) == SQLITE_OK, "%s: %s", text,
                  sqlite3_errmsg(db));
    while (sqlite3_step(plan) == SQLITE_ROW) {
        const char *step = (const char *)sqlite3_column_text(plan, 3);
        /* The newest of the few credentials of one owner is picked from a list of its own. */
        ck_assert_msg(strncmp(step, "SCAN", 4) != 0 || strstr(step, "newest") != NULL, "%s: %s",
                      step, s->sql);
    }
    sqlite3_finalize(plan);
    sqlite3_close(db);
    free(s);
}

static void expect_indexed(const char *sample, const struct trustpoint_tables *tables,
                           const char *more)
{
    static const char *const names[] = {"tls-server", "ca/x",       "signer/x",
                                        "owner/x",    "device/x/y", "credential/1"};
    static const unsigned char digest[32], id[TPKS_ID_SIZE] = {[15] = 1};

    use_sample(sample);
    sql(django_indexes);
    sql(more);
    for (size_t i = 0; i < COUNT(names); i++)
        expect_no_scan(tables, &(tpks_selector){.name = names[i]}, TRUSTPOINT_CANONICAL);
    expect_no_scan(tables, &(tpks_selector){.name = "x"}, TRUSTPOINT_BARE);
    expect_no_scan(tables, &(tpks_selector){.role = "tls-server"}, TRUSTPOINT_CANONICAL);
    expect_no_scan(tables, &(tpks_selector){.cert_sha256 = digest}, TRUSTPOINT_CANONICAL);
    expect_no_scan(tables, &(tpks_selector){.id = id}, TRUSTPOINT_CANONICAL);
    expect_no_scan(tables, &(tpks_selector){.alias = "x"}, TRUSTPOINT_CANONICAL);
    expect_no_scan(tables, &(tpks_selector){.alias = "0123456789abcdef0123456789abcdef"},
                   TRUSTPOINT_CANONICAL);
}

START_TEST(searches_use_the_indexes_of_django)
{
    expect_indexed("legacy-0.4", &tables_0_4,
                   "CREATE INDEX j1 ON pki_credentialmodel (pkcs11_private_key_id);"
                   "CREATE INDEX j2 ON devices_issuedcredentialmodel (device_id);"
                   "CREATE INDEX j3 ON pki_pkcs11key (key_label)"); /* few rows: keys in a token */
    expect_indexed("legacy-0.5", &tables_0_5,
                   "CREATE INDEX j1 ON pki_credentialmodel (pkcs11_private_key_id);"
                   "CREATE INDEX j2 ON pki_issuedcredentialmodel (device_id);"
                   "CREATE INDEX j3 ON pki_pkcs11key (key_label);"
                   "CREATE INDEX j4 ON pki_remoteissuedcredentialmodel (owner_credential_id)");
    expect_indexed("current-0.6", &tables_0_6,
                   "CREATE INDEX j1 ON pki_credentialmodel (managed_private_key_id);"
                   "CREATE INDEX j2 ON pki_issuedcredentialmodel (device_id);"
                   "CREATE INDEX j4 ON pki_remoteissuedcredentialmodel (owner_credential_id)");
}
END_TEST

static void add_fields(Suite *suite)
{
    TCase *fields = tcase_create("fields");

    tcase_add_test(fields, vectors_of_field_format_1);
    tcase_add_test(fields, every_padding_of_format_1);
    tcase_add_test(fields, padding_that_is_longer_than_the_text);
    tcase_add_test(fields, vector_of_field_format_2);
    tcase_add_test(fields, damaged_fields);
    tcase_add_test(fields, a_database_without_dek_opens_no_field);
    tcase_add_test(fields, nobody_is_asked_for_the_password_of_a_key);
    tcase_add_test(fields, what_is_no_key);
    tcase_add_test(fields, managed_keys_open_with_their_password);
    tcase_add_test(fields, where_a_password_comes_from);
    tcase_add_test(fields, times_of_both_engines);
    tcase_add_test(fields, names_and_roles);
    tcase_add_test(fields, uuids);
    tcase_add_test(fields, chains_in_any_order);
    tcase_add_test(fields, of_two_issuers_the_one_that_signed);
    tcase_add_test(fields, certificates_without_their_keys);
    suite_add_tcase(suite, fields);
}

int main(void)
{
    Suite *suite = suite_create("trustpoint");
    TCase *databases = tcase_create("databases");

    add_fields(suite);
    tcase_set_timeout(databases, 60);
    tcase_add_test(databases, salts_and_envelopes_of_the_backup);
    tcase_add_test(databases, the_backup_password_opens_the_keys);
    tcase_add_test(databases, a_damaged_envelope);
    tcase_add_test(databases, two_writers_leave_a_way_back_beside);
    tcase_add_test(databases, slots_of_another_dek_are_not_removed);
    tcase_add_test(databases, a_recovery_key_that_nobody_got_is_no_way_back_beside);
    tcase_add_test(databases, a_dek_is_proven_before_it_is_used);
    tcase_add_test(databases, keys_in_the_clear_prove_nothing);
    tcase_add_test(databases, the_database_names_no_module_that_others_can_write);
    tcase_add_test(databases, an_open_keystore_sees_that_the_dek_was_replaced);
    tcase_add_test(databases, values_of_another_format);
    tcase_add_test(databases, damaged_certificates);
    tcase_add_test(databases, a_bad_row_hides_no_other);
    tcase_add_test(databases, a_bad_row_among_the_matches);
    tcase_add_test(databases, a_list_reads_no_key_in_the_clear);
    tcase_add_test(databases, every_way_to_a_record);
    tcase_add_test(databases, ambiguous_names);
    tcase_add_test(databases, canonical_names_of_what_is_gone);
    tcase_add_test(databases, aliases_that_look_like_a_uuid);
    tcase_add_test(databases, pins_and_fingerprints);
    tcase_add_test(databases, the_newest_credential_of_an_owner);
    tcase_add_test(databases, managed_keys_without_a_credential);
    tcase_add_test(databases, every_release_is_recognised);
    tcase_add_test(databases, release_0_3);
    tcase_add_test(databases, nothing_is_changed);
    tcase_add_test(databases, searches_use_the_indexes_of_django);
    suite_add_tcase(suite, databases);
    return run(suite);
}
