"""The worker by rc.d: its script under dash, with doubles of rc.subr(8), daemon(8), chroot(8), and of a hub."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from roost.cli.stage import refuse_worker
from roost.fleet.stage import make
from roost.fleet.stage.hosts_parts import Made, freebsd_parts, worker_env
from roost.fleet.stage.wish import Account, WorkerWish, worker_service
from roost.fleet.stage.write import put
from roost.ops.errors import RoostError
from roost.ops.freebsd_packages import PACKAGES
from roost.ops.units import FREEBSD, render_newsyslog, render_rcd
from tests.support.worker_hub import Hub
from tests.unit.bootstrap.waiting import until
from tests.unit.fleet.stage.test_stage_parts import FREEBSD_WISH, text

REPOSITORY = Path(__file__).parents[4]
DOUBLES = REPOSITORY / "tests" / "support" / "freebsd"
LONG_S = 120
ABSENT = ("ansible", "cryptography", "fastapi", "httpx2", "huggingface_hub", "mcp", "opentelemetry", "uvicorn", "yaml")
# The worker refuses root, who may run the tests; and a FreeBSD host has not all that they have.
AS_THERE = f"""import os, sys
os.geteuid = lambda: 1000
sys.modules.update(dict.fromkeys({ABSENT}))
"""
KEY, SECOND_KEY = "roost-first", "roost-second"


class Machine:
    """The script as it is staged, with FreeBSD's paths in a folder."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        me = pwd.getpwuid(os.getuid()).pw_name
        worker = WorkerWish(Account(me, os.getuid(), "Worker"), api)
        self.wish = replace(FREEBSD_WISH, worker=worker)
        self.service = worker_service(self.wish, worker)
        self.places = {
            "/usr/local/bin/python3": sys.executable,
            "/usr/local/etc/roost": f"{folder}/etc",
            "/usr/local/lib/roost/worker": f"{folder}/tree",
            "/var/db/roost/worker": f"{folder}/home",
            "/var/run/roost": f"{folder}/run",
            "/var/log/roost": f"{folder}/log",
            FREEBSD.rc_subr: str(DOUBLES / "rc.subr"),
            FREEBSD.daemon: f"{folder}/daemon",
            FREEBSD.chroot: str(DOUBLES / "chroot"),
        }
        for name in ("etc", "tree/app", "home", "conf"):
            (folder / name).mkdir(parents=True)
        (folder / "tree/app/roost").symlink_to(REPOSITORY / "app/roost")
        (folder / "tree/app/sitecustomize.py").write_text(AS_THERE)
        (folder / "daemon").write_text(f'#!/bin/sh\nexec {sys.executable} {DOUBLES}/daemon.py "$@"\n')
        (folder / "daemon").chmod(0o755)
        (folder / "conf/roost_worker").write_text('roost_worker_enable="YES"\n')
        self.script = folder / "roost_worker"
        self.script.write_text(self.here(render_rcd(self.service)))
        self.log = folder / "log/roost_worker.log"
        self.env = folder / "etc/worker.env"
        self.configure(KEY)

    def here(self, text: str) -> str:
        """Return a text with the paths of this machine."""
        for path, mine in self.places.items():
            text = text.replace(path, mine)
        return text

    def configure(self, key: str, mode: int = 0o400) -> None:
        """Do what the sample says: fill in the key."""
        assert self.wish.worker
        self.env.unlink(missing_ok=True)
        self.env.touch(0o600)
        self.env.write_text(
            worker_env(self.wish, self.wish.worker).replace("ROOST_API_KEY=\n", f"ROOST_API_KEY={key}\n")
        )
        self.env.chmod(mode)

    def __call__(self, verb: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of the script."""
        return subprocess.run(
            ["dash", str(self.script), verb],
            env={"PATH": os.environ["PATH"], "RC_CONF_DIR": f"{self.folder}/conf", "ROOST_API_KEY": "of the caller"},
            capture_output=True, text=True, timeout=LONG_S, check=False,
        )  # fmt: skip

    def pid(self, kind: str = "pid") -> int:
        """Return the PID in a pidfile, 0 without one."""
        file = self.folder / f"run/roost_worker.{kind}"
        return int(file.read_text() or 0) if file.exists() else 0

    def says(self, words: str, times: int = 1) -> None:
        """Wait until the log says something so often."""
        until(lambda: self.log.exists() and self.log.read_text().count(words) >= times, words, LONG_S)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Yield a hub that answers."""
    with Hub() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Iterator[Machine]:
    """Yield a machine whose worker is configured; nothing of it runs afterwards."""
    made = Machine(tmp_path, hub.url)
    yield made
    for kind in ("supervisor.pid", "pid"):
        if pid := made.pid(kind):
            os.kill(pid, signal.SIGKILL)


def started(machine: Machine) -> tuple[int, int]:
    """Start it; return child and supervisor once the hub has it."""
    done = machine("start")
    assert done.returncode == 0, done.stderr
    machine.says("Connected; works for anna")
    return machine.pid(), machine.pid("supervisor.pid")


def test_it_works_for_its_key_says_how_it_is_and_stops_without_a_trace(machine: Machine, hub: Hub) -> None:
    assert machine("health").returncode == 1
    child, supervisor = started(machine)
    status = machine("status")
    assert (status.returncode, status.stdout) == (
        0,
        f"roost_worker is running as pid {child}, supervisor {supervisor}.\n",
    )
    health = machine("health")
    assert health.returncode == 0, health.stderr
    assert "connected as" in health.stdout
    assert KEY.encode() not in Path(f"/proc/{child}/environ").read_bytes() + Path(f"/proc/{child}/cmdline").read_bytes()
    assert set(hub.keys("POST /roost/v1/workers")) == {KEY}
    assert machine("stop").returncode == 0
    assert hub.worker is None, "the hub was not told"
    assert list((machine.folder / "run").iterdir()) == []
    assert not Path(f"/proc/{child}").exists()


def test_health_is_the_hubs_word(machine: Machine, hub: Hub) -> None:
    started(machine)
    assert hub.worker
    hub.worker["host"] = "another"
    health = machine("health")
    assert (health.returncode, machine("status").returncode) == (1, 0)
    assert "no worker of this key" in health.stderr


def test_a_reload_reads_the_variables_anew_in_the_same_process(machine: Machine, hub: Hub) -> None:
    running = started(machine)
    machine.configure(SECOND_KEY)
    assert machine("reload").returncode == 0
    machine.says("Connected; works for anna", 2)
    assert (machine.pid(), machine.pid("supervisor.pid")) == running
    assert hub.keys("POST /roost/v1/workers") == [KEY, SECOND_KEY]


def test_a_rotated_log_goes_on_in_a_new_file(machine: Machine) -> None:
    running = started(machine)
    line = machine.here(render_newsyslog(machine.service)).splitlines()[1].split()
    log, whom, which = Path(line[0]), Path(line[-2]), int(line[-1])
    log.rename(log.with_suffix(".0"))
    os.kill(int(whom.read_text()), which)  # as newsyslog(8) does
    assert machine("reload").returncode == 0
    machine.says("Connected; works for anna")
    assert log.with_suffix(".0").read_text().count("Connected") == 1
    assert (machine.pid(), machine.pid("supervisor.pid")) == running


def no_file(machine: Machine) -> None:
    machine.env.unlink()


def no_key(machine: Machine) -> None:
    machine.configure("")


def open_to_others(machine: Machine) -> None:
    machine.configure(KEY, 0o444)


def plain_address(machine: Machine) -> None:
    machine.env.chmod(0o600)
    machine.env.write_text("ROOST_API=http://192.0.2.7:8360\nROOST_API_KEY=roost-first\n")


def no_package(machine: Machine) -> None:
    (machine.folder / "tree/app/structlog.py").write_text("raise ModuleNotFoundError('none', name='structlog')\n")


def no_code(machine: Machine) -> None:
    (machine.folder / "tree/app/roost").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_file, "worker.env is not readable"),
        (no_key, "has no ROOST_API_KEY"),
        (open_to_others, "others may read it"),
        (plain_address, "not encrypted"),
        (no_package, f"pkg install py{sys.version_info[0]}{sys.version_info[1]}-structlog"),
        (no_code, "worker_service.py is not readable"),
    ],
)  # fmt: skip
def test_without_what_it_needs_it_ends_with_1_and_nothing_is_tried_again(
    machine: Machine, hub: Hub, spoil: Callable[[Machine], None], said: str
) -> None:
    spoil(machine)
    done = machine("start")
    assert done.returncode == 1
    assert said in done.stderr
    run = machine.folder / "run"
    assert not run.exists() or list(run.iterdir()) == []
    assert hub.said == []


