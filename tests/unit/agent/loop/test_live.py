"""Sessions in use: what is said while a turn ends, who leaves, how much may wait."""

from __future__ import annotations

import asyncio

import pytest

from roost.agent.events.feed import IDLE
from roost.agent.live import MOST_WAITING, Live, Said, TooMuchError
from tests.support.net import eventually


class Desk:
    """A session whose turns last until they are let go, and what they answered."""

    def __init__(self) -> None:
        self.answered: list[str] = []
        self.allowed: list[frozenset[str]] = []
        """What each turn that ended might call without a question."""
        self.go = asyncio.Event()
        self.ending = asyncio.Event()
        self.ending.set()
        self.live = Live("alice", "s1", self._take)

    async def _take(self, text: str, _turn: str, _live: Live) -> None:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await self.ending.wait()
            raise
        self.answered.append(text)
        self.allowed.append(self.live.allows)

    async def idle(self) -> None:
        await eventually(lambda: not self.live.busy, 10, "the end of the turns")


async def test_rapid_messages_become_one_turn() -> None:
    desk = Desk()
    desk.live.say(Said("one"))
    await asyncio.sleep(0)
    desk.live.say(Said("two"))
    desk.live.say(Said("three"))
    desk.go.set()
    await desk.idle()
    assert desk.answered == ["one", "two\n\nthree"]


async def test_what_is_said_while_a_cancelled_turn_ends_is_answered() -> None:
    desk = Desk()
    desk.live.say(Said("one"))
    await asyncio.sleep(0)
    desk.ending.clear()
    cancelling = asyncio.create_task(desk.live.cancel())
    await asyncio.sleep(0)
    desk.live.say(Said("two"))
    desk.go.set()
    desk.ending.set()
    assert await cancelling
    await desk.idle()
    assert desk.answered == ["two"]


async def test_who_leaves_takes_back_only_what_it_said() -> None:
    desk = Desk()
    mine, other = Said("mine"), Said("other")
    desk.live.say(other)
    await asyncio.sleep(0)
    desk.live.say(mine)
    desk.live.take_back(mine)
    desk.go.set()
    await desk.idle()
    assert desk.answered == ["other"]


async def test_a_turn_that_answers_only_who_left_ends_and_what_waits_is_answered() -> None:
    desk = Desk()
    mine, other = Said("mine"), Said("other")
    queue = desk.live.watch()
    desk.live.say(mine)
    await asyncio.sleep(0)
    desk.live.say(other)
    desk.live.take_back(mine)
    desk.go.set()
    await eventually(lambda: desk.answered == ["other"], 10, "the other answer")
    await desk.idle()
    assert queue.get_nowait() == IDLE


async def test_only_so_much_may_wait() -> None:
    desk = Desk()
    for number in range(MOST_WAITING + 1):  # one of them is taken at once
        desk.live.say(Said(str(number)))
        await asyncio.sleep(0)
    with pytest.raises(TooMuchError):
        desk.live.say(Said("more"))
    await desk.live.cancel()


async def test_messages_that_wait_together_share_a_turn_only_with_those_that_allow_the_same() -> None:
    desk = Desk()
    desk.live.say(Said("one"))
    await asyncio.sleep(0)
    desk.live.say(Said("send it", allow=("mail", "wiki")))
    desk.live.say(Said("to bob", allow=("wiki", "mail")))
    desk.live.say(Said("clean up"))
    desk.live.say(Said("quietly"))
    desk.live.say(Said("run it", allow=("shell",)))
    desk.go.set()
    await desk.idle()
    assert list(zip(desk.answered, desk.allowed, strict=True)) == [
        ("one", frozenset()),
        ("send it\n\nto bob", {"mail", "wiki"}),
        ("clean up\n\nquietly", frozenset()),
        ("run it", {"shell"}),
    ]


async def test_who_says_something_urgent_can_be_asked_and_allows_nothing_to_the_message_before() -> None:
    desk = Desk()
    desk.live.say(Said("one"))
    await asyncio.sleep(0)
    seen = [desk.live.answers]
    desk.live.say(Said("now", priority=True, answers=True, allow=("shell",)))
    seen.append(desk.live.answers)  # it was not told yet
    assert desk.live.injected() == ["now"]
    assert desk.live.allows == frozenset()
    assert [*seen, desk.live.answers] == [False, False, True]
    desk.live.say(Said("two"))
    desk.go.set()
    await eventually(lambda: desk.answered == ["one", "two"], 10, "the second turn")
    assert (desk.live.added, desk.live.allows) == ((), frozenset())


async def test_what_the_message_before_allowed_is_not_for_an_urgent_one() -> None:
    desk = Desk()
    desk.live.say(Said("one", allow=("mail", "shell")))
    await asyncio.sleep(0)
    assert desk.live.allows == {"mail", "shell"}
    desk.live.say(Said("and that", priority=True, allow=("shell",)))
    assert desk.live.injected() == ["and that"]
    assert desk.live.allows == {"shell"}
    desk.live.say(Said("not that", priority=True))
    assert desk.live.injected() == ["not that"]
    assert desk.live.allows == frozenset()
    await desk.live.cancel()
    assert desk.live.allows == frozenset()
