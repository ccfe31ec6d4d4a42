/*
 * token_make.c - making keys in a token, and destroying them there
 *
 * Database and token can't change at once. So a record without public half is committed before a
 * key is made, and again before one is destroyed: whatever a crash leaves on the token, such an
 * unfinished record names it, and the next attempt clears it away.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "hsm_key.h"
#include "keystore_internal.h"
#include "secret.h"

static void close_hsm(HSM **hsm)
{
    hsm_close(*hsm);
}

#define HSM_HANDLE __attribute__((cleanup(close_hsm))) HSM
#define LABEL_NAME_MAX 200 /* bytes of the record's name in the label of its key */

static tpks_result start_change(TPKS *ks)
{
    TRY(keystore_check_writable(ks));
    if (ks->in_change)
        return fail(TPKS_INTERNAL, "a key in a token can't be made or destroyed together with "
                                   "other changes");
    return tpks_unlock(ks);
}

/* How the token's own tools and `doctor` know whose key it is. */
static void label_prefix(const TPKS *ks, char *out, size_t size)
{
    snprintf(out, size, "trustpoint-keystore %02x%02x%02x%02x ", ks->head.keystore[0],
             ks->head.keystore[1], ks->head.keystore[2], ks->head.keystore[3]);
}

/* ---- unfinished records ---------------------------------------------------------------------- */

static tpks_result keep_unfinished(void *arg, TPKS_RECORD *record)
{
    TPKS_RECORD **found = arg;

    return record_is_unfinished(record) ? record_copy(record, found) : TPKS_OK;
}

/* *out stays NULL when there is none. */
static tpks_result find_unfinished(TPKS *ks, const char *name, TPKS_RECORD **out)
{
    const tpks_selector by_name = {.name = name};

    return ks->schema->each_record(&ks->d, ks->libctx, &ks->head, &by_name, keep_unfinished, out);
}

static tpks_result check_token(const TPKS_RECORD *record, const HSM *hsm)
{
    if (strcmp(hsm_token_serial(hsm), record->token_serial) == 0)
        return TPKS_OK;
    return fail(TPKS_TOKEN_MISSING,
                "the key of \"%s\" is on the token with serial %s, but the configured one is "
                "\"%s\" with serial %s: put that token in, or correct `token`",
                record->name, record->token_serial, hsm_token_label(hsm), hsm_token_serial(hsm));
}

/* Destroys what an unfinished record speaks of, and removes it. */
static tpks_result clear_away(TPKS *ks, HSM *hsm, const TPKS_RECORD *record)
{
    SECRET *filler = NULL;

    TRY(keystore_open_record(ks, record, &filler)); /* nothing is destroyed on a stranger's word */
    if (record->cka_id.size == 0)
        return fail(TPKS_TAMPERED, "record \"%s\" has no key id", record->name);
    TRY(check_token(record, hsm));
    TRY(hsm_key_destroy(hsm, strncmp(record->key_type, "RSA", 3) == 0, record->cka_id.data,
                        record->cka_id.size));
    return keystore_delete_record(ks, record);
}

static tpks_result clear_name(TPKS *ks, HSM *hsm, const char *name, bool *found)
{
    RECORD *record = NULL;

    TRY(find_unfinished(ks, name, &record));
    *found = record != NULL;
    return *found ? clear_away(ks, hsm, record) : TPKS_OK;
}

tpks_result tpks_discard_unfinished(TPKS *ks, const char *name)
{
    CRYPTO_SCOPE;
    HSM_HANDLE *hsm = NULL;
    bool found = false;

    TRY(start_change(ks));
    TRY(keystore_hsm_open(ks, true, &hsm));
    TRY(clear_name(ks, hsm, name, &found));
    if (!found)
        return fail(TPKS_NOT_FOUND, "there is no unfinished record \"%s\"", name);
    tpks_log(ks, "record-removed", name, TPKS_OK);
    return TPKS_OK;
}

/* ---- making ---------------------------------------------------------------------------------- */

static tpks_result check_usage(const hsm_key_spec *spec, unsigned policy)
{
    unsigned possible = TPKS_MAY_SIGN | (spec->rsa ? TPKS_MAY_DECRYPT : 0);

    TRY(keystore_check_policy(policy));
    if ((policy & ~possible) != 0)
        return fail(TPKS_UNSUPPORTED,
                    "keys that live in a token can sign and, with RSA, decrypt, nothing else");
    return TPKS_OK;
}

