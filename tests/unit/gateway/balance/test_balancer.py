"""Requests that wait for a place at an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from roost.engines.base import State
from roost.gateway.balance.balancer import Balancer, Order, Seat
from roost.gateway.balance.breaker import FAILURES
from roost.gateway.balance.measures import Measures
from roost.gateway.balance.pick import Why
from roost.gateway.errors import ApiError
from roost.gateway.routing import View
from tests.support.net import eventually


class Fleet:
    """Endpoints that a test changes, and the balancer before them."""

    def __init__(self, *names: str, slots: int = 1, queue_limit: int = 512, warm_wait_s: float = 2.0) -> None:
        self.views = [View(name, "main", State.READY, ("tiny",), slots=slots) for name in names]
        self.registry = CollectorRegistry()
        self.now = 100.0
        self.balancer = Balancer(
            Measures(self.registry),
            queue_limit=queue_limit,
            warm_wait_s=warm_wait_s,
            clock=lambda: self.now,
            chance=lambda: 0.5,
        )

    def able(self) -> Collection[View]:
        return self.views

    async def seat(self, key: str = "k", within_s: float = 5.0, **more: object) -> Seat:
        values: dict[str, object] = {"prompt_bytes": 400, "answer": 100, **more}
        order = Order(key, "group", **values)  # type: ignore[arg-type]  # of test values only
        seat = await self.balancer.seat(order, self.able, (), within_s)
        assert seat
        return seat

    def asking(self, key: str, **more: object) -> asyncio.Task[Seat]:
        return asyncio.create_task(self.seat(key, **more))  # type: ignore[arg-type]

    async def until_waiting(self, count: int) -> None:
        await eventually(lambda: self.balancer.waiting == count, 5, f"{count} to wait")


async def test_who_waits_gets_the_place_that_comes_free() -> None:
    fleet = Fleet("a")
    first = await fleet.seat()
    waiting = fleet.asking("k")
    await fleet.until_waiting(1)
    fleet.balancer.leave(first, failed=False)
    assert (await waiting).endpoint == "a"
    assert fleet.balancer.waiting == 0


async def test_keys_take_turns_however_many_requests_one_of_them_has() -> None:
    fleet = Fleet("a")
    seat, served = await fleet.seat("greedy"), []
    asking = {fleet.asking("greedy"): "greedy" for _ in range(6)}
    await fleet.until_waiting(6)
    asking |= {fleet.asking("modest"): "modest" for _ in range(2)}
    await fleet.until_waiting(8)
    while asking:
        fleet.balancer.leave(seat, failed=False)
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        (task,) = done
        served.append(asking.pop(task))
        seat = task.result()
    assert served.index("modest") <= 1
    assert served[:4].count("modest") == 2


async def test_waiting_ends_with_503_and_says_when_to_come_back() -> None:
    fleet = Fleet("a")
    await fleet.seat()
    with pytest.raises(ApiError) as caught:
        await fleet.seat(within_s=0.01)
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert caught.value.retry_after_s
    assert fleet.balancer.waiting == 0
    assert b'roost_queue_refused_total{reason="late"} 1.0' in generate_latest(fleet.registry)


async def test_a_client_that_leaves_gives_up_its_place() -> None:
    fleet = Fleet("a")
    first = await fleet.seat()
    gone, stays = fleet.asking("k"), fleet.asking("k")
    await fleet.until_waiting(2)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert fleet.balancer.waiting == 1
    fleet.balancer.leave(first, failed=False)
    assert (await stays).endpoint == "a"


async def test_a_place_given_to_one_that_left_just_then_is_not_lost() -> None:
    fleet = Fleet("a")
    first = await fleet.seat()
    gone = fleet.asking("k")
    await fleet.until_waiting(1)
    fleet.balancer.leave(first, failed=False)  # seats it
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert (await fleet.seat(within_s=0.1)).endpoint == "a"


async def test_where_too_many_wait_the_greediest_key_loses_its_newest() -> None:
    fleet = Fleet("a", queue_limit=3)
    await fleet.seat()
    greedy = [fleet.asking("greedy") for _ in range(3)]
    await fleet.until_waiting(3)
    with pytest.raises(ApiError) as caught:
        await fleet.seat("greedy")
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    modest = fleet.asking("modest")
    with pytest.raises(ApiError):
        await greedy[2]
    assert not modest.done()
    for task in (*greedy, modest):
        task.cancel()
    await asyncio.gather(*greedy, modest, return_exceptions=True)


async def test_an_endpoint_that_comes_takes_who_waits_and_none_at_all_is_said() -> None:
    fleet = Fleet("a")
    await fleet.seat()
    waiting = fleet.asking("k")
    await fleet.until_waiting(1)
    fleet.views.append(View("b", "main", State.READY, ("tiny",), slots=1))
    fleet.balancer.changed()
    assert (await waiting).endpoint == "b"
    last = asyncio.create_task(fleet.balancer.seat(Order("k", "group"), fleet.able, (), 5.0))
    await fleet.until_waiting(1)
    fleet.views.clear()
    fleet.balancer.changed()
    assert await last is None


async def test_the_next_turn_goes_back_even_if_that_means_a_short_wait() -> None:
    talk = tuple(range(200))
    fleet = Fleet("a", "b")
    first = await fleet.seat(blocks=talk, prompt_bytes=200 * 128)
    fleet.balancer.leave(first, failed=False)
    other = await fleet.seat(blocks=(), answer=5)
    if other.endpoint != first.endpoint:  # the one that holds nothing has less to lose
        fleet.balancer.leave(other, failed=False)
        fleet.views = [view for view in fleet.views if view.id == first.endpoint]
        other = await fleet.seat(blocks=(), answer=5)
        fleet.views = [View(name, "main", State.READY, ("tiny",), slots=1) for name in "ab"]
    turn = fleet.asking("k", blocks=(*talk, 7777), prompt_bytes=201 * 128)
    await fleet.until_waiting(1)
    fleet.balancer.leave(other, failed=False)
    seat = await turn
    assert (seat.endpoint, seat.why) == (first.endpoint, Why.PREFIX)
    assert seat.expected > 5000


async def test_it_does_not_wait_for_ever_for_the_better_endpoint() -> None:
    talk = tuple(range(200))
    fleet = Fleet("a", "b", warm_wait_s=0.01)
    first = await fleet.seat(blocks=talk, prompt_bytes=200 * 128, answer=5)
    first.wrote(1)  # it has read the prompt
    turn = fleet.asking("k", blocks=(*talk, 7777), prompt_bytes=201 * 128)
    await asyncio.sleep(0)
    assert fleet.balancer.waiting == 1
    assert (await turn).endpoint != first.endpoint


async def test_a_session_stays_where_it_was() -> None:
    fleet = Fleet("a", "b", slots=4)
    busy = await fleet.seat(answer=10)
    mine = await fleet.seat(session="talk")
    assert mine.endpoint != busy.endpoint
    fleet.balancer.leave(busy, failed=False)
    fleet.balancer.leave(mine, failed=False)
    again = await fleet.seat(session="talk")
    assert (again.endpoint, again.why) == (mine.endpoint, Why.SESSION)


async def test_an_endpoint_whose_requests_fail_rests_and_is_tried_again() -> None:
    fleet = Fleet("a", "b", slots=4)
    fleet.views.pop()
    for _ in range(FAILURES):
        fleet.balancer.leave(await fleet.seat(), failed=True)
    fleet.views = [View(name, "main", State.READY, ("tiny",), slots=4) for name in "ab"]
    seats = [await fleet.seat() for _ in range(3)]
    assert {seat.endpoint for seat in seats} == {"b"}
    fleet.now += 1.1
    trial = await fleet.seat()
    assert trial.endpoint == "a"
    assert (await fleet.seat()).endpoint == "b"  # one trial at a time
    fleet.balancer.leave(trial, failed=False)
    assert (await fleet.seat()).endpoint == "a"


async def test_a_server_that_was_dead_already_was_not_killed_by_who_came_later() -> None:
    fleet = Fleet("a", slots=4)
    one, other = await fleet.seat(), await fleet.seat()
    fleet.now += 1
    fleet.balancer.leave(one, failed=True, lost=True)
    fleet.now += 1
    after = await fleet.seat()
    for seat in (other, after):
        fleet.balancer.leave(seat, failed=True, lost=True)
    assert fleet.balancer.deaths == 1
    assert not fleet.balancer.came_late(one)
    assert not fleet.balancer.came_late(other)
    assert fleet.balancer.came_late(after)
    fleet.balancer.renewed("a")
    fleet.balancer.leave(await fleet.seat(), failed=True, lost=True)
    assert fleet.balancer.deaths == 2


async def test_retries_have_a_budget() -> None:
    fleet = Fleet("a")
    granted = sum(fleet.balancer.retry() for _ in range(500))
    assert granted == 100
    assert b'roost_retries_total{result="over-budget"} 400.0' in generate_latest(fleet.registry)


async def test_what_was_expected_in_a_cache_and_not_there_is_forgotten() -> None:
    fleet = Fleet("a", slots=1)
    for talk in range(5):
        seat = await fleet.seat(blocks=tuple(range(talk * 1000, talk * 1000 + 100)), prompt_bytes=12_800)
        fleet.balancer.leave(seat, failed=False)
    seat = await fleet.seat(blocks=(*range(100), 99_999), prompt_bytes=12_928)
    assert seat.expected > 2000
    fleet.balancer.learn(seat, 3200, 0, 10)
    fleet.balancer.leave(seat, failed=False)
    assert len(seat.load.held) == 1


async def test_who_avoids_an_endpoint_keeps_nobody_else_from_it() -> None:
    fleet = Fleet("a", "b")
    first, second = await fleet.seat(), await fleet.seat()
    busy, free = (first, second) if first.endpoint == "a" else (second, first)
    again = asyncio.create_task(fleet.balancer.seat(Order("k", "group", again=True), fleet.able, {"b"}, 5.0))
    await fleet.until_waiting(1)
    other = fleet.asking("k")
    await fleet.until_waiting(2)
    fleet.balancer.leave(free)
    assert (await asyncio.wait_for(other, 2)).endpoint == "b"
    fleet.balancer.leave(busy)
    seat = await again
    assert seat
    assert seat.endpoint == "a"


async def test_a_request_whose_endpoint_failed_may_wait_though_the_queue_is_full() -> None:
    fleet = Fleet("a", queue_limit=1)
    first = await fleet.seat()
    waiting = fleet.asking("k")
    await fleet.until_waiting(1)
    again = fleet.asking("k", again=True)
    await fleet.until_waiting(2)
    fleet.balancer.leave(first)
    fleet.balancer.leave(await again)
    fleet.balancer.leave(await waiting)


async def test_other_models_servers_are_remembered_until_they_are_gone() -> None:
    fleet = Fleet("sick")
    for _ in range(FAILURES):
        fleet.balancer.leave(await fleet.seat(), failed=True)
    sick = fleet.views[0]
    for number in range(40):  # each of a model of its own
        fleet.views = [View(f"other{number}", "other", State.READY, ("other",), slots=1)]
        fleet.balancer.leave(await fleet.seat(), failed=False)
    fleet.views = [sick, View("zz", "main", State.READY, ("tiny",), slots=1)]
    assert (await fleet.seat()).endpoint == "zz"
    fleet.balancer.gone("sick")
    assert (await fleet.seat()).endpoint == "sick"
