/*
 * make_format_1.c - makes the frozen sample of format 1: test/data/format-1
 *
 *     make make_format_1 && make_format_1 test/data/format-1
 *
 * The sample is made once and never again: test_frozen.c proves that every later version opens it.
 * Its keys protect nothing. Beside the database lie the state folder with the DEK file, a SoftHSM
 * token with the KEK, and secrets.txt: what opens it and what must come out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "keystore.h"

#define MODULE "/usr/lib/softhsm/libsofthsm2.so"
#define PASSWORD "frozen correct horse battery staple"
#define PIN "frozen-1234"

#define NEED(expression)                                                                           \
    do {                                                                                           \
        if (!(expression)) {                                                                       \
            fprintf(stderr, "%s: %s\n", #expression, tpks_error_text());                           \
            exit(EXIT_FAILURE);                                                                    \
        }                                                                                          \
    } while (0)

/* One record of the sample. */
typedef struct sample {
    const char *name;
    const char *type;
    const char *group; /* of an EC key, or the digest of an RSA-PSS key; NULL: none */
    unsigned policy;
    int certs;
} sample;

static const sample samples[] = {
    {"web", "RSA", NULL, TPKS_MAY_SIGN | TPKS_MAY_DECRYPT, 2},
    {"rsa without certificate", "RSA", NULL, TPKS_MAY_SIGN, 0},
    {"pss", "RSA-PSS", NULL, TPKS_MAY_SIGN, 1},
    {"pss sha256", "RSA-PSS", "SHA256", TPKS_MAY_SIGN, 1},
    {"ec p-256", "EC", "P-256", TPKS_MAY_SIGN | TPKS_MAY_AGREE, 3},
    {"ec p-384", "EC", "P-384", TPKS_MAY_SIGN, 1},
    {"ec p-521", "EC", "P-521", TPKS_MAY_SIGN, 1},
    {"ec brainpool", "EC", "brainpoolP256r1", TPKS_MAY_SIGN, 1},
    {"ed25519", "ED25519", NULL, TPKS_MAY_SIGN, 1},
    {"Stra\xc3\x9f"
     "e %?&/\"",
     "ED448", NULL, TPKS_MAY_SIGN, 1},
};

static EVP_PKEY *make_key(const sample *s)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, s->type, NULL);
    EVP_PKEY *key = NULL;

    NEED(EVP_PKEY_keygen_init(ctx) == 1);
    if (strcmp(s->type, "EC") == 0)
        NEED(EVP_PKEY_CTX_set_group_name(ctx, s->group) == 1);
    else if (s->group != NULL)
        NEED(EVP_PKEY_CTX_set_rsa_pss_keygen_md_name(ctx, s->group, NULL) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_keygen_mgf1_md_name(ctx, s->group) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_keygen_saltlen(ctx, 32) == 1);
    NEED(EVP_PKEY_generate(ctx, &key) == 1);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static TPKS_SECRET *pkcs8_of(EVP_PKEY *key)
{
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
    TPKS_SECRET *secret = tpks_secret_copy(der, (size_t)size);

    NEED(size > 0 && secret != NULL);
    OPENSSL_clear_free(der, (size_t)size);
    PKCS8_PRIV_KEY_INFO_free(info);
    return secret;
}

static X509 *make_cert(EVP_PKEY *key, const char *subject, EVP_PKEY *by, const char *issuer)
{
    const EVP_MD *md =
        EVP_PKEY_is_a(by, "ED25519") || EVP_PKEY_is_a(by, "ED448") ? NULL : EVP_sha256();
    X509 *cert = X509_new();

    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), 0xf0a1b2c3d4e5f607);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 315360000);
    X509_NAME *name = X509_NAME_new();
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)subject, -1, -1,
                               0);
    X509_set_subject_name(cert, name);
    X509_NAME_free(name);
    name = X509_NAME_new();
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)issuer, -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_NAME_free(name);
    NEED(X509_set_pubkey(cert, key) == 1 && X509_sign(cert, by, md) > 0);
    return cert;
}

/* The leaf and its chain, each signed by the next. */
static STACK_OF(X509) * make_chain(EVP_PKEY *leaf, const sample *s)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    EVP_PKEY *key = leaf;

    for (int i = 0; i < s->certs; i++) {
        char subject[64], issuer[64];
        EVP_PKEY *next = i + 1 < s->certs ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256") : key;
        snprintf(subject, sizeof(subject), i == 0 ? "%s" : "%s authority %d", s->name, i);
        snprintf(issuer, sizeof(issuer), "%s authority %d", s->name, i + 1 < s->certs ? i + 1 : i);
        sk_X509_push(chain, make_cert(key, subject, next, issuer));
        if (key != leaf && key != next)
            EVP_PKEY_free(key);
        key = next;
    }
    if (key != leaf)
        EVP_PKEY_free(key);
    return chain;
}

