/*
 * provider_api.c - what programs do with the provider's keys through OpenSSL's C interface
 *
 * Called by provider_api.sh: provider_api TEST URI [FILE...]. Exit code 0 when everything held; 1
 * with a line that says what did not. OPENSSL_CONF names the configuration.
 */
/* Old programs ask for the key's old structure, and must not get it. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/conf.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/pemerr.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <openssl/x509.h>

#define THREADS 8
#define CHILDREN 4
#define NOT_PERMITTED 11 /* TPKS_NOT_PERMITTED: reason codes are stable */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d does not hold: %s\n", __LINE__, #condition);                           \
            ERR_print_errors_fp(stdout);                                                           \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static const unsigned char data[] = "what is signed";

/* ---- tools -------------------------------------------------------------------------------------
 */

/* The first object of that type, NULL if there is none; ends although the store is in error. */
static void *load(OSSL_LIB_CTX *libctx, const char *uri, int type)
{
    OSSL_STORE_CTX *store = OSSL_STORE_open_ex(uri, libctx, NULL, NULL, NULL, NULL, NULL, NULL);
    void *found = NULL;

    if (store == NULL)
        return NULL;
    CHECK(OSSL_STORE_expect(store, type));
    while (found == NULL && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);

        if (info != NULL && type == OSSL_STORE_INFO_PKEY)
            found = OSSL_STORE_INFO_get1_PKEY(info);
        else if (info != NULL && type == OSSL_STORE_INFO_PUBKEY)
            found = OSSL_STORE_INFO_get1_PUBKEY(info);
        else if (info != NULL && type == OSSL_STORE_INFO_CERT)
            found = OSSL_STORE_INFO_get1_CERT(info);
        OSSL_STORE_INFO_free(info);
    }
    OSSL_STORE_close(store);
    return found;
}

static EVP_PKEY *load_key(OSSL_LIB_CTX *libctx, const char *uri)
{
    EVP_PKEY *key = load(libctx, uri, OSSL_STORE_INFO_PKEY);

    CHECK(key != NULL);
    return key;
}

static EVP_PKEY *read_file(OSSL_LIB_CTX *libctx, const char *path)
{
    BIO *in = BIO_new_file(path, "r");
    EVP_PKEY *key;

    CHECK(in != NULL);
    key = PEM_read_bio_PrivateKey_ex(in, NULL, NULL, NULL, libctx, NULL);
    BIO_free(in);
    return key;
}

static const char *digest_of(EVP_PKEY *key)
{
    return EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448") ? NULL : "SHA256";
}

static int sign(OSSL_LIB_CTX *libctx, EVP_PKEY *key, unsigned char *signature, size_t *size)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx != NULL &&
             EVP_DigestSignInit_ex(ctx, NULL, digest_of(key), libctx, NULL, key, NULL) > 0 &&
             EVP_DigestSign(ctx, signature, size, data, sizeof(data)) > 0;

    EVP_MD_CTX_free(ctx);
    return ok;
}

static int verify(OSSL_LIB_CTX *libctx, EVP_PKEY *key, const unsigned char *signature, size_t size)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx != NULL &&
             EVP_DigestVerifyInit_ex(ctx, NULL, digest_of(key), libctx, NULL, key, NULL) > 0 &&
             EVP_DigestVerify(ctx, signature, size, data, sizeof(data)) > 0;

    EVP_MD_CTX_free(ctx);
    return ok;
}

/* The key's public half as a key of the default provider. */
static EVP_PKEY *public_of(OSSL_LIB_CTX *libctx, EVP_PKEY *key)
{
    unsigned char *der = NULL;
    const unsigned char *at;
    int size = i2d_PUBKEY(key, &der);
    EVP_PKEY *public_key;

    CHECK(size > 0);
    at = der;
    public_key = d2i_PUBKEY_ex(NULL, &at, size, libctx, NULL);
    CHECK(public_key != NULL);
    OPENSSL_free(der);
    return public_key;
}

static void works(OSSL_LIB_CTX *libctx, EVP_PKEY *key)
{
    unsigned char signature[1024];
    size_t size = sizeof(signature);
    EVP_PKEY *public_key = public_of(libctx, key);

    CHECK(sign(libctx, key, signature, &size));
    CHECK(verify(libctx, public_key, signature, size));
    CHECK(verify(libctx, key, signature, size));
    signature[size / 2] ^= 1;
    CHECK(!verify(libctx, public_key, signature, size));
    ERR_clear_error();
    EVP_PKEY_free(public_key);
}

