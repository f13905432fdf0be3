# Debian packages that Brink needs; sourced by etc/demo.sh and tests/run.sh. Installs only what is missing.

build_packages="gcc g++ cmake ninja-build pkg-config protobuf-c-compiler
    libprotobuf-c-dev libsystemd-dev libyaml-dev libssl-dev librocksdb-dev libqpid-proton11-dev
    libjansson-dev libcurl4-openssl-dev libmicrohttpd-dev"
demo_packages="ca-certificates mosquitto-clients jq"
test_packages="libcmocka-dev clang libclang-rt-14-dev valgrind nodejs npm ca-certificates mosquitto mosquitto-clients
    openssl jq util-linux procps libfuse3-dev fuse3 docker.io mmdebstrap"

# Runs the calling script again as root when it is not: ports below 1024 and apt need it.
become_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null 2>&1 || { echo "$0: needs root (or sudo)" >&2; exit 1; }
    exec sudo -E sh "$0" "$@"
}

install_packages() {
    missing=
    for package in "$@"; do
        # A command from elsewhere is as good as the package (a newer Node, say).
        case "$package" in
        nodejs) command -v node >/dev/null 2>&1 && continue ;;
        npm) command -v npm >/dev/null 2>&1 && continue ;;
        esac
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # Services that come with a package (mosquitto's broker, a container engine) must not start: the tests start their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=1
    fi
    log=$(mktemp)
    # shellcheck disable=SC2086
    if { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
        status=0
    else
        status=1
        tail -n 30 "$log" >&2
        echo "apt-get could not install:$missing" >&2
    fi
    rm -f "$log"
    [ -z "${made_policy:-}" ] || rm -f "$policy"
    return $status
}
