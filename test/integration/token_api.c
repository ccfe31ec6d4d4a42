/*
 * token_api.c - keys in a token against keys of OpenSSL's default provider, through OpenSSL's C
 * interface: the same calls must end the same way, with the same errors, and what the token has
 * signed must verify
 *
 * Called by token_api.sh: token_api TEST URI FILE, where FILE is a plain key of the same type, size
 * and restrictions. Exit code 0 when everything held; 1 with lines that say what did not.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <openssl/x509.h>

#define ROOM 2048
#define UNSET (-100)
#define NOT_PERMITTED 11 /* reason codes of the provider are stable */
#define BAD_INPUT 20
#define UNSUPPORTED 23

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d does not hold: %s\n", __LINE__, #condition);                           \
            ERR_print_errors_fp(stdout);                                                           \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static int compared, differences;
static const unsigned char message[] = "what is signed, somewhat longer than a block of SHA-256 is";

/* ---- keys --------------------------------------------------------------------------------------
 */

static EVP_PKEY *load(const char *uri)
{
    OSSL_STORE_CTX *store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);
    EVP_PKEY *key = NULL;

    CHECK(store != NULL && OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY));
    while (key == NULL && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);

        if (info != NULL)
            key = OSSL_STORE_INFO_get1_PKEY(info);
        OSSL_STORE_INFO_free(info);
    }
    OSSL_STORE_close(store);
    CHECK(key != NULL);
    return key;
}

static EVP_PKEY *public_of(EVP_PKEY *key)
{
    unsigned char *der = NULL;
    const unsigned char *at;
    int size = i2d_PUBKEY(key, &der);
    EVP_PKEY *public_key;

    CHECK(size > 0);
    at = der;
    public_key = d2i_PUBKEY(NULL, &at, size);
    CHECK(public_key != NULL);
    OPENSSL_free(der);
    return public_key;
}

/* ---- what happened ------------------------------------------------------------------------------
 */

typedef struct report {
    char text[8192];
    size_t length;
    int own_reason; /* of an error by the provider or its token, 0 if there was none */
} REPORT;

static void note(REPORT *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(REPORT *report, const char *format, ...)
{
    size_t room = sizeof(report->text) - report->length;
    va_list arguments;
    int written;

    va_start(arguments, format);
    written = vsnprintf(report->text + report->length, room, format, arguments);
    va_end(arguments);
    CHECK(written >= 0 && (size_t)written < room);
    report->length += (size_t)written;
}

static void note_bytes(REPORT *report, const unsigned char *bytes, size_t size)
{
    note(report, " ");
    for (size_t i = 0; i < size; i++)
        note(report, "%02x", bytes[i]);
}

/* The reasons of every error in the queue, which is empty afterwards. */
static void note_errors(REPORT *report)
{
    unsigned long code;

    while ((code = ERR_get_error()) != 0) {
        const char *library = ERR_lib_error_string(code);

        if (library != NULL && strcmp(library, "trustpoint") == 0)
            report->own_reason = ERR_GET_REASON(code);
        note(report, " [%s:%d]", library == NULL ? "?" : library, ERR_GET_REASON(code));
    }
}

static void step(REPORT *report, const char *name, int result)
{
    note(report, " %s=%d", name, result);
    note_errors(report);
}

/* Both must have gone the same way. */
static void same(const char *what, const REPORT *ours, const REPORT *theirs)
{
    compared++;
    if (strcmp(ours->text, theirs->text) == 0)
        return;
    differences++;
    printf("%s\n  token:  %s\n  default:%s\n", what, ours->text, theirs->text);
}

/* ---- signatures ---------------------------------------------------------------------------------
 */

typedef struct scheme {
    const char *digest;
    int padding;
    int salt;
    const char *mgf1;
} SCHEME;

static const char *const digests[] = {
    "SHA1",      "SHA224", "SHA256",   "SHA384", "SHA512",     "SHA512-256", "SHA3-256", "SHA3-512",
    "RIPEMD160", "MD5",    "MD5-SHA1", "SM3",    "BLAKE2b512", "SHAKE256",   "nonsense"};
static const int salts[] = {UNSET, -1, -2, -3, -4, -5, 0, 8, 20, 32, 64, 100000};
static const char *const mgf1s[] = {NULL, "SHA1", "SHA256", "SHA512", "nonsense"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void describe(char *out, size_t size, const char *what, const SCHEME *scheme)
{
    snprintf(out, size, "%s digest %s padding %d salt %d mgf1 %s", what,
             scheme->digest == NULL ? "-" : scheme->digest, scheme->padding, scheme->salt,
             scheme->mgf1 == NULL ? "-" : scheme->mgf1);
}

/* Does PKCS#11 have a PSS for it, as SoftHSM does it? */
static int token_can(const SCHEME *scheme)
{
    static const char *const known[] = {"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"};

    if (scheme->padding != RSA_PKCS1_PSS_PADDING)
        return 1;
    if (scheme->mgf1 != NULL && strcmp(scheme->mgf1, scheme->digest) != 0)
        return 0;
    for (size_t i = 0; i < COUNT(known); i++)
        if (strcmp(scheme->digest, known[i]) == 0)
            return 1;
    return 0;
}

static int set_scheme(REPORT *report, EVP_PKEY_CTX *ctx, const SCHEME *scheme)
{
    int ok = 1;

    if (scheme->padding != UNSET)
        step(report, "padding", ok = EVP_PKEY_CTX_set_rsa_padding(ctx, scheme->padding));
    if (ok > 0 && scheme->salt != UNSET)
        step(report, "salt", ok = EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, scheme->salt));
    if (ok > 0 && scheme->mgf1 != NULL)
        step(report, "mgf1", ok = EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, scheme->mgf1, NULL));
    return ok > 0;
}

