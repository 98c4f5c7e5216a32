"""How a hub in a process of its own reaches the API: over HTTP, at whichever gateway answers, like any client."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = structlog.get_logger(__name__)

# Of one connection, not of the message (https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1).
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
CONNECT_TIMEOUT_S = 3.0
KEEP_ALIVE_S = 4.0


class Forward:
    """ASGI application: sends each request on. One gateway that cannot be reached is left for the next."""

    def __init__(self, session: aiohttp.ClientSession, gateways: Sequence[str], max_body_bytes: int) -> None:
        self._session = session
        self._gateways = list(gateways)
        self._max_body_bytes = max_body_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the client leaving ends it at the gateway too."""
        if scope["type"] != "http":
            return
        body = await self._body(receive)
        if body is None:
            return
        if len(body) > self._max_body_bytes:
            await _error(413, "The request is too long.", "request_too_large")(scope, receive, send)
            return
        working = asyncio.ensure_future(self._somewhere(scope, body, receive, send))
        watching = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the body, or its beginning if it is too long; None if the client left."""
        parts: list[bytes] = []
        size = 0
        while size <= self._max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if not message.get("more_body"):
                break
        return b"".join(parts)

    async def _somewhere(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        for base in list(self._gateways):
            try:
                async with self._session.request(
                    scope["method"],
                    _target(base, scope),
                    data=body or None,
                    headers=_headers(scope),
                    timeout=self._timeout,
                    allow_redirects=False,
                ) as answer:
                    self._first(base)
                    await _relay(answer, send)
            except _BegunError as error:
                log.warning("gateway_broke_off", gateway=base, error=str(error))
                raise
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning("gateway_unreachable", gateway=base, error=str(error) or type(error).__name__)
            else:
                return
        await _error(503, "No gateway answers.", "gateway_unreachable")(scope, receive, send)

    def _first(self, base: str) -> None:
        """Ask the one that answered first of all next time."""
        if self._gateways[0] != base:
            self._gateways.remove(base)
            self._gateways.insert(0, base)


class _BegunError(ConnectionError):
    """The gateway broke off; the client already has a part, so nobody else can answer."""


async def _relay(answer: aiohttp.ClientResponse, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    try:
        while chunk := await answer.content.readany():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (aiohttp.ClientError, OSError) as error:
        raise _BegunError(str(error)) from None
    await send({"type": "http.response.body", "body": b""})


def _target(base: str, scope: Scope) -> str:
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return base + path.partition(b"?")[0].decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")


def _headers(scope: Scope) -> list[tuple[str, str]]:
    dropped = HOP_BY_HOP | {b"host", b"content-length"}
    return [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if name not in dropped
    ]


def _error(status: int, message: str, code: str) -> Response:
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return Response(json.dumps({"error": error}), status, {"retry-after": "1"}, media_type="application/json")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


@asynccontextmanager
async def gateway_session(ca: str | None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the session for all requests to gateways; `ca` is the file of the authority that vouches for them.

    Raises:
        OSError, ssl.SSLError: the file is missing, or holds no certificate.
    """
    context = ssl.create_default_context(cafile=ca) if ca else True
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=context)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        yield session
