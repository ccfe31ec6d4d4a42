/*
 * token_sign.c - signatures by keys that stay in their token
 */
#include "token.h"

#include <stdbool.h>
#include <string.h>

#include <openssl/asn1.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/objects.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "error.h"

/* libcrypto's own bound for names of algorithms. */
#define NAME_SIZE 50
/* Bytes of the longest order with room to spare: what encode() writes then has short lengths. */
#define ORDER_MAX 120
/* PKCS #1 v1.5 adds this much at least (RFC 8017, 8.2.1). */
#define PKCS1_PADDING 11
/* EVP_PKEY_CTX_set_rsa_pss_saltlen(3); from OpenSSL 3.1 on. */
#define SALT_AUTO_DIGEST_MAX (-4)

/* One call of token_sign(). */
typedef struct task {
    const KEY *key;
    const unsigned char *in;
    size_t in_size;
    unsigned char *out;
    size_t *size;
    size_t room;
} TASK;

/* How a context is to sign. */
typedef struct scheme {
    int padding;
    int salt;
    size_t digest_size; /* ECDSA */
    char digest[NAME_SIZE];
    char mgf1[NAME_SIZE];
} SCHEME;

static void md_free(EVP_MD **md)
{
    EVP_MD_free(*md);
}

static void memory_free(unsigned char **memory)
{
    OPENSSL_free(*memory);
}

static void x509_sig_free(X509_SIG **info)
{
    X509_SIG_free(*info);
}

/* ---- what the default provider's context says ------------------------------------------------ */

static int get(const PASSTHROUGH *algorithm, void *inner, OSSL_PARAM params[])
{
    return ORIGINAL(algorithm, OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS,
                    OSSL_FUNC_signature_get_ctx_params_fn)(inner, params);
}

/* Each context answers what concerns its algorithm and leaves the rest as it is. */
static int get_scheme(const PASSTHROUGH *algorithm, void *inner, SCHEME *scheme)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, scheme->digest, NAME_SIZE),
        OSSL_PARAM_construct_size_t(OSSL_SIGNATURE_PARAM_DIGEST_SIZE, &scheme->digest_size),
        OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PAD_MODE, &scheme->padding),
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, scheme->mgf1, NAME_SIZE),
        OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, &scheme->salt),
        OSSL_PARAM_construct_end()};

    return get(algorithm, inner, params);
}

/* It has found the digest itself, in the same library context, so it is there. */
static EVP_MD *fetch(const KEY *key, const char *name)
{
    return *name == '\0' ? NULL : context_digest(key_context(key), name);
}

EVP_MD *token_digest(const KEY *key, const PASSTHROUGH *algorithm, void *inner)
{
    char name[NAME_SIZE] = "";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, name, sizeof(name)),
        OSSL_PARAM_construct_end()};

    return get(algorithm, inner, params) ? fetch(key, name) : NULL;
}

/* ---- the token --------------------------------------------------------------------------------
 */

static int by_token(const KEY *key, const tpks_token_op *op, const unsigned char *in,
                    size_t in_size, unsigned char *out, size_t *out_size)
{
    tpks_result result = tpks_token_key_sign(key_token(key), op, in, in_size, out, out_size);

    return RAISE_RESULT(key_context(key), result) == TPKS_OK;
}

static int rsa_by_token(const TASK *task, const tpks_token_op *op, const unsigned char *in,
                        size_t in_size)
{
    size_t size = task->room;

    if (!by_token(task->key, op, in, in_size, task->out, &size))
        return 0;
    *task->size = size;
    return 1;
}

/* ---- RSA, PKCS #1 v1.5 ------------------------------------------------------------------------
 */

/* OpenSSL writes and expects the signature's identifier where that of the digest SM3 should be. */
static int digest_info_nid(const EVP_MD *md)
{
    int nid = EVP_MD_get_type(md);

    return nid == NID_sm3 ? NID_sm3WithRSAEncryption : nid;
}

/* DigestInfo (RFC 8017, 9.2). Returns its length, 0 or less on failure. */
static int digest_info(const EVP_MD *md, const unsigned char *digest, size_t size,
                       unsigned char **der)
{
    __attribute__((cleanup(x509_sig_free))) X509_SIG *info = X509_SIG_new();
    X509_ALGOR *algorithm;
    ASN1_OCTET_STRING *octets;

    if (info == NULL)
        return 0;
    X509_SIG_getm(info, &algorithm, &octets);
    if (!X509_ALGOR_set0(algorithm, OBJ_nid2obj(digest_info_nid(md)), V_ASN1_NULL, NULL) ||
        !ASN1_OCTET_STRING_set(octets, digest, (int)size))
        return 0;
    return i2d_X509_SIG(info, der);
}

/* Without a digest, and for the one of TLS 1.0 and 1.1, the block is signed as it is. */
static int sign_pkcs1(const TASK *task, const EVP_MD *md)
{
    const tpks_token_op op = {.mechanism = TPKS_RSA_PKCS};
    size_t limit = key_signature_size(task->key) - PKCS1_PADDING;
    __attribute__((cleanup(memory_free))) unsigned char *der = NULL;
    int size;

    if (md == NULL || EVP_MD_get_type(md) == NID_md5_sha1)
        return task->in_size > limit ? TOKEN_UNFIT
                                     : rsa_by_token(task, &op, task->in, task->in_size);
    size = digest_info(md, task->in, task->in_size, &der);
    if (size <= 0)
        return 0;
    return (size_t)size > limit ? TOKEN_UNFIT : rsa_by_token(task, &op, der, (size_t)size);
}