static const char *provider_of(EVP_PKEY *key)
{
    return OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(key));
}

/* A library context of its own with these providers in this order. */
static OSSL_LIB_CTX *context_with(const char *first, const char *second, OSSL_PROVIDER *loaded[2])
{
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();

    CHECK(libctx != NULL);
    CHECK(OSSL_PROVIDER_set_default_search_path(libctx, getenv("MODULES")));
    loaded[0] = OSSL_PROVIDER_load(libctx, first);
    loaded[1] = OSSL_PROVIDER_load(libctx, second);
    CHECK(loaded[0] != NULL && loaded[1] != NULL);
    return libctx;
}

static void end_context(OSSL_LIB_CTX *libctx, OSSL_PROVIDER *loaded[2])
{
    OSSL_PROVIDER_unload(loaded[0]);
    OSSL_PROVIDER_unload(loaded[1]);
    OSSL_LIB_CTX_free(libctx);
}

/* ---- one key --------------------------------------------------------------------------------- */

static void test_quiet(const char *uri, char **files)
{
    EVP_PKEY *key;

    (void)files;
    ERR_raise(ERR_LIB_USER, 42);
    errno = 4711;
    key = load_key(NULL, uri);
    CHECK(errno == 4711);
    CHECK(ERR_GET_REASON(ERR_get_error()) == 42);
    CHECK(ERR_peek_error() == 0);
    works(NULL, key);
    CHECK(ERR_peek_error() == 0);
    EVP_PKEY_free(key);
}

static void test_dup(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri), *copy = EVP_PKEY_dup(key), *parameters;

    (void)files;
    CHECK(copy != NULL && EVP_PKEY_eq(key, copy) == 1);
    EVP_PKEY_free(key);
    works(NULL, copy);
    if (EVP_PKEY_is_a(copy, "EC")) {
        parameters = EVP_PKEY_new();
        CHECK(EVP_PKEY_copy_parameters(parameters, copy));
        CHECK(EVP_PKEY_get_raw_private_key(parameters, NULL, &(size_t){0}) <= 0);
        EVP_PKEY_free(parameters);
    }
    works(NULL, copy);
    EVP_PKEY_free(copy);
}

static void test_match(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri), *public_key = public_of(NULL, key);
    EVP_PKEY *other = read_file(NULL, files[0]), *half = load(NULL, uri, OSSL_STORE_INFO_PUBKEY);
    X509 *certificate = load(NULL, uri, OSSL_STORE_INFO_CERT);

    CHECK(certificate != NULL && X509_check_private_key(certificate, key) == 1);
    CHECK(EVP_PKEY_eq(key, public_key) == 1 && EVP_PKEY_eq(public_key, key) == 1);
    CHECK(half != NULL && EVP_PKEY_eq(key, half) == 1 && EVP_PKEY_eq(half, public_key) == 1);
    CHECK(EVP_PKEY_eq(key, other) != 1 && EVP_PKEY_eq(other, key) != 1);
    CHECK(X509_check_private_key(certificate, other) != 1);
    ERR_clear_error();
    works(NULL, other);
    X509_free(certificate);
    EVP_PKEY_free(half);
    EVP_PKEY_free(other);
    EVP_PKEY_free(public_key);
    EVP_PKEY_free(key);
}

static const char *const private_names[] = {
    "priv", "d", "rsa-factor1", "rsa-factor2", "rsa-exponent1", "rsa-exponent2", "rsa-coefficient1",
};

static void no_private_parameter(EVP_PKEY *key, const char *name)
{
    unsigned char buffer[2048];
    size_t size = 0;
    BIGNUM *number = NULL;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(name, buffer, sizeof(buffer)),
                           OSSL_PARAM_construct_end()};

    memset(buffer, 0xAB, sizeof(buffer));
    CHECK(EVP_PKEY_get_bn_param(key, name, &number) != 1 && number == NULL);
    CHECK(EVP_PKEY_get_octet_string_param(key, name, buffer, sizeof(buffer), &size) != 1);
    EVP_PKEY_get_params(key, params);
    CHECK(!OSSL_PARAM_modified(params));
    for (size_t i = 0; i < sizeof(buffer); i++)
        CHECK(buffer[i] == 0xAB);
}

