"""The routes of several gateways: what they tell each other, and who they are."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers

from roost.gateway.auth import key_of
from roost.gateway.errors import ApiError, too_many_wrong_keys, unauthorized
from roost.gateway.penalties import Slowdown
from roost.gateway.replicas.exchange import EXCHANGE_PATH, Replicas, is_peer
from roost.gateway.replicas.notes import MOST_BYTES, parse_note
from roost.gateway.request.requests import read_body
from roost.gateway.secret_file import WatchedFile

LIST_PATH = "/roost/v1/replicas"
BODY_TIMEOUT_S = 5.0


def add_replica_routes(app: FastAPI, replicas: Replicas | None, key: WatchedFile[str] | None) -> None:
    """Add the routes; without other gateways there is one, and nobody may speak as another."""
    wrong = Slowdown()

    @app.get(LIST_PATH)
    async def listed() -> JSONResponse:
        """List the gateways that are this service, as this one sees them."""
        seen = replicas.seen() if replicas else [{"replica": None, "state": "this", "url": None}]
        return JSONResponse({"object": "list", "data": seen})

    @app.post(EXCHANGE_PATH)
    async def exchange(request: Request) -> Response:
        """Take another gateway's note and answer it; with the gateways' own key only."""
        if replicas is None or key is None or not is_peer(key.value(), key_of(Headers(scope=request.scope))):
            penalty = await wrong.hold(request.client.host if request.client else "")
            raise too_many_wrong_keys(penalty.retry_after_s) if penalty.retry_after_s else unauthorized()
        body = await read_body(request.scope, request.receive, limit=MOST_BYTES, timeout_s=BODY_TIMEOUT_S)
        try:
            note = parse_note(body)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        return Response((await replicas.answer(note)).model_dump_json(), media_type="application/json")
