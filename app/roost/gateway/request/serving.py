"""One request on its way to an answer: a seat at an endpoint, an attempt there, and others while that makes sense."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from pydantic_core import from_json
from starlette.types import Send

from roost.engines.base import Skill
from roost.gateway import errors
from roost.gateway.balance.balancer import Balancer, Order, Seat
from roost.gateway.balance.continuing import Transcript, closing, why_not
from roost.gateway.balance.measures import Measures
from roost.gateway.balance.prefix import blocks_of
from roost.gateway.choice.cascade import RejectedAnswerError
from roost.gateway.choice.chooser import Chooser
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.errors import ApiError
from roost.gateway.metrics import Metrics
from roost.gateway.registry import Registry
from roost.gateway.request.attempt import Attempts, CannotContinueError
from roost.gateway.request.exchange import Exchange
from roost.gateway.request.relay import InterruptedStreamError, UnansweredError
from roost.gateway.request.requests import ParsedRequest
from roost.gateway.routing import ADAPTER_MARK, Route, View
from roost.gateway.settings import Settings
from roost.gateway.warm.keeper import Keeper
from roost.ops.api_keys import ApiKey

log = structlog.get_logger(__name__)

NO_OTHER = "no other server of the same model file came in time"
DEATHS_ALLOWED = 2  # a request under which two model servers died is not tried on a third,
EARLY_S = 0.5  # what a request does to a server it does at once; one that worked on it longer died of something else,
LATE_DEATHS_ALLOWED = 6  # most likely, and somebody must have the last word
UNRELATED = 3  # unless others died meanwhile without it; so many of them count


@dataclass(frozen=True)
class Staff:
    """What all requests share."""

    settings: Settings
    registry: Registry
    keeper: Keeper
    chooser: Chooser
    balancer: Balancer
    attempts: Attempts
    metrics: Metrics
    measures: Measures


@dataclass
class Serving:
    """Serves one request. `since` is when it began to have no endpoint at work on it."""

    staff: Staff
    key: ApiKey
    name: str
    request: ParsedRequest
    exchange: Exchange
    send: Send
    since: float = field(default_factory=time.monotonic)
    tried: set[str] = field(default_factory=set)
    deaths: int = 0  # since the client got something last
    late_deaths: int = 0
    all_deaths: int = 0
    deaths_before: int = 0
    tries: int = 0
    events: int = 0  # that the client had at the last interruption
    blocks: tuple[int, ...] | None = None  # of the prompt, once they are known
    found: tuple[Route, bool, list[View]] | None = None  # what `_able` said last, and of what

    async def run(self) -> None:
        """Find an endpoint, try it, and go on to others.

        Raises:
            ApiError: no endpoint could answer, or go on with the stream.
            RejectedAnswerError: the answer is not good enough, and a stronger model shall try.
        """
        settings, registry = self.staff.settings, self.staff.registry
        self.deaths_before = self.staff.balancer.deaths
        patience = self.exchange.wait_s
        while True:
            if not self.exchange.begun:
                self.name = self.staff.chooser.again(self.exchange.decided, self.key, self.name)
            route = registry.route(self.name, self.key)
            if not (route.ready or route.known):
                raise errors.model_not_found(self.request.model)
            waited = time.monotonic() - self.since
            used = route
            if not route.ready:
                if route.moves:
                    patience = max(patience, self.exchange.move_wait_s)
                for job in route.cold:
                    patience = max(patience, settings.start_wait_s)
                    self.staff.keeper.want(job, patience)
                used = self._substitute(route, waited) or route
            if self._able(used):
                if await self._answered(route, used, patience - waited):
                    return
                continue
            if waited >= patience:
                raise errors.model_unavailable(self.request.model, route.reason or NO_OTHER)
            until = settings.fallback_after_s if waited < settings.fallback_after_s else patience
            with self.staff.metrics.waiting("model"):
                await registry.changed(min(until, patience) - waited)

    async def _answered(self, route: Route, used: Route, within_s: float) -> bool:
        """Try once, at the endpoint that has or gets a place for it; return whether that was the end of it."""
        seat = await self._seat(route, used, within_s)
        if seat is None:
            return False
        staff, exchange = self.staff, self.exchange
        endpoint = staff.registry.get(seat.endpoint)
        if endpoint is None or seat.endpoint not in used.ready:
            staff.balancer.leave(seat)
            return False
        self.tries += 1
        self._name(endpoint, seat, route, used)
        failed: bool | None = None
        lost = False
        problem: UnansweredError | InterruptedStreamError | None = None
        began = time.monotonic()
        try:
            did = await staff.attempts.make(endpoint, self.request, exchange, self.send)
            failed = None if did is None else not did
        except (UnansweredError, InterruptedStreamError) as error:
            problem, lost = error, True
            failed = True if _died(error) else None  # what cannot be reached, or loads, is the registry's to judge
        except CannotContinueError as error:
            raise errors.stream_interrupted(exchange.broke, str(error)) from None
        except RejectedAnswerError:
            failed = False
            raise
        except ApiError as error:
            failed = error.status == 502
            raise
        finally:
            staff.balancer.leave(seat, failed=failed, lost=lost)
        if problem:
            worked_s = time.monotonic() - began
            self.since += worked_s  # it did not wait while an endpoint was at work on it
            return await self._given_up(endpoint, seat, problem, within_s, worked_s)
        if tokens := exchange.tokens:
            staff.balancer.learn(seat, tokens.prompt, tokens.cached, tokens.completion)
        return True

    async def _seat(self, route: Route, used: Route, within_s: float) -> Seat | None:
        staff = self.staff
        if self.tries and not staff.balancer.retry():
            raise errors.too_many_retries(self.exchange.broke or "an attempt failed")

        def able() -> Sequence[View]:
            if used is route:
                return self._able(staff.registry.route(self.name, self.key))  # the first time that of `run`
            now = staff.registry.substitute(self.name, staff.settings.model_fallbacks, self.key)
            return self._able(now) if now else ()

        return await staff.balancer.seat(self._order(used, own=used is route), able, self.tried, within_s)

    def _order(self, used: Route, *, own: bool) -> Order:
        """Return what the request needs; `own`: of the model that was asked for."""
        kind, exchange = self.request.kind, self.exchange
        if self.blocks is None:
            seed = f"{next(iter(used.ready.values()))}{ADAPTER_MARK}{used.adapter}"
            generates = kind.skill is Skill.GENERATE
            self.blocks = blocks_of(self.request.body, kind.prompt_field, seed) if generates else ()
        return Order(
            key=self.key.name,
            group=(self.name, self.key.models, kind.skill, own, exchange.begun and exchange.fingerprint),
            blocks=self.blocks,
            prompt_bytes=len(self.request.body),
            answer=self.request.answer if kind.skill is Skill.GENERATE else 1,
            session=exchange.session,
            takes_slot=kind.skill is not Skill.TOKENIZE,
            again=self.tries > 0,
        )

    def _able(self, route: Route) -> list[View]:
        """Return the ready endpoints of a route that have what the request needs.

        Raises:
            ApiError: there are ready ones, and none has it.
        """
        registry, exchange = self.staff.registry, self.exchange
        if self.found and self.found[0] is route and self.found[1] == exchange.begun:
            return self.found[2]  # the registry gives the same route while nothing has changed
        able: list[View] = []
        skilled = False
        for view in registry.standing().views:
            endpoint = registry.get(view.id) if view.id in route.ready else None
            if endpoint and self.request.kind.skill not in endpoint.report.lacks_of(route.ready[view.id]):
                skilled = True
                if not exchange.begun or endpoint.report.fingerprint == exchange.fingerprint:
                    able.append(view)
        if route.ready and not skilled:
            raise errors.not_able(self.request.model, self.request.kind.skill)
        self.found = route, exchange.begun, able
        return able

    def _substitute(self, route: Route, waited_s: float) -> Route | None:
        """Return who may answer while the chosen model cannot; a moment's absence is waited for."""
        settings, exchange = self.staff.settings, self.exchange
        if exchange.begun or not exchange.forgiving or (not route.cold and waited_s < settings.fallback_after_s):
            return None
        return self.staff.registry.substitute(self.name, settings.model_fallbacks, self.key)

    def _name(self, endpoint: Endpoint, seat: Seat, route: Route, used: Route) -> None:
        exchange, request = self.exchange, self.request
        exchange.engine = endpoint.member.engine
        exchange.seat, exchange.asked_as = seat, used.ready[endpoint.id]
        if exchange.begun:
            exchange.continued.append(endpoint.id)
            return
        exchange.model, exchange.endpoint, exchange.adapter = used.ready[endpoint.id], endpoint.id, used.adapter
        if request.stream and request.kind.skill is Skill.GENERATE:
            exchange.transcript = Transcript(request.kind)
        if used is route:
            exchange.instead_of = exchange.why_instead = ""
            return
        exchange.instead_of = request.model
        exchange.why_instead = route.state.value

    async def _given_up(
        self,
        endpoint: Endpoint,
        seat: Seat,
        problem: UnansweredError | InterruptedStreamError,
        within_s: float,
        worked_s: float,
    ) -> bool:
        """Decide what becomes of a request whose endpoint failed after some seconds; return False if it is tried again.

        Raises:
            ApiError: it is not.
        """
        exchange, reason = self.exchange, problem.reason
        broke = isinstance(problem, InterruptedStreamError)
        died = _died(problem)
        self.staff.metrics.failover("interrupted" if broke else "died" if died else "unavailable")
        exchange.lost(reason)
        log.warning("failover", request_id=exchange.request_id, endpoint=endpoint.id, reason=reason, begun=broke)
        if broke:
            exchange.broke = reason
            if exchange.events > self.events:  # it got on meanwhile
                self.events, self.deaths, self.since, self.tried = exchange.events, 0, time.monotonic(), set()
                self.late_deaths = 0
            if why := self._why_final():
                raise errors.stream_interrupted(reason, why)
            if end := self._missing_end():
                await self.send({"type": "http.response.body", "body": end})
                return True
        died = died and not self.staff.balancer.came_late(seat)
        early = died and worked_s < EARLY_S
        self.deaths += early
        self.late_deaths += died and not early
        self.all_deaths += died
        again = endpoint.id in self.tried
        self.tried.add(endpoint.id)
        if self.deaths >= DEATHS_ALLOWED + self._unrelated() or self.late_deaths >= LATE_DEATHS_ALLOWED:
            raise errors.engine_failed(reason)
        if again and not died and within_s <= 0:
            raise errors.model_unavailable(self.request.model, reason)
        if again:
            await asyncio.sleep(self.staff.balancer.pause_s(self.tries))
        return False

    def _unrelated(self) -> int:
        """Return how many model servers died since the request began that did not work on it: it is not to blame."""
        return min(UNRELATED, max(0, self.staff.balancer.deaths - self.deaths_before - self.all_deaths))

    def _why_final(self) -> str:
        """Say why a stream that broke off cannot go on at any other endpoint, or nothing."""
        exchange = self.exchange
        if exchange.transcript is None:
            return "it is no answer in text"
        if not exchange.fingerprint:
            return "which model file its server had is not known"
        if exchange.was_cut:
            return "its conversation had been cut to fit"
        document = from_json(self.request.body)
        if why := why_not(exchange.kind, document):
            return why
        exchange.transcript.text()
        if exchange.transcript.finished and closing(exchange.kind, document) is None:
            return "it was complete but for what only that server could say"
        return exchange.transcript.more

    def _missing_end(self) -> bytes | None:
        """Return what a stream lacks that was complete but for its end."""
        transcript = self.exchange.transcript
        if transcript is None or not transcript.finished:
            return None
        return closing(self.exchange.kind, from_json(self.request.body))


def _died(problem: UnansweredError | InterruptedStreamError) -> bool:
    return isinstance(problem, InterruptedStreamError) or problem.died
