"""What model servers know of their conversations survives them: saved before a stop, restored after a start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from roost.engines.base import SlotsError
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.metrics import Metrics

log = structlog.get_logger(__name__)


class SlotsKeeper:
    """Bounded in time, and harmless when it fails: then prompts are only computed anew.

    Only for servers whose job says `keeps_slots`: there the folder exists, and the architecture allows the reuse.
    """

    def __init__(self, metrics: Metrics, timeout_s: float) -> None:
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._draining: set[asyncio.Task[None]] = set()

    async def save(self, endpoint: Endpoint) -> None:
        """Save what the idle slots hold."""
        await self._do(endpoint, "saved", endpoint.engine.save_slots)

    async def restore(self, endpoint: Endpoint) -> None:
        """Restore what was saved, into slots that hold nothing yet."""
        await self._do(endpoint, "restored", endpoint.engine.restore_slots)

    def drain(self, endpoint: Endpoint) -> None:
        """Save the slots of a server that is no longer listed: it may live on for its shutdown delay."""
        if endpoint.member.keeps_slots:
            task = asyncio.create_task(self.save(endpoint), name=f"save slots of {endpoint.id}")
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def close(self) -> None:
        """End what still runs."""
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)

    async def _do(self, endpoint: Endpoint, action: str, work: Callable[[], Awaitable[int]]) -> None:
        if not endpoint.member.keeps_slots:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                tokens = await work()
        except (SlotsError, TimeoutError) as error:
            reason = str(error) or f"it took longer than {self._timeout_s:.0f} s"
            log.info("slots_failed", action=action, endpoint=endpoint.id, reason=reason)
            return
        if tokens:
            self._metrics.slot_tokens(endpoint.member.slot, action, tokens)
            log.info("slots", action=action, endpoint=endpoint.id, tokens=tokens)
