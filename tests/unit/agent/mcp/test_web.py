"""Servers at an address: what they send is bounded as it is and not as it was packed, and a proxy is honoured."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from roost.agent.mcp import web
from roost.agent.mcp.connection import Connection
from roost.agent.mcp.web import at_address
from roost.agent.tools.errors import ToolError

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@dataclass
class Answering:
    """A web server that answers everything alike, and notes the heads of what it was asked."""

    headers: str
    body: bytes
    heads: list[str] = field(default_factory=list)
    address: str = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n{self.headers}"
        try:
            writer.write(f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body)
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield


async def why_not(url: str) -> str:
    connection = Connection("far", lambda _ended: at_address(url, {}, 10))
    with pytest.raises(ToolError) as told:
        await connection.once()
    return str(told.value)


async def test_what_is_packed_is_refused_and_not_unpacked() -> None:
    packed = Answering("Content-Encoding: gzip\r\n", gzip.compress(b" " * (32 << 20)))
    async with packed.running():
        assert "packed (gzip)" in await why_not(f"{packed.address}/mcp")
    assert "accept-encoding: identity" in packed.heads[0].lower()


async def test_an_answer_that_is_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_BYTES", 100_000)
    plain = Answering("", b" " * 200_000)
    async with plain.running():
        assert "more than 100,000 bytes" in await why_not(f"{plain.address}/mcp")


async def test_a_server_elsewhere_is_reached_by_the_proxy_and_one_here_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, here = Answering("", b"{}"), Answering("", b"{}")
    async with proxy.running(), here.running():
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        await why_not("http://mcp.example/mcp")
        assert proxy.heads[0].startswith("POST http://mcp.example/mcp ")
        asked = len(proxy.heads)
        await why_not(f"{here.address}/mcp")
        assert len(proxy.heads) == asked
        assert here.heads
    monkeypatch.setenv("HTTP_PROXY", "ftp://proxy.example")
    assert "proxy" in await why_not("http://mcp.example/mcp")
