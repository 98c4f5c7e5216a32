"""What a stranger on the network reaches of a machine that closes every port: what the inventory names, and SSH."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import testinfra
from testinfra.host import Host
from tests.hosts import probe
from tests.hosts.scenario import Scenario

SSH = 22
PUBLISHED, FOR_OTHERS, NOT_NAMED = 8088, 8089, 8090
PROGRAM = 8091


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    host = testinfra.get_host("docker://machine-1")
    probe.publish(host, PUBLISHED, FOR_OTHERS, NOT_NAMED)
    probe.listen(host, PROGRAM)
    yield host
    probe.end(host, PROGRAM)


@pytest.fixture(scope="module")
def stranger() -> Host:
    return testinfra.get_host("docker://stranger-1")


def test_only_what_is_named_answers_programs_and_containers_alike(machine: Host, stranger: Host) -> None:
    for port in (PUBLISHED, FOR_OTHERS, NOT_NAMED, PROGRAM):
        assert probe.answers(machine, "127.0.0.1", port), f"nothing is at {port} that could be closed"
    assert probe.open_ports(stranger, machine, Scenario(os.environ).address("machine-1")) == {SSH, PUBLISHED}


def test_a_container_is_not_reached_behind_dockers_back(machine: Host, stranger: Host) -> None:
    inside = machine.check_output(
        "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' %s", probe.NAME
    )
    assert probe.answers(machine, inside, 80)
    stranger.check_output(f"ip route replace {inside}/32 via {Scenario(os.environ).address('machine-1')}")
    assert not probe.answers(stranger, inside, 80)


def test_ipv6_is_no_way_around(machine: Host, stranger: Host) -> None:
    address = probe.link_local(machine)
    probe.link_local(stranger)
    assert probe.answers(stranger, f"{address}%eth0", SSH), "IPv6 does not work here, so this shows nothing"
    assert not probe.answers(stranger, f"{address}%eth0", PROGRAM)
    assert not probe.answers(stranger, f"{address}%eth0", NOT_NAMED)


def test_a_container_still_reaches_others(machine: Host, stranger: Host) -> None:
    probe.listen(stranger, PROGRAM)
    program = "IO::Socket::INET->new(PeerAddr => shift, PeerPort => shift, Timeout => 5) or die"
    where = f"{Scenario(os.environ).address('stranger-1')} {PROGRAM}"
    machine.check_output(f"docker exec {probe.NAME} perl -MIO::Socket::INET -e '{program}' {where}")
