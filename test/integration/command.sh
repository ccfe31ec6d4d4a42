#!/bin/bash
# command.sh - every command of trustpoint-keystore, for real, with good and bad input. With
# ENGINE=postgresql (postgresql_store.sh) all but what no engine has a part in
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# ---- helpers ----------------------------------------------------------------------------------

# use FOLDER: another keystore of its own from here on; its files are in PRIVATE/FOLDER.
use() {
    HERE=$PRIVATE/$1
    CONFIG=$HERE/keystore.cnf
    DATABASE=$HERE/keystore.db
    SCHEMA=k_$1
    [ "$1" != . ] || SCHEMA=public
    unset OPENSSL_CONF
    if [ ! -d "$HERE" ]; then
        mkdir -m 0700 "$HERE"
        keystore_place
    fi
}

# nothing_made: init has left the place as empty as it was.
nothing_made() {
    case $ENGINE in
    sqlite) test ! -e "$DATABASE" ;;
    postgresql) test "$(keystore_sql "SELECT count(*) FROM pg_tables WHERE schemaname = '$SCHEMA'")" = 0 ;;
    esac
}

# fast_init OPTION...: init with a cheap Argon2id, and the configuration written on the way.
fast_init() {
    tpk init --store "$(keystore_store)" --state "$HERE/state" --kdf-memory 8 --kdf-passes 1 "$@"
}

# secret_file FILE TEXT: printf's format, mode 0600.
secret_file() {
    # shellcheck disable=SC2059
    (umask 077 && printf "$2" >"$1")
}

