/* trustpoint_field.c - Trustpoint's encrypted columns, and the keys within them */
#include <stdlib.h>
#include <string.h>

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>

#include "error.h"
#include "secret.h"
#include "text.h"
#include "trustpoint.h"

#define PLAIN_BEGIN "-----BEGIN "
#define PREFIX_2 "tpsec:v1:"
#define AAD_2 "trustpoint-app-secrets-v1"
#define PADDING_MAX 15
#define FIELD_MAX (2 * 1024 * 1024)
#define ITERATIONS_MAX 10000000 /* of PBKDF2; Trustpoint writes 2048 */
#define PASSWORD_MAX 4096

/* What Trustpoint itself has in its source for this setting: no secret. */
#define DEVELOPMENT_PASSWORD "trustpoint-development-software-backend-secret"

bool trustpoint_field_is_plain(const char *text)
{
    return strncmp(text, PLAIN_BEGIN, strlen(PLAIN_BEGIN)) == 0;
}

static tpks_result malformed_field(const char *why)
{
    return fail(TPKS_TAMPERED, "the encrypted value %s: restore the database from a backup", why);
}

/* ---- base64 (RFC 4648, section 4) -------------------------------------------------------------
 */

/* EVP_DecodeBlock() is lenient and counts padding as zero bytes. */
static bool is_strict_base64(const char *text, size_t size)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t letters = 0;

    while (letters < size && text[letters] != '\0' && strchr(alphabet, text[letters]) != NULL)
        letters++;
    for (size_t i = letters; i < size; i++)
        if (text[i] != '=')
            return false;
    return size > 0 && size % 4 == 0 && size <= FIELD_MAX && size - letters <= 2;
}

/* `out` has room for 3/4 of `size`. */
static bool decode(const char *text, size_t size, unsigned char *out, size_t *out_size)
{
    if (!is_strict_base64(text, size))
        return false;
    int length = EVP_DecodeBlock(out, (const unsigned char *)text, (int)size);
    if (length < 0)
        return false;
    *out_size = (size_t)length - (text[size - 1] == '=') - (text[size - 2] == '=');
    return true;
}

/* ---- AES-GCM fields ---------------------------------------------------------------------------
 */

static void free_bytes(unsigned char **data)
{
    OPENSSL_free(*data);
}

/* nonce | tag | ciphertext, which is opened with the tag at the end. */
static tpks_result open_sealed(DEK *dek, const char *aad, unsigned char *sealed, size_t size,
                               TPKS_SECRET **plain)
{
    unsigned char tag[TAG_SIZE];
    unsigned char *text = sealed + NONCE_SIZE;

    if (size < NONCE_SIZE + TAG_SIZE)
        return malformed_field("is too short");
    size_t text_size = size - NONCE_SIZE - TAG_SIZE;
    memcpy(tag, text, TAG_SIZE);
    memmove(text, text + TAG_SIZE, text_size);
    memcpy(text + text_size, tag, TAG_SIZE);
    SECRET *opened = tpks_secret_new(text_size + TAG_SIZE);
    if (opened == NULL)
        return fail_memory();
    TRY(dek_open_raw(dek, (const unsigned char *)aad, strlen(aad), sealed, text,
                     text_size + TAG_SIZE, tpks_secret_data(opened)));
    tpks_secret_shrink(opened, text_size);
    *plain = opened;
    opened = NULL;
    return TPKS_OK;
}

static tpks_result open_text(DEK *dek, const char *aad, const char *text, TPKS_SECRET **plain)
{
    size_t length = strlen(text), size = 0;
    __attribute__((cleanup(free_bytes))) unsigned char *sealed =
        length > FIELD_MAX ? NULL : OPENSSL_malloc(length + 1);

    if (length > FIELD_MAX)
        return malformed_field("is too long");
    if (sealed == NULL)
        return fail_memory();
    if (!decode(text, length, sealed, &size))
        return malformed_field("is not base64");
    return open_sealed(dek, aad, sealed, size, plain);
}

