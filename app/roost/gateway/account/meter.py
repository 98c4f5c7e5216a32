"""What stands between a key and the models: limits before a request, its account after it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from roost.gateway.account.accountant import Accountant, Pace
from roost.gateway.account.accounting import Tokens
from roost.gateway.account.ledger import Strikes
from roost.gateway.account.limits import Limiter
from roost.gateway.account.places import Ticket
from roost.gateway.account.usage import Use, cost_of, energy_of, price_of
from roost.gateway.auth import Keys
from roost.gateway.metrics import Metrics
from roost.gateway.penalties import Slowdown
from roost.gateway.replicas.exchange import Replicas
from roost.gateway.settings import Settings
from roost.ops.api_keys import ApiKey

SHARE_TRIES = 4
SHARE_WAIT_S = 0.25
GONE = frozenset({0, 499})  # the service stops, or the client left: the model server worked, but never said how much


@dataclass(frozen=True)
class Outcome:
    """How a request ended. `tokens` None: the model server did not count; then `events` of the answer were seen.

    `busy_ms` is how long the model server was at it as seen from outside, for one that does not say.
    """

    model: str
    status: int
    tokens: Tokens | None
    events: int
    busy_ms: float


class Meter:
    """One object a service."""

    def __init__(self, settings: Settings, keys: Keys, metrics: Metrics) -> None:
        self.currency = settings.usage_currency
        self._prices = settings.usage_prices
        self._watts = settings.usage_watts
        self._metrics = metrics
        self.wrong_keys, self.violations = Slowdown(), Slowdown()
        self._slowdowns = {"key": self.wrong_keys, "request": self.violations}
        self.limiter = Limiter(
            keys.limits, lambda name: self.accountant.spent(name), self._refused, known_limits_of=keys.known_limits
        )
        pace = Pace(settings.usage_sync_s, settings.usage_absorb_s, keep_days=settings.usage_keep_days)
        self.accountant = Accountant(
            settings.state_dir, pace, self.limiter.levels, metrics.usage_trouble, self._kept_strikes
        )
        self.limiter.restore(*self.accountant.kept_levels())
        kept = self.accountant.kept_strikes()
        for kind, slowdown in self._slowdowns.items():
            slowdown.restore((each.who, each.strikes, each.age_s) for each in kept if each.kind == kind)
            slowdown.on_strike = self.accountant.touch
        self.replicas: Replicas | None = None  # the other gateways, where there are any

    @asynccontextmanager
    async def running(self, on_death: Callable[[str], None]) -> AsyncIterator[None]:
        """Write the accounts down while the context is open."""
        async with self.accountant.running(on_death):
            if self.replicas is None:
                yield
                return
            async with self.replicas.running(on_death):
                yield
                with suppress(sqlite3.Error):
                    await self.accountant.absorb()
                await self.replicas.leave()

    def _refused(self, name: str, reason: str) -> None:
        self._metrics.refused(name, reason)
        self.accountant.touch()

    def _kept_strikes(self) -> list[Strikes]:
        return [
            Strikes(kind, who, strikes, age_s)
            for kind, slowdown in self._slowdowns.items()
            for who, strikes, age_s in slowdown.kept()
        ]

    async def admit(self, key: ApiKey, body_bytes: int) -> Ticket:
        """Let a request of a key in; what other replicas have to hear of first waits a moment.

        Raises:
            ApiError: 429, it has to wait.
        """
        if self.replicas is not None:
            for _ in range(SHARE_TRIES):
                if self.limiter.has_share(key, body_bytes):
                    break
                await self.replicas.heard(SHARE_WAIT_S)
        return self.limiter.admit(key, body_bytes)

    def settle(self, ticket: Ticket, outcome: Outcome) -> None:
        """Count a request that is over. When this returns, the end of the process no longer loses it."""
        if not outcome.model:  # it came to no model
            ticket.settle(0)
            return
        use = self._use(ticket, outcome)
        ticket.settle(use.prompt + use.completion)
        self.accountant.record(use)

    def charge(self, ticket: Ticket, outcome: Outcome) -> None:
        """Count an answer that was not passed on, beside the one that will be."""
        use = self._use(ticket, outcome)
        ticket.more += use.prompt + use.completion
        self.accountant.record(use)

    def _use(self, ticket: Ticket, outcome: Outcome) -> Use:
        tokens = outcome.tokens
        estimated = tokens is None and (outcome.events > 0 or outcome.status in GONE)
        if tokens is None:
            tokens = Tokens(ticket.estimate, outcome.events) if estimated else Tokens(0, 0)
        worked = tokens.engine_ms or (outcome.busy_ms if estimated or outcome.status < 400 else 0.0)
        return Use(
            at=time.time(),
            key=ticket.key.name,
            model=outcome.model,
            status=outcome.status,
            prompt=tokens.prompt,
            cached=tokens.cached,
            completion=tokens.completion,
            engine_ms=round(worked, 1),
            estimated=estimated,
            cost=cost_of(tokens.prompt, tokens.cached, tokens.completion, price_of(self._prices, outcome.model)),
            energy_j=energy_of(worked, self._watts),
        )
