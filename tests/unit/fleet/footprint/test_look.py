"""Whatever is changed of what a run made is seen by the next one."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from roost.fleet.footprint import look as looking
from roost.fleet.footprint.look import Sights, hash_of_job, look, look_at_nomad
from roost.fleet.gate import Asker
from roost.fleet.nomad_api import NomadClient, NomadUnreachableError
from roost.ops import services
from roost.ops.ownership import Manifest
from roost.ops.pki import LeafSpec, ensure_pki
from roost.ops.units import Places

Change = Callable[[Path], object]
CHANGES: dict[str, Change] = {
    "another content": lambda top: (top / "folder/file").write_text("b"),
    "another mode": lambda top: (top / "folder/file").chmod(0o600),
    "a file more": lambda top: (top / "folder/more").write_text(""),
    "a file less": lambda top: (top / "folder/file").unlink(),
    "a folder more": lambda top: (top / "more").mkdir(),
    "another mode of a folder": lambda top: (top / "folder").chmod(0o700),
    "a link elsewhere": lambda top: (top / "other").rename(top / "link"),
    "a large file touched": lambda top: os.utime(top / "large", ns=(1, 1)),
    "a large file shorter": lambda top: os.truncate(top / "large", looking.HASHED_BYTES + 1),
}


def made(top: Path) -> Path:
    """Make a tree like those of a machine."""
    (top / "folder").mkdir(parents=True)
    (top / "folder/file").write_text("a")
    (top / "link").symlink_to("folder")
    (top / "other").symlink_to("elsewhere")
    with (top / "large").open("wb") as large:
        large.truncate(looking.HASHED_BYTES + 2)
    return top


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_below_a_folder_is_seen(tmp_path: Path, change: str) -> None:
    sights = Sights(trees=[made(tmp_path / "etc")])
    before = look(sights)
    assert look(sights) == before
    CHANGES[change](tmp_path / "etc")
    assert look(sights) != before


def test_what_others_write_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    top = made(tmp_path / "etc")
    sights = Sights(trees=[top], but=[top / "folder/file", top / "later"])
    before = look(sights)
    (top / "later").write_text("written after the run")
    (top / "folder/file").write_text("b")
    assert look(sights) == before
    (top / "folder").chmod(0o700)
    assert look(sights) != before


def test_what_the_manifest_names_is_looked_at(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest")
    manifest.own("path", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    sights = Sights(manifest=manifest.path)
    before = look(sights)
    (tmp_path / "state/of-a-service").write_text("changes all the time")
    assert look(sights) == before
    (tmp_path / "state").chmod(0o700)
    assert look(sights) != before
    changed = look(sights)
    manifest.own("path", str(tmp_path / "more"))
    assert look(sights) != changed


def test_a_command_counts_by_its_lines_in_any_order(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    sights = Sights(commands=[["cat", str(lines)]])
    lines.write_text("a\nb\n")
    before = look(sights)
    lines.write_text("b\na\n")
    assert look(sights) == before
    lines.write_text("b\n")
    assert look(sights) != before
    lines.unlink()
    assert look(sights)[f"cat {lines}"] == "fails"


def test_a_certificate_near_its_end_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_pki(tmp_path, [LeafSpec("node", ("localhost",))])
    sights = Sights(certificates=tmp_path)
    before = look(sights)
    monkeypatch.setattr("roost.ops.pki.RENEW_BEFORE_DAYS", 100_000)
    changed = {name for name, state in look(sights).items() if before[name] != state}
    assert changed == {f"end of {tmp_path}/ca.pem", f"end of {tmp_path}/node.pem"}


JOB: dict[str, Any] = {
    "ID": "roost-model-main-one",
    "Version": 1,
    "ModifyIndex": 7,
    "Status": "running",
    "Meta": {"roost_node": "one"},
    "TaskGroups": [{"Name": "engine", "Count": 1, "Tasks": [{"Config": {"args": ["-c", "4096"]}}]}],
}


def test_of_a_job_only_its_definition_counts() -> None:
    again = copy.deepcopy(JOB) | {"Version": 2, "ModifyIndex": 9, "Status": "pending"}
    again["TaskGroups"][0]["Count"] = 0
    assert hash_of_job(again) == hash_of_job(JOB)
    again["TaskGroups"][0]["Tasks"][0]["Config"]["args"] = ["-c", "8192"]
    assert hash_of_job(again) != hash_of_job(JOB)


def test_a_nomad_that_does_not_answer_is_a_fault(tmp_path: Path) -> None:
    class Silent:
        def list_jobs(self) -> list[Any]:
            raise NomadUnreachableError("Nomad does not answer.")

    client = cast("NomadClient", Silent())
    seen = look_at_nomad(client, "one", Asker("key", tmp_path / "ca.pem"), "1.11.3", first=True)
    assert seen == ({}, "Nomad does not answer.")


@pytest.mark.parametrize("systemd", [True, False])
def test_a_unit_changed_by_hand_is_seen_though_the_init_system_has_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, systemd: bool
) -> None:
    monkeypatch.setattr(looking, "state_of", lambda *_: "runs")
    monkeypatch.setattr(services, "SYSTEMD_RUNS", tmp_path if systemd else tmp_path / "none")
    places = Places(systemd_dir=str(tmp_path / "units"), init_dir=str(tmp_path / "init.d"))
    manifest = Manifest(tmp_path / "manifest")
    manifest.own("unit", "roost-thing")
    sights = Sights(manifest=manifest.path, services=["docker"])
    unit, stamp = services.service_files("roost-thing", tmp_path / "services", places)
    for file in (unit, stamp):
        file.parent.mkdir()
        file.write_text("as it was written")
    before = look(sights, places)
    assert look(sights, places) == before
    for file in (unit, stamp):
        file.write_text("changed by hand")
        assert [name for name, state in look(sights, places).items() if before[name] != state] == [str(file)]
        file.write_text("as it was written")
