"""A request ends when its client leaves or does not read, whichever server has the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope

from roost.gateway.connection.client import CLIENT, Client, is_whole, told_when_left
from roost.gateway.connection.fields import fields_of
from roost.gateway.connection.outlet import Outlet, Outlets, StalledError

BODY: Message = {"type": "http.response.body", "body": b"x"}


async def swallow(_message: Message) -> None:
    return


class Asked:
    """A server that is asked for what its client sends."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}


def our_own() -> tuple[Scope, Asked, Callable[[], None]]:
    client = Client()
    return {CLIENT: client}, Asked(), client.leave


def another() -> tuple[Scope, Asked, Callable[[], None]]:
    asked = Asked()
    return {}, asked, asked.left.set


@pytest.mark.parametrize("server", [our_own, another])
async def test_work_for_a_client_that_leaves_is_ended(
    server: Callable[[], tuple[Scope, Asked, Callable[[], None]]],
) -> None:
    scope, asked, leave = server()
    ended = False

    async def work() -> None:
        nonlocal ended
        async with asyncio.timeout(20), Outlet(swallow, Outlets(60)) as outlet:
            with told_when_left(scope, asked.receive, outlet.left):
                asyncio.get_running_loop().call_soon(leave)
                try:
                    await asyncio.Event().wait()
                finally:
                    ended = True

    with pytest.raises(ClientDisconnect):
        await work()
    assert ended


@pytest.mark.parametrize("server", [our_own, another])
async def test_who_leaves_afterwards_is_told_of_to_nobody(
    server: Callable[[], tuple[Scope, Asked, Callable[[], None]]],
) -> None:
    scope, asked, leave = server()
    told: list[str] = []
    with told_when_left(scope, asked.receive, lambda: told.append("left")):
        pass
    leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not told


async def test_who_has_left_before_is_told_of_at_once() -> None:
    scope, asked, leave = our_own()
    leave()

    async def work() -> None:
        async with asyncio.timeout(20), Outlet(swallow, Outlets(60)) as outlet:
            with told_when_left(scope, asked.receive, outlet.left):
                await asyncio.Event().wait()

    with pytest.raises(ClientDisconnect):
        await work()


async def test_who_does_not_read_ends_its_work_and_nobody_elses() -> None:
    outlets = Outlets(0.05)

    async def stuck(_message: Message) -> None:
        await asyncio.Event().wait()

    async def reads_slowly() -> None:
        async with Outlet(swallow, outlets) as outlet:
            for _ in range(10):
                await outlet(BODY)
                await asyncio.sleep(0.02)  # the model server's pace, not the client's

    async def does_not_read() -> None:
        async with Outlet(stuck, outlets) as outlet:
            await outlet(BODY)

    async with asyncio.timeout(20):
        results = await asyncio.gather(reads_slowly(), does_not_read(), does_not_read(), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), StalledError, StalledError]


async def test_what_goes_wrong_in_the_work_is_not_the_clients_fault() -> None:
    with pytest.raises(TimeoutError, match="of the work"):
        async with Outlet(swallow, Outlets(60)):
            raise TimeoutError("of the work")
    with pytest.raises(asyncio.CancelledError):
        async with Outlet(swallow, Outlets(60)):
            raise asyncio.CancelledError


def test_a_body_is_whole_only_if_the_connection_says_so() -> None:
    client = Client()
    assert not is_whole({})
    assert not is_whole({CLIENT: client})
    client.whole = True
    assert is_whole({CLIENT: client})


def test_of_a_field_that_came_twice_the_first_counts() -> None:
    scope: Scope = {"headers": [(b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"\xe9")]}
    assert dict(fields_of(scope)) == {"x-a": "1", "x-b": "\xe9"}
    assert fields_of(scope) is fields_of(scope)
