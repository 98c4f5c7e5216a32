# shellcheck shell=sh
# Part of bootstrap.sh. What is left of Roost on this machine, guided by the manifest alone.

# sweep: all that is left, guided by the manifest alone. Works on a half-made machine, and again and again.
sweep() {
    : >"$tmp/kept"
    : >"$tmp/left"
    sweep_units
    if have nft; then nft delete table inet roost 2>/dev/null || true; fi
    sweep_processes
    sweep_containers
    sed -n "s|^[^ ]* \($state_dir/nomad/[^ ]*\) .*|\1|p" /proc/mounts | sort -r | while read -r mount; do
        umount "$mount" || umount -l "$mount" || true
    done
    sweep_packages package
    owned user | while read -r user; do ! getent passwd "$user" >/dev/null || userdel "$user" || true; done
    owned group | while read -r group; do ! getent group "$group" >/dev/null || groupdel "$group" || true; done
    sweep_paths
    sweep_access
    sweep_packages python-package
    note_left
    if [ "$action" = purge ] && [ ! -s "$tmp/left" ]; then
        rm -f "$manifest"
        [ ! -s "$tmp/own-state" ] || rm -rf "$state_dir"
    else
        # What stays is still ours: the next run goes by the manifest again.
        [ ! -s "$tmp/own-state" ] || find "$state_dir" -mindepth 1 -maxdepth 1 ! -path "$manifest" -exec rm -rf '{}' +
        forget_absent
    fi
    if [ -s "$tmp/left" ]; then did "not all could be removed"; else did "done"; fi
}

# note_left: what is ours, had to go and is still there, whatever the reason; one `KIND NAME` a line in $tmp/left.
note_left() {
    sort -u "$tmp/kept" >"$tmp/kept-sorted"
    for kind in user group package python-package; do
        owned "$kind" | while read -r name; do
            case $kind in
            user) getent passwd "$name" ;;
            group) getent group "$name" ;;
            *) package_there "$name" && ! grep -qxF "$name" "$tmp/kept-sorted" ;;
            esac >/dev/null || continue
            printf '%s %s\n' "${kind#python-}" "$name" >>"$tmp/left"
        done
    done
}

# sweep_access: the fleet's key may no longer log in here (see app/roost/fleet/join/ssh.py).
sweep_access() {
    keys=/root/.ssh/authorized_keys
    grep -q ' roost-fleet$' "$keys" 2>/dev/null || return 0
    sed -i '/ roost-fleet$/d' "$keys"
    if [ ! -s "$keys" ]; then rm -f "$keys" && { rmdir "${keys%/*}" 2>/dev/null || true; }; fi
}

sweep_units() {
    owned unit | while read -r unit; do
        if [ -d /run/systemd/system ]; then systemctl disable --now "$unit.service" || true; fi
        if [ -x "/etc/init.d/$unit" ]; then "/etc/init.d/$unit" stop || true; fi
        if [ -e "/etc/init.d/$unit" ]; then
            rm -f "/etc/init.d/$unit"
            ! have update-rc.d || update-rc.d "$unit" remove || true
        fi
        rm -f "/etc/systemd/system/$unit.service"
    done
    if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
    rm -rf "$state_dir/services"
}

# sweep_processes: whatever runs from our folders, by a Python of ours, or as our users, but for what this script was
# started by; five seconds to end by themselves, then the hard way.
sweep_processes() {
    above=' '
    pid=$$
    while [ "${pid:-0}" -gt 1 ]; do
        above="$above$pid "
        pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
    done
    users=" $(owned user | while read -r user; do id -u "$user" 2>/dev/null || true; done | tr '\n' ' ')"
    for signal in TERM KILL; do
        family=
        for process in /proc/[0-9]*; do
            program=$(readlink "$process/exe" 2>/dev/null) || continue
            uid=$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "$process/status" 2>/dev/null)
            # The program of a virtual environment's Python is the system's; it is called by its own path.
            called=$(tr '\0' '\n' <"$process/cmdline" 2>/dev/null | sed -n 1p) || called=
            case $above in *" ${process##*/} "*) called= ;; esac
            case $program:$called in
            "$install_dir"/* | "$state_dir"/* | *:"$install_dir"/venvs/*) ;;
            *) case $users in *" ${uid:-none} "*) ;; *) continue ;; esac ;;
            esac
            family="$family ${process##*/}"
            echo "ending process ${process##*/} ($program)"
            kill -s "$signal" "${process##*/}" 2>/dev/null || true
        done
        [ -n "$family" ] || return 0
        await_end || true
    done
}

