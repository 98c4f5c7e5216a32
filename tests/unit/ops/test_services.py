"""Services: what a check says, and what a removal leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.ops.ownership import Manifest
from roost.ops.services import Change, Host, SysV, ensure, remove
from roost.ops.units import Places, Service

SERVICE = Service(name="roost-thing", description="A thing", command=("sleep", "infinity"))


class FakeInit:
    """An init system that only remembers."""

    mode = 0o644
    text = "unit\n"

    def __init__(self, folder: Path) -> None:
        self.unit = folder / "roost-thing.service"
        self.started: list[bool] = []
        self.is_enabled = False

    def install(self) -> None:
        """Nothing to read again."""

    def enabled(self) -> bool:
        """Say what was asked for."""
        return self.is_enabled

    def enable(self) -> None:
        """Remember it."""
        self.is_enabled = True

    def in_order(self) -> bool:
        """Say whether it was started."""
        return bool(self.started)

    def start(self, *, again: bool) -> None:
        """Remember it."""
        self.started.append(again)

    def remove(self) -> None:
        """Forget it."""


@pytest.fixture
def init(tmp_path: Path) -> FakeInit:
    return FakeInit(tmp_path)


@pytest.fixture
def host(tmp_path: Path, init: FakeInit) -> Host:
    return Host(init, Manifest(tmp_path / "manifest"), tmp_path / "services")


def test_a_check_tells_the_restart_that_files_not_yet_written_will_cause(
    tmp_path: Path, host: Host, init: FakeInit
) -> None:
    config = tmp_path / "config"
    config.write_text("1")

    def check(*, changed_before: bool) -> Change:
        return ensure(host, SERVICE, [str(config)], dry_run=True, changed_before=changed_before)

    assert check(changed_before=True).done == ["unit written", "enabled at boot", "started"]
    ensure(host, SERVICE, [str(config)], dry_run=False, changed_before=True)
    assert check(changed_before=False).done == []
    assert check(changed_before=True).done == ["restarted"]
    # Outside of a check the content tells.
    assert ensure(host, SERVICE, [str(config)], dry_run=False, changed_before=True).done == []
    config.write_text("2")
    assert ensure(host, SERVICE, [str(config)], dry_run=False).done == ["restarted"]
    assert init.started == [False, True]


def test_the_logs_of_a_removed_service_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    logs = tmp_path / "log"
    logs.mkdir()
    for name in ("roost-thing.log", "roost-thing.log.1", "bootstrap.log"):
        (logs / name).touch()
    places = Places(
        install_dir=str(tmp_path), run_dir=str(tmp_path), log_dir=str(logs), init_dir=str(tmp_path / "init.d")
    )
    manifest = Manifest(tmp_path / "manifest")
    manifest.own("unit", SERVICE.name)
    remove(Host(SysV(SERVICE, places), manifest, tmp_path / "services"), SERVICE, dry_run=False)
    assert [path.name for path in logs.iterdir()] == ["bootstrap.log"]
