"""Translation between the two protocols, held against the types of the official clients."""

from __future__ import annotations

import itertools
import json
from typing import Any

import aiohttp
import pytest
from anthropic.types import Message
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from roost.engines.anthropic_chat import ChatStream, UntranslatableError, completion_of, request_of

Json = dict[str, Any]
PARAMS = TypeAdapter(MessageCreateParamsNonStreaming)
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "of a town", "parameters": {"type": "object"}},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
CALLS = [
    {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Paris"}'}},
    {"id": "t2", "type": "function", "function": {"name": "weather", "arguments": ""}},
]
EVENTS: list[Json] = [
    {"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": [],
        "stop_reason": None, "usage": {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 4}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": " sée"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2,
     "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"town": '}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"Paris"}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3,
     "content_block": {"type": "tool_use", "id": "t2", "name": "now", "input": {}}},
    {"type": "content_block_stop", "index": 3},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]  # fmt: skip


def translated(**chat: object) -> Json:
    """Return the translation, after the official client's types took it."""
    body = {"model": "claude-test", "messages": [{"role": "user", "content": "Hi"}], **chat}
    found = json.loads(request_of(body, 4096))
    PARAMS.validate_python(found)
    return dict(found)


def test_a_conversation_with_tools_and_an_image() -> None:
    found = translated(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
            {"role": "user", "content": [{"type": "text", "text": "Which?"}, IMAGE]},
            {"role": "assistant", "content": "", "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "noon"}]},
            {"role": "user", "content": "So?"},
        ],
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        max_completion_tokens=99,
        stop="END",
        temperature=0.5,
    )
    assert found["system"] == "Be brief.\n\nIn French."
    assert [turn["role"] for turn in found["messages"]] == ["user", "assistant", "user"]
    first, second, third = (turn["content"] for turn in found["messages"])
    assert first[1] == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
    assert second == [
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"town": "Paris"}},
        {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
    ]
    assert [block["type"] for block in third] == ["tool_result", "tool_result", "text"]
    assert third[0]["tool_use_id"] == "t1"
    assert found["tools"] == [{"name": "weather", "description": "of a town", "input_schema": {"type": "object"}}]
    assert found["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert (found["max_tokens"], found["stop_sequences"], found["temperature"]) == (99, ["END"], 0.5)


def test_what_is_not_said_gets_a_limit_and_nothing_else() -> None:
    assert translated() == {
        "model": "claude-test",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


def test_a_schema_and_effort_have_words_of_their_own() -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    found = translated(response_format=shape, reasoning_effort="low")
    assert found["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"}
    named = translated(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}})
    assert named["tool_choice"] == {"type": "tool", "name": "weather"}


@pytest.mark.parametrize(
    ("chat", "why"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"reasoning_effort": "minimal"}, "minimal"),
        ({"tools": [TOOL], "tool_choice": "some"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]}, "no JSON object"),
        ({"messages": [{"role": "function", "content": "x"}]}, "function"),
    ],
)
def test_what_cannot_be_said_is_refused(chat: Json, why: str) -> None:
    with pytest.raises(UntranslatableError, match=why):
        translated(**chat)


def message(**fields: object) -> bytes:
    """Return a whole message, after the official client's types took it."""
    given = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "stop_sequence": None,
             "stop_reason": "end_turn", "content": [{"type": "text", "text": "Paris"}],
             "usage": {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 5}} | fields  # fmt: skip
    Message.model_validate(given)
    return json.dumps(given).encode()


def test_an_answer_becomes_a_completion() -> None:
    found = ChatCompletion.model_validate_json(completion_of(message()))
    assert found.choices[0].message.content == "Paris"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (15, 2, 17)
    assert found.usage.prompt_tokens_details is not None
    assert found.usage.prompt_tokens_details.cached_tokens == 5


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_tokens", "length"), ("stop_sequence", "stop"), ("refusal", "content_filter"), ("pause_turn", "stop")],
)
def test_why_an_answer_ended(reason: str, finish: str) -> None:
    found = ChatCompletion.model_validate_json(completion_of(message(stop_reason=reason)))
    assert found.choices[0].finish_reason == finish


def test_calls_and_thoughts_of_an_answer() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"town": "Paris"}},
    ]
    found = json.loads(completion_of(message(content=blocks, stop_reason="tool_use")))
    choice = ChatCompletion.model_validate(found).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].to_dict()["function"] == {"name": "weather", "arguments": '{"town": "Paris"}'}
    assert found["choices"][0]["message"]["reasoning_content"] == "Hm."


class Chunks:
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def readany(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def stream_of(events: list[Json]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def pieces_of(text: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted({cut % len(text) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds) if a < b]


@given(st.lists(st.integers(0, 10**6), max_size=40))
async def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    stream = ChatStream(Chunks(pieces_of(stream_of(EVENTS), cuts)), include_usage=True)
    events = (await stream.read()).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [ChatCompletionChunk.model_validate_json(event[6:]) for event in events[:-2]]
    *parts, usage = chunks
    assert usage.usage is not None
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens) == (14, 9)
    deltas = [part.choices[0].delta for part in parts]
    assert "".join(delta.content or "" for delta in deltas) == "Let me sée"
    assert "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas) == "Hm."
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta.tool_calls or []:
            assert call.function is not None
            calls.setdefault(call.index, [call.id or "", call.function.name or "", ""])[2] += (
                call.function.arguments or ""
            )
    assert calls == {0: ["t1", "weather", '{"town": "Paris"}'], 1: ["t2", "now", "{}"]}
    assert [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason] == ["tool_calls"]


@pytest.mark.parametrize("last", [[], [{"type": "error", "error": {"type": "overloaded_error"}}]])
async def test_a_stream_that_breaks_off_is_no_whole_answer(last: list[Json]) -> None:
    stream = ChatStream(Chunks([stream_of([*EVENTS[:8], *last])]), include_usage=False)
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": [{"type": "function"}]},
        {"tools": [1]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "here"}]}]},
        {"response_format": "json"},
        {"tools": [TOOL], "tool_choice": {"function": "weather"}},
    ],
)
def test_a_request_of_another_shape_is_the_clients_fault(wrong: Json) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **wrong}
    with pytest.raises(UntranslatableError):
        request_of(chat, 10)


@pytest.mark.parametrize(
    "event", [b"no JSON", b"[1]", b'{"type": "message_start"}', b'{"type": "content_block_delta"}']
)
async def test_an_event_of_another_shape_breaks_the_stream_off(event: bytes) -> None:
    class Junk:
        async def readany(self) -> bytes:
            return b"data: " + event + b"\n\n"

    with pytest.raises(aiohttp.ClientPayloadError):
        await ChatStream(Junk(), include_usage=False).readany()
