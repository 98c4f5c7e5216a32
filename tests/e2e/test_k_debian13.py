"""A clean Debian 13: what a user with one machine does first, and that it all goes away again."""

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
    with story.clean_site(hosts.SYSTEMD_13, "host-k", cache=cache, repository=repository) as site:
        yield site


@pytest.fixture(scope="module")
def installed(clean: Site, measure: Measure) -> Site:
    measure("k: first run", story.first_run(clean).seconds)
    return clean


def test_check_before_the_first_run_changes_nothing(clean: Site) -> None:
    assert "docker" in story.check_changes_nothing(clean).text.lower()


def test_first_run_ends_with_an_answer(installed: Site) -> None:
    assert installed.host.exec("cut -d. -f1 /etc/debian_version").out.strip() == "13"
    story.state_is_private(installed.host)


def test_second_run_changes_nothing(installed: Site, measure: Measure) -> None:
    story.second_run_changes_nothing(installed.host, measure)


def test_a_killed_process_comes_back(installed: Site, measure: Measure) -> None:
    story.survives_kill(installed.host, "nomad", measure)


def test_reboot(installed: Site, measure: Measure) -> None:
    story.survives_reboot(installed.host, measure)


def test_purge_leaves_nothing_of_ours(installed: Site) -> None:
    story.purge_leaves_no_trace(installed)
