"""Conversations over the API: list, show, search, export, rename, put away, purge. What is said in one is not here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from roost.agent.audit.log import AuditLog
from roost.agent.sessions.index import SessionInfo
from roost.agent.sessions.records import TitleBody, line_of
from roost.agent.sessions.store import SessionStore
from roost.agent.storage import stored

PATH = "/roost/v1/sessions"
MOST_HITS = 200
MOST_RECORDS = 1000
JSONL = "application/x-ndjson"

OwnerOf = Callable[[Request], str]
"""Says the name of the key that asks."""
Leave = Callable[[str, str], Awaitable[None]]
Gone = Callable[[str], None]


class Begin(BaseModel):
    """A new conversation; untitled it takes the first line of its first message."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(default="", max_length=200)


class Change(BaseModel):
    """What to change of a conversation; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    title: str | None = Field(default=None, min_length=1, max_length=200)
    archived: bool | None = None


async def _nobody_is_in_it(_owner: str, _session: str) -> None:
    """Stand for a service without sessions in use."""


def _nothing_else(_owner: str) -> None:
    """Stand for a service that keeps nothing beside conversations."""


def session_routes(
    store: SessionStore,
    owner_of: OwnerOf,
    audit: AuditLog,
    leave: Leave = _nobody_is_in_it,
    gone: Gone = _nothing_else,
) -> APIRouter:
    """Return the routes below `PATH`. Another key's conversation is 404, as one that does not exist.

    `leave` is told of a conversation that is about to be removed, and ends what goes on in it; `gone`
    of the owner, once it was removed.
    """
    router = APIRouter()

    @router.get(PATH, summary="List conversations")
    async def listed(request: Request, *, archived: bool = False) -> JSONResponse:
        found = await stored(lambda: store.sessions(owner_of(request), archived=archived))
        return JSONResponse({"object": "list", "data": [shown(info) for info in found]})

    @router.post(PATH, summary="Begin a conversation", status_code=201)
    async def begun(request: Request, body: Begin) -> JSONResponse:
        return JSONResponse(shown(await stored(lambda: store.create(owner_of(request), body.title))), 201)

    @router.get(f"{PATH}/search", summary="Search what was said")
    async def searched(
        request: Request,
        q: Annotated[str, Query(max_length=500)],
        limit: Annotated[int, Query(ge=1, le=MOST_HITS)] = 20,
    ) -> JSONResponse:
        hits = await stored(lambda: store.search(owner_of(request), q, limit))
        return JSONResponse({"object": "list", "data": [asdict(hit) for hit in hits]})

    @router.get(f"{PATH}/{{session}}", summary="Show a conversation")
    async def one(
        request: Request,
        session: str,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int | None, Query(ge=1, le=MOST_RECORDS)] = None,
    ) -> JSONResponse:
        owner = owner_of(request)
        info = await stored(lambda: store.info(owner, session))
        contents = await stored(lambda: store.read(owner, session, after, limit))
        records = [record.model_dump(mode="json") for record in contents.records]
        return JSONResponse({**shown(info), "damaged": contents.damaged, "more": contents.more, "records": records})

    @router.get(f"{PATH}/{{session}}/export", summary="Export a conversation as JSON lines")
    async def exported(request: Request, session: str) -> Response:
        contents = await stored(lambda: store.read(owner_of(request), session))
        name = f'attachment; filename="{session}.jsonl"'
        return Response(
            b"".join(map(line_of, contents.records)), media_type=JSONL, headers={"content-disposition": name}
        )

    @router.patch(f"{PATH}/{{session}}", summary="Rename a conversation, or put it away")
    async def changed(request: Request, session: str, body: Change) -> JSONResponse:
        owner = owner_of(request)
        title, archived = body.title, body.archived
        if title is not None:
            await stored(lambda: store.append(owner, session, TitleBody(title=title)))
        if archived is not None:
            await stored(lambda: store.archive(owner, session, archived=archived))
        return JSONResponse(shown(await stored(lambda: store.info(owner, session))))

    @router.delete(f"{PATH}/{{session}}", summary="Remove a conversation for good", status_code=204)
    async def purged(request: Request, session: str) -> Response:
        owner = owner_of(request)
        await stored(lambda: store.info(owner, session))
        await stored(lambda: audit.add(owner, "session.purge", session=session))
        await leave(owner, session)
        await stored(lambda: store.purge(owner, session))
        gone(owner)
        return Response(status_code=204)

    return router


def shown(info: SessionInfo) -> dict[str, object]:
    """Return a conversation's line for a client."""
    return {"object": "session", **{name: value for name, value in asdict(info).items() if name != "owner"}}
