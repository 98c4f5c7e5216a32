"""A chat of OpenAI's as a message of Anthropic's, and its answer back, streamed too. Pure but for `ChatStream.readany`.

Sources: https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/docs/build-with-claude/streaming,
https://platform.openai.com/docs/api-reference/chat; field names checked against the official `anthropic` client 2.14.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
from pydantic_core import from_json

from roost.engines.base import Content

Json = dict[str, Any]

# What Anthropic's protocol has no word for. Set to what it is anyway (n: 1, say) it does no harm.
IGNORED = frozenset(
    {"n", "seed", "logprobs", "top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty", "functions",
     "function_call", "audio", "prediction", "web_search_options", "json_schema", "grammar"}
)  # fmt: skip
PASSED = ("model", "stream", "temperature", "top_p", "top_k")
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
CHOICES = {"auto": "auto", "required": "any", "none": "none"}
EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
DATA_URL = "data:"
NOT_ITS_SHAPE = (ValueError, KeyError, TypeError, AttributeError)
DONE = b"data: [DONE]\n\n"


class UntranslatableError(ValueError):
    """The request has something that Anthropic's protocol cannot say; the text says what, for the client."""


def request_of(chat: Json, answer_tokens: int) -> bytes:
    """Return the body of `/v1/messages` for a chat; `answer_tokens` limits the answer where the client does not.

    Raises:
        UntranslatableError: it cannot be said there, or is not shaped as OpenAI's API has it.
    """
    try:
        return _request_of(chat, answer_tokens)
    except (KeyError, TypeError, AttributeError) as error:
        raise UntranslatableError(f"the request is not shaped as the API has it ({error}).") from None


