#!/bin/sh
# Turns this machine into a one-node Roost fleet, or takes it away again. See --help.
# Everything is in functions, so that a script cut off on its way does nothing at all.
set -eu

# --- Words ---------------------------------------------------------------------------------------------------

usage() {
    cat <<'TEXT'
Usage: ./bootstrap.sh [OPTION...]

Installs Roost on this machine and ends with an answer from a language model. Run it again at any time: what is
there and good is left alone.

  --check                  say what would change, and change nothing
  --run-local              no containers: plain processes under Nomad
  --listen ADDR[:PORT]     answer other hosts too, with TLS by the fleet's own authority
  --listen-cert FILE       ... or with this certificate (PEM)
  --listen-key FILE        ... and its key (PEM)
  --offline DIR            take everything from a folder made by `roost bundle DIR`
  --set NAME=VALUE         set a variable of group_vars/all.yaml (YAML value); may be given several times
  --upgrade                fetch newer packages too; go back to the old version if the new one does not answer
  --uninstall              remove Roost, keep models, data, configuration
  --purge                  remove every trace; what was there before Roost stays
  --yes                    do not ask
  --verbose                show every task
  --help                   this text

--set, --listen, --run-local and --offline are remembered for later runs in /etc/roost/host.yaml.

Environment:
  ROOST_EXTRA_CA_BUNDLE    PEM file to trust while fetching (a company's proxy); never copied into an image
  ROOST_CACHE_DIR          folder of downloads and builds (default /var/cache/roost)
  NO_COLOR                 no colours

Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 this system is not supported yet, 130 interrupted.
TEXT
}

say() { printf '%s\n' "$*"; }

# die CODE REASON FIX
die() {
    printf '\n%serror:%s %s\n' "$red" "$plain" "$2" >&2
    if [ -n "${3:-}" ]; then printf '  fix: %s\n' "$3" >&2; fi
    if [ -n "${log:-}" ] && [ -s "$log" ] && [ "$checking" = no ]; then printf '  log: %s\n' "$log" >&2; fi
    exit "$1"
}

wrong() { die 2 "$1" "See ./bootstrap.sh --help."; }

step() {
    step_name=$1
    step_began=$(date +%s)
    if [ "$tty" = yes ]; then printf '  %-10s          %s' "$1" "$2"; fi
    printf '== %s: %s\n' "$1" "$2" >>"$log"
}

# step_done [CHANGES]
step_done() {
    changes=
    if [ "${1:-0}" -eq 1 ]; then changes='   1 change'; fi
    if [ "${1:-0}" -gt 1 ]; then changes="   $1 changes"; fi
    if [ "$tty" = yes ]; then printf '\r\033[K'; fi
    printf '%s✓%s %-10s%5d s%s\n' "$green" "$plain" "$step_name" "$(($(date +%s) - step_began))" "$changes"
}

# --- Arguments -----------------------------------------------------------------------------------------------

need_value() { if [ "$2" -lt 2 ]; then wrong "$1 needs a value."; fi; }

set_variable() {
    settings="$settings$1=$2
"
}

set_listen() {
    case $1 in
        \[*\]:*) address=${1%]:*} port=${1##*]:} address=${address#[} ;;
        \[*\]) address=${1#[} port='' address=${address%]} ;;
        *:*:*) address=$1 port='' ;;
        *:*) address=${1%:*} port=${1##*:} ;;
        *) address=$1 port='' ;;
    esac
    case $address in '' | *[!0-9A-Za-z.:-]*) wrong "--listen takes an address, or ADDRESS:PORT, not '$1'." ;; esac
    case $port in *[!0-9]*) wrong "--listen: '$port' is not a port." ;; esac
    set_variable api_listen_address "$address"
    if [ -n "$port" ]; then set_variable api_listen_port "$port"; fi
}

