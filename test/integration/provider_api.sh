#!/bin/bash
# provider_api.sh - the provider through OpenSSL's C interface: see provider_api.c
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

openssl_cnf
new_keystore
export MODULES
# Programs that load the provider by name give it no parameters.
export TRUSTPOINT_KEYSTORE_CONF=$CONFIG
build_helper provider_api

keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key pss -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
keystore_key ec -algorithm EC -pkeyopt ec_paramgen_curve:P-256
keystore_key ed25519 -algorithm ED25519
keystore_key ed448 -algorithm ED448
plain_key other -algorithm EC -pkeyopt ec_paramgen_curve:P-256
keystore_key gone
tpk delete gone --yes >"$OUT" 2>&1

api() {
    "$WORK/provider_api" "$@"
}

for name in rsa pss ec ed25519 ed448; do
    uri=trustpoint://$name
    ok "$name: loading and signing leave errno and error queue alone" api quiet "$uri"
    ok "$name: a duplicate works alone" api dup "$uri"
    ok "$name: it matches its certificate and public key only" api match "$uri" "$PRIVATE/other.key"
    ok "$name: nothing private comes out" api export "$uri"
    ok "$name: DER stub there and back" api der "$uri"
    ok "$name: stub files" api stub "$uri" "$WORK/$name.stub" "$WORK/gone.stub" "$PRIVATE/other.key"
    ok "$name: one key in 8 threads" api threads "$uri"
    ok "$name: children sign with the parent's key" api fork "$uri"
    ok "$name: exit with the key in use" api exit-with-key "$uri"
    ok "$name: two library contexts" api two-contexts "$uri"
    ok "$name: unloaded with the key in use" api unload-with-key "$uri"
    ok "$name: default properties" api properties "$uri" "$PRIVATE/other.key"
    ok "$name: before the default provider" api reversed "$uri" "$PRIVATE/other.key"
done
fails "a key of others does give out its private half" 1 "does not hold" \
    api export "file:$PRIVATE/other.key"
ok "the public half of a private key is fixed" api fixed trustpoint://ec "$PRIVATE/other.key"
ok "decryption is off unless allowed" api policy trustpoint://rsa
ok "a copied signature context" api copy trustpoint://rsa
ok "a copied signature context, EC" api copy trustpoint://ec
ok "a store in error is at its end" api store-error trustpoint://gone
ok "key, then certificate, then the end" api store-order trustpoint://ec
ok "8 threads load keys" api load-threads trustpoint://ec
ok "loaded twice" api load-twice trustpoint://ec
ok "without the default provider" api without-default trustpoint://ec
ok "without the default provider, RSA" api without-default trustpoint://rsa
finish
