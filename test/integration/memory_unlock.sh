#!/bin/bash
# memory_unlock.sh - what the unlock service, its client and the restore page still have of a
# password at their end, and servers that were given one: no eight bytes of DEK, password or what
# comes from it in memory that is ours or libcrypto's for us
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=test/integration/memory.bash
. "$(dirname "${BASH_SOURCE[0]}")/memory.bash"

HERE=$ROOT/test/integration
SOCKET=$PRIVATE/unlock.sock
LOG=$WORK/service.log
WRONG=$PRIVATE/wrong
ALL=(dek bek wrap-key password recovery-key recovery-bits pin wrong)
(umask 077 && random_text 16 >"$WRONG" && tr -d '\n' <"$WRONG" >"$WRONG.raw")

keystore() {
    rm -rf -- "${PRIVATE:?}/state" "$PRIVATE/keystore.db" "$WORK/ec.stub"
    new_keystore "$@"
    tpk slot add recovery >"$RECOVERY" 2>>"$OUT"
    chmod 0600 "$RECOVERY"
    tr -d '\n' <"$PASSWORD_FILE" >"$PASSWORD_FILE.raw"
    keystore_key ec
    find_needles
    echo "wrong $(hex "$WRONG")" >>"$NEEDLES"
    ID=$(keystore_id)
}
start_service() {
    rm -f "$LOG"
    start "$LOG" "$KEYSTORE_COMMAND" --config "$CONFIG" unlock-service --socket "$SOCKET" \
        --state-file "$WORK/state.json"
    SERVICE=$PID
    wait_for_line "$LOG" "waiting for the backup password"
}
unlock() {
    tpk unlock --socket "$SOCKET" --password-file "$1"
}
ended() {
    wait_for "the end of $1" not alive "$1" || stop "$1"
    unset "STARTED[$1]"
}

ok "the program that knows the secrets builds" build_needles
new_token web
keystore
openssl_cnf

# ---- the service -------------------------------------------------------------------------------

lose_kek
start_service
fails "unlock with a wrong password" 77 "" unlock "$WRONG"
look "unlock-service, after a wrong password" "$SERVICE" "${ALL[@]}"
watch "$SERVICE"
ok "unlock" unlock "$PASSWORD_FILE"
look_at_end "unlock-service, after the right one" "${ALL[@]}"
ended "$SERVICE"
lose_kek
start_service
watch "$SERVICE"
ok "unlock with the recovery key" unlock "$RECOVERY"
look_at_end "unlock-service, after the recovery key" "${ALL[@]}"
ended "$SERVICE"
lose_kek
start_service
watch "$SERVICE"
ok "answered by an agent" python3 "$HERE/password_agent.py" --id "trustpoint:$ID" \
    --password-file "$PASSWORD_FILE"
look_at_end "unlock-service, after ask-password" "${ALL[@]}"
ended "$SERVICE"
lose_kek
start_service
write_keystore_cnf "restore = file:$PASSWORD_FILE"
ok "unlock, watched" watched "$KEYSTORE_COMMAND" --config "$CONFIG" unlock --socket "$SOCKET" \
    --password-file "$PASSWORD_FILE"
search_core "unlock, the client" "${ALL[@]}"
ended "$SERVICE"
lose_kek
ok "unlock-service with file:, watched" watched "$KEYSTORE_COMMAND" --config "$CONFIG" \
    unlock-service --socket "$SOCKET" --state-file "$WORK/state.json"
search_core "unlock-service, file:" "${ALL[@]}"
write_keystore_cnf
lose_kek
ok "restore, watched, at a terminal" python3 "$HERE/at_terminal.py" --prompt "backup password: " \
    --answer "$PASSWORD_FILE" -- gdb -batch "${WHOLE[@]}" -ex 'set startup-with-shell off' \
    -ex 'catch syscall exit_group' -ex run "${AT_THE_END[@]:4}" \
    --args "$KEYSTORE_COMMAND" --config "$CONFIG" restore
says "it is restored" "the token has a new KEK"
search_core "restore, at a terminal" dek bek wrap-key password recovery-key recovery-bits wrong

# ---- the page ----------------------------------------------------------------------------------

