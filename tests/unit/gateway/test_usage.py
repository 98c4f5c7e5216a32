"""Usage: what is counted, what it costs, and that neither a kill nor a full disk nor a broken file loses it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.gateway.account import spool
from roost.gateway.account.accountant import Accountant, Pace
from roost.gateway.account.budget import Spent
from roost.gateway.account.ledger import Ledger, Position, Question
from roost.gateway.account.limits import Level
from roost.gateway.account.state_folder import DATABASE
from roost.gateway.account.usage import (
    DAYS_THAT_PROVE,
    FREE,
    Group,
    Price,
    Sums,
    Use,
    cost_of,
    day_of,
    energy_of,
    forget_before,
    parse_use,
    price_of,
)
from roost.ops.errors import RoostError
from tests.support.net import eventually
from tests.unit.gateway.conftest import DAY_S

QUICK = Pace(sync_s=0.005, absorb_s=0.01)

pytestmark = pytest.mark.usefixtures("noon")


def use(**more: object) -> Use:
    """Return a finished request."""
    plain = Use(time.time(), "alice", "tiny", 200, 27, 20, 7, 100.0, False, 0.5, 3.0)
    return replace(plain, **more)  # type: ignore[arg-type]


def accountant(folder: Path | None, pace: Pace = QUICK, trouble: list[str] | None = None) -> Accountant:
    """Return an accountant that is not running yet."""
    return Accountant(folder, pace, dict, (trouble if trouble is not None else []).append)


@asynccontextmanager
async def counting(folder: Path | None, pace: Pace = QUICK) -> AsyncIterator[Accountant]:
    """Run an accountant."""
    made = accountant(folder, pace)
    async with made.running(lambda _name: None):
        yield made


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder whose names match."""
    return sorted(folder.glob(pattern))


async def total(counted: Accountant, **question: str) -> Sums:
    """Return the sums of all usage."""
    rows = await counted.ask(Question(by=(), **question))
    return rows[0][1] if rows else Sums()


# --- Pure --------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_from_its_line() -> None:
    assert parse_use(use(at=1.5).line()) == use(at=1.5)
    for rubbish in (b"[]", b"{}", b"x"):
        with pytest.raises(ValueError, match=r"no record|Expecting"):
            parse_use(rubbish)


@pytest.mark.parametrize(
    ("tokens", "price", "cost"),
    [
        ((1_000_000, 0, 0), Price(input=2), 2.0),
        ((1_000_000, 400_000, 500_000), Price(input=1, output=4, cached=0.1), 0.6 + 0.04 + 2.0),
        ((1_000_000, 400_000, 0), Price(input=1), 1.0),  # no price of its own for what was cached
        ((100, 0, 100), FREE, 0.0),
    ],
)
def test_cost_is_price_times_tokens(tokens: tuple[int, int, int], price: Price, cost: float) -> None:
    assert cost_of(*tokens, price) == pytest.approx(cost)


def test_energy_is_time_times_watts_and_unknown_without() -> None:
    assert energy_of(90_000, 200) == 18_000
    assert energy_of(90_000, 0) == 0


def test_a_star_is_the_price_of_all_others() -> None:
    prices = {"tiny": Price(input=1), "*": Price(input=2)}
    assert [price_of(prices, name).input for name in ("tiny", "big")] == [1, 2]
    assert price_of({}, "tiny") == FREE


@settings(deadline=None)  # it syncs nothing, but waits for the disk all the same
@given(st.lists(st.binary(max_size=30).filter(lambda text: b"\n" not in text), max_size=8), st.integers(0, 400))
def test_a_spool_that_was_cut_anywhere_gives_whole_lines_only(texts: list[bytes], cut: int) -> None:

    with tempfile.TemporaryDirectory() as made:
        written = spool.Spool(Path(made), 1)
        for text in texts:
            written.append(text)
        written.close()
        raw = written.path.read_bytes()
        written.path.write_bytes(raw[:cut])
        found = list(spool.read(written.path))
    assert found == texts[: len(found)]
    assert len(found) >= raw[:cut].count(b"\n")


def test_the_ledger_adds_up_and_answers_by_any_dimension(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / DATABASE)
    sums = Sums()
    sums.add(use(status=200))
    sums.add(use(status=499, estimated=True))
    for day in ("2030-01-30", "2030-01-31", "2030-02-01"):
        for name in ("alice", "bob"):
            ledger.absorb({Group(day, name, "tiny"): sums}, Position(1, 5))
    assert ledger.position() == Position(1, 5)
    assert [s.requests for _, s in ledger.ask(Question(by=()))] == [12]
    assert [(n["key"], s.failed) for n, s in ledger.ask(Question(by=("key",)))] == [("alice", 3), ("bob", 3)]
    found = ledger.ask(Question(by=("day", "key"), since="2030-01-31", until="2030-01-31", key="bob"))
    assert found == [({"day": "2030-01-31", "key": "bob"}, sums)]
    assert ledger.ask(Question(model="none")) == []
    assert ledger.spent("2030-01-31") == {name: Spent(68, 136, 1.0, 2.0) for name in ("alice", "bob")}
    ledger.absorb({}, Position(2, 0), {"alice": Level(1, 2, 3, 4)}, forget_before="2030-02-01")
    assert [n["day"] for n, _ in ledger.ask(Question(by=("day",)))] == ["2030-02-01"]
    assert ledger.levels()[0] == {"alice": Level(1, 2, 3, 4)}
    ledger.close()


