"""The module that keeps what a machine has before its update: without a Nomad, which a run may have to mend."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roost.fleet.rolling import record, restore_point
from roost.fleet.rolling.record import UpdateRecord
from roost.ops import docker_settings, pki
from roost.ops.ownership import Manifest
from roost.ops.pki import LeafSpec, ensure_pki
from roost.ops.service_names import DOCKER, LISTEN, REGISTRY
from tests.support.ansible_module import load_module, run_module
from tests.support.net import free_port


def arguments(folder: Path, **more: object) -> dict[str, object]:
    return {
        "state": "kept",
        "folder": str(folder / "update"),
        "node": "two",
        "address": f"https://127.0.0.1:{free_port()}",
        "tls_dir": str(folder),
        "token": "token",
        "manifest": str(folder / "manifest"),
        "files": [str(folder / "nomad.hcl")],
        "settings": "one",
        "timeout": 1,
    } | more


def going_back(folder: Path, **more: object) -> dict[str, object]:
    """Return what the module is given when it puts back, with its defaults."""
    defaults = {
        "services": {}, "docker_reads": [], "engine_key": "", "driver": "docker", "first": True, "reason": "",
        "untouched": [], "fleet": [], "stay": [],
    }  # fmt: skip
    return arguments(folder, **defaults | more)


def keep(folder: Path, *, check: bool = False, **more: object) -> dict[str, Any]:
    found = run_module("roost_update", arguments(folder, **more), check=check)
    assert not found["failed"], found
    return found


def test_a_certificate_near_its_end_makes_a_machine_wait_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nomad begins anew with the one that a run makes: others take over first, as for any change."""
    ensure_pki(tmp_path, [LeafSpec("node", ("192.0.2.1",))])
    record.write(tmp_path / "update", UpdateRecord("passed", "one"))
    node = [str(tmp_path / "node.pem")]
    assert not keep(tmp_path, certificates=node)["pending"]
    monkeypatch.setattr(pki, "LEAF_DAYS", pki.RENEW_BEFORE_DAYS - 1)
    ensure_pki(tmp_path, [LeafSpec("node", ("192.0.2.1",))], renew=True)
    assert keep(tmp_path, certificates=node)["pending"]


def test_a_machine_that_passed_with_the_same_has_nothing_pending(tmp_path: Path) -> None:
    first = keep(tmp_path)
    assert first["pending"]
    assert not first["changed"]
    record.write(tmp_path / "update", UpdateRecord("passed", first["settings"], "made"))
    again = keep(tmp_path)
    assert (again["pending"], again["made"], again["settings"]) == (False, "made", first["settings"])
    assert keep(tmp_path, force=True)["pending"]
    assert keep(tmp_path, settings="other")["pending"]


def test_a_check_keeps_nothing(tmp_path: Path) -> None:
    assert keep(tmp_path, check=True, begin=True)["pending"]
    assert not (tmp_path / "update").exists()


def test_what_was_kept_before_a_broken_off_change_is_not_kept_anew(tmp_path: Path) -> None:
    file = tmp_path / "nomad.hcl"
    file.write_text("before")
    keep(tmp_path, begin=True)
    assert record.read(tmp_path / "update").state == "changing"
    file.write_text("half changed")
    keep(tmp_path)
    restore_point.put_back_files(tmp_path / "update")
    assert file.read_text() == "before"
    record.write(tmp_path / "update", UpdateRecord("restored"))
    file.write_text("by hand")
    keep(tmp_path)
    file.write_text("changed")
    restore_point.put_back_files(tmp_path / "update")
    assert file.read_text() == "by hand"


def test_the_units_of_our_services_are_kept_too(tmp_path: Path) -> None:
    (tmp_path / "manifest").write_text("unit\troost-nomad\n")
    keep(tmp_path)
    index = json.loads((tmp_path / "update" / restore_point.FOLDER / restore_point.INDEX).read_text())
    assert [Path(entry["path"]).name for entry in index] == [
        "nomad.hcl",
        Path(index[1]["path"]).name,
        "roost-nomad.sha256",
    ]
    assert Path(index[1]["path"]).name.startswith("roost-nomad")


