# shellcheck shell=sh
# Part of bootstrap.sh. Running a playbook, and telling what came of it.

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
