"""What a server that ends still does: whoever was accepted before it has an answer, whoever comes later waits."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from roost.cli.serve_listen import Listener, Server, make_server, open_socket
from roost.gateway.settings import Settings
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.net import eventually, free_port

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SOON_S = 20.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine be late."""
    for module in ("roost.gateway.connection.protocol", "roost.cli.serve_listen"):
        monkeypatch.setattr(f"{module}.LAST_REQUEST_S", SOON_S)


class Running:
    """A server at a socket of which this has a duplicate, as the keeper has."""

    def __init__(self, folder: Path, *, tls: bool) -> None:
        settings = Settings(tls_cert=folder / "api.pem", tls_key=folder / "api-key.pem")
        listener = Listener("127.0.0.1", free_port(), tls=tls)
        sock = open_socket(listener)
        self.kept = socket.socket(fileno=sock.dup().detach())
        self.kept.setblocking(False)
        self.port = listener.port
        self.server: Server = make_server(PlainTextResponse("answer"), listener, settings)
        self.task = asyncio.create_task(self.server.serve(sockets=[sock]))

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    async def stop(self) -> None:
        """Stop it, and wait until it has told its connections."""
        self.server.stop()
        connections = self.server.server_state.connections
        told = "roost.gateway.connection.protocol"
        await eventually(lambda: all(c._ending for c in connections), SOON_S, told)  # type: ignore[union-attr]


@pytest.fixture
async def running(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    ensure_pki(tmp_path, [LeafSpec("api", ("roost.test", "127.0.0.1"))])
    made = Running(tmp_path, tls=getattr(request, "param", False))
    await eventually(lambda: made.server.started, SOON_S, "the server")
    yield made
    made.kept.close()
    made.server.stop()
    await asyncio.wait_for(made.task, SOON_S)


async def whole(reader: asyncio.StreamReader) -> bytes:
    """Return all that comes until the server closes."""
    return await asyncio.wait_for(reader.read(), SOON_S)


async def test_who_was_just_accepted_has_an_answer(running: Running) -> None:
    reader, writer = await running.connect()
    await eventually(lambda: len(running.server.server_state.connections) == 1, SOON_S, "the connection")
    await running.stop()
    writer.write(REQUEST)
    answer = (await whole(reader)).lower()
    assert answer.startswith(b"http/1.1 200")
    assert b"connection: close" in answer
    await asyncio.wait_for(running.task, SOON_S)


async def test_who_asks_again_has_one_more(running: Running) -> None:
    reader, writer = await running.connect()
    writer.write(REQUEST)
    assert b"keep-alive" not in await reader.readuntil(b"answer")
    await running.stop()
    writer.write(REQUEST)
    assert b"connection: close" in (await whole(reader)).lower()


@pytest.mark.parametrize("running", [True], indirect=True)
async def test_a_handshake_under_way_is_waited_for(running: Running, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with socket.create_connection(("127.0.0.1", running.port)) as raw:
        raw.setblocking(False)
        await eventually(lambda: len(running.server._arriving) == 1, SOON_S, "the connection")
        running.server.stop()
        ended, _ = await asyncio.wait({running.task}, timeout=0.5)
        assert not ended
        reader, writer = await asyncio.open_connection(sock=raw, ssl=context, server_hostname="127.0.0.1")
        writer.write(REQUEST)
        assert b"answer" in await whole(reader)
    await asyncio.wait_for(running.task, SOON_S)


async def test_who_comes_later_waits_for_the_next_one(running: Running) -> None:
    running.server.stop()
    with socket.create_connection(("127.0.0.1", running.port)) as later:
        await asyncio.wait_for(running.task, SOON_S)
        later.sendall(REQUEST)
        accepted, _ = await asyncio.get_running_loop().sock_accept(running.kept)
        with accepted:
            accepted.settimeout(SOON_S)
            assert accepted.recv(1000) == REQUEST


async def test_who_says_nothing_does_not_hold_the_end_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.gateway.connection.protocol.LAST_REQUEST_S", 0.05)
    reader, _ = await running.connect()
    await eventually(lambda: len(running.server.server_state.connections) == 1, SOON_S, "the connection")
    running.server.stop()
    assert await whole(reader) == b""
    await asyncio.wait_for(running.task, SOON_S)
