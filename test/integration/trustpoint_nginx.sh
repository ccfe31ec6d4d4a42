#!/bin/bash
# trustpoint_nginx.sh - doc/trustpoint-nginx.md, its commands word for word: nginx gives up
# Trustpoint's key in the clear and takes the key out of the database, and what happens when
# Trustpoint writes it again, or writes another one
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PAGE=$ROOT/doc/trustpoint-nginx.md
blocks() {
    sed -n '/^```sh$/,/^```$/{/^```/d;p}' "$PAGE"
}
ok "the page has commands" test "$(blocks | grep -c nginx-config)" -ge 4

# What runs the page: a mount namespace of its own, so that its mount ends with it. Where that is
# not possible the page is run without that one line and its counterpart.
if unshare -m true 2>/dev/null; then
    APART=(unshare -m)
    blocks >"$PRIVATE/page"
else
    echo "note  no mount namespace here: the folder in memory is left out"
    APART=()
    blocks | sed '/^mount -t ramfs/d; /^umount /d' >"$PRIVATE/page"
fi

# place NAME: folders of this case; its nginx is configured as Trustpoint's, for HERE/tls.
place() {
    HERE=$WORK/$1
    mkdir "$HERE" "$HERE/tls" "$HERE/bin"
    [ -d "$PRIVATE/$1" ] || mkdir -m 0700 "$PRIVATE/$1"
    mkdir -m 0700 "$PRIVATE/$1/etc" "$PRIVATE/$1/state"
    PORT=$(free_port)
    cat >"$HERE/nginx.conf" <<END
user www-data;
pid $HERE/nginx.pid;
error_log $HERE/error.log notice;
events { }
http {
    access_log off;
    client_body_temp_path $HERE/body;
    proxy_temp_path $HERE/proxy;
    fastcgi_temp_path $HERE/fastcgi;
    uwsgi_temp_path $HERE/uwsgi;
    scgi_temp_path $HERE/scgi;
    server {
        listen 127.0.0.1:$PORT ssl;
        ssl_certificate $HERE/tls/nginx-tls-server-cert.pem;
        ssl_certificate_key $HERE/tls/nginx-tls-server-key.key;
        ssl_trusted_certificate $HERE/tls/nginx-tls-server-cert-chain.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        return 200 "served\n";
    }
}
END
}

# as_trustpoint CONFIG: the files as Trustpoint writes them.
as_trustpoint() {
    "$KEYSTORE_COMMAND" --config "$1" export tls-server --unencrypted --yes-export-private-key \
        --out "$HERE/tls/nginx-tls-server-key.key"
    chmod 0644 "$HERE/tls/nginx-tls-server-key.key"
    "$KEYSTORE_COMMAND" --config "$1" cert tls-server --leaf >"$HERE/tls/nginx-tls-server-cert.pem"
    "$KEYSTORE_COMMAND" --config "$1" cert tls-server | sed '1,/END CERTIFICATE/d' \
        >"$HERE/tls/nginx-tls-server-cert-chain.pem"
}

# What the test does in the same shell before the page takes everything away again: nginx must not
# be kept from starting by a key that Trustpoint's wizard has made for itself.
cat >"$PRIVATE/further" <<'END'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 1 -subj /CN=wizard \
    -keyout "$TLS/wizard.key" -out "$TLS/wizard.pem"
cp "$TLS"/nginx-tls-server-* "$ETC/"
mv "$TLS/wizard.pem" "$TLS/nginx-tls-server-cert.pem"
mv "$TLS/wizard.key" "$TLS/nginx-tls-server-key.key"
nginx -c "$NGINX_CONF" -t && echo "the wizard's key is left to nginx"
grep -q 'PRIVATE KEY-----' "$TLS/nginx-tls-server-key.key"
cp "$ETC"/nginx-tls-server-* "$TLS/"
nginx -c "$NGINX_CONF" -t
END

# run_page STORE TOKEN: the page in this case's folders, with nginx running on the plaintext.
run_page() {
    # The further commands come before the line that ends it all.
    python3 - "$PRIVATE/page" "$PRIVATE/further" "$PRIVATE/script" <<'SCRIPT'
import sys
page, further = (open(name).read() for name in sys.argv[1:3])
at = page.index('rm "$WRAPPERS/nginx"')
open(sys.argv[3], "w").write(page[:at] + further + page[at:] +
                             'kill -QUIT "$(cat "$NGINX_PID")"\n')
SCRIPT
    plain nginx -c "$HERE/nginx.conf"
    wait_for "nginx's PID file" test -s "$HERE/nginx.pid" # it comes after the return to the shell
    "${APART[@]}" env -u OPENSSL_CONF PATH="$STAGE/bin:$PATH" OPENSSL_MODULES="$MODULES" \
        TLS="$HERE/tls" STORE="$1" TOKEN="$2" ETC="$PRIVATE/$3/etc" STATE="$PRIVATE/$3/state" \
        NGINX_CONF="$HERE/nginx.conf" NGINX_PID="$HERE/nginx.pid" WRAPPERS="$HERE/bin" \
        PORT="$PORT" bash -euo pipefail "$PRIVATE/script"
}

