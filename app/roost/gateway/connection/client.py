"""The client of one request, as its connection knows it: whether all of its body has come, and whether it has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import Receive, Scope

CLIENT = "roost.client"  # where a request's scope holds it, if our own protocol serves the connection


class Client:
    """One object a request. Its protocol says what happens; one call at most is told when the client leaves."""

    __slots__ = ("_call", "left", "whole")

    def __init__(self) -> None:
        self.left = False
        self.whole = False  # the body is there
        self._call: Callable[[], None] | None = None

    def leave(self) -> None:
        """Take note that the client has left."""
        if not self.left:
            self.left = True
            if self._call:
                self._call()

    def when_left(self, call: Callable[[], None] | None) -> None:
        """Have `call` called once the client has left, at once if it has; None: nobody need be told any more."""
        self._call = call
        if call and self.left:
            call()


def is_whole(scope: Scope) -> bool:
    """Say whether the body of a request is known to have come."""
    client: Client | None = scope.get(CLIENT)
    return client is not None and client.whole


@contextmanager
def told_when_left(scope: Scope, receive: Receive, call: Callable[[], None]) -> Iterator[None]:
    """Have `call` called if the client leaves while the context is open; its body must have been received."""
    client: Client | None = scope.get(CLIENT)
    if client is not None:
        client.when_left(call)
        try:
            yield
        finally:
            client.when_left(None)
        return
    watching = asyncio.ensure_future(_gone(receive))  # another server: it is asked, which costs a task

    def stop(_watching: asyncio.Task[None]) -> None:
        call()

    watching.add_done_callback(stop)
    try:
        yield
    finally:
        watching.remove_done_callback(stop)
        watching.cancel()


async def _gone(receive: Receive) -> None:
    with suppress(Exception):  # a connection that cannot be read is gone too
        while (await receive())["type"] != "http.disconnect":
            continue
