# shellcheck shell=sh
# Part of bootstrap.sh. The options, and what follows from them.

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

# known_variable NAME: refuses what group_vars/all.yaml does not have, before there is a Python; what a value may be,
# which name is near and what a variable of before is called now roost.ops.host_file says.
known_variable() {
    case $1 in *[!a-z0-9_]* | '') refuse "--set: '$1' is no name of a variable. Every one stands in group_vars/all.yaml." ;; esac
    [ -r "$source_dir/group_vars/all.yaml" ] || return 0
    if grep -q "^$1:" "$source_dir/group_vars/all.yaml"; then return 0; fi
    if grep -qF "Renamed(\"$1\"" "$source_dir/app/roost/ops/variable_names.py"; then return 0; fi
    # Without the last character, then the last two, and so on: the first that a variable begins with.
    part=$1
    while [ ${#part} -gt 2 ]; do
        part=${part%?}
        near=$(sed -n "s/^\(${part}[a-z0-9_]*\):.*/\1/p" "$source_dir/group_vars/all.yaml" | head -n 5 | tr '\n' ' ')
        [ -z "$near" ] || refuse "--set: There is no variable '$1'. Some that begin like that: ${near% }."
    done
    refuse "--set: There is no variable '$1'. Every one stands in group_vars/all.yaml."
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
            known_variable "${value%%=*}"
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
