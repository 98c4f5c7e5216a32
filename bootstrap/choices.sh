# shellcheck shell=sh
# Part of bootstrap.sh. The choices of the options that are kept, in host.yaml.

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
        --roles "$1/ansible/roles" --current "$config_dir/host.yaml" --settings "$tmp/settings" --out "$tmp/host.yaml" 2>"$tmp/said" || code=$?
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
