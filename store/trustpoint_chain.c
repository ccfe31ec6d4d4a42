/* trustpoint_chain.c - certificates into the order in which they issued each other */
#include <openssl/x509v3.h>

#include "error.h"
#include "trustpoint.h"

static void free_x509(X509 **cert)
{
    X509_free(*cert);
}

static void free_chain(STACK_OF(X509) * *chain)
{
    sk_X509_pop_free(*chain, X509_free);
}

static void free_set(STACK_OF(X509) * *set)
{
    sk_X509_free(*set);
}

#define CERT __attribute__((cleanup(free_x509))) X509

static bool has_signed(X509 *issuer, X509 *subject)
{
    EVP_PKEY *key = X509_get0_pubkey(issuer);

    return key != NULL && X509_verify(subject, key) == 1;
}

/* Only between two that fit alike: it is slow, and Trustpoint's older releases sign wrongly in an
 * HSM, so that a signature which does not verify says little. */
static bool fits_better(X509 *cert, int fits, X509 *best, int best_fitness, X509 *subject)
{
    return fits > best_fitness || (fits > 0 && fits == best_fitness && !has_signed(best, subject) &&
                                   has_signed(cert, subject));
}

static bool is_same(const X509 *a, const X509 *b)
{
    return ASN1_INTEGER_cmp(X509_get0_serialNumber(a), X509_get0_serialNumber(b)) == 0 &&
           X509_NAME_cmp(X509_get_issuer_name(a), X509_get_issuer_name(b)) == 0 &&
           X509_cmp(a, b) == 0;
}

static bool is_in(const STACK_OF(X509) * set, const X509 *cert)
{
    for (int i = 0; i < sk_X509_num(set); i++)
        if (is_same(sk_X509_value(set, i), cert))
            return true;
    return false;
}

/* The subject's issuers by name. */
static bool collect(const X509 *subject, const X509 *leaf, const STACK_OF(X509) * given,
                    const STACK_OF(X509) * chain, STACK_OF(X509) * out)
{
    for (int i = 0; i < sk_X509_num(given); i++) {
        X509 *cert = sk_X509_value(given, i);
        if (X509_NAME_cmp(X509_get_issuer_name(subject), X509_get_subject_name(cert)) == 0 &&
            !is_same(cert, leaf) && !is_in(chain, cert) && !is_in(out, cert) &&
            !sk_X509_push(out, cert))
            return false;
    }
    return true;
}

/* The one that fits best, by key identifiers and perhaps signature. */
static X509 *choose(OSSL_LIB_CTX *libctx, const X509 *subject, const STACK_OF(X509) * issuers)
{
    CERT *wanted = trustpoint_parse_key(libctx, subject);
    CERT *best = NULL;
    int chosen = 0, best_fitness = 0;

    for (int i = 0; i < sk_X509_num(issuers) && wanted != NULL; i++) {
        CERT *cert = trustpoint_parse_key(libctx, sk_X509_value(issuers, i));
        int fits = cert == NULL ? 0 : X509_check_issued(cert, wanted) == X509_V_OK ? 2 : 1;
        if (!fits_better(cert, fits, best, best_fitness, wanted))
            continue;
        X509_free(best);
        best = cert;
        cert = NULL;
        best_fitness = fits;
        chosen = i;
    }
    return sk_X509_value(issuers, chosen);
}

/* *out stays NULL when there is none. */
static tpks_result find_issuer(OSSL_LIB_CTX *libctx, const X509 *subject, const X509 *leaf,
                               const STACK_OF(X509) * given, const STACK_OF(X509) * chain,
                               X509 **out)
{
    __attribute__((cleanup(free_set))) STACK_OF(X509) *issuers = sk_X509_new_null();

    if (issuers == NULL || !collect(subject, leaf, given, chain, issuers))
        return fail_memory();
    *out = sk_X509_num(issuers) > 1 ? choose(libctx, subject, issuers) : sk_X509_value(issuers, 0);
    return TPKS_OK;
}

static bool is_self_issued(const X509 *cert)
{
    return X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(cert)) == 0;
}

tpks_result trustpoint_chain(OSSL_LIB_CTX *libctx, X509 *leaf, const STACK_OF(X509) * given,
                             STACK_OF(X509) * *out)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(free_chain))) STACK_OF(X509) *chain = sk_X509_new_null();

    if (chain == NULL)
        return fail_memory();
    for (X509 *at = leaf; !is_self_issued(at);) {
        X509 *issuer = NULL;
        TRY(find_issuer(libctx, at, leaf, given, chain, &issuer));
        if (issuer == NULL)
            break;
        if (!sk_X509_push(chain, issuer))
            return fail_memory();
        X509_up_ref(issuer);
        at = issuer;
    }
    *out = chain;
    chain = NULL;
    return TPKS_OK;
}
