#!/bin/bash
# trustpoint.sh - Trustpoint's own databases, 0.3 to 0.6, on SQLite and PostgreSQL: every credential
# by every name that it has, and every way in which KEK, token, DEK and rows can be lost or damaged
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=$ROOT/test/data/trustpoint
NAMES=$ROOT/test/integration/trustpoint_names.py
VARIANTS=$PRIVATE/variants
SOFTHSM=$(find_softhsm)
PIN_FILE=$PRIVATE/Trustpoint-SoftHSM.pin
export SOFTHSM2_CONF=$PRIVATE/softhsm2.conf
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' \
    "$PRIVATE/tokens" >"$SOFTHSM2_CONF"
mkdir "$VARIANTS"
openssl_cnf
build_helper trustpoint_load

# ---- databases ----------------------------------------------------------------------------------

# use FOLDER sqlite|postgresql [DIRECTIVE...]: a copy of that sample or variant is the keystore. The
# token's session is kept with one engine and opened for every load with the other.
use() {
    local folder=$1
    ENGINE=$2
    shift 2
    EXPECTED=$folder/expected.json
    rm -rf "$PRIVATE/tokens" "$PRIVATE/state" "$PRIVATE/keystore.db"
    if [ -d "$folder/tokens" ]; then
        cp -r "$folder/tokens" "$PRIVATE/tokens"
    else
        mkdir "$PRIVATE/tokens"
    fi
    cp "$folder/user-pin.txt" "$PIN_FILE"
    TOKEN_URI="pkcs11:token=Trustpoint-SoftHSM?module-path=$SOFTHSM&pin-source=file:$PIN_FILE"
    if grep -q '"storage_type": "software"' "$EXPECTED"; then TOKEN_URI=; fi
    case $ENGINE in
    sqlite) cp "$folder/db.sqlite3" "$PRIVATE/keystore.db" ;;
    postgresql)
        load_tables "$folder/postgres.sql"
        set -- 'hsm-session = process' "$@"
        ;;
    esac
    chmod -R go= "$PRIVATE/tokens" "$PIN_FILE"
    write_keystore_cnf "$@"
}
# The role that reads has no right to do more.
load_tables() {
    keystore_place
    psql -XAtq -v ON_ERROR_STOP=1 -h "$PG_DIR" -U postgres -d keystore -f "$1" >"$OUT" 2>&1
    sql keystore 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO keeper'
}

# variant NAME OPTION...: one of those that generate.py makes meanwhile.
variant() {
    echo "$VARIANTS/$1 --seed $SEED ${*:2}" >>"$PRIVATE/variants.list"
}
# everything: changes with all that a reader must not change. (A login is counted in token.object.)
everything() {
    keystore_digest
    find "$PRIVATE" -name 'keystore.db-*'
    find "$PRIVATE/tokens" -name '*.object' ! -name token.object -exec sha256sum {} + | sort
}
remember() { BEFORE=$(everything); }
unchanged() { same "$1: nothing was written" "$BEFORE" "$(everything)"; }

# checked NAME: the independent reader finds what expected.json says.
checked() {
    local where
    case $ENGINE in
    sqlite) where=sqlite:$PRIVATE/keystore.db ;;
    postgresql) where="postgresql:host=$PG_DIR user=postgres dbname=keystore" ;;
    esac
    ok "$1: the checker agrees" python3 "$DATA/check.py" --tokens "$PRIVATE/tokens" \
        --pin "$PIN_FILE" --module "$SOFTHSM" --expected "$EXPECTED" "$where"
}

# ---- what is asked ------------------------------------------------------------------------------

