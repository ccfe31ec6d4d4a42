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
    says "$sample: and a column of the wrong type" "trustpoint-keystore: credential/5: "
    says "$sample: and shows the others" "trustpoint://owner/fx-owner"
    says "$sample: and counts" "2 records can't be read"
    fails "$sample: as JSON, too" 65 '"state": "tampered"' tpk list --json
    fails "$sample: verify names them, and proves the others" 1 \
        "$((count - 2)) records proven, 2 bad" tpk verify
    says "$sample: verify: by name" "trustpoint-keystore: tls-server: credential/1: "
    fails "$sample: doctor names them" any "tls-server" tpk doctor

    fails "$sample: storeutl's list has an error" any "tls-server: credential/1: " \
        openssl storeutl -noout trustpoint://
    says "$sample: for each" "credential/5: "
    says "$sample: behind all others" "Total found: $((count - 2))"
    ok "$sample: a search that does not meet them" openssl storeutl -certs -noout \
        -subject /CN=fx-owner trustpoint://
    fails "$sample: a search that does" any "credential/5: " openssl pkey -noout -in \
        "trustpoint://?cn=$(keystore_sql "SELECT cert.common_name FROM pki_credentialmodel c
            JOIN pki_certificatemodel cert ON cert.id = c.certificate_id WHERE c.id = 5")"
    ok "$sample: another key by cn=" openssl pkey -noout -in "trustpoint://?cn=device-p521.fx-device-01"
    keystore_sql "UPDATE pki_issuedcredentialmodel SET common_name = 'twin' WHERE credential_id IN (5, 6)"
    fails "$sample: one of two" any 'besides "credential/6"; choose one' \
        openssl pkey -noout -in "trustpoint://?cn=twin"
    ok "$sample: the other one by its name" openssl pkey -noout -in "trustpoint://credential/6"
done
finish