/* Everything that can be asked of a signature context. */
static void note_params(REPORT *report, EVP_PKEY_CTX *ctx)
{
    char digest[64] = "", mgf1[64] = "", salt[64] = "", padding[64] = "";
    unsigned char id[256];
    size_t digest_size = 0;
    unsigned nonce = 77;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", digest, sizeof(digest)),
                           OSSL_PARAM_construct_utf8_string("mgf1-digest", mgf1, sizeof(mgf1)),
                           OSSL_PARAM_construct_utf8_string("saltlen", salt, sizeof(salt)),
                           OSSL_PARAM_construct_utf8_string("pad-mode", padding, sizeof(padding)),
                           OSSL_PARAM_construct_size_t("digest-size", &digest_size),
                           OSSL_PARAM_construct_uint("nonce-type", &nonce),
                           OSSL_PARAM_construct_end()};
    OSSL_PARAM algorithm[] = {OSSL_PARAM_construct_octet_string("algorithm-id", id, sizeof(id)),
                              OSSL_PARAM_construct_end()};

    step(report, "get", EVP_PKEY_CTX_get_params(ctx, params));
    note(report, " (%s %s %s %s %zu %u)", digest, mgf1, salt, padding, digest_size, nonce);
    step(report, "id", EVP_PKEY_CTX_get_params(ctx, algorithm));
    if (OSSL_PARAM_modified(algorithm))
        note_bytes(report, id, algorithm[0].return_size);
}

static void note_list(REPORT *report, const char *name, const OSSL_PARAM *list)
{
    note(report, " %s:", name);
    for (; list != NULL && list->key != NULL; list++)
        note(report, " %s/%u", list->key, list->data_type);
}

/* An RSA signature always has its size; one by ECDSA any up to the greatest. */
static size_t seen_size(EVP_PKEY *key, size_t size)
{
    return EVP_PKEY_is_a(key, "EC") ? (size_t)EVP_PKEY_get_size(key) : size;
}

/* Keys with restrictions are not verified with a length that is to be found out. */
static int salt_made(int salt)
{
    if (salt == RSA_PSS_SALTLEN_AUTO)
        return RSA_PSS_SALTLEN_MAX;
    return salt == -4 ? RSA_PSS_SALTLEN_DIGEST : salt;
}

static void verify(EVP_PKEY *key, const SCHEME *made, const unsigned char *signature, size_t size)
{
    const SCHEME verified = {made->digest, made->padding, salt_made(made->salt), made->mgf1};
    const SCHEME *scheme = &verified;
    EVP_PKEY *public_key = public_of(key);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL;
    REPORT unused = {.length = 0};

    CHECK(EVP_DigestVerifyInit_ex(ctx, &pctx, scheme->digest, NULL, NULL, public_key, NULL) > 0);
    CHECK(set_scheme(&unused, pctx, scheme));
    CHECK(EVP_DigestVerify(ctx, signature, size, message, sizeof(message)) == 1);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(public_key);
}

/* One message, in two parts, with one size too small on the way. */
static int digest_sign(REPORT *report, EVP_PKEY *key, const SCHEME *scheme,
                       unsigned char signature[ROOM], size_t *size)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL;
    int ok = EVP_DigestSignInit_ex(ctx, &pctx, scheme->digest, NULL, NULL, key, NULL);
    size_t asked = 0;

    step(report, "init", ok);
    if (ok > 0 && set_scheme(report, pctx, scheme)) {
        note_params(report, pctx);
        note_list(report, "gettable", EVP_PKEY_CTX_gettable_params(pctx));
        note_list(report, "settable", EVP_PKEY_CTX_settable_params(pctx));
        step(report, "update", EVP_DigestSignUpdate(ctx, message, 7));
        step(report, "update", EVP_DigestSignUpdate(ctx, message + 7, sizeof(message) - 7));
        step(report, "size", EVP_DigestSignFinal(ctx, NULL, &asked));
        note(report, " %zu", asked);
        *size = ROOM;
        step(report, "final", ok = EVP_DigestSignFinal(ctx, signature, size));
    } else {
        ok = 0;
    }
    EVP_MD_CTX_free(ctx);
    if (ok <= 0)
        return 0;
    note(report, " %zu", seen_size(key, *size));
    return 1;
}

static void compare_digest_sign(EVP_PKEY *key, EVP_PKEY *plain, const SCHEME *scheme)
{
    unsigned char signature[ROOM], other[ROOM];
    size_t size = 0, other_size = 0;
    REPORT ours = {.length = 0}, theirs = {.length = 0};
    char what[256];
    int signed_by_us = digest_sign(&ours, key, scheme, signature, &size);
    int signed_by_them = digest_sign(&theirs, plain, scheme, other, &other_size);

    describe(what, sizeof(what), "digest-sign", scheme);
    if (signed_by_us)
        verify(key, scheme, signature, size);
    if (!signed_by_us && signed_by_them && !token_can(scheme)) {
        CHECK(ours.own_reason == BAD_INPUT || ours.own_reason == UNSUPPORTED);
        return;
    }
    same(what, &ours, &theirs);
}

