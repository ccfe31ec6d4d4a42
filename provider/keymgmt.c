/*
 * keymgmt.c - key management: what libcrypto may ask of a key and put into one
 *
 * The default provider answers, but never about a private half: a private key is not exported,
 * private values are not among the parameters, and a private key is not imported, so that keys of
 * others can't end up here. There is no generation: keys are made by trustpoint-keystore.
 */
#include "operations.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/params.h>

#include "error.h"
#include "key.h"

#define CALL(type, id, name)                                                                       \
    ORIGINAL(&(type)->keymgmt, OSSL_FUNC_KEYMGMT_##id, OSSL_FUNC_keymgmt_##name##_fn)

#define PRIVATE OSSL_KEYMGMT_SELECT_PRIVATE_KEY

static OSSL_FUNC_keymgmt_load_fn keymgmt_load;
static OSSL_FUNC_keymgmt_free_fn keymgmt_free;
static OSSL_FUNC_keymgmt_has_fn keymgmt_has;
static OSSL_FUNC_keymgmt_match_fn keymgmt_match;
static OSSL_FUNC_keymgmt_validate_fn keymgmt_validate;
static OSSL_FUNC_keymgmt_dup_fn keymgmt_dup;
static OSSL_FUNC_keymgmt_get_params_fn keymgmt_get_params;
static OSSL_FUNC_keymgmt_gettable_params_fn keymgmt_gettable_params;
static OSSL_FUNC_keymgmt_set_params_fn keymgmt_set_params;
static OSSL_FUNC_keymgmt_import_fn keymgmt_import;
static OSSL_FUNC_keymgmt_export_fn keymgmt_export;

/* ---- life ---------------------------------------------------------------------------------- */

/* The store and the decoders yield a pointer to a KEY pointer, which is taken over. */
static void *keymgmt_load(const void *reference, size_t size)
{
    KEY *key;

    if (size != sizeof(key))
        return NULL;
    key = *(KEY *const *)reference;
    *(KEY **)reference = NULL;
    return key;
}

static void keymgmt_free(void *key)
{
    key_free(key);
}

/*
 * A private key is shared with its duplicate; anything less becomes a key of its own, because
 * programs may put other values into it (the peer's point in CMS with ECDH).
 */
static void *keymgmt_dup(const void *from, int selection)
{
    const KEY *key = from;

    if (key_is_private(key) && (selection & PRIVATE) != 0)
        return key_up_ref((KEY *)key);
    return key_dup_public(key, selection);
}

/* ---- questions ----------------------------------------------------------------------------- */

static int keymgmt_has(const void *keydata, int selection)
{
    const KEY *key = keydata;
    OSSL_FUNC_keymgmt_has_fn *has;

    if (key == NULL)
        return 0;
    if ((selection & PRIVATE) != 0 && !key_is_private(key))
        return 0;
    has = CALL(key_type(key), HAS, has);
    return has != NULL && has(key_data((KEY *)key), selection & ~PRIVATE);
}

/* Two keys are the same when their public halves are; whoever asks may have only that of one. */
static int keymgmt_match(const void *keydata1, const void *keydata2, int selection)
{
    KEY *key1 = (KEY *)keydata1, *key2 = (KEY *)keydata2;
    OSSL_FUNC_keymgmt_match_fn *match = CALL(key_type(key1), MATCH, match);

    if ((selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0)
        selection = (selection & ~PRIVATE) | OSSL_KEYMGMT_SELECT_PUBLIC_KEY;
    return match != NULL && key_type(key1) == key_type(key2) &&
           match(key_data(key1), key_data(key2), selection);
}

/* That a token has the private half was proven at load. */
static int keymgmt_validate(const void *keydata, int selection, int checktype)
{
    KEY *key = (KEY *)keydata;
    OSSL_FUNC_keymgmt_validate_fn *validate = CALL(key_type(key), VALIDATE, validate);

    if (key_token(key) != NULL)
        selection &= ~PRIVATE;
    return validate == NULL || validate(key_data(key), selection, checktype);
}

/* ---- parameters ---------------------------------------------------------------------------- */

/*
 * What may be asked. Everything else is left unanswered, as libcrypto expects of parameters that
 * are not known, so a private value that a later OpenSSL invents does not get out either.
 */
static const OSSL_PARAM gettable[] = {
    OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
    OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
    OSSL_PARAM_int("security-category", NULL), /* OpenSSL 3.6 */
    OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_RSA_DIGEST, NULL, 0),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_RSA_MGF1_DIGEST, NULL, 0),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_RSA_MASKGENFUNC, NULL, 0),
    OSSL_PARAM_int(OSSL_PKEY_PARAM_RSA_PSS_SALTLEN, NULL),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_ENCODING, NULL, 0),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, NULL, 0),
    OSSL_PARAM_int(OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, NULL),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_FIELD_TYPE, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_P, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_A, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_B, NULL, 0),
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_EC_GENERATOR, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_ORDER, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_COFACTOR, NULL, 0),
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_EC_SEED, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_X, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_Y, NULL, 0),
    OSSL_PARAM_int(OSSL_PKEY_PARAM_USE_COFACTOR_ECDH, NULL),
    OSSL_PARAM_int(OSSL_PKEY_PARAM_EC_INCLUDE_PUBLIC, NULL),
    OSSL_PARAM_END,
};

