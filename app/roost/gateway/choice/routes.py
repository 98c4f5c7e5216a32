"""`/roost/v1/decisions`, `explain` and `router`: what was chosen for `auto`, and what would be."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from roost.gateway.auth import caller_of
from roost.gateway.choice.chooser import Chooser
from roost.gateway.choice.features import read_request
from roost.gateway.choice.ring import KEPT, decision_document
from roost.gateway.choice.semantic import WatchedRouter
from roost.gateway.errors import ApiError
from roost.gateway.request.kinds import CHAT, COMPLETIONS, COUNT, RESPONSES
from roost.gateway.request.requests import parse, read_body
from roost.gateway.request.shape import ShapeLimits
from roost.gateway.settings import Settings


def add_choice_routes(app: FastAPI, chooser: Chooser, router: WatchedRouter, settings: Settings) -> None:
    """Add the routes."""

    @app.get("/roost/v1/decisions")
    async def decisions(limit: int = KEPT) -> JSONResponse:
        """List the last decisions of this process, the newest first, without what people wrote."""
        if not 1 <= limit <= KEPT:
            raise ApiError(400, f"limit: a number from 1 to {KEPT} is taken.", param="limit")
        found = [decided.document() for decided in chooser.ring.newest(limit)]
        return JSONResponse({"object": "list", "data": found})

    @app.get("/roost/v1/router")
    async def about() -> JSONResponse:
        """Describe the semantic router that is used now: subjects, when it was made, how good it is."""
        return JSONResponse({"object": "router", **router.present.file.about()})

    @app.post("/roost/v1/explain")
    async def explain(request: Request) -> JSONResponse:
        """Say which model `auto` would be for a chat (`messages`), a response (`input`) or a text (`prompt`)."""
        body = await read_body(
            request.scope, request.receive, limit=settings.max_body_bytes, timeout_s=settings.body_timeout_s
        )
        parsed = parse(COUNT, body, ShapeLimits(settings.max_messages, settings.max_image_bytes))
        kind = next(kind for kind in (CHAT, RESPONSES, COMPLETIONS) if kind.path == parsed.like())
        asked = read_request(kind, body)
        decision = chooser.explain(asked, caller_of(request.scope))
        return JSONResponse(
            {
                "object": "route",
                **decision_document(decision),
                "features": asdict(asked.features),
                "header": decision.header(),
            }
        )
