"""A made-up installation for the verbs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roost.cli.verbs import make_app
from tests.unit.cli.fakes import Installation, installation

Run = Callable[..., Result]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """Return an installation on which all is well; the verbs of this process use it."""
    for name in [n for n in os.environ if n.startswith("ROOST_") or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # loopback must not go through a proxy
    with installation(tmp_path) as made:
        monkeypatch.setenv("ROOST_SITE", str(made.site_file))
        yield made


@pytest.fixture
def roost() -> Run:
    """Return what runs a verb in this process."""

    def run(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(make_app(), list(words), input=stdin)

    return run
