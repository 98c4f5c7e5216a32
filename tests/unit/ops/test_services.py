"""Services: what a check says, and what a removal leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from roost.ops import services
from roost.ops.errors import RoostError
from roost.ops.ownership import Manifest
from roost.ops.services import Change, Host, Systemd, SysV, begin_anew, ensure, remove
from roost.ops.units import Places, Service
from tests.support.ansible_module import run_module

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


RULES = Service(
    name="roost-rules",
    description="Rules",
    type="oneshot",
    command=("cp", "wanted", "loaded"),
    stop_command=("rm", "loaded"),
    check_command=("test", "-e", "loaded"),
)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that notes what it is asked, and fails where it finds a file `broken`; and the journal beside it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    asked = tmp_path / "asked"
    answers = f"""#!/bin/sh
case $1 in
show) case "$*" in *roost-rules*) echo oneshot ;; *) echo exec ;; esac ;;
daemon-reload) ;;
*)
    echo "$*" >>{asked}
    [ ! -e {tmp_path}/broken ] || {{ echo "Job failed. See the journal." >&2; exit 1; }}
    ;;
esac
"""
    for name, text in {"systemctl": answers, "journalctl": "#!/bin/sh\necho 'firewall.nft:3: syntax error'\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(services, "SYSTEMD_RUNS", tmp_path)
    return asked


def test_what_a_oneshot_put_in_place_stays_until_the_new_is_there(systemctl: Path, tmp_path: Path) -> None:
    places = Places(systemd_dir=str(tmp_path))
    Systemd(RULES, places).start(again=True)
    begin_anew(RULES.name, places)
    Systemd(SERVICE, places).start(again=True)
    begin_anew(SERVICE.name, places)
    assert systemctl.read_text().splitlines() == [
        "reload-or-restart roost-rules.service",
        "reload-or-restart roost-rules.service",
        "restart roost-thing.service",
        "restart roost-thing.service",
    ]
    unit = Systemd(RULES, places).text
    assert "ExecReload=cp wanted loaded\n" in unit


@pytest.mark.usefixtures("systemctl")
def test_a_load_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(RoostError, match=r"syntax error") as error:
        Systemd(RULES, Places(systemd_dir=str(tmp_path))).start(again=True)
    assert error.value.fix
    with pytest.raises(RoostError, match=r"syntax error"):
        begin_anew(RULES.name)


def test_by_its_script_too_what_is_in_place_outlives_a_load_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "SYSTEMD_RUNS", tmp_path / "none")
    folder = str(tmp_path)
    places = Places(install_dir=folder, run_dir=folder, log_dir=folder, init_dir=f"{folder}/init.d")
    wanted, loaded = tmp_path / "wanted", tmp_path / "loaded"
    rules = Service(
        name="roost-rules",
        description="Rules",
        type="oneshot",
        command=("cp", str(wanted), str(loaded)),
        stop_command=("rm", str(loaded)),
        check_command=("test", "-e", str(loaded)),
    )
    init = SysV(rules, places)
    init.unit.parent.mkdir()
    init.unit.write_text(init.text)
    init.unit.chmod(0o700)
    init.install()
    wanted.write_text("before")
    init.start(again=False)
    wanted.unlink()
    with pytest.raises(RoostError, match="wanted"):
        init.start(again=True)
    with pytest.raises(RoostError, match="wanted"):
        begin_anew(rules.name, places)
    assert loaded.read_text() == "before"
    wanted.write_text("after")
    begin_anew(rules.name, places)
    assert loaded.read_text() == "after"


def test_rules_are_there_before_the_network_and_before_what_opens_ports() -> None:
    early = Service(
        name="roost-rules", description="", command=("true",), type="oneshot", before_network=True, before=("docker",)
    )
    unit = Systemd(early, Places()).text
    for line in (
        "DefaultDependencies=no",
        "Wants=network-pre.target",
        "Before=network-pre.target shutdown.target docker.service",
        "Conflicts=shutdown.target",
    ):
        assert f"{line}\n" in unit
    assert "# X-Start-Before:    docker\n" in SysV(early, Places()).text
    assert "network-pre" not in Systemd(RULES, Places()).text


def test_what_has_secrets_is_root_s_alone_and_what_was_written_before_becomes_so(host: Host, init: FakeInit) -> None:
    private = Service(name="roost-thing", description="", command=("true",), private=True)
    assert (SysV(private, Places()).mode, SysV(SERVICE, Places()).mode) == (0o700, 0o755)
    assert (Systemd(private, Places()).mode, Systemd(SERVICE, Places()).mode) == (0o600, 0o644)
    ensure(host, SERVICE, [], dry_run=False)
    assert ensure(host, SERVICE, [], dry_run=False).done == []
    init.mode = 0o600
    assert ensure(host, SERVICE, [], dry_run=True).done[0] == "unit written"
    ensure(host, SERVICE, [], dry_run=False)
    assert init.unit.stat().st_mode & 0o777 == 0o600
    assert ensure(host, SERVICE, [], dry_run=False).done == []
    assert init.started == [False, False]


def test_what_has_secrets_is_in_no_difference(host: Host, init: FakeInit) -> None:
    init.mode = 0o700
    init.text = "HTTP_PROXY=http://ada:s3cret@192.0.2.1"
    told = [ensure(host, SERVICE, [], dry_run=False)]
    init.text = "HTTP_PROXY=http://ada:another@192.0.2.1"
    told.append(ensure(host, SERVICE, [], dry_run=True))
    init.mode, init.text = 0o755, "no proxy any more"
    told.append(ensure(host, SERVICE, [], dry_run=True))
    told.append(remove(host, SERVICE, dry_run=True))
    assert [change.done != [] for change in told] == [True] * 4
    assert {(change.before, change.after) for change in told} == {("", "")}


def test_what_the_module_tells_has_no_value_of_the_environment(tmp_path: Path) -> None:
    told = run_module(
        "roost_service",
        {
            "name": "roost-thing", "manifest": str(tmp_path / "manifest"), "command": ["true"],
            "secret_environment": {"HTTP_PROXY": "http://ada:s3cret@192.0.2.1:3128"},
        },
        check=True,
    )  # fmt: skip
    assert (told["failed"], told["changed"]) == (False, True)
    assert "s3cret" not in json.dumps(told)
