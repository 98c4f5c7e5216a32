"""Asking an ASGI application something on behalf of a request, without a socket in between."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope


async def ask(app: ASGIApp, scope: Scope, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, Headers, bytes]:
    """GET a path in the name of the client of `scope`; returns status, headers and body."""
    asked = {**scope, "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    parts: list[bytes] = []
    status, answered = 500, Headers()
    begun = False

    async def nothing() -> Message:
        nonlocal begun
        if begun:
            await asyncio.Event().wait()  # who asks is still there
        begun = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def take(message: Message) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status, answered = message["status"], Headers(raw=message.get("headers", []))
        else:
            parts.append(message.get("body", b""))

    await app(asked, nothing, take)
    return status, answered, b"".join(parts)
