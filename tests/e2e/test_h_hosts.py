"""The disposable hosts themselves: they boot, reboot, reach the network or do not, and run Docker inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts import host as hosts
from tests.hosts.docker import LABEL, sweep
from tests.hosts.host import Host, Kind, lan, running
from tests.hosts.snapshot import compare


@pytest.mark.parametrize(
    ("kind", "init"),
    [(hosts.SYSTEMD, "systemd"), (hosts.SYSV, "init"), (hosts.BARE, "sh")],
    ids=["systemd", "sysv", "bare"],
)
def test_a_host_boots_and_reboots_unchanged(cache: Path, kind: Kind, init: str) -> None:
    with lan("self") as net, running(Host.start(kind, "self", lan=net, cache=cache)) as host:
        assert host.exec("cat /proc/1/comm").out.strip() == init
        assert host.exec("command -v docker python3", check=False).out == ""
        before = host.snapshot()
        host.reboot()
        assert host.exec("ip -4 -o addr show eth0").out.split()[3] == f"{host.address}/24"
        assert not (difference := compare(before, host.snapshot())), str(difference)
        host.exec("useradd stranger; touch /etc/left-over; sed -i 's/^#//' /etc/sysctl.conf")
        difference = compare(before, host.snapshot())
        assert "file: /etc/left-over" in difference.added
        assert any(line.startswith("users: stranger:") for line in difference.added)
        assert any(line.startswith("file: /etc/sysctl.conf:") for line in difference.changed)


def test_hosts_of_a_network_meet_and_a_cut_one_reaches_nothing(cache: Path, repository: Path) -> None:
    with (
        lan("cut", internal=True) as net,
        running(Host.start(hosts.BARE, "left", lan=net, number=10, cache=cache)) as left,
        running(Host.start(hosts.NEIGHBOUR, "right", lan=net, number=20, cache=cache)) as right,
    ):
        right.copy_clone(repository)
        left.occupy(8000, left.address)
        left.occupy(8001)
        assert right.exec(f"python3 {hosts.CLONE}/tests/hosts/scan.py {left.address}").out == "[8000]"
        assert "Err:" in left.exec("apt-get -o Acquire::Retries=0 update 2>&1", check=False).text


def test_docker_works_inside(cache: Path) -> None:
    with lan("inner") as net, running(Host.start(hosts.SYSTEMD, "inner", lan=net, cache=cache)) as host:
        host.exec("apt-get -q update && apt-get -q -y install --no-install-recommends docker.io iptables")
        host.exec("tar -C / -c bin sbin lib lib64 usr/bin usr/lib64 usr/lib/x86_64-linux-gnu | docker import - own:1")
        driver = host.exec("docker info --format '{{.Driver}}'").out.strip()
        assert driver == "overlay2"
        shown = host.exec("docker run --rm --network host --read-only --memory 64m --user 65534 own:1 id -u").out
        assert shown.strip() == "65534"


def test_a_closed_host_leaves_nothing_for_the_sweep() -> None:
    assert sweep(LABEL) == []
