"""Seats requests at endpoints: keeps account of what each has to do and holds, lets others wait in fair order."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field

import structlog

from roost.gateway import errors
from roost.gateway.balance.breaker import Breaker, RetryBudget, pause_s
from roost.gateway.balance.fair import FairQueue
from roost.gateway.balance.held import MOST_BLOCKS, Held
from roost.gateway.balance.measures import Measures
from roost.gateway.balance.pick import READING, Candidate, Picked, Why, pick
from roost.gateway.balance.prefix import BLOCK_BYTES
from roost.gateway.routing import View

log = structlog.get_logger(__name__)

BYTES_PER_TOKEN = 4.0  # until answers have told better
ANSWER_TOKENS = 256.0  # likewise
LEARNING = 0.05  # how much one answer changes such an average
SESSIONS = 10_000
ALL_BLOCKS = 65_536  # of all endpoints together: about 15 MB
LONGEST_ADVICE_S = 60
WORTH_TOKENS = 128  # expected in a cache and not found there: then more than a few blocks were guessed wrong


@dataclass(frozen=True)
class Order:
    """What a request needs. `group` is the same for requests that any endpoint could take alike.

    `blocks` are the hashes of its prompt's beginning, `prompt_bytes` its length; `answer` the longest answer in tokens,
    if the client says. A request that is no work for a slot (counting) `takes_slot` not; `again`: it had a place, and
    its endpoint failed.
    """

    key: str
    group: Hashable
    blocks: tuple[int, ...] = ()
    prompt_bytes: int = 0
    answer: int | None = None
    session: str = ""
    takes_slot: bool = True
    again: bool = False


@dataclass
class _Load:
    """One endpoint: requests that run there, tokens that it still has to do, what it holds."""

    running: int = 0
    work: float = 0.0
    held: Held = field(default_factory=Held)
    breaker: Breaker = field(default_factory=Breaker)
    died: float | None = None  # when its process was lost, until it is there again


@dataclass(eq=False)
class Seat:
    """A request's place at an endpoint. `expected` are the tokens of its prompt that the endpoint should hold."""

    endpoint: str
    why: Why
    order: Order
    expected: int
    load: _Load
    reading: float  # work still to be done, of both kinds
    writing: float
    slots: int | None
    began: float
    waited_s: float = 0.0

    def wrote(self, tokens: int) -> None:
        """Take note that the prompt was read, and that so many tokens of the answer have come."""
        done = self.reading + min(self.writing, float(tokens))
        self.writing = max(0.0, self.writing - tokens)
        self.reading = 0.0
        self.load.work = max(0.0, self.load.work - done)


@dataclass(eq=False)
class _Waiter:
    order: Order
    able: Callable[[], Collection[View]]
    tried: Collection[str]
    since: float
    seat: asyncio.Future[Seat | None]
    choosy: bool = True  # it may wait for a better endpoint than a free one