static tpks_result plan(TPKS *ks, const HSM *hsm, const char *name, const hsm_key_spec *spec,
                        unsigned policy, TPKS_RECORD **out)
{
    RECORD *record = NULL;
    unsigned char cka_id[CKA_ID_SIZE];

    TRY(keystore_new_record(ks, name, policy, &record));
    TRY(random_public(ks->libctx, cka_id, sizeof(cka_id)));
    TRY(bytes_set(&record->cka_id, cka_id, sizeof(cka_id)));
    OPENSSL_free(record->token_serial);
    record->token_serial = OPENSSL_strdup(hsm_token_serial(hsm));
    record->key_type = OPENSSL_strdup(spec->rsa ? "RSA" : "EC");
    if (record->token_serial == NULL || record->key_type == NULL)
        return fail_memory();
    record->seal_algorithm = SEAL_TOKEN;
    TRY(record_set_spki(ks->libctx, record, NULL, 0));
    TRY(record_set_certs(ks->libctx, record, NULL));
    *out = record;
    record = NULL;
    return TPKS_OK;
}

/* The next version of a record, with another public half and without certificates. */
static tpks_result advance(TPKS *ks, const TPKS_RECORD *record, const unsigned char *spki,
                           size_t spki_size, TPKS_RECORD **out)
{
    RECORD *next = NULL;
    SECRET *filler = record_token_filler();

    if (filler == NULL)
        return fail_memory();
    TRY(record_copy(record, &next));
    next->version++;
    next->changed = (int64_t)time(NULL);
    TRY(record_set_spki(ks->libctx, next, spki, spki_size));
    TRY(record_set_certs(ks->libctx, next, NULL));
    TRY(keystore_update_record(ks, next, filler));
    *out = next;
    next = NULL;
    return TPKS_OK;
}

static tpks_result make_in(TPKS *ks, HSM *hsm, hsm_key_spec *spec, const TPKS_RECORD *record)
{
    RECORD *done = NULL;
    unsigned char *spki = NULL;
    size_t spki_size = 0;
    char label[64 + LABEL_NAME_MAX];

    label_prefix(ks, label, sizeof(label));
    strncat(label, record->name, LABEL_NAME_MAX);
    spec->label = label;
    spec->cka_id = record->cka_id.data;
    TRY(hsm_key_make(hsm, spec, &spki, &spki_size));
    tpks_result result = advance(ks, record, spki, spki_size, &done);
    OPENSSL_free(spki);
    return result;
}

static tpks_result make_planned(TPKS *ks, HSM *hsm, hsm_key_spec *spec, TPKS_RECORD *record)
{
    SECRET *filler = record_token_filler();
    char why[1024];

    if (filler == NULL)
        return fail_memory();
    TRY(keystore_insert_record(ks, record, filler));
    tpks_result result = make_in(ks, hsm, spec, record);
    if (result == TPKS_OK)
        return TPKS_OK;
    snprintf(why, sizeof(why), "%s", tpks_error_text());
    if (clear_away(ks, hsm, record) != TPKS_OK)
        return fail(result, "%s; the unfinished record \"%s\" is left: see doctor", why,
                    record->name);
    return fail(result, "%s", why);
}

tpks_result tpks_generate_in_token(TPKS *ks, const char *name, const char *key_type,
                                   unsigned policy, unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;
    HSM_HANDLE *hsm = NULL;
    RECORD *record = NULL;
    hsm_key_spec spec = {.decrypts = (policy & TPKS_MAY_DECRYPT) != 0};
    bool found = false;

    TRY(tpks_name_check(name));
    TRY(hsm_key_spec_parse(key_type, &spec));
    TRY(check_usage(&spec, policy));
    TRY(start_change(ks));
    TRY(keystore_hsm_open(ks, true, &hsm));
    TRY(clear_name(ks, hsm, name, &found));
    TRY(plan(ks, hsm, name, &spec, policy, &record));
    TRY(make_planned(ks, hsm, &spec, record));
    if (id != NULL)
        memcpy(id, record->id, TPKS_ID_SIZE);
    tpks_log(ks, "record-added", name, TPKS_OK);
    return TPKS_OK;
}

