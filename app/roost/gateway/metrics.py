"""Prometheus metrics of the gateway, in a registry of their own. Names and labels: `roost.ops.metric_names`."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roost import __version__
from roost.engines.base import State
from roost.gateway.account.accounting import Tokens
from roost.gateway.observe.series import Counts, Distribution, gauge
from roost.gateway.routing import View
from roost.ops import metric_names as names
from roost.ops.metric_names import Spec

NO_MODEL = ""  # requests that never came to a model, so that clients cannot invent label values
NO_GAPS: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A request that is over. Times are seconds; None where there was no such moment. `status` 499: the client left.

    `gaps` are the times between pieces of a stream, counted by bucket of `names.GAP_SECONDS`; `gaps_s` is their sum.
    """

    kind: str
    model: str
    endpoint: str
    status: int
    duration_s: float
    error: str = ""  # see roost.gateway.observe.errors
    first_s: float | None = None
    waited_s: float | None = None
    gaps: Sequence[int] = NO_GAPS
    gaps_s: float = 0.0
    tokens: Tokens | None = None


class _Endpoints(Collector):
    """Counts endpoints by slot and state, and describes each, at the time of scraping."""

    def __init__(self, views: Callable[[], Collection[View]]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        views = self._views()
        tally = Tally((view.slot, view.tier, view.state) for view in views)
        states = _gauge(names.ENDPOINTS)
        for slot, tier in sorted({(view.slot, view.tier) for view in views}):
            for state in State:
                states.add_metric([slot, state.value, tier], tally[slot, tier, state])
        yield states
        up, busy, slots = (_gauge(spec) for spec in (names.ENDPOINT_UP, names.ENDPOINT_BUSY, names.ENDPOINT_SLOTS))
        for view in views:
            labels = [view.slot, view.id]
            up.add_metric(labels, view.state is State.READY)
            busy.add_metric(labels, view.in_flight)
            if view.slots is not None:
                slots.add_metric(labels, view.slots)
        yield from (up, busy, slots)


def _gauge(spec: Spec) -> GaugeMetricFamily:
    return GaugeMetricFamily(spec.name, spec.about, labels=spec.labels)


class Metrics:
    """What is counted; one object a service."""

    def __init__(self, views: Callable[[], Collection[View]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Endpoints(views))
        self._requests, self._errors, self._tokens = map(self._counts, (names.REQUESTS, names.ERRORS, names.TOKENS))
        self._first_token, self._inter_token = map(self._distribution, (names.FIRST_TOKEN, names.INTER_TOKEN))
        self._duration, self._queue_wait = map(self._distribution, (names.DURATION, names.QUEUE_WAIT))
        self._failovers, self._fallbacks = map(self._counts, (names.FAILOVERS, names.FALLBACKS))
        self._routed, self._route_time = self._counts(names.ROUTED), self._distribution(names.ROUTE_TIME)
        self._cascades = self._counts(names.CASCADES)
        self._starts, self._stops, self._restarts = map(self._counts, (names.STARTS, names.STOPS, names.RESTARTS))
        self._slots = self._counts(names.SLOT_TOKENS)
        self._wrong_keys, self._refused = map(self._counts, (names.WRONG_KEYS, names.REFUSED))
        self._invalid, self._usage_trouble = map(self._counts, (names.INVALID, names.USAGE_TROUBLE))
        self.in_flight = gauge(names.IN_FLIGHT, self.registry)
        self._queue = gauge(names.QUEUE, self.registry)
        for queue in names.QUEUES:
            self._queue.labels(queue)
        self._certificate = gauge(names.CERTIFICATE_END, self.registry)
        gauge(names.BUILD, self.registry).labels(__version__).set(1)

    def _counts(self, spec: Spec) -> Counts:
        return Counts(spec, self.registry)

    def _distribution(self, spec: Spec) -> Distribution:
        return Distribution(spec, self.registry)

    def finished(self, ended: Ended) -> None:
        """Count a finished request."""
        who = (ended.model, ended.endpoint)
        self._requests.add(ended.kind, *who, str(ended.status))
        if ended.error:
            self._errors.add(*who, ended.error)
        self._duration.observe(ended.duration_s, *who)
        if ended.first_s is not None:
            self._first_token.observe(ended.first_s, *who)
        if ended.waited_s is not None:
            self._queue_wait.observe(ended.waited_s, ended.model)
        if ended.gaps:
            self._inter_token.merge(ended.gaps, ended.gaps_s, *who)
        if ended.tokens:
            amounts = (ended.tokens.prompt, ended.tokens.cached, ended.tokens.completion)
            for direction, amount in zip(names.DIRECTIONS, amounts, strict=True):
                self._tokens.add(*who, direction, amount=amount)

    @contextmanager
    def waiting(self, queue: str) -> Iterator[None]:
        """Count a request as waiting while the context is open; `queue` is one of `names.QUEUES`."""
        length = self._queue.labels(queue)
        length.inc()
        try:
            yield
        finally:
            length.dec()

    def waits_for_key(self, count: Callable[[], int]) -> None:
        """Have `count` say at each scrape how many requests wait for a place of their key."""
        self._queue.labels("key").set_function(count)

    def waits_for_slot(self, count: Callable[[], int]) -> None:
        """Have `count` say at each scrape how many requests wait for a slot of a model."""
        self._queue.labels("slot").set_function(count)

    def failover(self, reason: str) -> None:
        """Count an attempt that another endpoint, or a later one, took over."""
        self._failovers.add(reason)

    def fell_back(self, slot: str, reason: str) -> None:
        """Count an answer that another slot gives than the chosen one; `reason` is the chosen one's state."""
        self._fallbacks.add(slot, reason)

    def routed(self, model: str, reason: str, took_s: float) -> None:
        """Count a model that was chosen for `auto`; `reason` is one of `roost.gateway.choice.decide.Reason`."""
        self._routed.add(model, reason)
        self._route_time.observe(took_s)

    def cascaded(self, model: str, reason: str) -> None:
        """Count a model's answer that was not passed on; `reason` is a `roost.gateway.choice.verdict.Objection`."""
        self._cascades.add(model, reason)

    def started(self, slot: str) -> None:
        """Count a cold model that was started."""
        self._starts.add(slot)

    def stopped(self, slot: str, reason: str) -> None:
        """Count a model that was stopped; `reason` is `idle` or `room`."""
        self._stops.add(slot, reason)

    def restarted(self, slot: str, result: str) -> None:
        """Count a stuck server; `result` is `replaced`, `refused` or `limited`."""
        self._restarts.add(slot, result)

    def slot_tokens(self, slot: str, action: str, tokens: int) -> None:
        """Count tokens; `action` is `saved` or `restored`."""
        self._slots.add(slot, action, amount=tokens)

    def wrong_key(self) -> None:
        """Count a request that had no good key."""
        self._wrong_keys.add()

    def refused(self, key: str, reason: str) -> None:
        """Count a refusal; `key` is the name of an existing key, `reason` requests, tokens, concurrency or budget."""
        self._refused.add(key, reason)

    def invalid(self, key: str, status: int) -> None:
        """Count a request that was refused for its body: 400, 408 too slow, 413 too large."""
        self._invalid.add(key, str(status))

    def usage_trouble(self, where: str) -> None:
        """Count a failure to write to the `spool` or the `ledger`."""
        self._usage_trouble.add(where)

    def certificate_ends(self, address: str, ends: float) -> None:
        """Note when the certificate that is in use at ADDRESS:PORT ends, in seconds since 1970."""
        self._certificate.labels(address).set(ends)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
