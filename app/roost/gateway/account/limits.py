"""How much each key may do: rates, requests at once, budget. One object a service; only its event loop touches it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from roost.gateway import errors
from roost.gateway.account.buckets import Backoff, Bucket
from roost.gateway.account.budget import NO_BUDGET, Spent, over_budget, until_renewed_s
from roost.gateway.account.places import Account, Ticket, rate_headers, seat
from roost.gateway.replicas import share
from roost.ops.api_keys import ApiKey, TierLimits

BYTES_PER_TOKEN = 4  # of English text in JSON; only until the model server has counted
SHARE_WAIT_S = 0.25  # a request for which other replicas have to be heard first comes again after so long


@dataclass(frozen=True)
class Level:
    """A key's buckets as they are kept over a restart: what was spent, and how many seconds ago that was so.

    `strikes` against its impatience, for how many seconds it is refused because of them, and how long ago it last was.
    """

    requests: float
    requests_age_s: float
    tokens: float
    tokens_age_s: float
    strikes: int = 0
    blocked_s: float = 0.0
    refused_age_s: float = 0.0


@dataclass(frozen=True)
class Count:
    """What one replica says of a key: taken since it began, running there, and the buckets as it knows them."""

    requests: float
    tokens: float
    running: int
    requests_spent: float
    tokens_spent: float
    strikes: int = 0
    blocked_s: float = 0.0


NOTHING = Count(0.0, 0.0, 0, 0.0, 0.0)


class Limiter:
    """Admits requests. `limits_of` gives a key's tier as it is now, `spent_of` what it used of its budget."""

    def __init__(
        self,
        limits_of: Callable[[ApiKey], TierLimits],
        spent_of: Callable[[str], Spent],
        on_refusal: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
        known_limits_of: Callable[[ApiKey], TierLimits] | None = None,
    ) -> None:
        """`known_limits_of` says what was true when the key of the request was looked up, a moment ago."""
        self._limits_of = limits_of
        self._known_limits_of = known_limits_of or limits_of
        self._spent_of = spent_of
        self._on_refusal = on_refusal
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._replicas = 1
        self.on_short: Callable[[], None] = _nothing  # called when other replicas should hear of what was taken

    def admit(self, key: ApiKey, body_bytes: int) -> Ticket:
        """Take a request and the estimated tokens of its prompt.

        Raises:
            ApiError: 429 with `Retry-After`: too fast, or the budget is used up.
        """
        now = self._clock()
        account = self._account(key.name, now)
        limits = self._known_limits_of(key)
        self._within_budget(key)
        estimate = math.ceil(body_bytes / BYTES_PER_TOKEN)
        waits = self._waits(account, limits, estimate, now)
        what = max(waits, key=lambda name: waits[name])
        wait_s = max(waits[what], account.backoff.blocked_s(now))
        if wait_s > 0:
            wait_s = account.backoff.refuse(wait_s, now)
        else:
            # What other replicas have to hear of first is no impatience of the key.
            what = next((name for name, fits in _fits(account, limits, estimate).items() if not fits), "")
            wait_s = SHARE_WAIT_S if what else 0.0
        if wait_s > 0:
            self._on_refusal(key.name, what)
            per_minute = limits.requests if what == "requests" else limits.tokens
            headers = rate_headers(limits, account.requests, account.tokens, now)
            raise errors.rate_limited(what, per_minute, wait_s, headers)
        account.backoff.admit(now)
        if limits.requests:
            account.requests_taken.total += account.requests.take(1, limits.requests)
        taken = account.tokens.take(estimate, limits.tokens) if limits.tokens else 0.0
        account.tokens_taken.total += taken
        if _runs_short(account, limits):
            self.on_short()
        return Ticket(
            key,
            limits,
            account,
            self._on_refusal,
            estimate=estimate,
            taken=taken,
            now=now,
            limits_now=lambda: self._limits_of(key),
        )

    def has_share(self, key: ApiKey, body_bytes: int) -> bool:
        """Say whether `admit` would not refuse only because other replicas have not heard yet of what was taken."""
        if self._replicas <= 1:
            return True
        now = self._clock()
        account, limits = self._account(key.name, now), self._known_limits_of(key)
        estimate = math.ceil(body_bytes / BYTES_PER_TOKEN)
        if any(self._waits(account, limits, estimate, now).values()):
            return True
        return all(_fits(account, limits, estimate).values())

    def _account(self, name: str, now: float) -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(Bucket(at=now), Bucket(at=now), replicas=self._replicas)
        return account

    @staticmethod
    def _waits(account: Account, limits: TierLimits, estimate: int, now: float) -> dict[str, float]:
        return {
            "requests": account.requests.wait_s(1, limits.requests, now) if limits.requests else 0.0,
            "tokens": account.tokens.wait_s(estimate, limits.tokens, now) if limits.tokens else 0.0,
        }

    def _within_budget(self, key: ApiKey) -> None:
        if key.budget == NO_BUDGET:
            return
        now = datetime.now(UTC)
        if over := over_budget(key.budget, self._spent_of(key.name)):
            self._on_refusal(key.name, "budget")
            raise errors.budget_used_up(over, until_renewed_s(over, now))

    def standing(self, key: ApiKey) -> dict[str, object]:
        """Return what the key may do, what is left of it, and how many requests run and wait."""
        now = self._clock()
        account = self._accounts.get(key.name) or Account(Bucket(at=now), Bucket(at=now))
        limits = self._limits_of(key)
        left: dict[str, object] = {}
        if limits.requests:
            left["requests"] = account.requests.remaining(limits.requests, now)
        if limits.tokens:
            left["tokens"] = account.tokens.remaining(limits.tokens, now)
        return {
            "limits": limits.model_dump(),
            "remaining": left,
            "running": account.running + account.elsewhere,
            "waiting": len(account.waiting),
        }

    def waiting(self) -> int:
        """Return how many requests wait for a place of their key."""
        return sum(not turn.done() for account in self._accounts.values() for turn in account.waiting)

    # --- What is kept over a restart ------------------------------------------------------------------------------

    def levels(self) -> dict[str, Level]:
        """Return what is worth keeping over a restart."""
        now = self._clock()
        return {
            name: Level(
                account.requests.spent,
                now - account.requests.at,
                account.tokens.spent,
                now - account.tokens.at,
                account.backoff.strikes,
                account.backoff.blocked_s(now),
                now - account.backoff.refused_at if account.backoff.strikes else 0.0,
            )
            for name, account in self._accounts.items()
            if account.requests.spent or account.tokens.spent or account.backoff.strikes
        }

    def restore(self, levels: Mapping[str, Level], away_s: float) -> None:
        """Take back what was kept `away_s` seconds ago; a wall clock that went back counts as no time."""
        then = self._clock() - max(0.0, away_s)
        for name, level in levels.items():
            self._accounts[name] = account = Account(
                Bucket(level.requests, then - level.requests_age_s),
                Bucket(level.tokens, then - level.tokens_age_s),
                replicas=self._replicas,
            )
            if level.strikes:
                account.backoff = Backoff(
                    level.strikes, then + level.blocked_s, then - level.refused_age_s, then - level.refused_age_s
                )

    # --- What replicas tell each other ----------------------------------------------------------------------------

    def counts(self) -> dict[str, Count]:
        """Return what other replicas should know."""
        now = self._clock()
        return {
            name: Count(
                account.requests_taken.total,
                account.tokens_taken.total,
                account.running,
                account.requests.spent,
                account.tokens.spent,
                account.backoff.strikes,
                account.backoff.blocked_s(now),
            )
            for name, account in self._accounts.items()
        }

    def hear(self, name: str, requests: float, tokens: float) -> None:
        """Count what another replica has taken for a key since it last said so; less than 0 is given back."""
        account = self._account(name, self._clock())
        account.requests.settle(requests)
        account.tokens.settle(tokens)

    def adopt(self, name: str, said: Count, *, unknown_there: tuple[float, float] = (0.0, 0.0)) -> None:
        """Take over a bucket's level from a replica that was not heard for long, or never, if it is the higher one.

        `unknown_there` are requests and tokens that were taken here, and of which it has not heard.
        """
        account = self._account(name, self._clock())
        account.requests.spent = max(account.requests.spent, said.requests_spent + unknown_there[0])
        account.tokens.spent = max(account.tokens.spent, said.tokens_spent + unknown_there[1])

    def hear_strikes(self, name: str, strikes: int, blocked_s: float) -> None:
        """Treat a key here as impatient as it was elsewhere."""
        now = self._clock()
        backoff = self._account(name, now).backoff
        if strikes > backoff.strikes:
            backoff.strikes = strikes
            backoff.struck_at = backoff.refused_at = now
            backoff.until = max(backoff.until, now + blocked_s)

    def share_with(self, replicas: int, heard: Mapping[str, Count] | None, elsewhere: Mapping[str, int]) -> None:
        """Note how many replicas there are, what all of them have heard of this one, and what runs at the others.

        `heard` None: there is nobody who would have to hear.
        """
        self._replicas = replicas
        for name, account in self._accounts.items():
            account.replicas = replicas
            account.elsewhere = elsewhere.get(name, 0)
            if heard is None:
                account.requests_taken.heard = account.requests_taken.total
                account.tokens_taken.heard = account.tokens_taken.total
                account.running_heard = account.running
            else:
                said = heard.get(name, NOTHING)
                account.requests_taken.heard, account.tokens_taken.heard = said.requests, said.tokens
                account.running_heard = said.running
            seat(account, account.limit)


def _nothing() -> None:
    """Stand for nobody who wants to know."""


def _fits(account: Account, limits: TierLimits, estimate: int) -> dict[str, bool]:
    """Say of each limit whether this replica's share still has room."""
    if account.replicas <= 1:
        return {}  # all of it is this one's
    wanted = (
        ("requests", 1, account.requests, account.requests_taken, limits.requests),
        ("tokens", estimate, account.tokens, account.tokens_taken, limits.tokens),
    )
    return {
        name: not limit or share.fits(amount, bucket.spent, taken.unheard, limit, account.replicas)
        for name, amount, bucket, taken, limit in wanted
    }


def _runs_short(account: Account, limits: TierLimits) -> bool:
    if account.replicas <= 1:
        return False
    wanted = (
        (account.requests, account.requests_taken, limits.requests),
        (account.tokens, account.tokens_taken, limits.tokens),
    )
    return any(
        limit and share.runs_short(bucket.spent, taken.unheard, limit, account.replicas)
        for bucket, taken, limit in wanted
    )