absolute() {
    case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s/%s\n' "$PWD" "$1" ;; esac
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            --*=*)
                option=${1%%=*} value=${1#*=}
                case $option in
                    --listen | --listen-cert | --listen-key | --offline | --set) ;;
                    *) wrong "$option takes no value." ;;
                esac
                shift
                set -- "$option" "$value" "$@"
                ;;
        esac
        case $1 in
            --help | -h) usage && exit 0 ;;
            --check) checking=yes ;;
            --run-local) set_variable roost_runtime local ;;
            --listen) need_value "$1" $# && set_listen "$2" && shift ;;
            --listen-cert) need_value "$1" $# && set_variable api_listen_cert "$(absolute "$2")" && shift ;;
            --listen-key) need_value "$1" $# && set_variable api_listen_key "$(absolute "$2")" && shift ;;
            --offline) need_value "$1" $# && offline=$(absolute "$2") && shift ;;
            --set)
                need_value "$1" $#
                case $2 in [a-z]*=*) ;; *) wrong "--set takes NAME=VALUE, not '$2'." ;; esac
                grep -q "^${2%%=*}:" "$here/group_vars/all.yaml" ||
                    wrong "--set: there is no variable '${2%%=*}' in group_vars/all.yaml."
                set_variable "${2%%=*}" "${2#*=}"
                shift
                ;;
            --upgrade) action=${action:+conflict}${action:-upgrade} ;;
            --uninstall) action=${action:+conflict}${action:-uninstall} ;;
            --purge) action=${action:+conflict}${action:-purge} ;;
            --yes) yes=yes ;;
            --verbose) verbose=1 ;;
            *) wrong "Unknown argument '$1'." ;;
        esac
        shift
    done
    case $action in conflict*) wrong "Choose one of --upgrade, --uninstall, --purge." ;; esac
    if [ "$checking" = yes ] && [ -n "$action" ]; then wrong "--check goes with an installation, not with --$action."; fi
    if [ -n "$offline" ]; then
        if [ ! -f "$offline/bundle.json" ]; then
            die 1 "$offline is not a folder made by \`roost bundle\` (bundle.json is missing)." \
                "Make it on a machine with a network: \`roost bundle DIR\`, then copy it here."
        fi
        set_variable roost_offline_dir "$offline"
    fi
}

# --- The machine ---------------------------------------------------------------------------------------------

# Reads a plain value of group_vars/all.yaml: every default stands there, once.
default() { sed -n "s/^$1: *//p" "$here/group_vars/all.yaml"; }

become_root() {
    if [ "$(id -u)" -eq 0 ]; then return 0; fi
    for tool in sudo doas; do
        if command -v "$tool" >/dev/null 2>&1; then
            set -- env "ROOST_EXTRA_CA_BUNDLE=${ROOST_EXTRA_CA_BUNDLE:-}" "ROOST_CACHE_DIR=${ROOST_CACHE_DIR:-}" \
                "http_proxy=${http_proxy:-}" "https_proxy=${https_proxy:-}" "no_proxy=${no_proxy:-}" \
                "NO_COLOR=${NO_COLOR:-}" /bin/sh "$here/bootstrap.sh" "$@"
            exec "$tool" "$@"
        fi
    done
    die 1 "Roost installs packages, users and services, so it needs root." "Run it as root, or install sudo."
}

take_lock() {
    lock=/run/lock/roost-bootstrap
    mkdir -p /run/lock
    exec 9>>"$lock"
    if ! flock -n 9; then
        die 1 "Another run of bootstrap.sh is already at work here (process $(cat "$lock"))." "Wait until it has ended."
    fi
    printf '%s\n' "$$" >"$lock"
}

# A folder of this run. Programs must be able to run from it: /tmp is mounted without that on careful machines.
make_work() {
    for parent in "${TMPDIR:-/tmp}" /var/tmp /root; do
        work=$(mktemp -d "$parent/roost.XXXXXX" 2>/dev/null) || continue
        printf '#!/bin/sh\n' >"$work/try" && chmod +x "$work/try"
        if "$work/try" 2>/dev/null; then return 0; fi
        rm -rf "$work"
    done
    work=''
    die 1 "No folder for temporary files allows programs to run." "Set TMPDIR to one that does."
}

