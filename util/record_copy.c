/*
 * record_copy.c - one record from one keystore into another
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509.h>

#include "key_input.h"
#include "record_copy.h"

static const char *const action_names[COPY_ACTIONS] = {
    [COPY_NEW] = "copied",          [COPY_CERTS] = "certificates", [COPY_REPLACED] = "replaced",
    [COPY_UNCHANGED] = "unchanged", [COPY_CONFLICT] = "conflict",  [COPY_ADOPTED] = "adopted",
    [COPY_IN_TOKEN] = "in-token",   [COPY_NO_KEY] = "no-key",      [COPY_FAILED] = "failed",
};

const char *copy_action_name(copy_action action)
{
    return action_names[action];
}

void copy_item_clear(copy_item *item)
{
    free(item->name);
    free(item->target);
    free(item->why);
}

/* ---- what is to be done
 * ------------------------------------------------------------------------- */

static bool same_certs(const TPKS_RECORD *a, const TPKS_RECORD *b)
{
    size_t count = tpks_record_cert_count(a);

    if (count != tpks_record_cert_count(b))
        return false;
    for (size_t i = 0; i < count; i++) {
        size_t size_a = 0, size_b = 0;
        const unsigned char *der_a = tpks_record_cert(a, i, &size_a);
        const unsigned char *der_b = tpks_record_cert(b, i, &size_b);

        if (size_a != size_b || memcmp(der_a, der_b, size_a) != 0)
            return false;
    }
    return true;
}

static copy_action decide(const copy_params *params, const TPKS_RECORD *source,
                          const TPKS_RECORD *present)
{
    bool in_token = tpks_record_home(source) == TPKS_HOME_TOKEN;

    if (tpks_record_home(source) == TPKS_HOME_NONE)
        return COPY_NO_KEY;
    if (present == NULL && in_token)
        return params->has_token ? COPY_ADOPTED : COPY_IN_TOKEN;
    if (present == NULL)
        return COPY_NEW;
    if (memcmp(tpks_record_spki_sha256(source), tpks_record_spki_sha256(present), 32) != 0)
        return params->replace && !in_token && tpks_record_home(present) != TPKS_HOME_TOKEN
                   ? COPY_REPLACED
                   : COPY_CONFLICT;
    return same_certs(source, present) ? COPY_UNCHANGED : COPY_CERTS;
}

static tpks_result find_present(TPKS *to, const char *name, TPKS_RECORD **out)
{
    const tpks_selector selector = {.name = name};
    tpks_result result = tpks_find(to, &selector, out);

    return result == TPKS_NOT_FOUND ? TPKS_OK : result;
}

/* ---- doing it
 * ----------------------------------------------------------------------------------- */

/* A failure that the library has no text for. */
static tpks_result fail(copy_item *item, tpks_result result, const char *why)
{
    item->why = strdup(why);
    return result;
}

/* The certificates of a record; *out is NULL when it has none. */
static tpks_result take_certs(const copy_params *params, copy_item *item, const TPKS_RECORD *record,
                              STACK_OF(X509) * *out)
{
    AUTO(certs) STACK_OF(X509) *certs = sk_X509_new_null();
    size_t count = tpks_record_cert_count(record);

    for (size_t i = 0; certs != NULL && i < count; i++) {
        size_t size = 0;
        const unsigned char *der = tpks_record_cert(record, i, &size);
        X509 *cert = X509_new_ex(params->libctx, NULL);

        if (cert == NULL || d2i_X509(&cert, &der, (long)size) == NULL ||
            sk_X509_push(certs, cert) <= 0) {
            ERR_clear_error();
            return fail(item, TPKS_BAD_INPUT, "one of its certificates cannot be read");
        }
    }
    if (count == 0)
        return TPKS_OK;
    *out = certs;
    certs = NULL;
    return *out != NULL ? TPKS_OK : fail(item, TPKS_NO_MEMORY, "out of memory");
}

/* The very bytes must come out again; the certificates were compared when they were written. */
static tpks_result compare_key(const copy_params *params, copy_item *item,
                               const TPKS_RECORD *record, const TPKS_SECRET *key)
{
    AUTO(secret) TPKS_SECRET *stored = NULL;
    tpks_result result = tpks_load_key(params->to, record, &stored);

    if (result != TPKS_OK)
        return result;
    if (tpks_secret_size(stored) == tpks_secret_size(key) &&
        CRYPTO_memcmp(tpks_secret_data_const(stored), tpks_secret_data_const(key),
                      tpks_secret_size(key)) == 0)
        return TPKS_OK;
    return fail(item, TPKS_INTERNAL, "what was read back is not the key; nothing is kept of it");
}

