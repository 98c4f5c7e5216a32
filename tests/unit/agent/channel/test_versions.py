"""Hub and worker of two releases.

What came since is on the wire only where it says something, and what is not known is ignored, as long as the protocol
is the same. With another one neither side goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from roost.agent.channel.client import WorkerClient
from roost.agent.channel.wire import (
    CALLS_PATH,
    PATH,
    PROTOCOL,
    PROTOCOL_HEADER,
    TOOLS_PATH,
    Announced,
    Requests,
    is_ours,
)
from roost.agent.technician.reach import HubRunner
from roost.ops.errors import RoostError
from tests.support.agent_hub import Hands, Served, announced, call, client_of, served
from tests.support.web_server import serving
from tests.unit.agent.permission.world import foreign

CALL = {"id", "name", "arguments", "session"}


async def test_a_worker_is_sent_no_field_that_says_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as hub, client_of("anna") as client:
        lease = hub.desk.announce("anna", announced()).lease
        runner = hub.desk.runner("anna")
        plain = asyncio.create_task(runner.run(call("look", "c1")))
        allowed = asyncio.create_task(runner.run(call("look", "c2").model_copy(update={"allowed": True})))
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(10):
            while len(found) < 2:
                after = found[-1]["number"] if found else 0
                async with client.get(f"{hub.url}{PATH}/{lease}/requests?after={after}") as answer:
                    found += (await answer.json()).get("requests", [])
        for task in (plain, allowed):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    by_id = {one["call"]["id"]: one for one in found}
    assert set(by_id["c1"]) == {"number", "call"}
    assert set(by_id["c1"]["call"]) - {"workspace"} == CALL
    assert by_id["c2"]["call"]["allowed"] is True


async def test_a_hub_is_sent_no_field_that_says_nothing() -> None:
    came: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def take(request: web.Request) -> web.Response:
        if not came.done():
            came.set_result(await request.json())
        return web.json_response({"lease": "l", "owner": "anna"}, status=201)

    app = web.Application()
    app.router.add_post(PATH, take)
    async with serving(app) as url, aiohttp.ClientSession() as http:
        worker = WorkerClient(http, url, "anna", Hands(), announced)
        task = asyncio.create_task(worker.work())
        said = await asyncio.wait_for(came, 10)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert all("read_only" not in spec for spec in said["tools"])
    assert Announced.model_validate(said) == announced()


async def test_a_job_sends_a_hub_no_field_that_says_nothing() -> None:
    came: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        came.append(await request.json())
        return web.json_response({"id": "c1", "outcome": "ok", "text": ""})

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    async with serving(app) as url:
        hub = HubRunner(url, "k", None, (0.01,))
        try:
            await hub.run(call())
            await hub.recall(call())
        finally:
            await hub.close()
    assert [set(one) for one in came] == [CALL, CALL]


@pytest.mark.parametrize(
    ("stated", "ours", "same"),
    [(None, 1, True), ("1", 1, True), ("2", 1, False), (None, 2, False), ("2", 2, True), ("x", 1, False)],
)
def test_who_states_no_protocol_speaks_the_first(stated: str | None, ours: int, *, same: bool) -> None:
    assert is_ours(stated, ours) is same


async def refused(hub: Served, method: str, path: str, body: object = None) -> tuple[int, str, str]:
    """Ask a hub as something of a later protocol; return the status, the code and the message."""
    headers = {PROTOCOL_HEADER: "2"}
    async with (
        client_of("anna") as client,
        client.request(method, f"{hub.url}{path}", json=body, headers=headers) as answer,
    ):
        error = (await answer.json())["error"]
        return answer.status, error["code"], error["message"]


async def test_a_hub_refuses_a_worker_and_a_job_of_another_protocol(tmp_path: Path) -> None:
    async with served(tmp_path) as hub:
        shaped_otherwise = {"name": "w1"}
        for method, path, body in (
            ("POST", PATH, shaped_otherwise),
            ("GET", TOOLS_PATH, None),
            ("POST", CALLS_PATH, shaped_otherwise),
            ("POST", f"{CALLS_PATH}/recall", shaped_otherwise),
        ):
            status, code, message = await refused(hub, method, path, body)
            assert (status, code) == (422, "other_protocol"), path
            assert f"version {PROTOCOL} of the channel, and not 2" in message
        assert hub.desk.of("anna") == []
        async with client_of("anna") as client, client.get(f"{hub.url}{PATH}") as answer:
            assert answer.status == 200  # a plain client of the API states nothing


@asynccontextmanager
async def hub_of(status: int, document: object, stated: str) -> AsyncIterator[str]:
    """A hub that says this to whatever is asked; yields its address."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(document, status=status, headers={PROTOCOL_HEADER: stated})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with serving(app) as url:
        yield url


@pytest.mark.parametrize(
    ("status", "document", "said"),
    [
        (201, {"lease": "l", "owner": "anna"}, "The hub speaks version 2 of the channel"),
        (201, {"token": "another form"}, "The hub speaks version 2 of the channel"),
        (422, {"error": {"message": "This hub speaks version 2."}}, "The hub refused: This hub speaks version 2."),
    ],
)
async def test_a_worker_ends_at_a_hub_of_another_protocol_and_says_what_to_do(
    status: int, document: object, said: str
) -> None:
    async with hub_of(status, document, "2") as url, aiohttp.ClientSession() as http:
        worker = WorkerClient(http, url, "anna", Hands(), announced)
        with pytest.raises(RoostError) as ended:
            await asyncio.wait_for(worker.work(), 20)
    assert ended.value.message.startswith(said)
    assert "older one" in ended.value.fix


@pytest.mark.parametrize(("status", "document"), [(200, {"object": "list", "data": []}), (422, {"error": {}})])
async def test_a_job_is_told_of_a_hub_of_another_protocol(status: int, document: object) -> None:
    async with hub_of(status, document, "2") as url:
        hub = HubRunner(url, "k", None, ())
        try:
            with pytest.raises(RoostError) as told:
                await hub.tools()
        finally:
            await hub.close()
    assert "older one" in told.value.fix


async def test_a_later_hub_of_the_same_protocol_may_say_more_than_is_known_here() -> None:
    spec = foreign().model_dump(mode="json")
    more = {"object": "list", "data": [{**spec, "since_then": True}]}
    async with hub_of(200, more, str(PROTOCOL)) as url:
        hub = HubRunner(url, "k", None, ())
        try:
            assert await hub.tools() == [foreign()]
        finally:
            await hub.close()
    later = {"requests": [{"number": 1, "call": {**call().model_dump(), "since": 1}, "since": {}}], "since": 2}
    assert Requests.model_validate(later).requests[0].call == call()


async def test_a_job_of_the_version_before_reads_the_tools_of_a_worker(tmp_path: Path) -> None:
    """It knows no `read_only`, and refused what it did not know."""
    async with served(tmp_path) as hub, client_of("anna") as client:
        hub.desk.announce("anna", announced())
        async with client.get(f"{hub.url}{TOOLS_PATH}") as answer:
            listed = (await answer.json())["data"]
    known = {"name", "description", "parameters", "permission", "timeout_s", "output_limit_bytes", "safe_to_repeat"}
    assert listed
    assert all(set(one) <= known for one in listed)
