# shellcheck shell=sh
# Part of bootstrap.sh. The program: a venv, and a release made of this folder.

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
PYTHONPATH=$release/app exec $venv/bin/python -X utf8 -P -m roost "\$@"
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
