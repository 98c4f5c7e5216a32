"""One model server that somebody says exists, and what is believed of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from roost.engines.base import Engine, Report, State
from roost.fleet.endpoint_list import HandEndpoint
from roost.gateway.routing import View

NOMAD, BY_HAND, SETTINGS = "nomad", "by hand", "settings"  # where a member comes from


@dataclass(frozen=True)
class Member:
    """A model server that somebody says exists: its slot and base URL; what it serves and how, if told beforehand.

    `job` and `allocation` are Nomad's names for it; `keeps_slots` says that it can save what its slots hold.
    """

    slot: str
    base_url: str
    models: tuple[str, ...] = ()
    engine: str = ""
    job: str = ""
    allocation: str = ""
    adapters: tuple[str, ...] = ()
    keeps_slots: bool = False
    tier: str = ""
    source: str = NOMAD
    by_name: bool = False  # see `View`
    node: str = ""  # Nomad's id of its host
    hand: HandEndpoint | None = None  # how to speak to it, if somebody added it

    @property
    def id(self) -> str:
        """Return a name for the endpoint that is stable as long as its address is, or as it is called so by hand."""
        if self.hand:
            return self.slot if self.slot == self.hand.name else f"{self.slot}@{self.hand.name}"
        return f"{self.slot}@{self.base_url.split('://', 1)[-1]}"


def same_server(one: Member, other: Member) -> bool:
    """Say whether two members of one address are the same server, and to be spoken to in the same way."""
    return (one.allocation, one.engine, one.keeps_slots, one.hand) == (
        other.allocation,
        other.engine,
        other.keeps_slots,
        other.hand,
    )


class Endpoint:
    """One member with the client that talks to it and the newest belief about it."""

    def __init__(self, member: Member, engine: Engine) -> None:
        self.member = member
        self.engine = engine
        self.report = Report(
            State.LOADING, models=member.models, reason="it was not probed yet", adapters=member.adapters
        )
        self.in_flight = 0
        self.last_used = time.monotonic()
        self._scopes: set[asyncio.Timeout] = set()
        self.look_now = asyncio.Event()

    @property
    def id(self) -> str:
        """Return the member's name."""
        return self.member.id

    def view(self) -> View:
        """Return what routing needs to know."""
        report = self.report
        return View(
            id=self.id,
            slot=self.member.slot,
            state=report.state,
            models=report.models,
            slots=report.slots,
            in_flight=self.in_flight,
            reason=report.reason,
            job=self.member.job,
            adapters=report.adapters,
            tier=self.member.tier,
            cold_models=frozenset(name for name in report.details if report.state_of(name) is not State.READY),
            by_name=self.member.by_name,
            source=self.member.source,
        )

    @contextmanager
    def lease(self, scope: asyncio.Timeout) -> Iterator[None]:
        """Count a request as in flight; `scope` runs out if the endpoint is found stuck meanwhile."""
        self.in_flight += 1
        self._scopes.add(scope)
        try:
            yield
        finally:
            self.in_flight -= 1
            self.last_used = time.monotonic()
            self._scopes.discard(scope)

    def release_waiters(self) -> None:
        """Let the requests in flight fail, because nothing will come."""
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)
