"""Tasks: those in the background do not die silently, and a request does not outlive its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

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
    loop = asyncio.get_running_loop()
    watching = asyncio.ensure_future(_gone(receive))

    def stop(_watching: asyncio.Task[None]) -> None:
        scope.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as scope:  # and no task for the work: this is on every request's path
            watching.add_done_callback(stop)
            try:
                await work
            finally:
                watching.remove_done_callback(stop)
                watching.cancel()
    except TimeoutError:
        if scope.expired():
            raise ClientDisconnect from None
        raise


async def _gone(receive: Receive) -> None:
    with suppress(Exception):  # a connection that cannot be read is gone too
        while (await receive())["type"] != "http.disconnect":
            continue
