# shellcheck shell=sh
# Part of bootstrap.sh. Taking a machine out of the fleet, and Roost off this machine.

confirm() {
    [ -z "$assume_yes" ] || return 0
    [ -t 0 ] || refuse "--$action asks before it removes anything; without a terminal it needs --yes."
    case $action in
    uninstall) say "This removes Roost. Models, data and secrets stay in $state_dir and $config_dir." ;;
    purge) say "This removes Roost, its models, data and secrets, and every package and user it brought." ;;
    esac
    ! present "$(dirname "$manifest")/tailscale-login" ||
        say "It leaves its tailnet too, into which Roost brought it: whoever came by that loses the way in."
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
    others_stay=
    inventory=$config_dir/inventory.yaml
    if [ ! -r "$inventory" ] || [ ! -e "$install_dir/current/bin/roost" ]; then
        inventory=
        return 0
    fi
    with_installed
    ask_passphrase
    leave 'fleet[1:]' "$([ "$action" = purge ] && echo true || echo false)"
    if [ "$code" -ne 0 ]; then
        explain_play
        say "" "Going on with this machine."
        others_stay=yes
    fi
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
    [ ! -s "$tmp/left" ] || tell_left
    say "" "Roost is removed${others_stay:+ from this machine, but not from all others of its fleet}."
    [ "$action" = purge ] || say "Models and data: $state_dir. Secrets and choices: $config_dir. ./bootstrap.sh brings it back, --purge removes them."
    if [ -s "$tmp/kept" ]; then
        say "" "These stay, because something that is not ours needs them now:"
        sed 's/^/  /' "$tmp/kept"
    fi
    [ -z "$others_stay" ] || die "Other machines of the fleet still have Roost; the reason stands above." \
        "Run ./bootstrap.sh --$action on each of them."
}

# tell_left: a removal that is not whole says what stays, in apt's own words why, and fails.
tell_left() {
    said=$(grep -E '^(E:|dpkg: error|W: .*held|(userdel|groupdel|rm): )' "$log" | sort -u | tail -n 5)
    tell_failure "Roost is removed but for what the system would not give up:
$(sed 's/^/  /' "$tmp/left")${said:+
$said}" "Correct what stands there (held: apt-mark showhold; half installed: dpkg --audit, apt-get -f install; a user: \
end its processes), then run ./bootstrap.sh --$action again."
    exit 1
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