static const OSSL_PARAM *keymgmt_gettable_params(void *provctx)
{
    (void)provctx;
    return gettable;
}

static int get_param(const KEY *key, OSSL_PARAM *param)
{
    OSSL_FUNC_keymgmt_get_params_fn *get = CALL(key_type(key), GET_PARAMS, get_params);
    OSSL_PARAM one[] = {*param, OSSL_PARAM_END};
    int ok = get != NULL && get(key_data((KEY *)key), one);

    param->return_size = one[0].return_size;
    return ok;
}

static int keymgmt_get_params(void *keydata, OSSL_PARAM params[])
{
    int ok = 1;

    for (; ok && params->key != NULL; params++)
        if (OSSL_PARAM_locate_const(gettable, params->key) != NULL)
            ok = get_param(keydata, params);
    return ok;
}

/* How a key is written may be chosen for any, its value only in one that is not private. */
static bool may_set(const KEY *key, const char *name)
{
    static const char *const writing[] = {OSSL_PKEY_PARAM_EC_ENCODING,
                                          OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                          OSSL_PKEY_PARAM_EC_INCLUDE_PUBLIC};

    for (size_t i = 0; i < sizeof(writing) / sizeof(writing[0]); i++)
        if (strcmp(name, writing[i]) == 0)
            return true;
    return !key_is_private(key);
}

static int keymgmt_set_params(void *keydata, const OSSL_PARAM params[])
{
    KEY *key = keydata;
    OSSL_FUNC_keymgmt_set_params_fn *set = CALL(key_type(key), SET_PARAMS, set_params);

    for (const OSSL_PARAM *param = params; param->key != NULL; param++)
        if (!may_set(key, param->key)) {
            RAISE(key_context(key), TPKS_NOT_PERMITTED,
                  "%s: parameter %s of a private key is fixed", key_uri(key), param->key);
            return 0;
        }
    return set != NULL && set(key_data(key), params);
}

/* ---- import and export ------------------------------------------------------------------------
 */