# on_terminal INPUT COMMAND...: runs it at a terminal where the lines of INPUT are typed.
on_terminal() {
    local input=$1
    shift
    secret_file "$PRIVATE/answers" "$input"
    python3 "$ROOT/test/integration/at_terminal.py" --answers "$PRIVATE/answers" -- \
        "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}

# from TEXT COMMAND...: with TEXT on standard input.
from() {
    local text=$1
    shift
    printf '%s' "$text" | "$@"
}

# into FILE COMMAND...: standard output goes to FILE.
into() {
    local file=$1
    shift
    "$@" >"$file"
}

is_json() {
    python3 -m json.tool
}

# json_of COMMAND...: what tpk prints must be one JSON text.
json_of() {
    tpk "$@" | is_json
}

# json_get EXPRESSION COMMAND...: a Python expression over what tpk prints, as `j`.
json_get() {
    local expression=$1
    shift
    tpk "$@" 2>>"$OUT" | python3 -c "import json,sys; j = json.load(sys.stdin); print($expression)"
}

public_of() {
    plain openssl pkey -in "$1" -pubout 2>>"$OUT"
}

# same_key NAME RECORD FILE: the record's private key, exported, is the one in the file.
same_key() {
    local out=$WORK/exported.$RANDOM
    tpk export "$2" --out "$out" --unencrypted --yes-export-private-key >"$OUT" 2>&1 || true
    same "$1" "$(plain openssl pkey -in "$3" 2>>"$OUT")" "$(plain openssl pkey -in "$out" 2>>"$OUT")"
    rm -f "$out"
}

mode_of() {
    stat -c %a "$1"
}

# ---- usage ------------------------------------------------------------------------------------

usage() {
    use usage
    ok "--help" tpk --help
    says "it lists the commands" "set-cert"
    ok "--version" tpk --version
    for command in init import import-trustpoint generate list show set-cert cert csr rename \
        delete policy stub nginx-config apache-config export backup verify status doctor slots; do
        ok "$command --help" "$KEYSTORE_COMMAND" "$command" --help
        says "it names the global options" "--accept-new-anchor"
    done
    fails "no command" 64 "a command is missing" "$KEYSTORE_COMMAND"
    fails "unknown command" 64 'no command "frobnicate"' tpk frobnicate
    fails "unknown option" 64 "--frobnicate" tpk list --frobnicate
    fails "the beginning of a flag" 64 "--no-recovery must be written out" tpk init --no
    fails "the beginning of an option with a value" 64 "--store must be written out" tpk init --sto x
    fails "the same in one word" 64 "--store must be written out" tpk init --sto=--store
    fails "the beginning of a global option" 64 "--keystore must be written out" \
        "$KEYSTORE_COMMAND" --keyst x list
    fails "the same behind the command" 64 "--keystore must be written out" tpk list --keyst x
    fails "the beginning of --help" 64 "--help must be written out" tpk list --hel
    fails "the beginning of two options" 64 "ambiguous" tpk init --kdf 8
    fails "behind arguments" 64 "--unencrypted must be written out" tpk export web x y --unenc
    fails "a value like a beginning is a value" 78 "$CONFIG" tpk export web --out --unenc --unencrypted \
        --yes-export-private-key
    fails "option without its value" 64 "" tpk show --config
    fails "number that is none" 64 "needs a number" tpk init --kdf-memory 8x --kdf-passes 1
    fails "number that is too large" 64 "needs a number" tpk list --password-fd 4294967296
    fails "negative number" 64 "needs a number" tpk init --kdf-memory -8 --kdf-passes 1
    fails "too few arguments" 64 "too few" tpk show
    fails "too many arguments" 64 "too many" tpk show a b
    fails "no configuration" 78 "$CONFIG" tpk list
    fails "init without configuration and values" 78 "--store" tpk init
    secret_file "$CONFIG" '[keystore]\nstor = sqlite:/x/y\n'
    fails "unknown directive" 78 "stor" tpk list
    fails "control characters in a message are escaped" 64 '\u001b' tpk $'a\eb'
    rm "$CONFIG"
}

# ---- init -------------------------------------------------------------------------------------

init_passwords() {
    use passwords
    secret_file "$HERE/short" 'elevenchars'
    secret_file "$HERE/control" 'twelve chars\001\n'
    secret_file "$HERE/broken" 'twelve chars\377\n'
    secret_file "$HERE/empty" ''
    secret_file "$HERE/lf" 'correct horse battery\n'
    secret_file "$HERE/crlf" 'correct horse battery\r\n'
    secret_file "$HERE/two" 'correct horse battery\n\n'
    secret_file "$HERE/wrong" 'incorrect horse battery\n'
    printf 'correct horse battery\n' >"$HERE/open"
    chmod 0644 "$HERE/open"

    fails "too short a password" 65 "12" fast_init --software --password-file "$HERE/short"
    ok "no configuration is left behind" test ! -e "$CONFIG"
    fails "control character in a password" 65 "" fast_init --software --password-file "$HERE/control"
    fails "password that is not UTF-8" 65 "" fast_init --software --password-file "$HERE/broken"
    fails "a second line end belongs to the password" 65 "" \
        fast_init --software --password-file "$HERE/two"
    fails "empty password file" 65 "empty" fast_init --software --password-file "$HERE/empty"
    fails "missing password file" 66 "$HERE/none" fast_init --software --password-file "$HERE/none"
    fails "password file that all can read" 77 "0644" \
        fast_init --software --password-file "$HERE/open"
    fails "password descriptor that is not open" 65 "" fast_init --software --password-fd 77
    fails "no password and no terminal" 77 "--password-file" setsid -w \
        "$KEYSTORE_COMMAND" --config "$CONFIG" init --store "$(keystore_store)" --software
    fails "--no-recovery with --recovery" 64 "--no-recovery" fast_init --software --no-recovery --recovery
    fails "half a cost" 64 "together" tpk init --store "$(keystore_store)" --software --kdf-memory 8

    ok "password with CR LF" fast_init --software --password-file "$HERE/crlf"
    ok "the same with LF opens" tpk verify --password-file "$HERE/lf"
    ok "the same from a descriptor opens" bash -c '"$1" --config "$2" verify --password-fd 9 9<"$3"' \
        - "$KEYSTORE_COMMAND" "$CONFIG" "$HERE/lf"
    fails "a wrong password does not" 77 "" tpk verify --password-file "$HERE/wrong"
    says_not "and is not repeated" "incorrect horse"
    fails "init never replaces a keystore" 73 "already" tpk init --software --password-file "$HERE/lf"
}

# second_store: of another keystore than the one in use, in the same folder.
second_store() {
    local DATABASE=$HERE/edge.db SCHEMA=k_edge
    keystore_place
    keystore_store
}

init_files() {
    use files
    secret_file "$HERE/pw" 'correct horse battery\n'
    fails "a line end in --store" 64 "control" tpk init --store $'sqlite:/x\n[keystore_a]' --software
    fails "a '#' in --store" any "" tpk init --store "sqlite:$HERE/a #b" --software --no-recovery
    ok "no configuration is left behind" test ! -e "$CONFIG"
    fails "relative path" 78 "ABSOLUTE" tpk init --store sqlite:keystore.db --software --no-recovery
    fails "--store without --token" 64 "--software" tpk init --store "$(keystore_store)"
    fails "--token and --software" 64 "--software" fast_init --software --token pkcs11:token=x
    fails "token URI without module" 78 "module" fast_init --token pkcs11:token=x --no-recovery
    fails "a PIN in the token URI" 78 "pin-value" fast_init --no-recovery \
        --token "pkcs11:token=x?module-path=$(find_softhsm)&pin-value=4711"
    says_not "is not repeated" "4711"
    ok "no configuration is left behind" test ! -e "$CONFIG"

    ok "init writes the configuration" fast_init --software --password-file "$HERE/pw" --label "Büro"
    says "says what it made" "made the keystore"
    says "and what comes next" "next:"
    same "mode of the configuration" 640 "$(mode_of "$CONFIG")"
    [ "$ENGINE" != sqlite ] || same "others cannot read the database" 0 "$(($(mode_of "$DATABASE") % 10))"
    same "nothing but the owner reads the DEK file" 600 "$(mode_of "$(echo "$HERE"/state/*.dek)")"
    same "label" "Büro" "$(json_get 'j["label"]' status --json)"
    fails "another --store for the same configuration" 73 "leave out" \
        tpk init --store "sqlite:$HERE/other.db"
    printf '[keystore_edge]\nstore = %s\nstate = %s/state\n' "$(second_store)" "$HERE" >>"$CONFIG"
    ok "init of a second keystore" tpk --keystore edge init --software --password-file "$HERE/pw" --kdf-memory 8 --kdf-passes 1
    ok "generate there" tpk --keystore edge generate inside
    same "URI names the keystore" "trustpoint://inside?keystore=edge" \
        "$(json_get 'j["uri"]' --keystore edge show inside --json)"
    fails "not in the default keystore" 66 "inside" tpk show inside
    fails "unknown section" any "nowhere" tpk --keystore nowhere list
}

init_recovery() {
    use recovery
    fast_init --software --recovery >"$HERE/key" 2>"$OUT" || fail "init --recovery"
    chmod 0600 "$HERE/key"
    same "only the recovery key is on stdout" 1 "$(wc -l <"$HERE/key")"
    says "how it is to be kept is on stderr" "only this once"
    ok "the recovery key opens" tpk verify --password-file "$HERE/key"
    sed 'y/0123456789abcdefABCDEFGH/1234567890bcdefaBCDEFGHJ/' "$HERE/key" >"$HERE/other"
    chmod 0600 "$HERE/other"
    fails "another one does not" any "" tpk verify --password-file "$HERE/other"
    use none
    ok "--no-recovery" fast_init --software --no-recovery
    same "has no way back" 0 "$(json_get 'j["ways_back"]' status --json)"
    use both
    secret_file "$HERE/pw" 'correct horse battery\n'
    ok "password and recovery key" fast_init --software --recovery --password-file "$HERE/pw"
    same "are two ways back" 2 "$(json_get 'j["ways_back"]' status --json)"
}

# A recovery key that nobody gets is no way back, and that is said.
init_unprinted() {
    local where removal
    into_full() {
        "$@" >/dev/full
    }
    for where in full closed; do
        use "unprinted_$where"
        local start=("$KEYSTORE_COMMAND" --config "$CONFIG" init --store "$(keystore_store)"
            --state "$HERE/state" --software --recovery --kdf-memory 8 --kdf-passes 1)
        fails "init --recovery into $where" 71 "nobody has the recovery key" "into_$where" "${start[@]}"
        says "the keystore is there" "made the keystore"
        says "without a way back" "ways back without the HSM: none"
        same "the failure is said once" 1 "$(grep -c 'cannot write to standard output' "$OUT")"
        removal=$(sed -n 's/.*trustpoint-keystore \(slot remove [0-9a-f]*\)".*/\1/p' "$OUT")
        ok "another key can be had" into "$HERE/key" tpk slot add recovery
        chmod 0600 "$HERE/key"
        # shellcheck disable=SC2086
        ok "the one that nobody has can be removed" tpk $removal --yes
        ok "and this is the way back" tpk slot test --password-file "$HERE/key"
        use "unprinted_${where}_2"
        secret_file "$HERE/pw" 'correct horse battery\n'
        fails "the same beside a password" 71 "taken back" "into_$where" "$KEYSTORE_COMMAND" --config \
            "$CONFIG" init --store "$(keystore_store)" --state "$HERE/state" --software --recovery \
            --password-file "$HERE/pw" --kdf-memory 8 --kdf-passes 1
        same "which is the only way back" 1 "$(json_get 'j["ways_back"]' status --json)"
    done
}

# type_back ANSWER COMMAND...: at a terminal; each time the recovery key is asked for, ANSWER or,
# when that is empty, the key that was shown is typed.
type_back() {
    cat >"$WORK/type_back.py" <<'SCRIPT'
import os, pty, re, sys
answer, seen, asked = sys.argv[1], b"", 0
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    os.write(1, data)
    if seen.count(b"type it here: ") > asked:
        asked += 1
        key = re.search(rb"^([A-Z0-9-]{40,})\r?$", seen, re.M | re.I).group(1)
        os.write(fd, (answer.encode() or key) + b"\n")
    for question in (b"recovery key): ", b"The same again: "):
        if question in seen: # no password
            seen = seen.replace(question, b"")
            os.write(fd, b"\n")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
SCRIPT
    python3 "$WORK/type_back.py" "$@"
}

init_type_back() {
    use typed
    ok "the recovery key is typed back" type_back '' "$KEYSTORE_COMMAND" --config "$CONFIG" init \
        --store "$(keystore_store)" --state "$HERE/state" --software --recovery
    same "and is the only way back" 1 "$(json_get 'j["ways_back"]' status --json)"
    use mistyped
    fails "typed back wrongly" 77 "not typed correctly" type_back nonsense "$KEYSTORE_COMMAND" \
        --config "$CONFIG" init --store "$(keystore_store)" --state "$HERE/state" --software --recovery
    ok "the keystore is there all the same" tpk status
}

init_terminal() {
    local start
    use terminal
    start=(init --store "$(keystore_store)" --state "$HERE/state" --software --kdf-memory 8
        --kdf-passes 1)
    fails "two entries that differ, three times" 77 "differ" on_terminal \
        'correct horse battery\ncorrect horse batterx\na\nb\nc\nd\n' "${start[@]}"
    ok "nothing was made" nothing_made
    ok "password asked twice at a terminal" on_terminal \
        'short\nshort\ncorrect horse battery\ncorrect horse battery\n' "${start[@]}"
    secret_file "$HERE/pw" 'correct horse battery\n'
    ok "and it opens" tpk verify --password-file "$HERE/pw"
    ok "generate" tpk generate doomed
    fails "delete asks" 77 "not confirmed" on_terminal 'no\n' delete doomed
    ok "and still has it" tpk show doomed
    ok "export asks twice" on_terminal 'yes\nyes\ncorrect horse battery\ncorrect horse battery\n' \
        export doomed --out "$HERE/out.pem"
    ok "and encrypts with what was typed" plain openssl pkey -in "$HERE/out.pem" -noout \
        -passin "file:$HERE/pw"
    fails "one yes is not enough" 77 "not confirmed" on_terminal 'yes\nno\n' \
        export doomed --out "$HERE/no.pem"
    ok "nothing was written" test ! -e "$HERE/no.pem"
    ok "delete with yes" on_terminal 'yes\n' delete doomed
    fails "is gone" 66 "doomed" tpk show doomed
}

# ---- import -----------------------------------------------------------------------------------

# import_type NAME TYPE...: the same key as PEM, DER, encrypted PKCS#8 and PKCS#12.
import_type() {
    local name=$1 key=$PRIVATE/$1.key
    plain_key "$@"
    plain openssl pkey -in "$key" -outform DER -out "$HERE/$name.der"
    plain openssl pkcs8 -topk8 -in "$key" -out "$HERE/$name.p8" -passout "file:$HERE/input"
    plain openssl pkcs12 -export -inkey "$key" -in "$WORK/$name.pem" -certfile "$WORK/ca.pem" \
        -out "$HERE/$name.p12" -passout "file:$HERE/input" 2>>"$OUT"
    ok "import $name: PEM" tpk import "$name" "$key" --cert "$WORK/$name.pem"
    same_key "$name gives the key back" "$name" "$key"
    ok "import $name: DER" tpk import "$name der" "$HERE/$name.der"
    same_key "$name der gives the key back" "$name der" "$key"
    ok "import $name: PKCS#8, encrypted" \
        tpk import "$name p8" "$HERE/$name.p8" --input-password-file "$HERE/input"
    same_key "$name p8 gives the key back" "$name p8" "$key"
    ok "import $name: PKCS#12" \
        tpk import "$name p12" "$HERE/$name.p12" --input-password-file "$HERE/input"
    same_key "$name p12 gives the key back" "$name p12" "$key"
    same "$name p12 has certificate and chain" 2 \
        "$(json_get 'len(j["certificates"])' show "$name p12" --json)"
}

import_types() {
    use import
    fast_init --software --no-recovery >"$OUT" 2>&1
    openssl_cnf "$HERE/openssl.cnf"
    secret_file "$HERE/input" 'input password\n'
    secret_file "$HERE/wrong" 'another password\n'
    import_type rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
    import_type rsa-pss -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
    import_type p256 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
    import_type p384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
    import_type p521 -algorithm EC -pkeyopt ec_paramgen_curve:P-521
    import_type ed25519 -algorithm ED25519
    import_type ed448 -algorithm ED448
    plain openssl ec -in "$PRIVATE/p256.key" -out "$HERE/sec1.pem" 2>>"$OUT"
    ok "import: EC PRIVATE KEY" tpk import sec1 "$HERE/sec1.pem"
    plain openssl rsa -in "$PRIVATE/rsa.key" -traditional -out "$HERE/pkcs1.pem" 2>>"$OUT"
    ok "import: RSA PRIVATE KEY" tpk import pkcs1 "$HERE/pkcs1.pem"
    plain openssl rsa -in "$PRIVATE/rsa.key" -traditional -aes256 -passout "file:$HERE/input" \
        -out "$HERE/pkcs1.enc" 2>>"$OUT"
    ok "import: encrypted RSA PRIVATE KEY" \
        tpk import pkcs1e "$HERE/pkcs1.enc" --input-password-file "$HERE/input"
    for kind in p8 p12; do
        fails "wrong input password ($kind)" 77 "password is wrong" \
            tpk import w "$HERE/p256.$kind" --input-password-file "$HERE/wrong"
        fails "no input password ($kind)" 77 "--input-password-file" setsid -w \
            "$KEYSTORE_COMMAND" --config "$CONFIG" import w "$HERE/p256.$kind"
        fails "missing input password file ($kind)" 66 "none" \
            tpk import w "$HERE/p256.$kind" --input-password-file "$HERE/none"
    done
    ok "verify all" tpk verify
}

import_certificates() {
    local ca2=$WORK/inter.pem
    plain_key lone
    # A chain of three: leaf, intermediate, root, given in the wrong order.
    plain openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=Inter" \
        -keyout "$PRIVATE/inter.key" -out "$PRIVATE/inter.csr" 2>>"$OUT"
    printf 'basicConstraints=critical,CA:TRUE\n' >"$PRIVATE/inter.ext"
    plain openssl x509 -req -in "$PRIVATE/inter.csr" -CA "$WORK/ca.pem" -CAkey "$PRIVATE/ca.key" \
        -set_serial 0x77 -days 30 -extfile "$PRIVATE/inter.ext" -out "$ca2" 2>>"$OUT"
    plain openssl x509 -req -in "$PRIVATE/lone.csr" -CA "$ca2" -CAkey "$PRIVATE/inter.key" \
        -set_serial 0x78 -days 30 -out "$WORK/lone3.pem" 2>>"$OUT"
    cat "$WORK/ca.pem" "$PRIVATE/lone.key" "$WORK/lone3.pem" "$ca2" >"$PRIVATE/mixed.pem"
    ok "key and chain in any order" tpk import sorted "$PRIVATE/mixed.pem"
    same "leaf first, root last" "CN=lone CN=Inter CN=Test CA" \
        "$(json_get '" ".join(c["subject"] for c in j["certificates"])' show sorted --json)"
    tpk cert sorted >"$WORK/chain.pem"
    ok "cert writes all of it" plain openssl verify -CAfile "$WORK/ca.pem" \
        -untrusted "$WORK/chain.pem" "$WORK/chain.pem"
    same "cert --leaf only the first" 1 "$(tpk cert sorted --leaf | grep -c BEGIN)"
    ok "--cert and --chain" tpk import chained "$PRIVATE/lone.key" --cert "$WORK/lone3.pem" \
        --chain "$ca2" --chain "$ca2"
    same "duplicates are dropped" 2 "$(json_get 'len(j["certificates"])' show chained --json)"
    fails "certificate of another key" 65 "does not belong" \
        tpk import bad "$PRIVATE/lone.key" --cert "$WORK/rsa.pem"
    fails "certificate outside the chain" 65 "no place" \
        tpk import bad "$PRIVATE/lone.key" "$WORK/lone3.pem" "$WORK/rsa.pem"
    fails "--cert with a key in it" 65 "private key" \
        tpk import bad "$PRIVATE/lone.key" --cert "$PRIVATE/rsa.key"
    fails "two keys" 65 "second" tpk import bad "$PRIVATE/lone.key" "$PRIVATE/rsa.key"
    ok "the same key twice" tpk import twice "$PRIVATE/lone.key" "$PRIVATE/lone.key"
    fails "no key" 65 "no private key" tpk import bad "$WORK/lone.pem"
    fails "nothing was kept of all that" 66 "bad" tpk show bad
    fails "cert of a record without one" 66 "no certificate" tpk cert twice
}

import_bad() {
    printf 'no key at all\n' >"$HERE/text"
    head -c 3000 /dev/urandom >"$HERE/random"
    : >"$HERE/void"
    head -c 2000000 /dev/zero >"$HERE/huge"
    sed '3s/^..../@@@@/' "$WORK/rsa.pem" >"$HERE/garbled.pem"
    fails "a text" 65 "neither" tpk import bad "$HERE/text"
    fails "random bytes" 65 "neither" tpk import bad "$HERE/random"
    fails "an empty file" 65 "empty" tpk import bad "$HERE/void"
    fails "a huge file" 65 "1 MiB" tpk import bad "$HERE/huge"
    fails "a folder" 65 "directory" tpk import bad "$HERE"
    fails "a missing file" 66 "$HERE/none" tpk import bad "$HERE/none"
    fails "a garbled certificate beside the key" 65 "" \
        tpk import bad "$PRIVATE/rsa.key" "$HERE/garbled.pem"
    fails "an existing name" 73 "" tpk import rsa "$PRIVATE/p256.key"
    same_key "which keeps its key" rsa "$PRIVATE/rsa.key"
    fails "a DSA or DH key" any "" bash -c 'openssl genpkey -algorithm X25519 | "$1" --config "$2" import bad -' \
        - "$KEYSTORE_COMMAND" "$CONFIG"
    ok "standard input" from "$(cat "$PRIVATE/rsa.key")" \
        "$KEYSTORE_COMMAND" --config "$CONFIG" import stdin -
}

# no_terminal ARGUMENTS...: the command, where nobody can be asked.
no_terminal() {
    setsid -w "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}

# What is last in a file counts as much as what is first.
import_whole() {
    local word input=(--input-password-file "$HERE/input") wrong=(--input-password-file "$HERE/wrong")
    cat "$PRIVATE/rsa.key" "$WORK/rsa.pem" "$HERE/p256.p8" >"$HERE/two.pem"
    cp "$HERE/two.pem" "$HERE/two.copy"
    fails "an encrypted second key, and nobody to ask" 77 "--input-password-file" \
        no_terminal import whole "$HERE/two.pem" --delete-source
    fails "an encrypted second key and a wrong password" 77 "password is wrong" \
        tpk import whole "$HERE/two.pem" --delete-source "${wrong[@]}"
    fails "an encrypted second key and its password" 65 "second" \
        tpk import whole "$HERE/two.pem" --delete-source "${input[@]}"
    ok "nothing of all this has touched the file" cmp "$HERE/two.pem" "$HERE/two.copy"
    cat "$WORK/rsa.pem" "$HERE/pkcs1.enc" >"$HERE/both.pem"
    fails "certificate and encrypted key, wrong password" 77 "password is wrong" \
        tpk import whole "$HERE/both.pem" "${wrong[@]}"
    fails "a password that was good for another file" 65 "neither" \
        tpk import whole "$HERE/both.pem" "$HERE/garbled.pem" "${input[@]}"

    (cat "$WORK/rsa.pem" && sed '3s/^..../@@@@/' "$WORK/ca.pem") >"$HERE/last.pem"
    (cat "$WORK/rsa.pem" && sed '$d' "$WORK/ca.pem") >"$HERE/cut.pem"
    (cat "$WORK/rsa.pem" && sed '1s/^-//' "$WORK/ca.pem") >"$HERE/begin.pem"
    (cat "$WORK/rsa.pem" && printf -- '-----BEGIN NOTE-----\nAAAA\n-----END NOTE-----\n') >"$HERE/note.pem"
    for word in last cut begin note; do
        fails "what cannot be read at the end ($word)" 65 "neither" \
            tpk import whole "$PRIVATE/rsa.key" --cert "$HERE/$word.pem"
    done
    (plain openssl x509 -in "$WORK/rsa.pem" -outform DER && head -c 100 "$HERE/random") >"$HERE/tail.der"
    fails "what cannot be read behind DER" 65 "neither" \
        tpk import whole "$PRIVATE/rsa.key" --cert "$HERE/tail.der"
    fails "a text for --chain" 65 "neither" \
        tpk import whole "$PRIVATE/rsa.key" --cert "$WORK/rsa.pem" --chain "$HERE/text"
    fails "set-cert: a wrong password for the second file" 77 "password is wrong" \
        tpk set-cert rsa "$WORK/rsa.pem" "$HERE/rsa.p12" "${wrong[@]}"
    fails "set-cert: an encrypted key, and nobody to ask" 77 "--input-password-file" \
        no_terminal set-cert rsa "$HERE/both.pem"
    fails "nothing was kept of all that" 66 "whole" tpk show whole
}

# Beside the key: what is in it anyway, what is passed over, and what would be lost.
import_beside() {
    plain openssl ecparam -name prime256v1 -genkey -out "$HERE/params.pem" 2>>"$OUT"
    plain openssl pkey -in "$HERE/params.pem" -pubout -out "$HERE/public.pem"
    ok "parameters before the key" grep -q "EC PARAMETERS" "$HERE/params.pem"
    cat "$HERE/params.pem" "$HERE/public.pem" >"$HERE/beside.pem"
    fails "--delete-source of more than is taken in" 65 "would be lost" \
        tpk import beside "$HERE/beside.pem" --delete-source
    ok "deletes nothing" test -s "$HERE/beside.pem"
    fails "and keeps no record" 66 "beside" tpk show beside
    ok "without it that is passed over" tpk import beside "$HERE/beside.pem"
    same_key "and the key is there" beside "$HERE/params.pem"
    fails "nothing but a public key" 65 "neither" tpk import public "$HERE/public.pem"
    ok "--delete-source with parameters of the key" tpk import params "$HERE/params.pem" --delete-source
    ok "deletes the file" test ! -e "$HERE/params.pem"
}

import_names() {
    local name
    fails "empty name" 65 "" tpk import '' "$PRIVATE/rsa.key"
    fails "name with a line end" 65 "control" tpk import $'a\nb' "$PRIVATE/rsa.key"
    fails "name with an escape character" 65 "control" tpk import $'a\e[2Jb' "$PRIVATE/rsa.key"
    fails "name that is not UTF-8" 65 "UTF-8" tpk import $'a\377' "$PRIVATE/rsa.key"
    fails "name like an option" 65 "" tpk import -- -x "$PRIVATE/rsa.key"
    fails "name like a path" 65 "" tpk import /x "$PRIVATE/rsa.key"
    fails "name of 256 bytes" 65 "255" tpk import "$(printf 'x%.0s' {1..256})" "$PRIVATE/rsa.key"
    ok "name of 255 bytes" tpk import "$(printf 'x%.0s' {1..255})" "$PRIVATE/rsa.key"
    for name in 'Grüße an alle' 'semi;colon' 'what?' '100%' 'a&b=c' 'a#b' '鍵' "quote'\"" 'a\b' '$HOME'; do
        ok "generate '$name'" tpk generate "$name"
        ok "show '$name'" tpk show "$name"
        same "list has '$name'" "$name" "$(tpk list --names | grep -xF -- "$name")"
        same "stub of '$name' leads to it" "$(tpk export "$name" --unencrypted \
            --yes-export-private-key --out "$HERE/n.pem" && public_of "$HERE/n.pem")" \
            "$(tpk stub "$name" --out "$HERE/n.stub" && openssl pkey -in "$HERE/n.stub" -pubout 2>>"$OUT")"
        rm -f "$HERE/n.pem" "$HERE/n.stub"
        ok "delete '$name'" tpk delete "$name" --yes
    done
}

delete_source() {
    cp "$PRIVATE/rsa.key" "$HERE/source.key"
    cp "$WORK/rsa.pem" "$HERE/source.pem"
    fails "--delete-source with an import that fails" 73 "" \
        tpk import rsa "$HERE/source.key" "$HERE/source.pem" --delete-source
    ok "keeps the file" test -s "$HERE/source.key"
    exec 8<"$HERE/source.key"
    ok "--delete-source" tpk import deleted "$HERE/source.key" "$HERE/source.pem" --delete-source
    ok "deletes the key's file" test ! -e "$HERE/source.key"
    ok "not that of the certificate" test -s "$HERE/source.pem"
    same "and has overwritten it" "" "$(tr -d '\0' <&8)"
    exec 8<&-
    same_key "the record has the key" deleted "$PRIVATE/rsa.key"
    fails "--delete-source of standard input" 64 "standard input" \
        tpk import bad - --delete-source
    cp "$PRIVATE/p256.key" "$HERE/target.key"
    ln -s target.key "$HERE/link.key"
    fails "--delete-source of a symbolic link" any "not deleted" \
        tpk import linked "$HERE/link.key" --delete-source
    ok "leaves its target alone" cmp "$PRIVATE/p256.key" "$HERE/target.key"
    ok "and the record is there" tpk show linked
}

# ---- generate, csr, set-cert ------------------------------------------------------------------

generate() {
    local type name
    use generate
    fast_init --software --no-recovery >"$OUT" 2>&1
    openssl_cnf "$HERE/openssl.cnf"
    for type in rsa:2048 rsa:4096 rsa-pss:2048 ec:P-256 ec:P-384 ec:P-521 ed25519 ed448; do
        name=${type/:/ }
        ok "generate $type" tpk generate "$name" --type "$type" --csr "$WORK/$type.csr" \
            --self-signed 90 --subject "/O=Trustpoint/CN=www.example.org" \
            --san DNS:www.example.org,IP:192.0.2.1
        ok "its request is signed" plain openssl req -in "$WORK/$type.csr" -noout -verify -subject \
            -nameopt RFC2253
        says "and has the subject" "CN=www.example.org,O=Trustpoint"
        tpk cert "$name" >"$WORK/self.pem"
        ok "its certificate is signed" plain openssl verify -CAfile "$WORK/self.pem" "$WORK/self.pem"
        ok "and for the address" plain openssl verify -CAfile "$WORK/self.pem" -verify_ip 192.0.2.1 "$WORK/self.pem"
        ok "csr of $type" into "$WORK/again.csr" tpk csr "$name"
        ok "is signed" plain openssl req -in "$WORK/again.csr" -noout -verify
        same "and takes the names of the certificate" \
            "$(plain openssl x509 -in "$WORK/self.pem" -noout -ext subjectAltName | tail -1)" \
            "$(plain openssl req -in "$WORK/again.csr" -noout -text | grep -A1 'Subject Alternative' | tail -1 | sed 's/^ */    /')"
        ok "the provider loads it" openssl pkey -in "trustpoint://${name// /%20}" -noout
    done
    ok "generate without options" tpk generate plain
    same "is P-256" "EC P-256" "$(json_get 'j["key"]' show plain --json)"
    ok "self-signed without subject" tpk generate "CN is name" --self-signed 1
    same "has the record's name" "CN=CN is name" \
        "$(json_get 'j["certificates"][0]["subject"]' show 'CN is name' --json)"
    ok "a request on standard output" into "$WORK/std.csr" tpk generate stdout --csr -
    ok "is one" plain openssl req -in "$WORK/std.csr" -noout -verify
    for type in rsa:1024 rsa:2047 rsa:8193 rsa:99999999999999999999 rsa: 'rsa: 2048' rsa:-1 ec:P-192 \
        ec:secp256k1 ec: dsa '' rsa rsa-pss:1 ED25519; do
        fails "--type '$type'" 64 "--type" tpk generate bad --type "$type"
    done
    fails "an existing name" 73 "plain" tpk generate plain
    fails "--subject without purpose" 64 "--csr" tpk generate bad --subject /CN=x
    for subject in CN=x / /CN /NOSUCH=x /CN= "/C=Germany"; do
        fails "--subject $subject" 64 "--subject" tpk generate bad --csr - --subject "$subject" </dev/null
    done 2>/dev/null
    fails "--san that is none" 64 "--san" tpk generate bad --csr - --san x
    fails "--self-signed 0 with a subject" 64 "" tpk generate bad --self-signed 0 --subject /CN=x
    fails "--self-signed 0 alone" 64 "1 to 36500" tpk generate bad --self-signed 0
    fails "--self-signed for ever" 64 "36500" tpk generate bad --self-signed 36501
    fails "a request that cannot be written" any "cannot create" \
        tpk generate unwritten --csr "$HERE/no/such/folder"
    says "leaves the record and says so" "csr unwritten"
    ok "which is there" tpk show unwritten
    fails "a request over another file" 73 "std.csr" tpk generate bad --csr "$WORK/std.csr"
    fails "and then there is no record" 66 "bad" tpk show bad
    fails "csr without names to take" 64 "--subject" tpk csr plain
    ok "slash and umlaut in a subject" into "$WORK/s.csr" tpk csr plain --subject '/O=A\/B/CN=Bär'
    same "come out" "CN=Bär,O=A/B" "$(plain openssl req -in "$WORK/s.csr" -noout -subject -nameopt RFC2253,-esc_msb,utf8 | sed 's/subject=//')"
}

set_cert() {
    new_ca
    tpk csr plain --subject /CN=plain >"$PRIVATE/p.csr"
    ca_sign "$PRIVATE/p.csr" "$WORK/p1.pem" plain
    ca_sign "$PRIVATE/p.csr" "$WORK/p2.pem" plain
    ok "set-cert" tpk set-cert plain "$WORK/p1.pem" "$WORK/ca.pem"
    same "has two" 2 "$(json_get 'len(j["certificates"])' show plain --json)"
    ok "set-cert again" tpk set-cert plain "$WORK/p2.pem"
    same "replaces them" "$(cat "$WORK/p2.pem")" "$(tpk cert plain)"
    fails "set-cert with a certificate of another key" 65 "does not belong" \
        tpk set-cert plain "$WORK/self.pem"
    fails "set-cert with a key that was not meant" 65 "--key" \
        tpk set-cert plain "$WORK/p1.pem" "$PRIVATE/ca.key"
    fails "set-cert of nobody" 66 "nobody" tpk set-cert nobody "$WORK/p1.pem"
    same "all that changed nothing" "$(cat "$WORK/p2.pem")" "$(tpk cert plain)"
    plain_key fresh
    fails "new key without its certificate" 65 "does not belong" \
        tpk set-cert plain "$WORK/p1.pem" --key "$PRIVATE/fresh.key"
    ok "new key and certificate together" \
        tpk set-cert plain "$WORK/fresh.pem" --key "$PRIVATE/fresh.key"
    same_key "gives the new key" plain "$PRIVATE/fresh.key"
    ok "verify" tpk verify
}

# ---- the small ones ----------------------------------------------------------------------------

small_commands() {
    ok "rename" tpk rename plain 'plain 2'
    same_key "keeps the key" 'plain 2' "$PRIVATE/fresh.key"
    fails "rename of nobody" 66 "nobody" tpk rename nobody x
    fails "rename to a name that is taken" 73 "" tpk rename 'plain 2' ed25519
    fails "rename to a bad name" 65 "control" tpk rename 'plain 2' $'x\ny'
    ok "policy" tpk policy 'plain 2'
    says "signs only" "sign"
    says_not "signs only" "agree"
    ok "policy --allow-agree --allow-decrypt" tpk policy 'plain 2' --allow-agree --allow-decrypt
    same "allows" "sign, decrypt, agree" "$(tpk policy 'plain 2')"
    ok "policy --no-decrypt" tpk policy 'plain 2' --no-decrypt
    same "forbids" "sign, agree" "$(tpk policy 'plain 2')"
    fails "policy against itself" 64 "contradict" tpk policy 'plain 2' --allow-agree --no-agree
    fails "delete without a terminal" 64 "" setsid -w "$KEYSTORE_COMMAND" --config "$CONFIG" delete ed448
    ok "delete --yes" tpk delete ed448 --yes
    fails "delete of nobody" 66 "ed448" tpk delete ed448 --yes
    ok "stub --label traditional" tpk stub 'plain 2' --label traditional
    says "is EC PRIVATE KEY" "BEGIN EC PRIVATE KEY"
    ok "stub --label rsa of an RSA key" tpk stub 'rsa 2048' --label rsa
    fails "stub --label rsa of an EC key" 65 "--label own" tpk stub 'plain 2' --label rsa
    fails "stub --label traditional of Ed25519" 65 "--label own" tpk stub ed25519 --label traditional
    fails "stub --label unknown" 64 "--label" tpk stub ed25519 --label pem
    ok "stub --out" tpk stub ed25519 --out "$WORK/e.stub"
    same "is no secret" 644 "$(mode_of "$WORK/e.stub")"
    fails "--out never replaces a file" 73 "e.stub" tpk stub ed25519 --out "$WORK/e.stub"
    ok "slots" tpk slots
    says "shows the software slot" "software"
    ok "slots --json" json_of slots --json
    ok "status --json" json_of status --json
    ok "verify --json" json_of verify --json
    ok "list --json" json_of list --json
    ok "show --json" json_of show ed25519 --json
}

expires() {
    fails "list --expires-within 30d" 1 "CN is name" tpk list --expires-within 30d
    says_not "shows only those" "ed25519"
    ok "nothing within an hour" tpk list --expires-within 1h
    ok "as JSON" json_of list --expires-within 1h --json
    for time in x 5x -1d '' 5dd 999999999999999999999d; do
        fails "--expires-within '$time'" 64 "--expires-within" tpk list --expires-within "$time"
    done
}

export_key() {
    secret_file "$HERE/pw" 'correct horse battery\n'
    fails "export without --out" 64 "--out" tpk export ed25519 --yes-export-private-key
    fails "export without a terminal" 64 "--yes-export-private-key" setsid -w \
        "$KEYSTORE_COMMAND" --config "$CONFIG" export ed25519 --unencrypted --out "$HERE/x.pem"
    fails "export without password" 64 "--unencrypted" setsid -w "$KEYSTORE_COMMAND" \
        --config "$CONFIG" export ed25519 --yes-export-private-key --out "$HERE/x.pem"
    fails "export with both" 64 "contradict" tpk export ed25519 --unencrypted \
        --output-password-file "$HERE/pw" --yes-export-private-key --out "$HERE/x.pem"
    echo "log = file:$HERE/log" >>"$CONFIG"
    ok "export, encrypted" tpk export ed25519 --output-password-file "$HERE/pw" \
        --yes-export-private-key --out "$HERE/x.pem"
    same "mode 0600" 600 "$(mode_of "$HERE/x.pem")"
    ok "is encrypted" grep -q "BEGIN ENCRYPTED PRIVATE KEY" "$HERE/x.pem"
    ok "with that password" plain openssl pkey -in "$HERE/x.pem" -passin "file:$HERE/pw" -noout
    ok "is logged" grep -q 'event=export.*ed25519' "$HERE/log"
    fails "never replaces a file" 73 "x.pem" tpk export ed25519 --unencrypted \
        --yes-export-private-key --out "$HERE/x.pem"
    fails "export of nobody" 66 "nobody" tpk export nobody --unencrypted --yes-export-private-key \
        --out "$HERE/y.pem"
}

# A backup is a file of SQLite: that is the database, or moves into one.
backup_into_place() {
    keystore_place
    case $ENGINE in
    sqlite) mv "$HERE/backup.db" "$DATABASE" ;;
    postgresql)
        sed "s,^store = .*,store = sqlite:$HERE/backup.db," "$CONFIG" >"$HERE/backup.cnf"
        chmod 0600 "$HERE/backup.cnf"
        "$KEYSTORE_COMMAND" --config "$HERE/backup.cnf" backup "$(keystore_store)"
        ;;
    esac
}

backup_and_verify() {
    ok "backup" tpk backup "$HERE/backup.db"
    same "mode 0600" 600 "$(mode_of "$HERE/backup.db")"
    fails "never replaces a file" 73 "" tpk backup "$HERE/backup.db"
    keystore_sql "UPDATE tpks_record SET name = 'swapped' WHERE name = 'ed25519'"
    fails "verify finds a renamed row" any "" tpk verify
    fails "and says so as JSON" any '"state": "tampered"' tpk verify --json
    ok "a backup is put in its place" backup_into_place
    ok "the backup is good" tpk verify
    ok "generate" tpk generate later
    keystore_save "$HERE/old"
    tpk generate evenlater >"$OUT" 2>&1
    keystore_put_back "$HERE/old"
    fails "a rolled-back database is not written to" 65 "--accept-new-anchor" tpk generate never
    ok "unless told so" tpk generate again --accept-new-anchor
    ok "and then it is known" tpk generate more
}

# ---- the HSM ----------------------------------------------------------------------------------

hsm() {
    use .
    new_token web
    new_keystore
    openssl_cnf
    same "the DEK stays in the HSM" hsm "$(json_get 'j["dek_location"]' status --json)"
    ok "generate" tpk generate web --self-signed 90
    ok "the provider loads it" openssl pkey -in trustpoint://web -noout
    ok "status shows the token" tpk status
    says "status shows the token" "web (serial"
    ok "slots shows it" tpk slots
    says "slots shows it" "aes-kw"
    hsm_failures
    hsm_doctor
    hsm_loss
}

hsm_failures() {
    local good=$TOKEN_URI
    TOKEN_URI="pkcs11:token=web?module-path=$PRIVATE/none.so&pin-source=file:$PIN_FILE"
    write_keystore_cnf
    fails "missing module" 69 "none.so" tpk verify
    ok "list needs no HSM" tpk list
    TOKEN_URI="pkcs11:token=nobody?module-path=$SOFTHSM&pin-source=file:$PIN_FILE"
    write_keystore_cnf
    fails "missing token" 69 "" tpk verify
    secret_file "$PRIVATE/wrong.pin" '00000000\n'
    TOKEN_URI="pkcs11:token=web?module-path=$SOFTHSM&pin-source=file:$PRIVATE/wrong.pin"
    write_keystore_cnf
    fails "wrong PIN" 77 "PIN" tpk verify
    fails "which is not tried again" 77 "PIN" tpk verify
    says_not "nor repeated in a text" "00000000"
    TOKEN_URI="pkcs11:token=web?module-path=$SOFTHSM&pin-source=file:$PRIVATE/none.pin"
    write_keystore_cnf
    fails "missing PIN file" any "none.pin" tpk verify
    TOKEN_URI=$good
    write_keystore_cnf
    ok "all of that has harmed nothing" tpk verify
    lose_token
    fails "an empty token folder" 69 "" tpk status
    token_back
    ok "and back" tpk status
}

hsm_doctor() {
    ok "doctor finds no problem" tpk doctor
    [ "$ENGINE" != sqlite ] || says "warns of everything on one disk" "obfuscation"
    ok "doctor --json" json_of doctor --json
    ok "doctor --as root" tpk doctor --as root
    says "says what root could load" "can load the private key"
    fails "doctor --as nobody" 1 "only a program that loads keys as this user" tpk doctor --as nobody
    fails "doctor --as an unknown user" 64 "no user" tpk doctor --as no-such-user
    chmod 0644 "$PIN_FILE"
    fails "a PIN file that all can read" 1 "PIN file has mode 0644" tpk doctor
    chmod 0600 "$PIN_FILE"
    chmod 0666 "$CONFIG"
    fails "a configuration that all can write" 1 "mode 0666" tpk doctor
    chmod 0600 "$CONFIG"
    doctor_openssl
}

doctor_openssl() {
    local good=$OPENSSL_CONF
    OPENSSL_CONF=$PRIVATE/doctor.cnf
    sed '/^default = /d' "$good" >"$OPENSSL_CONF"
    fails "openssl.cnf without default" 1 "default provider is not activated" tpk doctor
    sed -e '/^default = /d' -e 's/^trustpoint = .*/&\ndefault = trustpoint_default/' "$good" >"$OPENSSL_CONF"
    fails "trustpoint before default" 1 "before default" tpk doctor
    sed 's/^providers = .*/&\nalg_section = algs/;$a [algs]\ndefault_properties = provider=default' "$good" >"$OPENSSL_CONF"
    fails "default_properties" 1 "default_properties" tpk doctor
    says "and what they do" "is not active"
    sed 's/^module = .*/module = \/none.so/' "$good" >"$OPENSSL_CONF"
    fails "missing provider module" 1 "/none.so" tpk doctor
    printf '[x\n' >"$OPENSSL_CONF"
    fails "openssl.cnf that cannot be parsed" 1 "cannot be parsed" tpk doctor
    printf '' >"$OPENSSL_CONF"
    fails "empty openssl.cnf" 1 "does not activate" tpk doctor
    OPENSSL_CONF=$good
    TRUSTPOINT_KEYSTORE_CONF=$CONFIG ok "TRUSTPOINT_KEYSTORE_CONF" "$KEYSTORE_COMMAND" list
    chmod 0600 "$CONFIG"
}

hsm_loss() {
    lose_kek
    write_keystore_cnf 'restore = no'
    fails "the KEK is gone" 75 "" tpk status
    same "status says it in one word" kek-missing "$(json_get 'j["state"]' status --json || true)"
    fails "doctor says it" 1 "kek-missing" tpk doctor
    ok "the backup password still opens" tpk verify --password-file "$PASSWORD_FILE"
    ok "and gives the keys" tpk export web --password-file "$PASSWORD_FILE" --unencrypted \
        --yes-export-private-key --out "$PRIVATE/rescued.pem"
    write_keystore_cnf "restore = file:$PASSWORD_FILE"
    fails "status restores nothing" 75 "" tpk status
    ok "loading a key does" openssl pkey -in trustpoint://web -noout
    ok "and then the HSM works again" tpk status
    ok "doctor shows the old slot" tpk doctor
    says "doctor shows the old slot" "is stale"
    lose_kek
    write_keystore_cnf 'restore = callback'
    fails "a wrong password at the terminal" 77 "" on_terminal 'incorrect horse battery\n' verify
    ok "the right one" on_terminal "$(cat "$PASSWORD_FILE")\n" verify
    ok "and then nobody is asked" tpk verify
}

no_rights() {
    use rights
    fast_init --software --no-recovery >"$OUT" 2>&1
    chmod 0711 "$PRIVATE" "$HERE"
    chmod 0644 "$CONFIG"
    fails "another user" 77 "" setpriv --reuid nobody --regid nogroup --clear-groups \
        "$KEYSTORE_COMMAND" --config "$CONFIG" list
    chmod 0600 "$CONFIG"
    fails "another user and the configuration" any "$CONFIG" setpriv --reuid nobody --regid nogroup \
        --clear-groups "$KEYSTORE_COMMAND" --config "$CONFIG" list
    chmod 0700 "$PRIVATE" "$HERE"
}

# ---- when things go wrong in the middle -------------------------------------------------------

two_processes() {
    local i one two a b
    use race
    fast_init --software --no-recovery >"$OUT" 2>&1
    for ((i = 0; i < 5; i++)); do
        start "$WORK/one" "$KEYSTORE_COMMAND" --config "$CONFIG" import "race $i" "$PRIVATE/rsa.key"
        one=$PID
        start "$WORK/two" "$KEYSTORE_COMMAND" --config "$CONFIG" import "race $i" "$PRIVATE/p256.key"
        two=$PID
        a=0 b=0
        wait "$one" || a=$?
        wait "$two" || b=$?
        unset "STARTED[$one]" "STARTED[$two]"
        cat "$WORK/one" "$WORK/two" >"$OUT"
        case "$a $b" in
        "0 73" | "73 0" | "0 75" | "75 0") pass "two imports of one name, $i: one wins" ;;
        *) fail "two imports of one name, $i: one wins" "exit codes $a and $b" ;;
        esac
    done
    ok "verify" tpk verify
    same "each once" 5 "$(tpk list --names | wc -l)"
}

