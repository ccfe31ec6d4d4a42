#!/bin/bash
# postgresql_store.sh - keystores in PostgreSQL: every way in which a server can fail has its own
# error, roles have exactly the rights of postgresql-roles.sql, a fleet of hosts shares a keystore
# and restores its slots alone, keystores move between engines; and the other tests of keystores
# run on this engine
set -euo pipefail
ENGINE=postgresql
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CHEAP=(--kdf-memory 8 --kdf-passes 1)
READER=$PRIVATE/reader.cnf

# The other tests on this engine: mostly waiting, so at the same time as this one, in rows. Most of
# the time of races goes into making keys: fewer do here.
LOGS=$WORK/suites
mkdir "$LOGS"
ROWS=("restore" "slots token_key json" "command attacks import_trustpoint"
    "unlock kdf server_config drill" "races")
row() {
    local suite
    for suite in "$@"; do
        bash "$ROOT/test/integration/$suite.sh" >"$LOGS/$suite" 2>&1 || true
    done
}
export -f row
for row in "${ROWS[@]}"; do
    # shellcheck disable=SC2086
    start "$LOGS/row" env ENGINE=postgresql KEYS=50 STAGE="$STAGE" SEED="$SEED" ROOT="$ROOT" \
        LOGS="$LOGS" bash -c 'row "$@"' - $row
    ROW_PIDS+=("$PID")
done

# at CONNINFO COMMAND...: the command with this store in place of the test's own.
at() {
    local connection=$1 file=$PRIVATE/at.cnf
    shift
    sed "s|^store = .*|store = postgresql:$connection|" "$CONFIG" >"$file"
    chmod 0600 "$file"
    "$KEYSTORE_COMMAND" --config "$file" "$@"
}
# only_line: the last command wrote nothing but its own message.
only_line() {
    same "$1: nothing else is written" 0 "$(grep -cv '^trustpoint-keystore: ' "$OUT" || true)"
}
json() {
    local expression=$1
    shift
    "$@" --json 2>>"$OUT" | python3 -c "import json, sys; j = json.load(sys.stdin); print($expression)"
}

new_postgresql "password_encryption = scram-sha-256"
HERE="host=$PG_DIR dbname=keystore user=keeper"
new_token web

echo "-- a new keystore"
write_keystore_cnf
fails "nothing there" 78 "trustpoint-keystore init" tpk list
says "the database is named" "database keystore on $PG_DIR"
mkdir -m 0755 "$PRIVATE/services"
printf '[trustpoint]\nhost=%s\ndbname=keystore\nuser=keeper\n' "$PG_DIR" >"$PRIVATE/services/pg_service.conf"
rm "$CONFIG"
(umask 077 && random_text 16 >"$PASSWORD_FILE")
ok "init --store postgresql:service=trustpoint" env PGSERVICEFILE="$PRIVATE/services/pg_service.conf" \
    "$KEYSTORE_COMMAND" --config "$CONFIG" init --store postgresql:service=trustpoint \
    --token "$TOKEN_URI" --state "$PRIVATE/state" --password-file "$PASSWORD_FILE" "${CHEAP[@]}"
fails "without the service file" 78 'definition of service "trustpoint" not found' tpk list
ok "with it" env PGSERVICEFILE="$PRIVATE/services/pg_service.conf" "$KEYSTORE_COMMAND" \
    --config "$CONFIG" list
write_keystore_cnf
fails "a second init" 73 "already" tpk init --password-file "$PASSWORD_FILE" "${CHEAP[@]}"
openssl_cnf
keystore_key web
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
ok "the provider loads the key" openssl pkey -in trustpoint://web -noout
ok "a stub loads it" openssl req -new -key "$WORK/rsa.stub" -subj /CN=x -out /dev/null
ok "verify" tpk verify
ok "doctor" tpk doctor
# A session's process ends a moment after its client.
no_session() {
    [ "$(sql keystore "SELECT count(*) FROM pg_stat_activity WHERE usename = 'keeper'")" = 0 ]
}
ok "no session is left" wait_for "the end of the last one" no_session
loads_libpq() {
    plain env OPENSSL_CONF="$OPENSSL_CONF" strace -f -e trace=openat \
        openssl pkey -in trustpoint://web -noout 2>&1 | grep libpq >/dev/null
}
ok "libpq is loaded for it" loads_libpq
ENGINE=sqlite write_keystore_cnf
ok "a keystore in SQLite loads no libpq" not loads_libpq
write_keystore_cnf

