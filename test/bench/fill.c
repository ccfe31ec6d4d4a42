/*
 * fill.c - makes keystores for the benchmark
 *
 *   fill CONFIG create software|hsm      a new keystore without a way back
 *   fill CONFIG one NAME TYPE FOLDER     a key with a certificate; FOLDER gets NAME.key, .crt,
 * .stub fill CONFIG many PREFIX COUNT [FOLDER]   P-256 keys PREFIX0...; FOLDER gets PREFIXn.pem
 *   fill CONFIG token NAME TYPE          a key that stays in the token; prints its CKA_LABEL as
 *                                        pkcs11: URIs have it
 *
 * TYPE is rsa2048, p256 or ed25519. The keys are worth nothing: their PEM files are the yardstick.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <trustpoint/keystore.h>

static void need(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fill: %s failed: %s\n", what, tpks_error_text());
    exit(1);
}
#define OK(call) need((call) == TPKS_OK, #call)

static EVP_PKEY *make_key(const char *type)
{
    EVP_PKEY *key = NULL;

    if (strcmp(type, "rsa2048") == 0)
        key = EVP_RSA_gen(2048);
    else if (strcmp(type, "p256") == 0)
        key = EVP_EC_gen("P-256");
    else if (strcmp(type, "ed25519") == 0)
        key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    need(key != NULL, type);
    return key;
}

static X509 *make_cert(EVP_PKEY *key, const char *type)
{
    X509 *cert = X509_new();
    X509_NAME *name = cert != NULL ? X509_get_subject_name(cert) : NULL;

    need(name != NULL && X509_set_version(cert, X509_VERSION_3) &&
             ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) &&
             X509_gmtime_adj(X509_getm_notBefore(cert), -3600) != NULL &&
             X509_gmtime_adj(X509_getm_notAfter(cert), 7 * 86400) != NULL &&
             X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                        (const unsigned char *)"localhost", -1, -1, 0) &&
             X509_set_issuer_name(cert, name) && X509_set_pubkey(cert, key) &&
             X509_sign(cert, key, strcmp(type, "ed25519") == 0 ? NULL : EVP_sha256()) > 0,
         "making a certificate");
    return cert;
}

static void add(TPKS *ks, const char *name, EVP_PKEY *key, const STACK_OF(X509) * certs)
{
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
    TPKS_SECRET *secret;

    need(size > 0, "i2d_PKCS8_PRIV_KEY_INFO");
    secret = tpks_secret_copy(der, (size_t)size);
    need(secret != NULL, "tpks_secret_copy");
    OK(tpks_add(ks, name, secret, certs, TPKS_MAY_SIGN, NULL));
    tpks_secret_free(secret);
    OPENSSL_clear_free(der, (size_t)size);
    PKCS8_PRIV_KEY_INFO_free(info);
}

static FILE *file_in(const char *folder, const char *name, const char *end)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s%s", folder, name, end);
    file = fopen(path, "w");
    need(file != NULL, path);
    return file;
}

static void write_key(const char *folder, const char *name, const char *end, EVP_PKEY *key)
{
    FILE *file = file_in(folder, name, end);

    need(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), "writing a key");
    fclose(file);
}

static void write_stub(const char *folder, const char *name, const char *type)
{
    const char *key_type = strcmp(type, "rsa2048") == 0 ? "RSA"
                           : strcmp(type, "p256") == 0  ? "EC"
                                                        : "ED25519";
    char *uri = tpks_uri_build(NULL, name);
    unsigned char *der;
    size_t size;
    FILE *file = file_in(folder, name, ".stub");

    need(uri != NULL, "tpks_uri_build");
    OK(tpks_stub_encode(key_type, uri, &der, &size));
    need(PEM_write(file, TPKS_STUB_LABEL, "", der, (long)size), "writing a stub");
    fclose(file);
    OPENSSL_free(der);
    OPENSSL_free(uri);
}

static void add_one(TPKS *ks, const char *name, const char *type, const char *folder)
{
    EVP_PKEY *key = make_key(type);
    X509 *cert = make_cert(key, type);
    STACK_OF(X509) *certs = sk_X509_new_null();
    FILE *file = file_in(folder, name, ".crt");

    need(certs != NULL && sk_X509_push(certs, cert) > 0, "sk_X509_push");
    add(ks, name, key, certs);
    need(PEM_write_X509(file, cert), "writing a certificate");
    fclose(file);
    write_key(folder, name, ".key", key);
    write_stub(folder, name, type);
    sk_X509_pop_free(certs, X509_free);
    EVP_PKEY_free(key);
}

static void add_many(TPKS *ks, const char *prefix, int count, const char *folder)
{
    OK(tpks_begin(ks));
    for (int i = 0; i < count; i++) {
        EVP_PKEY *key = make_key("p256");
        char name[64];

        snprintf(name, sizeof(name), "%s%d", prefix, i);
        add(ks, name, key, NULL);
        if (folder != NULL)
            write_key(folder, name, ".pem", key);
        EVP_PKEY_free(key);
    }
    OK(tpks_commit(ks));
}

static void make_in_token(TPKS *ks, const char *name, const char *type)
{
    tpks_status_info status;

    OK(tpks_generate_in_token(ks, name, strcmp(type, "rsa2048") == 0 ? "RSA:2048" : "EC:P-256",
                              TPKS_MAY_SIGN, NULL));
    OK(tpks_status(ks, &status));
    printf("trustpoint-keystore%%20");
    for (size_t i = 0; i < 4; i++)
        printf("%02x", status.keystore_id[i]);
    printf("%%20%s\n", name);
}

int main(int argc, char **argv)
{
    tpks_options options = {.access = TPKS_WRITE};
    TPKS_CONFIG *config = NULL;
    TPKS *ks = NULL;

    need(argc >= 4, "too few arguments");
    OK(tpks_config_load(argv[1], &config));
    options.config = config;
    if (strcmp(argv[2], "create") == 0) {
        tpks_create_params params = {.software = strcmp(argv[3], "software") == 0,
                                     .no_way_back = true};

        OK(tpks_create(&options, &params, NULL));
    } else {
        need(argc >= 5, "too few arguments");
        OK(tpks_open(&options, &ks));
        if (strcmp(argv[2], "one") == 0 && argc == 6)
            add_one(ks, argv[3], argv[4], argv[5]);
        else if (strcmp(argv[2], "token") == 0)
            make_in_token(ks, argv[3], argv[4]);
        else
            add_many(ks, argv[3], atoi(argv[4]), argv[5]);
        tpks_close(ks);
    }
    tpks_config_free(config);
    return 0;
}
