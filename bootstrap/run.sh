# shellcheck shell=sh
# Part of bootstrap.sh. What a run does: install, join, go back after an upgrade that failed.

# unpack_program: a release and its venv, not yet what `roost` means; sets $venv and $release.
unpack_program() {
    make_folders
    open_log
    ensure_python
    venv=$install_dir/venvs/$(venv_key)
    release=$install_dir/releases/$(release_id)
    step program "unpacking" install_program
}

run_playbook() {
    unpack_program
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
    unpack_program
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
    # A release that does not ask for the port which this service keeps could not listen there.
    [ -e "$old_release/app/roost/ops/listen_keeper.py" ] || service roost-listen stop >/dev/null 2>&1 || true
    play "$old_release" "$(venv_of "$old_release")" playbook.yaml
    if [ "$code" -eq 0 ]; then
        say "" "Roost runs as before the upgrade. The reason for its failure stands above." >&2
    else
        explain_play
    fi
}
