"""Signing keys and a release server for the tests of the Nomad program."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.fleet import nomad_source
from tests.support.releases import ReleaseServer, Signer, serving


def _signer(name: str) -> Iterator[Signer]:
    folder = Path(tempfile.mkdtemp())  # not below tmp_path: the name of gpg's socket must be short
    signer = Signer.make(folder / "gpg", name)
    yield signer
    signer.close()
    while folder.exists():
        with contextlib.suppress(FileNotFoundError):  # gpg's agent removes its sockets at the same time
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def vendor() -> Iterator[Signer]:
    """Return the key whose fingerprint is pinned."""
    yield from _signer("Vendor")


@pytest.fixture(scope="session")
def stranger() -> Iterator[Signer]:
    """Return a key that is not pinned."""
    yield from _signer("Stranger")


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    """Return an empty release server."""
    with serving() as running:
        yield running


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the machine's nomad and go, its proxies and its Go settings; return a folder that is first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("gpgv", "sh", "sync", "sleep", "cat", "chmod", "env", "mkdir", "seq"):
        program = shutil.which(name)
        assert program, f"{name} is not installed"
        (tools / name).symlink_to(program)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{tools}")
    monkeypatch.setattr(nomad_source, "LOCAL_GO", tmp_path / "no-go")
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("GO"):
            monkeypatch.delenv(name)
    return folder