plain_key rescue
PORT=$(free_port)
# start_page SCHEME OPTION...
start_page() {
    URL=$1://localhost:$PORT/setup-wizard/auto_restore_password/
    shift
    rm -f "$LOG"
    start "$LOG" "$KEYSTORE_COMMAND" --config "$CONFIG" serve-restore --listen "127.0.0.1:$PORT" \
        "$@"
    PAGE=$PID
    wait_for_line "$LOG" "the restore page is served"
}
# idle_worker: the one process in its sandbox, in WORKER.
idle_worker() {
    local child
    local -a found=()
    for child in $(<"/proc/$PAGE/task/$PAGE/children"); do
        ! grep -q '^NoNewPrivs:.1' "/proc/$child/status" || found+=("$child")
    done
    WORKER=${found[0]:-}
    [ ${#found[@]} = 1 ]
}
visit() {
    plain curl -sS --cacert "$WORK/ca.pem" --max-time 120 "$@"
}
post() {
    visit -b "$WORK/cookies" -H "Origin: ${URL%/setup-wizard*}" --data-urlencode "csrf=$TOKEN" \
        --data-urlencode "password@$1.raw" "$URL"
}
for scheme in http https; do
    lose_kek
    options=()
    [ "$scheme" = http ] || options=(--tls-cert "$WORK/rescue.pem" --tls-key "$PRIVATE/rescue.key")
    start_page "$scheme" "${options[@]}"
    TOKEN=$(visit -c "$WORK/cookies" "$URL" | sed -n 's/.*name="csrf" value="\([0-9a-f]*\)".*/\1/p')
    wait_for "one worker" idle_worker
    watch "$WORKER"
    post "$WRONG" >"$OUT"
    says "$scheme: a wrong password" "That was not right"
    look_at_end "page ($scheme), the process that reads HTTP, wrong" "${ALL[@]}"
    look "page ($scheme), its parent, after a wrong one" "$PAGE" "${ALL[@]}"
    right() {
        wait_for "one worker" idle_worker
        watch "$WORKER"
        post "$PASSWORD_FILE" >"$OUT"
        ! grep -q "not looked at" "$OUT" || { wait_for "gdb" not alive "$GDB"; false; }
    }
    wait_for "the pause" right
    cp "$OUT" "$WORK/answer"
    look_at_end "page ($scheme), the process that reads HTTP, right" "${ALL[@]}"
    cp "$WORK/answer" "$OUT"
    says "$scheme: the right password" "The keystore is unlocked"
    ended "$PAGE"
done
lose_kek
start_page http
TOKEN=$(visit -c "$WORK/cookies" "$URL" | sed -n 's/.*name="csrf" value="\([0-9a-f]*\)".*/\1/p')
watch "$PAGE"
post "$PASSWORD_FILE" >"$OUT"
says "the right password" "The keystore is unlocked"
look_at_end "page, its parent" "${ALL[@]}"
ended "$PAGE"

# ---- servers, without an HSM: nobody but us has the DEK ------------------------------------------

TOKEN_URI=
keystore "restore = file:$PASSWORD_FILE"
FROM_US=(dek bek wrap-key password recovery-key recovery-bits)
lose_dek() {
    rm -f "$PRIVATE"/state/*.dek
}
cat >"$WORK/apache.conf" <<END
ServerRoot $WORK
ServerName localhost
PidFile $WORK/apache.pid
DefaultRuntimeDir $WORK
Mutex file:$WORK default
User www-data
Group www-data
ErrorLog $WORK/apache.log
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
Listen 127.0.0.1:$PORT
StartServers 1
SSLSessionCache none
#DIALOG
<VirtualHost *:$PORT>
    SSLEngine on
    SSLCertificateFile $WORK/ec.pem
    SSLCertificateKeyFile $WORK/ec.stub
</VirtualHost>
END
(umask 077 && printf '#!/bin/sh\ncat %s\n' "$PASSWORD_FILE" >"$PRIVATE/dialog")
chmod 0700 "$PRIVATE/dialog"
sed "s,#DIALOG,SSLPassPhraseDialog exec:$PRIVATE/dialog," "$WORK/apache.conf" >"$WORK/dialog.conf"
# apache NAME CONFIGURATION NEEDLE...: master and child, after a handshake.
apache() {
    local name=$1 configuration=$2
    shift 2
    lose_dek
    rm -f "$WORK/apache.log"
    start "$WORK/apache.out" apache2 -f "$configuration" -DFOREGROUND
    SERVER=$PID
    wait_for_port "$PORT"
    wait_for_line "$WORK/apache.log" "resuming normal operations"
    ok "$name: a handshake" plain openssl s_client -connect "127.0.0.1:$PORT" -CAfile "$WORK/ca.pem" \
        -verify_return_error -verify_hostname localhost
    look "$name, child" "$(pgrep -P "$SERVER" | head -n 1)" "$@"
    look "$name, master" "$SERVER" "$@"
    stop "$SERVER"
}
apache "Apache, restored from file:" "$WORK/apache.conf" "${FROM_US[@]}"
write_keystore_cnf
# Apache keeps the password that its dialog was given: that copy is its own.
apache "Apache, restored with its dialog" "$WORK/dialog.conf" dek bek wrap-key recovery-key \
    recovery-bits

cat >"$WORK/server.py" <<'END'
import ssl, sys, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
def password():
    with open(sys.argv[3], "rb") as file:
        return file.read().rstrip(b"\n")
context.load_cert_chain(sys.argv[1], sys.argv[2], password if len(sys.argv) > 3 else None)
print("ready", flush=True)
time.sleep(600)
END
# python_server NAME NEEDLE... -- [PASSWORD-FILE]
python_server() {
    local name=$1 needles=()
    shift
    while [ "$1" != -- ]; do
        needles+=("$1")
        shift
    done
    shift
    lose_dek
    rm -f "$WORK/python.log"
    start "$WORK/python.log" python3 "$WORK/server.py" "$WORK/ec.pem" "$WORK/ec.stub" "$@"
    SERVER=$PID
    wait_for_line "$WORK/python.log" ready
    look "$name" "$SERVER" "${needles[@]}"
    stop "$SERVER"
}
write_keystore_cnf "restore = file:$PASSWORD_FILE"
python_server "Python, restored from file:" "${FROM_US[@]}" --
write_keystore_cnf
# The bytes that the callback returned are Python's.
python_server "Python, restored with its callback" dek bek wrap-key recovery-key recovery-bits -- \
    "$PASSWORD_FILE"

BIN=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
PG=$WORK/pg
install -d -o postgres -g postgres -m 0700 "$PG"
AS_POSTGRES=(setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups --reset-env
    env LC_ALL=C TZ=UTC OPENSSL_CONF="$OPENSSL_CONF")
quietly "${AS_POSTGRES[@]}" "$BIN/initdb" -D "$PG/data" --auth=trust --no-sync -U postgres ||
    fail "initdb"
cat >>"$PG/data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = '$PG'
fsync = off
shared_buffers = 1MB
ssl = on
ssl_cert_file = '$WORK/ec.pem'
ssl_key_file = '$PG/ec.stub'
END
install -o postgres -g postgres -m 0600 "$WORK/ec.stub" "$PG/ec.stub"
# postgresql NAME NEEDLE...: postmaster and the backend of a connection.
postgresql() {
    local name=$1
    shift
    lose_dek
    chown -R postgres:postgres "$PRIVATE"
    rm -f "$WORK/pg.log"
    start "$WORK/pg.log" "${AS_POSTGRES[@]}" "$BIN/postgres" -D "$PG/data"
    SERVER=$PID
    wait_for_line "$WORK/pg.log" "ready to accept connections"
    start "$WORK/psql.log" env -u OPENSSL_CONF psql -AtX "host=localhost hostaddr=127.0.0.1 port=$PORT user=postgres \
        dbname=postgres sslmode=verify-full sslrootcert=$WORK/ca.pem" -c "select pg_sleep(600)"
    CLIENT=$PID
    wait_for "the backend" pgrep -P "$SERVER" -f "127.0.0.1.* SELECT"
    look "$name, backend" "$(pgrep -P "$SERVER" -f "127.0.0.1.* SELECT")" "$@"
    look "$name, postmaster" "$SERVER" "$@"
    stop "$CLIENT"
    stop "$SERVER" INT
    chown -R root:root "$PRIVATE"
}
write_keystore_cnf "restore = file:$PASSWORD_FILE"
postgresql "PostgreSQL, restored from file:" "${FROM_US[@]}"
write_keystore_cnf
echo "ssl_passphrase_command = 'cat $PASSWORD_FILE'" >>"$PG/data/postgresql.conf"
# What the command said is PostgreSQL's to wipe.
postgresql "PostgreSQL, restored with its command" dek bek wrap-key recovery-key recovery-bits
show_table
finish
