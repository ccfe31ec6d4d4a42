#!/bin/bash
# attacks.sh - hostile and broken input: URIs, stubs, openssl.cnf, databases, PINs. Each is refused
# with an error of its own, in bounded time, without a crash, and hurts nobody else's keys. With
# ENGINE=postgresql (postgresql_store.sh) all that an engine has a part in
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
GOOD=$OPENSSL_CONF
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

stubs() {
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
}

openssl_cnfs() {
    echo "-- openssl.cnf"
    plain openssl pkey -in "$PRIVATE/rsa.key" -pubout -out "$WORK/rsa.pub"
    others_work() {
        bounded openssl dgst -sha256 -sign "$PRIVATE/rsa.key" -out "$WORK/signature" "$WORK/data" &&
            plain openssl dgst -sha256 -verify "$WORK/rsa.pub" -signature "$WORK/signature" \
                "$WORK/data"
    }
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
}

if [ "$ENGINE" = sqlite ]; then
    stubs
    openssl_cnfs
fi

echo "-- databases"
keystore_save "$PRIVATE/good"
put_back() {
    keystore_put_back "$PRIVATE/good"
}

# What can happen to a file.
files() {
    local file=$DATABASE
    rm "$file"
    fails "no database" 1 'no keystore' load trustpoint://web
    : >"$file"
    fails "an empty file" 1 'empty' load trustpoint://web
    head -c 65536 /dev/urandom >"$file"
    fails "random bytes" 1 'not a keystore' load trustpoint://web
    rm "$file"
    mkdir "$file"
    fails "a folder" 1 'folder' load trustpoint://web
    rmdir "$file"
    put_back
    head -c 8192 "$file" >"$PRIVATE/short.db"
    cat "$PRIVATE/short.db" >"$file"
    fails "cut off" 1 'damaged' load trustpoint://web
    put_back
    dd if=/dev/urandom of="$file" bs=512 seek=9 count=16 conv=notrunc status=none
    fails "garbage in the middle" 1 '' load trustpoint://web
    put_back
    chmod 0666 "$file"
    fails "writable for everybody" 1 'everybody' load trustpoint://web
    put_back

    mkdir -m 0755 "$WORK/open"
    cp "$file" "$WORK/open/keystore.db"
    chmod 0600 "$WORK/open/keystore.db"
    sed "s,^store = .*,store = sqlite:$WORK/open/keystore.db," "$CONFIG" >"$WORK/open/keystore.cnf"
    sed "s,^config = .*,config = $WORK/open/keystore.cnf," "$GOOD" >"$WORK/open/openssl.cnf"
    chmod 0644 "$WORK/open/"*.cnf
    chmod 0644 "$WORK/data"
    fails "no permission" 1 'may not read' run_as www-data env OPENSSL_CONF="$WORK/open/openssl.cnf" \
        openssl dgst -sha256 -sign trustpoint://web -out /dev/null "$WORK/data"

    start "$WORK/locker" python3 -c "
import signal, sqlite3
db = sqlite3.connect('$file', isolation_level=None)
db.execute('begin exclusive')
print('locked', flush=True)
signal.pause()"
    wait_for_line "$WORK/locker" locked
    fails "locked for ever" 1 'locked' load trustpoint://web
    stop "$PID"
    ok "and free again" load trustpoint://web
}
[ "$ENGINE" != sqlite ] || files

keystore_place
keystore_sql "create table t (a integer)"
[ "$ENGINE" != sqlite ] || chmod 0600 "$DATABASE"
fails "another program's database" 1 'other program' load trustpoint://web
put_back

# The two things that each engine says in its own way.
newer_format() {
    case $ENGINE in
    sqlite) echo "pragma user_version = 99" ;;
    postgresql) echo "update tpks_mark set format = 99" ;;
    esac
}
# wrong_type TABLE COLUMN: a text where none belongs.
wrong_type() {
    case $ENGINE in
    sqlite) echo "update $1 set $2 = 'x'" ;;
    postgresql) echo "alter table $1 alter $2 type text using 'x'" ;;
    esac
}
# Views are to be refused for what they are, not for want of a right.
[ "$ENGINE" = sqlite ] || sql keystore "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO keeper"

# What somebody with every right to the database, and without the DEK, can do: what the load of the
# record "web" says; whether the record "rsa" still loads; a statement for both engines.
WEB="where name = 'web'"
RSA="from tpks_record where name = 'rsa'"
ATTACKS=0
while IFS='|' read -r what text other statement; do
    ATTACKS=$((ATTACKS + 1))
    keystore_sql "$statement" >>"$OUT" 2>&1 || fail "$what" "the statement failed"
    fails "$what" 1 "$text" load trustpoint://web
    if [ "$other" = loads ]; then
        ok "$what: another record" load trustpoint://rsa
    else
        fails "$what: another record" 1 "$text" load trustpoint://rsa
    fi
    fails "$what: verify" any "$text" tpk verify
    put_back
