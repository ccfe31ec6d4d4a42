#!/bin/bash
# restore_page.sh - the web page that takes the backup password: a real browser, abuse, and nginx
# that comes up after it
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$ROOT/test/integration
LOG=$WORK/page.log
JAR=$WORK/cookies

new_token web
new_keystore
openssl_cnf
keystore_key ec
WRONG=$PRIVATE/wrong
(umask 077 && echo "not the password" >"$WRONG")

# start_page OPTIONS...: on PORT of the loopback unless they say --listen.
start_page() {
    PORT=$(free_port)
    case "$*" in
    *--listen*) ;;
    *) set -- --listen "127.0.0.1:$PORT" "$@" ;;
    esac
    URL=http://127.0.0.1:$PORT/setup-wizard/auto_restore_password/
    rm -f "$LOG"
    start "$LOG" "$KEYSTORE_COMMAND" --config "$CONFIG" serve-restore "$@"
    PAGE=$PID
    wait_for_line "$LOG" "the restore page is served"
}
page_ended() {
    local code=0
    wait_for "the page's end" not alive "$PAGE" || stop "$PAGE"
    wait "$PAGE" || code=$?
    unset "STARTED[$PAGE]"
    cp "$LOG" "$OUT"
    same "$1" "$2" "$code"
}
# answers NAME CODE CURL-OPTIONS...: the page answers with this HTTP code.
answers() {
    local name=$1 code=$2 got
    shift 2
    got=$(plain curl -s -o "$OUT" -w '%{http_code}' --max-time 120 "$@") || true
    same "$name" "$code" "$got"
}
# get_token URL CURL-OPTIONS...: the form's token in TOKEN, its cookie in JAR.
get_token() {
    rm -f "$JAR"
    plain curl -s --max-time 120 -c "$JAR" "$@" >"$OUT"
    TOKEN=$(sed -n 's/.*name="csrf" value="\([0-9a-f]*\)".*/\1/p' "$OUT")
}
# form NAME CODE PASSWORD-FILE CURL-OPTIONS...: posts the form with cookie, token and Origin.
form() {
    local name=$1 code=$2 file=$3
    shift 3
    answers "$name" "$code" -b "$JAR" -H "Origin: ${URL%/setup-wizard*}" \
        --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$file" "$@" "$URL"
}
# The password as curl wants it, without a line end.
for file in "$PASSWORD_FILE" "$WRONG"; do
    (umask 077 && tr -d '\n' <"$file" >"$file.raw")
done

# ---- when it is served, and where ----
ok "nothing to restore: no page" tpk serve-restore --listen "127.0.0.1:$(free_port)" \
    --hook touch "$WORK/hook"
says "and it says so" "nothing to restore"
ok "the hook did not run" test ! -e "$WORK/hook"
fails "without --listen" 64 "--listen" tpk serve-restore
fails "a name is no address" 64 "--listen" tpk serve-restore --listen localhost
fails "an open address without a certificate" 64 "--tls-cert" tpk serve-restore --listen 0.0.0.0:4433
fails "a hook without a program" 64 "--hook" tpk serve-restore --listen unix:/x --hook
fails "root parses no HTTP" 64 "--user" tpk serve-restore --listen unix:/x --user root
lose_kek
fails "--timeout: 75 when nobody comes" 75 "no password came" tpk serve-restore \
    --listen "unix:$WORK/page.sock" --timeout 1
ok "its socket is gone" test ! -e "$WORK/page.sock"

# ---- the page, headers, health ----
start_page
ok "GET" plain curl -sfi "$URL"
for header in "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'self'" \
    "Cache-Control: no-store" "X-Frame-Options: DENY" "X-Content-Type-Options: nosniff" \
    "HttpOnly; SameSite=Strict"; do
    says "header ${header%%:*}" "$header"
done
says_not "no script" "<script"
answers "/ leads to it" 303 "http://127.0.0.1:$PORT/"
answers "another path" 404 "http://127.0.0.1:$PORT/etc/passwd"
answers "/livez" 200 "http://127.0.0.1:$PORT/livez"
answers "/readyz" 503 "http://127.0.0.1:$PORT/readyz"
says "says why" '"reason":"kek-missing"'
answers "/readyz under a probe's name for us" 503 -H "Host: 10.1.2.3" \
    "http://127.0.0.1:$PORT/readyz"

