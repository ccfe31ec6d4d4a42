/*
 * test_token_key.c - keys that are made in a token and used there
 *
 * On a real token (SoftHSM) in a folder of its own. What libcrypto verifies with the record's
 * public half was signed by the right key.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "hsm_internal.h"
#include "hsm_key.h"
#include "keystore_internal.h"

#include "unit.h"

#define SOFTHSM "/usr/lib/softhsm/libsofthsm2.so"
#define OUT_MAX 512

static TPKS_CONFIG *config;
static char token_uri[512];

/* ---- the world of one test ------------------------------------------------------------------- */

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    ck_assert_msg(system(command) == 0, "%s", command);
}

static TPKS *open_for(tpks_access access)
{
    const tpks_options options = {.config = config, .access = access};
    TPKS *ks = NULL;

    expect_ok(tpks_open(&options, &ks));
    return ks;
}

static void write_config(void)
{
    char text[1024];

    snprintf(token_uri, sizeof(token_uri),
             "pkcs11:token=edge?module-path=" SOFTHSM "&pin-source=file:%s/pin", scratch());
    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\ntoken = %s\n", scratch(),
             scratch(), token_uri);
    expect_ok(tpks_config_load(write_file("keystore.cnf", text, strlen(text), 0600), &config));
}

static void setup(void)
{
    const tpks_create_params params = {.label = "edge", .no_way_back = true};
    char text[512];

    shell("rm -rf %s/* && mkdir %s/tokens", scratch(), scratch());
    snprintf(text, sizeof(text), "directories.tokendir = %s/tokens\n", scratch());
    setenv("SOFTHSM2_CONF", write_file("softhsm2.conf", text, strlen(text), 0600), 1);
    shell("softhsm2-util --init-token --free --label edge --so-pin 87654321 --pin 123456 "
          ">/dev/null");
    write_file("pin", "123456\n", 7, 0600);
    write_config();
    const tpks_options options = {.config = config, .access = TPKS_WRITE};
    expect_ok(tpks_create(&options, &params, NULL));
}

static void teardown(void)
{
    tpks_config_free(config);
}

static void generate(const char *name, const char *type, unsigned policy)
{
    TPKS *ks = open_for(TPKS_WRITE);

    expect_ok(tpks_generate_in_token(ks, name, type, policy, NULL));
    tpks_close(ks);
}

static TPKS_RECORD *find(TPKS *ks, const char *name)
{
    const tpks_selector by_name = {.name = name};
    TPKS_RECORD *record = NULL;

    expect_ok(tpks_find(ks, &by_name, &record));
    return record;
}

/* A key in use, with its public half. */
typedef struct used_key {
    TPKS_TOKEN_KEY *key;
    EVP_PKEY *public;
    size_t half; /* bytes of r and of s; 0: RSA */
} used_key;

static EVP_PKEY *public_of(const TPKS_RECORD *record)
{
    size_t size = 0;
    const unsigned char *der = tpks_record_spki(record, &size);
    EVP_PKEY *public = d2i_PUBKEY(NULL, &der, (long)size);

    ck_assert_ptr_nonnull(public);
    return public;
}

static used_key open_key(const char *name)
{
    TPKS *ks = open_for(TPKS_LOAD);
    TPKS_RECORD *record = find(ks, name);
    used_key used = {NULL, public_of(record), 0};

    ck_assert_int_eq(tpks_record_home(record), TPKS_HOME_TOKEN);
    expect_ok(tpks_token_key_open(ks, record, &used.key));
    if (EVP_PKEY_is_a(used.public, "EC"))
        used.half = ((size_t)EVP_PKEY_get_bits(used.public) + 7) / 8;
    tpks_record_free(record);
    tpks_close(ks); /* the key outlives it */
    return used;
}

static tpks_result try_open(const char *name)
{
    TPKS *ks = open_for(TPKS_LOAD);
    TPKS_RECORD *record = find(ks, name);
    TPKS_TOKEN_KEY *key = NULL;
    tpks_result result = tpks_token_key_open(ks, record, &key);

    tpks_token_key_free(key);
    tpks_record_free(record);
    tpks_close(ks);
    return result;
}

static void close_key(used_key *used)
{
    tpks_token_key_free(used->key);
    EVP_PKEY_free(used->public);
}

/* In a program of its own, which does not know what this one knows of the token. */
static int elsewhere(int (*work)(void *), void *arg)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        _exit(work(arg));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* ---- signatures ------------------------------------------------------------------------------ */

/* DER of a DigestInfo for SHA-256, RFC 8017 section 9.2, note 1. */
static const unsigned char digest_info_sha256[19] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60,
                                                     0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
                                                     0x01, 0x05, 0x00, 0x04, 0x20};

static size_t ecdsa_der(const unsigned char *raw, size_t half, unsigned char *out)
{
    ECDSA_SIG *signature = ECDSA_SIG_new();

    if (ECDSA_SIG_set0(signature, BN_bin2bn(raw, (int)half, NULL),
                       BN_bin2bn(raw + half, (int)half, NULL)) != 1)
        abort();
    int size = i2d_ECDSA_SIG(signature, &out);
    ECDSA_SIG_free(signature);
    return size > 0 ? (size_t)size : 0;
}

static bool verifies(const used_key *used, int padding, const unsigned char digest[32],
                     const unsigned char *signature, size_t size)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(used->public, NULL);
    bool ok = EVP_PKEY_verify_init(ctx) == 1 &&
              (padding == 0 || EVP_PKEY_CTX_set_rsa_padding(ctx, padding) == 1) &&
              EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1 &&
              (padding != RSA_PKCS1_PSS_PADDING ||
               EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1) &&
              EVP_PKEY_verify(ctx, signature, size, digest, 32) == 1;

    EVP_PKEY_CTX_free(ctx);
    return ok;
}

static tpks_result sign_pkcs1(const used_key *used, const unsigned char digest[32], bool *ok)
{
    const tpks_token_op op = {.mechanism = TPKS_RSA_PKCS};
    unsigned char info[sizeof(digest_info_sha256) + 32], signature[OUT_MAX];
    size_t size = sizeof(signature);

    memcpy(info, digest_info_sha256, sizeof(digest_info_sha256));
    memcpy(info + sizeof(digest_info_sha256), digest, 32);
    tpks_result result = tpks_token_key_sign(used->key, &op, info, sizeof(info), signature, &size);
    *ok = result == TPKS_OK && verifies(used, RSA_PKCS1_PADDING, digest, signature, size);
    return result;
}

