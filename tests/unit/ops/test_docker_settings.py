"""When dockerd begins anew: with settings that changed, once, and gone on with where a run was broken off before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from roost.ops import docker_settings
from roost.ops.docker_settings import apply, began, due, forget, remember, stamp_of
from roost.ops.errors import RoostError
from tests.support.ansible_module import run_module


class Machine:
    """A machine whose dockerd counts its starts, or refuses to start."""

    def __init__(self, folder: Path) -> None:
        self.config, self.proxies = folder / "daemon.json", folder / "roost.conf"
        self.files = [str(self.config), str(self.proxies)]
        self.manifest = folder / "state" / "manifest"
        self.stamp = stamp_of(self.manifest)
        self.restarts: list[str] = []
        self.paused: list[str] = []
        self.fails = False
        self.config.write_text("{}")

    @contextlib.contextmanager
    def pause(self, names: Sequence[str]) -> Iterator[None]:
        self.paused = list(names)
        yield
        self.paused = []

    def begin_anew(self, name: str) -> None:
        self.restarts.append(" ".join([name, *(f"without {other}" for other in self.paused)]))
        if self.fails:
            raise RoostError("it does not start")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(docker_settings, "begin_anew", made.begin_anew)
    monkeypatch.setattr(docker_settings, "paused", made.pause)
    return made


def test_changed_settings_are_read_once(machine: Machine) -> None:
    remember(machine.stamp, machine.files, running=True)
    assert not apply(machine.stamp, machine.files)
    machine.config.write_text('{"log-driver": "json-file"}')
    assert apply(machine.stamp, machine.files, ["roost-nomad"])
    assert not apply(machine.stamp, machine.files, ["roost-nomad"])
    assert machine.restarts == ["docker without roost-nomad"]


def test_proxies_that_are_taken_away_count_too(machine: Machine) -> None:
    machine.proxies.write_text("[Service]")
    began(machine.stamp, machine.files)
    machine.proxies.unlink()
    assert due(machine.stamp, machine.files)


def test_a_run_that_broke_off_before_the_restart_is_gone_on_with(machine: Machine) -> None:
    remember(machine.stamp, machine.files, running=True)
    machine.config.write_text("changed")
    remember(machine.stamp, machine.files, running=True)
    assert apply(machine.stamp, machine.files)


def test_a_restart_that_failed_is_tried_again_with_the_settings_of_before_too(machine: Machine) -> None:
    remember(machine.stamp, machine.files, running=True)
    machine.config.write_text("wrong")
    machine.fails = True
    with pytest.raises(RoostError):
        apply(machine.stamp, machine.files)
    machine.fails = False
    machine.config.write_text("{}")
    assert apply(machine.stamp, machine.files)


def test_of_one_that_does_not_run_nobody_knows_what_it_began_with(machine: Machine) -> None:
    began(machine.stamp, machine.files)
    remember(machine.stamp, machine.files, running=False)
    assert due(machine.stamp, machine.files)
    began(machine.stamp, machine.files)
    assert not due(machine.stamp, machine.files)


def test_without_a_stamp_nothing_is_restarted(machine: Machine) -> None:
    assert not apply(machine.stamp, machine.files)
    assert machine.restarts == []


def test_the_stamp_goes_with_its_folder(machine: Machine) -> None:
    began(machine.stamp, machine.files)
    forget(machine.stamp)
    assert not machine.stamp.parent.exists()
    forget(machine.stamp)


def module(machine: Machine, *, check: bool = False, **params: object) -> dict[str, object]:
    found = run_module(
        "roost_docker_settings", {"manifest": str(machine.manifest), "files": machine.files} | params, check=check
    )
    assert not found["failed"], found
    return found


def test_a_check_tells_the_restart_and_does_nothing(machine: Machine) -> None:
    assert module(machine, state="remembered", check=True)["changed"] is False
    assert not machine.stamp.exists()
    module(machine, state="remembered")
    assert not module(machine, state="applied", check=True)["changed"]
    # What a check would have written is not there.
    assert module(machine, state="applied", check=True, changed_before=True)["changed"]
    machine.config.write_text("changed")
    assert module(machine, state="applied", check=True)["changed"]
    before = machine.stamp.read_text()
    assert module(machine, state="begun", check=True)["changed"] is False
    assert machine.stamp.read_text() == before
    # Outside of a check the content tells: these were written by nobody.
    module(machine, state="begun")
    assert not module(machine, state="applied", changed_before=True)["changed"]