open_log() {
    make_work
    log=$work/log
    : >"$log"
    if [ "$checking" = yes ]; then return 0; fi
    own_folder "$log_dir" 0750
    log=$log_dir/bootstrap-$(date -u +%Y%m%dT%H%M%SZ).log
    (umask 077 && : >"$log")
    # The last ten are enough to compare with.
    find "$log_dir" -name 'bootstrap-*.log' | sort -r | tail -n +11 | while read -r old; do rm -f "$old"; done
}

# own KIND NAME: notes a thing that is ours; the caller has seen that it is absent.
own() {
    if [ ! -d "$state_dir" ]; then
        mkdir -p "$state_dir"
        printf 'path\t%s\n' "$state_dir" >"$manifest"
    fi
    touch "$manifest"
    if ! grep -qx "$1	$2" "$manifest"; then
        { cat "$manifest" && printf '%s\t%s\n' "$1" "$2"; } >"$manifest.new"
        mv "$manifest.new" "$manifest"
    fi
}

own_folder() {
    if [ -e "$1" ]; then return 0; fi
    own path "$1"
    mkdir -p "$1"
    chmod "$2" "$1"
}

owned() { [ -f "$manifest" ] && grep -qx "$1	$2" "$manifest"; }

good_python() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        found=$(command -v "$candidate" 2>/dev/null) || continue
        if good_python "$found"; then
            python=$found
            return 0
        fi
    done
    return 1
}

package_manager() {
    for manager in apt-get dnf apk pkg; do
        if command -v "$manager" >/dev/null 2>&1; then
            printf '%s\n' "$manager"
            return 0
        fi
    done
}

install_python() {
    case $(package_manager) in
        apt-get) ;;
        dnf | apk | pkg)
            die 3 "Python 3.11 or newer with venv is missing, and installing it with $(package_manager) is not supported yet." \
                "Install it by hand; but the roles know only Debian's packages so far, so the playbook would stop in preflight."
            ;;
        *) die 3 "Python 3.11 or newer with venv is missing, and no package manager that we know is here." \
            "Install Python 3.11 or newer with its venv module." ;;
    esac
    step python "installing with apt"
    apt_configuration >"$work/apt.conf"
    if ! apt update >>"$log" 2>&1; then
        die 1 "The package lists cannot be fetched: $(last_error)" \
            "Check the network and the sources of apt; behind a proxy set ROOST_EXTRA_CA_BUNDLE."
    fi
    # Only what is absent now is ours to remove later.
    new=$(apt -s install --no-install-recommends python3 python3-venv 2>>"$log" | sed -n 's/^Inst \([^ ]*\) (.*/\1/p') || new=
    for package in $new; do own python-package "$package"; done
    if ! apt install -y --no-install-recommends python3 python3-venv >>"$log" 2>&1 </dev/null; then
        die 1 "Python cannot be installed: $(last_error)" \
            "Repair apt (\`apt-get install python3-venv\`), then run this again."
    fi
    find_python || die 3 "This system's Python is older than 3.11." "Use Debian 12 or newer, or install Python 3.11."
    step_done "$(printf '%s\n' "$new" | grep -c .)"
}

apt() { APT_CONFIG=$work/apt.conf DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@"; }

apt_configuration() {
    if [ -n "$ca" ]; then printf 'Acquire::https::CAInfo "%s";\n' "$ca"; fi
    if [ -z "$offline" ]; then return 0; fi
    # The offline folder's packages as apt's only source; bundle.json has their hashes.
    mkdir -p "$work/debs" "$work/apt/lists/partial" "$work/apt/archives/partial"
    for deb in "$offline"/debs/*.deb; do
        name=${deb##*/}
        ln -sf "$deb" "$work/debs/$name"
        dpkg-deb --field "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$name" "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d' ' -f1)"
    done >"$work/debs/Packages"
    printf 'deb [trusted=yes] copy:%s ./\n' "$work/debs" >"$work/apt/sources.list"
    chmod -R a+rX "$work"
    printf '%s\n' "Dir::Etc::SourceList \"$work/apt/sources.list\";" 'Dir::Etc::SourceParts "/dev/null";' \
        "Dir::State::Lists \"$work/apt/lists\";" "Dir::Cache::archives \"$work/apt/archives\";" \
        "Dir::Cache::pkgcache \"\";" "Dir::Cache::srcpkgcache \"\";" 'APT::Sandbox::User "root";'
}