static void test_digest_sign(EVP_PKEY *key, EVP_PKEY *plain)
{
    const int rsa = EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS");
    static const int paddings[] = {UNSET, RSA_PKCS1_PADDING, RSA_PKCS1_OAEP_PADDING, 99};

    for (size_t d = 0; d < COUNT(digests); d++)
        for (size_t p = 0; p < (rsa ? COUNT(paddings) : 1); p++)
            compare_digest_sign(key, plain,
                                &(SCHEME){digests[d], paddings[p], p == 1 ? 20 : UNSET, NULL});
    compare_digest_sign(key, plain, &(SCHEME){NULL, UNSET, UNSET, NULL});
    for (size_t d = 0; rsa && d < COUNT(digests); d++)
        for (size_t s = 0; s < COUNT(salts); s++)
            for (size_t m = 0; m < (d < 7 ? COUNT(mgf1s) : 1); m++)
                compare_digest_sign(
                    key, plain, &(SCHEME){digests[d], RSA_PKCS1_PSS_PADDING, salts[s], mgf1s[m]});
    for (size_t d = 0; rsa && d < COUNT(digests); d++)
        compare_digest_sign(key, plain, &(SCHEME){digests[d], RSA_PKCS1_PADDING, UNSET, NULL});
}

/* ---- signatures of digests
 * ----------------------------------------------------------------------- */

static int raw_sign(REPORT *report, EVP_PKEY *key, const SCHEME *scheme, size_t in_size,
                    size_t room, unsigned char signature[ROOM], size_t *size)
{
    static const unsigned char in[ROOM] = {0x11, 0x22, 0x33};
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    int ok = EVP_PKEY_sign_init(ctx);

    step(report, "init", ok);
    ok = ok > 0 && set_scheme(report, ctx, scheme);
    if (ok && scheme->digest != NULL) {
        OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string("digest", (char *)scheme->digest, 0),
            OSSL_PARAM_construct_end()};

        step(report, "digest", ok = EVP_PKEY_CTX_set_params(ctx, params) > 0);
    }
    if (ok) {
        note_params(report, ctx);
        step(report, "size", EVP_PKEY_sign(ctx, NULL, size, in, in_size));
        note(report, " %zu", *size);
        *size = room;
        step(report, "sign", ok = EVP_PKEY_sign(ctx, signature, size, in, in_size) > 0);
        /* A context can be used again. */
        if (ok) {
            *size = room;
            step(report, "again", ok = EVP_PKEY_sign(ctx, signature, size, in, in_size) > 0);
        }
    }
    if (ok && in_size > 0) {
        EVP_PKEY *public_key = public_of(key);
        EVP_PKEY_CTX *check = EVP_PKEY_CTX_new_from_pkey(NULL, public_key, NULL);
        REPORT unused = {.length = 0};

        CHECK(EVP_PKEY_verify_init(check) > 0 && set_scheme(&unused, check, scheme));
        if (scheme->digest != NULL)
            CHECK(EVP_PKEY_CTX_set_signature_md(check, EVP_get_digestbyname(scheme->digest)) > 0);
        CHECK(EVP_PKEY_verify(check, signature, *size, in, in_size) == 1);
        EVP_PKEY_CTX_free(check);
        EVP_PKEY_free(public_key);
    }
    if (ok)
        note(report, " %zu", seen_size(key, *size));
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

static void compare_raw_sign(EVP_PKEY *key, EVP_PKEY *plain, const SCHEME *scheme, size_t in_size,
                             size_t room)
{
    unsigned char signature[ROOM], other[ROOM];
    size_t size = 0, other_size = 0;
    REPORT ours = {.length = 0}, theirs = {.length = 0};
    char what[256], more[320];

    describe(what, sizeof(what), "sign", scheme);
    snprintf(more, sizeof(more), "%s of %zu bytes into %zu", what, in_size, room);
    raw_sign(&ours, key, scheme, in_size, room, signature, &size);
    raw_sign(&theirs, plain, scheme, in_size, room, other, &other_size);
    same(more, &ours, &theirs);
}

static void test_sign(EVP_PKEY *key, EVP_PKEY *plain)
{
    const size_t modulus = (size_t)EVP_PKEY_get_size(key);
    const size_t sizes[] = {0,  1,  16, 20, 28,           32,           36,           48,
                            64, 65, 66, 72, modulus - 12, modulus - 11, modulus - 10, modulus};
    static const char *const some[] = {NULL, "SHA1", "SHA256", "SHA512", "MD5-SHA1"};
    static const int paddings[] = {UNSET, RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING};
    const int rsa = !EVP_PKEY_is_a(key, "EC");

    for (size_t d = 0; d < COUNT(some); d++)
        for (size_t p = 0; p < (rsa ? COUNT(paddings) : 1); p++)
            for (size_t s = 0; s < COUNT(sizes); s++) {
                const SCHEME scheme = {some[d], paddings[p], UNSET, NULL};

                if (d == 4 && paddings[p] == RSA_PKCS1_PSS_PADDING)
                    continue;
                compare_raw_sign(key, plain, &scheme, sizes[s], ROOM);
                if (sizes[s] == 32)
                    compare_raw_sign(key, plain, &scheme, sizes[s], modulus - 1);
            }
}