static tpks_result sign_pss(const used_key *used, const unsigned char digest[32], bool *ok)
{
    const tpks_token_op op = {.mechanism = TPKS_RSA_PSS, .digest = "SHA2-256", .salt_size = 32};
    unsigned char signature[OUT_MAX];
    size_t size = sizeof(signature);
    tpks_result result = tpks_token_key_sign(used->key, &op, digest, 32, signature, &size);

    *ok = result == TPKS_OK && verifies(used, RSA_PKCS1_PSS_PADDING, digest, signature, size);
    return result;
}

static tpks_result sign_ecdsa(const used_key *used, const unsigned char digest[32], bool *ok)
{
    const tpks_token_op op = {.mechanism = TPKS_ECDSA};
    unsigned char raw[OUT_MAX], der[OUT_MAX];
    size_t size = sizeof(raw);
    tpks_result result = tpks_token_key_sign(used->key, &op, digest, 32, raw, &size);

    *ok = result == TPKS_OK && size == 2 * used->half &&
          verifies(used, 0, digest, der, ecdsa_der(raw, used->half, der));
    return result;
}

/* Signs a random digest; a signature that does not verify is an error too. The kernel's numbers:
 * libcrypto's lock round its own stays locked in a child when another thread had it. */
static tpks_result sign(const used_key *used)
{
    unsigned char digest[32];
    bool ok = false;

    if (getrandom(digest, sizeof(digest), 0) != (ssize_t)sizeof(digest))
        abort();
    tpks_result result =
        used->half > 0 ? sign_ecdsa(used, digest, &ok) : sign_pkcs1(used, digest, &ok);
    return result == TPKS_OK && !ok ? TPKS_MISMATCH : result;
}

START_TEST(keys_sign)
{
    static const char *const types[] = {"rsa:2048", "RSA:3072", "ec:P-256", "EC:p-384", "ec:P-521"};
    char name[16];

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        snprintf(name, sizeof(name), "key %zu", i);
        generate(name, types[i], TPKS_MAY_SIGN);
        used_key used = open_key(name);
        expect_ok(sign(&used));
        close_key(&used);
    }
}
END_TEST

START_TEST(pss_signs_with_digest_and_salt)
{
    unsigned char digest[32] = "any digest will do for this one";
    bool ok = false;

    generate("web", "rsa:2048", TPKS_MAY_SIGN);
    used_key used = open_key("web");
    expect_ok(sign_pss(&used, digest, &ok));
    ck_assert(ok);
    close_key(&used);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    static const unsigned char digest[32];
    unsigned char out[OUT_MAX];
    size_t size = 255;

    generate("web", "rsa:2048", TPKS_MAY_SIGN);
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key rsa = open_key("web"), ec = open_key("edge");
    tpks_token_op op = {.mechanism = TPKS_RSA_PKCS};
    expect(TPKS_BAD_INPUT, tpks_token_key_sign(rsa.key, &op, digest, 32, out, &size));
    size = sizeof(out);
    expect(TPKS_BAD_INPUT, tpks_token_key_sign(ec.key, &op, digest, 32, out, &size));
    expect(TPKS_NOT_PERMITTED, tpks_token_key_decrypt(rsa.key, &op, digest, 32, out, &size));
    op.mechanism = TPKS_ECDSA;
    expect(TPKS_BAD_INPUT, tpks_token_key_sign(rsa.key, &op, digest, 32, out, &size));
    op = (tpks_token_op){.mechanism = TPKS_RSA_PSS, .digest = "MD5"};
    expect(TPKS_BAD_INPUT, tpks_token_key_sign(rsa.key, &op, digest, 16, out, &size));
    op.mechanism = TPKS_RSA_RAW;
    expect(TPKS_BAD_INPUT, tpks_token_key_sign(rsa.key, &op, digest, 32, out, &size));
    expect_ok(sign(&rsa)); /* and goes on working */
    expect_ok(sign(&ec));
    close_key(&rsa);
    close_key(&ec);
}
END_TEST

/* ---- decryption ------------------------------------------------------------------------------ */

static size_t encrypt(const used_key *used, int padding, const void *plain, size_t size,
                      unsigned char *out)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(used->public, NULL);
    size_t length = OUT_MAX;

    ck_assert_int_eq(EVP_PKEY_encrypt_init(ctx), 1);
    ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_padding(ctx, padding), 1);
    ck_assert_int_eq(EVP_PKEY_encrypt(ctx, out, &length, plain, size), 1);
    EVP_PKEY_CTX_free(ctx);
    return length;
}

static void check_decrypts(const used_key *used, tpks_mechanism mechanism, int padding)
{
    static const char secret[] = "attack at dawn";
    const tpks_token_op op = {.mechanism = mechanism, .digest = "SHA1"};
    unsigned char in[OUT_MAX], out[OUT_MAX];
    size_t size = encrypt(used, padding, secret, sizeof(secret), in), out_size = sizeof(out);

    expect_ok(tpks_token_key_decrypt(used->key, &op, in, size, out, &out_size));
    ck_assert_uint_eq(out_size, sizeof(secret));
    ck_assert_mem_eq(out, secret, sizeof(secret));
    out_size = sizeof(secret) - 1;
    expect(TPKS_BAD_INPUT, tpks_token_key_decrypt(used->key, &op, in, size, out, &out_size));
}

static void check_decrypts_raw(const used_key *used)
{
    const tpks_token_op op = {.mechanism = TPKS_RSA_RAW};
    unsigned char plain[256] = {0, 1, 2, 3}, in[OUT_MAX], out[OUT_MAX];
    size_t size = encrypt(used, RSA_NO_PADDING, plain, sizeof(plain), in), out_size = sizeof(out);

    expect_ok(tpks_token_key_decrypt(used->key, &op, in, size, out, &out_size));
    ck_assert_uint_eq(out_size, sizeof(plain));
    ck_assert_mem_eq(out, plain, sizeof(plain));
}

/* A module on OpenSSL 3.2 or later does not tell, and gives out some message that is always the
 * same one (implicit rejection). */
