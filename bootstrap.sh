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
    products="ansible ansible.cfg app bootstrap bootstrap.sh group_vars host_vars images leave.yaml nomad playbook.yaml requirements uninstall.yaml"
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

# parts: the rest of this script. All of it is read before anything is done, so that its folder may go meanwhile.
parts() {
    # shellcheck source=bootstrap/words.sh
    . "$source_dir/bootstrap/words.sh"
    # shellcheck source=bootstrap/arguments.sh
    . "$source_dir/bootstrap/arguments.sh"
    # shellcheck source=bootstrap/process.sh
    . "$source_dir/bootstrap/process.sh"
    # shellcheck source=bootstrap/manifest.sh
    . "$source_dir/bootstrap/manifest.sh"
    # shellcheck source=bootstrap/choices.sh
    . "$source_dir/bootstrap/choices.sh"
    # shellcheck source=bootstrap/python.sh
    . "$source_dir/bootstrap/python.sh"
    # shellcheck source=bootstrap/program.sh
    . "$source_dir/bootstrap/program.sh"
    # shellcheck source=bootstrap/playbook.sh
    . "$source_dir/bootstrap/playbook.sh"
    # shellcheck source=bootstrap/run.sh
    . "$source_dir/bootstrap/run.sh"
    # shellcheck source=bootstrap/check.sh
    . "$source_dir/bootstrap/check.sh"
    # shellcheck source=bootstrap/remove.sh
    . "$source_dir/bootstrap/remove.sh"
    # shellcheck source=bootstrap/sweep.sh
    . "$source_dir/bootstrap/sweep.sh"
}

main() {
    source_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
    settings
    [ -e "$source_dir/bootstrap/words.sh" ] || {
        printf '%s\nFix: %s\n' "The folder bootstrap/ is not beside bootstrap.sh." "Run it from the whole repository." >&2
        exit 1
    }
    parts
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