/* ---- contexts
 * ------------------------------------------------------------------------------------ */

static const char *usual_digest(EVP_PKEY *key)
{
    (void)key;
    return "SHA256";
}

static int verifies(EVP_PKEY *key, const unsigned char *signature, size_t size,
                    const unsigned char *data, size_t data_size)
{
    EVP_PKEY *public_key = public_of(key);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok =
        EVP_DigestVerifyInit_ex(ctx, NULL, usual_digest(key), NULL, NULL, public_key, NULL) > 0 &&
        EVP_DigestVerify(ctx, signature, size, data, data_size) == 1;

    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(public_key);
    ERR_clear_error();
    return ok;
}

/* Copies go their own way, used contexts begin anew, and an ended one says so. */
static void use_contexts(REPORT *report, EVP_PKEY *key)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new(), *copy = EVP_MD_CTX_new();
    unsigned char signature[ROOM];
    size_t size = ROOM;

    step(report, "init", EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL));
    step(report, "update", EVP_DigestSignUpdate(ctx, message, 5));
    step(report, "copy", EVP_MD_CTX_copy_ex(copy, ctx));
    step(report, "update", EVP_DigestSignUpdate(ctx, message, 6));
    step(report, "update", EVP_DigestSignUpdate(copy, message + 5, 3));
    step(report, "final", EVP_DigestSignFinal(copy, signature, &size));
    note(report, " %d", verifies(key, signature, size, message, 8));
    /* It may go on, since libcrypto signs with a copy. */
    size = ROOM;
    step(report, "update", EVP_DigestSignUpdate(copy, message + 8, 1));
    step(report, "final", EVP_DigestSignFinal(copy, signature, &size));
    size = ROOM;
    step(report, "final", EVP_DigestSignFinal(ctx, signature, &size));
    note(report, " %d", verifies(key, signature, size, message, 8));
    step(report, "again", EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL));
    size = ROOM;
    step(report, "sign", EVP_DigestSign(ctx, signature, &size, message, 9));
    note(report, " %d", verifies(key, signature, size, message, 9));
    step(report, "reuse", EVP_DigestSignInit_ex(ctx, NULL, NULL, NULL, NULL, NULL, NULL));
    size = ROOM;
    step(report, "sign", EVP_DigestSign(ctx, signature, &size, message, 10));
    note(report, " %d", verifies(key, signature, size, message, 10));
    size = 10;
    step(report, "small", EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL));
    step(report, "sign", EVP_DigestSign(ctx, signature, &size, message, 10));
    step(report, "flag", EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL));
    EVP_MD_CTX_set_flags(ctx, EVP_MD_CTX_FLAG_FINALISE);
    size = ROOM;
    step(report, "final", EVP_DigestSignFinal(ctx, signature, &size));
    step(report, "update", EVP_DigestSignUpdate(ctx, message, 1));
    size = ROOM;
    step(report, "final", EVP_DigestSignFinal(ctx, signature, &size));
    EVP_MD_CTX_free(copy);
    EVP_MD_CTX_free(ctx);
}

/* The same key verifies and signs in one context. */
static void turn_contexts(REPORT *report, EVP_PKEY *key)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL), *copy;
    unsigned char digest[32] = {7}, signature[ROOM];
    size_t size = ROOM;

    step(report, "unready", EVP_PKEY_sign(ctx, signature, &size, digest, sizeof(digest)));
    step(report, "init", EVP_PKEY_sign_init(ctx));
    step(report, "md", EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()));
    copy = EVP_PKEY_CTX_dup(ctx);
    step(report, "sign", EVP_PKEY_sign(ctx, signature, &size, digest, sizeof(digest)));
    step(report, "verify", EVP_PKEY_verify_init(ctx));
    step(report, "md", EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()));
    step(report, "good", EVP_PKEY_verify(ctx, signature, size, digest, sizeof(digest)));
    digest[3] ^= 1;
    step(report, "bad", EVP_PKEY_verify(ctx, signature, size, digest, sizeof(digest)));
    size = ROOM;
    step(report, "sign", EVP_PKEY_sign(copy, signature, &size, digest, sizeof(digest)));
    step(report, "good", EVP_PKEY_verify(ctx, signature, size, digest, sizeof(digest)));
    EVP_PKEY_CTX_free(copy);
    EVP_PKEY_CTX_free(ctx);
}

static void test_contexts(EVP_PKEY *key, EVP_PKEY *plain)
{
    REPORT ours = {.length = 0}, theirs = {.length = 0};

    if (EVP_PKEY_is_a(key, "RSA-PSS"))
        return;
    use_contexts(&ours, key);
    use_contexts(&theirs, plain);
    same("contexts", &ours, &theirs);
    ours.length = theirs.length = 0;
    turn_contexts(&ours, key);
    turn_contexts(&theirs, plain);
    same("changing contexts", &ours, &theirs);
}

/* ---- what is not offered
 * -------------------------------------------------------------------------- */

static int last_reason(void)
{
    int reason = ERR_GET_REASON(ERR_peek_last_error());

    ERR_clear_error();
    return reason;
}

