"""What is not there by its name: the same exit code of every verb, written down in one place."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roost.cli.verbs import make_app
from roost.ops.errors import NOT_FOUND, RoostError
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Handler, Installation, running


def nothing_there(request: Handler) -> None:
    """Answer like an API that has nothing of that name."""
    request.answer_json(404, {"error": {"message": "There is nothing of that name.", "type": "invalid_request_error"}})


@pytest.mark.parametrize(
    "words",
    [
        ["sessions", "show", "nope"],
        ["sessions", "export", "nope"],
        ["skills", "show", "nope"],
        ["memory", "forget", "nope", "--yes"],
        ["endpoints", "show", "nope"],
        ["endpoints", "test", "nope"],
    ],
)
def test_over_the_api(roost: Run, site: Installation, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    assert site.site_file.exists()
    with running(nothing_there) as port:
        monkeypatch.setenv("ROOST_API", f"http://127.0.0.1:{port}")
        not_there(roost(*words))


@pytest.mark.parametrize(
    "words",
    [
        ["config", "show", "nope"],
        ["models", "show", "nope"],
        ["models", "pull", "nope"],
        ["models", "estimate", "nope"],
        ["fleet", "remove", "nope", "--dry-run"],
    ],
)
def test_on_this_machine(roost: Run, site: Installation, words: list[str]) -> None:
    (site.site_file.parent / "inventory.yaml").write_text(f"fleet: {{hosts: {{{socket.gethostname()}: {{}}}}}}\n")
    not_there(roost(*words))


def not_there(done: Result) -> None:
    """Check how it is said that there is nothing of a name."""
    assert isinstance(done.exception, RoostError), done.output
    assert done.exception.exit_code == NOT_FOUND, done.exception
    assert done.exception.fix


def test_keys_in_a_file(roost: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    assert roost("keys", "add", "anna", "--file", str(file)).exit_code == 0
    for words in (("revoke", "nope"), ("rotate", "nope"), ("set", "nope", "--role", "admin")):
        done = roost("keys", *words, "--file", str(file))
        not_there(done)


def test_the_codes_stand_in_the_help_of_all() -> None:
    shown = CliRunner().invoke(make_app(), ["--help"], prog_name="roost", env={"COLUMNS": "200"})
    assert f"{NOT_FOUND} there is nothing of that name" in " ".join(shown.stdout.split())
