"""The report, what is remembered for it, and the collector that is sent to nodes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from roost.hosts import report
from roost.hosts.bandwidth import BUSY_NOTE, Bandwidth
from roost.hosts.collector_zip import OLDEST_PYTHON, PACKAGE, pack
from roost.hosts.facts import HostFacts, facts_from
from roost.hosts.node_meta import node_meta
from roost.hosts.remembered import faster, keep, recall
from roost.hosts.tiers import tier_of
from roost.ops.errors import RoostError
from tests.unit.hosts.records import names, record

SLOW = Bandwidth(10.0, 2, 64, 0.6, "2 processes")
FAST = replace(SLOW, gbs=30.0)
SLOW_AND_BUSY = replace(SLOW, busy=True)


def oldest_python() -> str:
    """Return the oldest Python of this machine that the collector is for; mostly it is the one that runs the tests."""
    places = [Path("/usr/bin"), Path("/usr/local/bin"), *Path.home().glob(".pyenv/versions/3.*/bin")]
    found = {
        int(version[1]): str(path)
        for place in places
        for path in place.glob("python3.*")
        if (version := re.fullmatch(r"python3\.(\d+)", path.name)) and int(version[1]) >= OLDEST_PYTHON[1]
    }
    return found[min(found)] if found else sys.executable


def facts() -> HostFacts:
    return facts_from(record("recorded-vm"))


def test_what_was_measured_is_remembered_for_this_machine_alone(tmp_path: Path) -> None:
    kept = tmp_path / "bandwidth.json"
    assert recall(kept, facts()) is None
    keep(kept, facts(), FAST)
    assert recall(kept, facts()) == FAST
    assert recall(kept, replace(facts(), memory_total_mib=facts().memory_total_mib + 3)) == FAST  # another kernel
    assert recall(kept, replace(facts(), cpu_cores=64)) is None
    assert recall(kept, replace(facts(), memory_total_mib=4096)) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"bandwidth": {"gbs": 1}}', '{"machine": 1, "bandwidth": []}'])
def test_what_cannot_be_read_was_never_measured(tmp_path: Path, content: str) -> None:
    (tmp_path / "kept").write_text(content)
    assert recall(tmp_path / "kept", facts()) is None


def test_the_faster_result_counts() -> None:
    assert faster(SLOW, FAST) == faster(FAST, SLOW) == FAST
    assert faster(None, SLOW) == SLOW
    assert faster(None, None) is None
    busy = replace(FAST, measured=FAST.measured + BUSY_NOTE, busy=True)
    assert faster(None, busy) == faster(SLOW_AND_BUSY, busy) == busy
    assert faster(SLOW, busy) == faster(busy, SLOW) == FAST, "the quiet one says that it is not much faster"
    assert faster(FAST, SLOW_AND_BUSY) == FAST


def test_a_probe_comes_only_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def slow(cores: int, *_: int) -> Bandwidth:
        asked.append(cores)
        return SLOW

    monkeypatch.setattr(report, "probe", slow)
    kept = tmp_path / "bandwidth.json"
    assert report.look(bandwidth_file=kept).bandwidth is None
    found = report.look(bandwidth_file=kept, measure_once=True)
    assert (found.bandwidth, len(asked), kept.exists()) == (SLOW, 1, False)
    keep(kept, found.facts, FAST)
    assert report.look(bandwidth_file=kept, measure_once=True).bandwidth == FAST
    assert len(asked) == 1
    assert report.look(bandwidth_file=kept, measure=True).bandwidth == FAST  # this time it was busier
    assert len(asked) == 2


def test_the_measured_bandwidth_decides_the_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "probe", lambda *_: replace(SLOW, gbs=0.5))
    assert "0 GB/s (measured)" in report.look(measure=True).tier.reason


@pytest.mark.parametrize("name", names())
def test_nomad_can_be_told_of_every_machine(name: str) -> None:
    found = facts_from(record(name))
    told = node_meta(found, tier_of(found), FAST)
    assert list(told) == sorted(told)
    assert all(re.fullmatch(r"roost_[a-z_]+", key) for key in told)
    assert all(value and value.isprintable() and not set(value) & set('"\\${}') for value in told.values())
    assert (told["roost_tier"], told["roost_bandwidth_gbs"]) == (tier_of(found).name, "30")


def test_what_nomad_is_told() -> None:
    found = facts_from(record("nvidia-2x4090"))
    told = node_meta(found, tier_of(found))
    assert told["roost_gpus"].count("RTX 4090") == 2
    assert (told["roost_gpu_count"], told["roost_gpu_memory_gib"], told["roost_gpu_vendors"]) == ("2", "24", "NVIDIA")
    assert told["roost_memory_gib"] == str(round(found.memory_total_mib / 1024))
    assert "roost_bandwidth_gbs" not in told
    assert "roost_rocm" not in told
    odd = replace(found, cpu_model='A "core" ${x}\n')
    assert node_meta(odd, tier_of(odd))["roost_cpu_model"] == "A  core    x"


def test_nothing_that_changes_from_hour_to_hour_is_told() -> None:
    found = facts()
    later = replace(
        found, memory_available_mib=7, listeners=(), addresses={}, memory_total_mib=found.memory_total_mib - 9
    )
    assert node_meta(later, tier_of(later)) == node_meta(found, tier_of(found))


def test_the_same_sources_give_the_same_collector(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    copied = shutil.copytree(PACKAGE, tmp_path / "other/roost", ignore=shutil.ignore_patterns("__pycache__"))
    for path in copied.rglob("*.py"):
        path.touch()
    assert pack(copied) == pack()
    (copied / "ops/errors.py").write_text((copied / "ops/errors.py").read_text() + "# more\n")
    assert pack(copied) != pack()


def test_the_collector_holds_what_it_needs_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "collect.pyz").write_bytes(pack())
    with zipfile.ZipFile(tmp_path / "collect.pyz") as archive:
        held = set(archive.namelist())
    assert {"__main__.py", "roost/__init__.py", "roost/hosts/report.py", "roost/hosts/tiers.py"} <= held
    assert not {name for name in held if name.startswith(("roost/models", "roost/fleet", "roost/cli"))}
    assert "roost/hosts/preflight.py" not in held


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import yaml", "imports yaml: the collector has the standard library only"),
        ("from roost.models import store", "imports"),
        ("match 1:\n    case 1:\n        pass", r"is not for Python 3\.9"),
        ("from roost.hosts.none import x", "is missing"),
    ],
)
def test_what_a_node_could_not_run_is_refused(tmp_path: Path, line: str, said: str) -> None:
    copied = shutil.copytree(PACKAGE, tmp_path / "roost", ignore=shutil.ignore_patterns("__pycache__"))
    with (copied / "hosts/report.py").open("a") as source:
        source.write(f"\n{line}\n")
    with pytest.raises(RoostError, match=said):
        pack(copied)


@pytest.mark.parametrize("python", sorted({sys.executable, oldest_python()}))
def test_the_collector_runs_on_its_own(tmp_path: Path, python: str) -> None:
    """Where there is nothing but a Python: no site-packages, no environment, a folder of strangers."""
    program = tmp_path / "collect.pyz"
    program.write_bytes(pack())
    (tmp_path / "roost.py").write_text("raise SystemExit('a stranger')\n")
    command = [python, "-I", "-S", str(program), "--path", str(tmp_path), "--probe"]
    done = subprocess.run(command, env={}, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"tier", "bandwidth", "node_meta", "facts"}
    assert found["facts"]["disks"][0]["path"] == str(tmp_path)
    assert found["bandwidth"]["gbs"] > 0
    assert found["node_meta"]["roost_tier"] == found["tier"]["name"]


def test_the_collector_can_be_started_by_its_name(tmp_path: Path) -> None:
    program = tmp_path / "collect.pyz"
    program.write_bytes(pack())
    program.chmod(0o755)
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert "Changes nothing" in done.stdout
