#!/bin/bash
# trustpoint_list.sh - rows of Trustpoint's databases that can't be read are named, and hide nothing
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=$ROOT/test/data/trustpoint
openssl_cnf

# use SAMPLE [DIRECTIVE...]: a copy of it, whose keys are in the database, is the keystore.
use() {
    rm -rf "$PRIVATE/state" "$PRIVATE/keystore.db"
    cp "$DATA/$1/db.sqlite3" "$PRIVATE/keystore.db"
    chmod 0600 "$PRIVATE/keystore.db"
    write_keystore_cnf "${@:2}"
}

# ---- rows that can't be read ---------------------------------------------------------------------

TWO_BAD="UPDATE pki_certificatemodel SET cert_pem = 'none' WHERE id =
        (SELECT certificate_id FROM pki_credentialmodel WHERE id = 1);
    UPDATE pki_credentialmodel SET private_key = x'00' WHERE id = 5"
for sample in legacy-0.5-software current-0.6-software; do
    use "$sample"
    quietly tpk list --names
    count=$(wc -l <"$OUT")
    keystore_sql "$TWO_BAD"
    fails "$sample: list names a certificate that is none" 65 \
        "tls-server: credential/1: its certificate" tpk list
    says "$sample: and a column of the wrong type" "trustpoint-keystore: credential/5: file "
    says "$sample: and shows the others" "trustpoint://owner/fx-owner"
    says "$sample: and counts" "2 records can't be read"
    fails "$sample: as JSON, too" 65 '"state": "tampered"' tpk list --json
    fails "$sample: verify names them, and proves the others" 1 \
        "$((count - 2)) records proven, 2 bad" tpk verify
    says "$sample: verify: by name" "trustpoint-keystore: tls-server: credential/1: "
    says_not "$sample: verify: nothing is said twice" "credential/5: credential/5"
    fails "$sample: doctor names them" any "tls-server" tpk doctor

    fails "$sample: storeutl's list has an error" any "tls-server: credential/1: " \
        openssl storeutl -noout trustpoint://
    says "$sample: for each" "credential/5: file "
    says "$sample: behind all others" "Total found: $((count - 2))"
    ok "$sample: a search that does not meet them" openssl storeutl -certs -noout \
        -subject /CN=fx-owner trustpoint://
    fails "$sample: a search that does" any "credential/5: file " openssl pkey -noout -in \
        "trustpoint://?cn=$(keystore_sql "SELECT cert.common_name FROM pki_credentialmodel c
            JOIN pki_certificatemodel cert ON cert.id = c.certificate_id WHERE c.id = 5")"
    ok "$sample: another key by cn=" openssl pkey -noout -in "trustpoint://?cn=device-p521.fx-device-01"
    keystore_sql "UPDATE pki_issuedcredentialmodel SET common_name = 'twin' WHERE credential_id IN (5, 6)"
    fails "$sample: one of two" any 'besides "credential/6"; choose one' \
        openssl pkey -noout -in "trustpoint://?cn=twin"
    ok "$sample: the other one by its name" openssl pkey -noout -in "trustpoint://credential/6"
done

# ---- searches without a column -------------------------------------------------------------------

for sample in legacy-0.5-software current-0.6-software; do
    use "$sample"
    rm -f "$WORK/leaf.pem"
    quietly tpk cert owner/fx-owner --leaf --out "$WORK/leaf.pem"
    sha1=$(plain openssl x509 -in "$WORK/leaf.pem" -noout -fingerprint -sha1 | sed 's/.*=//; s/://g')
    spki=$(plain openssl x509 -in "$WORK/leaf.pem" -noout -pubkey |
        plain openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1)
    ok "$sample: storeutl by SHA-1 fingerprint" openssl storeutl -sha1 -fingerprint "$sha1" \
        -certs trustpoint://
    says "$sample: one" "Total found: 1"
    ok "$sample: storeutl by the key's SHA-256" openssl storeutl -sha256 -fingerprint "$spki" \
        -keys -noout trustpoint://
    says "$sample: one" "Total found: 1"
    ok "$sample: storeutl by a fingerprint that is nobody's" openssl storeutl -sha1 -certs \
        -fingerprint "${sha1//[0-9]/0}" trustpoint://
    says_not "$sample: none" "Total found: 1" # OpenSSL 3.5 then says nothing at all
    for uri in "trustpoint://?fingerprint=$sha1" "trustpoint://?spki=$spki"; do
        ok "$sample: a key by ${uri%=*}" openssl pkey -noout -in "$uri"
    done
    fails "$sample: a key by one that is nobody's" any "no record" openssl pkey -noout -in \
        "trustpoint://?spki=${spki//[0-9]/0}"
done

# ---- which keys may decrypt ----------------------------------------------------------------------

# Keys of a database with an HSM: in its rows, and in the token.
use_token() {
    rm -rf "$PRIVATE/legacy-0.5" "$PRIVATE/state"
    trustpoint_sample legacy-0.5
    cp "$SAMPLE/db.sqlite3" "$PRIVATE/keystore.db"
    write_keystore_cnf "$@"
}
# encrypt NAME: into WORK/secret.
encrypt() {
    rm -f "$WORK/leaf.pem"
    tpk cert "$1" --leaf --out "$WORK/leaf.pem" &&
        plain openssl pkeyutl -encrypt -certin -inkey "$WORK/leaf.pem" \
            -pkeyopt rsa_padding_mode:oaep -in "$WORK/text" -out "$WORK/secret"
}
decrypt() {
    openssl pkeyutl -decrypt -inkey "$1" -pkeyopt rsa_padding_mode:oaep -in "$WORK/secret" \
        -out "$WORK/again"
}
decrypts() { decrypt "$1" && cmp "$WORK/text" "$WORK/again"; }
signs() { openssl dgst -sha256 -sign "$1" -out "$WORK/signature" "$WORK/text"; }

echo "text" >"$WORK/text"
IN_DATABASE=device/fx-device-01/device-rsa2048.fx-device-01
IN_TOKEN='ca/fx CA Süd'
use_token
for name in "$IN_DATABASE" "$IN_TOKEN"; do
    uri=trustpoint://$(python3 -c 'import sys, urllib.parse as u; print(u.quote(sys.argv[1]))' "$name")
    use_token
    ok "$name: encrypt" encrypt "$name"
    ok "$name: it signs" signs "$uri"
    fails "$name: it does not decrypt" any "name it in the directive \`decrypt\` of keystore.cnf" \
        decrypt "$uri"
    same "$name: which its policy says" "sign" "$(tpk policy "$name")"
    use_token "decrypt = signer/*, ${name// /?}"
    ok "$name: named in the directive it does" decrypts "$uri"
    ok "$name: by another name, too" decrypts \
        "trustpoint://?credential=$([ "$name" = "$IN_TOKEN" ] && echo 4 || echo 6)"
    same "$name: and says so" "sign, decrypt" "$(tpk policy "$name")"
    use_token "decrypt = nobody"
    fails "$name: another is named" any "keystore.cnf" decrypt "$uri"
done
use_token "decrypt = *"
same "a key that is not RSA does not" "sign, agree" "$(tpk policy tls-server)"

TOKEN_URI=
rm -f "$PRIVATE/keystore.db"
new_keystore
quietly tpk generate rsa --type rsa:2048
echo "decrypt = *" >>"$CONFIG"
fails "a native keystore has no use for it" any "trustpoint-keystore policy --allow-decrypt" tpk list
fails "a program says so, too" any "trustpoint-keystore policy --allow-decrypt" signs trustpoint://rsa
finish
