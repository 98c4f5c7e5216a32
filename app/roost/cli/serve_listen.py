"""Where a process of ours listens: addresses, sockets, servers. Beyond loopback nothing is served without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
import uvicorn
from starlette.types import ASGIApp

from roost.cli.serve_websocket import MOST_MESSAGE_BYTES, PING_S, PONG_S, websocket_protocol
from roost.gateway.connection.protocol import LAST_REQUEST_S, http_protocol
from roost.ops.certificate_end import end_of
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)
BACKLOG = 2048
CERTIFICATE_POLL_S = 10.0
HIGHEST_PORT = 65535
ARRIVING_POLL_S = 0.05
CUT_S = 3.0  # for what was cut after `drain_s` to end in order


class Listens(Protocol):
    """The settings of a process that listens."""

    @property
    def bind(self) -> str:
        """An address of loopback."""

    @property
    def port(self) -> int:
        """The port there."""

    @property
    def listen(self) -> str:
        """ADDR:PORT beyond loopback, or nothing."""

    @property
    def tls_cert(self) -> Path | None:
        """The certificate for it."""

    @property
    def tls_key(self) -> Path | None:
        """The certificate's key."""

    @property
    def header_timeout_s(self) -> float:
        """How long a connection may take to send a request's header."""

    @property
    def drain_s(self) -> float:
        """How long what runs may go on after a stop was asked for."""


def untold(_end: float) -> None:
    """Let nobody know."""


@dataclass(frozen=True)
class Listener:
    """An address to listen on, with TLS or without."""

    host: str
    port: int
    tls: bool


class Server(uvicorn.Server):
    """A server among several in one process: signals are the process's business, not each server's."""

    def __init__(self, config: uvicorn.Config, arriving: Collection[object]) -> None:
        super().__init__(config)
        self._arriving = arriving

    def stop(self) -> None:
        """Accept nothing more from this moment, and end when what was accepted has its answers.

        The sockets are closed, never shut down: another process may have them too.
        """
        self.should_exit = True
        for server in getattr(self, "servers", ()):  # none before it has started
            server.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; handshakes under way have their time first, since uvicorn knows nothing of them."""
        for _ in range(round(LAST_REQUEST_S / ARRIVING_POLL_S)):
            if self._arriving:
                await asyncio.sleep(ARRIVING_POLL_S)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone."""
        yield


def listeners(settings: Listens) -> list[Listener]:
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


class Certificate:
    """The certificate of a server: where its files are replaced it is loaded anew, and nothing has to be restarted.

    Connections that are open go on with the old one.
    """

    def __init__(self, context: ssl.SSLContext, cert: Path, key: Path) -> None:
        self._context, self._cert, self._key = context, cert, key
        self._complained = ""
        try:
            self._seen = self._look()
        except OSError:  # just being replaced: whatever lies there next is another one
            self._seen = ()

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = (path.stat() for path in (self._cert, self._key))
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)

    def refresh(self) -> bool:
        """Load the files if they are others now; return whether it did. While they cannot be used the old one stays."""
        try:
            seen = self._look()
            if seen == self._seen:
                return False
            # One that does not belong to its key would leave a server without any.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key)
            self._context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            if str(error) != self._complained:
                self._complained = str(error)
                log.warning("certificate_unusable", path=str(self._cert), error=self._complained)
            return False
        self._seen, self._complained = seen, ""
        log.info("certificate_renewed", path=str(self._cert))
        return True


async def keep_certificates(
    servers: Sequence[Server],
    settings: Listens,
    on_end: Callable[[float], None] = untold,
    *,
    every_s: float = CERTIFICATE_POLL_S,
) -> None:
    """Have servers with TLS use the certificate that lies in their files now; for ever.

    `on_end` is told when the one in use ends, in seconds since 1970: at once, and with each that takes its place.
    A fault of ours is logged and does not end it: nobody would notice before the certificate ran out.
    """
    if not (settings.tls_cert and settings.tls_key):
        return
    contexts = [server.config.ssl for server in servers if server.config.ssl is not None]
    found = [Certificate(context, settings.tls_cert, settings.tls_key) for context in contexts]
    if found:
        _tell_end(settings.tls_cert, on_end)
    while found:
        await asyncio.sleep(every_s)
        for certificate in found:
            try:
                if certificate.refresh():
                    _tell_end(settings.tls_cert, on_end)
            except Exception:
                log.critical("certificate_not_looked_at", path=str(settings.tls_cert), exc_info=True)


def _tell_end(cert: Path, on_end: Callable[[float], None]) -> None:
    try:
        on_end(end_of(cert.read_text()))
    except (OSError, ValueError) as error:  # it serves all the same
        log.warning("certificate_end_unknown", path=str(cert), error=str(error))


def make_server(app: ASGIApp, listener: Listener, settings: Listens, *, sockets: bool = False) -> Server:
    """Return the server of a listener; with `sockets` it speaks WebSocket, too.

    Raises:
        RoostError: its certificate cannot be used.
    """
    protocol = http_protocol(settings.header_timeout_s)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws=websocket_protocol() if sockets else "none",
        ws_max_size=MOST_MESSAGE_BYTES,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PONG_S,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_s + CUT_S),
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
    return Server(config, protocol.arriving)
