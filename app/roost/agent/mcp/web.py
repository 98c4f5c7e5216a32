"""A server at an address, by streamable HTTP: bounded answers, no redirect to elsewhere, no proxy to this machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp.client.streamable_http import streamable_http_client

MOST_BYTES = 16 << 20
"""Of one answer, or of what a stream of events brings until it is opened anew."""
CONNECT_S = 10.0
Streams = Any  # the package has no public name for the two ends of a transport


@asynccontextmanager
async def at_address(url: str, headers: Mapping[str, str], read_s: float) -> AsyncGenerator[Streams]:
    """Speak with the server at an address until the context ends."""
    here = (urlsplit(url).hostname or "") in {"localhost", "127.0.0.1", "::1"}
    limits = httpx2.Timeout(CONNECT_S, read=read_s)
    async with (
        httpx2.AsyncClient(
            headers=dict(headers), timeout=limits, trust_env=not here, transport=_Bounded(), follow_redirects=False
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MOST_BYTES) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncHTTPTransport):
    """Sends requests, and ends an answer that says too much."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Counted(response.stream)
        return response


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for block in self._stream:
            count += len(block)
            if count > MOST_BYTES:
                raise httpx2.ReadError(f"It said more than {MOST_BYTES:,} bytes.")
            yield block

    async def aclose(self) -> None:
        await self._stream.aclose()
