#!/bin/sh
# Turns this machine into a fleet of one that answers. `./bootstrap.sh --help` says how; README.md says more.
set -eu

usage() {
    cat <<'TEXT'
Usage: ./bootstrap.sh [OPTIONS]

Installs Roost on this machine, starts a model, and ends with an answer from it. Run it again at any time: it
changes only what is not as it should be. Needs root; without it, it asks sudo or doas.

  --check               say what a run would change, and change nothing
  --run-local           no containers: plain processes under Nomad (back: --set roost_runtime=docker)
  --listen ADDR[:PORT]  others on the network may use the API there, with TLS (back: --set api_listen_address=)
  --listen-cert FILE    certificate for it, in place of one by the fleet's own authority; with --listen-key FILE
  --offline DIR         fetch nothing; DIR was made by `roost bundle DIR` (back: --set roost_offline_dir=)
  --set NAME=VALUE      change a variable of group_vars/all.yaml and keep it; NAME= goes back to the default
  --upgrade             also renew packages and images; goes back by itself if the result does not answer (in a
                        fleet, the machine that does not)
  --renew-certs         make every certificate anew; those near their end are made anew by any run
  --inventory FILE      set up every machine of an Ansible inventory from here, over SSH; this machine gets the program
  --join SERVER         make this machine one of a fleet, with --token T from `sudo roost fleet token` on SERVER
  --remove NAME         take a machine of the inventory out of the fleet; with --purge-too its data go as well
  --program             install the program only, no services; what a fleet's controller does first on each machine
  --uninstall           remove Roost, keep models, data and secrets (/var/lib/roost, /etc/roost)
  --purge               remove Roost and all that came with it
  --yes                 do not ask
  --verbose             show every task, in a check with its differences
  --help                this text

Only what was absent before Roost came is ever removed: /var/lib/roost/manifest says what that is.

Environment: ROOST_CACHE_DIR (downloads and builds, default /var/cache/roost), ROOST_EXTRA_CA_BUNDLE (PEM file of a
proxy's CA, trusted while fetching; else SSL_CERT_FILE), ROOST_VAULT_PASSPHRASE_FILE (what opens secrets that
`roost security seal` sealed), HTTPS_PROXY and its like, PIP_INDEX_URL, NO_COLOR.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 this system is not supported, 130 interrupted.
TEXT
}

settings() {
    config_dir=/etc/roost
    state_dir=/var/lib/roost
    install_dir=/opt/roost
    log_dir=/var/log/roost
    link=/usr/local/bin/roost
    lock=/run/roost-bootstrap.lock
    manifest=$state_dir/manifest
    products="ansible ansible.cfg app bootstrap.sh group_vars host_vars images leave.yaml nomad playbook.yaml requirements uninstall.yaml"
    newest_python=14
    action=run
    chosen=
    check=
    upgrade=
    assume_yes=
    verbose=0
    tmp=
    locked=
    vault_file=
    unseen=
    child=
    ticker=
    log=
    python=
    tab=$(printf '\t')
    if [ -t 1 ]; then tty=yes; else tty=; fi
    good='✓'
    bad='✗'
    if [ -n "$tty" ] && [ -z "${NO_COLOR:-}" ]; then
        good=$(printf '\033[32m✓\033[0m')
        bad=$(printf '\033[31m✗\033[0m')
    fi
}

# --- Words to the user -----------------------------------------------------------------------------------

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

# --- Arguments -------------------------------------------------------------------------------------------

# want ACTION OPTION: one of run, program, join, remove, uninstall, purge.
want() {
    [ "$action" = run ] || [ "$action" = "$1" ] || refuse "$2 and --$action contradict each other."
    action=$1
}

# choose NAME VALUE: a variable to keep. The value is YAML.
choose() {
    case $2 in *"
"*) refuse "The value of $1 has more than one line. Write it into $config_dir/host.yaml." ;; esac
    chosen="$chosen$1=$2
"
}

# quoted TEXT: as a YAML string.
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"; }

absolute() {
    case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac
}

listen_on() {
    port=
    case $1 in
    \[*\]:*) port=${1##*:} address=${1%:*} ;;
    *:*:* | \[*\]) address=$1 ;;
    *:*) port=${1##*:} address=${1%:*} ;;
    *) address=$1 ;;
    esac
    address=${address#\[}
    address=${address%\]}
    case $address in
    *[!0-9a-fA-F.:]* | '') refuse "--listen needs an IP address of this machine, not '$1'." ;;
    esac
    choose api_listen_address "$(quoted "$address")"
    case $1 in *:) refuse "--listen '$1' has no port after the colon." ;; esac
    [ -n "$port" ] || return 0
    case $port in *[!0-9]*) refuse "The port in --listen '$1' is not a number." ;; esac
    if [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then refuse "The port in --listen '$1' is not within 1 to 65535."; fi
    choose api_listen_port "$port"
}

parse() {
    listen=
    cert=
    key=
    offline=
    inventory=
    leaving=
    joining=
    token=
    renew=
    purge_too=false
    runtime_set=
    run_local=
    while [ $# -gt 0 ]; do
        name=${1%%=*}
        value=
        given=
        case $1 in --*=*)
            value=${1#*=}
            given=yes
            ;;
        esac
        shift
        case $name in
        --listen | --listen-cert | --listen-key | --offline | --set | --inventory | --remove | --join | --token)
            if [ -z "$given" ] && [ $# -gt 0 ]; then
                value=$1
                shift
            fi
            case $value in '' | -*) refuse "$name needs a value." ;; esac
            ;;
        *) [ -z "$given" ] || refuse "$name takes no value." ;;
        esac
        case $name in
        -h | --help) action=help ;;
        --check) check=yes ;;
        --upgrade) upgrade=yes ;;
        --renew-certs) renew=yes ;;
        --yes) assume_yes=yes ;;
        --verbose) verbose=1 ;;
        --run-local) run_local=yes ;;
        --listen) listen=$value ;;
        --listen-cert) cert=$value ;;
        --listen-key) key=$value ;;
        --offline) offline=$value ;;
        --inventory) inventory=$value ;;
        --program) want program --program ;;
        --join)
            want join --join
            joining=$value
            ;;
        --token) token=$value ;;
        --remove)
            want remove --remove
            leaving=$value
            ;;
        --purge-too) purge_too=true ;;
        --uninstall) want uninstall --uninstall ;;
        --purge) want purge --purge ;;
        --set)
            case $value in *=*) ;; *) refuse "--set needs NAME=VALUE, not '$value'." ;; esac
            [ "${value%%=*}" != roost_runtime ] || runtime_set=yes
            choose "${value%%=*}" "${value#*=}"
            ;;
        -*) refuse "There is no option $name." ;;
        *) refuse "'$name' is not an option." ;;
        esac
        [ "$action" != help ] || return 0
    done
    combine
}

