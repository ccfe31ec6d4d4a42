#!/bin/bash
# nginx.sh - nginx with keys from the keystore: the workers run as another user and reach neither
# token nor keystore, reloads lose no request, and the loss of the KEK stops nobody who is running
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VERSION=$(nginx -v 2>&1 | sed 's,.*nginx/\([0-9.]*\).*,\1,')
N=$WORK/nginx
mkdir "$N"
echo "nginx $VERSION"

new_token web
new_keystore
openssl_cnf
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key ec
keystore_key ed -algorithm ED25519
tpk stub ec --label traditional --out "$WORK/ec-traditional.stub"
PORT=$(free_port)
PORT_ONE=$(free_port)

# configuration RSA EC FURTHER: what to give as keys for the three servers.
configuration() {
    cat <<END
user www-data;
daemon off;
worker_processes 2;
pid $N/nginx.pid;
error_log $N/error.log notice;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $N/body;
    proxy_temp_path $N/proxy;
    fastcgi_temp_path $N/fastcgi;
    uwsgi_temp_path $N/uwsgi;
    scgi_temp_path $N/scgi;
    server {
        listen 127.0.0.1:$PORT ssl;
        ssl_certificate $WORK/rsa.pem;
        ssl_certificate_key $1;
        ssl_certificate $WORK/ec.pem;
        ssl_certificate_key $2;
        return 200 "both\n";
    }
    server {
        listen 127.0.0.1:$PORT_ONE ssl;
        ssl_certificate $WORK/$4.pem;
        ssl_certificate_key $3;
        return 200 "one\n";
    }
}
END
}

# presented PORT SIGALG: the subject of the certificate that the server shows for it.
presented() {
    plain openssl s_client -connect "127.0.0.1:$1" -servername localhost -CAfile "$WORK/ca.pem" \
        -verify_return_error -verify_hostname localhost -sigalgs "$2" </dev/null 2>>"$OUT" |
        sed -n 's/^subject=CN = \|^subject=CN=//p'
}

# all_serve: every kind of key proves itself in a handshake.
all_serve() {
    same "$1: RSA" rsa "$(presented "$PORT" rsa_pss_rsae_sha256)"
    same "$1: ECDSA" ec "$(presented "$PORT" ecdsa_secp256r1_sha256)"
    same "$1: $2" "$3" "$(presented "$PORT_ONE" "$4")"
}

workers() {
    ps -o user=,pid= --ppid "$(cat "$N/nginx.pid")"
}
settled() {
    nginx_settled "$MASTER" "$N/error.log" 2 nginx -c "$N/nginx.conf"
}

configuration "$WORK/rsa.stub" "$WORK/ec.stub" "$WORK/ed.stub" ed >"$N/nginx.conf"
ok "nginx -t loads stubs of RSA, EC and Ed25519 keys" nginx -c "$N/nginx.conf" -t
start "$N/stderr" nginx -c "$N/nginx.conf"
MASTER=$PID
wait_for_port "$PORT_ONE"
wait_for_port "$PORT"
all_serve "handshake" Ed25519 ed ed25519

ok "two workers, not root" wait_for "both" has_children "$MASTER" www-data 2
mapfile -t SECRETS < <(secret_files)
unreadable_for www-data "${SECRETS[@]}"
WORKER=$(workers | awk 'NR == 1 {print $2}')
ok "a worker's environment can be read" test -r "/proc/$WORKER/environ"
tr '\0' '\n' <"/proc/$WORKER/environ" >"$OUT"
says_not "no OPENSSL_CONF in a worker's environment" "OPENSSL_CONF=/"
ok "no token in a worker's open files" not grep -q "$PRIVATE" <(readlink "/proc/$WORKER"/fd/* || :)

COUNT=400
[ "$FULL" = 0 ] || COUNT=4000
ok "$COUNT requests beside reloads, none lost" python3 "$ROOT/test/integration/load.py" \
    --port "$PORT" --ca "$WORK/ca.pem" --text both --count "$COUNT" --every 80 -- \
    nginx -c "$N/nginx.conf" -s reload
says "5 reloads were asked for" "$((COUNT / 80)) commands"
wait_for_line "$N/error.log" reconfiguring
ok "the master reloaded" grep -c reconfiguring "$N/error.log"
settled
all_serve "after the reloads" Ed25519 ed ed25519

# A stub under OpenSSL's own label, as some programs need it.
configuration "$WORK/rsa.stub" "$WORK/ec-traditional.stub" "$WORK/ec.stub" ec >"$N/second.conf"
ok "a stub with the label EC PRIVATE KEY" nginx -c "$N/second.conf" -t

# Other people's keys are none of our business.
configuration "$PRIVATE/rsa.key" "$PRIVATE/ec.key" "$WORK/ec.stub" ec >"$N/mixed.conf"
ok "plain key files beside stubs" nginx -c "$N/mixed.conf" -t

# store: is nginx 1.29 and later.
configuration "store:trustpoint://rsa" "store:trustpoint://ec" "store:trustpoint://ed" ed \
    >"$N/store.conf"
if dpkg --compare-versions "$VERSION" ge 1.29; then
    ok "nginx -t loads store:trustpoint://…" nginx -c "$N/store.conf" -t
    cp "$N/store.conf" "$N/nginx.conf"
    ok "reload with store: URIs" nginx -c "$N/nginx.conf" -s reload
    settled
    all_serve "store:" Ed25519 ed ed25519
else
    fails "nginx $VERSION (before 1.29) takes store: for a file name" 1 "No such file" \
        nginx -c "$N/store.conf" -t
fi

# The HSM loses its token, later only its KEK: who runs goes on, who starts is told what is wrong.
lose_token
fails "token gone: nginx -t fails and names it" 1 token nginx -c "$N/nginx.conf" -t
BEFORE=$(workers)
kill -HUP "$MASTER"
wait_for "the master's answer to the failed reload" \
    bash -c "tail -n 5 '$N/error.log' | grep -q emerg"
all_serve "token gone" Ed25519 ed ed25519
same "token gone: the same workers serve" "$BEFORE" "$(workers)"
token_back
ok "token back: nginx -t is content again" nginx -c "$N/nginx.conf" -t

lose_kek
fails "KEK deleted: nginx -t fails and names it" 1 KEK nginx -c "$N/nginx.conf" -t
all_serve "KEK deleted" Ed25519 ed ed25519
ok "KEK deleted: 50 more requests" python3 "$ROOT/test/integration/load.py" \
    --port "$PORT" --ca "$WORK/ca.pem" --text both --count 50

stop "$MASTER" QUIT
ok "nginx left without a crash" not grep -qE 'signal (6|11)|core dumped' "$N/error.log"
finish
