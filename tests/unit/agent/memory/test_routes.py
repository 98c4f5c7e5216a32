"""Memory over HTTP, and `roost memory` in front of it: a real socket, two keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp import web
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner, Result

from roost.agent.hub import AgentHub, agents_of
from roost.agent.identity import HubIdentity
from roost.agent.measures import Measures
from roost.agent.memory.meaning import ApiEmbedder, EmbeddingError
from roost.agent.memory.routes import PATH
from roost.agent.memory.store import DATABASE
from roost.agent.sessions.store import new_id
from roost.cli.memory import app as verbs
from roost.cli.serve_agent import is_agents
from roost.ops.errors import RoostError
from tests.support.web_server import serving
from tests.unit.agent.memory.world import Subjects, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with World(tmp_path, Subjects()) as made:
        monkeypatch.setenv("ROOST_API", made.url)
        monkeypatch.setenv("ROOST_API_KEY", "alice")
        yield made


def roost(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(verbs, words, input=stdin)


def test_to_another_key_it_is_as_if_it_did_not_exist(world: World) -> None:
    fact = world.memory.remember("alice", "The dog is called Rex", source="user")[0].id
    with world.client("bob") as bob:
        for name in (fact, new_id()):
            for refused in (
                bob.get(f"{PATH}/{name}"), bob.delete(f"{PATH}/{name}"),
                bob.post(f"{PATH}/forget", json={"ids": [name]}),
            ):  # fmt: skip
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "fact_not_found")
        assert bob.get(PATH).json()["data"] == []
        assert bob.get(f"{PATH}/search", params={"q": "dog"}).json()["data"] == []
        assert bob.get(f"{PATH}/export").text == ""
        assert bob.post(f"{PATH}/forget", json={"everything": True}).json()["data"] == []
    assert world.memory.store.get("alice", fact)


def test_added_read_found_and_forgotten(world: World) -> None:
    with world.client("alice") as alice:
        made = alice.post(PATH, json={"text": "The dog is called Rex", "source": "notes"})
        assert (made.status_code, made.json()["new"], made.json()["source"]) == (201, True, "notes")
        assert alice.post(PATH, json={"text": "the dog is called rex."}).status_code == 200
        refused = alice.post(PATH, json={"text": "password: hunter2"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "not_remembered")
        found = alice.get(f"{PATH}/search", params={"q": "animal"}).json()
        assert (found["by"], [fact["text"] for fact in found["data"]]) == (
            "words and meaning",
            ["The dog is called Rex"],
        )
        assert alice.get(PATH, params={"kind": "profile"}).json()["data"] == []
        assert alice.post(f"{PATH}/forget", json={}).status_code == 422
        dry = alice.post(f"{PATH}/forget", json={"older_than_days": 0, "dry_run": True}).json()
        assert (dry["forgotten"], len(dry["data"])) == (False, 1)
        path = f"{PATH}/{made.json()['id']}"
        assert (alice.delete(path).status_code, alice.get(path).status_code) == (204, 404)


def test_a_damaged_database_is_said(world: World, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / DATABASE).write_bytes(b"no database" * 100)
    with world.client("alice") as alice:
        for answer in (
            alice.get(PATH),
            alice.get(f"{PATH}/search", params={"q": "x"}),
            alice.post(PATH, json={"text": "x"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage")
            assert "move" in answer.json()["error"]["message"]


@pytest.mark.usefixtures("world")
def test_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "remembered: The dog" in roost("add", "The dog is called Rex").stdout
    assert "(private)" in roost("add", "Ann is allergic to nuts").stdout
    made = json.loads(
        roost("add", "-", "--as", "profile", "--source", "list", "--json", stdin="I paint\n\nI sail\n").stdout
    )
    assert [(fact["kind"], fact["source"]) for fact in made] == [("profile", "list")] * 2
    assert "Rex" in roost("list").stdout
    assert [fact["text"] for fact in json.loads(roost("list", "--as", "profile", "--json").stdout)] == [
        "I sail",
        "I paint",
    ]
    assert "Rex" in roost("search", "an", "animal").stdout
    assert json.loads(roost("search", "animal", "--json").stdout)["by"] == "words and meaning"
    assert len(roost("export").stdout.splitlines()) == 4
    target = tmp_path / "memory.jsonl"
    assert "4 facts" in roost("export", "--to", str(target)).stdout
    assert "there already" in str(roost("export", "--to", str(target)).exception)
    assert isinstance(roost("forget").exception, RoostError)
    assert "--yes" in str(roost("forget", "--all").exception)
    assert "2 facts" in roost("forget", "--source", "list", "--dry-run").stdout
    assert "2 facts" in roost("forget", "--source", "list", "--yes").stdout
    assert "0 facts" in roost("forget", "--older-than", "1d", "--yes").stdout
    monkeypatch.setattr("roost.cli.memory.MOST_IDS", 1)  # as with more facts than one request may name
    assert json.loads(roost("forget", "--all", "--yes", "--json").stdout)[0]["forgotten"]
    assert json.loads(roost("list", "--json").stdout) == []
    assert isinstance(roost("add", "x", "--as", "order").exception, RoostError)
    assert "password" in str(roost("add", "password: hunter2").exception)
    assert isinstance(roost("forget", "no-such", "--yes").exception, RoostError)


async def test_the_hub_asks_the_api_who_it_is(tmp_path: Path) -> None:
    async def api(scope: Scope, receive: Receive, send: Send) -> None:
        secret = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ").decode()
        about = {"name": secret, "role": "read-only" if secret == "reader" else "user"}
        await JSONResponse(about if secret else {}, 200 if secret else 401)(scope, receive, send)

    assert is_agents(PATH)
    assert is_agents(f"{PATH}/search")
    async with aiohttp.ClientSession() as http:
        hub = AgentHub(api, agents_of(tmp_path, http, "http://127.0.0.1:1"), Measures(), identity=HubIdentity(tmp_path))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=hub), base_url="http://hub") as client:

            async def ask(key: str, method: str = "GET", end: str = "", **more: object) -> httpx.Response:
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                return await client.request(method, f"{PATH}{end}", headers=headers, **more)  # type: ignore[arg-type]

            made = await ask("alice", "POST", json={"text": "The dog is called Rex"})
            assert made.status_code == 201
            assert (await ask("alice", end=f"/{made.json()['id']}")).status_code == 200
            assert (await ask("bob", end=f"/{made.json()['id']}")).status_code == 404
            assert (await ask("reader")).status_code == 403
            assert (await ask("")).status_code == 401
            found = (await ask("alice", end="/search", params={"q": "dog"})).json()
            assert (found["by"], len(found["data"])) == ("words", 1)
            assert "cannot be asked" in found["why"]


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, {"data": [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3, 4]}]}, ""),
        (200, {"data": [{"index": 0, "embedding": [1, 0]}]}, "no known form"),
        (200, {"data": "?"}, "no known form"),
        (503, {}, "answered 503"),
    ],
)
async def test_vectors_come_from_the_api(status: int, body: dict[str, object], fault: str) -> None:
    asked: list[dict[str, object]] = []

    async def embeddings(request: web.Request) -> web.Response:
        asked.append(await request.json())
        assert request.headers["Authorization"] == "Bearer alice"
        return web.json_response(body, status=status)

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "e", "roost": {"slot": "embedding", "can": ["embed"]}}]})

    app = web.Application()
    app.add_routes([web.post("/v1/embeddings", embeddings), web.get("/v1/models", models)])
    async with serving(app) as url, aiohttp.ClientSession() as http:
        embedder = ApiEmbedder(url, http, "alice")
        assert await embedder.model() == "e"
        if fault:
            with pytest.raises(EmbeddingError, match=fault):
                await embedder.embed("e", ["a", "b"])
        else:
            first, second = await embedder.embed("e", ["a", "b"])
            assert [round(number, 3) for number in (*first, *second)] == [0.6, 0.8, 0.0, 1.0]
    assert asked[0]["input"] == ["a", "b"]
