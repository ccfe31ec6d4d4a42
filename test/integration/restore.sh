#!/bin/bash
# restore.sh - the HSM has lost the KEK, or is a new one: real programs bring it back with the
# backup password that they ask for themselves, each in its own way; whoever has no password, a
# wrong one, no right to write or no token at all changes nothing and is told what to type
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

S=$WORK/servers
mkdir -p "$S/www"
echo served >"$S/www/index.html"
HINT="trustpoint-keystore restore"

new_token web
new_keystore
openssl_cnf
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
keystore_key ec
WRONG=$PRIVATE/wrong
(umask 077 && echo "not the password" >"$WRONG")

# ---- what is lost, and whether it is back ------------------------------------------------------

# wipe_token: the token is initialised anew: same name, same PIN, another serial number.
wipe_token() {
    rm -rf -- "${PRIVATE:?}/tokens"
    mkdir -m 0700 "$PRIVATE/tokens"
    softhsm2-util --init-token --free --label web --so-pin "$(random_text 8)" \
        --pin "$(cat "$PIN_FILE")" >>"$OUT" 2>&1
}
token_serial() {
    softhsm2-util --show-slots | awk '/Serial number:/ {serial = $3} /Label: +web/ {print serial}'
}

# mine ARGUMENTS...: tpk as the user who owns PRIVATE at the moment; AS is empty for root.
AS=()
mine() {
    ${AS[@]+"${AS[@]}"} "$KEYSTORE_COMMAND" --config "$CONFIG" "$@"
}

# healthy NAME: it can be unlocked, with exactly one active slot of this token.
healthy() {
    same "$1: status" unlocked "$(mine status --json 2>>"$OUT" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["state"])')"
    same "$1: one active slot of the token" 1 "$(mine slots --json 2>>"$OUT" |
        SERIAL=$(token_serial) python3 -c 'import json, os, sys
print(sum(slot["kind"].startswith("hsm-") and slot["state"] == "active"
          and slot["token_serial"] == os.environ["SERIAL"] for slot in json.load(sys.stdin)))')"
}
# missing NAME: a loader that must not ask finds the KEK gone.
missing() {
    fails "$1: the KEK is gone" any "$HINT" openssl pkey -in trustpoint://ec -noout
}
# Everything that a restore could change.
fingerprint() {
    keystore_digest
    pkcs11 --list-objects 2>>"$OUT" | grep -c '^Secret Key' || true
    find "$PRIVATE/state" -type f ! -path '*/lock*' ! -name '*.restore' -exec sha256sum {} + | sort
}

# after_loss NAME COMMAND...: the KEK is deleted, COMMAND restores it; then the token is new,
# COMMAND restores again. The last output is in OUT.
after_loss() {
    local name=$1 way
    shift
    for way in lose_kek wipe_token; do
        "$way"
        ok "$name after $way" "$@"
        healthy "$name after $way"
    done
}

# unchanged NAME COMMAND...: fails without a change. Called with the KEK gone.
unchanged() {
    local name=$1 before code=0
    shift
    before=$(fingerprint)
    quietly "$@" || code=$?
    if [ "$code" = 0 ] || [ "$code" -ge 124 ]; then
        fail "$name" "exit code $code of: $*"
    else
        pass "$name"
    fi
    same "$name: nothing changed" "$before" "$(fingerprint)"
}

# typing PROMPT FILE COMMAND...: at a terminal.
typing() {
    local prompt=$1 file=$2
    shift 2
    python3 "$ROOT/test/integration/at_terminal.py" --prompt "$prompt" --answer "$file" -- "$@"
}
asked() {
    grep -cF "$1" "$OUT" || true
}

# ---- openssl -----------------------------------------------------------------------------------

QUESTION="backup password"
after_loss "openssl at a terminal" typing "$QUESTION" "$PASSWORD_FILE" \
    openssl pkey -in trustpoint://ec -noout -text_pub
