#!/bin/bash
# token_programs.sh - programs that use keys in a token: openssl(1), nginx and Apache, whose workers
# run as another user and sign in the token themselves
#
# What they make is checked by plain OpenSSL, and what plain OpenSSL encrypts must be decrypted.
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new_token programs
new_keystore
openssl_cnf
new_ca
cd "$WORK"
cp ca.pem root.pem
echo "what is signed and encrypted" >data

# token_key NAME TYPE OPTIONS...: a key in the token with a certificate of the test's CA and a stub.
token_key() {
    tpk generate "$1" --type "$2" --in-hsm "${@:3}" --subject /CN=localhost --csr "$1.csr" >"$OUT" 2>&1
    ca_sign "$1.csr" "$1.pem" localhost
    tpk set-cert "$1" "$1.pem" >"$OUT" 2>&1
    tpk stub "$1" --out "$1.stub" >"$OUT" 2>&1
    plain openssl x509 -in "$1.pem" -noout -pubkey >"$1.pub"
}
token_key rsa rsa:2048 --allow-decrypt
token_key ec ec:P-256

# ---- openssl ------------------------------------------------------------------------------------

for name in rsa ec; do
    ok "$name: pkey -pubout" openssl pkey -in "trustpoint://$name" -pubout -out out.pub
    ok "$name: it is the public key" cmp out.pub "$name.pub"
    ok "$name: pkey -text_pub" openssl pkey -in "trustpoint://$name" -text_pub -noout
    ok "$name: pkey -text" openssl pkey -in "trustpoint://$name" -text -noout
    says "$name: says where it is" "in a token"
    ok "$name: pkey -check" openssl pkey -in "trustpoint://$name" -check -noout
    ok "$name: pkey writes a stub" openssl pkey -in "trustpoint://$name" -out out.stub
    ok "$name: which is loaded" openssl pkey -in out.stub -pubout -out out.pub
    ok "$name: to the same key" cmp out.pub "$name.pub"
    fails "$name: no PKCS#8" any "never leaves" \
        openssl pkcs8 -topk8 -nocrypt -in "$name.stub" -out out.p8
    fails "$name: no PKCS#12" any "never leaves" \
        openssl pkcs12 -export -inkey "$name.stub" -in "$name.pem" -passout pass:x -out out.p12
    ok "$name: req -x509" openssl req -x509 -new -key "trustpoint://$name" -subj /CN=own -days 2 \
        -addext basicConstraints=critical,CA:TRUE -out "$name-ca.pem"
    ok "$name: verifies" plain openssl verify -CAfile "$name-ca.pem" "$name-ca.pem"
    ok "$name: x509 -CAkey" openssl x509 -req -in rsa.csr -CA "$name-ca.pem" \
        -CAkey "trustpoint://$name" -set_serial 5 -days 1 -out leaf.pem
    ok "$name: its certificate" plain openssl verify -CAfile "$name-ca.pem" leaf.pem
    rm -rf ca && mkdir ca && touch ca/index && echo 01 >ca/serial && echo 01 >ca/crlnumber
    printf '%s\n' '[ca]' 'default_ca = own' '[own]' 'database = ca/index' 'serial = ca/serial' \
        'crlnumber = ca/crlnumber' 'new_certs_dir = ca' 'default_md = sha256' 'policy = any' \
        'default_days = 1' 'default_crl_days = 1' '[any]' 'commonName = supplied' >ca.cnf
    ok "$name: ca" openssl ca -batch -config ca.cnf -cert "$name-ca.pem" \
        -keyfile "trustpoint://$name" -in ec.csr -out ca.pem -notext
    ok "$name: its certificate" plain openssl verify -CAfile "$name-ca.pem" ca.pem
    ok "$name: ca -gencrl" openssl ca -config ca.cnf -cert "$name-ca.pem" -gencrl \
        -keyfile "trustpoint://$name" -out ca.crl
    ok "$name: its list" plain openssl crl -in ca.crl -CAfile "$name-ca.pem" -noout
    ok "$name: cms -sign" openssl cms -sign -in data -signer "$name.pem" \
        -inkey "trustpoint://$name" -out out.cms
    ok "$name: cms -verify" plain openssl cms -verify -in out.cms -CAfile root.pem -purpose any \
        -out /dev/null
done
ok "cms -sign, PSS" openssl cms -sign -in data -signer rsa.pem -inkey trustpoint://rsa \
    -keyopt rsa_padding_mode:pss -out out.cms
ok "verifies" plain openssl cms -verify -in out.cms -CAfile root.pem -purpose any -out /dev/null

# decrypts WHAT OPTIONS...: CMS to the certificate, back with the key in the token.
decrypts() {
    plain openssl cms -encrypt -aes256 -in data -out out.enc -recip rsa.pem "${@:2}"
    ok "cms -decrypt, $1" openssl cms -decrypt -in out.enc -recip rsa.pem -inkey trustpoint://rsa \
        -out out.dec
    ok "to what it was" diff --strip-trailing-cr data out.dec
}
decrypts "PKCS #1"
decrypts OAEP -keyopt rsa_padding_mode:oaep
decrypts "OAEP with SHA-256" -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 \
    -keyopt rsa_mgf1_md:sha384
