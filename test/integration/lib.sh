# shellcheck shell=bash
#
# lib.sh - what every integration test starts with
#
#     #!/bin/bash
#     # name.sh - what it proves
#     set -euo pipefail
#     # shellcheck source=test/integration/lib.sh
#     . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#
#     new_token web; new_keystore; openssl_cnf
#     ok "a key can be made" tpk generate web
#     fails "an unknown name is refused" 66 "no record" tpk show nobody
#     finish
#
# Variables for the test (read them, do not set them):
#     ROOT      the repository                 STAGE     the installation under test
#     WORK      folder of this test, mode 0711, removed at exit
#     PRIVATE   WORK/private, mode 0700: token, keystore, PIN, password, configuration
#     OUT       what the last ok, fails or quietly wrote (stdout and stderr)
#     SEED      seed for samples; FULL=1 asks for everything instead of a sample
#     CONFIG, PASSWORD_FILE, PIN_FILE, TOKEN_URI, SOFTHSM   set by new_token and new_keystore
#     ENGINE    where keystores lie: sqlite, or postgresql (a server of this test's own)
#
# common.sh adds free_port, find_softhsm, wait_for, wait_for_port.
#
# Set in the environment by whoever runs the tests: STAGE, SEED, FULL, KEEP (keeps WORK), ENGINE.

set -euo pipefail

# Nothing inherited may decide how a test ends.
while IFS= read -r variable; do
    unset "$variable"
done < <(compgen -v | grep -E '^(OPENSSL_|SOFTHSM2_CONF$|P11_|PG|TRUSTPOINT_|SSL_CERT_|LD_PRELOAD$)' || true)
unset variable
export LC_ALL=C TZ=UTC PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=test/common.sh
. "$ROOT/test/common.sh"
TEST=$(basename "$0" .sh)
STAGE=${STAGE:-$ROOT/build/test/stage}
FULL=${FULL:-0}
SEED=${SEED:-$$}
ENGINE=${ENGINE:-sqlite}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/trustpoint-$TEST.XXXXXX")
chmod 0711 "$WORK"
PRIVATE=$WORK/private
mkdir -m 0700 "$PRIVATE"
OUT=$WORK/out
: >"$OUT"
chmod 0600 "$OUT"
KEYSTORE_COMMAND=$STAGE/bin/trustpoint-keystore
MODULES=$STAGE/ossl-modules
CONFIG=$PRIVATE/keystore.cnf
PASSWORD_FILE=$PRIVATE/password
PIN_FILE=
TOKEN_URI=
SOFTHSM=
PASSED=0
FAILED=0
FINISHED=0
declare -A STARTED=()
export PORTS_GIVEN=${PORTS_GIVEN:-$WORK/ports} # tests inside a test share theirs

# ---- how it ends ------------------------------------------------------------------------------

