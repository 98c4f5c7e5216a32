"""Tasks in the background do not die silently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

log = structlog.get_logger(__name__)


def spawn(work: Coroutine[None, None, None], name: str, on_death: Callable[[str], None]) -> asyncio.Task[None]:
    """Run `work` beside everything else; if it fails, log it and call `on_death` with its name."""

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.critical("task_died", task=name, exc_info=error)
            on_death(name)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(report)
    return task
