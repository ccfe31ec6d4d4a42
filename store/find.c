/* find.c - reading records and opening their keys */
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "config.h"
#include "file.h"
#include "keystore_internal.h"

#define CANDIDATES_SHOWN 5

/* Keeps the first match and the names of some more. */
typedef struct finding {
    const TPKS *ks;
    TPKS_RECORD *first;
    size_t count;
    bool unfinished; /* one that is no key would match */
    char names[700];
    size_t bad_count; /* of those that can't be read */
    tpks_result bad;  /* of the first of them */
    char bad_text[800];
} finding;

static void finding_end(finding *f)
{
    tpks_record_free(f->first);
}

/* Trustpoint has no policy that could let a key decrypt: the configuration has. */
static void add_policy(const TPKS *ks, TPKS_RECORD *record)
{
    if (ks->schema != &schema_native && strcmp(record->key_type, "RSA") == 0 &&
        config_lets_decrypt(ks->config, ks->section, record->name))
        record->policy |= TPKS_MAY_DECRYPT;
}

static tpks_result keep(void *arg, TPKS_RECORD *record)
{
    finding *f = arg;
    size_t used = strlen(f->names);

    if (record_is_unfinished(record)) {
        f->unfinished = true;
        return TPKS_OK;
    }
    if (++f->count <= CANDIDATES_SHOWN)
        snprintf(f->names + used, sizeof(f->names) - used, "%s\"%.100s\"", used == 0 ? "" : ", ",
                 record->name);
    if (f->first != NULL)
        return TPKS_OK;
    add_policy(f->ks, record);
    return record_copy(record, &f->first);
}

/* Who would it be? It may be the one that is meant. */
static tpks_result keep_bad(void *arg, const TPKS_RECORD *record, tpks_result result)
{
    finding *f = arg;
    char name[BAD_NAME_SIZE];

    if (f->bad_count++ == 0) {
        f->bad = result;
        record_name_of_bad(record, name);
        snprintf(f->bad_text, sizeof(f->bad_text), "%.200s: %s", name, tpks_error_text());
    }
    return TPKS_OK;
}

static tpks_result search_once(TPKS *ks, const tpks_selector *selector, finding *f)
{
    f->ks = ks;
    if (!ks->in_change)
        TRY(ks->d.backend->begin(ks->d.db, false));
    tpks_result result = keystore_each_readable(ks, selector, keep, keep_bad, f);
    if (!ks->in_change)
        ks->d.backend->rollback(ks->d.db);
    return result;
}

static tpks_result fail_unfinished(const char *name)
{
    return fail(TPKS_NOT_FOUND,
                "the key of \"%s\" was being made in its token, or destroyed there, when the "
                "program ended: generate it again or delete it with --destroy-key",
                name);
}

static tpks_result search(TPKS *ks, const tpks_selector *selector, finding *f)
{
    tpks_result result = search_once(ks, selector, f);

    if (ks->in_change || !keystore_was_cut_off(ks, result))
        return result;
    finding_end(f);
    memset(f, 0, sizeof(*f));
    return search_once(ks, selector, f);
}

/* One that can't be read may be the one that is meant. */
static tpks_result check_bad(const finding *f)
{
    if (f->bad_count == 0)
        return TPKS_OK;
    if (f->count == 0)
        return fail(f->bad, "%s", f->bad_text);
    return fail(f->bad,
                "among the records that match are %zu that can't be read (%s), besides %s%s; "
                "choose one by name or id",
                f->bad_count, f->bad_text, f->names,
                f->count > CANDIDATES_SHOWN ? " and more" : "");
}

static tpks_result not_found(TPKS *ks, const tpks_selector *selector)
{
    char who[320];
    tpks_selector without_pin = *selector;
    __attribute__((cleanup(finding_end))) finding f = {0};

    without_pin.spki_sha256 = NULL;
    if (selector->spki_sha256 != NULL && selector->name != NULL) {
        TRY(search(ks, &without_pin, &f));
        TRY(check_bad(&f));
        if (f.count != 0)
            return fail(TPKS_MISMATCH,
                        "record \"%s\" has another key than the one pinned with spki=: find out "
                        "whether it was replaced, then pin the new one",
                        selector->name);
    }
    keystore_describe(ks, who, sizeof(who));
    if (selector->name != NULL)
        return fail(TPKS_NOT_FOUND, "no record named \"%s\" in %s: see trustpoint-keystore list",
                    selector->name, who);
    return fail(TPKS_NOT_FOUND, "no record in %s matches: see trustpoint-keystore list", who);
}

tpks_result tpks_find(TPKS *ks, const tpks_selector *selector, TPKS_RECORD **out)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(finding_end))) finding f = {0};

    TRY(search(ks, selector, &f));
    TRY(check_bad(&f));
    if (f.count == 0 && f.unfinished && selector->name != NULL)
        return fail_unfinished(selector->name);
    if (f.count == 0)
        return not_found(ks, selector);
    if (f.count > 1)
        return fail(TPKS_AMBIGUOUS, "%zu records match: %s%s; choose one by name or id", f.count,
                    f.names, f.count > CANDIDATES_SHOWN ? " and more" : "");
    TRY(record_check_public(ks->libctx, f.first));
    *out = f.first;
    f.first = NULL;
    return TPKS_OK;
}

/* Gives a record away as the public type. */
typedef struct walk {
    const TPKS *ks;
    tpks_each_fn *each;
    tpks_bad_fn *bad;
    void *arg;
    size_t count; /* of records that can't be read */
    tpks_result first;
} walk;