# combine: what contradicts, and what follows from the options together.
combine() {
    [ "$action" != join ] || [ -n "$token" ] || refuse "--join needs --token T; it is made on the server: sudo roost fleet token."
    [ "$action" = join ] || [ -z "$token" ] || refuse "--token goes with --join SERVER."
    if [ "$action" != run ] && [ -n "$check$upgrade$renew$run_local$listen$cert$key$offline$inventory$chosen" ]; then
        refuse "--$action goes with --yes and --verbose only."
    fi
    if [ -n "$inventory" ]; then
        [ -r "$inventory" ] || [ "$(id -u)" -ne 0 ] || refuse "The inventory $inventory cannot be read."
        [ -z "$run_local$listen$cert$key$offline" ] || refuse "What all machines of an inventory have stands in its variables, not in options."
        inventory=$(absolute "$inventory")
    fi
    [ -z "$run_local" ] || [ -z "$runtime_set" ] || refuse "--run-local and --set roost_runtime=... contradict each other."
    if [ -n "$cert$key" ]; then
        [ -n "$listen" ] || refuse "--listen-cert and --listen-key need --listen."
        if [ -z "$cert" ] || [ -z "$key" ]; then refuse "--listen-cert and --listen-key belong together."; fi
    fi
    [ -z "$run_local" ] || choose roost_runtime local
    if [ -n "$listen" ]; then
        listen_on "$listen"
        for file in "$cert" "$key"; do
            [ -z "$file" ] || [ -r "$file" ] || [ "$(id -u)" -ne 0 ] || refuse "$file cannot be read."
        done
        [ -z "$cert" ] || choose api_listen_cert "$(quoted "$(absolute "$cert")")"
        [ -z "$key" ] || choose api_listen_key "$(quoted "$(absolute "$key")")"
    fi
    [ -z "$offline" ] || choose roost_offline_dir "$(quoted "$(absolute "$offline")")"
    if [ -n "${ROOST_CACHE_DIR:-}" ]; then choose roost_cache_dir "$(quoted "$(absolute "$ROOST_CACHE_DIR")")"; fi
    if [ -n "${ROOST_EXTRA_CA_BUNDLE:-}" ]; then
        [ -r "$ROOST_EXTRA_CA_BUNDLE" ] || refuse "ROOST_EXTRA_CA_BUNDLE: $ROOST_EXTRA_CA_BUNDLE cannot be read."
        choose extra_ca_bundle "$(quoted "$(absolute "$ROOST_EXTRA_CA_BUNDLE")")"
    fi
}

# --- Root, lock, end -------------------------------------------------------------------------------------

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

# --- Display ---------------------------------------------------------------------------------------------

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

# --- Ownership manifest (see app/roost/ops/ownership.py) -------------------------------------------------

owned() {
    [ -e "$manifest" ] || return 0
    sed -n "s/^$1$tab//p" "$manifest"
}

# manifest_copy: a copy to change; a new one only where there is none at all.
manifest_copy() {
    if present "$manifest"; then
        cp "$manifest" "$manifest.new" || manifest_stays
    else
        : >"$manifest.new" || manifest_stays
    fi
}

manifest_stays() {
    rm -f "$manifest.new"
    die "$manifest, the record of what Roost brought, could not be written; it is as it was." \
        "Is the disk full or read-only (df -h $state_dir)? Correct that and run it again."
}

# own KIND NAME...: records things that are absent now.
own() {
    kind=$1
    shift
    manifest_copy
    for thing in "$@"; do
        grep -qxF "$kind$tab$thing" "$manifest.new" || printf '%s\t%s\n' "$kind" "$thing" >>"$manifest.new" || manifest_stays
    done
    mv "$manifest.new" "$manifest" || manifest_stays
}

present() { [ -e "$1" ] || [ -L "$1" ]; }

# make_folders: ours, and recorded as ours where they were absent.
make_folders() {
    absent=
    for folder in "$state_dir" "$install_dir" "$log_dir" "$cache_dir"; do
        present "$folder" || absent="$absent$folder
"
    done
    mkdir -p "$state_dir"
    while read -r folder; do
        [ -z "$folder" ] || own path "$folder"
    done <<LIST
$absent
LIST
    mkdir -p "$install_dir" "$log_dir" "$cache_dir"
    chmod 750 "$log_dir"
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

# --- Choices that are kept -------------------------------------------------------------------------------

# kept NAME: a simple value of host.yaml, before there is a Python to read it.
kept() {
    [ -r "$config_dir/host.yaml" ] || return 0
    sed -n "s/^$1: *//p" "$config_dir/host.yaml" | sed "s/^'\(.*\)'\$/\1/; s/^\"\(.*\)\"\$/\1/; s/''/'/g" | head -n 1
}

# chosen_value NAME: from this run's options, else as kept.
chosen_value() {
    if printf '%s' "$chosen" | grep -q "^$1="; then
        printf '%s' "$chosen" | sed -n "s/^$1=//p" | sed "s/^'\(.*\)'\$/\1/; s/''/'/g" | tail -n 1
    else
        kept "$1"
    fi
}

# find_inventory: the one named, else the one that was kept; a machine of another's fleet is not set up from here.
find_inventory() {
    if [ -z "$inventory" ] && [ -r "$config_dir/inventory.yaml" ]; then inventory=$config_dir/inventory.yaml; fi
    if [ -n "$inventory" ]; then
        [ -r "$inventory" ] || die "The inventory $inventory cannot be read." "Name the right file with --inventory FILE."
        have ssh || grep -q 'ansible_connection' "$inventory" || die "There is no ssh on this machine." "apt-get install openssh-client"
        return 0
    fi
    [ "$action" != remove ] || die "No inventory is kept here." "Run it on the machine that the fleet is set up from."
    [ -r "$config_dir/site.json" ] || return 0
    from=$(sed -n 's/^ *"fleet": "\(.*\)",*$/\1/p' "$config_dir/site.json")
    case $action in run) [ -z "$from" ] || die "This machine belongs to a fleet that is set up from $from." \
        "Run ./bootstrap.sh on $from; or leave the fleet first: roost fleet remove, there." ;; esac
}

