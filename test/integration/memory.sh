#!/bin/bash
# memory.sh - what a core of a program that has loaded a key shows of the keystore's secrets: no
# eight bytes of DEK, password or what comes from it in memory that is ours or libcrypto's for us
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck source=test/integration/memory.bash
. "$(dirname "${BASH_SOURCE[0]}")/memory.bash"

FROM_US=(dek bek wrap-key password recovery-key recovery-bits)

PORT=$(free_port)
# server NAME [OPTION...]: openssl s_server with the key of the keystore, ready.
server() {
    rm -f "$WORK/s_server"
    start "$WORK/s_server" openssl s_server -accept "127.0.0.1:$PORT" -cert "$WORK/ec.pem" \
        -key trustpoint://ec "$@"
    wait_for_line "$WORK/s_server" ACCEPT
}

cat >"$WORK/nginx.conf" <<END
user www-data;
daemon off;
pid $WORK/nginx.pid;
error_log $WORK/nginx.log;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $WORK/body;
    proxy_temp_path $WORK/proxy;
    fastcgi_temp_path $WORK/fastcgi;
    uwsgi_temp_path $WORK/uwsgi;
    scgi_temp_path $WORK/scgi;
    #PASSWORD
    server {
        listen 127.0.0.1:$PORT ssl;
        ssl_certificate $WORK/ec.pem;
        ssl_certificate_key $WORK/ec.stub;
        return 200 "served\n";
    }
}
END
sed "s,#PASSWORD,ssl_password_file $PASSWORD_FILE;," "$WORK/nginx.conf" >"$WORK/password.conf"
# look_at_nginx NAME CONFIGURATION NEEDLE...: master and worker, after a handshake.
look_at_nginx() {
    local name=$1 configuration=$2
    shift 2
    start "$WORK/nginx.out" nginx -c "$configuration"
    wait_for_port "$PORT"
    ok "$name: serves" plain curl -fsS --noproxy '*' --cacert "$WORK/ca.pem" "https://localhost:$PORT/"
    look "$name, worker" "$(pgrep -P "$PID" | head -n 1)" "$@"
    look "$name, master" "$PID" "$@"
    stop "$PID" QUIT
}

ok "the program that knows the secrets builds" build_needles

# ---- without an HSM: nobody but us has the DEK ------------------------------------------------------

new_keystore
openssl_cnf
tpk slot add recovery >"$RECOVERY" 2>>"$OUT"
chmod 0600 "$RECOVERY"
keystore_key ec
find_needles

# The search finds what is there: a program that has the password, and says so.
start "$WORK/holder" python3 -c '
import sys, time
secret = open(sys.argv[1], "rb").read()
print("ready", flush=True)
time.sleep(600)' "$PASSWORD_FILE"
wait_for_line "$WORK/holder" ready
look "a program that holds the password" "$PID"
fails "the search finds it" 1 "" grep -q '^password 0 ' "$PRIVATE/found"
stop "$PID"

server
look "software, openssl s_server" "$PID" "${FROM_US[@]}"
stop "$PID"
look_at_nginx "software, nginx" "$WORK/nginx.conf" "${FROM_US[@]}"
lose_dek() {
    rm "$PRIVATE"/state/*.dek
}
write_keystore_cnf "restore = file:$PASSWORD_FILE"
lose_dek
server
look "software, restored from file:, openssl s_server" "$PID" "${FROM_US[@]}"
stop "$PID"
lose_dek
look_at_nginx "software, restored from file:, nginx" "$WORK/nginx.conf" "${FROM_US[@]}"
write_keystore_cnf "restore = file:$RECOVERY"
lose_dek
server
look "software, restored with the recovery key, openssl s_server" "$PID" "${FROM_US[@]}"
stop "$PID"
# Asked by the program: the answer is in its own memory, too.
write_keystore_cnf
lose_dek
server -pass "file:$PASSWORD_FILE"
look "software, restored with -pass, openssl s_server" "$PID" dek bek wrap-key
stop "$PID"
lose_dek
# nginx wipes what it has read.
look_at_nginx "software, restored with ssl_password_file, nginx" "$WORK/password.conf" \
    "${FROM_US[@]}"

# ---- with an HSM: the module is in the process ----------------------------------------------------------

rm -rf -- "${PRIVATE:?}/state" "$PRIVATE/keystore.db" "$WORK/ec.stub"
new_token web
new_keystore
tpk slot add recovery >"$RECOVERY" 2>>"$OUT"
keystore_key ec
find_needles
OURS=(bek wrap-key password recovery-key recovery-bits)
for dek in hsm process; do
    write_keystore_cnf "dek = $dek"
    server
    look "dek = $dek, openssl s_server" "$PID" "${OURS[@]}"
    stop "$PID"
done
write_keystore_cnf
look_at_nginx "HSM, nginx" "$WORK/nginx.conf" "${OURS[@]}"
write_keystore_cnf "restore = file:$PASSWORD_FILE"
lose_kek
server
look "HSM, restored from file:, openssl s_server" "$PID" "${OURS[@]}"
stop "$PID"
write_keystore_cnf
lose_kek
look_at_nginx "HSM, restored with ssl_password_file, nginx" "$WORK/password.conf" \
    "${OURS[@]}"

# A DEK that is kept on purpose is seen: locked memory that core dumps leave out is searched, too.
write_keystore_cnf "dek = process" "hsm-session = process"
server
look "kept: hsm-session = process, openssl s_server" "$PID" "${OURS[@]}"
fails "a DEK that is kept is found" 1 "" grep -q '^dek 0 ' "$PRIVATE/found"
stop "$PID"

show_table
finish
