/*
 * token.h - signing and decrypting with a key that stays in its token
 *
 * The token does the one computation that needs the private half. Everything else is done by
 * OpenSSL's default provider, in the contexts that signature.c and asym_cipher.c keep there.
 */
#ifndef TRUSTPOINT_TOKEN_H
#define TRUSTPOINT_TOKEN_H

#include <openssl/evp.h>

#include "key.h"
#include "passthrough.h"

/* What token_sign() is asked for is refused by the default provider as well, which has the words
 * for it. */
#define TOKEN_UNFIT (-1)

/*
 * The digest that a signature context `inner` of the default provider has settled on, NULL if none:
 * a reference of the caller's own. `algorithm` has the functions of that context.
 */
EVP_MD *token_digest(const KEY *key, const PASSTHROUGH *algorithm, void *inner);

/*
 * Signs `in` (a digest, if the context has one) with the padding, salt and so on that `inner` has
 * been set to, which is in a signing operation with the public half of `key`. `out` has `room`
 * bytes, *size gets the length: RSA's as long as the modulus, ECDSA's in DER. Returns 1 or, after
 * raising an error, 0, or TOKEN_UNFIT: then the same call to `inner` fails with the right error,
 * without touching the private half that it does not have.
 */
int token_sign(const KEY *key, const PASSTHROUGH *algorithm, void *inner, unsigned char *out,
               size_t *size, size_t room, const unsigned char *in, size_t in_size);

/*
 * The default provider's key data with which it takes the padding off what a token has decrypted
 * without looking at it: a private key of the same modulus whose exponent is one. So decrypting
 * with it changes nothing, but is followed by all that OpenSSL does with a decrypted block, in
 * constant time: OAEP with any digest and label, TLS's own padding, and from OpenSSL 3.2 on the
 * implicit rejection of PKCS#1 v1.5. (The message that stands in for a rejected one is derived from
 * exponent and block; the exponent is known here, but nobody without the token knows what a forged
 * block decrypts to.) The caller frees it as data of that type; NULL: no memory.
 */
void *token_unpadding(const CONTEXT *context, const KEY_TYPE *type, void *public_data);

/*
 * Decrypts: the token first, then `inner`, a decrypting context of the default provider with the
 * key's token_unpadding(). The parameters are those of OSSL_FUNC_asym_cipher_decrypt().
 */
int token_decrypt(const KEY *key, const PASSTHROUGH *algorithm, void *inner, unsigned char *out,
                  size_t *size, size_t room, const unsigned char *in, size_t in_size);

#endif