# ask_passphrase: where the fleet's lasting secrets are sealed (app/roost/ops/sealed.py) a run needs what opens them.
ask_passphrase() {
    grep -q '^.ANSIBLE_VAULT;' "$config_dir/tls/ca-key.pem" "$config_dir/secrets/nomad-operator-token" 2>/dev/null || return 0
    if [ -z "${ROOST_VAULT_PASSPHRASE_FILE:-}${ROOST_VAULT_PASSPHRASE:-}" ]; then
        [ -t 0 ] || die "The fleet's secrets are sealed, and there is no passphrase." \
            "Name a file with it in ROOST_VAULT_PASSPHRASE_FILE, or run it at a terminal."
        printf 'Passphrase of the fleet'"'"'s secrets: '
        unseen=1 # Ctrl-C must not leave a terminal that shows nothing
        stty -echo
        read -r ROOST_VAULT_PASSPHRASE || true
        stty echo
        unseen=
        printf '\n'
        export ROOST_VAULT_PASSPHRASE
    fi
    vault_file=${ROOST_VAULT_PASSPHRASE_FILE:-}
    if [ -z "$vault_file" ]; then
        # Ansible runs it, and reads what it prints; the folder goes with this run.
        vault_file=$tmp/passphrase
        # shellcheck disable=SC2016 # expanded when it runs
        (umask 077 && printf '#!/bin/sh\nprintf "%%s\\n" "$ROOST_VAULT_PASSPHRASE"\n' >"$vault_file")
        chmod 700 "$vault_file"
    fi
    [ -r "$vault_file" ] || die "ROOST_VAULT_PASSPHRASE_FILE: $vault_file cannot be read." "Name the right file."
}

read_choices() {
    cache_dir=$(chosen_value roost_cache_dir)
    cache_dir=${cache_dir:-/var/cache/roost}
    offline=$(chosen_value roost_offline_dir)
    ca=$(chosen_value extra_ca_bundle)
    [ -n "$ca" ] || [ ! -r "${SSL_CERT_FILE:-}" ] || ca=$SSL_CERT_FILE
    if [ -n "$offline" ] && [ ! -r "$offline/bundle.json" ]; then
        die "The offline folder $offline is not there, or not one made by \`roost bundle\`." \
            "Name the right folder with --offline DIR, or go back to the network with --set roost_offline_dir="
    fi
    [ -z "$ca" ] || [ -r "$ca" ] || die "The CA file $ca cannot be read." \
        "Name another one with ROOST_EXTRA_CA_BUNDLE=FILE, or go without: --set extra_ca_bundle="
}

# merge_choices FOLDER PYTHON: works this run's choices into a copy of host.yaml.
merge_choices() {
    (umask 077 && printf '%s' "$chosen" >"$tmp/settings")
    code=0
    PYTHONPATH=$1/app PYTHONDONTWRITEBYTECODE=1 "$2" -P -m roost.ops.host_file --defaults "$1/group_vars/all.yaml" \
        --current "$config_dir/host.yaml" --settings "$tmp/settings" --out "$tmp/host.yaml" 2>"$tmp/said" || code=$?
    if [ "$code" -ne 0 ]; then
        rm -f "$tmp/host.yaml"
        printf '\n' >&2
        sed 's/ Fix: /\
Fix: /' "$tmp/said" >&2
        exit "$code"
    fi
    {
        printf 'roost_cache_dir: %s\n' "$(quoted "$cache_dir")"
        # Of a fleet each machine may have its own, in the inventory.
        if [ -z "$inventory" ] || [ -n "$ca" ]; then printf 'extra_ca_bundle: %s\n' "$(quoted "$ca")"; fi
    } >"$tmp/run.yaml"
}

