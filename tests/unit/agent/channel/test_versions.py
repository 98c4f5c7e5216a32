"""Hub and worker of which one is of the version before: what came since is on the wire only where it says something."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from roost.agent.channel.client import WorkerClient
from roost.agent.channel.wire import PATH, Announced
from roost.agent.technician.reach import HubRunner
from tests.support.agent_hub import Hands, announced, call, client_of, served

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
    site = web.AppRunner(app)
    await site.setup()
    await web.TCPSite(site, "127.0.0.1", 0).start()
    host, port = site.addresses[0][:2]
    try:
        async with aiohttp.ClientSession() as http:
            worker = WorkerClient(http, f"http://{host}:{port}", "anna", Hands(), announced)
            task = asyncio.create_task(worker.work())
            said = await asyncio.wait_for(came, 10)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    finally:
        await site.cleanup()
    assert all("read_only" not in spec for spec in said["tools"])
    assert Announced.model_validate(said) == announced()


async def test_a_job_sends_a_hub_no_field_that_says_nothing() -> None:
    came: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        came.append(await request.json())
        return web.json_response({"id": "c1", "outcome": "ok", "text": ""})

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    site = web.AppRunner(app)
    await site.setup()
    await web.TCPSite(site, "127.0.0.1", 0).start()
    host, port = site.addresses[0][:2]
    hub = HubRunner(f"http://{host}:{port}", "k", None, (0.01,))
    try:
        await hub.run(call())
        await hub.recall(call())
    finally:
        await hub.close()
        await site.cleanup()
    assert [set(one) for one in came] == [CALL, CALL]
