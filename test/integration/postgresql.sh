#!/bin/bash
# postgresql.sh - a PostgreSQL cluster of its own, whose server key is in the keystore, and psql
# with a client key from the keystore: connections, reload, restart, loss of the token
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PG=$WORK/pg
BIN=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
"$BIN/postgres" --version

new_token db
new_keystore
openssl_cnf
keystore_key server -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key server2
keystore_key client
# PostgreSQL's server never runs as root, not even while it loads its key: it is the one that
# must be able to read token, keystore and PIN.
chown -R postgres:postgres "$PRIVATE"
install -d -o postgres -g postgres -m 0700 "$PG"
install -o postgres -g postgres -m 0600 "$WORK/server.stub" "$PG/server.stub"

AS_POSTGRES=(setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups --reset-env
    env LC_ALL=C TZ=UTC OPENSSL_CONF="$OPENSSL_CONF" SOFTHSM2_CONF="$SOFTHSM2_CONF")

quietly "${AS_POSTGRES[@]}" "$BIN/initdb" -D "$PG/data" --auth=trust --no-sync -U postgres ||
    fail "initdb"
PORT=$(free_port)
cat >>"$PG/data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = '$PG'
fsync = off
ssl = on
ssl_cert_file = '$WORK/server.pem'
ssl_key_file = '$PG/server.stub'
ssl_ca_file = '$WORK/ca.pem'
END
cat >"$PG/data/pg_hba.conf" <<END
local all postgres trust
hostssl all postgres 127.0.0.1/32 trust clientcert=verify-ca
END

# ask [WORD=VALUE...]: one query over TLS with a verified server and a client certificate.
ask() {
    psql -AtX "host=localhost hostaddr=127.0.0.1 port=$PORT user=postgres dbname=postgres \
        sslmode=verify-full sslrootcert=$WORK/ca.pem sslcert=$WORK/client.pem \
        sslkey=${1:-$PRIVATE/client.key} connect_timeout=60" \
        -c "select 'tls ' || ssl || ' ' || version from pg_stat_ssl where pid = pg_backend_pid()"
}
inside() {
    psql -AtX -h "$PG" -p "$PORT" -U postgres -d postgres -c "$1"
}
serial() {
    plain openssl s_client -starttls postgres -connect "127.0.0.1:$PORT" </dev/null 2>>"$OUT" |
        plain openssl x509 -noout -subject
}
shows() {
    serial | grep "CN *= *$1\$" >/dev/null
}

# The client key is root's: plain for now, since psql runs with root's rights and configuration.
chown root:root "$PRIVATE/client.key"
start "$PG/log" "${AS_POSTGRES[@]}" "$BIN/postgres" -D "$PG/data"
SERVER=$PID
wait_for_line "$PG/log" "ready to accept connections"
ok "TLS connection to a server whose key is in the keystore" ask
says "it is TLS" "tls true TLSv1.3"
for ((i = 0; i < 10; i++)); do ask >>"$OUT" 2>&1 || fail "connection $i"; done
pass "10 further backends"

# Reload with another key: PostgreSQL loads it in the postmaster.
install -o postgres -g postgres -m 0600 "$WORK/server2.stub" "$PG/server.stub"
sed -i "s,^ssl_cert_file.*,ssl_cert_file = '$WORK/server2.pem'," "$PG/data/postgresql.conf"
ok "reload" inside "select pg_reload_conf()"
wait_for "the new certificate" shows server2
ok "connection after the reload" ask

# psql with a client key from the keystore, which it must be able to unlock: as postgres.
install -o postgres -g postgres -m 0600 "$WORK/client.stub" "$PG/client.stub"
ok "psql with a client key from the keystore" "${AS_POSTGRES[@]}" psql -AtX \
    "host=localhost hostaddr=127.0.0.1 port=$PORT user=postgres dbname=postgres \
    sslmode=verify-full sslrootcert=$WORK/ca.pem sslcert=$WORK/client.pem \
    sslkey=$PG/client.stub" -c "select 'tls ' || ssl from pg_stat_ssl where pid = pg_backend_pid()"
says "it is TLS" "tls true"

lose_token
chown postgres:postgres "$PRIVATE/tokens"
ok "token gone: reload is answered" inside "select pg_reload_conf()"
wait_for_line "$PG/log" "SSL configuration was not reloaded"
cat "$PG/log" >"$OUT"
says "token gone: the log names it" token
ok "token gone: the server goes on with the key that it has" ask
stop "$SERVER" INT
fails "token gone: a new server does not start" 1 token \
    "${AS_POSTGRES[@]}" timeout 60 "$BIN/postgres" -D "$PG/data"
token_back
start "$PG/log2" "${AS_POSTGRES[@]}" "$BIN/postgres" -D "$PG/data"
SERVER=$PID
wait_for_line "$PG/log2" "ready to accept connections"
ok "token back: the server starts" ask
stop "$SERVER" INT
finish