class Balancer:
    """One object a service; only its event loop touches it.

    `queue_limit` is how many requests may wait, `warm_wait_s` how long one of them may wait for an endpoint that holds
    its conversation while another one is free.
    """

    def __init__(
        self,
        measures: Measures,
        *,
        queue_limit: int = 512,
        warm_wait_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._measures = measures
        self._queue_limit = queue_limit
        self._warm_wait_s = warm_wait_s
        self._clock = clock
        self._chance = chance
        self._loads: dict[str, _Load] = {}
        self._queue: FairQueue[_Waiter] = FairQueue()
        self._sessions: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._retries = RetryBudget(at=clock())
        self._bytes_per_token = BYTES_PER_TOKEN
        self._answer = ANSWER_TOKENS
        self._took_s = 1.0
        self.deaths = 0  # of model servers, each once however many requests it had

    @property
    def waiting(self) -> int:
        """Return how many requests wait for a slot."""
        return len(self._queue)

    async def seat(
        self, order: Order, able: Callable[[], Collection[View]], tried: Collection[str], within_s: float
    ) -> Seat | None:
        """Wait for a place at one of the endpoints that `able` gives, now and later; None as soon as it gives none.

        Raises:
            ApiError: 429 too many wait, 503 no place came free within that time; what `able` raises.
        """
        views = able()
        if not views:
            return None
        if not self._queue:  # else others were here before
            picked = self._pick(order, views, tried, may_wait=self._warm_wait_s > 0)
            if picked.id:
                self._queue.charge(order.key, self._cost(order))
                return self._sit(order, views, picked, 0.0)
        if not order.again:  # it had a place before
            self._make_room(order.key)
        return await self._wait(order, able, tried, within_s)

    async def _wait(
        self, order: Order, able: Callable[[], Collection[View]], tried: Collection[str], within_s: float
    ) -> Seat | None:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(order, able, tried, self._clock(), loop.create_future())
        self._queue.add(order.key, self._cost(order), waiter, first=order.again)
        self._give_seats()
        patience = loop.call_later(self._warm_wait_s, self._hurry, waiter)
        try:
            async with asyncio.timeout(within_s):
                seat = await waiter.seat
        except BaseException as error:
            if waiter.seat.done() and not waiter.seat.cancelled() and not waiter.seat.exception():
                late = waiter.seat.result()
                if late:  # it was given just then
                    self.leave(late)
            if isinstance(error, TimeoutError):
                self._measures.refused("late")
                raise errors.overloaded(len(self._queue), self._advice_s()) from None
            raise
        finally:
            patience.cancel()
            self._queue.discard(order.key, waiter)
        return seat

    def _hurry(self, waiter: _Waiter) -> None:
        waiter.choosy = False
        self._give_seats()

    def _make_room(self, key: str) -> None:
        """Let one more wait; where too many do, the newest of the key of which most wait has to go.

        Raises:
            ApiError: 429, that is this one.
        """
        if len(self._queue) < self._queue_limit:
            return
        self._measures.refused("full")
        refusal = errors.queue_full(len(self._queue), self._advice_s())
        longest = self._queue.longest()
        if self._queue.waiting(longest) <= self._queue.waiting(key) + 1:
            raise refusal
        waiter = self._queue.newest(longest)
        self._queue.discard(longest, waiter)
        if not waiter.seat.done():
            waiter.seat.set_exception(refusal)

    def came_late(self, seat: Seat) -> bool:
        """Say whether a request came to an endpoint that was dead already: then it did not kill it."""
        return seat.load.died is not None and seat.began > seat.load.died

    def renewed(self, endpoint: str) -> None:
        """Take note that a server is there again: it holds nothing, and what failed there was another process."""
        if load := self._loads.get(endpoint):
            load.held.clear()
            load.breaker, load.died = Breaker(), None

    def gone(self, endpoint: str) -> None:
        """Forget an endpoint that is not there any more; what runs on it keeps its own account."""
        self._loads.pop(endpoint, None)

    def changed(self) -> None:
        """Look again at who can be seated: endpoints came, went, or changed."""
        if self._queue:
            asyncio.get_running_loop().call_soon(self._give_seats)

    def _give_seats(self) -> None:
        """Seat those who wait, in fair order, as long as there is a free endpoint for any of them."""
        groups: dict[Hashable, Collection[View]] = {}
        full: set[Hashable] = set()
        now = self._clock()
        for waiter in list(self._queue):
            order = waiter.order
            if waiter.seat.done() or order.group in full:
                continue
            try:
                if order.group not in groups:
                    groups[order.group] = waiter.able()
            except errors.ApiError as error:
                waiter.seat.set_exception(error)
                self._queue.discard(order.key, waiter)
                continue
            views = groups[order.group]
            picked = self._pick(order, views, waiter.tried, may_wait=waiter.choosy)
            if picked.id:
                self._queue.serve(order.key, waiter)
                waiter.seat.set_result(self._sit(order, views, picked, now - waiter.since))
            elif not views:
                self._queue.discard(order.key, waiter)
                waiter.seat.set_result(None)
            elif picked.why is Why.FULL and not waiter.tried:  # who was there before avoids what others may have
                full.add(order.group)

    def _pick(self, order: Order, views: Collection[View], tried: Collection[str], *, may_wait: bool) -> Picked:
        now = self._clock()
        prompt = self._tokens(order.prompt_bytes)
        session = self._sessions.get((order.key, order.session)) if order.session else None
        found = []
        for view in views:
            load = self._loads.get(view.id)
            if load is None:
                found.append(Candidate(view.id, view.slots, tried=view.id in tried))
                continue
            match = load.held.match(order.blocks) if order.blocks else None
            held = self._tokens(match.blocks * BLOCK_BYTES) if match else 0
            mine = session == view.id
            goes_on = match is not None and (match.continues or (mine and match.blocks > 0))
            found.append(
                Candidate(
                    id=view.id,
                    slots=view.slots if order.takes_slot else None,
                    running=load.running,
                    work=load.work,
                    match=min(prompt, held) if goes_on else prompt // 2 if mine else 0,
                    shared=held,
                    held=len(load.held),
                    session=mine,
                    tried=view.id in tried,
                    resting=load.breaker.resting(now),
                )
            )
        return pick(found, prompt, may_wait=may_wait) if found else Picked(None, Why.FULL)

    def _sit(self, order: Order, views: Collection[View], picked: Picked, waited_s: float) -> Seat:
        view = next(view for view in views if view.id == picked.id)
        load = self._loads.get(view.id)
        if load is None:
            self._tidy()
            load = self._loads[view.id] = _Load()
        match = load.held.match(order.blocks)
        prompt = self._tokens(order.prompt_bytes)
        expected = min(prompt, self._tokens(match.blocks * BLOCK_BYTES))
        reading, writing = READING * (prompt - expected), float(self._answer_of(order))
        seat = Seat(view.id, picked.why, order, expected, load, reading, writing, view.slots, self._clock(), waited_s)
        if order.takes_slot:
            load.running += 1
            load.work += reading + writing
            load.held.add(order.blocks)
            load.breaker.begin()
            self._retries.requested()
            self._measures.chosen(picked.why.value, expected)
        if order.session:
            session = (order.key, order.session)
            self._sessions[session] = view.id
            self._sessions.move_to_end(session)
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return seat

    def _tidy(self) -> None:
        """Keep what is remembered of all endpoints together small."""
        most = max(MOST_BLOCKS // 16, min(MOST_BLOCKS, ALL_BLOCKS // (len(self._loads) + 1)))
        for load in self._loads.values():
            load.held.shrink(blocks=most)

    def leave(self, seat: Seat, *, failed: bool | None = None, lost: bool = False) -> None:
        """Give a place back. `failed`: what the endpoint did, if that says anything; `lost`: so is what it held."""
        load, now = seat.load, self._clock()
        if seat.order.takes_slot:
            load.running -= 1
            load.work = max(0.0, load.work - seat.reading - seat.writing) if load.running else 0.0
            self._took_s += LEARNING * (now - seat.began - self._took_s)
        else:
            return
        if lost:
            load.held.clear()
            if failed and load.died is None:
                self.deaths, load.died = self.deaths + 1, now
        if failed is None:
            load.breaker.left()
        elif not failed:
            load.breaker.succeeded()
            load.died = None
        elif load.breaker.failed(now, self._chance()):
            self._measures.opened(seat.endpoint)
            rest_s = load.breaker.until - now
            log.warning("breaker_open", endpoint=seat.endpoint, for_s=round(rest_s, 1))
            asyncio.get_running_loop().call_later(rest_s, self.changed)
        if self._queue:
            self._give_seats()

    def learn(self, seat: Seat, prompt: int, cached: int, completion: int) -> None:
        """Take note of what an answer cost, in tokens: how well was guessed, and what was not held after all."""
        order = seat.order
        if prompt > 0 and order.prompt_bytes:
            self._bytes_per_token += LEARNING * (order.prompt_bytes / prompt - self._bytes_per_token)
        self._answer += LEARNING * (completion - self._answer)
        if seat.expected > WORTH_TOKENS and cached < seat.expected // 4:
            seat.load.held.shrink(conversations=max(1, seat.slots or 1))

    def retry(self) -> bool:
        """Take one further attempt from the budget; False if there is none left."""
        granted = self._retries.spend(self._clock())
        self._measures.retried("made" if granted else "over-budget")
        return granted

    def pause_s(self, attempt: int) -> float:
        """Return how long to wait before an endpoint that failed a request gets it again."""
        return pause_s(attempt, self._chance())

    def _tokens(self, size: int) -> int:
        return math.ceil(size / self._bytes_per_token)

    def _answer_of(self, order: Order) -> int:
        usual = max(1, round(self._answer))
        return usual if order.answer is None else max(1, min(order.answer, 4 * usual))

    def _cost(self, order: Order) -> float:
        return READING * self._tokens(order.prompt_bytes) + self._answer_of(order)

    def _advice_s(self) -> int:
        """Return after how many seconds asking again makes sense: when those who wait now should be through."""
        running = sum(load.running for load in self._loads.values())
        return min(LONGEST_ADVICE_S, max(1, math.ceil(self._took_s * (len(self._queue) + 1) / max(1, running))))
