#!/bin/bash
# systemd.sh - trustpoint-unlock.service under a real systemd, as process 1 of namespaces of its
# own: with its sandbox, before nginx, each source, its exit codes, its status
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$ROOT/test/integration
UNIT=$STAGE/lib/systemd/system/trustpoint-unlock.service
DOC=$STAGE/share/doc/trustpoint-keystore/examples
UNITS=/etc/systemd/system

# in_guest COMMAND...: inside, with nothing but what a login there has.
in_guest() {
    nsenter --target "$INIT" --mount --pid --uts --ipc --net --cgroup --root --wd -- \
        env -i PATH="$PATH" LC_ALL=C TZ=UTC HOME=/root TERM=dumb "$@"
}
in_shell() {
    in_guest bash -c "$1"
}
guest_is_up() {
    alive "$GUEST" || return 0
    INIT=$(<"/proc/$GUEST/task/$GUEST/children")
    INIT=${INIT% }
    [ -n "$INIT" ] && [ "$(in_guest systemctl is-active trustpoint-test.target)" = active ]
}
# boots: 75 when this machine does not let us make what a guest is made of.
boots() {
    local code=0
    start "$WORK/boot.log" "$HERE/systemd_guest" "$WORK" trustpoint-test.target "$STAGE"
    GUEST=$PID
    wait_for "the guest" guest_is_up || return 1
    alive "$GUEST" && return
    wait "$GUEST" || code=$?
    unset "STARTED[$GUEST]"
    return "$code"
}
shutdown_guest() {
    [ -n "${STARTED[$GUEST]:-}" ] || return 0
    disown "$GUEST" || true # or the shell would say that it was killed
    stop "$GUEST" KILL
    wait_for "the guest's end" "$HERE/systemd_guest" --clean "$WORK" "$GUEST"
}
property() {
    in_guest systemctl show --value --property "$2" "$1"
}
unlock_is() {
    [ "$(property trustpoint-unlock ActiveState)" = "$1" ]
}
waits_for_password() {
    unlock_is activating && property trustpoint-unlock StatusText | grep "^waiting for the backup"
}
# The service says that it waits before the question is there for agents.
asks_agents() {
    in_shell 'grep -l "^Id=trustpoint:" /run/systemd/ask-password/ask.*'
}
# log_is_whole: what units have written so far is in the journal, which takes it in its own time.
log_is_whole() {
    in_guest journalctl --sync
}
restart() {
    in_shell "systemctl daemon-reload; systemctl stop nginx trustpoint-unlock
        systemctl reset-failed; systemctl start --no-block nginx"
}
settled() {
    [ -z "$(in_guest systemctl list-jobs --no-legend)" ]
}
serves() {
    in_guest curl -fsS --cacert "$WORK/ca.pem" https://localhost:4433/
}
keystore() {
    in_guest "$KEYSTORE_COMMAND" "$@"
}
# unlocked NAME: the unit has done its work and nginx came up after it.
unlocked() {
    wait_for "the end of all jobs" settled || true
    log_is_whole
    in_guest systemctl status --no-pager --full trustpoint-unlock nginx >"$OUT" 2>&1 || true
    same "$1: the unit" "active exited success" "$(property trustpoint-unlock ActiveState) \
$(property trustpoint-unlock SubState) $(property trustpoint-unlock Result)"
    says "$1: its status" "the keystore can be unlocked"
    same "$1: nginx" active "$(property nginx ActiveState)"
    ok "$1: nginx serves" serves
    ok "$1: nginx came after it" test "$(property nginx ExecMainStartTimestampMonotonic)" -gt \
        "$(property trustpoint-unlock ExecMainExitTimestampMonotonic)"
}
# restored NAME: by a password that nobody entered.
restored() {
    log_is_whole
    in_guest journalctl --no-pager "_SYSTEMD_INVOCATION_ID=$(property trustpoint-unlock InvocationID)" \
        >"$OUT" 2>&1
    says "$1: the KEK was restored" "the KEK is restored"
    says_not "$1: nobody was asked" "waiting for the backup password"
}
# failed NAME CODE TEXT
failed() {
    wait_for "the end of all jobs" settled || true
    log_is_whole
    in_guest systemctl status --no-pager --full trustpoint-unlock nginx >"$OUT" 2>&1 || true
    same "$1: the unit" "failed exit-code $2" "$(property trustpoint-unlock ActiveState) \
$(property trustpoint-unlock Result) $(property trustpoint-unlock ExecMainStatus)"
    says "$1: its log says why" "$3"
    same "$1: it is not tried again" 0 "$(property trustpoint-unlock NRestarts)"
    same "$1: nginx was not started" "inactive 0" \
        "$(property nginx ActiveState) $(property nginx MainPID)"
}
lose_guest_kek() {
    in_guest bash "$WORK/lose_kek" >>"$OUT" 2>&1
}

