/*
 * load.c - from a keystore to keys
 */
#include "load.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>

#include "error.h"

#define STACK_OF_ASKING 8192

struct source {
    CONTEXT *context;
    TPKS_CONFIG *config;
    char *name;
    TPKS *keystore;
    OSSL_PASSPHRASE_CALLBACK *ask;
    void *ask_arg;
    bool asked;
};

static void secret_free(TPKS_SECRET **secret)
{
    tpks_secret_free(*secret);
}

static void key_release(KEY **key)
{
    key_free(*key);
}

static void text_free(char **text)
{
    OPENSSL_free(*text);
}

/*
 * Overwrites the dead part of the stack: UI_UTIL_wrap_read_pem_callback(3), through which libcrypto
 * calls a program's pem_password_cb, leaves the answer in a local variable.
 */
static __attribute__((noinline)) void wipe_stack_below(void)
{
    unsigned char dead[STACK_OF_ASKING];

    OPENSSL_cleanse(dead, sizeof(dead));
}

/* tpks_ask_fn: hands the question on to the program. No answer and an empty one are the same. */
static int ask(void *arg, tpks_purpose purpose, const char *info, char *buffer, size_t size,
               size_t *length)
{
    SOURCE *source = arg;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PASSPHRASE_PARAM_INFO, (char *)info, 0),
        OSSL_PARAM_construct_end()};

    (void)purpose;
    if (source->ask == NULL || source->asked)
        return 0;
    source->asked = true;
    *length = 0;
    int answered = source->ask(buffer, size, length, params, source->ask_arg) > 0 && *length > 0;
    wipe_stack_below();
    return answered;
}

static tpks_result open_keystore(SOURCE *source)
{
    const tpks_options options = {
        .config = source->config,
        .keystore = source->name,
        .libctx = context_libctx(source->context),
        .access = TPKS_LOAD,
        .caller_compares = true,
        .ask = ask,
        .ask_arg = source,
    };

    return tpks_open(&options, &source->keystore);
}

SOURCE *source_open(CONTEXT *context, const char *keystore)
{
    SOURCE *source = OPENSSL_zalloc(sizeof(*source));

    if (source == NULL)
        return NULL;
    source->context = context;
    source->name = OPENSSL_strdup(keystore);
    source->config = context_config(context);
    if (source->name == NULL || source->config == NULL ||
        RAISE_RESULT(context, open_keystore(source)) != TPKS_OK) {
        source_close(source);
        return NULL;
    }
    return source;
}

void source_close(SOURCE *source)
{
    if (source == NULL)
        return;
    tpks_close(source->keystore);
    tpks_config_free(source->config);
    OPENSSL_free(source->name);
    OPENSSL_free(source);
}

void source_set_ask(SOURCE *source, OSSL_PASSPHRASE_CALLBACK *callback, void *arg)
{
    source->ask = callback;
    source->ask_arg = arg;
}

TPKS *source_keystore(const SOURCE *source)
{
    return source->keystore;
}

static tpks_result allowed(const SOURCE *source, const TPKS_RECORD *record)
{
    tpks_result result = tpks_allowed(source->keystore, tpks_record_name(record));

    RAISE_RESULT(source->context, result);
    if (result != TPKS_OK)
        tpks_log(source->keystore, "load", tpks_record_name(record), result);
    return result;
}

TPKS_RECORD *source_find(const SOURCE *source, const tpks_selector *selector)
{
    TPKS_RECORD *record = NULL;

    if (RAISE_RESULT(source->context, tpks_find(source->keystore, selector, &record)) != TPKS_OK)
        return NULL;
    if (allowed(source, record) != TPKS_OK) {
        tpks_record_free(record);
        return NULL;
    }
    return record;
}

static const KEY_TYPE *record_type(const SOURCE *source, const TPKS_RECORD *record)
{
    const KEY_TYPE *type = key_type_find(tpks_record_key_type(record));
    size_t size = 0;

    tpks_record_spki(record, &size);
    if (size == 0) {
        RAISE(source->context, TPKS_UNSUPPORTED,
              "%s: it has no certificate yet, and so no public key is known to go with the "
              "private one: wait for the certificate, or export the key",
              tpks_record_name(record));
        return NULL;
    }
    if (type == NULL)
        RAISE(source->context, TPKS_UNSUPPORTED,
              "%s: keys of type %s cannot be used through this version of the provider",
              tpks_record_name(record), tpks_record_key_type(record));
    return type;
}

/* Of a key without a certificate the library knows, and has compared, a digest at most. */
static bool has_public_half(const TPKS_RECORD *record)
{
    size_t size = 0;

    tpks_record_spki(record, &size);
    return size != 0;
}

