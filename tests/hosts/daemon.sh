#!/bin/sh
# Runs dockerd alone in namespaces made by tests/lib.sh: own mounts, processes and network, so that nothing of the
# machine changes and a Docker it already has never meets our iptables rules. Usage: daemon.sh DATA_ROOT RUN_DIR
set -eu
data=$1
run=$2

mount -t proc proc /proc
ip link set lo up
# slirp4netns answers DNS on this address with the machine's own resolver, whatever that is.
echo 'nameserver 10.0.2.3' >"$run/resolv.conf"
mount --bind "$run/resolv.conf" /etc/resolv.conf
# Blocks until slirp4netns has brought the only link up (the caller writes a line then).
read -r _ <"$run/network-up"
echo 1 >/proc/sys/net/ipv4/ip_forward

dockerd --data-root "$data" --exec-root "$run/exec" --pidfile "$run/docker.pid" --host "unix://$run/docker.sock" \
    --bridge none --cgroup-parent roost-test --log-level warn >"$run/dockerd.log" 2>&1 &
dockerd=$!
trap 'kill "$dockerd"; wait "$dockerd" || true; exit 0' TERM INT
wait "$dockerd"
