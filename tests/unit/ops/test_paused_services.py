"""Services that stand still while another begins anew: those that ran run afterwards, whatever happened."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from roost.ops import services
from roost.ops.errors import RoostError
from roost.ops.ownership import Manifest
from roost.ops.processes import terminations_raised
from roost.ops.services import Host, SysV, ensure, paused, run_again, take_away
from roost.ops.units import Places, Service

SCRIPT = """#!/bin/sh
# A service that is a file: there while it runs. It notes what it is asked for.
set -eu
case $1 in
status) exec test -e {state} ;;
start) : >{state} ;;
stop) rm -f {state} ;;
restart) {on_restart} ;;
esac
echo "{name} $1" >>{asked}
"""


class Scripts:
    """A folder of init scripts, and what they were asked for but the status."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = folder / "asked"
        (folder / "init.d").mkdir()
        self.places = Places(
            install_dir=str(folder), run_dir=str(folder), log_dir=str(folder), init_dir=str(folder / "init.d")
        )

    def add(self, name: str, *, runs: bool, on_restart: str = ":") -> Path:
        script = self.folder / "init.d" / name
        state = self.folder / f"{name}.runs"
        if runs:
            state.touch()
        script.write_text(SCRIPT.format(state=state, name=name, asked=self.asked, on_restart=on_restart))
        script.chmod(0o755)
        return state

    def said(self) -> list[str]:
        return self.asked.read_text().splitlines() if self.asked.exists() else []


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    monkeypatch.setattr(services, "SYSTEMD_RUNS", tmp_path / "none")
    return Scripts(tmp_path)


def test_what_ran_runs_again_and_what_did_not_stays_down(scripts: Scripts) -> None:
    one, two = scripts.add("one", runs=True), scripts.add("two", runs=False)
    with paused(["one", "two", "unknown"], scripts.places):
        assert not one.exists()
    assert one.exists()
    assert not two.exists()
    assert scripts.said() == ["one stop", "one start"]


def test_it_runs_again_after_a_failure_too(scripts: Scripts) -> None:
    one = scripts.add("one", runs=True)
    with pytest.raises(RoostError, match="no"), paused(["one"], scripts.places):
        raise RoostError("no")
    assert one.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_runs_again_where_the_run_is_ended(scripts: Scripts, number: int) -> None:
    one = scripts.add("one", runs=True)
    before = signal.signal(number, signal.SIG_DFL)  # the tests may have been started with nohup
    try:
        with pytest.raises(SystemExit), paused(["one"], scripts.places):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert one.exists()


def test_one_that_a_run_left_stopped_runs_again(scripts: Scripts) -> None:
    one = scripts.add("one", runs=False)
    assert run_again("one", scripts.places)
    assert one.exists()
    assert not run_again("one", scripts.places)


def test_who_ignores_a_hangup_is_not_ended_by_one() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminations_raised():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_of_ours_is_taken_away_by_its_name(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second update that fails finds nothing of the first one's service."""
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    manifest, stamps = Manifest(scripts.folder / "manifest"), scripts.folder / "stamps"
    state = scripts.add("one", runs=True)
    assert not take_away("one", manifest, stamps, scripts.places), "nobody said that it is ours"
    manifest.own("unit", "one")
    stamps.mkdir()
    (stamps / "one.sha256").touch()
    assert take_away("one", manifest, stamps, scripts.places)
    assert not state.exists()
    assert not stamps.exists()
    assert manifest.owned("unit") == []


def test_what_it_begins_with_is_unknown_until_it_has_begun(scripts: Scripts) -> None:
    scripts.add("one", runs=True, on_restart="echo no >&2; exit 1")
    service = Service(name="one", description="", command=("sleep", "infinity"))
    manifest = Manifest(scripts.folder / "manifest")
    manifest.own("unit", "one")
    init = Noting(service, scripts.places)
    init.text, init.mode = init.unit.read_text(), 0o755
    host = Host(init, manifest, scripts.folder / "stamps")
    host.stamps.mkdir()
    host.stamp(service).write_text("another")
    with pytest.raises(RoostError):
        ensure(host, service, [], dry_run=False)
    assert not host.stamp(service).exists()


class Noting(SysV):
    """An init script whose restart is noted, and which is there already."""

    def install(self) -> None:
        """It is there."""

    def enabled(self) -> bool:
        """It is."""
        return True


def test_a_service_that_begins_anew_has_others_stand_still(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts.add("other", runs=True)
    service = Service(name="one", description="", command=("sleep", "infinity"))
    manifest = Manifest(scripts.folder / "manifest")
    init = Noting(service, scripts.places)
    host = Host(init, manifest, scripts.folder / "stamps")
    config = scripts.folder / "config"
    config.write_text("1")
    monkeypatch.setattr(services, "Places", lambda: scripts.places)

    def bring() -> list[str]:
        scripts.add("one", runs=True)
        init.text, init.mode = init.unit.read_text(), 0o755
        return ensure(host, service, [str(config)], dry_run=False, pauses=["other"]).done

    manifest.own("unit", "one")
    bring()
    scripts.asked.unlink(missing_ok=True)
    assert bring() == []
    assert scripts.said() == []
    config.write_text("2")
    assert bring() == ["restarted"]
    assert scripts.said() == ["other stop", "one restart", "other start"]
