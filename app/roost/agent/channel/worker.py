"""One worker as a hub sees it: what it is asked, what it has been handed, and who waits for its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from roost.agent.channel.wire import MOST_PENDING, MOST_RESULT_BYTES, Announced, Request, recall_id
from roost.agent.tool import Outcome, ToolCall, ToolResult, sendable

LEFT = "The worker left while this ran: it may have been done. Look before it is done again."
NOT_BEGUN = "The worker left before this began: nothing was done."


@dataclass
class _Pending:
    call: ToolCall
    number: int
    answer: asyncio.Future[ToolResult]
    handed: bool = False
    recall: bool = False


@dataclass
class Worker:
    """A worker that is there."""

    owner: str
    announced: Announced
    lease: str
    _gone: Callable[[Worker], None]
    _gone_s: float
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _cancels: dict[int, str] = field(default_factory=dict)
    _number: int = 0
    _polls: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.TimerHandle | None = None

    def await_poll(self) -> None:
        """Give it until then to ask for requests."""
        self.hold()
        self._timer = asyncio.get_running_loop().call_later(self._gone_s, self._gone, self)

    def hold(self) -> None:
        """Wait no longer for it to ask."""
        if self._timer:
            self._timer.cancel()
        self._timer = None

    def ask(self, call: ToolCall) -> asyncio.Future[ToolResult] | None:
        """Have a call run; None where it has enough to do, or runs that call already."""
        if len(self._pending) >= MOST_PENDING or call.id in self._pending:
            return None
        self._number += 1
        answer: asyncio.Future[ToolResult] = asyncio.get_running_loop().create_future()
        self._pending[call.id] = _Pending(call, self._number, answer)
        self._news.set()
        return answer

    def recall(self, call: ToolCall) -> asyncio.Future[ToolResult] | None:
        """Have a call's outcome told; None where it has enough to do, or is asked that already."""
        name = recall_id(call.id)
        if len(self._pending) >= MOST_PENDING or name in self._pending:
            return None
        self._number += 1
        answer: asyncio.Future[ToolResult] = asyncio.get_running_loop().create_future()
        self._pending[name] = _Pending(call, self._number, answer, recall=True)
        self._news.set()
        return answer

    def forget(self, call: str, *, cancel: bool) -> None:
        """Wait for a call no longer; with `cancel` it is ended at the worker, if it may have begun."""
        gone = self._pending.pop(call, None)
        if gone and gone.handed and cancel:
            self._number += 1
            self._cancels[self._number] = call
            self._news.set()

    def answer(self, result: ToolResult) -> bool:
        """Take what came of a call; say whether somebody waited for it."""
        waits = self._pending.pop(result.id, None)
        if waits is None or waits.answer.done():
            return False
        waits.answer.set_result(bounded(result))
        return True

    def leave(self) -> None:
        """Say to all who wait that there will be no answer, and end what it asks."""
        self.hold()
        for waits in self._pending.values():
            if not waits.answer.done():
                outcome, text = (Outcome.UNKNOWN, LEFT) if waits.handed else (Outcome.FAILED, NOT_BEGUN)
                waits.answer.set_result(ToolResult(id=waits.call.id, outcome=outcome, text=text))
        self._pending.clear()
        self.interrupt()

    def interrupt(self) -> None:
        """End the question that waits, if one does."""
        self._polls += 1
        self._news.set()

    async def requests(self, after: int, wait_s: float, left: Awaitable[None]) -> Sequence[Request]:
        """Return what is to be done and is newer than `after`, as soon as there is something, or time is up.

        A second question ends the first. `left` ends when the worker is not there to hear the answer.
        """
        self.interrupt()
        mine = self._polls
        self.hold()
        for number in [one for one in self._cancels if one <= after]:
            del self._cancels[number]
        gone = asyncio.ensure_future(left)
        end = asyncio.get_running_loop().time() + wait_s
        try:
            while mine == self._polls:
                self._news.clear()
                if found := self._open(after):
                    return found
                remaining = end - asyncio.get_running_loop().time()
                if remaining <= 0 or gone.done():
                    return ()
                news = asyncio.ensure_future(self._news.wait())
                try:
                    await asyncio.wait({news, gone}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
            return ()
        finally:
            gone.cancel()
            if mine == self._polls:
                self.await_poll()

    def _open(self, after: int) -> tuple[Request, ...]:
        found = [Request(number=number, cancel=call) for number, call in self._cancels.items() if number > after]
        for waits in self._pending.values():
            if waits.number > after:
                waits.handed = True
                call, recall = (None, waits.call) if waits.recall else (waits.call, None)
                found.append(Request(number=waits.number, call=call, recall=recall))
        return tuple(sorted(found, key=lambda one: one.number))


def bounded(result: ToolResult) -> ToolResult:
    """Return a result no larger than a hub keeps, whatever its worker says; what was cut is said."""
    return sendable(result, MOST_RESULT_BYTES)