# ---- what the guest is given -------------------------------------------------------------------

(umask 077 && random_text 16 >"$PASSWORD_FILE" && echo "not the password" >"$PRIVATE/wrong")
new_ca
SOFTHSM=$(find_softhsm)
cat >"$WORK/setup" <<END
set -euo pipefail
umask 022
mask() {
    local unit
    for unit; do ln -sfn /dev/null "$UNITS/\$unit"; done
}
# A test of units, not of this machine's: nothing else starts. /tmp stays the host's.
mask tmp.mount systemd-udevd.service systemd-networkd.service systemd-resolved.service
groupadd -f --system trustpoint
rm -rf /etc/trustpoint /var/lib/trustpoint /var/lib/softhsm/tokens
mkdir -m 0755 -p /etc/trustpoint /var/lib/softhsm
mkdir -m 0770 /var/lib/softhsm/tokens
cat >/etc/softhsm/softhsm2.conf <<CONF
directories.tokendir = /var/lib/softhsm/tokens
objectstore.backend = file
log.level = ERROR
slots.removable = false
slots.mechanisms = ALL
CONF
echo $(random_text 8) >/etc/trustpoint/hsm.pin
chown root:trustpoint /etc/trustpoint/hsm.pin
chmod 0640 /etc/trustpoint/hsm.pin
softhsm2-util --init-token --free --label trustpoint --so-pin $(random_text 8) \\
    --pin "\$(cat /etc/trustpoint/hsm.pin)"
install -d -o root -g trustpoint -m 0750 /var/lib/trustpoint
trustpoint=$KEYSTORE_COMMAND
"\$trustpoint" init --store sqlite:/var/lib/trustpoint/keystore.db --token "pkcs11:token=trustpoint?module-path=$SOFTHSM&pin-source=file:/etc/trustpoint/hsm.pin" \\
    --password-file "$PASSWORD_FILE" --kdf-memory 8 --kdf-passes 1
"\$trustpoint" generate web
"\$trustpoint" csr web --subject /CN=localhost --out "$WORK/web.csr"
"\$trustpoint" stub web --out /etc/trustpoint/web.pem
install -m 0644 "$UNIT" $UNITS
install -m 0644 -D "$DOC/trustpoint-server.conf" $UNITS/nginx.service.d/trustpoint.conf
cat >$UNITS/nginx.service.d/openssl.conf <<CONF
[Service]
Environment=OPENSSL_CONF=/etc/trustpoint/openssl.cnf
CONF
cat >/etc/nginx/nginx.conf <<CONF
user www-data;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log notice;
events { worker_connections 64; }
http {
    access_log off;
    server {
        listen 127.0.0.1:4433 ssl;
        ssl_certificate /etc/ssl/web.pem;
        ssl_certificate_key /etc/trustpoint/web.pem;
        return 200 "served\n";
    }
}
CONF
systemctl reenable nginx.service
END
cat >"$WORK/lose_kek" <<END
set -euo pipefail
export PIN=\$(cat /etc/trustpoint/hsm.pin)
tool() {
    pkcs11-tool --module "$SOFTHSM" --token-label trustpoint --login --pin env:PIN "\$@"
}
for id in \$(tool --list-objects --type secrkey | sed -n 's/^ *ID: *\([0-9a-f:]*\).*/\1/p' |
    tr -d :); do
    tool --delete-object --type secrkey --id "\$id"
