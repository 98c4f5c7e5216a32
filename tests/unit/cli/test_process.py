"""The command as a process: exit codes, signals, what is imported, how it speaks."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roost.cli.verbs import VERBS, make_app
from tests.support.net import wait_until
from tests.unit.cli.fakes import Installation

APP = Path(__file__).resolve().parents[3] / "app"
ARGV = [sys.executable, "-P", "-m", "roost"]
PATIENCE_S = 60
NO_JSON = {
    "audit",
    "sessions",
    "memory",
    "skills",
    "allowed",
    "workspace",
    "mcp",
    "search",
    "technician",
    "config",
    "security",
    "serve",
    "images",
    "fleet",
    "bundle",
    "keys",
    "ca",
    "endpoints",
    "route",
    "dashboards",
}  # groups, mostly


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(APP), "COLUMNS": "100", "NO_COLOR": "1", **(more or {})}


def roost(*words: str, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ARGV, *words], env=environment(more), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def test_a_fault_of_the_system_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = roost("status", more={"ROOST_SITE": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "\nfix: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_no_fault_to_be_told() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [*ARGV, "--help"], env=environment(), stdin=subprocess.DEVNULL, stdout=writes, stderr=subprocess.PIPE,
        text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


def test_version_and_help() -> None:
    assert roost("--version").stdout == "roost 0.1.0\n"
    shown = roost("--help")
    assert shown.returncode == 0
    for verb in VERBS:
        assert f" {verb} " in shown.stdout


@pytest.mark.parametrize("verb", ["setup", "serve"])  # one of the long way through the command line, and the short one
def test_help_of_a_verb(verb: str) -> None:
    shown = roost(verb, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Usage: roost {verb}" in shown.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    shown = CliRunner().invoke(make_app(), [verb, "--help"], prog_name="roost", env={"COLUMNS": "100"})
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert f"Usage: roost {verb}" in shown.stdout
    assert first_sentence(shown.stdout)
    if verb not in NO_JSON:
        assert "Example: " in shown.stdout
        assert "--json" in shown.stdout


def first_sentence(help_text: str) -> str:
    """Return what stands between the usage and the first table of a help; empty where nothing does."""
    _usage, *lines = [line.strip() for line in help_text.splitlines() if line.strip()]
    return lines[0] if lines and lines[0][0].isalpha() else ""


@pytest.mark.parametrize(
    ("group", "about"),
    [("keys", "Make, show, change and revoke keys of the API."), ("ca", "The fleet's certificate authority.")],
)  # as rich draws it, and without rich
def test_a_group_without_a_verb_shows_its_help(group: str, about: str) -> None:
    shown = roost(group)
    said = shown.stdout + shown.stderr
    assert (shown.returncode, said.count(f"Usage: roost {group}"), about in said) == (2, 1, True)
    assert "error" not in said


def test_help_imports_no_verb() -> None:
    code = (
        "import sys; sys.argv = ['roost', '--help']; from roost.cli.verbs import run_command_line\n"
        "try: run_command_line()\n"
        "except SystemExit: pass\n"
        "print(sorted({'httpx', 'pydantic', 'cryptography', 'fastapi', 'yaml', 'ansible'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_serve_needs_nothing_of_the_command_line() -> None:
    code = (
        "import sys; sys.argv = ['roost', 'serve', 'hub']; sys.modules['typer'] = sys.modules['rich'] = None\n"
        "import roost.cli.serve as serve; serve.main = lambda words: print('served', *words)\n"
        "from roost.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("served hub\n", "")


@pytest.mark.parametrize(
    ("words", "site", "code", "said"),
    [
        (["status"], "missing", 3, "error: Roost is not installed on this machine"),
        (["status"], "{}", 1, "is not valid"),
        (["chatt"], "missing", 2, "error: No such command 'chatt'. Did you mean 'chat'?"),
        (["limits", "foo"], "missing", 2, "error: No such command 'foo'.\nfix: See `roost limits --help`.\n"),
        (["keys", "add"], "missing", 2, "error: Missing argument 'name'.\nfix: See `roost keys add --help`.\n"),
        (
            ["limits", "set", "all"],
            "missing",
            2,
            "'all' is not one of 'critical', 'standard', 'bulk'.\nfix: See `roost",
        ),
        (["chat", "--max-tokens", "none"], "missing", 2, "--max-tokens"),
    ],
)
def test_mistakes(tmp_path: Path, words: list[str], site: str, code: int, said: str) -> None:
    file = tmp_path / "site.json"
    if site != "missing":
        file.write_text(site)
    done = roost(*words, more={"ROOST_SITE": str(file)})
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_error_and_fix_are_two_lines(tmp_path: Path) -> None:
    done = roost("status", more={"ROOST_SITE": str(tmp_path / "none.json")})
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "fix"]


def test_completion() -> None:
    more = {"_ROOST_COMPLETE": "complete_bash", "COMP_WORDS": "roost stat", "COMP_CWORD": "1"}
    assert roost(more=more).stdout.split() == ["status"]
    more |= {"COMP_WORDS": "roost verify --exp", "COMP_CWORD": "2"}
    assert roost(more=more).stdout.split() == ["--expect"]


def test_a_closed_pipe_is_no_traceback() -> None:
    with subprocess.Popen(
        [*ARGV, "--help"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_interrupting_one_answer(site: Installation) -> None:
    site.api.mode = "stall"
    process = subprocess.Popen(
        [*ARGV, "chat", "Hello?"], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert site.api.stalled.wait(PATIENCE_S)
    assert process.stdout is not None
    assert process.stdout.read(3) == "The"  # streamed: the answer is not over
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    assert site.api.left.wait(PATIENCE_S)  # and the model has been told to stop


def test_interrupting_an_answer_in_a_conversation(site: Installation, tmp_path: Path) -> None:
    """Ctrl-C ends the answer, not the program; the question without an answer is forgotten."""
    site.api.mode = "stall"
    terminal, theirs = pty.openpty()
    said = tmp_path / "said"
    with said.open("w") as out:
        process = subprocess.Popen([*ARGV, "chat"], env=environment(), stdin=theirs, stdout=out, stderr=out)
    os.close(theirs)
    try:
        os.write(terminal, b"Hello?\n")
        assert site.api.stalled.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "(cancelled)" in said.read_text(), PATIENCE_S, "the answer to be cancelled")
        assert site.api.left.wait(PATIENCE_S)
        site.api.mode = "ok"
        os.write(terminal, b"Again?\n")
        wait_until(lambda: "Paris." in said.read_text(), PATIENCE_S, "an answer")
        os.write(terminal, b"/quit\n")
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert [m["content"] for m in site.api.chats[1]["messages"][1:]] == ["Again?"]
    assert "/quit ends" in said.read_text()
    assert "Traceback" not in said.read_text()


# Root becomes nobody only after a first call has loaded every module: the interpreter may be in a private folder.
AS_NOBODY = """
import contextlib, io, os, shutil, sys
import certifi
from roost.cli.main import main

