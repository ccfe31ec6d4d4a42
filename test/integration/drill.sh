#!/bin/bash
# drill.sh - doc/disaster-drill.md, its commands word for word: from a database and a recovery key
# to a server with TLS, on a machine that has nothing else
set -euo pipefail
# shellcheck source=test/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PAGE=$ROOT/doc/disaster-drill.md
SAFE=$WORK/safe
mkdir -m 0700 "$SAFE"

# ---- the machine that is lost, and what was taken from it in time ----
new_token old
new_keystore
openssl_cnf
keystore_key web
keystore_key mail -algorithm RSA -pkeyopt rsa_keygen_bits:2048
tpk slot add recovery >"$SAFE/recovery.key" 2>>"$OUT"
ok "backup of the old machine" tpk backup "$SAFE/keystore.db"
cp "$WORK/ca.pem" "$SAFE/ca.pem"
chmod 0600 "$SAFE"/*
rm -rf -- "${PRIVATE:?}"/*
unset OPENSSL_CONF

# ---- the empty one ----
mkdir -m 0700 "$PRIVATE/tokens"
printf 'directories.tokendir = %s\nlog.level = ERROR\n' "$PRIVATE/tokens" >"$SOFTHSM2_CONF"
blocks() {
    sed -n '/^```sh$/,/^```$/{/^```/d;p}' "$PAGE"
}
blocks >"$PRIVATE/drill"
ok "the page has commands" grep -q 'trustpoint-keystore restore' "$PRIVATE/drill"
same "every block of the page is one of these" "$(grep -c '^```sh$' "$PAGE")" \
    "$(($(grep -c '^```' "$PAGE") / 2))"
DRILL_PORT=$(free_port)
drill() {
    env PATH="$STAGE/bin:$PATH" OPENSSL_MODULES="$MODULES" BACKUP="$SAFE" \
        ETC="$PRIVATE/etc" STATE="$PRIVATE/state" WEB="$WORK/web" KEY=web PORT="$DRILL_PORT" \
        SOFTHSM="$SOFTHSM" bash -euo pipefail "$PRIVATE/drill"
}
ok "the drill, word for word" drill
says "the recovery key opens the database" "it is right"
says "restored" "restored: the token has a new KEK"
says "unlocked" unlocked
says "every key is proven" "2 records proven, 0 bad"
says "nginx serves TLS" "back again"
wait_for "the end of nginx" bash -c "! test -e '$WORK/web/nginx.pid'"
ok "the recovery key did not stay behind" not grep -rqF "$(cat "$SAFE/recovery.key")" \
    "$PRIVATE/etc" "$PRIVATE/state" "$WORK/web"
ok "the new token has one KEK" bash -c "[ \$(find '$PRIVATE/tokens' -name '*.object' \
    ! -name token.object | wc -l) = 1 ]"
CONFIG=$PRIVATE/etc/keystore.cnf
ok "the new backup unlocks with the recovery key" env TRUSTPOINT_KEYSTORE_CONF="$CONFIG" \
    "$KEYSTORE_COMMAND" slot test --password-file "$SAFE/recovery.key"
finish