def test_another_hub_in_its_place_gets_the_key_once_and_not_again_and_again(machine: Machine, hub: Hub) -> None:
    running = started(machine)
    hub.identity = "2" * 32
    machine("reload")
    machine.says("Waits: correct that")
    asked = len(hub.said)
    assert (machine("status").returncode, machine("health").returncode) == (0, 1)
    assert hub.keys("POST /roost/v1/workers") == [KEY], "it works for another hub"
    assert [what for what, _key in hub.said[asked:]] == ["GET /roost/v1/workers"], "more than health has asked"
    hub.identity = "1" * 32
    assert machine("reload").returncode == 0
    machine.says("Connected; works for anna", 2)
    assert (machine.pid(), machine.pid("supervisor.pid")) == running


def test_one_that_waits_is_stopped_too(machine: Machine, hub: Hub) -> None:
    started(machine)
    hub.identity = "2" * 32
    machine("reload")
    machine.says("Waits: correct that")
    assert machine("stop").returncode == 0
    assert list((machine.folder / "run").iterdir()) == []


def test_the_operator_names_a_folder_as_the_workers_user(machine: Machine, hub: Hub) -> None:
    assert machine.wish.worker
    parts = freebsd_parts(machine.wish, Made(b"PK", Path("model"), worker_tree=Path("tree")))
    program = machine.folder / "roost-worker"
    program.write_text(machine.here(text(parts, "/usr/local/bin/roost-worker")))
    started(machine)
    folder = machine.folder / 'it\'s a "folder"'
    folder.mkdir()
    named = subprocess.run(
        ["dash", str(program), "workspace", "add", str(folder), "--name", "site", "--json"],
        capture_output=True, text=True, timeout=LONG_S, check=False,
    )  # fmt: skip
    assert named.returncode == 0, named.stderr
    assert json.loads(named.stdout)["path"] == str(folder)
    assert (machine.folder / "home/.config/roost/workspaces.json").is_file()
    assert machine("reload").returncode == 0
    until(lambda: hub.worker and hub.worker["workspaces"], "the folder", LONG_S)
    assert "workspaces: site" in machine("health").stdout


