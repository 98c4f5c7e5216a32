"""Connections as uvicorn serves them, with what it lacks: a time for the request header, and every client that leaves.

What comes after the header has limits of its own: the body `body_timeout_s`, the pause between two requests uvicorn's
`timeout_keep_alive`. A TLS handshake ends before a connection gets here, or is given up by asyncio after 60 s.

uvicorn closes what has no request when it ends. Here a connection that was accepted just before has its one answer: its
client would be told that nobody is there, though the next process is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakSet

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from roost.gateway.connection.client import CLIENT, Client
from roost.gateway.connection.joined import HeadWithBody
from roost.gateway.connection.turns import Turns

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application


LAST_REQUEST_S = 1.0  # what a connection without a request has for one when the server ends


def http_protocol(seconds: float) -> type[HeaderTimeoutProtocol]:
    """Return the protocol for uvicorn's setting `http`, one for each server."""

    class Protocol(HeaderTimeoutProtocol):
        header_timeout_s = seconds
        turns = Turns()
        arriving: ClassVar[WeakSet[HeaderTimeoutProtocol]] = WeakSet()

    return Protocol


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """One connection. Its clock runs from the first byte that no request in progress accounts for."""

    header_timeout_s = 0.0
    turns = Turns()
    arriving: ClassVar[WeakSet[HeaderTimeoutProtocol]] = WeakSet()
    """Accepted connections whose TLS handshake has not ended."""
    _ending = False
    _clock: asyncio.TimerHandle | None = None
    _cycles: Sequence[RequestResponseCycle] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # whatever uvicorn's takes
        super().__init__(*args, **kwargs)
        self.arriving.add(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's is
        self.arriving.discard(self)
        super().connection_made(transport)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # ends uvicorn's own clock of idle connections
        if self.transport.is_closing():  # what came was no HTTP
            self._left()
        if self.transport.get_protocol() is not self:  # it is a WebSocket now
            return
        if self._idle():
            self._start_clock()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._client = Client()
        cast("Scope", self.scope)[CLIENT] = self._client  # ASGI lets servers add keys

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._client.whole = True

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # uvicorn itself knows the last one only, and a client may send several ahead.
        cycles = (*self._cycles, self.cycle) if self.cycle else self._cycles  # none for a WebSocket
        self._cycles = [cycle for cycle in cycles if not cycle.response_complete]
        self._stop_clock()
        if self._ending and self.cycle:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        if self._idle():
            self._ending = True
            self.loop.call_later(LAST_REQUEST_S, self._close_if_idle)
        else:
            super().shutdown()

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._idle():
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.transport = HeadWithBody(cycle.transport)
        self.turns.begin(partial(super()._start_asgi_task, cycle, app))

    def eof_received(self) -> None:
        self._left()

    def _left(self) -> None:
        # The transport closes, and what a request in progress still wrote to it would be an error.
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                cast("Scope", cycle.scope)[CLIENT].leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._left()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        if self._clock is None and not self.transport.is_closing():  # more bytes buy no more time
            self._clock = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