echo "-- connections that do not come to be"
fails "no server" 69 "is the server running" at "host=$WORK/nowhere dbname=keystore" list
only_line "no server"
fails "nobody listens" 69 "is the server running" \
    at "host=127.0.0.1 port=$(free_port) dbname=keystore" list
mkdir "$WORK/silent"
start "$WORK/silent.log" python3 -c "
import signal, socket
s = socket.socket(socket.AF_UNIX)
s.bind('$WORK/silent/.s.PGSQL.5432')
s.listen(8)
print('listens', flush=True)
signal.pause()"
SILENT=$PID
wait_for_line "$WORK/silent.log" listens
fails "a server that never answers" 69 "no answer within 2 s" \
    at "host=$WORK/silent dbname=keystore connect_timeout=2" list
stop "$SILENT"
fails "an unknown word" 78 'invalid connection option' at "hots=$PG_DIR" list
fails "an impossible port" any 'port' at "host=$PG_DIR port=99999" list
fails "an unknown sslmode" 78 'sslmode' at "host=$PG_DIR sslmode=perhaps" list
fails "a password in the configuration" 78 ".pgpass" at "$HERE password=geheim" list
says_not "it is not repeated" geheim
fails "an unknown database" 78 "no such database" at "host=$PG_DIR dbname=nothing user=keeper" list
fails "an unknown role" 77 "does not let this role in" at "host=$PG_DIR dbname=keystore user=nobody1" list

echo "-- passwords"
sql postgres "CREATE ROLE secretive LOGIN PASSWORD 'correct horse'; GRANT keeper TO secretive"
sed -i '1i local all secretive scram-sha-256' "$PG_DIR/data/pg_hba.conf"
sql postgres "SELECT pg_reload_conf()" >>"$OUT"
SECRETIVE="host=$PG_DIR dbname=keystore user=secretive"
passfile() {
    (umask 077 && echo "*:*:*:secretive:$1" >"$PRIVATE/pgpass")
}
wait_for "the new pg_hba.conf" not sql keystore "SELECT 1" secretive
fails "the server wants a password" 77 "PGPASSFILE" at "$SECRETIVE passfile=$PRIVATE/none" list
passfile "wrong staple"
fails "a wrong password" 77 "refused the password" at "$SECRETIVE passfile=$PRIVATE/pgpass" list
says_not "it is not shown" staple
passfile "correct horse"
ok "passfile=" at "$SECRETIVE passfile=$PRIVATE/pgpass" list
ok "PGPASSFILE" env PGPASSFILE="$PRIVATE/pgpass" "$KEYSTORE_COMMAND" --config "$PRIVATE/at.cnf" list
chmod 0644 "$PRIVATE/pgpass"
fails "a password file that others can read" 77 "chmod 0600" \
    at "$SECRETIVE passfile=$PRIVATE/pgpass" list
only_line "a password file that others can read"
printf '[with]\nhost=%s\ndbname=keystore\nuser=secretive\npassword=correct horse\n' "$PG_DIR" \
    >"$PRIVATE/services/pg_service.conf"
chmod 0600 "$PRIVATE/services/pg_service.conf"
at service=with list >"$OUT" 2>&1 || true
ok "a service file" env PGSERVICEFILE="$PRIVATE/services/pg_service.conf" "$KEYSTORE_COMMAND" \
    --config "$PRIVATE/at.cnf" list

echo "-- what is in the database"
sql postgres "CREATE DATABASE other OWNER keeper"
OTHER="host=$PG_DIR dbname=other user=keeper"
fails "a schema that is not there" 78 "CREATE SCHEMA" at "$OTHER options=-csearch_path=edge" list
sql other 'CREATE SCHEMA edge AUTHORIZATION keeper; CREATE SCHEMA "Two Words" AUTHORIZATION keeper'
fails "an empty schema" 78 "there is no keystore" at "$OTHER options=-csearch_path=edge" list
ok "a keystore in a schema of its own" at "$OTHER options=-csearch_path=edge" init \
    --password-file "$PASSWORD_FILE" "${CHEAP[@]}"
ok "it is there" at "$OTHER options=-csearch_path=edge" status
fails "and nowhere else" 78 "there is no keystore" at "$OTHER" list
fails "two schemas" 78 "lives in one schema" at "$OTHER options=-csearch_path=edge,public" list
sql other 'CREATE SCHEMA "edge-1" AUTHORIZATION keeper'
fails "a schema's name with other characters" 78 "there is no keystore" \
    at "$OTHER options=-csearch_path=Edge-1" list
