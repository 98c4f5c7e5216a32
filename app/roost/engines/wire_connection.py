"""A connection to a model server: its address, a request, and the answer as it comes. `wire.py` keeps them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote, urlsplit

import aiohttp
import httptools
from starlette.datastructures import Headers

MOST_HEAD_BYTES = 64 << 10  # of an answer's header
MOST_UNSORTED_BYTES = MOST_HEAD_BYTES + (1 << 20)  # that came and is neither a whole field nor a piece of a body
MOST_HELD_BYTES = 256 << 10  # of a stream that nobody has taken yet; then the server has to wait
MOST_ANSWER_BYTES = 128 << 20  # of an answer that is read whole: some thousand embeddings have half of that
CLOSED = "it closed the connection"


class NotConnectedError(aiohttp.ClientConnectionError):
    """There is no connection to the server; the text says what kind of failure it was."""


class BrokenAnswerError(aiohttp.ClientError):
    """What came is no whole answer; the text says what was the matter."""


@dataclass(frozen=True)
class Address:
    """Where a server is. `prefix` stands before every path; `tls` None: plain HTTP."""

    host: str
    port: int
    prefix: str = ""
    tls: ssl.SSLContext | bool | None = None

    @property
    def authority(self) -> str:
        """Return what the header Host says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 80 if self.tls is None else 443
        return host if self.port == usual else f"{host}:{self.port}"


def address_of(base_url: str, tls: ssl.SSLContext | bool = True) -> Address:
    """Return the address that a base URL names; `tls` is whom to trust if it is https, True the usual authorities.

    Raises:
        NotConnectedError: it names no host, or no port that could be one.
    """
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
        if host and not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError:  # a UnicodeError is one
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise NotConnectedError("its address is none of HTTP")
    safe = parts.scheme == "https"
    prefix = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    return Address(host, port or (443 if safe else 80), prefix, tls if safe else None)


class WireAnswer:
    """An answer as it comes; see `roost.engines.base.Answer`. It is its own content."""

    def __init__(self, status: int, head: list[tuple[bytes, bytes]], connection: Connection) -> None:
        self.status = status
        self.head = head
        self._connection = connection

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; case does not matter."""
        return Headers(raw=self.head)

    @property
    def content_type(self) -> str:
        """Return the media type without its parameters."""
        said = next((value for name, value in self.head if name == b"content-type"), b"")
        return said.decode("latin-1").partition(";")[0].strip().lower() or "application/octet-stream"

    @property
    def content(self) -> WireAnswer:
        """Return itself."""
        return self

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            BrokenAnswerError: it broke off, or is larger than MOST_ANSWER_BYTES.
        """
        return await self._connection.read()

    async def readany(self) -> bytes:
        """Return what has arrived, waiting for the first of it; nothing at the end.

        Raises:
            BrokenAnswerError: it broke off.
        """
        return await self._connection.readany()


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.closed = False
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False
        self._begin()

    def _begin(self) -> None:
        self._head: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._unsorted = 0
        self._answer: WireAnswer | None = None
        self._interim = False  # what comes is 100 Continue or the like
        self._until_close = False
        self._pieces: list[bytes] = []
        self._held = 0
        self._most_held = MOST_HELD_BYTES
        self._paused = False
        self._complete = False
        self._keep = False
        self._error: Exception | None = None

    # --- What the transport says ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not derived from it

    def data_received(self, data: bytes) -> None:
        """Parse; what nobody asked for ends the connection."""
        if not self._busy or self._complete:
            self.abort()
            return
        self._unsorted += len(data)  # a field counts before it is whole, and what follows the last piece, too
        if self._unsorted > MOST_UNSORTED_BYTES:
            self._fail(BrokenAnswerError("the header is too long"))
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(BrokenAnswerError("what it answered is no HTTP"))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self.closed = True
        if self._busy and not self._complete and self._error is None:
            if self._answer and self._until_close and exc is None:
                self._complete = True
                self._wake()
            else:
                self._fail(BrokenAnswerError(CLOSED))

    # --- What the parser says -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._complete:
            raise ValueError("nobody asked for this")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MOST_HEAD_BYTES:
            raise ValueError("the header is too long")
        self._head.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin the answer, unless it is one that only says that another will come."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim, self._head, self._head_bytes = True, [], 0
            return
        self._unsorted = 0
        framed = {b"content-length", b"transfer-encoding"}
        self._until_close = all(name not in framed for name, _ in self._head)
        self._answer = WireAnswer(status, self._head, self)
        self._wake()

    def on_body(self, body: bytes) -> None:
        """Take a piece."""
        self._unsorted = 0
        self._pieces.append(body)
        self._held += len(body)
        if self._held > self._most_held and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """Take note of the end."""
        if self._interim:
            self._interim = False
            return
        self._complete, self._keep = True, self._parser.should_keep_alive()
        self._wake()

    # --- What the request wants -----------------------------------------------------------------------------------

    async def ask(self, request: bytes) -> WireAnswer:
        """Send a request and return its answer once that has begun."""
        self._begin()
        self._busy = True
        self._transport.write(request)
        while self._answer is None:
            await self._more()
        return self._answer

    async def readany(self) -> bytes:
        """See `WireAnswer.readany`."""
        while not self._pieces:
            if self._complete:
                return b""
            await self._more()
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._held = [], 0
        self._resume()
        return found

    async def read(self) -> bytes:
        """See `WireAnswer.read`."""
        self._most_held = MOST_ANSWER_BYTES
        self._resume()
        while not self._complete:
            if self._held > MOST_ANSWER_BYTES:
                raise BrokenAnswerError(f"its answer is larger than {MOST_ANSWER_BYTES} bytes")
            await self._more()
        found, self._pieces, self._held = b"".join(self._pieces), [], 0
        return found

    async def _more(self) -> None:
        """Wait until something has happened."""
        if self._error:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self.closed:
                self._transport.resume_reading()

    @property
    def usable(self) -> bool:
        """Say whether a request can be sent: what the server closes is closing before it is closed."""
        return not self.closed and not self._transport.is_closing()

    @property
    def silent(self) -> bool:
        """Say whether it was closed before anything of an answer came."""
        return self.closed and self._answer is None and not self._unsorted

    def release(self) -> bool:
        """Say whether another request may follow; if not, or if the answer was not read to its end, hang up."""
        # what is not sent yet belongs to this request: the next one must not queue behind it, or be read as its rest
        unsent = self._transport.get_write_buffer_size()
        again = self._complete and self._keep and not self.closed and not self._transport.is_closing() and not unsent
        self._resume()
        self._busy = False
        self._begin()
        if not again:
            self.abort()
        return again

    def abort(self) -> None:
        """Hang up at once: a server that works for nobody notices."""
        self.closed = True
        self._transport.abort()
