# shellcheck shell=sh
# Part of bootstrap.sh. Root, the lock, a folder for this run, and an end that leaves nothing running.

# become_root ARGUMENT...: goes on as root, or ends. A proxy's address may hold a password, so the environment goes
# over in a file: arguments are seen by everybody and logged by sudo.
become_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    for tool in sudo doas none; do
        if have "$tool"; then break; fi
    done
    [ "$tool" != none ] || die "Roost is installed by root, and neither sudo nor doas is here." \
        "Run it as root, e.g. su -c ./bootstrap.sh"
    handed=$(mktemp "${TMPDIR:-/tmp}/roost-environment.XXXXXX") ||
        die "No temporary file can be made." "Set TMPDIR to a folder that may be written to."
    trap 'rm -f "$handed"' EXIT
    # Root's process is not ours to end; it gets a terminal's signals by itself, so just wait for it.
    trap : INT TERM HUP
    for name in ROOST_CACHE_DIR ROOST_EXTRA_CA_BUNDLE ROOST_VAULT_PASSPHRASE_FILE ROOST_VAULT_PASSPHRASE SSL_CERT_FILE NO_COLOR PIP_INDEX_URL PIP_CERT GOPROXY \
        http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        eval "value=\${$name:-}"
        [ -z "$value" ] || printf "%s='%s'; export %s\n" "$name" "$(printf '%s' "$value" | sed "s/'/'\\\\''/g")" "$name" >>"$handed"
    done
    say "Roost needs root: asking $tool."
    code=0
    "$tool" sh -c ". \"\$1\" && rm -f \"\$1\" && shift && exec sh \"\$@\"" sh "$handed" "$source_dir/bootstrap.sh" "$@" || code=$?
    exit "$code"
}

# start_time PID: when the process began, in clock ticks since boot; fails if it has ended.
start_time() {
    { read -r stat; } 2>/dev/null <"/proc/$1/stat" || return 1
    stat=${stat##*) }
    case $stat in Z* | X*) return 1 ;; esac
    printf '%s' "$stat" | cut -d ' ' -f 20
}

# take_lock: descriptor 9 holds it for as long as this script or the playbook lives, so it cannot go stale.
take_lock() {
    mkdir -p "$(dirname "$lock")"
    while [ -z "$locked" ]; do
        exec 9>>"$lock"
        flock -n 9 || die "Another bootstrap.sh is running (process $(cat "$lock"))." \
            "Wait until it has ended, or interrupt it with: kill $(cat "$lock")"
        # Whoever ended in between has removed the file: then this would be a lock on nothing.
        if [ "$(stat -L -c %i /proc/self/fd/9)" = "$(stat -c %i "$lock" 2>/dev/null)" ]; then locked=yes; fi
    done
    printf '%s\n' "$$" >"$lock"
}

# descendants PID: it and all that it started, oldest first.
descendants() {
    printf '%s\n' "$1"
    for stat_file in /proc/[0-9]*/stat; do
        { read -r stat; } 2>/dev/null <"$stat_file" || continue
        parent=${stat##*) }
        parent=${parent#* }
        if [ "${parent%% *}" = "$1" ]; then (descendants "${stat%% *}"); fi
    done
}

# await_end: whether all of $family have ended; asks for five seconds.
await_end() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
        left=
        for pid in $family; do ! start_time "$pid" >/dev/null || left=yes; done
        [ -n "$left" ] || return 0
        sleep 0.2
    done
    return 1
}

# stop_child: ends what runs in the background, with all its children.
stop_child() {
    [ -n "$child" ] || return 0
    family=$(descendants "$child")
    for signal in TERM KILL; do
        for pid in $family; do kill -s "$signal" "$pid" 2>/dev/null || true; done
        ! await_end || break
    done
    child=
}

finish() {
    code=$?
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$unseen" ] || stty echo
    stop_ticker
    stop_child
    if [ -n "$tmp" ]; then
        keep_choices
        rm -rf "$tmp"
    fi
    [ -z "$locked" ] || rm -f "$lock"
    exit "$code"
}

interrupted() {
    trap '' INT TERM HUP
    stop_ticker
    say "" "Stopped. Run ./bootstrap.sh again: it goes on where it was."
    exit "$1"
}

# make_tmp: a folder for this run from which programs may run; /tmp is mounted without that on careful machines.
make_tmp() {
    for parent in "${TMPDIR:-/tmp}" /var/tmp "$HOME"; do
        tmp=$(mktemp -d "$parent/roost-bootstrap.XXXXXX" 2>/dev/null) || continue
        printf '#!/bin/sh\n' >"$tmp/try"
        chmod +x "$tmp/try"
        if "$tmp/try" 2>/dev/null; then
            rm "$tmp/try"
            mkdir "$tmp/work"
            # Not for reading, but apt's own user must be able to pass through.
            chmod 711 "$tmp" "$tmp/work"
            return 0
        fi
        rm -rf "$tmp"
    done
    tmp=
    die "No folder for temporary files lets programs run." "Set TMPDIR to one that does."
}