static void check_bad_ciphertext(const used_key *used)
{
    const tpks_token_op op = {.mechanism = TPKS_RSA_PKCS};
    unsigned char in[256] = {0, 1}, out[OUT_MAX];
    size_t size = sizeof(out);
    tpks_result result = tpks_token_key_decrypt(used->key, &op, in, sizeof(in), out, &size);

    if (result != TPKS_OK)
        ck_assert_int_eq(result, TPKS_BAD_INPUT);
}

START_TEST(a_key_with_that_policy_decrypts)
{
    generate("web", "rsa:2048", TPKS_MAY_SIGN | TPKS_MAY_DECRYPT);
    used_key used = open_key("web");
    check_decrypts(&used, TPKS_RSA_PKCS, RSA_PKCS1_PADDING);
    check_decrypts(&used, TPKS_RSA_OAEP, RSA_PKCS1_OAEP_PADDING);
    check_decrypts_raw(&used);
    for (int i = 0; i < 3; i++)
        check_bad_ciphertext(&used);
    check_decrypts(&used, TPKS_RSA_PKCS, RSA_PKCS1_PADDING);
    expect_ok(sign(&used));
    close_key(&used);
}
END_TEST

/* ---- the record ------------------------------------------------------------------------------ */

static STACK_OF(X509) * certificate_for(EVP_PKEY *public)
{
    EVP_PKEY *issuer = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509 *cert = X509_new();
    STACK_OF(X509) *certs = sk_X509_new_null();

    ck_assert_int_eq(X509_set_pubkey(cert, public), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    ck_assert_int_gt(X509_sign(cert, issuer, EVP_sha256()), 0);
    ck_assert_int_gt(sk_X509_push(certs, cert), 0);
    EVP_PKEY_free(issuer);
    return certs;
}

static void set_certificate(TPKS *ks, const char *name)
{
    TPKS_RECORD *record = find(ks, name);
    EVP_PKEY *public = public_of(record);
    STACK_OF(X509) *certs = certificate_for(public);

    expect_ok(tpks_set_cert(ks, record, NULL, certs));
    sk_X509_pop_free(certs, X509_free);
    EVP_PKEY_free(public);
    tpks_record_free(record);
}

START_TEST(its_record_changes_like_any_other)
{
    uint64_t proven = 0;
    TPKS_SECRET *pkcs8 = NULL;

    generate("web", "ec:P-256", TPKS_MAY_SIGN);
    TPKS *ks = open_for(TPKS_WRITE);
    expect(TPKS_EXISTS, tpks_generate_in_token(ks, "web", "ec:P-256", TPKS_MAY_SIGN, NULL));
    expect_ok(tpks_generate_in_token(ks, "other", "ec:P-256", TPKS_MAY_SIGN, NULL));
    TPKS_RECORD *record = find(ks, "web");
    expect(TPKS_NOT_PERMITTED, tpks_load_key(ks, record, &pkcs8));
    ck_assert_ptr_null(pkcs8);
    expect_ok(tpks_rename(ks, record, "site"));
    tpks_record_free(record);
    set_certificate(ks, "site");
    record = find(ks, "site");
    ck_assert_uint_eq(tpks_record_cert_count(record), 1);
    expect_ok(tpks_set_policy(ks, record, 0));
    tpks_record_free(record);
    expect_ok(tpks_verify(ks, NULL, NULL, NULL, &proven));
    ck_assert_uint_eq(proven, 2);
    tpks_close(ks);
    used_key used = open_key("site");
    expect(TPKS_NOT_PERMITTED, sign(&used));
    close_key(&used);
}
END_TEST

START_TEST(a_changed_record_is_not_believed)
{
    generate("web", "ec:P-256", TPKS_MAY_SIGN);
    generate("other", "ec:P-256", TPKS_MAY_SIGN);
    TPKS *ks = open_for(TPKS_LOAD);
    TPKS_RECORD *web = find(ks, "web"), *other = find(ks, "other");
    TPKS_TOKEN_KEY *key = NULL;
    memcpy(web->cka_id.data, other->cka_id.data, CKA_ID_SIZE);
    expect(TPKS_TAMPERED, tpks_token_key_open(ks, web, &key));
    tpks_record_free(web);
    tpks_record_free(other);
    tpks_close(ks);
}
END_TEST

START_TEST(types_and_policies_that_a_token_lacks_are_refused)
{
    TPKS *ks = open_for(TPKS_WRITE);

    expect(TPKS_BAD_INPUT, tpks_generate_in_token(ks, "web", "ed25519", TPKS_MAY_SIGN, NULL));
    expect(TPKS_BAD_INPUT, tpks_generate_in_token(ks, "web", "rsa:1024", TPKS_MAY_SIGN, NULL));
    expect(TPKS_BAD_INPUT, tpks_generate_in_token(ks, "web", "ec:P-192", TPKS_MAY_SIGN, NULL));
    expect(TPKS_UNSUPPORTED, tpks_generate_in_token(ks, "web", "ec:P-256", TPKS_MAY_DECRYPT, NULL));
    expect(TPKS_UNSUPPORTED, tpks_generate_in_token(ks, "web", "rsa:2048", TPKS_MAY_AGREE, NULL));
    tpks_close(ks);
}
END_TEST

/* ---- crashes, leftovers ---------------------------------------------------------------------- */

typedef struct seen {
    int unfinished, orphans;
    char name[64];
} seen;

static tpks_result see(void *arg, const tpks_leftover *leftover)
{
    seen *s = arg;

    s->unfinished += leftover->unfinished;
    s->orphans += !leftover->unfinished;
    snprintf(s->name, sizeof(s->name), "%s", leftover->name);
    ck_assert_uint_eq(leftover->cka_id_size, CKA_ID_SIZE);
    return TPKS_OK;
}

static seen leftovers(void)
{
    TPKS *ks = open_for(TPKS_LOAD);
    seen s = {0, 0, ""};

    expect_ok(tpks_each_leftover(ks, see, &s));
    tpks_close(ks);
    return s;
}

static tpks_result count_key(void *arg, const unsigned char *id, size_t id_size, const char *label)
{
    (void)id;
    (void)id_size;
    (void)label;
    ++*(int *)arg;
    return TPKS_OK;
}

static int keys_on_token(void)
{
    const hsm_options options = {.token_uri = token_uri, .lock_dir = scratch()};
    HSM *hsm = NULL;
    int count = 0;

    expect_ok(hsm_open(&options, &hsm));
    expect_ok(hsm_each_key(hsm, "trustpoint-keystore ", count_key, &count));
    hsm_close(hsm);
    return count;
}

/* What is there when the program ends between the token's change and the database's. */
static void leave_unfinished(const char *name)
{
    TPKS *ks = open_for(TPKS_WRITE);
    TPKS_RECORD *record = find(ks, name);
    TPKS_SECRET *filler = record_token_filler();

    expect_ok(tpks_unlock(ks));
    record->version++;
    expect_ok(record_set_spki(NULL, record, NULL, 0));
    expect_ok(keystore_update_record(ks, record, filler));
    tpks_secret_free(filler);
    tpks_record_free(record);
    tpks_close(ks);
}

START_TEST(what_a_crash_leaves_is_named_and_made_again)
{
    const tpks_selector by_name = {.name = "web"};
    TPKS_RECORD *record = NULL;
    uint64_t proven = 9;

    generate("web", "ec:P-256", TPKS_MAY_SIGN);
    leave_unfinished("web");
    ck_assert_int_eq(leftovers().unfinished, 1);
    ck_assert_int_eq(leftovers().orphans, 0);
    TPKS *ks = open_for(TPKS_WRITE);
    expect(TPKS_NOT_FOUND, tpks_find(ks, &by_name, &record));
    expect_text("generate it again");
    expect_ok(tpks_verify(ks, NULL, NULL, NULL, &proven));
    ck_assert_uint_eq(proven, 0);
    tpks_close(ks);
    generate("web", "ec:P-384", TPKS_MAY_SIGN);
    ck_assert_int_eq(leftovers().unfinished, 0);
    ck_assert_int_eq(keys_on_token(), 1);
    used_key used = open_key("web");
    expect_ok(sign(&used));
    close_key(&used);
}
END_TEST

START_TEST(what_a_crash_leaves_is_cleared_away)
{
    generate("web", "ec:P-256", TPKS_MAY_SIGN);
    leave_unfinished("web");
    TPKS *ks = open_for(TPKS_WRITE);
    expect_ok(tpks_discard_unfinished(ks, "web"));
    expect(TPKS_NOT_FOUND, tpks_discard_unfinished(ks, "web"));
    tpks_close(ks);
    ck_assert_int_eq(keys_on_token(), 0);
    ck_assert_int_eq(leftovers().unfinished, 0);
}
END_TEST

START_TEST(removal_leaves_the_key_unless_told_otherwise)
{
    generate("web", "ec:P-256", TPKS_MAY_SIGN);
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    TPKS *ks = open_for(TPKS_WRITE);
    TPKS_RECORD *web = find(ks, "web"), *edge = find(ks, "edge");
    expect_ok(tpks_remove(ks, web));
    expect_ok(tpks_remove_with_key(ks, edge));
    tpks_record_free(web);
    tpks_record_free(edge);
    tpks_close(ks);
    ck_assert_int_eq(keys_on_token(), 1);
    seen s = leftovers();
    ck_assert_int_eq(s.orphans, 1);
    ck_assert_str_eq(s.name, "web");
}
END_TEST

/* ---- threads --------------------------------------------------------------------------------- */

#define THREADS 8
#define OPERATIONS 200
#define UNTIL_REFUSED 1000000

typedef struct worker {
    const used_key *used;
    int operations;
    tpks_result first; /* that failed */
} worker;

static void *work(void *arg)
{
    worker *w = arg;

    for (int i = 0; i < w->operations && w->first == TPKS_OK; i++)
        w->first = sign(w->used);
    return NULL;
}

static tpks_result sign_in_threads(const used_key *a, const used_key *b, int threads,
                                   int operations)
{
    pthread_t ids[64];
    worker workers[64];
    tpks_result first = TPKS_OK;

    for (int i = 0; i < threads; i++) {
        workers[i] = (worker){i % 2 == 0 ? a : b, operations, TPKS_OK};
        if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
            abort();
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        first = first == TPKS_OK ? workers[i].first : first;
    }
    return first;
}

START_TEST(many_threads_share_keys)
{
    generate("web", "rsa:2048", TPKS_MAY_SIGN);
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key rsa = open_key("web"), ec = open_key("edge");
    expect_ok(sign_in_threads(&rsa, &ec, THREADS, OPERATIONS));
    expect_ok(sign_in_threads(&ec, &ec, 32, 20)); /* more than there are sessions */
    ck_assert_ptr_eq(tpks_token_key_up_ref(ec.key), ec.key);
    tpks_token_key_free(ec.key);
    expect_ok(sign(&ec));
    close_key(&rsa);
    close_key(&ec);
}
END_TEST

/* The token says that it has no more sessions; the first few are there. */
static CK_C_OpenSession real_open;
static int sessions_left;

static CK_RV open_few(CK_SLOT_ID slot, CK_FLAGS flags, void *arg, CK_NOTIFY notify,
                      CK_SESSION_HANDLE *session)
{
    if (__atomic_sub_fetch(&sessions_left, 1, __ATOMIC_SEQ_CST) < 0)
        return CKR_SESSION_COUNT;
    return real_open(slot, flags, arg, notify, session);
}

START_TEST(a_token_with_few_sessions_is_waited_for)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key ec = open_key("edge");
    CK_FUNCTION_LIST *functions = hsm_process()->modules->functions;
    real_open = functions->C_OpenSession;
    sessions_left = 2;
    functions->C_OpenSession = open_few;
    expect_ok(sign_in_threads(&ec, &ec, THREADS, 50));
    functions->C_OpenSession = real_open;
    close_key(&ec);
}
END_TEST

