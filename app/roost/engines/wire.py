"""HTTP/1.1 to model servers on the path of every request: what the gateway needs of it, and no more.

aiohttp's client takes about 130 µs of a core for a request, this one about 30. Messages are parsed by httptools
(llhttp), as those of our own clients are. Redirects are not followed: they would take the key and the prompt elsewhere.
Errors are aiohttp's kinds, so that who talks to model servers has one list of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache

from roost.engines.wire_connection import Address, BrokenAnswerError, Connection, NotConnectedError, WireAnswer

# llama-server closes an idle connection after 5 s; one that is closed a little earlier is never lost to that.
KEEP_ALIVE_S = 4.0


class Wire:
    """The connections to all model servers. One object a service; `close` ends those that are idle.

    `trust` gives the authorities that are believed where an address says no others; `more` further header fields.
    """

    def __init__(
        self,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        more: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._trust = trust
        self._usual: ssl.SSLContext | None = None
        self._more = more
        self._idle: dict[Address, deque[Connection]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def post(self, address: Address, path: str, body: bytes, headers: Mapping[str, str], connect_s: float) -> Asked:
        """Return a context in which the answer to a POST can be read.

        Raises, when it is entered, and by what is read:
            NotConnectedError: there is no connection within `connect_s` seconds, or a header cannot be sent.
            BrokenAnswerError: what came is no whole answer.
        """
        head = _head(address, path, tuple(headers.items()))
        if more := self._more():
            head += _lines(tuple(more.items()))
        return Asked(self, address, b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body), connect_s)

    async def take(self, address: Address, connect_s: float) -> tuple[Connection, bool]:
        """Return an idle connection, or a new one, and whether it served others before."""
        idle = self._idle.get(address)
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        while idle:
            connection = idle.pop()  # the one that was used last
            if connection.usable and connection.idle_since > oldest:
                return connection, True
            connection.abort()
        return await self.connect(address, connect_s), False

    def give(self, connection: Connection) -> None:
        """Keep a connection for the next request for a while."""
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        idle = self._idle.get(connection.address)
        if idle is None:
            idle = self._idle[connection.address] = deque()
        idle.append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(KEEP_ALIVE_S, self._sweep, loop)

    def close(self) -> None:
        """Hang up wherever nothing is going on."""
        if self._sweeping:
            self._sweeping.cancel()
            self._sweeping = None
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        oldest = loop.time() - KEEP_ALIVE_S
        for address, idle in list(self._idle.items()):
            while idle and (idle[0].closed or idle[0].idle_since <= oldest):
                idle.popleft().abort()
            if not idle:
                del self._idle[address]
        first = min((idle[0].idle_since for idle in self._idle.values()), default=None)
        self._sweeping = None if first is None else loop.call_at(first + KEEP_ALIVE_S, self._sweep, loop)

    async def connect(self, address: Address, connect_s: float) -> Connection:
        """Return a new connection."""
        tls: ssl.SSLContext | None = None
        if address.tls is True:
            tls = self._usual = self._usual or self._trust()
        elif isinstance(address.tls, ssl.SSLContext):
            tls = address.tls
        try:
            async with asyncio.timeout(connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(address),
                    address.host,
                    address.port,
                    ssl=tls,
                    server_hostname=address.host.rstrip(".") if tls else None,
                )
        except (OSError, UnicodeError) as error:  # a TimeoutError is one, and what TLS has to say; no name of a host
            raise NotConnectedError(type(error).__name__) from error
        return connection


class Asked:
    """A request under way while the context is open."""

    def __init__(self, wire: Wire, address: Address, request: bytes, connect_s: float) -> None:
        self._wire = wire
        self._address = address
        self._request = request
        self._connect_s = connect_s

    async def __aenter__(self) -> WireAnswer:
        connection, used = await self._wire.take(self._address, self._connect_s)
        try:
            return await self._ask(connection)
        except BrokenAnswerError as error:
            if not used or not connection.silent:
                raise
            # It may have been closed for its idleness while the request was on its way (RFC 9112, 9.3.1). A server
            # that ended instead refuses a new connection, and what was said of the old one holds.
            try:
                connection = await self._wire.connect(self._address, self._connect_s)
            except NotConnectedError:
                raise error from None
            return await self._ask(connection)

    async def _ask(self, connection: Connection) -> WireAnswer:
        self._connection = connection
        try:
            return await connection.ask(self._request)
        except BaseException:
            connection.abort()
            raise

    async def __aexit__(self, *_error: object) -> None:
        if self._connection.release():
            self._wire.give(self._connection)


@lru_cache(256)  # an address, its paths, and the key that it has now
def _head(address: Address, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    return f"POST {address.prefix}{path} HTTP/1.1\r\nHost: {address.authority}\r\n".encode("ascii") + _lines(headers)


def _lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    text = "".join(f"{name}: {value}\r\n" for name, value in headers)
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise NotConnectedError("its key has a line break in it")
    try:
        return text.encode()
    except UnicodeError:
        raise NotConnectedError("its key holds what no header can") from None