/* The last byte says how many zero bytes stand before it; Trustpoint does not look at those. */
static void remove_padding(TPKS_SECRET *plain)
{
    size_t size = tpks_secret_size(plain);
    size_t padding = size == 0 ? PADDING_MAX + 1 : tpks_secret_data_const(plain)[size - 1];

    if (padding <= PADDING_MAX && padding < size)
        tpks_secret_shrink(plain, size - padding - 1);
}

tpks_result trustpoint_field_open_1(DEK *dek, const char *text, TPKS_SECRET **plain)
{
    TRY(open_text(dek, "", text, plain));
    remove_padding(*plain);
    return TPKS_OK;
}

tpks_result trustpoint_field_open_2(DEK *dek, const char *text, TPKS_SECRET **plain)
{
    if (strncmp(text, PREFIX_2, strlen(PREFIX_2)) != 0)
        return malformed_field("does not begin with " PREFIX_2);
    return open_text(dek, AAD_2, text + strlen(PREFIX_2), plain);
}

/* ---- keys -------------------------------------------------------------------------------------
 */

static void free_bio(BIO **bio)
{
    BIO_free(*bio);
}

int trustpoint_no_password(char *out, int size, int writing, void *arg)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

tpks_result trustpoint_pem_to_pkcs8(const void *pem, size_t size, TPKS_SECRET **pkcs8)
{
    CRYPTO_SCOPE;
    unsigned char *der = NULL;
    long der_size = 0;
    __attribute__((cleanup(free_bio))) BIO *bio =
        size > INT32_MAX ? NULL : BIO_new_mem_buf(pem, (int)size);

    if (bio == NULL)
        return fail_memory();
    if (PEM_bytes_read_bio_secmem(&der, &der_size, NULL, PEM_STRING_PKCS8INF, bio,
                                  trustpoint_no_password, NULL) != 1)
        return fail(TPKS_TAMPERED, "the stored private key is not a PKCS#8 key in PEM: restore the "
                                   "database from a backup");
    *pkcs8 = tpks_secret_copy(der, (size_t)der_size);
    OPENSSL_secure_clear_free(der, (size_t)der_size);
    return *pkcs8 == NULL ? fail_memory() : TPKS_OK;
}

tpks_result trustpoint_base64_to_pkcs8(const TPKS_SECRET *base64, TPKS_SECRET **pkcs8)
{
    size_t size = 0;
    SECRET *der = tpks_secret_new(tpks_secret_size(base64) + 1);

    if (der == NULL)
        return fail_memory();
    if (!decode((const char *)tpks_secret_data_const(base64), tpks_secret_size(base64),
                tpks_secret_data(der), &size))
        return fail(TPKS_TAMPERED,
                    "the imported private key is not base64: restore the database from a backup");
    tpks_secret_shrink(der, size);
    *pkcs8 = der;
    der = NULL;
    return TPKS_OK;
}

static void free_sig(X509_SIG **sig)
{
    X509_SIG_free(*sig);
}

static void free_info(PKCS8_PRIV_KEY_INFO **info)
{
    PKCS8_PRIV_KEY_INFO_free(*info);
}

/* A database must not make us count for hours. */
static bool is_affordable(const X509_ALGOR *algorithm)
{
    PBE2PARAM *pbe2 = ASN1_TYPE_unpack_sequence(ASN1_ITEM_rptr(PBE2PARAM), algorithm->parameter);
    PBKDF2PARAM *kdf = pbe2 == NULL ? NULL
                                    : ASN1_TYPE_unpack_sequence(ASN1_ITEM_rptr(PBKDF2PARAM),
                                                                pbe2->keyfunc->parameter);
    int64_t iterations = 0;
    bool affordable = kdf != NULL && ASN1_INTEGER_get_int64(&iterations, kdf->iter) == 1 &&
                      iterations > 0 && iterations <= ITERATIONS_MAX;

    PBKDF2PARAM_free(kdf);
    PBE2PARAM_free(pbe2);
    return affordable;
}

