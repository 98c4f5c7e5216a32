# shellcheck shell=sh
# Part of bootstrap.sh. What is said to the user: refusals, failures with their fix, one line for each step.

say() { printf '%s\n' "$@"; }
have() { command -v "$1" >/dev/null 2>&1; }

# refuse MESSAGE: wrong usage.
refuse() {
    printf 'bootstrap.sh: %s\nSee ./bootstrap.sh --help.\n' "$1" >&2
    exit 2
}

# die MESSAGE FIX [EXIT CODE]
die() {
    printf '\n%s\nFix: %s\n' "$1" "$2" >&2
    exit "${3:-1}"
}

# because REASON FIX: why the present step fails; shown once the step has ended.
because() {
    printf '%s\n' "$1" >"$tmp/reason"
    printf '%s\n' "$2" >"$tmp/fix"
    exit 1
}

stop_ticker() {
    [ -n "$ticker" ] || return 0
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    ticker=
    printf '\r\033[K'
}

tick() {
    while :; do
        printf '\r\033[K  %-10s%5d s   %s' "$1" $(($(date +%s) - $2)) "$3"
        sleep 1
    done
}

# await: waits for the background child and sets $code.
await() {
    code=0
    wait "$child" || code=$?
    child=
}

# step NAME DETAIL FUNCTION...: one line for what a function does; silent if it says by `did` nothing.
step() {
    step_name=$1
    began=$(date +%s)
    if [ -n "$tty" ]; then
        (exec 9>&- && tick "$1" "$began" "$2") &
        ticker=$!
    fi
    rm -f "$tmp/reason" "$tmp/fix" "$tmp/did"
    printf '== %s: %s\n' "$1" "$2" >>"$log"
    shift 2
    (exec 9>&- && "$@") >>"$log" 2>&1 </dev/null &
    child=$!
    await
    stop_ticker
    seconds=$(($(date +%s) - began))
    if [ "$code" -eq 0 ]; then
        [ ! -e "$tmp/did" ] || printf '%s %-10s%5d s   %s\n' "$good" "$step_name" "$seconds" "$(cat "$tmp/did")"
        return 0
    fi
    printf '%s %-10s%5d s\n' "$bad" "$step_name" "$seconds"
    explain_step
    exit 1
}

did() { printf '%s\n' "$1" >"$tmp/did"; }

# explain_step: the reason a step gave, or the end of what its programs said.
explain_step() {
    if [ -e "$tmp/reason" ]; then
        tell_failure "$(cat "$tmp/reason")" "$(cat "$tmp/fix")"
    elif tail -n 40 "$log" | grep -q 'No space left on device'; then
        tell_failure "The disk is full." "Free space (see df -h $install_dir ${TMPDIR:-/tmp}) and run it again."
    else
        tell_failure "$(tail -n 5 "$log")" "See the log, correct that, and run it again."
    fi
}

# tell_failure REASON FIX
tell_failure() {
    keep_log
    {
        printf '\n%s\n' "$1"
        printf 'Fix: %s\n' "${2:-See the log; then run ./bootstrap.sh again.}"
        printf 'Log: %s\n' "$log"
    } >&2
}

# keep_log: a log in the temporary folder outlives a failure only if it is moved.
keep_log() {
    case $log in "$tmp"/*) ;; *) return 0 ;; esac
    [ -z "$check" ] || { tail -n 20 "$log" >&2; log="none (--check leaves no file); the end of it stands above"; return 0; }
    # Others may write to that folder too, so the name must not be one that they know beforehand.
    kept=$(mktemp "${TMPDIR:-/tmp}/roost-$action-$(date -u +%Y%m%dT%H%M%SZ)-XXXXXX.log") || return 0
    if cp "$log" "$kept"; then log=$kept; fi
}

open_log() {
    log=$log_dir/bootstrap-$(date -u +%Y%m%dT%H%M%SZ).log
    (umask 077 && : >"$log")
    # The names sort by time.
    surplus=$(($(find "$log_dir" -name 'bootstrap-*.log' | wc -l) - 10))
    [ "$surplus" -le 0 ] || find "$log_dir" -name 'bootstrap-*.log' | sort | head -n "$surplus" | while read -r old; do
        rm -f "$old"
    done
}
