/*
 * token_adopt.c - records for keys that are in the token already, as another keystore says
 */
#include <string.h>

#include <openssl/crypto.h>

#include "hsm_key.h"
#include "keystore_internal.h"
#include "secret.h"

static void close_hsm(HSM **hsm)
{
    hsm_close(*hsm);
}

/* ---- which object it is ------------------------------------------------------------------------
 */

typedef struct label_search {
    const char *label;
    bytes *id;
    size_t count;
} label_search;

static tpks_result keep_id(void *arg, const unsigned char *id, size_t id_size, const char *label)
{
    label_search *s = arg;

    if (strcmp(label, s->label) != 0)
        return TPKS_OK;
    s->count++;
    return bytes_set(s->id, id, id_size);
}

/* Ours are found by CKA_ID alone: a key that was known by its label only must have one. */
static tpks_result find_id(HSM *hsm, const TPKS_RECORD *source, bytes *id)
{
    label_search s = {.label = source->cka_label, .id = id};

    if (source->cka_id.size > 0)
        return bytes_set(id, source->cka_id.data, source->cka_id.size);
    if (s.label == NULL || *s.label == '\0')
        return fail(TPKS_TAMPERED, "record \"%s\" does not say which key of the token is its",
                    source->name);
    TRY(hsm_each_key(hsm, s.label, keep_id, &s));
    if (s.count == 0)
        return fail(TPKS_KEY_MISSING, "token \"%s\" has no private key labelled \"%s\"",
                    hsm_token_label(hsm), s.label);
    if (s.count > 1 || id->size == 0)
        return fail(TPKS_UNSUPPORTED,
                    "the private key labelled \"%s\" on token \"%s\" has no CKA_ID, or there are "
                    "several: give each one of its own",
                    s.label, hsm_token_label(hsm));
    return TPKS_OK;
}

static tpks_result find_place(TPKS *ks, const TPKS_RECORD *source, TPKS_RECORD *record)
{
    __attribute__((cleanup(close_hsm))) HSM *hsm = NULL;
    const char *serial;

    TRY(keystore_hsm_open(ks, false, &hsm));
    serial = hsm_token_serial(hsm);
    if (*source->token_serial != '\0' && strcmp(serial, source->token_serial) != 0)
        return fail(TPKS_TOKEN_MISSING,
                    "the key of \"%s\" is on the token with serial %s, but that of this keystore "
                    "is \"%s\" with serial %s",
                    source->name, source->token_serial, hsm_token_label(hsm), serial);
    OPENSSL_free(record->token_serial);
    record->token_serial = OPENSSL_strdup(serial);
    if (record->token_serial == NULL)
        return fail_memory();
    return find_id(hsm, source, &record->cka_id);
}

/* Is it the private half, and the only one that a load would find? */
static tpks_result prove(TPKS *ks, const TPKS_RECORD *record)
{
    hsm_texts texts;
    hsm_options options;
    HSM_KEY *key = NULL;
    const hsm_key_lookup lookup = {
        .name = record->name,
        .serial = record->token_serial,
        .id = record->cka_id.data,
        .id_size = record->cka_id.size,
        .spki = record->spki.data,
        .spki_size = record->spki.size,
    };

    TRY(keystore_hsm_options(ks, false, &texts, &options));
    TRY(hsm_key_open(&options, &lookup, &key));
    hsm_key_free(key);
    return TPKS_OK;
}

/* ---- the record --------------------------------------------------------------------------------
 */

static tpks_result check(TPKS *ks, const char *name, const TPKS_RECORD *source, unsigned policy)
{
    TRY(keystore_check_writable(ks));
    TRY(tpks_name_check(name));
    TRY(keystore_check_policy(policy));
    if (tpks_record_home(source) != TPKS_HOME_TOKEN)
        return fail(TPKS_BAD_INPUT, "the key of \"%s\" does not live in a token", source->name);
    if ((policy & TPKS_MAY_AGREE) != 0)
        return fail(TPKS_UNSUPPORTED, "keys that live in a token can't agree on secrets");
    return tpks_unlock(ks);
}

static tpks_result describe(TPKS *ks, const TPKS_RECORD *source, const STACK_OF(X509) * certs,
                            TPKS_RECORD *record)
{
    TRY(find_place(ks, source, record));
    record->key_type = OPENSSL_strdup(source->key_type);
    if (record->key_type == NULL)
        return fail_memory();
    record->seal_algorithm = SEAL_TOKEN;
    TRY(record_set_spki(ks->libctx, record, source->spki.data, source->spki.size));
    TRY(record_set_certs(ks->libctx, record, certs));
    return prove(ks, record);
}

tpks_result tpks_adopt_token_key(TPKS *ks, const char *name, const TPKS_RECORD *source,
                                 const STACK_OF(X509) * certs, unsigned policy,
                                 unsigned char id[TPKS_ID_SIZE])
{
    CRYPTO_SCOPE;
    RECORD *record = NULL;
    SECRET *filler = NULL;

    TRY(check(ks, name, source, policy));
    TRY(keystore_new_record(ks, name, policy, &record));
    TRY(describe(ks, source, certs, record));
    filler = record_token_filler();
    if (filler == NULL)
        return fail_memory();
    TRY(keystore_insert_record(ks, record, filler));
    if (id != NULL)
        memcpy(id, record->id, TPKS_ID_SIZE);
    tpks_log(ks, "record-added", name, TPKS_OK);
    return TPKS_OK;
}
