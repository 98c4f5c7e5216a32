"""A bare machine whose PID 1 is neither systemd nor init, as development containers are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import story
from tests.e2e.story import Site
from tests.hosts import host as hosts

Measure = Callable[[str, float], None]


@pytest.fixture(scope="module")
def installed(cache: Path, repository: Path, measure: Measure) -> Iterator[Site]:
    with story.clean_site(hosts.BARE, "host-n", cache=cache, repository=repository) as site:
        measure("n: first run", story.first_run(site).seconds)
        yield site


def test_second_run_changes_nothing(installed: Site, measure: Measure) -> None:
    story.second_run_changes_nothing(installed.host, measure)


def test_the_port_is_kept(installed: Site) -> None:
    story.the_port_is_kept(installed.host)


@pytest.mark.parametrize("process", story.FAULTS)
def test_a_killed_process_comes_back(installed: Site, process: str, measure: Measure) -> None:
    story.survives_kill(installed.host, process, measure)


def test_purge_leaves_nothing_of_ours(installed: Site) -> None:
    story.purge_leaves_no_trace(installed)
