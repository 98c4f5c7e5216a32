"""A real model server is killed in the middle of a stream: another one goes on, and the text is what it would be.

The long form, under load, is `bench/run kills`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from bench.kills import UNDECIDED, Oracle, Pair, pair, question

from tests.support.engine import ENGINE_KEY
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until

TOKENS = 96  # more than a server writes while a busy machine keeps the client from reading
SUBJECT = "a lighthouse"
READ_BEFORE = 6  # events, until the server is killed


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two model servers."""
    with pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(both: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service before both."""
    folder = tmp_path_factory.mktemp("service")
    key_file = folder / "key-of-engine"
    key_file.write_text(ENGINE_KEY)
    environment = {
        "ROOST_API_KEYS_FILE": str(write_keys(folder)),
        "ROOST_ENGINE_KEY_FILE": str(key_file),
        "ROOST_STATIC_ENDPOINTS": ",".join(f"http://127.0.0.1:{port}" for port in both.ports),
    }
    with service(folder, environment) as running:
        wait_until(lambda: running.log.read_text().count('"state": "ready"') >= 2, 90, "both to be routable")
        yield running


async def broken_off(both: Pair, gateway: Service, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yield a stream's events; the server that gives it is killed after some of them."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {API_KEY}"}) as session:
        await asyncio.to_thread(both.wait)
        async with session.post(gateway.url + path, json={**body, "stream": True}) as answer:
            assert answer.status == 200, await answer.text()
            serving = int(answer.headers["x-roost-endpoint"].rpartition(":")[2])
            number = 0
            async for line in answer.content:
                data = line.strip().removeprefix(b"data: ")
                if data.startswith(b"{"):
                    yield json.loads(data)
                    number += 1
                    if number == READ_BEFORE:
                        await asyncio.to_thread(both.kill, both.ports.index(serving))


async def same_as(both: Pair, text: str, expected: str) -> bool:
    """Say whether a text is the undisturbed one, or parts from it where the model itself is undecided."""
    if text == expected:
        return True
    await asyncio.to_thread(both.wait)
    async with aiohttp.ClientSession() as session:
        oracle = Oracle(session, f"http://127.0.0.1:{both.ports[0]}", TOKENS)
        return await oracle.gap(SUBJECT, expected, text) <= UNDECIDED


async def undisturbed(both: Pair, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask a model server itself."""
    await asyncio.to_thread(both.wait)
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
    url = f"http://127.0.0.1:{both.ports[0]}{path}"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as answer:
        document: dict[str, Any] = await answer.json()
        return document


async def test_a_chat_goes_on(both: Pair, gateway: Service) -> None:
    path, kills = "/v1/chat/completions", both.kills
    body = question(SUBJECT, TOKENS) | {"stream_options": {"include_usage": True}}
    events = [event async for event in broken_off(both, gateway, path, body)]
    assert both.kills == kills + 1
    assert not [event for event in events if "error" in event]
    assert len({event["id"] for event in events}) == 1
    # The line is written once the answer is on its way.
    await asyncio.to_thread(wait_until, lambda: "continued_at" in gateway.log.read_text(), 10, "the log's line")
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    plain = await undisturbed(both, path, question(SUBJECT, TOKENS))
    assert await same_as(both, text, plain["choices"][0]["message"]["content"])
    usage = events[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (plain["usage"]["prompt_tokens"], TOKENS)


async def test_a_text_goes_on(both: Pair, gateway: Service) -> None:
    path = "/v1/completions"
    body = {"prompt": "The heron is", "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    events = [event async for event in broken_off(both, gateway, path, body)]
    assert not [event for event in events if "error" in event]
    text = "".join(choice["text"] for event in events for choice in event["choices"])
    expected = (await undisturbed(both, path, body))["choices"][0]["text"]
    assert text[:20] == expected[:20]
    assert events[-1]["timings"]["predicted_n"] == TOKENS


async def test_a_message_of_anthropics_protocol_goes_on(both: Pair, gateway: Service) -> None:
    path, body = "/v1/messages", question(SUBJECT, TOKENS)
    system, user = body.pop("messages")
    body |= {"system": system["content"], "messages": [user]}
    events = [event async for event in broken_off(both, gateway, path, body)]
    kinds = [event["type"] for event in events]
    assert [kinds.count(once) for once in ("message_start", "content_block_start", "message_stop", "error")] == [
        1,
        1,
        1,
        0,
    ]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    expected = (await undisturbed(both, path, body))["content"][0]["text"]
    assert await same_as(both, text, expected)
    assert events[-2]["usage"]["output_tokens"] == TOKENS


async def test_an_answer_with_a_grammar_ends_with_a_typed_error(both: Pair, gateway: Service) -> None:
    # Long: one that was whole before the server is killed would end well.
    body = question(SUBJECT, 8 * TOKENS) | {"grammar": "root ::= [a-z ]+"}
    events = [event async for event in broken_off(both, gateway, "/v1/chat/completions", body)]
    assert events[-1]["error"]["code"] == "stream_interrupted"
