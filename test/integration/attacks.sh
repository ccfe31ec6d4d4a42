#!/bin/bash
# attacks.sh - hostile and broken input: URIs, stubs, openssl.cnf, databases, PINs. Each is refused
# with an error of its own, in bounded time, without a crash, and hurts nobody else's keys
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new_token web
new_keystore 'allow = web, rsa'
openssl_cnf
keystore_key web
keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
tpk generate hidden --type ec:P-256 >>"$OUT" 2>&1
tpk stub hidden --out "$WORK/hidden.stub" >>"$OUT" 2>&1
head -c 4096 /dev/urandom >"$WORK/data"
WEB_PUBLIC=$(plain openssl x509 -in "$WORK/web.pem" -noout -pubkey)

bounded() {
    timeout --kill-after=10 60 "$@"
}
# load KEY: the private key is really needed and used.
load() {
    bounded openssl dgst -sha256 -sign "$1" -out "$WORK/signature" "$WORK/data"
}
public() {
    bounded openssl pkey -in "$1" -pubout
}

echo "-- URIs"
ok "the plain URI" load trustpoint://web
fails "unknown attribute" 1 'unknown attribute "nonsense"' load 'trustpoint://web?nonsense=1'
fails "repeated attribute" 1 'twice' load 'trustpoint://web?type=private&type=private'
fails "empty value" 1 'no value' load 'trustpoint://web?type='
fails "empty query" 1 'attribute=value' load 'trustpoint://web?'
fails "attribute without ?" 1 'attribute' load 'trustpoint://web&type=private'
fails "percent sign without digits" 1 '%' load 'trustpoint://we%b'
fails "percent sign at the end" 1 '%' load 'trustpoint://web%'
fails "a percent-encoded NUL" 1 'control character' load 'trustpoint://web%00'
fails "broken UTF-8" 1 'UTF-8' load 'trustpoint://%ff%fe'
fails "64 KiB" 1 'longer than' load "trustpoint://$(head -c 65536 /dev/zero | tr '\0' a)"
fails "a PIN" 1 'unknown attribute' load 'trustpoint://web?pin-value=1234'
fails "a path as keystore" 1 'keystore' load 'trustpoint://web?keystore=../../etc/passwd'
fails "a keystore that is not configured" 1 'nowhere' load 'trustpoint://web?keystore=nowhere'
fails "no such name" 1 'nobody' load 'trustpoint://nobody'
fails "SQL in a name" 1 "'" load "trustpoint://web'%20or%201=1--"
fails "a pin of another key" 1 '' load "trustpoint://web?spki=$(printf '0%.0s' {1..64})"
fails "a name that allow does not list" 1 'allow' load 'trustpoint://hidden'
mkdir -p "$WORK/cwd/trustpoint:"
cp "$PRIVATE/rsa.key" "$WORK/cwd/trustpoint:/web"
cd "$WORK/cwd"
ok "a local file of the same name" public trustpoint://web
same "the keystore's key was taken" "$WEB_PUBLIC" "$(cat "$OUT")"
cd "$WORK"

echo "-- stubs"
# stub DESCRIPTION TYPE URI [LABEL]
stub() {
    printf 'asn1 = SEQUENCE:stub\n[stub]\na = UTF8:%s\nb = UTF8:%s\nc = UTF8:%s\n' "$1" "$2" "$3" \
        >"$WORK/stub.cnf"
    plain openssl asn1parse -genconf "$WORK/stub.cnf" -noout -out "$WORK/stub.der" >>"$OUT" 2>&1
    echo "-----BEGIN ${4:-TRUSTPOINT KEY URI}-----"
    plain openssl base64 -in "$WORK/stub.der"
    echo "-----END ${4:-TRUSTPOINT KEY URI}-----"
}
sed '/-----/d' "$WORK/web.stub" | plain openssl base64 -d >"$WORK/own.der"
DESCRIPTION=$(plain openssl asn1parse -inform DER -in "$WORK/own.der" |
    sed -n '/UTF8STRING/{s/.*: *UTF8STRING *://p;q}')
