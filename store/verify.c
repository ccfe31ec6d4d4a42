/* verify.c - proving everything that a keystore holds */
#include "keystore_internal.h"
#include "secret.h"

typedef struct verification {
    TPKS *ks;
    tpks_progress_fn *progress;
    tpks_bad_fn *bad;
    void *arg;
    uint64_t seen;
    uint64_t total;
    uint64_t proven;
    tpks_result first;
} verification;

/* The token's key is the record's: found, compared, and let go. */
static tpks_result prove_in_token(TPKS *ks, const TPKS_RECORD *record)
{
    TPKS_TOKEN_KEY *key = NULL;
    tpks_result result = tpks_token_key_open(ks, record, &key);

    tpks_token_key_free(key);
    return result;
}

static tpks_result prove(TPKS *ks, const TPKS_RECORD *record)
{
    SECRET *pkcs8 = NULL;

    TRY(record_check_public(ks->libctx, record));
    /* There is no key, or nothing that the token's could be compared with. */
    if (tpks_record_home(record) == TPKS_HOME_NONE ||
        (tpks_record_home(record) == TPKS_HOME_TOKEN && record->spki.size == 0))
        return TPKS_OK;
    if (tpks_record_home(record) == TPKS_HOME_TOKEN)
        return prove_in_token(ks, record);
    TRY(tpks_load_key(ks, record, &pkcs8));
    return record_check_halves(ks->libctx, record, pkcs8);
}

static tpks_result count(verification *v, const char *name, tpks_result result)
{
    v->seen++;
    v->proven += result == TPKS_OK;
    if (result != TPKS_OK && v->first == TPKS_OK)
        v->first = result;
    if (result != TPKS_OK && v->bad != NULL)
        v->bad(v->arg, name, result, tpks_error_text());
    if (v->progress != NULL && !v->progress(v->arg, v->seen, v->total))
        return fail(TPKS_CONFLICT, "stopped");
    return TPKS_OK;
}

static tpks_result verify_one(void *arg, TPKS_RECORD *record)
{
    verification *v = arg;

    if (record_is_unfinished(record)) /* no key to prove: `doctor` names it */
        return TPKS_OK;
    return count(v, record->name, prove(v->ks, record));
}

static tpks_result unreadable(void *arg, const TPKS_RECORD *record, tpks_result result)
{
    char name[BAD_NAME_SIZE];

    record_name_of_bad(record, name);
    return count(arg, name, result);
}

tpks_result tpks_verify(TPKS *ks, tpks_progress_fn *progress, tpks_bad_fn *bad, void *arg,
                        uint64_t *proven)
{
    CRYPTO_SCOPE;
    verification v = {.ks = ks, .progress = progress, .bad = bad, .arg = arg};

    TRY(ks->d.backend->check(ks->d.db));
    TRY(tpks_unlock(ks));
    TRY(ks->schema->count_records(&ks->d, &ks->head, &v.total));
    TRY(keystore_each_readable(ks, NULL, verify_one, unreadable, &v));
    *proven = v.proven;
    if (v.first != TPKS_OK)
        return fail(v.first, "%llu of %llu records can't be proven: restore them from a backup",
                    (unsigned long long)(v.seen - v.proven), (unsigned long long)v.seen);
    return TPKS_OK;
}