# keep_choices: only once the playbook came as far as making the folder, that is after its first checks.
keep_choices() {
    if [ -n "$check" ] || [ "$action" != run ] || [ ! -d "$config_dir" ] || [ ! -s "$tmp/host.yaml" ]; then return 0; fi
    if ! cmp -s "$tmp/host.yaml" "$config_dir/host.yaml"; then
        cp "$tmp/host.yaml" "$config_dir/.host.yaml.new"
        chmod 600 "$config_dir/.host.yaml.new"
        mv "$config_dir/.host.yaml.new" "$config_dir/host.yaml"
    fi
    if [ -n "$inventory" ] && ! cmp -s "$inventory" "$config_dir/inventory.yaml"; then
        (umask 077 && cp "$inventory" "$config_dir/.inventory.new")
        mv "$config_dir/.inventory.new" "$config_dir/inventory.yaml"
    fi
    # Variables of groups and machines may lie beside the inventory: later runs name the copy.
    from=${inventory%/*}
    [ -n "$inventory" ] && [ "$from" != "$config_dir" ] || return 0
    for folder in group_vars host_vars; do
        rm -rf "${config_dir:?}/$folder"
        [ ! -d "$from/$folder" ] || [ "$from" = "$source_dir" ] || (umask 077 && cp -R "$from/$folder" "$config_dir/")
    done
}

# --- Python ----------------------------------------------------------------------------------------------

# usable PYTHON: 3.11 or newer with venv and ensurepip, and others may run it too: jobs without containers do.
usable() {
    "$1" -I -c "
import os, sys, venv, ensurepip
path = os.path.realpath(sys.executable)
good = (3, 11) <= sys.version_info < (3, $newest_python + 1)
while good and path != '/':
    good = bool(os.stat(path).st_mode & 1)
    path = os.path.dirname(path)
sys.exit(not good)" >/dev/null 2>&1
}

# find_python: sets $python. The system's own comes first: it stays when users and their tools go.
find_python() {
    version=$newest_python
    names=python3
    while [ "$version" -ge 11 ]; do
        names="$names python3.$version"
        version=$((version - 1))
    done
    for folder in /usr/bin /usr/local/bin ''; do
        for name in $names; do
            python=$(PATH=${folder:-$PATH} command -v "$name") || continue
            if usable "$python"; then return 0; fi
        done
    done
    python=
    return 1
}

need_debian() {
    if have apt-get && have dpkg; then return 0; fi
    for pair in dnf:Fedora apk:Alpine pkg:FreeBSD zypper:openSUSE pacman:Arch; do
        have "${pair%%:*}" || continue
        die "This machine installs packages with ${pair%%:*} (${pair##*:}). Roost sets up Debian 12 and newer for now; \
nothing was changed." "Use a Debian 12 machine or virtual machine." 3
    done
    die "No package manager known to Roost is here; it sets up Debian 12 and newer for now. Nothing was changed." \
        "Use a Debian 12 machine or virtual machine." 3
}

apt_get() {
    if [ -n "$ca" ]; then set -- -o "Acquire::https::CAInfo=$ca" "$@"; fi
    if [ -n "$offline" ]; then set -- -o "Dir::Etc::SourceList=$tmp/debs/sources.list" -o "Dir::Etc::SourceParts=$tmp/debs/none" \
        -o "Dir::State::Lists=$tmp/debs/lists/" -o "Dir::Cache=$tmp/debs/cache" -o APT::Sandbox::User=root "$@"; fi
    LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 "$@"
}

# listed_sha256 NAME: of a bundle's file, as `roost bundle` writes it down, a line each for name and hash.
listed_sha256() {
    grep -A 2 -F "\"$1\": {" "$offline/bundle.json" | sed -n 's/^ *"sha256": "\([0-9a-f]\{64\}\)".*/\1/p' | head -n 1
}

# offline_packages: makes a package source of the offline folder's files, once each is as bundle.json says.
offline_packages() {
    damaged="Copy the offline folder again; it was damaged or changed on its way. Or make it again with \`roost bundle\`."
    mkdir -p "$tmp/debs/files" "$tmp/debs/none" "$tmp/debs/lists/partial" "$tmp/debs/cache/archives/partial"
    sed -n 's|^ *"\(debs/host/[^"]*\.deb\)": {$|\1|p' "$offline/bundle.json" >"$tmp/debs/listed"
    while read -r name; do
        [ -f "$offline/$name" ] || because "$offline/$name is listed in bundle.json but missing." "$damaged"
    done <"$tmp/debs/listed"
    for deb in "$offline"/debs/host/*.deb; do
        [ -e "$deb" ] || because "$offline holds no packages for this machine." "Make it again with \`roost bundle\`."
        sha256=$(listed_sha256 "debs/host/${deb##*/}")
        [ -n "$sha256" ] || because "$deb is not listed in bundle.json." "$damaged"
        [ "$(sha256sum <"$deb" | cut -d ' ' -f 1)" = "$sha256" ] || because "$deb has the wrong checksum." "$damaged"
        ln -s "$deb" "$tmp/debs/files/"
        dpkg-deb --field "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(($(wc -c <"$deb")))" "$sha256"
    done >"$tmp/debs/files/Packages"
    printf 'deb [trusted=yes] copy:%s ./\n' "$tmp/debs/files" >"$tmp/debs/sources.list"
    apt_get update
}

# new_packages: reads what apt simulates, prints what would be newly installed.
new_packages() { sed -n 's/^Inst \([^ ]*\) (.*/\1/p'; }

# apt_python [OPTION]
apt_python() { apt_get "$@" install --no-install-recommends python3 python3-venv; }

install_python() {
    network="Check the network and its proxy settings, or use --offline DIR."
    [ -z "$(dpkg --audit)" ] || DEBIAN_FRONTEND=noninteractive dpkg --configure -a --force-confdef --force-confold
    if [ -n "$offline" ]; then offline_packages; fi
    if ! apt_python -s >"$tmp/plan"; then
        apt_get update || because "The package lists could not be fetched: $(tail -n 3 "$log")" "$network"
        apt_python -s >"$tmp/plan" || because "apt cannot install python3: $(tail -n 3 "$log")" \
            "Check the sources in /etc/apt and the network, or use --offline DIR."
    fi
    ! grep -q '^Remv' "$tmp/plan" || because "Installing python3-venv would remove other packages." \
        "Install python3 and python3-venv by hand, then run it again."
    while read -r name; do own python-package "$name"; done <<LIST
$(new_packages <"$tmp/plan")
LIST
    # The lists may be older than what the mirror still has.
    apt_python || { apt_get update && apt_python; } ||
        because "python3 and python3-venv could not be fetched or installed: $(tail -n 3 "$log")" "$network"
    did "installed with apt"
}

ensure_python() {
    if find_python; then return 0; fi
    step python "installing with apt" install_python
    find_python || die "This system has no Python 3.11 to 3.$newest_python with venv, and its packages bring none." \
        "Use Debian 12 or newer, or install Python 3.11."
}

# --- The program: a venv and a copy of this folder -------------------------------------------------------

venv_key() {
    { cat "$source_dir/requirements/roost.txt" && "$python" -VV && readlink -f "$python"; } | sha256sum | cut -c 1-16
}

# make_venv FOLDER CACHE: FOLDER gets the stamp .complete once everything is in it.
make_venv() {
    rm -rf "$1"
    mkdir -p "$(dirname "$1")" "$2"
    "$python" -m venv "$1" || because "$python could not make a venv: $(tail -n 3 "$log")" \
        "Is the disk full (df -h $install_dir)? Is python3-venv whole? Then run it again."
    if [ -n "$offline" ]; then
        pip_install "$1" "$offline/wheels" || because "The offline folder $offline lacks Python packages for $("$python" -V)." \
            "Make it again: roost bundle --python $("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') DIR"
    elif ! pip_install "$1" "$2"; then
        # What is fetched appears in the cache whole: other runs may read it at the same time.
        fetched=$(mktemp -d "$2/.partial-XXXXXX")
        code=0
        fetch_wheels "$1" "$fetched" && pip_install "$1" "$fetched" || code=$?
        find "$fetched" -name '*.whl' -exec mv -f {} "$2/" ';'
        rm -rf "$fetched"
        [ "$code" -eq 0 ] || blame_pip
    fi
    : >"$1/.complete"
}

run_pip() {
    where=$1
    verb=$2
    shift 2
    env -u PYTHONPATH -u PYTHONHOME "$where/bin/python" -m pip --disable-pip-version-check --no-input "$verb" --quiet \
        --require-hashes --only-binary :all: --requirement "$source_dir/requirements/roost.txt" "$@"
}

pip_install() {
    PIP_FIND_LINKS='' run_pip "$1" install --no-index --find-links "$2" --no-deps
}