/* `key` is NULL when it is in the token. */
static tpks_result read_back(const copy_params *params, copy_item *item, const TPKS_SECRET *key)
{
    AUTO(record) TPKS_RECORD *record = NULL;
    TPKS_TOKEN_KEY *in_token = NULL;
    const tpks_selector selector = {.name = item->target};
    tpks_result result = tpks_find(params->to, &selector, &record);

    if (result != TPKS_OK)
        return result;
    if (key != NULL)
        return compare_key(params, item, record, key);
    result = tpks_token_key_open(params->to, record, &in_token);
    tpks_token_key_free(in_token);
    return result;
}

/* A key in a token can sign and decrypt, nothing else. */
static tpks_result adopt(const copy_params *params, copy_item *item, const TPKS_RECORD *source,
                         const STACK_OF(X509) * certs)
{
    unsigned policy = (tpks_record_policy(source) | params->more) & ~(unsigned)TPKS_MAY_AGREE;
    tpks_result result =
        tpks_adopt_token_key(params->to, item->target, source, certs, policy, NULL);

    if (result != TPKS_TOKEN_MISSING && result != TPKS_KEY_MISSING && result != TPKS_UNSUPPORTED)
        return result;
    item->action = COPY_IN_TOKEN;
    return fail(item, TPKS_OK, tpks_error_text());
}

/* `key` is NULL when it is in a token. */
static tpks_result write_record(const copy_params *params, copy_item *item,
                                const TPKS_RECORD *source, const TPKS_RECORD *present,
                                const TPKS_SECRET *key, const STACK_OF(X509) * certs)
{
    if (item->action == COPY_ADOPTED)
        return adopt(params, item, source, certs);
    if (item->action == COPY_NEW)
        return tpks_add(params->to, item->target, key, certs,
                        tpks_record_policy(source) | params->more, NULL);
    return tpks_set_cert(params->to, present, item->action == COPY_REPLACED ? key : NULL, certs);
}

static tpks_result carry_over(const copy_params *params, copy_item *item, const TPKS_RECORD *source,
                              const TPKS_RECORD *present)
{
    AUTO(certs) STACK_OF(X509) *certs = NULL;
    AUTO(secret) TPKS_SECRET *key = NULL;
    tpks_result result = take_certs(params, item, source, &certs);

    if (result == TPKS_OK && tpks_record_home(source) != TPKS_HOME_TOKEN)
        result = tpks_load_key(params->from, source, &key);
    if (result == TPKS_OK)
        result = write_record(params, item, source, present, key, certs);
    if (result != TPKS_OK || item->action == COPY_IN_TOKEN)
        return result;
    return read_back(params, item, key);
}

static bool is_writing(copy_action action)
{
    return action == COPY_NEW || action == COPY_CERTS || action == COPY_REPLACED ||
           action == COPY_ADOPTED;
}

static tpks_result copy(const copy_params *params, copy_item *item)
{
    AUTO(record) TPKS_RECORD *source = NULL;
    AUTO(record) TPKS_RECORD *present = NULL;
    const tpks_selector selector = {.id = item->id};
    tpks_result result = tpks_find(params->from, &selector, &source);

    if (result == TPKS_OK)
        result = find_present(params->to, item->target, &present);
    if (result != TPKS_OK)
        return result;
    item->action = decide(params, source, present);
    if (params->plan || !is_writing(item->action))
        return TPKS_OK;
    return carry_over(params, item, source, present);
}

/* Failures after which nothing else would go better. */
static bool is_general(tpks_result result)
{
    switch (result) {
    case TPKS_KEK_MISSING:
    case TPKS_KEK_FOREIGN:
    case TPKS_TOKEN_MISSING:
    case TPKS_HSM_UNAVAILABLE:
    case TPKS_WRONG_SECRET:
    case TPKS_PIN_LOCKED:
    case TPKS_DATABASE_UNAVAILABLE:
    case TPKS_ROLLED_BACK:
    case TPKS_RESTORE_PENDING:
    case TPKS_NO_MEMORY:
    case TPKS_INTERNAL:
        return true;
    default:
        return false;
    }
}

tpks_result record_copy(const copy_params *params, copy_item *item)
{
    if (item->why != NULL) /* it could not even be listed */
        return TPKS_OK;
    item->result = copy(params, item);
    if (item->result != TPKS_OK && item->why == NULL)
        item->why = strdup(tpks_error_text());
    if (!params->plan && is_writing(item->action))
        tpks_log(params->from, "copied-out", item->name, item->result);
    if (item->result == TPKS_OK)
        return TPKS_OK;
    item->action = COPY_FAILED;
    return is_general(item->result) ? item->result : TPKS_OK;
}
