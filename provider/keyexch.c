/*
 * keyexch.c - ECDH: the default provider's, given the keys inside ours
 */
#include "operations.h"

#include "error.h"
#include "key.h"

#define FUNC_LAST OSSL_FUNC_KEYEXCH_GETTABLE_CTX_PARAMS

static PASSTHROUGH ecdh;

static OSSL_FUNC_keyexch_newctx_fn ecdh_newctx;
static OSSL_FUNC_keyexch_init_fn ecdh_init;
static OSSL_FUNC_keyexch_set_peer_fn ecdh_set_peer;

static void *ecdh_newctx(void *provctx)
{
    return ORIGINAL(&ecdh, OSSL_FUNC_KEYEXCH_NEWCTX,
                    OSSL_FUNC_keyexch_newctx_fn)(context_default_ctx(provctx));
}

static bool refuse_token(const KEY *key)
{
    if (key == NULL || key_token(key) == NULL)
        return false;
    RAISE(key_context(key), TPKS_UNSUPPORTED,
          "%s: the key is in a token, where it signs but does not agree on keys: keep a key for "
          "that in the database",
          key_uri(key));
    return true;
}

static int ecdh_init(void *ctx, void *key, const OSSL_PARAM params[])
{
    if (refuse_token(key) || (key != NULL && !key_permits(key, TPKS_MAY_AGREE)))
        return 0;
    return ORIGINAL(&ecdh, OSSL_FUNC_KEYEXCH_INIT, OSSL_FUNC_keyexch_init_fn)(ctx, key_data(key),
                                                                              params);
}

static int ecdh_set_peer(void *ctx, void *key)
{
    return ORIGINAL(&ecdh, OSSL_FUNC_KEYEXCH_SET_PEER,
                    OSSL_FUNC_keyexch_set_peer_fn)(ctx, key_data(key));
}

static const OSSL_DISPATCH ecdh_ours[] = {
    {OSSL_FUNC_KEYEXCH_NEWCTX, (passthrough_fn *)ecdh_newctx},
    {OSSL_FUNC_KEYEXCH_INIT, (passthrough_fn *)ecdh_init},
    {OSSL_FUNC_KEYEXCH_SET_PEER, (passthrough_fn *)ecdh_set_peer},
    {0, NULL},
};

void keyexch_fill(const CONTEXT *context)
{
    const TAKEOVER list[] = {
        {&ecdh, OSSL_OP_KEYEXCH, "ECDH", FUNC_LAST, ecdh_ours},
        {NULL, 0, NULL, 0, NULL},
    };

    passthrough_fill(context, list);
}

const OSSL_ALGORITHM keyexch_algorithms[] = {
    {NAMES_ECDH, PROPERTIES, ecdh.table, NULL},
    {NULL, NULL, NULL, NULL},
};
