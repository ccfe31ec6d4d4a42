#!/bin/bash
# openssl_matrix.sh - every command of openssl(1) that uses a private key, by URI and by stub
#
# Whatever a command makes is checked by plain OpenSSL, without our provider, against the public
# key or certificate; and what plain OpenSSL encrypts must be decrypted.
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

openssl_cnf
new_keystore
cd "$WORK"
for ((i = 0; i < 200; i++)); do echo "line $i of the data"; done >data
head -c 32 data >block

# verified_by_plain KEY SIGNATURE OPTIONS...: plain OpenSSL accepts the signature of `data`.
verified_by_plain() {
    local key=$1 signature=$2
    shift 2
    plain openssl pkeyutl -verify -pubin -inkey "$key.pub" -rawin -in data \
        -sigfile "$signature" "$@"
}
# same_file A B
same_file() {
    cmp "$1" "$2"
}
no_private_key_in() {
    [ -s "$1" ] && ! plain openssl pkey -in "$1" -noout 2>/dev/null
}

make_keys() {
    keystore_key rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
    keystore_key pss -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
    keystore_key ec -algorithm EC -pkeyopt ec_paramgen_curve:P-256
    keystore_key p384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
    keystore_key ed25519 -algorithm ED25519
    keystore_key ed448 -algorithm ED448
    plain_key peer -algorithm EC -pkeyopt ec_paramgen_curve:P-256
    tpk policy --allow-decrypt rsa
    tpk policy --allow-agree ec
    local key
    for key in rsa pss ec p384 ed25519 ed448; do
        plain openssl x509 -in "$key.pem" -noout -pubkey >"$key.pub"
        plain openssl x509 -in "$key.pem" -outform DER -out "$key.cert.der"
    done
    keystore_key signonly -algorithm RSA -pkeyopt rsa_keygen_bits:2048
    plain openssl x509 -in signonly.pem -noout -pubkey >signonly.pub
}

# ---- one key, named by URI or stub ------------------------------------------------------------

pkey_commands() {
    local name=$1 from=$2 what=$3
    ok "$what: pkey -pubout" openssl pkey -in "$from" -pubout -out out.pub
    ok "$what: it is the public key" same_file out.pub "$name.pub"
    ok "$what: pkey -text_pub" openssl pkey -in "$from" -text_pub -noout
    ok "$what: pkey -text" openssl pkey -in "$from" -text -noout
    says "$what: the text names the URI" "URI: trustpoint://$name"
    ok "$what: pkey -check" openssl pkey -in "$from" -check -noout
    ok "$what: pkey writes a stub" openssl pkey -in "$from" -out out.stub
    ok "$what: which loads" openssl pkey -in out.stub -pubout
    ok "$what: and holds no key" no_private_key_in out.stub
    rm -f out.der
    if openssl pkey -in "$from" -outform DER -out out.der 2>"$OUT"; then
        ok "$what: pkey -outform DER has no key" no_private_key_in out.der
    else
        says "$what: pkey -outform DER is refused" "does not leave"
    fi
    fails "$what: no PKCS#8" any "does not leave" \
        openssl pkcs8 -topk8 -nocrypt -in "$name.stub" -out out.p8
    fails "$what: no PKCS#12" any "does not leave" \
        openssl pkcs12 -export -inkey "$from" -in "$name.pem" -passout pass:x -out out.p12
    fails "$what: not traditional" any "" openssl pkey -in "$from" -traditional -out out.old
}