/* ---- copies in the session ------------------------------------------------------------------- */

/* Between the library and the module: what operations use, and what becomes of copies. */
static struct probe {
    CK_FUNCTION_LIST real;
    CK_RV refusal;           /* of C_CopyObject */
    CK_RV useless;           /* what signing with a copy gives */
    CK_ATTRIBUTE_TYPE spoil; /* this flag of the copy reads as its contrary */
    int with_token_object, with_copy;
    int copies, destroyed;
    CK_OBJECT_HANDLE copy; /* the last one */
} probe;

static CK_RV probe_sign_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                             CK_OBJECT_HANDLE object)
{
    CK_BBOOL token = CK_TRUE;
    CK_ATTRIBUTE attribute = {CKA_TOKEN, &token, sizeof(token)};

    if (probe.real.C_GetAttributeValue(session, object, &attribute, 1) == CKR_OK)
        __atomic_add_fetch(token ? &probe.with_token_object : &probe.with_copy, 1,
                           __ATOMIC_SEQ_CST);
    if (!token && probe.useless != CKR_OK)
        return probe.useless;
    return probe.real.C_SignInit(session, mechanism, object);
}

static CK_RV probe_copy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template,
                        CK_ULONG count, CK_OBJECT_HANDLE *copy)
{
    probe.copies++;
    if (probe.refusal != CKR_OK)
        return probe.refusal;
    CK_RV rv = probe.real.C_CopyObject(session, object, template, count, copy);
    probe.copy = *copy;
    return rv;
}

