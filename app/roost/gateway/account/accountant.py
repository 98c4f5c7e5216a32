"""Keeps the account of every request: to the spool before its answer ends, to the ledger a little later.

The event loop only appends a line to a file (some 10 µs); syncing and sums are the work of one thread beside it. Memory
holds sums, not requests, so it stays the same whatever the load.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from roost.gateway.account import spool, state_folder
from roost.gateway.account.budget import Spent
from roost.gateway.account.ledger import Ledger, Position, Question, Strikes
from roost.gateway.account.limits import Level
from roost.gateway.account.state_folder import is_of_the_disk
from roost.gateway.account.usage import DAYS_THAT_PROVE, Group, Sums, Use, day_of, forget_before, parse_use
from roost.gateway.replicas.notes import MOST_ROWS, Row
from roost.gateway.tasks import spawn
from roost.ops.errors import RoostError

T = TypeVar("T")
log = structlog.get_logger(__name__)

MEND_EVERY_S = 5.0  # how often a folder that could not be used is tried again
NO_SPENT = Spent()
NO_LEVEL = Level(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Pace:
    """How often, in seconds, the spool is synced to the disk and absorbed into the ledger, and its size in bytes."""

    sync_s: float = 0.05
    absorb_s: float = 1.0
    spool_bytes: int = 4 << 20
    keep_days: int = 400


class Accountant:
    """Counts usage. `folder` None keeps all in memory only, and so does one whose disk is full until it has room.

    Of other replicas' usage it keeps a copy, so that sums and budgets are those of all, whichever is asked.
    """

    def __init__(
        self,
        folder: Path | None,
        pace: Pace,
        levels_of: Callable[[], Mapping[str, Level]],
        on_trouble: Callable[[str], None],
        strikes_of: Callable[[], Sequence[Strikes]] = tuple,
    ) -> None:
        """Open the folder and absorb what a process that was killed left in it.

        Raises:
            RoostError: another process uses the folder, or its permissions are wrong.
        """
        self._folder = folder
        self._pace = pace
        self._levels_of = levels_of
        self._strikes_of = strikes_of
        self._on_trouble = on_trouble
        self._thread = ThreadPoolExecutor(1, "usage")
        self._pending: dict[Group, Sums] = {}
        self._dirty = asyncio.Event()
        self._absorbing = asyncio.Lock()
        self._done: list[Callable[[], None]] = []  # removes old spools, once their content is in the ledger
        self._turned = False  # the day has changed, and the ledger was not asked since
        self.not_kept: dict[str, str] = {}  # what cannot be written now, and why
        self._late: dict[str, tuple[int, int]] = {}  # requests and tokens since the levels were kept, by key
        self._spool: spool.Spool | None = None
        self._next_spool = 1
        self._lock = state_folder.lock(folder) if folder else None
        self._in_memory = False  # though there is a folder
        self._spent_day = day_of(time.time())
        try:
            try:
                self._ledger = state_folder.open_ledger(folder)
            except (OSError, sqlite3.Error) as error:
                if folder is None or not is_of_the_disk(error):
                    raise
                self._trouble("folder", error)
                self._in_memory = True
                self._ledger = Ledger(None)
            else:
                if folder:
                    self._recover(folder)
            self._have = self._ledger.have()
            self._spent = self._ledger.spent(self._spent_day)
            for group, sums in self._pending.items():
                if group.day[:7] == self._spent_day[:7]:
                    tokens = sums.prompt + sums.completion
                    self._add(group.key, tokens, sums.cost, today=group.day == self._spent_day)
            self._elsewhere = self._ledger.spent(self._spent_day, elsewhere=True)
        except (OSError, sqlite3.Error) as error:
            if self._lock is not None:
                os.close(self._lock)
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
                self.not_kept.pop("spool", None)
            except OSError as error:
                self._trouble("spool", error)  # the sums still have it, and the ledger will once there is room
        self._pending.setdefault(Group(use.day, use.key, use.model), Sums()).add(use)
        self._spend(use)
        self._dirty.set()

    def spent(self, key: str) -> Spent:
        """Return what a key used in this UTC day and month, at all replicas as far as they were heard."""
        today = day_of(time.time())
        if today != self._spent_day:
            self._turn_day(today)
        here, there = self._spent.get(key, NO_SPENT), self._elsewhere.get(key)
        if there is None:
            return here
        return Spent(
            here.tokens_day + there.tokens_day,
            here.tokens_month + there.tokens_month,
            here.cost_day + there.cost_day,
            here.cost_month + there.cost_month,
        )

    def touch(self) -> None:
        """Have levels and strikes written down soon."""
        self._dirty.set()

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
        self._spent, self._elsewhere = (
            {
                key: Spent(0, old.tokens_month if month else 0, 0.0, old.cost_month if month else 0.0)
                for key, old in spent.items()
            }
            for spent in (self._spent, self._elsewhere)
        )
        self._spent_day = today
        self._turned = True
        self._dirty.set()

    def kept_levels(self) -> tuple[Mapping[str, Level], float]:
        """Return the buckets' levels that were kept, and how many seconds ago."""
        levels, at = self._ledger.levels()
        for key, (requests, tokens) in self._late.items():  # what a killed process counted after it kept the levels
            level = levels.get(key, NO_LEVEL)
            levels[key] = replace(level, requests=level.requests + requests, tokens=level.tokens + tokens)
        return levels, time.time() - at if at else 0.0

    def kept_strikes(self) -> list[Strikes]:
        """Return the strikes that were kept."""
        return self._ledger.strikes()

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
            position = self._position()
            levels, strikes = self._levels_of(), self._strikes_of()
            self._turn_spool()
            done = list(self._done)
            today = day_of(time.time())
            written = False

            def write() -> None:
                nonlocal written
                newest = self._ledger.newest_days(today, DAYS_THAT_PROVE)
                forgotten = forget_before(today, newest, self._pace.keep_days)
                self._ledger.absorb(batch, position, levels, forgotten, strikes)
                written = True

            try:
                await self._beside(write)
            finally:
                if not written:
                    for group, sums in batch.items():
                        self._pending.setdefault(group, Sums()).merge(sums)
            self._have[self._ledger.replica] = self._ledger.version
            self.not_kept.pop("ledger", None)
            del self._done[: len(done)]
            for remove in done:
                await self._beside(remove)
            if self._turned:
                await self._read_spent()

    def _position(self) -> Position:
        """Return how far the spools are in the sums: all of what was written, if nothing can be written now."""
        return Position(self._spool.number, self._spool.size) if self._spool else Position(self._next_spool, 0)

    async def _read_spent(self) -> None:
        """Take what was used from the ledger after the day has changed: a clock may have been wrong and gone back."""
        day = self._spent_day
        spent = await self._beside(lambda: self._ledger.spent(day))
        elsewhere = await self._beside(lambda: self._ledger.spent(day, elsewhere=True))
        if day != self._spent_day:
            return
        self._turned, self._spent, self._elsewhere = False, spent, elsewhere
        for group, sums in self._pending.items():
            if group.day[:7] == day[:7]:
                self._add(group.key, sums.prompt + sums.completion, sums.cost, today=group.day == day)

    def _turn_spool(self) -> None:
        """Begin another spool when this one is long, or there is none."""
        if self._folder is None or self._in_memory:
            return
        if self._spool and self._spool.size < self._pace.spool_bytes:
            return
        try:
            fresh = spool.Spool(self._folder, self._next_spool)
        except OSError as error:
            self._trouble("spool", error)
            return
        self._next_spool = fresh.number + 1
        self.not_kept.pop("spool", None)
        if self._spool:
            self._done.append(self._spool.remove)
        self._spool = fresh

    async def _mend(self, folder: Path) -> None:
        """Try a folder again that could not be used at the start, and bring there what was counted meanwhile."""
        async with self._absorbing:
            here = self._ledger
            try:
                found = await self._beside(lambda: state_folder.open_ledger(folder))
            except (OSError, sqlite3.Error) as error:
                self._trouble("folder", error)
                return
            for group, sums in (await self._beside(here.all)).items():
                self._pending.setdefault(group, Sums()).merge(sums)
            await self._beside(here.close)
            self._ledger, self._in_memory = found, False
            # What lies in old spools is rare then and short; the loop may wait for it.
            self._recover(folder)
            self._have = self._ledger.have()
            self.not_kept.pop("folder", None)
            self._turned = True
            log.info("usage_kept_again", folder=str(folder))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        absorbed = loop.time() - self._pace.absorb_s
        mended = loop.time()
        if self._pending:
            self._dirty.set()
        while True:
            if self._in_memory:
                loop.call_later(MEND_EVERY_S, self._dirty.set)
            await self._dirty.wait()
            self._dirty.clear()
            await asyncio.sleep(self._pace.sync_s)
            if self._in_memory and self._folder and loop.time() - mended >= MEND_EVERY_S:
                mended = loop.time()
                await self._mend(self._folder)
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
        self.not_kept[where] = str(error)
        log.error("usage_not_written", where=where, error=str(error))

    def _recover(self, folder: Path) -> None:
        """Absorb what the spools hold beyond the ledger, remove them, and begin another one.

        Where the disk is full, what they hold waits with what comes, and they stay.
        """
        reached = self._ledger.position()
        found = spool.numbers(folder)
        recovered = 0
        for number in found:
            if number >= reached.spool:
                start = reached.position if number == reached.spool else 0
                for use in self._uses(spool.path_of(folder, number), start):
                    self._pending.setdefault(Group(use.day, use.key, use.model), Sums()).add(use)
                    requests, tokens = self._late.get(use.key, (0, 0))
                    self._late[use.key] = (requests + 1, tokens + use.prompt + use.completion)
                    recovered += 1
        self._next_spool = max([reached.spool, *found]) + 1
        self._done += [partial(spool.path_of(folder, number).unlink, missing_ok=True) for number in found]
        self._turn_spool()
        if recovered:
            log.info("usage_recovered", requests=recovered)
        try:
            self._ledger.absorb(self._pending, self._position())
        except sqlite3.Error as error:
            if not is_of_the_disk(error):
                raise
            self._trouble("ledger", error)
            return
        self._pending = {}
        while self._done:
            self._done.pop()()

    # --- What replicas know of each other -------------------------------------------------------------------------

    @property
    def replica(self) -> str:
        """Return the name of the account that is kept here."""
        return self._ledger.replica

    @property
    def have(self) -> Mapping[str, int]:
        """Return up to which version the usage of which replica is here; of one in memory only nobody is told."""
        own = self._ledger.replica
        return {name: version for name, version in self._have.items() if name != own or not self._in_memory}

    async def rows_beyond(self, have: Mapping[str, int]) -> list[Row]:
        """Return usage that lies beyond what another replica has, at most what one note holds."""
        wanted = {name: have.get(name, 0) for name, version in self.have.items() if version > have.get(name, 0)}
        if not wanted:
            return []

        def read() -> list[Row]:
            rows: list[Row] = []
            for name, version in wanted.items():
                for newer, group, sums in self._ledger.beyond(name, version, MOST_ROWS - len(rows)):
                    day, key, model = group.day, group.key, group.model
                    rows.append(Row(replica=name, version=newer, day=day, key=key, model=model, sums=sums))
            return rows

        return await self._beside(read)

    async def take_rows(self, rows: Collection[Row]) -> bool:
        """Keep usage of other replicas; say whether it could be."""
        if not rows:
            return True
        day = self._spent_day

        def write() -> dict[str, Spent]:
            self._ledger.hear([(row.replica, row.version, row.group, row.sums) for row in rows])
            return self._ledger.spent(day, elsewhere=True)

        try:
            elsewhere = await self._beside(write)
        except sqlite3.Error as error:
            if "replicas" not in self.not_kept:
                self._trouble("replicas", error)
            return False
        self.not_kept.pop("replicas", None)
        for row in rows:
            if row.replica != self._ledger.replica:
                self._have[row.replica] = max(row.version, self._have.get(row.replica, 0))
        if day == self._spent_day:
            self._elsewhere = elsewhere
        return True

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
