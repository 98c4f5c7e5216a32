"""A stuck model server is replaced: killed by Nomad and started anew, at a limited rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import structlog

from roost.engines.base import State
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.metrics import Metrics
from roost.gateway.task_api import NomadError

log = structlog.get_logger(__name__)

PAUSE_S = 60.0
HOUR_S = 3600.0
MOST_AN_HOUR = 6


class Replacer(Protocol):
    """Who ends an allocation and starts another one for it."""

    async def replace(self, allocation: str) -> None:
        """Replace it. Raises `NomadError`."""
        ...


def allowed(before: Sequence[float], now: float) -> bool:
    """Say whether a job may be restarted once more; `before` are the times of its restarts, in seconds, oldest first.

    A restart every minute at most and six an hour: a server that is stuck again and again needs a person.
    """
    return not before or (now - before[-1] >= PAUSE_S and sum(now - at < HOUR_S for at in before) < MOST_AN_HOUR)


class Restarter:
    """Watches what the probes say. A server that stays stuck for `after_s` seconds is replaced; 0 is never."""

    def __init__(self, replacer: Replacer | None, metrics: Metrics, after_s: float) -> None:
        self._replacer = replacer
        self._metrics = metrics
        self._after_s = after_s
        self._stuck_since: dict[str, float] = {}
        self._restarts: dict[str, list[float]] = {}
        self._limited: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()

    def probed(self, endpoint: Endpoint) -> None:
        """Take note of what a probe found, and act on it."""
        member, now = endpoint.member, time.monotonic()
        if not endpoint.report.stuck:
            if endpoint.report.state is State.READY:
                self._limited.discard(endpoint.id)
            self._stuck_since.pop(endpoint.id, None)
            return
        since = self._stuck_since.setdefault(endpoint.id, now)
        if self._replacer is None or not member.allocation or not self._after_s or now - since < self._after_s:
            return
        before = self._restarts.setdefault(member.job, [])
        if not allowed(before, now):
            if endpoint.id not in self._limited:
                self._limited.add(endpoint.id)
                self._metrics.restarted(member.slot, "limited")
                log.error(
                    "stuck_server_left", endpoint=endpoint.id, reason=endpoint.report.reason, restarts=len(before)
                )
            return
        before[:] = [*(at for at in before if now - at < HOUR_S), now]
        task = asyncio.create_task(self._replace(self._replacer, endpoint), name=f"replace {endpoint.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End what still runs."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _replace(self, replacer: Replacer, endpoint: Endpoint) -> None:
        member = endpoint.member
        log.warning(
            "stuck_server_replaced",
            endpoint=endpoint.id,
            allocation=member.allocation,
            reason=endpoint.report.reason,
        )
        try:
            await replacer.replace(member.allocation)
        except NomadError as error:
            self._metrics.restarted(member.slot, "refused")
            log.warning("stuck_server_not_replaced", endpoint=endpoint.id, reason=str(error))
        else:
            self._metrics.restarted(member.slot, "replaced")