done
END

# A checkout under /home or /tmp is not what an installation looks like: the unit's sandbox hides
# those folders, so it gets back the one with the program.
stage_drop_in() {
    case $STAGE in
    /home/* | /root/*) printf '[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=%s\n' "$STAGE" ;;
    /tmp/* | /var/tmp/*) printf '[Service]\nBindReadOnlyPaths=%s\n' "$STAGE" ;;
    esac
}
# drop_in NAME: standard input becomes a drop-in of the unit.
drop_in() {
    in_guest install -D -m 0644 /dev/stdin "$UNITS/trustpoint-unlock.service.d/$1.conf"
}
no_drop_in() {
    in_guest rm -f "$UNITS/trustpoint-unlock.service.d/$1.conf"
}

# ---- boot --------------------------------------------------------------------------------------

trap 'shutdown_guest; cleanup' EXIT
CODE=0
boots || CODE=$?
if [ "$CODE" = 75 ]; then
    pass "SKIPPED: systemd can't be process 1 of a guest here: $(tail -n 1 "$WORK/boot.log")"
    finish
elif [ "$CODE" != 0 ]; then
    cp "$WORK/boot.log" "$OUT"
    fail "systemd as process 1"
    finish
fi
in_guest systemctl --version | sed -n 1p
ok "token and keystore" in_guest bash "$WORK/setup"
ca_sign "$WORK/web.csr" "$WORK/web.pem" web
ok "certificate" in_guest install -m 0644 "$WORK/web.pem" /etc/ssl/web.pem
example_to_openssl_cnf "$ROOT/openssl.cnf.example" "$MODULES/trustpoint.so" \
    /etc/trustpoint/keystore.cnf >"$WORK/openssl.cnf"
ok "openssl.cnf" in_guest install -m 0644 "$WORK/openssl.cnf" /etc/trustpoint/openssl.cnf
stage_drop_in | drop_in stage

# ---- the KEK is there --------------------------------------------------------------------------

restart
unlocked "nothing lost"
same "the state folder keeps its group" "root:trustpoint 750" \
    "$(in_guest stat -c '%U:%G %a' /var/lib/trustpoint)"

# ---- what it needs comes up after it -------------------------------------------------------------

token_leaves() {
    in_shell 'mkdir -p /var/lib/softhsm/away; mv /var/lib/softhsm/tokens/* /var/lib/softhsm/away/'
}
token_returns() {
    in_shell 'mv /var/lib/softhsm/away/* /var/lib/softhsm/tokens/'
}
waits_for() {
    unlock_is activating && property trustpoint-unlock StatusText | grep -iF "$1"
}
# tried_again CODE: it has ended with this code, and not only once.
tried_again() {
    [ "$(property trustpoint-unlock NRestarts)" -ge 2 ] &&
        [ "$(property trustpoint-unlock ExecMainStatus)" = "$1" ]
}
token_leaves
restart
ok "without its token the service waits" wait_for "the waiting service" waits_for "token"
same "and nginx with it" inactive "$(property nginx ActiveState)"
token_returns
wait_for "the keystore" unlock_is active || true
unlocked "the token came later"
same "in one go" 0 "$(property trustpoint-unlock NRestarts)"

printf '[Service]\nExecStart=\nExecStart=%s unlock-service --timeout 1\n' "$KEYSTORE_COMMAND" |
    drop_in impatient
token_leaves
restart
ok "69 is tried again" wait_for "another try" tried_again 69
same "nginx is not started" inactive "$(property nginx ActiveState)"
token_returns
wait_for "the keystore" unlock_is active || true
unlocked "the token came after an exit"
no_drop_in impatient

new_postgresql
STORE="host=$PG_DIR dbname=keystore user=keeper"
ok "the keystore in PostgreSQL" keystore backup "postgresql:$STORE"
in_guest sed -i.kept "s,^store = .*,store = postgresql:$STORE," /etc/trustpoint/keystore.cnf
printf '[Service]\nBindPaths=%s\n' "$PG_DIR" | drop_in database
stop_postgresql
restart
ok "without its database the service waits" wait_for "the waiting service" waits_for "PostgreSQL"
same "and nginx with it" inactive "$(property nginx ActiveState)"
start_postgresql
wait_for "the keystore" unlock_is active || true
unlocked "the database came later"
in_guest mv /etc/trustpoint/keystore.cnf.kept /etc/trustpoint/keystore.cnf
no_drop_in database
stop_postgresql

in_shell 'cp -a /var/lib/trustpoint/keystore.db /root/
    sqlite3 /var/lib/trustpoint/keystore.db "UPDATE tpks_header SET label = 1"'
restart
failed "tampered" 65 "was changed by someone"
in_guest cp -a /root/keystore.db /var/lib/trustpoint/keystore.db
restart
unlocked "the database is back"

# ---- certificates that are renewed in the keystore reach nginx -----------------------------------

TLS=/etc/trustpoint/tls
TLS_UNIT=trustpoint-nginx.service
# example NAME FILE: as its own first lines say, with the program where it is here.
example() {
    sed "s,/usr/bin/trustpoint-keystore,$KEYSTORE_COMMAND," "$DOC/$1" |
        in_guest install -D -m 0644 /dev/stdin "$UNITS/$2"
}
# adapted UNIT: standard input becomes a drop-in of it.
adapted() {
    in_guest install -D -m 0644 /dev/stdin "$UNITS/$1.d/test.conf"
    in_guest systemctl daemon-reload
}
# nginx_reads CERT KEY: from now on.
nginx_reads() {
    in_guest sed -i "s,ssl_certificate .*,ssl_certificate $TLS/$1;,
        s,ssl_certificate_key .*,ssl_certificate_key $TLS/$2;," /etc/nginx/nginx.conf
}
served() {
    in_guest openssl s_client -connect 127.0.0.1:4433 -CAfile "$WORK/ca.pem" -verify_return_error \
        </dev/null 2>/dev/null | plain openssl x509 -noout -fingerprint -sha256
}
# serves_cert NAME: nginx proves to have the key of WORK/NAME.pem.
serves_cert() {
    [ "$(served)" = "$(plain openssl x509 -in "$WORK/$1.pem" -noout -fingerprint -sha256)" ]
}
# renewed NAME [KEY]: the record web has another certificate, WORK/NAME.pem, with KEY another key.
renewed() {
    if [ $# = 1 ]; then
        keystore csr web --subject /CN=localhost >"$WORK/renew.csr" 2>>"$OUT"
        ca_sign "$WORK/renew.csr" "$WORK/$1.pem" localhost
        keystore set-cert web "$WORK/$1.pem" >>"$OUT" 2>&1
    else
        plain_key "$1"
        keystore set-cert web "$WORK/$1.pem" --key "$PRIVATE/$1.key" >>"$OUT" 2>&1
    fi
}
# brought NAME CERT: it is served, by the same nginx, without anybody's doing.
brought() {
    ok "$1: nginx serves it" wait_for "$2" serves_cert "$2"
    ok "$1: the run ended well" wait_for "the end of the run" ran success
    same "$1: nginx was reloaded" "$MASTER" "$(property nginx MainPID)"
}
# run_is STATE PROPERTY VALUE: asked for in one go, for the timer may begin the next run at any time.
run_is() {
    [ "$(in_guest systemctl show --property "ActiveState,$2" "$TLS_UNIT" | sort)" = \
        "ActiveState=$1"$'\n'"$2=$3" ]
}
ran() {
    run_is inactive Result "$1"
}
has_failed() {
    run_is failed ExecMainStatus "$1"
}
# between_runs: the timer is stopped and no run is under way, so that none sees half of what follows.
between_runs() {
    in_guest systemctl stop trustpoint-nginx.timer
    wait_for "the end of the run" no_run
}
no_run() {
    [[ $(property "$TLS_UNIT" ActiveState) =~ ^(inactive|failed)$ ]]
}
# another_run: one that began after this was called has ended.
another_run() {
    local last
    last=$(property "$TLS_UNIT" InvocationID)
    wait_for "a new run" run_after "$last"
}
run_after() {
    [ "$(property "$TLS_UNIT" InvocationID)" != "$1" ] &&
        [ "$(property "$TLS_UNIT" ActiveState)" != activating ]
}
reloads() {
    in_guest grep -c "signal 1 (SIGHUP) received" /var/log/nginx/error.log
}

keystore set-cert web "$WORK/web.pem" >>"$OUT" 2>&1
example trustpoint-nginx.service trustpoint-nginx.service
example trustpoint-nginx.timer trustpoint-nginx.timer
nginx_reads web.crt web.crt.key
in_guest systemctl daemon-reload
ok "the unit that brings certificates" in_guest systemctl start $TLS_UNIT
same "writes the files" "web.crt web.crt.key" "$(in_guest ls $TLS | xargs)"
MASTER=$(property nginx MainPID)
ok "nginx serves from them" serves_cert web

# A machine that was off when it was time: Persistent= makes up for it at once.
printf '[Timer]\nRandomizedDelaySec=0\nAccuracySec=1us\n' | adapted trustpoint-nginx.timer
in_shell 'mkdir -p /var/lib/systemd/timers
    touch -d "1 hour ago" /var/lib/systemd/timers/stamp-trustpoint-nginx.timer'
renewed after-boot
ok "nothing happens by itself" serves_cert web
ok "the timer" in_guest systemctl enable --now trustpoint-nginx.timer
brought "a certificate renewed while the machine was off" after-boot
NEXT=$(property trustpoint-nginx.timer NextElapseUSecRealtime)
ok "then it looks every quarter of an hour" test "$(date -d "$NEXT" +%s)" -le $(($(date +%s) + 900))

printf '[Timer]\nOnCalendar=\nOnCalendar=*:*:0/3\nRandomizedDelaySec=0\nAccuracySec=1us\n' |
    adapted trustpoint-nginx.timer
in_guest systemctl restart trustpoint-nginx.timer
renewed by-timer
brought "a renewed certificate" by-timer
renewed other-key KEY
brought "a renewed key" other-key
RELOADS=$(reloads)
another_run
same "with nothing renewed nginx is left alone" "$RELOADS" "$(reloads)"

in_guest cp /etc/nginx/nginx.conf /root/
in_shell 'echo nonsense >>/etc/nginx/nginx.conf'
renewed for-later
ok "a reload that fails" wait_for "the failure" has_failed 75
ok "leaves nginx as it was" serves_cert other-key
ok "it is tried again" another_run
in_guest cp /root/nginx.conf /etc/nginx/nginx.conf
brought "until it works" for-later
between_runs
renewed while-away
token_leaves
in_guest systemctl start trustpoint-nginx.timer
ok "without the token nothing is replaced" wait_for "the failure" has_failed 69
ok "nginx serves on" serves_cert for-later
token_returns
brought "with the token" while-away
in_guest systemctl disable --now trustpoint-nginx.timer
between_runs

# A start between the renewal of a key and the timer's run.
renewed at-start KEY
in_guest systemctl stop nginx
ok "files of the key before: nginx does not start" not in_guest systemctl start nginx
example trustpoint-nginx-start.conf nginx.service.d/trustpoint-start.conf
in_guest systemctl daemon-reload
ok "with the example it does" in_guest systemctl start nginx
ok "and serves the new certificate" serves_cert at-start

# ---- a key that somebody writes in the clear -----------------------------------------------------

# as_trustpoint: writes the key as Trustpoint does.
as_trustpoint() {
    in_shell "cp /root/web.key $TLS/new.key; mv $TLS/new.key $TLS/nginx-tls-server-key.key"
}
path_waits() {
    [ "$(property trustpoint-nginx.path ActiveState) $(property trustpoint-nginx.path SubState)" = \
        "active waiting" ]
}
is_stub() {
    in_guest grep -q 'BEGIN TRUSTPOINT KEY URI' "$TLS/nginx-tls-server-key.key"
}
in_guest rm $UNITS/nginx.service.d/trustpoint-start.conf
sed -n 's,^\(ExecStart=\)\(.*\) --hook,[Service]\n\1\n\1\2 --trustpoint-names --replace-key-file --hook,p' \
    "$DOC/trustpoint-nginx.service" | sed "s,/usr/bin/trustpoint-keystore,$KEYSTORE_COMMAND," |
    adapted $TLS_UNIT
example trustpoint-nginx.path trustpoint-nginx.path
ok "files under Trustpoint's names" in_guest systemctl start $TLS_UNIT
nginx_reads nginx-tls-server-cert.pem nginx-tls-server-key.key
ok "nginx reads them" in_guest systemctl restart nginx
MASTER=$(property nginx MainPID)
ok "the path unit" in_guest systemctl enable --now trustpoint-nginx.path
ok "the key in the clear" keystore export web --unencrypted --yes-export-private-key \
    --out /root/web.key
# More often than systemd lets a unit start that says nothing about it.
for i in 1 2 3 4 5 6 7 8; do
    as_trustpoint
    ok "a key in the clear, $i: is replaced by the stub" wait_for "the stub" is_stub
    wait_for "the end of the run" ran success || break
    wait_for "the path unit" path_waits || break
done
ok "the path unit watches on" wait_for "it" path_waits
in_guest systemctl stop trustpoint-nginx.path
as_trustpoint
in_guest systemctl start trustpoint-nginx.path trustpoint-nginx.timer
ok "a key that was there before it is found by the timer" wait_for "the stub" is_stub
in_guest systemctl disable --now trustpoint-nginx.path trustpoint-nginx.timer

# ---- the KEK is gone, and a credential brings it back ------------------------------------------

lose_guest_kek
in_guest install -D -m 0600 "$PASSWORD_FILE" /etc/credstore/password
printf '[Service]\nLoadCredential=trustpoint.backup-password:/etc/credstore/password\n' |
    drop_in credential
restart
unlocked "LoadCredential"
restored LoadCredential
no_drop_in credential
lose_guest_kek
in_guest mkdir -p /etc/credstore.encrypted
ok "the password is encrypted to the machine" in_guest systemd-creds encrypt --with-key=host \
    --name=trustpoint.backup-password "$PASSWORD_FILE" \
    /etc/credstore.encrypted/trustpoint.backup-password
drop_in credential <"$DOC/trustpoint-unlock-credential.conf"
restart
unlocked "the example with LoadCredentialEncrypted"
restored LoadCredentialEncrypted
no_drop_in credential

# ---- somebody has to come ----------------------------------------------------------------------

lose_guest_kek
restart
wait_for "the waiting service" waits_for_password
in_guest systemctl status --no-pager --full trustpoint-unlock >"$OUT" 2>&1 || true
says "waiting: systemctl status says for what" 'Status: "waiting for the backup password: keystore'
same "waiting: nginx is not started" inactive "$(property nginx ActiveState)"
MAIN=$(property trustpoint-unlock MainPID)
in_shell "grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/$MAIN/status" >"$OUT"
same "waiting: inside its sandbox" "NoNewPrivs: 1 CapBnd: 000000000000400b Seccomp: 2" \
    "$(sort -k1,1r "$OUT" | xargs | sed 's/^Seccomp: 2 //; s/$/ Seccomp: 2/')"
wait_for "the question" asks_agents
ok "an agent of systemd answers" python3 "$HERE/at_terminal.py" --prompt "backup password" \
    --answer "$PASSWORD_FILE" -- nsenter --target "$INIT" --mount --pid --uts --ipc --net \
    --cgroup --root --wd systemd-tty-ask-password-agent --query
unlocked "systemd-tty-ask-password-agent"
lose_guest_kek
restart
wait_for "the waiting service" waits_for_password
fails "trustpoint-keystore unlock: wrong" 77 "" keystore unlock --password-file "$PRIVATE/wrong"
ok "it waits on" unlock_is activating
ok "trustpoint-keystore unlock: right" keystore unlock --password-file "$PASSWORD_FILE"
unlocked "trustpoint-keystore unlock"
lose_guest_kek
restart
wait_for "the waiting service" waits_for_password
ok "systemctl stop while it waits" in_guest systemctl stop trustpoint-unlock
wait_for "the end of all jobs" settled
same "then nginx is not started" inactive "$(property nginx ActiveState)"
ok "and no question is left" not in_shell 'grep -l trustpoint /run/systemd/ask-password/ask.*'
in_guest install -m 0600 "$PRIVATE/wrong" /etc/credstore/password
printf '[Service]
LoadCredential=trustpoint.backup-password:/etc/credstore/password
ExecStart=\nExecStart=%s unlock-service --timeout 0\n' "$KEYSTORE_COMMAND" | drop_in credential
restart
failed "wrong password" 77 "password"
no_drop_in credential

# ---- what a password can't help ----------------------------------------------------------------

in_guest cp -a /etc/trustpoint /etc/trustpoint.kept
in_guest cp -a /var/lib/trustpoint /var/lib/trustpoint.kept
put_back() {
    in_shell 'rm -rf /etc/trustpoint /var/lib/trustpoint
        cp -a /etc/trustpoint.kept /etc/trustpoint; cp -a /var/lib/trustpoint.kept /var/lib/trustpoint'
}
in_shell "echo 'nonsense = 1' >>/etc/trustpoint/keystore.cnf"
restart
failed "configuration" 78 nonsense
put_back
in_shell "head -c 300 /dev/zero >/var/lib/trustpoint/keystore.db"
restart
failed "not a keystore" 65 "not a keystore"
put_back
in_shell "echo 00000000 >/etc/trustpoint/hsm.pin"
restart
failed "PIN" 77 PIN
put_back
in_shell "rm /etc/trustpoint/keystore.cnf"
restart
wait_for "the end of all jobs" settled
same "without a configuration the unit is skipped" "no inactive" \
    "$(property trustpoint-unlock ConditionResult) $(property trustpoint-unlock ActiveState)"

# ---- a database server whose key is in the keystore --------------------------------------------

put_back
in_guest install -D -m 0644 "$DOC/trustpoint-server.conf" \
    "$UNITS/postgresql@.service.d/trustpoint.conf"
ok "PostgreSQL behind it" in_guest systemd-analyze verify --man=no postgresql@17-main.service \
    postgresql.service trustpoint-unlock.service
says_not "is no circle" cycle
in_guest rm -r "$UNITS/postgresql@.service.d"
drop_in postgresql <"$DOC/trustpoint-unlock-postgresql.conf"
ok "a keystore in PostgreSQL, behind that" in_guest systemd-analyze verify --man=no \
    postgresql@17-main.service postgresql.service trustpoint-unlock.service
says_not "is no circle" cycle
no_drop_in postgresql

# ---- the page, in the sandbox of the example ---------------------------------------------------

lose_guest_kek
sed "s,/usr/bin/,$STAGE/bin/," "$DOC/trustpoint-restore-page.service" >"$WORK/page.service"
in_guest install -m 0644 "$WORK/page.service" "$UNITS/trustpoint-restore-page.service"
stage_drop_in >"$WORK/stage.conf"
in_guest install -D -m 0644 "$WORK/stage.conf" "$UNITS/trustpoint-restore-page.service.d/stage.conf"
in_guest systemctl daemon-reload
ok "the page starts" in_guest systemctl start trustpoint-restore-page
visit() {
    in_guest curl -s --max-time 60 --unix-socket /run/trustpoint/page.sock "$@"
}
wait_for "the page" visit http://localhost/livez
URL=http://localhost/setup-wizard/auto_restore_password/
TOKEN=$(visit -c "$WORK/cookies" "$URL" | sed -n 's/.*name="csrf" value="\([0-9a-f]*\)".*/\1/p')
tr -d '\n' <"$PASSWORD_FILE" >"$PRIVATE/right"
ok "a password from the page" visit -f -b "$WORK/cookies" -H "Origin: http://localhost" \
    --data-urlencode "csrf=$TOKEN" --data-urlencode "password@$PRIVATE/right" "$URL"
says "is taken" "The keystore is unlocked"
page_is_over() {
    [ "$(property trustpoint-restore-page ActiveState) $(property trustpoint-restore-page Result)" = \
        "inactive success" ]
}
ok "the page ends" wait_for "the page's end" page_is_over
restart
unlocked "after the page"
shutdown_guest
finish
