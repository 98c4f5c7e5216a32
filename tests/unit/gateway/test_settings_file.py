"""Settings from a file that the process reads itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.gateway.settings import load_settings
from roost.ops.errors import RoostError


def test_a_file_gives_what_the_environment_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nROOST_PORT=8377\nROOST_LOG_LEVEL=debug\n$(touch pwned)\nOTHER=1\n")
    monkeypatch.setenv("ROOST_ENV_FILE", str(file))
    monkeypatch.setenv("ROOST_LOG_LEVEL", "error")
    found = load_settings()
    assert (found.port, found.log_level) == (8377, "error")
    assert not Path("pwned").exists()


def test_a_wrong_value_in_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text("ROOST_PORT=many\n")
    monkeypatch.setenv("ROOST_ENV_FILE", str(file))
    with pytest.raises(RoostError, match="ROOST_PORT"):
        load_settings()
