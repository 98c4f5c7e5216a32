"""A snapshot for which there is no room: a sentence and an exit code, no part of a file; it works again with room."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["docker://machine-1"]
FOLDER = "/var/lib/roost/snapshots"


def test_it_says_so_and_leaves_nothing_half_written(host: Host) -> None:
    done = host.run("roost fleet snapshot save")
    assert done.rc != 0
    assert "No space left" in done.stderr
    assert "fix: Make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.run(f"ls -A {FOLDER}").stdout == ""


def test_it_saves_once_there_is_room(host: Host) -> None:
    assert host.run(f"umount {FOLDER}").rc == 0
    assert host.run("roost fleet snapshot save").rc == 0
