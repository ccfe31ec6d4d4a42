#!/bin/bash
# server_config.sh - nginx-config and apache-config: the files that a server reads, their renewal
# while it serves, and what must not be overwritten
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TLS=$WORK/tls
S=$WORK/server
mkdir "$S"

# ---- helpers ----------------------------------------------------------------------------------

# config SERVER NAME OPTION...: what it prints goes to WORK/snippet too.
config() {
    local server=$1
    shift
    tpk "$server-config" "$@" | tee "$WORK/snippet"
}

# counting: a hook that says how often it has been run; add it behind --hook.
cat >"$WORK/count" <<END
#!/bin/sh
echo run >>"$WORK/runs"
END
chmod 0755 "$WORK/count"
runs() {
    if [ -e "$WORK/runs" ]; then wc -l <"$WORK/runs"; else echo 0; fi
}

inode_of() {
    stat -c %i "$1"
}

# renew NAME [KEY]: another certificate for the record, from our CA; with KEY for that new key.
renew() {
    if [ $# = 1 ]; then
        tpk csr "$1" --subject "/CN=$1" >"$PRIVATE/renew.csr"
        ca_sign "$PRIVATE/renew.csr" "$WORK/renewed.pem" "$1"
        tpk set-cert "$1" "$WORK/renewed.pem" "$WORK/ca.pem"
    else
        tpk set-cert "$1" "$WORK/$2.pem" "$WORK/ca.pem" --key "$PRIVATE/$2.key"
    fi
}

# served PORT: the fingerprint of the certificate that the server proves to have the key of.
served() {
    plain openssl s_client -connect "127.0.0.1:$1" -CAfile "$WORK/ca.pem" -verify_return_error \
        </dev/null 2>>"$OUT" | plain openssl x509 -noout -fingerprint -sha256
}
serves() {
    [ "$(served "$1")" = "$(plain openssl x509 -in "$2" -noout -fingerprint -sha256)" ]
}

new_token web
new_keystore
openssl_cnf
keystore_key web
keystore_key next -algorithm RSA -pkeyopt rsa_keygen_bits:2048
plain_key third -algorithm RSA -pkeyopt rsa_keygen_bits:2048
tpk set-cert web "$WORK/web.pem" "$WORK/ca.pem"

# ---- what it prints and writes ------------------------------------------------------------------

ok "nginx-config prints" config nginx web
says "the certificate's line" "ssl_certificate     /etc/trustpoint/tls/web.crt;"
says "the key's line" "ssl_certificate_key /etc/trustpoint/tls/web.crt.key;"
says "which record that is" "# trustpoint://web, EC P-256, certificate until 20"
says "that nothing was written" "nothing was written; --dir"
ok "nginx-config --uri" config nginx web --uri
says "the URI's line" "ssl_certificate_key store:trustpoint://web;"
ok "apache-config prints" config apache web
says "the certificate's line" "SSLCertificateFile    /etc/trustpoint/tls/web.crt"
says "the key's line" "SSLCertificateKeyFile /etc/trustpoint/tls/web.crt.key"
fails "apache-config knows no --uri" 64 "--uri" config apache web --uri
fails "a record that is not there" 66 nobody config nginx nobody
fails "--hook without --dir" 64 "--dir" config nginx web --hook true
fails "--dry-run without --dir" 64 "--dir" config nginx web --dry-run
fails "--hook without a program" 64 "needs a program" config nginx web --dir "$TLS" --hook
fails "a folder that nginx would need quotes for" 64 "choose a folder" config nginx web --dir "$WORK/a b;c"
fails "--dry-run says that there is something to do" 1 "would write $TLS/web.crt.key" \
    config nginx web --dir "$TLS" --dry-run
ok "and makes nothing" test ! -e "$TLS"

(umask 077 && config nginx web --dir "$TLS" >"$OUT" 2>&1)
says "--dir says what it wrote" "wrote $TLS/web.crt.key"
same "certificate with chain" 2 "$(grep -c 'BEGIN CERTIFICATE' "$TLS/web.crt")"
same "the leaf first" "$(cat "$WORK/web.pem")" "$(sed '/END/q' "$TLS/web.crt")"
same "the chain alone" "$(plain openssl x509 -in "$WORK/ca.pem")" "$(cat "$TLS/web.chain.crt")"
ok "the stub leads to the key" openssl pkey -in "$TLS/web.crt.key" -noout
same "modes, whatever the umask" "644 644 644" \
    "$(stat -c %a "$TLS/web.crt" "$TLS/web.chain.crt" "$TLS/web.crt.key" | xargs)"
same "and nothing else" ".web.hook-due web.chain.crt web.crt web.crt.key" "$(find "$TLS" -type f -printf '%f\n' | sort | xargs)"
BEFORE=$(inode_of "$TLS/web.crt")
ok "once more" config nginx web --dir "$TLS"
same "the same is not written again" "$BEFORE" "$(inode_of "$TLS/web.crt")"
says_not "nor said" wrote
ok "--dry-run is content" config nginx web --dir "$TLS" --dry-run
ok "the record by a URI" config nginx \
    "trustpoint://?fingerprint=$(plain openssl x509 -in "$WORK/web.pem" -outform DER | sha256sum | cut -d' ' -f1)"
says "is the same one" "# trustpoint://web,"
fails "a URI of everything" 64 "names no record" config nginx trustpoint://
fails "a URI of a certificate" 64 "type=" config nginx 'trustpoint://web?type=cert'
fails "a URI with another keystore" 64 contradict \
    config nginx 'trustpoint://web?keystore=edge' --keystore other
fails "a URI with an unknown keystore" 78 edge config nginx 'trustpoint://web?keystore=edge'

# ---- names --------------------------------------------------------------------------------------

LONG=$(printf 'ü%.0s' {1..127})
for name in 'ca/Süd CA' '../up' '.hidden' "quote'\";\$x" "${LONG}1" "${LONG}2" 'a=2Fb' 'a/b'; do
    tpk generate "$name" --self-signed 30 --subject /CN=name >>"$OUT" 2>&1
    ok "files of '${name:0:12}'" config nginx "$name" --dir "$WORK/names"
    # The snippet's own words are what nginx opens.
    ok "the certificate is there" test -s "$(sed -n 's/^ssl_certificate  *\(.*\);$/\1/p' "$WORK/snippet")"
    ok "the stub is there" test -s "$(sed -n 's/^ssl_certificate_key  *\(.*\);$/\1/p' "$WORK/snippet")"
    printf 'events {}\nhttp { server { listen 127.0.0.1:1 ssl;\n%s\n} }\npid %s/pid;\n' \
        "$(cat "$WORK/snippet")" "$S" >"$S/names.conf"
    ok "nginx reads them" nginx -e "$S/names.log" -c "$S/names.conf" -t
done
same "every name has files of its own" 24 "$(find "$WORK/names" -type f | wc -l)"
ok "nothing beside the folder" test ! -e "$WORK/up.crt"
same "nothing is hidden but the marks" 8 "$(find "$WORK/names" -name '.*' -type f | wc -l)"

# files_of NAME: what it lets nginx read, together.
files_of() {
    tpk generate "$1" --type rsa:2048 >>"$OUT" 2>&1
    tpk csr "$1" --subject "/CN=$1" >"$PRIVATE/apart.csr"
    ca_sign "$PRIVATE/apart.csr" "$WORK/apart.pem" "$1"
    tpk set-cert "$1" "$WORK/apart.pem" "$WORK/ca.pem"
    config nginx "$1" --dir "$WORK/apart" >>"$OUT" 2>&1
}
for name in w w.chain w.chain.chain w.crt w.crt.key w.chain.crt .chain w=2Echain; do
    files_of "$name"
done
same "names like those of other files have their own, too" 24 \
    "$(find "$WORK/apart" -type f -not -name '.*' | wc -l)"
for name in w w.chain w.chain.chain w.crt w.crt.key w.chain.crt .chain w=2Echain; do
    ok "which nobody else writes: $name" config nginx "$name" --dir "$WORK/apart" --dry-run
done
same "an ordinary name is that of its files" 3 \
    "$(cd "$WORK/apart" && find w.crt w.chain.crt w.crt.key | wc -l)"
ok "the chain is the chain" cmp "$WORK/apart/w.chain.crt" <(plain openssl x509 -in "$WORK/ca.pem")

# ---- what is warned of ----------------------------------------------------------------------------

# dated FROM UNTIL: the record `ending` gets a certificate with these dates, as date(1) reads them.
printf '[ca]\ndefault_ca = c\n[c]\ndatabase = %s\nnew_certs_dir = %s\nrand_serial = yes
default_md = sha256\nunique_subject = no\npolicy = p\n[p]\ncommonName = supplied\n' \
    "$PRIVATE/index" "$PRIVATE" >"$PRIVATE/ca.cnf"
: >"$PRIVATE/index"
dated() {
    plain openssl ca -batch -config "$PRIVATE/ca.cnf" -in "$PRIVATE/web.csr" -cert "$WORK/ca.pem" \
        -keyfile "$PRIVATE/ca.key" -notext -startdate "$(date -d "$1" +%Y%m%d%H%M%SZ)" \
        -enddate "$(date -d "$2" +%Y%m%d%H%M%SZ)" -out "$WORK/dated.pem" >>"$OUT" 2>&1
    tpk set-cert ending "$WORK/dated.pem" >>"$OUT" 2>&1
}
tpk import ending "$PRIVATE/web.key" >>"$OUT" 2>&1
dated '-1 day' '+4 days'
ok "a certificate in the first two thirds of its life" config nginx ending
says_not "is no warning" "warning"
dated '-4 days' '+1 day'
ok "in the last third" config nginx ending
says "is one" "ends soon"
dated '-4 days' '-1 day'
ok "one that has ended" config nginx ending
says "is one" "has expired"
dated '+1 day' '+4 days'
ok "one that has not begun" config nginx ending
says "is one" "not valid before"
tpk generate bare >>"$OUT" 2>&1
fails "a record without certificate" 66 "no certificate" config nginx bare
write_keystore_cnf 'allow = n*'
ok "a name that programs may not load" config nginx web
says "is a warning" "warning: "
write_keystore_cnf

# Where the key is something that a server should know of.
tpk generate in-token --in-hsm --type ec:P-256 >>"$OUT" 2>&1 || fail "generate --in-hsm"
tpk csr in-token --subject /CN=in-token >"$PRIVATE/token.csr" 2>>"$OUT"
ca_sign "$PRIVATE/token.csr" "$WORK/in-token.pem" in-token
tpk set-cert in-token "$WORK/in-token.pem" >>"$OUT" 2>&1
ok "a key that never leaves its token" config nginx in-token --dir "$TLS"
says "is a warning" "need the token, its PIN file"
ok "its stub leads to it" openssl pkey -in "$TLS/in-token.crt.key" -noout
cp "$PRIVATE/web.key" "$TLS/in-token.crt.key"
fails "a key in the clear is never its own" 73 "is in a token" \
    config nginx in-token --dir "$TLS" --replace-key-file
rm "$TLS"/*in-token* "$TLS"/.in-token*

# ---- renewal while servers serve ------------------------------------------------------------------

PORT=$(free_port)
config nginx web --dir "$TLS" >"$S/web.snippet" 2>>"$OUT"
cat >"$S/nginx.conf" <<END
user www-data;
daemon off;
pid $S/nginx.pid;
error_log $S/error.log notice;
events { }
http {
    access_log off;
    client_body_temp_path $S/body;
    proxy_temp_path $S/proxy;
    fastcgi_temp_path $S/fastcgi;
    uwsgi_temp_path $S/uwsgi;
    scgi_temp_path $S/scgi;
    server {
        listen 127.0.0.1:$PORT ssl;
        include $S/web.snippet;
        return 200 "served\n";
    }
}
END
start "$S/stderr" nginx -c "$S/nginx.conf"
MASTER=$PID
wait_for_port "$PORT"
RELOAD=(--hook nginx -c "$S/nginx.conf" -s reload)
ok "nginx serves the first certificate" serves "$PORT" "$WORK/web.pem"

renew web >>"$OUT" 2>&1
ok "nothing happens by itself" serves "$PORT" "$WORK/web.pem"
ok "renewed: nginx-config and reload" config nginx web --dir "$TLS" "${RELOAD[@]}"
says "says what it wrote" "wrote $TLS/web.crt"
says_not "the stub stays as it is" "wrote $TLS/web.crt.key"
wait_for "the renewed certificate" serves "$PORT" "$WORK/renewed.pem"
pass "nginx serves the renewed certificate"
# A worker of before may take one more connection.
nginx_settled "$MASTER" "$S/error.log" 1 nginx -c "$S/nginx.conf"
ok "no mark is left" test ! -e "$TLS/.web.hook-due"
ok "and again, with nothing to do" config nginx web --dir "$TLS" --hook "$WORK/count"
same "which runs no hook" 0 "$(runs)"

# A new key: the certificates and a stub that pins the key follow in one go.
ok "a pinned stub" config nginx web --dir "$TLS" --pin "${RELOAD[@]}"
ok "is served with" serves "$PORT" "$WORK/renewed.pem"
renew web next >>"$OUT" 2>&1
fails "the new key does not fit the old pin" 1 "another key" nginx -c "$S/nginx.conf" -t
ok "the running nginx does not care" serves "$PORT" "$WORK/renewed.pem"
ok "a new key: nginx-config and reload" config nginx web --dir "$TLS" --pin "${RELOAD[@]}"
says "the stub follows" "wrote $TLS/web.crt.key"
wait_for "the new key" serves "$PORT" "$WORK/next.pem"
pass "nginx serves the new key"
ok "and would start with it" nginx -c "$S/nginx.conf" -t

# Newer nginx keeps the key of a file that has not changed, but not with another certificate.
ok "a stub without a pin" config nginx web --dir "$TLS" "${RELOAD[@]}"
renew web third >>"$OUT" 2>&1
ok "a new key without a pin: nginx-config and reload" config nginx web --dir "$TLS" "${RELOAD[@]}"
says_not "the stub stays as it is" "wrote $TLS/web.crt.key"
wait_for "the third key" serves "$PORT" "$WORK/third.pem"
pass "nginx serves the third key"

# A hook is due until it has succeeded once, also when the files were written without one.
renew web >>"$OUT" 2>&1
ok "files without a hook" config nginx web --dir "$TLS" --pin
ok "and the hook later" config nginx web --dir "$TLS" --pin --hook "$WORK/count"
same "is run" 1 "$(runs)"
rm "$WORK/runs"
renew web >>"$OUT" 2>&1
fails "a hook that fails" 75 "run again next time" config nginx web --dir "$TLS" --pin --hook false
ok "is run again" config nginx web --dir "$TLS" --pin --hook "$WORK/count"
ok "and then no more" config nginx web --dir "$TLS" --pin --hook "$WORK/count"
same "once" 1 "$(runs)"
renew web >>"$OUT" 2>&1
# shellcheck disable=SC2016
ok "killed with the files written and the hook not yet done" \
    bash -c '! "$@"' - "$KEYSTORE_COMMAND" --config "$CONFIG" nginx-config web --dir "$TLS" --pin \
    --hook sh -c 'kill -KILL $PPID'
ok "the next run" config nginx web --dir "$TLS" --pin --hook "$WORK/count"
same "runs the hook" 2 "$(runs)"
rm "$TLS/web.crt"
fails "a hook that is not there" 75 "cannot run the hook" \
    config nginx web --dir "$TLS" --pin --hook "$WORK/none"
ok "afterwards" config nginx web --dir "$TLS" --pin --hook nginx -c "$S/nginx.conf" -s reload

# Two at once: each file is whole all the time, and both end well.
renew web >>"$OUT" 2>&1
start "$WORK/one" "$KEYSTORE_COMMAND" --config "$CONFIG" nginx-config web --dir "$TLS" --hook "$WORK/count"
ONE=$PID
start "$WORK/two" "$KEYSTORE_COMMAND" --config "$CONFIG" nginx-config web --dir "$TLS" --hook "$WORK/count"
TWO=$PID
ok "two at once: one" wait "$ONE"
ok "two at once: the other" wait "$TWO"
unset "STARTED[$ONE]" "STARTED[$TWO]"
ok "and nothing is left to do" config nginx web --dir "$TLS" --dry-run
ok "nor lying about" test -z "$(find "$TLS" -name '.*' -type f -o -name '*.new')"

# ---- what cannot be proven is not written -----------------------------------------------------------

config nginx web --dir "$TLS" >"$OUT" 2>&1
BEFORE=$(sha256sum "$TLS"/*)
keystore_save "$PRIVATE/saved"
renew web next >>"$OUT" 2>&1
lose_token
fails "token gone: nothing is replaced" 69 "" config nginx web --dir "$TLS" --hook "$WORK/count"
token_back
same "the files stay" "$BEFORE" "$(sha256sum "$TLS"/*)"
keystore_put_back "$PRIVATE/saved"
keystore_sql "DELETE FROM tpks_certificate WHERE position = 1"
fails "a chain that somebody cut in the database" 65 "" config nginx web --dir "$TLS"
same "the files stay" "$BEFORE" "$(sha256sum "$TLS"/*)"
keystore_put_back "$PRIVATE/saved"
tpk policy ending --allow-agree --accept-new-anchor >>"$OUT" 2>&1

# ---- what is not replaced ---------------------------------------------------------------------------

F=$WORK/foreign
mkdir "$F"
cp "$PRIVATE/next.key" "$F/ending.crt.key"
fails "somebody's key" 73 "private key in the clear" config nginx ending --dir "$F"
fails "another one than the record's" 73 "another private key" \
    config nginx ending --dir "$F" --replace-key-file
ok "it is still there" cmp "$PRIVATE/next.key" "$F/ending.crt.key"
ok "and nothing else was written" test ! -e "$F/ending.crt"
plain openssl pkcs8 -topk8 -in "$PRIVATE/web.key" -out "$F/ending.crt.key" -passout pass:secret
fails "an encrypted key" 73 "without a password" config nginx ending --dir "$F" --replace-key-file
cat "$PRIVATE/web.key" "$WORK/web.pem" >"$F/ending.crt.key"
fails "key and certificate in one file" 73 "something else" \
    config nginx ending --dir "$F" --replace-key-file
echo 'a note' >"$F/ending.crt.key"
fails "any other text" 73 "something else" config nginx ending --dir "$F" --replace-key-file
ln -sf "$PRIVATE/web.key" "$F/ending.crt.key"
fails "a symbolic link" 65 "symbolic link" config nginx ending --dir "$F" --replace-key-file
rm "$F/ending.crt.key"
mkdir "$F/ending.crt.key"
fails "a folder" any "" config nginx ending --dir "$F" --replace-key-file
rmdir "$F/ending.crt.key"
cp "$PRIVATE/web.key" "$F/ending.crt"
fails "a key where the certificate is to be" 73 "something else" config nginx ending --dir "$F"
ok "is still there" cmp "$PRIVATE/web.key" "$F/ending.crt"
for end in '3s/^..../@@@@/' '$d'; do
    (cat "$WORK/web.pem" && sed "$end" "$PRIVATE/web.key") >"$F/ending.crt"
    cp "$F/ending.crt" "$WORK/damaged"
    fails "certificate and a damaged key ($end)" 73 "something else" config nginx ending --dir "$F"
    ok "which stays as it is" cmp "$WORK/damaged" "$F/ending.crt"
done
rm "$F/ending.crt"

cp "$PRIVATE/web.key" "$F/ending.crt.key"
exec 8<"$F/ending.crt.key"
fails "the record's own key in the clear" 73 "--replace-key-file" config nginx ending --dir "$F"
ok "--replace-key-file" config nginx ending --dir "$F" --replace-key-file
says "says what that is worth" "flash storage"
ok "the stub has its place" grep -q "BEGIN TRUSTPOINT KEY URI" "$F/ending.crt.key"
same "the old bytes are overwritten" "" "$(tr -d '\0' <&8)"
exec 8<&-
ok "once more" config nginx ending --dir "$F" --replace-key-file

# ---- Apache -----------------------------------------------------------------------------------------

APORT=$(free_port)
config apache web --dir "$TLS" >"$S/apache.snippet" 2>>"$OUT"
cat >"$S/apache.conf" <<END
ServerRoot $S
ServerName localhost
PidFile $S/apache.pid
DefaultRuntimeDir $S
Mutex file:$S default
User www-data
Group www-data
ErrorLog $S/apache.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
Listen 127.0.0.1:$APORT
<VirtualHost *:$APORT>
    SSLEngine on
    Include $S/apache.snippet
</VirtualHost>
END
start "$S/apache.stderr" apache2 -f "$S/apache.conf" -DFOREGROUND
APACHE=$PID
wait_for_port "$APORT"
wait_for_line "$S/apache.log" 'resuming normal operations'
renew web >>"$OUT" 2>&1
ok "renewed: apache-config and a graceful restart" config apache web --dir "$TLS" \
    --hook apache2 -f "$S/apache.conf" -k graceful
wait_for "the renewed certificate" serves "$APORT" "$WORK/renewed.pem"
pass "Apache serves the renewed certificate"
stop "$APACHE"
stop "$MASTER" QUIT

# ---- units of systemd -------------------------------------------------------------------------------

EXAMPLES=$(dirname "$(find "$STAGE/share/doc" -name trustpoint-nginx.timer)")
mkdir -p "$WORK/units/nginx.service.d"
for unit in trustpoint-nginx.service trustpoint-nginx.timer trustpoint-nginx.path; do
    sed "s,/usr/bin/trustpoint-keystore,$KEYSTORE_COMMAND," "$EXAMPLES/$unit" >"$WORK/units/$unit"
done
sed "s,/usr/bin/trustpoint-keystore,$KEYSTORE_COMMAND," "$EXAMPLES/trustpoint-nginx-start.conf" \
    >"$WORK/units/nginx.service.d/start.conf"
printf '[Service]\nType=forking\nExecStartPre=/bin/false\nExecStart=/usr/sbin/nginx\n' >"$WORK/units/nginx.service"
ok "systemd takes the units" env SYSTEMD_UNIT_PATH="$WORK/units:" systemd-analyze verify --man=no \
    "$WORK/units/trustpoint-nginx.service" "$WORK/units/trustpoint-nginx.timer" \
    "$WORK/units/trustpoint-nginx.path" "$WORK/units/nginx.service"
says_not "without complaints" "$WORK/units"
mkdir "$WORK/bin"
printf '#!/bin/sh\necho "systemctl $*" >>%s/systemctl\n' "$WORK" >"$WORK/bin/systemctl"
chmod 0755 "$WORK/bin/systemctl"
sed -n 's/^ExecStart=//p' "$WORK/units/trustpoint-nginx.service" |
    sed "s,/etc/trustpoint/tls,$WORK/unit-tls," >"$PRIVATE/unit"
ok "what the unit runs" env PATH="$WORK/bin:$PATH" TRUSTPOINT_KEYSTORE_CONF="$CONFIG" sh "$PRIVATE/unit"
same "reloads nginx" "systemctl try-reload-or-restart nginx.service" "$(cat "$WORK/systemctl")"
finish