says "the schema is named" "schema edge-1"
fails "an impossible timeout" 78 "correct options=" at "$OTHER options=-clock_timeout=soon" list
sql other "CREATE SCHEMA closed"
fails "a schema without USAGE" 77 "GRANT USAGE ON SCHEMA" at "$OTHER options=-csearch_path=closed" list
sql other "GRANT USAGE ON SCHEMA closed TO keeper"
fails "init without CREATE" 77 "GRANT CREATE ON SCHEMA" \
    at "$OTHER options=-csearch_path=closed" init --password-file "$PASSWORD_FILE" "${CHEAP[@]}"
sql other "CREATE TABLE public.t (a int)"
fails "another program's database" 65 "other program" at "$OTHER" list
fails "no keystore is made beside it" 65 "other program" \
    at "$OTHER" init --password-file "$PASSWORD_FILE" "${CHEAP[@]}"
keystore_sql "UPDATE tpks_mark SET format = 99"
fails "a newer format" 78 "newer version" tpk list
keystore_sql "UPDATE tpks_mark SET format = 1"
keystore_sql "ALTER TABLE tpks_record RENAME TO away"
fails "a table is missing" 69 "restore it from a backup" tpk list
keystore_sql "ALTER TABLE away RENAME TO tpks_record"
keystore_sql "UPDATE tpks_record SET name = 'rsa2' WHERE name = 'rsa'; UPDATE tpks_record SET name = 'rsa' WHERE name = 'web'"
fails "two records exchanged" 1 "" openssl pkey -in trustpoint://rsa -noout
keystore_sql "UPDATE tpks_record SET name = 'web' WHERE name = 'rsa'; UPDATE tpks_record SET name = 'rsa' WHERE name = 'rsa2'"
keystore_sql "ALTER TABLE tpks_record ENABLE ROW LEVEL SECURITY; ALTER TABLE tpks_record FORCE ROW LEVEL SECURITY"
fails "rows that a policy hides" any "row-level security" tpk list
keystore_sql "ALTER TABLE tpks_record NO FORCE ROW LEVEL SECURITY; ALTER TABLE tpks_record DISABLE ROW LEVEL SECURITY"
ok "all of that is undone" tpk verify

echo "-- a server in trouble"
sql postgres "CREATE ROLE crowd LOGIN CONNECTION LIMIT 0"
fails "too many connections" 69 "too many connections" at "host=$PG_DIR dbname=keystore user=crowd" list
only_line "too many connections"
# Without the wait before: the session of the lock is there when its transaction is.
start "$WORK/locker" psql -XAtq -h "$PG_DIR" -U postgres -d keystore -c "BEGIN" \
    -c "LOCK TABLE tpks_record" -c "SELECT 'locked'" -c "SELECT pg_sleep(600)"
LOCKER=$PID
wait_for_line "$WORK/locker" locked
fails "locked by another session" 69 "lock_timeout" at "$HERE options=-clock_timeout=300ms" list
fails "a statement that takes too long" 69 "statement_timeout" \
    at "$HERE options=-cstatement_timeout=300ms" list
sql keystore "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()" >>"$OUT"
stop "$LOCKER"
ok "and free again" tpk list
stop_postgresql
fails "the server is down" 69 "is the server running" tpk list
fails "programs are told" 1 "is the server running" openssl pkey -in trustpoint://web -noout
start_postgresql
ok "it is up again" openssl pkey -in trustpoint://web -noout

echo "-- roles"
grants() {
    psql -Xq -h "$PG_DIR" -U postgres -d "${1:-keystore}" -v schema=public \
        -f "$ROOT/store/postgresql-roles.sql"
}
ok "postgresql-roles.sql" grants
ok "once more" grants
for role in reader restorer administrator; do
    sql postgres "CREATE ROLE a_$role LOGIN IN ROLE tpks_$role"
done
as() {
    local role=$1
    shift
    at "host=$PG_DIR dbname=keystore user=a_$role" "$@"
}
program_as() {
    local role=$1
    shift
    as "$role" list >>"$OUT" 2>&1
    cp "$PRIVATE/at.cnf" "$READER"
    TRUSTPOINT_KEYSTORE_CONF=$READER plain env OPENSSL_CONF="$PRIVATE/reader-openssl.cnf" "$@"
}
example_to_openssl_cnf "$ROOT/openssl.cnf.example" "$MODULES/trustpoint.so" "$READER" \
    >"$PRIVATE/reader-openssl.cnf"