fails "EC does not agree" any "does not agree" openssl pkeyutl -derive -inkey trustpoint://ec \
    -peerkey ec.pub

# connects PORT OPTIONS...
connects() {
    plain openssl s_client -connect "127.0.0.1:$1" -CAfile root.pem -verify_return_error \
        -verify_hostname localhost "${@:2}" </dev/null
}
PORT=$(free_port)
start server.log openssl s_server -accept "127.0.0.1:$PORT" -cert rsa.pem -key trustpoint://rsa \
    -dcert ec.pem -dkey trustpoint://ec -www -cipher ALL@SECLEVEL=0
wait_for_port "$PORT"
ok "TLS 1.3, RSA-PSS" connects "$PORT" -tls1_3 -sigalgs rsa_pss_rsae_sha256
ok "TLS 1.3, ECDSA" connects "$PORT" -tls1_3 -sigalgs ecdsa_secp256r1_sha256
ok "TLS 1.2, PKCS #1" connects "$PORT" -tls1_2 -sigalgs RSA+SHA512
ok "TLS 1.2, RSA key exchange" connects "$PORT" -tls1_2 -cipher AES256-GCM-SHA384
says "that was it" "AES256-GCM-SHA384"
ok "TLS 1.1" connects "$PORT" -tls1_1 -cipher ECDHE-RSA-AES128-SHA@SECLEVEL=0
stop "$PID"

# ---- nginx and Apache: workers sign -------------------------------------------------------------

# What the workers' user needs: the token, its PIN and the lock folder (see the manual, ROLES).
chgrp -R www-data "$PRIVATE"
chmod -R g+rX "$PRIVATE"
chmod -R g+w "$PRIVATE/tokens" "$PRIVATE/state"

both_sign() {
    ok "$1: RSA" connects "$PORT" -sigalgs rsa_pss_rsae_sha256
    ok "$1: ECDSA" connects "$PORT" -sigalgs ecdsa_secp256r1_sha256
}
# many_handshakes PORT: enough for every worker to get some.
many_handshakes() {
    local i
    for ((i = 0; i < 16; i++)); do
        connects "$1" || return 1
    done
}

N=$WORK/nginx
mkdir "$N"
PORT=$(free_port)
cat >"$N/nginx.conf" <<END
user www-data;
daemon off;
worker_processes 2;
pid $N/pid;
error_log $N/error.log notice;
env SOFTHSM2_CONF;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $N/body;
    proxy_temp_path $N/proxy;
    fastcgi_temp_path $N/fastcgi;
    uwsgi_temp_path $N/uwsgi;
    scgi_temp_path $N/scgi;
    ssl_session_tickets off;
    server {
        listen 127.0.0.1:$PORT ssl;
        ssl_certificate $WORK/rsa.pem;
        ssl_certificate_key $WORK/rsa.stub;
        ssl_certificate $WORK/ec.pem;
        ssl_certificate_key $WORK/ec.stub;
        return 200 "served\n";
    }
}
END
ok "nginx -t" nginx -c "$N/nginx.conf" -t
start "$N/stderr" nginx -c "$N/nginx.conf"
wait_for_port "$PORT"
both_sign nginx
ok "nginx: both workers" many_handshakes "$PORT"
ok "nginx: the workers are not root" wait_for "both" has_children "$PID" www-data 2
ok "nginx: reload" nginx -c "$N/nginx.conf" -s reload
nginx_settled "$PID" "$N/error.log" 2 nginx -c "$N/nginx.conf"
both_sign "nginx after its reload"
stop "$PID" QUIT
ok "nginx left without a crash" not grep -qE 'signal (6|11)|core dumped' "$N/error.log"

A=$WORK/apache
mkdir -p "$A/www"
echo served >"$A/www/index.html"
for mpm in prefork event; do
    PORT=$(free_port)
    cat >"$A/apache.conf" <<END
ServerRoot $A
ServerName localhost
PidFile $A/pid
DefaultRuntimeDir $A
Mutex file:$A default
User www-data
Group www-data
ErrorLog $A/error.log
LoadModule mpm_${mpm}_module /usr/lib/apache2/modules/mod_mpm_$mpm.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
DocumentRoot $A/www
Listen 127.0.0.1:$PORT
StartServers 2
SSLSessionCache none
SSLSessionTickets off
<VirtualHost *:$PORT>
    SSLEngine on
    SSLCertificateFile $WORK/rsa.pem
    SSLCertificateKeyFile $WORK/rsa.stub
    SSLCertificateFile $WORK/ec.pem
    SSLCertificateKeyFile $WORK/ec.stub
</VirtualHost>
END
    start "$A/stderr" apache2 -f "$A/apache.conf" -DFOREGROUND
    wait_for_port "$PORT"
    both_sign "Apache $mpm"
    ok "Apache $mpm: its children" many_handshakes "$PORT"
    stop "$PID"
done
ok "Apache left without a crash" not grep -qE 'exit signal|core dumped' "$A/error.log"
finish