sweep_containers() {
    if ! have docker || ! docker version >/dev/null 2>&1; then return 0; fi
    # An image that somebody built from ours inherits the label: ours are those with our names too.
    docker images --no-trunc --filter label=org.roost.image --filter 'reference=roost/*' \
        --format '{{.Repository}}:{{.Tag}} {{.ID}}' >"$tmp/images" || return 0
    docker ps --all --quiet --filter label=org.roost.image | while read -r id; do
        image=$(docker inspect --format '{{.Image}}' "$id") || continue
        ! grep -q " $image\$" "$tmp/images" || docker rm --force "$id" || true
    done
    while read -r name _; do docker rmi "$name" || true; done <"$tmp/images"
}

# package_there PACKAGE: as a whole or in part; its configuration alone does not count.
package_there() {
    case $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) in
    '' | not-installed | config-files) return 1 ;;
    esac
}

# sweep_packages KIND: those of ours that nothing else needs. What apt refuses is found by note_left.
sweep_packages() {
    have dpkg-query || return 0
    owned "$1" >"$tmp/ours"
    set --
    while read -r name; do
        if [ -n "$name" ] && package_there "$name"; then set -- "$@" "$name"; fi
    done <"$tmp/ours"
    [ $# -gt 0 ] || return 0
    sort "$tmp/ours" >"$tmp/wanted"
    if ! harmless "$@"; then
        # Without those that somebody else's packages need.
        all=$*
        set --
        for name in $all; do
            if harmless "$name"; then set -- "$@" "$name"; elif [ -n "$planned" ]; then echo "$name" >>"$tmp/kept"; fi
        done
        [ $# -gt 0 ] || return 0
        if ! harmless "$@"; then
            [ -z "$planned" ] || printf '%s\n' "$@" >>"$tmp/kept"
            return 0
        fi
    fi
    apt_get --allow-change-held-packages purge "$@" || echo "apt-get: exit code $?"
}

# harmless PACKAGE...: removing them takes nothing along that is not ours ($tmp/wanted). $planned: apt could say so at all.
harmless() {
    planned=
    apt_get -s --allow-change-held-packages purge "$@" >"$tmp/plan" || return 1
    planned=yes
    sed -n 's/^\(Purg\|Remv\) \([^ ]*\) .*/\2/p' "$tmp/plan" | sort >"$tmp/going"
    [ -z "$(comm -13 "$tmp/wanted" "$tmp/going")" ]
}

sweep_paths() {
    : >"$tmp/own-state"
    owned path | sort -r | while read -r path; do
        case $path in
        */../* | */.. | / | /*/ | [!/]*) continue ;;
        "$state_dir") [ "$action" != purge ] || echo yes >"$tmp/own-state" ;;
        "$state_dir"/* | "$config_dir" | "$config_dir"/*) [ "$action" != purge ] || remove_path "$path" ;;
        */ansible | */ansible/facts.d) ! present "$path" || rmdir "$path" || true ;; # others may have put things there
        *) remove_path "$path" ;;
        esac
    done
}

remove_path() { rm -rf "$1" || printf 'path %s\n' "$1" >>"$tmp/left"; }

# forget_absent: what is gone is no longer ours; what stays can still be purged later.
forget_absent() {
    [ -e "$manifest" ] || return 0
    : >"$manifest.new" || manifest_stays
    while IFS=$tab read -r kind name; do
        case $kind in
        path) present "$name" ;;
        user | group) getent "$([ "$kind" = user ] && echo passwd || echo group)" "$name" ;;
        package | python-package) package_there "$name" ;;
        *) false ;;
        esac >/dev/null || continue
        printf '%s\t%s\n' "$kind" "$name" >>"$manifest.new" || manifest_stays
    done <"$manifest"
    mv "$manifest.new" "$manifest" || manifest_stays
}
