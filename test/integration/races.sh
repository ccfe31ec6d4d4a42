#!/bin/bash
# races.sh - many processes unlock the same token at the same time, alone and beside an nginx with
# hundreds of keys that reloads; SoftHSM loses sight of its token in such moments, programs must not
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

STARTS=100
KEYS=${KEYS:-500}
[ "$FULL" = 0 ] || STARTS=2000
export STARTS WORK

new_token web
new_keystore
openssl_cnf
keystore_key web
head -c 4096 /dev/urandom >"$WORK/data"
plain openssl x509 -in "$WORK/web.pem" -noout -pubkey >"$WORK/web.pub"

# sign N: one start of a program that unlocks and signs; its signature must be right.
cat >"$WORK/sign" <<'END'
#!/bin/bash
openssl dgst -sha256 -sign trustpoint://web -out "$WORK/signature.$1" "$WORK/data" &&
    env -u OPENSSL_CONF openssl dgst -sha256 -verify "$WORK/web.pub" \
        -signature "$WORK/signature.$1" "$WORK/data" >/dev/null && echo "signed $1"
END
chmod +x "$WORK/sign"
many_sign() {
    seq "$STARTS" | xargs -P 8 -I '{}' "$WORK/sign" '{}'
}
ok "$STARTS programs, 8 at a time, all unlock" many_sign
same "all of them signed" "$STARTS" "$(grep -c '^signed' "$OUT")"

many_show() {
    seq "$STARTS" | xargs -P 8 -I '{}' "$KEYSTORE_COMMAND" --config "$CONFIG" verify
}
STARTS=24
ok "$STARTS times verify, 8 at a time" many_show

# A reader never sees half a change, and writers wait for each other.
write_many() {
    seq 16 | xargs -P 8 -I '{}' "$KEYSTORE_COMMAND" --config "$CONFIG" \
        generate 'writer{}' --type ec:P-256
}
ok "16 writers, 8 at a time" write_many
same "all their records are there" 16 "$(tpk list | grep -c writer)"

# nginx with KEYS keys. One certificate is enough for the certificate files' sake: nginx checks
# that each belongs to its key, so every key has its own self-signed one.
make_keys() {
    local i
    for ((i = 0; i < KEYS; i++)); do
        "$KEYSTORE_COMMAND" --config "$CONFIG" generate "site$i" --type ec:P-256 \
            --self-signed 30 --subject "/CN=site$i" || return 1
        "$KEYSTORE_COMMAND" --config "$CONFIG" cert "site$i" --leaf --out "$WORK/site$i.pem" ||
            return 1
        "$KEYSTORE_COMMAND" --config "$CONFIG" stub "site$i" --out "$WORK/site$i.stub" || return 1
    done
}
ok "$KEYS keys are made" make_keys

N=$WORK/nginx
mkdir "$N"
PORT=$(free_port)
{
    cat <<END
user www-data;
daemon off;
worker_processes 1;
pid $N/nginx.pid;
error_log $N/error.log notice;
events { worker_connections 256; }
http {
    access_log off;
    server_names_hash_max_size 4096;
    client_body_temp_path $N/body;
    proxy_temp_path $N/proxy;
    fastcgi_temp_path $N/fastcgi;
    uwsgi_temp_path $N/uwsgi;
    scgi_temp_path $N/scgi;
END
    for ((i = 0; i < KEYS; i++)); do
        printf 'server { listen 127.0.0.1:%d ssl; server_name site%d; return 200 "site%d\\n";\n' \
            "$PORT" "$i" "$i"
        printf '  ssl_certificate %s; ssl_certificate_key %s; }\n' "$WORK/site$i.pem" \
            "$WORK/site$i.stub"
    done
    echo "}"
} >"$N/nginx.conf"
start "$N/stderr" nginx -c "$N/nginx.conf"
MASTER=$PID
wait_for_port "$PORT"
pass "nginx started with $KEYS keys"

reloads_done() {
    [ "$(grep -c 'reconfiguring' "$N/error.log")" -ge "$1" ] &&
        [ "$(grep -c 'start worker process ' "$N/error.log")" -gt "$1" ]
}
reload_often() {
    local i
    for i in 1 2 3; do
        kill -HUP "$MASTER"
        wait_for "reload $i" reloads_done "$i" || return 1
    done
}
reload_often >"$WORK/reloads" 2>&1 &
RELOADS=$!
STARTS=100
ok "$STARTS programs beside an nginx that reloads $KEYS keys" many_sign
same "all of them signed" "$STARTS" "$(grep -c '^signed' "$OUT")"
cp "$WORK/reloads" "$OUT"
ok "three reloads" wait "$RELOADS"
cp "$N/error.log" "$OUT"
says_not "no reload failed" "[emerg]"

served() {
    plain openssl s_client -connect "127.0.0.1:$PORT" -servername "$1" </dev/null 2>>"$OUT" |
        plain openssl x509 -noout -subject | grep -E "CN ?= ?$1\$" >/dev/null
}
for i in 0 $((SEED % KEYS)) $((KEYS - 1)); do
    ok "site$i is served with its own key" served "site$i"
done
stop "$MASTER" QUIT
finish
