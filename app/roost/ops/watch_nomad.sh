#!/bin/sh
# Has Nomad begin anew where it would be refused for ever. Its node's identity is good for a day of the wall clock and is
# renewed by heartbeats, as long as it holds (Nomad 1.11). Where the clock was set, the machine slept, no server was to be
# had for a day, or the servers lost their keys, every heartbeat is refused from then on; a Nomad that starts asks for
# another identity, and what runs under it goes on.
# Usage: watch_nomad.sh SERVICE LOG      LOG is where its lines are without a journal
set -eu
service=$1
log=$2
tick=5        # s between two looks at the clock
jump=3600     # s that it may be off then: sooner than Nomad's servers miss the machine
look=12       # ticks between two looks at what Nomad says
refusals=3    # heartbeats that were refused
within=300    # s
lines=1000    # of the log, the last ones: more than Nomad says in that time
rest=120      # ticks after it began anew for which nothing it says counts

nap() {
    sleep "$1" &
    wait "$!"
}

said() {
    if [ -s "$log" ]; then tail -n "$lines" "$log"; else journalctl --quiet --unit "$service" --output cat --lines "$lines"; fi
}

# refused: how many heartbeats were refused lately. Each line of Nomad begins with its time, in UTC; where the clock went
# back, some are of the future.
refused() {
    said | awk -v since="$(utc "-$within")" -v until="$(utc "+$tick")" '
        $1 >= since && $1 <= until && /error heartbeating/ && /Permission denied/ { n++ }
        END { print n + 0 }'
}

utc() {
    date -u -d "$1 seconds" +%Y-%m-%dT%H:%M:%S
}

trap 'kill "$!" 2>/dev/null || true; exit 0' TERM INT
ticks=0
why=
while :; do
    before=$(date +%s)
    nap "$tick"
    off=$(($(date +%s) - before - tick))
    ticks=$((ticks + 1))
    if [ "$off" -gt "$jump" ] || [ "$off" -lt "-$jump" ]; then
        why="The clock was set by $off s, or the machine slept"
    elif [ -z "$why" ] && [ "$ticks" -ge "$look" ]; then
        ticks=0
        count=$(refused)
        [ "$count" -lt "$refusals" ] || why="Nomad's servers refused $count heartbeats in $within s"
    fi
    [ -n "$why" ] || continue
    echo "$why: $service begins anew."
    if service "$service" restart </dev/null; then
        why=
        ticks=-$rest
    else
        echo "It could not be restarted: tried again in $tick s."
    fi
done