static CK_RV probe_read(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template,
                        CK_ULONG count)
{
    CK_RV rv = probe.real.C_GetAttributeValue(session, object, template, count);

    if (object == probe.copy && count == 1 && template->type == probe.spoil)
        *(CK_BBOOL *)template->pValue ^= CK_TRUE;
    return rv;
}

static CK_RV probe_destroy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    probe.destroyed += object == probe.copy;
    return probe.real.C_DestroyObject(session, object);
}

static void probe_start(CK_RV refusal, CK_ATTRIBUTE_TYPE spoil)
{
    CK_FUNCTION_LIST *functions = hsm_process()->modules->functions;

    probe = (struct probe){.real = *functions, .refusal = refusal, .spoil = spoil};
    functions->C_SignInit = probe_sign_init;
    functions->C_CopyObject = probe_copy;
    functions->C_GetAttributeValue = probe_read;
    functions->C_DestroyObject = probe_destroy;
}

static void probe_end(void)
{
    *hsm_process()->modules->functions = probe.real;
}

/* Until an operation has found the key in use a moment ago: on a busy machine not the second. */
static void sign_until_copied(const used_key *used, const int *counter)
{
    const struct timespec deadline = deadline_in(30);

    while (*counter == 0 && !deadline_passed(&deadline))
        expect_ok(sign(used));
    ck_assert_int_gt(*counter, 0);
}

static void use_copy(const used_key *used)
{
    probe_start(CKR_OK, CKA_VENDOR_DEFINED);
    sign_until_copied(used, &probe.with_copy);
    probe_end();
}

START_TEST(a_key_in_use_is_copied)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key edge = open_key("edge");
    probe_start(CKR_OK, CKA_VENDOR_DEFINED);
    expect_ok(sign(&edge));
    ck_assert_int_eq(probe.copies, 0); /* a program that signs once needs none */
    ck_assert_int_eq(probe.with_token_object, 1);
    sign_until_copied(&edge, &probe.with_copy);
    expect_ok(sign_in_threads(&edge, &edge, THREADS, 20));
    ck_assert_int_eq(probe.copies, 1);
    ck_assert_int_eq(probe.destroyed, 0);
    ck_assert_int_eq(keys_on_token(), 1); /* the copy is not taken for one */
    expect_ok(try_open("edge"));
    probe_end();
    close_key(&edge);
}
END_TEST

START_TEST(the_copy_goes_with_its_key)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key edge = open_key("edge"), again = open_key("edge");
    probe_start(CKR_OK, CKA_VENDOR_DEFINED);
    sign_until_copied(&edge, &probe.with_copy);
    tpks_token_key_free(edge.key);
    ck_assert_int_eq(probe.destroyed, 0); /* perhaps in a callback of the module */
    probe.with_copy = 0;
    CK_OBJECT_HANDLE first = probe.copy;
    sign_until_copied(&again, &probe.destroyed);
    sign_until_copied(&again, &probe.with_copy);
    ck_assert_uint_ne(first, probe.copy);
    probe_end();
    edge.key = NULL;
    close_key(&edge);
    close_key(&again);
}
END_TEST

START_TEST(a_token_that_refuses_to_copy_signs_all_the_same)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key edge = open_key("edge");
    probe_start(CKR_FUNCTION_NOT_SUPPORTED, CKA_VENDOR_DEFINED);
    sign_until_copied(&edge, &probe.copies);
    expect_ok(sign_in_threads(&edge, &edge, THREADS, 20));
    ck_assert_int_eq(probe.copies, 1);
    ck_assert_int_eq(probe.with_copy, 0);
    probe_end();
    close_key(&edge);
}
END_TEST

START_TEST(a_copy_that_can_not_sign_is_given_up)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key edge = open_key("edge");
    probe_start(CKR_OK, CKA_VENDOR_DEFINED);
    probe.useless = CKR_KEY_FUNCTION_NOT_PERMITTED;
    sign_until_copied(&edge, &probe.with_copy);
    for (int i = 0; i < 20; i++)
        expect_ok(sign(&edge));
    ck_assert_int_eq(probe.with_copy, 1);
    ck_assert_int_eq(probe.copies, 1);
    probe_end();
    close_key(&edge);
}
END_TEST

START_TEST(a_copy_that_can_be_read_is_not_used)
{
    static const CK_ATTRIBUTE_TYPE flags[] = {CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_PRIVATE,
                                              CKA_TOKEN};

    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        used_key edge = open_key("edge");
        probe_start(CKR_OK, flags[i]);
        sign_until_copied(&edge, &probe.copies);
        expect_ok(sign_in_threads(&edge, &edge, THREADS, 20));
        ck_assert_int_eq(probe.destroyed, 1);
        ck_assert_int_eq(probe.with_copy, 0);
        probe_end();
        close_key(&edge);
    }
}
END_TEST

/* ---- forks ----------------------------------------------------------------------------------- */

static int sign_often(void *arg)
{
    for (int i = 0; i < 20; i++) {
        tpks_result result = sign(arg);
        if (result != TPKS_OK) {
            fprintf(stderr, "child: %s\n", tpks_error_text());
            return (int)result;
        }
    }
    return TPKS_OK;
}

START_TEST(a_forked_child_starts_anew)
{
    pid_t pids[4];
    int status;

    generate("web", "rsa:2048", TPKS_MAY_SIGN);
    used_key used = open_key("web");
    use_copy(&used);
    for (size_t i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            exit(sign_often(&used)); /* with what runs at exit */
    }
    expect_ok((tpks_result)sign_often(&used));
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
        ck_assert_str_eq(tpks_result_name((tpks_result)WEXITSTATUS(status)), "ok");
    }
    expect_ok(sign(&used));
    close_key(&used);
}
END_TEST

