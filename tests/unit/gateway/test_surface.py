"""Every kind of request goes the one way: keys, names, failover, metrics, errors in the shape of its protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from roost.engines.base import Skill
from roost.gateway.request.kinds import KINDS, Kind
from roost.gateway.request.requests import parse
from tests.support.fakes import FakeEngine, fake_engine
from tests.support.gateway import API_KEY, Served, quick_settings, served

MESSAGES = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, object]] = {
    "chat": {"messages": MESSAGES},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "messages": {"messages": MESSAGES, "max_tokens": 5},
    "embeddings": {"model": "tiny", "input": ["hi"]},
    "rerank": {"model": "tiny", "query": "hi", "documents": ["a", "b"]},
    "tokenize": {"content": "hi"},
    "detokenize": {"tokens": [1]},
    "count": {"messages": MESSAGES},
    "messages_count": {"messages": MESSAGES},
    "responses_count": {"input": "hi"},
}
FORWARDED = [kind for kind in KINDS if not kind.counts and kind.name != "chat"]
ROUTES = [kind for kind in FORWARDED if kind.skill in (Skill.GENERATE, Skill.TOKENIZE)]
ALL: dict[str, tuple[int, dict[str, object]]] = {"/v1/embeddings": (200, {}), "/v1/rerank": (200, {})}


def by_name(kind: Kind) -> str:
    return kind.name


@asynccontextmanager
async def gateway_of(folder: Path, *engines: FakeEngine, **more: object) -> AsyncIterator[Served]:
    endpoints = ",".join(engine.url for engine in engines)
    async with served(quick_settings(folder, static_endpoints=endpoints, wait_s=0.3, **more)) as gateway:
        await gateway.ready(len(engines))
        yield gateway


async def ask(
    gateway: Served, path: str, body: object, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    async with gateway.client.post(gateway.url + path, json=body, headers=headers) as answer:
        return answer.status, await answer.json(), {name.lower(): value for name, value in answer.headers.items()}


def real(asked: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Leave out what the probe asked."""
    return [(path, body) for path, body in asked if b'"Hi"' not in body]