static void refuse_rsa(EVP_PKEY *key)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);

    CHECK(EVP_PKEY_sign_init(ctx) > 0);
    CHECK(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING) <= 0);
    CHECK(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_X931_PADDING) <= 0);
    CHECK(EVP_PKEY_CTX_ctrl_str(ctx, "rsa_padding_mode", "x931") <= 0);
    CHECK(ERR_peek_error() != 0);
    ERR_clear_error();
    EVP_PKEY_CTX_free(ctx);
}

static void refuse_ec(EVP_PKEY *key, EVP_PKEY *plain)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    unsigned type = 1;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_uint("nonce-type", &type),
                           OSSL_PARAM_construct_end()};

    (void)plain;
    CHECK(EVP_PKEY_derive_init(ctx) <= 0);
    CHECK(last_reason() == UNSUPPORTED);
    CHECK(EVP_PKEY_sign_init(ctx) > 0);
    CHECK(EVP_PKEY_CTX_set_params(ctx, params) <= 0 || OPENSSL_version_minor() < 2);
    ERR_clear_error();
    EVP_PKEY_CTX_free(ctx);
}

static void test_refused(EVP_PKEY *key, EVP_PKEY *plain)
{
    OSSL_PARAM *params = NULL;

    if (EVP_PKEY_is_a(key, "EC"))
        refuse_ec(key, plain);
    else
        refuse_rsa(key);
    CHECK(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &params) != 1 && params == NULL);
    ERR_clear_error();
    CHECK(EVP_PKEY2PKCS8(key) == NULL);
    CHECK(last_reason() == NOT_PERMITTED);
}

/* What programs ask of every key. */
static void test_key(EVP_PKEY *key, EVP_PKEY *plain)
{
    EVP_PKEY *public_key = public_of(key), *copy = EVP_PKEY_dup(key);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    char name[64], other[64];

    CHECK(strcmp(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(key)), "trustpoint") == 0);
    CHECK(copy != NULL && EVP_PKEY_eq(key, copy) == 1);
    CHECK(EVP_PKEY_eq(key, public_key) == 1 && EVP_PKEY_eq(public_key, key) == 1);
    CHECK(EVP_PKEY_eq(key, plain) != 1);
    ERR_clear_error();
    CHECK(EVP_PKEY_get_bits(key) == EVP_PKEY_get_bits(plain));
    CHECK(EVP_PKEY_get_size(key) == EVP_PKEY_get_size(plain));
    CHECK(EVP_PKEY_get_security_bits(key) == EVP_PKEY_get_security_bits(plain));
    CHECK(EVP_PKEY_get_default_digest_name(key, name, sizeof(name)) ==
          EVP_PKEY_get_default_digest_name(plain, other, sizeof(other)));
    CHECK(strcmp(name, other) == 0);
    CHECK(EVP_PKEY_check(ctx) == 1 && EVP_PKEY_public_check(ctx) == 1);
    CHECK(ERR_peek_error() == 0);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(public_key);
    test_contexts(copy, plain);
    EVP_PKEY_free(copy);
}

/* ---- decryption
 * ------------------------------------------------------------------------------------ */

typedef struct cipher {
    int padding;
    const char *digest;
    const char *mgf1;
    const char *label;
} CIPHER;

static int set_cipher(REPORT *report, EVP_PKEY_CTX *ctx, const CIPHER *cipher)
{
    int ok = 1;

    if (cipher->padding != UNSET)
        step(report, "padding", ok = EVP_PKEY_CTX_set_rsa_padding(ctx, cipher->padding));
    if (ok > 0 && cipher->digest != NULL)
        step(report, "oaep", ok = EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, cipher->digest, NULL));
    if (ok > 0 && cipher->mgf1 != NULL)
        step(report, "mgf1", ok = EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, cipher->mgf1, NULL));
    if (ok > 0 && cipher->label != NULL)
        step(report, "label",
             ok = EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, OPENSSL_strdup(cipher->label),
                                                   (int)strlen(cipher->label)));
    return ok > 0;
}

/* With the public half by the default provider; 0 if it can't. */
static size_t encrypt(EVP_PKEY *key, const CIPHER *cipher, const unsigned char *in, size_t in_size,
                      unsigned char out[ROOM])
{
    EVP_PKEY *public_key = public_of(key);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, public_key, NULL);
    size_t size = ROOM;
    REPORT unused = {.length = 0};

    CHECK(EVP_PKEY_encrypt_init(ctx) > 0);
    if (!set_cipher(&unused, ctx, cipher) || EVP_PKEY_encrypt(ctx, out, &size, in, in_size) <= 0)
        size = 0;
    ERR_clear_error();
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(public_key);
    return size;
}

static void note_decryption(REPORT *report, EVP_PKEY_CTX *ctx, const unsigned char *in,
                            size_t in_size, size_t room)
{
    unsigned char out[ROOM];
    size_t size = 0;

    step(report, "size", EVP_PKEY_decrypt(ctx, NULL, &size, in, in_size));
    note(report, " %zu", size);
    size = room;
    memset(out, 0, sizeof(out));
    step(report, "decrypt", EVP_PKEY_decrypt(ctx, out, &size, in, in_size));
    note(report, " %zu", size);
    if (size <= 64)
        note_bytes(report, out, size);
}

