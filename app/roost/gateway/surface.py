"""One route for each kind of request, all of them served by the one proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.responses import Response

from roost.gateway.kinds import KINDS, Kind
from roost.gateway.proxy import Proxy, ProxyResponse


def add_surface(app: FastAPI, proxy: Proxy) -> None:
    """Add the routes; each says in the OpenAPI document what its body must have."""
    for kind in KINDS:
        schema = {"schema": kind.shape.model_json_schema()}
        app.add_api_route(
            kind.path,
            _route(proxy, kind),
            methods=["POST"],
            name=kind.name,
            summary=kind.name.replace("_", " ").capitalize(),
            description=kind.shape.__doc__,
            openapi_extra={"requestBody": {"required": True, "content": {"application/json": schema}}},
        )


def _route(proxy: Proxy, kind: Kind) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return ProxyResponse(proxy, kind)

    return serve