last_error() { grep -E '^(E|W|ERROR|error)' "$log" | tail -n 1; }

# --- The program ---------------------------------------------------------------------------------------------

product='app ansible group_vars host_vars nomad images requirements playbook.yaml uninstall.yaml ansible.cfg bootstrap.sh LICENSE'

hash_files() { find "$@" -type f ! -name '*.pyc' ! -path '*/__pycache__/*' -exec sha256sum {} + | LC_ALL=C sort -k 2 | sha256sum | cut -c 1-16; }

# on_product COMMAND...: runs it in the repository with the product's files as further arguments.
on_product() {
    cd "$here"
    for part in $product; do if [ -e "$part" ]; then set -- "$@" "$part"; fi; done
    "$@"
}

name_release() {
    cd "$here"
    release_id=$(on_product hash_files)
    lock_id=$({ cat requirements/roost.txt && "$python" -VV; } | sha256sum | cut -c 1-16)
    release=$install_dir/releases/$release_id
    venv=$install_dir/venvs/$lock_id
}

# make_venv FOLDER
make_venv() {
    if [ -f "$1/.complete" ]; then return 0; fi
    rm -rf "$1"
    "$python" -m venv "$1" >>"$log" 2>&1 || die 1 "A virtual environment cannot be made in $1: $(tail -n 1 "$log")" \
        "Is the disk full (df -h)? Else repair Python: \`$python -m venv /tmp/x\` shows the error."
    set -- "$1" --require-hashes --requirement "$here/requirements/roost.txt" --disable-pip-version-check --no-input
    if [ -n "$offline" ]; then set -- "$@" --no-index --find-links "$offline/wheels"; fi
    if [ -n "$ca" ]; then set -- "$@" --cert "$ca"; fi
    if [ "$checking" = yes ]; then set -- "$@" --cache-dir "$work/pip"; else set -- "$@" --cache-dir "$cache_dir/pip"; fi
    folder=$1
    shift
    "$folder/bin/python" -m pip install --quiet "$@" >>"$log" 2>&1 </dev/null ||
        die 1 "The Python packages cannot be installed: $(last_error)" \
            "Check the network and the disk (df -h); behind a proxy set ROOST_EXTRA_CA_BUNDLE. Then run this again."
    : >"$folder/.complete"
}

copy_release() {
    if [ -d "$release" ]; then return 0; fi
    partial=$install_dir/releases/.partial
    rm -rf "$partial"
    mkdir -p "$partial/bin"
    (on_product tar -c --exclude=__pycache__ -f -) | tar -x --no-same-owner -C "$partial" -f - ||
        die 1 "Roost's files cannot be copied to $install_dir." "Is the disk full (df -h)?"
    chmod -R u=rwX,go=rX "$partial"
    cat >"$partial/bin/roost" <<TEXT
#!/bin/sh
PYTHONPATH=$release/app exec $venv/bin/python -P -m roost "\$@"
TEXT
    chmod 0755 "$partial/bin/roost"
    mv "$partial" "$release"
}

