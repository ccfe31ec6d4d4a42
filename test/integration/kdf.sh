#!/bin/bash
# kdf.sh - what a password costs: one run of Argon2 for each try, none where there is nothing to try;
# a slot that was made on a smaller machine is renewed when its password is used, a chosen cost never
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# build_preload NAME LIBRARY...: test/integration/NAME.c as WORK/NAME.so.
build_preload() {
    local name=$1
    shift
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 -fPIC -shared -o "$WORK/$name.so" \
        "$ROOT/test/integration/$name.c" -Wl,--no-as-needed "$@" -ldl
}
# counted COMMAND...: what it says, in OUT, and how many runs of Argon2 it made, in RUNS.
counted() {
    local code=0
    : >"$WORK/runs"
    LD_PRELOAD=$WORK/preload_argon2.so ARGON2_RUNS=$WORK/runs "$@" >"$OUT" 2>&1 </dev/null || code=$?
    RUNS=$(stat -c %s "$WORK/runs")
    return "$code"
}
# costs NAME EXIT-CODE RUNS COMMAND...
costs() {
    local name=$1 expected=$2 runs=$3 code=0
    shift 3
    counted "$@" || code=$?
    same "$name: exit code" "$expected" "$code"
    same "$name: runs of Argon2" "$runs" "$RUNS"
}
# slot EXPRESSION: of the password slot, s.
slot() {
    tpk slots --json 2>>"$OUT" | python3 -c "import json, sys
s = next(s for s in json.load(sys.stdin) if s['kind'] == 'password'); print($1)"
}

ok "the counter builds" build_preload preload_argon2 -largon2
ok "the small machine builds" build_preload preload_memory
new_token web
new_keystore
openssl_cnf
keystore_key ec
WRONG=$PRIVATE/wrong
(umask 077 && echo "not the password" >"$WRONG")

# ---- one try, one run ----------------------------------------------------------------------------

costs "loading with the HSM" 0 0 openssl pkey -in trustpoint://ec -noout
costs "restore with nothing lost" 0 0 tpk restore --password-file "$PASSWORD_FILE"
costs "slot test" 0 1 tpk slot test --password-file "$PASSWORD_FILE"
costs "slot test with a wrong password" 77 1 tpk slot test --password-file "$WRONG"
lose_kek
costs "restore --dry-run" 0 0 tpk restore --dry-run --password-file "$PASSWORD_FILE"
costs "restore without a password" 75 0 tpk restore
says "says where it looked" "callback: no answer"
says "and where else" "credential: systemd gave none"
costs "restore with a wrong password" 77 1 tpk restore --password-file "$WRONG"
costs "openssl with a wrong password" 1 1 openssl pkey -in trustpoint://ec -noout \
    -passin "file:$WRONG"
costs "restore without a password, as JSON" 75 0 tpk restore --json
same "the state, the reason and what to do" "kek-missing True True" "$(tpk restore --json 2>>"$OUT" |
    python3 -c 'import json, sys; j = json.load(sys.stdin)
print(j["state"], "systemd gave none" in j["reason"], "restore" in j["todo"])')"
costs "restore with the password" 0 1 tpk restore --password-file "$PASSWORD_FILE"
costs "loading afterwards" 0 0 openssl pkey -in trustpoint://ec -noout
RECOVERY=$PRIVATE/recovery
(umask 077 && tpk slot add recovery >"$RECOVERY" 2>>"$OUT")
lose_kek
costs "a recovery key needs none" 0 0 tpk restore --password-file "$RECOVERY"
sed 's/TPRK1-./TPRK1-/' "$RECOVERY" >"$PRIVATE/mistyped"
chmod 0600 "$PRIVATE/mistyped"
lose_kek
costs "a recovery key that was mistyped" 65 0 tpk restore --password-file "$PRIVATE/mistyped"
ok "restored" tpk restore --password-file "$PASSWORD_FILE"

# ---- what is made is opened once before it is kept ----------------------------------------------

NEXT=$PRIVATE/next
(umask 077 && echo "another good password" >"$NEXT")
cheaply() {
    tpk "$@" --new-password-file "$NEXT" --kdf-memory 8 --kdf-passes 1
}
costs "slot add password" 0 2 cheaply slot add password
costs "password change" 0 2 cheaply password change --slot "$(slot "s['id']")"
for id in $(tpk slots --json 2>>"$OUT" | python3 -c "import json, sys
print(*[s['id'] for s in json.load(sys.stdin) if s['kind'] == 'password'])"); do
    ok "removed" tpk slot remove "$id" --yes
done
costs "slot add password" 0 2 tpk slot add password --new-password-file "$PASSWORD_FILE" \
    --kdf-memory 8 --kdf-passes 1

# ---- without the right to write nobody is asked ------------------------------------------------------

# www-data may read all that a loader needs, and write the locks, but not the database file.
as_loader() {
    run_as www-data env SOFTHSM2_CONF="$SOFTHSM2_CONF" "$@"
}
no_right_to_write() {
    local question="backup password"
    lose_kek
    chown -R root:www-data "$PRIVATE"
    chmod -R u=rwX,g=rX,o= "$PRIVATE"
    cp "$ROOT/test/integration/at_terminal.py" "$WORK/" # the checkout may be closed to others
    fails "restore without the right to write" 77 "" as_loader python3 \
        "$WORK/at_terminal.py" --prompt "$question" --answer "$PASSWORD_FILE" -- \
        "$KEYSTORE_COMMAND" --config "$CONFIG" restore
    same "it did not ask" 0 "$(grep -cF "$question:" "$OUT" || true)"
    chown -R root:root "$PRIVATE"
    chmod -R u=rwX,go= "$PRIVATE"
    ok "restored" tpk restore --password-file "$PASSWORD_FILE"
}
[ "$ENGINE" = postgresql ] || no_right_to_write # there roles decide: postgresql_store.sh

# ---- a cost that was chosen stays -----------------------------------------------------------------

same "the cost of init was chosen" "8192 1 True" \
    "$(slot "s['argon2id']['memory_kib'], s['argon2id']['passes'], s['argon2id']['chosen']" |
        tr -d '(),')"
costs "a change with the password" 0 1 tpk generate another --password-file "$PASSWORD_FILE"
says_not "renews nothing" renewed
same "the cost is the same" 8192 "$(slot "s['argon2id']['memory_kib']")"

# ---- a default that was too low is raised -----------------------------------------------------------

small_machine() {
    LD_PRELOAD=$WORK/preload_memory.so tpk "$@"
}
ok "password change on a small machine" small_machine password change \
    --new-password-file "$PASSWORD_FILE"
same "has the small machine's default" "65536 4 False" \
    "$(slot "s['argon2id']['memory_kib'], s['argon2id']['passes'], s['argon2id']['chosen']" |
        tr -d '(),')"
ID=$(slot "s['id']")
BEFORE=$(keystore_digest)
ok "who only reads" tpk verify --password-file "$PASSWORD_FILE"
ok "or tests" tpk slot test --password-file "$PASSWORD_FILE"
same "writes nothing" "$BEFORE" "$(keystore_digest)"
ok "on the small machine a change" small_machine rename another other \
    --password-file "$PASSWORD_FILE"
same "raises nothing" 65536 "$(slot "s['argon2id']['memory_kib']")"
lose_kek
costs "a restore on this machine" 0 3 tpk restore --password-file "$PASSWORD_FILE"
says "renews the slot, and says so" renewed
DEFAULT=$(slot "s['argon2id']['memory_kib']")
ok "has this machine's default" test "$DEFAULT" -gt 65536
same "in the same slot" "$ID" "$(slot "s['id']")"
costs "the same password opens it" 0 1 tpk slot test --password-file "$PASSWORD_FILE"
costs "another does not" 77 1 tpk slot test --password-file "$WRONG"
ok "programs load" openssl pkey -in trustpoint://ec -noout
ok "a change on the small machine" small_machine rename other another \
    --password-file "$PASSWORD_FILE"
same "lowers nothing" "$DEFAULT" "$(slot "s['argon2id']['memory_kib']")"
ok "password change on the small machine" small_machine password change \
    --new-password-file "$PASSWORD_FILE"
costs "a change with the password" 0 3 tpk rename another other --password-file "$PASSWORD_FILE"
says "renews the slot, too" renewed
same "to the default" "$DEFAULT" "$(slot "s['argon2id']['memory_kib']")"
ok "all is well" tpk verify
finish