same "it was asked once" 1 "$(asked "$QUESTION")"
says_not "the answer is not shown" "$(cat "$PASSWORD_FILE")"
after_loss "openssl at a terminal, stub" typing "pass phrase" "$PASSWORD_FILE" \
    openssl pkey -in "$WORK/ec.stub" -noout -text_pub
after_loss "openssl -passin file:" openssl req -new -key trustpoint://rsa -subj /CN=x \
    -passin "file:$PASSWORD_FILE"
after_loss "openssl -passin file:, stub" openssl req -new -key "$WORK/rsa.stub" -subj /CN=x \
    -passin "file:$PASSWORD_FILE"
lose_kek
unchanged "openssl with a wrong password" openssl pkey -in trustpoint://ec -noout \
    -passin "file:$WRONG"
says "says what is wrong" password
unchanged "a wrong password at a terminal" typing "$QUESTION" "$WRONG" \
    openssl pkey -in trustpoint://ec -noout
same "it was asked once" 1 "$(asked "$QUESTION:")"
missing "openssl without a terminal"
python3 "$ROOT/test/integration/at_terminal.py" --prompt "$QUESTION" -- \
    openssl x509 -in trustpoint://ec -noout >"$OUT" 2>&1 || fail "certificate"
same "a certificate asks for nothing" 0 "$(asked "$QUESTION")"

# ---- nginx -------------------------------------------------------------------------------------

ok "restored for the next" tpk restore --password-file "$PASSWORD_FILE"
PORT=$(free_port)
nginx_configuration() {
    cat <<END
user www-data;
daemon off;
pid $S/nginx.pid;
error_log $S/nginx.log notice;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $S/body;
    proxy_temp_path $S/proxy;
    fastcgi_temp_path $S/fastcgi;
    uwsgi_temp_path $S/uwsgi;
    scgi_temp_path $S/scgi;
    ${1:-}
    server {
        listen 127.0.0.1:$PORT ssl;
        ssl_certificate $WORK/rsa.pem;
        ssl_certificate_key $WORK/rsa.stub;
        ssl_certificate $WORK/ec.pem;
        ssl_certificate_key $WORK/ec.stub;
        return 200 "served\n";
    }
}
END
}
nginx_configuration >"$S/nginx.conf"
nginx_configuration "ssl_password_file $PASSWORD_FILE;" >"$S/password.conf"
nginx_configuration "ssl_password_file $WRONG;" >"$S/wrong.conf"
(umask 077 && cat "$WRONG" "$PASSWORD_FILE" >"$PRIVATE/both")
nginx_configuration "ssl_password_file $PRIVATE/both;" >"$S/both.conf"
requests() {
    ok "$1: 30 requests" python3 "$ROOT/test/integration/load.py" --port "$PORT" \
        --ca "$WORK/ca.pem" --text served --count 30
}
workers() {
    ps -o pid= --ppid "$(cat "$S/nginx.pid")" | xargs
}

start "$S/stderr" nginx -c "$S/nginx.conf"
MASTER=$PID
wait_for_port "$PORT"
wait_for "the worker" has_children "$MASTER" www-data 1
BEFORE=$(workers)
lose_kek
fails "nginx -t without a password names the command" 1 "$HINT" nginx -c "$S/nginx.conf" -t
unchanged "nginx -t with a wrong password" nginx -c "$S/wrong.conf" -t
requests "the KEK is gone, the workers serve"
same "the same workers" "$BEFORE" "$(workers)"
# Requests beside the restore: while nginx -t restores, the workers go on.
ok "requests beside the restore, none lost" python3 "$ROOT/test/integration/load.py" \
    --port "$PORT" --ca "$WORK/ca.pem" --text served --count 60 --every 30 -- \
    nginx -c "$S/password.conf" -t