static void test_export(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri);
    OSSL_PARAM *params = NULL;
    unsigned char *der = NULL;
    size_t size = 0;

    (void)files;
    CHECK(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &params) != 1 && params == NULL);
    CHECK(EVP_PKEY_todata(key, EVP_PKEY_PUBLIC_KEY, &params) == 1);
    for (size_t i = 0; i < sizeof(private_names) / sizeof(private_names[0]); i++) {
        CHECK(OSSL_PARAM_locate(params, private_names[i]) == NULL);
        no_private_parameter(key, private_names[i]);
    }
    OSSL_PARAM_free(params);
    CHECK(EVP_PKEY_get_raw_private_key(key, NULL, &size) != 1);
    ERR_clear_error();
    CHECK(EVP_PKEY2PKCS8(key) == NULL);
    CHECK(ERR_GET_REASON(ERR_peek_error()) == NOT_PERMITTED);
    ERR_clear_error();
    if (EVP_PKEY_is_a(key, "RSA"))
        CHECK(EVP_PKEY_get0_RSA(key) == NULL);
    if (EVP_PKEY_is_a(key, "EC"))
        CHECK(EVP_PKEY_get0_EC_KEY(key) == NULL);
    ERR_clear_error();
    OPENSSL_free(der);
    works(NULL, key);
    EVP_PKEY_free(key);
}

/* Apache writes every key as DER and reads it back. */
static void test_der(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri), *again;
    unsigned char *der = NULL;
    const unsigned char *at;
    int size = i2d_PrivateKey(key, &der);

    (void)files;
    CHECK(size > 0 && size <= 1024);
    at = der;
    again = d2i_AutoPrivateKey(NULL, &at, size);
    CHECK(again != NULL && at == der + size);
    CHECK(EVP_PKEY_eq(key, again) == 1);
    works(NULL, again);
    EVP_PKEY_free(again);
    at = der;
    if (EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "EC")) {
        again = d2i_PrivateKey(EVP_PKEY_get_id(key), NULL, &at, size);
        CHECK(again != NULL && at == der + size);
        works(NULL, again);
        EVP_PKEY_free(again);
    }
    OPENSSL_free(der);
    EVP_PKEY_free(key);
}

static void test_fixed(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri), *other = read_file(NULL, files[0]);
    unsigned char *point = NULL;
    size_t size = EVP_PKEY_get1_encoded_public_key(other, &point);

    CHECK(size > 0);
    CHECK(EVP_PKEY_set1_encoded_public_key(key, point, size) != 1);
    ERR_clear_error();
    works(NULL, key);
    OPENSSL_free(point);
    EVP_PKEY_free(other);
    EVP_PKEY_free(key);
}

static void test_policy(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);

    (void)files;
    CHECK(ctx != NULL && EVP_PKEY_decrypt_init(ctx) <= 0);
    CHECK(ERR_GET_REASON(ERR_peek_error()) == NOT_PERMITTED);
    ERR_clear_error();
    EVP_PKEY_CTX_free(ctx);
    works(NULL, key);
    EVP_PKEY_free(key);
}

/* A signature that is begun in one context and ended in a copy. */
static void test_copy(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new(), *copy = EVP_MD_CTX_new();
    unsigned char signature[1024];
    size_t size = sizeof(signature);

    (void)files;
    CHECK(EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL) > 0);
    CHECK(EVP_DigestSignUpdate(ctx, data, 5) > 0);
    CHECK(EVP_MD_CTX_copy_ex(copy, ctx));
    EVP_MD_CTX_free(ctx);
    CHECK(EVP_DigestSignUpdate(copy, data + 5, sizeof(data) - 5) > 0);
    CHECK(EVP_DigestSignFinal(copy, signature, &size) > 0);
    EVP_MD_CTX_free(copy);
    CHECK(verify(NULL, key, signature, size));
    EVP_PKEY_free(key);
}

/* ---- stubs and stores
 * ---------------------------------------------------------------------------- */

static int asked;

static int no_password(char *buffer, int size, int writing, void *arg)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)arg;
    asked++;
    return -1;
}

/* files[0] is a good stub, files[1] one of a key that is not there, files[2] a plain key. */
static void test_stub(const char *uri, char **files)
{
    SSL_CTX *ssl = SSL_CTX_new(TLS_method());
    EVP_PKEY *key;

    (void)uri;
    SSL_CTX_set_default_passwd_cb(ssl, no_password);
    errno = 4711;
    CHECK(SSL_CTX_use_PrivateKey_file(ssl, files[0], SSL_FILETYPE_PEM) == 1);
    CHECK(ERR_peek_error() == 0 && asked == 0);
    CHECK(SSL_CTX_use_PrivateKey_file(ssl, files[1], SSL_FILETYPE_PEM) != 1);
    CHECK(asked <= 1);
    CHECK(ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_PEM &&
          ERR_GET_REASON(ERR_peek_error()) == PEM_R_BAD_PASSWORD_READ);
    ERR_clear_error();
    CHECK(SSL_CTX_use_PrivateKey_file(ssl, files[2], SSL_FILETYPE_PEM) == 1);
    CHECK(ERR_peek_error() == 0);
    SSL_CTX_free(ssl);
    key = read_file(NULL, files[0]);
    CHECK(key != NULL && strcmp(provider_of(key), "trustpoint") == 0);
    works(NULL, key);
    EVP_PKEY_free(key);
    key = read_file(NULL, files[2]);
    CHECK(key != NULL && strcmp(provider_of(key), "default") == 0);
    works(NULL, key);
    EVP_PKEY_free(key);
}

