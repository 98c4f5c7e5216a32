"""Facts of machines that were looked at, and of this one."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from roost.hosts.collect import collect
from roost.hosts.facts import facts_from
from roost.ops import dpkg
from tests.unit.hosts.machines import machine

APP = Path(__file__).resolve().parents[3] / "app"


def test_a_bare_machine_without_an_init_system() -> None:
    facts = facts_from(machine("bare-vm"))
    assert (facts.os_id, facts.debian_generation, facts.arch) == ("debian", 12, "x86_64")
    assert (facts.init, facts.cgroup_version, facts.virtualisation) == ("none", 1, "docker")
    assert {"cpu", "memory", "pids", "devices"} <= set(facts.cgroup_controllers)
    assert (facts.default_address, facts.addresses["lo"]) == ("192.0.2.2", ("127.0.0.1/8", "::1/128"))
    assert (facts.memory_total_mib, facts.memory_limit_mib) == (24105, None)
    assert facts.docker.present
    assert facts.docker.running
    assert facts.docker.version == "20.10.24"
    assert not facts.docker.ours
    assert facts.gpus == ()
    assert [listener.port for listener in facts.listeners] == sorted(p.port for p in facts.listeners)
    assert {listener.process for listener in facts.listeners} >= {"python"}


def test_a_systemd_host_with_a_memory_limit() -> None:
    facts = facts_from(machine("systemd-container"))
    assert (facts.init, facts.is_root, facts.docker.present) == ("systemd", True, False)
    assert (facts.memory_total_mib, facts.memory_limit_mib) == (1024, 1024)
    assert facts.memory_available_mib < 1024
    assert facts.default_address.startswith("172.17.")


def test_a_container_without_network_and_privileges() -> None:
    facts = facts_from(machine("agent-container"))
    assert (facts.is_root, facts.default_address, facts.listeners) == (False, "", ())
    assert facts.own_addresses() == {"127.0.0.1"}


def test_cgroup_version_2() -> None:
    raw = machine("bare-vm")
    files = {**raw.files, "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"}
    facts = facts_from(dataclasses.replace(raw, files=files, memory_limits=("2147483648 1073741824",)))
    assert (facts.cgroup_version, facts.cgroup_controllers) == (2, ("cpu", "cpuset", "io", "memory", "pids"))
    assert (facts.memory_total_mib, facts.memory_available_mib) == (2048, 1024)


def test_a_machine_with_ipv6_only() -> None:
    raw = machine("bare-vm")
    route = (
        f"{'0' * 32} 00 {'0' * 32} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n"
    )
    files = {**raw.files, "/proc/net/route": "Iface\n", "/proc/net/ipv6_route": route}
    assert facts_from(dataclasses.replace(raw, files=files)).default_address == "fd00::2"


def test_nothing_known_is_no_crash() -> None:
    facts = facts_from(dataclasses.replace(machine("bare-vm"), files={}, asked={}, netlink=b"", present=()))
    assert (facts.os_id, facts.memory_total_mib, facts.init, facts.cgroup_version) == ("", 0, "none", 0)


@pytest.mark.parametrize(
    ("recorded", "status", "ours"),
    [
        ("docker.io", "install ok installed", True),
        ("docker.io", "install ok half-configured", True),
        ("docker.io", "deinstall ok config-files", False),
        ("nftables", "install ok installed", False),
    ],
)
def test_docker_is_ours_where_its_package_was_recorded_and_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, status: str, *, ours: bool
) -> None:
    (tmp_path / "manifest").write_text(f"path\t/opt/roost\npackage\t{recorded}\n")
    (tmp_path / "status").write_text(f"Package: docker.io\nStatus: {status}\nVersion: 20.10\n")
    monkeypatch.setattr(dpkg, "STATUS", tmp_path / "status")
    assert collect(manifest=tmp_path / "manifest").docker.ours is ours


def test_this_machine(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest"
    manifest.write_text("path\t/opt/roost\n")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        facts = collect([tmp_path / "not" / "there", tmp_path], manifest=manifest)
        mine = [listener for listener in facts.listeners if listener.port == server.getsockname()[1]]
    assert [(listener.address, listener.pid) for listener in mine] == [("127.0.0.1", os.getpid())]
    assert not facts.docker.ours
    assert "127.0.0.1" in facts.own_addresses()
    assert facts.memory_total_mib > facts.memory_available_mib > 0
    assert len({disk.device for disk in facts.disks}) == 1
    assert {disk.filesystem for disk in facts.disks} != {""}
    assert facts.cpu.isa.startswith(("x86-64-v", "armv8", "armv9"))
    assert 1 <= facts.cpu.physical_cores <= (os.cpu_count() or 1)
    assert facts.cpu.sockets >= 1
    assert facts.cpu_cores <= len(os.sched_getaffinity(0))
    assert not (tmp_path / "not").exists()
    json.dumps(facts.as_dict())


def test_the_collector_needs_the_standard_library_only() -> None:
    code = (
        "import sys; from roost.hosts.collect import collect; collect();"
        "from roost.hosts import preflight, registries, findings;"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env={"PYTHONPATH": str(APP)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(done.stdout.replace("'", '"'))) <= {"__main__", "roost"}
