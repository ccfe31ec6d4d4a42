#!/bin/bash
# valgrind.sh - the openssl command, Python and trustpoint-keystore under valgrind: no errors, and
# nothing that was allocated is lost
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new_token web
new_keystore
openssl_cnf
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key ec
head -c 4096 /dev/urandom >"$WORK/data"

checked() {
    valgrind -q --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite \
        --error-exitcode=99 "$@"
}
checked_tpk() {
    checked "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}
# refused COMMAND...: fails, but not by valgrind's exit code.
refused() {
    local code=0
    checked "$@" || code=$?
    [ "$code" != 0 ] && [ "$code" != 99 ] && [ "$code" -lt 124 ]
}

for key in rsa ec; do
    ok "dgst by URI, $key" checked openssl dgst -sha256 -sign "trustpoint://$key" \
        -out "$WORK/signature" "$WORK/data"
    ok "dgst by stub, $key" checked openssl dgst -sha256 -sign "$WORK/$key.stub" \
        -out "$WORK/signature" "$WORK/data"
done
ok "req" checked openssl req -new -key trustpoint://ec -subj /CN=ec -out "$WORK/csr"
ok "x509 by URI" checked openssl x509 -in trustpoint://ec -noout
ok "storeutl" checked openssl storeutl -noout -text trustpoint://
ok "a plain key file beside us" checked openssl pkey -in "$PRIVATE/rsa.key" -noout
ok "a name that is not there" refused openssl pkey -in trustpoint://nobody -noout
ok "a URI that is none" refused openssl pkey -in 'trustpoint://ec?what=1' -noout
ok "list" checked_tpk list --json
ok "show" checked_tpk show ec --json
ok "status" checked_tpk status
ok "verify" checked_tpk verify
ok "generate" checked_tpk generate new --type ec:P-256 --self-signed 30 --subject /CN=new
ok "set-cert, refused" refused "$KEYSTORE_COMMAND" --config "$CONFIG" set-cert new "$WORK/ec.pem"
ok "rename" checked_tpk rename new newer
ok "delete" checked_tpk delete newer --yes
ok "backup" checked_tpk backup "$PRIVATE/backup.db"
lose_kek
ok "a lost KEK" refused openssl pkey -in trustpoint://ec -noout
finish
