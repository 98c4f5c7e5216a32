"""Passive outlier detection: an endpoint that fails, or fails more than its peers, gets no requests for a while.

Like Envoy's (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier): consecutive failures
at once, a rate over a window against the peers'; each ejection is longer than the one before, up to a bound; never
more than half of the peers, and never the last one. Envoy's numbers are for hundreds of hosts; these are for a few.
Pure: counts in, counts and a verdict out; times are seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum


class Result(StrEnum):
    """How a request ended at an endpoint. What the client is at fault for, or left, is neither."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Policy:
    """When to eject, and for how long.

    `consecutive`, `base_s` and `most_s` are Envoy's defaults. `volume` is how many requests within `window_s` make a
    rate; it is an outlier's from `margin` above that of all its peers together. For each `forgive_s` without an
    ejection one of those before is forgotten.
    """

    consecutive: int = 5
    base_s: float = 30.0
    most_s: float = 300.0
    window_s: float = 60.0
    volume: int = 10
    margin: float = 0.4
    forgive_s: float = 60.0


@dataclass(frozen=True)
class Counts:
    """Requests that succeeded and that failed."""

    good: int = 0
    bad: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Return both together."""
        return Counts(self.good + other.good, self.bad + other.bad)

    @property
    def total(self) -> int:
        """Return how many."""
        return self.good + self.bad

    @property
    def rate(self) -> float:
        """Return the share that failed."""
        return self.bad / self.total if self.total else 0.0


@dataclass(frozen=True)
class Record:
    """What is known of one endpoint: failures in a row, the window's two halves, and its ejections."""

    in_row: int = 0
    half_since: float = 0.0
    newer: Counts = Counts()
    older: Counts = Counts()
    ejections: int = 0
    ejected_until: float = 0.0
    why: str = ""

    def ejected(self, now: float) -> bool:
        """Say whether it is ejected."""
        return now < self.ejected_until


NEW = Record()


def seen(record: Record, result: Result, now: float, policy: Policy) -> Record:
    """Count a request."""
    record = aged(record, now, policy)
    if result is Result.FAILED:
        return replace(record, in_row=record.in_row + 1, newer=record.newer + Counts(bad=1))
    return replace(record, in_row=0, newer=record.newer + Counts(good=1))


def aged(record: Record, now: float, policy: Policy) -> Record:
    """Forget what lies before the window, by halves of it."""
    half = policy.window_s / 2
    if now - record.half_since < half:
        return record
    older = record.newer if now - record.half_since < policy.window_s else Counts()
    return replace(record, half_since=now, newer=Counts(), older=older)


def verdict(record: Record, peers: Collection[Record], now: float, policy: Policy) -> str:
    """Say why an endpoint is an outlier among its peers, itself not among them; empty if it is none."""
    if record.in_row >= policy.consecutive:
        return f"{record.in_row} requests in a row failed"
    own = _within(record, now, policy)
    others = Counts()
    for peer in peers:
        others += _within(peer, now, policy)
    if own.total < policy.volume or others.total < policy.volume or own.rate < others.rate + policy.margin:
        return ""
    return f"{own.bad} of {own.total} requests failed, {others.bad} of {others.total} at its peers"


def may_eject(peers: Collection[Record], now: float) -> bool:
    """Say whether one more may go: at least one peer stays, and at least half of all."""
    gone = sum(peer.ejected(now) for peer in peers)
    return gone < len(peers) and gone + 1 <= max(1, (len(peers) + 1) // 2)


def ejected(record: Record, why: str, now: float, policy: Policy) -> Record:
    """Eject it, longer with each time; afterwards it begins with a clean sheet."""
    quiet = max(0.0, now - record.ejected_until)
    before = max(0, record.ejections - int(quiet // policy.forgive_s)) if record.ejections else 0
    for_s = min(policy.base_s * (before + 1), policy.most_s)
    return Record(half_since=now, ejections=before + 1, ejected_until=now + for_s, why=why)


def _within(record: Record, now: float, policy: Policy) -> Counts:
    record = aged(record, now, policy)
    return record.newer + record.older