static void decrypt(REPORT *report, EVP_PKEY *key, const CIPHER *cipher, const unsigned char *in,
                    size_t in_size, size_t room)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);

    step(report, "init", EVP_PKEY_decrypt_init(ctx));
    note_list(report, "gettable", EVP_PKEY_CTX_gettable_params(ctx));
    note_list(report, "settable", EVP_PKEY_CTX_settable_params(ctx));
    if (set_cipher(report, ctx, cipher))
        note_decryption(report, ctx, in, in_size, room);
    EVP_PKEY_CTX_free(ctx);
}

static void compare_decrypt(EVP_PKEY *key, EVP_PKEY *plain, const CIPHER *made,
                            const CIPHER *cipher, size_t size, size_t room)
{
    static const unsigned char secret[ROOM] = "forty bytes of secret, or less, or more";
    unsigned char ours[ROOM], theirs[ROOM];
    size_t ours_size = encrypt(key, made, secret, size, ours);
    size_t theirs_size = encrypt(plain, made, secret, size, theirs);
    REPORT a = {.length = 0}, b = {.length = 0};
    char what[256];

    CHECK(ours_size == theirs_size);
    if (ours_size == 0)
        return;
    snprintf(what, sizeof(what), "decrypt %d %s %s %s, made %d, %zu bytes into %zu",
             cipher->padding, cipher->digest, cipher->mgf1, cipher->label, made->padding, size,
             room);
    decrypt(&a, key, cipher, ours, ours_size, room);
    decrypt(&b, plain, cipher, theirs, theirs_size, room);
    same(what, &a, &b);
}

/* What nobody has encrypted. */
static void compare_garbage(EVP_PKEY *key, EVP_PKEY *plain, const CIPHER *cipher)
{
    const size_t modulus = (size_t)EVP_PKEY_get_size(key);
    const size_t sizes[] = {1, modulus - 1, modulus, modulus + 1};
    static const unsigned char fills[] = {0x00, 0x42, 0xff};

    for (size_t s = 0; s < COUNT(sizes); s++)
        for (size_t f = 0; f < COUNT(fills); f++) {
            unsigned char in[ROOM];
            REPORT a = {.length = 0}, b = {.length = 0};
            char what[128];

            memset(in, fills[f], sizes[s]);
            /* What an implicit rejection puts in its place depends on the key. */
            if (cipher->padding == RSA_PKCS1_PADDING && OPENSSL_version_minor() >= 2)
                continue;
            snprintf(what, sizeof(what), "garbage %d: %zu bytes of %02x", cipher->padding, sizes[s],
                     fills[f]);
            decrypt(&a, key, cipher, in, sizes[s], ROOM);
            decrypt(&b, plain, cipher, in, sizes[s], ROOM);
            if (a.own_reason == 0 || fills[f] != 0xff)
                same(what, &a, &b);
            else
                CHECK(strstr(b.text, "decrypt=1") == NULL);
        }
}

static void test_decrypt(EVP_PKEY *key, EVP_PKEY *plain)
{
    const size_t modulus = (size_t)EVP_PKEY_get_size(key);
    const CIPHER pkcs1 = {RSA_PKCS1_PADDING, NULL, NULL, NULL};
    const CIPHER none = {RSA_NO_PADDING, NULL, NULL, NULL};
    const CIPHER unset = {UNSET, NULL, NULL, NULL};
    const CIPHER pss = {RSA_PKCS1_PSS_PADDING, NULL, NULL, NULL};
    const size_t sizes[] = {0, 1, 32, 48, modulus - 11, modulus};
    static const char *const labels[] = {NULL, "label", "a longer label of some size"};

    for (size_t s = 0; s < COUNT(sizes); s++) {
        compare_decrypt(key, plain, &pkcs1, &pkcs1, sizes[s], ROOM);
        compare_decrypt(key, plain, &pkcs1, &unset, sizes[s], modulus);
        compare_decrypt(key, plain, &pkcs1, &pkcs1, sizes[s], modulus - 1);
        compare_decrypt(key, plain, &none, &none, sizes[s], ROOM);
    }
    compare_decrypt(key, plain, &pkcs1, &pss, 32, ROOM);
    for (size_t d = 0; d < COUNT(digests); d++)
        for (size_t m = 0; m < COUNT(mgf1s); m++)
            for (size_t l = 0; l < COUNT(labels); l++) {
                const CIPHER oaep = {RSA_PKCS1_OAEP_PADDING, digests[d], mgf1s[m], labels[l]};

                compare_decrypt(key, plain, &oaep, &oaep, 32, ROOM);
            }
    {
        const CIPHER oaep = {RSA_PKCS1_OAEP_PADDING, NULL, NULL, NULL};
        const CIPHER labelled = {RSA_PKCS1_OAEP_PADDING, "SHA256", NULL, "label"};

        compare_decrypt(key, plain, &oaep, &oaep, 32, ROOM);
        compare_decrypt(key, plain, &labelled, &oaep, 32, ROOM);
        compare_decrypt(key, plain, &oaep, &labelled, 32, ROOM);
        compare_decrypt(key, plain, &pkcs1, &oaep, 32, ROOM);
        compare_garbage(key, plain, &oaep);
    }
    compare_garbage(key, plain, &pkcs1);
}

/* TLS 1.2's RSA key exchange: a block that is not what it should be gives random bytes, never an
 * error. */