def test_the_scripts_of_a_host_with_a_worker_are_sound(machine: Machine) -> None:
    parts = freebsd_parts(machine.wish, Made(b"PK", Path("model"), worker_tree=Path("tree")))
    for path in (
        "/usr/local/etc/rc.d/roost_worker",
        "/usr/local/etc/rc.d/roost_firstboot",
        "/usr/local/bin/roost-worker",
    ):
        script = machine.folder / "script"
        script.write_text(text(parts, path))
        found = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout
    first = text(parts, "/usr/local/etc/rc.d/roost_firstboot")
    # rc(8) gives a script the base system's folders alone.
    assert "\n    /usr/local/bin/python3 /usr/local/" in first
    for account in machine.wish.accounts:
        assert f"add_user {account.name} {account.uid} " in first
    assert "# BEFORE: roost_model_main roost_worker\n" in first
    assert text(parts, "/etc/rc.conf.d/roost_worker") == 'roost_worker_enable="YES"\n'
    assert "roost_worker.supervisor.pid 1" in text(parts, "/usr/local/etc/newsyslog.conf.d/roost_worker.conf")
    there = {part.path for part in parts}
    assert set(machine.service.requires) - there == {
        "/usr/local/etc/roost/worker.env",  # the operator's: a key is no part of an image
        "/usr/local/lib/roost/worker/app/roost/cli/worker_service.py",
    }
    assert {"/usr/local/etc/roost/worker.env.sample", "/usr/local/lib/roost/worker"} <= there
    staged = json.loads(text(parts, "/usr/local/etc/roost/staged.json"))
    assert [service["name"] for service in staged["services"]] == ["roost_model_main", "roost_worker"]


