"""How large the parts of a request may be, and that who keeps sending invalid ones is answered later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.gateway.errors import ApiError
from roost.gateway.penalties import FREE, HELD_AT_ONCE, Slowdown
from roost.gateway.request import kinds
from roost.gateway.request.requests import parse
from roost.gateway.request.shape import ShapeLimits
from tests.support.fakes import fake_engine
from tests.support.gateway import quick_settings, served
from tests.unit.gateway.test_proxy_faults import CHAT, QUESTION, metric

SMALL = ShapeLimits(messages=2, image_bytes=30, schema_depth=4, schema_nodes=8)
ASK = {"role": "user", "content": "x"}


def image(characters: int) -> dict[str, object]:
    """Return a message with an image of that many characters."""
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:{'d' * (characters - 5)}"}}]}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [ASK, ASK]},
        {"messages": [image(40)]},
        {"messages": [ASK], "tools": {"a": {"b": {"c": 1}}}},
        {"messages": [ASK], "response_format": {"a": [1, 2, 3, 4, 5]}},
        {"messages": [{"role": "user", "content": [1, None, {"image_url": 5}, {"image_url": {"url": 7}}]}]},
    ],
)
def test_what_is_within_the_limits_passes_as_it_came(body: dict[str, object]) -> None:
    raw = json.dumps(body).encode()
    assert parse(kinds.CHAT, raw, SMALL).body == raw


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [ASK, ASK, ASK]}, "messages"),
        ({"messages": [ASK, image(44)]}, "messages.1.content.0.image_url"),
        ({"messages": [ASK], "tools": {"a": {"b": {"c": {"d": 1}}}}}, "tools"),
        ({"messages": [ASK], "json_schema": {"a": {"b": {"c": {"d": 1}}}}}, "json_schema"),
        ({"messages": [ASK], "response_format": {"a": [1, 2, 3, 4, 5, 6, 7]}}, "response_format"),
    ],
)
def test_what_is_too_large_is_named(body: dict[str, object], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(kinds.CHAT, json.dumps(body).encode(), SMALL)
    assert (caught.value.status, caught.value.param) == (400, param)


ADDRESSES = ("http://192.0.2.7/x", "HTTPS://host/x", "file:///etc/passwd", "ftp://h", "x", "")
PARTS: list[tuple[kinds.Kind, object, str]] = [
    (kinds.CHAT, {"type": "image_url", "image_url": {"url": "URL"}}, "image_url"),
    (kinds.CHAT, {"type": "image_url", "image_url": "URL"}, "image_url"),
    (kinds.CHAT, {"type": "video_url", "video_url": {"url": "URL"}}, "video_url"),
    (kinds.RESPONSES, {"type": "input_image", "image_url": "URL"}, "image_url"),
    (kinds.MESSAGES, {"type": "image", "source": {"type": "url", "url": "URL"}}, "source"),
    (
        kinds.MESSAGES,
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "URL"}}]},
        "content.0.source",
    ),
    (kinds.COUNT, {"type": "image_url", "image_url": {"url": "URL"}}, "image_url"),
]


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize(("kind", "part", "place"), PARTS)
def test_a_model_server_is_sent_nowhere(url: str, kind: kinds.Kind, part: object, place: str) -> None:
    part = json.loads(json.dumps(part).replace("URL", url))
    field = "input" if kind is kinds.RESPONSES else "messages"
    body = {field: [ASK, {"role": "user", "content": [{"type": "text", "text": "?"}, part]}], "max_tokens": 1}
    with pytest.raises(ApiError) as caught:
        parse(kind, json.dumps(body).encode(), SMALL)
    assert (caught.value.status, caught.value.param) == (400, f"{field}.1.content.1.{place}")


def test_what_a_tool_is_called_with_is_no_image() -> None:
    call = {"type": "tool_use", "name": "open", "input": {"page_url": "https://example.org/", "source": "x"}}
    body = {"messages": [ASK, {"role": "assistant", "content": [call]}], "max_tokens": 1}
    assert parse(kinds.MESSAGES, json.dumps(body).encode(), SMALL)


async def test_answers_are_held_back_after_a_while_and_only_so_many_at_once() -> None:
    held: list[float] = []

    async def sleep(seconds: float) -> None:
        held.append(seconds)
        if len(held) < HELD_AT_ONCE + 1:
            await slowdown.hold("alice")  # while this one waits

    slowdown = Slowdown(lambda: 0.0, sleep)
    for _ in range(FREE):
        await slowdown.hold("alice")
    assert held == []
    await slowdown.hold("alice")
    assert len(held) == HELD_AT_ONCE
    await slowdown.hold("bob")
    assert len(held) == HELD_AT_ONCE


async def test_invalid_requests_are_counted(tmp_path: Path) -> None:
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, max_messages=1)) as gateway,
    ):
        await gateway.ready()
        for messages in ([ASK, ASK], []):
            body = {**QUESTION, "messages": messages}
            async with gateway.client.post(gateway.url + CHAT, json=body) as answer:
                assert answer.status == 400
        assert await metric(gateway, "roost_invalid_requests_total", key="admin", status="400") == 2
        assert engine.chats == []
