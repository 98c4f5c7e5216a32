"""The client that takes requests to model servers, against a server that sends whatever bytes a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.engines import wire_connection as module
from roost.engines.wire import Wire
from roost.engines.wire_connection import Address, BrokenAnswerError, NotConnectedError, WireAnswer, address_of

HEADERS = {"Content-Type": "application/json"}
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Sent(asyncio.Transport):
    """A transport that sends all at once."""

    def write(self, data: object) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


@dataclass
class Server:
    """What the server saw."""

    address: Address
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


async def one_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(*answers: bytes | None, close: bool = False) -> AsyncIterator[tuple[Server, Wire]]:
    """Answer each request of a connection with the next bytes; None: say nothing more. `close`: hang up after each."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        left = list(answers)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                server.requests.append(await one_request(reader))
                answer = left.pop(0) if left else GOOD
                if answer is None:
                    break
                writer.write(answer)
                if close:
                    break
            if not close:
                await reader.read()
        server.hung_up.set()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server = Server(Address("127.0.0.1", listening.sockets[0].getsockname()[1]))
    wire = Wire()
    async with listening:
        try:
            yield server, wire
        finally:
            wire.close()


@asynccontextmanager
async def served_once(*, dies: bool = False) -> AsyncIterator[tuple[Server, Wire]]:
    """Answer one request of each connection, and close it at the next; `dies`: no other connection is taken then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            server.requests.append(await one_request(reader))
            writer.write(GOOD)
            server.requests.append(await one_request(reader))
            if dies:
                listening.close()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server = Server(Address("127.0.0.1", listening.sockets[0].getsockname()[1]))
    wire = Wire()
    try:
        yield server, wire
    finally:
        wire.close()
        listening.close()


@asynccontextmanager
async def asked(server: Server, wire: Wire, body: bytes = b"{}") -> AsyncIterator[WireAnswer]:
    async with asyncio.timeout(60), wire.post(server.address, "/v1/x", body, HEADERS, 5.0) as answer:
        yield answer


async def stream_of(answer: WireAnswer) -> bytes:
    found = b""
    while piece := await answer.readany():
        found += piece
    return found


async def test_a_request_arrives_as_it_was_and_its_connection_serves_the_next() -> None:
    async with serving() as (server, wire):
        for body in (b'{"a": 1}', b""):
            async with asked(server, wire, body) as answer:
                assert (answer.status, answer.content_type) == (200, "application/json")
                assert answer.headers["content-type"] == "application/json"
                assert await answer.read() == b"{}"
    assert server.connections == 1
    host = f"127.0.0.1:{server.address.port}".encode()
    assert server.requests[0] == (
        b"POST /v1/x HTTP/1.1\r\nHost: " + host + b"\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"
        b'{"a": 1}'
    )


async def test_requests_side_by_side_have_connections_of_their_own() -> None:
    async with serving() as (server, wire), asked(server, wire) as one, asked(server, wire) as other:
        assert await one.read() == await other.read() == b"{}"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("bytes_sent", "close", "body"),
    [
        (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", False, b"hello world"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, False, b"{}"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil it closes", True, b"until it closes"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, b""),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", True, b"{}"),
    ],
)
async def test_every_way_to_say_where_an_answer_ends(bytes_sent: bytes, *, close: bool, body: bytes) -> None:
    async with serving(bytes_sent, close=close) as (server, wire):
        async with asked(server, wire) as answer:
            assert await answer.read() == body
        async with asked(server, wire) as answer:
            assert await stream_of(answer) in (b"{}", body)


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        CHUNKED + b"5\r\nhel",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (module.MOST_HEAD_BYTES + 1) + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_what_is_no_whole_answer_is_none(bytes_sent: bytes) -> None:
    async with serving(bytes_sent, close=True) as (server, wire):
        with pytest.raises(BrokenAnswerError):
            async with asked(server, wire) as answer:
                await answer.read()


async def test_what_came_of_a_stream_before_it_broke_is_not_lost() -> None:
    async with serving(CHUNKED + b"5\r\nhello\r\n", close=True) as (server, wire), asked(server, wire) as answer:
        assert await answer.readany() == b"hello"
        with pytest.raises(BrokenAnswerError):
            await answer.readany()


async def test_who_leaves_before_the_end_hangs_up() -> None:
    async with serving(CHUNKED + b"5\r\nhello\r\n") as (server, wire):
        async with asked(server, wire) as answer:
            await answer.readany()
        async with asyncio.timeout(60):
            await server.hung_up.wait()


async def test_a_second_answer_is_not_taken_for_that_of_the_next_request() -> None:
    async with serving(GOOD + GOOD.replace(b"{}", b"[]")) as (server, wire):
        for _ in range(2):
            async with asked(server, wire) as answer:
                assert await answer.read() == b"{}"
    assert server.connections == 2


async def test_a_server_that_is_read_slowly_has_to_wait() -> None:
    said: list[str] = []

    class Transport(Sent):
        def pause_reading(self) -> None:
            said.append("wait")

        def resume_reading(self) -> None:
            said.append("go on")

    connection = module.Connection(Address("x", 1))
    connection.connection_made(Transport())
    asking = asyncio.ensure_future(connection.ask(b"x"))
    await asyncio.sleep(0)
    most = module.MOST_HELD_BYTES
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (3 * most) + b"x" * most)
    answer = await asking
    assert said == []
    connection.data_received(b"x" * most)
    assert said == ["wait"]
    assert len(await answer.readany()) == 2 * most
    assert said == ["wait", "go on"]
    connection.data_received(b"x" * most)
    assert len(await stream_of(answer)) == most
    assert connection.release()


async def test_much_more_than_is_held_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD_BYTES", 1000)
    body = bytes(range(256)) * 4096
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as (server, wire):
        async with asked(server, wire) as answer:
            assert await stream_of(answer) == body
        async with asked(server, wire) as answer:  # and the connection is as good as before
            assert await answer.read() == b"{}"
    assert server.connections == 1


async def test_an_answer_that_would_fill_the_memory_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANSWER_BYTES", 1000)
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000) as (server, wire):
        with pytest.raises(BrokenAnswerError, match="larger than 1000 bytes"):
            async with asked(server, wire) as answer:
                await answer.read()


async def test_a_connection_that_was_idle_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.engines.wire.KEEP_ALIVE_S", 0.05)
    async with serving() as (server, wire):
        async with asked(server, wire) as answer:
            await answer.read()
        async with asyncio.timeout(60):
            await server.hung_up.wait()
        async with asked(server, wire) as answer:
            await answer.read()
    assert server.connections == 2


async def test_a_request_that_meets_the_end_of_an_idle_connection_is_sent_on_a_new_one() -> None:
    async with served_once() as (server, wire):
        for _ in range(2):  # the second one is read, and its connection closed without a word
            async with asked(server, wire) as answer:
                assert await answer.read() == b"{}"
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_server_that_ends_at_a_request_has_closed_its_connection() -> None:
    async with served_once(dies=True) as (server, wire):
        async with asked(server, wire) as answer:
            await answer.read()
        with pytest.raises(BrokenAnswerError, match=module.CLOSED):
            async with asked(server, wire):
                pytest.fail("nobody answers")
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_request_that_a_new_connection_does_not_survive_is_not_sent_again() -> None:
    async with serving(None, close=True) as (server, wire):
        with pytest.raises(BrokenAnswerError, match=module.CLOSED):
            async with asked(server, wire):
                pytest.fail("nobody answers")
    assert len(server.requests) == 1


async def test_nobody_there() -> None:
    async with serving() as (server, wire):
        pass
    with pytest.raises(NotConnectedError, match="ConnectionRefusedError"):
        async with asked(server, wire):
            pytest.fail("nobody answers")


async def test_a_header_with_a_line_break_is_not_sent() -> None:
    async with serving() as (server, wire):
        with pytest.raises(NotConnectedError, match="line break"):
            wire.post(server.address, "/v1/x", b"", {"Authorization": "Bearer a\r\nX-Admin: yes"}, 5.0)
    assert not server.requests


@pytest.mark.parametrize(
    ("url", "host", "prefix", "tls"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "", None),
        ("https://models.example", "models.example", "", True),
        ("http://[::1]:9/a b/", "[::1]:9", "/a%20b", None),
        ("https://user:secret@models.example:443/api", "models.example", "/api", True),
    ],
)
def test_addresses(url: str, host: str, prefix: str, *, tls: bool | None) -> None:
    address = address_of(url)
    assert (address.authority, address.prefix, address.tls) == (host, prefix, tls)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:70000", "127.0.0.1:80"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(NotConnectedError):
        address_of(url)


@given(st.binary(max_size=200), st.lists(st.integers(1, 199), max_size=4))
def test_an_answer_is_the_same_however_its_bytes_come(body: bytes, cuts: list[int]) -> None:
    """A connection is given the bytes by hand, in any pieces."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:50], body[50:]) if part)
    sent = CHUNKED + chunks + b"0\r\n\r\n"

    class Transport(Sent):
        def abort(self) -> None:
            pytest.fail("it was hung up")

    async def read() -> bytes:
        connection = module.Connection(Address("x", 1))
        connection.connection_made(Transport())
        asking = asyncio.ensure_future(connection.ask(b"x"))
        await asyncio.sleep(0)
        at = 0
        for cut in [*sorted(cuts), len(sent)]:
            if piece := sent[at:cut]:
                connection.data_received(piece)
            at = max(at, cut)
        found = await (await asking).read()
        assert connection.release()
        return found

    assert asyncio.run(read()) == body


