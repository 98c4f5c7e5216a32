# Shared by tests/run and bench/run; sourced, never run. POSIX sh.
# shellcheck shell=sh

ROOST_TEST_CACHE=${ROOST_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/roost}
# What pip, uv and the linters keep stays there too.
PIP_CACHE_DIR=$ROOST_TEST_CACHE/pip UV_CACHE_DIR=$ROOST_TEST_CACHE/uv
export ROOST_TEST_CACHE PIP_CACHE_DIR UV_CACHE_DIR
ROOST_TEST_RUN=
venv=
daemon_pid=
slirp_pid=

say() { printf '%s\n' "$*"; }
die() {
    printf 'ERROR: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'Fix: %s\n' "$2" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# need_tools COMMAND=PACKAGE...: installs the packages whose command is missing, with the machine's own apt.
need_tools() {
    missing=
    for pair in "$@"; do
        have "${pair%%=*}" || missing="$missing ${pair#*=}"
    done
    set --
    for package in $missing; do set -- "$@" "$package"; done
    [ -n "$missing" ] || return 0
    have apt-get || die "These packages are missing:$missing." "Install them with your package manager and run again."
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die "These packages are missing:$missing." "Run once as root: apt-get install$missing"
        say "Installing$missing with sudo."
        as_root=sudo
    fi
    # RUNLEVEL=1 keeps invoke-rc.d from starting the services that come along.
    $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends "$@" </dev/null >"$ROOST_TEST_CACHE/apt.log" 2>&1 || {
        $as_root apt-get -q update </dev/null >"$ROOST_TEST_CACHE/apt.log" 2>&1 || true
        $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y -o DPkg::Lock::Timeout=120 \
            install --no-install-recommends "$@" </dev/null >>"$ROOST_TEST_CACHE/apt.log" 2>&1 ||
            die "apt could not install$missing." "See $ROOST_TEST_CACHE/apt.log."
    }
}

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if have "$candidate" &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# dev_venv: sets $venv to a folder with everything of requirements/dev.txt, made once per content and Python.
dev_venv() {
    python=$(find_python) || {
        need_tools roost-no-such-command=python3-venv
        python=$(find_python) || die "Python 3.11 or newer is needed." "Install python3 and python3-venv."
    }
    key=$({
        cat requirements/dev.txt
        "$python" -c 'import sys; print(sys.version, sys.base_prefix)'
    } | sha256sum | cut -c1-16)
    venv=$ROOST_TEST_CACHE/venvs/$key
    [ ! -e "$venv/complete" ] || return 0
    say "Making the development venv (once for this requirements/dev.txt)."
    rm -rf "$venv"
    mkdir -p "$ROOST_TEST_CACHE/venvs"
    "$python" -m venv "$venv" || die "$python cannot make a venv." "Install python3-venv."
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all: \
        -r requirements/dev.txt </dev/null || die "pip could not install requirements/dev.txt."
    : >"$venv/complete"
}

daemon_tools() {
    [ "$(id -u)" -eq 0 ] || die "Disposable hosts need root (namespaces, mounts)." "Run it with sudo."
    need_tools dockerd=docker.io docker=docker.io iptables=iptables debootstrap=debootstrap ip=iproute2 \
        slirp4netns=slirp4netns unshare=util-linux flock=util-linux gpg=gnupg setsid=util-linux ps=procps
    have docker || need_tools docker=docker-cli
    [ -c /dev/net/tun ] || die "/dev/net/tun is missing." "Load the tun module, or give this container the device."
}

# daemon_start: a dockerd of our own; sets and exports DOCKER_HOST. Stop it with daemon_stop (call it in a trap).
daemon_start() {
    [ -z "$daemon_pid" ] || return 0
    mkdir -p "$ROOST_TEST_CACHE/docker"
    # Two runs at once would fight over the data root; file descriptor 9 holds the lock until this shell ends.
    exec 9>"$ROOST_TEST_CACHE/docker.lock"
    flock -n 9 || {
        say "Another run is using $ROOST_TEST_CACHE; waiting for it."
        flock 9
    }
    ROOST_TEST_RUN=$(mktemp -d "${TMPDIR:-/tmp}/roost-test.XXXXXX")
    mkfifo "$ROOST_TEST_RUN/network-up"
    setsid unshare --mount --net --pid --fork --kill-child \
        sh tests/hosts/daemon.sh "$ROOST_TEST_CACHE/docker" "$ROOST_TEST_RUN" 9>&- </dev/null &
    daemon_pid=$!
    inner=
    tries=0
    until [ -n "$inner" ]; do
        inner=$(ps -o pid= --ppid "$daemon_pid" | tr -d ' ')
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || die "The namespaces for dockerd could not be made."
        [ -n "$inner" ] || sleep 0.1
    done
    mkfifo "$ROOST_TEST_RUN/slirp-ready"
    setsid slirp4netns --configure --mtu=65520 --disable-host-loopback --ready-fd=8 "$inner" tap0 \
        9>&- 8>"$ROOST_TEST_RUN/slirp-ready" </dev/null >"$ROOST_TEST_RUN/slirp.log" 2>&1 &
    slirp_pid=$!
    read -r _ <"$ROOST_TEST_RUN/slirp-ready" || true
    echo up >"$ROOST_TEST_RUN/network-up"
    DOCKER_HOST=unix://$ROOST_TEST_RUN/docker.sock
    export DOCKER_HOST ROOST_TEST_RUN
    tries=0
    until docker version >/dev/null 2>&1; do
        kill -0 "$daemon_pid" 2>/dev/null || break
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || break
        sleep 0.2
    done
    docker version >/dev/null 2>&1 || {
        cat "$ROOST_TEST_RUN/dockerd.log" "$ROOST_TEST_RUN/slirp.log" >&2
        die "dockerd did not start."
    }
}

# daemon_stop: ends only what daemon_start began; everything in its process namespace goes with it.
daemon_stop() {
    if [ -n "$daemon_pid" ]; then
        inner=$(ps -o pid= --ppid "$daemon_pid" | tr -d ' ')
        [ -z "$inner" ] || kill "$inner" 2>/dev/null || true
        wait "$daemon_pid" 2>/dev/null || true
        daemon_pid=
    fi
    if [ -n "$slirp_pid" ]; then
        kill "$slirp_pid" 2>/dev/null || true
        wait "$slirp_pid" 2>/dev/null || true
        slirp_pid=
    fi
    if [ -n "$ROOST_TEST_RUN" ]; then
        rm -rf "$ROOST_TEST_RUN"
        find /sys/fs/cgroup -depth -maxdepth 2 -type d -name roost-test -exec rmdir {} + 2>/dev/null || true
        ROOST_TEST_RUN=
    fi
}