prepare_program() {
    if [ "$checking" = yes ] && [ ! -f "$venv/.complete" ]; then venv=$work/venv; fi
    if [ "$checking" = yes ]; then
        step program "in a temporary folder"
        make_venv "$venv"
        release=$here
        step_done
        return 0
    fi
    own_folder "$install_dir" 0755
    own_folder "$cache_dir" 0755
    mkdir -p "$install_dir/releases" "$install_dir/venvs"
    step program "Python packages, Roost's files"
    fresh=0
    if [ ! -f "$venv/.complete" ] || [ ! -d "$release" ]; then fresh=1; fi
    make_venv "$venv"
    copy_release
    step_done "$fresh"
}

# Works the settings of this run into a copy of those remembered.
merge_settings() {
    set -- -m roost.ops.host_file --defaults "$here/group_vars/all.yaml" --current "$config_dir/host.yaml" --out "$work/host.yaml"
    while IFS= read -r setting; do
        if [ -n "$setting" ]; then set -- "$@" "$setting"; fi
    done <<TEXT
$settings
TEXT
    code=0
    said=$(PYTHONPATH=$here/app "$venv/bin/python" -P "$@" 2>&1) || code=$?
    if [ "$code" -ne 0 ]; then die "$code" "${said%% Fix: *}" "${said##* Fix: }"; fi
}

keep_settings() {
    if [ "$checking" = no ] && [ -d "$config_dir" ] && ! cmp -s "$work/host.yaml" "$config_dir/host.yaml"; then
        cp -p "$work/host.yaml" "$config_dir/.host.yaml" && mv "$config_dir/.host.yaml" "$config_dir/host.yaml"
    fi
}

# play RELEASE VENV PLAYBOOK [ARGUMENTS]: the lock stays with this shell (9>&-), or services would inherit it.
play() {
    play_release=$1 play_venv=$2 playbook=$3
    shift 3
    if [ "$checking" = yes ]; then set -- --check --diff "$@"; fi
    code=0
    (
        cd "$play_release"
        export ANSIBLE_CONFIG="$play_release/ansible.cfg" ANSIBLE_STDOUT_CALLBACK=roost_progress ANSIBLE_HOME="$work/ansible"
        export ANSIBLE_LOCAL_TEMP="$work/ansible/tmp" ANSIBLE_REMOTE_TEMP="$work/ansible/tmp"
        export ROOST_LOG="$log" ROOST_SUMMARY="$work/summary.json" ROOST_VERBOSE="$verbose"
        export PYTHONPATH="$play_release/app" PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 LC_ALL=C.UTF-8
        export PATH="$play_venv/bin:$PATH:/usr/sbin:/sbin"
        exec "$play_venv/bin/ansible-playbook" "$playbook" -e "@$work/host.yaml" "$@" </dev/null 9>&-
    ) || code=$?
    return "$code"
}

# Says why the playbook failed.
explain() {
    IFS='	' read -r failed_step reason fix <<TEXT || :
$(outcome failure "$work/summary.json" 2>/dev/null)
TEXT
    if [ "$code" -eq 99 ] || [ "$code" -ge 128 ]; then interrupted; fi
    die 1 "${failed_step:-The playbook}: ${reason:-it failed without a word.}" "${fix:-Read the log; correct it and run this again.}"
}

outcome() { PYTHONPATH=$here/app "$venv/bin/python" -P -m roost.ops.outcome "$@"; }

# --- What is asked for ---------------------------------------------------------------------------------------

install() {
    prepare_program
    merge_settings
    previous=
    if [ -L "$install_dir/current" ]; then previous=$(readlink -f "$install_dir/current"); fi
    set --
    if [ "$action" = upgrade ]; then
        cp "$state_dir/artifacts/resolved.json" "$work/resolved.json" 2>/dev/null || :
        set -- -e '{"roost_images_update": true}'
    fi
    if ! play "$release" "$venv" playbook.yaml "$@"; then
        keep_settings
        if [ "$action" = upgrade ] && [ -n "$previous" ]; then go_back; fi
        explain
    fi
    if [ "$checking" = yes ]; then
        outcome check "$work/summary.json"
        return 0
    fi
    keep_settings
    ln -sfn "$release" "$install_dir/.current" && mv -T "$install_dir/.current" "$install_dir/current"
    if [ ! -L "$bin_dir/roost" ]; then ln -s "$install_dir/current/bin/roost" "$bin_dir/roost"; fi
    prune
    outcome final "$state_dir/last-verify.json"
}

