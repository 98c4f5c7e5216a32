#!/bin/sh
# Ends the containers of Nomad's jobs when a machine goes down, while Docker still runs. By itself Docker leaves them
# running (live-restore) for the last step of a shutdown, which signals every process: one below a container's init gets
# the signal twice, and llama-server has been seen to hang then (its handler calls exit at the second one, in the middle
# of the first one's end). The machine waits 90 s for it. Docker signals a container once and kills what stays.
# Usage: stop_containers.sh GRACE_S      how long they have
set -eu
grace=$1
export DOCKER_CONFIG=/nonexistent # root's own may name another machine's Docker
limit=$((grace + 15)) # s for Docker's answer: one that hangs keeps no machine from going down

# A service of systemd that ends since it is taken away, or by hand, takes nothing with it.
[ "$(systemctl is-system-running)" = stopping ] || exit 0
running=$(timeout "$limit" docker ps --quiet --filter label=com.hashicorp.nomad.alloc_id)
[ -n "$running" ] || exit 0
# shellcheck disable=SC2086  # one word per container
timeout "$limit" docker stop -t "$grace" $running >/dev/null
echo "$(echo "$running" | wc -l) containers ended before Docker."
