#!/bin/bash
# json.sh - one vocabulary for programs: with --json every command prints JSON, also when it fails, and
# says state, reason and todo in it; a record that can't be read is among the others
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# answers NAME EXIT-CODE EXPRESSION COMMAND...: a Python expression that must be true of the JSON, j,
# which must be all of standard output. whole(x) means that x has a state, a reason and a todo.
answers() {
    local name=$1 expected=$2 expression=$3 code=0
    shift 3
    tpk "$@" >"$WORK/json" 2>"$OUT" </dev/null || code=$?
    same "$name: exit code" "$expected" "$code"
    cat "$WORK/json" >>"$OUT"
    same "$name: JSON" True "$(python3 -c '
import json, sys
def whole(x):
    return all(isinstance(x[key], str) and x[key] for key in ("state", "reason", "todo"))
with open(sys.argv[1], encoding="utf-8") as file:
    j = json.load(file)
print(bool(eval("(" + sys.argv[2] + ")")))' "$WORK/json" "$expression" 2>&1 | tail -n 1)"
}
READERS=(status list "show nobody" slots verify restore)

# ---- nothing there -----------------------------------------------------------------------------------

for command in "${READERS[@]}"; do
    read -r -a words <<<"$command"
    answers "no configuration, ${words[0]}" 78 'whole(j) and j["state"] == "bad-config"' \
        "${words[@]}" --json
done
answers "no configuration, doctor" 1 \
    'any(f["level"] == "problem" and f["reason"] and f["todo"] for f in j)' doctor --json
write_keystore_cnf
for command in "${READERS[@]}"; do
    read -r -a words <<<"$command"
    answers "no keystore, ${words[0]}" 78 'whole(j) and j["state"] == "uninitialized"' \
        "${words[@]}" --json
done
answers "wrong usage before --json" 64 'whole(j) and j["state"] == "bad-input"' list --bogus --json
answers "wrong usage before the command" 64 'whole(j)' --bogus list --json
answers "an option that is not written out" 64 'whole(j)' list --expires 1d --json
answers "wrong usage" 64 'whole(j) and j["state"] == "bad-input"' list --json nobody

# ---- all is well ---------------------------------------------------------------------------------------

new_keystore
keystore_key web
keystore_key x
answers "status" 0 'j["state"] == "unlocked" and j["reason"] is None and j["todo"] is None' \
    status --json
answers "verify" 0 'j["state"] == "unlocked" and j["proven"] == 2 and j["bad"] == []' verify --json
answers "restore" 0 'j["state"] == "unlocked" and j["found"] == "unlocked" and not j["restored"]' \
    restore --json
answers "list" 0 '[r["name"] for r in j] == ["web", "x"]' list --json
answers "doctor" "$(code=0; quietly tpk doctor || code=$?; echo "$code")" \
    'all(set(f) == {"level", "thing", "reason", "todo"} for f in j)' doctor --json

# ---- failures -------------------------------------------------------------------------------------------

WRONG=$PRIVATE/wrong
(umask 077 && echo "not the password" >"$WRONG")
answers "an unknown record" 66 'whole(j) and j["state"] == "not-found"' show nobody --json
answers "a wrong password" 77 'whole(j) and j["state"] == "wrong-secret"' \
    verify --json --password-file "$WRONG"
answers "an absent password file" 66 'whole(j) and j["state"] == "bad-input"' \
    restore --json --password-file "$WORK/absent"
answers "an unknown user" 64 'whole(j)' doctor --json --as nobody-of-that-name
mv "$PRIVATE"/state/*.dek "$WORK/dek"
answers "locked: status says the rest, too" 75 \
    'whole(j) and j["state"] == "kek-missing" and j["records"] == 2' status --json
answers "locked: verify" 75 'whole(j) and j["state"] == "kek-missing"' verify --json
answers "locked: restore --dry-run" 0 \
    'whole(j) and j["state"] == j["found"] == "kek-missing" and not j["restored"]' \
    restore --dry-run --json
answers "locked: restore with nothing" 75 \
    'whole(j) and j["state"] == "kek-missing" and "systemd gave none" in j["reason"]' restore --json
answers "locked: restore with a wrong password" 77 'whole(j) and j["state"] == "wrong-secret"' \
    restore --json --password-file "$WRONG"
answers "locked: restored" 0 \
    'j["state"] == "unlocked" and j["found"] == "kek-missing" and j["restored"]' \
    restore --json --password-file "$PASSWORD_FILE"

# ---- a record that can't be read -----------------------------------------------------------------------

keystore_sql "UPDATE tpks_record SET nonce = substr(nonce, 1, 3) WHERE name = 'web'"
answers "list names it, and shows the other" 65 'whole(j[0]) and j[0]["name"] == "web" and
    j[0]["state"] == "tampered" and j[1]["name"] == "x" and "key" in j[1]' list --json
fails "as text, too" 65 "web: " tpk list
says "and the other" "P-256"
says "and counts" "1 record can't be read"
answers "verify names it, and proves the other" 1 'whole(j) and j["proven"] == 1 and
    len(j["bad"]) == 1 and whole(j["bad"][0]) and j["bad"][0]["name"] == "web"' verify --json
fails "as text, too" 1 "1 records proven, 1 bad" tpk verify
case $ENGINE in # bytes where a text belongs, which PostgreSQL lets no single row have
sqlite) keystore_sql "UPDATE tpks_record SET name = x'00' WHERE name = 'web'" ;;
postgresql)
    keystore_sql "ALTER TABLE tpks_record ALTER name DROP NOT NULL"
    keystore_sql "UPDATE tpks_record SET name = NULL WHERE name = 'web'"
    ;;
esac
fails "without a name it has its id" 65 "(record " tpk list
ok "the other is usable" tpk csr x --out "$WORK/x.csr"
finish
