"""`roost serve`: the gateway and the web page in one process; also `python3 -m roost.cli.serve`.

Needs only requirements/agent.txt.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from roost.gateway.app import build, client_session, running
from roost.gateway.header_timeout import http_protocol
from roost.gateway.settings import Settings, load_settings
from roost.gateway.telemetry import configure
from roost.ops.errors import RoostError
from roost.web import pages

log = structlog.get_logger(__name__)

BACKLOG = 2048
HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Listener:
    """An address to listen on, with TLS or without."""

    host: str
    port: int
    tls: bool


class _Server(uvicorn.Server):
    """A server among several in one process: signals are the process's business, not each server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone."""
        yield


def listeners(settings: Settings) -> list[Listener]:
    """Return where to listen.

    Raises:
        RoostError: an address is not valid, or lies beyond loopback without TLS.
    """
    try:
        plain_address = ipaddress.ip_address(settings.bind)
    except ValueError:
        raise RoostError(
            f"ROOST_BIND is {settings.bind!r}, which is no IP address.", fix="Set it to 127.0.0.1."
        ) from None
    if not plain_address.is_loopback:
        raise RoostError(
            f"ROOST_BIND is {settings.bind}: beyond loopback nothing is served without TLS.",
            fix="Set ROOST_BIND to 127.0.0.1, and ROOST_LISTEN, ROOST_TLS_CERT and ROOST_TLS_KEY for the network.",
        )
    found = [Listener(settings.bind, settings.port, tls=False)]
    if not settings.listen:
        return found
    try:
        beyond = parse_listen(settings.listen)
    except ValueError:
        raise RoostError(
            f"ROOST_LISTEN is {settings.listen!r}, which is not ADDR:PORT.", fix="Write 192.0.2.7:8443, say."
        ) from None
    if not (settings.tls_cert and settings.tls_key):
        raise RoostError(
            f"ROOST_LISTEN is {settings.listen}, but beyond loopback nothing is served without TLS.",
            fix="Set ROOST_TLS_CERT and ROOST_TLS_KEY, or remove ROOST_LISTEN.",
        )
    return [*found, beyond]


def parse_listen(text: str) -> Listener:
    """Return the listener with TLS that `ADDR:PORT` means.

    Raises:
        ValueError: it is no address of that form, or no port.
    """
    host, _, port = text.rpartition(":")
    number = int(port)
    if not 0 <= number <= HIGHEST_PORT:
        raise ValueError(text)
    return Listener(str(ipaddress.ip_address(host.strip("[]"))), number, tls=True)


def open_socket(listener: Listener) -> socket.socket:
    """Bind and listen.

    Raises:
        RoostError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((listener.host, listener.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise RoostError(
            f"Cannot listen on {listener.host}:{listener.port}: {error.strerror}.",
            fix="Stop what uses the port, or choose another one.",
        ) from None
    sock.setblocking(False)
    return sock


def _server(app: ASGIApp, listener: Listener, settings: Settings) -> _Server:
    config = uvicorn.Config(
        app,
        http=http_protocol(settings.header_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(settings.drain_s),
        ssl_certfile=settings.tls_cert if listener.tls else None,
        ssl_keyfile=settings.tls_key if listener.tls else None,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise RoostError(
            f"The TLS certificate or its key cannot be used: {error}.",
            fix="Check the files that ROOST_TLS_CERT and ROOST_TLS_KEY name.",
        ) from None
    return _Server(config)


async def _run(settings: Settings) -> None:
    wanted = listeners(settings)
    sockets = [open_socket(listener) for listener in wanted]
    async with client_session() as session:
        gateway = build(settings, session, extra_routes=pages.routes(), open_paths=pages.OPEN_PATHS)
        servers = [_server(gateway.app, listener, settings) for listener in wanted]
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for server in servers:
                server.force_exit = server.should_exit  # asked twice: do not wait for streams
                server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        # Whoever runs this starts it anew: better than answers from what was true once.
        gateway.registry.when_failed(stop)
        for listener, sock in zip(wanted, sockets, strict=True):
            host, port = sock.getsockname()[:2]
            log.info("listening", host=host, port=port, tls=listener.tls)
        async with running(gateway, settings), asyncio.TaskGroup() as group:
            for server, sock in zip(servers, sockets, strict=True):
                group.create_task(server.serve(sockets=[sock]))
    if gateway.registry.fault:
        raise RoostError(f"{gateway.registry.fault} died.", fix="Start the service again; its log says what happened.")
    log.info("stopped")


def serve() -> None:
    """Run the agent service in the foreground; all settings come from ROOST_... environment variables.

    Raises:
        RoostError: a setting is wrong, an address cannot be listened on, or a background task died.
    """
    settings = load_settings()
    configure(settings.log_level)
    uvloop.run(_run(settings))


def main() -> None:
    """Entry of `python3 -m roost.cli.serve`: like `roost serve` without the rest of the command line."""
    try:
        serve()
    except RoostError as error:
        sys.stderr.write(f"roost serve: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
