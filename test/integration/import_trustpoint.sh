#!/bin/bash
# import_trustpoint.sh - keys of another keystore, Trustpoint's databases above all, into a native
# one: every key arrives or it is said why not, nothing is overwritten, a killed run is gone on with.
# With ENGINE=postgresql (postgresql_store.sh) both lie there
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# ---- helpers ----------------------------------------------------------------------------------

# section NAME LINE...: one more keystore in the configuration.
section() {
    local name=$1
    shift
    [ -d "$PRIVATE/$name.state" ] || mkdir -m 0700 "$PRIVATE/$name.state"
    {
        echo "[keystore_$name]"
        printf '%s\n' "$@"
        echo "state = $PRIVATE/$name.state"
    } >>"$CONFIG"
}

# at NAME: that keystore is the one of keystore_store and its like from here on.
at() {
    DATABASE=$PRIVATE/$1.db
    SCHEMA=k_$1
}

# fresh NAME [LINE]: an empty native keystore, without an HSM unless a token is given.
fresh() {
    local kind=(--software)
    at "$1"
    keystore_place
    section "$1" "store = $(keystore_store)" "${@:2}"
    [ $# = 1 ] || kind=()
    tpk --keystore "$1" init --no-recovery "${kind[@]}" >>"$OUT" 2>&1
}

# copies FROM TO ARGUMENT...
copies() {
    tpk --keystore "$2" import-trustpoint --from "$1" "${@:3}"
}

# counts FROM TO ARGUMENT...: "copied certificates replaced unchanged conflict adopted in-token
# no-key failed"
counts() {
    copies "$@" --json 2>>"$OUT" | python3 -c '
import json, sys
c = json.load(sys.stdin)["counts"]
print(*(c[k] for k in ("copied", "certificates", "replaced", "unchanged", "conflict", "adopted",
                       "in-token", "no-key", "failed")))'
}

# key_of KEYSTORE NAME: a fingerprint of the private key.
key_of() {
    local out=$PRIVATE/exported.$RANDOM
    tpk --keystore "$1" export "$2" --out "$out" --unencrypted --yes-export-private-key >>"$OUT" 2>&1
    plain openssl pkey -in "$out" -outform DER 2>>"$OUT" | sha256sum
    rm -f "$out"
}

# same_record FROM TO NAME [TARGET]: key and certificates.
same_record() {
    same "$3: the same key" "$(key_of "$1" "$3")" "$(key_of "$2" "${4:-$3}")"
    same "$3: the same certificates" "$(tpk --keystore "$1" cert "$3" 2>&1)" \
        "$(tpk --keystore "$2" cert "${4:-$3}" 2>&1)"
}

# ---- between native keystores ---------------------------------------------------------------------

new_token web
new_keystore
fresh old "token = $TOKEN_URI"
fresh new "token = $TOKEN_URI"
plain_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
plain_key ec
plain_key other
{
    tpk --keystore old import rsa "$PRIVATE/rsa.key" --cert "$WORK/rsa.pem" \
        --chain "$WORK/ca.pem" --allow-decrypt
    tpk --keystore old import 'ca/Süd' "$PRIVATE/ec.key" --cert "$WORK/ec.pem"
    tpk --keystore old generate bare
} >>"$OUT" 2>&1

fails "without --from" 64 "--from" tpk --keystore new import-trustpoint
fails "from itself" 64 "same keystore" copies new new
fails "from nowhere" 78 nowhere copies nowhere new
fails "a name that is not there" 66 '"nobody"' copies old new nobody
fails "--as for several" 64 "--as" copies old new --as one
fails "--as with --prefix" 64 contradict copies old new rsa --as one --prefix p
ok "--dry-run" copies old new --dry-run
says "says what it would do" "this would be: 3 copied"
same "and does nothing" "" "$(tpk --keystore new list --names)"
same "a pattern" "1 0 0 0 0 0 0 0 0" "$(counts old new 'ca/*')"
same "all: the rest is copied" "2 0 0 1 0 0 0 0 0" "$(counts old new)"
same "again: nothing to do" "0 0 0 3 0 0 0 0 0" "$(counts old new)"
for name in rsa 'ca/Süd' bare; do
    same_record old new "$name"
done
same "what the key may do comes along" "sign, decrypt" "$(tpk --keystore new policy rsa)"
same "--as, by a URI" "1 0 0 0 0 0 0 0 0" "$(counts old new trustpoint://rsa --as 'rsa 2')"
same_record old new rsa 'rsa 2'
same "--prefix" "3 0 0 0 0 0 0 0 0" "$(counts old new --prefix tp/ --allow-agree)"
same "--allow-agree" "sign, agree" "$(tpk --keystore new policy tp/bare)"
ok "all is proven" tpk --keystore new verify

ca_sign "$PRIVATE/rsa.csr" "$WORK/rsa-new.pem" rsa
tpk --keystore old set-cert rsa "$WORK/rsa-new.pem" >>"$OUT" 2>&1
same "a renewed certificate follows" "0 1 0 2 0 0 0 0 0" "$(counts old new)"
same_record old new rsa
tpk --keystore old set-cert rsa "$WORK/other.pem" --key "$PRIVATE/other.key" >>"$OUT" 2>&1
BEFORE=$(key_of new rsa)
fails "another key is a conflict" 1 "--replace" copies old new
says "which names it" "conflict      rsa"
same "and left alone" "$BEFORE" "$(key_of new rsa)"
same "--replace" "0 0 1 2 0 0 0 0 0" "$(counts old new --replace)"
same_record old new rsa

ok "JSON, whatever happens" bash -c '"$@" | python3 -m json.tool' - "$KEYSTORE_COMMAND" \
    --config "$CONFIG" --keystore new import-trustpoint --from old nobody --json
says "JSON, whatever happens" '"state": "bad-input"'

# What is wrong with one record is that record's own affair.
tpk --keystore old generate zebra >>"$OUT" 2>&1
at old
keystore_sql "UPDATE tpks_record SET sealed = substr(sealed, 2) WHERE name = 'zebra'"
tpk --keystore new delete bare --yes >>"$OUT" 2>&1
fails "a record that was tampered with" 1 "zebra: " copies old new
ok "the others are copied" tpk --keystore new show bare
fails "it is not" 66 "" tpk --keystore new show zebra
lose_token
fails "no token" 69 "" copies old new
token_back
tpk --keystore old delete zebra --yes >>"$OUT" 2>&1
same "and back" "0 0 0 3 0 0 0 0 0" "$(counts old new)"

# ---- killed, again and again ------------------------------------------------------------------------

MANY=80
fresh many
fresh target
for ((i = 0; i < MANY; i++)); do
    printf -v name 'key %03d' "$i"
    tpk --keystore many generate "$name" >>"$OUT" 2>&1
done
# killed_at ROUND: SIGKILL when the change has begun for the ROUND-th time: in SQLite when its journal
# has come, in PostgreSQL at a word to the server.
killed_at() {
    local seen=0 there=0
    if [ "$ENGINE" = postgresql ]; then
        strace -f -qq -o /dev/null -e trace=sendto -e inject="sendto:signal=KILL:when=$(($1 * 250))" \
            "$KEYSTORE_COMMAND" --config "$CONFIG" --keystore target import-trustpoint --from many \
            >"$WORK/log" 2>&1 || true
        return
    fi
    start "$WORK/log" "$KEYSTORE_COMMAND" --config "$CONFIG" --keystore target import-trustpoint --from many
    while alive "$PID" && [ "$seen" -lt "$1" ]; do
        if [ -e "$PRIVATE/target.db-journal" ]; then
            [ "$there" = 1 ] || seen=$((seen + 1))
            there=1
        else
            there=0
        fi
    done
    stop "$PID" KILL
}
for round in 1 2 1 2; do
    killed_at "$round" 2>>"$OUT"
    ok "killed: what is there is whole" tpk --keystore target verify
    echo "note  killed with $(tpk --keystore target list --names | wc -l) of $MANY copied"
done
ok "the next run goes on" copies many target
same "to the end" "0 0 0 $MANY 0 0 0 0 0" "$(counts many target)"
same "with every key" "$(for ((i = 0; i < MANY; i += 13)); do key_of many "$(printf 'key %03d' "$i")"; done)" \
    "$(for ((i = 0; i < MANY; i += 13)); do key_of target "$(printf 'key %03d' "$i")"; done)"
ok "all is proven" tpk --keystore target verify

# ---- Trustpoint's databases -------------------------------------------------------------------------

# judge KEYSTORE EXPECTED: each certificate chain that has a key in expected.json, under whatever
# name, and each key, unless it is in the token; says how many.
judge() {
    python3 - "$KEYSTORE_COMMAND" "$CONFIG" "$@" "$PRIVATE" <<'SCRIPT'
import base64, hashlib, json, os, subprocess, sys
command, config, keystore, expected, folder = sys.argv[1:]
run = lambda *a: subprocess.run([command, "--config", config, "--keystore", keystore, *a],
                                check=True, capture_output=True, text=True).stdout
der = lambda pem: [base64.b64decode(b.split("-----END")[0].split("-----")[-1])
                   for b in pem.split("-----BEGIN ")[1:]]
digest = lambda data: hashlib.sha256(data).hexdigest()
records = {r["spki_sha256"]: r for r in json.loads(run("list", "--json"))}
count = 0
for e in json.load(open(expected))["credentials"]:
    if e["key_location"] == "none":
        assert e["spki_sha256"] not in records, e
        continue
    name = records[e["spki_sha256"]]["name"]
    certs = [digest(c) for c in der(run("cert", name))]
    chain = [c for c in e["chain_sha256"] if c != e["certificate_sha256"]]
    assert certs == [e["certificate_sha256"], *chain], (name, certs, e)
    count += 1
    if e["key_location"] == "hsm":
        assert records[e["spki_sha256"]]["home"] == "token", name
        continue
    out = os.path.join(folder, "judge.key")
    run("export", name, "--out", out, "--unencrypted", "--yes-export-private-key")
    assert digest(der(open(out).read())[0]) == e["pkcs8_sha256"], name
    os.unlink(out)
assert count == len(records), (count, list(records))
print(count, "keys")
SCRIPT
}

# theirs NAME: the sample's database, with no right but to read it.
theirs() {
    at "$1"
    keystore_place
    case $ENGINE in
    sqlite) cp -p "$SAMPLE/db.sqlite3" "$DATABASE" ;;
    postgresql)
        PGOPTIONS="-csearch_path=$SCHEMA" psql -XAtq -v ON_ERROR_STOP=1 -h "$PG_DIR" -U postgres \
            -d keystore -f "$SAMPLE/postgres.sql" >>"$OUT" 2>&1
        keystore_sql "GRANT SELECT ON ALL TABLES IN SCHEMA \"$SCHEMA\" TO keeper"
        ;;
    esac
}