ok "a reader lists" as reader list
ok "a reader loads" program_as reader openssl pkey -in trustpoint://web -noout
ok "a reader verifies" as reader verify
ok "a reader makes a backup" as reader backup "$PRIVATE/by-reader.db"
sql keystore "CREATE ROLE a_stranger LOGIN"
fails "a stranger" 77 "as role a_stranger" as stranger list
sql keystore "GRANT USAGE ON SCHEMA public TO a_stranger; GRANT SELECT ON tpks_mark, tpks_header, tpks_dek, tpks_slot, tpks_wrap TO a_stranger"
fails "a missing grant: the table is named" 77 "tpks_record" as stranger list
BEFORE=$(keystore_digest)
for command in "generate new" "delete web --yes" "rename web www" "slot add recovery" \
    "rotate-kek" "restore"; do
    # shellcheck disable=SC2086
    fails "a reader: $command" 77 "as role a_reader" as reader $command
done
says "and which role would do" "postgresql-roles.sql"
ok "a restorer loads" program_as restorer openssl pkey -in trustpoint://web -noout
fails "a restorer adds no record" 77 "tpks_record" as restorer generate new
fails "a restorer deletes none" 77 "tpks_record" as restorer delete web --yes
fails "a restorer renames none" 77 "tpks_record" as restorer rename web www
same "nobody changed anything" "$BEFORE" "$(keystore_digest)"
ok "an administrator adds" as administrator generate new
ok "renames" as administrator rename new newer
ok "deletes" as administrator delete newer --yes
ok "adds a password" as administrator slot add recovery
tpk header backup "$PRIVATE/header" >>"$OUT" 2>&1
ok "puts the header back" as administrator header restore "$PRIVATE/header"
fails "drops no table" any "owner" sql keystore "DROP TABLE tpks_wrap" a_administrator
lose_kek
fails "KEK lost: a reader's program cannot restore" any "postgresql-roles.sql" \
    program_as reader openssl pkey -in trustpoint://web -noout -passin "file:$PASSWORD_FILE"
ok "KEK lost: a restorer restores" as restorer restore --password-file "$PASSWORD_FILE"
ok "and the reader loads" program_as reader openssl pkey -in trustpoint://web -noout
lose_kek
ok "KEK lost: a restorer's program does" program_as restorer openssl pkey -in trustpoint://web \
    -noout -passin "file:$PASSWORD_FILE"

echo "-- a fleet"
# host NAME COMMAND...: a host with its own token and state.
host() {
    local name=$1
    shift
    "$KEYSTORE_COMMAND" --config "$PRIVATE/$name/keystore.cnf" "$@"
}
for name in ham bre kie; do
    new_token "$name"
    mkdir -m 0700 "$PRIVATE/$name" "$PRIVATE/$name/state"
    printf '[keystore]\nstore = postgresql:%s\ntoken = %s\nstate = %s\n' "$HERE" "$TOKEN_URI" \
        "$PRIVATE/$name/state" >"$PRIVATE/$name/keystore.cnf"
    chmod 0600 "$PRIVATE/$name/keystore.cnf"
    ok "$name: slot add hsm" host "$name" slot add hsm --password-file "$PASSWORD_FILE"
    ok "$name: loads with its own token" host "$name" verify
done
active() {
    json "sum(s['kind'] == 'hsm-aes' and s['state'] == 'active' for s in j)" tpk slots
}
same "four hosts, four slots" 4 "$(active)"
lose() {
    PIN_FILE=$PRIVATE/$1.pin lose_kek
}
lose bre
fails "bre has lost its KEK" 75 "" host bre status
ok "ham goes on" host ham verify
ok "bre restores alone" host bre restore --password-file "$PASSWORD_FILE"
ok "bre loads again" host bre verify
ok "kie never noticed" host kie verify
same "still four slots" 4 "$(active)"
GENERATION=$(json "j['generation']" tpk status)
for name in ham bre kie; do
    lose "$name"
done
for name in ham bre kie; do
    start "$WORK/$name.restore" "$KEYSTORE_COMMAND" --config "$PRIVATE/$name/keystore.cnf" restore \
        --password-file "$PASSWORD_FILE"
    HOSTS+=("$PID")
