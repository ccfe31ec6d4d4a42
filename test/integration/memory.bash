# shellcheck shell=bash
#
# memory.bash - searching the memory of processes for a keystore's secrets, eight bytes at a time;
# for tests that have read lib.sh
#
# Every page is searched, also those that a core dump leaves out. What the PKCS#11 module and the
# program itself hold is not ours to wipe: it is listed in the table, with the place where it is.

TABLE=$WORK/table
RECOVERY=$PRIVATE/recovery
NEEDLES=$PRIVATE/needles

build_needles() {
    local -a flags sources
    read -r -a flags < <(pkg-config --cflags --libs libcrypto p11-kit-1 libargon2)
    mapfile -t sources < <(find "$ROOT/store" -name '*.c' ! -name 'sqlite*.c' ! -name 'postgresql*.c')
    "${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -DTPKS_VERSION='"test"' -DTPKS_CONFDIR='"/etc/trustpoint"' \
        -DTPKS_STATEDIR='"/var/lib/trustpoint"' \
        -DTPKS_PLUGINDIR="\"$(dirname "$(find "$STAGE" -name sqlite.so)")\"" \
        -I"$ROOT/store" -o "$WORK/needles" "$ROOT/test/integration/needles.c" "${sources[@]}" \
        "${flags[@]}" -ldl
}

hex() {
    printf '%s' "$(cat "$1")" | od -An -v -tx1 | tr -d ' \n'
}
# find_needles: what is to be searched for in the present keystore.
find_needles() {
    {
        "$WORK/needles" "$CONFIG" "$PASSWORD_FILE" "$RECOVERY"
        echo "password $(hex "$PASSWORD_FILE")"
        echo "recovery-key $(hex "$RECOVERY")"
        [ -z "$PIN_FILE" ] || echo "pin $(hex "$PIN_FILE")"
    } >"$NEEDLES"
}

# look NAME PID NEEDLE...: a core of the process; nothing of these needles may be in it. The rest
# is listed.
look() {
    local name=$1 pid=$2
    shift 2
    cp "/proc/$pid/maps" "$PRIVATE/maps"
    ok "$name: a core" gdb -batch -p "$pid" "${WHOLE[@]}" -ex "gcore $PRIVATE/core"
    search_core "$name" "$@"
}
WHOLE=(-ex 'set use-coredump-filter off' -ex 'set dump-excluded-mappings on')

# watch PID: gdb waits for the end of the process, to look at what it has then.
watch() {
    rm -f "$PRIVATE/core" "$PRIVATE/maps"
    start "$WORK/gdb.log" gdb -batch -p "$1" "${WHOLE[@]}" "${AT_THE_END[@]}"
    GDB=$PID
    wait_for_line "$WORK/gdb.log" "Catchpoint 1"
}
# watched COMMAND...: the same from its beginning to its end.
watched() {
    rm -f "$PRIVATE/core" "$PRIVATE/maps"
    gdb -batch "${WHOLE[@]}" -ex 'set startup-with-shell off' -ex 'catch syscall exit_group' -ex run \
        "${AT_THE_END[@]:4}" --args "$@" >"$WORK/gdb.log" 2>&1 </dev/null
}
AT_THE_END=(-ex 'catch syscall exit_group' -ex continue
    -ex "python gdb.execute('shell cp /proc/%d/maps $PRIVATE/maps' % gdb.selected_inferior().pid)"
    -ex "gcore $PRIVATE/core" -ex continue)
# look_at_end NAME NEEDLE...: what the watched process had at its end.
look_at_end() {
    wait_for "the end of gdb" not alive "$GDB" || stop "$GDB"
    unset "STARTED[$GDB]"
    ok "$1: a core at its end" test -s "$PRIVATE/core"
    search_core "$@"
}

search_core() {
    local name=$1 core=$PRIVATE/core needle windows
    shift
    python3 "$ROOT/test/integration/search_core.py" "$core" "$PRIVATE/maps" "$NEEDLES" \
        >"$PRIVATE/found"
    rm "$core"
    sed "s|^|$name: |" "$PRIVATE/found" >>"$TABLE"
    for needle in "$@"; do
        windows=$(awk -v needle="$needle" '$1 == needle {print $2; exit}' "$PRIVATE/found")
        cp "$PRIVATE/found" "$OUT"
        same "$name: nothing of $needle" 0 "$windows"
    done
}

show_table() {
    echo "process: needle, windows of 8 bytes found, hits, where"
    awk -F ': ' '{split($2, f, " "); printf "  %-62s %-14s %3d %4d  %s\n", $1, f[1], f[2], f[3], f[4]}' \
        <(sed 's/file:,/file,/; s/kept: /kept, /' "$TABLE")
}
