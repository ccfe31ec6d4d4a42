#!/bin/bash
# container.sh - trustpoint-entrypoint: each exit code of a keystore that can't be unlocked, a state
# file that says why, the same words from nginx, and the command that it becomes
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ENTRY=$STAGE/bin/trustpoint-entrypoint
SOCKET=$PRIVATE/unlock.sock
STATE=$WORK/state.json

# entry OPTION... -- COMMAND...: as a container's first process would be started.
entry() {
    env TRUSTPOINT_KEYSTORE_CONF="$CONFIG" "$ENTRY" --socket "$SOCKET" --state-file "$STATE" "$@"
}
# refuses NAME CODE STATE [OPTION...]: it ends with CODE, the state file has STATE and a text, and
# nginx, started without it, says this text.
refuses() {
    local name=$1 code=$2 state=$3
    shift 3
    rm -f "$STATE" "$WORK/started"
    fails "$name: exit code $code" "$code" "" entry --wait=0 "$@" -- touch "$WORK/started"
    ok "$name: the command is not started" test ! -e "$WORK/started"
    [ -n "$state" ] || return 0
    same "$name: the state file" "$state" "$(json state) $(json reason)"
    fails "$name: nginx does not start" 1 "" env TRUSTPOINT_KEYSTORE_CONF="$CONFIG" nginx -t \
        -c "$WORK/nginx.conf"
    says "$name: nginx says the state file's text" "$(json text)"
}
json() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$STATE" "$1"
}

status_of() {
    local code=0
    quietly "$@" || code=$?
    echo "$code"
}

new_token web
new_keystore
openssl_cnf
keystore_key ec
WRONG=$PRIVATE/wrong
(umask 077 && echo "not the password" >"$WRONG")
cat >"$WORK/nginx.conf" <<END
pid $WORK/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path $WORK/body;
    proxy_temp_path $WORK/proxy;
    fastcgi_temp_path $WORK/fastcgi;
    uwsgi_temp_path $WORK/uwsgi;
    scgi_temp_path $WORK/scgi;
    server {
        listen 127.0.0.1:$(free_port) ssl;
        ssl_certificate $WORK/ec.pem;
        ssl_certificate_key $WORK/ec.stub;
    }
}
END

ok "0: the command is started" entry -- touch "$WORK/started"
says "and it says so" "can be unlocked"
ok "it was" test -e "$WORK/started"
fails "its exit code is the command's" 7 "" entry -- sh -c 'exit 7'
ok "its arguments arrive as they are" entry -- sh -c '[ "$1" = "a  b" ] && [ "$2" = "" ] && [ $# = 2 ]' \
    sh "a  b" ""
same "a command that is not there: 127" 127 "$(status_of entry -- "$WORK/absent")"
says "and says which" "cannot run $WORK/absent"
same "one that may not be run: 126" 126 "$(status_of entry -- "$CONFIG")"
# What the command is given: open files, limits.
given() {
    ulimit -S -c "$(ulimit -H -c)"
    "$@" sh -c 'cd /proc/$$/fd && echo * && ulimit -a' 2>>"$OUT" </dev/null
}
same "what was open and how it is limited stays as it was" "$(given env)" "$(given entry --)"
ok "options of the command are not taken for its own" entry --hsm-timeout 20 -- test --wait=1 = --wait=1

lose_kek
refuses "KEK lost, nothing to restore it with" 75 "restore-pending kek-missing"
ok "the state file says what to type" grep -qF '"trustpoint-keystore restore"' "$STATE"
refuses "wrong password" 77 "" --password-file "$WRONG"
refuses "password file that is not there" 66 "" --password-file "$PRIVATE/absent"
ok "0: restored from the file that was given" entry --wait=0 --password-file "$PASSWORD_FILE" -- true

ID=$(kek_ids)
lose_kek
ok "another key under the KEK's id" pkcs11 --keygen --key-type AES:32 --id "$ID"
refuses "KEK foreign" 65 "restore-pending kek-foreign"
refuses "KEK foreign, a password in a file" 65 "restore-pending kek-foreign" \
    --password-file "$PASSWORD_FILE"
ok "restored on demand" tpk restore --password-file "$PASSWORD_FILE"

lose_token
refuses "token gone" 69 "token-missing token-missing"
token_back
cp "$PIN_FILE" "$PRIVATE/pin.kept"
echo 00000000 >"$PIN_FILE"
fails "PIN refused: exit code 77" 77 "correct the PIN" entry --wait=0 -- true
refuses "PIN refused before" 77 "pin-locked pin-locked"
cp "$PRIVATE/pin.kept" "$PIN_FILE"

mv "$PRIVATE/keystore.db" "$PRIVATE/kept.db"
refuses "no keystore" 78 "uninitialized uninitialized"
head -c 4096 /dev/zero >"$PRIVATE/keystore.db"
refuses "not a keystore" 65 "not-a-keystore not-a-keystore"
cp "$PRIVATE/kept.db" "$PRIVATE/keystore.db"
sqlite3 "$PRIVATE/keystore.db" "update tpks_header set label = 'changed'"
refuses "tampered" 65 "tampered tampered"
mv "$PRIVATE/kept.db" "$PRIVATE/keystore.db"
echo 'nonsense = 1' >>"$CONFIG"
refuses "configuration" 78 ""
write_keystore_cnf
ok "0: everything is well again" entry -- true
fails "no command: 64" 64 usage entry
fails "unlock-service: a command without --: 64" 64 "behind --" tpk unlock-service true
finish