done
for pid in "${HOSTS[@]}"; do
    wait "$pid" || fail "a restore" "$(cat "$WORK"/*.restore)"
    unset "STARTED[$pid]"
done
same "three at once: three restores" 3 "$(cat "$WORK"/*.restore | grep -c '^trustpoint-keystore: restored')"
for name in ham bre kie; do
    ok "$name loads again" host "$name" verify
done
same "no update was lost" $((GENERATION + 6)) "$(json "j['generation']" tpk status)"
same "still four active slots" 4 "$(active)"
PIN_FILE=$PRIVATE/web.pin
TOKEN_URI="pkcs11:token=web?module-path=$SOFTHSM&pin-source=file:$PIN_FILE"

echo "-- writers at once, readers beside them"
write_many() {
    seq 12 | xargs -P 6 -I '{}' "$KEYSTORE_COMMAND" --config "$CONFIG" generate 'writer{}' --type ec:P-256
}
read_many() {
    seq 12 | xargs -P 3 -I '{}' openssl pkey -in trustpoint://web -noout
}
read_many >"$WORK/readers" 2>&1 &
READERS=$!
ok "12 writers, 6 at a time" write_many
same "all their records are there" 12 "$(tpk list | grep -c writer)"
ok "12 readers" wait "$READERS"
ok "verify" tpk verify

echo "-- from one engine to the other"
ok "backup" tpk backup "$PRIVATE/copy.db"
same "mode 0600" 600 "$(stat -c %a "$PRIVATE/copy.db")"
fails "not onto a file that is there" 73 "" tpk backup "$PRIVATE/copy.db"
sed "s,^store = .*,store = sqlite:$PRIVATE/copy.db," "$CONFIG" >"$PRIVATE/copy.cnf"
chmod 0600 "$PRIVATE/copy.cnf"
ok "the copy is a keystore in SQLite" "$KEYSTORE_COMMAND" --config "$PRIVATE/copy.cnf" verify
same "with the same list" "$(tpk list)" "$("$KEYSTORE_COMMAND" --config "$PRIVATE/copy.cnf" list)"
sql postgres "CREATE DATABASE back OWNER keeper"
BACK="host=$PG_DIR dbname=back user=keeper"
ok "and moves into another database" "$KEYSTORE_COMMAND" --config "$PRIVATE/copy.cnf" backup \
    "postgresql:$BACK"
ok "where it works" at "$BACK" verify
fails "but not twice" 73 "" "$KEYSTORE_COMMAND" --config "$PRIVATE/copy.cnf" backup "postgresql:$BACK"
"$(pg_program pg_dump)" -Fc -h "$PG_DIR" -U postgres -f "$WORK/dump" keystore
sql postgres "CREATE DATABASE dumped"
ok "pg_dump and pg_restore" "$(pg_program pg_restore)" -h "$PG_DIR" -U postgres -d dumped "$WORK/dump"
ok "what they made works" at "host=$PG_DIR dbname=dumped user=postgres" verify

echo "-- killed, or cut off, at every word with the server"
# A software keystore, for SoftHSM itself does not survive every kill.
sql postgres "CREATE DATABASE soft OWNER keeper"
mkdir -m 0700 "$PRIVATE/soft"
printf '[keystore]\nstore = postgresql:host=%s dbname=soft user=keeper\nstate = %s\n' "$PG_DIR" \
    "$PRIVATE/soft" >"$PRIVATE/soft.cnf"
chmod 0600 "$PRIVATE/soft.cnf"
soft() {
    "$KEYSTORE_COMMAND" --config "$PRIVATE/soft.cnf" "$@"
}
ok "a software keystore" soft init --software --password-file "$PASSWORD_FILE" "${CHEAP[@]}"
# sweep CALL FAULT: generate, with the fault at the first CALL, the second, ... until one run is
# through without it. Says how often it was done, and how often it ended other than it said.
sweep() {
    local n code there odd=0
    for ((n = 1; n < 60; n++)); do
        code=0
        { strace -f -o "$WORK/trace" -e trace="$1" -e inject="$1:$2:when=$n" "$KEYSTORE_COMMAND" \
            --config "$PRIVATE/soft.cnf" generate "$1$n" --type ec:P-256 >"$WORK/sweep" 2>&1; } \
            2>>"$OUT" || code=$?
        there=$(soft list | grep -c "^$1$n " || true)
        # A kill after the commit leaves the new state, before it the old one; both are right.
        [ "$code" = 137 ] || [ "$code$there" = 01 ] || [ "$code$there" = 690 ] || {
            odd=$((odd + 1))
            echo "$1 $n: exit code $code, there: $there" >>"$OUT"
            cat "$WORK/sweep" >>"$OUT"
        }
        grep -q INJECTED "$WORK/trace" || [ "$code" = 137 ] || break
    done
    echo "$n $odd"
}
# swept NAME CALL FAULT
swept() {
    local times odd
    : >"$OUT"
    read -r times odd < <(sweep "$2" "$3")
    same "$1, $times times: each run ended as it said" 0 "$odd"
    ok "$1: all of them were reached" [ $((times > 15 && times < 60)) = 1 ]
    ok "$1: every record is right" soft verify
}
swept "killed" sendto "signal=KILL"
swept "cut off" recvfrom "error=ECONNRESET"