/* A store in error is at its end: programs loop until then. */
static void test_store_error(const char *uri, char **files)
{
    OSSL_STORE_CTX *store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);

    (void)files;
    errno = 4711;
    CHECK(store != NULL);
    CHECK(OSSL_STORE_load(store) == NULL);
    CHECK(OSSL_STORE_eof(store));
    CHECK(OSSL_STORE_error(store) || ERR_peek_error() != 0);
    CHECK(errno == 4711);
    OSSL_STORE_close(store);
}

/* Private key first, then the leaf, then its chain; the end is known with the last. */
static void test_store_order(const char *uri, char **files)
{
    OSSL_STORE_CTX *store =
        OSSL_STORE_open_ex(uri, NULL, "?provider=none", NULL, NULL, NULL, NULL, NULL);
    const int expected[] = {OSSL_STORE_INFO_PKEY, OSSL_STORE_INFO_CERT};
    OSSL_STORE_INFO *info;

    (void)files;
    CHECK(store != NULL);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        CHECK(!OSSL_STORE_eof(store));
        info = OSSL_STORE_load(store);
        CHECK(info != NULL && OSSL_STORE_INFO_get_type(info) == expected[i]);
        OSSL_STORE_INFO_free(info);
    }
    CHECK(OSSL_STORE_eof(store) && OSSL_STORE_load(store) == NULL);
    CHECK(ERR_peek_error() == 0);
    OSSL_STORE_close(store);
}

/* ---- threads and processes ----------------------------------------------------------------------
 */

static void *sign_often(void *arg)
{
    for (int i = 0; i < 50; i++)
        works(NULL, arg);
    return NULL;
}

static void test_threads(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri);
    pthread_t threads[THREADS];

    (void)files;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, sign_often, key) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    EVP_PKEY_free(key);
}

static void *load_often(void *arg)
{
    for (int i = 0; i < 10; i++) {
        EVP_PKEY *key = load_key(NULL, arg);

        works(NULL, key);
        EVP_PKEY_free(key);
    }
    return NULL;
}