fetch_wheels() {
    if [ -n "$ca" ]; then
        cat "$1"/lib/python3.*/site-packages/pip/_vendor/certifi/cacert.pem "$ca" >"$tmp/pip-ca.pem"
        PIP_CERT=$tmp/pip-ca.pem
        export PIP_CERT
    fi
    run_pip "$1" download --no-cache-dir --no-deps --dest "$2"
}

blame_pip() {
    said=$(tail -n 12 "$log" | grep -v '^$' | tail -n 3)
    case $said in
    *CERTIFICATE_VERIFY_FAILED* | *SSLError*) because "The Python package index's certificate is not trusted: $said" \
        "Behind a proxy with a CA of its own: ROOST_EXTRA_CA_BUNDLE=FILE ./bootstrap.sh" ;;
    *'DO NOT MATCH THE HASHES'*) because "A Python package is not the one that was locked: $said" \
        "Check the package index or mirror pip uses." ;;
    *'No space left'*) because "The disk is full." "Free space (df -h $install_dir $cache_dir) and run it again." ;;
    *) because "Python packages could not be fetched: $said" \
        "Check the network and pip's settings (PIP_INDEX_URL, proxy), or use --offline DIR." ;;
    esac
}

# product_files: the files that make a release, relative to the source folder.
product_files() {
    for name in $products; do [ ! -e "$name" ] || printf '%s\n' "$name"; done | while read -r name; do
        find "$name" -type f ! -path '*/__pycache__/*' ! -name '*.pyc' ! -path '*/.*'
    done | LC_ALL=C sort
}

release_id() {
    (
        cd "$source_dir"
        product_files | while read -r file; do
            [ ! -x "$file" ] || printf 'x '
            sha256sum "$file"
        done | sha256sum | cut -c 1-16
    )
}

# copy_release: a release appears whole or not at all.
copy_release() {
    mkdir -p "$install_dir/releases"
    new=$install_dir/releases/.new-$$
    rm -rf "$install_dir"/releases/.new-*
    mkdir -p "$new/bin"
    (cd "$source_dir" && product_files >"$tmp/files" && tar -cf - -T "$tmp/files") >"$tmp/release.tar"
    tar -C "$new" --no-same-owner --no-same-permissions -xf "$tmp/release.tar"
    rm -f "$tmp/release.tar"
    cat >"$new/bin/roost" <<WRAPPER
#!/bin/sh
PYTHONPATH=$release/app exec $venv/bin/python -P -m roost "\$@"
WRAPPER
    chmod -R go-w,a+rX "$new"
    chmod 755 "$new/bin/roost"
    mv "$new" "$release"
}

install_program() {
    if [ ! -e "$venv/.complete" ]; then
        make_venv "$venv" "$cache_dir/wheels"
        did "Python packages"
    fi
    if [ ! -d "$release" ]; then
        copy_release
        did "release $(basename "$release")"
    fi
}

# switch_to RELEASE: what `roost` means from now on; the one before stays as `previous`.
switch_to() {
    before=$(readlink "$install_dir/current" || true)
    if [ "$before" != "releases/$(basename "$1")" ]; then
        [ -z "$before" ] || point "$install_dir/previous" "$before"
        point "$install_dir/current" "releases/$(basename "$1")"
    fi
    if ! present "$link"; then
        own path "$link"
        mkdir -p "$(dirname "$link")"
        point "$link" "$install_dir/current/bin/roost"
    elif [ "$(readlink "$link" || true)" != "$install_dir/current/bin/roost" ]; then
        say "Note: $link is not ours and stays; the command is $install_dir/current/bin/roost."
    fi
}

# point LINK TARGET: in one step.
point() {
    ln -s "$2" "$1.new"
    mv -T "$1.new" "$1"
}

# prune: keeps the current and the previous release, and the venvs they use.
prune() {
    for old in "$install_dir"/releases/*; do
        [ "$(readlink -f "$install_dir/current")" != "$old" ] || continue
        [ "$(readlink -f "$install_dir/previous" || true)" != "$old" ] || continue
        rm -rf "$old"
    done
    for old in "$install_dir"/venvs/*; do
        grep -qF "$old/bin/python" "$install_dir"/releases/*/bin/roost || rm -rf "$old"
    done
}

# venv_of RELEASE
venv_of() { sed -n 's/.* exec \(.*\)\/bin\/python .*/\1/p' "$1/bin/roost"; }

# --- The playbook ----------------------------------------------------------------------------------------