@pytest.mark.parametrize(
    ("newest", "before"),
    [
        ([], ""),
        (["2030-03-01", "2030-02-28"], ""),  # two days of use prove nothing yet
        (["2030-03-01", "2030-02-28", "2030-02-27"], "2030-01-30"),
        (["2030-02-24", "2030-02-23", "2030-02-22"], "2030-01-30"),
        (["2030-03-01", "2030-02-28", "2027-01-01"], "2026-12-02"),  # a jump, and two days of use after it
        (["2027-01-03", "2027-01-02", "2027-01-01"], "2026-12-02"),  # a jump, and no use since
    ],
)
def test_usage_is_forgotten_only_by_a_date_that_days_of_use_bear_out(newest: list[str], before: str) -> None:
    assert forget_before("2030-03-01", newest, 30) == before


@given(st.lists(st.dates(date(2000, 1, 1), date(2040, 1, 1)), max_size=DAYS_THAT_PROVE), st.integers(32, 500))
def test_usage_is_never_forgotten_too_early(days: list[date], keep_days: int) -> None:
    today = date(2040, 1, 1)
    newest = sorted({day.isoformat() for day in days}, reverse=True)
    before = forget_before(today.isoformat(), newest, keep_days)
    assert before <= (today - timedelta(days=keep_days)).isoformat()
    assert before or len(newest) < DAYS_THAT_PROVE


async def test_a_clock_that_is_in_the_future_for_a_while_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    ledger = Ledger(tmp_path / DATABASE)
    ledger.absorb({Group(day_of(now - n * DAY_S), "alice", "tiny"): Sums() for n in range(5)}, Position(0, 0))
    ledger.close()
    counted = accountant(tmp_path, Pace(keep_days=32))

    async def days_left(at: float) -> list[str]:
        monkeypatch.setattr("roost.gateway.account.accountant.time.time", lambda: at)
        counted.record(use(at=at))
        for _ in range(2):  # what the first one writes is what the second one finds
            await counted.absorb()
        return [name["day"] for name, _ in await counted.ask(Question(by=("day",)))]

    real = [day_of(now - n * DAY_S) for n in reversed(range(5))]
    future = now + 1000 * DAY_S
    assert await days_left(future) == [*real, day_of(future)]
    assert await days_left(future + DAY_S) == [*real, day_of(future), day_of(future + DAY_S)]
    assert (await days_left(now))[:5] == real  # the clock is right again: what lies ahead of it proves nothing
    assert await days_left(future + 2 * DAY_S) == [day_of(future + n * DAY_S) for n in range(3)]  # time has passed
    monkeypatch.undo()
    _let_go(counted)


def test_the_ledger_is_safe_against_a_power_cut(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / DATABASE)
    pragma = ledger._connection.execute
    assert (pragma("PRAGMA synchronous").fetchone()[0], pragma("PRAGMA journal_mode").fetchone()[0]) == (2, "wal")
    ledger.close()