# Kills an import as soon as its transaction has begun.
killed() {
    local i pid
    for ((i = 0; i < 6; i++)); do
        start "$WORK/log" "$KEYSTORE_COMMAND" --config "$CONFIG" import "killed $i" "$PRIVATE/rsa.key"
        pid=$PID
        while alive "$pid" && [ ! -e "$DATABASE-journal" ]; do :; done
        stop "$pid" KILL
        ok "killed $i: a reader finds a good database" tpk list
        if quietly tpk show "killed $i"; then
            pass "killed $i: the new state"
        else
            ok "killed $i: the old state, and the import goes on" \
                tpk import "killed $i" "$PRIVATE/rsa.key"
        fi
    done
    ok "verify" tpk verify
}

# A file system of its own, in a mount namespace that ends with the command.
small_disk() {
    local script=$WORK/small_disk.sh
    use disk
    mkdir "$HERE/fs"
    DATABASE=$HERE/fs/keystore.db
    cat >"$script" <<'SCRIPT'
set -eu
command=$1 config=$2 here=$3 key=$4
mount -t tmpfs -o size=512k,mode=0700 tmpfs "$here/fs"
"$command" --config "$config" init --store "sqlite:$here/fs/keystore.db" --state "$here/state" --software --no-recovery
"$command" --config "$config" import first "$key"
dd if=/dev/zero of="$here/fs/fill" bs=4k 2>/dev/null || true
code=0
i=0
while [ $i -lt 60 ] && [ $code = 0 ]; do
    i=$((i + 1))
    "$command" --config "$config" import "more $i" "$key" || code=$?
done
echo "exit code on a full disk: $code"
"$command" --config "$config" show first >/dev/null
rm "$here/fs/fill"
"$command" --config "$config" verify
"$command" --config "$config" import "more $i" "$key"
"$command" --config "$config" verify
SCRIPT
    if unshare -m true 2>/dev/null; then
        ok "full disk" unshare -m bash "$script" "$KEYSTORE_COMMAND" "$CONFIG" "$HERE" "$PRIVATE/rsa.key"
        says "is an unavailable database" "exit code on a full disk: 69"
    else
        echo "note  no mount namespace here: a full disk is only tried as a file size limit"
    fi
}