healthy "nginx -t"
ok "nginx -t needs no password afterwards" nginx -c "$S/nginx.conf" -t
RELOADS=$(grep -c 'reconfiguring' "$S/nginx.log" || true)
kill -HUP "$MASTER"
wait_for "the reload" bash -c "[ \$(grep -c reconfiguring '$S/nginx.log') -gt $RELOADS ]"
wait_for "new workers" bash -c "! ps -p ${BEFORE// /,} >/dev/null"
requests "a reload needs no password"
stop "$MASTER" QUIT
start "$S/stderr" nginx -c "$S/nginx.conf"
MASTER=$PID
wait_for_port "$PORT"
requests "nor does a start"
BEFORE=$(workers)
wipe_token
cp "$S/nginx.conf" "$S/kept.conf"
cp "$S/both.conf" "$S/nginx.conf"
cp "$WORK/ec.stub" "$S/stub" # another file: newer nginx keeps the key of one that has not changed
mv "$S/stub" "$WORK/ec.stub"
kill -HUP "$MASTER"
wait_for "new workers" bash -c "! ps -p ${BEFORE// /,} >/dev/null"
requests "a reload of a running nginx restores onto a new token, with the second line"
healthy "nginx reload"
cp "$S/kept.conf" "$S/nginx.conf"
stop "$MASTER" QUIT
lose_kek
start "$S/stderr" nginx -c "$S/password.conf"
MASTER=$PID
wait_for_port "$PORT"
requests "a start restores"
healthy "nginx start"
stop "$MASTER" QUIT
ok "nginx left without a crash" not grep -qE 'signal (6|11)|core dumped' "$S/nginx.log"

# ---- Apache ------------------------------------------------------------------------------------

APORT=$(free_port)
printf '#!/bin/sh\necho asked >>%s/exec.log\ncat %s\n' "$S" "$PASSWORD_FILE" >"$S/ask"
printf '#!/bin/sh\necho asked >>%s/exec.log\ncat %s\n' "$S" "$WRONG" >"$S/ask-wrong"
chmod 0755 "$S/ask" "$S/ask-wrong"
apache_configuration() {
    cat <<END
ServerRoot $S
ServerName localhost
PidFile $S/apache.pid
DefaultRuntimeDir $S
Mutex file:$S default
User www-data
Group www-data
ErrorLog $S/apache.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
DirectoryIndex index.html
DocumentRoot $S/www
Listen 127.0.0.1:$APORT
SSLSessionCache none
SSLPassPhraseDialog $1
<VirtualHost *:$APORT>
    SSLEngine on
    SSLCertificateFile $WORK/rsa.pem
    SSLCertificateKeyFile $WORK/rsa.stub
    SSLCertificateFile $WORK/ec.pem
    SSLCertificateKeyFile $WORK/ec.stub
</VirtualHost>
END
}
apache_ends() {
    local pid
    pid=$(cat "$S/apache.pid")
    kill -TERM "$pid"
    wait_for "the end of Apache" bash -c "! kill -0 $pid 2>/dev/null"
}
# With a terminal Apache asks, then goes into the background: it detaches itself.
apache_serves() {
    wait_for_port "$APORT"
    ok "$1: Apache serves" plain curl -fsS --noproxy '*' --cacert "$WORK/ca.pem" \
        "https://localhost:$APORT/"
    says "$1: the page" served
    healthy "$1"
    apache_ends
}
apache_configuration builtin >"$S/builtin.conf"
apache_configuration "exec:$S/ask" >"$S/exec.conf"
apache_configuration "exec:$S/ask-wrong" >"$S/exec-wrong.conf"
# The terminal stays open until Apache has left it: its end would be the end of Apache, too.
cat >"$S/start-apache" <<END
#!/bin/bash
set -e
apache2 -f $S/builtin.conf -k start
timeout 60 bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/$APORT) 2>/dev/null; do sleep 0.05; done'
END
for way in lose_kek wipe_token; do
    "$way"
    ok "Apache's builtin dialog after $way" typing "pass phrase:" "$PASSWORD_FILE" \
        bash "$S/start-apache"
    apache_serves "builtin after $way"
    "$way"
    : >"$S/exec.log"
    ok "Apache's exec: dialog after $way" apache2 -f "$S/exec.conf" -k start
    same "the program was asked once" 1 "$(grep -c asked "$S/exec.log")"
    apache_serves "exec: after $way"
