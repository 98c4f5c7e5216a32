"""Serving until somebody asks for the end: once to let what runs finish, twice to cut it off."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog
from starlette.types import ASGIApp

from roost.cli.serve_handover import Opened, keep_with
from roost.cli.serve_listen import CUT_S, Listens, keep_certificates, make_server, untold
from roost.gateway.draining import Drain
from roost.gateway.telemetry import report_of_loop

log = structlog.get_logger(__name__)
LAST_S = 7.0  # for what is written down after the last request: accounts, the registry's state


class Stop:
    """What a signal does. The first closes the listeners and the idle connections, and gives the rest `drain_s`."""

    def __init__(self, drain: Drain, drain_s: float, close: Callable[[], None]) -> None:
        self._drain = drain
        self._drain_s = drain_s
        self._close = close
        self._asked = False

    def __call__(self) -> None:
        """Stop; asked again, do not wait any longer."""
        if self._asked:
            self._drain.cut()
            return
        self._asked = True
        self._close()
        asyncio.get_running_loop().call_later(self._drain_s, self._drain.cut)
        # What hangs then would hold up a machine that goes down: where it hangs is written down, and it ends.
        faulthandler.dump_traceback_later(self._drain_s + CUT_S + LAST_S, exit=True)
        log.info("stopping", requests=len(self._drain), drain_s=self._drain_s)


async def serve_until_stopped(
    app: ASGIApp,
    places: Sequence[Opened],
    settings: Listens,
    beside: Callable[[Callable[[], None]], AbstractAsyncContextManager[None]],
    let_go: Callable[[], None] = lambda: None,
    *,
    on_certificate_end: Callable[[float], None] = untold,
    sockets: bool = False,
    keeper: Path | None = None,
) -> None:
    """Serve `app` at open sockets until a signal. `beside(stop)` runs all the while, and ends after the last request.

    `let_go` is called when it comes: it ends requests that only wait for something. `sockets`: the application takes
    WebSockets, too. `keeper`: who keeps the open sockets for the successor of this process. `on_certificate_end`
    is told when the certificate in use ends, as `keep_certificates` has it.

    Raises:
        RoostError: a certificate cannot be used.
    """
    drain = Drain(app)
    servers = [make_server(drain, place.listener, settings, sockets=sockets) for place in places]

    def close() -> None:
        let_go()
        for server in servers:
            server.stop()

    stop = Stop(drain, settings.drain_s, close)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report_of_loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with beside(stop):
        for place in places:
            host, port = place.sock.getsockname()[:2]
            log.info("listening", host=host, port=port, tls=place.listener.tls, taken_over=place.taken_over)
        renewing = asyncio.create_task(keep_certificates(servers, settings, on_certificate_end))
        keeping = asyncio.create_task(keep_with(keeper, [place.sock for place in places]))
        try:
            async with asyncio.TaskGroup() as group:
                for server, place in zip(servers, places, strict=True):
                    group.create_task(server.serve(sockets=[place.sock]))
        finally:
            renewing.cancel()
            keeping.cancel()
        drain.cut()  # what the servers gave up
        await drain.quiet(CUT_S)  # its usage is counted before the account is closed
    faulthandler.cancel_dump_traceback_later()
    log.info("stopped")
