"""A session over WebSocket (RFC 6455): its events one way; what is said, and that a turn shall end, the other.

Who connects, and from where, was found out before (`web/front`, `agent/hub`): here only the conversation is looked up.
One text message is one JSON document. Pings are the server's business (`cli/serve_websocket`).
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from roost.agent.events.feed import REMOVED, STOPPING, Event
from roost.agent.events.stream import REFUSED, KeyGoneError, Still, events
from roost.agent.live import Live, Said, StoppingError, TooMuchError
from roost.agent.service import Agents, Asker
from roost.agent.sessions.store import SessionNotFoundError
from roost.ops.errors import RoostError
from roost.ops.validation import in_words

PROTOCOL = "roost.events"
MOST_CHARACTERS = 200_000
MOST_ALLOWED, MOST_NAME = 64, 64
"""Tools that a message allows beforehand, and characters of their names."""
SEND_S = 60.0
"""How long a message to a reader that takes nothing may take."""
NORMAL, POLICY, AGAIN, RESTART = 1000, 1008, 1013, 1012
"""Codes of RFC 6455, section 7.4, and of the registry that it set up."""

CODES: dict[type[RoostError], str] = {
    TooMuchError: "too_much_waits", StoppingError: "stopping", SessionNotFoundError: SessionNotFoundError.code,
}  # fmt: skip
"""Of what is said and not taken."""


class Say(BaseModel):
    """Something to be answered; see the route `messages`."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["say"]
    text: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    priority: bool = False
    answers: bool = False
    allow: list[Annotated[str, Field(max_length=MOST_NAME)]] = Field(default_factory=list, max_length=MOST_ALLOWED)


class Cancel(BaseModel):
    """The turn under way shall end."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["cancel"]


ASKED: TypeAdapter[Say | Cancel] = TypeAdapter(Annotated[Say | Cancel, Field(discriminator="type")])


async def serve_socket(socket: WebSocket, agents: Agents, asker: Asker, live: Live, still: Still) -> None:
    """Serve one connection until either side ends it. A turn goes on when nobody watches it any more."""
    wanted = PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", ()) else None
    await socket.accept(subprotocol=wanted)
    query = socket.query_params
    queue = live.watch(query.get("last_event_id", ""), whole_turn=query.get("whole_turn") == "true")
    telling = asyncio.ensure_future(_tell(socket, queue, still))
    hearing = asyncio.ensure_future(_hear(socket, agents, asker, live))
    try:
        await asyncio.wait({telling, hearing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        live.unwatch(queue)
        for task in (telling, hearing):
            task.cancel()
        ended = await asyncio.gather(telling, hearing, return_exceptions=True)
    code = next((one for one in ended if isinstance(one, int)), None)
    for one in ended:
        if isinstance(one, Exception) and not isinstance(one, WebSocketDisconnect | OSError | TimeoutError):
            raise one
    if code is not None:
        await socket.close(code)


async def _tell(socket: WebSocket, queue: asyncio.Queue[Event], still: Still) -> int:
    """Send events; return the code to close with.

    Raises:
        TimeoutError: the other side took nothing for `SEND_S`.
    """
    last: Event = {}
    try:
        async for event in events(queue, still):
            if event is None:  # pings tell whether somebody is there
                continue
            last = event
            await _send(socket, event)
    except KeyGoneError:
        await _send(socket, REFUSED)
        return POLICY
    return {STOPPING["type"]: RESTART, REMOVED["type"]: POLICY}.get(last.get("type"), AGAIN)


async def _hear(socket: WebSocket, agents: Agents, asker: Asker, live: Live) -> int:
    """Do what the other side asks; return the code to close with.

    Raises:
        WebSocketDisconnect: it left.
    """
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", NORMAL))
        try:
            asked = ASKED.validate_json(message.get("text") or message.get("bytes") or "")
        except ValidationError as error:
            await _send(socket, {"type": "refused", "code": "invalid", "message": in_words(error)})
            continue
        if isinstance(asked, Cancel):
            await _send(socket, {"type": "accepted", "cancelled": await live.cancel()})
            continue
        try:
            await agents.say(asker, live.session, Said(asked.text, asked.priority, asked.answers, tuple(asked.allow)))
        except RoostError as error:
            code = next((code for kind, code in CODES.items() if isinstance(error, kind)), "not_taken")
            await _send(socket, {"type": "refused", "code": code, "message": error.message})
            if isinstance(error, SessionNotFoundError):
                return POLICY
        else:
            await _send(socket, {"type": "accepted"})


async def _send(socket: WebSocket, event: Event) -> None:
    async with asyncio.timeout(SEND_S):
        await socket.send_text(json.dumps(event, ensure_ascii=False))
