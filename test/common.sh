# shellcheck shell=bash
#
# common.sh - what the demo, the test run and the integration tests share: packages, free ports,
# where SoftHSM is, how openssl.cnf.example becomes an openssl.cnf

# What it takes to build and install (Debian 12 and 13).
# shellcheck disable=SC2034
BUILD_PACKAGES=(gcc libc6-dev make cmake pkgconf libssl-dev libp11-kit-dev libargon2-dev
    libsqlite3-dev libpq-dev libjson-c-dev libevent-dev libbsd-dev libseccomp-dev)

# ---- packages ---------------------------------------------------------------------------------

POLICY=/usr/sbin/policy-rc.d
POLICY_SAVED=$POLICY.trustpoint-saved
POLICY_MARK="# put here by the trustpoint-keystore tests, for as long as packages are installed"
CLUSTERS=/etc/postgresql-common/createcluster.conf
CLUSTERS_SAVED=$CLUSTERS.trustpoint-saved

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            echo "$package"
    done
}

# While packages are installed no packaged daemon starts: invoke-rc.d asks this script.
forbid_daemons() {
    allow_daemons
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
        as_root mv "$POLICY" "$POLICY_SAVED"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | as_root tee "$POLICY" >/dev/null
    as_root chmod 0755 "$POLICY"
}

# Puts back exactly what was there, also after a run that was killed.
allow_daemons() {
    if [ -f "$POLICY" ] && grep -qxF "$POLICY_MARK" "$POLICY"; then
        as_root rm -f "$POLICY"
    fi
    if [ -e "$POLICY_SAVED" ] || [ -L "$POLICY_SAVED" ]; then
        as_root mv "$POLICY_SAVED" "$POLICY"
    fi
}

# PostgreSQL's packages make a cluster "main" unless this file says otherwise.
forbid_clusters() {
    allow_clusters
    [ -f "$CLUSTERS" ] || return 0
    as_root mv "$CLUSTERS" "$CLUSTERS_SAVED"
    echo "create_main_cluster = false" | as_root tee "$CLUSTERS" >/dev/null
}
allow_clusters() {
    if [ -e "$CLUSTERS_SAVED" ]; then as_root mv "$CLUSTERS_SAVED" "$CLUSTERS"; fi
}

undo_installing() {
    allow_daemons
    allow_clusters
}

# Says nothing unless it fails.
apt() {
    local log code=0
    log=$(mktemp)
    apt_get "$@" >"$log" 2>&1 || code=$?
    [ "$code" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$code"
}
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -qq -y \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# install_packages PACKAGE...: installs what is missing; nothing is started and no database made.
# The caller runs undo_installing at its exit as well, for the case that it is interrupted.
install_packages() {
    local -a missing
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} = 0 ]; then
        echo "all packages are there"
        return 0
    fi
    echo "installing: ${missing[*]}"
    local code=0
    apt update
    forbid_daemons
    install_missing "${missing[@]}" || code=$?
    undo_installing
    return "$code"
}
install_missing() {
    if printf '%s\n' "$@" | grep -q '^postgresql'; then
        apt install --no-install-recommends postgresql-common || return 1
        forbid_clusters
    fi
    apt install --no-install-recommends "$@"
}

# ---- small things -----------------------------------------------------------------------------

# free_port: a TCP port of 127.0.0.1 that nobody has, for a server that starts later. It is none of
# those that the kernel gives to connections, which might have it by then (a connection to such a
# port, with nobody there, can even be answered by itself). Those given out are in the file
# PORTS_GIVEN, if that is set, and not given out again.
free_port() {
    perl -MIO::Socket::INET -e '
        my $file = $ENV{PORTS_GIVEN};
        my %given;
        if (defined $file and open my $in, "<", $file) { %given = map { chomp; $_ => 1 } <$in> }
        open my $range, "<", "/proc/sys/net/ipv4/ip_local_port_range" or die "$!\n";
        my ($first, $last) = split " ", <$range>;
        my ($low, $count) = $first > 21000 ? (20000, $first - 20000)
            : $last < 64500 ? ($last + 1, 65535 - $last)
            : (20000, 45536); # all belong to connections here
        for (1 .. 1000) {
            my $port = $low + int rand $count;
            next if $given{$port};
            next unless IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1",
                LocalPort => $port);
            if (defined $file) { open my $out, ">>", $file or die "$file: $!\n"; print $out "$port\n" }
            print "$port\n";
            exit 0;
        }
        die "no free port\n"'
}

# find_softhsm: where this machine keeps SoftHSM's module.
find_softhsm() {
    local path
    for path in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
        /usr/lib64/pkcs11/libsofthsm2.so; do
        if [ -e "$path" ]; then
            echo "$path"
            return 0
        fi
    done
    echo "SoftHSM's PKCS#11 module is not installed (package softhsm2)" >&2
    return 1
}

# example_to_openssl_cnf EXAMPLE MODULE CONFIG: openssl.cnf.example with the two paths in the
# provider's section, on stdout.
example_to_openssl_cnf() {
    local section
    section=$(sed -n \
        's/^[[:space:]]*trustpoint[[:space:]]*=[[:space:]]*\([A-Za-z0-9_]*\).*/\1/p' "$1")
    if [ -z "$section" ]; then
        echo "$1 does not name the section of the provider trustpoint" >&2
        return 1
    fi
    grep -q '^[[:space:]]*openssl_conf[[:space:]]*=' "$1" || echo 'openssl_conf = openssl_init'
    sed -e '/^[[:space:]]*\(module\|config\)[[:space:]]*=/d' \
        -e "/^\[[[:space:]]*${section}[[:space:]]*\]/a module = $2\\
config = $3" "$1"
}

# wait_for WHAT COMMAND...: asks again and again until the command succeeds, for 60 seconds at most.
wait_for() {
    local what=$1 i
    shift
    for ((i = 0; i < 1200; i++)); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.05
    done
    echo "waited in vain for $what" >&2
    return 1
}
port_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
# wait_for_port PORT: something listens on 127.0.0.1:PORT.
wait_for_port() {
    wait_for "port $1" port_open "$1"
}