done
lose_kek
: >"$S/apache.log"
unchanged "Apache with a wrong password" timeout 60 apache2 -f "$S/exec-wrong.conf" -k start
ok "Apache did not crash" not grep -qE 'Segmentation|Abort|assertion' "$S/apache.log" "$OUT"
cat "$S/apache.log" >>"$OUT"
says "its log says why" password

# ---- PostgreSQL --------------------------------------------------------------------------------

ok "restored for the next" tpk restore --password-file "$PASSWORD_FILE"
PG=$WORK/pg
BIN=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
PGPORT=$(free_port)
install -d -o postgres -g postgres -m 0700 "$PG"
install -o postgres -g postgres -m 0600 "$WORK/rsa.stub" "$PG/rsa.stub"
AS_POSTGRES=(setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups --reset-env
    env LC_ALL=C TZ=UTC OPENSSL_CONF="$OPENSSL_CONF" SOFTHSM2_CONF="$SOFTHSM2_CONF")
quietly "${AS_POSTGRES[@]}" "$BIN/initdb" -D "$PG/data" --auth=trust --no-sync -U postgres ||
    fail "initdb"
cat >>"$PG/data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $PGPORT
unix_socket_directories = '$PG'
fsync = off
ssl = on
ssl_cert_file = '$WORK/rsa.pem'
ssl_key_file = '$PG/rsa.stub'
ssl_passphrase_command = 'cat $PRIVATE/postgres.password'
ssl_passphrase_command_supports_reload = on
END
psql_tls() {
    psql -AtX "host=localhost hostaddr=127.0.0.1 port=$PGPORT user=postgres dbname=postgres \
        sslmode=verify-full sslrootcert=$WORK/ca.pem connect_timeout=60" -c "select 'answered'"
}
postgres_starts() {
    rm -f "$PG/log"
    start "$PG/log" "${AS_POSTGRES[@]}" "$BIN/postgres" -D "$PG/data"
    SERVER=$PID
    wait_for_line "$PG/log" "ready to accept connections"
}
install -m 0600 "$PASSWORD_FILE" "$PRIVATE/postgres.password"
AS=("${AS_POSTGRES[@]}")
for way in lose_kek wipe_token; do
    "$way"
    chown -R postgres:postgres "$PRIVATE"
    postgres_starts
    ok "PostgreSQL's ssl_passphrase_command after $way" psql_tls
    healthy "PostgreSQL after $way"
    [ "$way" = wipe_token ] || stop "$SERVER" INT
done
lose_kek
chown -R postgres:postgres "$PRIVATE"
ok "PostgreSQL: reload" psql -AtX -h "$PG" -p "$PGPORT" -U postgres -d postgres \
    -c "select pg_reload_conf()"
kek_is_back() {
    quietly mine status
}
wait_for "the restore of the reload" kek_is_back
healthy "PostgreSQL reload"
ok "PostgreSQL serves" psql_tls
stop "$SERVER" INT
install -o postgres -g postgres -m 0600 "$WRONG" "$PRIVATE/postgres.password"
lose_kek
unchanged "PostgreSQL with a wrong password" \
    "${AS_POSTGRES[@]}" timeout 60 "$BIN/postgres" -D "$PG/data"
says "its log says why" password
chown -R root:root "$PRIVATE"
AS=()

# ---- Python ------------------------------------------------------------------------------------

cat >"$WORK/load_cert_chain.py" <<'END'
import ssl
import sys

certificate, key, how, password_file = sys.argv[1:]
with open(password_file, encoding="ascii") as file:
    password = file.readline().rstrip("\n")
questions = []


def ask():
    questions.append(None)
    return password


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
try:
    context.load_cert_chain(certificate, key, password=ask if how == "function" else password)
finally:
    print(len(questions), "questions")
