"""Families of metrics with a bound on how many series they keep. Only the event loop touches them."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from math import inf

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from roost.ops.metric_names import MOST_SERIES, Spec


class Counts(Collector):
    """A counter by labels; past `most` series the one that was touched longest ago goes.

    Prometheus' own takes a lock for each count, and there are several for each request.
    """

    def __init__(self, spec: Spec, registry: CollectorRegistry, most: int = MOST_SERIES) -> None:
        self._spec = spec
        self._most = most
        self._series: OrderedDict[tuple[str, ...], float] = OrderedDict()
        if not spec.labels:
            self._series[()] = 0.0
        registry.register(self)

    def add(self, *labels: str, amount: float = 1) -> None:
        """Add to the series of these label values, in the order of the family's labels."""
        series = self._series
        before = series.get(labels)
        if before is None:
            if len(labels) != len(self._spec.labels):
                raise ValueError(f"{self._spec.name} has the labels {self._spec.labels}, not {labels}")
            series[labels] = amount
            if len(series) > self._most:
                series.popitem(last=False)
        else:
            series[labels] = before + amount
            series.move_to_end(labels)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = CounterMetricFamily(self._spec.name, self._spec.about, labels=self._spec.labels)
        for labels, value in self._series.items():
            family.add_metric(labels, value)
        yield family


class Distribution(Collector):
    """A histogram by labels that takes many observations of one request at once; bounded like `Counts`.

    Its buckets are plain lists: the relay of a stream counts its gaps with one `bisect` each, see `slots`.
    """

    def __init__(self, spec: Spec, registry: CollectorRegistry, most: int = MOST_SERIES) -> None:
        self._spec = spec
        self._most = most
        self._series: OrderedDict[tuple[str, ...], tuple[list[int], list[float]]] = OrderedDict()
        registry.register(self)

    def observe(self, value: float, *labels: str) -> None:
        """Take one observation."""
        counts, sums = self._of(labels)
        counts[bisect_left(self._spec.buckets, value)] += 1
        sums[0] += value

    def merge(self, counted: Sequence[int], total: float, *labels: str) -> None:
        """Take observations that were counted by bucket; `total` is their sum."""
        counts, sums = self._of(labels)
        for place, number in enumerate(counted):
            counts[place] += number
        sums[0] += total

    def _of(self, labels: tuple[str, ...]) -> tuple[list[int], list[float]]:
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = ([0] * (len(self._spec.buckets) + 1), [0.0])
            if len(self._series) > self._most:
                self._series.popitem(last=False)
        else:
            self._series.move_to_end(labels)
        return found

    def collect(self) -> Iterator[Metric]:
        """Yield the family, with cumulative buckets as Prometheus wants them."""
        family = HistogramMetricFamily(self._spec.name, self._spec.about, labels=self._spec.labels)
        for labels, (counts, sums) in self._series.items():
            cumulative, buckets = 0, []
            for bound, number in zip((*self._spec.buckets, inf), counts, strict=True):
                cumulative += number
                buckets.append((_written(bound), float(cumulative)))
            family.add_metric(labels, buckets, sums[0])
        yield family


def _written(bound: float) -> str:
    """Return a bucket's bound as Prometheus' own clients write it."""
    return "+Inf" if bound == inf else str(float(bound))


def slots(bounds: Sequence[float]) -> list[int]:
    """Return empty counts for `Distribution.merge`: one a bucket and one for what is beyond them."""
    return [0] * (len(bounds) + 1)


def gauge(spec: Spec, registry: CollectorRegistry) -> Gauge:
    """Return a gauge."""
    return Gauge(spec.name, spec.about, spec.labels, registry=registry)
