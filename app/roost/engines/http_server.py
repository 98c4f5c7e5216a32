"""What clients of all model servers over HTTP share: asking, sending, and what a failure to answer means."""

from __future__ import annotations

import asyncio
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

import aiohttp

from roost.engines.base import Answer, ModelReport, Report, Skill, State
from roost.engines.wire import Wire
from roost.engines.wire_connection import Address, address_of

HEALTH_TIMEOUT_S = 5.0
FAILURES_UNTIL_DOWN = 2
CONNECT_TIMEOUT_S = 3.0
NO_HTTP = "what answers at its address is no HTTP"
SILENT = "it accepts connections and does not answer"
NONE_ALLOWED = "it offers none of the models that it may offer here"
KEY_REFUSED = "it refuses the engine key"
MOST_PAGE_BYTES = 16 << 20  # of an answer to a question of our own: a list of models, what a prompt is in tokens
CONNECT_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)


async def read_page(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body of an answer to a question of our own.

    Raises:
        aiohttp.ClientPayloadError: it is longer than `most` bytes.
    """
    pieces, size = [], 0
    while piece := await answer.content.readany():
        size += len(piece)
        if size > most:
            raise aiohttp.ClientPayloadError(f"its answer is longer than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


class ProbeError(Exception):
    """The server answered what a healthy one does not answer."""


class StuckError(Exception):
    """The server takes requests and does not get on with them; the text says how that was seen."""


@dataclass
class WholeAnswer:
    """An answer that is there already; also its own content."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    @property
    def content(self) -> WholeAnswer:
        """Return itself."""
        return self

    async def read(self) -> bytes:
        """Return the body."""
        return self.body

    async def readany(self) -> bytes:
        """Return the body, once."""
        body, self.body = self.body, b""
        return body


@dataclass
class Pace:
    """How often and how long the expensive question is asked, in seconds."""

    canary_every_s: float = 30.0
    canary_timeout_s: float = 30.0
    stall_s: float = 300.0
    health_timeout_s: float = HEALTH_TIMEOUT_S


def best_first(models: Mapping[str, ModelReport]) -> tuple[str, ...]:
    """Return the names of a server's models: those that generate text first, and of them those that are warm."""
    return tuple(
        sorted(models, key=lambda n: (Skill.GENERATE in models[n].lacks, models[n].state is not State.READY, n))
    )


class HttpServer(ABC):
    """A model server that is spoken to over HTTP, with a bearer token if it has a key; see `Engine` for the methods.

    `tls` is the trust for its certificate, `allowed` the models that it may offer, all if empty. Requests of clients go
    by `wire`, our own questions by `session`. A subclass says in `look` how to ask the server what it is.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        key: Callable[[], str],
        pace: Pace | None = None,
        *,
        tls: ssl.SSLContext | bool = True,
        allowed: Collection[str] = (),
        wire: Wire | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._wire = wire or Wire()
        self._address: Address | None = None
        self._session = session
        self._key = key
        self._pace = pace or Pace()
        self._tls = tls
        self._allowed = frozenset(allowed)
        self._described: Report | None = None
        self._last_proof = float("-inf")
        self._failures = 0

    @property
    def base_url(self) -> str:
        """Return the address with scheme and port and without a trailing slash."""
        return self._base_url

    @property
    def pause_s(self) -> float:
        """Return 0: it is probed as often as the gateway likes."""
        return 0.0

    def headers(self) -> dict[str, str]:
        """Return the Authorization header, or nothing when no key is configured."""
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def send(self, path: str, body: bytes, limits: aiohttp.ClientTimeout) -> AbstractAsyncContextManager[Answer]:
        """Post a request as it is. A redirect is not followed: it would take the key and the prompt elsewhere."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **self.headers()}
        address = self._address = self._address or address_of(self._base_url, self._tls)
        return self._wire.post(address, path, body, headers, limits.sock_connect or CONNECT_TIMEOUT_S)

    def proved(self) -> None:
        """Note that the server has just produced something for a client."""
        self._last_proof = time.monotonic()

    @abstractmethod
    async def look(self, *, busy: bool) -> Report:
        """Ask the server how it is. Raises whatever the connection raises, `ProbeError`, `StuckError`, ValueError."""

    async def probe(self, *, busy: bool) -> Report:
        """Return the server's state; see `Engine.probe`. One failure of a server that was ready proves nothing yet."""
        try:
            report = self._only_allowed(await self.look(busy=busy))
        except (aiohttp.ClientConnectorError, ConnectionRefusedError) as error:
            report = Report(State.DOWN, reason=f"nothing answers there ({type(error).__name__})")
        except StuckError as error:
            self._failures = FAILURES_UNTIL_DOWN  # so that silence from now on is believed at once
            report = Report(State.DOWN, reason=str(error), stuck=True)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, ProbeError) as error:
            self._failures += 1
            if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
                error = ProbeError(NO_HTTP)  # what they say names the address, and reasons are open to all
            silent = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)
            reason = SILENT if silent else str(error) or type(error).__name__
            if self._described is not None and self._failures < FAILURES_UNTIL_DOWN:
                return self._described
            stuck = silent and self._failures >= FAILURES_UNTIL_DOWN
            report = Report(State.DOWN, reason=reason.splitlines()[0], stuck=stuck)
        if report.state is State.READY:
            self._failures = 0
        else:
            self._described = None
            self._last_proof = float("-inf")
        return report

    def _only_allowed(self, report: Report) -> Report:
        if not self._allowed or report.state is not State.READY:
            return report
        models = tuple(model for model in report.models if model in self._allowed)
        if not models:
            self._described = None
            raise ProbeError(NONE_ALLOWED)
        details = {name: detail for name, detail in report.details.items() if name in self._allowed}
        self._described = replace(report, models=models, details=details)
        return self._described

    async def count(self, path: str, body: bytes) -> int | None:
        """Return None: there is no way to have it counted."""
        del path, body
        return None

    def ignores(self, path: str) -> frozenset[str]:
        """Return nothing: what the server does not know it refuses."""
        del path
        return frozenset()

    async def save_slots(self) -> int:
        """Return 0: it has no slots that could be saved."""
        return 0

    async def restore_slots(self) -> int:
        """Return 0: it has no slots that could be restored."""
        return 0

    async def get(self, path: str, timeout_s: float | None = None) -> tuple[int, bytes]:
        """Return status and body of a question."""
        async with asyncio.timeout(timeout_s or self._pace.health_timeout_s):
            async with self._session.get(
                f"{self._base_url}{path}",
                headers=self.headers(),
                timeout=CONNECT_TIMEOUT,
                ssl=self._tls,
                allow_redirects=False,
            ) as answer:
                return answer.status, await read_page(answer, MOST_PAGE_BYTES)

    async def get_good(self, path: str) -> bytes:
        """Return the body of a question that has to be answered with 200.

        Raises:
            ProbeError: it was not.
        """
        status, body = await self.get(path)
        if status in (401, 403):
            raise ProbeError(KEY_REFUSED)
        if status != 200:
            raise ProbeError(f"its {path.partition('?')[0]} answered {status}")
        return body

    async def post(self, path: str, body: bytes, timeout_s: float | None = None) -> tuple[int, bytes]:
        """Return status and body of a short request of our own."""
        headers = {"Content-Type": "application/json", **self.headers()}
        async with asyncio.timeout(timeout_s or self._pace.health_timeout_s):
            async with self._session.post(
                f"{self._base_url}{path}",
                data=body,
                headers=headers,
                timeout=CONNECT_TIMEOUT,
                ssl=self._tls,
                allow_redirects=False,
            ) as answer:
                return answer.status, await read_page(answer, MOST_PAGE_BYTES)
