/*
 * token_decrypt.c - decryption by keys that stay in their token
 */
#include "token.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rsa.h>

#include "error.h"

#define NAME_SIZE 50

/* ---- the key that takes paddings off -----------------------------------------------------------
 */

typedef struct making {
    const KEY_TYPE *type;
    void *data; /* what is made */
} MAKING;

/* OSSL_CALLBACK: gets the public half. */
static int make(const OSSL_PARAM params[], void *arg)
{
    const MAKING *making = arg;
    const OSSL_PARAM *modulus = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_RSA_N);
    OSSL_FUNC_keymgmt_import_fn *import =
        ORIGINAL(&making->type->keymgmt, OSSL_FUNC_KEYMGMT_IMPORT, OSSL_FUNC_keymgmt_import_fn);
    unsigned char one[sizeof(long)];
    OSSL_PARAM key[] = {OSSL_PARAM_construct_end(), OSSL_PARAM_construct_end(),
                        OSSL_PARAM_construct_end(), OSSL_PARAM_construct_end()};

    if (modulus == NULL || import == NULL)
        return 0;
    memcpy(one, &(unsigned long){1}, sizeof(one));
    key[0] = *modulus;
    key[1] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_E, one, sizeof(one));
    key[2] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_D, one, sizeof(one));
    return import(making->data, OSSL_KEYMGMT_SELECT_KEYPAIR, key);
}

void *token_unpadding(const CONTEXT *context, const KEY_TYPE *type, void *public_data)
{
    OSSL_FUNC_keymgmt_new_fn *new_data =
        ORIGINAL(&type->keymgmt, OSSL_FUNC_KEYMGMT_NEW, OSSL_FUNC_keymgmt_new_fn);
    OSSL_FUNC_keymgmt_free_fn *free_data =
        ORIGINAL(&type->keymgmt, OSSL_FUNC_KEYMGMT_FREE, OSSL_FUNC_keymgmt_free_fn);
    OSSL_FUNC_keymgmt_export_fn *export =
        ORIGINAL(&type->keymgmt, OSSL_FUNC_KEYMGMT_EXPORT, OSSL_FUNC_keymgmt_export_fn);
    MAKING making = {type, NULL};

    if (new_data == NULL || free_data == NULL || export == NULL)
        return NULL;
    making.data = new_data(context_default_ctx(context));
    if (making.data != NULL &&
        !export(public_data, OSSL_KEYMGMT_SELECT_PUBLIC_KEY, make, &making)) {
        free_data(making.data);
        making.data = NULL;
    }
    return making.data;
}

/* ---- decrypting --------------------------------------------------------------------------------
 */

static int ask_inner(const PASSTHROUGH *algorithm, void *inner, unsigned char *out, size_t *size,
                     size_t room, const unsigned char *in, size_t in_size)
{
    return ORIGINAL(algorithm, OSSL_FUNC_ASYM_CIPHER_DECRYPT,
                    OSSL_FUNC_asym_cipher_decrypt_fn)(inner, out, size, room, in, in_size);
}

/* Blocks are as long as the modulus: what lacks in front is zero. */
static void fill_front(unsigned char *block, size_t size, size_t used)
{
    if (used >= size)
        return;
    memmove(block + size - used, block, used);
    memset(block, 0, size - used);
}

/* RSA without any padding, in place: `block` has the size of the modulus. */
static tpks_result decrypt_raw(const KEY *key, unsigned char *block, size_t size)
{
    const tpks_token_op op = {.mechanism = TPKS_RSA_RAW};
    size_t got = size;
    tpks_result result = tpks_token_key_decrypt(key_token(key), &op, block, size, block, &got);

    if (result == TPKS_OK)
        fill_front(block, size, got);
    return result;
}

int token_decrypt(const KEY *key, const PASSTHROUGH *algorithm, void *inner, unsigned char *out,
                  size_t *size, size_t room, const unsigned char *in, size_t in_size)
{
    size_t modulus = key_signature_size(key), needed = 0;
    unsigned char *block;
    int ok = 0;

    if (out == NULL || in_size > modulus)
        return ask_inner(algorithm, inner, out, size, room, in, in_size);
    if (!ask_inner(algorithm, inner, NULL, &needed, 0, in, in_size))
        return 0;
    if (room < needed)
        return ask_inner(algorithm, inner, out, size, room, in, in_size);
    block = OPENSSL_zalloc(modulus);
    if (block == NULL)
        return 0;
    memcpy(block + modulus - in_size, in, in_size);
    if (RAISE_RESULT(key_context(key), decrypt_raw(key, block, modulus)) == TPKS_OK)
        ok = ask_inner(algorithm, inner, out, size, room, block, modulus);
    OPENSSL_clear_free(block, modulus);
    return ok;
}
