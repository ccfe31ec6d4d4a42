#!/bin/bash
# python.sh - Python's ssl module with keys from the keystore: threads, fork, a server that drops
# its rights, and exceptions that say what is wrong
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$ROOT/test/integration
python3 -c 'import ssl, sys; print("Python", sys.version.split()[0], "with", ssl.OPENSSL_VERSION)'

new_token web
new_keystore
openssl_cnf
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key ec

python() {
    python3 "$HERE/python_client.py" "$@"
}

ok "load_cert_chain with a stub" python load "$WORK/ec.pem" "$WORK/ec.stub"
ok "8 threads load and use keys at the same time" python threads "$WORK/rsa.pem" "$WORK/rsa.stub" \
    "$WORK/ec.pem" "$WORK/ec.stub"
ok "children use the parent's key and load their own" python fork "$WORK/rsa.pem" "$WORK/rsa.stub"

PORT=$(free_port)
start "$WORK/log" python3 "$HERE/python_server.py" "$PORT" "$WORK/rsa.pem" "$WORK/rsa.stub" \
    www-data 3
SERVER=$PID
wait_for_line "$WORK/log" ready
mapfile -t SECRETS < <(secret_files)
unreadable_for www-data "${SECRETS[@]}"
ask() {
    python3 "$HERE/load.py" --port "$PORT" --ca "$WORK/ca.pem" --count "$1" \
        --text "uid=$(id -u www-data)"
}
ok "workers without rights and environment serve 100 requests" ask 100
lose_token
ok "token gone: they serve on" ask 50
fails "token gone: load_cert_chain raises" 1 SSLError python load "$WORK/ec.pem" "$WORK/ec.stub"
says_not "and not as a missing file" FileNotFoundError
token_back
lose_kek
ok "KEK deleted: they serve on" ask 50
fails "KEK deleted: load_cert_chain raises" 1 SSLError python load "$WORK/ec.pem" "$WORK/ec.stub"
stop "$SERVER"
fails "a key file that is not there is still FileNotFoundError" 1 FileNotFoundError \
    python load "$WORK/ec.pem" "$WORK/nothing"
finish
