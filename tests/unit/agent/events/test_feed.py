"""Events of a session: numbered, kept for who comes back, and nobody who does not keep up holds the others up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.agent.events import feed as feed_module
from roost.agent.events.feed import ID, IDLE, KEPT_BYTES, KEPT_EVENTS, LAGGING, MISSED, STOPPING, Event, Feed
from roost.agent.events.stream import KeyGoneError, events, sse


def drained(queue: asyncio.Queue[Event]) -> list[dict[str, Any]]:
    """Return what a watcher got so far."""
    got: list[dict[str, Any]] = []
    while not queue.empty():
        got.append(dict(queue.get_nowait()))
    return got


@given(before=st.integers(0, 30), seen=st.integers(0, 30), after=st.integers(0, 30))
def test_who_comes_back_gets_what_was_missed_once_and_in_order(before: int, seen: int, after: int) -> None:
    feed = Feed()
    queue = feed.watch()
    for number in range(before):
        feed.tell({"type": "text", "text": str(number)})
    got = drained(queue)[: min(seen, before)]
    feed.unwatch(queue)
    again = feed.watch(str(got[-1][ID]) if got else f"{feed._epoch}-0")
    for number in range(before, before + after):
        feed.tell({"type": "text", "text": str(number)})
    assert [event["text"] for event in [*got, *drained(again)]] == [str(n) for n in range(before + after)]


@pytest.mark.parametrize("name", ["x", "0-1", "-", "deadbeef-3", "é-²", "-99", "a-99999999999999999999"])
def test_an_id_of_another_process_is_told_to_have_missed_something(name: str) -> None:
    feed = Feed()
    feed.tell({"type": "text"})
    assert drained(feed.watch(name, idle=True)) == [MISSED, IDLE]


def test_only_so_much_is_kept_and_what_is_not_is_said() -> None:
    feed = Feed()
    for _ in range(KEPT_EVENTS + 5):
        feed.tell({"type": "text"})
    got = drained(feed.watch(f"{feed._epoch}-1"))
    assert (got[0], len(got)) == (MISSED, KEPT_EVENTS + 1)
    for _ in range(20):
        feed.tell({"type": "text", "text": "x" * (KEPT_BYTES // 8)})
    kept = drained(feed.watch(f"{feed._epoch}-1"))[1:]
    assert sum(len(json.dumps(event)) for event in kept) <= KEPT_BYTES
    feed.tell({"type": "text", "text": "x" * 2 * KEPT_BYTES})
    assert drained(feed.watch(f"{feed._epoch}-1")) == [MISSED]


def test_the_turn_under_way_can_be_had_from_its_beginning() -> None:
    feed = Feed()
    for kind in ("turn", "text", "end", "idle", "turn", "status"):
        feed.tell({"type": kind})
    assert [event["type"] for event in drained(feed.watch(whole_turn=True))] == ["turn", "status"]
    assert drained(feed.watch(whole_turn=True, idle=True)) == [IDLE]


def test_who_does_not_keep_up_is_let_go_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "WATCHER_EVENTS", 3)
    feed = Feed()
    slow = feed.watch()
    for number in range(5):
        quick = feed.watch() if number == 2 else None
        feed.tell({"type": "text", "text": str(number)})
        if quick:
            assert [event["text"] for event in drained(quick)] == ["2"]
    assert drained(slow) == [LAGGING]


async def stream(queue: asyncio.Queue[Event], *answers: bool) -> list[Event | None]:
    """Read a stream whose key is looked at with each event; `answers` say whether it is good."""
    asked = list(answers)

    async def still() -> bool:
        return asked.pop(0)

    got: list[Event | None] = []
    ticks = iter(range(0, 1000, 10))
    async for event in events(queue, still, heartbeat_s=0.01, still_s=5, clock=lambda: next(ticks)):
        got.append(event)
        if len(got) > 3:
            break
    return got


async def test_a_key_that_was_revoked_ends_the_stream_before_the_next_event() -> None:
    feed = Feed()
    queue = feed.watch()
    feed.tell({"type": "text"})
    feed.tell({"type": "text", "text": "secret"})
    with pytest.raises(KeyGoneError):
        await stream(queue, True, False)


async def test_it_ends_when_the_service_stops_and_beats_meanwhile() -> None:
    feed = Feed()
    queue = feed.watch()
    asyncio.get_running_loop().call_later(0.03, feed.let_go)
    got = await stream(queue, *[True] * 9)
    assert None in got
    feed.let_go()
    assert not feed.watched


def test_as_a_server_sent_event() -> None:
    assert sse({"type": "text", "text": "é\n", ID: "ab-1"}) == (
        'id: ab-1\ndata: {"type": "text", "text": "é\\n", "event_id": "ab-1"}\n\n'.encode()
    )
    assert sse(STOPPING) == b'data: {"type": "stopping"}\n\n'