authorities = shutil.copy(certifi.where(), sys.argv.pop(1))
certifi.where = lambda: authorities

def call():
    try:
        main()
    except SystemExit as end:
        return end.code

if os.geteuid() == 0:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call()
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(call())
"""


def hide_keys(site: Installation) -> None:
    """Let the keys be readable by root only, and everything else by everyone."""
    if os.geteuid() != 0:
        for secret in ("api-key", "nomad-operator-token"):
            (site.folder / "secrets" / secret).chmod(0)
        return
    for folder in [site.folder, *site.folder.parents]:
        if len(folder.parts) > 2:  # pytest keeps its folders to itself
            folder.chmod(0o755)
    (site.folder / "site.json").chmod(0o644)  # as the playbook writes it, whatever umask the tests have


def test_a_user_who_may_not_read_the_keys(site: Installation) -> None:
    """`status` shows what it can and says how to see the rest; `chat` says what is missing."""
    hide_keys(site)
    argv = [sys.executable, "-P", "-c", AS_NOBODY, str(site.folder / "authorities.pem")]
    done = subprocess.run([*argv, "status", "--json"], env=environment(), capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr[-1500:]
    found = json.loads(done.stdout)
    assert (done.returncode, found["healthy"], found["models"][0]["state"]) == (0, True, "ready")
    assert len(found["unread"]) == 2
    assert all("sudo" in text for text in found["unread"])
    done = subprocess.run([*argv, "chat", "Hi"], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "fix: Run the command with sudo, or set ROOST_API_KEY." in done.stderr
