"""One request's place among those of its key that run at once, first come first served, and what was taken for it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from roost.gateway import errors
from roost.gateway.account.buckets import Backoff, Bucket
from roost.gateway.replicas import share
from roost.gateway.replicas.share import Taken
from roost.ops.api_keys import ApiKey, TierLimits

LOOK_AGAIN_S = 1.0  # at the limit, while waiting


@dataclass
class Account:
    """What is taken of a key's limits, here and, as heard, by other replicas."""

    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    backoff: Backoff = field(default_factory=Backoff)
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    requests_taken: Taken = field(default_factory=Taken)
    tokens_taken: Taken = field(default_factory=Taken)
    running_heard: int = 0  # what ran here when the other replicas last heard of it
    elsewhere: int = 0  # what runs at them
    limit: int = 0  # of requests at once, as those who wait know it
    replicas: int = 1

    def places(self, limit: int) -> int:
        """Return how many requests may run here at once."""
        return share.places(limit, self.elsewhere, self.running_heard, self.replicas)


class Ticket:
    """One admitted request: what was taken for it, and its way to a place among the key's concurrent ones."""

    def __init__(
        self,
        key: ApiKey,
        limits: TierLimits,
        account: Account,
        on_refusal: Callable[[str, str], None],
        *,
        estimate: int,
        taken: float,
        now: float,
        limits_now: Callable[[], TierLimits],
    ) -> None:
        self.key = key
        self._limits_now = limits_now
        self.estimate = estimate  # tokens of the prompt
        self.more = 0  # tokens of answers that were not passed on
        self._account = account
        self._limits = limits
        self._taken = taken
        self._on_refusal = on_refusal
        self.headers = rate_headers(limits, account.requests, account.tokens, now)

    def place(self, patience_s: float) -> Place:
        """Hold one of the key's concurrent places, first come first served.

        Raises, when it is entered:
            ApiError: 429, too many wait already, or no place came free within `patience_s` seconds.
        """
        return Place(self, patience_s)

    async def take(self, patience_s: float) -> None:
        """Take a place; see `place`."""
        account, limits = self._account, self._limits
        if limits.concurrent and account.running >= account.places(limits.concurrent):
            await self._queue(patience_s)
        else:
            account.running += 1

    def give_back(self) -> None:
        """Give the place back."""
        release(self._account, self._limits.concurrent)

    async def _queue(self, patience_s: float) -> None:
        account, limits = self._account, self._limits
        if len(account.waiting) >= limits.waiting:
            raise self._too_many()
        account.limit = limits.concurrent
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        account.waiting.append(turn)
        try:
            async with asyncio.timeout(patience_s):
                while not (await asyncio.wait({turn}, timeout=LOOK_AGAIN_S))[0]:
                    account.limit = self._limits_now().concurrent  # somebody may have raised it
                    seat(account, account.limit)
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                release(account, limits.concurrent)  # the place was given just then
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
        tokens += self.more
        if self._limits.tokens:
            self._account.tokens.settle(tokens - self._taken)
            self._account.tokens_taken.total += tokens - self._taken
        self._taken = float(tokens)


class Place:
    """One of a key's concurrent places, held while the context is open: see `Ticket.place`."""

    def __init__(self, ticket: Ticket, patience_s: float) -> None:
        self._ticket = ticket
        self._patience_s = patience_s

    async def __aenter__(self) -> Ticket:
        await self._ticket.take(self._patience_s)
        return self._ticket

    async def __aexit__(self, *_error: object) -> None:
        self._ticket.give_back()


def release(account: Account, limit: int) -> None:
    """Give a place back, to whoever waits."""
    account.running -= 1
    seat(account, limit)


def seat(account: Account, limit: int) -> None:
    """Give free places to those who wait, first come first served."""
    while account.waiting and (not limit or account.running < account.places(limit)):
        turn = account.waiting.popleft()
        if not turn.done():
            account.running += 1
            turn.set_result(None)


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