echo "-- init, cut off when the server has committed"
# A commit that waits for a standby that is not there: the server has it, and has not said so.
hold_commits() {
    sql postgres "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"
    sql postgres "SELECT pg_reload_conf()" >>"$OUT"
    wait_for "commits wait" commits_wait
}
commits_wait() {
    [ "$(sql postgres "SHOW synchronous_standby_names")" = nobody ]
}
let_commits_go() {
    sql postgres "ALTER SYSTEM RESET synchronous_standby_names"
    sql postgres "SELECT pg_reload_conf()" >>"$OUT"
}
is_held() {
    [ -n "$(sql postgres "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")" ]
}
# cut_off_init NAME OPTION...: its exit code in CODE, what it said in OUT, the key in PRIVATE/NAME.key;
# with REFUSED=1 the server takes no other connection of this role then.
cut_off_init() {
    local name=$1
    shift
    sql postgres "CREATE DATABASE $name OWNER keeper"
    mkdir -m 0700 "$PRIVATE/$name"
    printf '[keystore]\nstore = postgresql:host=%s dbname=%s user=keeper\ntoken = %s\nstate = %s\n' \
        "$PG_DIR" "$name" "$TOKEN_URI" "$PRIVATE/$name" >"$PRIVATE/$name.cnf"
    chmod 0600 "$PRIVATE/$name.cnf"
    hold_commits
    start "$PRIVATE/$name.log" "$KEYSTORE_COMMAND" --config "$PRIVATE/$name.cnf" init --recovery "$@"
    wait_for "$name: the commit waits" is_held
    [ "${REFUSED:-0}" = 0 ] ||
        sql postgres "SET synchronous_commit = local; ALTER ROLE keeper NOLOGIN"
    sql postgres "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'" >>"$OUT"
    CODE=0
    wait "$PID" || CODE=$?
    unset "STARTED[$PID]"
    let_commits_go
    sql postgres "ALTER ROLE keeper LOGIN"
    (umask 077 && grep -o 'TPRK1[-0-9a-z]*' "$PRIVATE/$name.log" >"$PRIVATE/$name.key") || true
    cp "$PRIVATE/$name.log" "$OUT"
}
# as_made NAME: the keystore is there, with all that opens it.
as_made() {
    local command
    for command in status "slot test --password-file $PRIVATE/$1.key" "generate x"; do
        # shellcheck disable=SC2086
        ok "$1: ${command%% --*}" "$KEYSTORE_COMMAND" --config "$PRIVATE/$1.cnf" $command
    done
}
for made in hsm soft_file; do
    options=()
    [ "$made" = hsm ] || options=(--software)
    cut_off_init "$made" ${options[@]+"${options[@]}"}
    same "$made: the keystore is there, so init is done" 0 "$CODE"
    as_made "$made"
    REFUSED=1 cut_off_init "${made}_unknown" ${options[@]+"${options[@]}"}
    same "$made, nobody can tell: an error" 69 "$CODE"
    says "$made, nobody can tell: that is said" "it may be there or not"
    says "$made, nobody can tell: what was left is named" "was left where it is"
    as_made "${made}_unknown"
done

