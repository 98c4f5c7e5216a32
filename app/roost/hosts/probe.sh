# shellcheck shell=sh
# What preflight needs to know of a machine that has nothing but a shell: texts, read by roost.hosts.probe on the
# controller. Changes nothing; apt's lists go to a temporary folder that is removed. In front of it stand variables:
# files, marks, programs, paths, witnesses, site, ask_apt, apt_options.
: "${files?} ${marks?} ${programs?} ${paths?} ${witnesses?} ${site?} ${ask_apt?} ${apt_options?}"
LC_ALL=C
export LC_ALL
section() { printf '\n== %s\n' "$1"; }

for file in $files; do
    [ -r "$file" ] || continue
    section "file $file"
    tr '\0' ' ' <"$file" 2>/dev/null
done

section uname
uname -n
uname -r
uname -m

section uid
id -u

section cores
nproc 2>/dev/null || echo 0

section present
for mark in $marks; do if [ -e "$mark" ]; then echo "$mark"; fi; done
for program in $programs; do if command -v "$program" >/dev/null 2>&1; then echo "$program"; fi; done

section cgroup-writable
for folder in /sys/fs/cgroup/memory /sys/fs/cgroup; do if [ -w "$folder" ]; then echo "$folder"; fi; done

if command -v docker >/dev/null 2>&1; then
    section "ask docker"
    timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null
    section "ask docker runtimes"
    # shellcheck disable=SC2016 # a template of Docker's
    timeout 10 docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' 2>/dev/null
fi
if command -v dockerd >/dev/null 2>&1; then
    section "ask dockerd"
    dockerd --version 2>/dev/null
fi
if command -v nvidia-smi >/dev/null 2>&1; then
    section "ask nvidia-smi"
    timeout 10 nvidia-smi --query-gpu=pci.bus_id,name,memory.total --format=csv,noheader,nounits 2>/dev/null
    section "ask nvidia-smi head"
    timeout 10 nvidia-smi 2>/dev/null
    section "ask nvidia-smi problem"
    timeout 10 nvidia-smi >/dev/null 2>&1 || timeout 10 nvidia-smi 2>&1
fi

section pci
for device in /sys/bus/pci/devices/*; do
    [ -r "$device/class" ] || continue
    driver=$(readlink "$device/driver")
    printf '%s %s %s %s %s\n' "${device##*/}" "$(cat "$device/class")" "$(cat "$device/vendor")" \
        "$(cat "$device/device")" "${driver##*/}"
done

# Whose sockets listen: process, name, inode, command line. Only root sees other users' processes.
section sockets
for process in /proc/[0-9]*; do
    # shellcheck disable=SC2012 # names in this folder are numbers
    ls -l "$process/fd" 2>/dev/null | sed -n 's/.* -> socket:\[\([0-9]*\)\]$/\1/p' | while read -r inode; do
        printf '%s %s %s %s\n' "${process##*/}" "$inode" "$(tr ' ' '_' <"$process/comm" | tr -d '\n')" \
            "$(tr '\0\n' '  ' <"$process/cmdline")"
    done 2>/dev/null
done

# PATH DEVICE FREE_KIB TOTAL_KIB rw|ro, of the file system where the path is or would be made.
section disks
for path in $paths; do
    there=$path
    while [ ! -e "$there" ]; do there=$(dirname "$there"); done
    writable=rw
    target=$(df -P "$there" | sed -n '2s/.*% *//p')
    ! sed -n "s|^[^ ]* $target [^ ]* \([^ ]*\).*|\1|p" /proc/mounts | tail -n 1 | grep -Eq '(^|,)ro(,|$)' || writable=ro
    printf '%s %s %s %s\n' "$path" "$(stat -c %d "$there")" \
        "$(df -Pk "$there" | sed -n '2s/^.* \([0-9][0-9]*\)  *[0-9][0-9]*  *\([0-9][0-9]*\)  *[0-9-]*%\{0,1\} .*$/\2 \1/p')" "$writable"
done

section addresses
hostname -I 2>/dev/null

section clock
date +%s
section witnesses
for file in $witnesses; do stat -c %Y "$file" 2>/dev/null; done

section installed
if [ -e "$site" ]; then echo yes; fi

# Names of registries, where no proxy resolves them: those that cannot be resolved are printed.
section unresolved
if [ -z "$ask_apt" ] || [ -n "${http_proxy:-}${https_proxy:-}${HTTP_PROXY:-}${HTTPS_PROXY:-}" ] ||
    apt-config dump 2>/dev/null | grep -Eiq '^Acquire::https?::Proxy "[^"]'; then :; else
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n '/^ *#/d; s|.*https\{0,1\}://\([A-Za-z0-9.-]*\).*|\1|p' | sort -u | head -n 4 | while read -r name; do
        timeout 20 getent ahosts "$name" >/dev/null 2>&1 || echo "$name"
    done
fi

if [ -n "$ask_apt" ] && command -v apt-get >/dev/null 2>&1; then
    section apt
    lists=$(mktemp -d)
    mkdir -p "$lists/lists/partial"
    # shellcheck disable=SC2086 # several options
    timeout 60 apt-get update -q --error-on=any -o Dir::State::lists="$lists/lists" -o Dir::Cache="$lists" \
        -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15 \
        $apt_options >"$lists/said" 2>&1 || { cat "$lists/said" && echo "E: apt-get update failed"; }
    rm -rf "$lists"
fi
section end