KEY *source_public_key(const SOURCE *source, const TPKS_RECORD *record)
{
    const KEY_TYPE *type = record_type(source, record);
    const unsigned char *spki;
    size_t size;

    if (type == NULL)
        return NULL;
    if (!has_public_half(record)) {
        RAISE(source->context, TPKS_UNSUPPORTED,
              "%s: its public half is in no certificate: have one issued for it",
              tpks_record_name(record));
        return NULL;
    }
    spki = tpks_record_spki(record, &size);
    return key_decode(source->context, type, "SubjectPublicKeyInfo", spki, size);
}

static bool same_public_half(const KEY *key, const KEY *public_key)
{
    OSSL_FUNC_keymgmt_match_fn *match =
        ORIGINAL(&key_type(key)->keymgmt, OSSL_FUNC_KEYMGMT_MATCH, OSSL_FUNC_keymgmt_match_fn);

    return match != NULL &&
           match(key_data((KEY *)key), key_data((KEY *)public_key), OSSL_KEYMGMT_SELECT_PUBLIC_KEY);
}

/* The bytes of the private key are wiped as soon as they have become a key. */
static KEY *decrypt(const SOURCE *source, const TPKS_RECORD *record, const KEY_TYPE *type)
{
    __attribute__((cleanup(secret_free))) TPKS_SECRET *pkcs8 = NULL;
    tpks_result result = tpks_load_key(source->keystore, record, &pkcs8);

    RAISE_RESULT(source->context, result);
    tpks_log(source->keystore, "load", tpks_record_name(record), result);
    if (result != TPKS_OK)
        return NULL;
    return key_decode(source->context, type, "PrivateKeyInfo", tpks_secret_data_const(pkcs8),
                      tpks_secret_size(pkcs8));
}

/* Trustpoint's records have no policy. */
static bool is_configured(const TPKS_RECORD *record)
{
    return *tpks_record_role(record) != '\0';
}

static KEY *checked(const SOURCE *source, const TPKS_RECORD *record, KEY *key)
{
    __attribute__((cleanup(key_release))) KEY *public_key =
        has_public_half(record) ? source_public_key(source, record) : NULL;
    __attribute__((cleanup(text_free))) char *uri = source_uri(source, record);

    if (public_key == NULL && has_public_half(record))
        return NULL;
    if (public_key != NULL && !same_public_half(key, public_key)) {
        RAISE(source->context, TPKS_TAMPERED,
              "%s: the private key is not that of the record's public key: "
              "run trustpoint-keystore verify and restore a backup",
              tpks_record_name(record));
        return NULL;
    }
    if (uri == NULL ||
        !key_set_private(key, uri, tpks_record_policy(record), is_configured(record)))
        return NULL;
    return key;
}

/* OpenSSL's names for what a token can sign with. */
static bool is_for_tokens(const SOURCE *source, const TPKS_RECORD *record, const KEY_TYPE *type)
{
    if (type == &key_rsa || type == &key_rsa_pss || type == &key_ec)
        return true;
    RAISE(
        source->context, TPKS_UNSUPPORTED,
        "%s: keys of type %s cannot be used in a token: make an RSA or EC key there, or keep this "
        "one in the database",
        tpks_record_name(record), type->name);
    return false;
}

/* A key whose private half is in the token; that it belongs to the public one has been proven. */
static KEY *in_token(const SOURCE *source, const TPKS_RECORD *record, const KEY_TYPE *type)
{
    __attribute__((cleanup(key_release))) KEY *key = NULL;
    __attribute__((cleanup(text_free))) char *uri = source_uri(source, record);
    TPKS_TOKEN_KEY *token = NULL;
    KEY *loaded;
    tpks_result result;

    if (!is_for_tokens(source, record, type))
        return NULL;
    key = source_public_key(source, record);
    if (key == NULL || uri == NULL ||
        !key_set_private(key, uri, tpks_record_policy(record), is_configured(record)))
        return NULL;
    result = tpks_token_key_open(source->keystore, record, &token);
    RAISE_RESULT(source->context, result);
    tpks_log(source->keystore, "load", tpks_record_name(record), result);
    if (result != TPKS_OK || !key_set_token(key, token))
        return NULL;
    loaded = key;
    key = NULL;
    return loaded;
}

static KEY *from_keystore(const SOURCE *source, const TPKS_RECORD *record, const KEY_TYPE *type)
{
    KEY *key = decrypt(source, record, type);

    if (key == NULL)
        return NULL;
    if (checked(source, record, key) == NULL) {
        key_free(key);
        return NULL;
    }
    return key;
}

KEY *source_private_key(const SOURCE *source, const TPKS_RECORD *record)
{
    const KEY_TYPE *type = record_type(source, record);
    KEY *key;

    if (type == NULL)
        return NULL;
    key = tpks_record_home(record) == TPKS_HOME_TOKEN ? in_token(source, record, type)
                                                      : from_keystore(source, record, type);
    if (key != NULL)
        context_warm_up(source->context);
    return key;
}

char *source_uri(const SOURCE *source, const TPKS_RECORD *record)
{
    return tpks_uri_build(source->name, tpks_record_name(record));
}
