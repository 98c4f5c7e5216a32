"""Keeps the account of every request: to the spool before its answer ends, to the ledger a little later.

The event loop only appends a line to a file (some 10 µs); syncing and sums are the work of one thread beside it. Memory
holds sums, not requests, so it stays the same whatever the load.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from roost.gateway import spool
from roost.gateway.ledger import Ledger, Position, Question
from roost.gateway.limits import Level, Spent
from roost.gateway.tasks import spawn
from roost.gateway.usage import DAYS_THAT_PROVE, Group, Sums, Use, day_of, forget_before, parse_use
from roost.ops.errors import RoostError

T = TypeVar("T")
log = structlog.get_logger(__name__)

DATABASE = "usage.db"
LOCK = "usage.lock"


@dataclass(frozen=True)
class Pace:
    """How often, in seconds, the spool is synced to the disk and absorbed into the ledger, and its size in bytes."""

    sync_s: float = 0.05
    absorb_s: float = 1.0
    spool_bytes: int = 4 << 20
    keep_days: int = 400


class Accountant:
    """Counts usage. `folder` None keeps all in memory only."""

    def __init__(
        self,
        folder: Path | None,
        pace: Pace,
        levels_of: Callable[[], Mapping[str, Level]],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._pace = pace
        self._levels_of = levels_of
        self._on_trouble = on_trouble
        self._thread = ThreadPoolExecutor(1, "usage")
        self._pending: dict[Group, Sums] = {}
        self._dirty = asyncio.Event()
        self._absorbing = asyncio.Lock()
        self._done: list[spool.Spool] = []  # old spools to be removed
        self._turned = False  # the day has changed, and the ledger was not asked since
        self._lock = _locked(folder) if folder else None
        try:
            self._ledger = _open_ledger(folder)
            self._spool = self._recover(folder) if folder else None
            self._spent_day = day_of(time.time())
            self._spent = self._ledger.spent(self._spent_day)
        except (OSError, sqlite3.Error) as error:
            raise RoostError(
                f"The folder of the state, {folder}, cannot be used: {error}.",
                fix="Make it writable for the agent's user, and see whether its disk is full (`df -h`).",
            ) from None

    # --- For the path of a request: quick, no waiting -------------------------------------------------------------

    def record(self, use: Use) -> None:
        """Count a request. When this returns, the end of the process no longer loses it."""
        if self._spool:
            try:
                self._spool.append(use.line())
            except OSError as error:
                self._trouble("spool", error)  # the sums still have it, and the ledger will once there is room
        self._pending.setdefault(Group(use.day, use.key, use.model), Sums()).add(use)
        self._spend(use)
        self._dirty.set()

    def spent(self, key: str) -> Spent:
        """Return what a key used in this UTC day and month."""
        today = day_of(time.time())
        if today != self._spent_day:
            self._turn_day(today)
        return self._spent.get(key, Spent())

    def _spend(self, use: Use) -> None:
        self.spent(use.key)  # turns the day if need be
        self._add(use.key, use.prompt + use.completion, use.cost, today=True)

    def _add(self, key: str, tokens: int, cost: float, *, today: bool) -> None:
        before = self._spent.get(key, Spent())
        self._spent[key] = Spent(
            before.tokens_day + tokens * today,
            before.tokens_month + tokens,
            before.cost_day + cost * today,
            before.cost_month + cost,
        )

    def _turn_day(self, today: str) -> None:
        month = today[:7] == self._spent_day[:7]
        self._spent = {
            key: Spent(0, old.tokens_month if month else 0, 0.0, old.cost_month if month else 0.0)
            for key, old in self._spent.items()
        }
        self._spent_day = today
        self._turned = True
        self._dirty.set()

    def kept_levels(self) -> tuple[Mapping[str, Level], float]:
        """Return the buckets' levels that were kept, and how many seconds ago."""
        levels, at = self._ledger.levels()
        return levels, time.time() - at

    # --- Beside it -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, on_death: Callable[[str], None]) -> AsyncIterator[None]:
        """Sync and absorb while the context is open; at its end all is in the ledger, and closed."""
        task = spawn(self._run(), "usage", on_death)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(sqlite3.Error):  # the spool has it all, and is read at the next start
                await self.absorb()
            await self._beside(self._close)
            self._thread.shutdown()

    async def ask(self, question: Question) -> list[tuple[dict[str, str], Sums]]:
        """Answer a question about usage, up to the newest request.

        Raises:
            sqlite3.Error: the database cannot be read or written.
        """
        if self._pending:  # a question alone costs no write
            await self.absorb()
        return await self._beside(lambda: self._ledger.ask(question))

    async def absorb(self) -> None:
        """Bring what is pending into the ledger.

        Raises:
            sqlite3.Error: the disk is full, or fails; then it stays pending.
        """
        async with self._absorbing:
            # No await up to here and there, so that the sums and the position in the spool say the same.
            batch, self._pending = self._pending, {}
            position = Position(self._spool.number, self._spool.size) if self._spool else Position(0, 0)
            levels = self._levels_of()
            self._turn_spool()
            today = day_of(time.time())
            written = False

            def write() -> None:
                nonlocal written
                newest = self._ledger.newest_days(today, DAYS_THAT_PROVE)
                self._ledger.absorb(batch, position, levels, forget_before(today, newest, self._pace.keep_days))
                written = True

            try:
                await self._beside(write)
            finally:
                if not written:
                    for group, sums in batch.items():
                        self._pending.setdefault(group, Sums()).merge(sums)
            done, self._done = self._done, []
            for old in done:
                await self._beside(old.remove)
            if self._turned:
                await self._read_spent()

    async def _read_spent(self) -> None:
        """Take what was used from the ledger after the day has changed: a clock may have been wrong and gone back."""
        day = self._spent_day
        spent = await self._beside(lambda: self._ledger.spent(day))
        if day != self._spent_day:
            return
        self._turned, self._spent = False, spent
        for group, sums in self._pending.items():
            if group.day[:7] == day[:7]:
                self._add(group.key, sums.prompt + sums.completion, sums.cost, today=group.day == day)

    def _turn_spool(self) -> None:
        """Begin another spool when this one is long; the old one goes once its content is in the ledger."""
        if self._spool is None or self._folder is None or self._spool.size < self._pace.spool_bytes:
            return
        try:
            fresh = spool.Spool(self._folder, self._spool.number + 1)
        except OSError as error:
            self._trouble("spool", error)
            return
        self._done.append(self._spool)
        self._spool = fresh

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        absorbed = loop.time() - self._pace.absorb_s
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await asyncio.sleep(self._pace.sync_s)
            try:
                if self._spool:
                    await self._beside(self._spool.sync)
                left = absorbed + self._pace.absorb_s - loop.time()
                if left <= 0:
                    await self.absorb()
                    absorbed = loop.time()
                elif not self._dirty.is_set():
                    loop.call_later(left, self._dirty.set)
            except (sqlite3.Error, OSError) as error:
                self._trouble("ledger", error)
                loop.call_later(self._pace.absorb_s, self._dirty.set)

    async def _beside(self, work: Callable[[], T]) -> T:
        """Have the thread do something. Who is cancelled meanwhile still waits: the thread cannot be stopped."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    def _trouble(self, where: str, error: Exception) -> None:
        self._on_trouble(where)
        log.error("usage_not_written", where=where, error=str(error))

    def _recover(self, folder: Path) -> spool.Spool:
        """Absorb what the spools hold beyond the ledger, remove them, and begin another one."""
        reached = self._ledger.position()
        found = spool.numbers(folder)
        sums: dict[Group, Sums] = {}
        for number in found:
            if number >= reached.spool:
                start = reached.position if number == reached.spool else 0
                for use in self._uses(spool.path_of(folder, number), start):
                    sums.setdefault(Group(use.day, use.key, use.model), Sums()).add(use)
        fresh = spool.Spool(folder, max([reached.spool, *found]) + 1)
        self._ledger.absorb(sums, Position(fresh.number, 0))
        for number in found:
            spool.path_of(folder, number).unlink(missing_ok=True)
        if sums:
            log.info("usage_recovered", requests=sum(each.requests for each in sums.values()))
        return fresh

    def _uses(self, path: Path, start: int) -> Iterator[Use]:
        for text in spool.read(path, start):
            try:
                yield parse_use(text)
            except (ValueError, TypeError) as error:
                self._trouble("spool", error)

    def _close(self) -> None:
        self._ledger.close()
        if self._spool:
            self._spool.close()
        if self._lock is not None:
            os.close(self._lock)


def _locked(folder: Path) -> int:
    """Take the folder for this process; returns the open lock.

    Raises:
        RoostError: another process has it, or it cannot be written.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RoostError(
            f"The folder of the state, {folder}, cannot be written: {error.strerror}.",
            fix="Make it, owned by the agent's user; `./bootstrap.sh` does.",
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise RoostError(
            f"Another agent uses the folder of the state, {folder}.", fix="Stop it, or set another ROOST_STATE_DIR."
        ) from None
    return handle


def _open_ledger(folder: Path | None) -> Ledger:
    """Open the database; one that is broken is put aside, usage begins anew, and the log says so."""
    if folder is None:
        return Ledger(None)
    path = folder / DATABASE
    try:
        return Ledger(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        aside = path.with_name(f"{DATABASE}.broken-{time.time_ns()}")
        log.critical("usage_database_broken", error=str(error), moved_to=str(aside))
        path.rename(aside)
        for more in ("-wal", "-shm"):
            path.with_name(DATABASE + more).unlink(missing_ok=True)
        return Ledger(path)
