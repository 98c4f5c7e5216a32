"""Load over time as data: what counters say at two moments becomes what happened between them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from roost.ops.metric_names import FIRST_TOKEN, IN_FLIGHT, QUEUE, REQUESTS, TOKENS

FAILED_FROM = 400
MIDDLE, SLOW = 0.5, 0.95


@dataclass(frozen=True)
class Sample:
    """What the counters said at a moment, added up. `at` is seconds since 1970, `first` the cumulative histogram of
    the time to the first token by its upper bounds in seconds. `waiting` None: nobody counts it."""

    at: float
    requests: float = 0
    failed: float = 0
    tokens_in: float = 0
    tokens_out: float = 0
    first: Mapping[float, float] = field(default_factory=dict)
    in_flight: int = 0
    waiting: int | None = None


@dataclass(frozen=True)
class Point:
    """What happened in the `seconds` up to `at`. Times to the first token are None where no stream began."""

    at: float
    seconds: float
    requests: int
    failed: int
    tokens_in: int
    tokens_out: int
    first_token_s: float | None
    first_token_slow_s: float | None
    in_flight: int
    waiting: int | None
    endpoints: Mapping[str, int]

    def document(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "at": round(self.at, 3),
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "failed": self.failed,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "first_token_s": self.first_token_s,
            "first_token_slow_s": self.first_token_slow_s,
            "in_flight": self.in_flight,
            "waiting": self.waiting,
            "endpoints": dict(self.endpoints),
        }


def read(metrics: Iterable[Metric], at: float) -> Sample:
    """Add up what a registry of metrics says, whatever labels it keeps apart."""
    requests = failed = tokens_in = tokens_out = in_flight = 0.0
    waiting: float | None = None
    first: dict[float, float] = {}
    for family in metrics:
        for sample in family.samples:
            if sample.name == REQUESTS.total:
                requests += sample.value
                failed += sample.value * (int(sample.labels["status"]) >= FAILED_FROM)
            elif sample.name == TOKENS.total:
                tokens_in += sample.value * (sample.labels["direction"] == "in")
                tokens_out += sample.value * (sample.labels["direction"] == "out")
            elif sample.name == FIRST_TOKEN.bucket:
                bound = float(sample.labels["le"])
                first[bound] = first.get(bound, 0.0) + sample.value
            elif sample.name == IN_FLIGHT.name:
                in_flight += sample.value
            elif sample.name == QUEUE.name:
                waiting = (waiting or 0.0) + sample.value
    return Sample(
        at,
        requests,
        failed,
        tokens_in,
        tokens_out,
        first,
        int(in_flight),
        None if waiting is None else int(waiting),
    )


def between(before: Sample, after: Sample, endpoints: Mapping[str, int], seconds: float) -> Point:
    """Return what happened in the `seconds` between two samples; `endpoints` are the requests at each at the end.

    How long it was is not the difference of their times: a clock that is set jumps. A counter that fell lost a series
    (there is a bound on them); less than nothing did not happen.
    """
    first = {bound: max(0.0, count - before.first.get(bound, 0.0)) for bound, count in after.first.items()}
    return Point(
        at=after.at,
        seconds=seconds,
        requests=_grown(before.requests, after.requests),
        failed=_grown(before.failed, after.failed),
        tokens_in=_grown(before.tokens_in, after.tokens_in),
        tokens_out=_grown(before.tokens_out, after.tokens_out),
        first_token_s=quantile(first, MIDDLE),
        first_token_slow_s=quantile(first, SLOW),
        in_flight=after.in_flight,
        waiting=after.waiting,
        endpoints=endpoints,
    )


def newer(points: Sequence[Point], since: float, now: float) -> Sequence[Point]:
    """Return the points, in their order, that came after the one of the time `since`.

    Times need not grow: a clock may be set back. So that point itself is looked for; where it is not kept, later times
    are newer, and all is new to whoever names a time that has not come yet.
    """
    place = next((number for number in range(len(points), 0, -1) if points[number - 1].at == since), 0)
    if place or since > now:
        return points[place:]
    return [point for point in points if point.at > since]


def _grown(before: float, after: float) -> int:
    return max(0, round(after - before))


def quantile(cumulative: Mapping[float, float], part: float) -> float | None:
    """Return the quantile of a cumulative histogram, straight within a bucket; None if it is empty.

    What lies beyond the last bound is given as that bound, as Prometheus' `histogram_quantile` does
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).
    """
    bounds: Sequence[float] = sorted(cumulative)
    if not bounds or cumulative[bounds[-1]] <= 0:
        return None
    rank = part * cumulative[bounds[-1]]
    low, under = 0.0, 0.0
    for bound in bounds:
        count = cumulative[bound]
        if count >= rank and count > under:
            if math.isinf(bound):
                return low
            return round(low + (bound - low) * (rank - under) / (count - under), 6)
        low, under = (low if math.isinf(bound) else bound), max(under, count)
    return low
