"""Models as the agent reaches them: through the OpenAI-compatible API of a gateway, with the key of whoever asks."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
from pydantic import JsonValue

from roost.agent.delegation import Candidate
from roost.agent.tool import ToolSpec
from roost.context.messages import Call, Message, to_wire
from roost.ops.errors import RoostError

CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 180.0
DATA = b"data:"
DONE = b"[DONE]"


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer; `cached` of the prompt's needed no computing."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return both together."""
        return Usage(self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached)


@dataclass(frozen=True)
class Ask:
    """A question to a model. With `schema` the answer is JSON of that schema, held to it by the server's grammar."""

    model: str
    messages: Sequence[Message]
    max_tokens: int
    schema: dict[str, JsonValue] | None = None
    tools: Sequence[ToolSpec] = ()
    """Tools that the server's own parser is to find calls of, for models that were trained on its form."""
    temperature: float = 0.0
    session: str = ""
    """Conversations stay at the server that has read them: the gateway's stickiness goes by this."""


@dataclass(frozen=True)
class Reply:
    """An answer."""

    text: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    finish: str = ""
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0


Hear = Callable[[str, bool], Awaitable[bool]]
"""Told of each piece of an answer, and whether it is only thought; says whether to go on."""


class Models(Protocol):
    """Whoever answers."""

    async def candidates(self) -> list[Candidate]:
        """Return the models there are. Raises RoostError where they cannot be asked for."""
        ...

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        """Return the answer. Raises RoostError where there is none; cancelling ends it at the server."""
        ...


class ApiModels:
    """Models behind a gateway."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, key: str) -> None:
        self._session = session
        self._base = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)

    async def candidates(self) -> list[Candidate]:
        """Return the models that the key may use.

        Raises:
            RoostError: the gateway does not answer, or refuses.
        """
        try:
            async with self._session.get(
                self._base + MODELS_PATH, headers=self._headers, timeout=self._timeout
            ) as answer:
                await _refuse(answer)
                entries = (await answer.json())["data"]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            raise _unreachable(error) from None
        return [_candidate(entry) for entry in entries]

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        """Return the answer, told piece by piece to `hear`, which may end it.

        Raises:
            RoostError: the gateway does not answer, refuses, or breaks off.
        """
        body: dict[str, Any] = {
            "model": ask.model, "messages": to_wire(ask.messages), "max_tokens": ask.max_tokens,
            "temperature": ask.temperature, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if ask.session:
            body["user"] = ask.session
        if ask.tools:
            body["tools"] = [function_of(tool) for tool in ask.tools]
        if ask.schema is not None:
            body["response_format"] = {
                "type": "json_schema", "json_schema": {"name": "answer", "schema": ask.schema, "strict": True}
            }  # fmt: skip
        began = time.monotonic()
        try:
            async with self._session.post(
                self._base + CHAT_PATH, json=body, headers=self._headers, timeout=self._timeout
            ) as answer:
                await _refuse(answer)
                reply = await _collected(_events(answer.content), hear)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(error) from None
        return Reply(**{**reply, "seconds": time.monotonic() - began})


async def _events(stream: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Yield the documents of a stream of server-sent events.

    Raises:
        RoostError: it reports an error, or ends before its end mark.
    """
    async for line in stream:
        if not line.startswith(DATA):
            continue
        data = line[len(DATA) :].strip()
        if data == DONE:
            return
        document = json.loads(data)
        if "error" in document:
            raise RoostError(f"The answer broke off: {document['error'].get('message', '')}", fix="Ask again.")
        yield document
    raise RoostError("The answer broke off before its end.", fix="Ask again.")


async def _collected(events: AsyncIterator[dict[str, Any]], hear: Hear | None) -> dict[str, Any]:
    text: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, dict[str, str]] = {}
    finish = model = ""
    usage = Usage()
    async for event in events:
        model = event.get("model") or model
        if event.get("usage"):
            usage = _usage(event["usage"])
        for choice in event.get("choices", []):
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or {}
            for key, parts in (("content", text), ("reasoning_content", reasoning)):
                if piece := delta.get(key):
                    parts.append(piece)
                    if hear and not await hear(piece, key != "content"):
                        return {
                            "text": "".join(text),
                            "reasoning": "".join(reasoning),
                            "finish": "ended",
                            "usage": usage,
                        }
            for call in delta.get("tool_calls") or ():
                kept = calls.setdefault(call.get("index", 0), {"id": "", "name": "", "arguments": ""})
                function = call.get("function") or {}
                kept["id"] += call.get("id") or ""
                kept["name"] += function.get("name") or ""
                kept["arguments"] += function.get("arguments") or ""
    return {
        "text": "".join(text), "reasoning": "".join(reasoning), "finish": finish, "model": model, "usage": usage,
        "calls": tuple(Call(**call) for _, call in sorted(calls.items())),
    }  # fmt: skip


def function_of(tool: ToolSpec) -> dict[str, JsonValue]:
    """Return a tool as the API has it."""
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
    }


def _usage(said: dict[str, Any]) -> Usage:
    details = said.get("prompt_tokens_details") or {}
    return Usage(said.get("prompt_tokens") or 0, said.get("completion_tokens") or 0, details.get("cached_tokens") or 0)


def _candidate(entry: dict[str, Any]) -> Candidate:
    known = entry.get("roost") or {}
    can = known.get("can")
    return Candidate(
        name=entry["id"], slot=known.get("slot") or "", context=known.get("context") or 0,
        auto=known.get("auto", True), generates=can is None or "generate" in can,
    )  # fmt: skip


async def _refuse(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    try:
        said = str((await answer.json(content_type=None))["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = f"status {answer.status}"
    raise RoostError(f"No model answers: {said}", fix="See `roost models` and `roost status`.")


def _unreachable(error: Exception) -> RoostError:
    return RoostError(
        f"The gateway does not answer: {error or type(error).__name__}.", fix="See `roost status` and `roost doctor`."
    )
