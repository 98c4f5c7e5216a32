"""Sessions that somebody talks in now: one turn at a time each, what comes meanwhile, who watches, cancelling."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from roost.agent.events.feed import IDLE, REMOVED, Event, Feed
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

Take = Callable[[str, str, "Live"], Awaitable[None]]
"""Takes a turn: the text, the turn's id, and the session."""


MOST_WAITING = 32
MOST_WAITING_CHARACTERS = 400_000


class BusyError(RoostError):
    """A turn is under way, or an undo."""


class StoppingError(RoostError):
    """The service stops: nothing new is begun."""


class TooMuchError(RoostError):
    """More waits for an answer than is taken."""

    def __init__(self, session: str) -> None:
        super().__init__(f"Too much waits in {session} already.", fix="Wait for the answer, or cancel.")


@dataclass(frozen=True, eq=False)
class Said:
    """What a user said. `priority` is put before the model in the turn under way. Compared by identity."""

    text: str
    priority: bool = False
    answers: bool = False
    """Whether they can be asked something before it is answered; see `permission/asking`."""
    allow: tuple[str, ...] = ()
    """Tools that may be called for it without a question, and for no other message."""


@dataclass
class Live:
    """One session. Rapid messages that allow the same become one turn; `injected` gives a turn what it has to know."""

    owner: str
    session: str
    take: Take
    waiting: deque[Said] = field(default_factory=deque)
    turn: str = ""
    current: tuple[Said, ...] = ()
    """What the turn under way answers."""
    added: tuple[Said, ...] = ()
    """What was put before the model in it."""
    _task: asyncio.Task[None] | None = None
    _ending: asyncio.Task[None] | None = None
    _held: bool = False
    _stopping: bool = False
    feed: Feed = field(default_factory=Feed)

    @property
    def busy(self) -> bool:
        """Say whether a turn is under way or waits, or what keeps one from beginning."""
        return self._held or (self._task is not None and not self._task.done())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep turns from beginning; what is said meanwhile is answered afterwards.

        Raises:
            BusyError: a turn is under way.
        """
        if self.busy:
            raise BusyError("A turn is under way.", fix="Wait for its end, or cancel it.")
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._begin()
            self._let_watchers_go()

    @property
    def answers(self) -> bool:
        """Say whether a turn is under way whose user can be asked something."""
        return self.busy and any(said.answers for said in (*self.current, *self.added))

    @property
    def allows(self) -> frozenset[str]:
        """Return the tools that the turn under way may call without a question: what all of its messages allow.

        Which of them a call is for cannot be told.
        """
        answered = (*self.current, *self.added) if self.busy else ()
        return frozenset.intersection(*(frozenset(said.allow) for said in answered)) if answered else frozenset()

    @property
    def watched(self) -> bool:
        """Say whether somebody watches."""
        return self.feed.watched

    def say(self, said: Said) -> None:
        """Have something answered: in the next turn, or in the one under way if it has priority.

        Raises:
            TooMuchError: more waits already than a turn can answer.
            StoppingError: the service stops.
        """
        if self._stopping:
            raise StoppingError("The service stops.", fix="Say it again in a moment.")
        if len(self.waiting) >= MOST_WAITING or self._size(self.waiting) + len(said.text) > MOST_WAITING_CHARACTERS:
            raise TooMuchError(self.session)
        self.waiting.append(said)
        self._begin()

    def _begin(self) -> None:
        if self.waiting and not self.busy:
            self._task = asyncio.create_task(self._turns())

    def _next(self) -> tuple[Said, ...]:
        """Take what the next turn answers: the first that waits, and those right behind it that allow the same."""
        taken = [self.waiting.popleft()]
        while self.waiting and set(self.waiting[0].allow) == set(taken[0].allow):
            taken.append(self.waiting.popleft())
        return tuple(taken)

    @staticmethod
    def _size(messages: Iterable[Said]) -> int:
        return sum(len(said.text) for said in messages)

    def injected(self) -> Sequence[str]:
        """Return what has priority and was not told yet."""
        urgent = tuple(said for said in self.waiting if said.priority)
        self.waiting = deque(said for said in self.waiting if not said.priority)
        self.added += urgent
        return [said.text for said in urgent]

    async def cancel(self) -> bool:
        """End the turn under way and forget what waits; return whether there was one.

        What is said while it ends is answered. Being cancelled here leaves the turn's own end alone.
        """
        self.waiting.clear()
        if self._task is None or self._task.done():
            return False
        self._task.cancel()
        await asyncio.wait({self._task})
        await self.tell({"type": "cancelled", "turn": self.turn})
        await self.tell(IDLE)
        self._begin()
        self._let_watchers_go()
        return True

    def take_back(self, said: Said) -> None:
        """Forget a message whose sender left: it waits no longer, and the turn that answers it alone ends."""
        self.waiting = deque(one for one in self.waiting if one is not said)
        if self.busy and self.current and all(one is said for one in self.current):
            self._ending = asyncio.create_task(self.cancel_current())

    async def cancel_current(self) -> None:
        """End the turn under way; what waits is answered."""
        kept = list(self.waiting)
        if await self.cancel():
            self.waiting.extendleft(reversed(kept))
            self._begin()

    async def tell(self, event: Event) -> None:
        """Tell all who watch; one who does not keep up is let go."""
        self.feed.tell(event)

    def watch(self, after: str = "", *, whole_turn: bool = False) -> asyncio.Queue[Event]:
        """Return a queue that gets what happens from now on, and whether nothing does now; see `Feed.watch`."""
        queue = self.feed.watch(after, whole_turn=whole_turn, idle=not self.busy)
        self._let_watchers_go()
        return queue

    def unwatch(self, queue: asyncio.Queue[Event]) -> None:
        """Let go of a watcher."""
        self.feed.unwatch(queue)

    def let_go(self) -> None:
        """End what only waits: those who watch, at once or when the turn under way has ended. No other one begins."""
        self._stopping = True
        if self.waiting:
            said = "The service stops: what was said last is not answered."
            self.feed.tell({"type": "error", "turn": "", "message": said, "fix": "Say it again in a moment."})
        self.waiting.clear()
        self._let_watchers_go()

    async def removed(self) -> None:
        """End what goes on, and send away who watches: the conversation is removed."""
        await self.cancel()
        self.feed.let_go(REMOVED)

    def _let_watchers_go(self) -> None:
        if self._stopping and not self.busy:
            self.feed.let_go()

    async def over(self) -> None:
        """Wait for the end of the turn under way."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _turns(self) -> None:
        while self.waiting:
            self.current, self.added = self._next(), ()
            texts = [said.text for said in self.current]
            self.turn = uuid.uuid4().hex[:12]
            await self.tell({"type": "turn", "turn": self.turn, "messages": len(texts)})
            try:
                await self.take("\n\n".join(texts), self.turn, self)
            except RoostError as error:
                await self.tell({"type": "error", "turn": self.turn, "message": error.message, "fix": error.fix})
            except OSError as error:
                log.warning("turn_not_recorded", session=self.session, reason=str(error))
                await self.tell({"type": "error", "turn": self.turn, "message": str(error), "fix": "See the disk."})
            except Exception as error:
                log.exception("turn_failed", session=self.session)
                said = f"A fault of ours ended the turn: {type(error).__name__}."
                await self.tell({"type": "error", "turn": self.turn, "message": said, "fix": "See the log."})
            await self.tell({"type": "end", "turn": self.turn})
        await self.tell(IDLE)
        if self._stopping:
            self.feed.let_go()
