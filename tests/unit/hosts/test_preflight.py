"""What stands in the way of an installation."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from roost.hosts.facts import Disk, Docker, HostFacts, Listener, facts_from
from roost.hosts.findings import Finding, as_text, errors, table
from roost.hosts.gpu_nvidia import Nvidia
from roost.hosts.gpus import Gpu
from roost.hosts.preflight import PortWish, Wishes, check
from tests.unit.hosts.machines import machine

API = PortWish("api_port", 8360, "127.0.0.1")
NOMAD = Listener("127.0.0.1", 4646, 77, "nomad", "/opt/roost/bin/nomad agent -config /etc/roost/nomad.d")
EVERYWHERE = str(ipaddress.IPv4Address(0))
NO_WISHES = Wishes()


def good() -> HostFacts:
    """Return a machine on which nothing stands in the way."""
    facts = facts_from(machine("systemd-container"))
    return dataclasses.replace(facts, memory_total_mib=8000, memory_available_mib=7000, listeners=())


def ids(facts: HostFacts, wishes: Wishes = NO_WISHES, said: dict[str, str] | None = None) -> list[str]:
    return [f"{finding.severity} {finding.id}" for finding in check(facts, wishes, said)]


def test_a_good_machine_has_no_findings() -> None:
    wishes = Wishes(min_memory_mib=1500, disks={"/var/lib/roost": 4000}, ports=[API], docker_min_version="20.10")
    assert ids(good(), wishes, {"apt": "", "pip": ""}) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"is_root": False}, ["error root"]),
        ({"arch": "riscv64"}, ["error arch"]),
        ({"arch": "aarch64"}, []),
        ({"debian_generation": 11}, ["error os"]),
        ({"debian_generation": 13}, []),
        ({"debian_generation": None}, ["warning os"]),
        ({"package_managers": ("dnf",), "os_name": "Fedora Linux 41"}, ["error os"]),
        ({"package_managers": ()}, ["error os"]),
        ({"init": "none"}, ["warning init"]),
        ({"init": "sysvinit"}, []),
        ({"memory_total_mib": 900}, ["error memory"]),
        ({"memory_available_mib": 900}, ["warning memory"]),
        ({"memory_available_mib": 900, "listeners": (NOMAD,)}, []),
        ({"cgroup_version": 0, "cgroup_controllers": ()}, ["error cgroups"]),
        ({"cgroup_controllers": ("cpu",)}, ["error cgroups"]),
        ({"cgroup_writable": False}, ["error cgroups"]),
        ({"cgroup_version": 0, "docker": Docker(present=True, running=True, version="27.1.2")}, []),
        ({"docker": Docker(present=True, version="19.3.1")}, ["error docker"]),
        ({"clock": 0.0}, ["error clock"]),
        ({"clock": 4e9}, ["warning clock"]),
    ],
)
def test_each_check(change: dict[str, Any], found: list[str]) -> None:
    wishes = Wishes(min_memory_mib=1500, our_paths=["/opt/roost"], docker_min_version="20.10")
    assert ids(dataclasses.replace(good(), **change), wishes) == found


def test_local_runtime_needs_neither_cgroups_nor_docker() -> None:
    facts = dataclasses.replace(good(), cgroup_version=0, docker=Docker(present=True, version="1.0"))
    assert ids(facts, Wishes(runtime="local", docker_min_version="20.10")) == []


@pytest.mark.parametrize(
    ("listener", "taken"),
    [
        (Listener("127.0.0.1", 8360, 5, "nginx", "nginx: master process"), True),
        (Listener(EVERYWHERE, 8360, 5, "nginx", "nginx: master process"), True),
        (Listener("::", 8360), True),
        (Listener("192.0.2.7", 8360, 5, "nginx", "nginx"), False),
        (Listener("127.0.0.1", 8361, 5, "nginx", "nginx"), False),
        (Listener("127.0.0.1", 8360, 5, "python3", "python3 -P -m roost serve"), False),
        (Listener("127.0.0.1", 8360, 5, "python3", "/usr/bin/python3 -m roost.cli.serve"), False),
        (Listener("127.0.0.1", 8360, 5, "python3", "/opt/roost/venvs/ab/bin/python -m thing"), False),
        (Listener("127.0.0.1", 8360, 5, "python3", "/opt/roostery/bin/python"), True),
        (Listener("127.0.0.1", 8360, uid=8361), False),
        (Listener("127.0.0.1", 8360, uid=1000), True),
    ],
)
def test_ports(listener: Listener, *, taken: bool) -> None:
    facts = dataclasses.replace(good(), listeners=(listener,))
    found = check(facts, Wishes(ports=[API], our_paths=["/opt/roost", "/var/lib/roost"], our_uids=[8361]))
    assert bool(found) is taken
    if taken and listener.pid:
        assert "nginx (process 5" in found[0].what or "python3 (process 5" in found[0].what


def test_needs_on_one_disk_are_added_up() -> None:
    disks = (Disk("/a", 1, 9000, 3000, writable=True), Disk("/b", 1, 9000, 3000, writable=True),
             Disk("/c", 2, 9000, 3000, writable=False))  # fmt: skip
    facts = dataclasses.replace(good(), disks=disks)
    assert ids(facts, Wishes(disks={"/a": 2000})) == []
    assert ids(facts, Wishes(disks={"/a": 2000, "/b": 1500})) == ["error disk:/a"]
    assert ids(facts, Wishes(disks={"/c": 1})) == ["error disk:/c"]


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("172.17.0.3", []),
        ("10.9.8.7", ["error listen"]),
        ("example", ["error listen"]),
        ("8.8.4.4", ["warning listen"]),
        (EVERYWHERE, ["error listen"]),
    ],
)
def test_listen_address(address: str, found: list[str]) -> None:
    facts = dataclasses.replace(good(), addresses={"eth0": ("172.17.0.3/16", "8.8.4.4/24", "fe80::1/64")})
    assert ids(facts, Wishes(listen_address=address)) == found
    if found == ["error listen"]:
        assert "Use one of: 172.17.0.3, 8.8.4.4." in check(facts, Wishes(listen_address=address))[0].fix


def test_with_several_gateways_an_address_that_holds_for_all_machines_is_not_replaced_by_another() -> None:
    found = check(good(), Wishes(listen_address="10.9.8.7", gateways=True))
    assert [finding.id for finding in found if finding.severity == "error"] == ["listen"]
    assert "{{ node_address }}" in found[0].fix
    assert "--set api_listen_address=" in found[0].fix
    assert "Use one of" not in found[0].fix


def test_registries_count_online_only() -> None:
    said = {"apt": "E: no route", "pip": ""}
    assert ids(good(), Wishes(), said) == ["error registry:apt"]
    assert ids(good(), Wishes(offline=True), said) == []


def test_everything_comes_at_once_and_reads_well() -> None:
    facts = dataclasses.replace(good(), is_root=False, arch="i686", memory_total_mib=256, init="none")
    found: Sequence[Finding] = check(facts, Wishes(min_memory_mib=1500))
    assert [f.id for f in errors(found)] == ["root", "arch", "memory"]
    text = as_text(found)
    assert text.index("error: This machine has 256 MiB") < text.index("warning: ")
    assert text.count("    why: ") == text.count("    fix: ") == 4


def test_the_compiled_engine_needs_no_containers() -> None:
    assert ids(good(), Wishes(engine="llama-cpp-python")) == ["error engine"]
    assert ids(good(), Wishes(runtime="local", engine="llama-cpp-python")) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(EVERYWHERE, "192.0.2.1", True), ("127.0.0.1", "", False), ("127.0.0.1", "nonsense", False), ("::", "", True)],
)
def test_what_is_no_address_is_in_nobodys_way(one: str, other: str, same: bool) -> None:
    facts = dataclasses.replace(facts_from(machine("bare-vm")), listeners=(Listener(one, 4647, 1, "x", "x"),))
    found = check(facts, Wishes(ports=[PortWish("nomad_rpc_port", 4647, other)]))
    assert bool([f for f in found if f.id == "port:4647"]) is same


@pytest.mark.parametrize(
    ("kernel", "found"),
    [("6.1.0-18-amd64", []), ("5.4.0", ["warning kernel"]), ("3.2.0-4-amd64", ["error kernel"]), ("odd", [])],
)
def test_kernels(kernel: str, found: list[str]) -> None:
    assert ids(dataclasses.replace(good(), kernel=kernel)) == found


@pytest.mark.parametrize(
    ("apart", "found"), [(0, []), (-5, []), (60, ["warning clock-apart"]), (-4000, ["error clock-apart"])]
)
def test_a_clock_apart_from_the_controller(apart: float, found: list[str]) -> None:
    facts = good()
    said = check(facts, NO_WISHES, clock_here=facts.clock + apart)
    assert [f"{f.severity} {f.id}" for f in said] == found


def test_names_that_cannot_be_resolved() -> None:
    assert [f.id for f in check(good(), NO_WISHES, unresolved=["deb.example"])] == ["dns"]
    assert check(good(), Wishes(offline=True), unresolved=["deb.example"]) == []


def card(*, driver: str = "nvidia", memory_mib: int = 24564) -> Gpu:
    return Gpu("0000:01:00.0", "NVIDIA", "RTX 4090", driver, memory_mib)


def test_a_card_needs_its_driver_and_docker_a_way_to_it() -> None:
    docker = Docker(present=True, running=True, version="27.1.2")
    facts = dataclasses.replace(good(), gpus=(card(),), docker=docker)
    assert ids(facts) == ["warning gpu-runtime"]
    assert ids(facts, Wishes(runtime="local")) == []
    served = dataclasses.replace(facts, docker=dataclasses.replace(docker, runtimes=("nvidia", "runc")))
    assert ids(served) == []
    assert ids(dataclasses.replace(served, gpus=(card(driver="nouveau", memory_mib=0),))) == [
        "warning gpu-driver:0000:01:00.0"
    ]
    old = dataclasses.replace(served, nvidia=Nvidia("390.157", "9.1", (), ""))
    assert ids(old) == ["warning nvidia:cuda"]
    broken = dataclasses.replace(served, nvidia=Nvidia("535.1", "", (12,), "The library is of another version."))
    assert ids(broken) == ["warning nvidia"]


def test_six_faults_are_six_findings() -> None:
    """The host of the requirement: everything at once, each with its fix."""
    faults = dataclasses.replace(
        good(), debian_generation=11, memory_total_mib=900, clock=0.0, cgroup_version=0, cgroup_controllers=(),
        disks=(Disk("/var/lib/roost", 1, 4000, 10, writable=True),),
        listeners=(Listener("127.0.0.1", 8360, 5, "nginx", "nginx: master process"),),
    )  # fmt: skip
    found = check(faults, Wishes(min_memory_mib=1500, disks={"/var/lib/roost": 4000}, ports=[API]))
    assert sorted(f.id for f in found) == ["cgroups", "clock", "disk:/var/lib/roost", "memory", "os", "port:8360"]
    assert all(f.severity == "error" and f.fix and f.why for f in found)


def test_many_machines_are_one_table() -> None:
    bad, doubt = Finding("a", "error", "Bad.", "w", "f"), Finding("b", "warning", "Doubtful.", "w", "f")
    text = table({"one": [doubt], "two": [bad], "three": [bad, doubt]})
    first, *rest = text.splitlines()
    assert first.startswith("two, three  error: Bad.")
    assert any(line.startswith("one, three  warning: Doubtful.") for line in rest)
    assert table({"one": [bad]}) == as_text([bad])
