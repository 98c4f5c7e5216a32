"""`roost mcp add`: where secrets come from, what is said of what cannot be, and what is imported under which name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roost.cli import mcp
from roost.cli.access import Access
from roost.cli.principal import Principal, mcp_file
from roost.ops.errors import RoostError


@pytest.fixture(autouse=True)
def anna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user with a key, whose list is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(mcp, "refuse_root", lambda _what: None)
    monkeypatch.setattr(mcp, "identify", lambda: Principal(Access("x", "y"), "anna", "1" * 32))


def refused(*words: str) -> RoostError:
    """Return what `roost mcp add` refuses with; nothing is kept then."""
    done = CliRunner().invoke(mcp.app, ["add", *words])
    assert isinstance(done.exception, RoostError)
    assert not mcp_file().exists()
    return done.exception


def test_a_header_is_taken_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKI", "Bearer heliotrope=")
    add = ["add", "wiki", "--url", "https://wiki.example/mcp", "--header", "X-Team: docs"]
    done = CliRunner().invoke(mcp.app, [*add, "--header-env", "Authorization=WIKI", "--json"])
    assert done.exit_code == 0, done.output
    assert "heliotrope" not in done.output
    kept = json.loads(mcp_file().read_text())[0]["headers"]
    assert kept == {"X-Team": "docs", "Authorization": "Bearer heliotrope="}
    missing = CliRunner().invoke(mcp.app, [*add, "--header-env", "Authorization=NOT_SET"])
    assert isinstance(missing.exception, RoostError)
    assert "NOT_SET is not set" in str(missing.exception)


def test_what_is_to_be_read_has_to_be_there(tmp_path: Path) -> None:
    error = refused("time", "--read", str(tmp_path / "gone"), "--", "mcp-time")
    assert error.message == f"--read {tmp_path / 'gone'}: there is no such file or folder."
    done = CliRunner().invoke(mcp.app, ["add", "time", "--read", str(tmp_path), "--", "mcp-time"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"mcpServers": ', "It is no JSON (Expecting value: line 1, column 16)."), ("{}", "It holds no MCP servers."),
        ('{"mcpServers": {"3!": {"command": "x"}}}', "'3!' in it gives no name of small letters, digits and -"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_imported_is_told_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "theirs.json"
    file.write_text(text)
    assert refused("--import", str(file)).message.startswith(f"{file}: {words}")


def test_a_file_that_is_missing_no_file_or_empty_is_told_so(tmp_path: Path) -> None:
    gone, empty = tmp_path / "gone.json", tmp_path / "empty.json"
    empty.write_text('{"mcpServers": {}}')
    assert refused("--import", str(gone)).message == f"There is no file {gone}."
    assert refused("--import", str(tmp_path)).message == f"{tmp_path} cannot be read: Is a directory."
    assert refused("--import", str(empty)).message == f"{empty} holds no MCP servers."


def test_it_is_said_under_which_name_an_imported_server_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    file.write_text('{"mcpServers": {"Git Hub": {"command": "x"}, "far": {"url": "https://a.example/mcp"}}}')
    done = CliRunner().invoke(mcp.app, ["add", "--import", str(file)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("'Git Hub' is kept as git-hub.\ngit-hub, far: for conversations of anna.")
