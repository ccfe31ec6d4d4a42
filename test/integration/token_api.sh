#!/bin/bash
# token_api.sh - keys in a token behave as keys of OpenSSL's default provider do: see token_api.c
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new_token api
new_keystore
openssl_cnf
build_helper token_api

# api TEST NAME: the key NAME against the plain key of the same kind.
api() {
    "$WORK/token_api" "$1" "trustpoint://$2" "$PRIVATE/$2-plain.key"
}
# all NAME TEST...
all() {
    local name=$1 test
    shift
    for test in "$@"; do
        ok "$name: $test" api "$test" "$name"
    done
}

# ---- SoftHSM ------------------------------------------------------------------------------------

RSA=(-algorithm RSA -pkeyopt rsa_keygen_bits:2048)
tpk generate rsa --type rsa:2048 --in-hsm --allow-decrypt >"$OUT" 2>&1
plain_key rsa-plain "${RSA[@]}"
for curve in P-256 P-384 P-521; do
    tpk generate "$curve" --type "ec:$curve" --in-hsm >"$OUT" 2>&1
    plain_key "$curve-plain" -algorithm EC -pkeyopt "ec_paramgen_curve:$curve"
done

all rsa key digest-sign sign contexts refused decrypt tls-padding tls fork
for curve in P-256 P-384 P-521; do
    all "$curve" key digest-sign sign contexts refused tls fork
done
ok "rsa: rejected messages" api rejection rsa
FIRST=$(cat "$OUT")
ok "rsa: again, in another process" api rejection rsa
same "they are the same" "$FIRST" "$(cat "$OUT")"
tpk generate signs --type rsa:2048 --in-hsm >"$OUT" 2>&1
fails "decryption needs its permission" any "does not allow to decrypt" \
    openssl pkeyutl -decrypt -inkey trustpoint://signs -in "$CONFIG" -out /dev/null

# ---- a token that can do everything -------------------------------------------------------------

TOKEN_URI=
PRIVATE=$PRIVATE/software
CONFIG=$PRIVATE/keystore.cnf
DATABASE=$PRIVATE/keystore.db
PASSWORD_FILE=$PRIVATE/password
mkdir -m 0700 "$PRIVATE"
new_ca
new_keystore
openssl_cnf
LIBRARY=$(find "$STAGE" -name libtrustpoint-keystore.so -print -quit)
"${CC:-cc}" -std=c11 -Wall -Wextra -Werror -shared -fPIC -o "$WORK/software_token.so" \
    "$ROOT/test/integration/software_token.c" -I"$ROOT/store" "$LIBRARY" \
    "-Wl,-rpath,$(dirname "$LIBRARY")" -lcrypto

api() {
    LD_PRELOAD=$WORK/software_token.so "$WORK/token_api" "$1" "trustpoint://$2" \
        "$PRIVATE/$2-plain.key"
}
RESTRICTED=(-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha256
    -pkeyopt rsa_pss_keygen_mgf1_md:sha256 -pkeyopt rsa_pss_keygen_saltlen:32)
# both NAME TYPE...: the key in the keystore and a plain one of its kind.
both() {
    keystore_key "$@"
    plain_key "$1-plain" "${@:2}"
}
both rsa "${RSA[@]}"
both odd -algorithm RSA -pkeyopt rsa_keygen_bits:2049
both pss -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
both restricted "${RESTRICTED[@]}"
both ec -algorithm EC -pkeyopt ec_paramgen_curve:P-521
tpk policy rsa --allow-decrypt >"$OUT" 2>&1
tpk policy odd --allow-decrypt >"$OUT" 2>&1
for name in rsa odd pss restricted ec; do
    all "$name" key digest-sign sign refused tls
done
all odd decrypt tls-padding
both ed25519 -algorithm ED25519
fails "Ed25519 is not for tokens" 1 "cannot be used in a token" env \
    LD_PRELOAD="$WORK/software_token.so" openssl pkey -in trustpoint://ed25519 -noout
finish
