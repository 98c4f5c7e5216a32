"""What happens in a session, over the API: say something, watch, cancel, choose. For lists see `sessions/routes`.

Events come as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): one way is all that
is needed, and a stream is a request like any other, with the same key, the same origin check and the same proxies.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from roost.agent.live import IDLE, LAGGING, BusyError, Event, Live, TooMuchError
from roost.agent.service import Agents, Asker
from roost.agent.sessions.routes import PATH
from roost.agent.sessions.store import SessionNotFoundError
from roost.context.budget import CostMode
from roost.gateway.errors import ApiError

HEARTBEAT_S = 15.0
HEARTBEAT = b": \n\n"
MOST_CHARACTERS = 200_000
AskerOf = Callable[[Request], Asker]


class Message(BaseModel):
    """What to say. With `priority` it goes into the turn under way; with `stream` the answer's events come back."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    priority: bool = False
    stream: bool = False


class Choices(BaseModel):
    """What holds for this session; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    think: bool | None = None
    cost_mode: CostMode | None = None
    workspace: str | None = Field(default=None, max_length=200)


def turn_routes(agents: Agents, asker_of: AskerOf) -> APIRouter:
    """Return the routes below `/roost/v1/sessions/ID`."""
    router = APIRouter()

    @router.post(f"{PATH}/{{session}}/messages", summary="Say something", status_code=202)
    async def said(request: Request, session: str, body: Message) -> Response:
        asker = asker_of(request)
        live = await _live(agents, asker, session)
        if not body.stream:
            try:
                await agents.say(asker, session, body.text, priority=body.priority)
            except TooMuchError as error:
                raise ApiError(429, error.message, kind="rate_limit_error", code="too_much_waits") from None
            return JSONResponse({"object": "message", "accepted": True}, 202)
        return StreamingResponse(_answered(agents, asker, live, body), media_type="text/event-stream")

    @router.get(f"{PATH}/{{session}}/events", summary="Watch a session")
    async def watched(request: Request, session: str) -> Response:
        live = await _live(agents, asker_of(request), session)
        return StreamingResponse(_watched(live), media_type="text/event-stream")

    @router.post(f"{PATH}/{{session}}/cancel", summary="End the turn under way")
    async def cancelled(request: Request, session: str) -> Response:
        live = await _live(agents, asker_of(request), session)
        return JSONResponse({"object": "cancel", "cancelled": await live.cancel()})

    @router.post(f"{PATH}/{{session}}/undo", summary="Put back the files that the last call changed")
    async def undone(request: Request, session: str) -> Response:
        asker = asker_of(request)
        await _live(agents, asker, session)
        try:
            result = await agents.undo(asker, session)
        except BusyError as error:
            raise ApiError(409, str(error), code="turn_under_way") from None
        found = {"outcome": result.outcome.value, "text": result.text, "changed": list(result.changed)}
        return JSONResponse({"object": "undo", **found})

    @router.post(f"{PATH}/{{session}}/choices", summary="Choose what holds for a session")
    async def chosen(request: Request, session: str, body: Choices) -> Response:
        asker = asker_of(request)
        await _live(agents, asker, session)
        held = await agents.choose(asker, session, think=body.think, mode=body.cost_mode, workspace=body.workspace)
        return JSONResponse({"object": "choices", **held})

    return router


async def _live(agents: Agents, asker: Asker, session: str) -> Live:
    try:
        return await agents.live(asker, session)
    except SessionNotFoundError as error:
        raise ApiError(404, error.message, code="session_not_found") from None


async def _answered(agents: Agents, asker: Asker, live: Live, body: Message) -> AsyncIterator[bytes]:
    """Say it and pass on what happens until the session is idle. Who leaves before has the turn cancelled."""
    queue = live.watch()
    done = False
    said = None
    try:
        said = await agents.say(asker, live.session, body.text, priority=body.priority)
        begun = False
        async for event in _events(queue):
            if event is None:
                yield HEARTBEAT
                continue
            begun = begun or event != IDLE  # the first one only says that nothing happened yet
            if event == IDLE and begun:
                break
            if begun:
                yield _sse(event)
        done = True
    finally:
        live.unwatch(queue)
        if said and not done:
            live.take_back(said)


async def _watched(live: Live) -> AsyncIterator[bytes]:
    queue = live.watch()
    try:
        async for event in _events(queue):
            yield HEARTBEAT if event is None else _sse(event)
    finally:
        live.unwatch(queue)


async def _events(queue: asyncio.Queue[Event]) -> AsyncIterator[Event | None]:
    """Yield events, and None when there was none for a while: a dead connection is found by writing to it."""
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                event = await queue.get()
        except TimeoutError:
            yield None
            continue
        yield event
        if event == LAGGING:
            return


def _sse(event: Event) -> bytes:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
