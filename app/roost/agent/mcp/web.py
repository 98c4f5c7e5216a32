"""A server at an address, by streamable HTTP: bounded answers, no redirect to elsewhere, no proxy to this machine.

Answers are not packed: a small one would become one of any size after its bytes were counted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp.client.streamable_http import streamable_http_client

from roost.agent.tools.errors import ToolError

MOST_BYTES = 16 << 20
"""Of one answer, or of what a stream of events brings until it is opened anew."""
CONNECT_S = 10.0
Streams = Any  # the package has no public name for the two ends of a transport


@asynccontextmanager
async def at_address(url: str, headers: Mapping[str, str], read_s: float) -> AsyncGenerator[Streams]:
    """Speak with the server at an address until the context ends.

    Raises:
        ToolError: the proxy that the environment names cannot be used.
    """
    here = (urlsplit(url).hostname or "") in {"localhost", "127.0.0.1", "::1"}
    kept = {name: value for name, value in headers.items() if name.lower() != "accept-encoding"}
    try:
        client = httpx2.AsyncClient(
            headers={**kept, "Accept-Encoding": "identity"}, timeout=httpx2.Timeout(CONNECT_S, read=read_s),
            trust_env=not here, event_hooks={"response": [_bound]}, follow_redirects=False,
        )  # fmt: skip
    except (ImportError, ValueError) as error:  # a scheme that is none, or SOCKS without its package
        raise ToolError(f"the proxy of the environment cannot be used: {error}") from None
    async with client, streamable_http_client(url, http_client=client, max_sse_event_size=MOST_BYTES) as streams:
        yield streams


async def _bound(response: httpx2.Response) -> None:
    """Have an answer end where it says too much; called before it is read."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"", "identity"}:
        raise httpx2.ReadError(f"Its answer is packed ({coding[:20]}), though it was asked not to.")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Counted(response.stream)


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
