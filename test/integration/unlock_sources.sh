#!/bin/bash
# unlock_sources.sh - the order in which the unlock service looks for the backup password, many
# services at once, a KEK that is not ours, recovery keys, and a user other than root
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$ROOT/test/integration
SOCKET=$PRIVATE/unlock.sock
STATE=$WORK/state.json
LOG=$WORK/service.log
QUESTIONS=/run/systemd/ask-password

service() {
    tpk unlock-service --socket "$SOCKET" --state-file "$STATE" "$@"
}
# sources LIST: the directive `restore`; without one the default.
sources() {
    write_keystore_cnf ${1:+"restore = $1"}
}
start_service() {
    rm -f "$LOG" "$STATE"
    start "$LOG" "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$SOCKET" \
        --state-file "$STATE" "$@"
    SERVICE=$PID
}
# ended NAME CODE: the service ends with this exit code.
ended() {
    local code=0
    wait_for "the service's end" not alive "$SERVICE" || stop "$SERVICE"
    wait "$SERVICE" || code=$?
    unset "STARTED[$SERVICE]"
    cp "$LOG" "$OUT"
    same "$1" "$2" "$code"
}
unlock() {
    tpk unlock --socket "$SOCKET" --password-file "$1"
}
json() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$STATE" "$1"
}
state_is() {
    [ "$(json state)" = "$1" ] && [ "$(json reason)" = "$2" ]
}
questions() {
    { grep -ls "Id=trustpoint:$ID" "$QUESTIONS"/ask.* || true; } | wc -l
}
asked() {
    [ "$(questions)" = "${1:-1}" ]
}
agent() {
    python3 "$HERE/password_agent.py" --id "trustpoint:$ID" "$@"
}
unlocked() {
    ok "$1" openssl pkeyutl -sign -rawin -inkey trustpoint://ec -in "$WORK/ec.pem" \
        -out "$WORK/signature"
}
# foreign_kek: another key takes the KEK's place.
foreign_kek() {
    local id
    id=$(kek_ids | head -n 1)
    lose_kek
    pkcs11 --keygen --key-type AES:32 --id "$id" --label other >>"$OUT" 2>&1
}

new_token web
new_keystore
openssl_cnf
keystore_key ec
ID=$(keystore_id)
WRONG=$PRIVATE/wrong
RECOVERY=$PRIVATE/recovery
EMPTY=$PRIVATE/nothing
(umask 077 && echo "not the password" >"$WRONG" && echo >"$EMPTY" && tpk slot add recovery >"$RECOVERY" 2>>"$OUT")
mkdir -m 0700 "$PRIVATE/credentials"
export CREDENTIALS_DIRECTORY=$PRIVATE/credentials
CREDENTIAL=$CREDENTIALS_DIRECTORY/trustpoint.backup-password

# ---- one after the other ----
lose_kek
sources
start_service
wait_for "the question" asked
ok "default: a question, and beside it the socket" test -S "$SOCKET"
same "default: the state file names the ways" \
    "['systemd-tty-ask-password-agent', 'trustpoint-keystore unlock', 'trustpoint-keystore restore']" \
    "$(json how)"
