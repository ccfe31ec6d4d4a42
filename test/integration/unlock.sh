#!/bin/bash
# unlock.sh - a lost KEK at system start: every source of the unlock service, its socket, its state
# file and exit codes, and a web server that starts behind it
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SOCKET=$PRIVATE/unlock.sock
STATE=$WORK/state.json
LOG=$WORK/service.log

service() {
    tpk unlock-service --socket "$SOCKET" --state-file "$STATE" "$@"
}
# json FIELD: a field of the state file.
json() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$STATE" "$1"
}
# sources LIST: the directive `restore` of the configuration.
sources() {
    write_keystore_cnf "restore = $1"
}
start_service() {
    rm -f "$STATE" "$LOG"
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
# A time-out after which the service must have looked at the HSM: SHORT, on a busy machine, too.
SHORT=(--timeout 5)
waiting() {
    wait_for "the service's socket" test -S "$SOCKET"
    wait_for_line "$LOG" "waiting for the backup password"
}
unlock() {
    tpk unlock --socket "$SOCKET" --password-file "$1"
}
unlocked() {
    ok "$1" tpk show ec
    ok "$1: the key can be used" openssl pkeyutl -sign -rawin -inkey "trustpoint://ec" \
        -in "$WORK/ec.pem" -out "$WORK/signature"
}

new_token web
new_keystore
openssl_cnf
keystore_key ec
ID=$(keystore_id)
WRONG=$PRIVATE/wrong
(umask 077 && echo "not the password" >"$WRONG")

# ---- nothing to do ----
ok "nothing lost: the service ends at once" service
says "and says so" "can be unlocked"
same "state file: unlocked" unlocked "$(json state)"
same "state file: mode 0644" 644 "$(stat -c %a "$STATE")"
same "state file: version 1" 1 "$(json v)"
fails "unlock without a service" 69 "no service waits" unlock "$PASSWORD_FILE"

# ---- unattended sources ----
lose_kek
fails "KEK gone, nobody to ask: exit code 75" 75 "trustpoint-keystore restore" service --timeout 0
same "state file: restore-pending" restore-pending "$(json state)"
same "state file: why" kek-missing "$(json reason)"
sources "credential, file:$PRIVATE/absent"
fails "sources without anything: 75" 75 "no source" service --timeout 0
sources "file:$PASSWORD_FILE"
ok "file:PATH restores" service
unlocked "file:"
lose_kek
mkdir -m 0700 "$PRIVATE/credentials"
cp "$PASSWORD_FILE" "$PRIVATE/credentials/trustpoint.backup-password"
sources "credential"
ok "a credential of systemd restores" env CREDENTIALS_DIRECTORY="$PRIVATE/credentials" \
    "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$SOCKET" --state-file "$STATE"
unlocked "credential"
lose_kek
sources "file:$WRONG"
fails "a wrong password in the file: 77" 77 "" service --timeout 0
chmod 0644 "$PASSWORD_FILE"
sources "file:$PASSWORD_FILE"
fails "a password file that others can read: 77" 77 "$PASSWORD_FILE" service \
    --timeout 0
chmod 0600 "$PASSWORD_FILE"
sources "no"
fails "restore = no: 75" 75 "" service
ok "--password-file" service --password-file "$PASSWORD_FILE"
unlocked "--password-file"

# ---- the socket ----
lose_kek
sources "credential, socket"
fails "--timeout: 75 when nobody comes" 75 "no password came in time" service "${SHORT[@]}"
ok "the socket is gone with the service" test ! -e "$SOCKET"
fails "--timeout 0 waits for nobody" 75 "" service --timeout 0
NOTIFY=$WORK/notify
start "$NOTIFY.log" python3 -c '
import socket, sys
one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
one.bind(sys.argv[1])
while True:
    print(one.recv(4096).decode(), flush=True)' "$NOTIFY"
wait_for "the notify socket" test -S "$NOTIFY"
export NOTIFY_SOCKET=$NOTIFY
start_service
unset NOTIFY_SOCKET
waiting
wait_for_line "$NOTIFY.log" "STATUS=waiting for the backup password"
ok "systemd is told what it waits for" grep -q EXTEND_TIMEOUT_USEC= "$NOTIFY.log"
same "socket: mode 0600" 600 "$(stat -c %a "$SOCKET")"
same "state file: waiting" restore-pending "$(json state)"
ok "state file: the command to type" grep -qF "trustpoint-keystore unlock" "$STATE"
fails "a second service does not take the socket away" 75 "another process asks" service \
    "${SHORT[@]}"
fails "unlock with a wrong password: 77" 77 "" unlock "$WRONG"
ok "the service still waits" alive "$SERVICE"
ok "a message that is too long is refused" \
    python3 "$ROOT/test/integration/unlock_socket.py" "$SOCKET" long
says "with a reason" "65 "
ok "no message is refused" python3 "$ROOT/test/integration/unlock_socket.py" "$SOCKET" empty
says "with a reason" "65 "
ok "a fifth connection at a time is refused" \
    python3 "$ROOT/test/integration/unlock_socket.py" "$SOCKET" hold 4
says "with a reason" "77 "
chmod 0666 "$SOCKET"
chmod 0711 "$PRIVATE"
cp "$ROOT/test/integration/unlock_socket.py" "$WORK"
ok "another user, let in by a careless mode" run_as nobody python3 "$WORK/unlock_socket.py" \
    "$SOCKET" long
says "is not heard" "77 only root"
chmod 0700 "$PRIVATE"
chmod 0600 "$SOCKET"
ok "unlock with the right password" unlock "$PASSWORD_FILE"
says "says what happened" "restored"
ended "the service ends with 0" 0
wait_for_line "$NOTIFY.log" "READY=1"
ok "systemd is told that it is done" grep -qF "READY=1" "$NOTIFY.log"
same "state file: unlocked again" unlocked "$(json state)"
unlocked "socket"
for file in "$LOG" "$STATE" "$NOTIFY.log"; do
    ok "no password in ${file##*/}" not grep -qF "$(cat "$PASSWORD_FILE")" "$file"
done

# A wrong credential does not keep the human out.
lose_kek
sources "file:$WRONG, socket"
start_service
waiting
ok "a wrong file, then a human" unlock "$PASSWORD_FILE"
ended "ends with 0" 0

# Somebody else restores: the service notices.
lose_kek
sources "socket"
start_service
waiting
ok "restored by other means" service --password-file "$PASSWORD_FILE" --timeout 0
ended "the waiting service sees the KEK and ends" 0
unlocked "other means"

# Killed while waiting: the next one takes its place.
lose_kek
start_service
waiting
kill -KILL "$SERVICE"
ended "a killed service" 137
ok "leaves its socket" test -S "$SOCKET"
no_question() {
    ! grep -qs "Id=trustpoint:$ID" /run/systemd/ask-password/ask.*
}
ok "but no question" wait_for "the question's end" no_question
start_service
waiting
ok "the next service takes the place over" unlock "$PASSWORD_FILE"
ended "and ends with 0" 0
lose_kek
start_service
waiting
kill -TERM "$SERVICE"
ended "ended by a signal: 75" 75
ok "and takes its socket away" test ! -e "$SOCKET"

# ---- systemd-ask-password ----
sources "ask-password"
agent() {
    python3 "$ROOT/test/integration/password_agent.py" --id "trustpoint:$ID" --password-file "$1"
}
start_service
ok "a password agent answers wrongly" agent "$WRONG"
says "the question names the keystore" "(${ID:0:8}) backup password"
ok "it is asked again" agent "$PASSWORD_FILE"
ended "the service ends with 0" 0
unlocked "ask-password"
lose_kek
start_service
wait_for "the question" bash -c "grep -qs 'Id=trustpoint:$ID' /run/systemd/ask-password/ask.*"
ok "restored while it asks" service --password-file "$PASSWORD_FILE" --timeout 0
ended "the service ends" 0
ok "the question is gone" not grep -qs "Id=trustpoint:$ID" /run/systemd/ask-password/ask.*
lose_kek
mkdir "$WORK/empty"
fails "without systemd-ask-password the socket is left" 75 "no password came in time" env \
    PATH="$WORK/empty" "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$SOCKET" \
    --state-file "$STATE" "${SHORT[@]}"

# ---- a terminal (the callback of this program) ----
sources "callback"
at_terminal() {
    python3 "$ROOT/test/integration/at_terminal.py" --prompt ") backup password: " "$@" -- \
        "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$SOCKET" \
        --state-file "$STATE"
}
ok "asks at the terminal, again after a wrong answer" at_terminal --answer "$WRONG" \
    --answer "$PASSWORD_FILE"
says_not "and shows no answer" "$(cat "$PASSWORD_FILE")"
says "the terminal is in order afterwards" "typing is shown: yes"
unlocked "terminal"
lose_kek
sources "callback"
RESTORE="'$KEYSTORE_COMMAND' --config '$CONFIG' unlock-service --timeout 0 \
    --state-file '$STATE.other' --password-file '$PASSWORD_FILE' >/dev/null 2>&1"
ok "restored by other means while it asks there" at_terminal --then "$RESTORE"
says "the terminal is in order then, too" "typing is shown: yes"
lose_kek
cat >"$WORK/stop_asker" <<'END'
kill -STOP "$(pgrep -o -P "$(pgrep -P "$1" -x trustpoint-keys)")"
END
ok "restored while what asks there is stopped" timeout 60 python3 \
    "$ROOT/test/integration/at_terminal.py" --prompt ") backup password: " \
    --then "sh '$WORK/stop_asker' \$PPID; $RESTORE" -- "$KEYSTORE_COMMAND" \
    --config "$CONFIG" unlock-service --socket "$SOCKET" --state-file "$STATE"
lose_kek

# ---- the HSM and the database ----
build_hanging_module() {
    "${CC:-cc}" -shared -fPIC -o "$WORK/hanging.so" "$ROOT/test/integration/hanging_module.c"
}
ok "a module that hangs" build_hanging_module
GOOD_URI=$TOKEN_URI
TOKEN_URI="pkcs11:token=web?module-path=$WORK/hanging.so&pin-source=file:$PIN_FILE"
sources "socket"
fails "a hanging HSM is given up: 69" 69 "within 1 s" service --hsm-timeout 1 --timeout 0
same "state file: hsm-unavailable" hsm-unavailable "$(json state)"
fails "it is waited for no longer than --timeout" 69 "has not answered yet" service \
    --hsm-timeout 60 --timeout 1
TOKEN_URI=$GOOD_URI
sources "socket"
lose_token
fails "no token: 69" 69 "" service "${SHORT[@]}"
same "state file: token-missing" token-missing "$(json state)"
token_back
cp "$PIN_FILE" "$PRIVATE/pin.kept"
echo 00000000 >"$PIN_FILE"
fails "a refused PIN: 77, and no second try" 77 "PIN" service
cp "$PRIVATE/pin.kept" "$PIN_FILE"
keystore_save "$PRIVATE/kept"
keystore_drop
fails "no keystore yet: 78" 78 "" service
if [ "$ENGINE" = sqlite ]; then
    printf 'garbage %0300d' 0 >"$DATABASE"
    fails "not a keystore: 65" 65 "" service
fi
keystore_put_back "$PRIVATE/kept"
echo 'nonsense = 1' >>"$CONFIG"
fails "a wrong configuration: 78" 78 "nonsense" service
sources "socket"

# ---- a container: nginx behind trustpoint-entrypoint ----
N=$WORK/nginx
PORT=$(free_port)
mkdir "$N"
cat >"$N/nginx.conf" <<END
user www-data;
pid $N/nginx.pid;
error_log $N/error.log notice;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $N/body;
    proxy_temp_path $N/proxy;
    fastcgi_temp_path $N/fastcgi;
    uwsgi_temp_path $N/uwsgi;
    scgi_temp_path $N/scgi;
    server {
        listen 127.0.0.1:$PORT ssl;
        ssl_certificate $WORK/ec.pem;
        ssl_certificate_key $WORK/ec.stub;
        return 200 "served\n";
    }
}
END
ENTRY=$STAGE/bin/trustpoint-entrypoint
fails "entrypoint without a command" 64 usage "$ENTRY" --wait=5
fails "entrypoint: nobody unlocks, 75, the command is not started" 75 "" env \
    TRUSTPOINT_KEYSTORE_CONF="$CONFIG" "$ENTRY" --wait=5 --socket "$SOCKET" \
    --state-file "$STATE" -- touch "$WORK/started"
