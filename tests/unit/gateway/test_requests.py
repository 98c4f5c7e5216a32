"""What a body must be, and that it goes on as it came."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message

from roost.gateway.errors import ApiError
from roost.gateway.request.kinds import CHAT
from roost.gateway.request.requests import ParsedRequest, parse, read_body


def parse_chat(body: bytes) -> ParsedRequest:
    return parse(CHAT, body)


HELLO = '[{"role": "user", "content": "hi"}]'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("", None),
        ("{", None),
        ("[]", None),
        ("null", None),
        ("\x00", None),
        ('{"messages": []}', "messages"),
        ('{"messages": "hi"}', "messages"),
        ('{"model": "m"}', "messages"),
        ('{"messages": [{"content": "hi"}]}', "messages.0.role"),
        ('{"messages": ["hi"]}', "messages.0"),
        (f'{{"messages": {HELLO}, "model": 5}}', "model"),
        (f'{{"messages": {HELLO}, "model": ""}}', "model"),
        (f'{{"messages": {HELLO}, "stream": "yes"}}', "stream"),
        (f'{{"messages": {HELLO}, "tools": {"[" * 5000}', None),
        (f'{{"messages": {HELLO}, "x": {"[" * 300}{"]" * 300}}}', None),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
    ],
)
def test_a_wrong_body_is_a_400_that_says_where(body: str, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat(body.encode())
    assert caught.value.status == 400
    assert caught.value.param == param
    assert json.loads(caught.value.body())["error"]["type"] == "invalid_request_error"


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_400(body: bytes) -> None:
    status = 200
    try:
        parse_chat(body)
    except ApiError as error:
        status = error.status
    assert status in {200, 400}


def test_a_body_goes_on_byte_for_byte() -> None:
    body = f'{{ "model":"tiny",  "messages": {HELLO}, "made_up": 1.50, "seed": 123456789012345678901 }}'.encode()
    assert parse_chat(body).body_for("tiny") is body


def test_only_the_model_changes_when_an_alias_was_asked_for() -> None:
    body = f'{{"model": "auto", "messages": {HELLO}, "made_up": [1.5, null], "seed": 123456789012345678901}}'
    sent = json.loads(parse_chat(body.encode()).body_for("tiny"))
    assert sent == json.loads(body) | {"model": "tiny"}


def test_without_a_model_auto_is_meant() -> None:
    assert parse_chat(f'{{"messages": {HELLO}}}'.encode()).model == "auto"


def test_not_a_number_is_refused_where_it_would_be_written_again() -> None:
    request = parse_chat(f'{{"messages": {HELLO}, "temperature": NaN}}'.encode())
    with pytest.raises(ApiError, match="not valid JSON"):
        request.body_for("tiny")


def _receive(*messages: Message) -> asyncio.Queue[Message]:
    queue: asyncio.Queue[Message] = asyncio.Queue()
    for message in messages:
        queue.put_nowait(message)
    return queue


async def test_a_body_is_joined_from_its_parts() -> None:
    queue = _receive({"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"})
    assert await read_body({"headers": []}, queue.get, limit=3, timeout_s=5) == b"abc"


async def test_a_body_that_is_too_large_is_refused_by_its_header_and_by_its_bytes() -> None:
    with pytest.raises(ApiError) as by_header:
        await read_body({"headers": [(b"content-length", b"4")]}, _receive().get, limit=3, timeout_s=5)
    queue = _receive({"type": "http.request", "body": b"abcd", "more_body": True})
    with pytest.raises(ApiError) as by_bytes:
        await read_body({"headers": []}, queue.get, limit=3, timeout_s=5)
    assert by_header.value.status == by_bytes.value.status == 413


async def test_a_body_that_does_not_come_is_a_408() -> None:
    with pytest.raises(ApiError) as caught:
        await read_body({"headers": []}, _receive().get, limit=3, timeout_s=0.01)
    assert caught.value.status == 408


async def test_a_client_that_leaves_while_it_sends_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body({"headers": []}, _receive({"type": "http.disconnect"}).get, limit=3, timeout_s=5)
