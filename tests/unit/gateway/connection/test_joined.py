"""The head of an answer goes out with its body, and never later than it would without one."""

from __future__ import annotations

import asyncio

from roost.gateway.connection.joined import HeadWithBody


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_head_and_body_are_one_piece_and_the_rest_follows() -> None:
    wire = Wire()
    answer = HeadWithBody(wire)
    for piece in (b"head", b"one", b"two"):
        answer.write(piece)
    await asyncio.sleep(0)
    assert wire.sent == [b"headone", b"two"]


async def test_a_head_does_not_wait_for_a_body_that_is_not_there_yet() -> None:
    wire = Wire()
    answer = HeadWithBody(wire)
    answer.write(b"head")
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [b"head"]
    answer.write(b"one")
    assert wire.sent == [b"head", b"one"]


async def test_what_is_held_is_sent_before_the_connection_closes() -> None:
    wire = Wire()
    answer = HeadWithBody(wire)
    answer.write(b"head")
    answer.close()
    assert wire.sent == [b"head"]
    assert answer.is_closing()
    await asyncio.sleep(0)
    assert wire.sent == [b"head"]