END
python_loads() {
    python3 "$WORK/load_cert_chain.py" "$WORK/ec.pem" "$WORK/ec.stub" "$@"
}
after_loss "Python, password=str" python_loads text "$PASSWORD_FILE"
after_loss "Python, password=function" python_loads function "$PASSWORD_FILE"
says "one question in the load" "1 questions"
ok "nothing is lost" python_loads function "$PASSWORD_FILE"
says "no question then" "0 questions"
lose_kek
unchanged "Python with a wrong password" python_loads function "$WRONG"
says "one question in the load" "1 questions"

# ---- C: the example -----------------------------------------------------------------------------

EXAMPLE=$WORK/restore-callback
build_example() {
    local -a flags
    local library
    library=$(dirname "$(find "$STAGE" -name libtrustpoint-keystore.so | sed -n 1p)")
    read -r -a flags < <(pkg-config --cflags --libs libcrypto)
    "${CC:-cc}" -std=c11 -Wall -Wextra -Werror -g -o "$EXAMPLE" \
        "$ROOT/examples/restore-callback.c" -I"$STAGE/include" -L"$library" \
        -Wl,-rpath,"$library" -ltrustpoint-keystore "${flags[@]}"
}
ok "the example builds against what is installed" build_example
after_loss "OSSL_STORE_open with a UI_METHOD" "$EXAMPLE" store trustpoint://ec "$PASSWORD_FILE"
says "one question" "EC: signed, 1 questions"
says "which names the keystore" "Trustpoint keystore"
ok "nothing is lost" "$EXAMPLE" store trustpoint://ec "$PASSWORD_FILE"
says "no question then" "EC: signed, 0 questions"
after_loss "libtrustpoint-keystore with ask and ask_arg" plain "$EXAMPLE" library "$CONFIG" rsa \
    "$PASSWORD_FILE"
says "one question" "RSA: signed, 1 questions"
lose_kek
unchanged "UI_METHOD with a wrong password" "$EXAMPLE" store trustpoint://ec "$WRONG"
says "one question" "failed, 1 questions"
unchanged "ask with a wrong password" plain "$EXAMPLE" library "$CONFIG" rsa "$WRONG"
says "one question" "failed, 1 questions"
unchanged "a callback that has no answer" "$EXAMPLE" store trustpoint://ec "$WORK/absent"
says "names the command" "$HINT"

# ---- sources ------------------------------------------------------------------------------------

after_file() {
    write_keystore_cnf "$1"
    after_loss "$2" openssl pkey -in trustpoint://ec -noout
}
after_file "restore = file:$PASSWORD_FILE" "restore = file:"
mkdir -m 0700 "$PRIVATE/credentials"
cp "$PASSWORD_FILE" "$PRIVATE/credentials/trustpoint.backup-password"
export CREDENTIALS_DIRECTORY=$PRIVATE/credentials
after_file "restore = credential" "restore = credential"
unset CREDENTIALS_DIRECTORY
lose_kek
write_keystore_cnf "restore = no"
unchanged "restore = no: asks nobody" openssl pkey -in trustpoint://ec -noout \
    -passin "file:$PASSWORD_FILE"
says "and names the command" "$HINT"
write_keystore_cnf "restore = file:$WRONG, callback"
unchanged "a wrong file ends the load" openssl pkey -in trustpoint://ec -noout \
    -passin "file:$PASSWORD_FILE"
write_keystore_cnf "restore = file:$PRIVATE/absent, callback"
ok "an absent file is passed over" openssl pkey -in trustpoint://ec -noout \
    -passin "file:$PASSWORD_FILE"
healthy "absent file"
chmod 0644 "$PASSWORD_FILE"
lose_kek
write_keystore_cnf "restore = file:$PASSWORD_FILE"
unchanged "a password file that others can read" openssl pkey -in trustpoint://ec -noout
says "is named" "$PASSWORD_FILE"
chmod 0600 "$PASSWORD_FILE"
write_keystore_cnf

# ---- no right to write --------------------------------------------------------------------------

