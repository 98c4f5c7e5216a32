"""`roost plan`: of this machine, of recorded ones, and as if something were different."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.cli import plan as plan_verb
from roost.cli.setup_machine import planner_for
from roost.fleet.host_plan import HostPlanner
from roost.hosts.facts import facts_from
from roost.hosts.report import look
from roost.models.catalogue import load_catalogue
from roost.models.estimate.shape import header_of_shape
from roost.models.obtainable import Reach
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.variables import load_variables
from tests.support.gguf_files import write_sparse
from tests.unit.cli.conftest import Run
from tests.unit.hosts.records import record

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the options that plan three recorded machines; nothing is installed."""
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "none.json"))
    words = []
    for name in ("nvidia-t4", "nvidia-2x4090", "raspberry-pi-5"):
        file = tmp_path / f"{name}.json"
        facts = facts_from(record(name)).as_dict() | {"hostname": name}
        file.write_text(json.dumps({"facts": facts, "bandwidth": None}))
        words += ["--hosts", str(file)]
    return words


def test_this_machine_before_anything_is_installed(roost: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "none.json"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    done = roost("plan", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [p["model"] for p in found["placed"]] == ["smollm2-135m-instruct"]
    assert found["changes"][0].startswith("main: new, ")
    assert found["devices"][0]["planned"] < found["devices"][0]["free"]


def test_a_file_on_the_host_is_planned_with(roost: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "none.json"))
    listed = load_catalogue(ROOT / "group_vars/models.yaml", custom={}).listed("smollm2-135m-instruct")
    file = tmp_path / "mine.Q4_1.gguf"
    write_sparse(header_of_shape(listed.architecture, listed.shape, "Q4_1"), file)
    found = json.loads(roost("plan", "--json", "--what-if", f"main.path={file}").stdout)
    assert [(p["model"], p["origin"]) for p in found["placed"]] == [("file-mine.q4_1", "header")]
    assert found["placed"][0]["estimate"]["devices"][0]["weights"] > 0
    file.write_bytes(b"no model")
    for path in (file, tmp_path / "none.gguf"):
        done = roost("plan", "--what-if", f"main.path={path}")
        assert isinstance(done.exception, RoostError)
        assert (done.exception.exit_code, path.name in done.exception.message) == (2, True)


def test_recorded_machines(roost: Run, fleet: list[str]) -> None:
    done = roost("plan", *fleet, "--explain")
    assert done.exit_code == 0, done.output
    assert "nvidia-2x4090" in done.stdout
    assert "Decisions, in order:" in done.stdout
    found = json.loads(roost("plan", *fleet, "--json").stdout)
    assert {p["host"] for p in found["placed"]} == {"nvidia-t4", "nvidia-2x4090", "raspberry-pi-5"}
    over = [d for d in found["devices"] if d["planned"] > d["free"]]
    assert over == []


def test_a_recorded_machine_keeps_memory_for_its_other_programs(roost: Run, fleet: list[str], tmp_path: Path) -> None:
    def free() -> int:
        devices = json.loads(roost("plan", *fleet, "--json").stdout)["devices"]
        return next(int(d["free"]) for d in devices if (d["host"], d["device"]) == ("nvidia-t4", "CPU"))

    before, file = free(), tmp_path / "nvidia-t4.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"reserved_memory_mib": 1024}))
    assert before - free() == 1024 << 20
    file.write_text(json.dumps(json.loads(file.read_text()) | {"reserved_memory_mib": -1}))
    done = roost("plan", *fleet)
    assert isinstance(done.exception, RoostError)
    assert f"{file} does not describe a machine: reserved_memory_mib" in done.exception.message


def test_this_machine_keeps_memory_for_its_other_programs(
    roost: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Read from the variables, by `roost plan` and by what places slots for `roost setup`."""
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "none.json"))
    variables = load_variables(ROOT, Path("/dev/null"))
    monkeypatch.setattr(plan_verb, "load_variables", lambda *_files: variables)

    def free() -> int:
        return int(json.loads(roost("plan", "--json").stdout)["devices"][0]["free"])

    def offered() -> int:
        report = look([])
        planner, _shape = planner_for(report, load_catalogue(ROOT / "group_vars/models.yaml"), Reach(), variables, None)
        assert isinstance(planner, HostPlanner)
        return planner.host.free_bytes

    before = free()
    assert offered() == before
    variables["reserved_memory_mib"] = "64"  # as `bootstrap.sh --set` may write it
    assert (before - free(), before - offered()) == (64 << 20, 64 << 20)
    variables["monitoring"], variables["monitoring_memory_mib"] = "true", "32"
    assert (before - free(), before - offered()) == (96 << 20, 96 << 20)
    variables["monitoring"] = "false"
    assert before - free() == 64 << 20
    variables["reserved_memory_mib"] = "much"
    done = roost("plan")
    assert isinstance(done.exception, RoostError)
    assert (done.exception.exit_code, "'much'" in done.exception.message) == (2, True)


def test_what_is_refused_ends_with_1_and_says_what_would_have_to_change(roost: Run, fleet: list[str]) -> None:
    done = roost("plan", *fleet, "--what-if", "main.model=gpt-oss-120b", "--what-if", "main.context_size=131072")
    assert done.exit_code == 1, done.output
    assert "main on raspberry-pi-5: refused, gpt-oss-120b:" in done.stdout
    assert "To fit it: " in done.stdout
    assert "more memory" in done.stdout


def test_as_if_a_host_had_left(roost: Run, fleet: list[str]) -> None:
    found = json.loads(roost("plan", *fleet, "--anywhere", "2", "--without", "nvidia-2x4090", "--json").stdout)
    assert {p["host"] for p in found["placed"]} <= {"nvidia-t4", "raspberry-pi-5"}
    assert any("its host nvidia-2x4090 is gone" in line for line in found["explanation"])
    assert found["changes"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--what-if", "main"], "is not SLOT.FIELD=VALUE"),
        (["--without", "nobody"], "There is no host nobody"),
        (["--from-hub", "perhaps"], "none of auto, yes, no"),
        (["--what-if", "main.model=qwen9"], "no model 'qwen9'"),
        (["--hosts", "/nonexistent.json"], "cannot be read"),
    ],
)
def test_bad_input_ends_with_2(roost: Run, fleet: list[str], words: list[str], told: str) -> None:
    done = roost("plan", *fleet, *words)
    assert isinstance(done.exception, RoostError)
    assert done.exception.exit_code == (NOT_FOUND if "There is no host" in told else 2)
    assert told in done.exception.message
