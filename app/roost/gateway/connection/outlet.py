"""The way to a client, which may not block for ever: whoever stops reading gives up the slot that works for it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.types import Message, Send


class StalledError(Exception):
    """The client took nothing for too long."""


class Outlets:
    """The outlets that are open, and one timer for all of them. `limit_s` is how long a message may take."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._open: set[Outlet] = set()
        self._timer: asyncio.TimerHandle | None = None

    def open(self, outlet: Outlet) -> None:
        """Watch an outlet."""
        self._open.add(outlet)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limit_s, self._look, loop)

    def close(self, outlet: Outlet) -> None:
        """Watch it no longer."""
        self._open.discard(outlet)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End those that are overdue, and look again when the next one can be."""
        now, self._timer = loop.time(), None
        overdue = [one for one in self._open if one.since is not None and one.since + self._limit_s <= now]
        for outlet in overdue:
            self._open.discard(outlet)
            outlet.stalled()
        if self._open:
            since = min(now if one.since is None else one.since for one in self._open)
            self._timer = loop.call_at(since + self._limit_s, self._look, loop)


class Outlet:
    """Sends, and ends the work within its context when the client leaves, or takes nothing for too long.

    There is one scope for both: this is on every request's path.
    """

    def __init__(self, send: Send, outlets: Outlets) -> None:
        self._send = send
        self._outlets = outlets
        self._scope = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._end: type[Exception] | None = None
        self.since: float | None = None  # when the message that is being sent was handed over

    async def __call__(self, message: Message) -> None:
        """Send one message."""
        self.since = self._loop.time()
        await self._send(message)
        self.since = None

    async def __aenter__(self) -> Outlet:
        """Begin to watch."""
        await self._scope.__aenter__()
        self._outlets.open(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch.

        Raises:
            ClientDisconnect: the work was ended because the client left.
            StalledError: it was ended because the client did not read.
        """
        self._outlets.close(self)
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise (self._end or StalledError) from None

    def left(self) -> None:
        """End the work: the client has left."""
        self._stop(ClientDisconnect)

    def stalled(self) -> None:
        """End the work: the client does not read."""
        self._stop(StalledError)

    def _stop(self, why: type[Exception]) -> None:
        if self._end is None:
            self._end = why
            self._scope.reschedule(self._loop.time())
