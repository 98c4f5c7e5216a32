"""What a chat request must have before a model server sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from roost.gateway.errors import ApiError
from roost.gateway.shape import ShapeLimits, check_images, check_messages, check_schema

DEFAULT_LIMITS = ShapeLimits()


class Message(BaseModel):
    """One message; everything beyond its role is the model server's to judge."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1, max_length=64)


class ChatRequest(BaseModel):
    """The fields that the gateway itself looks at; all others pass untouched. Nesting ends at 200 levels."""

    model: str = Field(default="auto", min_length=1, max_length=256)
    messages: list[Message] = Field(min_length=1)
    stream: StrictBool | None = False
    tools: JsonValue = None
    response_format: JsonValue = None


@dataclass(frozen=True)
class ParsedRequest:
    """A checked request: the model's name as asked for, whether to stream, and the bytes as they came."""

    model: str
    stream: bool
    body: bytes

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


def parse_chat(body: bytes, limits: ShapeLimits = DEFAULT_LIMITS) -> ParsedRequest:
    """Check a body.

    Raises:
        ApiError: 400 with the first thing that is wrong and where.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, f"The body is not valid JSON: {first['msg']}.") from None
        where = ".".join(str(part) for part in first["loc"])
        message = f"{where}: {first['msg']}." if where else f"{first['msg']}."
        raise ApiError(400, message, param=where or None) from None
    check_messages(len(request.messages), limits)
    check_images(((message.model_extra or {}).get("content") for message in request.messages), limits)
    check_schema("tools", request.tools, limits)
    check_schema("response_format", request.response_format, limits)
    return ParsedRequest(model=request.model, stream=bool(request.stream), body=body)


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
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {timeout_s:.0f} s.") from None
