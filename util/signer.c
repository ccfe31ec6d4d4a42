/*
 * signer.c - who signs a request or a certificate: a key in memory, or one that stays in its token
 */
#include <openssl/err.h>

#include "key_input.h"
#include "output.h"
#include "record_view.h"
#include "signer.h"

#define SIGNATURE_MAX 2048

CLEANUP(X509_ALGOR *, X509_ALGOR_free, cleanup_algorithm)
CLEANUP(X509_SIG *, X509_SIG_free, cleanup_digest_info)
CLEANUP(ECDSA_SIG *, ECDSA_SIG_free, cleanup_ecdsa)
CLEANUP(ASN1_BIT_STRING *, ASN1_BIT_STRING_free, cleanup_bits)

static int open_in_memory(APP *app, const TPKS_RECORD *record, SIGNER *out)
{
    AUTO(secret) TPKS_SECRET *secret = NULL;

    DO(complain_result(tpks_load_key(app->ks, record, &secret)));
    return key_from_secret(app, secret, &out->key);
}

int signer_open(APP *app, const TPKS_RECORD *record, SIGNER *out)
{
    if (tpks_record_home(record) != TPKS_HOME_TOKEN)
        return open_in_memory(app, record, out);
    out->key = view_public_key(app, record);
    if (out->key == NULL)
        return complain(EX_DATAERR, "the public key of %s cannot be read",
                        tpks_record_name(record));
    return complain_result(tpks_token_key_open(app->ks, record, &out->token));
}

void signer_close(SIGNER *signer)
{
    EVP_PKEY_free(signer->key);
    tpks_token_key_free(signer->token);
    *signer = (SIGNER){NULL, NULL};
}

/* ---- with a token's key
 * -------------------------------------------------------------------------------- */

/* What is signed, as DER, and what becomes of it. */
typedef struct signing {
    const SIGNER *signer;
    const EVP_MD *digest;
    unsigned char *tbs;
    int tbs_size;
    unsigned char *signature; /* free with OPENSSL_free() */
    int size;
} signing;

static X509_ALGOR *signature_algorithm(const SIGNER *signer, const EVP_MD *digest)
{
    bool rsa = EVP_PKEY_is_a(signer->key, "RSA");
    X509_ALGOR *algorithm = X509_ALGOR_new();
    int nid = NID_undef;

    if (algorithm != NULL &&
        OBJ_find_sigid_by_algs(&nid, EVP_MD_get_type(digest), rsa ? EVP_PKEY_RSA : EVP_PKEY_EC) ==
            1 &&
        X509_ALGOR_set0(algorithm, OBJ_nid2obj(nid), rsa ? V_ASN1_NULL : V_ASN1_UNDEF, NULL) == 1)
        return algorithm;
    X509_ALGOR_free(algorithm);
    return NULL;
}

static int sign_in_token(const signing *s, tpks_mechanism mechanism, const unsigned char *in,
                         size_t in_size, unsigned char out[SIGNATURE_MAX], size_t *size)
{
    const tpks_token_op op = {.mechanism = mechanism};

    *size = SIGNATURE_MAX;
    return complain_result(tpks_token_key_sign(s->signer->token, &op, in, in_size, out, size));
}

/* RFC 8017 section 9.2: the digest stands in a DigestInfo. */
static int digest_info(const signing *s, const unsigned char *digest, unsigned size,
                       unsigned char **der)
{
    AUTO(digest_info) X509_SIG *info = X509_SIG_new();
    X509_ALGOR *algorithm = NULL;
    ASN1_OCTET_STRING *value = NULL;

    if (info == NULL)
        return -1;
    X509_SIG_getm(info, &algorithm, &value);
    if (X509_ALGOR_set0(algorithm, OBJ_nid2obj(EVP_MD_get_type(s->digest)), V_ASN1_NULL, NULL) !=
            1 ||
        ASN1_OCTET_STRING_set(value, digest, (int)size) != 1)
        return -1;
    return i2d_X509_SIG(info, der);
}

static int sign_rsa(signing *s, const unsigned char *digest, unsigned digest_size)
{
    unsigned char out[SIGNATURE_MAX], *der = NULL;
    size_t size = 0;
    int der_size = digest_info(s, digest, digest_size, &der), code;

    if (der_size <= 0)
        return complain_memory();
    code = sign_in_token(s, TPKS_RSA_PKCS, der, (size_t)der_size, out, &size);
    OPENSSL_free(der);
    if (code != EX_OK)
        return code;
    s->signature = OPENSSL_memdup(out, size);
    s->size = (int)size;
    return s->signature != NULL ? EX_OK : complain_memory();
}

