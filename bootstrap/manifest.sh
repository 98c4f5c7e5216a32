# shellcheck shell=sh
# Part of bootstrap.sh. What Roost brought to this machine (see app/roost/ops/ownership.py).

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