def test_what_cannot_be_put_back_is_said_with_the_first_reason(tmp_path: Path) -> None:
    reason = "The job j did not become healthy. Fix: Read its log."
    found = run_module("roost_update", arguments(tmp_path, state="restored", reason=reason, untouched=["three"]))
    assert found["failed"]
    assert found["update"]
    said, _, fix = found["msg"].partition(" Fix: ")
    assert said.startswith("The update failed: The job j did not become healthy.")
    assert "could not be put back" in said
    assert "Not begun: three." in said
    assert fix.startswith("Read its log.")


@pytest.mark.parametrize("asks", [True, False], ids=["asks the keeper", "does not know it"])
def test_a_release_that_does_not_ask_for_its_port_finds_it_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asks: bool
) -> None:
    module = load_module("roost_update")
    units = tmp_path / "units"
    units.mkdir()
    unit = units / LISTEN
    done: list[str] = []
    monkeypatch.setattr(module, "service_files", lambda name, stamps: [units / name, stamps / f"{name}.sha256"])

    def take_away(name: str, *_more: object) -> bool:
        done.append(f"take away {name}")
        return True

    monkeypatch.setattr(module, "take_away", take_away)
    monkeypatch.setattr(module, "begin_anew", lambda name: done.append(f"restart {name}"))
    monkeypatch.setattr(module, "run_again", lambda _name: False)
    for name in ("client_of", "machines_now", "wait_for_leader", "wait_for_node", "pass_gate", "publish"):
        monkeypatch.setattr(module, name, lambda *_more: None)
    monkeypatch.setattr(module, "Asker", lambda *_more: None)

    def put_back_jobs(*_more: object, **_flags: object) -> list[str]:
        done.append("jobs")
        return []

    monkeypatch.setattr(module.restore_point, "put_back_jobs", put_back_jobs)
    if asks:
        unit.write_text("[Service]")
    restore_point.keep(tmp_path / "update", [unit] if asks else [], [])
    unit.write_text("[Service] of the update")
    params = going_back(tmp_path, services={LISTEN: []})
    back, _ = module.put_back(params)
    assert done == ([f"restart {LISTEN}", "jobs"] if asks else [f"take away {LISTEN}", "jobs"])
    assert f"service {LISTEN}" in back
    # What a failed run took away and the way back brought is ours again.
    assert Manifest(tmp_path / "manifest").owned("unit") == ([LISTEN] if asks else [])


@pytest.mark.parametrize("begun", [True, False], ids=["dockerd began anew", "its turn had not come"])
def test_docker_goes_back_only_where_it_began_with_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    module = load_module("roost_update")
    config, manifest = tmp_path / "daemon.json", tmp_path / "manifest"
    stamp, files = docker_settings.stamp_of(manifest), [str(config)]
    config.write_text("before")
    docker_settings.began(stamp, files)
    restore_point.keep(tmp_path / "update", [config], [])
    config.write_text("of the update")
    if begun:
        docker_settings.began(stamp, files)
    restarts: list[str] = []

    def run_again(name: str) -> bool:
        restarts.append(f"{name} again")
        return False

    monkeypatch.setattr(module, "run_again", run_again)
    monkeypatch.setattr(docker_settings, "begin_anew", restarts.append)

    @contextlib.contextmanager
    def pause(names: Sequence[str]) -> Iterator[None]:
        restarts.extend(names)
        yield

    monkeypatch.setattr(docker_settings, "paused", pause)
    for name in ("client_of", "machines_now", "wait_for_leader", "wait_for_node", "pass_gate", "publish", "Asker"):
        monkeypatch.setattr(module, name, lambda *_more: None)
    monkeypatch.setattr(module.restore_point, "put_back_jobs", lambda *_more, **_flags: [])
    params = going_back(tmp_path, docker_reads=files)
    back, _ = module.put_back(params)
    assert config.read_text() == "before"
    assert restarts == [*(["roost-nomad", "docker"] if begun else []), "roost-nomad again"]
    assert ("service docker" in back) is begun
    assert not docker_settings.due(stamp, files)