static void test_load_threads(const char *uri, char **files)
{
    pthread_t threads[THREADS];

    (void)files;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, load_often, (void *)uri) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void test_fork(const char *uri, char **files)
{
    EVP_PKEY *key = load_key(NULL, uri);
    int status;

    (void)files;
    for (int i = 0; i < CHILDREN; i++) {
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0) {
            works(NULL, key);
            EVP_PKEY_free(key);
            exit(0);
        }
    }
    works(NULL, key);
    for (int i = 0; i < CHILDREN; i++) {
        CHECK(wait(&status) > 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    EVP_PKEY_free(key);
}

/* The process ends with the key in use: nothing may crash on the way out. */
static void test_exit_with_key(const char *uri, char **files)
{
    (void)files;
    works(NULL, load_key(NULL, uri));
}

/* ---- library contexts and other providers
 * --------------------------------------------------------- */

static void test_two_contexts(const char *uri, char **files)
{
    OSSL_LIB_CTX *second = OSSL_LIB_CTX_new();
    EVP_PKEY *key1, *key2;

    (void)files;
    CHECK(second != NULL && OSSL_LIB_CTX_load_config(second, getenv("OPENSSL_CONF")));
    key1 = load_key(NULL, uri);
    key2 = load_key(second, uri);
    works(NULL, key1);
    works(second, key2);
    EVP_PKEY_free(key1);
    works(second, key2);
    EVP_PKEY_free(key2);
    OSSL_LIB_CTX_free(second);
    key1 = load_key(NULL, uri);
    works(NULL, key1);
    EVP_PKEY_free(key1);
}

static void test_load_twice(const char *uri, char **files)
{
    OSSL_PROVIDER *loaded[2], *again;
    OSSL_LIB_CTX *libctx = context_with("default", "trustpoint", loaded);
    EVP_PKEY *key;

    (void)files;
    again = OSSL_PROVIDER_load(libctx, "trustpoint");
    CHECK(again != NULL);
    CHECK(OSSL_PROVIDER_unload(again));
    key = load_key(libctx, uri);
    works(libctx, key);
    EVP_PKEY_free(key);
    end_context(libctx, loaded);
}

static void test_unload_with_key(const char *uri, char **files)
{
    (void)files;
    for (int i = 0; i < 3; i++) {
        OSSL_PROVIDER *loaded[2];
        OSSL_LIB_CTX *libctx = context_with("default", "trustpoint", loaded);
        EVP_PKEY *key = load_key(libctx, uri);

        CHECK(OSSL_PROVIDER_unload(loaded[1]));
        works(libctx, key);
        EVP_PKEY_free(key);
        OSSL_PROVIDER_unload(loaded[0]);
        OSSL_LIB_CTX_free(libctx);
    }
}

/* Without parameters, as programs load a provider by name. */
static void others_keep_working(OSSL_LIB_CTX *libctx, const char *uri, const char *file)
{
    EVP_PKEY *key = load_key(libctx, uri), *plain = read_file(libctx, file);

    CHECK(plain != NULL && strcmp(provider_of(plain), "default") == 0);
    works(libctx, plain);
    works(libctx, key);
    EVP_PKEY_free(plain);
    EVP_PKEY_free(key);
}

static void test_properties(const char *uri, char **files)
{
    OSSL_PROVIDER *loaded[2];
    OSSL_LIB_CTX *libctx = context_with("default", "trustpoint", loaded);

    others_keep_working(libctx, uri, files[0]);
    CHECK(EVP_set_default_properties(libctx, "?provider=trustpoint"));
    others_keep_working(libctx, uri, files[0]);
    CHECK(EVP_set_default_properties(libctx, "?fips=yes"));
    others_keep_working(libctx, uri, files[0]);
    CHECK(EVP_set_default_properties(libctx, "provider=default"));
    CHECK(load(libctx, uri, OSSL_STORE_INFO_PKEY) == NULL);
    ERR_clear_error();
    end_context(libctx, loaded);
}

static void test_reversed(const char *uri, char **files)
{
    OSSL_PROVIDER *loaded[2];
    OSSL_LIB_CTX *libctx = context_with("trustpoint", "default", loaded);
    EVP_PKEY *plain = read_file(libctx, files[0]);
    EVP_PKEY *key = load_key(libctx, uri);

    CHECK(plain != NULL);
    works(libctx, plain);
    works(libctx, key);
    EVP_PKEY_free(plain);
    EVP_PKEY_free(key);
    end_context(libctx, loaded);
}

/* Our keys bring their own cryptography along. */
static void test_without_default(const char *uri, char **files)
{
    OSSL_PROVIDER *loaded[2];
    OSSL_LIB_CTX *libctx = context_with("base", "trustpoint", loaded);
    EVP_PKEY *key = load_key(libctx, uri);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(libctx, key, NULL);
    unsigned char digest[32] = {1}, signature[1024];
    size_t size = sizeof(signature);

    (void)files;
    CHECK(EVP_PKEY_sign_init(ctx) > 0);
    CHECK(EVP_PKEY_sign(ctx, signature, &size, digest, sizeof(digest)) > 0);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    end_context(libctx, loaded);
}

/* ---- which -------------------------------------------------------------------------------------
 */

static const struct test {
    const char *name;
    void (*run)(const char *uri, char **files);
} tests[] = {
    {"quiet", test_quiet},
    {"dup", test_dup},
    {"match", test_match},
    {"export", test_export},
    {"der", test_der},
    {"fixed", test_fixed},
    {"policy", test_policy},
    {"copy", test_copy},
    {"stub", test_stub},
    {"store-error", test_store_error},
    {"store-order", test_store_order},
    {"threads", test_threads},
    {"load-threads", test_load_threads},
    {"fork", test_fork},
    {"exit-with-key", test_exit_with_key},
    {"two-contexts", test_two_contexts},
    {"load-twice", test_load_twice},
    {"unload-with-key", test_unload_with_key},
    {"properties", test_properties},
    {"reversed", test_reversed},
    {"without-default", test_without_default},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc >= 3 && i < sizeof(tests) / sizeof(tests[0]); i++)
        if (strcmp(argv[1], tests[i].name) == 0) {
            tests[i].run(argv[2], argv + 3);
            return 0;
        }
    fprintf(stderr, "usage: provider_api TEST URI [FILE...]\n");
    return 2;
}