# www-data may read configuration, keystore, PIN and token, as a server without root would.
readable() {
    chown -R "root:$1" "$PRIVATE"
    chmod -R "u=rwX,g=rX,o=" "$PRIVATE"
}
example_as() {
    setpriv --reuid www-data --regid www-data --clear-groups --reset-env env \
        OPENSSL_CONF="$OPENSSL_CONF" SOFTHSM2_CONF="$SOFTHSM2_CONF" "$@"
}
no_right_to_write() {
    ok "restored for the next" tpk restore --password-file "$PASSWORD_FILE"
    install -m 0644 "$PASSWORD_FILE" "$WORK/handed-over"
    readable www-data
    ok "www-data can load" example_as openssl pkey -in trustpoint://ec -noout
    chown -R root:root "$PRIVATE"
    chmod -R "u=rwX,go=" "$PRIVATE"
    lose_kek
    readable www-data
    fails "www-data can't restore" any "$HINT" example_as "$EXAMPLE" store trustpoint://ec \
        "$WORK/handed-over"
    says "it is not even asked" "failed, 0 questions"
    rm "$WORK/handed-over"
    chown -R root:root "$PRIVATE"
    chmod -R "u=rwX,go=" "$PRIVATE"
}
# In PostgreSQL it is the role that decides, not the user: see postgresql_store.sh.
[ "$ENGINE" = postgresql ] || no_right_to_write

# ---- a missing token or a broken HSM is no loss ---------------------------------------------------

ok "restored for the next" tpk restore --password-file "$PASSWORD_FILE"
lose_token
fails "token missing: nobody is asked" any "token" "$EXAMPLE" store trustpoint://ec \
    "$PASSWORD_FILE"
says "no question" "failed, 0 questions"
fails "token missing: not at a terminal either" any "" python3 \
    "$ROOT/test/integration/at_terminal.py" --prompt "$QUESTION" -- \
    openssl pkey -in trustpoint://ec -noout
same "no question" 0 "$(asked "$QUESTION:")"
fails "token missing: restore says so" 69 token tpk restore --password-file "$PASSWORD_FILE"
token_back
healthy "token back"
(umask 077 && cp "$PIN_FILE" "$PRIVATE/kept.pin" && echo 00000000 >"$PIN_FILE")
fails "a refused PIN: nobody is asked" any "PIN" "$EXAMPLE" store trustpoint://ec "$PASSWORD_FILE"
says "no question" "failed, 0 questions"
cat "$PRIVATE/kept.pin" >"$PIN_FILE"
healthy "PIN back"
URI=$TOKEN_URI
TOKEN_URI="pkcs11:token=web?module-path=$WORK/absent.so&pin-source=file:$PIN_FILE"
write_keystore_cnf
fails "HSM unavailable: nobody is asked" any "" "$EXAMPLE" store trustpoint://ec "$PASSWORD_FILE"
says "no question" "failed, 0 questions"
TOKEN_URI=$URI
write_keystore_cnf

# ---- many at once ---------------------------------------------------------------------------------

lose_kek
for i in 1 2 3 4 5 6; do
    start "$WORK/many.$i" "$EXAMPLE" store trustpoint://ec "$PASSWORD_FILE"
    MANY[i]=$PID
done
for i in 1 2 3 4 5 6; do
    wait "${MANY[i]}" || fail "program $i of six" "$(cat "$WORK/many.$i")"
    unset "STARTED[${MANY[i]}]"
done
same "six programs at once: one question" 1 "$(cat "$WORK"/many.* | grep -c '^asked')"
same "six programs at once: all have their key" 6 "$(cat "$WORK"/many.* | grep -c signed)"
healthy "six at once"

# ---- a keystore without an HSM --------------------------------------------------------------------

forget_keystore
TOKEN_URI=
new_keystore
keystore_key soft
rm "$PRIVATE"/state/*.dek
missing_soft() {
    fails "$1" any "$HINT" openssl pkey -in trustpoint://soft -noout
}
missing_soft "software keystore, its DEK file is gone"
ok "-passin brings it back" openssl pkey -in trustpoint://soft -noout \
    -passin "file:$PASSWORD_FILE"
ok "nothing is asked afterwards" openssl pkey -in trustpoint://soft -noout
finish