def _request_of(chat: Json, answer_tokens: int) -> bytes:
    system, messages = _conversation(chat["messages"])
    limit = chat.get("max_completion_tokens") or chat.get("max_tokens") or answer_tokens
    request: Json = {name: chat[name] for name in PASSED if chat.get(name) is not None}
    request |= {"messages": messages, "max_tokens": limit}
    if system:
        request["system"] = system
    if stop := chat.get("stop"):
        request["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if tools := chat.get("tools"):
        request["tools"] = [_tool(tool["function"]) for tool in tools]
        if choice := _choice(chat):
            request["tool_choice"] = choice
    if output := _output(chat):
        request["output_config"] = output
    return json.dumps(request).encode()


def _tool(function: Json) -> Json:
    found = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    if function.get("description"):
        found["description"] = function["description"]
    return found | ({"strict": True} if function.get("strict") else {})


def _choice(chat: Json) -> Json:
    wanted, found = chat.get("tool_choice"), dict[str, Any]()
    if isinstance(wanted, str):
        if wanted not in CHOICES:
            raise UntranslatableError(f"tool_choice: {wanted!r} is none of {', '.join(CHOICES)}.")
        found = {"type": CHOICES[wanted]}
    elif isinstance(wanted, dict):
        found = {"type": "tool", "name": (wanted.get("function") or {}).get("name")}
    if chat.get("parallel_tool_calls") is False and found.get("type") != "none":
        found = {"type": "auto", **found, "disable_parallel_tool_use": True}
    return found


def _output(chat: Json) -> Json:
    found: Json = {}
    shape = chat.get("response_format") or {}
    if shape.get("type") == "json_schema":
        found["format"] = {"type": "json_schema", "schema": (shape.get("json_schema") or {}).get("schema") or {}}
    elif shape.get("type") not in (None, "text"):
        raise UntranslatableError(f"response_format: {shape.get('type')!r} is not offered there; use json_schema.")
    effort = chat.get("reasoning_effort")
    if effort in EFFORTS:
        found["effort"] = effort
    elif effort not in (None, "none"):
        raise UntranslatableError(f"reasoning_effort: {effort!r} is not offered there.")
    return found


def _conversation(messages: list[Json]) -> tuple[str, list[Json]]:
    """Return the instructions, which stand apart there, and the turns; those of one role in a row become one."""
    system: list[str] = []
    turns: list[Json] = []
    for number, message in enumerate(messages):
        role = message["role"]
        if role in ("system", "developer"):
            system.append("\n".join(block["text"] for block in _blocks(message.get("content"), number, text_only=True)))
            continue
        blocks = _turn(message, number)
        said_by = "assistant" if role == "assistant" else "user"
        if not blocks:
            continue
        if turns and turns[-1]["role"] == said_by:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": said_by, "content": blocks})
    for turn in turns:  # results of tools come first in their turn
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    if turns and turns[-1]["role"] == "assistant" and turns[-1]["content"][-1]["type"] == "text":
        turns[-1]["content"][-1]["text"] = turns[-1]["content"][-1]["text"].rstrip()  # refused otherwise
    return "\n\n".join(text for text in system if text), turns


def _turn(message: Json, number: int) -> list[Json]:
    role = message["role"]
    if role == "user":
        return _blocks(message.get("content"), number)
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id", "")}
        return [result | {"content": _blocks(message.get("content"), number)}]
    if role != "assistant":
        raise UntranslatableError(f"messages.{number}.role: {role!r} is not offered there.")
    blocks = _blocks(message.get("content"), number, text_only=True)
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        try:
            given = from_json(function.get("arguments") or "{}")
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise UntranslatableError(f"messages.{number}.tool_calls: the arguments are no JSON object.")
        blocks.append({"type": "tool_use", "id": call.get("id", ""), "name": function.get("name"), "input": given})
    return blocks


def _blocks(content: object, number: int, *, text_only: bool = False) -> list[Json]:
    """Return a message's content as blocks; empty texts are left out, since they are refused."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks: list[Json] = []
    for part in content if isinstance(content, list) else []:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            text = part.get(kind)
            blocks += [{"type": "text", "text": text}] if text else []
        elif kind == "image_url" and not text_only:
            blocks.append({"type": "image", "source": _source(str((part.get("image_url") or {}).get("url", "")))})
        else:
            raise UntranslatableError(f"messages.{number}.content: a part of the type {kind!r} is not offered there.")
    return blocks


def _source(url: str) -> Json:
    if not url.startswith(DATA_URL):
        return {"type": "url", "url": url}
    media, _, data = url.removeprefix(DATA_URL).partition(",")
    return {"type": "base64", "media_type": media.partition(";")[0], "data": data}


def completion_of(message: bytes) -> bytes:
    """Return the answer of a chat for a whole message.

    Raises:
        `NOT_ITS_SHAPE`: it is no message.
    """
    found = from_json(message)
    texts, thoughts, calls = [], [], []
    for block in found["content"]:
        if block["type"] == "text":
            texts.append(block["text"])
        elif block["type"] == "thinking":
            thoughts.append(block["thinking"])
        elif block["type"] == "tool_use":
            calls.append(_call(block["id"], block["name"], json.dumps(block["input"])))
    said: Json = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if thoughts:
        said["reasoning_content"] = "".join(thoughts)
    if calls:
        said["tool_calls"] = calls
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish_of(found.get("stop_reason"))}
    head = {"id": found["id"], "object": "chat.completion", "created": int(time.time()), "model": found["model"]}
    return json.dumps({**head, "choices": [choice], "usage": usage_of(found["usage"])}).encode()


def _call(name: str, function: str, arguments: str) -> Json:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}


def finish_of(reason: str | None) -> str:
    """Return OpenAI's word for why an answer ended."""
    return FINISH.get(reason or "", "stop")


def usage_of(usage: Mapping[str, Any]) -> Json:
    """Return how many tokens it was; Anthropic counts what was cached apart."""
    cached = usage.get("cache_read_input_tokens") or 0
    prompt = (usage.get("input_tokens") or 0) + cached + (usage.get("cache_creation_input_tokens") or 0)
    written = usage.get("output_tokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class StreamTranslator:
    """Turns the events of a streamed message into those of a streamed chat."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head: Json = {}
        self._usage: Json = {}
        self._calls: dict[int, int] = {}  # number of the block -> number of the call
        self._waiting: dict[int, object] = {}  # arguments that came with a block's beginning, until others follow
        self.ended = False

    def events(self, event: Json) -> Iterator[bytes]:
        """Yield what one event becomes.

        Raises:
            aiohttp.ClientPayloadError: the service ended the stream with an error.
        """
        kind, number = event.get("type"), event.get("index", 0)
        if kind == "message_start":
            message = event["message"]
            self._usage = dict(message.get("usage") or {})
            self._head = {"id": message["id"], "object": "chat.completion.chunk", "created": int(time.time()),
                          "model": message["model"]}  # fmt: skip
            yield self._chunk({"role": "assistant", "content": ""})
        elif kind == "content_block_start" and event["content_block"]["type"] == "tool_use":
            block = event["content_block"]
            self._calls[number] = len(self._calls)
            self._waiting[number] = block.get("input") or {}
            yield self._chunk({"tool_calls": [{"index": self._calls[number], **_call(block["id"], block["name"], "")}]})
        elif kind == "content_block_delta":
            yield from self._delta(number, event["delta"])
        elif kind == "content_block_stop" and number in self._waiting:
            yield self._arguments(number, json.dumps(self._waiting.pop(number)))
        elif kind == "message_delta":
            self._usage |= {name: count for name, count in (event.get("usage") or {}).items() if count is not None}
            yield self._chunk({}, finish_of(event["delta"].get("stop_reason")))
        elif kind == "message_stop":
            self.ended = True
            if self._include_usage:
                yield _event({**self._head, "choices": [], "usage": usage_of(self._usage)})
            yield DONE
        elif kind == "error":
            said = (event.get("error") or {}).get("type", "error")
            raise aiohttp.ClientPayloadError(f"the service ended the stream: {said}")

    def _delta(self, number: int, delta: Json) -> Iterator[bytes]:
        if delta["type"] == "text_delta":
            yield self._chunk({"content": delta["text"]})
        elif delta["type"] == "thinking_delta":
            yield self._chunk({"reasoning_content": delta["thinking"]})
        elif delta["type"] == "input_json_delta" and delta["partial_json"]:
            self._waiting.pop(number, None)
            yield self._arguments(number, delta["partial_json"])

    def _arguments(self, number: int, text: str) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls[number], "function": {"arguments": text}}]})

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**self._head, "choices": [choice]})


MOST_LINE_BYTES = 16 << 20  # of an event


class ChatStream:
    """The answer of a streamed chat, made of a streamed message; also its own content."""

    status = 200
    content_type = "text/event-stream"

    def __init__(self, source: Content, *, include_usage: bool) -> None:
        self._source = source
        self._translator = StreamTranslator(include_usage=include_usage)
        self._held = b""
        self.headers: Mapping[str, str] = {"Content-Type": self.content_type}

    @property
    def content(self) -> ChatStream:
        """Return itself."""
        return self

    async def read(self) -> bytes:
        """Return all that is left of it."""
        parts = []
        while part := await self.readany():
            parts.append(part)
        return b"".join(parts)

    async def readany(self) -> bytes:
        """Return the next events; nothing at the end.

        Raises:
            aiohttp.ClientPayloadError: the stream ended early, with an error or without its last event, or is none of
            Anthropic's shape.
        """
        while not self._translator.ended:
            chunk = await self._source.readany()
            if not chunk:
                raise aiohttp.ClientPayloadError("the service closed the stream before its end")
            *lines, self._held = (self._held + chunk).split(b"\n")
            if len(self._held) > MOST_LINE_BYTES:
                raise aiohttp.ClientPayloadError("the service sent an event that does not end")
            try:
                events = [from_json(line[5:]) for line in lines if line.startswith(b"data:")]
                found = b"".join(part for event in events for part in self._translator.events(event))
            except NOT_ITS_SHAPE:
                raise aiohttp.ClientPayloadError("the service sent an event of another shape") from None
            if found:
                return found
        return b""


def _event(document: Json) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"