# answers NAME: every credential by every name it has, and every name that means none or several.
answers() {
    python3 "$NAMES" uris "$EXPECTED" >"$PRIVATE/uris"
    "$WORK/trustpoint_load" <"$PRIVATE/uris" >"$PRIVATE/answers" 2>"$OUT"
    ok "$1: $(wc -l <"$PRIVATE/uris") names" python3 "$NAMES" compare "$EXPECTED" "$PRIVATE/answers"
}
# listed NAME
listed() {
    tpk list --json >"$PRIVATE/list" 2>"$OUT" </dev/null || fail "$1: list"
    ok "$1: list" python3 "$NAMES" list "$EXPECTED" "$PRIVATE/list"
}
# state NAME STATE CODE TEXT
state() {
    local code=0 found
    tpk status --json >"$PRIVATE/status" 2>"$OUT" </dev/null || code=$?
    found=$(sed -n 's/^ *"state": *"\(.*\)",$/\1/p' "$PRIVATE/status")
    cat "$PRIVATE/status" >>"$OUT"
    same "$1: state" "$2 $3" "$found $code"
    [ -z "$4" ] || says "$1: it says '$4'" "$4"
}
# loads NAME URI
loads() {
    echo "$2" | "$WORK/trustpoint_load" >"$OUT" 2>&1 || true
    if grep -q "^[^	]*	ok	.*	signed$" "$OUT"; then pass "$1"; else fail "$1"; fi
}
# refuses NAME URI REASON|any TEXT
refuses() {
    local reason=$3
    [ "$reason" != any ] || reason='[0-9]*'
    echo "$2" | "$WORK/trustpoint_load" >"$OUT" 2>&1 || true
    if grep -q "^[^	]*	failed	$reason	" "$OUT"; then says "$1" "$4"; else fail "$1" "not reason $3"; fi
}
# exports NAME: every key that is in the database comes out as it went in.
exports() {
    local number home pkcs8 name count=0
    while IFS=$'\t' read -r number home pkcs8 name; do
        case $home in token | none) continue ;; esac
        rm -f "$PRIVATE/key.pem"
        quietly tpk export "$name" --out "$PRIVATE/key.pem" --unencrypted \
            --yes-export-private-key || fail "$1: export of $number, $name"
        [ "$(sed '/^-----/d' "$PRIVATE/key.pem" | base64 -d | sha256sum)" = "$pkcs8  -" ] ||
            fail "$1: PKCS#8 of $number, $name"
        count=$((count + 1))
    done < <(python3 "$NAMES" names "$EXPECTED")
    rm -f "$PRIVATE/key.pem"
    pass "$1: $count keys exported"
}
signs() {
    rm -f "$WORK/leaf.pem"
    openssl dgst -sha256 -sign "$1" -out "$WORK/signature" "$WORK/text" &&
        tpk cert "$2" --leaf --out "$WORK/leaf.pem" &&
        plain openssl x509 -in "$WORK/leaf.pem" -noout -pubkey -out "$WORK/public.pem" &&
        plain openssl dgst -sha256 -verify "$WORK/public.pem" -signature "$WORK/signature" \
            "$WORK/text"
}
# openssl_signs NAME: with the openssl command, by the canonical name.
openssl_signs() {
    local number home pkcs8 name uri count=0
    echo "text" >"$WORK/text"
    while IFS=$'\t' read -r number home pkcs8 name; do
        [ "$home" != none ] || continue
        uri=trustpoint://$(python3 -c \
            'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1]))' "$name")
        quietly signs "$uri" "$name" || fail "$1: openssl dgst with $number, $name"
        count=$((count + 1))
    done < <(python3 "$NAMES" names "$EXPECTED")
    pass "$1: openssl dgst signs with $count keys"
}

# ---- the variants -------------------------------------------------------------------------------

EVERYTHING="--pads --chain shuffled --renewed --self-listed --ambiguous --keyless --odd-names"
for sample in legacy-0.4 legacy-0.5 current-0.6 legacy-0.5-software current-0.6-software; do
    more=
    [[ $sample != current* ]] || more=--lone-keys
    [ "$sample" != legacy-0.5 ] || more="--plaintext device-rsa2048"
    variant "$sample-everything" --from "$sample" "$EVERYTHING" "$more"
