"""What balancing counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from roost.gateway.observe.series import Counts
from roost.ops import metric_names as names


class Measures:
    """One object a service, in the registry of its other metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._choices, self._expected = Counts(names.CHOICES, registry), Counts(names.EXPECTED, registry)
        self._not_seated, self._opened = Counts(names.NOT_SEATED, registry), Counts(names.OPENED, registry)
        self._retries, self._broken = Counts(names.RETRIES, registry), Counts(names.BROKEN, registry)

    def chosen(self, why: str, expected: int) -> None:
        """Count a choice, and the tokens that need not be read again there if it is right."""
        self._choices.add(why)
        self._expected.add(amount=expected)

    def refused(self, reason: str) -> None:
        """Count a request that got no slot; `reason` is full or late."""
        self._not_seated.add(reason)

    def opened(self, endpoint: str) -> None:
        """Count a breaker that opened."""
        self._opened.add(endpoint)

    def retried(self, result: str) -> None:
        """Count a further attempt; `result` is made or over-budget."""
        self._retries.add(result)

    def broken(self, result: str) -> None:
        """Count a stream whose model server failed; `result` is continued or interrupted."""
        self._broken.add(result)