ok "it was not" test ! -e "$WORK/started"
fails "nginx alone does not start" 1 KEK nginx -c "$N/nginx.conf" -t
export TRUSTPOINT_KEYSTORE_CONF=$CONFIG
rm -f "$LOG"
start "$LOG" "$ENTRY" --socket "$SOCKET" --wait=600 --state-file "$STATE" -- \
    nginx -c "$N/nginx.conf" -g 'daemon off;'
unset TRUSTPOINT_KEYSTORE_CONF
NGINX=$PID
waiting
ok "unlock" unlock "$PASSWORD_FILE"
wait_for_port "$PORT"
ok "nginx serves" plain curl -fsS --cacert "$WORK/ca.pem" "https://localhost:$PORT/"
says "the page" served
same "the entrypoint has become nginx" "$NGINX" "$(cat "$N/nginx.pid")"
stop "$NGINX" QUIT
lose_kek
export TRUSTPOINT_KEYSTORE_CONF=$CONFIG
rm -f "$LOG"
start "$LOG" "$ENTRY" --socket "$SOCKET" --state-file "$STATE" -- touch "$WORK/started"
unset TRUSTPOINT_KEYSTORE_CONF
SERVICE=$PID
waiting
kill -TERM "$SERVICE"
ended "a container that is stopped while it waits ends with 75" 75

# ---- systemd ----
ok "systemd takes the unit" systemd-analyze verify --man=no \
    "$STAGE/lib/systemd/system/trustpoint-unlock.service"
finish