stub "$DESCRIPTION" EC trustpoint://web >"$WORK/made.stub"
ok "the tool of this test makes good stubs" load "$WORK/made.stub"
# OpenSSL 3.0's command drops the reason that a decoder gives; nginx shows it, see below.
fails "a key that allow does not list" 1 '' load "$WORK/hidden.stub"
stub "$DESCRIPTION" RSA trustpoint://web >"$WORK/s"
fails "the wrong key type" 1 '' load "$WORK/s"
stub "$DESCRIPTION" EC 'trustpoint://web?nonsense=1' >"$WORK/s"
fails "a broken URI inside" 1 'nonsense' load "$WORK/s"
stub "$DESCRIPTION" EC 'file:/etc/shadow' >"$WORK/s"
fails "a file URI inside" 1 '' load "$WORK/s"
stub "$DESCRIPTION" EC "$WORK/made.stub" >"$WORK/s"
fails "a path inside" 1 '' load "$WORK/s"
stub "some other program's stub" EC pkcs11:token=web >"$WORK/s"
fails "another program's stub under our label" 1 '' load "$WORK/s"
stub "$DESCRIPTION" EC "trustpoint://$(printf 'a%.0s' {1..2000})" >"$WORK/s"
fails "2 KiB inside" 1 '' load "$WORK/s"
{
    echo "-----BEGIN TRUSTPOINT KEY URI-----"
    head -c 65536 /dev/zero | base64 -w 64
    echo "-----END TRUSTPOINT KEY URI-----"
} >"$WORK/s"
fails "64 KiB of zeros" 1 '' load "$WORK/s"
sed '2s/^..../!!!!/' "$WORK/web.stub" >"$WORK/s"
fails "not Base64" 1 '' load "$WORK/s"
head -n 2 "$WORK/web.stub" >"$WORK/s"
fails "cut off" 1 '' load "$WORK/s"
cat "$WORK/web.stub" "$WORK/rsa.stub" >"$WORK/two"
ok "two stubs in one file: the first counts, as with PEM keys" public "$WORK/two"
same "it is the first" "$WEB_PUBLIC" "$(cat "$OUT")"
cat "$PRIVATE/rsa.key" "$WORK/web.stub" >"$WORK/two"
ok "a plain key before a stub" public "$WORK/two"
same "it is the plain one" "$(plain openssl pkey -in "$PRIVATE/rsa.key" -pubout)" "$(cat "$OUT")"
SIZE=$(stat -c %s "$WORK/own.der")
STEP=$((FULL == 1 ? 1 : 7))
CRASHES=0
for ((i = SEED % STEP; i < SIZE * 8; i += STEP)); do
    perl -e 'open F, "<:raw", $ARGV[0]; local $/; $_ = <F>; vec($_, $ARGV[1], 1) ^= 1; print' \
        "$WORK/own.der" "$i" >"$WORK/flipped.der"
    {
        echo "-----BEGIN TRUSTPOINT KEY URI-----"
        plain openssl base64 -in "$WORK/flipped.der"
        echo "-----END TRUSTPOINT KEY URI-----"
    } >"$WORK/s"
    code=0
    quietly load "$WORK/s" || code=$?
    if [ "$code" -gt 1 ]; then
        CRASHES=$((CRASHES + 1))
        fail "stub with bit $i flipped" "exit code $code"
    fi
done
same "stubs with one flipped bit: no crash, no hang" 0 "$CRASHES"

echo "-- openssl.cnf"
plain openssl pkey -in "$PRIVATE/rsa.key" -pubout -out "$WORK/rsa.pub"
others_work() {
    bounded openssl dgst -sha256 -sign "$PRIVATE/rsa.key" -out "$WORK/signature" "$WORK/data" &&
        plain openssl dgst -sha256 -verify "$WORK/rsa.pub" -signature "$WORK/signature" \
            "$WORK/data"
}
GOOD=$OPENSSL_CONF
# with_conf FILE COMMAND...
with_conf() {
    local file=$1
    shift
    OPENSSL_CONF=$file "$@"
}
cat >"$WORK/reversed.cnf" <<END
openssl_conf = init
[init]
providers = providers
[providers]
trustpoint = ours
default = theirs
[ours]
module = $MODULES/trustpoint.so
config = $CONFIG
activate = 1
[theirs]
activate = 1
END
ok "trustpoint before default: our key" with_conf "$WORK/reversed.cnf" load trustpoint://web
ok "trustpoint before default: our stub" with_conf "$WORK/reversed.cnf" load "$WORK/web.stub"
ok "trustpoint before default: other keys" with_conf "$WORK/reversed.cnf" others_work
sed '/^default/d; /^\[theirs/,$d' "$WORK/reversed.cnf" >"$WORK/alone.cnf"
fails "without default nothing works, but it ends cleanly" any "" \
    with_conf "$WORK/alone.cnf" load trustpoint://web
