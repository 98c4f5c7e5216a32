"""What the playbook brought to one machine, seen from the machine."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["docker://machine-1"]


def test_docker_runs_and_starts_at_boot(host: Host) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_nomad_runs(host: Host) -> None:
    assert host.service("roost-nomad").is_running
