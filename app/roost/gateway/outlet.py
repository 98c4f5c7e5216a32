"""The way to a client, which may not block for ever: whoever stops reading gives up the slot that works for it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Message, Send


class StalledError(Exception):
    """The client took nothing for too long."""


class Outlet:
    """Sends, and ends the work within its context when one message could not be sent for `limit_s` seconds.

    One timer a request, not one a message.
    """

    def __init__(self, send: Send, limit_s: float) -> None:
        self._send = send
        self._limit_s = limit_s
        self._since: float | None = None
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, message: Message) -> None:
        """Send one message."""
        self._since = asyncio.get_running_loop().time()
        await self._send(message)
        self._since = None

    async def __aenter__(self) -> Outlet:
        """Begin to watch."""
        await self._scope.__aenter__()
        self._watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch.

        Raises:
            StalledError: the work was ended because the client did not read.
        """
        if self._timer:
            self._timer.cancel()
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise StalledError from None

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = (now if self._since is None else self._since) + self._limit_s
        if due <= now:
            self._scope.reschedule(now)
        else:
            self._timer = loop.call_at(due, self._watch)