# without_growth COMMAND...: no file may grow; what it says goes through a pipe.
without_growth() {
    (
        trap '' XFSZ
        ulimit -f 0
        exec "$@"
    ) 2>&1 | cat
    return "${PIPESTATUS[0]}"
}

# Where mounting is not possible, and for the files that the command writes itself.
size_limit() {
    use limit
    fast_init --software --no-recovery >"$OUT" 2>&1
    ok "first" tpk import first "$PRIVATE/rsa.key"
    fails "a database that must not grow" 69 "keystore.db" without_growth \
        "$KEYSTORE_COMMAND" --config "$CONFIG" import more "$PRIVATE/rsa.key"
    fails "a file that must not grow" 71 "cannot write" without_growth \
        "$KEYSTORE_COMMAND" --config "$CONFIG" stub first --out "$HERE/stub"
    ok "leaves none behind" test ! -e "$HERE/stub"
    fails "standard output that is full" 71 "standard output" bash -c '"$@" >/dev/full' - \
        "$KEYSTORE_COMMAND" --config "$CONFIG" stub first
    fails "a recovery key that nobody gets" any "" bash -c '"$@" >/dev/full' - \
        "$KEYSTORE_COMMAND" --config "$HERE/other.cnf" init --store "sqlite:$HERE/other.db" \
        --state "$HERE/state" --software --recovery
    ok "verify" tpk verify
}

