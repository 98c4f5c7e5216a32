#!/bin/sh
# Keeps one daemon running where no systemd does. See usage().
set -eu
umask 022

usage() {
    cat >&2 <<'TEXT'
Usage: roost-supervise start|stop|restart|reload|status|health NAME OPTIONS -- COMMAND [ARGUMENT...]

  --type daemon|oneshot   a daemon stays in the foreground and is started again whenever it ends
  --run-dir DIR           pidfiles: NAME.supervisor.pid and NAME.pid (PID, then its start time)
  --log FILE              output of the daemon; looked at every --log-pause seconds (60), and moved to FILE.1
                          when it is larger than --log-bytes (10000000)
  --require FILE          refuse to start while it is missing (may be repeated)
  --user USER, --open-files N, --oom-score-adjust N, --mount-cgroups yes, --stop-timeout SECONDS
  --stop-command WORDS    undoes a oneshot      --check-command WORDS   exits 0 while all is in order

Exit codes as in LSB: status 0 running, 1 dead but pidfile there, 3 stopped; others 0 done, 1 failed, 2 usage.
TEXT
    exit 2
}

note() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) roost-supervise: $*"; }
complain() { echo "$name: $*" >&2; }

# start_time PID: when the process began, in clock ticks since boot; nothing if there is none or it is a zombie.
start_time() {
    { read -r stat; } 2>/dev/null <"/proc/$1/stat" || return 1
    # The name in brackets may hold anything, so count from behind it.
    stat=${stat##*) }
    case $stat in Z* | X*) return 1 ;; esac
    echo "$stat" | cut -d ' ' -f 20
}

# alive PIDFILE: sets $pid if the process that wrote it lives; a PID given to another process since is not it.
# Without a start time it had ended before it was written down.
alive() {
    pid=
    began=
    { read -r pid && read -r began; } 2>/dev/null <"$1" || return 1
    [ -n "$began" ] && [ "$(start_time "$pid" || true)" = "$began" ]
}

# remember PIDFILE PID
remember() {
    printf '%s\n%s\n' "$2" "$(start_time "$2" || true)" >"$1.$$"
    mv "$1.$$" "$1"
}

check_required() {
    missing=
    while read -r file; do
        [ -z "$file" ] || [ -e "$file" ] || missing="$missing $file"
    done <<LIST
$required
LIST
    [ -z "$missing" ] || {
        complain "not started, missing:$missing. Fix: run ./bootstrap.sh again."
        return 1
    }
}

prepare_host() {
    mkdir -p "$run_dir" "$(dirname "$log")"
    # As far as this host allows; a container may not raise its own limit.
    [ -z "$open_files" ] || prlimit --pid "$$" --nofile="$open_files" 2>/dev/null || true
    if [ -n "$mount_cgroups" ] && ! mountpoint -q /sys/fs/cgroup; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup || complain "the cgroup file system could not be mounted."
    fi
}

# --- The supervisor itself: a process of its own that waits for the daemon -------------------------------

signal_child() {
    if alive "$child_file"; then kill -s "$1" "$pid" 2>/dev/null || true; fi
}

on_term() {
    stopping=yes
    signal_child TERM
    [ -z "$pause" ] || kill "$pause" 2>/dev/null || true
}

# keep_log_small: copies and empties the log; the daemon appends, so it goes on at the new end.
keep_log_small() {
    trap 'kill "$pause" 2>/dev/null; exit 0' TERM
    while start_time "$$" >/dev/null; do
        if [ "$(($(wc -c <"$log")))" -gt "$log_bytes" ]; then
            cp "$log" "$log.1" && : >"$log"
        fi
        nap "$log_pause"
    done
}

launch() {
    if [ -n "$oom" ]; then (echo "$oom" >"/proc/self/oom_score_adj") 2>/dev/null || true; fi
    if [ "$user" = root ] || [ "$user" = "$(id -un)" ]; then exec "$@"; fi
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- "$@"
}

# wait_for_child: ends when the daemon has ended, however often a signal comes in between.
wait_for_child() {
    if [ -n "$adopted" ]; then
        # Not our child, so it can only be looked at.
        while alive "$child_file"; do
            nap 1
        done
        code=unknown
        return 0
    fi
    code=0
    wait "$child" || code=$?
    while alive "$child_file"; do
        code=0
        wait "$child" || code=$?
    done
}

# nap SECONDS: sleeps, but a signal ends it at once.
nap() {
    sleep "$1" &
    pause=$!
    wait "$pause" 2>/dev/null || true
    pause=
}

supervise() {
    exec >>"$log" 2>&1
    stopping=
    pause=
    delay=1
    trap on_term TERM INT
    trap 'signal_child HUP' HUP
    remember "$super_file" "$$"
    # In subshells of their own: a function called with 3>&- would keep a copy of the descriptor.
    (exec 3>&- && keep_log_small) &
    keeper=$!
    while [ -z "$stopping" ]; do
        began_at=$(date +%s)
        if alive "$child_file"; then
            adopted=yes
            child=$pid
            note "takes over $name, process $child"
        else
            adopted=
            (exec 3>&- && launch "$@") &
            child=$!
            remember "$child_file" "$child"
            note "started $name, process $child"
        fi
        # Whoever called start waits for this line; closing the descriptor lets go of them.
        { echo started >&3; } 2>/dev/null || true
        exec 3>&-
        if [ -n "$stopping" ]; then signal_child TERM; fi
        wait_for_child
        rm -f "$child_file"
        [ -z "$stopping" ] || break
        [ $(($(date +%s) - began_at)) -lt 10 ] || delay=1
        note "$name ended with code $code; starting it again in $delay s"
        nap "$delay"
        delay=$((delay * 2))
        [ "$delay" -le 15 ] || delay=15
    done
    kill "$keeper" 2>/dev/null || true
    rm -f "$child_file" "$super_file"
    note "stopped $name"
}

