#!/bin/bash
# token_key.sh - keys that are made in a token: the command, OpenSSL's own commands, TLS, and losses
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new_token edge
new_keystore
openssl_cnf
new_ca

json_get() {
    local expression=$1
    shift
    "$@" --json 2>>"$OUT" | python3 -c "import json, sys; j = json.load(sys.stdin); print($expression)"
}

keys_in_token() {
    pkcs11 --list-objects --type privkey 2>>"$OUT" | grep -c "Private Key Object" || true
}

# ---- made and shown -----------------------------------------------------------------------------

ok "an RSA key is made in the token" tpk generate web --type rsa:2048 --in-hsm
says "and it is said that it has no backup" "no backup or password brings it back"
ok "an EC key with a request" tpk generate edge --type ec:P-256 --in-hsm --csr "$WORK/edge.csr"
ok "the request is signed with it" plain openssl req -in "$WORK/edge.csr" -verify -noout
ok "an EC key with a certificate" tpk generate core --type ec:P-384 --in-hsm --self-signed 30 --csr "$WORK/core.csr"
ok "P-384's request" plain openssl req -in "$WORK/core.csr" -verify -noout
tpk cert core >"$WORK/core.pem" 2>>"$OUT"
ok "the certificate is signed with it" plain openssl verify -CAfile "$WORK/core.pem" "$WORK/core.pem"
same "the token has all three" 3 "$(keys_in_token)"
ok "show says where" tpk show web
says "it lives in a token" "token serial"
same "and in JSON" token "$(json_get 'j["home"]' tpk show web)"
same "status counts them" 3 "$(json_get 'j["records_in_token"]' tpk status)"
ok "list shows them" tpk list
says "as any other" "RSA 2048"
ok "verify proves them" tpk verify
ok "doctor" tpk doctor
says "doctor says what they need" "need the token and its PIN"
ok "a stub" tpk stub web --out "$WORK/web.stub"
says "with a word about workers" "while they run"
fails "Ed25519 is not for this token's path" 65 "use rsa:2048" tpk generate x --type ed25519 --in-hsm
fails "a certificate for ever" 64 "1 to 36500" tpk generate x --in-hsm --self-signed 99999
fails "makes no key first" 66 "no record" tpk show x
same "nor in the token" 3 "$(keys_in_token)"
fails "a name is taken once" 73 "exists already" tpk generate web --in-hsm
fails "it can't be exported" 77 "never leaves" tpk export web --out "$PRIVATE/x" --unencrypted \
    --yes-export-private-key
same "no key can leave the token" 3 "$(pkcs11 --list-objects --type privkey 2>>"$OUT" |
    grep -c 'sensitive.*never extractable' || true)"

# ---- certificates -------------------------------------------------------------------------------

ok "csr" tpk csr web --subject /CN=localhost --san DNS:localhost --out "$WORK/web.csr"
ok "RSA's request" plain openssl req -in "$WORK/web.csr" -verify -noout
ca_sign "$WORK/web.csr" "$WORK/web.pem" localhost
ca_sign "$WORK/edge.csr" "$WORK/edge.pem" localhost
ok "set-cert" tpk set-cert web "$WORK/web.pem"
ok "set-cert of the EC key" tpk set-cert edge "$WORK/edge.pem"
fails "not another key's" any "" tpk set-cert web "$WORK/edge.pem"
plain_key other
fails "a key from a file does not take its place" 69 "lives in a token" \
    tpk set-cert web --key "$PRIVATE/other.key" "$WORK/other.pem"

# ---- OpenSSL ------------------------------------------------------------------------------------

echo "to be signed" >"$WORK/data"
for key in web edge core; do
    tpk show "$key" >"$OUT"
    openssl pkey -in "trustpoint://$key" -pubout -out "$WORK/$key.pub" 2>>"$OUT"
    ok "$key: dgst signs" openssl dgst -sha256 -sign "trustpoint://$key" -out "$WORK/$key.sig" "$WORK/data"
    ok "$key: and it verifies" plain openssl dgst -sha256 -verify "$WORK/$key.pub" \
        -signature "$WORK/$key.sig" "$WORK/data"
    ok "$key: req" openssl req -new -key "trustpoint://$key" -subj /CN=x -out "$WORK/$key.req"
    ok "$key: its request" plain openssl req -in "$WORK/$key.req" -verify -noout
done
ok "PSS" openssl dgst -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest \
    -sign trustpoint://web -out "$WORK/pss.sig" "$WORK/data"
ok "PSS verifies" plain openssl dgst -sha384 -sigopt rsa_padding_mode:pss \
    -sigopt rsa_pss_saltlen:digest -verify "$WORK/web.pub" -signature "$WORK/pss.sig" "$WORK/data"
ok "CMS from the stub" openssl cms -sign -binary -nodetach -in "$WORK/data" -signer "$WORK/web.pem" \
    -inkey "$WORK/web.stub" -outform DER -out "$WORK/cms"
ok "CMS verifies" plain openssl cms -verify -inform DER -in "$WORK/cms" -CAfile "$WORK/ca.pem" \
    -purpose any -out /dev/null