# ---- what else is installed -------------------------------------------------------------------

completion() {
    local file=$STAGE/share/bash-completion/completions/trustpoint-keystore
    use generate
    cat >"$WORK/complete.sh" <<'SCRIPT'
. "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_trustpoint_keystore
printf '%s\n' "${COMPREPLY[@]}"
SCRIPT
    complete_words() {
        PATH=$STAGE/bin:$PATH bash --norc "$WORK/complete.sh" "$file" "$@" 2>&1
    }
    ok "completion of commands" complete_words trustpoint-keystore se
    says "completion of commands" set-cert
    ok "completion of options" complete_words trustpoint-keystore export x --yes
    says "completion of options" --yes-export-private-key
    ok "completion of names" complete_words trustpoint-keystore --config "$CONFIG" show 'rsa\ 2'
    says "completion of names" 'rsa\ 2048'
    ok "completion of types" complete_words trustpoint-keystore generate x --type ed
    says "completion of types" ed448
}

# examples PAGE: its commands between "test-begin" and "test-end".
examples() {
    sed -n '/^\.\\" test-begin$/,/^\.\\" test-end$/{/^\.\\"/d;p}' "$1"
}

# The two example files, as they are installed.
example_files() {
    local folder
    folder=$(dirname "$(find "$STAGE/share/doc" -name openssl.cnf.example)")
    use example
    cp "$folder/keystore.cnf.example" "$CONFIG"
    chmod 0600 "$CONFIG"
    echo "state = $HERE/state" >"$HERE/tail"
    sed -i -e "/^\[keystore\]/r $HERE/tail" "$CONFIG"
    fails "keystore.cnf.example is well-formed" 78 "no keystore" tpk list
    fast_init_values=(--store "sqlite:$HERE/state/keystore.db" --state "$HERE/state")
    CONFIG=$HERE/etc/keystore.cnf
    ok "a fresh host: init makes the folders" tpk init "${fast_init_values[@]}" \
        --software --no-recovery
    ok "generate" tpk generate web
    cp "$folder/openssl.cnf.example" "$HERE/own.cnf"
    (cat /etc/ssl/openssl.cnf && echo ".include $HERE/own.cnf") >"$HERE/appended.cnf"
    sed 's/^#\.include/.include/' "$HERE/own.cnf" >"$HERE/including.cnf"
    for file in own appended including; do
        ok "openssl.cnf.example: $file" env "OPENSSL_CONF=$HERE/$file.cnf" \
            "OPENSSL_MODULES=$MODULES" "TRUSTPOINT_KEYSTORE_CONF=$CONFIG" \
            openssl pkey -in trustpoint://web -noout
        ok "doctor agrees: $file" env "OPENSSL_CONF=$HERE/$file.cnf" "OPENSSL_MODULES=$MODULES" \
            "TRUSTPOINT_KEYSTORE_CONF=$CONFIG" "$KEYSTORE_COMMAND" doctor
    done
    if grep -q '^#\.include' "$HERE/including.cnf"; then fail "the include was not turned on"; fi
}

