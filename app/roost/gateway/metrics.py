"""Prometheus metrics of the gateway, in a registry of their own."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roost import __version__
from roost.engines.base import State
from roost.gateway.accounting import Tokens
from roost.gateway.routing import View

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
ROUTE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01)
NO_MODEL = ""  # requests that never came to a model, so that clients cannot invent label values


class _Endpoints(Collector):
    """Counts endpoints by slot and state at the time of scraping."""

    def __init__(self, views: Callable[[], Collection[View]]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge `roost_endpoints`."""
        views = self._views()
        tally = Tally((view.slot, view.state) for view in views)
        family = GaugeMetricFamily("roost_endpoints", "Model servers by state.", labels=["slot", "state"])
        for slot in sorted({view.slot for view in views}):
            for state in State:
                family.add_metric([slot, state.value], tally[slot, state])
        yield family


class Metrics:
    """What is counted; one object a service."""

    def __init__(self, views: Callable[[], Collection[View]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Endpoints(views))
        self._requests = Counter(
            "roost_requests", "Finished requests.", ["kind", "model", "status"], registry=self.registry
        )
        self._first_token = Histogram(
            "roost_time_to_first_token_seconds",
            "From the request's arrival to the first byte of the streamed answer.",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._duration = Histogram(
            "roost_request_duration_seconds",
            "From the request's arrival to the end of the answer.",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter("roost_tokens", "Tokens.", ["model", "direction"], registry=self.registry)
        self._failovers = Counter(
            "roost_failovers", "Attempts that went on to another endpoint.", ["reason"], registry=self.registry
        )
        self._fallbacks = Counter(
            "roost_fallbacks",
            "Answers of another model than the chosen one.",
            ["slot", "reason"],
            registry=self.registry,
        )
        self._routed = Counter(
            "roost_route_decisions", "Models chosen for auto.", ["model", "reason"], registry=self.registry
        )
        self._route_time = Histogram(
            "roost_route_seconds", "Time that a choice took.", buckets=ROUTE_SECONDS, registry=self.registry
        )
        self._starts = Counter(
            "roost_model_starts", "Cold models started because somebody asked.", ["slot"], registry=self.registry
        )
        self._stops = Counter(
            "roost_model_stops", "Models stopped, idle or to make room.", ["slot", "reason"], registry=self.registry
        )
        self._restarts = Counter(
            "roost_restarts", "Stuck model servers that were replaced, or not.", ["slot", "result"],
            registry=self.registry,
        )  # fmt: skip
        self._slots = Counter(
            "roost_slot_tokens", "Tokens of conversations saved and restored.", ["slot", "action"],
            registry=self.registry,
        )  # fmt: skip
        self._wrong_keys = Counter("roost_wrong_keys", "Requests without a good key.", registry=self.registry)
        self._refused = Counter(
            "roost_refused", "Requests that a limit of their key refused.", ["key", "reason"], registry=self.registry
        )
        self._invalid = Counter(
            "roost_invalid_requests", "Requests refused for what they are.", ["key", "status"], registry=self.registry
        )
        self._usage_trouble = Counter(
            "roost_usage_not_written", "Failures to write usage down.", ["where"], registry=self.registry
        )
        self.in_flight = Gauge("roost_in_flight", "Requests being worked on.", registry=self.registry)
        info = Gauge("roost_build_info", "The version that runs.", ["version"], registry=self.registry)
        info.labels(__version__).set(1)

    def finished(
        self, kind: str, model: str, status: int, *, duration_s: float, first_s: float | None, tokens: Tokens | None
    ) -> None:
        """Count a finished request; `status` 499 is a client that left."""
        self._requests.labels(kind, model, str(status)).inc()
        self._duration.labels(model).observe(duration_s)
        if first_s is not None:
            self._first_token.labels(model).observe(first_s)
        if tokens:
            self._tokens.labels(model, "in").inc(tokens.prompt)
            self._tokens.labels(model, "out").inc(tokens.completion)

    def failover(self, reason: str) -> None:
        """Count an attempt that another endpoint, or a later one, took over."""
        self._failovers.labels(reason).inc()

    def fell_back(self, slot: str, reason: str) -> None:
        """Count an answer that another slot gives than the chosen one; `reason` is the chosen one's state."""
        self._fallbacks.labels(slot, reason).inc()

    def routed(self, model: str, reason: str, took_s: float) -> None:
        """Count a model that was chosen for `auto`; `reason` is one of `roost.gateway.choice.decide.Reason`."""
        self._routed.labels(model, reason).inc()
        self._route_time.observe(took_s)

    def started(self, slot: str) -> None:
        """Count a cold model that was started."""
        self._starts.labels(slot).inc()

    def stopped(self, slot: str, reason: str) -> None:
        """Count a model that was stopped; `reason` is `idle` or `room`."""
        self._stops.labels(slot, reason).inc()

    def restarted(self, slot: str, result: str) -> None:
        """Count a stuck server; `result` is `replaced`, `refused` or `limited`."""
        self._restarts.labels(slot, result).inc()

    def slot_tokens(self, slot: str, action: str, tokens: int) -> None:
        """Count tokens; `action` is `saved` or `restored`."""
        self._slots.labels(slot, action).inc(tokens)

    def wrong_key(self) -> None:
        """Count a request that had no good key."""
        self._wrong_keys.inc()

    def refused(self, key: str, reason: str) -> None:
        """Count a refusal; `key` is the name of an existing key, `reason` requests, tokens, concurrency or budget."""
        self._refused.labels(key, reason).inc()

    def invalid(self, key: str, status: int) -> None:
        """Count a request that was refused for its body: 400, 408 too slow, 413 too large."""
        self._invalid.labels(key, str(status)).inc()

    def usage_trouble(self, where: str) -> None:
        """Count a failure to write to the `spool` or the `ledger`."""
        self._usage_trouble.labels(where).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