ended() {
    [ ! -e "$HERE/nginx.pid" ]
}

# one_case NAME STORE TOKEN CONFIG
one_case() {
    ok "$1: the files as Trustpoint writes them" as_trustpoint "$4"
    # On the disk, whatever the page mounts over it later.
    exec 8<"$HERE/tls/nginx-tls-server-key.key"
    ok "$1: the page, word for word" run_page "$2" "$3" "$1"
    says "$1: it is looked at first" "would write $HERE/tls/nginx-tls-server-key.key"
    says "$1: then written" "wrote $HERE/tls/nginx-tls-server-key.key"
    says "$1: with the advice to replace the key" "replace the key and its certificate"
    says "$1: a key of the wizard is not touched" "holds another private key"
    says "$1: nor is nginx" "the wizard's key is left to nginx"
    wait_for "the end of nginx" ended
    same "$1: the old bytes are overwritten" "" "$(tr -d '\0' <&8)"
    exec 8<&-
    ok "$1: no key is left on the disk" not grep -rl 'PRIVATE KEY-----' "$HERE" "$PRIVATE/$1/etc" \
        "$PRIVATE/$1/state"
    ok "$1: nginx left without a crash" not grep -qE 'signal (6|11)|core dumped' "$HERE/error.log"
}

# ---- a native keystore --------------------------------------------------------------------------

