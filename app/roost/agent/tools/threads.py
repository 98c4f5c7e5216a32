"""Work on files in threads. A thread cannot be ended: whoever is cancelled waits for its end, and says what it did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from roost.agent.tools.beneath import Beneath

T = TypeVar("T")


async def to_end(work: Callable[[], T], stop: Event | None = None) -> T:
    """Run work in a thread and return what came of it, also if this is cancelled meanwhile.

    Then `stop` is set: the work may end early by it, and says so by what it returns or raises. The task still knows
    that it was cancelled (`Task.cancelling`).
    """
    ended = asyncio.ensure_future(asyncio.to_thread(work))
    while not ended.done():
        try:
            await asyncio.wait({ended})
        except asyncio.CancelledError:
            if stop:
                stop.set()
    return ended.result()


async def reading(files: Beneath, work: Callable[[], T]) -> T:
    """Run work that changes nothing in a thread; when this is cancelled the walk through the files ends, too.

    Raises:
        asyncio.CancelledError: it was cancelled, after the end of the thread.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await to_end(work, files.stopped)
    finally:
        files.stopped.clear()
        if task and task.cancelling() > before:
            raise asyncio.CancelledError
