"""Keeps the models warm that are used: starts a cold one that somebody asks for, stops what is idle or in its way.

What to do is decided in `fleet/warmth.py`; here is what is known, and what is done about it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from roost.engines.base import State
from roost.fleet.warmth import NEVER, ROOM, ModelUse, decide
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.metrics import Metrics
from roost.gateway.registry import Registry
from roost.gateway.task_api import NomadError
from roost.gateway.warm.planned import Planned

log = structlog.get_logger(__name__)

TICK_S = 1.0
RETRY_FIRST_S = 5.0
RETRY_MOST_S = 120.0
SEEN_WITHIN_S = 15.0


class Operator(Protocol):
    """Who starts and stops model servers."""

    async def scale(self, job: str, count: int, why: str) -> None:
        """Set how many servers of a job run. Raises `NomadError`."""
        ...


@dataclass
class _Use:
    """What is remembered of one job, in seconds of the monotonic clock."""

    last_used: float
    used_here: float = NEVER  # by this gateway, whose endpoints may be gone
    wanted_since: float | None = None
    wanted_until: float = 0.0
    not_before: float = 0.0
    failures: int = 0
    asked_at: float | None = None  # we have asked Nomad for it, and it has not said yet that it is wanted
    begun: bool = False  # it was started by us and has not been ready since
    leave_until: float = 0.0  # Nomad refused to stop it
    stopped_at: float = NEVER  # Nomad took our stop
    warm_since: float = NEVER  # our newest start, then when it was ready after that


@dataclass(frozen=True)
class Policy:
    """Memory in bytes by pool, after how many idle seconds a model is stopped (0 is never), and for how many seconds a
    warm one is not stopped for another's sake."""

    pools: Mapping[str, int] = field(default_factory=dict)
    idle_stop_s: float = 0.0
    min_stay_s: float = 0.0