echo "-- Trustpoint's databases"
# trustpoint SAMPLE: its rows in a database of ours, and a configuration for each engine and role.
trustpoint() {
    local folder=$PRIVATE/$1 database=${1//[.-]/_} file
    cp -r "$ROOT/test/data/trustpoint/$1" "$folder"
    chmod -R go= "$folder"
    printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$folder/tokens" >"$folder/softhsm2.conf"
    sql postgres "CREATE DATABASE $database"
    psql -Xq -v ON_ERROR_STOP=1 -h "$PG_DIR" -U postgres -d "$database" -f "$folder/postgres.sql" \
        >>"$OUT" 2>&1
    grants "$database" >>"$OUT" 2>&1
    for file in sqlite reader restorer; do
        printf '[keystore]\nstore = %s\nstate = %s\ntoken = %s\n' \
            "postgresql:host=$PG_DIR dbname=$database user=a_$file" "$folder/state" \
            "pkcs11:token=Trustpoint-SoftHSM?module-path=$SOFTHSM&pin-source=file:$folder/user-pin.txt" \
            >"$folder/$file.cnf"
    done
    sed -i "s|^store = .*|store = sqlite:$folder/db.sqlite3|" "$folder/sqlite.cnf"
    chmod 0600 "$folder"/*.cnf
}
# of SAMPLE CONFIGURATION COMMAND...
of() {
    local folder=$PRIVATE/$1 configuration=$2
    shift 2
    SOFTHSM2_CONF=$folder/softhsm2.conf "$KEYSTORE_COMMAND" --config "$folder/$configuration.cnf" "$@"
}
for sample in legacy-0.4 legacy-0.5 current-0.6; do
    trustpoint "$sample"
    ok "$sample: a reader verifies" of "$sample" reader verify
    same "$sample: it lists what is in SQLite" "$(of "$sample" sqlite list)" "$(of "$sample" reader list)"
    fails "$sample: nothing is written" any "" of "$sample" restorer generate new
done
trustpoint legacy-0.5-kek-lost
(umask 077 && echo "correct horse battery staple" >"$PRIVATE/trustpoint.password")
fails "KEK lost: a reader cannot restore" 77 "management_pkcs11token" of legacy-0.5-kek-lost reader \
    restore --password-file "$PRIVATE/trustpoint.password"
ok "KEK lost: a restorer restores" of legacy-0.5-kek-lost restorer restore --password-file \
    "$PRIVATE/trustpoint.password"
ok "KEK restored: the reader loads" of legacy-0.5-kek-lost reader verify

echo "-- long lists"
many() {
    keystore_sql "INSERT INTO tpks_record SELECT keystore, decode(md5(n::text), 'hex'), 'zz' || n,
        version, dek, key_type, spki, spki_sha256, policy, created, changed, seal_algorithm,
        certs_digest, token_serial, cka_id, extension, nonce, sealed
        FROM tpks_record, generate_series(1, $1) AS n WHERE name = 'writer1'"
}
peak() {
    python3 -c 'import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)' \
        "$KEYSTORE_COMMAND" --config "$CONFIG" list
}
SMALL=$(peak)
many 6000
same "every record is listed" 6000 "$(tpk list | grep -c '^zz')"
LARGE=$(peak)
echo "      list: $SMALL kB before, $LARGE kB with 6000 more records"
ok "they do not all lie in memory" test "$LARGE" -lt $((SMALL + 4000))
keystore_sql "DELETE FROM tpks_record WHERE name LIKE 'zz%'"

echo "-- a standby, and TLS"
sql postgres "CREATE ROLE certified LOGIN IN ROLE tpks_reader"
stop_postgresql
new_ca
plain_key server
cp -a "$PG_DIR/data" "$PG_DIR/standby"
touch "$PG_DIR/standby/standby.signal"
echo "port = 5433" >>"$PG_DIR/standby/postgresql.conf"
install -o postgres -g postgres -m 0600 "$PRIVATE/server.key" "$PG_DIR/data/server.key"
PORT=$(free_port)
cat >>"$PG_DIR/data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $PORT
ssl = on
ssl_cert_file = '$WORK/server.pem'
ssl_key_file = 'server.key'
ssl_ca_file = '$WORK/ca.pem'
END
sed -i '/^host/d' "$PG_DIR/data/pg_hba.conf"
cat >>"$PG_DIR/data/pg_hba.conf" <<END
hostssl keystore secretive 127.0.0.1/32 scram-sha-256
hostssl keystore certified 127.0.0.1/32 cert
END
start_postgresql
start "$WORK/standby.log" setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups \
    --reset-env env LC_ALL=C TZ=UTC "$(pg_program postgres)" -D "$PG_DIR/standby"
STANDBY_SERVER=$PID
wait_for_line "$WORK/standby.log" "ready to accept read-only connections"
STANDBY="$HERE port=5433"
ok "a standby: readers load" at "$STANDBY" verify
fails "a standby: writers are told" 69 "target_session_attrs=read-write" at "$STANDBY" generate x
lose_kek
fails "a standby: restore does not ask first" 69 "only reads" at "$STANDBY" restore
ok "both in one connection: the writer finds its server" at \
    "host=$PG_DIR,$PG_DIR port=5433,$PORT dbname=keystore user=keeper target_session_attrs=read-write" \
    restore --password-file "$PASSWORD_FILE"
stop "$STANDBY_SERVER" INT

chmod 0600 "$PRIVATE/pgpass"
TCP="host=localhost hostaddr=127.0.0.1 port=$PORT dbname=keystore user=secretive passfile=$PRIVATE/pgpass"
ok "TLS with a verified server" at "$TCP sslmode=verify-full sslrootcert=$WORK/ca.pem" list
plain openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=Other \
    -keyout "$PRIVATE/other.key" -out "$WORK/other-ca.pem" 2>>"$OUT"
fails "TLS: another CA" 69 "TLS with the server failed" \
    at "$TCP sslmode=verify-full sslrootcert=$WORK/other-ca.pem" list
only_line "TLS: another CA"
fails "TLS: another name" 69 "TLS with the server failed" \
    at "${TCP/localhost/elsewhere} sslmode=verify-full sslrootcert=$WORK/ca.pem" list
fails "TLS: no CA at all" 69 "TLS with the server failed" \
    at "$TCP sslmode=verify-full sslrootcert=$WORK/none.pem" list
fails "without TLS the server wants none of it" 77 "does not let this role in" \
    at "$TCP sslmode=disable" list
at "$TCP sslmode=verify-full sslrootcert=$WORK/ca.pem" list >>"$OUT" 2>&1
cp "$PRIVATE/at.cnf" "$READER"
ok "the provider loads over TLS" plain env TRUSTPOINT_KEYSTORE_CONF="$READER" \
    OPENSSL_CONF="$PRIVATE/reader-openssl.cnf" openssl pkey -in trustpoint://web -noout

# The client key of the connection in a keystore, too: in SQLite that works, in itself it cannot.
plain_key certified
certified() {
    printf '[keystore]\nstore = postgresql:%s\ntoken = %s\nstate = %s\n%s\nstore = sqlite:%s\nstate = %s\n' \
        "host=localhost hostaddr=127.0.0.1 port=$PORT dbname=keystore user=certified sslmode=verify-full sslrootcert=$WORK/ca.pem sslcert=$WORK/certified.pem sslkey=$1" \
        "$TOKEN_URI" "$PRIVATE/state" "[keystore_local]" "$PRIVATE/local.db" "$PRIVATE/local" >"$READER"
}
load_certified() {
    plain env TRUSTPOINT_KEYSTORE_CONF="$READER" OPENSSL_CONF="$PRIVATE/reader-openssl.cnf" \
        timeout 60 openssl pkey -in trustpoint://web -noout
}
mkdir -m 0700 "$PRIVATE/local"
certified "$PRIVATE/certified.key"
ok "a client certificate" load_certified
for command in "init --software --no-recovery" "import client $PRIVATE/certified.key" \
    "stub client --out $PRIVATE/client.stub"; do
    # shellcheck disable=SC2086
    ok "client key: $command" "$KEYSTORE_COMMAND" --config "$READER" --keystore local $command
done
chmod 0600 "$PRIVATE/client.stub" "$WORK/web.stub" # as libpq wants a key file to be
certified "$PRIVATE/client.stub"
ok "a client key from a keystore in SQLite" load_certified
certified "$WORK/web.stub"
fails "a client key from the same keystore" 1 "could not load private key file" load_certified
stop_postgresql TERM

echo "-- the other tests on this engine"
for pid in "${ROW_PIDS[@]}"; do
    wait "$pid" || true
    unset "STARTED[$pid]"
done
# shellcheck disable=SC2048
for suite in ${ROWS[*]}; do
    cp "$LOGS/$suite" "$OUT"
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$LOGS/$suite" | tail -n 1 || true)
    [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]] || {
        fail "$suite.sh" "it ended without a closing line"
        continue
    }
    PASSED=$((PASSED + BASH_REMATCH[1]))
    FAILED=$((FAILED + BASH_REMATCH[2]))
    grep -A 12 '^FAIL' "$LOGS/$suite" || true
    echo "      $suite.sh: $line"
done
finish
