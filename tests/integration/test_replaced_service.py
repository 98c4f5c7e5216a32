"""A service that is replaced while clients that know one address ask all the time, and try nothing a second time.

Real processes: the keeper of listening sockets, the service, and the clients.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from roost.ops.listen_keeper import FOLDER, NAME
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.fakes import FakeEngine, fake_engine
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import eventually, free_port
from tests.support.replaced import SOON_S, WORKERS, clients, keeper_process

REPLACEMENTS = 3
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Path]:
    """Run the keeper for a service whose state is in the folder that this returns."""
    state = tmp_path / "state"
    (state / FOLDER).mkdir(mode=0o700, parents=True)
    with keeper_process(state / FOLDER):
        yield state


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """Run a model server."""
    async with fake_engine(says_why=True) as made:
        yield made


@pytest.fixture
def environment(tmp_path: Path, engine: FakeEngine) -> dict[str, str]:
    """Return the service's settings."""
    key = tmp_path / "engine-key"
    key.write_text(engine.key)
    return {
        "ROOST_API_KEYS_FILE": str(write_keys(tmp_path)),
        "ROOST_ENGINE_KEY_FILE": str(key),
        "ROOST_STATIC_ENDPOINTS": engine.url,
    }


def of_job(state: Path) -> dict[str, str]:
    """Return what a job says of its state and of the keeper."""
    return {"ROOST_STATE_DIR": str(state), "ROOST_LISTEN_KEEPER": str(state / FOLDER / NAME)}


async def end(running: Service, how: signal.Signals = signal.SIGTERM) -> None:
    """End a service and wait until it has ended."""
    running.process.send_signal(how)
    await asyncio.to_thread(running.process.wait, 30)


async def ready(running: Service) -> None:
    """Wait until it has a model server."""
    await eventually(lambda: '"state": "ready"' in running.log.read_text(), SOON_S, "the endpoint")


async def kept(running: Service, times: int = 1) -> None:
    """Wait until the keeper has got the sockets so many times at that port: who ends before leaves none."""
    await eventually(lambda: running.log.read_text().count("listeners_kept") >= times, SOON_S, "it to be kept")


@pytest.fixture
def tls(tmp_path: Path, environment: dict[str, str]) -> tuple[Path, str]:
    """Have the service listen with TLS too; return its authority and its address."""
    ensure_pki(tmp_path, [LeafSpec("api", ("roost.test", "127.0.0.1"))])
    port = free_port()
    environment |= {
        "ROOST_LISTEN": f"127.0.0.1:{port}",
        "ROOST_TLS_CERT": str(tmp_path / "api.pem"),
        "ROOST_TLS_KEY": str(tmp_path / "api-key.pem"),
    }
    return tmp_path / "ca.pem", f"https://127.0.0.1:{port}"


async def test_nobody_is_refused_while_it_is_replaced(
    tmp_path: Path, keeper: Path, environment: dict[str, str]
) -> None:
    await replaced_under_load(tmp_path, keeper, environment, listeners=1)


async def test_nor_with_tls(tmp_path: Path, keeper: Path, environment: dict[str, str], tls: tuple[Path, str]) -> None:
    await replaced_under_load(tmp_path, keeper, environment, listeners=2, tls=tls)


async def replaced_under_load(
    folder: Path, keeper: Path, environment: dict[str, str], *, listeners: int, tls: tuple[Path, str] | None = None
) -> None:
    """Replace the service again and again: no client fails, and each one has its listeners of the one before."""
    environment |= of_job(keeper)
    port = free_port()
    with ExitStack() as services:
        running = services.enter_context(service(folder, environment, port=port))
        await ready(running)
        authority, url = tls or (None, running.url)
        with clients(folder, url, authority) as asking:
            for number in range(REPLACEMENTS):
                await asking.more()
                await kept(running, number + 1)
                await end(running)
                running = services.enter_context(service(folder, environment, port=port))
            await asking.more()
            found = asking.found()
        assert running.log.read_text().count('"taken_over": true') == listeners * REPLACEMENTS
    assert found["failed"] == 0, found


async def test_a_killed_one_takes_with_it_only_what_it_was_answering(
    tmp_path: Path, keeper: Path, environment: dict[str, str]
) -> None:
    environment |= of_job(keeper)
    port = free_port()
    with ExitStack() as services:
        running = services.enter_context(service(tmp_path, environment, port=port))
        await ready(running)
        with clients(tmp_path, running.url) as asking:
            await asking.more()
            await kept(running)
            await end(running, signal.SIGKILL)
            services.enter_context(service(tmp_path, environment, port=port))
            await asking.more()
            found = asking.found()
    assert found["failed"] <= WORKERS, found
    assert not [failure for failure in found["failures"] if "refused" in failure.lower()]


async def test_who_comes_while_a_stream_still_ends_waits(
    tmp_path: Path, keeper: Path, environment: dict[str, str], engine: FakeEngine
) -> None:
    environment |= of_job(keeper)
    port = free_port()
    with ExitStack() as services:
        running = services.enter_context(service(tmp_path, environment, port=port))
        await ready(running)
        await kept(running)
        engine.mode = "slow"
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with aiohttp.ClientSession(running.url, headers=headers) as client:
            stream = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
            assert b"data: " in await stream.content.readany()
            running.process.send_signal(signal.SIGTERM)
            await eventually(lambda: '"stopping"' in running.log.read_text(), SOON_S, "it to stop")
            later = asyncio.create_task(client.get("/v1/models"))
            engine.mode = "ready"
            engine.go.set()
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
            await asyncio.to_thread(running.process.wait, 30)
            assert not later.done()
            services.enter_context(service(tmp_path, environment, port=port))
            assert (await later).status == 200


async def test_a_keeper_that_begins_anew_between_two_services_refuses_nobody(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    state, port = tmp_path / "state", free_port()
    (state / FOLDER).mkdir(mode=0o700, parents=True)
    environment |= of_job(state)
    with ExitStack() as services:
        with keeper_process(state / FOLDER):
            running = services.enter_context(service(tmp_path, environment, port=port))
            await ready(running)
            await kept(running)
        with keeper_process(state / FOLDER), clients(tmp_path, running.url) as asking:
            await kept(running, 2)
            await asking.more()
            await end(running)
            running = services.enter_context(service(tmp_path, environment, port=port))
            await asking.more()
            found = asking.found()
    assert found["failed"] == 0, found


async def test_without_a_keeper_it_is_as_it_was(tmp_path: Path, environment: dict[str, str]) -> None:
    """And the test's clients do see it where a service refuses them."""
    environment |= of_job(tmp_path)
    port = free_port()
    with ExitStack() as services:
        running = services.enter_context(service(tmp_path, environment, port=port))
        await ready(running)
        await eventually(
            lambda: "listeners_not_kept" in running.log.read_text(), SOON_S, "it to say that nobody is there"
        )
        with clients(tmp_path, running.url) as asking:
            await asking.more()
            await end(running)
            services.enter_context(service(tmp_path, environment, port=port))
            await asking.more()
            found = asking.found()
    assert [failure for failure in found["failures"] if "refused" in failure.lower()]


async def test_one_that_is_run_by_hand_asks_for_no_keeper(tmp_path: Path, environment: dict[str, str]) -> None:
    with service(tmp_path, environment | {"ROOST_STATE_DIR": str(tmp_path)}, port=free_port()) as running:
        await ready(running)
        await end(running)
        assert "listeners" not in running.log.read_text()
