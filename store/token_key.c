/* token_key.c - keys that never leave their token */
#include "keystore_internal.h"

static tpks_result fail_unsupported(void)
{
    return fail(TPKS_UNSUPPORTED, "this build can't use keys that live in a token");
}

tpks_result tpks_token_key_open(TPKS *ks, const TPKS_RECORD *record, TPKS_TOKEN_KEY **out)
{
    (void)ks;
    (void)record;
    (void)out;
    return fail_unsupported();
}

TPKS_TOKEN_KEY *tpks_token_key_up_ref(TPKS_TOKEN_KEY *key)
{
    return key;
}

void tpks_token_key_free(TPKS_TOKEN_KEY *key)
{
    (void)key;
}

tpks_result tpks_token_key_sign(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                const unsigned char *in, size_t in_size, unsigned char *out,
                                size_t *out_size)
{
    (void)key;
    (void)op;
    (void)in;
    (void)in_size;
    (void)out;
    (void)out_size;
    return fail_unsupported();
}

tpks_result tpks_token_key_decrypt(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                   const unsigned char *in, size_t in_size, unsigned char *out,
                                   size_t *out_size)
{
    return tpks_token_key_sign(key, op, in, in_size, out, out_size);
}

tpks_result tpks_generate_in_token(TPKS *ks, const char *name, const char *key_type,
                                   unsigned policy, unsigned char id[TPKS_ID_SIZE])
{
    (void)ks;
    (void)name;
    (void)key_type;
    (void)policy;
    (void)id;
    return fail_unsupported();
}

tpks_result tpks_remove_with_key(TPKS *ks, const TPKS_RECORD *record)
{
    (void)ks;
    (void)record;
    return fail_unsupported();
}
