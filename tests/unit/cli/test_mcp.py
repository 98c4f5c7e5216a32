"""`roost mcp add`: headers that are secret come from variables, and not from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roost.cli import mcp
from roost.cli.api import Access
from roost.cli.principal import Principal, mcp_file
from roost.ops.errors import RoostError


def test_a_header_is_taken_from_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("WIKI", "Bearer heliotrope=")
    monkeypatch.setattr(mcp, "refuse_root", lambda _what: None)
    monkeypatch.setattr(mcp, "identify", lambda: Principal(Access("x", "y"), "anna", "1" * 32))
    add = ["add", "wiki", "--url", "https://wiki.example/mcp", "--header", "X-Team: docs"]
    done = CliRunner().invoke(mcp.app, [*add, "--header-env", "Authorization=WIKI", "--json"])
    assert done.exit_code == 0, done.output
    assert "heliotrope" not in done.output
    kept = json.loads(mcp_file().read_text())[0]["headers"]
    assert kept == {"X-Team": "docs", "Authorization": "Bearer heliotrope="}
    missing = CliRunner().invoke(mcp.app, [*add, "--header-env", "Authorization=NOT_SET"])
    assert isinstance(missing.exception, RoostError)
    assert "NOT_SET is not set" in str(missing.exception)