# SoftHSM needs OpenSSL's digests to compare a PIN; that it lacks them says nothing about the PIN.
ok "and with default it works again" load trustpoint://web
for properties in '?provider=trustpoint' 'provider=default' '?provider=default' 'fips=yes'; do
    sed "s/^providers = providers/&\nalg_section = algorithms/" "$GOOD" >"$WORK/properties.cnf"
    grep -q alg_section "$WORK/properties.cnf" ||
        sed "s/^\(providers *=.*\)/\1\nalg_section = algorithms/" "$GOOD" >"$WORK/properties.cnf"
    printf '[algorithms]\ndefault_properties = %s\n' "$properties" >>"$WORK/properties.cnf"
    if [ "$properties" != fips=yes ]; then
        ok "default_properties = $properties: other keys work" \
            with_conf "$WORK/properties.cnf" others_work
    fi
    code=0
    OPENSSL_CONF=$WORK/properties.cnf quietly load trustpoint://web || code=$?
    ok "default_properties = $properties: our key works or fails cleanly" test "$code" -le 1
done
sed 's/fips=yes/provider=default/' "$WORK/properties.cnf" >"$WORK/doctor.cnf"
fails "doctor sees default_properties" 1 default_properties with_conf "$WORK/doctor.cnf" tpk doctor
ok "doctor is content with the example" tpk doctor
sed "s,^config = .*,config = $WORK/nothing.cnf," "$GOOD" >"$WORK/noconfig.cnf"
ok "no keystore.cnf: other keys work" with_conf "$WORK/noconfig.cnf" others_work
fails "no keystore.cnf: said when a key is wanted" 1 nothing.cnf \
    with_conf "$WORK/noconfig.cnf" load trustpoint://web
sed 's/^allow.*/alow = */' "$CONFIG" >"$PRIVATE/typo.cnf"
sed "s,^config = .*,config = $PRIVATE/typo.cnf," "$GOOD" >"$WORK/typo.cnf"
ok "unknown directive: other keys work" with_conf "$WORK/typo.cnf" others_work
fails "unknown directive: named when a key is wanted" 1 alow \
    with_conf "$WORK/typo.cnf" load trustpoint://web

echo "-- databases"
DB=$PRIVATE/keystore.db
cp -p "$DB" "$PRIVATE/good.db"
put_back() {
    rm -rf -- "$DB" "$DB-journal"
    cp -p "$PRIVATE/good.db" "$DB"
}
rm "$DB"
fails "no database" 1 'no keystore' load trustpoint://web
: >"$DB"
fails "an empty file" 1 'empty' load trustpoint://web
head -c 65536 /dev/urandom >"$DB"
fails "random bytes" 1 'not a keystore' load trustpoint://web
rm "$DB"
mkdir "$DB"
fails "a folder" 1 'folder' load trustpoint://web
rmdir "$DB"
sqlite3 "$DB" "create table t (a); insert into t values (1)"
chmod 0600 "$DB"
fails "another program's database" 1 'other program' load trustpoint://web
put_back
sqlite3 "$DB" "pragma user_version = 99"
fails "a newer format" 1 'newer version' load trustpoint://web
put_back
sqlite3 "$DB" "update tpks_record set name = 'rsa2' where name = 'rsa'"
sqlite3 "$DB" "update tpks_record set name = 'rsa' where name = 'web'"
fails "two records exchanged" 1 '' load trustpoint://rsa
put_back
head -c 8192 "$DB" >"$PRIVATE/short.db"
cat "$PRIVATE/short.db" >"$DB"
fails "cut off" 1 'damaged' load trustpoint://web
put_back
dd if=/dev/urandom of="$DB" bs=512 seek=9 count=16 conv=notrunc status=none
fails "garbage in the middle" 1 '' load trustpoint://web
put_back
chmod 0666 "$DB"
fails "writable for everybody" 1 'everybody' load trustpoint://web
put_back
ok "put back: the key" load trustpoint://web

mkdir -m 0755 "$WORK/open"
cp "$DB" "$WORK/open/keystore.db"
chmod 0600 "$WORK/open/keystore.db"
sed "s,^store = .*,store = sqlite:$WORK/open/keystore.db," "$CONFIG" >"$WORK/open/keystore.cnf"
sed "s,^config = .*,config = $WORK/open/keystore.cnf," "$GOOD" >"$WORK/open/openssl.cnf"
chmod 0644 "$WORK/open/"*.cnf
chmod 0644 "$WORK/data"
fails "no permission" 1 'may not read' run_as www-data env OPENSSL_CONF="$WORK/open/openssl.cnf" \
    openssl dgst -sha256 -sign trustpoint://web -out /dev/null "$WORK/data"

start "$WORK/locker" python3 -c "
import signal, sqlite3
db = sqlite3.connect('$DB', isolation_level=None)
db.execute('begin exclusive')
print('locked', flush=True)
signal.pause()"
LOCKER=$PID
wait_for_line "$WORK/locker" locked
fails "locked for ever" 1 'locked' load trustpoint://web
stop "$LOCKER"
ok "and free again" load trustpoint://web

