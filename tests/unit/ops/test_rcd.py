"""rc.d scripts under dash, with doubles of rc.subr(8) and daemon(8) that were written from their manuals."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from roost.ops.units import Places, Service, render_newsyslog, render_rcd
from tests.unit.bootstrap.waiting import until

DOUBLES = Path(__file__).parents[2] / "support" / "freebsd"
# Says what it got, what it is told, and stays. Who reads that it began may signal it.
PROGRAM = """trap 'echo reloaded' HUP
trap 'echo ended; exit 0' TERM
echo "began $1 $SAID ${SECRET-unset}"
while :; do sleep 0.05; done"""
AWKWARD = 'it\'s a "word" with $HOME, `id` and \\ in it'


class Script:
    """A rendered script in a folder that stands for the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        daemon = folder / "daemon"
        daemon.write_text(f'#!/bin/sh\nexec {sys.executable} {DOUBLES}/daemon.py "$@"\n')
        daemon.chmod(0o755)
        (folder / "conf").mkdir()
        self.places = Places(
            run_dir=f"{folder}/run", log_dir=f"{folder}/log", rc_subr=f"{DOUBLES}/rc.subr", daemon=str(daemon)
        )
        self.config = folder / "config"
        self.config.touch()
        self.secrets = folder / "env"
        self.secrets.write_text(f"SECRET=hidden\n$(touch {folder}/sourced)\n")
        self.service = Service(
            name="roost-thing",
            description="A thing",
            command=("/bin/sh", "-c", PROGRAM, "sh", AWKWARD),
            user=pwd.getpwuid(os.getuid()).pw_name,
            environment={"SAID": AWKWARD},
            environment_file=str(self.secrets),
            requires=(str(self.config),),
            check_command=("test", "-e", f"{folder}/healthy"),
        )

    def __call__(self, verb: str) -> subprocess.CompletedProcess[str]:
        """Run a verb under dash; it must end within twenty seconds."""
        script = self.folder / "roost_thing"
        script.write_text(render_rcd(self.service, self.places))
        return subprocess.run(
            ["dash", str(script), verb],
            env={"PATH": os.environ["PATH"], "RC_CONF_DIR": f"{self.folder}/conf", "SECRET": "of the caller"},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def enable(self) -> None:
        """Do what the operator does in rc.conf."""
        (self.folder / "conf" / "roost_thing").write_text('roost_thing_enable="YES"\n')

    def pid(self, kind: str = "pid") -> int:
        """Return the PID in a pidfile, 0 without one."""
        try:
            return int((self.folder / "run" / f"roost_thing.{kind}").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def lines(self) -> list[str]:
        """Return the log's lines."""
        log = self.folder / "log" / "roost_thing.log"
        return log.read_text().splitlines() if log.exists() else []

    def pidfiles(self) -> list[str]:
        """Return which pidfiles there are."""
        return sorted(path.name for path in (self.folder / "run").glob("*"))


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Yield an enabled script; nothing of it runs afterwards."""
    made = Script(tmp_path)
    made.enable()
    yield made
    # Asked for by name, for a test that failed may have lost what would stop it in order.
    for kind in ("supervisor.pid", "pid"):
        if pid := made.pid(kind):
            os.kill(pid, signal.SIGKILL)


def started(script: Script) -> int:
    """Start it and return the child's PID."""
    result = script("start")
    assert result.returncode == 0, result.stderr
    until(lambda: any(line.startswith("began") for line in script.lines()), "its first line")
    return until(script.pid, "its pidfile")


def test_it_starts_says_how_it_is_and_stops_without_a_trace(script: Script) -> None:
    child = started(script)
    supervisor = script.pid("supervisor.pid")
    status = script("status")
    assert (status.returncode, status.stdout) == (
        0,
        f"roost_thing is running as pid {child}, supervisor {supervisor}.\n",
    )
    again = script("start")
    assert (again.returncode, script.pid()) == (1, child), "a second start leaves the first alone"
    assert script("stop").returncode == 0
    # daemon(8) is gone by then: who stops it has waited for the program itself.
    assert script.pidfiles() == []
    assert not Path(f"/proc/{child}").exists()
    assert not Path(f"/proc/{supervisor}").exists()
    assert (script("status").returncode, script("status").stdout) == (1, "roost_thing is not running.\n")


def test_words_and_variables_reach_the_program_as_they_are(script: Script) -> None:
    started(script)
    assert script.lines()[0] == f"began {AWKWARD} {AWKWARD} unset"


def test_the_file_of_variables_is_for_the_program_alone(script: Script) -> None:
    child = started(script)
    variables = Path(f"/proc/{child}/environ").read_text().split("\0")
    assert f"ROOST_ENV_FILE={script.secrets}" in variables
    assert not [word for word in variables if "hidden" in word or "of the caller" in word]
    assert not (script.folder / "sourced").exists(), "a shell has run what stands in it"


def test_a_killed_child_is_started_again_by_the_same_supervisor(script: Script) -> None:
    first, supervisor = started(script), script.pid("supervisor.pid")
    os.kill(first, signal.SIGKILL)
    until(lambda: script.pid() not in {0, first}, "another child")
    assert script.pid("supervisor.pid") == supervisor
    until(lambda: script("status").returncode == 0, "its status")


def test_reload_is_for_the_child(script: Script) -> None:
    child, supervisor = started(script), script.pid("supervisor.pid")
    assert script("reload").returncode == 0
    until(lambda: script.lines()[-1] == "reloaded", "the word of the child")
    assert (script.pid(), script.pid("supervisor.pid")) == (child, supervisor)


def test_a_rotated_log_goes_on_in_a_new_file(script: Script) -> None:
    started(script)
    line = render_newsyslog(script.service, script.places).splitlines()[1].split()
    log, whom, which = Path(line[0]), Path(line[-2]), int(line[-1])
    log.rename(log.with_suffix(".0"))
    os.kill(int(whom.read_text()), which)  # as newsyslog(8) does
    assert script("reload").returncode == 0
    until(lambda: script.lines() == ["reloaded"], "the new file")
    assert log.with_suffix(".0").read_text().startswith("began")


def test_without_its_configuration_nothing_is_started(script: Script) -> None:
    script.config.unlink()
    result = script("start")
    assert result.returncode == 1
    assert f"{script.config} is not readable" in result.stderr
    assert (script.pidfiles(), script.lines()) == ([], [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": ("/nowhere/program",)}, "there is no program /nowhere/program"),
        ({"user": "nobody-of-that-name"}, "there is no user nobody-of-that-name"),
    ],
)
def test_without_its_program_or_user_nothing_is_started(script: Script, change: dict[str, str], said: str) -> None:
    script.service = replace(script.service, **change)  # type: ignore[arg-type]  # one of two fields, as the table says
    result = script("start")
    assert result.returncode == 1
    assert said in result.stderr
    assert script.pidfiles() == []


def test_a_supervisor_that_was_killed_leaves_no_second_child(script: Script) -> None:
    orphan = started(script)
    os.kill(script.pid("supervisor.pid"), signal.SIGKILL)
    until(lambda: "its supervisor is dead" in script("status").stdout, "the status that says so")
    result = script("start")
    assert result.returncode == 0, result.stderr
    assert f"process {orphan} has lost its supervisor" in result.stderr
    until(lambda: script.pid() not in {0, orphan}, "a new child")
    assert not Path(f"/proc/{orphan}").exists()


def test_it_starts_only_where_it_is_enabled(tmp_path: Path) -> None:
    script = Script(tmp_path)
    result = script("start")
    assert result.returncode == 1
    assert "roost_thing_enable" in result.stderr
    assert script.pidfiles() == []
    assert script("onestart").returncode == 0
    assert script("onestop").returncode == 0


def test_health_is_more_than_status(script: Script) -> None:
    assert script("health").returncode == 1
    started(script)
    assert script("health").returncode == 1
    (script.folder / "healthy").touch()
    assert script("health").returncode == 0


def test_what_is_no_daemon_is_refused() -> None:
    with pytest.raises(ValueError, match="no daemon"):
        render_rcd(Service(name="once", description="", command=("true",), type="oneshot"))


def test_the_script_is_sound(tmp_path: Path) -> None:
    assert shutil.which("shellcheck"), "tests/run check brings it"
    script = Script(tmp_path)
    text = tmp_path / "script"
    text.write_text(render_rcd(script.service, script.places))
    found = subprocess.run(["shellcheck", str(text)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