static tpks_result pass_on(void *arg, TPKS_RECORD *record)
{
    const walk *w = arg;

    if (record_is_unfinished(record))
        return TPKS_OK;
    add_policy(w->ks, record);
    return w->each(w->arg, record);
}

tpks_result tpks_each(TPKS *ks, const tpks_selector *selector, tpks_each_fn *each, void *arg)
{
    CRYPTO_SCOPE;
    walk w = {.ks = ks, .each = each, .arg = arg};

    return ks->schema->each_record(&ks->d, ks->libctx, &ks->head, selector, pass_on, &w);
}

/* After a key was opened with `result`: is it the record's? Without success there is none. */
static tpks_result compare(const TPKS *ks, const TPKS_RECORD *record, tpks_result result,
                           TPKS_SECRET **pkcs8)
{
    /* Without a public half the caller has nothing to compare. */
    bool ours = !ks->caller_compares || record->spki.size == 0;

    if (result == TPKS_OK && ours && tpks_record_home(record) != TPKS_HOME_TOKEN)
        result = record_check_key(ks->libctx, record, *pkcs8);
    if (result != TPKS_OK) {
        tpks_secret_free(*pkcs8);
        *pkcs8 = NULL;
    }
    return result;
}

/* A key that is not sealed under the DEK. */
static tpks_result load_locked(TPKS *ks, const TPKS_RECORD *record, TPKS_SECRET **pkcs8)
{
    return compare(ks, record, ks->schema->open_record(&ks->d, ks->libctx, record, NULL, pkcs8),
                   pkcs8);
}

void record_name_of_bad(const TPKS_RECORD *record, char name[BAD_NAME_SIZE])
{
    char id[2 * TPKS_ID_SIZE + 1];

    if (record->name != NULL && *record->name != '\0') {
        OPENSSL_strlcpy(name, record->name, BAD_NAME_SIZE);
        return;
    }
    hex_text(record->id, TPKS_ID_SIZE, id);
    snprintf(name, BAD_NAME_SIZE, "(record %s)", id);
}

tpks_result keystore_each_readable(TPKS *ks, const tpks_selector *selector, schema_each_fn *each,
                                   schema_bad_fn *bad, void *arg)
{
    return ks->schema->each_readable(&ks->d, ks->libctx, &ks->head, selector, each, bad, arg);
}

static tpks_result pass_bad_on(void *arg, const TPKS_RECORD *record, tpks_result result)
{
    walk *w = arg;
    char name[BAD_NAME_SIZE];

    record_name_of_bad(record, name);
    if (w->count++ == 0)
        w->first = result;
    w->bad(w->arg, name, result, tpks_error_text());
    return TPKS_OK;
}

tpks_result tpks_each_readable(TPKS *ks, const tpks_selector *selector, tpks_each_fn *each,
                               tpks_bad_fn *bad, void *arg)
{
    CRYPTO_SCOPE;
    walk w = {.ks = ks, .each = each, .bad = bad, .arg = arg};

    TRY(keystore_each_readable(ks, selector, pass_on, pass_bad_on, &w));
    if (w.first != TPKS_OK)
        return fail(w.first, "%zu record%s can't be read: restore %s from a backup", w.count,
                    w.count == 1 ? "" : "s", w.count == 1 ? "it" : "them");
    return TPKS_OK;
}

/* Can it be for a reason that goes away when the keystore is unlocked anew? A DEK that was kept in
 * the token may be gone from it, and Trustpoint may have made a new one since this one was proven.
 */
static bool is_worth_another_try(const TPKS *ks, tpks_result result, bool proven_before)
{
    const slot_row *slot = keystore_slot(ks);
    bool by_machine = slot != NULL && !slot_is_way_back(slot); /* and not by a password, once */

    return result == TPKS_HSM_UNAVAILABLE || (result == TPKS_TAMPERED && proven_before &&
                                              by_machine && ks->schema->read_only != NULL);
}

tpks_result keystore_open_record(TPKS *ks, const TPKS_RECORD *record, TPKS_SECRET **pkcs8)
{
    bool proven_before = ks->dek != NULL;

    *pkcs8 = NULL;
    if (!ks->schema->needs_dek(record))
        return load_locked(ks, record, pkcs8);
    ks->suspect = true; /* until it has succeeded */
    TRY(tpks_unlock(ks));
    if (memcmp(record->dek, ks->head.dek, TPKS_ID_SIZE) != 0)
        return fail(TPKS_TAMPERED,
                    "record \"%s\" is sealed under a DEK that is not the current one: "
                    "restore it from a backup",
                    record->name);
    tpks_result result = ks->schema->open_record(&ks->d, ks->libctx, record, ks->dek, pkcs8);
    if (is_worth_another_try(ks, result, proven_before)) {
        keystore_lock(ks);
        TRY(tpks_unlock(ks));
        result = ks->schema->open_record(&ks->d, ks->libctx, record, ks->dek, pkcs8);
    }
    /* Sealed right, but a token that decrypts wrongly says OK too. */
    result = compare(ks, record, result, pkcs8);
    ks->suspect = result != TPKS_OK;
    return result;
}

tpks_result tpks_load_key(TPKS *ks, const TPKS_RECORD *record, TPKS_SECRET **pkcs8)
{
    CRYPTO_SCOPE;

    *pkcs8 = NULL;
    if (tpks_record_home(record) == TPKS_HOME_TOKEN)
        return fail(TPKS_NOT_PERMITTED,
                    "the key of \"%s\" lives in a token, which it can't leave: it can be used, "
                    "not loaded or exported",
                    record->name);
    return keystore_open_record(ks, record, pkcs8);
}
