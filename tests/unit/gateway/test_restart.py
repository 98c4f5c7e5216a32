"""A gateway that was killed, or stopped, or finds its disk full or its database damaged, goes on where it was."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import aiohttp
import pytest

from roost.gateway.account.state_folder import DATABASE
from roost.ops.api_keys import digest_of
from tests.support.fakes import USAGE, FakeEngine, fake_engine
from tests.support.gateway import API_KEY, service, write_keys
from tests.support.net import eventually
from tests.unit.gateway.test_access import key, write_document

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
ALICE = {"Authorization": "Bearer alice"}
ADMIN = {"Authorization": f"Bearer {API_KEY}"}
ONCE = {"Authorization": "Bearer once"}


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with fake_engine() as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
def environment(tmp_path: Path, engine: FakeEngine) -> dict[str, str]:
    (tmp_path / "engine-key").write_text("engine-key")
    (tmp_path / "state").mkdir()
    return {
        "ROOST_API_KEYS_FILE": str(write_keys(tmp_path)),
        "ROOST_KEYS_FILE": str(write_document(tmp_path, key("alice", tier="bulk"), key("once", tier="standard"))),
        "ROOST_ENGINE_KEY_FILE": str(tmp_path / "engine-key"),
        "ROOST_STATIC_ENDPOINTS": engine.url,
        "ROOST_STATE_DIR": str(tmp_path / "state"),
        "ROOST_TIERS": '{"bulk": {"requests": 3}, "standard": {"requests": 1}}',
        "ROOST_PROBE_UNREADY_EVERY_S": "0.05",
        "ROOST_USAGE_ABSORB_S": "0.2",
    }


async def up(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def ask(client: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> tuple[int, int]:
    """Return the status, and for how many seconds the key is told to wait."""
    async with client.post(f"{url}/v1/chat/completions", json=QUESTION, headers=headers) as answer:
        await answer.read()
        return answer.status, int(answer.headers.get("retry-after", "0"))


async def used(client: aiohttp.ClientSession, url: str) -> tuple[int, int]:
    """Return requests and tokens of the prompts."""
    async with client.get(f"{url}/v1/usage?by=", headers=ADMIN) as answer:
        data = (await answer.json())["data"]
    return (data[0]["requests"], data[0]["prompt_tokens"]) if data else (0, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_limits_penalties_usage_and_keys_are_those_of_before(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession, number: signal.Signals
) -> None:
    wrong = {"Authorization": "Bearer guessed"}
    with service(tmp_path, environment) as running:
        await eventually(lambda: up(client, running.url), 15, "a model")
        for _ in range(22):  # a stranger guesses until it is told to wait
            status, _ = await ask(client, running.url, wrong)
        assert status == 429
        assert (await ask(client, running.url, ONCE))[0] == 200
        told = 0
        asked_ns = 0
        for _ in range(3):
            asked_ns = time.time_ns()
            status, told = await ask(client, running.url, ONCE)
            assert status == 429
        written = tmp_path / "state" / f"{DATABASE}-wal"
        # What is refused is no usage: it is written down within the second, perhaps before we look.
        await eventually(lambda: written.stat().st_mtime_ns > asked_ns, 30, "levels to be kept")
        begun = time.monotonic()
        for _ in range(2):  # of three; the kill follows at once, so that only the spool has them
            assert (await ask(client, running.url, ALICE))[0] == 200
        running.process.send_signal(number)
        running.process.wait(20)
    with service(tmp_path, environment) as again:
        await eventually(lambda: up(client, again.url), 15, "a model")
        assert await used(client, again.url) == (3, 3 * USAGE["prompt_tokens"])
        let_in = 0
        while (await ask(client, again.url, ALICE))[0] == 200:
            let_in += 1
        # The third, and what has come back meanwhile: three a minute.
        assert 1 <= let_in <= 1 + (time.monotonic() - begun) * 3 / 60
        status, now_told = await ask(client, again.url, ONCE)
        assert status == 429
        assert now_told > told - 30  # the bucket is not full again
        assert (await ask(client, again.url, wrong))[0] == 429  # the first wrong key of this process
        assert digest_of("alice") in (tmp_path / "keys.json").read_text()


# --- The disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of its own with room for little."""
    where = tmp_path / "state"
    where.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk; return what takes it."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        while True:
            try:
                os.write(file.fileno(), b"x" * 4096)
            except OSError:
                return filler


async def not_kept(client: aiohttp.ClientSession, url: str) -> list[str]:
    async with client.get(f"{url}/healthz") as answer:
        assert answer.status == 200
        found = await answer.json()
    return list(found.get("not_kept", []))


@pytest.mark.parametrize("before", [0, 2])
async def test_with_a_full_disk_it_starts_serves_says_so_and_keeps_all_once_there_is_room(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession, small_disk: Path, before: int
) -> None:
    if before:
        with service(tmp_path, environment) as running:
            await eventually(lambda: up(client, running.url), 15, "a model")
            for _ in range(before):
                assert (await ask(client, running.url, ADMIN))[0] == 200
            running.process.kill()
            running.process.wait()
    filler = fill(small_disk)
    with service(tmp_path, environment) as running:
        await eventually(lambda: up(client, running.url), 15, "a model")
        assert (await ask(client, running.url, ADMIN))[0] == 200
        await eventually(lambda: _any(not_kept(client, running.url)), 10, "it to say what it cannot keep")
        if before:  # what was kept can be read still
            assert "folder" not in await not_kept(client, running.url)
        filler.unlink()
        assert (await ask(client, running.url, ADMIN))[0] == 200
        await eventually(lambda: _none(not_kept(client, running.url)), 20, "all to be kept again")
        assert (await used(client, running.url))[0] == before + 2
        running.process.kill()
        running.process.wait()
    with service(tmp_path, environment) as again:
        assert (await used(client, again.url))[0] == before + 2


async def _any(found: Awaitable[list[str]]) -> bool:
    return bool(await found)


async def _none(found: Awaitable[list[str]]) -> bool:
    return not await found


async def test_damage_inside_the_database_is_found_at_the_start(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession
) -> None:
    database = tmp_path / "state" / DATABASE
    with service(tmp_path, environment) as running:
        await eventually(lambda: up(client, running.url), 15, "a model")
        assert (await ask(client, running.url, ADMIN))[0] == 200
        assert (await used(client, running.url))[0] == 1
    with sqlite3.connect(database) as connection:  # the header stays good: only a look at all pages finds it
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'usage'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with service(tmp_path, environment) as again:
        await eventually(lambda: up(client, again.url), 15, "a model")
        assert "usage_database_broken" in again.log.read_text()
        assert (await ask(client, again.url, ADMIN))[0] == 200
        assert (await used(client, again.url))[0] == 2  # what the spool still holds came back, too
    assert list((tmp_path / "state").glob(f"{DATABASE}.broken-*"))
