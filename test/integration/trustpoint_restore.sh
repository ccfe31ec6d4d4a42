#!/bin/bash
# trustpoint_restore.sh - Trustpoint's database and a token that has lost the KEK, or has another
# one: a password brings it back, and Trustpoint itself reads everything through the new one, as a
# checker says that shares no code with us; killed anywhere, the next run ends the work
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=$ROOT/test/data/trustpoint
DB=$PRIVATE/db
SOFTHSM=$(find_softhsm)
WRONG=$PRIVATE/wrong
export SOFTHSM2_CONF=$PRIVATE/softhsm2.conf
openssl_cnf
(umask 077 && echo "correct horse battery stable" >"$WRONG")

# ---- a database and its token -------------------------------------------------------------------

# use FOLDER ENGINE [DIRECTIVE...]: a copy of that sample or variant is the keystore now.
use() {
    local folder=$1 store=sqlite:$DB/db.sqlite3
    ENGINE=$2
    shift 2
    rm -rf -- "${DB:?}" "$PRIVATE/state"
    cp -r "$folder" "$DB"
    chmod -R go= "$DB"
    mkdir -p "$DB/tokens"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' \
        "$DB/tokens" >"$SOFTHSM2_CONF"
    PIN_FILE=$DB/user-pin.txt
    TOKEN_URI="pkcs11:token=Trustpoint-SoftHSM?module-path=$SOFTHSM&pin-source=file:$PIN_FILE"
    if [ "$ENGINE" = postgresql ]; then
        store="postgresql:host=$PG_DIR user=postgres dbname=trustpoint"
        sql postgres 'DROP DATABASE IF EXISTS trustpoint WITH (FORCE)' 2>>"$OUT"
        sql postgres "CREATE DATABASE trustpoint ENCODING 'UTF8' TEMPLATE template0"
        psql -qXAt -v ON_ERROR_STOP=1 -h "$PG_DIR" -U postgres -d trustpoint \
            -f "$DB/postgres.sql" >>"$OUT" 2>&1
    fi
    STORE=$store
    write_keystore_cnf "$@"
    sed -i "s,^store = .*,store = $STORE," "$CONFIG"
    quietly reader --dump "$PRIVATE/before" || true
}
# variant NAME OPTION...: made by the generator when it is first wanted.
variant() {
    local name=$1
    shift
    [ -d "$PRIVATE/variants/$name" ] || {
        mkdir -p "$PRIVATE/variants"
        python3 "$DATA/generate.py" "$PRIVATE/variants/$name" --seed "$SEED" "$@" >>"$OUT" 2>&1
    }
    FOLDER=$PRIVATE/variants/$name
}
# reader ARGUMENTS...: the independent checker.
reader() {
    python3 "$DATA/check.py" --tokens "$DB/tokens" --pin "$PIN_FILE" "$@" "$STORE"
}
password() {
    PASSWORD_FILE=$PRIVATE/password
    (umask 077 && printf '%s' "${1-correct horse battery staple}" >"$PASSWORD_FILE")
}
state_is() {
    local code=0
    tpk status --json >"$PRIVATE/status" 2>"$OUT" </dev/null || code=$?
    cat "$PRIVATE/status" >>"$OUT"
    same "$1" "$2" "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["state"])' \
        <"$PRIVATE/status")"
}
# restored NAME [OPTION...]: Trustpoint reads all of it, and nothing else was changed.
restored() {
    local name=$1
    shift
    state_is "$name: status" unlocked
    ok "$name: a key signs" signs
    ok "$name: Trustpoint reads everything" reader --expected "$DB/expected.json" \
        --before "$PRIVATE/before" --changed restore "$@"
}
signs() {
    echo text >"$WORK/text"
    openssl dgst -sha256 -sign trustpoint://tls-server -out "$WORK/signature" "$WORK/text" &&
        openssl pkey -in trustpoint://tls-server -pubout -out "$WORK/public.pem" &&
        plain openssl dgst -sha256 -verify "$WORK/public.pem" -signature "$WORK/signature" \
            "$WORK/text"
}
unchanged() {
    ok "$1: nothing was changed" reader --before "$PRIVATE/before" --changed nothing --no-open
}
restore() {
    tpk restore --password-file "${1:-$PASSWORD_FILE}"
}
# recovery_key FILE: a slot for a new one, which stands in FILE.
recovery_key() {
    (umask 077 && tpk slot add recovery >"$1" 2>"$OUT" </dev/null)
}
# slot_of KIND: its id.
slot_of() {
    tpk slots --json 2>>"$OUT" | KIND=$1 python3 -c 'import json, os, sys
print(next(slot["id"] for slot in json.load(sys.stdin) if slot["kind"] == os.environ["KIND"]))'
}
# labels: of all AES keys on the token.
labels() {
    PIN=$(tr -d '\n' <"$PIN_FILE") plain pkcs11-tool --module "$SOFTHSM" --login --pin env:PIN \
        --token-label Trustpoint-SoftHSM --list-objects --type secrkey 2>>"$OUT" |
        sed -n 's/^ *label: *//p' | sort
}
# lose_trustpoint_kek: the only AES key without an id goes.
lose_trustpoint_kek() {
    PIN=$(tr -d '\n' <"$PIN_FILE") plain pkcs11-tool --module "$SOFTHSM" --login --pin env:PIN \
        --token-label Trustpoint-SoftHSM --delete-object --type secrkey --label "$1" \
        >>"$OUT" 2>&1
}

