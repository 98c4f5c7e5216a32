"""Connections without a complete request header are closed; slow bodies and slow answers are not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.gateway.connection.protocol import http_protocol
from tests.support.fakes import fake_engine
from tests.support.gateway import API_KEY, quick_settings, served, service, write_keys
from tests.support.net import eventually

HEADER_TIMEOUT_S = 0.6
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"model": "none", "messages": []}'


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("service")
    environment = {"ROOST_API_KEYS_FILE": str(write_keys(folder)), "ROOST_HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S)}
    with service(folder, environment) as running:
        yield running.port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def answer(connection: socket.socket) -> bytes:
    """Return one whole answer; its header and its body may come one after the other."""
    got = b""
    while b"\r\n\r\n" not in got or not got.endswith(b"}"):
        more = connection.recv(65536)
        assert more, got
        got += more
    return got


def until_closed(connection: socket.socket) -> tuple[bytes, float]:
    """Return what still came, and after how many seconds the other side closed."""
    began, got = time.monotonic(), b""
    while more := connection.recv(65536):
        got += more
    return got, time.monotonic() - began


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET", WHOLE[:-2]])
def test_a_connection_without_a_whole_header_is_closed(port: int, start: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(start)
        got, after_s = until_closed(connection)
    assert got == b""
    assert HEADER_TIMEOUT_S / 2 < after_s < 20


@pytest.mark.parametrize("start", [b"\r\n", b"GET"])
def test_so_is_one_that_was_answered_before(port: int, start: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(WHOLE)
        assert answer(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(start)
        assert until_closed(connection)[1] < 4.5  # an idle one is kept for 5 s


def test_a_header_byte_by_byte_buys_no_time(port: int) -> None:
    began = time.monotonic()
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        connection.settimeout(0.1)
        while time.monotonic() - began < 30:
            try:
                connection.sendall(b"x")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.monotonic() - began < 20


def test_a_slow_body_and_an_idle_connection_are_left_alone(port: int) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n"
    with connect(port) as slow, connect(port) as idle, connect(port) as silent:
        slow.sendall(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:5])
        idle.sendall(WHOLE)
        assert answer(idle).startswith(b"HTTP/1.1 200")
        until_closed(silent)
        with connect(port) as later:
            until_closed(later)  # opened after the others: their time would be over
        slow.sendall(BODY[5:])
        assert b" 40" in answer(slow).split(b"\r\n")[0]
        idle.sendall(WHOLE)
        assert answer(idle).startswith(b"HTTP/1.1 200")


async def test_a_client_that_leaves_is_noticed_by_every_request_that_it_sent_ahead(tmp_path: Path) -> None:
    async with fake_engine() as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, wait_s=60.0)
        async with served(settings, http=http_protocol(settings.header_timeout_s)) as gateway:
            await gateway.ready()
            engine.mode = "hang"
            port = int(gateway.url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            body = b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}]}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n"
            one = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            writer.write(one * 3)
            await eventually(lambda: len(engine.chats) == 1, 5, "the first of them")
            at_work = gateway.gateway.metrics.in_flight._value
            assert at_work.get() == 1
            writer.close()
            await eventually(lambda: at_work.get() == 0, 5, "the first to end")
