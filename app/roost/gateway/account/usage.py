"""Usage as data: one finished request, its cost and energy, and sums by key, model and day. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

MILLION = 1_000_000
MS_PER_S = 1000.0
DAY_S = 86_400  # of Unix time, which has no leap seconds
DAYS_THAT_PROVE = 3
NEAR = timedelta(days=7)


class Price(BaseModel):
    """What a million tokens of a model cost, in the site's currency; `cached` None is the price of `input`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(default=0.0, ge=0)
    output: float = Field(default=0.0, ge=0)
    cached: float | None = Field(default=None, ge=0)


FREE = Price()


@dataclass(frozen=True)
class Use:
    """One finished request. `at` is seconds since 1970 (UTC), `engine_ms` how long the model server worked for it.

    `estimated`: the answer broke off before the model server counted, so tokens were counted from what passed by.
    """

    at: float
    key: str
    model: str
    status: int
    prompt: int
    cached: int
    completion: int
    engine_ms: float
    estimated: bool
    cost: float
    energy_j: float

    @property
    def day(self) -> str:
        """Return the UTC day, YYYY-MM-DD."""
        return day_of(self.at)

    def line(self) -> bytes:
        """Return it as JSON in one line."""
        return to_json([getattr(self, name) for name in USE_FIELDS])


USE_FIELDS = tuple(field.name for field in fields(Use))


def parse_use(line: bytes) -> Use:
    """Read what `Use.line` wrote.

    Raises:
        ValueError: it is something else.
    """
    values = json.loads(line)
    if not isinstance(values, list) or len(values) != len(USE_FIELDS):
        raise ValueError("no record of usage")
    return Use(*values)


@dataclass
class Sums:
    """Usage added up. `failed` are requests that ended with a status of 400 or more, 499: the client left."""

    requests: int = 0
    failed: int = 0
    estimated: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    engine_ms: float = 0.0
    cost: float = 0.0
    energy_j: float = 0.0

    def add(self, use: Use) -> None:
        """Add one request."""
        self.requests += 1
        self.failed += use.status >= 400
        self.estimated += use.estimated
        self.prompt += use.prompt
        self.cached += use.cached
        self.completion += use.completion
        self.engine_ms += use.engine_ms
        self.cost += use.cost
        self.energy_j += use.energy_j

    def merge(self, other: Sums) -> None:
        """Add what others added up."""
        for name in SUM_FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


SUM_FIELDS = tuple(field.name for field in fields(Sums))


@dataclass(frozen=True, order=True)
class Group:
    """What usage is added up by."""

    day: str
    key: str
    model: str


def day_of(at: float) -> str:
    """Return the UTC day of a time, YYYY-MM-DD."""
    return _day(int(at // DAY_S))


@lru_cache(8)  # it is asked for twice with each request
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_S, UTC).date().isoformat()


def forget_before(today: str, newest: Sequence[str], keep_days: int) -> str:
    """Return the first day (YYYY-MM-DD, UTC) whose usage is kept, or "" to keep all.

    `newest` are the `DAYS_THAT_PROVE` newest days with usage up to `today`, newest first. A clock may be wrong and go
    back, what it deleted does not come back: a date is believed once the oldest of those days is near it, and until
    then the days that are kept are counted from that one.
    """
    if len(newest) < DAYS_THAT_PROVE:
        return ""
    proven, now = date.fromisoformat(newest[DAYS_THAT_PROVE - 1]), date.fromisoformat(today)
    start = now if now - proven <= NEAR else proven
    return (start - timedelta(days=keep_days)).isoformat()


def cost_of(prompt: int, cached: int, completion: int, price: Price) -> float:
    """Return what tokens cost: (fresh · input + cached · cached + completion · output) / 1,000,000."""
    reused = min(cached, prompt)
    cached_price = price.input if price.cached is None else price.cached
    return ((prompt - reused) * price.input + reused * cached_price + completion * price.output) / MILLION


def energy_of(engine_ms: float, watts: float) -> float:
    """Return an estimate of the energy in joules: time of the engine times what the machine draws more at work.

    Requests side by side share the machine, so it is an upper bound for them. Without `watts` it is 0: unknown.
    """
    return engine_ms / MS_PER_S * watts


def price_of(prices: Mapping[str, Price], model: str) -> Price:
    """Return a model's price; `*` names that of all others."""
    return prices.get(model) or prices.get("*") or FREE