new_postgresql

# ---- 0.4 and 0.5: Trustpoint's own backup password ----------------------------------------------

for engine in sqlite postgresql; do
    for sample in legacy-0.5-kek-lost legacy-0.4; do
        name="$sample, $engine"
        use "$DATA/$sample" "$engine"
        [ "$sample" = legacy-0.5-kek-lost ] || lose_trustpoint_kek trustpoint-kek
        quietly reader --dump "$PRIVATE/before" || true
        state_is "$name: before" kek-missing
        password
        ok "$name: dry run" tpk restore --dry-run
        unchanged "$name: dry run"
        fails "$name: wrong password" 77 "password" restore "$WRONG"
        fails "$name: no token is ever initialised" 77 "never initialised" tpk restore \
            --init-token --so-pin-source "file:$DB/so-pin.txt" --password-file "$PASSWORD_FILE"
        unchanged "$name: wrong password"
        password $'  correct horse battery staple\n\n'
        ok "$name: restore" restore
        restored "$name" --password "$PASSWORD_FILE"
        ok "$name: again: nothing to do" restore
        says "$name: again: it says so" "nothing to restore"
    done
done

# On PostgreSQL with exactly the rights that postgresql-roles.sql gives.
for sample in legacy-0.5-kek-lost current-0.6; do
    name="roles, $sample"
    use "$DATA/$sample" postgresql
    password
    if [ "$sample" = current-0.6 ]; then
        ok "$name: add a password" tpk slot add password --new-password-file "$PASSWORD_FILE" \
            --kdf-memory 8 --kdf-passes 1
        lose_trustpoint_kek trustpoint-app-secret-kek
        quietly reader --dump "$PRIVATE/before" || true
    fi
    ok "$name: the file of grants" psql -qX -h "$PG_DIR" -U postgres -d trustpoint \
        -v schema=public -f "$ROOT/store/postgresql-roles.sql"
    for role in reader restorer; do
        sql postgres "DROP ROLE IF EXISTS only_$role" 2>>"$OUT"
        sql postgres "CREATE ROLE only_$role LOGIN IN ROLE tpks_$role"
    done
    sed -i "s, user=postgres , user=only_reader ," "$CONFIG"
    fails "$name: a reader does not restore" 77 "" restore
    unchanged "$name: a reader"
    sed -i "s, user=only_reader , user=only_restorer ," "$CONFIG"
    ok "$name: a restorer restores" restore
    sed -i "s, user=only_restorer , user=only_reader ," "$CONFIG"
    restored "$name"
done

# In a load, with the password from a file that the configuration names.
use "$DATA/legacy-0.5-kek-lost" sqlite "restore = file:$PRIVATE/password"
password
ok "in a load: the key is loaded" signs
restored "in a load"
use "$DATA/legacy-0.5-kek-lost" sqlite
fails "in a load without a source" any "trustpoint-keystore restore" signs
unchanged "in a load without a source"
ok "in a load, asked for by openssl" openssl pkey -in trustpoint://tls-server -noout \
    -passin "file:$PASSWORD_FILE"
restored "asked for by openssl"

