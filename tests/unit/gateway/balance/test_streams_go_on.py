"""Streams whose model server dies: what goes on elsewhere, and what ends with an error. Scripted servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from roost.gateway.balance.continuing import NO_PART, Splice, Transcript
from roost.gateway.request.kinds import CHAT as CHAT_REQUESTS
from roost.gateway.request.kinds import MESSAGES, Kind
from tests.support.fakes import WORDS, FakeEngine, fake_engine
from tests.support.gateway import Served, quick_settings, served
from tests.support.net import eventually

CHAT = "/v1/chat/completions"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
PROMPT_WORDS = 6
SAME: dict[str, object] = {"file_bytes": 96, "parameters": 135, "counter": True, "template": "plain"}


@asynccontextmanager
async def two(folder: Path, one: dict[str, object], other: dict[str, object], **more: object) -> AsyncIterator[Served]:
    """Run two servers, the first of which is asked first, and the gateway before them."""
    async with fake_engine(**one) as first, fake_engine(**other) as second:
        urls = f"a={first.url},b={second.url}"
        async with served(quick_settings(folder, static_endpoints=urls, **more)) as gateway:
            await gateway.ready(2)
            yield gateway


async def events(gateway: Served, **more: object) -> list[dict[str, object]]:
    async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "stream": True, **more}) as answer:
        assert answer.status == 200
        text = (await answer.read()).decode()
    found = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [{"done": True} if event == "[DONE]" else json.loads(event) for event in found]


def words(found: list[dict[str, object]]) -> str:
    said = ""
    for event in found:
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            said += choice["delta"].get("content") or ""
    return said


def error_of(found: list[dict[str, object]]) -> dict[str, str]:
    error = found[-1].get("error", {})
    assert isinstance(error, dict)
    return error


@pytest.mark.parametrize("mode", ["die-mid-event", "truncate"])
@pytest.mark.parametrize("dies_after", [1, 2, 6])
async def test_a_stream_of_text_goes_on_at_another_server(tmp_path: Path, mode: str, dies_after: int) -> None:
    async with two(tmp_path, {**SAME, "mode": mode, "dies_after": dies_after}, SAME) as gateway:
        found = await events(gateway, stream_options={"include_usage": True}, max_tokens=50)
        assert words(found) == "".join(WORDS)
        assert found[-1] == {"done": True}
        assert len({str(event["id"]) for event in found[:-1]}) == 1
        usage = found[-2]["usage"]
        assert isinstance(usage, dict)
        assert usage["prompt_tokens"] == PROMPT_WORDS
        written = len("".join(WORDS[:dies_after]).split())  # as this server counts
        assert usage["completion_tokens"] == written + len(WORDS) - dies_after
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_the_other_server_gets_the_text_so_far_and_the_rest_of_the_limit(tmp_path: Path) -> None:
    async with fake_engine(**SAME, mode="die-mid-event") as one, fake_engine(**SAME) as other:
        settings = quick_settings(tmp_path, static_endpoints=f"a={one.url},b={other.url}")
        async with served(settings) as gateway:
            await gateway.ready(2)
            await events(gateway, max_tokens=50, temperature=0.5)
            chat = other.chats[-1]
            messages = chat["messages"]
            assert isinstance(messages, list)
            assert messages[-1] == {"role": "assistant", "content": "".join(WORDS[:2])}
            assert (chat["max_tokens"], chat["temperature"]) == (48, 0.5)
            assert (chat["continue_final_message"], chat["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"grammar": 'root ::= "a"'}, "grammar"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n was"),
    ],
)
async def test_what_is_more_than_text_ends_with_a_typed_error(
    tmp_path: Path, more: dict[str, object], said: str
) -> None:
    async with two(tmp_path, {**SAME, "mode": "die-mid-event"}, SAME) as gateway:
        found = await events(gateway, **more)
        assert words(found) == "".join(WORDS[:2])
        assert error_of(found)["code"] == "stream_interrupted"
        assert said in error_of(found)["message"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({**SAME, "file_bytes": 97}, "same model file"),
        ({**SAME, "template": "changes"}, "template"),
        ({**SAME, "template": ""}, "does not show"),
        ({**SAME, "counter": False}, "count"),
    ],
)
async def test_a_server_that_would_go_on_differently_is_not_asked_to(
    tmp_path: Path, other: dict[str, object], said: str
) -> None:
    async with fake_engine(**SAME, mode="slow") as one, fake_engine(**other) as second:
        settings = quick_settings(tmp_path, static_endpoints=f"a={one.url},b={second.url}", wait_s=0.5)
        async with served(settings) as gateway:
            await gateway.ready(2)
            asking = asyncio.create_task(events(gateway))
            await eventually(lambda: bool(one.chats), 5, "the stream to begin")
            await one.stop()
            found = await asking
            assert error_of(found)["code"] == "stream_interrupted"
            assert said in error_of(found)["message"]
            assert second.chats == []


async def test_a_stream_goes_on_at_the_same_server_once_it_is_back(tmp_path: Path) -> None:
    engine = FakeEngine(file_bytes=96, parameters=135, counter=True, template="plain", mode="slow")
    await engine.start()
    async with served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway:
        await gateway.ready()
        asking = asyncio.create_task(events(gateway))
        await eventually(lambda: bool(engine.chats), 5, "the stream to begin")
        await engine.stop()
        await eventually(lambda: gateway.states() == ["down"], 5, "it to be gone")
        engine.mode = "ready"
        await engine.start(engine.port)
        assert words(await asyncio.wait_for(asking, 10)) == "".join(WORDS)
    await engine.stop()


async def test_servers_that_die_again_and_again_without_a_word_end_it(tmp_path: Path) -> None:
    broken = {**SAME, "mode": "die-mid-event", "dies_after": 0}
    async with two(tmp_path, {**SAME, "mode": "die-mid-event"}, broken) as gateway:
        found = await events(gateway)
        assert error_of(found)["code"] == "stream_interrupted"


async def test_a_client_that_does_not_read_gives_up_its_slot(tmp_path: Path) -> None:
    async with fake_engine() as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, send_timeout_s=0.3)
        async with served(settings) as gateway:
            await gateway.ready()
            engine.flood = True
            async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "stream": True}) as answer:
                await answer.content.readany()
                endpoint = gateway.gateway.registry.endpoints()[0]
                assert endpoint.in_flight == 1
                await eventually(lambda: endpoint.in_flight == 0, 10, "the slot to be free again")
                await eventually(lambda: engine.left == 1, 5, "the model server to notice")


async def test_nothing_follows_the_end_of_a_stream(tmp_path: Path) -> None:
    async with two(tmp_path, {**SAME, "mode": "die-after-end"}, SAME) as gateway:
        found = await events(gateway)
        assert (words(found), found[-1]) == ("".join(WORDS), {"done": True})
        assert [event for event in found if "done" in event] == [{"done": True}]


@pytest.mark.parametrize("first", [{}, {"id": "1"}])
def test_a_stream_of_which_nothing_but_comments_came_gets_its_beginning(first: dict[str, object]) -> None:
    begin = b'event: message_start\ndata: {"type": "message_start", "message": {}}\n\n'
    assert (begin in Splice(MESSAGES, first, False, None, 0).events(begin)) == (not first)
    role = b'data: {"choices": [{"delta": {"role": "assistant", "content": null}}]}\n\n'
    assert (b"assistant" in Splice(CHAT_REQUESTS, first, False, None, 0).events(role)) == (not first)


ODD_CHUNKS: list[dict[str, object]] = [
    {"choices": ["x"]}, {"choices": [None]}, {"choices": {"a": 1}}, {"choices": [{"delta": "x"}]},
    {"choices": [{"delta": [1]}]},
]  # fmt: skip
ODD_EVENTS: list[dict[str, object]] = [
    {"type": "content_block_start", "content_block": "x"}, {"type": "content_block_delta", "delta": ["x"]},
    {"type": ["x"]},
]  # fmt: skip
ODD_COUNTS: list[tuple[Kind, dict[str, object]]] = [
    (
        CHAT_REQUESTS,
        {"choices": [], "usage": {"completion_tokens": "x", "prompt_tokens_details": {"cached_tokens": []}}},
    ),
    (CHAT_REQUESTS, {"choices": [], "timings": {"cache_n": "x", "predicted_n": {}}}),
    (MESSAGES, {"type": "message_delta", "usage": {"output_tokens": "x"}}),
]


@pytest.mark.parametrize(
    ("kind", "odd"), [(CHAT_REQUESTS, odd) for odd in ODD_CHUNKS] + [(MESSAGES, odd) for odd in ODD_EVENTS]
)
def test_an_odd_event_of_a_server_breaks_no_stream_and_keeps_it_from_going_on(
    kind: Kind, odd: dict[str, object]
) -> None:
    data = b"data: " + json.dumps(odd).encode() + b"\n\n"
    transcript = Transcript(kind)
    transcript.keep(data)
    assert (transcript.text(), transcript.more) == ("", NO_PART)
    assert json.dumps(odd).encode().replace(b" ", b"")[:-1] in Splice(kind, {}, False, 5, 5).events(data).replace(
        b" ", b""
    )


@pytest.mark.parametrize(("kind", "odd"), ODD_COUNTS)
def test_a_server_that_counts_oddly_breaks_no_stream(kind: Kind, odd: dict[str, object]) -> None:
    data = b"data: " + json.dumps(odd).encode() + b"\n\n"
    told = Splice(kind, {"id": "1"}, False, 5, 7).events(data)
    assert b'"x"' not in told
    assert b":7" in told.replace(b" ", b"")


async def test_a_request_that_was_worked_on_for_long_still_waits_for_another_server(tmp_path: Path) -> None:
    one_slot: dict[str, object] = {"props": {"total_slots": 1}}
    async with fake_engine(**one_slot, mode="drop-late") as a, fake_engine(**one_slot, mode="slow") as b:
        settings = quick_settings(tmp_path, static_endpoints=f"a={a.url},b={b.url}", wait_s=3.0)
        async with served(settings) as gateway:
            await gateway.ready(2)
            plain = asyncio.create_task(_plain(gateway))
            await eventually(lambda: len(a.chats) == 1, 5, "the request at the one that will die")
            streamed = asyncio.create_task(events(gateway))
            await eventually(lambda: any(chat.get("stream") for chat in b.chats), 5, "the stream")
            await asyncio.sleep(3.1)  # longer than a request may wait
            a.go.set()
            await eventually(lambda: gateway.gateway.balancer.waiting == 1, 5, "the request to wait")
            b.go.set()
            assert await plain == 200
            assert words(await streamed) == "".join(WORDS)


async def _plain(gateway: Served) -> int:
    async with gateway.client.post(gateway.url + CHAT, json=QUESTION) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize(("code", "bad"), [(500, 1), (400, 0)])
async def test_an_error_within_a_stream_counts_as_one(tmp_path: Path, code: int, bad: int) -> None:
    error = (code, {"error": {"code": code, "message": "no"}})
    async with two(tmp_path, {**SAME, "mode": "report", "error": error}, SAME) as gateway:
        assert error_of(await events(gateway))["message"] == "no"
        registry = gateway.gateway.registry
        counts = [registry.record_of(endpoint.id).newer for endpoint in registry.endpoints()]
        assert (sum(count.good for count in counts), sum(count.bad for count in counts)) == (0, bad)
