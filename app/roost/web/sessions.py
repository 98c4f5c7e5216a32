"""Who is logged in: sessions by what is kept of their tokens, in memory and, over a restart, in a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from roost.ops.api_keys import digest_of
from roost.ops.files import write_atomic
from roost.web import sealing

log = structlog.get_logger(__name__)

FILE = "web-sessions.json"
LONGEST_S = 7 * 86400.0  # however busy a session is, after so long the key is asked for again
LOOK_S = 60.0  # the clock may be set while a session's end is waited for
SKEW_S = 300.0  # a clock that is set may go back by so much
MOST_OF_A_KEY = 20
MOST = 1000


class Session(BaseModel):
    """One login. Times are seconds since 1970; `name` is SHA-256 of the token, `digest` that of the key."""

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str
    sealed: str
    began: float
    expires: float


@dataclass(frozen=True)
class Opened:
    """A session whose token is at hand, with the API key in it."""

    session: Session
    token: str
    secret: str

    @property
    def form_token(self) -> str:
        """Return what the page must send beside the cookie to change anything."""
        return sealing.form_token_of(self.token)


class Kept(BaseModel):
    """What the file holds."""

    format: int = 1
    sessions: list[Session] = Field(default_factory=list)


class Sessions:
    """All sessions of a service; `folder` None keeps them in memory only. `last_s`: how long one lasts unused."""

    def __init__(self, folder: Path | None, last_s: float, clock: Callable[[], float] = time.time) -> None:
        self._file = folder / FILE if folder else None
        self._last_s = last_s
        self._clock = clock
        self._writing = asyncio.Lock()
        self._change = asyncio.Event()
        """Set, and replaced by another one, when sessions end: see `over`."""
        self._sessions = {session.name: session for session in self._read()}
        self._prune()

    async def begin(self, secret: str) -> Opened:
        """Begin a session for an API key that was just found good. The oldest one makes room where there are many."""
        self._prune()
        now, token = self._clock(), sealing.new_token()
        session = Session(
            name=sealing.name_of(token),
            digest=digest_of(secret),
            sealed=sealing.seal(token, secret),
            began=now,
            expires=now + min(self._last_s, LONGEST_S),
        )
        same = [other for other in self._sessions.values() if other.digest == session.digest]
        for old in (same[:1] if len(same) >= MOST_OF_A_KEY else []) or list(self._sessions.values())[: self._over()]:
            del self._sessions[old.name]
        self._sessions[session.name] = session
        self._tell()
        await self._write()
        return Opened(session, token, secret)

    def find(self, token: str) -> Opened | None:
        """Return the session that a token opens, unless it is over."""
        session = self._sessions.get(sealing.name_of(token))
        if session is None or not _holds(session, self._clock()):
            return None
        try:
            return Opened(session, token, sealing.unseal(token, session.sealed))
        except ValueError:
            log.warning("web_session_damaged")
            return None

    async def renew(self, opened: Opened) -> Opened:
        """Let a session last longer once half of its time is over, up to `LONGEST_S` since it began."""
        session, now = opened.session, self._clock()
        until = min(now + self._last_s, session.began + LONGEST_S)
        if session.expires - now > self._last_s / 2 or until <= session.expires:
            return opened
        longer = session.model_copy(update={"expires": until})
        if session.name in self._sessions:
            self._sessions[session.name] = longer
            await self._write()
        return Opened(longer, opened.token, opened.secret)

    def left_s(self, opened: Opened) -> int:
        """Return for how many seconds a session is still good."""
        return max(0, round(opened.session.expires - self._clock()))

    async def end(self, opened: Opened) -> None:
        """End one session."""
        if self._sessions.pop(opened.session.name, None):
            self._tell()
            await self._write()

    async def end_all_of(self, opened: Opened) -> int:
        """End every session of a session's key; return how many there were."""
        gone = [name for name, session in self._sessions.items() if session.digest == opened.session.digest]
        for name in gone:
            del self._sessions[name]
        if gone:
            self._tell()
            await self._write()
        return len(gone)

    async def over(self, opened: Opened) -> None:
        """Wait until a session is over, by whatever: a logout, its time, or newer ones that needed the room."""
        while held := self.find(opened.token):
            change = self._change
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self.left_s(held) + 0.5, LOOK_S)):
                    await change.wait()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return len(self._sessions)

    def _over(self) -> int:
        return max(0, len(self._sessions) + 1 - MOST)

    def _prune(self) -> None:
        now = self._clock()
        self._sessions = {name: session for name, session in self._sessions.items() if _holds(session, now)}

    def _read(self) -> list[Session]:
        if self._file is None:
            return []
        try:
            return TypeAdapter(Kept).validate_json(self._file.read_bytes()).sessions
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.warning("web_sessions_unreadable", path=str(self._file), error=type(error).__name__)
            return []

    async def _write(self) -> None:
        """Write the sessions down. Where that fails they live on in memory, and end with the process."""
        if self._file is None:
            return
        path = self._file
        async with self._writing:
            text = Kept(sessions=list(self._sessions.values())).model_dump_json()
            try:
                await asyncio.to_thread(write_atomic, path, text, mode=0o600)
            except OSError as error:
                log.warning("web_sessions_not_written", path=str(path), error=str(error))


def _holds(session: Session, now: float) -> bool:
    # One that began in the future was written under a wrong clock: nobody can say how long it would last.
    return session.began - SKEW_S <= now < session.expires