/* Every name under which the default provider takes private values. */
static bool has_private_part(const OSSL_PARAM params[])
{
    static const char *const names[] = {
        OSSL_PKEY_PARAM_PRIV_KEY,         OSSL_PKEY_PARAM_RSA_D,
        OSSL_PKEY_PARAM_RSA_FACTOR1,      OSSL_PKEY_PARAM_RSA_EXPONENT1,
        OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (OSSL_PARAM_locate_const(params, names[i]) != NULL)
            return true;
    return false;
}

static int keymgmt_import(void *keydata, int selection, const OSSL_PARAM params[])
{
    KEY *key = keydata;
    OSSL_FUNC_keymgmt_import_fn *import = CALL(key_type(key), IMPORT, import);

    return import != NULL && !has_private_part(params) &&
           import(key_data(key), selection & ~PRIVATE, params);
}

/*
 * libcrypto asks for everything with every new signature, and takes the refusal for "use the key's
 * own provider"; so it is quick and leaves no error.
 */
static int keymgmt_export(void *keydata, int selection, OSSL_CALLBACK *callback, void *arg)
{
    KEY *key = keydata;
    OSSL_FUNC_keymgmt_export_fn *export;

    if (key_is_private(key) && (selection & PRIVATE) != 0)
        return 0;
    export = CALL(key_type(key), EXPORT, export);
    return export != NULL && export(key_data(key), selection & ~PRIVATE, callback, arg);
}

/* ---- tables -------------------------------------------------------------------------------- */

static const OSSL_PARAM *settable_params(const KEY_TYPE *type, const CONTEXT *context)
{
    OSSL_FUNC_keymgmt_settable_params_fn *settable = CALL(type, SETTABLE_PARAMS, settable_params);

    return settable == NULL ? NULL : settable(context_default_ctx(context));
}

/* Keys of type EC sign with ECDSA and agree with ECDH; the others have the names of their types. */
static const char *query_operation_name(const KEY_TYPE *type, int operation)
{
    OSSL_FUNC_keymgmt_query_operation_name_fn *query =
        CALL(type, QUERY_OPERATION_NAME, query_operation_name);

    return query == NULL ? type->name : query(operation);
}

static const OSSL_PARAM *import_types(const KEY_TYPE *type, int selection)
{
    OSSL_FUNC_keymgmt_import_types_fn *types = CALL(type, IMPORT_TYPES, import_types);

    return types == NULL ? NULL : types(selection & ~PRIVATE);
}

static const OSSL_PARAM *export_types(const KEY_TYPE *type, int selection)
{
    OSSL_FUNC_keymgmt_export_types_fn *types = CALL(type, EXPORT_TYPES, export_types);

    return types == NULL ? NULL : types(selection & ~PRIVATE);
}

/* The same for one type each: functions that are not given a key must know it. */
#define TYPE(type)                                                                                 \
    static OSSL_FUNC_keymgmt_new_fn type##_new;                                                    \
    static OSSL_FUNC_keymgmt_query_operation_name_fn type##_query_operation_name;                  \
    static OSSL_FUNC_keymgmt_import_types_fn type##_import_types;                                  \
    static OSSL_FUNC_keymgmt_export_types_fn type##_export_types;                                  \
    static void *type##_new(void *provctx)                                                         \
    {                                                                                              \
        return key_new(provctx, &key_##type);                                                      \
    }                                                                                              \
    static const char *type##_query_operation_name(int operation)                                  \
    {                                                                                              \
        return query_operation_name(&key_##type, operation);                                       \
    }                                                                                              \
    static const OSSL_PARAM *type##_import_types(int selection)                                    \
    {                                                                                              \
        return import_types(&key_##type, selection);                                               \
    }                                                                                              \
    static const OSSL_PARAM *type##_export_types(int selection)                                    \
    {                                                                                              \
        return export_types(&key_##type, selection);                                               \
    }

#define TYPE_SETTABLE(type)                                                                        \
    static OSSL_FUNC_keymgmt_settable_params_fn type##_settable_params;                            \
    static const OSSL_PARAM *type##_settable_params(void *provctx)                                 \
    {                                                                                              \
        return settable_params(&key_##type, provctx);                                              \
    }

TYPE(rsa)
TYPE(rsa_pss)
TYPE(ec)
TYPE(ed25519)
TYPE(ed448)
TYPE_SETTABLE(ec)
TYPE_SETTABLE(ed25519)
TYPE_SETTABLE(ed448)

#define COMMON(type)                                                                               \
    {OSSL_FUNC_KEYMGMT_NEW, (passthrough_fn *)type##_new},                                         \
        {OSSL_FUNC_KEYMGMT_LOAD, (passthrough_fn *)keymgmt_load},                                  \
        {OSSL_FUNC_KEYMGMT_FREE, (passthrough_fn *)keymgmt_free},                                  \
        {OSSL_FUNC_KEYMGMT_DUP, (passthrough_fn *)keymgmt_dup},                                    \
        {OSSL_FUNC_KEYMGMT_HAS, (passthrough_fn *)keymgmt_has},                                    \
        {OSSL_FUNC_KEYMGMT_MATCH, (passthrough_fn *)keymgmt_match},                                \
        {OSSL_FUNC_KEYMGMT_VALIDATE, (passthrough_fn *)keymgmt_validate},                          \
        {OSSL_FUNC_KEYMGMT_GET_PARAMS, (passthrough_fn *)keymgmt_get_params},                      \
        {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (passthrough_fn *)keymgmt_gettable_params},            \
        {OSSL_FUNC_KEYMGMT_IMPORT, (passthrough_fn *)keymgmt_import},                              \
        {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, (passthrough_fn *)type##_import_types},                   \
        {OSSL_FUNC_KEYMGMT_EXPORT, (passthrough_fn *)keymgmt_export},                              \
        {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, (passthrough_fn *)type##_export_types},                   \
    {                                                                                              \
        OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, (passthrough_fn *)type##_query_operation_name      \
    }

#define SETTABLE(type)                                                                             \
    {OSSL_FUNC_KEYMGMT_SET_PARAMS, (passthrough_fn *)keymgmt_set_params},                          \
    {                                                                                              \
        OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS, (passthrough_fn *)type##_settable_params                \
    }

static const OSSL_DISPATCH rsa_functions[] = {COMMON(rsa), {0, NULL}};
static const OSSL_DISPATCH rsa_pss_functions[] = {COMMON(rsa_pss), {0, NULL}};
static const OSSL_DISPATCH ec_functions[] = {COMMON(ec), SETTABLE(ec), {0, NULL}};
static const OSSL_DISPATCH ed25519_functions[] = {COMMON(ed25519), SETTABLE(ed25519), {0, NULL}};
static const OSSL_DISPATCH ed448_functions[] = {COMMON(ed448), SETTABLE(ed448), {0, NULL}};

const OSSL_ALGORITHM keymgmt_algorithms[] = {
    {NAMES_RSA, PROPERTIES, rsa_functions, NULL},
    {NAMES_RSA_PSS, PROPERTIES, rsa_pss_functions, NULL},
    {NAMES_EC, PROPERTIES, ec_functions, NULL},
    {NAMES_ED25519, PROPERTIES, ed25519_functions, NULL},
    {NAMES_ED448, PROPERTIES, ed448_functions, NULL},
    {NULL, NULL, NULL, NULL},
};
