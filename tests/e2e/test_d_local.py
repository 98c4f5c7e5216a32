"""`--run-local`: the same ending without Docker, with both engines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import story
from tests.e2e.person import person, whole_proc
from tests.e2e.story import Site
from tests.hosts import host as hosts

Measure = Callable[[str, float], None]


@pytest.fixture(scope="module")
def clean(cache: Path, repository: Path) -> Iterator[Site]:
    with story.clean_site(hosts.PEOPLE, "host-d", cache=cache, repository=repository) as site:
        yield site


@pytest.fixture(scope="module")
def installed(clean: Site, measure: Measure) -> Site:
    measure("d: first run", story.first_run(clean, "--run-local", "--set", "worker_sandbox=true").seconds)
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


def test_the_worker_is_a_service_of_its_user(installed: Site, measure: Measure) -> None:
    """It outlives its user's sessions, comes back, runs programs in the sandbox, and goes without a trace."""
    host = installed.host
    begin = time.monotonic()
    with whole_proc(host), person(host, "anna", lingers=True) as anna:
        anna.run("mkdir project && echo heliotrope >project/notes.txt && roost workspace add project")
        before = anna.files()
        anna.run("roost worker install --only read")
        anna.logged_out()
        anna.connected(1)
        pid = anna.main_pid()
        read = anna.results_of("Read the file notes.txt", until="heliotrope")
        assert (read[-1]["outcome"], "heliotrope" in read[-1]["text"]) == ("ok", True), read
        anna.logged_out()
        assert anna.main_pid() == pid
        host.exec(f"kill -9 {pid}")
        anna.connected(2)
        assert json.loads(anna.run("roost worker status --json").out) == {
            "installed": True, "state": "active", "linger": True
        }  # fmt: skip
        anna.run("roost worker install --only shell")
        anna.connected(3)
        ran = anna.results_of("Run the command `cat notes.txt`", until="heliotrope")
        assert (ran[-1]["outcome"], "heliotrope" in ran[-1]["text"]) == ("ok", True), ran
        last = anna.main_pid()
        anna.run("roost worker uninstall")
        assert host.exec(f"kill -0 {last}", check=False).code != 0
        assert (anna.units(), anna.files() ^ before) == ("", set())
        # One that gives up is remembered by systemd.
        refused = anna.run("roost worker install --only no-such-tool", check=False)
        assert (refused.code, "no-such-tool" in refused.err) == (1, True), refused.text
        anna.run("roost worker uninstall")
        assert (anna.units(), anna.files() ^ before) == ("", set())
    measure("d: the worker as a service", time.monotonic() - begin)


def test_a_workers_service_of_an_earlier_release_is_replaced(installed: Site) -> None:
    """While it runs, by one start more, also where the unit is the same; after that nothing is started."""
    host = installed.host
    with person(host, "berta", lingers=True) as berta:
        berta.run("mkdir project && echo heliotrope >project/notes.txt && roost workspace add project")
        before = berta.files()
        berta.earlier_service("read")
        earlier = berta.main_pid()
        told = json.loads(berta.run("roost worker install --only read --json").out)
        assert (told["changed"], berta.starts(2)) == (True, 2)
        assert host.exec(f"kill -0 {earlier}", check=False).code != 0
        wanted = berta.run("roost worker install --only read --dry-run").out
        assert "RestartPreventExitStatus=" in wanted
        assert host.exec(f"cat {told['unit']}").out == wanted
        berta.connected(2)
        pid = berta.main_pid()
        read = berta.results_of("Read the file notes.txt", until="heliotrope")
        assert (read[-1]["outcome"], "heliotrope" in read[-1]["text"]) == ("ok", True), read
        berta.unnamed()
        for starts in (3, 3):  # the second time it says its process
            assert json.loads(berta.run("roost worker install --only read --json").out)["changed"] is False
            assert berta.starts(starts) == starts
        berta.connected(3)
        assert host.exec(f"kill -0 {pid}", check=False).code != 0
        berta.run("roost worker uninstall")
        assert (berta.units(), berta.files() ^ before) == ("", set())


@pytest.mark.long
def test_the_other_engine(installed: Site, measure: Measure) -> None:
    done = installed.host.bootstrap("--yes", "--run-local", "--set", "engine=llama-cpp-python", timeout_s=1400)
    measure("d: change to llama-cpp-python", done.seconds)
    assert "Paris" in done.out
    assert "llama_cpp" in installed.host.exec("ps -eo args").out
    story.ask(installed.host)


def test_purge_leaves_nothing_of_ours(installed: Site) -> None:
    story.purge_leaves_no_trace(installed)
