"""`--run-local`: the same ending without Docker, with both engines."""

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
    with story.clean_site(hosts.SYSTEMD, "host-d", cache=cache, repository=repository) as site:
        yield site


@pytest.fixture(scope="module")
def installed(clean: Site, measure: Measure) -> Site:
    measure("d: first run", story.first_run(clean, "--run-local").seconds)
    return clean


def test_check_before_the_first_run_changes_nothing(clean: Site) -> None:
    assert "docker.io" not in story.check_changes_nothing(clean, "--run-local").text


def test_first_run_needs_no_docker(installed: Site) -> None:
    assert installed.host.exec("command -v docker dockerd", check=False).out == ""
    story.state_is_private(installed.host)


def test_second_run_changes_nothing(installed: Site, measure: Measure) -> None:
    story.second_run_changes_nothing(installed.host, measure, "--run-local")


def test_the_host_says_what_it_is(installed: Site) -> None:
    story.says_what_it_is(installed.host)


def test_setup_ends_in_a_running_model_without_a_hub(installed: Site, measure: Measure) -> None:
    story.setup_ends_with_an_answer(installed.host, measure)


@pytest.mark.parametrize("process", story.FAULTS)
def test_a_killed_process_comes_back(installed: Site, process: str, measure: Measure) -> None:
    story.survives_kill(installed.host, process, measure)


@pytest.mark.long
def test_the_other_engine(installed: Site, measure: Measure) -> None:
    done = installed.host.bootstrap("--yes", "--run-local", "--set", "engine=llama-cpp-python", timeout_s=1400)
    measure("d: change to llama-cpp-python", done.seconds)
    assert "Paris" in done.out
    assert "llama_cpp" in installed.host.exec("ps -eo args").out
    story.ask(installed.host)


def test_purge_leaves_nothing_of_ours(installed: Site) -> None:
    story.purge_leaves_no_trace(installed)
