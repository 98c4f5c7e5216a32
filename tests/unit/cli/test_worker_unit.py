"""`roost worker install`: the unit that is written, what systemd is asked, and where there is none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roost.agent.sandbox.parent import Bubblewrap, refused_by_kernel
from roost.cli import principal, user_manager, worker_unit
from roost.cli.access import Access
from roost.cli.principal import Principal
from roost.cli.user_manager import Machine, missing
from roost.cli.worker import app
from roost.cli.worker_lock import only_one
from roost.ops.errors import RoostError
from roost.ops.units import render_systemd

SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$HOME/asked"
case "$2" in
is-active) echo active ;;
reset-failed) exit 1 ;;
show-environment) echo PATH=/usr/bin; echo "$SYSTEMD_HAS" ;;
restart) [ -z "$NEW_WORKER_SAYS" ] || echo "$SERVICE_PID" >"$NEW_WORKER_SAYS" ;;
show) echo "MainPID=$SERVICE_PID"; echo "SubState=$SERVICE_IS" ;;
esac
exit "${SYSTEMCTL_SAYS:-0}"
"""
ANNA = Principal(Access("x", "y"), "anna", "1" * 32)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a key, and a systemctl that notes what it is asked; nothing works for that key."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    for name in worker_unit.PASSED:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "ROOST_API": "http://127.0.0.1:8360",
        "ROOST_API_KEY": 'roost-"$key', "LOGNAME": "anna",
        "SERVICE_PID": "0", "SERVICE_IS": "auto-restart",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(worker_unit, "identify", lambda: ANNA)
    return tmp_path