# ---- the process that parses HTTP ----
# The other child looks at the HSM now and then, with all rights; one that has served ends soon.
sandboxed_child() {
    local child
    local -a found=()
    for child in $(<"/proc/$PAGE/task/$PAGE/children"); do
        ! grep -q '^Seccomp:.2' "/proc/$child/status" || found+=("$child")
    done
    SANDBOXED=${found[0]:-}
    [ ${#found[@]} = 1 ]
}
wait_for "the page's process in its sandbox" sandboxed_child
same "its user" "$(id -u nobody)" "$(awk '/^Uid:/ {print $3}' "/proc/$SANDBOXED/status")"
same "its rights" 0000000000000000 "$(awk '/^CapEff:/ {print $2}' "/proc/$SANDBOXED/status")"
same "its files" "" "$(ls -A "/proc/$SANDBOXED/root")"
same "its processes" 0 "$(awk '/^Max processes/ {print $3}' "/proc/$SANDBOXED/limits")"
# Calls made in its place: what it needs works, what opens something new does not.
gdb -nx -batch -p "$SANDBOXED" -ex 'print (int)getpid()' -ex 'print (int)socket(1, 1, 0)' \
    -ex 'print (int)open("/", 0)' -ex 'print (int)kill((int)getpid(), 0)' >"$OUT" 2>&1 || true
same "its system calls" "$SANDBOXED -1 -1 -1" "$(sed -n 's/^\$[0-9]* = //p' "$OUT" | xargs)"

# ---- forged, misdirected, oversized requests ----
get_token "$URL"
answers "no Origin" 403 -b "$JAR" --data-urlencode "csrf=$TOKEN" \
    --data-urlencode "password@$WRONG.raw" "$URL"
answers "another Origin" 403 -b "$JAR" -H "Origin: http://evil.example" \
    --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$WRONG.raw" "$URL"
answers "Origin: null" 403 -b "$JAR" -H "Origin: null" \
    --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$WRONG.raw" "$URL"
answers "our name as the beginning of another" 403 -b "$JAR" \
    -H "Origin: http://127.0.0.1:$PORT.evil.example" \
    --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$WRONG.raw" "$URL"
answers "no token" 403 -b "$JAR" -H "Origin: http://127.0.0.1:$PORT" \
    --data-urlencode "password@$WRONG.raw" "$URL"
answers "no cookie" 403 -H "Origin: http://127.0.0.1:$PORT" --data-urlencode "csrf=$TOKEN" \
    --data-urlencode "password@$WRONG.raw" "$URL"
answers "the token of another cookie" 403 -b "trustpoint_restore=0123456789abcdef0123456789abcdef" \
    -H "Origin: http://127.0.0.1:$PORT" --data-urlencode "csrf=$TOKEN" \
    --data-urlencode "password@$WRONG.raw" "$URL"
answers "another Host (DNS rebinding)" 421 -H "Host: evil.example:$PORT" "$URL"
answers "our name as the beginning of another host" 421 -H "Host: localhost:$PORT.evil.example" "$URL"
answers "another Host, with everything else right" 421 -H "Host: evil.example" -b "$JAR" \
    -H "Origin: http://evil.example" --data-urlencode "csrf=$TOKEN" \
    --data-urlencode "password@$WRONG.raw" "$URL"
answers "not a form" 415 -b "$JAR" -H "Origin: http://127.0.0.1:$PORT" \
    -H "Content-Type: application/json" -d '{}' "$URL"
answers "no password" 400 -b "$JAR" -H "Origin: http://127.0.0.1:$PORT" \
    --data-urlencode "csrf=$TOKEN" -d password= "$URL"
head -c 1025 /dev/zero | tr '\0' x >"$WORK/long"
form "a password that is too long" 400 "$WORK/long"
head -c 5000 /dev/zero | tr '\0' x >"$WORK/body"
answers "a body over 4 KiB" 413 -b "$JAR" -H "Origin: http://127.0.0.1:$PORT" \
    --data-binary "@$WORK/body" "$URL"
ok "headers over 8 KiB get no page" not plain curl -sf -H "X: $(cat "$WORK/body" "$WORK/body")" "$URL"
ok "PUT gets no page" not plain curl -sf -X PUT "$URL"
answers "TRACE" 501 -X TRACE "$URL"
ok "after all that, not one password was looked at" not grep -q refused "$LOG"

# ---- slow, many, garbage ----
ok "a slow visitor is put out" python3 "$HERE/page_abuse.py" "$PORT" slow
says "by the server" "closed by the server"
ok "40 silent connections" python3 "$HERE/page_abuse.py" "$PORT" many 40 "$PAGE"
PROCESSES=$(sed -n 's/^processes: //p' "$OUT")
ok "are served by 16 processes at most, and one that looks at the HSM" test "$PROCESSES" -le 17
answers "then the page is there again" 200 "$URL"
ok "garbage" python3 "$HERE/page_abuse.py" "$PORT" garbage 50
answers "the page is still there" 200 "$URL"
BEGUN=$SECONDS
ok "30 wrong passwords at once" python3 "$HERE/page_abuse.py" "$PORT" post 30 "$WRONG"
says "one at a time" "503: "
COUNT=$(grep -c "was refused" "$LOG")
# The pauses between COUNT of them, 1, 2, 4 ... seconds, must have passed.
ok "of which $COUNT were looked at, as few as the time allows" test "$COUNT" -ge 1 -a \
    $(((1 << (COUNT - 1)) - 1)) -le $((SECONDS - BEGUN + 1))
answers "the page is still there" 200 "$URL"
ok "meanwhile the local way is open" tpk unlock-service --password-file "$PASSWORD_FILE" \
    --state-file "$WORK/state" --socket "$PRIVATE/unlock.sock"
page_ended "and the page ends with the restore" 0

# ---- wrong, too early, right: with curl ----
lose_kek
HOOKED=$WORK/'a; touch b $(id)'
start_page --hook touch "$HOOKED"
get_token "$URL"
form "a wrong password" 403 "$WRONG.raw"
says "is not explained" "That was not right"
# A pause that is still there when the next password comes, however slow the machine is.
long_pause() {
    plain curl -s -o /dev/null -b "$JAR" -H "Origin: http://127.0.0.1:$PORT" \
        --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$WRONG.raw" "$URL"
    grep -qF "looked at in 8 s" "$LOG"
}
wait_for "a pause of 8 s" long_pause
form "the next one at once, though right, is not looked at" 429 "$PASSWORD_FILE.raw"
says "and the page says when" "The next try is possible in"
looked_at() {
    [ "$(plain curl -s -o "$OUT" -w '%{http_code}' -b "$JAR" -H "Origin: http://127.0.0.1:$PORT" \
        --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$PASSWORD_FILE.raw" "$URL")" = 200 ]
}
wait_for "the right password to be looked at" looked_at
says "later it is, and right" "The keystore is unlocked"
page_ended "the page ends" 0
ok "the hook got its argument as one word" test -e "$HOOKED"
ok "and no shell" test ! -e "$WORK/a"
ok "the key can be used" openssl pkeyutl -sign -rawin -inkey trustpoint://ec \
    -in "$WORK/ec.pem" -out "$WORK/signature"
ok "no password in the log" not grep -qF "$(cat "$PASSWORD_FILE")" "$LOG"

# ---- unix socket, behind a proxy of another name ----
lose_kek
start_page --listen "unix:$WORK/page.sock" --host "keys.example" --group www-data
same "unix socket: for its group" "660 www-data" "$(stat -c '%a %G' "$WORK/page.sock")"
URL=http://keys.example/setup-wizard/auto_restore_password/
get_token --unix-socket "$WORK/page.sock" "$URL"
form "a proxy with TLS in front: Origin https" 200 "$PASSWORD_FILE.raw" \
    --unix-socket "$WORK/page.sock" -H "Origin: https://keys.example"
page_ended "unix socket: restored" 0
ok "the socket is gone" test ! -e "$WORK/page.sock"

# ---- TLS and the one-time code ----
lose_kek
plain_key rescue
start_page --tls-cert "$WORK/rescue.pem" --tls-key "$PRIVATE/rescue.key" --code
URL=https://localhost:$PORT/setup-wizard/auto_restore_password/
CODE=$(sed -n 's/.*one-time code for the page: //p' "$LOG")
same "a code of 8 characters" 8 "${#CODE}"
get_token --cacert "$WORK/ca.pem" "$URL"
says "the form asks for it" 'name="code"'
ok "the cookie is for TLS only" grep -qP '\tTRUE\t.*trustpoint_restore' "$JAR"
form "the right password with a wrong code" 403 "$PASSWORD_FILE.raw" --cacert "$WORK/ca.pem" \
    -d code=AAAAAAAA
says "as if the password were wrong" "That was not right"
coded() {
    [ "$(plain curl -s -o "$OUT" -w '%{http_code}' --cacert "$WORK/ca.pem" -b "$JAR" \
        -H "Origin: https://localhost:$PORT" --data-urlencode "csrf=$TOKEN" -d "code=$CODE" \
        --data-urlencode "password@$PASSWORD_FILE.raw" "$URL")" = 200 ]
}
answers "plain HTTP Origin on a TLS page" 403 --cacert "$WORK/ca.pem" -b "$JAR" \
    -H "Origin: http://localhost:$PORT" --data-urlencode "csrf=$TOKEN" -d "code=$CODE" \
    --data-urlencode "password@$PASSWORD_FILE.raw" "$URL"
wait_for "password and code to be looked at" coded
page_ended "TLS with the code: restored" 0

# ---- a browser, and nginx that comes up after it, on the page's own port ----
lose_kek
PORT=$(free_port)
N=$WORK/nginx
mkdir "$N"
cat >"$N/nginx.conf" <<END
user www-data;
pid $N/nginx.pid;
error_log $N/error.log notice;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $N/body;
    proxy_temp_path $N/proxy;
    fastcgi_temp_path $N/fastcgi;
    uwsgi_temp_path $N/uwsgi;
    scgi_temp_path $N/scgi;
    server {
        listen 127.0.0.1:$PORT ssl;
        ssl_certificate $WORK/ec.pem;
        ssl_certificate_key $WORK/ec.stub;
        default_type text/plain;
        return 200 "served by nginx\n";
    }
}
END
WEB=$PORT
start_page --listen "127.0.0.1:$WEB" --hook nginx -c "$N/nginx.conf" -g "daemon off;"
URL=http://127.0.0.1:$WEB/setup-wizard/auto_restore_password/
DRIVER=$(free_port)
start "$WORK/driver.log" env HOME="$WORK" chromedriver --port="$DRIVER"
BROWSER=$PID
wait_for_port "$DRIVER"
browser() {
    python3 "$HERE/browser.py" --driver "$DRIVER" --page "$URL" "$@"
}
ok "browser: a form of another site" browser --foreign
says "browser: is refused" "title: Not from this page"
ok "browser: the form, as a screen reader has it" browser --look
for line in "title: Unlock the Trustpoint keystore" "language: en" "focus: password" \
    "label: Backup password or recovery key" "role of main: main" "button: Unlock" "scripts: 0" \
    "background: rgb(1, 74, 134)"; do
    says "browser: $line" "$line"
done
ok "browser: a wrong password, the right one, then nginx" browser --password-file "$WRONG" \
    --password-file "$PASSWORD_FILE" --then "https://127.0.0.1:$WEB/" --text "served by nginx"
says "browser: the wrong one" "title: Not unlocked - Trustpoint keystore"
says "browser: is announced" "result: alert That was not right. Nothing was changed."
says "browser: the right one" "title: Unlocked - Trustpoint keystore"
says "browser: is announced" "result: status The keystore trustpoint"
says "browser: nginx" "then: served by nginx"
says_not "browser: no password in a page" "contains the password"
ok "curl: nginx serves with its own key" plain curl -fsS --cacert "$WORK/ca.pem" \
    --resolve "localhost:$WEB:127.0.0.1" "https://localhost:$WEB/"
same "the page's process has become nginx" "$PAGE" "$(cat "$N/nginx.pid")"
stop "$BROWSER"
stop "$PAGE" QUIT
finish