static int sign_ecdsa(signing *s, const unsigned char *digest, unsigned digest_size)
{
    AUTO(ecdsa) ECDSA_SIG *signature = ECDSA_SIG_new();
    unsigned char out[SIGNATURE_MAX];
    size_t size = 0;

    DO(sign_in_token(s, TPKS_ECDSA, digest, digest_size, out, &size));
    BIGNUM *r = BN_bin2bn(out, (int)size / 2, NULL);
    BIGNUM *t = BN_bin2bn(out + size / 2, (int)size / 2, NULL);
    if (signature == NULL || r == NULL || t == NULL || ECDSA_SIG_set0(signature, r, t) != 1) {
        BN_free(r);
        BN_free(t);
        return complain_memory();
    }
    s->size = i2d_ECDSA_SIG(signature, &s->signature);
    return s->size > 0 ? EX_OK : complain_memory();
}

/* Signs tbs, which is given back, and puts the signature into `bits`. */
static int sign_tbs(signing *s, ASN1_BIT_STRING *bits)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    bool hashed = s->tbs_size > 0 &&
                  EVP_Digest(s->tbs, (size_t)s->tbs_size, digest, &size, s->digest, NULL) == 1;
    int code;

    OPENSSL_free(s->tbs);
    if (!hashed)
        return complain_crypto(EX_SOFTWARE, "cannot hash what is to be signed");
    code = EVP_PKEY_is_a(s->signer->key, "RSA") ? sign_rsa(s, digest, size)
                                                : sign_ecdsa(s, digest, size);
    if (code == EX_OK && ASN1_BIT_STRING_set(bits, s->signature, s->size) != 1)
        code = complain_memory();
    bits->flags &= ~(ASN1_STRING_FLAG_BITS_LEFT | 0x07);
    bits->flags |= ASN1_STRING_FLAG_BITS_LEFT; /* every bit counts */
    OPENSSL_free(s->signature);
    return code;
}

static int request_in_token(const SIGNER *signer, const EVP_MD *digest, X509_REQ *request)
{
    AUTO(algorithm) X509_ALGOR *algorithm = signature_algorithm(signer, digest);
    AUTO(bits) ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();
    signing s = {.signer = signer, .digest = digest};

    if (algorithm == NULL || bits == NULL || X509_REQ_set1_signature_algo(request, algorithm) != 1)
        return complain_memory();
    s.tbs_size = i2d_re_X509_REQ_tbs(request, &s.tbs);
    DO(sign_tbs(&s, bits));
    X509_REQ_set0_signature(request, bits);
    bits = NULL;
    return EX_OK;
}

/* A certificate has no functions that set these, only such that lend them. */
static int cert_in_token(const SIGNER *signer, const EVP_MD *digest, X509 *cert)
{
    AUTO(algorithm) X509_ALGOR *algorithm = signature_algorithm(signer, digest);
    const ASN1_BIT_STRING *bits = NULL;
    const X509_ALGOR *outer = NULL;
    signing s = {.signer = signer, .digest = digest};

    X509_get0_signature(&bits, &outer, cert);
    if (algorithm == NULL || X509_ALGOR_copy((X509_ALGOR *)outer, algorithm) != 1 ||
        X509_ALGOR_copy((X509_ALGOR *)X509_get0_tbs_sigalg(cert), algorithm) != 1)
        return complain_memory();
    s.tbs_size = i2d_re_X509_tbs(cert, &s.tbs);
    return sign_tbs(&s, (ASN1_BIT_STRING *)bits);
}

/* ---- either
 * ------------------------------------------------------------------------------------------- */

int signer_sign_request(const SIGNER *signer, const EVP_MD *digest, X509_REQ *request)
{
    if (signer->token != NULL)
        return request_in_token(signer, digest, request);
    if (X509_REQ_sign(request, signer->key, digest) > 0)
        return EX_OK;
    return complain_crypto(EX_SOFTWARE, "cannot sign the certificate request");
}

int signer_sign_cert(const SIGNER *signer, const EVP_MD *digest, X509 *cert)
{
    if (signer->token != NULL)
        return cert_in_token(signer, digest, cert);
    if (X509_sign(cert, signer->key, digest) > 0)
        return EX_OK;
    return complain_crypto(EX_SOFTWARE, "cannot sign the certificate");
}