static void decrypt_tls(REPORT *report, EVP_PKEY *key, const unsigned char *block, size_t size,
                        unsigned version, unsigned negotiated, int expected)
{
    const CIPHER pkcs1 = {RSA_PKCS1_PADDING, NULL, NULL, NULL};
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    int padding = RSA_PKCS1_WITH_TLS_PADDING;
    unsigned char in[ROOM], out[48] = {0};
    size_t in_size = encrypt(key, &pkcs1, block, size, in), out_size = sizeof(out);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_int("pad-mode", &padding),
                           OSSL_PARAM_construct_uint("tls-client-version", &version),
                           OSSL_PARAM_construct_end(), OSSL_PARAM_construct_end()};

    CHECK(in_size > 0);
    if (version == 0)
        params[1] = OSSL_PARAM_construct_end();
    else if (negotiated != 0)
        params[2] = OSSL_PARAM_construct_uint("tls-negotiated-version", &negotiated);
    step(report, "init", EVP_PKEY_decrypt_init(ctx));
    step(report, "params", EVP_PKEY_CTX_set_params(ctx, params));
    step(report, "decrypt", EVP_PKEY_decrypt(ctx, out, &out_size, in, in_size));
    note(report, " %zu same=%d", out_size, memcmp(out, block, 48) == 0);
    CHECK((memcmp(out, block, 48) == 0) == expected);
    out_size = 47;
    step(report, "small", EVP_PKEY_decrypt(ctx, out, &out_size, in, in_size));
    EVP_PKEY_CTX_free(ctx);
}

static void test_tls_padding(EVP_PKEY *key, EVP_PKEY *plain)
{
    unsigned char block[ROOM] = {3, 3, 1, 2, 3};
    static const struct {
        size_t size;
        unsigned version, negotiated;
        int expected;
    } cases[] = {{48, 0x303, 0, 1}, {48, 0x302, 0, 0},     {48, 0x302, 0x303, 1},
                 {47, 0x303, 0, 0}, {49, 0x303, 0, 0},     {0, 0x303, 0, 0},
                 {48, 0, 0, 0},     {48, 0x301, 0x302, 0}, {48, 0x303, 0x301, 1}};

    for (size_t i = 0; i < COUNT(cases); i++) {
        REPORT a = {.length = 0}, b = {.length = 0};
        char what[64];

        snprintf(what, sizeof(what), "TLS padding, case %zu", i);
        decrypt_tls(&a, key, block, cases[i].size, cases[i].version, cases[i].negotiated,
                    cases[i].expected);
        decrypt_tls(&b, plain, block, cases[i].size, cases[i].version, cases[i].negotiated,
                    cases[i].expected);
        same(what, &a, &b);
    }
}

/* From OpenSSL 3.2 on: no error for a bad padding, but always the same random message. It is
 * printed, so that processes can be compared. */
static void test_rejection(EVP_PKEY *key, EVP_PKEY *plain)
{
    const CIPHER none = {RSA_NO_PADDING, NULL, NULL, NULL};
    const CIPHER pkcs1 = {RSA_PKCS1_PADDING, NULL, NULL, NULL};
    const size_t modulus = (size_t)EVP_PKEY_get_size(key);
    unsigned char block[ROOM] = {0, 1, 2, 3}, in[ROOM];
    REPORT first = {.length = 0}, second = {.length = 0}, other = {.length = 0};

    (void)plain;
    CHECK(encrypt(key, &none, block, modulus, in) == modulus);
    decrypt(&first, key, &pkcs1, in, modulus, ROOM);
    decrypt(&second, key, &pkcs1, in, modulus, ROOM);
    block[20] = 1;
    CHECK(encrypt(key, &none, block, modulus, in) == modulus);
    decrypt(&other, key, &pkcs1, in, modulus, ROOM);
    CHECK(strcmp(first.text, second.text) == 0);
    CHECK((strstr(first.text, "decrypt=1") != NULL) == (OPENSSL_version_minor() >= 2));
    CHECK((strcmp(first.text, other.text) != 0) == (OPENSSL_version_minor() >= 2));
    printf("%s\n", first.text);
}

/* ---- TLS
 * ------------------------------------------------------------------------------------------- */

static int password(char *buffer, int size, int writing, void *arg)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static X509 *certificate(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    EVP_PKEY *public_key = public_of(key);

    CHECK(cert != NULL && X509_set_version(cert, X509_VERSION_3));
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(cert), 1));
    CHECK(X509_gmtime_adj(X509_getm_notBefore(cert), -60) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(cert), 3600) != NULL);
    CHECK(X509_set_pubkey(cert, public_key));
    CHECK(X509_sign(cert, key, EVP_sha256()) > 0);
    CHECK(X509_verify(cert, public_key) == 1);
    CHECK(X509_check_private_key(cert, key) == 1);
    EVP_PKEY_free(public_key);
    return cert;
}

static SSL_CTX *tls_context(const SSL_METHOD *method, EVP_PKEY *key, X509 *cert, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(method);

    CHECK(ctx != NULL);
    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_default_passwd_cb(ctx, password);
    CHECK(SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1);
    CHECK(SSL_CTX_check_private_key(ctx) == 1);
    CHECK(SSL_CTX_set_min_proto_version(ctx, version) &&
          SSL_CTX_set_max_proto_version(ctx, version));
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert));
    return ctx;
}

