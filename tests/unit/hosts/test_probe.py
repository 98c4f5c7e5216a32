"""A machine looked at by a shell is the machine that Python sees."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from roost.hosts.collect import collect
from roost.hosts.preflight import check
from roost.hosts.preflight_wishes import wishes_from
from roost.hosts.probe import Probed, read, script
from roost.ops.errors import RoostError
from roost.ops.variables import load_variables

ROOT = Path(__file__).parents[3]


def probed(*paths: Path, site: str = "/nowhere") -> tuple[Probed, str]:
    text = script([str(p) for p in paths], site, ask_apt=False)
    done = subprocess.run(
        [shutil.which("dash") or "sh", "-c", text], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return read(done.stdout), done.stderr


def test_it_sees_what_python_sees(tmp_path: Path) -> None:
    later = tmp_path / "later" / "still"
    seen, said = probed(later)
    facts = collect([later])
    for name in ("hostname", "os_id", "os_name", "debian_generation", "arch", "kernel", "init", "is_root", "cpu_cores",
                 "cgroup_version", "cgroup_controllers", "cgroup_writable", "memory_total_mib", "package_managers",
                 "gpus", "clock_floor"):  # fmt: skip
        mine, theirs = getattr(seen.facts, name), getattr(facts, name)
        assert mine == theirs or (name == "clock_floor" and abs(mine - theirs) < 1), name
    assert abs(seen.facts.clock - facts.clock) < 30
    (mine,), (theirs,) = seen.facts.disks, facts.disks
    assert (mine.path, mine.device, mine.writable) == (theirs.path, theirs.device, theirs.writable)
    # Others write and remove meanwhile.
    assert abs(mine.free_mib - theirs.free_mib) < max(200, theirs.free_mib // 4)
    assert {a for a in facts.own_addresses() if "." in a and a != "127.0.0.1"} <= seen.facts.own_addresses()
    assert not list(tmp_path.iterdir())
    assert not seen.installed
    assert said == ""


def test_who_listens_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        seen, _ = probed(tmp_path)
    found = next(one for one in seen.facts.listeners if one.port == port)
    assert found.pid == os.getpid()


def test_an_installation_is_seen(tmp_path: Path) -> None:
    (tmp_path / "site.json").touch()
    assert probed(tmp_path, site=str(tmp_path / "site.json"))[0].installed


def test_what_was_cut_off_is_said() -> None:
    with pytest.raises(RoostError, match="broke off"):
        read("\n== uname\none\n6.1\nx86_64\n")


def test_wishes_are_those_of_the_defaults() -> None:
    variables = load_variables(ROOT, ROOT / "nothing.yaml")
    wishes = wishes_from(variables, installed=False, here="192.0.2.7")
    assert {(p.variable, p.port, p.address) for p in wishes.ports} == {
        ("nomad_http_port", 4646, "127.0.0.1"),
        ("nomad_rpc_port", 4647, "192.0.2.7"),
        ("nomad_serf_port", 4648, "192.0.2.7"),
        ("api_port", 8360, "127.0.0.1"),
    }
    assert wishes.disks == {"/var/lib/roost": 4000, "/var/cache/roost": 1000}
    later = wishes_from({**variables, "monitoring": "true"}, installed=True, here="")
    assert later.disks == {"/var/lib/roost": 400, "/var/cache/roost": 100}
    assert ("monitoring_port", "127.0.0.1") in {(p.variable, p.address) for p in later.ports}
    assert ("nomad_rpc_port", "127.0.0.1") in {(p.variable, p.address) for p in later.ports}


def test_it_is_enough_for_preflight(tmp_path: Path) -> None:
    variables = {**load_variables(ROOT, ROOT / "nothing.yaml"), "preflight_min_memory_mib": 1 << 30}
    seen, _ = probed(tmp_path)
    found = check(seen.facts, wishes_from(variables, installed=False, here=seen.facts.default_address))
    assert "memory" in {one.id for one in found}
