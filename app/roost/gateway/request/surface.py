"""One route for each kind of request, all of them served by the one proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from roost.gateway.access import RULES, Allow
from roost.gateway.request.kinds import KINDS, Kind
from roost.gateway.request.proxy import Proxy, ProxyResponse


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


class Surface:
    """ASGI application: requests to models go to the proxy at once, all others to `app`.

    The way through FastAPI is a fifth of what a request costs, and these routes need nothing of it but their place in
    the OpenAPI document. Both ways have the same rule of access before them.
    """

    def __init__(self, app: ASGIApp, proxy: Proxy) -> None:
        self._app = app
        self._direct = {kind.path: Allow(ProxyResponse(proxy, kind), RULES[kind.path]) for kind in KINDS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        direct = self._direct.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (direct or self._app)(scope, receive, send)


def _route(proxy: Proxy, kind: Kind) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return ProxyResponse(proxy, kind)

    return serve