/* ---- destroying ------------------------------------------------------------------------------ */

/*
 * What is refused is refused before the record is unfinished, without a public half to tell keys
 * apart by: an id that others chose may have been given twice. A key that is gone is as wanted.
 */
static tpks_result check_destroyable(TPKS *ks, const TPKS_RECORD *record)
{
    TPKS_TOKEN_KEY *key = NULL;
    tpks_result result = tpks_token_key_open(ks, record, &key);

    tpks_token_key_free(key);
    return result == TPKS_KEY_MISSING ? TPKS_OK : result;
}

tpks_result tpks_remove_with_key(TPKS *ks, const TPKS_RECORD *record)
{
    CRYPTO_SCOPE;
    HSM_HANDLE *hsm = NULL;
    RECORD *unfinished = NULL;

    if (tpks_record_home(record) != TPKS_HOME_TOKEN)
        return fail(TPKS_BAD_INPUT, "the key of \"%s\" does not live in a token", record->name);
    TRY(start_change(ks));
    TRY(keystore_hsm_open(ks, true, &hsm));
    TRY(check_token(record, hsm));
    TRY(check_destroyable(ks, record));
    TRY(advance(ks, record, NULL, 0, &unfinished));
    TRY(clear_away(ks, hsm, unfinished));
    tpks_log(ks, "record-removed", record->name, TPKS_OK);
    return TPKS_OK;
}

/* ---- what a crash, or `delete` without --destroy-key, has left ----------------------------------
 */

typedef struct leftovers {
    TPKS *ks;
    HSM *hsm;
    size_t prefix;
    tpks_leftover_fn *each;
    void *arg;
} leftovers;

static tpks_result tell_unfinished(void *arg, TPKS_RECORD *record)
{
    const leftovers *l = arg;

    if (!record_is_unfinished(record))
        return TPKS_OK;
    const tpks_leftover leftover = {.name = record->name,
                                    .token_serial = record->token_serial,
                                    .cka_id = record->cka_id.data,
                                    .cka_id_size = record->cka_id.size,
                                    .unfinished = true};
    return l->each(l->arg, &leftover);
}

typedef struct owner_search {
    const unsigned char *id;
    size_t id_size;
    bool found;
} owner_search;

static tpks_result is_owner(void *arg, TPKS_RECORD *record)
{
    owner_search *s = arg;

    s->found |= tpks_record_home(record) == TPKS_HOME_TOKEN && record->cka_id.size == s->id_size &&
                memcmp(record->cka_id.data, s->id, s->id_size) == 0;
    return TPKS_OK;
}

static tpks_result tell_orphan(void *arg, const unsigned char *id, size_t id_size,
                               const char *label)
{
    const leftovers *l = arg;
    owner_search s = {.id = id, .id_size = id_size};

    TRY(l->ks->schema->each_record(&l->ks->d, l->ks->libctx, &l->ks->head, NULL, is_owner, &s));
    if (s.found || strlen(label) < l->prefix)
        return TPKS_OK;
    const tpks_leftover leftover = {.name = label + l->prefix,
                                    .token_serial = hsm_token_serial(l->hsm),
                                    .cka_id = id,
                                    .cka_id_size = id_size};
    return l->each(l->arg, &leftover);
}

tpks_result tpks_each_leftover(TPKS *ks, tpks_leftover_fn *each, void *arg)
{
    CRYPTO_SCOPE;
    HSM_HANDLE *hsm = NULL;
    char prefix[64];

    if (ks->schema->read_only != NULL)
        return TPKS_OK;
    label_prefix(ks, prefix, sizeof(prefix));
    leftovers l = {.ks = ks, .prefix = strlen(prefix), .each = each, .arg = arg};
    TRY(ks->schema->each_record(&ks->d, ks->libctx, &ks->head, NULL, tell_unfinished, &l));
    if (keystore_token(ks) == NULL)
        return TPKS_OK;
    TRY(keystore_hsm_open(ks, false, &hsm));
    l.hsm = hsm;
    return hsm_each_key(hsm, prefix, tell_orphan, &l);
}