done
variant plain-0.3 --release 0.3
for kek in foreign duplicate token-lost; do
    variant "legacy-$kek" --from legacy-0.5 --kek "$kek"
    variant "current-$kek" --from current-0.6 --kek "$kek"
done
for corrupt in tls-key tls-tag tls-base64 tls-short swapped-keys certificate wrapped-dek \
    wrapped-dek-short wrapped-dek-null; do
    variant "legacy-$corrupt" --from legacy-0.5 --corrupt "$corrupt"
    variant "current-$corrupt" --from current-0.6 --corrupt "$corrupt"
done
variant legacy-backup-dek --from legacy-0.5 --corrupt backup-dek
for protection in cwrap-pad enc-cbc-pad enc-cbc; do
    variant "$protection" --from current-0.6 --dek-protection "$protection"
done
variant label-legacy --from legacy-0.5 --kek-label "Schlüssel-Schlüssel"
variant label-current --from current-0.6 --kek-label "Schlüssel-Schlüssel"
variant no-kek-row --from legacy-0.4 --no-kek-row
variant serial --from current-0.6 --with-serial
variant whole-second --from legacy-0.4 --created-at 2026-01-02T03:04:05
variant all-plain --from legacy-0.5 --plaintext all --no-backup
variant few --from legacy-0.5-software --many 10 --no-postgres
variant many --from legacy-0.5-software --many 5000 --no-postgres
python3 "$DATA/generate.py" --batch "$PRIVATE/variants.list" >"$PRIVATE/variants.log" 2>&1 &
MAKING=$!
ENGINE=postgresql
new_postgresql "timezone = 'America/New_York'"

# ---- every sample, every name, both engines -----------------------------------------------------

declare -A SCHEMAS=([legacy-0.4]="Trustpoint 0.4" [legacy-0.5]="Trustpoint 0.5"
    [legacy-0.5-software]="Trustpoint 0.5" [current-0.6]="Trustpoint 0.6 or later"
    [current-0.6-software]="Trustpoint 0.6 or later")
for engine in sqlite postgresql; do
    for sample in legacy-0.4 legacy-0.5 current-0.6 legacy-0.5-software current-0.6-software; do
        name="$sample, $engine"
        use "$DATA/$sample" "$engine"
        remember
        checked "$name"
        state "$name" unlocked 0 "${SCHEMAS[$sample]}"
        listed "$name"
        answers "$name"
        exports "$name"
        [ "$engine" != sqlite ] || openssl_signs "$name"
        ok "$name: verify" tpk verify
        unchanged "$name"
    done
    for sample in legacy-0.5-kek-lost current-0.6-kek-lost; do
        name="$sample, $engine"
        use "$DATA/$sample" "$engine" "restore = no"
        remember
        state "$name" kek-missing 75 "trustpoint-"
        listed "$name"
        refuses "$name: a sealed key" "trustpoint://tls-server" 4 "trustpoint-"
        loads "$name: a key in the token needs no KEK" "trustpoint://signer/fx-signer"
        unchanged "$name"
    done
done

# ---- variants -----------------------------------------------------------------------------------

wait "$MAKING" || { cat "$PRIVATE/variants.log" >"$OUT"; fail "the variants are made"; finish; }
for engine in sqlite postgresql; do
    for sample in legacy-0.4 legacy-0.5 current-0.6 legacy-0.5-software current-0.6-software; do
        [ "$engine" = sqlite ] || [[ $sample = *-0.[56] ]] || continue
        name="$sample with everything, $engine"
        use "$VARIANTS/$sample-everything" "$engine"
        remember
        checked "$name"
        state "$name" unlocked 0 "${SCHEMAS[$sample]}"
        listed "$name"
        answers "$name"
        unchanged "$name"
    done
    use "$VARIANTS/plain-0.3" "$engine"
    state "0.3, $engine" unlocked 0 "Trustpoint 0.3"
    listed "0.3, $engine"
    answers "0.3, $engine"
    exports "0.3, $engine"
done
for what in cwrap-pad enc-cbc-pad enc-cbc all-plain label-legacy label-current no-kek-row serial; do
    use "$VARIANTS/$what" sqlite
    state "$what" unlocked 0 ""
    answers "$what"
done

# ---- KEK, token, DEK, rows ----------------------------------------------------------------------

for engine in sqlite postgresql; do
    for generation in legacy current; do
        use "$VARIANTS/$generation-foreign" "$engine"
        remember
        state "$generation, $engine: foreign KEK" kek-foreign 65 "trustpoint-"
        refuses "$generation, $engine: foreign KEK: a sealed key" trustpoint://tls-server 5 ""
        loads "$generation, $engine: foreign KEK: a key in the token" trustpoint://signer/fx-signer
        unchanged "$generation, $engine: foreign KEK"

        use "$VARIANTS/$generation-duplicate" "$engine"
        remember
        state "$generation, $engine: second KEK" kek-foreign 65 "several AES keys"
        refuses "$generation, $engine: second KEK: a sealed key" trustpoint://tls-server 5 "several AES keys"
        unchanged "$generation, $engine: second KEK"

        use "$VARIANTS/$generation-token-lost" "$engine"
        remember
        state "$generation, $engine: no token" token-missing 69 "Trustpoint-SoftHSM"
        refuses "$generation, $engine: no token: a sealed key" trustpoint://tls-server 6 ""
        refuses "$generation, $engine: no token: a key in the token" trustpoint://signer/fx-signer 6 ""
        listed "$generation, $engine: no token"
        unchanged "$generation, $engine: no token"

        for corrupt in tls-key tls-tag tls-base64 tls-short; do
            use "$VARIANTS/$generation-$corrupt" "$engine"
            remember
            state "$generation, $engine: $corrupt" unlocked 0 ""
            refuses "$generation, $engine: $corrupt: the damaged key" trustpoint://tls-server 10 "tls-server"
            loads "$generation, $engine: $corrupt: another key" trustpoint://owner/fx-owner
            fails "$generation, $engine: $corrupt: verify" 1 "tls-server" tpk verify
            unchanged "$generation, $engine: $corrupt"
        done

        use "$VARIANTS/$generation-swapped-keys" "$engine"
        refuses "$generation, $engine: keys of two rows exchanged" trustpoint://tls-server any "tls-server"
        refuses "$generation, $engine: keys of two rows exchanged, the other one" \
            trustpoint://device/fx-device-01/device-p384.fx-device-01 any "device-p384"

        use "$VARIANTS/$generation-certificate" "$engine"
        refuses "$generation, $engine: damaged certificate" trustpoint://tls-server any "tls-server"
        loads "$generation, $engine: damaged certificate: another key" trustpoint://owner/fx-owner

        use "$VARIANTS/$generation-wrapped-dek-null" "$engine" "restore = no"
        state "$generation, $engine: no wrapped DEK" kek-missing 75 ""
        refuses "$generation, $engine: no wrapped DEK: a sealed key" trustpoint://tls-server 4 ""
        for corrupt in wrapped-dek wrapped-dek-short; do
            use "$VARIANTS/$generation-$corrupt" "$engine"
            remember
            state "$generation, $engine: $corrupt" kek-foreign 65 ""
            refuses "$generation, $engine: $corrupt: a sealed key" trustpoint://tls-server any ""
            unchanged "$generation, $engine: $corrupt"
        done
    done
done

# ---- the backup password of 0.4 and 0.5 ---------------------------------------------------------

password() { (umask 077 && printf '%s' "$1" >"$PASSWORD_FILE"); }
for folder in "$DATA/legacy-0.4" "$DATA/legacy-0.5-kek-lost" "$VARIANTS/whole-second"; do
    name="backup password, $(basename "$folder")"
    for engine in sqlite postgresql; do
        use "$folder" "$engine" "restore = no"
        remember
        password 'correct horse battery staple'
        ok "$name, $engine" tpk verify --password-file "$PASSWORD_FILE"
        password $' correct horse battery staple \n\n'
        ok "$name, $engine: white space around it" tpk slot test --password-file "$PASSWORD_FILE"
        password 'correct horse battery stable'
        fails "$name, $engine: a wrong one" 77 "password" \
            tpk slot test --password-file "$PASSWORD_FILE"
        unchanged "$name, $engine"
    done
