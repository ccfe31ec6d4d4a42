/* trustpoint_chain.c - certificates into the order in which they issued each other */
#include <openssl/x509v3.h>

#include "error.h"
#include "trustpoint.h"

/* How well a certificate fits as the issuer of another, by names and key identifiers; 0: not at
 * all. */
static int fitness(X509 *issuer, X509 *subject)
{
    if (X509_NAME_cmp(X509_get_issuer_name(subject), X509_get_subject_name(issuer)) != 0)
        return 0;
    return X509_check_issued(issuer, subject) == X509_V_OK ? 2 : 1;
}

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

static bool is_used(const STACK_OF(X509) * chain, const X509 *cert)
{
    for (int i = 0; i < sk_X509_num(chain); i++)
        if (X509_cmp(sk_X509_value(chain, i), cert) == 0)
            return true;
    return false;
}

static X509 *find_issuer(X509 *subject, const X509 *leaf, const STACK_OF(X509) * given,
                         const STACK_OF(X509) * chain)
{
    X509 *best = NULL;
    int best_fitness = 0;

    for (int i = 0; i < sk_X509_num(given); i++) {
        X509 *cert = sk_X509_value(given, i);
        int fits = fitness(cert, subject);
        if (fits == 0 || X509_cmp(cert, leaf) == 0 || is_used(chain, cert) ||
            !fits_better(cert, fits, best, best_fitness, subject))
            continue;
        best = cert;
        best_fitness = fits;
    }
    return best;
}

static bool is_self_issued(const X509 *cert)
{
    return X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(cert)) == 0;
}

static void free_chain(STACK_OF(X509) * *chain)
{
    sk_X509_pop_free(*chain, X509_free);
}

tpks_result trustpoint_chain(X509 *leaf, const STACK_OF(X509) * given, STACK_OF(X509) * *out)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(free_chain))) STACK_OF(X509) *chain = sk_X509_new_null();

    if (chain == NULL)
        return fail_memory();
    for (X509 *at = leaf; at != NULL && !is_self_issued(at);) {
        at = find_issuer(at, leaf, given, chain);
        if (at == NULL)
            break;
        if (!sk_X509_push(chain, at))
            return fail_memory();
        X509_up_ref(at);
    }
    *out = chain;
    chain = NULL;
    return TPKS_OK;
}
