"""What every suite on hosts or machines has: the cache folder, the tree under test, a place for measured numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts.host import logs_folder

MEASURED = pytest.StashKey[dict[str, float]]()
Measure = Callable[[str, float], None]


@pytest.fixture(scope="session")
def cache() -> Path:
    """The folder that outlives the tests."""
    return Path(os.environ["ROOST_TEST_CACHE"])


@pytest.fixture(scope="session")
def repository(pytestconfig: pytest.Config) -> Path:
    """The working tree under test."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def measure(pytestconfig: pytest.Config) -> Measure:
    """Note a number; it is printed at the end and written to measured.json in the log folder."""

    def note(name: str, value: float) -> None:
        pytestconfig.stash[MEASURED][name] = round(value, 2)

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured."""
    measured = config.stash[MEASURED]
    if not measured:
        return
    terminalreporter.section("measured (seconds unless the name says otherwise)")
    for name, value in measured.items():
        terminalreporter.write_line(f"{name:<60} {value:>9.2f}")
    folder = logs_folder(Path(os.environ["ROOST_TEST_CACHE"]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