done
use "$VARIANTS/legacy-backup-dek" sqlite
password 'correct horse battery staple'
fails "damaged envelope of the backup password" 77 "" tpk slot test --password-file "$PASSWORD_FILE"
state "damaged envelope: the HSM still works" unlocked 0 ""
use "$DATA/current-0.6-kek-lost" sqlite "restore = no"
fails "0.6 has no backup password" any "" tpk slot test --password-file "$PASSWORD_FILE"

# ---- what this software never does --------------------------------------------------------------

for sample in legacy-0.5 current-0.6; do
    use "$DATA/$sample" sqlite
    remember
    plain openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$PRIVATE/new.key"
    fails "$sample: no import" 77 "Trustpoint" tpk import new "$PRIVATE/new.key"
    fails "$sample: no generate" 77 "Trustpoint" tpk generate new
    fails "$sample: no rename" 77 "Trustpoint" tpk rename tls-server other
    fails "$sample: no delete" 77 "Trustpoint" tpk delete tls-server --yes
    fails "$sample: no policy" 77 "Trustpoint" tpk policy tls-server --allow-decrypt
    rm -f "$WORK/tls.pem"
    quietly tpk cert tls-server --out "$WORK/tls.pem" || fail "$sample: cert"
    fails "$sample: no set-cert" 77 "Trustpoint" tpk set-cert tls-server "$WORK/tls.pem"
    fails "$sample: no rotate-kek" 77 "Trustpoint" tpk rotate-kek
    unchanged "$sample: refused commands"
done

# ---- configuration ------------------------------------------------------------------------------

use "$DATA/legacy-0.5" sqlite 'allow = device/*'
loads "allow: a canonical name" trustpoint://device/fx-device-01/device-p521.fx-device-01
loads "allow: by another name" "trustpoint://?cn=device-p521.fx-device-01"
refuses "allow: forbidden" trustpoint://tls-server 11 "tls-server"
refuses "allow: forbidden by another name" "trustpoint://?role=tls-server" 11 "tls-server"
for sample in legacy-0.5 current-0.6; do
    use "$DATA/$sample" sqlite
    sed -i '/^token = /d' "$CONFIG"
    code=0
    quietly tpk status || code=$?
    case $code in
    0) fail "$sample: no token directive: unlocked by a PIN file that is not there" ;;
    *) says "$sample: no token directive: it says what to set" "token" ;;
    esac
done
use "$DATA/legacy-0.5" sqlite
echo 99999999 >"$PIN_FILE"
state "wrong PIN" wrong-secret 77 "PIN"

# ---- size ---------------------------------------------------------------------------------------

# pages URI: how many pages of the database are read to load it.
pages() {
    echo "$1" | strace -f -e trace=pread64 -y -o "$PRIVATE/trace" "$WORK/trustpoint_load" \
        >"$OUT" 2>&1
    grep -q '	ok	' "$OUT" || fail "pages of $1"
    grep -c 'pread64(.*keystore.db>' "$PRIVATE/trace"
}
# (By cn= alone Trustpoint has no index.)
for name in tls-server device/bulk-7/bulk-7 bulk-7 ca/fx-issuing-ca '?credential=5' \
    '?device=bulk-7&cn=bulk-7' '?owner=fx-owner' '?role=tls-server'; do
    use "$VARIANTS/few" sqlite
    few=$(pages "trustpoint://$name")
    use "$VARIANTS/many" sqlite
    many=$(pages "trustpoint://$name")
    ok "one of 5,000 by $name: $many pages are read, of 10: $few" [ "$many" -le $((few + 60)) ]
done
finish