x509_commands() {
    local name=$1 from=$2 what=$3
    shift 3
    ok "$what: req" openssl req -new -key "$from" -subj "/CN=$name" "$@" -out out.csr
    ok "$what: the request is sound" plain openssl req -in out.csr -noout -verify
    ok "$what: req -x509" openssl req -x509 -key "$from" -subj "/CN=$name" \
        -addext basicConstraints=critical,CA:TRUE "$@" -out out.pem
    ok "$what: the certificate is sound" plain openssl verify -check_ss_sig -CAfile out.pem out.pem
    ok "$what: x509 -CAkey" openssl x509 -req -in "$WORK/peer.csr" -CA out.pem -CAkey "$from" \
        -set_serial 7 "$@" -out leaf.pem
    ok "$what: x509 -CAkey is sound" plain openssl verify -CAfile out.pem leaf.pem
    ok "$what: x509 -signkey" openssl x509 -in "$name.pem" -signkey "$from" "$@" -out out2.pem
}

raw_signatures() {
    local name=$1 from=$2 what=$3
    shift 3
    ok "$what: pkeyutl -rawin" openssl pkeyutl -sign -rawin -inkey "$from" -in data -out sig "$@"
    ok "$what: plain OpenSSL verifies it" verified_by_plain "$name" sig "$@"
    ok "$what: and we do" openssl pkeyutl -verify -rawin -inkey "$from" -in data -sigfile sig "$@"
}

digest_signatures() {
    local name=$1 from=$2 what=$3 digest
    shift 3
    for digest in sha256 sha384 sha3-256; do
        ok "$what: dgst -$digest" openssl dgst "-$digest" -sign "$from" "$@" -out sig data
        ok "$what: $digest verified" plain openssl dgst "-$digest" -verify "$name.pub" "$@" \
            -signature sig data
    done
    ok "$what: dgst -prverify" openssl dgst -sha3-256 -prverify "$from" "$@" -signature sig data
    fails "$what: other data is refused" any "" \
        openssl dgst -sha3-256 -prverify "$from" "$@" -signature sig block
    ok "$what: pkeyutl of a digest" openssl pkeyutl -sign -inkey "$from" -in block -out sig \
        -pkeyopt digest:sha256
    ok "$what: which is verified" plain openssl pkeyutl -verify -pubin -inkey "$name.pub" \
        -in block -sigfile sig -pkeyopt digest:sha256
}

messages() {
    local name=$1 from=$2 what=$3
    shift 3
    ok "$what: cms -sign" openssl cms -sign -binary -nodetach -in data \
        -signer "$name.pem" -inkey "$from" "$@" -outform PEM -out out.cms
    ok "$what: cms verified" plain openssl cms -verify -inform PEM -in out.cms -CAfile ca.pem \
        -purpose any -out /dev/null
    ok "$what: cms -sign -noattr" openssl cms -sign -binary -nodetach -noattr -in data \
        -signer "$name.pem" -inkey "$from" "$@" -outform PEM -out out.cms
    ok "$what: cms -noattr verified" plain openssl cms -verify -inform PEM -in out.cms \
        -CAfile ca.pem -purpose any -out /dev/null
}

smime_messages() {
    local name=$1 from=$2 what=$3
    ok "$what: smime -sign" openssl smime -sign -in data -signer "$name.pem" -inkey "$from" \
        -out out.msg
    ok "$what: smime verified" plain openssl smime -verify -in out.msg -CAfile ca.pem \
        -purpose any -out /dev/null
}

# ---- authorities: ca, CRL, OCSP, time stamps --------------------------------------------------

ca_files() {
    rm -rf ca && mkdir -p ca/new && : >ca/index.txt && echo 01 >ca/serial && echo 01 >ca/crlnumber
    cat >ca.cnf <<END
.include $OPENSSL_CONF
[ca]
default_ca = authority
[authority]
dir = $WORK/ca
database = \$dir/index.txt
new_certs_dir = \$dir/new
serial = \$dir/serial
crlnumber = \$dir/crlnumber
default_md = sha256
default_days = 30
default_crl_days = 30
policy = anything
[anything]
commonName = supplied
[tsa]
default_tsa = stamper
[stamper]
dir = $WORK
serial = $WORK/tsserial
default_policy = 1.2.3.4
digests = sha256
signer_digest = sha256
ess_cert_id_alg = sha256
END
}

