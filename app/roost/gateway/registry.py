"""The endpoints and what our own probes say about them. Membership comes from discovery, belief does not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from roost.engines.base import Engine, Load, Report, State
from roost.gateway.endpoints import outliers
from roost.gateway.endpoints.beliefs import Belief, Beliefs
from roost.gateway.endpoints.endpoint import BY_HAND, Endpoint, Member, same_server
from roost.gateway.endpoints.outliers import Policy, Record, Result
from roost.gateway.endpoints.standing import Standing
from roost.gateway.routing import Route, View, resolve_for, substitutes
from roost.gateway.tasks import spawn
from roost.gateway.warm.planned import Planned, by_job, view_of
from roost.ops.api_keys import ApiKey

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds between two probes of a ready endpoint, of another one; and how long a gone model stays known."""

    ready_s: float = 2.0
    unready_s: float = 0.25
    remember_s: float = 300.0


async def _nothing(_endpoint: Endpoint) -> None:
    return


@dataclass
class Hooks:
    """Who wants to know: `warmed` is awaited before a server that was not ready gets requests, `gone` is told of one
    that left, `probed` of each that was looked at, `changed` that something may be ready now that was not."""

    warmed: Callable[[Endpoint], Awaitable[None]] = _nothing
    gone: Callable[[Endpoint], None] = lambda _endpoint: None
    probed: Callable[[Endpoint], None] = lambda _endpoint: None
    changed: Callable[[], None] = lambda: None