static atomic_bool enough;

static void *sign_until_enough(void *arg)
{
    tpks_result first = TPKS_OK;

    while (!atomic_load(&enough) && first == TPKS_OK)
        first = sign(arg);
    return (void *)(uintptr_t)first;
}

static int fork_and_sign(used_key *used)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        /* It must not outlive this test if it hangs; Check's own handler would end the test. */
        signal(SIGALRM, SIG_DFL);
        alarm(60);
        _exit(sign_often(used));
    }
    return waitpid(pid, &status, 0) == pid ? status : -1;
}

/* The module's own locks, too, are free in the child. */
START_TEST(children_of_a_process_whose_threads_sign)
{
    pthread_t threads[4];
    void *first = NULL;

    generate("web", "rsa:2048", TPKS_MAY_SIGN);
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key keys[] = {open_key("web"), open_key("edge")};
    for (size_t i = 0; i < 2; i++)
        expect_ok(sign(&keys[i])); /* what libcrypto fetches it has from now on */
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, sign_until_enough, &keys[i % 2]), 0);
    for (size_t i = 0; i < 40; i++)
        ck_assert_int_eq(fork_and_sign(&keys[i % 2]), 0);
    atomic_store(&enough, true);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], &first);
        ck_assert_ptr_eq(first, NULL);
    }
    close_key(&keys[0]);
    close_key(&keys[1]);
}
END_TEST

static int sign_and_free_at_exit(void *arg)
{
    used_key *used = arg;

    return sign(used) == TPKS_OK && elsewhere(sign_often, used) == 0 ? 0 : 1;
}

START_TEST(a_grandchild_does_so_too)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key used = open_key("edge");
    use_copy(&used);
    ck_assert_int_eq(elsewhere(sign_and_free_at_exit, &used), 0);
    expect_ok(sign(&used));
    close_key(&used);
}
END_TEST

/* ---- losses ---------------------------------------------------------------------------------- */

static HSM *open_to_write(void)
{
    const hsm_options options = {.token_uri = token_uri, .lock_dir = scratch(), .write = true};
    HSM *hsm = NULL;

    return hsm_open(&options, &hsm) == TPKS_OK ? hsm : NULL;
}

static void id_of(const char *name, unsigned char id[CKA_ID_SIZE])
{
    TPKS *ks = open_for(TPKS_LOAD);
    TPKS_RECORD *record = find(ks, name);

    memcpy(id, record->cka_id.data, CKA_ID_SIZE);
    tpks_record_free(record);
    tpks_close(ks);
}

static int destroy(void *id)
{
    HSM *hsm = open_to_write();

    return hsm == NULL || hsm_destroy_kek(hsm, id) != TPKS_OK;
}

/* Another key of the same kind in its place, as a careless administrator may make. */
static int replace(void *id)
{
    HSM *hsm = open_to_write();
    const hsm_key_spec spec = {.curve = "P-256", .cka_id = id, .label = "another"};
    unsigned char *spki = NULL;
    size_t size = 0;

    return hsm == NULL || hsm_destroy_kek(hsm, id) != TPKS_OK ||
           hsm_key_make(hsm, &spec, &spki, &size) != TPKS_OK;
}

/*
 * What signing says when it ends. A copy of the key may go on for the second that passes between
 * two looks at the token.
 */
static tpks_result refusal(const used_key *used)
{
    const struct timespec deadline = deadline_in(30);
    tpks_result result = TPKS_OK;

    while (result == TPKS_OK && !deadline_passed(&deadline))
        result = sign(used);
    return result;
}

START_TEST(a_destroyed_key_is_missing)
{
    unsigned char id[CKA_ID_SIZE];

    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    generate("web", "rsa:2048", TPKS_MAY_SIGN);
    used_key edge = open_key("edge"), web = open_key("web");
    use_copy(&edge);
    id_of("edge", id);
    ck_assert_int_eq(elsewhere(destroy, id), 0);
    expect(TPKS_KEY_MISSING, sign_in_threads(&edge, &edge, THREADS, UNTIL_REFUSED));
    expect(TPKS_KEY_MISSING, sign(&edge));
    expect(TPKS_KEY_MISSING, try_open("edge"));
    expect_ok(sign(&web));
    close_key(&edge);
    close_key(&web);
}
END_TEST

START_TEST(another_key_under_the_id_is_never_used)
{
    unsigned char id[CKA_ID_SIZE];

    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key edge = open_key("edge");
    use_copy(&edge);
    id_of("edge", id);
    ck_assert_int_eq(elsewhere(replace, id), 0);
    expect(TPKS_MISMATCH, refusal(&edge));
    expect(TPKS_MISMATCH, try_open("edge"));
    expect_text("another key");
    close_key(&edge);
}
END_TEST

START_TEST(a_token_may_go_and_come_back)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    generate("web", "rsa:2048", TPKS_MAY_SIGN);
    used_key edge = open_key("edge"), web = open_key("web");
    for (int i = 0; i < 2; i++) {
        expect_ok(sign(&edge));
        shell("mv %s/tokens %s/away && mkdir %s/tokens", scratch(), scratch(), scratch());
        expect(TPKS_TOKEN_MISSING, refusal(&edge));
        expect(TPKS_TOKEN_MISSING, refusal(&web));
        expect(TPKS_TOKEN_MISSING, sign_in_threads(&edge, &web, THREADS, 1));
        shell("rmdir %s/tokens && mv %s/away %s/tokens", scratch(), scratch(), scratch());
        expect_ok(sign(&edge));
        expect_ok(sign_in_threads(&edge, &web, THREADS, 10));
    }
    close_key(&edge);
    close_key(&web);
}
END_TEST

START_TEST(another_token_is_not_taken_for_it)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key edge = open_key("edge");
    use_copy(&edge);
    shell("mv %s/tokens %s/away && mkdir %s/tokens", scratch(), scratch(), scratch());
    shell("softhsm2-util --init-token --free --label edge --so-pin 87654321 --pin 123456 "
          ">/dev/null");
    expect(TPKS_TOKEN_MISSING, refusal(&edge));
    expect_text("serial");
    close_key(&edge);
}
END_TEST