# play FOLDER VENV PLAYBOOK ARGUMENT...: sets $code; what happened is in $tmp/summary.json.
play() {
    folder=$1
    from=$2
    book=$3
    shift 3
    rm -f "$tmp/summary.json"
    set -- -e "@$tmp/run.yaml" "$@"
    [ -z "$inventory" ] || set -- -i "$inventory" "$@"
    [ ! -s "$tmp/host.yaml" ] || set -- -e "@$tmp/host.yaml" "$@"
    (
        cd "$folder"
        for name in $(env | sed -n 's/^\(ANSIBLE_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
        ANSIBLE_CONFIG=$folder/ansible.cfg
        ANSIBLE_STDOUT_CALLBACK=roost_progress
        ANSIBLE_HOME=$tmp/ansible
        ANSIBLE_LOCAL_TEMP=$tmp/ansible/local
        ANSIBLE_REMOTE_TEMP=$tmp/ansible/remote
        ANSIBLE_LOCALHOST_WARNING=false
        PYTHONPATH=$folder/app
        PATH=$from/bin:$PATH
        LC_ALL=C.UTF-8
        ROOST_LOG=$log
        ROOST_SUMMARY=$tmp/summary.json
        ROOST_VERBOSE=$verbose
        ROOST_FLEET=$inventory
        export ANSIBLE_CONFIG ANSIBLE_STDOUT_CALLBACK ANSIBLE_HOME ANSIBLE_LOCAL_TEMP ANSIBLE_REMOTE_TEMP \
            ANSIBLE_LOCALHOST_WARNING PYTHONPATH PATH LC_ALL ROOST_LOG ROOST_SUMMARY ROOST_VERBOSE ROOST_FLEET
        if [ -n "$vault_file" ]; then
            ANSIBLE_VAULT_PASSWORD_FILE=$vault_file
            export ANSIBLE_VAULT_PASSWORD_FILE
        fi
        if [ -n "$check" ] || [ "$folder" = "$source_dir" ]; then export PYTHONDONTWRITEBYTECODE=1; fi
        # Whatever a module leaves when it is interrupted lies in a folder that goes with this run.
        exec env TMPDIR="$tmp/work" "$from/bin/python" -P "$from/bin/ansible-playbook" "$@" "$book"
    ) 2>>"$log" </dev/null &
    child=$!
    await
    # Ansible's own word for an interrupt, where this shell was started deaf to it.
    [ "$code" -ne 99 ] || interrupted 130
}

# report WHAT FILE [FILE]: the screen that roost.ops.outcome makes.
report() {
    PYTHONPATH=$shown_folder/app PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 "$shown_venv/bin/python" -P -m roost.ops.outcome "$@"
}

# lines TEXT: roost.ops.outcome separates the lines of a reason by 0x1F.
lines() { printf '%s' "$1" | tr '\037' '\n'; }

# explain_play: what the playbook's callback noted, or the end of the log if it did not come that far.
explain_play() {
    line=
    [ ! -s "$tmp/summary.json" ] || line=$(report failure "$tmp/summary.json" 2>>"$log") || line=
    if [ -n "$line" ]; then
        rest=${line#*"$tab"}
        tell_failure "$(lines "${rest%%"$tab"*}")" "$(lines "${rest#*"$tab"}")"
    else
        tell_failure "The playbook ended early: $(tail -n 5 "$log")" "See the log, correct that, and run it again."
    fi
}

# --- What the options ask for ----------------------------------------------------------------------------

run_playbook() {
    make_folders
    open_log
    ensure_python
    venv=$install_dir/venvs/$(venv_key)
    release=$install_dir/releases/$(release_id)
    step program "unpacking" install_program
    shown_folder=$release
    shown_venv=$venv
    merge_choices "$release" "$venv/bin/python"
    [ -z "$upgrade" ] || remember_present
    [ -z "$upgrade" ] || printf 'roost_images_update: true\n' >>"$tmp/run.yaml"
    [ -z "$renew" ] || printf 'roost_renew_certificates: true\n' >>"$tmp/run.yaml"
    play "$release" "$venv" playbook.yaml
    if [ "$code" -ne 0 ]; then
        explain_play
        # In a fleet the machine that failed was put back already, and those before it are done: it is gone on with.
        if [ -n "$upgrade" ] && [ -z "$inventory" ]; then
            go_back
        elif [ -d "$config_dir" ] && ! present "$install_dir/current"; then
            switch_to "$release" # so that `roost doctor` can look for the reason
        fi
        exit 1
    fi
    switch_to "$release"
    prune
    if [ -n "$inventory" ]; then
        say "" "The fleet is set up and answers. See it with: sudo roost fleet status"
    else
        report final "$state_dir/last-verify.json"
    fi
}

# bring_program: the program without anything set up by it; sets $venv and $release.
bring_program() {
    make_folders
    open_log
    ensure_python
    venv=$install_dir/venvs/$(venv_key)
    release=$install_dir/releases/$(release_id)
    step program "unpacking" install_program
    switch_to "$release"
    prune
}

# join_fleet: the program, and then its own word with the server; what is set up is set up from there.
join_fleet() {
    bring_program
    # The server runs this script here too.
    rm -f "$lock"
    exec 9>&-
    locked=
    code=0
    (ROOST_JOIN_TOKEN=$token && export ROOST_JOIN_TOKEN && exec "$release/bin/roost" fleet join "$joining") || code=$?
    exit "$code"
}

# program_only: for the controller of a fleet, which reads the last line: the release and its Python.
program_only() {
    bring_program
    say "$release $venv/bin/python"
}

# remember_present: what an upgrade goes back to.
remember_present() {
    old_release=$(readlink -f "$install_dir/current" || true)
    for file in "$config_dir/host.yaml" "$state_dir/artifacts/resolved.json"; do
        [ ! -e "$file" ] || cp -p "$file" "$tmp/old-$(basename "$file")"
    done
}

# go_back: after a failed upgrade, runs the playbook of the release that was current.
go_back() {
    if [ -z "$old_release" ] || [ ! -e "$old_release/playbook.yaml" ]; then return 0; fi
    say "" "The upgrade failed; going back to release $(basename "$old_release")."
    rm -f "$tmp/host.yaml"
    [ ! -e "$tmp/old-host.yaml" ] || cp "$tmp/old-host.yaml" "$tmp/host.yaml"
    [ ! -e "$tmp/old-resolved.json" ] || cp -p "$tmp/old-resolved.json" "$state_dir/artifacts/resolved.json"
    sed '/^roost_images_update:/d' "$tmp/run.yaml" >"$tmp/run.yaml.new"
    mv "$tmp/run.yaml.new" "$tmp/run.yaml"
    play "$old_release" "$(venv_of "$old_release")" playbook.yaml
    if [ "$code" -eq 0 ]; then
        say "" "Roost runs as before the upgrade. The reason for its failure stands above." >&2
    else
        explain_play
    fi
}

run_check() {
    log=$tmp/bootstrap.log
    (umask 077 && : >"$log")
    : >"$tmp/also"
    if ! find_python; then
        check_without_python
        return 0
    fi
    release=$install_dir/releases/$(release_id)
    venv=$install_dir/venvs/$(venv_key)
    if [ ! -e "$venv/.complete" ]; then
        printf 'program: Install Python packages\n' >>"$tmp/also"
        venv=$tmp/venv
        [ ! -d "$cache_dir/wheels" ] || {
            mkdir "$tmp/wheels"
            find "$cache_dir/wheels" -name '*.whl' -exec ln -s {} "$tmp/wheels/" ';'
        }
        step program "making a temporary venv" make_venv "$tmp/venv" "$tmp/wheels"
    fi
    [ -d "$release" ] || printf 'program: Install release %s\n' "$(basename "$release")" >>"$tmp/also"
    shown_folder=$source_dir
    shown_venv=$venv
    merge_choices "$source_dir" "$venv/bin/python"
    [ ! -s "$tmp/host.yaml" ] || cmp -s "$tmp/host.yaml" "$config_dir/host.yaml" ||
        printf 'choices: Write %s\n' "$config_dir/host.yaml" >>"$tmp/also"
    [ -z "$upgrade" ] || printf 'roost_images_update: true\n' >>"$tmp/run.yaml"
    [ -z "$renew" ] || printf 'roost_renew_certificates: true\n' >>"$tmp/run.yaml"
    printf 'roost_installed_dir: %s\n' "$release" >>"$tmp/run.yaml"
    play "$source_dir" "$venv" playbook.yaml --check --diff
    if [ "$code" -ne 0 ]; then
        explain_play
        exit 1
    fi
    report check "$tmp/summary.json" "$tmp/also"
}

# check_without_python: what a shell can say before there is a Python, and what it cannot.
check_without_python() {
    say "This machine has no Python 3.11 to 3.$newest_python with venv, so this is only the first part of a check." ""
    say "Would be installed first, with apt:"
    if apt_python -s >"$tmp/plan" 2>>"$log"; then
        new_packages <"$tmp/plan" | sed 's/^/  /'
    else
        say "  python3, python3-venv, and what they need (apt's lists are missing or old; a run fetches them)"
    fi
    say "Then, from Python's package index or the offline folder:" "  $(grep -c '^[a-z]' "$source_dir/requirements/roost.txt") packages of requirements/roost.txt, into $install_dir"
    say "" "This machine:"
    say "  system      $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release 2>/dev/null), $(uname -m)"
    say "  memory      $(($(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo) / 1024)) MiB available"
    say "  disk        $(($(df -Pk /var | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\).*/\1/p') / 1024)) MiB free below /var"
    say "" "Not checked without Python: ports, cgroups, registries, Docker, Nomad, images, models and jobs; what they"
    say "would change is known once Python is there. Nothing was changed."
}

# --- Taking it away --------------------------------------------------------------------------------------

confirm() {
    [ -z "$assume_yes" ] || return 0
    [ -t 0 ] || refuse "--$action asks before it removes anything; without a terminal it needs --yes."
    case $action in
    uninstall) say "This removes Roost. Models, data and secrets stay in $state_dir and $config_dir." ;;
    purge) say "This removes Roost, its models, data and secrets, and every package and user it brought." ;;
    esac
    printf 'Go on? [y/N] '
    read -r answer || answer=
    case $answer in y | Y | yes) ;; *)
        say "Nothing was changed."
        exit 0
        ;;
    esac
}

