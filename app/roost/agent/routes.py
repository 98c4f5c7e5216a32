"""What is done in a session, over the API: say something, cancel, undo, choose. For lists see `sessions/routes`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from roost.agent.events.feed import IDLE
from roost.agent.events.routes import AskerOf, StillOf, live_of
from roost.agent.events.socket import MOST_ALLOWED, MOST_CHARACTERS, MOST_NAME
from roost.agent.events.stream import HEARTBEAT, REFUSED, KeyGoneError, Still, events, sse
from roost.agent.live import BusyError, Live, Said, StoppingError, TooMuchError
from roost.agent.service import Agents, Asker
from roost.agent.sessions.routes import PATH
from roost.context.budget import CostMode
from roost.gateway.errors import ApiError, service_stopping


class Message(BaseModel):
    """What to say. With `priority` it goes into the turn under way; with `stream` the answer's events come back.

    `answers` says that questions are answered meanwhile, else nothing is asked; tools in `allow` need no question.
    """

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    priority: bool = False
    stream: bool = False
    answers: bool = False
    allow: list[Annotated[str, Field(max_length=MOST_NAME)]] = Field(default_factory=list, max_length=MOST_ALLOWED)

    def said(self) -> Said:
        """Return it as the session takes it."""
        return Said(self.text, self.priority, self.answers, tuple(self.allow))


class Choices(BaseModel):
    """What holds for this session; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    think: bool | None = None
    cost_mode: CostMode | None = None
    workspace: str | None = Field(default=None, max_length=200)


def turn_routes(agents: Agents, asker_of: AskerOf, still_of: StillOf) -> APIRouter:
    """Return the routes below `/roost/v1/sessions/ID`. `still_of` gives what says whether a key is still good."""
    router = APIRouter()

    @router.post(f"{PATH}/{{session}}/messages", summary="Say something", status_code=202)
    async def said(request: Request, session: str, body: Message) -> Response:
        asker = asker_of(request)
        live = await live_of(agents, asker, session)
        if not body.stream:
            try:
                await agents.say(asker, session, body.said())
            except TooMuchError as error:
                raise ApiError(429, error.message, kind="rate_limit_error", code="too_much_waits") from None
            except StoppingError:
                raise service_stopping() from None
            return JSONResponse({"object": "message", "accepted": True}, 202)
        return StreamingResponse(
            _answered(agents, asker, live, body, still_of(request)), media_type="text/event-stream"
        )

    @router.post(f"{PATH}/{{session}}/cancel", summary="End the turn under way")
    async def cancelled(request: Request, session: str) -> Response:
        live = await live_of(agents, asker_of(request), session)
        return JSONResponse({"object": "cancel", "cancelled": await live.cancel()})

    @router.post(f"{PATH}/{{session}}/undo", summary="Put back the files that the last call changed")
    async def undone(request: Request, session: str) -> Response:
        asker = asker_of(request)
        await live_of(agents, asker, session)
        try:
            result = await agents.undo(asker, session)
        except BusyError as error:
            raise ApiError(409, str(error), code="turn_under_way") from None
        found = {"outcome": result.outcome.value, "text": result.text, "changed": list(result.changed)}
        return JSONResponse({"object": "undo", **found})

    @router.post(f"{PATH}/{{session}}/choices", summary="Choose what holds for a session")
    async def chosen(request: Request, session: str, body: Choices) -> Response:
        asker = asker_of(request)
        await live_of(agents, asker, session)
        held = await agents.choose(asker, session, think=body.think, mode=body.cost_mode, workspace=body.workspace)
        return JSONResponse({"object": "choices", **held})

    return router


async def _answered(agents: Agents, asker: Asker, live: Live, body: Message, still: Still) -> AsyncIterator[bytes]:
    """Say it and pass on what happens until the session is idle. Who leaves before has the turn cancelled."""
    queue = live.watch()
    done = False
    said = None
    try:
        said = await agents.say(asker, live.session, body.said())
        begun = False
        async for event in events(queue, still):
            if event is None:
                yield HEARTBEAT
                continue
            idle = event["type"] == IDLE["type"]
            begun = begun or not idle  # the first one only says that nothing happened yet
            if idle and begun:
                break
            if begun:
                yield sse(event)
        done = True
    except KeyGoneError:
        yield sse(REFUSED)
    except (StoppingError, TooMuchError) as error:
        yield sse({"type": "error", "turn": "", "message": error.message, "fix": error.fix})
    finally:
        live.unwatch(queue)
        if said and not done:
            live.take_back(said)
