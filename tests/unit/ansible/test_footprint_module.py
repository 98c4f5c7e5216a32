"""The module that says whether a run has anything to do on a machine: here without a Nomad, which is a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roost.fleet.footprint import compare
from roost.fleet.rolling import record
from roost.fleet.rolling.record import UpdateRecord
from tests.support.ansible_module import run_module
from tests.support.net import free_port


def run(folder: Path, state: str, **more: object) -> dict[str, Any]:
    (folder / "manifest").touch()
    values: dict[str, object] = {
        "state": state,
        "folder": str(folder / "update"),
        "wish": "all-of-it",
        "settings": "own-part",
        "made": "made",
        "release": "release",
        "manifest": str(folder / "manifest"),
        "node": "two",
        "nomad_version": "1.11.3",
        "address": f"https://127.0.0.1:{free_port()}",
        "tls_dir": str(folder),
        "token": "token",
    }
    found = run_module("roost_footprint", values | more)
    assert not found["failed"], found
    assert not found["changed"]
    return found


def test_a_new_machine_is_brought_to_its_settings_and_another_one_keeps_its_record(tmp_path: Path) -> None:
    run(tmp_path, "kept")
    known = record.read(tmp_path / "update")
    assert (known.state, known.made, known.release) == ("passed", "made", "release")
    assert not known.differs("own-part", "made")
    record.write(tmp_path / "update", UpdateRecord("restored"))
    run(tmp_path, "kept")
    assert record.read(tmp_path / "update").state == "restored"


def test_a_machine_without_its_nomad_has_something_to_do(tmp_path: Path) -> None:
    run(tmp_path, "kept")
    assert compare.read(tmp_path / "update") is None
    assert not run(tmp_path, "compared")["same"]


def test_what_was_broken_off_is_not_passed_over(tmp_path: Path) -> None:
    compare.keep(tmp_path / "update", compare.Footprint("all-of-it", {}))
    for state in record.STATES:
        record.write(tmp_path / "update", UpdateRecord(state))
        found = run(tmp_path, "compared")
        assert (found["differences"] == ["the last run did not come to its end"]) == (state != "passed")