serve() {
    PORT=$(free_port)
    start "$WORK/server.log" openssl s_server -accept "127.0.0.1:$PORT" -key "trustpoint://$1" \
        -cert "$WORK/$1.pem" -www "${@:2}"
    wait_for_port "$PORT"
}
connect() {
    plain openssl s_client -connect "127.0.0.1:$PORT" -CAfile "$WORK/ca.pem" \
        -verify_return_error "$@" </dev/null
}
serve web
ok "TLS 1.3 with RSA-PSS" connect -tls1_3
ok "TLS 1.2 with PKCS #1" connect -tls1_2 -sigalgs RSA+SHA256
stop "$PID"
serve edge
ok "TLS 1.3 with ECDSA" connect -tls1_3

# ---- losses -------------------------------------------------------------------------------------

lose_token
ok "without the token no handshake" not connect -tls1_3
token_back
ok "and with it again, in the same server" connect -tls1_3
stop "$PID"
lose_token
fails "loading needs the token" any "no initialised token" \
    openssl dgst -sha256 -sign trustpoint://edge -out /dev/null "$WORK/data"
token_back
ok "back" openssl dgst -sha256 -sign trustpoint://edge -out /dev/null "$WORK/data"

# ---- records change, keys go --------------------------------------------------------------------

ok "rename" tpk rename edge border
ok "it is the same key" openssl dgst -sha256 -sign trustpoint://border -out "$WORK/border.sig" "$WORK/data"
ok "it is" plain openssl dgst -sha256 -verify "$WORK/edge.pub" -signature "$WORK/border.sig" "$WORK/data"
ok "a key that may decrypt" tpk generate box --type rsa:2048 --in-hsm --allow-decrypt
openssl pkey -in trustpoint://box -pubout -out "$WORK/box.pub"
plain openssl pkeyutl -encrypt -pubin -inkey "$WORK/box.pub" -in "$WORK/data" -out "$WORK/data.enc"
ok "decrypts" openssl pkeyutl -decrypt -inkey trustpoint://box -in "$WORK/data.enc" -out "$WORK/data.dec"
ok "to what it was" cmp "$WORK/data" "$WORK/data.dec"
ok "policy takes it back" tpk policy box --no-decrypt
fails "then it does not" any "" openssl pkeyutl -decrypt -inkey trustpoint://box -in "$WORK/data.enc" \
    -out /dev/null
before=$(keys_in_token)
ok "delete leaves the key" tpk delete box --yes
says "and says so" "still in the token"
same "it is there" "$before" "$(keys_in_token)"
ok "doctor" tpk doctor
says "doctor names the orphan" "none uses it"
ok "delete with the key" tpk delete border --destroy-key --yes
same "it is gone" $((before - 1)) "$(keys_in_token)"
fails "--destroy-key is for such keys only" 64 "keys in a token" \
    bash -c '"$@" import plain "$0" >/dev/null && "$@" delete plain --destroy-key --yes' \
    "$PRIVATE/other.key" "$KEYSTORE_COMMAND" --config "$CONFIG"

# ---- what a killed command has left ---------------------------------------------------------------

# at_terminal ANSWER COMMAND...
at_terminal() {
    (umask 077 && printf '%s\n' "$1" >"$PRIVATE/answer")
    shift
    python3 "$ROOT/test/integration/at_terminal.py" --answers "$PRIVATE/answer" -- \
        "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}
# killed_generate NAME: killed where the token makes the key.
killed_generate() {
    local code=0
    FAIL=generate quietly tpk generate "$1" --in-hsm || code=$?
    same "generate $1 is killed" 137 "$code"
}
build_failing_module
GOOD_URI=$TOKEN_URI
TOKEN_URI=${TOKEN_URI/$SOFTHSM/$WORK/failing.so}
write_keystore_cnf
killed_generate half
fails "it is no record" 66 "--destroy-key" tpk show half
fails "delete asks, and there is no terminal" 64 "terminal" \
    setsid -w "$KEYSTORE_COMMAND" --config "$CONFIG" delete half --destroy-key
fails "delete asks, and no is no" 77 "not confirmed" at_terminal no delete half --destroy-key
says_not "that is all it says" "was being made"
lose_token
fails "delete without the token" 69 "no initialised token" tpk delete half --destroy-key --yes
says_not "that is all it says" "was being made"
fails "a name that was never there" 66 "no record" tpk delete nobody --destroy-key --yes
token_back
ok "delete with the token" at_terminal yes delete half --destroy-key
fails "nothing is left to delete" 66 "no record" \
    setsid -w "$KEYSTORE_COMMAND" --config "$CONFIG" delete half --destroy-key
fails "of a name that was never there nobody is asked" 66 "no record" at_terminal yes delete nobody --destroy-key
says_not "nobody" "Type yes"
TOKEN_URI=$GOOD_URI
write_keystore_cnf

# ---- the whole token is lost --------------------------------------------------------------------

rm -rf "${PRIVATE:?}/tokens"/*
softhsm2-util --init-token --free --label edge --so-pin 12345678 --pin "$(cat "$PIN_FILE")" >>"$OUT" 2>&1
ok "restore" tpk restore --password-file "$PASSWORD_FILE"
says "it says what it does not bring back" "2 keys live in a token"
ok "a sealed key is back" openssl dgst -sha256 -sign trustpoint://plain -out /dev/null "$WORK/data"
fails "one of the lost token is not" any "" openssl dgst -sha256 -sign trustpoint://web -out /dev/null "$WORK/data"
fails "verify names it" any "serial" tpk verify
ok "its record can go" tpk delete web --yes

finish
