"""The user's word over the API: what is asked in a conversation, the answer, and what is allowed for good."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from roost.agent.events.routes import AskerOf, live_of
from roost.agent.events.socket import MOST_NAME
from roost.agent.permission.asking import QuestionNotFoundError
from roost.agent.permission.policy import ALLOWED_PATH, Answer
from roost.agent.service import Agents
from roost.agent.sessions.routes import PATH as SESSIONS
from roost.agent.storage import stored
from roost.gateway.errors import ApiError

MOST_MARK = 200


class Allow(BaseModel):
    """What to allow for good: a tool, and the mark under which it was asked about."""

    model_config = ConfigDict(extra="forbid")

    tool: str = Field(min_length=1, max_length=MOST_NAME)
    mark: str = Field(min_length=1, max_length=MOST_MARK)


class Given(BaseModel):
    """An answer: yes (this call), conversation, always (both for calls like it, too), or no."""

    model_config = ConfigDict(extra="forbid")

    answer: Answer


def permission_routes(agents: Agents, asker_of: AskerOf) -> APIRouter:
    """Return the routes. Another key's question is 404, as one that does not exist."""
    router = APIRouter()

    @router.get(f"{SESSIONS}/{{session}}/questions", summary="List what waits for your word")
    async def asked(request: Request, session: str) -> JSONResponse:
        asker = asker_of(request)
        await live_of(agents, asker, session)
        found = await agents.asked(asker, session)
        return JSONResponse({"object": "list", "data": [{"object": "question", **asdict(one)} for one in found]})

    @router.post(f"{SESSIONS}/{{session}}/questions/{{question}}", summary="Say whether a call may be made")
    async def answered(request: Request, session: str, question: str, body: Given) -> JSONResponse:
        asker = asker_of(request)
        await live_of(agents, asker, session)
        try:
            found = await agents.answer(asker, session, question, body.answer)
        except QuestionNotFoundError as error:
            raise ApiError(404, error.message, code=error.code) from None
        return JSONResponse({"object": "answer", "id": found.id, "tool": found.tool, "answer": body.answer.value})

    @router.get(ALLOWED_PATH, summary="List what you allowed for good")
    async def allowed(request: Request) -> JSONResponse:
        found = await stored(lambda: agents.allowed.of(asker_of(request).name))
        data = [{"object": "allowed", **one.model_dump(exclude={"owner"})} for one in found]
        return JSONResponse({"object": "list", "data": data})

    @router.post(ALLOWED_PATH, summary="Allow calls of a tool for good", status_code=201)
    async def allow(request: Request, body: Allow) -> JSONResponse:
        owner = asker_of(request).name
        await stored(lambda: agents.audit.add(owner, "tool.allowed_for_good", body.model_dump()))
        await stored(lambda: agents.allowed.add(owner, body.tool, body.mark))
        return JSONResponse({"object": "allowed", **body.model_dump()}, 201)

    @router.delete(f"{ALLOWED_PATH}/{{tool}}", summary="Be asked again about a tool")
    async def taken_back(request: Request, tool: str) -> JSONResponse:
        owner = asker_of(request).name
        gone = await stored(lambda: agents.allowed.remove(owner, tool))
        if not gone:
            raise ApiError(404, f"Nothing is allowed for good under {tool}.", code="not_found")
        await stored(lambda: agents.audit.add(owner, "tool.asked_again", {"marks": [one.mark for one in gone]}))
        return JSONResponse(
            {"object": "list", "data": [{"object": "allowed", **one.model_dump(exclude={"owner"})} for one in gone]}
        )

    return router