def test_a_service_of_the_update_alone_goes_and_one_by_a_script_begins_anew_without_nomad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the registry needs is gone by then, so it could not begin anew; dockerd may be a service of ours."""
    module = load_module("roost_update")
    units, config = tmp_path / "units", tmp_path / "registry.yaml"
    units.mkdir()
    done: list[str] = []
    monkeypatch.setattr(module, "service_files", lambda name, stamps: [units / name, stamps.parent / f"{name}.sha256"])
    monkeypatch.setattr(module, "begin_anew", lambda name: done.append(f"begin anew {name}"))

    def take_away(name: str, *_more: object) -> bool:
        done.append(f"take away {name}")
        return True

    monkeypatch.setattr(module, "take_away", take_away)
    monkeypatch.setattr(module, "run_again", lambda _name: False)

    @contextlib.contextmanager
    def pause(names: Sequence[str]) -> Iterator[None]:
        done.extend(f"pause {name}" for name in names)
        yield

    monkeypatch.setattr(module, "paused", pause)
    for name in ("client_of", "machines_now", "wait_for_leader", "wait_for_node", "pass_gate", "publish", "Asker"):
        monkeypatch.setattr(module, name, lambda *_more: None)
    monkeypatch.setattr(module.restore_point, "put_back_jobs", lambda *_more, **_flags: [])
    docker, stamp = units / DOCKER, tmp_path / f"{DOCKER}.sha256"
    docker.touch()
    stamp.write_text("before")
    restore_point.keep(tmp_path / "update", [docker, stamp, config], [])
    stamp.unlink()  # it was begun anew, or was to be
    config.write_text("of the update")
    (units / REGISTRY).touch()
    services = {DOCKER: [], REGISTRY: [str(config)]}
    params = going_back(tmp_path, services=services)
    module.put_back(params)
    assert done == ["pause roost-nomad", f"begin anew {DOCKER}", f"take away {REGISTRY}"]
    assert not config.exists()


FLEETS = [(["one"], True), (["one", "three"], True), (["one", "three", "two"], False), (None, False)]


@pytest.mark.parametrize(("had", "stays"), FLEETS, ids=["alone", "two", "all", "not known"])
def test_rules_that_let_in_who_joined_stay_and_jobs_of_one_alone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, had: list[str] | None, stays: bool
) -> None:
    """Servers that joined vote: shut out, they would leave the fleet without a majority. Nomad does not answer here."""
    module = load_module("roost_update")
    rules = tmp_path / "firewall.nft"
    rules.write_text("before")
    restore_point.keep(tmp_path / "update", [rules], [], had)
    rules.write_text("with two")
    for name in ("wait_for_leader", "wait_for_node", "pass_gate", "publish", "Asker", "begin_anew"):
        monkeypatch.setattr(module, name, lambda *_more: None)
    monkeypatch.setattr(module, "machines_now", lambda _client: None)
    monkeypatch.setattr(module, "client_of", lambda _params: None)
    monkeypatch.setattr(module, "run_again", lambda _name: False)
    alone: list[bool] = []

    def put_back_jobs(*_more: object, **flags: object) -> list[str]:
        alone.append(bool(flags["alone"]))
        return []

    monkeypatch.setattr(module.restore_point, "put_back_jobs", put_back_jobs)
    told: list[str] = []
    params = going_back(tmp_path, node="one", fleet=["one", "two", "three"], reason="It failed.", stay=[str(rules)])
    module.restored(SimpleNamespace(params=params, fail_json=lambda *, msg, **_more: told.append(msg)))
    assert (rules.read_text() == "with two") is stays
    assert ("stays as it is: it lets in" in told[-1]) is stays
    assert alone == [had == ["one"]]


def test_whom_the_fleet_had_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_module("roost_update")
    monkeypatch.setattr(module, "machine_names", lambda _client: ["one", "two"])
    monkeypatch.setattr(module, "jobs_now", lambda _params: [])
    given = arguments(tmp_path, certificates=[], force=False, begin=False)
    module.kept(SimpleNamespace(params=given, check_mode=False, exit_json=lambda **_more: None))
    assert restore_point.machines(tmp_path / "update") == ["one", "two"]
