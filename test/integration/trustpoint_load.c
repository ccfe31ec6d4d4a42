/*
 * trustpoint_load.c - loads what URIs name, many in one process, and says what came
 *
 *     trustpoint_load <URIS
 *
 * One line for each line read, parts separated by tabs: the URI; "ok", the SHA-256 of the SPKI of
 * the private key, of the leaf and of each chain certificate, and "signed" when the key has signed
 * something that the leaf's (or its own) public half verifies, computed by the default provider;
 * "-" stands for what did not come. Or the URI; "failed", the reason's number, the text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/store.h>
#include <openssl/x509.h>

#define CHAIN_MAX 16

typedef struct loaded {
    EVP_PKEY *key;
    X509 *certs[CHAIN_MAX];
    int count;
} loaded;

static void print_digest(unsigned char *der, int size)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;

    if (size <= 0 || EVP_Digest(der, (size_t)size, digest, &length, EVP_sha256(), NULL) != 1) {
        putchar('-');
    } else {
        for (unsigned i = 0; i < length; i++)
            printf("%02x", digest[i]);
    }
    OPENSSL_free(der);
}

static void print_spki(EVP_PKEY *key)
{
    unsigned char *der = NULL;
    int size = key != NULL ? i2d_PUBKEY(key, &der) : 0;

    print_digest(der, size);
}

static void print_cert(X509 *cert)
{
    unsigned char *der = NULL;
    int size = cert != NULL ? i2d_X509(cert, &der) : 0;

    print_digest(der, size);
}

/* The public half on its own, in the default provider. */
static EVP_PKEY *public_half(const loaded *l)
{
    unsigned char *der = NULL;
    const unsigned char *p;
    int size;
    EVP_PKEY *key = NULL;

    size = l->count > 0 ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(l->certs[0]), &der)
                        : i2d_PUBKEY(l->key, &der);
    p = der;
    if (size > 0)
        key = d2i_PUBKEY_ex(NULL, &p, size, NULL, "provider=default");
    OPENSSL_free(der);
    return key;
}

static int signs(const loaded *l)
{
    static const unsigned char text[] = "what a private key signs, its public half verifies";
    EVP_MD_CTX *signing = EVP_MD_CTX_new(), *verifying = EVP_MD_CTX_new();
    EVP_PKEY *public = public_half(l);
    unsigned char signature[1024];
    size_t size = sizeof(signature);
    int right = public != NULL &&
                EVP_DigestSignInit_ex(signing, NULL, "SHA256", NULL, NULL, l->key, NULL) == 1 &&
                EVP_DigestSign(signing, signature, &size, text, sizeof(text)) == 1 &&
                EVP_DigestVerifyInit_ex(verifying, NULL, "SHA256", NULL, "provider=default", public,
                                        NULL) == 1 &&
                EVP_DigestVerify(verifying, signature, size, text, sizeof(text)) == 1;

    EVP_MD_CTX_free(signing);
    EVP_MD_CTX_free(verifying);
    EVP_PKEY_free(public);
    return right;
}

static void take(loaded *l, OSSL_STORE_INFO *info)
{
    if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY && l->key == NULL)
        l->key = OSSL_STORE_INFO_get1_PKEY(info);
    else if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_CERT && l->count < CHAIN_MAX)
        l->certs[l->count++] = OSSL_STORE_INFO_get1_CERT(info);
}

static void load(const char *uri, loaded *l)
{
    OSSL_STORE_CTX *store =
        OSSL_STORE_open_ex(uri, NULL, "?provider=trustpoint", NULL, NULL, NULL, NULL, NULL);
    OSSL_STORE_INFO *info;

    while (store != NULL && !OSSL_STORE_eof(store)) {
        info = OSSL_STORE_load(store);
        if (info == NULL)
            break;
        take(l, info);
        OSSL_STORE_INFO_free(info);
    }
    OSSL_STORE_close(store);
}

static void print_failure(void)
{
    unsigned long number = ERR_peek_error();
    const char *text = NULL;
    int flags = 0;

    ERR_peek_error_all(NULL, NULL, NULL, &text, &flags);
    printf("failed\t%d\t", ERR_GET_REASON(number));
    for (; (flags & ERR_TXT_STRING) != 0 && *text != '\0'; text++)
        putchar(*text == '\n' || *text == '\t' ? ' ' : *text);
}

static void print_loaded(const loaded *l)
{
    printf("ok\t");
    print_spki(l->key);
    putchar('\t');
    print_cert(l->count > 0 ? l->certs[0] : NULL);
    putchar('\t');
    for (int i = 1; i < l->count; i++) {
        if (i > 1)
            putchar(',');
        print_cert(l->certs[i]);
    }
    printf(l->count > 1 ? "\t%s" : "-\t%s", l->key == NULL ? "-" : signs(l) ? "signed" : "refused");
}

static void answer(const char *uri)
{
    loaded l = {0};

    ERR_clear_error();
    printf("%s\t", uri);
    load(uri, &l);
    if (l.key == NULL && l.count == 0)
        print_failure();
    else
        print_loaded(&l);
    putchar('\n');
    fflush(stdout);
    EVP_PKEY_free(l.key);
    for (int i = 0; i < l.count; i++)
        X509_free(l.certs[i]);
}

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t size;

    while ((size = getline(&line, &room, stdin)) > 0) {
        line[strcspn(line, "\n")] = '\0';
        answer(line);
    }
    free(line);
    return EXIT_SUCCESS;
}
