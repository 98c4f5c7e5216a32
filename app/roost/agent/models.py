"""Models as the agent reaches them: through the OpenAI-compatible API of a gateway, with the key of whoever asks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

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
                listed = _List.model_validate_json(await answer.read())
        except ValidationError:
            raise RoostError("What answers is no gateway of Roost.", fix="Check ROOST_API.") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(error) from None
        return [entry.candidate() for entry in listed.data]

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        """Return the answer, told piece by piece to `hear`, which may end it.

        Raises:
            RoostError: the gateway does not answer, refuses, breaks off, or says what cannot be read.
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


class _Said(BaseModel):
    """Part of what a server says. It need not be one of ours: what has another form is refused as a whole."""

    model_config = ConfigDict(extra="ignore")


class _Details(_Said):
    cached_tokens: int | None = None


class _Usage(_Said):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    def taken(self) -> Usage:
        details = self.prompt_tokens_details
        cached = details.cached_tokens if details else 0
        return Usage(self.prompt_tokens or 0, self.completion_tokens or 0, cached or 0)


class _Function(_Said):
    name: str | None = None
    arguments: str | None = None


class _CallPart(_Said):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(_Said):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CallPart] | None = None


class _Choice(_Said):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Failure(_Said):
    message: str = ""


class _Event(_Said):
    """One document of a stream."""

    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: _Failure | str | None = None


class _About(_Said):
    slot: str | None = None
    context: int | None = None
    auto: bool = True
    can: list[str] | None = None


class _Listed(_Said):
    id: str
    roost: _About | None = None

    def candidate(self) -> Candidate:
        known = self.roost or _About()
        return Candidate(
            name=self.id, slot=known.slot or "", context=known.context or 0, auto=known.auto,
            generates=known.can is None or "generate" in known.can,
        )  # fmt: skip


class _List(_Said):
    data: list[_Listed]


async def _events(stream: aiohttp.StreamReader) -> AsyncIterator[_Event]:
    """Yield the documents of a stream of server-sent events.

    Raises:
        RoostError: it reports an error, cannot be read, or ends before its end mark.
    """
    while line := await _line(stream):
        if not line.startswith(DATA):
            continue
        data = line[len(DATA) :].strip()
        if data == DONE:
            return
        try:
            event = _Event.model_validate_json(data)
        except ValidationError:
            raise _unreadable() from None
        if event.error is not None:
            said = event.error if isinstance(event.error, str) else event.error.message
            raise RoostError(f"The answer broke off: {said}", fix="Ask again.")
        yield event
    raise RoostError("The answer broke off before its end.", fix="Ask again.")


async def _line(stream: aiohttp.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except (LineTooLong, ValueError):  # longer than any event is
        raise _unreadable() from None


def _unreadable() -> RoostError:
    return RoostError(
        "What the model's server says cannot be read.", fix="Ask another model, or see what `roost endpoints` lists."
    )


async def _collected(events: AsyncIterator[_Event], hear: Hear | None) -> dict[str, Any]:
    text: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, dict[str, str]] = {}
    finish = model = ""
    usage = Usage()
    async for event in events:
        model = event.model or model
        if event.usage:
            usage = event.usage.taken()
        for choice in event.choices or ():
            finish = choice.finish_reason or finish
            delta = choice.delta or _Delta()
            for piece, parts in ((delta.content, text), (delta.reasoning_content, reasoning)):
                if piece:
                    parts.append(piece)
                    if hear and not await hear(piece, parts is reasoning):
                        return {
                            "text": "".join(text),
                            "reasoning": "".join(reasoning),
                            "finish": "ended",
                            "usage": usage,
                        }
            for call in delta.tool_calls or ():
                kept = calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                function = call.function or _Function()
                kept["id"] += call.id or ""
                kept["name"] += function.name or ""
                kept["arguments"] += function.arguments or ""
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
