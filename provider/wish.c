/*
 * wish.c - what the program wants besides the URI
 */
#include "plan.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>

void wish_clear(WISH *wish)
{
    OPENSSL_free(wish->subject);
    OPENSSL_free(wish->issuer);
    BN_free(wish->serial);
    OPENSSL_free(wish->fingerprint);
    OPENSSL_free(wish->digest);
    OPENSSL_free(wish->alias);
    *wish = (WISH){0};
}

static int set_int(int *value, const OSSL_PARAM params[], const char *name)
{
    const OSSL_PARAM *param = OSSL_PARAM_locate_const(params, name);

    return param == NULL || OSSL_PARAM_get_int(param, value);
}

/* libcrypto's getters make the copy. */
static int set_octets(unsigned char **value, size_t *size, const OSSL_PARAM params[],
                      const char *name)
{
    const OSSL_PARAM *param = OSSL_PARAM_locate_const(params, name);
    void *copy = NULL;

    if (param == NULL)
        return 1;
    if (!OSSL_PARAM_get_octet_string(param, &copy, 0, size))
        return 0;
    OPENSSL_free(*value);
    *value = copy;
    return 1;
}

static int set_text(char **value, const OSSL_PARAM params[], const char *name)
{
    const OSSL_PARAM *param = OSSL_PARAM_locate_const(params, name);
    char *copy = NULL;

    if (param == NULL)
        return 1;
    if (!OSSL_PARAM_get_utf8_string(param, &copy, 0))
        return 0;
    OPENSSL_free(*value);
    *value = copy;
    return 1;
}

static int set_number(BIGNUM **value, const OSSL_PARAM params[], const char *name)
{
    const OSSL_PARAM *param = OSSL_PARAM_locate_const(params, name);

    return param == NULL || OSSL_PARAM_get_BN(param, value);
}

int wish_set(WISH *wish, const OSSL_PARAM params[])
{
    return set_int(&wish->expect, params, OSSL_STORE_PARAM_EXPECT) &&
           set_octets(&wish->subject, &wish->subject_size, params, OSSL_STORE_PARAM_SUBJECT) &&
           set_octets(&wish->issuer, &wish->issuer_size, params, OSSL_STORE_PARAM_ISSUER) &&
           set_number(&wish->serial, params, OSSL_STORE_PARAM_SERIAL) &&
           set_octets(&wish->fingerprint, &wish->fingerprint_size, params,
                      OSSL_STORE_PARAM_FINGERPRINT) &&
           set_text(&wish->digest, params, OSSL_STORE_PARAM_DIGEST) &&
           set_text(&wish->alias, params, OSSL_STORE_PARAM_ALIAS);
}
