"""Closes connections that send no complete request header in time; uvicorn itself waits for one for ever.

What comes after the header has limits of its own: the body `body_timeout_s`, the pause between two requests uvicorn's
`timeout_keep_alive`. A TLS handshake ends before a connection gets here, or is given up by asyncio after 60 s.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def http_protocol(header_timeout_s: float) -> type[asyncio.Protocol]:
    """Return the protocol for uvicorn's setting `http`."""

    class HeaderTimeoutProtocol(HttpToolsProtocol):
        """One connection. Its clock runs from the first byte that no request in progress accounts for."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's is
            super().connection_made(transport)
            self._start_clock()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)  # ends uvicorn's own clock of idle connections
            if self.cycle is None or self.cycle.response_complete:
                self._start_clock()

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self._stop_clock()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            super().connection_lost(exc)

        def _start_clock(self) -> None:
            if self._clock is None and not self.transport.is_closing():  # more bytes buy no more time
                self._clock = self.loop.call_later(header_timeout_s, self.transport.close)

        def _stop_clock(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    return HeaderTimeoutProtocol
