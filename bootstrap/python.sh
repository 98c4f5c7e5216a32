# shellcheck shell=sh
# Part of bootstrap.sh. A Python that the program can use, and the packages of Debian that it needs.

# usable PYTHON: 3.11 or newer with venv and ensurepip, and others may run it too: jobs without containers do.
usable() {
    "$1" -I -c "
import os, sys, venv, ensurepip
path = os.path.realpath(sys.executable)
good = (3, 11) <= sys.version_info < (3, $newest_python + 1)
while good and path != '/':
    good = bool(os.stat(path).st_mode & 1)
    path = os.path.dirname(path)
sys.exit(not good)" >/dev/null 2>&1
}

# find_python: sets $python. The system's own comes first: it stays when users and their tools go.
find_python() {
    version=$newest_python
    names=python3
    while [ "$version" -ge 11 ]; do
        names="$names python3.$version"
        version=$((version - 1))
    done
    for folder in /usr/bin /usr/local/bin ''; do
        for name in $names; do
            python=$(PATH=${folder:-$PATH} command -v "$name") || continue
            if usable "$python"; then return 0; fi
        done
    done
    python=
    return 1
}

need_debian() {
    if have apt-get && have dpkg; then return 0; fi
    for pair in dnf:Fedora apk:Alpine pkg:FreeBSD zypper:openSUSE pacman:Arch; do
        have "${pair%%:*}" || continue
        die "This machine installs packages with ${pair%%:*} (${pair##*:}). Roost sets up Debian 12 and newer for now; \
nothing was changed." "Use a machine with Debian 12 or 13, or such a virtual machine." 3
    done
    die "No package manager known to Roost is here; it sets up Debian 12 and newer for now. Nothing was changed." \
        "Use a machine with Debian 12 or 13, or such a virtual machine." 3
}

apt_get() {
    if [ -n "$ca" ]; then set -- -o "Acquire::https::CAInfo=$ca" "$@"; fi
    if [ -n "$offline" ]; then set -- -o "Dir::Etc::SourceList=$tmp/debs/sources.list" -o "Dir::Etc::SourceParts=$tmp/debs/none" \
        -o "Dir::State::Lists=$tmp/debs/lists/" -o "Dir::Cache=$tmp/debs/cache" -o APT::Sandbox::User=root "$@"; fi
    LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 "$@"
}

# listed_sha256 NAME: of a bundle's file, as `roost bundle` writes it down, a line each for name and hash.
listed_sha256() {
    grep -A 2 -F "\"$1\": {" "$offline/bundle.json" | sed -n 's/^ *"sha256": "\([0-9a-f]\{64\}\)".*/\1/p' | head -n 1
}

# offline_packages: makes a package source of the offline folder's files, once each is as bundle.json says.
offline_packages() {
    damaged="Copy the offline folder again; it was damaged or changed on its way. Or make it again with \`roost bundle\`."
    mkdir -p "$tmp/debs/files" "$tmp/debs/none" "$tmp/debs/lists/partial" "$tmp/debs/cache/archives/partial"
    sed -n 's|^ *"\(debs/host/[^"]*\.deb\)": {$|\1|p' "$offline/bundle.json" >"$tmp/debs/listed"
    while read -r name; do
        [ -f "$offline/$name" ] || because "$offline/$name is listed in bundle.json but missing." "$damaged"
    done <"$tmp/debs/listed"
    for deb in "$offline"/debs/host/*.deb; do
        [ -e "$deb" ] || because "$offline holds no packages for this machine." "Make it again with \`roost bundle\`."
        sha256=$(listed_sha256 "debs/host/${deb##*/}")
        [ -n "$sha256" ] || because "$deb is not listed in bundle.json." "$damaged"
        [ "$(sha256sum <"$deb" | cut -d ' ' -f 1)" = "$sha256" ] || because "$deb has the wrong checksum." "$damaged"
        ln -s "$deb" "$tmp/debs/files/"
        dpkg-deb --field "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(($(wc -c <"$deb")))" "$sha256"
    done >"$tmp/debs/files/Packages"
    printf 'deb [trusted=yes] copy:%s ./\n' "$tmp/debs/files" >"$tmp/debs/sources.list"
    apt_get update
}

# new_packages: reads what apt simulates, prints what would be newly installed.
new_packages() { sed -n 's/^Inst \([^ ]*\) (.*/\1/p'; }

# apt_python [OPTION]
apt_python() { apt_get "$@" install --no-install-recommends python3 python3-venv; }

install_python() {
    network="Check the network and its proxy settings, or use --offline DIR."
    [ -z "$(dpkg --audit)" ] || DEBIAN_FRONTEND=noninteractive dpkg --configure -a --force-confdef --force-confold
    if [ -n "$offline" ]; then offline_packages; fi
    if ! apt_python -s >"$tmp/plan"; then
        apt_get update || because "The package lists could not be fetched: $(tail -n 3 "$log")" "$network"
        apt_python -s >"$tmp/plan" || because "apt cannot install python3: $(tail -n 3 "$log")" \
            "Check the sources in /etc/apt and the network, or use --offline DIR."
    fi
    ! grep -q '^Remv' "$tmp/plan" || because "Installing python3-venv would remove other packages." \
        "Install python3 and python3-venv by hand, then run it again."
    while read -r name; do own python-package "$name"; done <<LIST
$(new_packages <"$tmp/plan")
LIST
    # The lists may be older than what the mirror still has.
    apt_python || { apt_get update && apt_python; } ||
        because "python3 and python3-venv could not be fetched or installed: $(tail -n 3 "$log")" "$network"
    did "installed with apt"
}

ensure_python() {
    if find_python; then return 0; fi
    step python "installing with apt" install_python
    find_python || die "This system has no Python 3.11 to 3.$newest_python with venv, and its packages bring none." \
        "Use Debian 12 or newer, or install Python 3.11."
}