cp -p "$DB" "$PRIVATE/old.db"
ok "a change" tpk generate later --type ec:P-256
cat "$PRIVATE/old.db" >"$DB"
fails "rolled back: a writer refuses" 65 '' tpk generate another --type ec:P-256
put_back

echo "-- killed writers"
# A software keystore: SoftHSM itself does not survive a kill at the wrong moment.
mkdir -m 0700 "$PRIVATE/soft"
printf '[keystore]\nstore = sqlite:%s\nstate = %s\n' "$PRIVATE/soft/keystore.db" "$PRIVATE/soft" \
    >"$PRIVATE/soft.cnf"
soft() {
    "$KEYSTORE_COMMAND" --config "$PRIVATE/soft.cnf" "$@"
}
ok "a software keystore" soft init --software --password-file "$PASSWORD_FILE" --kdf-memory 8 \
    --kdf-passes 1
ok "with a key" soft import web "$PRIVATE/web.key" --cert "$WORK/web.pem"
sed "s,^config = .*,config = $PRIVATE/soft.cnf," "$GOOD" >"$PRIVATE/soft-openssl.cnf"
export OPENSSL_CONF=$PRIVATE/soft-openssl.cnf
N=$WORK/nginx
mkdir "$N"
cat >"$N/nginx.conf" <<END
user www-data;
pid $N/pid;
error_log $N/error.log;
events { }
http {
    access_log off;
    client_body_temp_path $N/body;
    proxy_temp_path $N/proxy;
    fastcgi_temp_path $N/fastcgi;
    uwsgi_temp_path $N/uwsgi;
    scgi_temp_path $N/scgi;
    server {
        listen 127.0.0.1:$(free_port) ssl;
        ssl_certificate $WORK/web.pem;
        ssl_certificate_key $WORK/web.stub;
    }
}
END
sed "s,$WORK/web.stub,$WORK/hidden.stub," "$N/nginx.conf" >"$N/hidden.conf"
fails "nginx says why a stub is refused" 1 allow env OPENSSL_CONF="$GOOD" \
    nginx -c "$N/hidden.conf" -t
ok "nginx -t before" nginx -c "$N/nginx.conf" -t
KILLED=0
BAD=0
for call in pwrite64 fdatasync,fsync unlink,unlinkat; do
    for ((n = 1; n < 200; n += FULL == 1 ? 1 : 1 + SEED % 3)); do
        code=0
        # The shell in between keeps the word "Killed" out of this test's own output.
        bash -c '"$@"; exit' killed strace -f -qq -o /dev/null -e trace="$call" \
            -e inject="$call:signal=KILL:when=$n" "$KEYSTORE_COMMAND" \
            --config "$PRIVATE/soft.cnf" generate "k-${call%%,*}-$n" --type ec:P-256 \
            >"$OUT" 2>&1 </dev/null || code=$?
        [ "$code" != 0 ] || break
        if [ "$code" != 137 ]; then
            fail "killed at $call number $n" "ended with $code instead"
            break
        fi
        KILLED=$((KILLED + 1))
        if ! quietly nginx -c "$N/nginx.conf" -t; then
            BAD=$((BAD + 1))
            fail "nginx -t after a kill at $call number $n"
        fi
    done
done
ok "writers were killed at $KILLED moments" test "$KILLED" -ge 4
same "nginx -t copes after each" 0 "$BAD"
ok "the keystore is whole" soft verify
OPENSSL_CONF=$GOOD

echo "-- PIN"
SPY=$(find /usr/lib -name 'pkcs11-spy.so' | sed -n 1p)
export PKCS11SPY=$SOFTHSM PKCS11SPY_OUTPUT=$PRIVATE/spy
sed -i "s,module-path=[^&]*,module-path=$SPY," "$CONFIG"
ok "a spy between us and the token" load trustpoint://web
ok "it sees the login" grep -q C_Login "$PRIVATE/spy"
GOOD_PIN=$(cat "$PIN_FILE")
echo 00000000 >"$PIN_FILE"
: >"$PRIVATE/spy"
fails "a wrong PIN" 1 PIN load trustpoint://web
fails "and again" 1 PIN load trustpoint://web
fails "and by the command" 77 PIN tpk verify
same "the token was asked once" 1 "$(grep -c ': C_Login' "$PRIVATE/spy")"
echo "$GOOD_PIN" >"$PIN_FILE"
ok "the right PIN again" load trustpoint://web
finish