class Registry:
    """All endpoints, and the planned ones that are not there. Runs one task an endpoint; `close` ends them."""

    def __init__(
        self, connect: Callable[[Member], Engine], timing: Timing | None = None, policy: Policy | None = None
    ) -> None:
        self._connect = connect
        self._policy = policy or Policy()
        self._records: dict[str, Record] = {}
        self._members: dict[str, tuple[Member, ...]] = {}
        self._drains: Mapping[str, str] = {}
        self._recalled = Beliefs()
        self._timing = timing or Timing()
        self.hooks = Hooks()
        self._planned: Mapping[str, Planned] = {}
        self._closed: set[str] = set()  # jobs that get no requests because they are about to be stopped
        self._notes: Mapping[str, str] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[str, float]] = {}  # model -> slot and when it was last offered
        self._settled = False
        self._standing: Standing | None = None  # what the last request saw, while nothing has changed
        self._change = asyncio.Event()
        self._fault = ""
        self._on_fault: Callable[[], None] | None = None

    def sync(self, members: Collection[Member], source: str = "") -> None:
        """Take over a complete list of members of one source: begin to probe the new ones, forget those gone.

        What is in flight on an endpoint that is gone goes on: its server may be draining. Those of the fleet itself
        come without a source; only when they have come it is settled what there is.
        """
        self._standing = None  # whatever happens below, what is known of the endpoints is worked out anew
        if not source:  # what was believed to be there until now is confirmed or gone
            self._members = {name: listed for name, listed in self._members.items() if name in ("", BY_HAND)}
        self._members[source] = tuple(members)
        wanted = {member.id: member for listed in self._members.values() for member in listed}
        stay = {n for n, e in self._endpoints.items() if n in wanted and same_server(e.member, wanted[n])}
        for gone in self._endpoints.keys() - stay:
            log.info("endpoint_gone", endpoint=gone)
            endpoint = self._endpoints.pop(gone)
            self._records.pop(gone, None)  # another server has not failed yet
            self._tasks.pop(gone).cancel()
            if gone not in wanted:  # else another server has its address, and would be asked in its place
                self.hooks.gone(endpoint)
        for name in wanted.keys() & self._endpoints.keys():
            self._endpoints[name].member = wanted[name]
        for name in wanted.keys() - self._endpoints.keys():
            log.info("endpoint_found", endpoint=name)
            endpoint = Endpoint(wanted[name], self._connect(wanted[name]))
            self._endpoints[name] = endpoint
            self._believe_again(endpoint)
            self._remember(endpoint)
            self._tasks[name] = spawn(self._watch(endpoint), f"probe {name}", self.fail)
        self._settled |= not source
        self._notify()

    def drain(self, endpoints: Mapping[str, str]) -> None:
        """Take over which endpoints get no new requests: by id, with the allocation that is meant, empty for any.

        The name of a job in place of an id stands for whichever server it has, now and after it was replaced.
        """
        if endpoints != self._drains:
            self._drains = dict(endpoints)
            self._notify()

    def drained(self, endpoint: Endpoint) -> bool:
        """Say whether an endpoint is drained."""
        if endpoint.member.job in self._drains:
            return True
        meant = self._drains.get(endpoint.id)
        return meant is not None and meant in ("", endpoint.member.allocation)

    async def close(self) -> None:
        """End all probing."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def fault(self) -> str:
        """Name the background task that died, if one did: then what is said here may be out of date for ever."""
        return self._fault

    def fail(self, task: str) -> None:
        """Take note that a background task died."""
        self._fault = task
        if self._on_fault:
            self._on_fault()

    def when_failed(self, call: Callable[[], None]) -> None:
        """Have `call` called when a background task dies."""
        self._on_fault = call

    def views(self) -> tuple[View, ...]:
        """Return every endpoint as routing sees it, then the planned ones that are not there, in a stable order."""
        there = [self._seen_as(self._endpoints[name]) for name in sorted(self._endpoints)]
        jobs = {view.job for view in there}
        absent = [self._planned[job] for job in sorted(self._planned) if job not in jobs]
        return (*there, *(view_of(planned, self._notes.get(planned.job, "")) for planned in absent))

    def _seen_as(self, endpoint: Endpoint) -> View:
        view = endpoint.view()
        if (record := self._records.get(view.id)) and record.ejected(time.monotonic()):
            view = replace(view, ejected=True)
        if self.drained(endpoint):
            view = replace(view, drained=True, reason="it is drained")
        planned = self._planned.get(view.job)
        if planned is None:
            return view
        view = replace(view, memory=sum(planned.said.memory.values()), moves=planned.moves)
        if view.job in self._closed or not planned.wanted:
            return replace(view, state=State.COLD, reason="it is being stopped")
        return view

    def plan(self, jobs: Collection[Planned]) -> None:
        """Take over the complete list of planned model servers."""
        self._planned = by_job(jobs)
        self._closed &= {planned.job for planned in jobs if planned.wanted}
        for planned in jobs:
            for model in planned.said.models:
                self._seen[model] = (planned.slot, time.monotonic())
        self._notify()

    def planned(self) -> Mapping[str, Planned]:
        """Return the planned model servers by job."""
        return self._planned

    def of_job(self, job: str) -> tuple[Endpoint, ...]:
        """Return the endpoints of a job."""
        return tuple(endpoint for endpoint in self.endpoints() if endpoint.member.job == job)

    def close_job(self, job: str) -> bool:
        """Give a job no more requests; return False, and do nothing, if it works on one."""
        if any(endpoint.in_flight for endpoint in self.of_job(job)):
            return False
        self._closed.add(job)
        self._notify()
        return True

    def is_closed(self, job: str) -> bool:
        """Say whether a job gets no requests because it is about to be stopped."""
        return job in self._closed

    def open_job(self, job: str) -> None:
        """Let a job have requests again."""
        self._closed.discard(job)
        self._notify()

    def note(self, notes: Mapping[str, str]) -> None:
        """Take over why cold jobs are not started, by job."""
        if notes != self._notes:
            self._notes = notes
            self._notify()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return every endpoint in a stable order."""
        return tuple(self._endpoints[name] for name in sorted(self._endpoints))

    def nodes(self) -> set[str]:
        """Return Nomad's ids of the hosts that have endpoints."""
        return {endpoint.member.node for endpoint in self._endpoints.values() if endpoint.member.node}

    def get(self, name: str) -> Endpoint | None:
        """Return the endpoint of that name, if it still is one."""
        return self._endpoints.get(name)

    def remembered(self) -> Mapping[str, str]:
        """Return the models seen lately, with their slot."""
        oldest = time.monotonic() - self._timing.remember_s
        return {model: slot for model, (slot, at) in self._seen.items() if at >= oldest}

    def standing(self) -> Standing:
        """Return what requests need to know of all endpoints; worked out again only when something has changed.

        How many requests run at each is not in it: that is `views`.
        """
        now, standing = time.monotonic(), self._standing
        if standing is None or now >= standing.until:
            standing = self._standing = Standing(self.views(), self.remembered(), self._until(now), self._settled)
        return standing

    def _until(self, now: float) -> float:
        """Return when what is seen now changes just because time passes."""
        ends = [record.ejected_until for record in self._records.values()]
        ends += [at + self._timing.remember_s for _, at in self._seen.values()]
        return min((end for end in ends if end >= now), default=math.inf)

    def offered(self) -> Collection[str]:
        """Return the names of all models and slots, of those that were seen lately, too."""
        return self.standing().offered

    def route(self, name: str, key: ApiKey | None = None) -> Route:
        """Resolve a model's name against the present state, among what `key` may use."""
        return self.standing().route(name, key)

    def substitute(self, name: str, order: Mapping[str, Sequence[str]], key: ApiKey | None = None) -> Route | None:
        """Return a route to what may answer for `name` while it cannot, or None if nothing of that is ready."""
        views = self.standing().views
        for other in substitutes(name, views, order):
            route = resolve_for(key, other, views, {}, settled=self._settled)
            if route.ready:
                return route
        return None

    async def changed(self, within_s: float) -> None:
        """Wait until any endpoint changes, at most that long."""
        event = self._change
        try:
            async with asyncio.timeout(within_s):
                await event.wait()
        except TimeoutError:
            return

    def mark(self, endpoint: Endpoint, state: State, reason: str) -> None:
        """Believe what a request has just met, and look again at once."""
        self._accept(endpoint, Report(state, reason=reason))
        endpoint.look_now.set()

    def suspect(self, endpoint: Endpoint) -> None:
        """Look at an endpoint again at once, without believing anything yet."""
        endpoint.look_now.set()

    def recall(self, beliefs: Beliefs) -> None:
        """Take over what was believed before a restart: endpoints that are found begin with it."""
        self._recalled = beliefs

    def _believe_again(self, endpoint: Endpoint) -> None:
        known = self._recalled.about(endpoint.id, endpoint.member.allocation)
        if known is None:
            return
        del self._recalled.of[endpoint.id]  # once: who comes back later begins anew
        if known.report.models:
            endpoint.report = known.report
        if known.ejections:
            self._records[endpoint.id] = known.record(time.monotonic())

    def beliefs(self) -> list[Belief]:
        """Return what is believed of each endpoint, to be recalled after a restart."""
        now, found = time.monotonic(), []
        for endpoint in self.endpoints():
            record = self.record_of(endpoint.id)
            left_s = round(max(0.0, record.ejected_until - now))
            report = replace(endpoint.report, load=Load(), stuck=False)  # what changes all the time is asked anew
            found.append(Belief(endpoint.id, report, endpoint.member.allocation, left_s, record.ejections, record.why))
        return found

    def record(self, endpoint: Endpoint, result: Result) -> None:
        """Take note of how a request ended there; an outlier among those that could have answered it is ejected."""
        endpoint_id, now = endpoint.id, time.monotonic()
        if self._endpoints.get(endpoint_id) is not endpoint:  # it is gone; another one at its address did nothing
            return
        record = outliers.seen(self._records.get(endpoint_id, outliers.NEW), result, now, self._policy)
        self._records[endpoint_id] = record
        if result is not Result.FAILED or record.ejected(now):
            return
        peers = [self._records.get(peer, outliers.NEW) for peer in self._peers(endpoint)]
        why = outliers.verdict(record, peers, now, self._policy)
        if why and outliers.may_eject(peers, now):
            record = self._records[endpoint_id] = outliers.ejected(record, why, now, self._policy)
            for_s = round(record.ejected_until - now, 1)
            log.warning("endpoint_ejected", endpoint=endpoint_id, reason=why, for_s=for_s)
            self._notify()

    def record_of(self, endpoint_id: str) -> Record:
        """Return what is known of how an endpoint's requests ended."""
        return self._records.get(endpoint_id, outliers.NEW)

    def _peers(self, endpoint: Endpoint) -> list[str]:
        """Return the other endpoints that are ready and serve the slot or a model of this one."""
        models = set(endpoint.report.models)
        return [
            name
            for name, other in self._endpoints.items()
            if other is not endpoint
            and other.report.state is State.READY
            and not self.drained(other)
            and (other.member.slot == endpoint.member.slot or not models.isdisjoint(other.report.models))
        ]

    def _notify(self) -> None:
        self._standing = None
        self._change.set()
        self._change = asyncio.Event()
        self.hooks.changed()

    def _remember(self, endpoint: Endpoint) -> None:
        for model in endpoint.report.models:
            self._seen[model] = (endpoint.member.slot, time.monotonic())

    def _accept(self, endpoint: Endpoint, report: Report) -> None:
        before = endpoint.report
        if not report.models:  # what it serves stays known while it is down or loading
            report = replace(
                report,
                models=before.models,
                context=before.context,
                slots=before.slots,
                adapters=before.adapters,
                lacks=before.lacks,
                sees=before.sees,
                calls=before.calls,
                parameters=before.parameters,
                details=before.details,
                version=before.version,
            )
        endpoint.report = report
        self._standing = None
        if endpoint.id in self._endpoints:
            self._remember(endpoint)
        if report.stuck:
            endpoint.release_waiters()
        if (before.state, before.models) != (report.state, report.models):
            log.info("endpoint_state", endpoint=endpoint.id, state=report.state.value, reason=report.reason)
            self._notify()

    async def _watch(self, endpoint: Endpoint) -> None:
        while True:
            endpoint.look_now.clear()
            report = await endpoint.engine.probe(busy=endpoint.in_flight > 0)
            if report.state is State.READY and endpoint.report.state is not State.READY:
                await self.hooks.warmed(endpoint)
            self._accept(endpoint, report)
            self.hooks.probed(endpoint)
            ready = endpoint.report.state is State.READY
            pause = max(self._timing.ready_s if ready else self._timing.unready_s, endpoint.engine.pause_s)
            try:
                async with asyncio.timeout(pause):
                    await endpoint.look_now.wait()
            except TimeoutError:
                continue
