"""Choices for real artifacts: the repository's variables, the cache that tests share, folders of a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.ensure import Workshop
from roost.fleet.artifacts.plan import Choices
from roost.ops.pki import ensure_pki
from roost.ops.variables import load_variables

REPOSITORY = Path(__file__).parents[2]
NO_OP_SECONDS = 2.0  # about 0.3 on an idle machine


@dataclass
class Bench:
    """Choices for a test, and what was said while they were fulfilled."""

    choices: Choices
    said: list[str]

    def workshop(self, **changed: object) -> Workshop:
        """Return a workshop, with other choices where given."""
        chosen = Choices.model_validate({**self.choices.model_dump(), **changed})
        return Workshop(chosen, Docker(), self.said.append)


def cache_folder() -> Path:
    """Return the cache that all tests share."""
    named = os.environ.get("ROOST_TEST_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "roost"


def make_bench(folder: Path, runtime: str) -> Bench:
    """Return choices as the repository's variables say, with folders for a test."""
    variables = load_variables(REPOSITORY, folder / "none.yaml")
    (folder / "proxy").mkdir()
    ensure_pki(folder / "proxy", [], dry_run=False)
    choices = {
        "runtime": runtime,
        "release_dir": REPOSITORY,
        "cache_dir": cache_folder(),
        "extra_ca_bundle": folder / "proxy/ca.pem",
        "artifacts_dir": folder / "artifacts",
        "base_suite": variables["images_base_suite"],
        "base_packages": variables["images_base_packages"],
        "engine_suite": variables["engine_suite"],
        "engine_packages": variables["engine_packages"],
    }
    return Bench(Choices.model_validate(choices), [])


@contextmanager
def without_programs(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> Iterator[None]:
    """Put programs that only fail before the real ones on the PATH."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\necho not now >&2\nexit 9\n")
        (folder / name).chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield
