#!/bin/bash
# haproxy.sh - HAProxy with a master, chroot and an unprivileged worker: keys from the keystore in
# one file with the certificate and in a file of their own, seamless reloads, loss of the token
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

H=$WORK/haproxy
mkdir -p "$H/empty" "$H/certs"
haproxy -v | sed -n 1p

new_token web
new_keystore
openssl_cnf
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key ec
cat "$WORK/rsa.pem" "$WORK/rsa.stub" >"$H/certs/together.pem"
cp "$WORK/ec.pem" "$H/certs/apart.crt"
cp "$WORK/ec.stub" "$H/certs/apart.crt.key"
PORT=$(free_port)
PORT_EC=$(free_port)

# configuration [LINE]: LINE is one more line of the section global.
configuration() {
    cat <<END
global
    chroot $H/empty
    user www-data
    group www-data
    stats socket $H/admin.sock mode 600 level admin expose-fd listeners
    ${1:-}
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend rsa
    bind 127.0.0.1:$PORT ssl crt $H/certs/together.pem
    http-request return status 200 content-type text/plain string "together"
frontend ec
    bind 127.0.0.1:$PORT_EC ssl crt $H/certs/apart.crt
    http-request return status 200 content-type text/plain string "apart"
END
}

handshake() {
    plain openssl s_client -connect "127.0.0.1:$1" -servername localhost -CAfile "$WORK/ca.pem" \
        -verify_return_error -verify_hostname localhost </dev/null
}
both() {
    ok "$1: stub and certificate in one file" handshake "$PORT"
    ok "$1: stub in a .key file" handshake "$PORT_EC"
}
worker() {
    ps -o pid=,user= --ppid "$MASTER" | awk -v user="$1" '$2 == user {print $1}' | tail -n 1
}
# reload: one reload, waited for, since HAProxy joins signals that arrive during another reload. A
# worker that leaves, of the reload before, says nothing about this one: a new one does.
cat >"$H/reload" <<END
#!/bin/bash
workers() {
    ps -o pid= --ppid "\$1" | sort
}
old=\$(workers "\$1")
kill -USR2 "\$1"
for ((i = 0; i < 1200; i++)); do
    [ -z "\$(comm -13 <(echo "\$old") <(workers "\$1"))" ] || exit 0
    sleep 0.05
done
exit 1
END
chmod +x "$H/reload"

configuration >"$H/haproxy.cfg"
ok "haproxy -c loads the keys" haproxy -c -f "$H/haproxy.cfg"
start "$H/log" haproxy -W -db -f "$H/haproxy.cfg"
MASTER=$PID
wait_for_port "$PORT"
wait_for_port "$PORT_EC"
both "start"
same "the worker is not root" www-data "$(ps -o user= -p "$(worker www-data)" | xargs)"
same "the worker sits in its chroot" "$H/empty" "$(readlink "/proc/$(worker www-data)/root")"
mapfile -t SECRETS < <(secret_files)
unreadable_for www-data "${SECRETS[@]}"

COUNT=300
[ "$FULL" = 0 ] || COUNT=3000
ok "$COUNT requests beside reloads, none lost" python3 "$ROOT/test/integration/load.py" \
    --port "$PORT" --ca "$WORK/ca.pem" --text together --count "$COUNT" --every 100 -- \
    "$H/reload" "$MASTER"
wait_for "the new worker" handshake "$PORT_EC"
both "after the reloads"

# ssl-provider loads the provider by name and without parameters: the file of the default folder
# or the environment says the rest.
configuration "ssl-provider default
    ssl-provider trustpoint" >"$H/provider.cfg"
ok "ssl-provider trustpoint, without openssl.cnf" env -u OPENSSL_CONF \
    OPENSSL_MODULES="$MODULES" TRUSTPOINT_KEYSTORE_CONF="$CONFIG" \
    haproxy -c -f "$H/provider.cfg"

lose_token
# HAProxy does not show OpenSSL's reasons: that is what the directive log and doctor are for.
fails "token gone: haproxy -c fails" 1 "private key" haproxy -c -f "$H/haproxy.cfg"
both "token gone, the running worker"
token_back
lose_kek
fails "KEK deleted: haproxy -c fails" 1 "private key" haproxy -c -f "$H/haproxy.cfg"
both "KEK deleted, the running worker"

stop "$MASTER"
ok "left without a crash" not grep -qiE 'segfault|signal 11|signal 6|code 139|code 134' "$H/log"
finish
