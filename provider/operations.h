/*
 * operations.h - what each operation offers to libcrypto
 *
 * Tables end with an entry without names. Their names are those of the default provider
 * (provider-base(7), OSSL_FUNC_provider_query_operation). The tables of signature, asymmetric
 * cipher and key exchange are empty of functions until the matching ..._fill() has been called.
 */
#ifndef TRUSTPOINT_OPERATIONS_H
#define TRUSTPOINT_OPERATIONS_H

#include "context.h"
#include "passthrough.h"

#define NAMES_RSA "RSA:rsaEncryption:1.2.840.113549.1.1.1"
#define NAMES_RSA_PSS "RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10"
#define NAMES_EC "EC:id-ecPublicKey:1.2.840.10045.2.1"
#define NAMES_ED25519 "ED25519:1.3.101.112"
#define NAMES_ED448 "ED448:1.3.101.113"
#define NAMES_ECDSA "ECDSA"
#define NAMES_ECDH "ECDH"

#define PROPERTIES "provider=trustpoint"

extern const OSSL_ALGORITHM store_algorithms[];
extern const OSSL_ALGORITHM keymgmt_algorithms[];
extern const OSSL_ALGORITHM signature_algorithms[];
extern const OSSL_ALGORITHM asym_cipher_algorithms[];
extern const OSSL_ALGORITHM keyexch_algorithms[];
extern const OSSL_ALGORITHM encoder_algorithms[];

/* Which ones depends on the version of OpenSSL. */
const OSSL_ALGORITHM *decoder_algorithms(void);

void signature_fill(const CONTEXT *context);
void asym_cipher_fill(const CONTEXT *context);
void keyexch_fill(const CONTEXT *context);

#endif