authority() {
    local name=$1 from=$2 what=$3
    ca_files
    openssl req -x509 -key "$from" -subj "/CN=Authority $name" \
        -addext basicConstraints=critical,CA:TRUE -out root.pem 2>>"$OUT"
    cp "$PRIVATE/peer.csr" peer.csr
    ok "$what: ca signs" env OPENSSL_CONF="$WORK/ca.cnf" openssl ca -config ca.cnf -batch \
        -keyfile "$from" -cert root.pem -in peer.csr -out issued.pem -notext
    ok "$what: ca's certificate is sound" plain openssl verify -CAfile root.pem issued.pem
    ok "$what: ca revokes" env OPENSSL_CONF="$WORK/ca.cnf" openssl ca -config ca.cnf \
        -keyfile "$from" -cert root.pem -revoke issued.pem
    ok "$what: ca -gencrl" env OPENSSL_CONF="$WORK/ca.cnf" openssl ca -config ca.cnf \
        -keyfile "$from" -cert root.pem -gencrl -out out.crl
    ok "$what: the CRL is sound" plain openssl crl -in out.crl -CAfile root.pem -noout
    ok "$what: ocsp answers" openssl ocsp -index ca/index.txt -rsigner root.pem -rkey "$from" \
        -CA root.pem -issuer root.pem -cert issued.pem -respout out.ocsp -noverify -no_nonce
    ok "$what: ocsp is sound" plain openssl ocsp -respin out.ocsp -CAfile root.pem \
        -issuer root.pem -cert issued.pem -no_nonce
}

time_stamp() {
    local name=$1
    echo 01 >tsserial
    printf 'extendedKeyUsage=critical,timeStamping\n' >ts.ext
    plain openssl x509 -req -in "$PRIVATE/$name.csr" -CA ca.pem -CAkey "$PRIVATE/ca.key" \
        -set_serial 99 -extfile ts.ext -out ts.pem 2>>"$OUT"
    plain openssl ts -query -data data -sha256 -cert -out ts.tsq 2>>"$OUT"
    ok "$name stub: ts -reply" env OPENSSL_CONF="$WORK/ca.cnf" openssl ts -reply -config ca.cnf \
        -section stamper -queryfile ts.tsq -inkey "$name.stub" -signer ts.pem -out out.tsr
    ok "$name stub: the time stamp is sound" plain openssl ts -verify -queryfile ts.tsq \
        -in out.tsr -CAfile ca.pem
}

# ---- decryption and agreement -----------------------------------------------------------------

decryption() {
    local name=$1 from=$2 what=$3 padding
    for padding in pkcs1 oaep; do
        plain openssl pkeyutl -encrypt -pubin -inkey "$name.pub" -in block -out secret \
            -pkeyopt "rsa_padding_mode:$padding"
        ok "$what: pkeyutl -decrypt $padding" openssl pkeyutl -decrypt -inkey "$from" -in secret \
            -out clear -pkeyopt "rsa_padding_mode:$padding"
        ok "$what: $padding gives the text back" same_file clear block
    done
}

envelopes() {
    local name=$1 from=$2 what=$3
    plain openssl cms -encrypt -binary -in data -aes-256-cbc -outform DER -out secret "$name.pem"
    ok "$what: cms -decrypt" openssl cms -decrypt -binary -inform DER -in secret \
        -recip "$name.pem" -inkey "$from" -out clear
    ok "$what: cms gives the text back" same_file clear data
}

smime_envelope() {
    local name=$1 from=$2 what=$3
    plain openssl smime -encrypt -binary -in data -aes-256-cbc -out secret "$name.pem"
    ok "$what: smime -decrypt" openssl smime -decrypt -binary -in secret -recip "$name.pem" \
        -inkey "$from" -out clear
    ok "$what: smime gives the text back" same_file clear data
}

