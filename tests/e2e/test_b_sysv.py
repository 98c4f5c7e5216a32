"""A clean Debian 12 whose PID 1 is SysV init."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import story
from tests.e2e.story import Site
from tests.hosts import host as hosts

Measure = Callable[[str, float], None]


@pytest.fixture(scope="module")
def clean(cache: Path, repository: Path) -> Iterator[Site]:
    with story.clean_site(hosts.SYSV, "host-b", cache=cache, repository=repository) as site:
        yield site


@pytest.fixture(scope="module")
def installed(clean: Site, measure: Measure) -> Site:
    measure("b: first run", story.first_run(clean).seconds)
    return clean


def test_check_before_the_first_run_changes_nothing(clean: Site) -> None:
    story.check_changes_nothing(clean)


def test_first_run_ends_with_an_answer(installed: Site) -> None:
    story.state_is_private(installed.host)


def test_second_run_changes_nothing(installed: Site, measure: Measure) -> None:
    story.second_run_changes_nothing(installed.host, measure)


@pytest.mark.parametrize("process", story.FAULTS)
def test_a_killed_process_comes_back(installed: Site, process: str, measure: Measure) -> None:
    story.survives_kill(installed.host, process, measure)


def test_reboot(installed: Site, measure: Measure) -> None:
    story.survives(installed.host, "reboot", installed.host.reboot, measure)
    story.second_run_changes_nothing(installed.host, measure)


def test_purge_leaves_nothing_of_ours(installed: Site) -> None:
    story.purge_leaves_no_trace(installed)