# --- Verbs -----------------------------------------------------------------------------------------------

start_daemon() {
    if alive "$super_file"; then
        echo "$name: already running."
        return 0
    fi
    rm -f "$super_file"
    # The supervisor says on descriptor 3 that it started the daemon; if it dies first, the pipe just ends.
    answer=$(setsid "$0" supervise "$name" --run-dir "$run_dir" --log "$log" --log-bytes "$log_bytes" \
        --log-pause "$log_pause" --user "$user" --oom-score-adjust "$oom" -- "$@" \
        3>&1 >/dev/null 2>&1 </dev/null &)
    [ "$answer" = started ] || {
        complain "did not start. Its log: $log"
        return 1
    }
    echo "$name: started."
}

# gone PIDFILE SECONDS: waits until the process of the pidfile has ended.
gone() {
    left=$(($2 * 5))
    while alive "$1"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}

stop_daemon() {
    if alive "$super_file"; then
        kill -s TERM "$pid" 2>/dev/null || true
        gone "$super_file" "$stop_timeout" || {
            signal_child KILL
            gone "$super_file" 5 || true
        }
    fi
    # Without a supervisor the daemon may still be there.
    if alive "$child_file"; then
        kill -s TERM "$pid" 2>/dev/null || true
        gone "$child_file" "$stop_timeout" || signal_child KILL
    fi
    rm -f "$super_file" "$child_file"
    echo "$name: stopped."
}

status_daemon() {
    if alive "$super_file"; then
        super=$pid
        if alive "$child_file"; then
            echo "$name: running, process $pid, supervisor $super."
        else
            echo "$name: supervisor $super is about to start it again. Its log: $log"
        fi
        return 0
    fi
    if alive "$child_file"; then
        echo "$name: running, process $pid, but its supervisor is dead. Fix: start"
        return 1
    fi
    if [ -e "$super_file" ] || [ -e "$child_file" ]; then
        echo "$name: dead, its pidfile is still there. Fix: start"
        return 1
    fi
    echo "$name: stopped."
    return 3
}

run_words() {
    [ -n "$1" ] || return 0
    sh -c "exec $1"
}

verb_start() {
    check_required || return 1
    prepare_host
    command -v "$1" >/dev/null || {
        complain "not started, there is no program $1."
        return 1
    }
    if [ "$type" = oneshot ]; then
        "$@" || return 1
        : >"$done_file"
        echo "$name: in place."
    else
        start_daemon "$@"
    fi
}

verb_stop() {
    if [ "$type" = oneshot ]; then
        if verb_status >/dev/null; then run_words "$stop_command" || true; fi
        rm -f "$done_file"
        echo "$name: taken away."
    else
        stop_daemon
    fi
}

verb_status() {
    if [ "$type" = daemon ]; then
        status_daemon
    elif [ -n "$check_command" ]; then
        if run_words "$check_command" >/dev/null 2>&1; then echo "$name: in place."; else
            echo "$name: not in place."
            return 3
        fi
    elif [ -e "$done_file" ]; then
        echo "$name: in place."
    else
        echo "$name: not in place."
        return 3
    fi
}

verb_health() {
    verb_status && run_words "$check_command"
}

verb_reload() {
    if [ "$type" = oneshot ]; then
        verb_start "$@"
    elif alive "$super_file"; then
        kill -s HUP "$pid" 2>/dev/null || true
    else
        complain "is not running."
        return 1
    fi
}

main() {
    [ $# -ge 2 ] || usage
    verb=$1
    name=$2
    shift 2
    type=daemon
    run_dir=
    log=
    log_bytes=10000000
    log_pause=60
    required=
    user=root
    open_files=
    oom=
    mount_cgroups=
    stop_timeout=60
    stop_command=
    check_command=
    while [ $# -gt 1 ] && [ "$1" != -- ]; do
        case $1 in
        --type) type=$2 ;;
        --run-dir) run_dir=$2 ;;
        --log) log=$2 ;;
        --log-bytes) log_bytes=$2 ;;
        --log-pause) log_pause=$2 ;;
        --user) user=$2 ;;
        --open-files) open_files=$2 ;;
        --oom-score-adjust) oom=$2 ;;
        --mount-cgroups) mount_cgroups=$2 ;;
        --stop-timeout) stop_timeout=$2 ;;
        --stop-command) stop_command=$2 ;;
        --check-command) check_command=$2 ;;
        --require) required="$required
$2" ;;
        *) usage ;;
        esac
        shift 2
    done
    if [ $# -lt 2 ] || [ -z "$run_dir" ] || [ -z "$log" ]; then usage; fi
    shift
    super_file=$run_dir/$name.supervisor.pid
    child_file=$run_dir/$name.pid
    done_file=$run_dir/$name.done
    case $verb in
    start) verb_start "$@" ;;
    stop) verb_stop ;;
    restart | force-reload)
        check_required || return 1
        # What a oneshot put in place stays until the new is there, and if that fails.
        [ "$type" = oneshot ] || verb_stop
        verb_start "$@"
        ;;
    reload) verb_reload "$@" ;;
    status) verb_status ;;
    health) verb_health ;;
    supervise) supervise "$@" ;;
    *) usage ;;
    esac
}

main "$@"
