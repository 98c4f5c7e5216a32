"""`roost setup`: what it asks, shows, writes and says, with a scripted user, a stand-in for placement and for
bootstrap.sh. That it works with the real ones is shown in test_setup_process.py and end to end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from roost.cli import setup as setup_verb
from roost.cli import setup_machine
from roost.fleet.plan import Placed, Plan, Refused
from roost.fleet.setup import Planner
from roost.models.catalogue import Catalogue
from roost.models.footprint import DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.models.model_slots import ModelSlot
from roost.ops.errors import RoostError
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation

MIB = 1 << 20
LARGEST_CONTEXT = 16384
BOOTSTRAP = """#!/bin/sh
echo "bootstrap.sh $*"
[ ! -e "{folder}/fail" ] || {{ echo "no leader" >&2; exit 1; }}
echo '{{"answer": "Paris."}}' >{folder}/state/last-verify.json
"""


class FakePlanner:
    """Places every slot; `tiny` where none is named; refuses long contexts and the model called `huge`."""

    def __call__(self, slots: Sequence[ModelSlot], optional: Collection[str] = ()) -> Plan:
        """Return the plan."""
        placed, refused = [], []
        for slot in slots:
            name = slot.model or ("tiny" if slot.slot == "main" else "")
            if name == "huge" or slot.context_size > LARGEST_CONTEXT:
                refused.append(Refused(slot.slot, name, "it needs 900 GiB", "Take a smaller one."))
            elif name or slot.slot not in optional:
                placed.append(self.placed(slot, name or "other"))
        return Plan(tuple(placed), tuple(refused), ("main: placed",))

    @staticmethod
    def placed(slot: ModelSlot, name: str) -> Placed:
        """Place one slot."""
        model, _, quantisation = name.partition(":")
        settings = ServerSettings(slot.context_size or 8192, slot.parallel)
        estimate = Estimate((DeviceBytes("CPU", 300 * MIB), DeviceBytes("GPU0", 200 * MIB)), "header")
        return Placed(slot.slot, model, quantisation or "Q8_0", "box", settings, LayerSplit(), estimate, "it is best")


@pytest.fixture
def machine(site: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Have an installation with models of its own, and stand-ins for placement and bootstrap.sh."""
    origin = site.folder / "origin"
    origin.mkdir()
    models: dict[str, Any] = {}
    for name in ("tiny", "other", "huge"):
        content = name.encode()
        (origin / f"{name}.gguf").write_bytes(content)
        file = {"name": f"{name}.gguf", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        models[name] = {
            "title": f"The {name} one", "licence": "CC0-1.0", "architecture": "llama", "context_length": 128,
            "parameters": {"total": 1, "active": 1}, "roles": {"main": 100}, "tier": "potato",
            "quantisations": {"Q8_0": {"file": file, "sources": [{"kind": "path", "path": str(origin)}]}},
        }  # fmt: skip
    host_file(site).write_text("# mine\n" + yaml.safe_dump({"models_custom": models}))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HTTP_PROXY")

    def planner_for(_report: object, _catalogue: Catalogue, *_more: object) -> tuple[Planner, tuple[str, ...]]:
        return FakePlanner(), ("main", "router")

    monkeypatch.setattr(setup_machine, "planner_for", planner_for)
    release = site.folder / "release"
    release.mkdir()
    (release / "bootstrap.sh").write_text(BOOTSTRAP.format(folder=site.folder))
    monkeypatch.setattr(setup_verb, "release_dir", lambda: release)
    return site


def host_file(site: Installation) -> Path:
    return site.folder / "host.yaml"


def slots_of(site: Installation) -> list[dict[str, Any]]:
    return list(yaml.safe_load(host_file(site).read_text()).get("model_slots", []))


def error(done: Result) -> RoostError:
    assert isinstance(done.exception, RoostError), done.exception
    return done.exception


@pytest.fixture
def asked(machine: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs the verb with the answers of a user at a terminal."""
    monkeypatch.setattr(setup_verb, "_has_terminal", lambda: True)
    assert machine.folder.exists()

    def run(*words: str, stdin: str = "") -> Result:
        return roost("setup", *words, stdin=stdin)

    return run


def test_yes_writes_fetches_and_starts(machine: Installation, roost: Run) -> None:
    done = roost("setup", "--yes")
    assert done.exit_code == 0, done.output
    assert slots_of(machine) == [
        {
            "slot": "main", "model": "tiny", "context_size": 8192, "parallel": 2, "cache_ram_mib": 256,
            "temperature": None,
        }
    ]  # fmt: skip
    assert host_file(machine).read_text().startswith("# mine\n")
    assert "+  - {slot: main, model: tiny" in done.stdout
    assert "300 MiB + GPU0 200 MiB, predicted" in done.stdout
    assert "The tiny one; it is best" in done.stdout
    assert "CC0-1.0" in done.stdout
    assert "Models that only a hub has are left out" in done.stdout
    assert [p.read_bytes() for p in (machine.folder / "models").glob("*/tiny.gguf")] == [b"tiny"]
    assert (machine.folder / "state" / "last-verify.json").exists()
    assert "`roost setup --undo` puts the previous host.yaml back." in done.stdout


def test_a_second_run_has_nothing_to_write(machine: Installation, roost: Run) -> None:
    assert roost("setup", "--yes").exit_code == 0
    before = host_file(machine).read_text()
    again = json.loads(roost("setup", "--yes", "--json").stdout)
    assert (again["diff"], again["written"], again["fetched"], again["applied"]) == ("", False, [], True)
    assert again["answer"] == {"answer": "Paris."}
    assert host_file(machine).read_text() == before


def test_json_says_all(machine: Installation, roost: Run) -> None:
    found = json.loads(roost("setup", "--dry-run", "--json").stdout)
    assert [o["model"] for o in found["offers"]] == ["tiny:Q8_0"]
    assert found["offers"][0]["download"] == 4
    assert found["file"] == str(host_file(machine))
    assert "+model_slots:" in found["diff"]
    assert (found["written"], found["applied"], found["answer"]) == (False, False, None)
    assert all("hub" in why for why in found["left_out"].values())
    assert slots_of(machine) == []


def test_a_dry_run_changes_nothing(machine: Installation, roost: Run) -> None:
    before = host_file(machine).read_text()
    done = roost("setup", "--dry-run", "--slot", "router=other", "--context", "512")
    assert done.exit_code == 0
    assert "Would fetch 9 B, write" in done.stdout
    assert "Nothing was changed." in done.stdout
    assert host_file(machine).read_text() == before
    assert not list((machine.folder / "models").iterdir())


def test_no_apply_only_writes(machine: Installation, roost: Run) -> None:
    done = roost("setup", "--yes", "--no-apply", "--slot", "router=other:Q8_0", "--context", "main=512")
    assert done.exit_code == 0
    assert [(s["slot"], s["model"], s["context_size"]) for s in slots_of(machine)] == [
        ("main", "tiny", 512),
        ("router", "other", 8192),
    ]
    assert "Nothing was fetched or started; ./bootstrap.sh does that." in done.stdout
    assert not list((machine.folder / "models").iterdir())
    assert not (machine.folder / "state" / "last-verify.json").exists()


def test_what_is_not_possible_changes_nothing(machine: Installation, roost: Run) -> None:
    before = host_file(machine).read_text()
    failed = error(roost("setup", "--yes", "--slot", "main=huge"))
    assert "main: it needs 900 GiB. Nothing was changed." in failed.message
    assert failed.fix == "Take a smaller one."
    assert host_file(machine).read_text() == before


def test_a_model_that_nobody_knows_is_named(machine: Installation, roost: Run) -> None:
    class Looking(FakePlanner):
        def __init__(self, catalogue: Catalogue) -> None:
            self.catalogue = catalogue

        def __call__(self, slots: Sequence[ModelSlot], optional: Collection[str] = ()) -> Plan:
            for slot in slots:
                self.catalogue.listed(slot.model)
            return super().__call__(slots, optional)

    def planner_for(_report: object, catalogue: Catalogue, *_more: object) -> tuple[Planner, tuple[str, ...]]:
        return Looking(catalogue), ("main",)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup_machine, "planner_for", planner_for)
        assert "no model 'tinny'" in error(roost("setup", "--yes", "--slot", "main=tinny")).message
    assert slots_of(machine) == []


def test_a_start_that_fails_says_what_was_done(machine: Installation, roost: Run) -> None:
    (machine.folder / "fail").touch()
    failed = error(roost("setup", "--yes"))
    assert "exit code 1" in failed.message
    assert "Fetched: tiny:Q8_0" in failed.message
    assert f"{host_file(machine)} was written" in failed.message
    assert "--undo" in failed.fix
    assert roost("setup", "--undo", "--yes").exit_code == 0
    assert slots_of(machine) == []
    assert "nothing to take back" in error(roost("setup", "--undo", "--yes")).message


def test_a_download_that_fails_leaves_the_settings(machine: Installation, roost: Run) -> None:
    (machine.folder / "origin" / "tiny.gguf").write_bytes(b"tinY")
    failed = error(roost("setup", "--yes"))
    assert "wrong checksum" in failed.message
    assert slots_of(machine) == []


@pytest.mark.parametrize("words", [(), ("--json",), ("--undo",)])
def test_without_a_terminal_it_wants_to_be_told(machine: Installation, roost: Run, words: tuple[str, ...]) -> None:
    failed = error(roost("setup", *words))
    assert (failed.exit_code, slots_of(machine)) == (2, [])
    assert "--yes" in failed.fix


@pytest.mark.parametrize("words", [("--host", "a"), ("--inventory", "/x"), ("--slot", "main"), ("--context", "x")])
def test_wrong_usage(machine: Installation, roost: Run, words: tuple[str, ...]) -> None:
    assert error(roost("setup", "--yes", *words)).exit_code == 2
    assert slots_of(machine) == []


def test_a_user_accepts(machine: Installation, asked: Run) -> None:
    done = asked(stdin="\ny\n")
    assert done.exit_code == 0, done.output
    assert [s["model"] for s in slots_of(machine)] == ["tiny"]
    assert f"Now fetch 4 B, write {host_file(machine)} and start" in done.stdout


@pytest.mark.parametrize(
    "stdin", ["quit\n", "\nn\n", "", "\n", "main\n", "main\nmodel\n", "nonsense\n", "main\ncontext\n"]
)
def test_a_user_who_leaves_changes_nothing(machine: Installation, asked: Run, stdin: str) -> None:
    before = host_file(machine).read_text()
    failed = error(asked(stdin=stdin))
    assert (failed.exit_code, failed.message) == (130, "Stopped. Nothing was changed.")
    assert host_file(machine).read_text() == before
    assert not list((machine.folder / "models").iterdir())


def test_a_user_takes_another_model_and_context(machine: Installation, asked: Run) -> None:
    done = asked("--no-apply", stdin="main\nmodel\nother:Q8_0\nmain\ncontext\n1024\naccept\ny\n")
    assert done.exit_code == 0, done.output
    assert [(s["model"], s["context_size"]) for s in slots_of(machine)] == [("other", 1024)]


def test_a_user_takes_one_by_its_number(machine: Installation, asked: Run) -> None:
    listed = asked(stdin="main\nmodel\n99\nquit\n")
    assert "There is no number 99." in listed.stdout
    rows = [line.split() for line in listed.stdout.splitlines() if line[:1].isdigit()]
    number = next(row[0] for row in rows if row[1].startswith("other"))
    assert "not possible: it needs 900 GiB" in listed.stdout
    assert "not possible: no model hub answers" in listed.stdout
    assert asked("--no-apply", stdin=f"main\nmodel\n{number}\n\ny\n").exit_code == 0
    assert [s["model"] for s in slots_of(machine)] == ["other"]


def test_a_user_adds_and_skips_slots(machine: Installation, asked: Run) -> None:
    done = asked("--no-apply", stdin="add\ncoding\nmain\nskip\naccept\ny\n")
    assert done.exit_code == 0, done.output
    assert [s["slot"] for s in slots_of(machine)] == ["coding"]


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        ("main\ncontext\n99999\n", "it needs 900 GiB. Take a smaller one."),
        ("main\ncontext\nmany\n", "'many' is not a number."),
        ("main\nmodel\nhuge\n", "All stays as it was."),
        ("router\nskip\nmain\nskip\n", "No slot would be left"),
        ("add\nBad Name\n", "model_slots is not valid"),
    ],
)
def test_what_is_not_possible_is_said_and_all_stays(machine: Installation, asked: Run, stdin: str, said: str) -> None:
    done = asked("--no-apply", stdin=f"{stdin}accept\ny\n")
    assert done.exit_code == 0, done.output
    assert said in done.stdout
    assert [(s["model"], s["context_size"]) for s in slots_of(machine)] == [("tiny", 8192)]


def test_undo_asks_and_shows(machine: Installation, asked: Run) -> None:
    assert asked("--no-apply", stdin="\ny\n").exit_code == 0
    assert error(asked("--undo", stdin="n\n")).message == "Stopped. Nothing was changed."
    assert slots_of(machine)
    dry = asked("--undo", "--dry-run")
    assert "-model_slots:" in dry.stdout
    assert slots_of(machine)
    assert asked("--undo", stdin="y\n").exit_code == 0
    assert slots_of(machine) == []


def test_chosen_anew(machine: Installation, roost: Run) -> None:
    assert roost("setup", "--yes", "--no-apply", "--slot", "main=other").exit_code == 0
    assert roost("setup", "--yes", "--no-apply").exit_code == 0
    assert [s["model"] for s in slots_of(machine)] == ["other"]
    assert roost("setup", "--yes", "--no-apply", "--anew").exit_code == 0
    assert [s["model"] for s in slots_of(machine)] == ["tiny"]
