"""A request as it came, checked, and as it goes on to a model server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from roost.gateway.connection.client import is_whole
from roost.gateway.errors import ApiError
from roost.gateway.request.bodies import Asked
from roost.gateway.request.kinds import CHAT, COMPLETIONS, RESPONSES, Kind
from roost.gateway.request.shape import LARGEST_NUMBERS, ShapeLimits, check_grammar, check_numbers, check_schema
from roost.ops.validation import place, problem

DEFAULT_LIMITS = ShapeLimits()
UNSET: tuple[object, ...] = (None, False, "", [], {})


@dataclass(frozen=True)
class ParsedRequest:
    """A checked request: its kind, the model's name as asked for, whether to stream, and the bytes as they came.

    `answer` is the longest answer that is wanted, in tokens, if the client says.
    """

    kind: Kind
    model: str
    stream: bool
    body: bytes
    answer: int | None = None
    grammar: bool = False  # whether it has one of its own

    def body_for(self, model: str, adapters: Sequence[str] = (), adapter: str = "") -> bytes:
        """Return the bytes to send on: as they came, but with `model` where the client asked for another name.

        To a server with `adapters` it is always said how strongly each applies: `adapter` fully, the others not at
        all. By itself llama-server (build 11669) applies all of them, `--lora-init-without-apply` or not. A client
        that sends `lora` itself, and asks for no adapter by name, gets what it says.

        Raises:
            ApiError: the document holds a number that JSON does not know.
        """
        if model == self.model and not adapters:
            return self.body
        try:
            document = from_json(self.body)
            if adapters and (adapter or "lora" not in document):
                scales = [1.0 if name == adapter else 0.0 for name in adapters]
                document["lora"] = [{"id": number, "scale": scale} for number, scale in enumerate(scales)]
            return json.dumps(document | {"model": model}, allow_nan=False).encode()
        except ValueError as error:
            raise ApiError(400, f"The body is not valid JSON: {error}.") from None

    def refuse(self, ignored: Collection[str]) -> None:
        """See that the request has none of the fields that the model server would ignore, or not set.

        Raises:
            ApiError: 400 with the first one.
        """
        if not any(name in self.body for name in _quoted(frozenset(ignored))):
            return
        document = from_json(self.body)
        for name in sorted(ignored):
            value = document.get(name)
            if value not in UNSET and not (value == 1 and value is not True):  # 1 is what such numbers are anyway
                message = f"{name}: the model server has no such thing, and would ignore it."
                raise ApiError(400, message, code="unsupported_parameter", param=name)

    def like(self) -> str:
        """Return the path of the kind of request that a body to be counted belongs to, by its field."""
        document = from_json(self.body)
        return next(kind.path for kind in (CHAT, RESPONSES, COMPLETIONS) if document.get(kind.prompt_field) is not None)


@lru_cache(64)  # there are a few kinds of model servers
def _quoted(names: frozenset[str]) -> tuple[bytes, ...]:
    return tuple(f'"{name}"'.encode() for name in names)


def parse(kind: Kind, body: bytes, limits: ShapeLimits = DEFAULT_LIMITS) -> ParsedRequest:
    """Check the body of a request of that kind.

    Raises:
        ApiError: 400 with the first thing that is wrong and where.
    """
    try:
        request: Asked = kind.shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, f"The body is not valid JSON: {first['msg']}.") from None
        where, said = place(first), problem(first)
        message = f"{where}: {said}." if where else f"{said[0].upper()}{said[1:]}."
        raise ApiError(400, message, param=where or None) from None
    check_schema("json_schema", request.json_schema, limits)
    check_grammar(request.grammar)
    check_numbers({name: getattr(request, name) for name in LARGEST_NUMBERS})
    request.check(limits)
    return ParsedRequest(
        kind, request.model, bool(request.stream), body, request.answer_tokens(), bool(request.grammar)
    )


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit} bytes.", code="request_too_large")


async def read_body(scope: Scope, receive: Receive, *, limit: int, timeout_s: float) -> bytes:
    """Receive a whole body of at most `limit` bytes within `timeout_s` seconds.

    Raises:
        ApiError: 413 too large, 408 too slow.
        ClientDisconnect: the client left.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    if is_whole(scope):
        return await _received(receive, limit)
    try:
        async with asyncio.timeout(timeout_s):
            return await _received(receive, limit)
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {timeout_s:.0f} s.") from None


async def _received(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
