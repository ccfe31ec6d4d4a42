#!/bin/bash
# qr.sh - a recovery key as a QR code: what a reader sees is the key, which opens the keystore; on
# a terminal and in a file; without the library nothing is made
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

KEY=$PRIVATE/key
SEEN=$PRIVATE/seen

# sees FILE: what a reader finds in the picture of its half blocks, in SEEN.
sees() {
    python3 "$ROOT/test/integration/qr_to_pbm.py" <"$1" >"$PRIVATE/qr.pbm" &&
        (umask 077 && zbarimg --quiet --raw --oneshot "$PRIVATE/qr.pbm" >"$SEEN")
}
# into FILE COMMAND...
into() {
    local file=$1
    shift
    (umask 077 && "$@" >"$file")
}
slot_count() {
    tpk slots --json 2>>"$OUT" | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))'
}
small() {
    tr '[:upper:]' '[:lower:]' <"$1"
}

# ---- without the library nothing is made ------------------------------------------------------------

mkdir "$WORK/broken"
: >"$WORK/broken/libqrencode.so.4"
without_library() {
    LD_LIBRARY_PATH=$WORK/broken tpk "$@"
}
write_keystore_cnf
fails "init without the library" 69 "libqrencode4" without_library init --software --recovery --qr
ok "made nothing" test ! -e "$PRIVATE/keystore.db"
fails "init --qr without --recovery" 64 "--recovery" tpk init --software --qr
ok "made nothing, too" test ! -e "$PRIVATE/keystore.db"

# ---- init -------------------------------------------------------------------------------------------

ok "init --recovery --qr" into "$KEY" tpk init --software --recovery --qr
sed -n 1p "$KEY" >"$PRIVATE/line"
chmod 0600 "$PRIVATE/line"
ok "the first line is the key" tpk slot test --password-file "$PRIVATE/line"
ok "no colours in a file" not grep -q $'\e' "$KEY"
ok "a reader sees a code" sees "$KEY"
same "it is the key" "$(small "$PRIVATE/line")" "$(small "$SEEN")"
ok "and opens the keystore" tpk slot test --password-file "$SEEN"

# ---- slot add recovery --------------------------------------------------------------------------------

BEFORE=$(slot_count)
fails "slot add recovery without the library" 69 "libqrencode4" \
    without_library slot add recovery --qr
fails "slot add password --qr" 64 "recovery keys" tpk slot add password --qr
same "no slot was made" "$BEFORE" "$(slot_count)"
ok "slot add recovery needs no library" into "$KEY" without_library slot add recovery
same "and prints one line" 1 "$(wc -l <"$KEY")"
at_terminal() {
    script -qefc "$(printf '%q ' "$KEYSTORE_COMMAND" --config "$CONFIG" "$@")" /dev/null
}
ok "slot add recovery at a terminal" into "$KEY" at_terminal slot add recovery
ok "draws nothing unasked" not sees "$KEY"
ok "slot add recovery --qr at a terminal" into "$KEY" at_terminal slot add recovery --qr
ok "black on white" grep -q $'\e\[30;107m' "$KEY"
ok "a reader sees a code" sees "$KEY"
tr -d '\r' <"$KEY" | grep -o 'TPRK1-[a-z-]*' >"$PRIVATE/line"
same "it is the key" "$(small "$PRIVATE/line")" "$(small "$SEEN")"
ok "and opens the keystore" tpk slot test --password-file "$SEEN"
fails "a full disk: the slot is taken back" any "taken back" \
    bash -c "'$KEYSTORE_COMMAND' --config '$CONFIG' slot add recovery --qr >/dev/full"
same "none is left" "$((BEFORE + 3))" "$(slot_count)"
finish