# Runs at every exit. A test that stops without `finish` has failed.
cleanup() {
    local code=$? pid
    trap - EXIT
    set +e
    for pid in "${!STARTED[@]}"; do
        stop "$pid"
    done
    if [ "$FINISHED" = 0 ]; then
        FAILED=$((FAILED + 1))
        echo "FAIL  $TEST stopped in the middle (exit code $code)"
        tail -n 20 "$OUT" | sed 's/^/      | /'
        echo "$PASSED passed, $FAILED failed"
        code=1
    fi
    if [ -n "${KEEP:-}" ]; then
        echo "kept: $WORK" >&2
    else
        rm -rf -- "$WORK"
    fi
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The closing line and the exit code.
finish() {
    FINISHED=1
    echo "$PASSED passed, $FAILED failed"
    [ "$FAILED" = 0 ] && [ "$PASSED" -gt 0 ]
    exit
}

pass() {
    PASSED=$((PASSED + 1))
    echo "ok    $1"
}

# fail NAME [WHY]: with the output of the last command.
fail() {
    FAILED=$((FAILED + 1))
    echo "FAIL  $1${2:+: $2}"
    tail -n 30 "$OUT" | cut -c1-400 | sed 's/^/      | /'
}

# ---- checks -----------------------------------------------------------------------------------

# quietly COMMAND...: its output goes to OUT, its exit code is the result.
quietly() {
    "$@" >"$OUT" 2>&1 </dev/null
}

# into_closed COMMAND...: standard output, with BOTH=1 standard error too, is a pipe without reader.
into_closed() {
    python3 - "$@" <<'SCRIPT'
import os, signal, subprocess, sys
reader, writer = os.pipe()
os.close(reader)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
both = {"stderr": writer} if os.environ.get("BOTH") else {}
sys.exit(subprocess.run(sys.argv[1:], stdout=writer, **both).returncode)
SCRIPT
}

# ok NAME COMMAND...: the command must succeed.
ok() {
    local name=$1 code=0
    shift
    quietly "$@" || code=$?
    if [ "$code" = 0 ]; then
        pass "$name"
    else
        fail "$name" "exit code $code of: $*"
    fi
}

# fails NAME CODE TEXT COMMAND...: it must end with CODE ("any": any failure that is not a crash)
# and its output must contain TEXT (fixed string, upper and lower case alike; "" matches all).
fails() {
    local name=$1 expected=$2 text=$3 code=0
    shift 3
    quietly "$@" || code=$?
    if [ "$code" = 0 ]; then
        fail "$name" "succeeded: $*"
    elif [ "$code" -ge 124 ]; then
        fail "$name" "crashed or hung, exit code $code: $*"
    elif [ "$expected" != any ] && [ "$code" != "$expected" ]; then
        fail "$name" "exit code $code, not $expected: $*"
    elif [ -n "$text" ] && ! grep -qiF -- "$text" "$OUT"; then
        fail "$name" "does not say '$text': $*"
    else
        pass "$name"
    fi
}

# same NAME EXPECTED ACTUAL
same() {
    if [ "$2" = "$3" ]; then
        pass "$1"
    else
        fail "$1" "expected '$2', got '$3'"
    fi
}

# says NAME TEXT: the output of the last command contains TEXT.
says() {
    if grep -qiF -- "$2" "$OUT"; then pass "$1"; else fail "$1" "does not say '$2'"; fi
}

# says_not NAME TEXT
says_not() {
    if grep -qiF -- "$2" "$OUT"; then fail "$1" "says '$2'"; else pass "$1"; fi
}

# not COMMAND...: succeeds when the command fails without a crash, for use inside ok.
not() {
    local code=0
    "$@" || code=$?
    [ "$code" != 0 ] && [ "$code" -lt 124 ]
}

# ---- processes --------------------------------------------------------------------------------

# start LOG COMMAND...: in the background, in a process group of its own; its id is in PID. LOG is
# empty at once, not when the process comes to it: who waits for a line must not find an old one.
start() {
    local log=$1
    shift
    : >"$log"
    setsid "$@" >"$log" 2>&1 </dev/null &
    PID=$!
    STARTED[$PID]=1
}

alive() {
    kill -0 "$1" 2>/dev/null
}

# stop PID [SIGNAL]: ends what `start` started, whole group, and waits for it. Who has not left in a
# minute is killed.
stop() {
    local pid=$1 i
    [ -n "${STARTED[$pid]:-}" ] || return 0
    unset "STARTED[$pid]"
    kill -s "${2:-TERM}" -- "-$pid" 2>/dev/null || kill -s "${2:-TERM}" "$pid" 2>/dev/null || true
    for ((i = 0; i < 1200; i++)); do
        alive "$pid" || break
        sleep 0.05
    done
    kill -s KILL -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# wait_for_line FILE TEXT: the file contains TEXT.
wait_for_line() {
    wait_for "'$2' in $1" grep -qF -- "$2" "$1"
}

# children PID USER: the ids of its children, if all of them have become that user. One that has
# just been forked has not.
children() {
    local user=$2 list
    list=$(ps -o user=,pid= --ppid "$1") || return 1
    awk -v user="$user" '$1 != user {exit 1} {print $2}' <<<"$list"
}
# has_children PID USER COUNT: so many, and no other.
has_children() {
    local found
    found=$(children "$1" "$2") && [ "$(wc -w <<<"$found")" = "$3" ]
}
# nginx_settled MASTER LOG COUNT COMMAND...: COMMAND (nginx -c FILE) has done every reload that it
# was asked for, the workers before it have left, and COUNT new ones are there. The master takes
# reloads before the order to reopen its logs, and says that it does so.
nginx_settled() {
    local master=$1 log=$2 count=$3 before
    shift 3
    before=$(grep -c 'reopening logs' "$log" || true)
    ok "nginx reopens its logs" "$@" -s reopen
    wait_for "the reopened logs" more_lines "$log" 'reopening logs' "$before"
    wait_for "the workers of earlier cycles to leave" has_children "$master" www-data "$count"
}
# more_lines FILE TEXT COUNT: more than COUNT lines have the text.
more_lines() {
    [ "$(grep -cF -- "$2" "$1")" -gt "$3" ]
}

# run_as USER COMMAND...: as that user, without other groups and without our environment.
run_as() {
    local user=$1
    shift
    setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups --reset-env "$@"
}

# ---- token, keystore, openssl.cnf -------------------------------------------------------------

random_text() {
    plain openssl rand -hex "${1:-12}"
}

# new_token NAME: a SoftHSM token in PRIVATE/tokens with a random PIN in PIN_FILE (0600).
# Both PINs are thrown away with the test, so they may stand in softhsm2-util's arguments.
new_token() {
    local name=$1
    SOFTHSM=$(find_softhsm)
    PIN_FILE=$PRIVATE/$name.pin
    export SOFTHSM2_CONF=$PRIVATE/softhsm2.conf
    [ -d "$PRIVATE/tokens" ] || mkdir -m 0700 "$PRIVATE/tokens"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' \
        "$PRIVATE/tokens" >"$SOFTHSM2_CONF"
    (umask 077 && random_text 8 >"$PIN_FILE")
    softhsm2-util --init-token --free --label "$name" --so-pin "$(random_text 8)" \
        --pin "$(cat "$PIN_FILE")" >"$OUT" 2>&1
    TOKEN_URI="pkcs11:token=$name?module-path=$SOFTHSM&pin-source=file:$PIN_FILE"
}

# pkcs11 ARGUMENTS...: pkcs11-tool, logged in to the token of the last new_token.
pkcs11() {
    PIN=$(cat "$PIN_FILE") plain pkcs11-tool --module "$SOFTHSM" \
        --token-label "$(basename "$PIN_FILE" .pin)" --login --pin env:PIN "$@"
}

# kek_ids: the CKA_ID of every secret key in the token, in hex. Newer versions of pkcs11-tool put
# colons between the bytes, which --id does not take.
kek_ids() {
    pkcs11 --list-objects --type secrkey 2>>"$OUT" | sed -n 's/^ *ID: *\([0-9a-f:]*\).*/\1/p' |
        tr -d :
}

# lose_kek: destroys every secret key in the token, as a careless administrator would.
lose_kek() {
    local id
    for id in $(kek_ids); do
        pkcs11 --delete-object --type secrkey --id "$id" >>"$OUT" 2>&1
    done
}

# lose_token, token_back: the token's folder goes away and comes back.
lose_token() {
    mv "$PRIVATE/tokens" "$PRIVATE/tokens.away"
    mkdir -m 0700 "$PRIVATE/tokens"
}
token_back() {
    rm -rf -- "$PRIVATE/tokens"
    mv "$PRIVATE/tokens.away" "$PRIVATE/tokens"
}

# build_failing_module: WORK/failing.so, which is SoftHSM as long as FAIL is not set.
build_failing_module() {
    local -a flags
    read -r -a flags < <(pkg-config --cflags p11-kit-1)
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -shared -fPIC -o "$WORK/failing.so" \
        "-DSOFTHSM=\"$SOFTHSM\"" "$ROOT/test/integration/failing_module.c" "${flags[@]}" -ldl
}

# unreadable_for USER FILE...: one check for each file: it has content that the user cannot read.
unreadable_for() {
    local user=$1 file
    shift
    for file in "$@"; do
        ok "$user cannot read ${file##*/}" cannot_read "$user" "$file"
    done
}
cannot_read() {
    [ -s "$2" ] && not run_as "$1" cat "$2"
}

# ---- PostgreSQL -------------------------------------------------------------------------------

PG_DIR=$WORK/postgresql
PG_SERVER=

as_postgres() {
    setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups --reset-env \
        env LC_ALL=C TZ=UTC "$@"
}
pg_program() {
    find /usr/lib/postgresql/*/bin/"$1" | sort -V | tail -n 1
}
# sql DATABASE STATEMENT [ROLE]: what it answers.
sql() {
    psql -XAtqw -v ON_ERROR_STOP=1 -h "$PG_DIR" -U "${3:-postgres}" -d "$1" -c "$2"
}

# new_postgresql [LINE...]: a server on a socket in PG_DIR alone, where everybody on this socket is
# who he says, and an empty database "keystore" that belongs to the role "keeper". LINEs are
# further lines of postgresql.conf.
new_postgresql() {
    install -d -o postgres -g postgres -m 0755 "$PG_DIR"
    as_postgres "$(pg_program initdb)" -D "$PG_DIR/data" -U postgres --auth=trust --no-sync \
        -E UTF8 >>"$OUT" 2>&1
    printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$PG_DIR'" "fsync = off" \
        "shared_buffers = 16MB" "$@" >>"$PG_DIR/data/postgresql.conf"
    start_postgresql
    sql postgres 'CREATE ROLE keeper LOGIN'
    sql postgres 'CREATE DATABASE keystore OWNER keeper'
    sql keystore 'ALTER SCHEMA public OWNER TO keeper'
}
start_postgresql() {
    : >"$PG_DIR/log"
    start "$PG_DIR/log" setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups \
        --reset-env env LC_ALL=C TZ=UTC "$(pg_program postgres)" -D "$PG_DIR/data"
    PG_SERVER=$PID
    wait_for_line "$PG_DIR/log" "ready to accept connections"
}
# stop_postgresql [SIGNAL]: INT ends sessions at once, TERM waits for them.
stop_postgresql() {
    stop "$PG_SERVER" "${1:-INT}"
}

# ---- where the keystore lies, by ENGINE ---------------------------------------------------------

# A test with several keystores sets these, and calls keystore_place before the first is made.
DATABASE=$PRIVATE/keystore.db # SQLite's file
SCHEMA=public                 # PostgreSQL's schema, in the database "keystore"

# keystore_store: the value of `store`.
keystore_store() {
    case $ENGINE in
    sqlite) echo "sqlite:$DATABASE" ;;
    postgresql)
        echo "postgresql:host=$PG_DIR dbname=keystore user=keeper$(
            [ "$SCHEMA" = public ] || echo " options=-csearch_path=$SCHEMA"
        )"
        ;;
    esac
}
# keystore_place: an empty place for a keystore there.
keystore_place() {
    [ "$ENGINE" = sqlite ] || [ -n "$PG_SERVER" ] || new_postgresql
    keystore_drop
    [ "$ENGINE" = sqlite ] || keystore_sql "CREATE SCHEMA \"$SCHEMA\" AUTHORIZATION keeper"
}
keystore_drop() {
    case $ENGINE in
    sqlite) rm -rf -- "$DATABASE" "$DATABASE-journal" ;;
    postgresql) keystore_sql "DROP SCHEMA IF EXISTS \"$SCHEMA\" CASCADE" ;;
    esac
}
# keystore_sql STATEMENT: changes the database behind the keystore's back.
keystore_sql() {
    case $ENGINE in
    sqlite) sqlite3 "$DATABASE" "$1" ;;
    postgresql)
        PGOPTIONS="-csearch_path=$SCHEMA -cclient_min_messages=warning" sql keystore "$1"
        ;;
    esac
}
# keystore_save FILE, keystore_put_back FILE: all of it, as it is now; in place of what is there.
keystore_save() {
    case $ENGINE in
    sqlite) cp -p "$DATABASE" "$1" ;;
    postgresql) "$(pg_program pg_dump)" -h "$PG_DIR" -U postgres -n "$SCHEMA" keystore >"$1" ;;
    esac
}
keystore_put_back() {
    keystore_drop
    case $ENGINE in
    sqlite) cp -p "$1" "$DATABASE" ;;
    postgresql)
        psql -Xq -v ON_ERROR_STOP=1 -h "$PG_DIR" -U postgres -d keystore -f "$1" >/dev/null
        ;;
    esac
}
# keystore_digest: changes with everything in the database.
keystore_digest() {
    case $ENGINE in
    sqlite) sha256sum <"$DATABASE" ;;
    postgresql)
        "$(pg_program pg_dump)" --inserts -h "$PG_DIR" -U postgres -n "$SCHEMA" keystore |
            sed '/^\\\(un\)\{0,1\}restrict /d' | sha256sum
        ;;
    esac
}
# forget_keystore: no database and no state any more.
forget_keystore() {
    rm -rf -- "${PRIVATE:?}/state"
    keystore_place
}

# secret_files: what no worker may be able to read.
secret_files() {
    printf '%s\n' "$CONFIG" "$PRIVATE/keystore.db" "$PASSWORD_FILE"
    [ -z "$TOKEN_URI" ] ||
        printf '%s\n' "$PIN_FILE" "$SOFTHSM2_CONF" "$PRIVATE/tokens"/*/token.object
}

# write_keystore_cnf [DIRECTIVE...]: PRIVATE/keystore.cnf, e.g. write_keystore_cnf 'dek = hsm'.
# The token is the one of the last new_token; without one there is no token directive.
write_keystore_cnf() {
    [ -d "$PRIVATE/state" ] || mkdir -m 0700 "$PRIVATE/state"
    [ "$ENGINE" = sqlite ] || [ -n "$PG_SERVER" ] || new_postgresql
    {
        echo '[keystore]'
        echo "store = $(keystore_store)"
        [ -z "$TOKEN_URI" ] || echo "token = $TOKEN_URI"
        echo "state = $PRIVATE/state"
        [ $# = 0 ] || printf '%s\n' "$@"
    } >"$CONFIG"
    chmod 0600 "$CONFIG"
}

# keystore_id: of the keystore of CONFIG, in hex, while it can be unlocked.
keystore_id() {
    tpk status --json 2>>"$OUT" | sed -n 's/.*"keystore_id": *"\([0-9a-f]*\)".*/\1/p'
}

# new_keystore [DIRECTIVE...]: configuration and keystore with one password (PASSWORD_FILE).
# Without a token it is a software keystore. INIT_OPTIONS (array) are further options of init.
new_keystore() {
    local options=()
    write_keystore_cnf "$@"
    (umask 077 && random_text 16 >"$PASSWORD_FILE")
    [ -n "$TOKEN_URI" ] || options+=(--software)
    tpk init --password-file "$PASSWORD_FILE" --kdf-memory 8 --kdf-passes 1 \
        "${options[@]}" ${INIT_OPTIONS[@]+"${INIT_OPTIONS[@]}"} >"$OUT" 2>&1 </dev/null
}

# trustpoint_sample NAME [AS]: a copy of test/data/trustpoint/NAME in PRIVATE/AS, its token in use:
# SAMPLE is that folder, TOKEN_URI its token (empty: it has none), PIN_FILE its PIN.
trustpoint_sample() {
    local label
    SAMPLE=$PRIVATE/${2:-$1}
    cp -R "$ROOT/test/data/trustpoint/$1" "$SAMPLE"
    chmod -R u=rwX,go= "$SAMPLE"
    SOFTHSM=$(find_softhsm)
    TOKEN_URI=
    PIN_FILE=
    [ -d "$SAMPLE/tokens" ] || return 0
    export SOFTHSM2_CONF=$SAMPLE/softhsm2.conf
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' \
        "$SAMPLE/tokens" >"$SOFTHSM2_CONF"
    PIN_FILE=$SAMPLE/user-pin.txt
    label=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["token_label"])' \
        "$SAMPLE/expected.json")
    TOKEN_URI="pkcs11:token=$label?module-path=$SOFTHSM&pin-source=file:$PIN_FILE"
}

# tpk ARGUMENTS...: the command under test with this test's configuration.
tpk() {
    "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}

# openssl_cnf [FILE]: openssl.cnf.example with this test's paths in it, and OPENSSL_CONF set to it.
openssl_cnf() {
    local file=${1:-$PRIVATE/openssl.cnf}
    example_to_openssl_cnf "$ROOT/openssl.cnf.example" "$MODULES/trustpoint.so" "$CONFIG" >"$file"
    chmod 0600 "$file"
    export OPENSSL_CONF=$file
}

# plain COMMAND...: with the system's own OpenSSL configuration, so without our provider.
plain() {
    env -u OPENSSL_CONF "$@"
}

# ---- keys and certificates --------------------------------------------------------------------

# new_ca: a throwaway CA in WORK/ca.pem, made with plain OpenSSL.
new_ca() {
    plain openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 \
        -subj "/CN=Test CA" -addext basicConstraints=critical,CA:TRUE \
        -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$PRIVATE/ca.key" -out "$WORK/ca.pem" 2>>"$OUT"
}

# ca_sign CSR CERT CN: a certificate for localhost and 127.0.0.1 from new_ca's CA, any CSR.
ca_sign() {
    printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,DNS:%s,IP:127.0.0.1\n' "$3" \
        >"$PRIVATE/leaf.ext"
    plain openssl x509 -req -in "$1" -CA "$WORK/ca.pem" -CAkey "$PRIVATE/ca.key" -days 30 \
        -set_serial "0x$(random_text 8)" -extfile "$PRIVATE/leaf.ext" -out "$2" 2>>"$OUT"
}

# plain_key NAME TYPE...: PRIVATE/NAME.key and WORK/NAME.pem (certificate), both plain PEM files.
# TYPE are genpkey's options: -algorithm RSA, or -algorithm EC -pkeyopt ec_paramgen_curve:P-256.
plain_key() {
    local name=$1
    shift
    [ -e "$WORK/ca.pem" ] || new_ca
    [ $# != 0 ] || set -- -algorithm EC -pkeyopt ec_paramgen_curve:P-256
    (umask 077 && plain openssl genpkey "$@" -out "$PRIVATE/$name.key" 2>>"$OUT")
    plain openssl req -new -key "$PRIVATE/$name.key" -subj "/CN=$name" -out "$PRIVATE/$name.csr"
    ca_sign "$PRIVATE/$name.csr" "$WORK/$name.pem" "$name"
}

# keystore_key NAME TYPE...: like plain_key, but the key goes into the keystore as NAME (its file
# stays in PRIVATE for comparison) and WORK/NAME.stub is its stub.
keystore_key() {
    plain_key "$@"
    tpk import "$1" "$PRIVATE/$1.key" --cert "$WORK/$1.pem" >>"$OUT" 2>&1 </dev/null
    tpk stub "$1" --out "$WORK/$1.stub" >>"$OUT" 2>&1 </dev/null
}

# build_helper NAME: compiles test/integration/NAME.c to WORK/NAME.
build_helper() {
    local -a flags
    read -r -a flags < <(pkg-config --cflags --libs libssl libcrypto)
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 -g -o "$WORK/$1" \
        "$ROOT/test/integration/$1.c" "${flags[@]}" -pthread
}

# ---- what is wanted of the installation -------------------------------------------------------

for needed in "$KEYSTORE_COMMAND" "$MODULES/trustpoint.so"; do
    if [ ! -e "$needed" ]; then
        echo "$needed is missing: install the build there first, or say where it is with STAGE=" >&2
        exit 1
    fi
done
unset needed