static void print_sha256(FILE *out, const void *data, size_t size)
{
    unsigned char digest[32];

    NEED(EVP_Q_digest(NULL, "SHA256", NULL, data, size, digest, NULL));
    for (size_t i = 0; i < sizeof(digest); i++)
        fprintf(out, "%02x", digest[i]);
}

/* record TYPE POLICY CERTIFICATES SPKI-SHA256 PKCS8-SHA256 NAME */
static void add(TPKS *ks, const sample *s, FILE *secrets)
{
    EVP_PKEY *key = make_key(s);
    TPKS_SECRET *pkcs8 = pkcs8_of(key);
    STACK_OF(X509) *chain = make_chain(key, s);
    unsigned char *spki = NULL;
    int spki_size = i2d_PUBKEY(key, &spki);

    NEED(tpks_add(ks, s->name, pkcs8, chain, s->policy, NULL) == TPKS_OK);
    fprintf(secrets, "record %s %u %d ", s->type, s->policy, s->certs);
    print_sha256(secrets, spki, (size_t)spki_size);
    fputc(' ', secrets);
    print_sha256(secrets, tpks_secret_data_const(pkcs8), tpks_secret_size(pkcs8));
    fprintf(secrets, " %s\n", s->name);
    OPENSSL_free(spki);
    sk_X509_pop_free(chain, X509_free);
    tpks_secret_free(pkcs8);
    EVP_PKEY_free(key);
}

static void put_file(const char *name, mode_t mode, const char *text)
{
    FILE *file = fopen(name, "w");

    NEED(file != NULL && fputs(text, file) >= 0 && fchmod(fileno(file), mode) == 0);
    NEED(fclose(file) == 0);
}

/* Folder, token and configuration; the working folder is the sample's from here on. */
static TPKS_CONFIG *prepare(const char *folder)
{
    char here[512], text[2048];
    TPKS_CONFIG *config = NULL;

    NEED(mkdir(folder, 0755) == 0 && chdir(folder) == 0 && getcwd(here, sizeof(here)) != NULL);
    NEED(mkdir("tokens", 0700) == 0);
    snprintf(text, sizeof(text), "directories.tokendir = %s/tokens\nobjectstore.backend = file\n",
             here);
    put_file("softhsm2.conf", 0644, text);
    put_file("pin", 0600, PIN "\n");
    NEED(setenv("SOFTHSM2_CONF", "softhsm2.conf", 1) == 0);
    NEED(system("softhsm2-util --init-token --free --label frozen --pin " PIN
                " --so-pin 87654321 >/dev/null") == 0);
    snprintf(text, sizeof(text),
             "[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\n"
             "token = pkcs11:token=frozen?module-path=" MODULE "&pin-source=file:%s/pin\n",
             here, here, here);
    put_file("keystore.cnf", 0644, text);
    snprintf(text, sizeof(text), "%s/keystore.cnf", here);
    NEED(tpks_config_load(text, &config) == TPKS_OK);
    return config;
}

int main(int argc, char **argv)
{
    TPKS_SECRET *password = tpks_secret_copy(PASSWORD, strlen(PASSWORD)), *recovery = NULL;
    TPKS *ks = NULL;

    if (argc != 2)
        return EXIT_FAILURE;
    TPKS_CONFIG *config = prepare(argv[1]);
    tpks_options options = {.config = config, .access = TPKS_WRITE};
    tpks_create_params params = {.label = "frozen",
                                 .software = true,
                                 .password = password,
                                 .recovery = true,
                                 .cost = {.t = 1, .m_kib = 8192, .p = 1}};
    NEED(tpks_create(&options, &params, &recovery) == TPKS_OK);
    FILE *secrets = fopen("secrets.txt", "w");
    NEED(secrets != NULL);
    fprintf(secrets, "password %s\nrecovery %.*s\npin %s\n", PASSWORD,
            (int)tpks_secret_size(recovery), (const char *)tpks_secret_data_const(recovery), PIN);
    NEED(tpks_open(&options, &ks) == TPKS_OK);
    NEED(tpks_slot_add_hsm(ks, NULL, NULL) == TPKS_OK);
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
        add(ks, &samples[i], secrets);
    tpks_close(ks);
    NEED(fclose(secrets) == 0);
    /* What belongs to this place and not to the sample. */
    NEED(unlink("keystore.cnf") == 0 && unlink("softhsm2.conf") == 0 && unlink("pin") == 0);
    NEED(system("rm -rf state/lock state/*.hdr*") == 0);
    tpks_secret_free(recovery);
    tpks_secret_free(password);
    tpks_config_free(config);
    return EXIT_SUCCESS;
}
