"""Memory over the API: list, add, search, show, forget, export. Another key's fact is 404, as if it did not exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from roost.agent.memory.facts import MOST_IDS, MOST_SOURCE_CHARACTERS, USER, Fact, Kind, RefusedError
from roost.agent.memory.meaning import Embedder
from roost.agent.memory.memory import Memory
from roost.agent.memory.store import Which
from roost.agent.storage import stored
from roost.gateway.errors import ApiError

PATH = "/roost/v1/memory"
MOST_HITS = 200
MOST_DAYS = 36_500
JSONL = "application/x-ndjson"

OwnerOf = Callable[[Request], str]
Changed = Callable[[str], None]
"""Told whose memory no longer is what conversations begin with."""
EmbedderOf = Callable[[Request], Embedder]


class NewFact(BaseModel):
    """A fact to remember."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=4000)
    kind: Kind = Kind.FACT
    source: str = Field(default=USER, min_length=1, max_length=MOST_SOURCE_CHARACTERS)
    sensitive: bool = False


class Forget(BaseModel):
    """Which facts to forget: all conditions that are given hold; none is an error."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] = Field(default=[], max_length=MOST_IDS)
    older_than_days: int | None = Field(default=None, ge=0, le=MOST_DAYS)
    source: str = ""
    session: str = ""
    everything: bool = False
    dry_run: bool = False


def memory_routes(memory: Memory, owner_of: OwnerOf, embedder_of: EmbedderOf, changed: Changed) -> APIRouter:
    """Return the routes below `PATH`."""
    router = APIRouter()
    _read(router, memory, owner_of, embedder_of)
    _change(router, memory, owner_of, changed)
    return router


def _read(router: APIRouter, memory: Memory, owner_of: OwnerOf, embedder_of: EmbedderOf) -> None:

    @router.get(PATH, summary="List what is remembered")
    async def listed(request: Request, *, kind: Kind | None = None) -> JSONResponse:
        owner = owner_of(request)
        found = await stored(lambda: memory.store.all_of(owner, kind))
        return JSONResponse({"object": "list", "data": [shown(fact) for fact in found]})

    @router.get(f"{PATH}/search", summary="Search what is remembered, by words and by meaning")
    async def searched(
        request: Request,
        q: Annotated[str, Query(max_length=500)],
        limit: Annotated[int, Query(ge=1, le=MOST_HITS)] = 20,
    ) -> JSONResponse:
        owner = owner_of(request)
        await stored(lambda: memory.store.all_of(owner, limit=1))  # a database that cannot be used says so here
        found = await memory.search(owner, q, embedder_of(request), limit)
        return JSONResponse(
            {"object": "list", "by": found.by, "why": found.why, "data": [shown(fact) for fact in found.facts]}
        )

    @router.get(f"{PATH}/export", summary="Export what is remembered as JSON lines")
    async def exported(request: Request) -> Response:
        owner = owner_of(request)
        facts = await stored(lambda: memory.store.all_of(owner))
        lines = "".join(json.dumps(shown(fact), ensure_ascii=False) + "\n" for fact in facts)
        return Response(lines, media_type=JSONL, headers={"content-disposition": 'attachment; filename="memory.jsonl"'})

    @router.get(f"{PATH}/{{fact}}", summary="Show a fact")
    async def one(request: Request, fact: str) -> JSONResponse:
        owner = owner_of(request)
        return JSONResponse(shown(await stored(lambda: memory.store.get(owner, fact))))


def _change(router: APIRouter, memory: Memory, owner_of: OwnerOf, changed: Changed) -> None:
    @router.post(PATH, summary="Remember a fact", status_code=201)
    async def added(request: Request, body: NewFact) -> JSONResponse:
        owner = owner_of(request)

        def add() -> tuple[Fact, bool]:
            try:
                return memory.remember(owner, body.text, source=body.source, kind=body.kind, sensitive=body.sensitive)
            except RefusedError as error:
                raise ApiError(422, str(error), code="not_remembered", param="text") from None

        fact, new = await stored(add)
        if fact.kind is not Kind.FACT:
            changed(owner)
        return JSONResponse({**shown(fact), "new": new}, 201 if new else 200)

    @router.post(f"{PATH}/forget", summary="Forget facts for good: by id, age, source, conversation")
    async def forgot(request: Request, body: Forget) -> JSONResponse:
        owner = owner_of(request)
        before = ""
        if body.older_than_days is not None:
            before = (datetime.now(UTC) - timedelta(days=body.older_than_days)).isoformat()
        which = Which(tuple(body.ids), before, body.source, body.session, body.everything)
        if not which.says_something:
            raise ApiError(422, "Say which: ids, older_than_days, source, session, or everything.", param="ids")
        gone = await stored(lambda: memory.forget(owner, which, dry_run=body.dry_run))
        if gone and not body.dry_run:
            changed(owner)
        return JSONResponse({"object": "list", "forgotten": not body.dry_run, "data": [shown(fact) for fact in gone]})

    @router.delete(f"{PATH}/{{fact}}", summary="Forget a fact for good", status_code=204)
    async def removed(request: Request, fact: str) -> Response:
        owner = owner_of(request)
        await stored(lambda: memory.forget(owner, Which(ids=(fact,))))
        changed(owner)
        return Response(status_code=204)


def shown(fact: Fact) -> dict[str, object]:
    """Return a fact for a client."""
    return {"object": "fact", **asdict(fact)}