def test_the_ledger_of_an_earlier_release_keeps_its_usage(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    group, sums = Group("2026-07-01", "ann", "small"), Sums()
    sums.prompt = 7
    ledger = Ledger(path)
    ledger.absorb({group: sums}, Position(0, 0))
    ledger.close()
    with sqlite3.connect(path) as old:  # as it was before replicas told each other of usage
        old.execute("ALTER TABLE usage DROP COLUMN version")
        for table in ("own", "heard", "backoffs", "strikes"):
            old.execute(f"DROP TABLE {table}")
    old.close()
    for _start in range(2):
        ledger = Ledger(path)
        assert ledger.all()[group].prompt == 7
        assert [(version, found) for version, found, _ in ledger.beyond(ledger.replica, 0, 9)] == [(1, group)]
        ledger.close()


# --- The accountant ----------------------------------------------------------------------------------------------


async def test_what_is_recorded_is_in_the_sums_after_any_end(tmp_path: Path) -> None:
    async with counting(tmp_path) as counted:
        for _ in range(3):
            counted.record(use())
        assert counted.spent("alice") == Spent(3 * 34, 3 * 34, 1.5, 1.5)
    dead = accountant(tmp_path)  # never runs: like a process that is killed before it absorbs anything
    for _ in range(4):
        dead.record(use())
    _let_go(dead)
    async with counting(tmp_path) as counted:
        assert (await total(counted)).requests == 7
        assert counted.spent("alice").tokens_day == 7 * 34


async def test_a_kill_between_the_ledger_and_the_spool_counts_nothing_twice(tmp_path: Path) -> None:
    dead = accountant(tmp_path)
    for _ in range(4):
        dead.record(use())
    await dead.absorb()
    dead.record(use())
    _let_go(dead)
    for _ in range(2):  # and starting again without an end does not either
        again = accountant(tmp_path)
        assert (await total(again)).requests == 5
        _let_go(again)


async def test_old_spools_go_and_memory_holds_sums_only(tmp_path: Path) -> None:
    async with counting(tmp_path, replace(QUICK, spool_bytes=2000)) as counted:
        for _ in range(20):
            for _ in range(50):
                counted.record(use())
            await counted.absorb()
        assert len(counted._pending) == 0
        await eventually(lambda: len(spool.numbers(tmp_path)) == 1, 5, "one spool")
        assert (await total(counted)).requests == 1000
        assert sum(path.stat().st_size for path in matching(tmp_path, spool.PATTERN)) < 10_000


async def test_a_full_disk_loses_nothing_that_memory_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble: list[str] = []
    counted = accountant(tmp_path, trouble=trouble)
    write = os.write

    def full(handle: int, data: bytes) -> int:
        write(handle, data[:7])  # half a line is there
        raise OSError(28, "No space left on device")

    counted.record(use())
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        counted.record(use())
    counted.record(use())
    assert trouble == ["spool"]
    assert len(list(spool.read(matching(tmp_path, spool.PATTERN)[0]))) == 2
    assert (await total(counted)).requests == 3
    _let_go(counted)


async def test_sums_wait_while_the_ledger_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = accountant(tmp_path)
    counted.record(use())

    def refuse(*_args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(counted._ledger, "absorb", refuse)
        with pytest.raises(sqlite3.OperationalError):
            await counted.absorb()
    counted.record(use())
    assert (await total(counted)).requests == 2
    _let_go(counted)


async def test_what_is_cancelled_while_it_is_written_is_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = accountant(tmp_path)
    counted.record(use())
    write, entered, go_on = counted._ledger.absorb, threading.Event(), threading.Event()

    def slow(
        sums: Mapping[Group, Sums],
        position: Position,
        levels: Mapping[str, Level] | None,
        forget_before: str,
        *more: object,
    ) -> None:
        entered.set()
        assert go_on.wait(10)
        write(sums, position, levels, forget_before, *more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(counted._ledger, "absorb", slow)
        absorbing = asyncio.create_task(counted.absorb())
        await eventually(entered.is_set, 5, "the thread to write")
        absorbing.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await absorbing
    assert (await total(counted)).requests == 1
    _let_go(counted)


async def test_questions_alone_write_nothing(tmp_path: Path) -> None:
    counted = accountant(tmp_path)
    counted.record(use())
    assert (await total(counted)).requests == 1
    changes = counted._ledger._connection.total_changes
    assert (await total(counted)).requests == 1
    assert counted._ledger._connection.total_changes == changes
    _let_go(counted)


async def test_a_broken_database_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"this is no database" * 100)
    async with counting(tmp_path) as counted:
        counted.record(use())
        assert (await total(counted)).requests == 1
    assert len(matching(tmp_path, f"{DATABASE}.broken-*")) == 1


async def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    async with counting(tmp_path):
        with pytest.raises(RoostError, match="Another agent"):
            accountant(tmp_path)
    with pytest.raises(RoostError, match="cannot be written"):
        accountant(tmp_path / "none")


async def test_a_new_day_and_a_new_month_begin_at_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2030, 1, 30, 12, tzinfo=UTC)
    monkeypatch.setattr(time, "time", lambda: now.timestamp())
    counted = accountant(tmp_path)
    counted.record(use(at=now.timestamp()))
    now += timedelta(days=1)
    assert counted.spent("alice") == Spent(0, 34, 0.0, 0.5)
    now += timedelta(days=1)
    assert counted.spent("alice") == Spent()
    _let_go(counted)


async def test_a_clock_that_was_wrong_for_a_while_renews_no_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = datetime(2030, 1, 31, 12, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)
    now = right
    monkeypatch.setattr(time, "time", lambda: now.timestamp())
    async with counting(tmp_path) as counted:
        counted.record(use(at=now.timestamp()))
        await counted.absorb()
        for other in (wrong, right + timedelta(days=1)):
            now = other
            assert counted.spent("alice") == Spent()
            now = right
            await eventually(lambda: counted.spent("alice") == Spent(34, 34, 0.5, 0.5), 5, "what was used")
    now = wrong  # a machine without a clock of its own starts
    async with counting(tmp_path) as counted:
        now = right
        counted.record(use(at=now.timestamp()))
        await eventually(lambda: counted.spent("alice") == Spent(68, 68, 1.0, 1.0), 5, "what was used")


async def test_without_a_folder_all_is_in_memory() -> None:
    async with counting(None) as counted:
        counted.record(use())
        assert (await total(counted)).requests == 1


def _let_go(counted: Accountant) -> None:
    """Leave an accountant as the kernel leaves that of a killed process: nothing is written, the lock is free."""
    counted._ledger.close()
    assert counted._spool
    counted._spool.close()
    assert counted._lock is not None
    os.close(counted._lock)
    counted._thread.shutdown()
