"""When the texts that only removed conversations referred to go: as soon as none is in use, also over a restart."""

from __future__ import annotations

import asyncio

import structlog

from roost.agent.sessions.leftovers import IN_USE_S, sweep
from roost.agent.sessions.records import UnreadableError
from roost.agent.sessions.store import SessionStore
from roost.context.blobs import BlobStore

log = structlog.get_logger(__name__)
SWEEP_AFTER_S = 2.0
"""Many conversations are removed one after the other: their texts are looked through once."""


class Sweeper:
    """Looks through the conversations of owners who removed some. Used in one event loop."""

    def __init__(self, store: SessionStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._removed: set[str] = set()
        self._sweeping: dict[str, asyncio.Task[None]] = {}

    async def mark(self, owner: str) -> None:
        """Note on disk that an owner removes a conversation, for the process after this one."""
        self._removed.add(owner)
        try:
            await asyncio.to_thread(self._blobs.mark, owner)
        except OSError as error:  # a full disk keeps nobody from removing
            log.warning("texts_not_marked", reason=str(error))

    def soon(self, owner: str) -> None:
        """Have texts removed that only conversations which are gone referred to, as soon as none is in use."""
        self._removed.add(owner)
        if owner not in self._sweeping:
            self._sweeping[owner] = asyncio.create_task(self._sweep(owner))

    def all_marked(self) -> None:
        """Go on with what the process before did not come to."""
        try:
            for owner in self._blobs.marked():
                self.soon(owner)
        except OSError as error:
            log.warning("texts_not_removed", reason=str(error))

    async def done(self) -> None:
        """Wait until the texts of removed sessions are gone."""
        await asyncio.gather(*self._sweeping.values())

    def cancel(self) -> None:
        """End; the next process goes on, see `all_marked`."""
        for sweeping in self._sweeping.values():
            sweeping.cancel()

    async def _sweep(self, owner: str) -> None:
        """Look through an owner's conversations until none of the texts is left that nothing refers to."""
        wait_s = SWEEP_AFTER_S
        try:
            while True:
                await asyncio.sleep(wait_s)
                self._removed.discard(owner)
                try:
                    done = await asyncio.to_thread(sweep, self._store, self._blobs, owner)
                    log.info("texts_removed", texts=len(done.gone))
                    if done.again_s is None and owner not in self._removed:
                        self._blobs.unmark(owner)  # at once: nobody marks between the question and this
                        return
                    wait_s = SWEEP_AFTER_S if done.again_s is None else done.again_s
                except (OSError, UnreadableError) as error:
                    log.warning("texts_not_removed", reason=str(error))
                    wait_s = IN_USE_S
        finally:
            del self._sweeping[owner]
