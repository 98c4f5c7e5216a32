"""What every end-to-end suite has: a clean dockerd, the cache folder, a place for measured numbers."""

from __future__ import annotations

import os
from typing import Any, Protocol

import pytest

from tests.hosts.docker import sweep
from tests.hosts.measured import MEASURED, cache, measure, pytest_terminal_summary, repository

__all__ = ["cache", "measure", "pytest_terminal_summary", "repository"]  # pytest finds them here


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: also what takes many minutes, see tests/run full."""
    parser.addoption("--long", action="store_true", help="also run the suites that take many minutes")


def pytest_configure(config: pytest.Config) -> None:
    """Declare our mark."""
    config.addinivalue_line("markers", "long: takes many minutes; only with --long")
    config.stash[MEASURED] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long ones to tests/run full."""
    if config.getoption("--long"):
        return
    chosen = [item for item in items if item.get_closest_marker("long") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


class Node(Protocol):
    """What pytest-xdist says of a worker."""

    config: pytest.Config


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs suites for another one (pytest-xdist) that begins and ends the whole."""
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Nothing of ours before. tests/run gives the dockerd."""
    if "ROOST_TEST_RUN" not in os.environ:
        pytest.exit("End-to-end tests need the dockerd of tests/run: run `tests/run e2e`.", returncode=2)
    if not is_worker(session.config):
        sweep()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing of ours after; a worker hands over what it measured."""
    if is_worker(session.config):
        output: dict[str, Any] = vars(session.config)["workeroutput"]
        output["measured"] = session.config.stash[MEASURED]
    else:
        sweep()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Node) -> None:
    """Take what a worker measured; one that crashed has nothing."""
    node.config.stash[MEASURED].update(getattr(node, "workeroutput", {}).get("measured", {}))
