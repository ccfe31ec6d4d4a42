#!/bin/bash
# slots.sh - the commands that change what unlocks a keystore: slot, password, rotate-kek, restore
# and header, with good and bad input, their exit codes and their JSON
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CHEAP=(--kdf-memory 8 --kdf-passes 1)

# json EXPRESSION COMMAND...: the expression of what the command prints, "j".
json() {
    local expression=$1
    shift
    tpk "$@" 2>>"$OUT" |
        python3 -c "import json, sys; j = json.load(sys.stdin); print($expression)"
}
# count KIND STATE: how many slots there are of it.
count() {
    json "sum(s['kind'] == '$1' and s['state'] == '$2' for s in j)" slots --json
}
# slot_of KIND [STATE]: the id of the first slot of it.
slot_of() {
    json "next(s['id'] for s in j if s['kind'] == '$1' and s['state'] == '${2:-active}')" \
        slots --json
}
objects() {
    pkcs11 --list-objects --type secrkey 2>>"$OUT" | grep -c '^Secret Key' || true
}
generation() {
    json "j['generation']" status --json
}
secret_file() {
    (umask 077 && printf '%s\n' "$2" >"$1")
}
typing() {
    local prompt=$1 file=$2
    shift 2
    python3 "$ROOT/test/integration/at_terminal.py" --prompt "$prompt" --answer "$file" \
        --answer "$file" -- "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}
# typing_once TEXT COMMAND...: at a terminal where TEXT is typed.
typing_once() {
    secret_file "$PRIVATE/answers" "$1"
    shift
    python3 "$ROOT/test/integration/at_terminal.py" --answers "$PRIVATE/answers" -- \
        "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}
into() {
    local file=$1
    shift
    "$@" >"$file"
}

new_token web
WEB_URI=$TOKEN_URI
new_keystore
openssl_cnf
keystore_key ec
SECOND=$PRIVATE/second
secret_file "$SECOND" "another good password"
WRONG=$PRIVATE/wrong
secret_file "$WRONG" "not the password"
SHORT=$PRIVATE/short
secret_file "$SHORT" short

# ---- help and usage -------------------------------------------------------------------------------

for command in slot password rotate-kek restore header; do
    ok "$command --help" tpk "$command" --help
    says "$command --help shows the usage" "Usage: trustpoint-keystore $command"
done
BEFORE=$(generation)
fails "slot without a verb" 64 "" tpk slot
fails "slot with an unknown verb" 64 "slot takes" tpk slot drop
fails "slot add of an unknown kind" 64 "password, recovery or hsm" tpk slot add tpm
fails "slot add without a kind" 64 "slot takes" tpk slot add
fails "slot test with something more" 64 "slot takes" tpk slot test web
fails "slot remove without an id" 64 "slot takes" tpk slot remove
fails "slot remove: too few digits" 64 "at least 4" tpk slot remove abc --yes
fails "slot remove: not an id" 64 "hex digits" tpk slot remove password --yes
fails "slot remove: no such slot" 66 "no slot" tpk slot remove 00000000000000000000000000000000 --yes
fails "password without a verb" 64 "" tpk password
fails "password with an unknown verb" 64 "password takes" tpk password forget
fails "rotate-kek with an argument" 64 "" tpk rotate-kek web
fails "restore with an argument" 64 "" tpk restore web
fails "restore --init-token alone" 64 "belong together" tpk restore --init-token
fails "restore --so-pin-source alone" 64 "belong together" tpk restore --so-pin-source file:/x
fails "restore --so-pin-source of another kind" 64 "file:PATH" \
    tpk restore --init-token --so-pin-source env:PIN
fails "header without a file" 64 "" tpk header backup
fails "header with an unknown verb" 64 "header takes" tpk header copy "$WORK/x"
fails "an unknown option" 64 "" tpk rotate-kek --force
same "none of this changed anything" "$BEFORE" "$(generation)"

# ---- passwords ------------------------------------------------------------------------------------

fails "a short new password" 65 "12" tpk slot add password --new-password-file "$SHORT" "${CHEAP[@]}"
secret_file "$PRIVATE/prefixed" "tprk1 is a fine password"
fails "a password that begins as a recovery key" 65 "recovery key" \
    tpk slot add password --new-password-file "$PRIVATE/prefixed" "${CHEAP[@]}"
fails "an absent password file" 66 "" tpk slot add password --new-password-file "$WORK/absent"
fails "no terminal and no file" 77 "terminal" tpk slot add password
fails "memory without passes" 64 "belong together" \
    tpk slot add password --new-password-file "$SECOND" --kdf-memory 64
fails "too much memory" 64 "1024" \
    tpk slot add password --new-password-file "$SECOND" --kdf-memory 4096 --kdf-passes 1
fails "too little memory" 65 "" \
    tpk slot add password --new-password-file "$SECOND" --kdf-memory 1 --kdf-passes 1
fails "passes that are no number" 64 "number" \
    tpk slot add password --new-password-file "$SECOND" --kdf-memory 8 --kdf-passes many
same "none of this changed anything" "$BEFORE" "$(generation)"
FIRST_ID=$(slot_of password)

ok "slot test" tpk slot test --password-file "$PASSWORD_FILE"
says "names the slot" "${FIRST_ID:0:8}"
fails "slot test with a wrong password" 77 "" tpk slot test --password-file "$WRONG"
fails "slot test without a terminal" 77 "terminal" tpk slot test
ok "slot test at a terminal" typing "to test: " "$PASSWORD_FILE" slot test
says_not "shows no password" "$(cat "$PASSWORD_FILE")"
same "slot test changes nothing" "$BEFORE" "$(generation)"

ok "slot add password" tpk slot add password --new-password-file "$SECOND" "${CHEAP[@]}"
same "two password slots" 2 "$(count password active)"
ok "the new one opens" tpk slot test --password-file "$SECOND"
ok "the old one still opens" tpk slot test --password-file "$PASSWORD_FILE"
fails "password change: which?" 64 "name one with --slot" \
    tpk password change --new-password-file "$SECOND" "${CHEAP[@]}"
SECOND_ID=$(json "next(s['id'] for s in j if s['kind'] == 'password' and s['id'] != '$FIRST_ID')" \
    slots --json)
secret_file "$PRIVATE/third" "a third good password"
THIRD=$PRIVATE/third
ok "password change --slot" tpk password change --slot "${SECOND_ID:0:8}" \
    --new-password-file "$THIRD" "${CHEAP[@]}"
fails "the old password does not open any more" 77 "" tpk slot test --password-file "$SECOND"
ok "the new one does" tpk slot test --password-file "$THIRD"
ok "the other one, too" tpk slot test --password-file "$PASSWORD_FILE"
fails "password change of an HSM slot" 66 "no such password slot" tpk password change \
    --slot "$(slot_of hsm-aes)" --new-password-file "$SECOND" "${CHEAP[@]}"
same "still two" 2 "$(count password active)"
ok "a password at a terminal" typing ": " "$SECOND" slot add password "${CHEAP[@]}"
ok "opens" tpk slot test --password-file "$SECOND"

# ---- recovery keys ----------------------------------------------------------------------------------

RECOVERY=$PRIVATE/recovery
ok "slot add recovery" into "$RECOVERY" tpk slot add recovery
chmod 0600 "$RECOVERY"
same "one line on standard output" 1 "$(wc -l <"$RECOVERY")"
ok "which is a recovery key" grep -q '^TPRK1-' "$RECOVERY"
ok "which opens" tpk slot test --password-file "$RECOVERY"
secret_file "$PRIVATE/mistyped" "$(sed 's/.$/x/' "$RECOVERY")"
fails "a mistyped one is told apart" any "" tpk slot test --password-file "$PRIVATE/mistyped"
fails "slot add recovery that can't be printed" 71 "" into /dev/full tpk slot add recovery
same "leaves no slot that nobody can use" 1 "$(count recovery active)"
same "and is said once" 1 "$(grep -c 'cannot write to standard output' "$OUT")"
fails "slot add recovery into a pipe that nobody reads" 71 "taken back" \
    into_closed "$KEYSTORE_COMMAND" --config "$CONFIG" slot add recovery
same "leaves no slot that nobody can use" 1 "$(count recovery active)"
BOTH=1 fails "nor when the messages go there too" 71 "" \
    into_closed "$KEYSTORE_COMMAND" --config "$CONFIG" slot add recovery
same "leaves no slot that nobody can use" 1 "$(count recovery active)"

# ---- removal ----------------------------------------------------------------------------------------

LAST_ADDED=$(json "[s['id'] for s in j if s['kind'] == 'password'][-1]" slots --json)
fails "slot remove asks" 64 "terminal" tpk slot remove "$LAST_ADDED"
fails "no is no" 77 "not confirmed" typing_once no slot remove "$LAST_ADDED"
ok "yes is yes" typing_once yes slot remove "$LAST_ADDED"
for id in $(json "' '.join(s['id'] for s in j if s['kind'] == 'password')" slots --json); do
    ok "slot remove ${id:0:8}" tpk slot remove "$id" --yes
done
says "removal is not revocation" "older copies"
same "no password slot is left" 0 "$(count password active)"
fails "a removed password does not open" 77 "" tpk slot test --password-file "$PASSWORD_FILE"
fails "the last way back stays" 77 "last password or recovery key" \
    tpk slot remove "$(slot_of recovery)" --yes
fails "password change without a password slot" 66 "no active slot" \
    tpk password change --new-password-file "$SECOND"
ok "a password again" tpk slot add password --new-password-file "$PASSWORD_FILE" "${CHEAP[@]}"
ok "the recovery key may go then" tpk slot remove "$(slot_of recovery)" --yes
fails "and the password is the last one" 77 "last password or recovery key" \
    tpk slot remove "$(slot_of password)" --yes
ok "the key is still there" openssl pkey -in trustpoint://ec -noout

# ---- KEKs -------------------------------------------------------------------------------------------

same "one KEK on the token" 1 "$(objects)"
ok "rotate-kek" tpk rotate-kek
same "a new active slot" 1 "$(count hsm-aes active)"
same "the old one is stale" 1 "$(count hsm-aes stale)"
same "two KEKs" 2 "$(objects)"
ok "the key loads" openssl pkey -in trustpoint://ec -noout
ok "rotate-kek --destroy-old" tpk rotate-kek --destroy-old
same "one active slot" 1 "$(count hsm-aes active)"
same "the first old one is still stale" 1 "$(count hsm-aes stale)"
same "two KEKs: the new one and that of the stale slot" 2 "$(objects)"
ok "the stale slot, its KEK with it" tpk slot remove "$(slot_of hsm-aes stale)" --destroy-key --yes
same "one KEK" 1 "$(objects)"
same "no stale slot" 0 "$(count hsm-aes stale)"
ok "the key loads" openssl pkey -in trustpoint://ec -noout
ok "verify" tpk verify

# Several at once: whoever was slower has a new KEK, too, and the old one is gone.
rotations=()
for i in 1 2 3; do
    start "$WORK/rotation.$i" "$KEYSTORE_COMMAND" --config "$CONFIG" rotate-kek --destroy-old
    rotations+=("$PID")
done
for PID in "${rotations[@]}"; do
    wait "$PID" || true
    unset "STARTED[$PID]"
done
cat "$WORK"/rotation.? >"$OUT"
says "rotations at the same time" "the token has a new KEK"
says_not "that another was faster is no error" "no such slot"
ok "verify" tpk verify
for id in $(json "' '.join(s['id'] for s in j if s['kind'] == 'hsm-aes' and s['state'] == 'stale')" slots --json); do
    tpk slot remove "$id" --destroy-key --yes >>"$OUT" 2>&1
done
same "one KEK" 1 "$(objects)"

build_failing_module
TOKEN_URI=${WEB_URI/$SOFTHSM/$WORK/failing.so}
write_keystore_cnf
OLD=$(slot_of hsm-aes)
FAIL=destroy fails "an old KEK that the token does not destroy" 69 "the token has a new KEK" \
    tpk rotate-kek --destroy-old
says "what is still there" "slot remove ${OLD:0:8} --destroy-key"
ok "which does the rest" tpk slot remove "${OLD:0:8}" --destroy-key --yes
same "one KEK" 1 "$(objects)"
TOKEN_URI=$WEB_URI
write_keystore_cnf

ok "the active HSM slot can be removed" tpk slot remove "$(slot_of hsm-aes)" --yes
same "it is retired" 1 "$(count hsm-aes retired)"
same "its KEK stays" 1 "$(objects)"
fails "the keystore is locked" 75 "" tpk status
same "in one word" kek-missing "$(json "j['state']" status --json || true)"
fails "the last slot of all stays" 77 "last" tpk --password-file "$PASSWORD_FILE" \
    slot remove "$(slot_of password)" --yes
ok "slot add hsm with the password" tpk --password-file "$PASSWORD_FILE" slot add hsm
ok "unlocked again" tpk status
ok "the retired slot and its KEK" tpk slot remove "$(slot_of hsm-aes retired)" --destroy-key --yes
same "one KEK" 1 "$(objects)"

# ---- a second host: fleet -----------------------------------------------------------------------------

new_token other
OTHER_URI=$TOKEN_URI
OTHER_PIN=$PIN_FILE
TOKEN_URI=$WEB_URI
PIN_FILE=$PRIVATE/web.pin
ok "slot add hsm --token" tpk slot add hsm --token "$OTHER_URI"
same "two active HSM slots" 2 "$(count hsm-aes active)"
fails "slot add hsm with a bad URI" 78 "" tpk slot add hsm --token web
fails "slot add hsm with an absent token" 69 "" tpk slot add hsm --token "${OTHER_URI/other/absent}"
write_other() {
    TOKEN_URI=$OTHER_URI
    write_keystore_cnf "$@"
    TOKEN_URI=$WEB_URI
}
write_other
ok "the other host's configuration unlocks" tpk status
same "with its own token" other "$(json "j['token_label']" status --json)"
ok "and loads" openssl pkey -in trustpoint://ec -noout
OTHER_ID=$(json "next(s['id'] for s in j if s['token_label'] == 'other')" slots --json)
write_keystore_cnf
fails "its KEK can't be destroyed from here" 69 "destroy it there" \
    tpk slot remove "$OTHER_ID" --destroy-key --yes
write_other
fails "but the slot is closed" 75 "" tpk status
# A host that has only the password.
ok "restore onto the other host" tpk restore --password-file "$PASSWORD_FILE"
ok "it unlocks" tpk status
write_keystore_cnf
ok "the first host is unaffected" tpk status
same "each has its slot" 2 "$(count hsm-aes active)"

# ---- restore ----------------------------------------------------------------------------------------

ok "restore with nothing lost" tpk restore
says "says so" "nothing to restore"
same "restore --json, nothing lost" "unlocked False" \
    "$(json "j['found'], j['restored']" restore --json | tr -d "(),'")"
ok "restore --dry-run with nothing lost" tpk restore --dry-run
says "says so" "nothing to restore"
lose_kek
BEFORE=$(keystore_digest)
ok "restore --dry-run" tpk restore --dry-run
says "says what it would do" "would ask for the backup password"
same "restore --dry-run --json" "kek-missing False" \
    "$(json "j['found'], j['restored']" restore --dry-run --json | tr -d "(),'")"
fails "restore without a password" 75 "--password-file" tpk restore
fails "restore with a wrong password" 77 "" tpk restore --password-file "$WRONG"
fails "restore with an absent file" 66 "" tpk restore --password-file "$WORK/absent"
chmod 0644 "$WRONG"
fails "restore with a file that others can read" 77 "$WRONG" tpk restore --password-file "$WRONG"
same "none of this changed anything" "$BEFORE" "$(keystore_digest)"
same "no KEK was made" 0 "$(objects)"
ok "restore at a terminal" typing "password: " "$PASSWORD_FILE" restore
same "one active slot here, one on the other host" 2 "$(count hsm-aes active)"
lose_kek
same "restore --json" "kek-missing True" "$(json "j['found'], j['restored']" \
    restore --json --password-file "$PASSWORD_FILE" | tr -d "(),'")"
ok "slot add recovery" into "$RECOVERY" tpk slot add recovery
lose_kek
ok "restore with the recovery key" tpk restore --password-file "$RECOVERY"
lose_kek
from_fd() {
    tpk restore --password-fd 3 3<"$PASSWORD_FILE"
}
ok "restore --password-fd" from_fd
ok "restored" openssl pkey -in trustpoint://ec -noout

# Onto another token: the configuration is the administrator's.
lose_kek
ok "restore --token" tpk restore --token "$OTHER_URI" --password-file "$PASSWORD_FILE"
fails "restore --token with a bad URI" 78 "" tpk restore --token other --password-file "$PASSWORD_FILE"
ok "restore here, too" tpk restore --password-file "$PASSWORD_FILE"

# A foreign KEK is never replaced in a load, only when somebody asks for it.
ACTIVE_CKA=$(json "next(s['cka_id'] for s in j if s['state'] == 'active' and
s['token_label'] == 'web')" slots --json)
lose_kek
ok "somebody else's key under our id" pkcs11 --keygen --key-type aes:32 --id "$ACTIVE_CKA"
fails "a foreign KEK is told apart" 65 "" tpk status
same "in one word" kek-foreign "$(json "j['state']" status --json || true)"
fails "no load replaces it" any "" openssl pkey -in trustpoint://ec -noout \
    -passin "file:$PASSWORD_FILE"
ok "restore does, on demand" tpk restore --password-file "$PASSWORD_FILE"
ok "restored" openssl pkey -in trustpoint://ec -noout
lose_kek
ok "restored" tpk restore --password-file "$PASSWORD_FILE"

# The whole token is gone.
secret_file "$PRIVATE/so.pin" "$(random_text 8)"
ok "--init-token never touches a token that is there" tpk restore --init-token \
    --so-pin-source "file:$PRIVATE/so.pin" --password-file "$PASSWORD_FILE"
says "says so" "nothing to restore"
lose_token
fails "the token is gone" 69 "" tpk restore --password-file "$PASSWORD_FILE"
fails "restore --dry-run without a token" 69 "would change nothing" tpk restore --dry-run
same "in one word" token-missing "$(json "j['found']" restore --dry-run --json || true)"
ok "restore --init-token --dry-run makes none" tpk restore --init-token --dry-run \
    --so-pin-source "file:$PRIVATE/so.pin" --password-file "$PASSWORD_FILE"
chmod 0600 "$WRONG"
fails "restore --init-token with a wrong password" 77 "" tpk restore --init-token \
    --so-pin-source "file:$PRIVATE/so.pin" --password-file "$WRONG"
same "no token was made" 0 "$(find "$PRIVATE/tokens" -name token.object | wc -l)"
ok "restore --init-token" tpk restore --init-token --so-pin-source "file:$PRIVATE/so.pin" \
    --password-file "$PASSWORD_FILE"
ok "unlocked" tpk status
ok "the key loads" openssl pkey -in trustpoint://ec -noout
ok "verify" tpk verify
token_back
ok "the old token unlocks as well" tpk status

# ---- header backup and restore --------------------------------------------------------------------------

HEADER=$PRIVATE/header
ok "header backup" tpk header backup "$HEADER"
same "mode 0600" 600 "$(stat -c %a "$HEADER")"
fails "header backup onto a file that is there" 73 "" tpk header backup "$HEADER"
same "it holds no record" 0 "$(sqlite3 "$HEADER" 'select count(*) from tpks_record')"
fails "header restore of nothing" 66 "cannot read $WORK/absent" tpk header restore "$WORK/absent"
head -c 4096 /dev/zero >"$PRIVATE/garbage"
fails "header restore of garbage" any "" tpk header restore "$PRIVATE/garbage"
damage() {
    keystore_sql "update tpks_wrap set wrapped = substr(wrapped, 2)"
}
damage
fails "a damaged database does not unlock" any "" tpk status
fails "not even with the password" any "" tpk status --password-file "$PASSWORD_FILE"
BEFORE=$(keystore_digest)
fails "header restore with a wrong password" 77 "" tpk header restore "$HEADER" \
    --password-file "$PRIVATE/third"
same "nothing changed then" "$BEFORE" "$(keystore_digest)"
ok "header restore" tpk header restore "$HEADER"
ok "unlocked" tpk status
ok "verify" tpk verify
ok "the key loads" openssl pkey -in trustpoint://ec -noout
ok "header backup" tpk header backup "$PRIVATE/newer"
damage
ok "header restore with the password" tpk header restore "$PRIVATE/newer" --password-file "$PASSWORD_FILE"
ok "unlocked" tpk status

# Rolled back: a slot that was removed since would come back.
tpk header backup "$PRIVATE/older" >"$OUT" 2>&1
ok "a slot is removed" tpk slot remove "$(slot_of recovery)" --yes
fails "an older header is refused" 65 "accept-new-anchor" tpk header restore "$PRIVATE/older"
same "the removed slot did not come back" 0 "$(count recovery active)"
ok "unless told to" tpk header restore "$PRIVATE/older" --accept-new-anchor
same "then it is back" 1 "$(count recovery active)"
ok "unlocked" tpk status
ok "verify" tpk verify
ok "and changes go on" tpk slot remove "$(slot_of recovery)" --yes

# The copy that the library keeps.
KEPT=$(find "$PRIVATE/state" -name '*.hdr')
ok "a header is kept in the state folder" test -s "$KEPT"
damage
ok "it brings the slots back" tpk header restore "$KEPT"
ok "unlocked" tpk status

fails "a header backup that is not there" 66 "no such file" tpk header restore "$WORK/nothing"
echo "of somebody else" >"$WORK/no.header"
fails "a file that is none" 65 "no header backup" tpk header restore "$WORK/no.header"

# A header of another keystore.
mv "$PRIVATE/state" "$PRIVATE/first.state"
forget_keystore
cp "$PASSWORD_FILE" "$PRIVATE/first.password"
new_keystore
keystore_key other
fails "a header of another keystore" 65 "" tpk header restore "$HEADER" \
    --password-file "$PRIVATE/first.password"
ok "nothing changed" tpk verify

# ---- without an HSM -------------------------------------------------------------------------------------

forget_keystore
TOKEN_URI=
new_keystore
fails "no KEK to rotate" 69 "no KEK to rotate" tpk rotate-kek
fails "the software slot stays" 69 "" tpk slot remove "$(slot_of software)" --yes
ok "slot add password" tpk slot add password --new-password-file "$THIRD" "${CHEAP[@]}"
fails "slot add hsm without a token" 78 "token" tpk slot add hsm
PIN_FILE=$OTHER_PIN
rm "$PRIVATE"/state/*.dek
fails "its DEK file is gone" 75 "" tpk status
ok "--dry-run" tpk restore --dry-run
says "it would write the DEK file" "write the DEK file"
ok "restore" tpk restore --password-file "$THIRD"
says "it is back" "the DEK file is back"
ok "unlocked" tpk status
: >"$(echo "$PRIVATE"/state/*.dek)"
fails "its DEK file is empty" 65 "trustpoint-keystore restore" tpk status
ok "restore" tpk restore --password-file "$THIRD"
ok "unlocked" tpk status

forget_keystore
write_keystore_cnf
ok "init without a way back" tpk init --software --no-recovery
fails "the first way back can't be printed" 71 "taken back" into /dev/full tpk slot add recovery
same "so it is none" 0 "$(count recovery active)"

# ---- nothing there at all ---------------------------------------------------------------------------------

keystore_place
for command in "slot test" "slot add recovery" "password change" rotate-kek restore \
    "header backup $WORK/nothing" "header restore $HEADER"; do
    # shellcheck disable=SC2086
    fails "$command without a keystore" 78 "" tpk $command --password-file "$THIRD"
done
finish