# The row that names the KEK is missing, or Trustpoint's token is a new one.
variant no-kek-row --from legacy-0.5 --no-kek-row --kek lost
use "$FOLDER" sqlite
password
ok "no row for the KEK: restore" restore
restored "no row for the KEK"
use "$DATA/legacy-0.5" sqlite
rm -rf -- "$DB"/tokens/*
fails "the token is gone" 69 "" restore
plain softhsm2-util --init-token --free --label Trustpoint-SoftHSM \
    --so-pin "$(tr -d '\n' <"$DB/so-pin.txt")" --pin "$(tr -d '\n' <"$PIN_FILE")" >>"$OUT" 2>&1
ok "a new token: restore" restore
state_is "a new token" unlocked
ok "a new token: a key signs" signs
same "a new token: one KEK" trustpoint-kek "$(labels)"

# ---- another key has the label ------------------------------------------------------------------

expected=several
for generation in legacy current; do
    sample=legacy-0.5
    [ "$generation" = legacy ] || sample=current-0.6
    variant "$generation-duplicate" --from "$sample" --kek duplicate
    use "$FOLDER" sqlite
    quietly reader --dump "$PRIVATE/before" || true
    [ "$generation" = legacy ] || expected="slot add password"
    fails "$generation: two keys: refused" any "$expected" restore
    fails "$generation: two keys: before a password is tried" any "$expected" restore "$WRONG"
    fails "$generation: two keys: or asked for" any "$expected" tpk restore
    fails "$generation: two keys: --dry-run says so" any "$expected" tpk restore --dry-run
    unchanged "$generation: two keys"
done
variant legacy-foreign --from legacy-0.5 --kek foreign
use "$FOLDER" sqlite "restore = file:$PRIVATE/password"
password
state_is "foreign KEK: before" kek-foreign
fails "foreign KEK: not in a load" any "" signs
unchanged "foreign KEK: not in a load"
ok "foreign KEK: restore" restore
restored "foreign KEK"
same "foreign KEK: it is kept, aside" 1 "$(labels | grep -c '^trustpoint-kek.replaced-')"
same "foreign KEK: one has the label" 1 "$(labels | grep -cx trustpoint-kek)"

# ---- 0.6: our own slots beside the database -----------------------------------------------------

KEK=trustpoint-app-secret-kek
for engine in sqlite postgresql; do
    name="0.6, $engine"
    use "$DATA/current-0.6" "$engine"
    password
    fails "$name: no way back yet" any "" tpk slot test --password-file "$PASSWORD_FILE"
    ok "$name: add a password" tpk slot add password --new-password-file "$PASSWORD_FILE" \
        --kdf-memory 8 --kdf-passes 1
    recovery_key "$PRIVATE/recovery" || fail "$name: add a recovery key"
    ok "$name: the password is proven" tpk slot test --password-file "$PASSWORD_FILE"
    ok "$name: the recovery key is proven" tpk slot test --password-file "$PRIVATE/recovery"
    fails "$name: a wrong one is not" 77 "" tpk slot test --password-file "$WRONG"
    ok "$name: slots" tpk slots
    says "$name: slots shows ours" "recovery"
    unchanged "$name: adding slots"
    lose_trustpoint_kek "$KEK"
    quietly reader --dump "$PRIVATE/before" || true
    state_is "$name: the KEK is gone" kek-missing
    fails "$name: wrong password" 77 "" restore "$WRONG"
    unchanged "$name: wrong password"
    ok "$name: restore" restore
    restored "$name"
    lose_trustpoint_kek "$KEK"
    ok "$name: restore with the recovery key" restore "$PRIVATE/recovery"
    restored "$name: recovery key"
    (umask 077 && echo "another fine password" >"$PRIVATE/password2")
    ok "$name: another password" tpk password change --password-file "$PASSWORD_FILE" \
        --new-password-file "$PRIVATE/password2" --kdf-memory 8 --kdf-passes 1
    ok "$name: the new password is proven" tpk slot test --password-file "$PRIVATE/password2"
    fails "$name: the old one is not" 77 "" tpk slot test --password-file "$PASSWORD_FILE"
    slot=$(slot_of password)
    ok "$name: remove it" tpk slot remove "$slot" --yes
    fails "$name: the last one stays" 77 "last" tpk slot remove "$(slot_of recovery)" --yes
done
use "$DATA/current-0.6-kek-lost" sqlite
fails "0.6 without a slot of ours: nothing can be done, and it says what was to do" any \
    "slot add password" restore
unchanged "0.6 without a slot of ours"
for protection in cwrap-pad enc-cbc-pad enc-cbc; do
    variant "$protection" --from current-0.6 --dek-protection "$protection"
    use "$FOLDER" sqlite
    ok "$protection: add a password" tpk slot add password --new-password-file "$PASSWORD_FILE" \
        --kdf-memory 8 --kdf-passes 1
    lose_trustpoint_kek "$KEK"
    quietly reader --dump "$PRIVATE/before" || true
    ok "$protection: restore" restore
    restored "$protection"
done

# Slots for a DEK that Trustpoint has replaced since: those of any other keystore are such.
use "$DATA/current-0.6" sqlite
unprintable() {
    tpk slot add recovery >/dev/full
}
fails "the first recovery key beside it can't be printed" 71 "taken back" unprintable
same "so there is none" 0 "$(tpk slots --json 2>>"$OUT" | grep -c '"recovery"' || true)"
recovery_key "$PRIVATE/recovery" || fail "another DEK: slots"
mkdir -m 0700 "$PRIVATE/other"
printf '[keystore]\nstore = sqlite:%s/keystore.db\nstate = %s/state\n' "$PRIVATE/other" \
    "$PRIVATE/other" >"$PRIVATE/other.cnf"
for arguments in "init --software --password-file $PASSWORD_FILE --kdf-memory 8 --kdf-passes 1" \
    "header backup $PRIVATE/other/slots.db"; do
    # shellcheck disable=SC2086
    ok "another DEK: ${arguments%% -*}" "$KEYSTORE_COMMAND" --config "$PRIVATE/other.cnf" $arguments
done
cp "$PRIVATE/other/slots.db" "$(echo "$PRIVATE"/state/*.slots.db)"
fails "another DEK: it says that Trustpoint has made a new one" 65 "made a new one" \
    tpk slot test --password-file "$PASSWORD_FILE"
ID=$(tpk slots --json 2>>"$OUT" | python3 -c "import json, sys
print(next(s['id'] for s in json.load(sys.stdin) if s['kind'] == 'password'))")
fails "another DEK: putting slots aside is no removal" 66 "kept in" tpk slot remove "$ID" --yes
cp "$PRIVATE/other/slots.db" "$(echo "$PRIVATE"/state/*.slots.db)"
ok "another DEK: adding one puts the old slots aside" tpk slot add password \
    --new-password-file "$PASSWORD_FILE" --kdf-memory 8 --kdf-passes 1
ok "another DEK: the new slot opens it" tpk slot test --password-file "$PASSWORD_FILE"

# ---- slots beside the database in a bad state ----------------------------------------------------

add_password() {
    tpk slot add password --new-password-file "$PRIVATE/ours" --kdf-memory 8 --kdf-passes 1
}
(umask 077 && echo "another fine password" >"$PRIVATE/ours")
for size in 0 5000; do
    name="slots beside it are $size bytes of nothing"
    use "$DATA/legacy-0.5" sqlite
    password
    ok "$name: add a password" add_password
    says "$name: where it lies is said" "back that up"
    slots=$(echo "$PRIVATE"/state/*.slots.db)
    head -c "$size" /dev/urandom >"$slots"
    state_is "$name: the rest is well" unlocked
    fails "$name: slots says so" 65 "is damaged" tpk slots
    lose_trustpoint_kek trustpoint-kek
    quietly reader --dump "$PRIVATE/before" || true
    fails "$name: a wrong password is called that" 77 "$slots" restore "$WRONG"
    ok "$name: Trustpoint's own password restores" restore
    restored "$name"
    cp "$slots" "$PRIVATE/aside"
    ok "$name: adding one puts the file aside" add_password
    says "$name: where it is kept is said" "are kept in $slots.old"
    ok "$name: the file is kept" cmp "$slots.old" "$PRIVATE/aside"
    ok "$name: the new one opens it" tpk slot test --password-file "$PRIVATE/ours"
    echo "of somebody else" >"$slots.old.2"
    head -c 4000 /dev/urandom >"$slots"
    cp "$slots" "$PRIVATE/aside2"
    ok "$name: a second one is put aside" add_password
    says "$name: under a name of its own" "are kept in $slots.old.3"
    ok "$name: the second file is kept" cmp "$slots.old.3" "$PRIVATE/aside2"
    ok "$name: the first is as it was" cmp "$slots.old" "$PRIVATE/aside"
    same "$name: what was there, too" "of somebody else" "$(cat "$slots.old.2")"
    ok "$name: all are their owner's" sh -c \
        "[ \"\$(stat -c %a '$slots' '$slots.old' '$slots.old.3' | sort -u)\" = 600 ]"
    ok "$name: adding one more puts nothing aside" add_password
    says_not "$name: and does not say so" "are kept in"
done

# Its own DEK, but changed by someone without it: the seal tells.
name="slots beside it with a broken seal"
use "$DATA/current-0.6" sqlite
ok "$name: add a password" add_password
slots=$(echo "$PRIVATE"/state/*.slots.db)
sqlite3 "$slots" "UPDATE tpks_slot SET label = 'other'"
cp "$slots" "$PRIVATE/aside"
fails "$name: slot test names the file" 65 "$slots" tpk slot test --password-file "$PRIVATE/ours"
says "$name: and what to do" "slot add password"
says_not "$name: Trustpoint's database is not to blame" "restore the database"
ok "$name: adding one puts the file aside" add_password
says "$name: where it is kept is said" "are kept in $slots.old"
ok "$name: the file is kept" cmp "$slots.old" "$PRIVATE/aside"
ok "$name: the new one opens it" tpk slot test --password-file "$PRIVATE/ours"

# Trustpoint's own envelope is damaged, and ours is there.
use "$DATA/legacy-0.5" sqlite
ok "damaged envelope: add a password" add_password
python3 - "$DB/db.sqlite3" <<'EOT'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE management_pkcs11token SET bek_encrypted_dek = x'00'")
db.commit()
EOT
lose_trustpoint_kek trustpoint-kek
ok "damaged envelope: our password restores" restore "$PRIVATE/ours"
state_is "damaged envelope: status" unlocked

# Several at once: none is lost.
use "$DATA/current-0.6" sqlite
pids=()
for i in 1 2 3 4; do
    (umask 077 && echo "fine password number $i" >"$PRIVATE/ours$i")
    tpk slot add password --new-password-file "$PRIVATE/ours$i" --kdf-memory 8 --kdf-passes 1 \
        >"$PRIVATE/added$i" 2>&1 </dev/null &
    pids+=($!)
done
for i in 1 2 3 4; do
    if wait "${pids[i - 1]}"; then
        ok "several at once: number $i opens it" tpk slot test --password-file "$PRIVATE/ours$i"
    else
        cat "$PRIVATE/added$i" >"$OUT"
        fail "several at once: number $i was added"
    fi
done

fails "no header to copy: what to do instead" 69 "back the whole database up" \
    tpk header backup "$PRIVATE/header.db"

for sample in legacy-0.5-software current-0.6-software; do
    use "$DATA/$sample" sqlite
    fails "$sample: a password is of no use" 69 "without an HSM" add_password
done

# Nothing tells a wrong DEK of 0.5 from the right one: what an earlier try left is not trusted.
use "$DATA/legacy-0.5-kek-lost" sqlite
python3 - "$DB/db.sqlite3" <<'EOT'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE pki_credentialmodel SET private_key = ''")
db.execute("UPDATE management_pkcs11token SET encrypted_dek = x''")
db.commit()
EOT
password
fails "nothing to prove it with: a wrong password" 77 "password" restore "$WRONG"
ok "nothing to prove it with: an empty value is replaced" restore
lose_trustpoint_kek trustpoint-kek
PIN=$(tr -d '\n' <"$PIN_FILE") plain pkcs11-tool --module "$SOFTHSM" --login --pin env:PIN \
    --token-label Trustpoint-SoftHSM --keygen --key-type AES:32 --label trustpoint-kek.next \
    >>"$OUT" 2>&1
fails "nothing to prove it with: a leftover KEK is not taken" 77 "password" restore "$WRONG"
ok "nothing to prove it with: restore" restore

# SoftHSM calls a key invalid while another process rewrites its file: that is no end of a restore.
build_fault() {
    local -a flags
    read -r -a flags < <(pkg-config --cflags p11-kit-1)
    "${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -shared -fPIC "${flags[@]}" -o "$WORK/fault.so" \
        "$ROOT/test/fault/p11fault.c"
}
ok "a module that fails when told to" build_fault
for function in C_SetAttributeValue C_GetAttributeValue; do
    use "$DATA/legacy-0.5-kek-lost" sqlite
    password
    sed -i "s,module-path=$SOFTHSM,module-path=$WORK/fault.so," "$CONFIG"
    rm -f "$WORK/calls"
    ok "key invalid for a moment, $function" env FAULT_MODULE="$SOFTHSM" FAULT_RV=0x82 \
        FAULT_FUNCTION=$function FAULT_AT=1 FAULT_COUNT="$WORK/calls" \
        "$KEYSTORE_COMMAND" --config "$CONFIG" restore --password-file "$PASSWORD_FILE"
    ok "$function was called" grep -qxF $function "$WORK/calls"
    sed -i "s,module-path=$WORK/fault.so,module-path=$SOFTHSM," "$CONFIG"
    restored "key invalid for a moment, $function"
done

# Two hosts, which do not see each other's locks, restore at once: here one with another state folder.
for engine in sqlite postgresql; do
    for round in 1 2; do
        name="two hosts, $engine, $round"
        use "$DATA/legacy-0.5-kek-lost" "$engine"
        password
        sed "s,^state = .*,state = $PRIVATE/state2," "$CONFIG" >"$PRIVATE/two.cnf"
        restore >"$PRIVATE/first" 2>&1 </dev/null &
        pid=$!
        ok "$name: the second" "$KEYSTORE_COMMAND" --config "$PRIVATE/two.cnf" restore \
            --password-file "$PASSWORD_FILE"
        if wait "$pid"; then pass "$name: the first"; else
            cat "$PRIVATE/first" >"$OUT"
            fail "$name: the first"
        fi
        restored "$name"
        same "$name: one KEK" 1 "$(labels | grep -cx trustpoint-kek)"
        same "$name: none is left on the way" 0 "$(labels | grep -c 'next$' || true)"
    done
done

# Times come as they should, whatever the server is configured to write.
use "$DATA/legacy-0.5" postgresql
sql postgres "ALTER DATABASE trustpoint SET DateStyle = 'SQL, DMY'"
state_is "another DateStyle: status" unlocked

# ---- killed on the way --------------------------------------------------------------------------

# count_calls: how many system calls that write a restore makes.
CALLS=write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink
lost_legacy() {
    use "$DATA/legacy-0.5-kek-lost" sqlite
    quietly reader --dump "$PRIVATE/before" || true
}
# killed_restore NUMBER: killed when it begins that call. The shell's word on it is for OUT as well.
killed_restore() {
    strace -f -o /dev/null -e trace=$CALLS -e "inject=$CALLS:signal=KILL:when=$1" \
        "$KEYSTORE_COMMAND" --config "$CONFIG" restore --password-file "$PASSWORD_FILE" >"$OUT" 2>&1
}
lost_legacy
strace -f -o "$PRIVATE/trace" -e trace=$CALLS "$KEYSTORE_COMMAND" --config "$CONFIG" restore \
    --password-file "$PASSWORD_FILE" >"$OUT" 2>&1
calls=$(grep -c . "$PRIVATE/trace")
points=10
[ "$FULL" != 1 ] || points=$calls
RANDOM=$((SEED % 32768))
killed=0
for ((i = 1; i <= points; i++)); do
    point=$i
    [ "$FULL" = 1 ] || point=$(((i - 1) * calls / points + RANDOM % (calls / points + 1) + 1))
    lost_legacy
    killed_restore "$point" 2>>"$OUT" || killed=$((killed + 1))
    if ! plain softhsm2-util --show-slots | grep Trustpoint-SoftHSM >/dev/null; then
        # SoftHSM loses its token when it is killed inside a login: Trustpoint makes a new one.
        rm -rf -- "$DB"/tokens/*
        plain softhsm2-util --init-token --free --label Trustpoint-SoftHSM \
            --so-pin "$(tr -d '\n' <"$DB/so-pin.txt")" --pin "$(tr -d '\n' <"$PIN_FILE")" \
            >>"$OUT" 2>&1
    fi
    ok "killed at call $point of $calls: the next restore ends it" restore
    state_is "killed at call $point: status" unlocked
    ok "killed at call $point: a key signs" signs
    same "killed at call $point: one key has the label" 1 "$(labels | grep -cx trustpoint-kek)"
done
ok "the kills were kills" [ "$killed" -gt $((points / 2)) ]
finish
