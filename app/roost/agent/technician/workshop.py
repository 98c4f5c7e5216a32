"""Where a user's jobs are worked on: one folder, one process at a time that drives them, any that looks and answers.

Every job that is under way is taken up by whoever drives, so work that a killed process left goes on at the next start.
A process that finds another one driving leaves the work to it, and takes over when that ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path

from roost.agent.technician.journal import Journal
from roost.agent.technician.technician import KIND, Technician
from roost.durable.driver import Driver, Next
from roost.ops.errors import RoostError

FOLDER_MODE = 0o700
JOBS = "jobs.sqlite"
LOCK = "lock"
CLOSE_S = 20.0


Ended = Callable[[], Coroutine[None, None, None]]
"""Closes what a technician worked with, in the loop that it worked in."""


class Drive:
    """Drives jobs in threads; `take_up` is called now and then, for jobs that came or were answered meanwhile."""

    def __init__(self, folder: Path, journal: Journal, technician: Technician, ended: Ended) -> None:
        self._journal = journal
        self._technician = technician
        self._ended = ended
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._guard = threading.Lock()
        self._driven: set[str] = set()
        self._closing = False
        self._fault: Exception | None = None
        self._driver = Driver(folder, {KIND: self._advance})

    def launch(self) -> None:
        """Start, and take up what is under way. Raises RoostError where the database cannot be used."""
        self._thread.start()
        # DBOS takes up its own at once: noted before, so that nothing is begun twice
        with self._guard:
            self._driven |= set(self._journal.under_way())
        self._driver.launch()
        self._driver.ensure(KIND, sorted(self._driven))

    def take_up(self) -> None:
        """Have jobs driven that are under way and are not driven."""
        for job in self._journal.under_way():
            with self._guard:
                if job in self._driven or self._closing:
                    continue
                self._driven.add(job)
            self._driver.start(KIND, job)

    def raise_fault(self) -> None:
        """Raise what kept a job from going on, if anything did: tried again at once it would go wrong again.

        Raises:
            RoostError: a disk or a database failed.
            Exception: something else did, as it came.
        """
        if isinstance(self._fault, OSError | sqlite3.Error):
            raise RoostError(
                f"The work cannot go on: {self._fault}.",
                fix="Nothing is lost. When that is put right, go on by `roost technician resume`.",
            ) from self._fault
        if self._fault:
            raise self._fault

    def close(self) -> None:
        """End: a call under way is cancelled, its job goes on at the next start."""
        self._closing = True
        with suppress(TimeoutError, CancelledError):
            asyncio.run_coroutine_threadsafe(_cancel_all(self._ended), self._loop).result(CLOSE_S)
        self._driver.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _advance(self, job: str) -> Next:
        if self._closing:
            return Next.REST
        try:
            said = asyncio.run_coroutine_threadsafe(self._technician.advance(job), self._loop).result()
        except (asyncio.CancelledError, CancelledError):
            said = Next.REST  # the process ends: the journal says where it was
        except Exception as error:  # noqa: BLE001 - the thread has nobody to raise to: `work_until` looks for it
            self._fault = error
            return Next.REST  # and stays with what is driven: taken up again it would be asked for ever
        if said == Next.REST:
            with self._guard:
                self._driven.discard(job)
        return said


async def _cancel_all(ended: Ended) -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await ended()


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Say whether this process may drive: no other one does. Held until the context ends, or the process."""
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def work_until(
    folder: Path,
    journal: Journal,
    technician_of: Callable[[], tuple[Technician, Ended]],
    rested: Callable[[], bool],
    pause: Callable[[], None],
) -> None:
    """Drive jobs, or have another process do it, until `rested`; `pause` waits a moment between two looks.

    Raises:
        RoostError: the databases cannot be used, or the disk is full.
    """
    while not rested():
        with alone(folder) as mine:
            if not mine:
                pause()
                continue
            drive = Drive(folder, journal, *technician_of())
            try:
                drive.launch()
                while not rested():
                    drive.take_up()
                    pause()
                    drive.raise_fault()
            finally:
                drive.close()
