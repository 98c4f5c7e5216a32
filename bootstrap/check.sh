# shellcheck shell=sh
# Part of bootstrap.sh. What a run would change (--check), with a Python and without.

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