done <<END
two records exchanged|was changed by someone without the DEK|no|update tpks_record set name = case name when 'web' then 'rsa2' when 'rsa' then 'web' else name end where name <> 'hidden'; update tpks_record set name = 'rsa' where name = 'rsa2'
the key of another record|"web" was changed by someone without the DEK|loads|update tpks_record set sealed = (select sealed $RSA), nonce = (select nonce $RSA) $WEB
a sealed key cut off|"web" was changed by someone without the DEK|loads|update tpks_record set sealed = substr(sealed, 2) $WEB
no sealed key at all|impossible length|loads|update tpks_record set sealed = substr(sealed, 1, 0) $WEB
a nonce cut off|tpks_record, column 16|loads|update tpks_record set nonce = substr(nonce, 2) $WEB
more rights|"web" was changed by someone without the DEK|loads|update tpks_record set policy = 7 $WEB
an impossible version|"web" was changed by someone without the DEK|loads|update tpks_record set version = -9223372036854775808 $WEB
an unknown algorithm|algorithm 99|loads|update tpks_record set seal_algorithm = 99 $WEB
another key type|"web" was changed by someone without the DEK|loads|update tpks_record set key_type = 'RSA' $WEB
another public key|does not belong to its key|loads|update tpks_record set spki = (select spki $RSA), spki_sha256 = (select spki_sha256 $RSA) $WEB
an unknown DEK|DEK that is not the current one|loads|update tpks_record set dek = id $WEB
a malformed extension area|extension area of tpks_record|loads|update tpks_record set extension = substr(id, 1, 1) $WEB
a key that would be in the token|"web" was changed by someone without the DEK|loads|update tpks_record set token_serial = 'x', cka_id = id $WEB
a text for a number|tpks_record, column 8|no|$(wrong_type tpks_record policy)
no certificates|are not those it was stored with|no|delete from tpks_certificate
the certificate of another record|are not those it was stored with|loads|update tpks_certificate set der = (select der from tpks_certificate where position = 0 and record = (select id $RSA))
certificates with a gap|tpks_certificate, column 1|no|update tpks_certificate set position = position + 1
another label|header, a slot or a wrap was changed|no|update tpks_header set label = 'x'
an impossible generation|header, a slot or a wrap was changed|no|update tpks_header set generation = -1
an unknown feature|features that this version does not know|no|update tpks_header set required = 1
a seal cut off|tpks_header, column 10|no|update tpks_header set seal = substr(seal, 2)
a text for the generation|tpks_header, column 6|no|$(wrong_type tpks_header generation)
no header|no keystore header|no|delete from tpks_header
two headers|two keystore headers|no|insert into tpks_header select dek, label, format, required, optional, generation, dek, extension, seal_nonce, seal from tpks_header
a check value cut off|tpks_dek, column 4|no|update tpks_dek set check_value = substr(check_value, 2)
no DEK|names a DEK that is not there|no|delete from tpks_dek
a DEK's state|header, a slot or a wrap was changed|no|update tpks_dek set state = 99
no slots|the KEK is not on the token|no|delete from tpks_slot
a password slot that takes all memory|tpks_slot, column 11|no|update tpks_slot set kdf_m_kib = 4611686018427387904
an unknown kind of slot|tpks_slot, column 15|no|update tpks_slot set kind = 99
a wrapped DEK cut off|not wrapped by a key of this token|no|update tpks_wrap set wrapped = substr(wrapped, 2)
no wrapped DEK|does not hold the current DEK|no|delete from tpks_wrap
no table of records|restore it from a backup|no|drop table tpks_record
no table of slots|restore it from a backup|no|drop table tpks_slot
a column gone|restore it from a backup|no|alter table tpks_record rename column policy to other
a view in a table's place|view|no|alter table tpks_record rename to other; create view tpks_record as select * from other
a view in the header's place|view|no|alter table tpks_header rename to other; create view tpks_header as select * from other
a newer format|newer version|no|$(newer_format)
END
ok "all of them were tried" test "$ATTACKS" = 38
ok "put back: the key" load trustpoint://web
ok "put back: everything" tpk verify

keystore_save "$PRIVATE/old"
ok "a change" tpk generate later --type ec:P-256
keystore_put_back "$PRIVATE/old"
fails "rolled back: a writer refuses" 65 '' tpk generate another --type ec:P-256
put_back

echo "-- killed writers"
# A software keystore: SoftHSM itself does not survive a kill at the wrong moment.
mkdir -m 0700 "$PRIVATE/soft"
DATABASE=$PRIVATE/soft/keystore.db
SCHEMA=soft
keystore_place
printf '[keystore]\nstore = %s\nstate = %s\n' "$(keystore_store)" "$PRIVATE/soft" >"$PRIVATE/soft.cnf"
chmod 0600 "$PRIVATE/soft.cnf"
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
case $ENGINE in
sqlite) CALLS=(pwrite64 "fdatasync,fsync" "unlink,unlinkat") ;;
postgresql) CALLS=(sendto) ;;
esac
KILLED=0
BAD=0
for call in "${CALLS[@]}"; do
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
