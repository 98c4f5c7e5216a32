"""Calling a worker's tools over the API: for programs of the key that decide themselves, as the technician.

Who calls here says by calling that it may be: asking first is theirs (`permission/policy`). Each call and its outcome
are in the audit log. Leaving does not end a call: what came of it is told to who recalls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, Response

from roost.agent.audit.log import AuditLog
from roost.agent.channel.desk import Desk
from roost.agent.channel.routes import same_protocol
from roost.agent.channel.wire import CALLS_PATH, STATED, TOOLS_PATH, sent
from roost.agent.storage import stored
from roost.agent.tool import ToolCall

OwnerOf = Callable[[Request], str]
MOST_NAME = 200


def call_routes(desk: Desk, owner_of: OwnerOf, audit: AuditLog) -> APIRouter:
    """Return the routes. Only workers of the key that asks are there."""
    router = APIRouter(dependencies=[Depends(same_protocol)])
    running: set[asyncio.Task[Response]] = set()

    @router.get(TOOLS_PATH, summary="List the tools of connected workers")
    async def tools(
        request: Request,
        workspace: Annotated[str, Query(max_length=MOST_NAME)] = "",
        reachable: Annotated[bool, Query(description="Only those that a call reaches as things are")] = False,
    ) -> JSONResponse:
        runner = desk.runner(owner_of(request), workspace or None)
        found = runner.reachable() if reachable else runner.tools()
        data = [spec.model_dump(mode="json", exclude_defaults=True) for spec in found]  # as in `wire.sent`
        return JSONResponse({"object": "list", "data": data}, headers=STATED)

    @router.post(CALLS_PATH, summary="Have a worker call a tool")
    async def called(request: Request, body: ToolCall) -> Response:
        owner = owner_of(request)
        detail = {"tool": body.name, "arguments": body.arguments, "call": body.id}
        await stored(lambda: audit.add(owner, "tool.call", detail, body.session))

        async def made() -> Response:
            result = await desk.runner(owner, body.workspace).run(body)
            came = {"call": result.id, "outcome": result.outcome.value, "changed": list(result.changed)}
            await stored(lambda: audit.add(owner, "tool.result", came, body.session))
            return Response(sent(result), headers=STATED, media_type="application/json")

        task = asyncio.create_task(made())  # of its own: who leaves does not end it
        running.add(task)
        task.add_done_callback(running.discard)
        return await asyncio.shield(task)

    @router.post(f"{CALLS_PATH}/recall", summary="Ask what came of a call, without making it")
    async def recalled(request: Request, body: ToolCall) -> Response:
        result = await desk.runner(owner_of(request), body.workspace).recall(body)
        return Response(sent(result), headers=STATED, media_type="application/json")

    return router
