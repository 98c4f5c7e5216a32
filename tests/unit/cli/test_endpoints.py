"""`roost endpoints`: over the API of a running gateway, and in a file."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from roost.cli.endpoints import app
from roost.ops.errors import RoostError
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.services import KEY, Ollama, OpenAi, running

Json = Any


class Servers:
    """An Ollama and a cloud, in a thread with an event loop of its own."""

    def __init__(self) -> None:
        self._up, self._end = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))
        self.ollama, self.cloud = Ollama(), OpenAi()

    async def _run(self) -> None:
        async with running(self.ollama), running(self.cloud):
            self._up.set()
            await self._end.wait()

    def __enter__(self) -> Servers:
        self._thread.start()
        assert self._up.wait(20)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        self._loop.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return the service as a process of its own."""
    folder = tmp_path_factory.mktemp("gateway")
    environment = {"ROOST_API_KEYS_FILE": str(write_keys(folder)), "ROOST_ENDPOINTS_FILE": str(folder / "e.json")}
    with service(folder, environment) as made:
        yield made


@pytest.fixture
def world(gateway: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    with Servers() as made:
        monkeypatch.setenv("ROOST_API", gateway.url)
        monkeypatch.setenv("ROOST_API_KEY", API_KEY)
        monkeypatch.setenv("ROOST_SITE", str(tmp_path / "no-site.json"))
        yield made
        for entry in json.loads(good("list", "--json")):
            good("remove", entry["name"])
        assert KEY not in gateway.log.read_text()


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


def good(*words: str, stdin: str = "") -> str:
    result = run(*words, stdin=stdin)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_an_endpoint_is_added_shown_tried_drained_and_removed(world: Servers) -> None:
    dry = good("add", "box", world.ollama.url, "--dry-run")
    assert "box would be added: ollama" in dry
    assert json.loads(good("list", "--json")) == []
    assert "box is added: ollama at" in good("add", "box", world.ollama.url, "--slot", "main", "--tier", "sweet")
    assert "qwen3:8b answered within" in good("test", "box")
    (entry,) = json.loads(good("list", "--json"))
    assert (entry["name"], entry["slot"], entry["tier"], entry["source"]) == ("box", "main", "sweet", "by hand")
    text = good("show", "box")
    assert "40960" in text
    assert "Q4_K_M" in text
    assert "3 (1 warm)" in good("list")
    assert "box is drained." in good("drain", "box")
    assert "drained" in good("list")
    assert json.loads(good("undrain", "box", "--json"))["drained"] is False
    assert "would be removed" in good("remove", "box", "--dry-run")
    assert "box is removed." in good("remove", "box")
    assert json.loads(good("list", "--json")) == []


def test_a_key_comes_from_a_file_the_environment_or_standard_input(
    world: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    monkeypatch.setenv("CLOUD_KEY", KEY)
    said = good("add", "cloud-1", world.cloud.url, "--key-file", str(tmp_path / "key"))
    assert "by its name or by those of its models only" in said
    good("add", "cloud-2", world.cloud.url, "--key-env", "CLOUD_KEY", "--models", "gpt-large")
    good("add", "cloud-3", world.cloud.url, "--key-file", "-", stdin=KEY + "\n")
    assert json.loads(good("test", "cloud-2", "--json"))["model"] == "gpt-large"
    shown = good("list") + good("list", "--json") + good("show", "cloud-1") + good("show", "cloud-1", "--json")
    assert KEY not in shown
    assert "by name only" in shown


def test_what_does_not_work_is_said_with_a_way_out(world: Servers, tmp_path: Path) -> None:
    for words, why in (
        (("add", "box", "http://192.0.2.7:1"), "--allow-http"),
        (("add", "box", world.cloud.url), "wants a key"),
        (("add", "box", world.cloud.url, "--key-file", str(tmp_path / "none")), "cannot be read"),
        (("add", "box", world.cloud.url, "--key-env", "NO_SUCH"), "not set"),
        (("remove", "box"), "There is no endpoint"),
        (("show", "box"), "There is no endpoint"),
    ):
        error = run(*words).exception
        assert isinstance(error, RoostError), (words, error)
        assert why in str(error)
    result = run("test", "http://127.0.0.1:9", "--engine", "ollama")
    assert (result.exit_code, "nothing answers there" in result.output) == (1, True)


def test_without_a_gateway_the_file_is_changed(tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "endpoints.json"))
    error = run("add", "box", "https://box", *file).exception
    assert isinstance(error, RoostError)
    assert "--engine" in str(error)
    good("add", "box", "https://box", "--engine", "vllm", *file, "--dry-run")
    assert not (tmp_path / "endpoints.json").exists()
    good("add", "box", "https://box", "--engine", "vllm", *file)
    assert "no endpoint 'bax'" in str(run("drain", "bax", *file).exception)
    good("drain", "box", *file)
    found = json.loads(good("list", *file, "--json"))
    assert (found["endpoints"][0]["engine"], found["drained"]) == ("vllm", ["box"])
    assert "drained" in good("list", *file)
    good("undrain", "box", *file)
    good("remove", "box", *file)
    assert json.loads(good("list", *file, "--json"))["endpoints"] == []