@pytest.fixture
def home(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, whose service works: this process holds the lock, and systemctl says that it is the service's."""
    monkeypatch.setenv("SERVICE_PID", str(os.getpid()))
    monkeypatch.setenv("SERVICE_IS", "running")
    with only_one(principal.state_folder() / ANNA.called):
        yield bare


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_it_is_written_started_kept_and_taken_away(home: Path) -> None:
    done = run("install", "--only", "read")
    assert done.exit_code == 0, done.output
    assert "enable-linger anna" in done.stdout
    unit = home / ".config/systemd/user/roost-worker.service"
    text = unit.read_text()
    assert "worker --only read" in text
    for line in ("NoNewPrivileges=yes", "WantedBy=default.target", "KillMode=control-group", "Restart=on-failure"):
        assert line in text
    assert "User=" not in text
    assert "$key" not in text
    assert "ROOST_API_KEY" not in text
    kept = home / ".config/roost/worker.env"
    assert kept.stat().st_mode & 0o077 == 0
    assert kept.read_text() == 'ROOST_API="http://127.0.0.1:8360"\nROOST_API_KEY="roost-\\"\\$key"\n'
    verbs = [line.split()[1] for line in (home / "asked").read_text().splitlines()]
    assert [verb for verb in verbs if not verb.startswith("show")] == ["daemon-reload", "enable", "restart"]
    assert "RestartPreventExitStatus=2 8" in text
    again = json.loads(run("install", "--only", "read", "--json").stdout)
    assert not again["changed"]
    kept.chmod(0o644)
    assert json.loads(run("install", "--only", "read", "--json").stdout)["changed"]
    assert kept.stat().st_mode & 0o077 == 0
    assert json.loads(run("status", "--json").stdout)["state"] == "active"
    wanted = unit.parent / "default.target.wants" / unit.name
    wanted.parent.mkdir()
    wanted.symlink_to(unit)
    assert run("uninstall").exit_code == 0
    assert not unit.exists()
    assert not kept.exists()
    assert not wanted.is_symlink()
    assert list((home / ".config").iterdir()) == []
    verbs = [line.split()[1] for line in (home / "asked").read_text().splitlines()]
    assert [verb for verb in verbs if not verb.startswith("show")][-3:] == ["disable", "daemon-reload", "reset-failed"]
    assert (run("status").exit_code, run("uninstall").exit_code) == (1, 0)


def test_the_service_finds_what_this_shell_does_and_systemd_finds_the_service(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"XDG_CONFIG_HOME": f"{home}/set", "XDG_STATE_HOME": f"{home}/state", "XDG_CACHE_HOME": f"{home}/cache"}
    given |= {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "home,192.0.2.0/24"}
    for name, value in {**given, "XDG_RUNTIME_DIR": f"{home}/run"}.items():
        monkeypatch.setenv(name, value)
    with only_one(principal.state_folder() / ANNA.called):
        assert run("install").exit_code == 0
    kept = (home / "set/roost/worker.env").read_text()
    assert all(f'{name}="{value}"\n' in kept for name, value in given.items())
    assert "XDG_RUNTIME_DIR" not in kept
    unit = home / ".config/systemd/user/roost-worker.service"  # systemd was told of no other place
    assert f"EnvironmentFile={home}/set/roost/worker.env" in unit.read_text()
    assert run("uninstall").exit_code == 0
    assert not unit.exists()
    monkeypatch.setenv("SYSTEMD_HAS", f"XDG_CONFIG_HOME=$'{home}/it\\'s here'")
    with only_one(principal.state_folder() / ANNA.called):
        assert run("install").exit_code == 0
    assert (home / "it's here/systemd/user/roost-worker.service").exists()
    assert not unit.exists()


def test_what_others_keep_beside_the_service_stays(home: Path) -> None:
    assert run("install").exit_code == 0
    beside = [home / ".config/systemd/user/other.service", home / ".config/roost/workspaces.json"]
    for file in beside:
        file.write_text("{}")
    assert run("uninstall").exit_code == 0
    assert sorted(file for file in (home / ".config").rglob("*") if file.is_file()) == sorted(beside)


def test_a_dry_run_writes_nothing(home: Path) -> None:
    shown = run("install", "--dry-run")
    assert shown.stdout.startswith("# Written by Roost")
    assert not (home / ".config").exists()
    assert not (home / "asked").exists()


def test_without_systemd_it_says_what_to_do_and_writes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEMCTL_SAYS", "1")
    monkeypatch.setattr(user_manager, "this_machine", lambda: Machine(systemd=True, pam=True, bus=True))
    done = run("install")
    assert isinstance(done.exception, RoostError)
    assert done.exception.exit_code == user_manager.NO_SYSTEMD
    assert "crontab" in done.exception.fix
    assert "`ROOST_API_KEY=KEY`" in done.exception.fix
    assert "`@reboot roost worker`" in done.exception.fix  # cron logs the command, so no key is in it
    assert not (home / ".config").exists()


@pytest.mark.parametrize(
    ("machine", "why", "fix"),
    [
        (Machine(systemd=False, pam=False, bus=False), "did not start this machine", "crontab -e"),
        (Machine(systemd=False, pam=False, bus=False, freebsd=True), "rc.d runs the worker", "stage ROOT --os freebsd"),
        (Machine(systemd=True, pam=False, bus=True), "pam_systemd is missing", "apt-get install libpam-systemd"),
        (Machine(systemd=True, pam=True, bus=False), "no D-Bus", "apt-get install dbus"),
        (Machine(systemd=True, pam=True, bus=True), "runs services of this user", "enable-linger"),
    ],
)
def test_what_a_systemd_of_users_lacks_is_named(machine: Machine, why: str, fix: str) -> None:
    said, what = missing(machine)
    assert why in said
    assert fix in what
    assert ("enable-linger" in what) == (machine == Machine(systemd=True, pam=True, bus=True)), "it helps there only"


def test_beside_a_worker_that_runs_nothing_is_installed(bare: Path) -> None:
    with only_one(principal.state_folder() / ANNA.called):
        done = run("install")
    assert isinstance(done.exception, RoostError)
    assert f"runs already (process {os.getpid()})" in done.exception.message
    assert f"kill {os.getpid()}" in done.exception.fix
    assert not (bare / ".config").exists()
    assert done.stdout == ""


def test_a_worker_of_before_that_does_not_say_who_it_is_gives_way_to_one_that_does(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("install").exit_code == 0
    lock = principal.state_folder() / ANNA.called / "lock"
    lock.write_text("")
    monkeypatch.setenv("NEW_WORKER_SAYS", str(lock))
    again = run("install", "--json")
    assert (again.exit_code, json.loads(again.stdout)["changed"]) == (0, False)
    verbs = [line.split()[1] for line in (home / "asked").read_text().splitlines()]
    assert verbs.count("restart") == 2


def test_a_service_that_ends_again_is_not_said_to_run(bare: Path) -> None:
    stub = bare / "bin" / "journalctl"
    stub.write_text("#!/bin/sh\necho 'error: The API refuses the key.'\n")
    stub.chmod(0o755)
    done = run("install")
    assert isinstance(done.exception, RoostError)
    assert "ends again: error: The API refuses the key." in done.exception.message
    assert "roost worker uninstall" in done.exception.fix
    assert done.stdout == ""


def test_another_unit_of_that_name_and_root_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = home / ".config/systemd/user/roost-worker.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    assert "not ours" in str(run("install").exception)
    assert run("uninstall").stdout == "There was no such service.\n"
    assert unit.read_text() == "[Service]\n"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "root" in str(run("install").exception)
    assert principal.ROOT_FIX in str(run("install").exception)


def test_systemd_takes_the_unit(home: Path) -> None:
    unit = home / "units" / "roost-worker.service"
    unit.parent.mkdir()
    unit.write_text(render_systemd(worker_unit.service([], ["192.0.2.0/24"])))
    for target in ("basic", "shutdown"):  # what every unit stands on; nothing of this machine's own is looked at
        (unit.parent / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (home / "run").mkdir()
    said = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(unit)], capture_output=True, text=True, check=False,
        env={
            "PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"),
            "SYSTEMD_UNIT_PATH": str(unit.parent),
        },
    )  # fmt: skip
    assert (said.returncode, said.stderr) == (0, "")


def test_a_sandbox_that_the_kernel_refuses_is_told_exactly(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = home / "bin" / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    program.chmod(0o755)
    refused_by_kernel.cache_clear()
    try:
        missing = Bubblewrap().missing()
    finally:
        refused_by_kernel.cache_clear()
    assert "Permission denied" in missing
    assert "apparmor_restrict_unprivileged_userns" in missing
    monkeypatch.setenv("PATH", str(home / "none"))
    assert "apt-get install bubblewrap" in Bubblewrap().missing()
