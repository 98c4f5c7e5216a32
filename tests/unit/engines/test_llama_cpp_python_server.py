"""The door before the other engine's application: who gets in, what is said before the model is there."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.types import ASGIApp

from roost.engines.llama_cpp_python_server import Door, Settings, adapted, cores, serve, settings_of
from tests.support.net import free_port

KEY = {"Authorization": "Bearer secret"}
QUESTION: dict[str, object] = {"model": "tiny", "messages": [], "temperature": None, "max_completion_tokens": 7}


def settings(folder: Path, **more: str) -> Settings:
    (folder / "key").write_text("secret\n")
    named = {"MODEL": "/m/tiny.gguf", "ALIAS": "tiny", "HOST": "127.0.0.1", "PORT": str(free_port())}
    named |= {"CONTEXT": "2048", "KEY_FILE": str(folder / "key"), "TEMPERATURE": "", **more}
    return settings_of({"PATH": "/bin", **{f"ROOST_ENGINE_{name}": value for name, value in named.items()}})


def application() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, object]:
        return {"got": await request.json(), "length": request.headers["content-length"]}

    return app


def client(door: Door) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://engine")


def test_the_jobs_environment_is_read(tmp_path: Path) -> None:
    found = settings(tmp_path, TEMPERATURE="0.3")
    assert (found.alias, found.context, found.temperature, found.key()) == ("tiny", 2048, 0.3, "secret")
    assert settings(tmp_path).temperature is None


@pytest.mark.parametrize("wrong", [{"PORT": "70000"}, {"CONTEXT": "0"}, {"HOST": ""}, {"ALIAS": ""}])
def test_a_wrong_environment_is_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        settings(tmp_path, **wrong)


def test_an_empty_key_is_no_key(tmp_path: Path) -> None:
    found = settings(tmp_path)
    (tmp_path / "key").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        found.key()


async def test_while_loading_health_says_so_and_only_the_key_learns_more(tmp_path: Path) -> None:
    async with client(Door(settings(tmp_path), "secret")) as http:
        assert (await http.get("/health")).status_code == 503
        assert (await http.get("/v1/models")).status_code == 401
        assert (await http.get("/v1/models", headers=KEY)).status_code == 503


async def test_with_the_model_loaded_everything_but_health_needs_the_key(tmp_path: Path) -> None:
    door = Door(settings(tmp_path), "secret")
    door.inner = application()
    async with client(door) as http:
        assert (await http.get("/health")).status_code == 200
        for path in ("/docs", "/v1/models", "/props"):
            assert (await http.get(path)).status_code == 401
            assert (await http.get(path, headers={"Authorization": "Bearer other"})).status_code == 401
            assert (await http.get(path, headers=KEY)).status_code == 200
        models = (await http.get("/v1/models", headers=KEY)).json()
        assert (models["data"][0]["id"], models["data"][0]["meta"]) == ("tiny", {"n_ctx": 2048})


async def test_a_chat_reaches_the_application_in_its_own_words(tmp_path: Path) -> None:
    door = Door(settings(tmp_path, TEMPERATURE="0.5"), "secret")
    door.inner = application()
    async with client(door) as http:
        answer = (await http.post("/v1/chat/completions", json=QUESTION, headers=KEY)).json()
    wanted = {"model": "tiny", "messages": [], "max_tokens": 7, "repeat_penalty": 1.0, "temperature": 0.5}
    assert answer["got"] == wanted
    assert int(answer["length"]) == len(json.dumps(wanted))


def test_what_the_client_chose_stays() -> None:
    chosen = {"temperature": 0, "repeat_penalty": 1.2, "max_tokens": 3}
    assert json.loads(adapted(json.dumps(chosen).encode(), 0.5)) == chosen
    assert adapted(b"no json", None) == b"no json"
    assert adapted(b"[1]", None) == b"[1]"


def test_second_threads_of_a_core_do_not_count(tmp_path: Path) -> None:
    for number, siblings in enumerate(("0-1", "0-1")):
        folder = tmp_path / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert cores(tmp_path) == 1
    assert cores(tmp_path / "none") >= 1


async def test_a_model_that_cannot_be_loaded_ends_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_settings: Settings, _key: str) -> ASGIApp:
        raise ValueError("no GGUF")

    assert await serve(settings(tmp_path), "secret", broken) == 1
    assert "/m/tiny.gguf could not be loaded: no GGUF" in capsys.readouterr().err