agreement() {
    local name=$1 from=$2 what=$3
    plain openssl pkey -in "$PRIVATE/peer.key" -pubout -out peer.pub
    plain openssl pkeyutl -derive -inkey "$PRIVATE/peer.key" -peerkey "$name.pub" -out theirs
    ok "$what: pkeyutl -derive" openssl pkeyutl -derive -inkey "$from" -peerkey peer.pub -out ours
    ok "$what: both have the same secret" same_file ours theirs
}

policies() {
    plain openssl pkeyutl -encrypt -pubin -inkey signonly.pub -in block -out secret
    fails "a key without the right does not decrypt" any "policy of key trustpoint://signonly" \
        openssl pkeyutl -decrypt -inkey trustpoint://signonly -in secret
    fails "a key without the right does not agree" any "policy of key trustpoint://p384" \
        openssl pkeyutl -derive -inkey trustpoint://p384 -peerkey p384.pub
    head -c 256 data >full
    fails "signing without padding, which is decrypting, is refused" any "without padding" \
        openssl pkeyutl -sign -inkey trustpoint://signonly -in full -pkeyopt rsa_padding_mode:none
}

# ---- the store --------------------------------------------------------------------------------

store_queries() {
    local serial subject sha1
    ok "storeutl lists names" openssl storeutl trustpoint://
    says "storeutl: the name is a URI" "trustpoint://rsa"
    says "storeutl: it found them all" "Total found: 7"
    ok "storeutl of a record" openssl storeutl -noout trustpoint://rsa
    says "storeutl: private key and certificate" "Total found: 2"
    ok "storeutl -keys" openssl storeutl -keys -noout trustpoint://ec
    says "storeutl -keys: the key alone" "Total found: 1"
    ok "storeutl -certs" openssl storeutl -certs trustpoint://ec
    says "storeutl -certs: a certificate" "BEGIN CERTIFICATE"
    ok "?type=cert" openssl x509 -in "trustpoint://ec?type=cert" -outform DER -out out.der
    ok "?type=cert is the leaf" same_file out.der ec.cert.der
    ok "?type=public" openssl pkey -pubin -in "trustpoint://ec?type=public" -pubout -out out.pub
    ok "?type=public is the public key" same_file out.pub ec.pub
    ok "pkey -pubin" openssl pkey -pubin -in trustpoint://ec -pubout -out out.pub
    ok "pkey -pubin is the public key" same_file out.pub ec.pub
    fails "?type=cert is no key" any "a key is wanted" openssl pkey -in "trustpoint://ec?type=cert"
    fails "?type=chain without a chain" any "no such certificate" \
        openssl x509 -in "trustpoint://ec?type=chain"
    serial=$(plain openssl x509 -in ec.pem -noout -serial | cut -d= -f2)
    subject=/CN=ec
    sha1=$(plain openssl x509 -in ec.pem -noout -fingerprint -sha1 | cut -d= -f2 | tr -d :)
    ok "storeutl -subject" openssl storeutl -certs -subject "$subject" trustpoint://
    says "storeutl -subject: one" "Total found: 1"
    ok "storeutl -issuer -serial" openssl storeutl -issuer "/CN=Test CA" -serial "0x$serial" \
        -certs trustpoint://
    says "storeutl -issuer -serial: one" "Total found: 1"
    ok "storeutl -fingerprint" openssl storeutl -sha1 -fingerprint "$sha1" -certs trustpoint://
    says "storeutl -fingerprint: one" "Total found: 1"
    ok "storeutl -fingerprint, SHA-256" openssl storeutl -sha256 -certs -fingerprint \
        "$(plain openssl x509 -in ec.pem -noout -fingerprint -sha256 | cut -d= -f2 | tr -d :)" \
        trustpoint://
    says "storeutl -fingerprint, SHA-256: one" "Total found: 1"
    ok "storeutl -fingerprint of the key" openssl storeutl -sha256 -keys -noout -fingerprint \
        "$(plain openssl pkey -pubin -in ec.pub -outform DER | sha256sum | cut -d' ' -f1)" \
        trustpoint://
    says "storeutl -fingerprint of the key: one" "Total found: 1"
    ok "storeutl -alias" openssl storeutl -keys -noout -alias p384 trustpoint://
    says "storeutl -alias: one" "Total found: 1"
    ok "a search that finds nothing" openssl storeutl -certs -subject /CN=nobody trustpoint://
    says_not "it finds nothing" "BEGIN CERTIFICATE"
    fails "an unknown name" any "nobody" openssl pkey -in trustpoint://nobody
    fails "an unknown attribute" any "bad URI" openssl pkey -in "trustpoint://ec?pin=1"
    fails "another scheme is not ours" any "" openssl pkey -in nothing://ec
    says_not "and we keep quiet about it" "trustpoint:"
}

