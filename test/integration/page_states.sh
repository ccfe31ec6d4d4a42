#!/bin/bash
# page_states.sh - the restore page in states and places that are rare: a KEK that is not ours, a
# recovery key, a database that goes away, an address that others can reach, a user other than root
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$ROOT/test/integration
LOG=$WORK/page.log
JAR=$WORK/cookies
IN=() # a prefix for whatever visits

new_token web
new_keystore
openssl_cnf
keystore_key ec
RECOVERY=$PRIVATE/recovery
(umask 077 && tpk slot add recovery 2>>"$OUT" | tr -d '\n' >"$RECOVERY" &&
    tr -d '\n' <"$PASSWORD_FILE" >"$PRIVATE/right" && printf 'not the password' >"$PRIVATE/wrong")

# start_page SCHEME NAME COMMAND... OPTION...: reached as NAME:PORT.
start_page() {
    URL=$1://$2:$PORT/setup-wizard/auto_restore_password/
    shift 2
    rm -f "$LOG"
    start "$LOG" "$@"
    PAGE=$PID
    wait_for_line "$LOG" "the restore page is served"
}
page_ended() {
    local code=0
    wait_for "the page's end" not alive "$PAGE" || stop "$PAGE"
    wait "$PAGE" || code=$?
    unset "STARTED[$PAGE]"
    cp "$LOG" "$OUT"
    same "$1" "$2" "$code"
}
VISIT=()
visit() {
    plain "${IN[@]}" curl -s --max-time 120 "${VISIT[@]}" "$@"
}
get_token() {
    rm -f "$JAR"
    visit -c "$JAR" "$URL" >"$OUT"
    TOKEN=$(sed -n 's/.*name="csrf" value="\([0-9a-f]*\)".*/\1/p' "$OUT")
}
# form NAME CODE PASSWORD-FILE [CURL-OPTION...]: posts the form; asks again while it is too early.
form() {
    local name=$1 code=$2 file=$3
    shift 3
    posted() {
        GOT=$(visit -o "$OUT" -w '%{http_code}' -b "$JAR" -H "Origin: ${URL%/setup-wizard*}" \
            --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$file" "$@" "$URL")
        [ "$GOT" != 429 ]
    }
    wait_for "the pause" posted "$@"
    same "$name" "$code" "$GOT"
}
PLAIN=("$KEYSTORE_COMMAND" --config "$CONFIG" serve-restore)
PORT=$(free_port)

# ---- recovery key, foreign KEK -----------------------------------------------------------------

lose_kek
start_page http 127.0.0.1 "${PLAIN[@]}" --listen "127.0.0.1:$PORT"
get_token
says "KEK gone: the page says so" "has lost the key"
form "the recovery key" 200 "$RECOVERY"
page_ended "restored with the recovery key" 0
ok "the key can be used" openssl pkey -in trustpoint://ec -noout

ID=$(kek_ids)
lose_kek
ok "another key under the KEK's id" pkcs11 --keygen --key-type AES:32 --id "$ID"
start_page http 127.0.0.1 "${PLAIN[@]}" --listen "127.0.0.1:$PORT"
get_token
says "foreign KEK: the page says so" "has another key in the place of"
visit -w '%{http_code}' "http://127.0.0.1:$PORT/readyz" >"$OUT"
says "foreign KEK: /readyz" '"reason":"kek-foreign"'
says "foreign KEK: is 503" 503
form "foreign KEK: a wrong password" 403 "$PRIVATE/wrong"
says "is still about the foreign one" "has another key in the place of"
form "foreign KEK: the right one" 200 "$PRIVATE/right"
page_ended "restored beside a foreign KEK" 0
ok "the key can be used" openssl pkey -in trustpoint://ec -noout
ok "the other key is still there" grep -qxF "$ID" <(kek_ids)

# ---- what a page can't help --------------------------------------------------------------------

lose_kek
# last NAME CODE STATE EXIT-CODE TEXT: who is connected when the page ends learns why.
last() {
    python3 "$HERE/page_abuse.py" "$PORT" last "$LOG" "$5" /readyz >"$WORK/last" 2>&1 || true
    page_ended "$1: exit code $4" "$4"
    says "$1: the log says why" "$5"
    cp "$WORK/last" "$OUT"
    says "$1: /readyz is $2" "HTTP/1.1 $2 "
    says "$1: its state" "\"state\":\"$3\""
}
start_page http 127.0.0.1 "${PLAIN[@]}" --listen "127.0.0.1:$PORT"
mv "$PRIVATE/keystore.db" "$PRIVATE/kept.db"
last "the database is gone" 501 uninitialized 78 "keystore.db"
cp "$PRIVATE/kept.db" "$PRIVATE/keystore.db"
start_page http 127.0.0.1 "${PLAIN[@]}" --listen "127.0.0.1:$PORT"
head -c 4096 /dev/zero >"$PRIVATE/keystore.db"
last "the database is something else" 500 not-a-keystore 65 "not a keystore"
mv "$PRIVATE/kept.db" "$PRIVATE/keystore.db"

# ---- an address that others can reach ----------------------------------------------------------

plain_key rescue.example
if unshare --net true 2>>"$OUT"; then
    cat >"$WORK/in_network" <<'END'
ip link set lo up
ip address add 192.0.2.1/32 dev lo
exec "$@"
END
    start_page https rescue.example unshare --net sh -e "$WORK/in_network" "${PLAIN[@]}" \
        --listen "192.0.2.1:$PORT" --host rescue.example --tls-cert "$WORK/rescue.example.pem" \
        --tls-key "$PRIVATE/rescue.example.key"
    IN=(nsenter --target "$PAGE" --net --)
    VISIT=(--cacert "$WORK/ca.pem" --resolve "rescue.example:$PORT:192.0.2.1")
    get_token
    says "not loopback: the page asks for the code" 'name="code"'
    CODE=$(sed -n 's/.*one-time code for the page: //p' "$LOG")
    same "not loopback: the log has it" 8 "${#CODE}"
    same "not loopback: another name" 421 \
        "$(visit -o /dev/null -w '%{http_code}' -H "Host: other.example" "$URL")"
    ok "not loopback: plain HTTP gets nothing" not visit -f "http://192.0.2.1:$PORT/livez"
    form "not loopback: the password without the code" 403 "$PRIVATE/right"
    form "not loopback: password and code" 200 "$PRIVATE/right" -d "code=$CODE"
    page_ended "not loopback: restored" 0
    IN=()
    VISIT=()
else
    pass "SKIPPED: an address that others can reach, for there are no network namespaces here"
    tpk restore --password-file "$PASSWORD_FILE" >>"$OUT" 2>&1
fi

# ---- a user other than root --------------------------------------------------------------------

lose_kek
chown -R www-data:www-data "$PRIVATE"
install -d -o www-data -g www-data "$WORK/www"
start_page http localhost setpriv --reuid www-data --regid www-data --clear-groups "${PLAIN[@]}" \
    --listen "unix:$WORK/www/page.sock"
VISIT=(--unix-socket "$WORK/www/page.sock")
URL=http://localhost/setup-wizard/auto_restore_password/
sandboxed_child() {
    local child
    for child in $(<"/proc/$PAGE/task/$PAGE/children"); do
        ! { cp "/proc/$child/status" "$WORK/status" && grep -q '^Seccomp:.2' "$WORK/status"; } ||
            return 0
    done
    return 1
}
wait_for "the page's process" sandboxed_child
same "not root: it has no rights either" 0000000000000000 "$(awk '/^CapBnd:/ {next} /^CapEff:/ {print $2}' \
    "$WORK/status")"
get_token
form "not root: a wrong password" 403 "$PRIVATE/wrong"
form "not root: the right one" 200 "$PRIVATE/right"
page_ended "not root: restored" 0
ok "not root: the key can be used" run_as www-data env OPENSSL_CONF="$OPENSSL_CONF" \
    SOFTHSM2_CONF="$SOFTHSM2_CONF" openssl pkey -in trustpoint://ec -noout
finish
