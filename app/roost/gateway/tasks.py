"""Tasks: those in the background do not die silently, and a request does not outlive its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Receive

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


async def unless_gone(receive: Receive, work: Awaitable[None]) -> None:
    """Run `work`, and cancel it when the client leaves.

    Raises:
        ClientDisconnect: the client left first.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