static tpks_result give_pkcs8(const PKCS8_PRIV_KEY_INFO *info, TPKS_SECRET **pkcs8)
{
    unsigned char *at;
    int size = i2d_PKCS8_PRIV_KEY_INFO(info, NULL);
    SECRET *der = size <= 0 ? NULL : tpks_secret_new((size_t)size);

    if (der == NULL)
        return fail_memory();
    at = tpks_secret_data(der);
    if (i2d_PKCS8_PRIV_KEY_INFO(info, &at) != size)
        return fail_crypto(TPKS_INTERNAL, "PKCS#8");
    *pkcs8 = der;
    der = NULL;
    return TPKS_OK;
}

tpks_result trustpoint_decrypt_pkcs8(OSSL_LIB_CTX *libctx, const bytes *encrypted,
                                     const TPKS_SECRET *password, TPKS_SECRET **pkcs8)
{
    CRYPTO_SCOPE;
    const unsigned char *at = encrypted->data;
    const X509_ALGOR *algorithm = NULL;
    __attribute__((cleanup(free_sig))) X509_SIG *sig =
        d2i_X509_SIG(NULL, &at, (long)encrypted->size);

    if (sig == NULL || at != encrypted->data + encrypted->size)
        return fail(TPKS_TAMPERED,
                    "the managed key is no EncryptedPrivateKeyInfo: restore the database from a "
                    "backup");
    X509_SIG_get0(sig, &algorithm, NULL);
    if (!is_affordable(algorithm))
        return fail(TPKS_UNSUPPORTED,
                    "the managed key is not encrypted with PBES2, PBKDF2 and at most %d rounds",
                    ITERATIONS_MAX);
    __attribute__((cleanup(free_info))) PKCS8_PRIV_KEY_INFO *info =
        PKCS8_decrypt_ex(sig, (const char *)tpks_secret_data_const(password),
                         (int)tpks_secret_size(password), libctx, NULL);
    if (info == NULL)
        return fail(TPKS_WRONG_SECRET,
                    "the managed key does not open with the password that Trustpoint's software "
                    "provider is configured with: correct it, or restore the database");
    return give_pkcs8(info, pkcs8);
}

/* ---- the software provider's password ---------------------------------------------------------
 */

static tpks_result stripped(const char *text, size_t size, TPKS_SECRET **out)
{
    text = text_strip(text, size, &size);
    if (size == 0)
        return fail(TPKS_WRONG_SECRET, "the password of Trustpoint's software provider is empty");
    *out = tpks_secret_copy(text, size);
    return *out == NULL ? fail_memory() : TPKS_OK;
}

static tpks_result from_file(const char *path, TPKS_SECRET **out)
{
    SECRET *content = NULL;
    tpks_result result = tpks_secret_read_file(path, PASSWORD_MAX, &content);

    if (result != TPKS_OK)
        return fail_in(result == TPKS_BAD_INPUT ? TPKS_WRONG_SECRET : result,
                       "the password of Trustpoint's software provider");
    return stripped((const char *)tpks_secret_data_const(content), tpks_secret_size(content), out);
}

static tpks_result from_environment(const char *name, TPKS_SECRET **out)
{
    const char *value = secure_getenv(name);

    if (value == NULL || *value == '\0')
        return fail(TPKS_WRONG_SECRET,
                    "the password of Trustpoint's software provider is to be in the environment "
                    "variable %.100s, which this program does not have: set it",
                    name);
    *out = tpks_secret_copy(value, strlen(value));
    return *out == NULL ? fail_memory() : TPKS_OK;
}

tpks_result trustpoint_password(const char *source, const char *ref, TPKS_SECRET **out)
{
    if (strcmp(source, "file") == 0)
        return from_file(ref, out);
    if (strcmp(source, "env") == 0)
        return from_environment(ref, out);
    if (strcmp(source, "dev_plaintext") == 0)
        return stripped(DEVELOPMENT_PASSWORD, strlen(DEVELOPMENT_PASSWORD), out);
    return fail(
        TPKS_NEWER_FORMAT,
        "Trustpoint's software provider has its password from \"%.40s\", which this version "
        "does not know: use a newer version",
        source);
}