# The old version is there with its settings, images and packages: run it again.
go_back() {
    say
    say "The new version does not work; going back to the one before."
    if [ -s "$work/resolved.json" ]; then cp "$work/resolved.json" "$state_dir/artifacts/resolved.json"; fi
    previous_venv=$(sed -n 's/.* exec \(.*\)\/bin\/python.*/\1/p' "$previous/bin/roost")
    if play "$previous" "$previous_venv" playbook.yaml; then
        die 1 "The upgrade failed and was undone; the version from before is running." \
            "The log says what failed. Correct it and run ./bootstrap.sh --upgrade again."
    fi
    die 1 "The upgrade failed, and the version from before does not answer either." "Read the log, then \`roost doctor\`."
}

# Keeps the release that runs and the one before it, with their virtual environments.
prune() {
    for old in "$install_dir"/releases/*; do
        if [ "$old" != "$release" ] && [ "$old" != "$previous" ]; then rm -rf "$old"; fi
    done
    for old in "$install_dir"/venvs/*; do
        if ! grep -qs "$old/bin/python" "$install_dir"/releases/*/bin/roost; then rm -rf "$old"; fi
    done
}

confirm() {
    if [ "$yes" = yes ]; then return 0; fi
    if [ ! -t 0 ]; then die 2 "--$action asks before it removes, and there is no terminal." "Add --yes."; fi
    printf '%s [y/N] ' "$1"
    read -r answer
    case $answer in y | Y | yes) ;; *) say "Nothing was changed." && exit 0 ;; esac
}

remove() {
    if [ ! -f "$manifest" ] && [ ! -d "$install_dir" ]; then
        say "Roost is not installed here; nothing to remove."
        return 0
    fi
    if [ "$action" = purge ]; then
        confirm "Remove Roost with its models, data, keys and configuration from this machine?"
    else
        confirm "Remove Roost from this machine, keeping models, data and configuration?"
    fi
    if [ -z "$python" ]; then
        die 1 "Python is gone, so what Roost did to this machine cannot be undone." "Install python3 and python3-venv, run this again."
    fi
    if [ ! -f "$venv/.complete" ]; then venv=$work/venv && make_venv "$venv"; fi
    release=$here
    merge_settings
    purging=false
    if [ "$action" = purge ]; then purging=true; fi
    play "$release" "$venv" uninstall.yaml -e "{\"roost_purge\": $purging}" || explain
    remove_program
    if [ "$action" = purge ]; then say "Roost is gone."; else say "Roost is gone; models, data and configuration are still there."; fi
}

remove_program() {
    step program "removing"
    if owned path "$bin_dir/roost"; then rm -f "$bin_dir/roost"; fi
    remove_python
    for folder in "$install_dir" "$run_dir"; do remove_owned "$folder"; done
    if [ "$action" = purge ]; then
        for folder in "$cache_dir" "$log_dir" "$config_dir"; do remove_owned "$folder"; done
        log=$work/log
        if owned path "$state_dir"; then rm -rf "$state_dir"; else rm -f "$manifest"; fi
    fi
    step_done
}

remove_owned() {
    if owned path "$1"; then
        rm -rf "$1"
        forget path "$1"
    fi
}

forget() {
    grep -vx "$1	$2" "$manifest" >"$manifest.new" || :
    mv "$manifest.new" "$manifest"
}

