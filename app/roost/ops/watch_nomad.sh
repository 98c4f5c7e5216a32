#!/bin/sh
# Has Nomad begin anew where it would be refused for ever. Its node's identity is good for a day of the wall clock and is
# renewed by heartbeats, as long as it holds (Nomad 1.11). Where the clock was set, the machine slept, no server was to be
# had for a day, or the servers lost their keys, every heartbeat is refused from then on; a Nomad that starts asks for
# another identity. Why, and what else was looked at: docs/decisions/0032-nomad-and-the-clock.md
# Usage: watch_nomad.sh SERVICE LOG      LOG is where its lines are without systemd
set -eu
service=$1
log=$2
tick=5        # s between two looks at the clock
jump=3600     # s that it may be off then: sooner than Nomad's servers miss the machine
look=12       # ticks between two looks at what Nomad says, and between two tries to restart it
refusals=3    # heartbeats that were refused, with no registration after them
within=300    # s
lines=1000    # of the log, the last ones: more than Nomad says in that time
rest=120      # ticks after it began anew for which nothing it says counts; twice as many each time that did not help
longest=720
own=$(($(uname -n | cksum | cut -d ' ' -f 1) % 60)) # s that this machine waits before others' turn is its own

pause=
nap() {
    sleep "$1" &
    pause=$!
    wait "$pause"
}

said() {
    if [ -d /run/systemd/system ]; then
        journalctl --quiet --unit "$service" --output cat --lines "$lines" _COMM=nomad
    else
        tail -n "$lines" "$log" 2>/dev/null
    fi
}

# refused: how many heartbeats were refused lately. Each line of Nomad begins with its time, the machine's own, and its
# level; where the clock went back, some are of the future.
refused() {
    said | awk -v since="$(at "-$within")" -v until="$(at "+$tick")" '
        $1 < since || substr($1, 1, length(until)) > until { next }
        $2 == "[INFO]" && $3 == "client:" && $4 " " $5 " " $6 == "node registration complete" { n = 0 }
        $2 == "[ERROR]" && $3 == "client:" && $4 == "error" && $5 == "heartbeating." && /Permission denied/ { n++ }
        END { print n + 0 }'
}

at() {
    date -d "$1 seconds" +%Y-%m-%dT%H:%M:%S
}

trap 'kill "$pause" 2>/dev/null || true; exit 0' TERM INT
ticks=0
still=$rest
why=
before=$(date +%s)
while :; do
    nap "$tick"
    now=$(date +%s)
    off=$((now - before - tick))
    before=$now
    ticks=$((ticks + 1))
    if [ "$off" -gt "$jump" ] || [ "$off" -lt "-$jump" ]; then
        why="The clock was set by $off s, or the machine slept"
        still=$rest
        ticks=$look
    elif [ -z "$why" ] && [ "$ticks" -ge "$look" ]; then
        count=$(refused)
        if [ "$count" -ge "$refusals" ]; then
            # Servers that lost their keys refuse all machines at once: not all begin anew in the same moment.
            nap "$own"
            count=$(refused)
        fi
        if [ "$count" -ge "$refusals" ]; then
            why="Nomad's servers refused $count heartbeats in $within s"
        else
            ticks=0
            still=$rest
        fi
    fi
    if [ -z "$why" ] || [ "$ticks" -lt "$look" ]; then continue; fi
    ticks=0
    if ! service "$service" status >/dev/null 2>&1; then
        why= # somebody stopped it
    elif echo "$why: $service begins anew." && service "$service" restart </dev/null; then
        case $why in
        *refused*)
            ticks=-$still
            still=$((still * 2 > longest ? longest : still * 2))
            ;;
        *) ticks=-$rest ;;
        esac
        why=
    else
        echo "It could not be restarted: tried again in $((tick * look)) s."
    fi
done
