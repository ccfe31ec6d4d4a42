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
count_reloads() {
    grep -c 'resuming normal operations' "$A/error.log"
}
reloaded() {
    [ "$(count_reloads)" -ge "$1" ]
}

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
    same "$mpm: the children are not root" www-data \
        "$(ps -o user= --ppid "$MASTER" | sort -u | xargs)"
    mapfile -t SECRETS < <(secret_files)
    unreadable_for www-data "${SECRETS[@]}"
    ok "$mpm: $COUNT requests beside graceful restarts, none lost" \
        python3 "$ROOT/test/integration/load.py" --port "$PORT" --ca "$WORK/ca.pem" \
        --text served --count "$COUNT" --every 100 -- kill -USR1 "$MASTER"
    wait_for "the restarts" reloaded 2
    both "$mpm after graceful restarts"

    # mod_ssl writes a key that it has loaded with its password dialog out as DER and reads that
    # back, so the encoders must be right.
    configuration "$mpm" "$PORT" "SSLPassPhraseDialog exec:$A/ask" >"$A/apache.conf"
    BEFORE=$(count_reloads)
    kill -USR1 "$MASTER"
    wait_for "the restart with a dialog" reloaded $((BEFORE + 1))
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