# A record whose certificate is an authority's, as a store of trusted certificates.
authority_store() {
    plain openssl req -x509 -key "$PRIVATE/p384.key" -subj "/CN=Authority" \
        -addext basicConstraints=critical,CA:TRUE -out authority.pem 2>>"$OUT"
    ok "a record for an authority" tpk import authority "$PRIVATE/p384.key" --cert authority.pem
    ok "it signs" openssl x509 -req -in "$PRIVATE/peer.csr" -CA trustpoint://authority \
        -CAkey trustpoint://authority -set_serial 8 -out leaf.pem
    ok "verify -CAstore" openssl verify -no-CApath -no-CAfile \
        -CAstore trustpoint://authority leaf.pem
    ok "verify -CAstore of the whole keystore" \
        openssl verify -no-CApath -no-CAfile -CAstore trustpoint:// leaf.pem
    fails "verify -CAstore of another record" any "unable to get local issuer" \
        openssl verify -no-CApath -no-CAfile -CAstore trustpoint://ec leaf.pem
}

# ---- TLS --------------------------------------------------------------------------------------

# tls WHAT KEY CERT SERVER_OPTIONS -- CLIENT_OPTIONS: a handshake whose client proves the server.
tls() {
    local what=$1 key=$2 certificate=$3 port server
    local -a options=()
    shift 3
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    port=$(free_port)
    start server.log openssl s_server -accept "127.0.0.1:$port" -key "$key" -cert "$certificate" \
        -www "${options[@]}"
    server=$PID
    wait_for_port "$port"
    ok "$what" openssl s_client -connect "127.0.0.1:$port" -CAfile ca.pem -verify_return_error "$@"
    stop "$server"
}

handshakes() {
    local key
    for key in rsa ec p384 ed25519 ed448 pss; do
        tls "TLS 1.3 with $key" "trustpoint://$key" "$key.pem" -tls1_3 -- -tls1_3
        tls "TLS 1.2 with $key as a stub" "$key.stub" "$key.pem" -tls1_2 -- -tls1_2
    done
    tls "TLS, key and certificate by URI" trustpoint://ec trustpoint://ec -tls1_3 -- -tls1_3
    tls "TLS 1.2 with RSA key exchange" trustpoint://rsa rsa.pem -tls1_2 -cipher \
        AES128-GCM-SHA256 -- -tls1_2
    tls "TLS client certificate" "$PRIVATE/peer.key" peer.pem -CAfile ca.pem -Verify 1 \
        -verify_return_error -tls1_3 -- -key trustpoint://ec -cert ec.pem -tls1_3
    tls "TLS 1.2 client certificate" "$PRIVATE/peer.key" peer.pem -CAfile ca.pem -Verify 1 \
        -verify_return_error -tls1_2 -- -key rsa.stub -cert rsa.pem -tls1_2
}

# ---- stubs ------------------------------------------------------------------------------------

