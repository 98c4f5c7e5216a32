"""Watching a session over the API: server-sent events, or a WebSocket at the same path; the same events and ids.

https://html.spec.whatwg.org/multipage/server-sent-events.html, https://www.rfc-editor.org/rfc/rfc6455
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, WebSocket
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse

from roost.agent.events.feed import Event
from roost.agent.events.socket import serve_socket
from roost.agent.events.stream import HEARTBEAT, REFUSED, KeyGoneError, Still, events, sse
from roost.agent.live import Live
from roost.agent.service import Agents, Asker
from roost.agent.sessions.routes import PATH
from roost.agent.sessions.store import SessionNotFoundError
from roost.gateway.errors import ApiError

AskerOf = Callable[[HTTPConnection], Asker]
StillOf = Callable[[HTTPConnection], Still]
MOST_ID = 64


def event_routes(agents: Agents, asker_of: AskerOf, still_of: StillOf) -> APIRouter:
    """Return the routes of `/roost/v1/sessions/ID/events`. `still_of` gives what says whether a key is still good."""
    router = APIRouter()

    @router.get(f"{PATH}/{{session}}/events", summary="Watch a session")
    async def watched(
        request: Request,
        session: str,
        last_event_id: Annotated[str, Header(max_length=MOST_ID)] = "",
        after: Annotated[str, Query(alias="last_event_id", max_length=MOST_ID)] = "",
        *,
        whole_turn: bool = False,
    ) -> Response:
        live = _room(await live_of(agents, asker_of(request), session))
        queue = live.watch(last_event_id or after, whole_turn=whole_turn)
        return StreamingResponse(_watched(live, queue, still_of(request)), media_type="text/event-stream")

    @router.websocket(f"{PATH}/{{session}}/events")
    async def connected(socket: WebSocket, session: str) -> None:
        asker = asker_of(socket)
        try:
            live = _room(await live_of(agents, asker, session))
        except ApiError as error:
            await error.response()(socket.scope, socket.receive, socket.send)
            return
        await serve_socket(socket, agents, asker, live, still_of(socket))

    return router


async def live_of(agents: Agents, asker: Asker, session: str) -> Live:
    """Return a session of the key that asks.

    Raises:
        ApiError: it is none, 404.
    """
    try:
        return await agents.live(asker, session)
    except SessionNotFoundError as error:
        raise ApiError(404, error.message, code="session_not_found") from None


def _room(live: Live) -> Live:
    if live.feed.full:
        raise ApiError(429, "Too many watch this conversation.", kind="rate_limit_error", code="too_many_watch")
    return live


async def _watched(live: Live, queue: asyncio.Queue[Event], still: Still) -> AsyncIterator[bytes]:
    try:
        async for event in events(queue, still):
            yield HEARTBEAT if event is None else sse(event)
    except KeyGoneError:
        yield sse(REFUSED)
    finally:
        live.unwatch(queue)