/* Both sides show the certificate and sign with the key. */
static void handshake(EVP_PKEY *key, X509 *cert, int version, const char *ciphers,
                      const char *algorithms)
{
    SSL_CTX *server_ctx = tls_context(TLS_server_method(), key, cert, version);
    SSL_CTX *client_ctx = tls_context(TLS_client_method(), key, cert, version);
    SSL *server, *client;
    BIO *a = NULL, *b = NULL;
    int server_done = 0, client_done = 0;

    SSL_CTX_set_verify(server_ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_verify(client_ctx, SSL_VERIFY_PEER, NULL);
    if (ciphers != NULL)
        CHECK(SSL_CTX_set_cipher_list(client_ctx, ciphers) &&
              SSL_CTX_set_cipher_list(server_ctx, ciphers));
    if (algorithms != NULL)
        CHECK(SSL_CTX_set1_sigalgs_list(client_ctx, algorithms) &&
              SSL_CTX_set1_client_sigalgs_list(server_ctx, algorithms));
    server = SSL_new(server_ctx);
    client = SSL_new(client_ctx);
    CHECK(BIO_new_bio_pair(&a, 0, &b, 0));
    SSL_set_bio(server, a, a);
    SSL_set_bio(client, b, b);
    SSL_set_accept_state(server);
    SSL_set_connect_state(client);
    for (int i = 0; i < 20 && (server_done != 1 || client_done != 1); i++) {
        client_done = SSL_do_handshake(client);
        server_done = SSL_do_handshake(server);
    }
    if (server_done != 1 || client_done != 1) {
        printf("no handshake: version %x, ciphers %s, algorithms %s\n", version, ciphers,
               algorithms);
        ERR_print_errors_fp(stdout);
        differences++;
    }
    ERR_clear_error();
    compared++;
    SSL_free(server);
    SSL_free(client);
    SSL_CTX_free(server_ctx);
    SSL_CTX_free(client_ctx);
}

static void test_tls(EVP_PKEY *key, EVP_PKEY *plain)
{
    X509 *cert = certificate(key);

    (void)plain;
    handshake(key, cert, TLS1_3_VERSION, NULL, NULL);
    handshake(key, cert, TLS1_2_VERSION, NULL, NULL);
    if (EVP_PKEY_is_a(key, "RSA")) {
        handshake(key, cert, TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", "RSA+SHA256");
        handshake(key, cert, TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", "RSA+SHA1");
        handshake(key, cert, TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", "RSA-PSS+SHA512");
        handshake(key, cert, TLS1_2_VERSION, "AES256-GCM-SHA384", NULL);
        handshake(key, cert, TLS1_2_VERSION, "AES128-SHA", NULL);
        handshake(key, cert, TLS1_1_VERSION, "ECDHE-RSA-AES128-SHA", NULL);
        handshake(key, cert, TLS1_1_VERSION, "AES128-SHA", NULL);
        handshake(key, cert, TLS1_VERSION, "ECDHE-RSA-AES128-SHA", NULL);
    } else if (EVP_PKEY_is_a(key, "EC")) {
        handshake(key, cert, TLS1_1_VERSION, "ECDHE-ECDSA-AES128-SHA", NULL);
        handshake(key, cert, TLS1_VERSION, "ECDHE-ECDSA-AES128-SHA", NULL);
    }
    X509_free(cert);
}

/* ---- processes
 * --------------------------------------------------------------------------------------- */

static void sign_once(EVP_PKEY *key)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char signature[ROOM];
    size_t size = ROOM;

    CHECK(EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL) > 0);
    CHECK(EVP_DigestSign(ctx, signature, &size, message, sizeof(message)) > 0);
    CHECK(EVP_PKEY_is_a(key, "RSA-PSS") ||
          verifies(key, signature, size, message, sizeof(message)));
    EVP_MD_CTX_free(ctx);
}

/* Children use the parent's key, before and after the parent has. */
static void test_fork(EVP_PKEY *key, EVP_PKEY *plain)
{
    int status;

    (void)plain;
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0) {
            sign_once(key);
            sign_once(key);
            EVP_PKEY_free(key);
            exit(0);
        }
        if (i == 1)
            sign_once(key);
    }
    for (int i = 0; i < 4; i++)
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    sign_once(key);
}

/* ---- which
 * -------------------------------------------------------------------------------------------- */

static const struct test {
    const char *name;
    void (*run)(EVP_PKEY *key, EVP_PKEY *plain);
} tests[] = {
    {"key", test_key},
    {"digest-sign", test_digest_sign},
    {"sign", test_sign},
    {"contexts", test_contexts},
    {"refused", test_refused},
    {"decrypt", test_decrypt},
    {"tls-padding", test_tls_padding},
    {"rejection", test_rejection},
    {"tls", test_tls},
    {"fork", test_fork},
};

static EVP_PKEY *read_file(const char *path)
{
    BIO *in = BIO_new_file(path, "r");
    EVP_PKEY *key = in == NULL ? NULL : PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);

    CHECK(key != NULL);
    BIO_free(in);
    return key;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 4 && i < COUNT(tests); i++)
        if (strcmp(argv[1], tests[i].name) == 0) {
            EVP_PKEY *key = load(argv[2]), *plain = read_file(argv[3]);

            tests[i].run(key, plain);
            EVP_PKEY_free(key);
            EVP_PKEY_free(plain);
            printf("%d compared, %d different\n", compared, differences);
            return differences != 0;
        }
    fprintf(stderr, "usage: token_api TEST URI FILE\n");
    return 2;
}