# sample NAME EXPECTED OPTION...: EXPECTED as `counts` prints it.
sample() {
    local name=${1//./-} expected=$2 token=()
    trustpoint_sample "$1"
    shift 2
    CONFIG=$SAMPLE/keystore.cnf
    : >"$CONFIG"
    chmod 0600 "$CONFIG"
    [ -z "$TOKEN_URI" ] || token=("token = $TOKEN_URI")
    theirs "$name"
    section "$name" "store = $(keystore_store)" "${token[@]}"
    fresh "into-$name" "${token[@]}"
    at "$name"
    BEFORE=$(keystore_digest)
    same "$name: everything, or why not" "$expected" "$(counts "$name" "into-$name" "$@")"
    ok "$name: the right keys and chains" judge "into-$name" "$SAMPLE/expected.json"
    ok "$name: all is proven" tpk --keystore "into-$name" verify
    same "$name: Trustpoint's database is only read" "$BEFORE" "$(keystore_digest)"
    read -r -a c <<<"$expected"
    same "$name: again, nothing to do" "0 0 0 $((c[0] + c[5])) 0 0 ${c[6]} ${c[7]} 0" \
        "$(counts "$name" "into-$name" "$@")"
}

sample legacy-0.4 "7 0 0 0 0 2 0 1 0"
sample legacy-0.5 "7 0 0 0 0 2 0 1 0"
openssl_cnf
for name in ca%2Ffx%20CA%20S%C3%BCd signer%2Ffx-signer; do
    uri="trustpoint://$name?keystore=into-legacy-0-5"
    ok "legacy-0.5: $name signs in the token" openssl dgst -sha256 -sign "$uri" -out "$WORK/sig" "$ROOT/README.md"
    ok "legacy-0.5: with the right key" openssl pkey -in "$uri" -pubout -out "$WORK/pub"
    ok "legacy-0.5: as can be verified" plain openssl dgst -sha256 -verify "$WORK/pub" \
        -signature "$WORK/sig" "$ROOT/README.md"
done
unset OPENSSL_CONF
fresh elsewhere
same "legacy-0.5: a keystore without that token" "7 0 0 0 0 0 2 1 0" "$(counts legacy-0-5 elsewhere)"
fails "legacy-0.5: the exit code says that keys were left" 1 "signer/fx-signer: its key stays" \
    copies legacy-0-5 elsewhere
same "legacy-0.5: names are Trustpoint's" "ca/fx-issuing-ca credential/1 owner/fx-owner tls-server" \
    "$(tpk --keystore elsewhere list --names | grep -v device | sort | xargs)"
fails "legacy-0.5: nothing is copied into it" 64 "only read" copies into-legacy-0-5 legacy-0-5
sample current-0.6 "6 0 0 0 0 2 0 1 0"
sample current-0.6-software "8 0 0 0 0 0 0 1 0"
sample legacy-0.5-software "8 0 0 0 0 0 0 1 0"
(umask 077 && printf 'correct horse battery staple\n' >"$PRIVATE/backup-password")
sample legacy-0.5-kek-lost "7 0 0 0 0 2 0 1 0" --from-password-file "$PRIVATE/backup-password"
tpk --keystore into-legacy-0-5-kek-lost delete tls-server --yes >>"$OUT" 2>&1
fails "legacy-0.5-kek-lost: without the password" 75 "" copies legacy-0-5-kek-lost into-legacy-0-5-kek-lost

# A row that cannot be read is passed over; a database that cannot be read to its end is not: what
# comes after it must not be left behind unnoticed. (The page with the last certificate is damaged.)
trustpoint_sample current-0.6-software
CONFIG=$SAMPLE/keystore.cnf
: >"$CONFIG"
chmod 0600 "$CONFIG"
section damaged "store = sqlite:$SAMPLE/db.sqlite3"
fresh rest
sqlite3 "$SAMPLE/db.sqlite3" "UPDATE pki_certificatemodel SET cert_pem = 'none' WHERE id =
    (SELECT certificate_id FROM pki_credentialmodel WHERE id = 2); VACUUM"
python3 - "$SAMPLE/db.sqlite3" <<'SCRIPT'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
size, = db.execute("PRAGMA page_size").fetchone()
pem, = db.execute("SELECT cert_pem FROM pki_certificatemodel WHERE id = (SELECT certificate_id "
                  "FROM pki_credentialmodel ORDER BY id DESC LIMIT 1)").fetchone()
db.close()
with open(sys.argv[1], "r+b") as file:
    file.seek(file.read().index(pem.encode()) // size * size)
    file.write(b"\xff")
SCRIPT
fails "a damaged database: the error is not hidden behind a bad row" 69 "malformed" copies damaged rest
finish
