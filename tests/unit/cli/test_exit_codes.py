"""The exit codes of docs/operations.md hold: every code that stands in the code is there, and verbs end with them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from roost.cli.verbs import EPILOG
from roost.ops.errors import NOT_ALLOWED, NOT_FOUND, USAGE, RoostError
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Handler, Installation, running

ROOT = Path(__file__).parents[3]
FAILED = 1


def documented() -> dict[int, str]:
    """Return the table of exit codes."""
    section = (ROOT / "docs/operations.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    return {int(code): what for code, what in re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE)}


def constants(tree: ast.AST) -> dict[str, int]:
    """Return the names of a file that stand for a number: `A = 1`, `A, B = 1, 2`."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            names = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            values = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant) and isinstance(n.value, int)]
            found |= dict(zip(names, values, strict=False)) if len(names) == len(values) else {}
    return found


def codes_in(path: Path) -> set[int]:
    """Return the numbers that a file ends with: `exit_code=N`, `Exit(N)`, and names of numbers in their place."""
    tree = ast.parse(path.read_text())
    numbers = constants(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    given = [k.value for call in calls for k in call.keywords if k.arg == "exit_code"]
    given += [arg for call in calls if ast.unparse(call.func).endswith(".Exit") for arg in call.args]
    parts = [part for value in given for part in ast.walk(value)]
    found = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, int)}
    return found | {numbers[part.id] for part in parts if isinstance(part, ast.Name) and part.id in numbers}


def test_every_code_is_documented_and_in_the_help() -> None:
    table = documented()
    assert {0, FAILED, USAGE, 3, NOT_ALLOWED, NOT_FOUND, 130} <= set(table)
    used = {code: path.name for path in (ROOT / "app/roost").rglob("*.py") for code in codes_in(path)}
    assert len(used) > 5
    assert set(used) - set(table) == set(), used
    told = {int(code) for code in re.findall(r"(\d+) [a-z]", EPILOG.partition("Exit codes:")[2])}
    assert told <= set(table)
    assert {0, FAILED, USAGE, 3, NOT_ALLOWED, NOT_FOUND, 130} <= told


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (USAGE, ["keys", "set", "alice"]),
        (USAGE, ["limits", "set", "bulk"]),
        (USAGE, ["memory", "forget"]),
        (USAGE, ["sessions", "purge"]),
        (USAGE, ["sessions", "purge", "--older-than", "long"]),
        (USAGE, ["endpoints", "add", "box", "ftp://box", "--engine", "vllm"]),
        (USAGE, ["endpoints", "add", "BOX 1", "https://box.example", "--engine", "vllm"]),
        (USAGE, ["endpoints", "add", "box", "https://box.example", "--engine", "vllm", "--key-env", "NONE"]),
        (USAGE, ["stage", "/nowhere"]),
        (USAGE, ["models", "serve", "--listen", "here"]),
        (USAGE, ["usage", "--since", "once"]),
        (USAGE, ["keys", "add", "A B"]),
        (USAGE, ["keys", "add", "alice", "--expires", "soon"]),
        (NOT_FOUND, ["logs", "nonsense"]),
        (NOT_FOUND, ["config", "reset", "api_port"]),
        (NOT_FOUND, ["keys", "revoke", "nobody"]),
        (NOT_FOUND, ["endpoints", "remove", "nothing"]),
    ],
)
def test_a_refusal_ends_as_it_is_documented(roost: Run, site: Installation, code: int, words: list[str]) -> None:
    offline = ["keys", "limits"]
    if words[0] in offline:
        words = [*words, "--file", str(site.site_file.parent / "keys.json")]
        (site.site_file.parent / "keys.json").write_text("")
    if words[:2] in (["endpoints", "add"], ["endpoints", "remove"]):
        (site.site_file.parent / "endpoints.json").write_text("")
        words = [*words, "--file", str(site.site_file.parent / "endpoints.json")]
    error = roost(*words).exception
    assert isinstance(error, RoostError), error
    assert (error.exit_code, bool(error.fix)) == (code, True), error


@pytest.mark.parametrize(
    ("status", "code"), [(400, USAGE), (422, USAGE), (401, NOT_ALLOWED), (403, NOT_ALLOWED), (404, NOT_FOUND), (500, 1)]
)
def test_what_the_api_refuses_ends_as_it_is_documented(
    roost: Run, site: Installation, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    def refuses(request: Handler) -> None:
        request.answer_json(status, {"error": {"message": "No."}})

    assert site.site_file.exists()
    with running(refuses) as port:
        monkeypatch.setenv("ROOST_API", f"http://127.0.0.1:{port}")
        error = roost("sessions", "list").exception
    assert isinstance(error, RoostError)
    assert error.exit_code == code


def test_a_key_that_is_missing_is_wrong_usage_and_root_is_told_that_it_may_not(
    roost: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "none.json"))
    monkeypatch.setenv("ROOST_API", "https://roost.example")
    monkeypatch.delenv("ROOST_API_KEY", raising=False)
    error = roost("sessions", "list").exception
    assert isinstance(error, RoostError)
    assert error.exit_code == USAGE
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for words in (["worker"], ["technician", "list"], ["worker", "install"]):
        refused = roost(*words).exception
        assert isinstance(refused, RoostError), words
        assert refused.exit_code == NOT_ALLOWED, words
