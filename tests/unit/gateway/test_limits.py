"""Limits as clients meet them: 429 with what OpenAI's clients know, queues, budgets, and what survives a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.account.budget import Spent, over_budget
from roost.gateway.account.limits import Limiter
from roost.gateway.errors import ApiError
from roost.ops.api_keys import ApiKey, Budget, Tier, TierLimits, digest_of, made_key
from tests.support.fakes import USAGE, fake_engine
from tests.support.gateway import API_KEY, Served, quick_settings, served
from tests.support.net import eventually
from tests.unit.gateway.test_access import key, write_document
from tests.unit.gateway.test_proxy_faults import CHAT, QUESTION, metric

ALICE = made_key({"name": "alice", "sha256": digest_of("alice")})
TOKENS = USAGE["total_tokens"]

pytestmark = pytest.mark.usefixtures("noon")


class World:
    """A limiter with a clock that stands until it is moved."""

    def __init__(self, limits: TierLimits, spent: Spent | None = None) -> None:
        self.limits = limits
        self.now = 1000.0
        self.spent = spent or Spent()
        self.refused: list[tuple[str, str]] = []
        self.limiter = Limiter(
            lambda _key: self.limits,
            lambda _name: self.spent,
            lambda name, reason: self.refused.append((name, reason)),
            lambda: self.now,
        )

    def refusal(self, key: ApiKey = ALICE, body_bytes: int = 4) -> ApiError:
        """Admit a request that must be refused; return the error."""
        with pytest.raises(ApiError) as caught:
            self.limiter.admit(key, body_bytes)
        return caught.value


def test_too_many_requests_are_refused_with_what_clients_know() -> None:
    world = World(TierLimits(requests=2))
    for left in ("1", "0"):
        assert world.limiter.admit(ALICE, 4).headers["x-ratelimit-remaining-requests"] == left
    error = world.refusal()
    assert (error.status, error.kind, error.code, error.retry_after_s) == (429, "requests", "rate_limit_exceeded", 30)
    headers = error.response().headers
    assert headers["retry-after"] == "30"
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-reset-requests"] == "1m0s"
    assert world.refused == [("alice", "requests")]
    world.now += 30
    world.limiter.admit(ALICE, 4)
    world.limiter.admit(ALICE.model_copy(update={"name": "bob"}), 4)


def test_tokens_are_estimated_before_and_settled_after() -> None:
    world = World(TierLimits(tokens=100))
    ticket = world.limiter.admit(ALICE, 40)
    assert ticket.headers["x-ratelimit-remaining-tokens"] == "90"
    ticket.settle(160)  # 60 of debt
    error = world.refusal(body_bytes=40)
    assert (error.kind, error.retry_after_s) == ("tokens", 42)
    world.now += 42
    ticket = world.limiter.admit(ALICE, 40)
    ticket.settle(0)
    assert world.limiter.standing(ALICE)["remaining"] == {"tokens": 10}


def test_a_prompt_larger_than_the_bucket_waits_for_a_full_one_and_not_for_ever() -> None:
    world = World(TierLimits(tokens=100))
    world.limiter.admit(ALICE, 4000)
    assert world.refusal(body_bytes=4000).retry_after_s == 60
    world.now += 60
    world.limiter.admit(ALICE, 4000)


def test_who_keeps_hammering_waits_longer() -> None:
    world = World(TierLimits(requests=60))
    for _ in range(60):
        world.limiter.admit(ALICE, 4)
    waits = []
    for _ in range(700):
        world.now += 0.1
        try:
            world.limiter.admit(ALICE, 4)
        except ApiError as error:
            waits.append(error.retry_after_s)
    assert waits[0] == 1
    assert max(wait or 0 for wait in waits) == 60


@given(st.floats(-1e6, 1e6), st.floats(0, 120), st.integers(1, 60))
def test_a_restart_gives_nothing_away(away_s: float, age_s: float, spent: int) -> None:
    limits = TierLimits(requests=60, tokens=600)
    world = World(limits)
    for _ in range(spent):
        world.limiter.admit(ALICE, 40)
    world.now += age_s
    kept = world.limiter.levels()
    without = dict(world.limiter.standing(ALICE))
    new = World(limits)
    new.now = 5.0  # a monotonic clock begins anywhere
    new.limiter.restore(kept, away_s)
    if away_s <= 0:
        assert new.limiter.standing(ALICE) == without
    else:
        world.now += away_s
        assert new.limiter.standing(ALICE) == world.limiter.standing(ALICE)


@pytest.mark.parametrize(
    ("budget", "spent", "part"),
    [
        (Budget(), Spent(10**9, 10**9, 1e9, 1e9), ""),
        (Budget(tokens_per_day=10), Spent(9, 99), ""),
        (Budget(tokens_per_day=10), Spent(10, 10), "tokens_per_day"),
        (Budget(tokens_per_month=10), Spent(0, 10), "tokens_per_month"),
        (Budget(cost_per_day=0.5), Spent(cost_day=0.5), "cost_per_day"),
        (Budget(cost_per_month=0.5), Spent(cost_month=0.4999), ""),
    ],
)
def test_a_budget_is_over_when_it_is_used_up(budget: Budget, spent: Spent, part: str) -> None:
    assert over_budget(budget, spent) == part


def test_a_used_up_budget_says_when_it_is_renewed_and_that_trying_is_of_no_use() -> None:
    world = World(TierLimits(), Spent(tokens_day=5, tokens_month=5))
    error = world.refusal(ALICE.model_copy(update={"budget": Budget(tokens_per_day=5)}))
    assert (error.status, error.kind, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert "tokens per day" in error.message
    assert 0 < (error.retry_after_s or 0) <= 86400
    assert error.response().headers["x-should-retry"] == "false"


async def test_places_are_given_in_the_order_of_asking() -> None:
    world = World(TierLimits(concurrent=2, waiting=3))
    order: list[int] = []
    release = asyncio.Event()

    async def work(number: int) -> None:
        async with world.limiter.admit(ALICE, 4).place(10):
            order.append(number)
            await release.wait()

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    await eventually(lambda: world.limiter.standing(ALICE)["waiting"] == 3, 5, "three to wait")
    with pytest.raises(ApiError) as caught:
        async with world.limiter.admit(ALICE, 4).place(10):
            pass
    assert caught.value.code == "concurrency_limit_exceeded"
    tasks[2].cancel()  # a client that leaves while it waits
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4]
    standing = world.limiter.standing(ALICE)
    assert (standing["running"], standing["waiting"]) == (0, 0)


async def test_a_limit_that_is_raised_lets_in_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.gateway.account.places.LOOK_AGAIN_S", 0.01)
    world = World(TierLimits(concurrent=1, waiting=5))
    async with world.limiter.admit(ALICE, 4).place(5):
        waiting = world.limiter.admit(ALICE, 4).place(5)
        entering = asyncio.ensure_future(waiting.__aenter__())
        await asyncio.wait({entering}, timeout=0.05)
        assert not entering.done()
        world.limits = TierLimits(concurrent=2, waiting=5)
        await asyncio.wait_for(entering, 5)
        await waiting.__aexit__(None, None, None)
    assert world.limiter.standing(ALICE)["running"] == 0


async def test_who_leaves_at_the_moment_of_getting_a_place_gives_it_back() -> None:
    world = World(TierLimits(concurrent=1, waiting=1))

    async def hold() -> None:
        async with world.limiter.admit(ALICE, 4).place(10):
            pass

    async with world.limiter.admit(ALICE, 4).place(10):
        waiting = asyncio.create_task(hold())
        await eventually(lambda: world.limiter.standing(ALICE)["waiting"] == 1, 5, "the one that waits")
    waiting.cancel()  # the place is its own already, and it has not noticed yet
    await asyncio.gather(waiting, return_exceptions=True)
    assert world.limiter.standing(ALICE)["running"] == 0


async def test_who_waits_too_long_is_refused_and_leaves_no_place_taken() -> None:
    world = World(TierLimits(concurrent=1, waiting=1))
    async with world.limiter.admit(ALICE, 4).place(10):
        with pytest.raises(ApiError, match="at once"):
            async with world.limiter.admit(ALICE, 4).place(0.01):
                pass
    async with world.limiter.admit(ALICE, 4).place(0.01):
        pass
    assert world.limiter.standing(ALICE)["running"] == 0
    assert world.refused == [("alice", "concurrency")]


class Crowd:
    """Requests of one key that come, finish and leave."""

    def __init__(self) -> None:
        self.world = World(TierLimits(concurrent=2, waiting=100))
        self.gates: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    def running(self) -> int:
        """Return how many have a place."""
        return int(str(self.world.limiter.standing(ALICE)["running"]))

    async def work(self, gate: asyncio.Event) -> None:
        """Hold a place until the gate opens."""
        async with self.world.limiter.admit(ALICE, 4).place(100):
            assert self.running() <= 2
            await gate.wait()

    async def step(self, what: str) -> None:
        """Let one come, let the first finish, or make the last leave."""
        if what == "come":
            gate = asyncio.Event()
            self.gates.append((gate, asyncio.create_task(self.work(gate))))
        elif self.gates and what == "go":
            self.gates.pop(0)[0].set()
        elif self.gates:
            self.gates.pop()[1].cancel()
        await self.settle()

    async def settle(self) -> None:
        """Let everybody do what they can."""
        for _ in range(10):
            await asyncio.sleep(0)


@given(st.lists(st.sampled_from(["come", "go", "leave"]), max_size=40))
def test_places_are_never_lost_nor_given_twice(steps: list[str]) -> None:
    async def play() -> None:
        crowd = Crowd()
        for step in steps:
            await crowd.step(step)
            assert crowd.running() == min(2, len(crowd.gates))
        for gate, _ in crowd.gates:
            gate.set()
        await asyncio.gather(*(task for _, task in crowd.gates), return_exceptions=True)
        await crowd.settle()
        assert crowd.running() == 0

    asyncio.run(play())


# --- Through the whole gateway -----------------------------------------------------------------------------------


async def chat(gateway: Served, who: str = "alice", **more: object) -> tuple[int, dict[str, str], bytes]:
    """Send one chat; returns status, headers in lower case and body."""
    headers = {"Authorization": f"Bearer {who}"}
    async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, **more}, headers=headers) as answer:
        return answer.status, {n.lower(): v for n, v in answer.headers.items()}, await answer.read()


async def test_a_client_meets_its_limits_and_they_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    document = write_document(tmp_path, key("alice"), key("bob", tier="bulk"))
    tiers = {Tier.STANDARD: TierLimits(requests=3, tokens=100_000), Tier.BULK: TierLimits(requests=1)}
    async with fake_engine() as engine:
        settings = quick_settings(
            tmp_path, static_endpoints=engine.url, keys_file=document, tiers=tiers, state_dir=state
        )
        async with served(settings) as gateway:
            await gateway.ready()
            for left in ("2", "1", "0"):
                status, headers, _ = await chat(gateway, stream=left == "1")
                assert (status, headers["x-ratelimit-remaining-requests"]) == (200, left)
            status, headers, body = await chat(gateway)
            assert status == 429
            assert int(headers["retry-after"]) in range(1, 21)  # one each 20 s, less what has passed meanwhile
            assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
            assert (await chat(gateway, "bob"))[0] == 200
            assert (await chat(gateway, API_KEY))[0] == 200
            assert await metric(gateway, "roost_refused_total", key="alice", reason="requests") == 1
        async with served(settings) as gateway:
            await gateway.ready()
            assert (await chat(gateway))[0] == 429
            assert (await chat(gateway, "bob"))[0] == 429


async def test_the_tokens_that_were_used_count(tmp_path: Path) -> None:
    document = write_document(tmp_path, key("alice"))
    limits = {Tier.STANDARD: TierLimits(tokens=60)}  # one more each second
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, keys_file=document, tiers=limits)) as gateway,
    ):
        await gateway.ready()
        await chat(gateway)
        headers = {"Authorization": "Bearer alice"}
        async with gateway.client.get(gateway.url + "/v1/key", headers=headers) as answer:
            found = await answer.json()
    assert found["remaining"]["tokens"] in range(60 - TOKENS, 60 - TOKENS + 10)
    assert found["used"]["tokens_per_day"] == TOKENS


async def test_a_budget_ends_at_its_end(tmp_path: Path) -> None:
    document = write_document(tmp_path, key("alice", budget={"tokens_per_day": TOKENS + 1}))
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, keys_file=document)) as gateway,
    ):
        await gateway.ready()
        statuses = [(await chat(gateway))[0] for _ in range(3)]
    assert statuses == [200, 200, 429]  # what was begun is finished


async def test_a_place_comes_free_when_a_client_leaves(tmp_path: Path) -> None:
    document = write_document(tmp_path, key("alice"))
    tiers = {Tier.STANDARD: TierLimits(concurrent=1, waiting=1)}
    async with (
        fake_engine(mode="slow") as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, keys_file=document, tiers=tiers)) as gateway,
    ):
        await gateway.ready()
        first = asyncio.create_task(chat(gateway, stream=True))
        await eventually(lambda: len(engine.chats) == 1, 5, "the first chat")
        second = asyncio.create_task(chat(gateway, stream=True))
        await eventually(_standing(gateway, "waiting", 1), 5, "the second to wait")
        assert (await chat(gateway))[0] == 429
        first.cancel()
        await eventually(lambda: len(engine.chats) == 2, 5, "the second chat")
        engine.go.set()
        assert (await second)[0] == 200
        await eventually(_standing(gateway, "running", 0), 5, "no place taken")


def _standing(gateway: Served, what: str, wanted: int) -> Callable[[], bool]:
    alice = key("alice")
    return lambda: gateway.gateway.meter.limiter.standing(alice)[what] == wanted
