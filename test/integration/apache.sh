#!/bin/bash
# apache.sh - Apache httpd, prefork and event, with keys from the keystore: the children run as
# another user and reach neither token nor keystore, graceful restarts lose no request, a password
# dialog does no harm, and the loss of the KEK stops nobody who is running
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

A=$WORK/apache
mkdir -p "$A/www"
echo served >"$A/www/index.html"
apache2 -v | sed -n 1p

new_token web
new_keystore
openssl_cnf
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key ec
printf '#!/bin/sh\necho not-the-password\n' >"$A/ask"
chmod 0755 "$A/ask"

# configuration MPM PORT [DIRECTIVE]
configuration() {
    cat <<END
ServerRoot $A
ServerName localhost
PidFile $A/pid
DefaultRuntimeDir $A
Mutex file:$A default
User www-data
Group www-data
ErrorLog $A/error.log
LoadModule mpm_$1_module /usr/lib/apache2/modules/mod_mpm_$1.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
DirectoryIndex index.html
DocumentRoot $A/www
Listen 127.0.0.1:$2
StartServers 2
SSLSessionCache none
SSLSessionTickets off
${3:-}
<VirtualHost *:$2>
    SSLEngine on
    SSLCertificateFile $WORK/rsa.pem
    SSLCertificateKeyFile $WORK/rsa.stub
    SSLCertificateFile $WORK/ec.pem
    SSLCertificateKeyFile $WORK/ec.stub
</VirtualHost>
END
}

handshake() {
    plain openssl s_client -connect "127.0.0.1:$1" -servername localhost -CAfile "$WORK/ca.pem" \
        -verify_return_error -verify_hostname localhost -sigalgs "$2" </dev/null
}
both() {
    ok "$1: RSA" handshake "$PORT" rsa_pss_rsae_sha256
    ok "$1: ECDSA" handshake "$PORT" ecdsa_secp256r1_sha256
}
# reload: one graceful restart, waited for: another one in the middle of it would be the same one,
# and what the test changes next is not to be met by it.
cat >"$A/reload" <<END
#!/bin/bash
count() {
    grep -c 'resuming normal operations' "$A/error.log"
}
before=\$(count)
kill -USR1 "\$1"
for ((i = 0; i < 1200; i++)); do
    [ "\$(count)" = "\$before" ] || exit 0
    sleep 0.05
done
exit 1
END
chmod 0755 "$A/reload"

COUNT=300
[ "$FULL" = 0 ] || COUNT=3000
for mpm in prefork event; do
    PORT=$(free_port)
    rm -f "$A/error.log"
    configuration "$mpm" "$PORT" >"$A/apache.conf"
    start "$A/stderr" apache2 -f "$A/apache.conf" -DFOREGROUND
    MASTER=$PID
    wait_for_port "$PORT"
    wait_for_line "$A/error.log" 'resuming normal operations'
    both "$mpm"
    ok "$mpm: the children are not root" wait_for "them" children "$MASTER" www-data
    mapfile -t SECRETS < <(secret_files)
    unreadable_for www-data "${SECRETS[@]}"
    ok "$mpm: $COUNT requests beside graceful restarts, none lost" \
        python3 "$ROOT/test/integration/load.py" --port "$PORT" --ca "$WORK/ca.pem" \
        --text served --count "$COUNT" --every 100 -- "$A/reload" "$MASTER"
    says "$mpm: $((COUNT / 100)) restarts" "$((COUNT / 100)) commands"
    both "$mpm after graceful restarts"

    # mod_ssl writes a key that it has loaded with its password dialog out as DER and reads that
    # back, so the encoders must be right.
    configuration "$mpm" "$PORT" "SSLPassPhraseDialog exec:$A/ask" >"$A/apache.conf"
    ok "$mpm: a restart with a password dialog" "$A/reload" "$MASTER"
    both "$mpm with a password dialog that nobody needs"

    lose_token
    configuration "$mpm" "$PORT" >"$A/apache.conf"
    sed "s/:$PORT/:$(free_port)/; s,PidFile.*,PidFile $A/second.pid," "$A/apache.conf" \
        >"$A/second.conf"
    sed -i "s,ErrorLog.*,ErrorLog $A/second.log," "$A/second.conf"
    fails "$mpm: token gone: a new server does not start" 1 "" \
        timeout 60 apache2 -f "$A/second.conf" -DFOREGROUND
    cat "$A/second.log" >>"$OUT"
    says "$mpm: token gone: it says so" token
    both "$mpm: token gone, the running server"
    ok "$mpm: token gone: 40 more requests" python3 "$ROOT/test/integration/load.py" \
        --port "$PORT" --ca "$WORK/ca.pem" --text served --count 40
    token_back
    rm -f "$A/second.log"
    stop "$MASTER"
    ok "$mpm: left without a crash" not grep -qE 'Segmentation|Abort|exit signal' "$A/error.log"
done
finish