def test_what_the_worker_imports_is_among_the_named_packages() -> None:
    program = """
import builtins, json, os, sys
for name in ("memfd_create", "getxattr", "setxattr", "O_TMPFILE", "sched_getaffinity", "pidfd_open"):
    delattr(os, name)  # FreeBSD's Python has none of these
own, found = builtins.__import__, set()
def noted(name, globals=None, locals=None, fromlist=(), level=0):
    who = (globals or {}).get("__name__") or ""
    if level == 0 and who.partition(".")[0] == "roost":
        found.add(name.partition(".")[0])
    return own(name, globals, locals, fromlist, level)
builtins.__import__ = noted
import roost.cli.worker, roost.cli.worker_service, roost.cli.workspace
print(json.dumps(sorted(found - {"roost", "__future__"} - set(sys.stdlib_module_names))))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "app")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) | {"dotenv"} == set(PACKAGES)


def test_a_root_gets_the_worker_with_its_code_and_a_second_time_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    chosen = SimpleNamespace(
        name="tiny", reference="tiny@1", context_length=4096, file=SimpleNamespace(relative_path="a/model.gguf"),
        quirks=SimpleNamespace(chat_template=""),
    )  # fmt: skip
    monkeypatch.setattr(make, "_model", lambda *_words: (chosen, model))
    monkeypatch.setattr(make, "release_dir", lambda: REPOSITORY)
    monkeypatch.setattr(os, "chown", lambda *_words: None)  # root alone may give away
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/rc.subr").touch()
    variables = yaml.safe_load((REPOSITORY / "group_vars/all.yaml").read_text())
    site: Any = SimpleNamespace(cache_dir=tmp_path / "cache")
    none: Any = None
    request = make.Request(root, "freebsd", worker_api="https://roost.example:8443")
    for _ in range(2):
        wanted = make.stage_of(request, site, variables, none, lambda _line: None)
        done = put(root, wanted.parts, lambda _line: None)
    assert [line for line in done if line != "folder /var/db/roost/worker 700"] == []  # given to nobody here
    assert (root / "usr/local/lib/roost/worker/app/roost/cli/worker_service.py").is_file()
    assert not list((root / "usr/local/lib/roost/worker").rglob("*.pyc"))
    sample = (root / "usr/local/etc/roost/worker.env.sample").read_text()
    values = [line for line in sample.splitlines() if not line.startswith("#")]
    assert values == ["ROOST_API=https://roost.example:8443", "ROOST_API_KEY="]
    assert not (root / "usr/local/etc/roost/worker.env").exists()
    assert "add_user roost-worker 8365 " in (root / "usr/local/etc/rc.d/roost_firstboot").read_text()


@pytest.mark.parametrize(
    ("api", "system", "said"),
    [
        ("https://roost.example", "linux", "its user's own service"),
        ("http://192.0.2.7:8360", "freebsd", "no https address"),
        ("roost.example", "freebsd", "no https address"),
        ("ftp://127.0.0.1", "freebsd", "no https address"),
    ],
)
def test_no_worker_is_staged_that_could_not_work(api: str, system: str, said: str) -> None:
    with pytest.raises(RoostError, match=said) as refused:
        refuse_worker(api, system)
    assert refused.value.exit_code == 2
    assert refused.value.fix
    refuse_worker("http://127.0.0.1:8360", "freebsd")
    refuse_worker("https://roost.example:8443", "freebsd")