class Keeper:
    """One object a service. Without an `operator` nothing is started or stopped."""

    def __init__(
        self,
        registry: Registry,
        operator: Operator | None,
        save: Callable[[Endpoint], Awaitable[None]],
        metrics: Metrics,
        policy: Policy,
    ) -> None:
        self._registry = registry
        self._operator = operator
        self._save = save
        self._metrics = metrics
        self._policy = policy
        self._uses: dict[str, _Use] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._poke = asyncio.Event()
        # How many seconds ago another gateway used a job's model, 0 while it does; None: none ever did.
        self.used_elsewhere: Callable[[str], float | None] | None = None

    def use_ages(self) -> dict[str, float]:
        """Return by job how many seconds ago this gateway used its model, 0 while it does."""
        now = time.monotonic()
        ages = {}
        for job, use in self._uses.items():
            endpoints = self._registry.of_job(job)
            last = max([use.used_here, *(endpoint.last_used for endpoint in endpoints)])
            if any(endpoint.in_flight for endpoint in endpoints):
                ages[job] = 0.0
            elif last > NEVER:
                ages[job] = max(0.001, now - last)
        return ages

    def want(self, job: str, for_s: float) -> None:
        """Note that somebody asks for a model that is cold, and will go on doing so for that long."""
        now = time.monotonic()
        use = self._use(job, now)
        if use.wanted_since is None:
            log.info("model_wanted", job=job)
            use.wanted_since = now
        use.wanted_until = max(use.wanted_until, now + for_s)
        self._poke.set()

    async def run(self) -> None:
        """Decide and act until cancelled: after each change, and once a second."""
        try:
            while True:
                await self._round()
                try:
                    async with asyncio.timeout(TICK_S):
                        await self._poke.wait()
                except TimeoutError:
                    continue
                finally:
                    self._poke.clear()
        finally:
            for task in self._stops.values():
                task.cancel()
            await asyncio.gather(*self._stops.values(), return_exceptions=True)

    def poke(self) -> None:
        """Decide again at once."""
        self._poke.set()

    async def _round(self) -> None:
        operator, now = self._operator, time.monotonic()
        planned = self._registry.planned()
        self._stops = {job: task for job, task in self._stops.items() if not task.done()}
        models = [self._model(job, now) for job in planned.values()]
        policy = self._policy
        found = decide(models, policy.pools, now=now, idle_stop_s=policy.idle_stop_s, min_stay_s=policy.min_stay_s)
        self._registry.note(found.waiting)
        if operator is None:
            return
        for job, why in found.stop.items():
            if self._registry.close_job(job):
                self._stops[job] = asyncio.create_task(self._stop(operator, planned[job], why))
        for job in found.start:
            await self._start(operator, planned[job])

    def _use(self, job: str, now: float) -> _Use:
        return self._uses.setdefault(job, _Use(last_used=now))

    def _model(self, planned: Planned, now: float) -> ModelUse:
        use = self._use(planned.job, now)
        endpoints = self._registry.of_job(planned.job)
        ready = any(endpoint.report.state is State.READY for endpoint in endpoints) and planned.wanted > 0
        busy = any(endpoint.in_flight for endpoint in endpoints)
        use.used_here = max([use.used_here, *(endpoint.last_used for endpoint in endpoints)])
        elsewhere = self.used_elsewhere(planned.job) if self.used_elsewhere else None
        if elsewhere is not None:
            busy = busy or elsewhere == 0.0
            use.last_used = max(use.last_used, now - elsewhere)
        use.last_used = max(use.last_used, use.used_here)
        if planned.wanted:
            use.asked_at = None
        elif use.begun and (use.asked_at is None or now - use.asked_at > SEEN_WITHIN_S):
            self._failed(use, planned.job, "Nomad went back to the version before", now)
        closed = self._registry.is_closed(planned.job) and planned.job not in self._stops
        if closed and now - use.stopped_at > SEEN_WITHIN_S:  # somebody else, perhaps a playbook, has started it again
            log.warning("model_runs_on", job=planned.job)
            self._registry.open_job(planned.job)
        loads = planned.wanted > 0 and any(e.report.state is State.LOADING for e in endpoints)
        if busy or loads or (ready and use.wanted_since is not None):
            use.last_used = now  # what loads was wanted by somebody: its idle time begins when it is ready
        if ready and use.begun:
            use.warm_since = now
        if ready:
            use.begun, use.failures, use.not_before = False, 0, 0.0
        if ready or use.wanted_until < now:
            use.wanted_since = None
        return ModelUse(
            planned.job,
            planned.said.memory,
            holds=use.asked_at is not None or planned.wanted > 0 or planned.running > 0,
            stopping=self._registry.is_closed(planned.job) or (planned.wanted == 0 and planned.running > 0),
            wanted_since=None if planned.stopped else use.wanted_since,
            last_used=use.last_used,
            busy=busy or now < use.leave_until,
            keep_warm=planned.said.keep_warm,
            not_before=use.not_before,
            warm_since=use.warm_since,
        )

    def _failed(self, use: _Use, job: str, why: str, now: float) -> None:
        use.asked_at, use.begun = None, False
        use.failures += 1
        use.not_before = now + min(RETRY_FIRST_S * 2 ** (use.failures - 1), RETRY_MOST_S)
        log.warning("model_start_failed", job=job, reason=why, failures=use.failures)

    async def _start(self, operator: Operator, planned: Planned) -> None:
        job, use = planned.job, self._uses[planned.job]
        use.asked_at = use.last_used = use.warm_since = time.monotonic()
        use.begun = True
        try:
            await operator.scale(job, 1, "Roost: somebody asks for this model")
        except NomadError as error:
            self._failed(use, job, str(error), time.monotonic())
            return
        self._metrics.started(planned.slot)
        log.info("model_started", job=job)

    async def _stop(self, operator: Operator, planned: Planned, why: str) -> None:
        """Save what its slots hold, then stop it; it gets no requests meanwhile."""
        job = planned.job
        self._uses[job].begun = False
        for endpoint in self._registry.of_job(job):
            await self._save(endpoint)
        try:
            await operator.scale(job, 0, f"Roost: {why}")
        except NomadError as error:
            log.warning("model_not_stopped", job=job, reason=str(error))
            self._uses[job].leave_until = time.monotonic() + RETRY_FIRST_S
            self._registry.open_job(job)
            return
        self._uses[job].stopped_at = time.monotonic()
        self._metrics.stopped(planned.slot, "room" if why.endswith(ROOM.format("")) else "idle")
        log.info("model_stopped", job=job, reason=why)
