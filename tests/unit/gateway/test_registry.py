"""Belief about endpoints, with model servers in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import aiohttp

from roost.engines.base import Report, State
from roost.gateway.endpoints.endpoint import Member
from roost.gateway.endpoints.outliers import Policy, Result
from roost.gateway.registry import Hooks, Registry, Timing
from roost.gateway.warm.planned import Planned
from tests.support.gateway import endpoint_at
from tests.support.net import eventually

READY = Report(State.READY, models=("tiny",), context=4096, slots=2)


class Scripted:
    """An engine whose next report is set by the test."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.report = READY
        self.probes = 0

    def headers(self) -> dict[str, str]:
        return {}

    @property
    def pause_s(self) -> float:
        return 0.0

    def send(
        self, path: str, body: bytes, limits: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        raise AssertionError(f"nothing is sent here: {path} {body!r} {limits}")

    def proved(self) -> None:
        return

    async def probe(self, *, busy: bool) -> Report:
        self.probes += 1
        return self.report if not busy else READY

    async def count(self, path: str, body: bytes) -> int | None:
        del path, body
        return None

    def ignores(self, path: str) -> frozenset[str]:
        del path
        return frozenset()

    async def save_slots(self) -> int:
        return 0

    async def restore_slots(self) -> int:
        return 0


@asynccontextmanager
async def registry_of(engines: dict[str, Scripted], timing: Timing) -> AsyncIterator[Registry]:
    def connect(member: Member) -> Scripted:
        return engines.setdefault(member.base_url, Scripted(member.base_url))

    registry = Registry(connect, timing)
    try:
        yield registry
    finally:
        await registry.close()


A, B = Member("main", "http://a:1"), Member("main", "http://b:1")


async def test_only_our_own_probe_makes_an_endpoint_routable() -> None:
    engines = {A.base_url: Scripted(A.base_url)}
    engines[A.base_url].report = Report(State.LOADING, reason="it is loading its model")
    async with registry_of(engines, Timing(unready_s=0.01)) as registry:
        registry.sync([A])
        assert not registry.route("auto").ready
        await eventually(lambda: engines[A.base_url].probes > 2, 5, "probes")
        assert not registry.route("auto").ready
        engines[A.base_url].report = READY
        await eventually(lambda: registry.route("auto").ready == {"main@a:1": "tiny"}, 5, "the endpoint")


async def test_a_mark_is_believed_and_checked_at_once() -> None:
    async with registry_of({}, Timing(ready_s=60)) as registry:
        registry.sync([A])
        await eventually(lambda: bool(registry.route("tiny").ready), 5, "the endpoint")
        registry.mark(registry.endpoints()[0], State.DOWN, "cannot connect")
        assert not registry.route("tiny").ready
        assert registry.route("tiny").known
        await eventually(lambda: bool(registry.route("tiny").ready), 5, "the endpoint to come back")


async def test_a_model_that_left_is_remembered_for_a_while() -> None:
    async with registry_of({}, Timing(remember_s=0.2)) as registry:
        registry.sync([A])
        await eventually(lambda: bool(registry.route("tiny").ready), 5, "the endpoint")
        registry.sync([])
        assert registry.views() == ()
        assert registry.route("tiny").known
        await eventually(lambda: not registry.route("tiny").known, 5, "it to be forgotten")


async def test_those_who_wait_are_woken_by_a_change() -> None:
    async with registry_of({}, Timing()) as registry:
        waiting = asyncio.create_task(registry.changed(60))
        await asyncio.sleep(0)
        registry.sync([A, B])
        await asyncio.wait_for(waiting, 5)


async def test_members_that_stay_keep_what_is_known_about_them() -> None:
    engines: dict[str, Scripted] = {}
    async with registry_of(engines, Timing(ready_s=60)) as registry:
        registry.sync([A])
        await eventually(lambda: bool(registry.route("tiny").ready), 5, "the endpoint")
        before = registry.endpoints()[0]
        registry.sync([B, A])
        assert registry.get("main@a:1") is before
        assert registry.route("tiny").ready.keys() >= {"main@a:1"}
        registry.sync([B])
        assert registry.get("main@a:1") is None


async def test_another_server_at_the_same_address_is_looked_at_anew() -> None:
    """The endpoint's name is its address: what was believed of the server before says nothing of this one."""
    engines: list[Scripted] = []

    def connect(member: Member) -> Scripted:
        engines.append(Scripted(member.base_url))
        engines[-1].report = replace(READY, models=("tiny", "other")[len(engines) - 1 :])
        return engines[-1]

    registry = Registry(connect, Timing(ready_s=60))
    left: list[str] = []
    registry.hooks = Hooks(gone=lambda endpoint: left.append(endpoint.member.allocation))
    try:
        registry.sync([replace(A, allocation="one", adapters=("x",))])
        await eventually(lambda: bool(registry.route("tiny").ready), 5, "the endpoint")
        before = registry.endpoints()[0]
        registry.sync([replace(A, allocation="one", adapters=("x", "y"))])  # what is said of the same one may change
        assert registry.endpoints()[0] is before
        assert left == []
        registry.sync([replace(A, allocation="two")])
        assert not registry.route("tiny").ready
        await eventually(lambda: bool(registry.route("other").ready), 5, "the other server")
        assert not registry.route("tiny").ready
        assert left == []  # nobody saves the slots of the one in the name of the other
        registry.sync([])
        assert left == ["two"]
    finally:
        await registry.close()


async def test_requests_on_a_stuck_endpoint_are_let_go() -> None:
    engines: dict[str, Scripted] = {}
    async with registry_of(engines, Timing(ready_s=0.01)) as registry:
        registry.sync([A])
        await eventually(lambda: bool(registry.route("tiny").ready), 5, "the endpoint")
        endpoint = registry.endpoints()[0]
        released = False
        engines[A.base_url].report = Report(State.DOWN, reason="stuck", stuck=True)
        try:
            async with asyncio.timeout(None) as scope, asyncio.timeout(10):
                with endpoint.lease(scope):
                    endpoint.in_flight = 0  # so that the scripted engine reports what it was told
                    await asyncio.Event().wait()
        except TimeoutError:
            released = scope.expired()
        assert released


async def test_a_probe_that_dies_is_told() -> None:
    class Faulty(Scripted):
        async def probe(self, *, busy: bool) -> Report:
            raise RuntimeError(f"a mistake of ours, busy: {busy}")

    async with registry_of({A.base_url: Faulty(A.base_url)}, Timing()) as registry:
        told = asyncio.Event()
        registry.when_failed(told.set)
        assert registry.fault == ""
        registry.sync([A])
        await asyncio.wait_for(told.wait(), 5)
        assert registry.fault == "probe main@a:1"


async def test_a_job_that_works_on_a_request_is_not_closed() -> None:
    member = Member("main", "http://a:1", job="roost-model-main")
    async with registry_of({}, Timing(ready_s=60)) as registry:
        registry.sync([member])
        await eventually(lambda: bool(registry.route("tiny").ready), 5, "the endpoint")
        with registry.endpoints()[0].lease(asyncio.timeout(None)):
            assert not registry.close_job("roost-model-main")
        assert registry.close_job("roost-model-main")
        registry.plan([Planned("roost-model-main", "main")])
        assert not registry.route("tiny").ready
        registry.open_job("roost-model-main")
        assert registry.route("tiny").ready


async def test_an_endpoint_whose_requests_fail_is_left_out_for_a_while() -> None:
    async with registry_of({}, Timing(ready_s=60)) as registry:
        registry._policy = Policy(base_s=3.0)
        registry.sync([A, B])
        await eventually(lambda: len(registry.route("auto").ready) == 2, 5, "both endpoints")
        for _ in range(5):
            registry.record(endpoint_at(registry, "main@a:1"), Result.FAILED)
        assert [view.ejected for view in registry.views()] == [True, False]
        assert set(registry.route("auto").ready) == {"main@b:1"}
        for _ in range(9):
            registry.record(endpoint_at(registry, "main@b:1"), Result.FAILED)
        assert [view.ejected for view in registry.views()] == [True, False]  # the last one stays
        await eventually(lambda: len(registry.route("auto").ready) == 2, 30, "its return")


async def test_an_ejected_endpoint_answers_where_nobody_else_can() -> None:
    async with registry_of({}, Timing(ready_s=60)) as registry:
        registry.sync([A, B])
        await eventually(lambda: len(registry.route("auto").ready) == 2, 5, "both endpoints")
        for _ in range(5):
            registry.record(endpoint_at(registry, "main@a:1"), Result.FAILED)
        other = registry.get("main@b:1")
        assert other
        registry._accept(other, Report(State.DOWN))
        assert set(registry.route("auto").ready) == {"main@a:1"}


async def test_a_server_is_not_blamed_for_the_one_that_had_its_address() -> None:
    async with registry_of({}, Timing(ready_s=60)) as registry:
        registry.sync([replace(A, allocation="first"), B])
        await eventually(lambda: len(registry.route("auto").ready) == 2, 5, "both endpoints")
        before = endpoint_at(registry, "main@a:1")
        registry.sync([replace(A, allocation="second"), B])
        for _ in range(5):
            registry.record(before, Result.FAILED)
        assert [view.ejected for view in registry.views()] == [False, False]
