"""The acceptance runbook and the first boot, against a scripted init system and a scripted API."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from roost.hosts import host_program
from roost.hosts.accept import FAILED, MISSING, OK, Init, Runbook, Step, exit_code
from roost.hosts.firstboot import make_secrets
from roost.hosts.staged import load
from roost.ops.errors import RoostError

STEPS = (
    *("start", "status", "answer", "create a task", "list queued", "intake by capability", "one tick", "list"),
    *("stop", "pidfiles gone", "rotation"),
)


class Api(BaseHTTPRequestHandler):
    """An API that answers; tasks are there or not, as the server says."""

    server: Server

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        documents: dict[str, Any] = {
            "/readyz": {},
            "/v1/chat/completions": {"choices": [{"message": {"content": self.server.says}}][: self.server.choices]},
        }
        self.server.may_answer.wait(20)
        if self.server.has_tasks:
            documents |= {f"/v1/tasks{more}": [] for more in ("", "/intake", "/tick")}
        known = path in documents and self.headers["Authorization"] == "Bearer the-key"
        body = json.dumps(documents.get(path)).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """The server with what it shall say."""

    choices = 1  # how many its answers have
    says = "The capital of France is Paris."
    has_tasks = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(address, handler)


class FakeHost:
    """A FreeBSD host: services that run or not, as files."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        (folder / "key").write_text("the-key\n")
        (folder / "rotation").write_text(f"{folder}/log root:wheel 640 7 1 * JC {folder}/pid 1\n")
        (folder / "bin").mkdir()
        self.program("newsyslog", 'exec cat "$4"')
        self.program(
            "service",
            f"""case $2 in
        start) touch {folder}/pid {folder}/started ;;
        stop) rm {folder}/pid ;;
        status) test -e {folder}/pid ;;
        esac""",
        )
        self.staged = folder / "staged.json"
        self.staged.write_text(
            json.dumps(
                {
                    "system": "freebsd",
                    "services": [
                        {
                            "name": "thing",
                            "type": "daemon",
                            "pidfiles": [f"{folder}/pid"],
                            "log": f"{folder}/log",
                            "rotation": f"{folder}/rotation",
                        }
                    ],
                    "secrets": [],
                    "api": f"http://127.0.0.1:{server.server_port}",
                    "engine": "http://127.0.0.1:1",
                    "engine_key": "",
                    "api_key": f"{folder}/key",
                    "start_timeout_s": 0.6,
                }
            )
        )

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self) -> dict[str, Step]:
        init = Init(lambda verb, service: ("service", service, verb))
        steps = Runbook(load(self.staged), init).run(lambda _step: None)
        assert tuple(step.name for step in steps) == STEPS
        return {step.name: step for step in steps}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def host(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return FakeHost(tmp_path, server)


def results(steps: dict[str, Step]) -> dict[str, str]:
    return {name: step.result for name, step in steps.items() if step.result != OK}


def test_a_host_with_all_features_passes(host: FakeHost, server: Server) -> None:
    server.has_tasks = True
    steps = host.run()
    assert results(steps) == {}
    assert exit_code(list(steps.values())) == 0
    assert (host.folder / "pid").exists(), "it goes on running"


def test_features_that_are_not_built_are_missing_not_failed(host: FakeHost) -> None:
    steps = host.run()
    missing = ("create a task", "list queued", "intake by capability", "one tick", "list")
    assert results(steps) == dict.fromkeys(missing, MISSING)
    assert exit_code(list(steps.values())) == 2


def test_a_model_that_talks_nonsense_fails(host: FakeHost, server: Server) -> None:
    server.says = "Lyon"
    steps = host.run()
    assert (steps["answer"].result, "Lyon" in steps["answer"].detail) == (FAILED, True)
    assert exit_code(list(steps.values())) == 1


def test_an_answer_without_a_choice_fails_and_the_later_steps_go_on(host: FakeHost, server: Server) -> None:
    server.choices = 0
    steps = host.run()
    assert (steps["answer"].result, steps["stop"].result) == (FAILED, OK)
    assert "choices" in steps["answer"].detail


@pytest.mark.parametrize(
    ("service", "failed"),
    [
        ("case $2 in start) exit 1 ;; status) exit 1 ;; esac", {"start", "status"}),
        ("exit 0", {"stop", "pidfiles gone"}),
    ],
    ids=["does not start", "does not stop"],
)
def test_services_that_do_not_do_as_told_fail(host: FakeHost, service: str, failed: set[str]) -> None:
    if "exit 1" not in service:
        (host.folder / "pid").touch()
    host.program("service", service)
    steps = host.run()
    assert {name for name, result in results(steps).items() if result == FAILED} == failed
    assert exit_code(list(steps.values())) == 1


def test_a_log_that_nobody_rotates_fails(host: FakeHost) -> None:
    (host.folder / "rotation").write_text("")
    assert results(host.run())["rotation"] == FAILED
    (host.folder / "rotation").unlink()
    assert results(host.run())["rotation"] == FAILED


def test_the_program_prints_the_steps_and_says_what_is_missing(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host_program.main(["--staged", str(host.staged), "accept", "--json"]) == 2
    assert [step["name"] for step in json.loads(capsys.readouterr().out)] == list(STEPS)
    assert host_program.main(["--staged", str(host.staged), "accept"]) == 2
    assert "missing  one tick: this release's API has no /v1/tasks/tick" in capsys.readouterr().out
    assert host_program.main(["--staged", "/nowhere/staged.json", "accept"]) == 1
    assert "was not staged" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"system": "linux"}'])
def test_a_description_that_is_damaged_is_an_error_with_a_fix(tmp_path: Path, text: str) -> None:
    (tmp_path / "staged.json").write_text(text)
    with pytest.raises(RoostError, match="not valid"):
        load(tmp_path / "staged.json")


def with_secrets(folder: Path) -> Path:
    me = os.getuid()
    place = [{"path": f"{folder}/a", "uid": me}, {"path": f"{folder}/b", "uid": me}]
    document = {
        "system": "linux", "services": [], "api": "", "engine": "", "engine_key": "", "api_key": "",
        "start_timeout_s": 1,
        "secrets": [{"files": place, "hashes": [{"path": f"{folder}/hash", "uid": me}]}],
    }  # fmt: skip
    path = folder / "staged.json"
    path.write_text(json.dumps(document))
    return path


def test_the_first_boot_makes_secrets_once(tmp_path: Path) -> None:
    staged = load(with_secrets(tmp_path))
    assert make_secrets(staged) == [f"{tmp_path}/a", f"{tmp_path}/b", f"{tmp_path}/hash"]
    value = (tmp_path / "a").read_text()
    assert len(value) > 40
    assert (tmp_path / "b").read_text() == value
    assert (tmp_path / "hash").read_text().strip() == hashlib.sha256(value.strip().encode()).hexdigest()
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b", "hash")} == {0o400}
    assert make_secrets(staged) == []
    (tmp_path / "b").unlink()  # power was lost in between
    (tmp_path / "hash").unlink()
    assert make_secrets(staged) == [f"{tmp_path}/b", f"{tmp_path}/hash"]
    assert (tmp_path / "b").read_text() == value


def test_how_long_starting_and_answering_may_take_can_be_said(
    host: FakeHost, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.may_answer.clear()
    host_program.main(["--staged", str(host.staged), "accept", "--json", "--timeout", "0.05"])
    steps = {step["name"]: step for step in json.loads(capsys.readouterr().out)}
    assert [steps[name]["result"] for name in ("status", "answer")] == [FAILED, FAILED]
    server.may_answer.set()
    with pytest.raises(SystemExit) as ended:
        host_program.main(["--staged", str(host.staged), "accept", "--timeout", "0"])
    assert ended.value.code == 2
    assert "0 is not between" in capsys.readouterr().err