ok "default: an administrator answers at the socket" unlock "$PASSWORD_FILE"
ended "default: 0" 0
ok "default: the question is gone" asked 0
unlocked "default: unlocked"
lose_kek
cp "$WRONG" "$CREDENTIAL"
sources "credential, file:$PASSWORD_FILE"
ok "a wrong credential gives way to the file behind it" service
says "and is said" "is not that of slot"
lose_kek
sources "file:$PASSWORD_FILE, credential"
ok "the file before it comes first" service
says_not "then the credential is not looked at" "is not that of slot"
lose_kek
sources "file:$WRONG, file:$PASSWORD_FILE"
chmod 0644 "$WRONG"
ok "a file that others can read gives way, too" service
says "and is said" "$WRONG"
chmod 0600 "$WRONG"
lose_kek
rm "$CREDENTIAL"
sources "credential, file:$PRIVATE/absent, file:$PASSWORD_FILE"
ok "a source that has nothing gives way" service
lose_kek
cp "$WRONG" "$CREDENTIAL"
cp "$RECOVERY" "$CREDENTIALS_DIRECTORY/trustpoint.recovery-key"
sources "credential"
ok "a credential with the recovery key, behind a wrong password" service --timeout 0
rm "$CREDENTIALS_DIRECTORY"/*
lose_kek
sources "file:$WRONG"
fails "with nothing behind it, a wrong password decides the exit code" 77 "no source" service \
    --timeout 0
sources "credential"
fails "with nothing at all, the missing KEK does" 75 "no source" service --timeout 0
sources "no"
fails "restore = no: nobody is asked" 75 "no source" service
ok "and there is no socket" test ! -e "$SOCKET"
sources "file:$WRONG"
ok "--password-file comes before all" service --password-file "$PASSWORD_FILE"
says_not "before the file" "is not that of slot"

# ---- what waits, and what stands behind it ----
lose_kek
sources "ask-password, file:$PASSWORD_FILE"
start_service
wait_for "the question" asked
ok "ask-password, file: the question comes first" state_is restore-pending kek-missing
ok "with the socket" test -S "$SOCKET"
ok "the question is put aside" agent --cancel
ended "then the file has its turn" 0
unlocked "ask-password, file: unlocked"
lose_kek
mkdir "$WORK/bin"
ok "without systemd-ask-password the file has it at once" env PATH="$WORK/bin" \
    "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$SOCKET" --state-file "$STATE"
at_terminal() {
    python3 "$HERE/at_terminal.py" --prompt ") backup password: " "$@" -- "$KEYSTORE_COMMAND" \
        --config "$CONFIG" unlock-service --socket "$SOCKET" --state-file "$STATE"
}
lose_kek
sources "callback, file:$PASSWORD_FILE"
ok "callback, file: asks at the terminal; nothing is entered; the file" at_terminal \
    --answer "$EMPTY"
says "it did ask" "nothing was entered"
unlocked "callback, file: unlocked"
lose_kek
sources "socket, file:$PASSWORD_FILE"
fails "socket, file: the socket never ends, the file has no turn" 75 "no password came in time" \
    service --timeout 5
sources "ask-password, socket"
start_service
wait_for "the question" asked
ok "ask-password, socket: put aside" agent --cancel
wait_for "the question's end" asked 0
ok "the socket goes on" unlock "$RECOVERY"
says "with the recovery key" restored
ended "0" 0
unlocked "recovery key by socket"

# ---- many at once ----
lose_kek
sources
COUNT=50
SERVICES=()
for ((i = 0; i < COUNT; i++)); do
    start "$WORK/log.$i" "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$SOCKET" \
        --state-file "$WORK/state.$i"
    SERVICES+=("$PID")
done
all_wait() {
    [ "$(cat "$WORK"/log.* | grep -c 'another process asks')" = $((COUNT - 1)) ] &&
        [ "$(cat "$WORK"/log.* | grep -c 'waiting for the backup password')" = 1 ] && asked
}
wait_for "49 who wait and one who asks" all_wait && pass "$COUNT services: one asks, the others wait"
same "one question" 1 "$(questions)"
ok "one password" unlock "$PASSWORD_FILE"
CODES=
for SERVICE in "${SERVICES[@]}"; do
    wait_for "the end of $SERVICE" not alive "$SERVICE"
    code=0
    wait "$SERVICE" || code=$?
    unset "STARTED[$SERVICE]"
    CODES+=" $code"
done
same "all $COUNT end with 0" "$(printf ' 0%.0s' $(seq "$COUNT"))" "$CODES"
same "no further question" 1 "$(cat "$WORK"/log.* | grep -c 'waiting for the backup password')"
same "one new KEK" 1 "$(kek_ids | wc -l)"
same "one active HSM slot" 1 "$(tpk slots | grep hsm | grep -c active)"
lose_kek
start_service
wait_for "the question" asked
FIRST=$SERVICE
LOG=$WORK/second.log
start_service
wait_for_line "$LOG" "another process asks"
kill -KILL "$FIRST"
wait_for_line "$LOG" "waiting for the backup password"
pass "who asks is killed: another one takes over"
ok "and is answered" unlock "$PASSWORD_FILE"
ended "0" 0
wait "$FIRST" 2>>"$OUT" || true
unset "STARTED[$FIRST]"

# ---- a KEK that is not ours ----
foreign_kek
FOREIGN=$(kek_ids)
sources "credential, file:$PASSWORD_FILE"
cp "$PASSWORD_FILE" "$CREDENTIAL"
fails "a foreign KEK: what needs no human is not used: 65" 65 "a foreign KEK" service --timeout 0
same "the state file says it" kek-foreign "$(json reason)"
same "and that a human can help" restore-pending "$(json state)"
fails "not in a load either" any "its KEK does not" tpk verify
fails "nginx's view of it" 1 "" openssl pkey -in trustpoint://ec -noout
says "names the KEK" "its KEK does not"
start_service
wait_for_line "$LOG" "waiting for the backup password"
cp "$LOG" "$OUT"
says "the service waits, and says why" "password: HSM token \"web\""
fails "a wrong password" 77 "" unlock "$WRONG"
ok "the right one" unlock "$PASSWORD_FILE"
ended "restored: 0" 0
unlocked "a foreign KEK: the keystore has one of its own again"
ok "the foreign key was not touched" grep -qx "$FOREIGN" <(kek_ids)
rm "$CREDENTIAL"
unset CREDENTIALS_DIRECTORY

# ---- a user other than root ----
lose_kek
sources
chown -R www-data:www-data "$PRIVATE"
install -d -o www-data -g www-data "$WORK/www"
AS_USER=(run_as www-data env PATH="$PATH" SOFTHSM2_CONF="$SOFTHSM2_CONF" OPENSSL_CONF="$OPENSSL_CONF")
STATE=$WORK/www/state.json
start "$WORK/www.log" setpriv --reuid www-data --regid www-data --clear-groups \
    "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$WORK/www/unlock.sock" \
    --state-file "$STATE"
SERVICE=$PID
LOG=$WORK/www.log
wait_for_line "$LOG" "waiting for the backup password"
wait_for "the socket" test -S "$WORK/www/unlock.sock"
chmod 0666 "$WORK/www/unlock.sock"
cp "$HERE/unlock_socket.py" "$WORK"
ok "not root: a third user, let in by a careless mode" run_as nobody python3 \
    "$WORK/unlock_socket.py" "$WORK/www/unlock.sock" long
says "is not heard" "77 only root"
fails "not root: a wrong password from itself" 77 "" "${AS_USER[@]}" "$KEYSTORE_COMMAND" --config \
    "$CONFIG" unlock --socket "$WORK/www/unlock.sock" --password-file "$WRONG"
ok "not root: the right one from itself" "${AS_USER[@]}" "$KEYSTORE_COMMAND" --config "$CONFIG" \
    unlock --socket "$WORK/www/unlock.sock" --password-file "$PASSWORD_FILE"
ended "not root: 0" 0
same "not root: its state file" "www-data 644" "$(stat -c '%U %a' "$STATE")"
ok "not root: the key can be used" "${AS_USER[@]}" openssl pkeyutl -sign -rawin -inkey \
    trustpoint://ec -in "$WORK/ec.pem" -out "$WORK/www/signature"
finish