# with_installed: sets $folder and $venv to the installed release, for a playbook of it.
with_installed() {
    folder=$install_dir/current
    [ -e "$folder/bin/roost" ] || die "Roost is not installed here." "Run it on the machine that the fleet is set up from."
    venv=$(venv_of "$folder")
    shown_folder=$folder
    shown_venv=$venv
}

# leave NAMES: these machines of the inventory give up their work and are no longer of the fleet; sets $code.
leave() {
    [ ! -e "$config_dir/host.yaml" ] || cp "$config_dir/host.yaml" "$tmp/host.yaml"
    {
        printf 'roost_cache_dir: %s\n' "$(quoted "$cache_dir")"
        printf 'fleet_leaving: %s\n' "$(quoted "$1")"
        printf 'roost_purge: %s\n' "$2"
    } >"$tmp/run.yaml"
    play "$folder" "$venv" leave.yaml
}

remove_machine() {
    make_folders
    open_log
    with_installed
    leave "$leaving" "$purge_too"
    rm -f "$tmp/host.yaml"
    [ "$code" -eq 0 ] || {
        explain_play
        exit 1
    }
}

# undo_others: the other machines of a fleet that is set up from here go first, while this one still reaches them.
undo_others() {
    inventory=$config_dir/inventory.yaml
    if [ ! -r "$inventory" ] || [ ! -e "$install_dir/current/bin/roost" ]; then
        inventory=
        return 0
    fi
    with_installed
    ask_passphrase
    leave 'fleet[1:]' "$([ "$action" = purge ] && echo true || echo false)"
    [ "$code" -eq 0 ] || explain_play
    [ "$code" -eq 0 ] || say "" "Going on with this machine."
    inventory=
}

remove_roost() {
    if ! present "$manifest" && ! present "$install_dir" && ! present "$config_dir"; then
        say "There is no Roost on this machine."
        return 0
    fi
    confirm
    log=$tmp/bootstrap.log
    (umask 077 && : >"$log")
    undo_others
    undo_playbook
    step cleanup "removing services, users, packages and files" sweep
    say "" "Roost is removed."
    [ "$action" = purge ] || say "Models and data: $state_dir. Secrets and choices: $config_dir. ./bootstrap.sh brings it back, --purge removes them."
    if [ -s "$tmp/kept" ]; then
        say "" "These stay, because something that is not ours needs them now:"
        sed 's/^/  /' "$tmp/kept"
    fi
}

# undo_playbook: with the installed release if it is whole, else with this folder and a venv made for it.
undo_playbook() {
    purge=false
    [ "$action" != purge ] || purge=true
    folder=$install_dir/current
    [ -e "$folder/uninstall.yaml" ] || folder=$source_dir
    venv=
    [ ! -e "$folder/bin/roost" ] || venv=$(venv_of "$folder")
    if [ ! -e "$venv/.complete" ] || ! "$venv/bin/python" -c 'import ansible, pydantic' 2>>"$log"; then
        if ! find_python; then
            say "There is no Python left to run the playbook with; going on without it."
            return 0
        fi
        venv=$tmp/venv
        if ! (make_venv "$venv" "$tmp/wheels") >>"$log" 2>&1; then
            say "The playbook's Python packages cannot be had ($(cat "$tmp/reason" 2>/dev/null)); going on without it."
            return 0
        fi
    fi
    shown_folder=$folder
    shown_venv=$venv
    [ ! -e "$config_dir/host.yaml" ] || cp "$config_dir/host.yaml" "$tmp/host.yaml"
    {
        printf 'roost_cache_dir: %s\n' "$(quoted "$cache_dir")"
        printf 'extra_ca_bundle: %s\n' "$(quoted "$ca")"
        printf 'roost_purge: %s\n' "$purge"
    } >"$tmp/run.yaml"
    play "$folder" "$venv" uninstall.yaml
    if [ "$code" -ne 0 ]; then
        explain_play
        say "" "Going on without the playbook."
    fi
}

# sweep: all that is left, guided by the manifest alone. Works on a half-made machine, and again and again.
sweep() {
    : >"$tmp/kept"
    sweep_units
    if have nft; then nft delete table inet roost 2>/dev/null || true; fi
    sweep_processes
    sweep_containers
    sed -n "s|^[^ ]* \($state_dir/nomad/[^ ]*\) .*|\1|p" /proc/mounts | sort -r | while read -r mount; do
        umount "$mount" || umount -l "$mount" || true
    done
    sweep_packages package
    owned user | while read -r user; do ! getent passwd "$user" >/dev/null || userdel "$user"; done
    owned group | while read -r group; do ! getent group "$group" >/dev/null || groupdel "$group"; done
    sweep_paths
    sweep_access
    sweep_packages python-package
    if [ "$action" = purge ]; then
        rm -f "$manifest"
        [ ! -s "$tmp/own-state" ] || rm -rf "$state_dir"
    else
        forget_absent
    fi
    did "done"
}

