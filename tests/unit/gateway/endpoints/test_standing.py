"""What requests see of the endpoints is what there is, though it is not worked out again for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roost.engines.base import State
from roost.gateway.endpoints.endpoint import Endpoint, Member
from roost.gateway.endpoints.outliers import Policy, Result
from roost.gateway.endpoints.standing import MOST_ROUTES
from roost.gateway.registry import Registry, Timing
from roost.gateway.routing import resolve_for
from roost.gateway.warm.planned import Planned
from roost.ops.api_keys import ApiKey, made_key
from tests.unit.gateway.test_registry import READY, Scripted

A, B = Member("main", "http://127.0.0.1:1", job="job-a"), Member("coder", "http://127.0.0.1:2", job="job-b")
TINY = replace(READY, models=("tiny",))
BOTH = replace(READY, models=("tiny", "coder-7b"))
KEYS: tuple[ApiKey | None, ...] = (None, made_key({"name": "k", "sha256": "0" * 64, "models": ("coder",)}))
NAMES = ("auto", "main", "coder", "tiny", "coder-7b", "nope")
REMEMBER_S = 100.0
Step = Callable[[Registry], object]


def of(registry: Registry, member: Member, then: Callable[[Endpoint], object]) -> None:
    if endpoint := registry.get(member.id):
        then(endpoint)


STEPS: tuple[Step, ...] = (
    lambda registry: registry.sync((A, B)),
    lambda registry: registry.sync((A,)),
    lambda registry: registry.sync((replace(A, slot="other"), B)),
    lambda registry: registry.sync((B,), "by hand"),
    lambda registry: registry.drain({A.id: ""}),
    lambda registry: registry.drain({}),
    lambda registry: registry.plan([Planned("job-a", "main"), Planned("job-c", "late", wanted=0)]),
    lambda registry: registry.plan([]),
    lambda registry: registry.close_job("job-a"),
    lambda registry: registry.open_job("job-a"),
    lambda registry: registry.note({"job-c": "there is no room"}),
    lambda registry: of(registry, A, lambda endpoint: registry._accept(endpoint, TINY)),
    lambda registry: of(registry, B, lambda endpoint: registry._accept(endpoint, BOTH)),
    lambda registry: of(registry, B, lambda endpoint: registry._accept(endpoint, replace(BOTH, slots=7))),
    lambda registry: of(registry, A, lambda endpoint: registry.mark(endpoint, State.DOWN, "cannot connect")),
    lambda registry: of(registry, A, lambda endpoint: registry.record(endpoint, Result.FAILED)),
    lambda registry: of(registry, B, lambda endpoint: registry.record(endpoint, Result.FAILED)),
    lambda registry: of(registry, B, lambda endpoint: registry.record(endpoint, Result.SUCCEEDED)),
)


def check(registry: Registry) -> None:
    """Compare what is remembered with what there is."""
    views, remembered = registry.views(), registry.remembered()
    names = {view.slot for view in views} | {model for view in views for model in view.models}
    assert set(registry.offered()) == names | set(remembered) | set(remembered.values())
    assert tuple(registry.standing().views) == views
    for key in KEYS:
        for name in NAMES:
            wanted = resolve_for(key, name, views, remembered, settled=registry._settled)
            assert registry.route(name, key) == wanted
            assert registry.route(name, key) == wanted  # the one that was kept


EJECTED = [STEPS[0], STEPS[11], STEPS[12], *[STEPS[15]] * 5, 20.0, 20.0]  # for 30 s, then it is back
FORGOTTEN = [STEPS[0], STEPS[12], STEPS[1], REMEMBER_S, 0.1]
CHANGED = [STEPS[0], STEPS[12], STEPS[13]]


@example(EJECTED)
@example(CHANGED)
@example(FORGOTTEN)
@given(st.lists(st.one_of(st.sampled_from(STEPS), st.sampled_from((0.1, 20.0, 40.0, REMEMBER_S))), max_size=25))
def test_nothing_that_changes_is_missed(steps: list[Step | float]) -> None:
    async def run() -> None:
        now = 1000.0
        patched.setattr("roost.gateway.registry.time.monotonic", lambda: now)
        registry = Registry(lambda member: Scripted(member.base_url), Timing(remember_s=REMEMBER_S), Policy())
        registry.hooks.warmed = lambda _endpoint: asyncio.sleep(3600)  # probes come from the steps alone
        for step in steps:
            if isinstance(step, float):
                now += step
            else:
                step(registry)
            check(registry)
        await registry.close()

    with pytest.MonkeyPatch.context() as patched:
        asyncio.run(run())


async def test_names_that_clients_make_up_are_not_kept_without_end() -> None:
    registry = Registry(lambda member: Scripted(member.base_url))
    standing = registry.standing()
    for number in range(MOST_ROUTES * 2):
        registry.route(f"nope-{number}")
    assert registry.standing() is standing
    assert len(standing._routes) == MOST_ROUTES