new_token web
new_keystore
keystore_key tls-server -algorithm RSA -pkeyopt rsa_keygen_bits:2048
tpk set-cert tls-server "$WORK/tls-server.pem" "$WORK/ca.pem"
place native
cp "$PRIVATE"/state/* "$PRIVATE/native/state/" 2>/dev/null || true
one_case native "sqlite:$PRIVATE/keystore.db" "$TOKEN_URI" "$CONFIG"

# ---- renewal in Trustpoint's database -----------------------------------------------------------

# new_certificate DATABASE PEM: the active TLS credential gets this certificate, as Trustpoint does
# it: a new row, to which credential, history and chain point from then on.
new_certificate() {
    python3 - "$@" <<'SCRIPT'
import hashlib, sqlite3, ssl, sys
c = sqlite3.connect(sys.argv[1])
c.row_factory = sqlite3.Row
pem = open(sys.argv[2]).read()
credential, = c.execute("SELECT credential_id FROM pki_activetrustpointtlsservercredentialmodel WHERE id = 1").fetchone()
old, = c.execute("SELECT certificate_id FROM pki_credentialmodel WHERE id = ?", (credential,)).fetchone()

def clone(table, where, values, **changes):
    for row in c.execute(f"SELECT * FROM {table} WHERE {where}", values).fetchall():
        new = {k: v for k, v in {**dict(row), **changes}.items() if k != "id"}
        names = ", ".join(f'"{k}"' for k in new)
        cursor = c.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(new))})", list(new.values()))
    return cursor.lastrowid

digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
new = clone("pki_certificatemodel", "id = ?", (old,), cert_pem=pem, sha256_fingerprint=digest,
            serial_number=digest[:16])
clone("pki_certificatechainordermodel", "credential_id = ? AND primary_certificate_id = ?",
      (credential, old), primary_certificate_id=new)
c.execute("UPDATE pki_credentialmodel SET certificate_id = ? WHERE id = ?", (new, credential))
c.commit()
SCRIPT
}

# other_credential DATABASE EXPECTED: another one, with an RSA key, becomes the active one.
other_credential() {
    python3 - "$@" <<'SCRIPT'
import json, sqlite3, sys
c = sqlite3.connect(sys.argv[1])
other = next(e["credential_id"] for e in json.load(open(sys.argv[2]))["credentials"]
             if e["kind"] == "device-rsa2048")
c.execute("UPDATE pki_activetrustpointtlsservercredentialmodel SET credential_id = ?", (other,))
c.commit()
SCRIPT
}

# served: the fingerprint of what nginx proves to have the key of.
fingerprint() {
    plain openssl x509 -noout -fingerprint -sha256
}
serves() {
    [ "$(plain openssl s_client -connect "127.0.0.1:$PORT" </dev/null 2>/dev/null | fingerprint)" = \
        "$(fingerprint <"$1")" ]
}

# renewals NAME CONFIG: a timer's command brings nginx what Trustpoint has renewed.
renewals() {
    local write=("$KEYSTORE_COMMAND" --config "$2" nginx-config 'trustpoint://?role=tls-server'
        --dir "$HERE/tls" --trustpoint-names --replace-key-file)
    local reload=(--hook nginx -c "$HERE/nginx.conf" -s reload)
    rm -f "$HERE/tls"/* "$HERE/error.log"
    openssl_cnf "$PRIVATE/$1/renewal.cnf"
    sed -i "s,^config = .*,config = $2," "$PRIVATE/$1/renewal.cnf"
    ok "$1: the files" "${write[@]}"
    start "$HERE/stderr" nginx -c "$HERE/nginx.conf" -g 'daemon off;'
    wait_for_port "$PORT"
    ok "$1: nginx serves Trustpoint's credential" serves "$HERE/tls/nginx-tls-server-cert.pem"
    "$KEYSTORE_COMMAND" --config "$2" export tls-server --unencrypted --yes-export-private-key \
        --out "$PRIVATE/$1/tls.key" >>"$OUT" 2>&1
    plain openssl req -x509 -key "$PRIVATE/$1/tls.key" -days 9 -subj /CN=renewed -out "$HERE/new.pem" 2>>"$OUT"
    ok "$1: a new certificate in the database" new_certificate "$SAMPLE/db.sqlite3" "$HERE/new.pem"
    ok "$1: is written" "${write[@]}" "${reload[@]}"
    says_not "$1: the stub stays" "wrote $HERE/tls/nginx-tls-server-key.key"
    wait_for "the new certificate" serves "$HERE/new.pem"
    pass "$1: and served"
    ok "$1: another credential with another key" other_credential "$SAMPLE/db.sqlite3" "$SAMPLE/expected.json"
    ok "$1: is written" "${write[@]}" "${reload[@]}"
    says "$1: with a stub for its type" "wrote $HERE/tls/nginx-tls-server-key.key"
    wait_for "the other credential" serves "$HERE/tls/nginx-tls-server-cert.pem"
    pass "$1: and served"
    ok "$1: once more there is nothing to do" "${write[@]}" --dry-run
    stop "$PID" QUIT
    unset OPENSSL_CONF
}

# ---- Trustpoint's databases ---------------------------------------------------------------------

for sample in legacy-0.4 legacy-0.5 current-0.6; do
    trustpoint_sample "$sample"
    place "$sample"
    printf '[keystore]\nstore = sqlite:%s/db.sqlite3\ntoken = %s\nstate = %s/state\n' "$SAMPLE" \
        "$TOKEN_URI" "$SAMPLE" >"$SAMPLE/keystore.cnf"
    BEFORE=$(sha256sum <"$SAMPLE/db.sqlite3")
    one_case "$sample" "sqlite:$SAMPLE/db.sqlite3" "$TOKEN_URI" "$SAMPLE/keystore.cnf"
    same "$sample: the database is only read" "$BEFORE" "$(sha256sum <"$SAMPLE/db.sqlite3")"
    renewals "$sample" "$SAMPLE/keystore.cnf"
done

# ---- in PostgreSQL, as a role that can read those tables only -------------------------------------

# as_owner FILE: SQL of the page, or of the file that it names, by a superuser.
as_owner() {
    psql -XAtq -v ON_ERROR_STOP=1 -v schema=public -h "$PG_DIR" -U postgres -d keystore -f "$1"
}
awk '/^```sql$/ {inside = 1; next} /^```$/ {inside = 0} inside' "$PAGE" >"$PRIVATE/page.sql"

new_postgresql
for sample in legacy-0.5 current-0.6; do
    trustpoint_sample "$sample" "pg-$sample"
    place "pg-$sample"
    {
        sql keystore 'DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION keeper;
            GRANT USAGE ON SCHEMA public TO PUBLIC'
        sql postgres 'DROP ROLE IF EXISTS trustpoint_tls'
        psql -XAtq -v ON_ERROR_STOP=1 -h "$PG_DIR" -U keeper -d keystore -f "$SAMPLE/postgres.sql"
    } >>"$OUT" 2>&1
    ok "$sample: postgresql-roles.sql" as_owner "$ROOT/store/postgresql-roles.sql"
    ok "$sample: the page's SQL" as_owner "$PRIVATE/page.sql"
    store="postgresql:host=$PG_DIR dbname=keystore user=trustpoint_tls"
    printf '[keystore]\nstore = %s\ntoken = %s\nstate = %s/state\n' "$store" "$TOKEN_URI" "$SAMPLE" \
        >"$SAMPLE/keystore.cnf"
    one_case "pg-$sample" "$store" "$TOKEN_URI" "$SAMPLE/keystore.cnf"
    fails "$sample: the role cannot write" any "permission denied" \
        sql keystore "UPDATE pki_credentialmodel SET private_key = ''" trustpoint_tls
    fails "$sample: nor read other tables" any "permission denied" \
        sql keystore "SELECT * FROM management_appversion" trustpoint_tls
done
stop_postgresql
finish