# sweep_access: the fleet's key may no longer log in here (see app/roost/fleet/join/ssh.py).
sweep_access() {
    keys=/root/.ssh/authorized_keys
    grep -q ' roost-fleet$' "$keys" 2>/dev/null || return 0
    sed -i '/ roost-fleet$/d' "$keys"
    if [ ! -s "$keys" ]; then rm -f "$keys" && { rmdir "${keys%/*}" 2>/dev/null || true; }; fi
}

sweep_units() {
    owned unit | while read -r unit; do
        if [ -d /run/systemd/system ]; then systemctl disable --now "$unit.service" || true; fi
        if [ -x "/etc/init.d/$unit" ]; then "/etc/init.d/$unit" stop || true; fi
        if [ -e "/etc/init.d/$unit" ]; then
            rm -f "/etc/init.d/$unit"
            ! have update-rc.d || update-rc.d "$unit" remove || true
        fi
        rm -f "/etc/systemd/system/$unit.service"
    done
    if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
    rm -rf "$state_dir/services"
}

# sweep_processes: whatever runs from our folders or as our users; five seconds to end by themselves, then the hard way.
sweep_processes() {
    users=" $(owned user | while read -r user; do id -u "$user" 2>/dev/null || true; done | tr '\n' ' ')"
    for signal in TERM KILL; do
        family=
        for process in /proc/[0-9]*; do
            program=$(readlink "$process/exe" 2>/dev/null) || continue
            uid=$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "$process/status" 2>/dev/null)
            case $program in
            "$install_dir"/* | "$state_dir"/*) ;;
            *) case $users in *" ${uid:-none} "*) ;; *) continue ;; esac ;;
            esac
            family="$family ${process##*/}"
            echo "ending process ${process##*/} ($program)"
            kill -s "$signal" "${process##*/}" 2>/dev/null || true
        done
        [ -n "$family" ] || return 0
        await_end || true
    done
}

sweep_containers() {
    if ! have docker || ! docker version >/dev/null 2>&1; then return 0; fi
    # An image that somebody built from ours inherits the label: ours are those with our names too.
    docker images --no-trunc --filter label=org.roost.image --filter 'reference=roost/*' \
        --format '{{.Repository}}:{{.Tag}} {{.ID}}' >"$tmp/images" || return 0
    docker ps --all --quiet --filter label=org.roost.image | while read -r id; do
        image=$(docker inspect --format '{{.Image}}' "$id") || continue
        ! grep -q " $image\$" "$tmp/images" || docker rm --force "$id" || true
    done
    while read -r name _; do docker rmi "$name" || true; done <"$tmp/images"
}

# installed PACKAGE
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# sweep_packages KIND: those of ours that nothing else needs.
sweep_packages() {
    have dpkg-query || return 0
    owned "$1" >"$tmp/ours"
    set --
    while read -r name; do
        if [ -n "$name" ] && installed "$name"; then set -- "$@" "$name"; fi
    done <"$tmp/ours"
    [ $# -gt 0 ] || return 0
    sort "$tmp/ours" >"$tmp/wanted"
    if ! harmless "$@"; then
        # Without those that somebody else's packages need.
        all=$*
        set --
        for name in $all; do
            if harmless "$name"; then set -- "$@" "$name"; else echo "$name" >>"$tmp/kept"; fi
        done
        [ $# -gt 0 ] || return 0
        if ! harmless "$@"; then
            printf '%s\n' "$@" >>"$tmp/kept"
            return 0
        fi
    fi
    apt_get --allow-change-held-packages purge "$@"
}

# harmless PACKAGE...: removing them takes nothing along that is not ours ($tmp/wanted).
harmless() {
    apt_get -s --allow-change-held-packages purge "$@" >"$tmp/plan" || return 1
    sed -n 's/^\(Purg\|Remv\) \([^ ]*\) .*/\2/p' "$tmp/plan" | sort >"$tmp/going"
    [ -z "$(comm -13 "$tmp/wanted" "$tmp/going")" ]
}

sweep_paths() {
    : >"$tmp/own-state"
    owned path | sort -r | while read -r path; do
        case $path in
        */../* | */.. | / | /*/ | [!/]*) continue ;;
        "$state_dir") [ "$action" != purge ] || echo yes >"$tmp/own-state" ;;
        "$state_dir"/* | "$config_dir" | "$config_dir"/*) [ "$action" != purge ] || rm -rf "$path" ;;
        */ansible | */ansible/facts.d) ! present "$path" || rmdir "$path" || true ;; # others may have put things there
        *) rm -rf "$path" || echo "$path" >>"$tmp/kept" ;;
        esac
    done
}

# forget_absent: what is gone is no longer ours; what stays can still be purged later.
forget_absent() {
    [ -e "$manifest" ] || return 0
    : >"$manifest.new" || manifest_stays
    while IFS=$tab read -r kind name; do
        case $kind in
        path) present "$name" ;;
        user | group) getent "$([ "$kind" = user ] && echo passwd || echo group)" "$name" ;;
        package | python-package) installed "$name" ;;
        *) false ;;
        esac >/dev/null || continue
        printf '%s\t%s\n' "$kind" "$name" >>"$manifest.new" || manifest_stays
    done <"$manifest"
    mv "$manifest.new" "$manifest" || manifest_stays
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

main() {
    source_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
    settings
    parse "$@"
    if [ "$action" = help ]; then
        usage
        return 0
    fi
    [ -e "$source_dir/playbook.yaml" ] || die "playbook.yaml is not beside bootstrap.sh." "Run it from the whole repository."
    need_debian
    become_root "$@"
    umask 022
    trap finish EXIT
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM HUP
    make_tmp
    take_lock
    read_choices
    case $action in run | remove)
        find_inventory
        ask_passphrase
        ;;
    esac
    case $action$check in
    remove) remove_machine ;;
    run) run_playbook ;;
    program) program_only ;;
    join) join_fleet ;;
    runyes) run_check ;;
    *) remove_roost ;;
    esac
}

main "$@"
