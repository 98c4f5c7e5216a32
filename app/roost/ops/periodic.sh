#!/bin/sh
# Runs a command whenever no file of a folder is younger than so many minutes: for services that have something to do now
# and then, under every init system. A restart does nothing that is not due. What fails is tried again after half a minute.
# Usage: periodic.sh MINUTES FOLDER PATTERN COMMAND...
set -eu
minutes=$1
folder=$2
pattern=$3
shift 3

nap() {
    sleep "$1" &
    wait "$!"
}

trap 'kill "$!" 2>/dev/null || true; exit 0' TERM INT
while :; do
    pause=300
    # A file of the future is of before the clock was set back, and says nothing.
    if [ -z "$(find "$folder" -maxdepth 1 -name "$pattern" -mmin "-$minutes" ! -mmin -0 2>/dev/null)" ]; then
        "$@" </dev/null || pause=30
    fi
    nap "$pause"
done