async def test_what_was_not_sent_whole_is_not_followed_by_another_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")  # and nothing of the body
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        await asyncio.Event().wait()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    async with listening:
        wire = Wire()
        address = Address("127.0.0.1", listening.sockets[0].getsockname()[1])
        async with wire.post(address, "/", b"x" * (30 << 20), HEADERS, 5) as answer:
            assert (answer.status, await answer.read()) == (413, b"{}")
        assert not wire._idle.get(address)
        wire.close()


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.1 200 OK\r\nX: ", CHUNKED + b"0\r\nX: ", CHUNKED + b"1;"],
)
async def test_a_field_that_never_ends_is_given_up(beginning: bytes) -> None:
    async with serving(beginning + b"a" * (4 << 20)) as (server, wire):
        with pytest.raises(BrokenAnswerError):
            async with wire.post(server.address, "/", b"{}", HEADERS, 5) as answer:
                await answer.read()


def test_names_in_other_letters_are_written_as_the_network_knows_them() -> None:
    assert address_of("http://m\u00fcller.example:81").host == "xn--mller-kva.example"
    with pytest.raises(NotConnectedError):
        address_of("http://" + "\u00fc" * 80 + ".example")


async def test_a_key_that_no_header_can_hold_is_no_fault_of_ours() -> None:
    async with serving() as (server, wire):
        with pytest.raises(NotConnectedError):
            async with wire.post(server.address, "/", b"{}", {"Authorization": "\udc80"}, 5):
                pass
