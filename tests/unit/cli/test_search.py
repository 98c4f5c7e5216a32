"""`roost search`: what it sets, what it does when that fails, and what it says of a SearXNG."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Handler, Installation, running

FOUND = {
    "results": [{"title": "A", "url": "https://a.example", "content": ""}],
    "unresponsive_engines": [["b", "slow"]],
}


def searxng(request: Handler) -> None:
    """Speak SearXNG's protocol as it is documented."""
    if request.path == "/healthz":
        request.answer(200, b"OK", "text/plain")
    else:
        request.answer_json(200, FOUND)


@pytest.fixture
def kept(site: Installation) -> Path:
    return site.site_file.parent / "host.yaml"


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """What stands for bootstrap.sh: notes its words, does what a test says, ends with a code."""
    called: list[list[str]] = []

    def prepare(code: int = 0, then: Callable[[], None] = lambda: None) -> list[list[str]]:
        def run(words: list[object], **_: object) -> subprocess.CompletedProcess[str]:
            called.append([str(word) for word in words])
            then()
            return subprocess.CompletedProcess([], code)

        monkeypatch.setattr("roost.cli.fleet_inventory.subprocess.run", run)
        return called

    return prepare


def in_site(site: Installation, **values: str) -> None:
    """Have site.json say something else."""
    document = json.loads(site.site_file.read_text())
    site.site_file.write_text(json.dumps({**document, **values}))


def test_enable_sets_it_and_waits_for_an_answer(
    roost: Run, site: Installation, kept: Path, play: Callable[..., list[list[str]]]
) -> None:
    kept.write_text("api_port: 9000\n")
    in_site(site, runtime="docker")
    with running(searxng) as port:
        address = f"http://127.0.0.1:{port}"
        called = play(then=lambda: in_site(site, search=address))
        dry = roost("search", "enable", "--dry-run")
        assert "+web_search: true" in dry.output
        assert not called
        done = roost("search", "enable", "--engine", "wikipedia", "--engine", "bing", "--port", "8400")
        assert done.exit_code == 0, done.output
        words = ("web_search=true", "web_search_engines=[wikipedia, bing]", "web_search_port=8400")
        assert called[0][-6:] == [word for setting in words for word in ("--set", setting)]
        assert f"answers at {address}: 1 results" in done.output
        assert "no answer from b: slow" in done.output
        told = json.loads(roost("search", "enable", "--json").output)
        assert (told["healthy"], told["answered"]["results"]) == (True, 1)


def test_what_does_not_come_up_is_taken_back(
    roost: Run, site: Installation, kept: Path, play: Callable[..., list[list[str]]]
) -> None:
    in_site(site, runtime="docker")
    kept.write_text("api_port: 9000\n")
    play(code=2, then=lambda: kept.write_text("api_port: 9000\nweb_search: true\n") and None)
    done = roost("search", "enable")
    assert done.exit_code != 0
    assert "Web search was not changed" in str(done.exception)
    assert kept.read_text() == "api_port: 9000\n"


def test_without_containers_it_wants_to_know_what_to_start(
    roost: Run, site: Installation, play: Callable[..., list[list[str]]]
) -> None:
    in_site(site, runtime="local")
    called = play()
    assert "without containers" in str(roost("search", "enable").exception)
    assert not called
    dry = roost("search", "enable", "--command", "/opt/sx/python -m searx.webapp", "--dry-run")
    assert "+web_search_command: [/opt/sx/python, -m, searx.webapp]" in dry.output


def test_disable_takes_out_all_that_was_set(
    roost: Run, site: Installation, kept: Path, play: Callable[..., list[list[str]]]
) -> None:
    assert site.site_file.exists()
    called = play()
    kept.write_text("api_port: 9000\n")
    assert "not enabled" in roost("search", "disable").output
    assert not called
    kept.write_text("api_port: 9000\nweb_search: true\nweb_search_port: 8400\n")
    assert roost("search", "disable").exit_code == 0
    assert called[0][-4:] == ["--set", "web_search=", "--set", "web_search_port="]


def test_disable_says_no_where_the_inventory_says_yes(
    roost: Run, kept: Path, play: Callable[..., list[list[str]]]
) -> None:
    called = play()
    kept.unlink(missing_ok=True)
    document = {"fleet": {"vars": {"web_search": True}, "hosts": {socket.gethostname(): {}}}}
    (kept.parent / "inventory.yaml").write_text(json.dumps(document))
    roost("search", "disable")
    assert [word for words in called for word in words][-2:] == ["--set", "web_search=false"]


def test_status_tells_where_it_is_and_what_is_wrong(roost: Run, site: Installation, kept: Path) -> None:
    kept.unlink(missing_ok=True)
    off = roost("search", "status")
    assert (off.exit_code, "roost search enable" in off.output) == (0, True)
    kept.write_text("web_search: true\n")
    with running(searxng) as port:
        address = f"http://127.0.0.1:{port}"
        in_site(site, search=address)
        fine = json.loads(roost("search", "status", "--query", "owls", "--json").output)
        assert (fine["enabled"], fine["healthy"], fine["address"]) == (True, True, address)
        assert fine["answered"]["unanswered"] == ["b: slow"]
    down = roost("search", "status")
    assert down.exit_code == 1
    assert "does not answer" in down.output
    assert "not healthy" in down.output
    assert "fix: `sudo roost logs search`" in down.output
    assert "roost-search" in roost("logs", "nonsense").output or "search" in str(roost("logs", "nonsense").exception)


def test_status_after_an_enable_that_failed_says_that_and_the_way_out(
    roost: Run, site: Installation, kept: Path, play: Callable[..., list[list[str]]]
) -> None:
    kept.write_text("")
    in_site(site, runtime="docker")
    play(code=1, then=lambda: in_site(site, search="http://127.0.0.1:9"))
    assert roost("search", "enable").exit_code != 0
    found = roost("search", "status")
    assert found.exit_code == 1
    assert "half done" in found.output
    assert "fix: An enable or disable failed on its way: `sudo roost logs bootstrap` says where." in found.output
    told = json.loads(roost("search", "status", "--json").output)
    assert told["half_done"]
    assert "./bootstrap.sh" in told["fix"]


def test_an_enabled_search_that_does_not_answer_says_that_it_stays(
    roost: Run, site: Installation, kept: Path, play: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write_text("")
    in_site(site, runtime="docker")
    play(then=lambda: in_site(site, search="http://127.0.0.1:9"))
    monkeypatch.setattr("roost.cli.search.ANSWER_WITHIN_S", 0.0)
    error = roost("search", "enable").exception
    assert "It stays enabled." in str(error)
    assert "`sudo roost search disable` takes it back" in str(error)
