"""Replicas talking to each other: each asks every other one again and again, and answers when it is asked."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiohttp
import structlog

from roost.engines.http_server import read_page
from roost.gateway.replicas.notes import MOST_BYTES, MOST_ROWS, Note, Row, parse_note
from roost.gateway.replicas.sharing import Sharing
from roost.gateway.secret_file import WatchedFile
from roost.gateway.tasks import spawn

log = structlog.get_logger(__name__)

EXCHANGE_PATH = "/roost/v1/replicas/exchange"
TIMEOUT_S = 1.0
LEAVE_S = 1.0
HURRY_S = 0.01  # between two exchanges with one replica, however urgent
FIRST_S = 2.0  # a start waits at most so long for the first answers


class Books(Protocol):
    """Where usage is kept, of this replica and of the others."""

    @property
    def have(self) -> Mapping[str, int]:
        """Up to which version whose usage is known here."""

    async def rows_beyond(self, have: Mapping[str, int]) -> list[Row]:
        """Return what is known here and lies beyond what somebody has, at most what a note holds."""

    async def take_rows(self, rows: Collection[Row]) -> bool:
        """Keep usage of other replicas; say whether that was done."""


class Transport(Protocol):
    """How a note reaches another replica."""

    async def tell(self, base_url: str, note: bytes) -> bytes:
        """Return the answer.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError, ValueError: there is none.
        """
        ...


class Replicas:
    """One object a service. `every_s` is how often every other replica is asked, in seconds."""

    def __init__(
        self, sharing: Sharing, books: Books, transport: Transport, every_s: float, own: Collection[str] = ()
    ) -> None:
        """Share with those that `sync` names; `own` are base URLs at which this one itself is found."""
        self._sharing = sharing
        self._books = books
        self._transport = transport
        self._every_s = every_s
        self._peers: dict[str, asyncio.Task[None]] = {}
        self._names: dict[str, str] = {}  # base URL -> replica, once it has answered
        self._selves: set[str] = set()
        self._own = frozenset(own)
        self._urgent: dict[str, asyncio.Event] = {}
        self._round = asyncio.Event()  # another one for every exchange
        self._tried: set[str] = set()
        self._known = asyncio.Event()
        self._on_death: Callable[[str], None] = lambda _name: None

    # --- Who they are ---------------------------------------------------------------------------------------------

    def sync(self, addresses: Collection[str]) -> None:
        """Take the complete list of replicas, by base URL; it may name this one."""
        wanted = set(addresses) - self._own
        self._selves |= set(addresses) & self._own
        for gone in self._peers.keys() - wanted:
            self._peers.pop(gone).cancel()
            self._names.pop(gone, None)
            self._selves.discard(gone)
        for url in wanted - self._peers.keys():
            self._urgent[url] = asyncio.Event()
            self._peers[url] = spawn(self._talk(url), f"replica {url}", self._on_death)
        self._expect()
        self._known.set()

    def seen(self) -> list[dict[str, object]]:
        """Return what is shown of all replicas, this one first."""
        urls = {name: url for url, name in self._names.items()}
        this: dict[str, object] = {"replica": self._sharing.replica, "state": "this"}
        this["url"] = min(self._selves, default=None)
        return [this, *({**row, "url": urls.get(str(row["replica"]))} for row in self._sharing.seen())]

    # --- While it runs --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, on_death: Callable[[str], None]) -> AsyncIterator[None]:
        """Talk while the context is open; at its end the others are told, and get what they lack of the usage."""
        self._on_death = on_death
        ticking = spawn(self._tick(), "replicas", on_death)
        try:
            yield
        finally:
            for task in (ticking, *self._peers.values()):
                task.cancel()
            await asyncio.gather(ticking, *self._peers.values(), return_exceptions=True)

    async def leave(self) -> None:
        """Tell the others that this one ends, with all usage that they lack."""
        urls = [url for url in self._peers if url in self._names and url not in self._selves]
        try:
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*(self._leave(url) for url in urls))
        except TimeoutError:
            log.warning("replica_left_unheard")

    async def first_answers(self) -> None:
        """Wait until every replica has answered or could not be reached, but not for long."""
        try:
            async with asyncio.timeout(FIRST_S):
                await self._known.wait()
                while not self._peers.keys() <= self._tried:
                    await self._round.wait()
        except TimeoutError:
            log.warning("replicas_unknown", waited_s=FIRST_S)

    def hurry(self) -> None:
        """Have the next exchanges take place at once."""
        for event in self._urgent.values():
            event.set()

    async def heard(self, timeout_s: float) -> None:
        """Wait for the next exchange, at once, and at most `timeout_s` seconds."""
        self.hurry()
        try:
            async with asyncio.timeout(timeout_s):
                await self._round.wait()
        except TimeoutError:
            pass

    async def answer(self, note: Note) -> Note:
        """Take another replica's note and return the answer to it."""
        if not self._sharing.is_self(note):
            self._sharing.hear(note)
            await self._books.take_rows(note.rows)
        reply, _ = self._sharing.note_for(note.replica)
        return await self._with_usage(reply, note.have)

    async def _with_usage(self, note: Note, have: Mapping[str, int] | None) -> Note:
        rows = [] if have is None else await self._books.rows_beyond(have)
        return note.model_copy(update={"have": dict(self._books.have), "rows": rows})

    async def _talk(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        complaint = ""
        while True:
            self._urgent[url].clear()
            began, more = loop.time(), False
            try:
                more = await self._exchange(url)
                complaint = ""
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                said = f"{type(error).__name__}: {error}"
                if said != complaint:
                    log.warning("replica_unreachable", url=url, error=said)
                    complaint = said
            self._tried.add(url)
            self._sharing.settle()
            self._turn()
            rest = max(HURRY_S, (HURRY_S if more else self._every_s) - (loop.time() - began))
            await asyncio.sleep(HURRY_S)
            if rest > HURRY_S:
                try:
                    async with asyncio.timeout(rest - HURRY_S):
                        await self._urgent[url].wait()
                except TimeoutError:
                    continue

    async def _exchange(self, url: str) -> bool:
        """Tell one replica and hear its answer; say whether there is more to be said at once."""
        if url in self._selves:
            return False
        name = self._names.get(url, "")
        note, sent = self._sharing.note_for(name)
        note = await self._with_usage(note, self._sharing.have(name))
        answer = parse_note(await self._transport.tell(url, note.model_dump_json().encode()))
        if self._sharing.is_self(answer):
            self._selves.add(url)
            self._expect()
            return False
        self._names[url] = answer.replica
        self._expect()
        # Another one than before may answer there; it was told too little then, and is told all the next time.
        self._sharing.hear(answer, sent if name in {"", answer.replica} else {})
        kept = await self._books.take_rows(answer.rows)
        return kept and MOST_ROWS in {len(answer.rows), len(note.rows)}

    async def _leave(self, url: str) -> None:
        name = self._names[url]
        note, _ = self._sharing.note_for(name, leaving=True)
        try:
            note = await self._with_usage(note, self._sharing.have(name))
            await self._transport.tell(url, note.model_dump_json().encode())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.warning("replica_left_unheard", url=url, error=f"{type(error).__name__}: {error}")

    def _expect(self) -> None:
        self._sharing.expect([url for url in self._peers if url not in self._names and url not in self._selves])
        self._sharing.settle()

    def _turn(self) -> None:
        done, self._round = self._round, asyncio.Event()
        done.set()

    async def _tick(self) -> None:
        """Notice that somebody is silent though nobody talks."""
        while True:
            await asyncio.sleep(self._every_s)
            self._sharing.settle()


class HttpTransport:
    """HTTP, with TLS beyond loopback: the peer's certificate must be `ca`'s and made out to `name` if that is given."""

    def __init__(self, session: aiohttp.ClientSession, key: WatchedFile[str], ca: Path | None, name: str) -> None:
        self._session = session
        self._key = key
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
        self._name = name or None

    async def tell(self, base_url: str, note: bytes) -> bytes:
        """Send a note and return the answer.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError, ValueError: there is none.
        """
        async with self._session.post(
            base_url + EXCHANGE_PATH,
            data=note,
            headers={"Authorization": f"Bearer {self._key.value()}", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            ssl=self._tls,
            server_hostname=self._name if base_url.startswith("https:") else None,
            allow_redirects=False,
        ) as answer:
            if answer.status != 200:
                raise ValueError(f"it answered {answer.status}")
            return await read_page(answer, MOST_BYTES)


def is_peer(key: str, given: str) -> bool:
    """Say whether a request brings the replicas' own key; takes the same time for every wrong one."""
    a, b = (hashlib.sha256(text.encode()).digest() for text in (key, given))
    return bool(key) and hmac.compare_digest(a, b)
