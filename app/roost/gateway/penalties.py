"""How those who send wrong keys, or what is not valid, are slowed down. `Penalties` is pure, `Slowdown` waits."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

FREE = 20  # wrong keys in a row that cost nothing: somebody mistypes, a program still has the old one
FIRST_S = 1.0
LONGEST_S = 60.0
HOLD_S = 1.0  # at most so long is a refusal held back
FORGET_S = 300.0  # after so long without a wrong key an address begins anew
ADDRESSES = 4096
HELD_AT_ONCE = 64  # further answers go at once
IPV6_PREFIX = 64  # one customer has at least so many addresses


@dataclass(frozen=True)
class Penalty:
    """How long to hold the refusal back, and when to say the next try makes sense; seconds."""

    hold_s: float = 0.0
    retry_after_s: int = 0


@dataclass
class _Record:
    strikes: int
    at: float


class Penalties:
    """Wrong keys per address; remembers at most `ADDRESSES` of them, the latest."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def strike(self, address: str, now: float) -> Penalty:
        """Count a wrong key from an address; `now` is of a monotonic clock, in seconds."""
        who = network_of(address)
        record = self._records.get(who)
        if record is None or now - record.at > FORGET_S:
            record = self._records[who] = _Record(0, now)
        record.strikes += 1
        record.at = now
        self._records.move_to_end(who)
        while len(self._records) > ADDRESSES:
            self._records.popitem(last=False)
        return penalty_of(record.strikes)

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._records)

    def kept(self, now: float) -> list[tuple[str, int, float]]:
        """Return what is worth keeping over a restart: who, strikes, seconds since the last; the oldest first."""
        return [(who, r.strikes, now - r.at) for who, r in self._records.items() if now - r.at <= FORGET_S]

    def restore(self, kept: Iterable[tuple[str, int, float]], now: float) -> None:
        """Take back what was kept."""
        for who, strikes, age_s in kept:
            self._records[who] = _Record(strikes, now - age_s)


class Slowdown:
    """Holds answers back, a bounded number of them at once: a waiting one costs memory."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._penalties = Penalties()
        self._clock = clock
        self._sleep = sleep
        self._held = 0
        self.on_strike: Callable[[], None] = _nothing

    async def hold(self, who: str) -> Penalty:
        """Count what `who` did, wait what that costs, and return it."""
        penalty = self._penalties.strike(who, self._clock())
        self.on_strike()
        if penalty.hold_s and self._held < HELD_AT_ONCE:
            self._held += 1
            try:
                await self._sleep(penalty.hold_s)
            finally:
                self._held -= 1
        return penalty

    def kept(self) -> list[tuple[str, int, float]]:
        """Return what is worth keeping over a restart."""
        return self._penalties.kept(self._clock())

    def restore(self, kept: Iterable[tuple[str, int, float]]) -> None:
        """Take back what was kept."""
        self._penalties.restore(kept, self._clock())


def _nothing() -> None:
    """Stand for nobody who wants to know."""


def penalty_of(strikes: int) -> Penalty:
    """Return what the n-th wrong key costs: nothing at first, then twice as long each time."""
    over = strikes - FREE
    if over <= 0:
        return Penalty()
    wait = min(LONGEST_S, FIRST_S * 2.0 ** min(over - 1, 16))
    return Penalty(min(HOLD_S, wait), math.ceil(wait))


def network_of(address: str) -> str:
    """Return whom an address stands for: itself, or its /64 if it is IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
