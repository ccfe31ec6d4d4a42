/* token_key.c - using keys that never leave their token */
#include <stdatomic.h>
#include <string.h>

#include <openssl/crypto.h>

#include "hsm_key.h"
#include "keystore_internal.h"
#include "secret.h"

struct tpks_token_key {
    atomic_uint references;
    unsigned policy;
    char *name;
    HSM_KEY *in_token;
};

/* Is what says where the key is, and what it may do, as the keystore's owner wrote it? */
static tpks_result prove_record(TPKS *ks, const TPKS_RECORD *record)
{
    SECRET *filler = NULL;

    if (tpks_record_home(record) != TPKS_HOME_TOKEN)
        return fail(TPKS_BAD_INPUT, "the key of \"%s\" does not live in a token", record->name);
    return ks->schema->needs_dek(record) ? keystore_open_record(ks, record, &filler) : TPKS_OK;
}

static tpks_result find_in_token(TPKS *ks, const TPKS_RECORD *record, HSM_KEY **out)
{
    hsm_texts texts;
    hsm_options options;
    const hsm_key_lookup lookup = {
        .name = record->name,
        .serial = record->token_serial,
        .id = record->cka_id.data,
        .id_size = record->cka_id.size,
        .label = record->cka_label,
        .spki = record->spki.data,
        .spki_size = record->spki.size,
    };

    if (lookup.id_size == 0 && (lookup.label == NULL || *lookup.label == '\0'))
        return fail(TPKS_TAMPERED, "record \"%s\" does not say which key of the token is its",
                    record->name);
    if (lookup.spki_size == 0) /* Trustpoint's keys without a certificate */
        return fail(TPKS_UNSUPPORTED,
                    "the key of \"%s\" can't be used: its public half is in no certificate, and so "
                    "it can't be told from another one in the token; have a certificate issued for "
                    "it",
                    record->name);
    TRY(keystore_hsm_options(ks, false, &texts, &options));
    return hsm_key_open(&options, &lookup, out);
}

static tpks_result key_fill(TPKS *ks, const TPKS_RECORD *record, TPKS_TOKEN_KEY *key)
{
    atomic_init(&key->references, 1);
    key->policy = (unsigned)record->policy;
    key->name = OPENSSL_strdup(record->name);
    if (key->name == NULL)
        return fail_memory();
    return find_in_token(ks, record, &key->in_token);
}

tpks_result tpks_token_key_open(TPKS *ks, const TPKS_RECORD *record, TPKS_TOKEN_KEY **out)
{
    CRYPTO_SCOPE;

    TRY(prove_record(ks, record));
    TPKS_TOKEN_KEY *key = OPENSSL_zalloc(sizeof(*key));
    if (key == NULL)
        return fail_memory();
    tpks_result result = key_fill(ks, record, key);
    if (result != TPKS_OK) {
        tpks_token_key_free(key);
        return result;
    }
    *out = key;
    return TPKS_OK;
}

TPKS_TOKEN_KEY *tpks_token_key_up_ref(TPKS_TOKEN_KEY *key)
{
    atomic_fetch_add(&key->references, 1);
    return key;
}

void tpks_token_key_free(TPKS_TOKEN_KEY *key)
{
    if (key == NULL || atomic_fetch_sub(&key->references, 1) > 1)
        return;
    hsm_key_free(key->in_token);
    OPENSSL_free(key->name);
    OPENSSL_free(key);
}

static tpks_result check_may(const TPKS_TOKEN_KEY *key, unsigned what, const char *word)
{
    if ((key->policy & what) != 0)
        return TPKS_OK;
    return fail(TPKS_NOT_PERMITTED, "the policy of \"%s\" does not let it %s", key->name, word);
}

tpks_result tpks_token_key_sign(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                const unsigned char *in, size_t in_size, unsigned char *out,
                                size_t *out_size)
{
    TRY(check_may(key, TPKS_MAY_SIGN, "sign"));
    return hsm_key_sign(key->in_token, op, in, in_size, out, out_size);
}

tpks_result tpks_token_key_decrypt(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                   const unsigned char *in, size_t in_size, unsigned char *out,
                                   size_t *out_size)
{
    TRY(check_may(key, TPKS_MAY_DECRYPT, "decrypt"));
    return hsm_key_decrypt(key->in_token, op, in, in_size, out, out_size);
}