/* ---- RSA-PSS -----------------------------------------------------------------------------------
 */

/* The longest salt (RFC 8017, 9.1.1), negative if the key is too short for the digest. */
static int longest_salt(const KEY *key, const EVP_MD *md)
{
    return (key_bits(key) + 6) / 8 - EVP_MD_get_size(md) - 2;
}

/* What EVP_PKEY_CTX_set_rsa_pss_saltlen(3) says of lengths that are names. */
static int salt_size(const KEY *key, const EVP_MD *md, int salt)
{
    int digest = EVP_MD_get_size(md), longest = longest_salt(key, md);

    switch (salt) {
    case RSA_PSS_SALTLEN_DIGEST:
        return digest;
    case RSA_PSS_SALTLEN_AUTO:
    case RSA_PSS_SALTLEN_MAX:
        return longest;
    case SALT_AUTO_DIGEST_MAX:
        return digest < longest ? digest : longest;
    default:
        return salt;
    }
}

static int sign_pss(const TASK *task, const SCHEME *scheme, const EVP_MD *md)
{
    __attribute__((cleanup(md_free))) EVP_MD *mgf1 = fetch(task->key, scheme->mgf1);
    tpks_token_op op = {.mechanism = TPKS_RSA_PSS};
    int salt;

    if (md == NULL || mgf1 == NULL)
        return TOKEN_UNFIT;
    salt = salt_size(task->key, md, scheme->salt);
    if (salt < 0 || salt > longest_salt(task->key, md))
        return TOKEN_UNFIT;
    op.digest = OBJ_nid2sn(EVP_MD_get_type(md));
    op.mgf1_digest = OBJ_nid2sn(EVP_MD_get_type(mgf1));
    op.salt_size = (size_t)salt;
    return rsa_by_token(task, &op, task->in, task->in_size);
}

static int sign_rsa(const TASK *task, const SCHEME *scheme)
{
    __attribute__((cleanup(md_free))) EVP_MD *md = fetch(task->key, scheme->digest);

    if (task->room < key_signature_size(task->key) ||
        (md != NULL && task->in_size != (size_t)EVP_MD_get_size(md)))
        return TOKEN_UNFIT;
    if (scheme->padding == RSA_PKCS1_PSS_PADDING)
        return sign_pss(task, scheme, md);
    return scheme->padding == RSA_PKCS1_PADDING ? sign_pkcs1(task, md) : TOKEN_UNFIT;
}

/* ---- ECDSA -------------------------------------------------------------------------------------
 */

/* An unsigned number as DER's INTEGER, in the least bytes with a clear first bit. Returns its end.
 */
static unsigned char *encode_integer(unsigned char *at, const unsigned char *number, size_t size)
{
    for (; size > 1 && *number == 0; number++)
        size--;
    bool pad = (*number & 0x80) != 0;

    *at++ = V_ASN1_INTEGER;
    *at++ = (unsigned char)(size + pad);
    if (pad)
        *at++ = 0;
    memcpy(at, number, size);
    return at + size;
}

/*
 * r and s as PKCS#11 has them to DER (RFC 3279, 2.2.3). With ECDSA_SIG it would take a fiftieth of
 * what the whole signature does. False when a token has made numbers too long for the curve.
 */
static bool encode(const TASK *task, const unsigned char *pair, size_t half)
{
    unsigned char body[2 * (ORDER_MAX + 3)];
    unsigned char *end = encode_integer(encode_integer(body, pair, half), pair + half, half);
    size_t size = (size_t)(end - body);
    unsigned char *at = task->out;

    *task->size = size + (size > 0x7f ? 3 : 2);
    if (*task->size > task->room)
        return false;
    *at++ = V_ASN1_SEQUENCE | V_ASN1_CONSTRUCTED;
    if (size > 0x7f)
        *at++ = 0x81; /* the length is in the next byte */
    *at++ = (unsigned char)size;
    memcpy(at, body, size);
    return true;
}

/* Of a digest that is longer than the order only the beginning counts (FIPS 186-5, 6.4.1), and some
 * tokens take no more than that. */
static int sign_ecdsa(const TASK *task, const SCHEME *scheme)
{
    const tpks_token_op op = {.mechanism = TPKS_ECDSA};
    size_t order = ((size_t)key_bits(task->key) + 7) / 8;
    size_t in_size = task->in_size < order ? task->in_size : order;
    unsigned char pair[2 * ORDER_MAX];
    size_t size = sizeof(pair);

    if (task->room < key_signature_size(task->key) ||
        (scheme->digest_size != 0 && task->in_size != scheme->digest_size))
        return TOKEN_UNFIT;
    return by_token(task->key, &op, task->in, in_size, pair, &size) && size == 2 * order &&
           encode(task, pair, order);
}

int token_sign(const KEY *key, const PASSTHROUGH *algorithm, void *inner, unsigned char *out,
               size_t *size, size_t room, const unsigned char *in, size_t in_size)
{
    const TASK task = {key, in, in_size, out, size, room};
    SCHEME scheme = {.padding = 0};

    if (!get_scheme(algorithm, inner, &scheme))
        return 0;
    return key_type(key) == &key_ec ? sign_ecdsa(&task, &scheme) : sign_rsa(&task, &scheme);
}