manuals() {
    local page1=$STAGE/share/man/man1/trustpoint-keystore.1
    local page7=$STAGE/share/man/man7/trustpoint-provider.7
    mkdir "$WORK/examples"
    use examples
    CONFIG=$WORK/examples/keystore.cnf
    openssl_cnf "$HERE/openssl.cnf"
    ok "trustpoint-keystore.1 has examples" test "$(examples "$page1" | wc -l)" -ge 12
    ok "trustpoint-provider.7 has examples" test "$(examples "$page7" | wc -l)" -ge 8
    (echo "set -e" && examples "$page1" && examples "$page7") >"$WORK/examples.sh"
    ok "all examples run" env -C "$WORK/examples" "PATH=$STAGE/bin:$PATH" sh -x "$WORK/examples.sh"
    if command -v mandoc >/dev/null; then
        ok "the pages are well-formed" mandoc -T lint -W warning "$page1" "$page7"
    else
        echo "note  mandoc is not installed: the form of the manual pages is not checked"
    fi
}

# What never comes near a database, and what is about files, is done once.
[ "$ENGINE" != sqlite ] || usage
init_passwords
init_files
init_recovery
init_unprinted
init_terminal
init_type_back
import_types
import_certificates
import_bad
import_whole
import_beside
import_names
delete_source
generate
set_cert
small_commands
expires
export_key
[ "$ENGINE" != sqlite ] || completion
backup_and_verify
two_processes
if [ "$ENGINE" = sqlite ]; then
    killed
    small_disk
    size_limit
    no_rights
fi
hsm
if [ "$ENGINE" = sqlite ]; then
    example_files
    manuals
fi
finish
