#!/bin/sh
# Ends the containers of Nomad's jobs when a machine goes down, while Docker still runs. By itself Docker leaves them
# running (live-restore) for the last step of a shutdown, which signals every process: one below a container's init gets
# the signal twice, and llama-server has been seen to hang then (its handler calls exit at the second one, in the middle
# of the first one's end). The machine waits 90 s for it. Docker signals a container once and kills what stays.
# Usage: stop_containers.sh GRACE_S      how long they have
set -eu
export DOCKER_CONFIG=/nonexistent # root's own is hidden from a confined service, which docker would complain of

# A service that is begun anew, taken away or stopped by hand takes nothing with it. Whether the machine goes down is a
# matter of what systemd has to do: it calls itself "starting" as long as a boot is not done, also while it stops.
systemctl list-jobs --no-legend shutdown.target | grep -q shutdown.target || exit 0
running=$(docker ps --quiet --filter label=com.hashicorp.nomad.alloc_id)
[ -n "$running" ] || exit 0
echo "$running" | xargs docker stop -t "$1" >/dev/null
echo "$(echo "$running" | wc -l) containers ended before Docker."
