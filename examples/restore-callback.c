/*
 * restore-callback.c - a program that answers the question for the backup password itself
 *
 *     restore-callback library KEYSTORE.CNF NAME PASSWORD-FILE
 *     restore-callback store URI PASSWORD-FILE
 *
 * Loads a private key in one of two ways and signs with it: through libtrustpoint-keystore, with
 * tpks_options.ask and ask_arg, or through any OpenSSL that has the provider active, with
 * OSSL_STORE_open(3) and a UI_METHOD(3) of its own. When the HSM has lost its key encryption key
 * (KEK), or is a new one, the keystore asks through that callback, makes a new KEK and goes on;
 * otherwise nobody is asked. A real program would ask a human, a vault or its own configuration;
 * this one reads a file. On success the last line is "NAME-OF-KEY-TYPE: signed, N questions".
 *
 *     cc -o restore-callback restore-callback.c -ltrustpoint-keystore -lcrypto
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <openssl/x509.h>

#include <trustpoint/keystore.h>

#define PASSWORD_MAX 1024

/* What the callbacks know: the context that the library hands back to them. */
typedef struct context {
    const char *password_file;
    int questions;
} context;

/* ---- answering ---- */

/* Reads the password into `buffer` of `size` bytes; 0 when there is none that fits. */
static int answer(context *c, const char *question, char *buffer, size_t size, size_t *length)
{
    TPKS_SECRET *password = NULL;

    c->questions++;
    printf("asked: %s\n", question);
    if (tpks_secret_read_file(c->password_file, PASSWORD_MAX, &password) != TPKS_OK) {
        fprintf(stderr, "restore-callback: %s\n", tpks_error_text());
        return 0;
    }
    *length = tpks_secret_size(password);
    int fits = *length <= size;
    if (fits)
        memcpy(buffer, tpks_secret_data_const(password), *length);
    tpks_secret_free(password); /* wipes it */
    return fits;
}

/* tpks_ask_fn. Which secret is wanted matters: a PIN and a backup password are two things. */
static int ask(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
               size_t *length)
{
    return purpose == TPKS_ASK_PASSWORD && answer(arg, info, buffer, size, length);
}

/* The reader of the UI_METHOD: libcrypto calls it once for each string of the dialog. */
static int read_string(UI *ui, UI_STRING *string)
{
    char buffer[PASSWORD_MAX];
    size_t length = 0;

    if (UI_get_string_type(string) != UIT_PROMPT && UI_get_string_type(string) != UIT_VERIFY)
        return 1;
    int done = answer(UI_get0_user_data(ui), UI_get0_output_string(string), buffer, sizeof(buffer),
                      &length) &&
               UI_set_result_ex(ui, string, buffer, (int)length) >= 0;
    OPENSSL_cleanse(buffer, sizeof(buffer));
    return done;
}

/* ---- two ways to a key ---- */

static EVP_PKEY *key_from_pkcs8(const TPKS_SECRET *pkcs8)
{
    const unsigned char *data = tpks_secret_data_const(pkcs8);

    return d2i_AutoPrivateKey(NULL, &data, (long)tpks_secret_size(pkcs8));
}

/* The key of record `name`, or NULL; says why. */
static EVP_PKEY *find_and_load(TPKS *ks, const char *name)
{
    const tpks_selector selector = {.name = name};
    TPKS_RECORD *record = NULL;
    TPKS_SECRET *pkcs8 = NULL;
    EVP_PKEY *key = NULL;

    if (tpks_find(ks, &selector, &record) != TPKS_OK ||
        tpks_load_key(ks, record, &pkcs8) != TPKS_OK)
        fprintf(stderr, "restore-callback: %s\n", tpks_error_text());
    else
        key = key_from_pkcs8(pkcs8);
    tpks_secret_free(pkcs8);
    tpks_record_free(record);
    return key;
}

static EVP_PKEY *load_with_library(const char *path, const char *name, context *c)
{
    TPKS_CONFIG *config = NULL;
    TPKS *ks = NULL;
    EVP_PKEY *key = NULL;

    if (tpks_config_load(path, &config) != TPKS_OK) {
        fprintf(stderr, "restore-callback: %s\n", tpks_error_text());
        return NULL;
    }
    const tpks_options options = {.config = config, .ask = ask, .ask_arg = c};
    if (tpks_open(&options, &ks) == TPKS_OK)
        key = find_and_load(ks, name);
    else
        fprintf(stderr, "restore-callback: %s\n", tpks_error_text());
    tpks_close(ks);
    tpks_config_free(config);
    return key;
}

static EVP_PKEY *first_key(OSSL_STORE_CTX *store)
{
    EVP_PKEY *key = NULL;

    while (key == NULL && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);
        if (info == NULL)
            break;
        if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY)
            key = OSSL_STORE_INFO_get1_PKEY(info);
        OSSL_STORE_INFO_free(info);
    }
    return key;
}

static EVP_PKEY *load_with_store(const char *uri, context *c)
{
    UI_METHOD *method = UI_create_method("restore-callback");
    EVP_PKEY *key = NULL;

    if (method != NULL && UI_method_set_reader(method, read_string) == 0) {
        OSSL_STORE_CTX *store = OSSL_STORE_open(uri, method, c, NULL, NULL);
        if (store != NULL && OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY))
            key = first_key(store);
        OSSL_STORE_close(store);
    }
    UI_destroy_method(method);
    if (key == NULL)
        ERR_print_errors_fp(stderr);
    return key;
}

/* ---- using it ---- */

static int sign(EVP_PKEY *key)
{
    static const unsigned char text[] = "signed by a key that is in no file";
    unsigned char signature[1024];
    size_t size = sizeof(signature);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int done = ctx != NULL && EVP_DigestSignInit_ex(ctx, NULL, NULL, NULL, NULL, key, NULL) == 1 &&
               EVP_DigestSign(ctx, signature, &size, text, sizeof(text)) == 1;

    EVP_MD_CTX_free(ctx);
    return done;
}

static EVP_PKEY *load(int argc, char **argv, context *c)
{
    if (argc == 5 && strcmp(argv[1], "library") == 0) {
        c->password_file = argv[4];
        return load_with_library(argv[2], argv[3], c);
    }
    if (argc == 4 && strcmp(argv[1], "store") == 0) {
        c->password_file = argv[3];
        return load_with_store(argv[2], c);
    }
    fprintf(stderr, "usage: restore-callback library KEYSTORE.CNF NAME PASSWORD-FILE\n"
                    "       restore-callback store URI PASSWORD-FILE\n");
    return NULL;
}

int main(int argc, char **argv)
{
    context c = {0};
    EVP_PKEY *key = load(argc, argv, &c);
    int done = key != NULL && sign(key);

    if (done)
        printf("%s: signed, %d questions\n", EVP_PKEY_get0_type_name(key), c.questions);
    else
        printf("failed, %d questions\n", c.questions);
    EVP_PKEY_free(key);
    return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