@pytest.mark.parametrize("kind", FORWARDED, ids=by_name)
async def test_a_request_reaches_the_model_server_and_its_answer_comes_back(tmp_path: Path, kind: Kind) -> None:
    document: dict[str, object] = {"made": "up", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    answers = {**ALL, kind.upstream: (200, document)}
    async with fake_engine(answers=answers) as engine, gateway_of(tmp_path, engine) as gateway:
        sent = {**BODIES[kind.name], "model": "tiny", "made_up": 1.5}
        status, got, headers = await ask(gateway, kind.path, sent)
        assert (status, got) == (200, document)
        assert headers["x-roost-model"] == "tiny"
        assert headers["x-request-id"]
        path, body = real(engine.asked)[-1]
        assert (path, json.loads(body)) == (kind.upstream, sent)
        labels = f'endpoint="main@{engine.url.removeprefix("http://")}",kind="{kind.name}",model="tiny",status="200"'
        async with gateway.client.get(f"{gateway.url}/metrics") as scrape:
            assert f"roost_requests_total{{{labels}}} 1.0" in await scrape.text()


@pytest.mark.parametrize("kind", FORWARDED, ids=by_name)
async def test_a_model_server_that_dies_is_followed_by_another(tmp_path: Path, kind: Kind) -> None:
    answers: dict[str, tuple[int, dict[str, object]]] = {**ALL, kind.upstream: (200, {"made": "up"})}
    async with (
        fake_engine(answers=answers) as dying,
        fake_engine(answers=answers) as living,
        gateway_of(tmp_path, dying, living) as gateway,
    ):
        dying.mode = "drop"
        for _ in range(2):  # whichever comes first
            status, got, _ = await ask(gateway, kind.path, BODIES[kind.name])
            assert (status, got) == (200, {"made": "up"})


@pytest.mark.parametrize("kind", ROUTES, ids=by_name)
async def test_what_a_model_server_has_no_route_for_is_a_typed_501(tmp_path: Path, kind: Kind) -> None:
    async with fake_engine() as engine, gateway_of(tmp_path, engine) as gateway:
        status, got, _ = await ask(gateway, kind.path, BODIES[kind.name])
        assert status == 501
        assert kind.path in got["error"]["message"]


@pytest.mark.parametrize("name", ["embeddings", "rerank"])
async def test_what_a_model_cannot_do_is_a_400(tmp_path: Path, name: str) -> None:
    refusal = (501, {"error": {"message": "This server does not support it", "type": "not_supported_error"}})
    async with fake_engine(answers={f"/v1/{name}": refusal}) as engine, gateway_of(tmp_path, engine) as gateway:
        status, got, _ = await ask(gateway, f"/v1/{name}", BODIES[name])
        assert (status, got["error"]["code"], got["error"]["param"]) == (400, "model_not_able", "model")
        async with gateway.client.get(f"{gateway.url}/v1/models") as answer:
            listed = await answer.json()
        assert listed["data"][0]["roost"]["can"] == ["generate", "tokenize"]


async def test_fields_that_a_model_server_would_ignore_are_refused(tmp_path: Path) -> None:
    async with fake_engine(answers={"/v1/completions": (200, {})}) as engine, gateway_of(tmp_path, engine) as gateway:
        for field, value in (("echo", True), ("suffix", "x"), ("best_of", 3)):
            status, got, _ = await ask(gateway, "/v1/completions", {"prompt": "hi", field: value})
            assert (status, got["error"]["param"], got["error"]["code"]) == (400, field, "unsupported_parameter")
        for field, unset in (("echo", False), ("suffix", None), ("best_of", 1)):
            status, _, _ = await ask(gateway, "/v1/completions", {"prompt": "hi", field: unset})
            assert status == 200


async def test_errors_are_anthropics_where_its_clients_ask(tmp_path: Path) -> None:
    async with fake_engine() as engine, gateway_of(tmp_path, engine) as gateway:
        for body, status, kind in (
            ({"messages": MESSAGES}, 400, "invalid_request_error"),  # without max_tokens
            ({"messages": MESSAGES, "max_tokens": 5, "model": "nobody"}, 404, "not_found_error"),
        ):
            got_status, got, headers = await ask(gateway, "/v1/messages", body)
            assert (got_status, got["type"], got["error"]["type"]) == (status, "error", kind)
            assert headers["request-id"] == headers["x-request-id"]
        status, got, _ = await ask(gateway, "/v1/messages", {}, {"Authorization": "Bearer wrong"})
        assert (status, got["error"]["type"]) == (401, "authentication_error")


async def test_a_key_may_come_as_anthropics_clients_send_it(tmp_path: Path) -> None:
    async with fake_engine() as engine, gateway_of(tmp_path, engine) as gateway:
        headers = {"Authorization": "", "x-api-key": API_KEY}
        assert (await ask(gateway, "/v1/chat/completions", {"messages": MESSAGES}, headers))[0] == 200
        headers["x-api-key"] = "wrong"
        assert (await ask(gateway, "/v1/chat/completions", {"messages": MESSAGES}, headers))[0] == 401


async def test_roles_and_aliases_lead_to_a_model(tmp_path: Path) -> None:
    async with fake_engine() as engine, gateway_of(tmp_path, engine, model_aliases={"gpt-4o": "main"}) as gateway:
        for name in ("auto", "main", "router", "specialist", "memory", "gpt-4o", "tiny"):
            assert (await ask(gateway, "/v1/chat/completions", {"messages": MESSAGES, "model": name}))[0] == 200
            async with gateway.client.get(f"{gateway.url}/v1/models/{name}") as answer:
                assert (await answer.json())["id"] == "tiny"
        status, _, _ = await ask(gateway, "/v1/chat/completions", {"messages": MESSAGES, "model": "embedding"})
        assert status == 404


async def test_counting_says_how_much_room_is_left(tmp_path: Path) -> None:
    async with fake_engine(counter=True) as engine, gateway_of(tmp_path, engine) as gateway:
        body = {"messages": [{"role": "user", "content": "one two three"}]}
        status, got, _ = await ask(gateway, "/v1/count", body)
        assert status == 200
        assert got == {"object": "token_count", "model": "tiny", "tokens": 3, "context": 2048, "left": 2045}


async def test_a_model_server_that_cannot_count_says_so(tmp_path: Path) -> None:
    async with fake_engine() as engine, gateway_of(tmp_path, engine) as gateway:
        status, got, _ = await ask(gateway, "/v1/count", BODIES["count"])
        assert (status, got["error"]["code"]) == (501, "not_offered")


def test_each_kind_is_tried_here() -> None:
    assert {kind.name for kind in KINDS} == BODIES.keys()
    for kind in KINDS:
        assert parse(kind, json.dumps(BODIES[kind.name]).encode()).kind is kind


@pytest.mark.parametrize(
    ("name", "events", "ended"),
    [
        ("chat", b'data: {"a": 1}\n\n', False),
        ("chat", b'data: {"a": 1}\n\ndata: [DONE]\n\n', True),
        ("chat", b"data: [DONE]\r\n\r\n", True),
        ("chat", b"data: [DONE]\n\ndata: {}\n\n", False),
        ("messages", b'event: message_delta\ndata: {"x": "event: message_stop"}\n\n', False),
        ("messages", b"event: a\ndata: 1\n\nevent: message_stop\ndata: {}\n\n", True),
        ("responses", b'event: response.completed\ndata: {"response": {}}\n\n', True),
        ("responses", b"event: response.output_text.done\ndata: {}\n\n", False),
    ],
)
def test_the_last_event_of_a_stream_is_known(name: str, events: bytes, *, ended: bool) -> None:
    (kind,) = (kind for kind in KINDS if kind.name == name)
    assert kind.ended(events) is ended