stub_files() {
    tpk stub ec --label ec >ec.traditional
    tpk stub rsa --label rsa >rsa.traditional
    ok "a stub with the label EC PRIVATE KEY" openssl dgst -sha256 -sign ec.traditional \
        -out sig data
    ok "its signature is good" plain openssl dgst -sha256 -verify ec.pub -signature sig data
    ok "a stub with the label RSA PRIVATE KEY" openssl rsa -in rsa.traditional -pubout -out out.pub
    ok "it is that key" same_file out.pub rsa.pub
    cat rsa.pem ec.stub >both
    ok "certificate and stub in one file" openssl pkey -in both -pubout -out out.pub
    ok "the stub is found" same_file out.pub ec.pub
    plain openssl pkey -in "$PRIVATE/peer.key" -traditional -out "$PRIVATE/peer.old"
    ok "other key files are read as ever" openssl pkey -in "$PRIVATE/peer.key" -noout
    ok "traditional ones too" openssl pkey -in "$PRIVATE/peer.old" -noout
    sed -i 's/pem-stub.*//; /^module/a pem-stub = no' "$OPENSSL_CONF"
    fails "with pem-stub = no a stub is no key" any "" openssl pkey -in ec.stub -noout
    ok "but a URI is" openssl pkey -in trustpoint://ec -noout
    sed -i 's/pem-stub = no/pem-stub = perhaps/' "$OPENSSL_CONF"
    ok "a wrong value stops nobody" openssl dgst -sha256 data
    fails "but is told" any "pem-stub = perhaps" openssl pkey -in trustpoint://ec -noout
    sed -i '/^pem-stub/d' "$OPENSSL_CONF"
}

# ---- all of it --------------------------------------------------------------------------------

make_keys
cp "$PRIVATE/peer.csr" peer.csr
for name in rsa pss ec p384 ed25519 ed448; do
    for from in "trustpoint://$name" "$name.stub"; do
        what="$name ${from##*.}"
        [ "$from" = "$name.stub" ] || what="$name URI"
        pkey_commands "$name" "$from" "$what"
        x509_commands "$name" "$from" "$what"
        raw_signatures "$name" "$from" "$what"
    done
done
for name in rsa ec p384; do
    digest_signatures "$name" "trustpoint://$name" "$name URI"
    messages "$name" "trustpoint://$name" "$name URI"
    smime_messages "$name" "$name.stub" "$name stub"
    authority "$name" "trustpoint://$name" "$name URI"
done
ok "rsa: openssl rsa" openssl rsa -in trustpoint://rsa -pubout -out out.pub
ok "rsa: openssl rsa gives the key" same_file out.pub rsa.pub
ok "ec: openssl ec" openssl ec -in trustpoint://ec -pubout -out out.pub
ok "ec: openssl ec gives the key" same_file out.pub ec.pub
ok "ec: compressed point" openssl ec -in trustpoint://ec -conv_form compressed -pubout -out out.pub
raw_signatures rsa trustpoint://rsa "rsa with PSS" -pkeyopt rsa_padding_mode:pss \
    -pkeyopt rsa_pss_saltlen:digest -digest sha256
x509_commands rsa trustpoint://rsa "rsa with PSS" -sigopt rsa_padding_mode:pss \
    -sigopt rsa_pss_saltlen:digest
messages rsa trustpoint://rsa "rsa with PSS" -keyopt rsa_padding_mode:pss
ok "rsa: spkac" openssl spkac -key trustpoint://rsa -out out.spkac
ok "rsa: spkac is sound" plain openssl spkac -in out.spkac -verify -noout
time_stamp rsa
time_stamp ec
decryption rsa trustpoint://rsa "rsa URI"
decryption rsa rsa.stub "rsa stub"
envelopes rsa trustpoint://rsa "rsa URI"
smime_envelope rsa rsa.stub "rsa stub"
envelopes ec trustpoint://ec "ec URI"
agreement ec trustpoint://ec "ec URI"
policies
store_queries
authority_store
handshakes
stub_files
finish
