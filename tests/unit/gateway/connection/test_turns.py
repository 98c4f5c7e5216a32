"""What has arrived in answer to an old request goes before a new one; none is forgotten."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.connection.turns import Turns


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_first_begins_at_once_and_the_others_one_after_the_other() -> None:
    turns, begun = Turns(), list[int]()
    for number in range(4):
        turns.begin(partial(begun.append, number))
    assert begun == [0]
    await settled()
    assert begun == [0, 1, 2, 3]
    turns.begin(partial(begun.append, 4))
    assert begun == [0, 1, 2, 3, 4]


class Server(asyncio.Protocol):
    """The connection to a model server: who waits for its answer is woken."""

    def __init__(self) -> None:
        self.answered = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.answered.set_result(data)


def test_an_answer_that_arrives_while_one_begins_goes_before_the_next() -> None:
    """In the loop that the service has: only its look at the sockets shows the answer."""

    async def run() -> list[str]:
        loop, turns, order, tasks = asyncio.get_running_loop(), Turns(), list[str](), list[asyncio.Task[None]]()
        here, there = socket.socketpair()
        with there:
            transport, server = await loop.create_connection(Server, sock=here)

            async def answer() -> None:
                await server.answered
                order.append("answer")

            async def begin(name: str) -> None:
                order.append(name)
                if name == "first":
                    there.send(b".")

            def start(name: str) -> None:
                tasks.append(asyncio.create_task(begin(name)))

            waiting = asyncio.create_task(answer())
            await settled()
            for name in ("first", "second", "third"):
                turns.begin(partial(start, name))
            await waiting
            await settled()
            transport.close()
        return order

    assert uvloop.run(run()) == ["first", "answer", "second", "third"]


@given(st.lists(st.integers(0, 3), max_size=30))
def test_all_begin_in_their_order_whenever_they_come(pauses: list[int]) -> None:
    async def run() -> list[int]:
        turns, begun = Turns(), list[int]()
        for number, pause in enumerate(pauses):
            for _ in range(pause):
                await asyncio.sleep(0)
            turns.begin(partial(begun.append, number))
        for _ in range(3 * len(pauses)):
            await asyncio.sleep(0)
        return begun

    assert asyncio.run(run()) == list(range(len(pauses)))


async def test_one_that_fails_to_begin_does_not_hold_up_the_others() -> None:
    turns, begun = Turns(), list[int]()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))

    def fail() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        turns.begin(fail)
    turns.begin(fail)
    turns.begin(partial(begun.append, 2))
    await settled()
    assert begun == [2]
    assert [type(error) for error in told] == [ValueError]
