#!/bin/bash
# curl.sh - curl with a client key from the keystore, by stub and, where curl can, by URI
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VERSION=$(curl --version | sed -n '1s/^curl \([0-9.]*\).*/\1/p')
curl --version | sed -n 1p

new_token web
new_keystore
openssl_cnf
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key ec
keystore_key ed -algorithm ED25519
plain_key server
PORT=$(free_port)
start "$WORK/log" env -u OPENSSL_CONF openssl s_server -accept "127.0.0.1:$PORT" -www \
    -cert "$WORK/server.pem" -key "$PRIVATE/server.key" -CAfile "$WORK/ca.pem" -Verify 3 \
    -verify_return_error
wait_for_port "$PORT"

get() {
    curl --silent --show-error --fail --noproxy '*' --cacert "$WORK/ca.pem" "$@" \
        "https://localhost:$PORT/"
}

fails "the server insists on a client certificate" any "" get
for key in rsa ec ed; do
    ok "client key $key by stub" get --cert "$WORK/$key.pem" --key "$WORK/$key.stub"
    says "the server has seen the certificate" "$key"
done
cat "$WORK/ec.pem" "$WORK/ec.stub" >"$WORK/both.pem"
ok "certificate and stub in one file" get --cert "$WORK/both.pem"
ok "plain key file with our provider active" get --cert "$WORK/ec.pem" --key "$PRIVATE/ec.key"
fails "a stub of another key" any "" get --cert "$WORK/rsa.pem" --key "$WORK/ec.stub"
ok "two transfers in one process" get --cert "$WORK/ec.pem" --key "$WORK/ec.stub" \
    "https://localhost:$PORT/" --next --silent --show-error --fail --noproxy '*' \
    --cacert "$WORK/ca.pem" --cert "$WORK/rsa.pem" --key "$WORK/rsa.stub"

if dpkg --compare-versions "$VERSION" ge 8.12; then
    ok "key and certificate by URI through curl's own library context" \
        env OPENSSL_MODULES="$MODULES" TRUSTPOINT_KEYSTORE_CONF="$CONFIG" \
        curl --silent --show-error --fail --noproxy '*' --cacert "$WORK/ca.pem" \
        --engine trustpoint --key-type PROV --key trustpoint://ec --cert-type PROV \
        --cert 'trustpoint\://ec' "https://localhost:$PORT/"
    says "the server has seen the certificate" ec
else
    fails "curl $VERSION (before 8.12) knows no keys of providers by URI" any "" \
        get --key-type PROV --key trustpoint://ec --cert "$WORK/ec.pem"
fi

lose_token
fails "token gone: curl fails" any "" get --cert "$WORK/ec.pem" --key "$WORK/ec.stub"
token_back
ok "token back" get --cert "$WORK/ec.pem" --key "$WORK/ec.stub"
finish