# Python goes if it was absent before, and if nobody else has come to need it.
remove_python() {
    packages=$(sed -n 's/^python-package	//p' "$manifest")
    if [ -z "$packages" ]; then return 0; fi
    : >"$work/apt.conf"
    set --
    for package in $packages; do set -- "$@" "$package"; done
    going=$(apt -s purge "$@" 2>>"$log" | sed -n 's/^\(Purg\|Remv\) \([^ ]*\).*/\2/p')
    for package in $going; do
        if ! printf '%s\n' "$packages" | grep -qx "${package%%:*}"; then
            say "  Python stays: $package, which is not ours, needs it by now."
            return 0
        fi
    done
    if apt purge -y "$@" >>"$log" 2>&1 </dev/null; then
        for package in $packages; do forget python-package "$package"; done
    else
        die 1 "Python's packages cannot be removed: $(last_error)" "Repair apt, then run this again."
    fi
}

# Without Python the playbook cannot look: say what can be said.
check_without_python() {
    say "Python 3.11 is not here yet, so this is a first look only."
    say "Would change:"
    say "  install Python with $(package_manager):"
    apt_configuration >"$work/apt.conf"
    apt -s install --no-install-recommends python3 python3-venv 2>/dev/null | sed -n 's/^Inst \([^ ]*\).*/    \1/p'
    say "  install Docker, nftables (apt), Nomad, a model server and a model, two users, and Nomad as a service"
    say "  make $install_dir, $config_dir, $state_dir, $cache_dir, $log_dir, $bin_dir/roost"
    say "Looked at:"
    say "  memory     $(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo) MiB (needs $(default preflight_min_memory_mib))"
    say "  disk       $(df -Pm / | awk 'NR == 2 {print $4}') MiB free on / (needs $(default preflight_min_disk_mib))"
    say "Not checked without Python: ports, cgroups, clock, registries, an existing Docker. The first step of a real run"
    say "checks them before anything else is changed."
}

# --- From the top --------------------------------------------------------------------------------------------

finish() {
    code=$?
    trap - EXIT
    if [ -n "${work:-}" ]; then rm -rf "$work"; fi
    if [ -n "${lock:-}" ]; then rm -f "$lock"; fi
    exit "$code"
}

interrupted() {
    say
    say "Interrupted. Nothing is lost: run ./bootstrap.sh again and it goes on."
    exit 130
}

main() {
    umask 022
    here=$(cd -P "$(dirname "$0")" && pwd)
    action='' checking=no yes=no verbose=0 offline='' settings='' log='' work='' lock='' python=''
    red='' green='' plain='' tty=no
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then red=$(printf '\033[31m') green=$(printf '\033[32m') plain=$(printf '\033[0m'); fi
    if [ -t 1 ]; then tty=yes; fi
    parse "$@"
    become_root "$@"
    config_dir=$(default roost_config_dir) state_dir=$(default roost_state_dir) install_dir=$(default roost_install_dir)
    log_dir=$(default roost_log_dir) bin_dir=$(default roost_bin_dir) run_dir=$(default roost_run_dir)
    cache_dir=${ROOST_CACHE_DIR:-$(default roost_cache_dir)} ca=${ROOST_EXTRA_CA_BUNDLE:-}
    manifest=$state_dir/manifest
    if [ -n "${ROOST_CACHE_DIR:-}" ]; then set_variable roost_cache_dir "$cache_dir"; fi
    if [ -n "$ca" ]; then
        if [ ! -r "$ca" ]; then die 1 "ROOST_EXTRA_CA_BUNDLE names $ca, which cannot be read." "Give the path of a PEM file."; fi
        set_variable extra_ca_bundle "$ca"
        export SSL_CERT_FILE="$ca" REQUESTS_CA_BUNDLE="$ca" PIP_CERT="$ca"
    fi
    trap finish EXIT
    trap interrupted INT TERM HUP
    if [ "$checking" = no ]; then take_lock; fi
    open_log
    case $action in
        uninstall | purge)
            find_python || :
            if [ -n "$python" ]; then name_release; fi
            remove
            ;;
        *)
            if ! find_python; then
                if [ "$checking" = yes ]; then
                    check_without_python
                    return 0
                fi
                install_python
            fi
            name_release
            install
            ;;
    esac
}

main "$@"
