/*
 * store.c - the OSSL_STORE loader of scheme trustpoint: see provider-storemgmt(7)
 *
 * OpenSSL's part of the rules: parameters never fail (OpenSSL before 3.2 crashes on that), errors
 * are kept for the first load, and with any error the end is reached before it is raised (programs
 * loop until the end).
 */
#include "operations.h"

#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include "error.h"
#include "load.h"
#include "plan.h"

typedef struct store {
    CONTEXT *context;
    TPKS_URI *uri;
    WISH wish;
    bool bad_wish;
    SOURCE *source;
    PLAN *plan;
    size_t next;
    OSSL_PASSPHRASE_CALLBACK *ask; /* of the load that is going on */
    void *ask_arg;
    bool end;
} STORE;

static OSSL_FUNC_store_open_fn store_open;
static OSSL_FUNC_store_settable_ctx_params_fn store_settable_ctx_params;
static OSSL_FUNC_store_set_ctx_params_fn store_set_ctx_params;
static OSSL_FUNC_store_load_fn store_load;
static OSSL_FUNC_store_eof_fn store_eof;
static OSSL_FUNC_store_close_fn store_close;

static int store_close(void *loader)
{
    KEEP_ERRNO;
    STORE *store = loader;

    if (store == NULL)
        return 1;
    plan_free(store->plan);
    source_close(store->source);
    tpks_uri_free(store->uri);
    wish_clear(&store->wish);
    OPENSSL_free(store);
    return 1;
}

static void *store_open(void *provctx, const char *uri)
{
    KEEP_ERRNO;
    CONTEXT *context = provctx;
    STORE *store;

    if (!tpks_uri_is_ours(uri))
        return NULL;
    store = OPENSSL_zalloc(sizeof(*store));
    if (store == NULL)
        return NULL;
    store->context = context;
    if (RAISE_RESULT(context, tpks_uri_parse(uri, &store->uri)) != TPKS_OK) {
        store_close(store);
        return NULL;
    }
    return store;
}

static const OSSL_PARAM *store_settable_ctx_params(void *provctx)
{
    static const OSSL_PARAM settable[] = {
        OSSL_PARAM_int(OSSL_STORE_PARAM_EXPECT, NULL),
        OSSL_PARAM_octet_string(OSSL_STORE_PARAM_SUBJECT, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_STORE_PARAM_ISSUER, NULL, 0),
        OSSL_PARAM_BN(OSSL_STORE_PARAM_SERIAL, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_STORE_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_STORE_PARAM_FINGERPRINT, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_STORE_PARAM_ALIAS, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_STORE_PARAM_PROPERTIES, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_STORE_PARAM_INPUT_TYPE, NULL, 0),
        OSSL_PARAM_END,
    };

    (void)provctx;
    return settable;
}

static int store_set_ctx_params(void *loader, const OSSL_PARAM params[])
{
    STORE *store = loader;

    if (params == NULL)
        return 1;
    ERR_set_mark();
    if (!wish_set(&store->wish, params))
        store->bad_wish = true;
    ERR_pop_to_mark();
    return 1;
}

static int store_eof(void *loader)
{
    return ((const STORE *)loader)->end;
}

/* ---- objects -----------------------------------------------------------------------------------
 */

static int yield_name(const ITEM *item, OSSL_CALLBACK *callback, void *arg)
{
    int type = OSSL_OBJECT_NAME;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type),
        OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA, item->uri, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DESC, item->description, 0),
        OSSL_PARAM_construct_end()};

    return callback(params, arg);
}

static int yield_certificate(const ITEM *item, OSSL_CALLBACK *callback, void *arg)
{
    int type = OSSL_OBJECT_CERT;
    size_t size;
    const unsigned char *der = tpks_record_cert(item->record, item->certificate, &size);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type),
        OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_DATA, (void *)der, size),
        OSSL_PARAM_construct_end()};

    return callback(params, arg);
}

static int yield(const STORE *store, const ITEM *item, OSSL_CALLBACK *callback, void *arg)
{
    KEY *key;

    if (item->kind == ITEM_NAME)
        return yield_name(item, callback, arg);
    if (item->kind == ITEM_CERTIFICATE)
        return yield_certificate(item, callback, arg);
    if (item->kind == ITEM_ERROR) {
        RAISE(store->context, item->result, "%s", item->description);
        return 0;
    }
    source_set_ask(store->source, store->ask, store->ask_arg);
    if (item->kind == ITEM_PRIVATE_KEY)
        key = source_private_key(store->source, item->record);
    else
        key = source_public_key(store->source, item->record);
    return key != NULL && key_yield(key, callback, arg);
}

static int prepare(STORE *store)
{
    if (store->bad_wish) {
        RAISE(store->context, TPKS_BAD_INPUT,
              "the program's search parameters have types that a store does not know");
        return 0;
    }
    store->source = source_open(store->context, tpks_uri_keystore(store->uri));
    if (store->source == NULL)
        return 0;
    store->plan = plan_new(store->context, store->source, store->uri, &store->wish);
    return store->plan != NULL;
}

static int load_next(STORE *store, OSSL_CALLBACK *callback, void *arg)
{
    const ITEM *item;

    store->end = true;
    if (store->plan == NULL && !prepare(store))
        return 0;
    if (store->next >= plan_size(store->plan))
        return 1;
    item = plan_item(store->plan, store->next++);
    store->end = store->next >= plan_size(store->plan);
    if (yield(store, item, callback, arg))
        return 1;
    /* OSSL_STORE_load() takes a failure at the end for the end itself. */
    store->end = item->kind != ITEM_ERROR;
    return 0;
}

static int store_load(void *loader, OSSL_CALLBACK *callback, void *arg,
                      OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
    KEEP_ERRNO;
    STORE *store = loader;

    ERR_set_mark();
    store->ask = ask;
    store->ask_arg = ask_arg;
    return errors_end(load_next(store, callback, arg));
}

static const OSSL_DISPATCH store_functions[] = {
    {OSSL_FUNC_STORE_OPEN, (passthrough_fn *)store_open},
    {OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS, (passthrough_fn *)store_settable_ctx_params},
    {OSSL_FUNC_STORE_SET_CTX_PARAMS, (passthrough_fn *)store_set_ctx_params},
    {OSSL_FUNC_STORE_LOAD, (passthrough_fn *)store_load},
    {OSSL_FUNC_STORE_EOF, (passthrough_fn *)store_eof},
    {OSSL_FUNC_STORE_CLOSE, (passthrough_fn *)store_close},
    {0, NULL},
};

const OSSL_ALGORITHM store_algorithms[] = {
    {"trustpoint", PROPERTIES, store_functions, NULL},
    {NULL, NULL, NULL, NULL},
};
