#!/bin/bash
# nss.sh - the whole chain on another token than SoftHSM: NSS softokn, which p11-kit must be told
# about with a module file (x-init-reserved), found by module-name
#
# p11-kit ignores a user's own configuration when the user is root, and this test must not change
# the machine's: so everything here runs as www-data.
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

USER_HOME=$PRIVATE/home
SOFTOKN=$(dpkg -L libnss3 | grep '/libsoftokn3.so$' | sed -n 1p)
echo "NSS $(dpkg-query -W -f='${Version}' libnss3): $SOFTOKN"
mkdir -p "$USER_HOME/.config/pkcs11/modules" "$PRIVATE/nssdb" "$PRIVATE/state"
cat >"$USER_HOME/.config/pkcs11/modules/nss.module" <<END
module: $SOFTOKN
x-init-reserved: configdir='sql:$PRIVATE/nssdb' certPrefix='' keyPrefix='' secmod='secmod.db' flags=
END
PIN_FILE=$PRIVATE/nss.pin
(umask 077 && random_text 12 >"$PIN_FILE" && random_text 16 >"$PASSWORD_FILE")
ok "an NSS database is made" certutil -N -d "sql:$PRIVATE/nssdb" -f "$PIN_FILE"
TOKEN_URI="pkcs11:token=NSS%20Certificate%20DB?module-name=nss&pin-source=file:$PIN_FILE"
write_keystore_cnf "${DEK:-dek = auto}"
openssl_cnf
plain_key web
# The checkout may lie where www-data cannot go.
cp "$ROOT/test/integration/python_client.py" "$WORK"
cp "$PRIVATE/web.key" "$PRIVATE/other.key"
head -c 4096 /dev/urandom >"$WORK/data"
chmod 0644 "$WORK/data"
plain openssl x509 -in "$WORK/web.pem" -noout -pubkey >"$WORK/web.pub"
chown -R www-data:www-data "$PRIVATE"

user() {
    run_as www-data env LC_ALL=C TZ=UTC HOME="$USER_HOME" OPENSSL_CONF="$OPENSSL_CONF" \
        XDG_CONFIG_HOME="$USER_HOME/.config" "$@"
}
keystore() {
    user "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}

ok "init" keystore init --password-file "$PASSWORD_FILE" --kdf-memory 8 --kdf-passes 1
ok "slots" keystore slots
says "the KEK is in NSS" "NSS"
ok "status" keystore status
ok "import" keystore import web "$PRIVATE/web.key" --cert "$WORK/web.pem"
ok "generate RSA" keystore generate rsa --type rsa:2048 --self-signed 30 --subject /CN=rsa
ok "verify" keystore verify
sign_and_verify() {
    user openssl dgst -sha256 -sign "$1" -out "$PRIVATE/signature" "$WORK/data" &&
        plain openssl dgst -sha256 -verify "$WORK/web.pub" -signature "$PRIVATE/signature" \
            "$WORK/data"
}
ok "sign by URI" sign_and_verify trustpoint://web
keystore stub web --out "$PRIVATE/web.stub" >>"$OUT" 2>&1
ok "sign by stub" sign_and_verify "$PRIVATE/web.stub"
ok "request by URI" user openssl req -new -key trustpoint://rsa -subj /CN=rsa -out "$PRIVATE/r.csr"
ok "its signature is right" plain openssl req -in "$PRIVATE/r.csr" -verify -noout
many_sign() {
    export -f sign_and_verify
    local i
    for i in 1 2 3 4 5 6 7 8; do
        user openssl dgst -sha256 -sign trustpoint://web -out "$PRIVATE/s$i" "$WORK/data" &
    done
    for i in 1 2 3 4 5 6 7 8; do wait -n || return 1; done
}
ok "8 programs at the same time" many_sign
ok "8 threads in one program, and forks" user python3 "$WORK/python_client.py" \
    threads "$WORK/web.pem" "$PRIVATE/web.stub" "$WORK/web.pem" "$PRIVATE/web.stub"
ok "forks" user python3 "$WORK/python_client.py" fork "$WORK/web.pem" \
    "$PRIVATE/web.stub"
mv "$PRIVATE/nssdb" "$PRIVATE/nssdb.away"
fails "database of the token gone" any "" user openssl dgst -sha256 -sign trustpoint://web \
    -out "$PRIVATE/signature" "$WORK/data"
mv "$PRIVATE/nssdb.away" "$PRIVATE/nssdb"
ok "and back" sign_and_verify trustpoint://web
finish