START_TEST(a_lost_session_is_opened_anew)
{
    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    used_key edge = open_key("edge");
    struct hsm_module *module = hsm_process()->modules;
    use_copy(&edge);
    /* As another library in this process does that uses the same module. */
    module->functions->C_CloseAllSessions(hsm_process()->keepers->slot);
    use_copy(&edge);
    p11_kit_module_finalize(module->functions);
    expect_ok(sign(&edge));
    expect_ok(sign_in_threads(&edge, &edge, THREADS, 10));
    close_key(&edge);
}
END_TEST

/* ---- keys that others made ------------------------------------------------------------------- */

START_TEST(a_key_is_found_by_its_label)
{
    static const unsigned char id[CKA_ID_SIZE] = "fifteen letters";
    const hsm_options options = {.token_uri = token_uri, .lock_dir = scratch()};
    hsm_key_spec spec = {.curve = "P-256", .cka_id = id, .label = "issuing-ca"};
    hsm_key_lookup lookup = {.name = "ca", .label = "issuing-ca"};
    unsigned char *spki = NULL, *other = NULL, digest[32] = {0}, out[64];
    const tpks_token_op op = {.mechanism = TPKS_ECDSA};
    HSM *hsm = open_to_write();
    HSM_KEY *key = NULL;
    size_t size = sizeof(out);

    ck_assert_ptr_nonnull(hsm);
    expect_ok(hsm_key_make(hsm, &spec, &spki, &lookup.spki_size));
    lookup.spki = spki;
    expect_ok(hsm_key_open(&options, &lookup, &key));
    expect_ok(hsm_key_sign(key, &op, digest, sizeof(digest), out, &size));
    hsm_key_free(key);
    lookup.label = "another-ca";
    expect(TPKS_KEY_MISSING, hsm_key_open(&options, &lookup, &key));
    spec.cka_id = (const unsigned char *)"fifteen numbers";
    expect_ok(hsm_key_make(hsm, &spec, &other, &size));
    lookup.label = "issuing-ca";
    expect(TPKS_MISMATCH, hsm_key_open(&options, &lookup, &key)); /* two of them */
    expect_text("several");
    OPENSSL_free(spki);
    OPENSSL_free(other);
    hsm_close(hsm);
}
END_TEST

/* Imports a new key and says of it what a record of another keystore would. */
static TPKS_RECORD import_key(const char *type, const char *label, const char *id_hex)
{
    static const char key_file[] = "imported.pem";
    EVP_PKEY *key = type[0] == 'R' ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048)
                                   : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    BIO *pem = BIO_new(BIO_s_mem());
    TPKS_RECORD source = {.name = (char *)label,
                          .key_type = (char *)type,
                          .token_serial = (char *)"",
                          .home = TPKS_HOME_TOKEN,
                          .cka_label = (char *)label};
    char *text;

    ck_assert_int_eq(PEM_write_bio_PKCS8PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL), 1);
    long size = BIO_get_mem_data(pem, &text);
    write_file(key_file, text, (size_t)size, 0600);
    shell("softhsm2-util --import %s/%s --token edge --label %s --id %s --pin 123456 --force "
          ">/dev/null",
          scratch(), key_file, label, id_hex);
    source.spki.size = (size_t)i2d_PUBKEY(key, &source.spki.data);
    BIO_free(pem);
    EVP_PKEY_free(key);
    return source;
}

static int keys_labelled(const char *label)
{
    const hsm_options options = {.token_uri = token_uri, .lock_dir = scratch()};
    HSM *hsm = NULL;
    int count = 0;

    expect_ok(hsm_open(&options, &hsm));
    expect_ok(hsm_each_key(hsm, label, count_key, &count));
    hsm_close(hsm);
    return count;
}

static const char *const foreign_ids[] = {
    "01",
    "000102030405060708090a0b0c0d0e0f10111213", /* 20 bytes: a digest */
    ("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"),
};
#define FOREIGN_IDS (int)(sizeof(foreign_ids) / sizeof(foreign_ids[0]))

/* Whatever id others gave it; by its label, as Trustpoint's older releases know it. */
static void adopt(const char *id_hex)
{
    TPKS_RECORD source = import_key("EC", "imported", id_hex);
    TPKS *ks = open_for(TPKS_WRITE);

    expect_ok(tpks_adopt_token_key(ks, "adopted", &source, NULL, TPKS_MAY_SIGN, NULL));
    tpks_close(ks);
    OPENSSL_free(source.spki.data);
}

START_TEST(an_adopted_key_signs_and_is_destroyed)
{
    const tpks_selector by_name = {.name = "adopted"};
    TPKS_RECORD *record = NULL;

    adopt(foreign_ids[_i]);
    used_key used = open_key("adopted");
    expect_ok(sign(&used));
    close_key(&used);
    TPKS *ks = open_for(TPKS_WRITE);
    record = find(ks, "adopted");
    expect_ok(tpks_remove_with_key(ks, record));
    tpks_record_free(record);
    expect(TPKS_NOT_FOUND, tpks_find(ks, &by_name, &record));
    expect(TPKS_NOT_FOUND, tpks_discard_unfinished(ks, "adopted"));
    tpks_close(ks);
    ck_assert_int_eq(keys_labelled("imported"), 0);
}
END_TEST

START_TEST(what_a_crash_leaves_of_an_adopted_key_is_cleared_away)
{
    adopt(foreign_ids[_i]);
    leave_unfinished("adopted");
    TPKS *ks = open_for(TPKS_WRITE);
    expect_ok(tpks_discard_unfinished(ks, "adopted"));
    expect_ok(tpks_generate_in_token(ks, "adopted", "ec:P-256", TPKS_MAY_SIGN, NULL));
    tpks_close(ks);
    ck_assert_int_eq(keys_labelled("imported"), 0);
    ck_assert_int_eq(keys_on_token(), 1);
}
END_TEST

