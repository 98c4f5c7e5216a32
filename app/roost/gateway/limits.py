"""How much each key may do: rates, requests at once, budget. One object a service; only its event loop touches it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from roost.gateway import errors
from roost.gateway.buckets import Backoff, Bucket
from roost.ops.api_keys import ApiKey, Budget, TierLimits

BYTES_PER_TOKEN = 4  # of English text in JSON; only until the model server has counted


@dataclass(frozen=True)
class Spent:
    """What a key has used in this UTC day and month."""

    tokens_day: int = 0
    tokens_month: int = 0
    cost_day: float = 0.0
    cost_month: float = 0.0


@dataclass(frozen=True)
class Level:
    """A key's buckets as they are kept over a restart: what was spent, and how many seconds ago that was so."""

    requests: float
    requests_age_s: float
    tokens: float
    tokens_age_s: float


@dataclass
class _Account:
    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    backoff: Backoff = field(default_factory=Backoff)
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Ticket:
    """One admitted request: what was taken for it, and its way to a place among the key's concurrent ones."""

    def __init__(
        self,
        key: ApiKey,
        limits: TierLimits,
        account: _Account,
        on_refusal: Callable[[str, str], None],
        *,
        estimate: int,
        taken: float,
        now: float,
    ) -> None:
        self.key = key
        self.estimate = estimate  # tokens of the prompt
        self._account = account
        self._limits = limits
        self._taken = taken
        self._on_refusal = on_refusal
        self.headers = rate_headers(limits, account.requests, account.tokens, now)

    @asynccontextmanager
    async def place(self, patience_s: float) -> AsyncIterator[Ticket]:
        """Hold one of the key's concurrent places, first come first served.

        Raises:
            ApiError: 429, too many wait already, or no place came free within `patience_s` seconds.
        """
        account, limits = self._account, self._limits
        if limits.concurrent and account.running >= limits.concurrent:
            await self._queue(patience_s)
        else:
            account.running += 1
        try:
            yield self
        finally:
            _release(account)

    async def _queue(self, patience_s: float) -> None:
        account, limits = self._account, self._limits
        if len(account.waiting) >= limits.waiting:
            raise self._too_many()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        account.waiting.append(turn)
        try:
            async with asyncio.timeout(patience_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                _release(account)  # the place was given just then
            elif turn in account.waiting:
                account.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._too_many() from None
            raise

    def _too_many(self) -> errors.ApiError:
        self._on_refusal(self.key.name, "concurrency")
        return errors.too_many_at_once(self._limits.concurrent, self.headers)

    def settle(self, tokens: int) -> None:
        """Replace the estimate by the tokens really used."""
        if self._limits.tokens:
            self._account.tokens.settle(tokens - self._taken)
        self._taken = float(tokens)


def _release(account: _Account) -> None:
    while account.waiting:
        turn = account.waiting.popleft()
        if not turn.done():
            turn.set_result(None)  # the place goes on to it
            return
    account.running -= 1


class Limiter:
    """Admits requests. `limits_of` gives a key's tier as it is now, `spent_of` what it used of its budget."""

    def __init__(
        self,
        limits_of: Callable[[ApiKey], TierLimits],
        spent_of: Callable[[str], Spent],
        on_refusal: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits_of = limits_of
        self._spent_of = spent_of
        self._on_refusal = on_refusal
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def admit(self, key: ApiKey, body_bytes: int) -> Ticket:
        """Take a request and the estimated tokens of its prompt.

        Raises:
            ApiError: 429 with `Retry-After`: too fast, or the budget is used up.
        """
        now = self._clock()
        account = self._accounts.get(key.name)
        if account is None:
            account = self._accounts[key.name] = _Account(Bucket(at=now), Bucket(at=now))
        limits = self._limits_of(key)
        self._within_budget(key)
        estimate = math.ceil(body_bytes / BYTES_PER_TOKEN)
        waits = {
            "requests": account.requests.wait_s(1, limits.requests, now) if limits.requests else 0.0,
            "tokens": account.tokens.wait_s(estimate, limits.tokens, now) if limits.tokens else 0.0,
        }
        what = max(waits, key=lambda name: waits[name])
        wait_s = max(waits[what], account.backoff.blocked_s(now))
        if wait_s > 0:
            self._on_refusal(key.name, what)
            wait_s = account.backoff.refuse(wait_s, now)
            per_minute = limits.requests if what == "requests" else limits.tokens
            headers = rate_headers(limits, account.requests, account.tokens, now)
            raise errors.rate_limited(what, per_minute, wait_s, headers)
        account.backoff.admit(now)
        if limits.requests:
            account.requests.take(1, limits.requests)
        taken = account.tokens.take(estimate, limits.tokens) if limits.tokens else 0.0
        return Ticket(key, limits, account, self._on_refusal, estimate=estimate, taken=taken, now=now)

    def _within_budget(self, key: ApiKey) -> None:
        if key.budget == NO_BUDGET:
            return
        now = datetime.now(UTC)
        if over := over_budget(key.budget, self._spent_of(key.name)):
            self._on_refusal(key.name, "budget")
            raise errors.budget_used_up(over, _until_renewed_s(over, now))

    def standing(self, key: ApiKey) -> dict[str, object]:
        """Return what the key may do, what is left of it, and how many requests run and wait."""
        now = self._clock()
        account = self._accounts.get(key.name) or _Account(Bucket(at=now), Bucket(at=now))
        limits = self._limits_of(key)
        left: dict[str, object] = {}
        if limits.requests:
            left["requests"] = account.requests.remaining(limits.requests, now)
        if limits.tokens:
            left["tokens"] = account.tokens.remaining(limits.tokens, now)
        return {
            "limits": limits.model_dump(),
            "remaining": left,
            "running": account.running,
            "waiting": len(account.waiting),
        }

    def waiting(self) -> int:
        """Return how many requests wait for a place of their key."""
        return sum(not turn.done() for account in self._accounts.values() for turn in account.waiting)

    def levels(self) -> dict[str, Level]:
        """Return what is worth keeping over a restart."""
        now = self._clock()
        return {
            name: Level(
                account.requests.spent, now - account.requests.at, account.tokens.spent, now - account.tokens.at
            )
            for name, account in self._accounts.items()
            if account.requests.spent or account.tokens.spent
        }

    def restore(self, levels: Mapping[str, Level], away_s: float) -> None:
        """Take back what was kept `away_s` seconds ago; a wall clock that went back counts as no time."""
        then = self._clock() - max(0.0, away_s)
        for name, level in levels.items():
            self._accounts[name] = _Account(
                Bucket(level.requests, then - level.requests_age_s), Bucket(level.tokens, then - level.tokens_age_s)
            )


NO_BUDGET = Budget()


def over_budget(budget: Budget, spent: Spent) -> str:
    """Return which part of the budget is used up, as the name of its field, or nothing."""
    pairs = {
        "tokens_per_day": (budget.tokens_per_day, spent.tokens_day),
        "tokens_per_month": (budget.tokens_per_month, spent.tokens_month),
        "cost_per_day": (budget.cost_per_day, spent.cost_day),
        "cost_per_month": (budget.cost_per_month, spent.cost_month),
    }
    return next((name for name, (limit, used) in pairs.items() if limit and used >= limit), "")


def _until_renewed_s(part: str, now: datetime) -> int:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if part.endswith("_day"):
        renewed = midnight + timedelta(days=1)
    else:
        renewed = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return math.ceil((renewed - now).total_seconds())


def rate_headers(limits: TierLimits, requests: Bucket, tokens: Bucket, now: float) -> dict[str, str]:
    """Return the headers that clients of OpenAI know: limit, what remains, when it is full again."""
    found: dict[str, str] = {}
    for name, bucket, per_minute in (("requests", requests, limits.requests), ("tokens", tokens, limits.tokens)):
        if per_minute:
            found[f"x-ratelimit-limit-{name}"] = str(per_minute)
            found[f"x-ratelimit-remaining-{name}"] = str(bucket.remaining(per_minute, now))
            found[f"x-ratelimit-reset-{name}"] = duration(bucket.full_in_s(per_minute, now))
    return found


def duration(seconds: float) -> str:
    """Write a time as OpenAI does: `850ms`, `7s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"