/* "01" is an id that many give to everything. */
START_TEST(what_only_shares_the_id_stays)
{
    static const unsigned char id[] = {1};
    TPKS_RECORD rsa = import_key("RSA", "theirs", "01");
    CK_FUNCTION_LIST *functions;
    CK_OBJECT_HANDLE object, found;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG count = 0;
    CK_ATTRIBUTE aes[] = {{CKA_CLASS, &class, sizeof(class)},
                          {CKA_KEY_TYPE, &type, sizeof(type)},
                          {CKA_TOKEN, &yes, sizeof(yes)},
                          {CKA_ID, (void *)id, sizeof(id)},
                          {CKA_VALUE, (void *)"sixteen letters", 16}};
    HSM *hsm = open_to_write();

    ck_assert_ptr_nonnull(hsm);
    functions = hsm->connection->module->functions;
    ck_assert_uint_eq(functions->C_CreateObject(hsm->connection->session, aes, 5, &object), CKR_OK);
    adopt("01");
    TPKS *ks = open_for(TPKS_WRITE);
    TPKS_RECORD *record = find(ks, "adopted");
    expect_ok(tpks_remove_with_key(ks, record));
    tpks_record_free(record);
    tpks_close(ks);
    ck_assert_int_eq(keys_labelled("imported"), 0);
    ck_assert_int_eq(keys_labelled("theirs"), 1);
    ck_assert_uint_eq(functions->C_FindObjectsInit(hsm->connection->session, aes, 4), CKR_OK);
    ck_assert_uint_eq(functions->C_FindObjects(hsm->connection->session, &found, 1, &count),
                      CKR_OK);
    ck_assert_uint_eq(functions->C_FindObjectsFinal(hsm->connection->session), CKR_OK);
    ck_assert_uint_eq(count, 1);
    hsm_close(hsm);
    OPENSSL_free(rsa.spki.data);
}
END_TEST

START_TEST(another_key_under_the_id_is_not_destroyed)
{
    unsigned char id[CKA_ID_SIZE];

    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    id_of("edge", id);
    ck_assert_int_eq(elsewhere(replace, id), 0);
    TPKS *ks = open_for(TPKS_WRITE);
    TPKS_RECORD *record = find(ks, "edge");
    expect(TPKS_MISMATCH, tpks_remove_with_key(ks, record));
    tpks_record_free(record);
    record = find(ks, "edge"); /* as it was */
    ck_assert_int_eq(keys_labelled("another"), 1);
    expect_ok(tpks_remove(ks, record));
    tpks_record_free(record);
    tpks_close(ks);
}
END_TEST

START_TEST(a_key_that_is_gone_does_not_keep_its_record)
{
    unsigned char id[CKA_ID_SIZE];

    generate("edge", "ec:P-256", TPKS_MAY_SIGN);
    id_of("edge", id);
    ck_assert_int_eq(elsewhere(destroy, id), 0);
    TPKS *ks = open_for(TPKS_WRITE);
    TPKS_RECORD *record = find(ks, "edge");
    expect_ok(tpks_remove_with_key(ks, record));
    tpks_record_free(record);
    expect(TPKS_NOT_FOUND, tpks_discard_unfinished(ks, "edge"));
    tpks_close(ks);
}
END_TEST

/* An object whose id does not fit may be the one that is looked for. */
START_TEST(keys_that_could_not_be_read_are_told)
{
    char id_hex[2 * 300 + 1];
    seen s = {0, 0, ""};

    memset(id_hex, '4', sizeof(id_hex) - 1);
    id_hex[sizeof(id_hex) - 1] = '\0';
    TPKS_RECORD source = import_key("EC", "imported", id_hex);
    TPKS *ks = open_for(TPKS_WRITE);
    expect(TPKS_UNSUPPORTED,
           tpks_adopt_token_key(ks, "adopted", &source, NULL, TPKS_MAY_SIGN, NULL));
    expect_text("CKA_ID");
    expect_ok(tpks_each_leftover(ks, see, &s)); /* its label says that it is none of ours */
    ck_assert_int_eq(s.orphans + s.unfinished, 0);
    tpks_close(ks);
    OPENSSL_free(source.spki.data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("token_key");
    TCase *tests = tcase_create("token_key");

    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, keys_sign);
    tcase_add_test(tests, pss_signs_with_digest_and_salt);
    tcase_add_test(tests, what_does_not_fit_is_refused);
    tcase_add_test(tests, a_key_with_that_policy_decrypts);
    tcase_add_test(tests, its_record_changes_like_any_other);
    tcase_add_test(tests, a_changed_record_is_not_believed);
    tcase_add_test(tests, types_and_policies_that_a_token_lacks_are_refused);
    tcase_add_test(tests, what_a_crash_leaves_is_named_and_made_again);
    tcase_add_test(tests, what_a_crash_leaves_is_cleared_away);
    tcase_add_test(tests, removal_leaves_the_key_unless_told_otherwise);
    tcase_add_test(tests, many_threads_share_keys);
    tcase_add_test(tests, a_token_with_few_sessions_is_waited_for);
    tcase_add_test(tests, a_key_in_use_is_copied);
    tcase_add_test(tests, the_copy_goes_with_its_key);
    tcase_add_test(tests, a_token_that_refuses_to_copy_signs_all_the_same);
    tcase_add_test(tests, a_copy_that_can_not_sign_is_given_up);
    tcase_add_test(tests, a_copy_that_can_be_read_is_not_used);
    tcase_add_test(tests, a_forked_child_starts_anew);
    /* Its allocator has locks that a fork may leave held in the child for ever. */
    if (!ADDRESS_SANITIZER)
        tcase_add_test(tests, children_of_a_process_whose_threads_sign);
    tcase_add_test(tests, a_grandchild_does_so_too);
    tcase_add_test(tests, a_destroyed_key_is_missing);
    tcase_add_test(tests, another_key_under_the_id_is_never_used);
    tcase_add_test(tests, a_token_may_go_and_come_back);
    tcase_add_test(tests, another_token_is_not_taken_for_it);
    tcase_add_test(tests, a_lost_session_is_opened_anew);
    tcase_add_test(tests, a_key_is_found_by_its_label);
    tcase_add_loop_test(tests, an_adopted_key_signs_and_is_destroyed, 0, FOREIGN_IDS);
    tcase_add_loop_test(tests, what_a_crash_leaves_of_an_adopted_key_is_cleared_away, 0,
                        FOREIGN_IDS);
    tcase_add_test(tests, what_only_shares_the_id_stays);
    tcase_add_test(tests, another_key_under_the_id_is_not_destroyed);
    tcase_add_test(tests, a_key_that_is_gone_does_not_keep_its_record);
    tcase_add_test(tests, keys_that_could_not_be_read_are_told);
    suite_add_tcase(suite, tests);
    return run(suite);
}
