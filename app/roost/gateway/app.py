"""The gateway as an ASGI application: its routes, what stands in front of them, and what runs beside them."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roost import __version__
from roost.engines.base import Engine, State
from roost.engines.llamacpp import Pace, client_of
from roost.gateway.auth import Keys, RequireKey
from roost.gateway.discovery import NomadWatcher, parse_static
from roost.gateway.errors import SERVER_ERROR, ApiError, model_not_found
from roost.gateway.metrics import Metrics
from roost.gateway.proxy import CHAT_PATH, ChatProxy, ProxyResponse
from roost.gateway.registry import Member, Registry, Timing
from roost.gateway.requests import ChatRequest
from roost.gateway.routing import AUTO, MAIN_SLOT, View
from roost.gateway.secret_file import WatchedFile
from roost.gateway.settings import Settings
from roost.gateway.tasks import spawn

log = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# llama-server closes an idle connection after 5 s; one that is closed a little earlier is never lost to that.
KEEP_ALIVE_S = 4.0


@dataclass(frozen=True)
class Gateway:
    """The application and what it is made of."""

    app: ASGIApp
    registry: Registry
    metrics: Metrics


class Envelope:
    """Outermost ASGI middleware: names each request, and turns what nobody caught into a 500 in OpenAI's shape."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["roost.request_id"] = request_id
        begun = False

        async def named(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, named)
        except Exception:
            log.exception("unhandled", request_id=request_id, path=scope["path"])
            if begun:
                raise
            error = ApiError(500, "Something went wrong inside the gateway.", kind=SERVER_ERROR)
            await error.response()(scope, receive, named)


def models_document(views: Sequence[View], contexts: dict[str, int | None], started: int) -> list[dict[str, object]]:
    """Return the entries of `/v1/models`: each model once, with its best state and what Roost knows beside it."""
    rank = {State.READY: 0, State.LOADING: 1, State.DOWN: 2}
    entries: dict[str, dict[str, object]] = {}
    for view in sorted(views, key=lambda view: (rank[view.state], view.id)):
        for position, model in enumerate(view.models):
            if model in entries:
                continue
            same = [other for other in views if model in other.models]
            names = [AUTO, MAIN_SLOT] if view.slot == MAIN_SLOT else [view.slot]
            aliases = names if position == 0 else []
            entries[model] = {
                "id": model,
                "object": "model",
                "created": started,
                "owned_by": "roost",
                "roost": {
                    "state": view.state.value,
                    "reason": view.reason,
                    "slot": view.slot,
                    "aliases": aliases,
                    "context": contexts.get(view.id),
                    "parallel": sum(other.slots or 1 for other in same if other.state is State.READY),
                    "in_flight": sum(other.in_flight for other in same),
                    "endpoints": [
                        {"id": other.id, "state": other.state.value, "reason": other.reason} for other in same
                    ],
                },
            }
    return [entries[name] for name in sorted(entries)]


def readiness(views: Sequence[View]) -> tuple[bool, dict[str, object]]:
    """Return whether one endpoint is routable, and the document of `/readyz`; no addresses, it is open to all."""
    ready = any(view.state is State.READY for view in views)
    slots: dict[str, dict[str, int]] = {}
    for view in views:
        counts = slots.setdefault(view.slot, {state.value: 0 for state in State})
        counts[view.state.value] += 1
    reasons = sorted({f"{view.slot}: {view.reason}" for view in views if view.state is not State.READY})
    if not views:
        reasons = ["no model server is registered"]
    return ready, {"ready": ready, "reasons": reasons, "slots": slots}


def build(
    settings: Settings,
    session: aiohttp.ClientSession,
    *,
    extra_routes: Sequence[BaseRoute] = (),
    open_paths: frozenset[str] = frozenset(),
) -> Gateway:
    """Assemble the application. `extra_routes` are further pages; of them `open_paths` need no key."""
    key_file = WatchedFile(settings.engine_key_file, str.strip, "") if settings.engine_key_file else None
    pace = Pace(settings.canary_every_s, settings.canary_timeout_s)

    def connect(member: Member) -> Engine:
        return client_of(member.engine)(member.base_url, session, key_file.value if key_file else str, pace)

    timing = Timing(settings.probe_every_s, settings.probe_unready_every_s, settings.remember_s)
    registry = Registry(connect, timing)
    metrics = Metrics(registry.views)
    proxy = ChatProxy(settings, registry, session, metrics)
    app = FastAPI(title="Roost", version=__version__, docs_url=None, redoc_url=None)
    _add_routes(app, registry, metrics, proxy)
    app.router.routes.extend(extra_routes)
    _add_error_shapes(app)
    public = OPEN_PATHS | open_paths
    keyed = RequireKey(app, keys=Keys(settings.api_keys_file), is_public=public.__contains__)
    return Gateway(Envelope(keyed), registry, metrics)


def _add_routes(app: FastAPI, registry: Registry, metrics: Metrics, proxy: ChatProxy) -> None:
    started = int(time.time())

    def entries() -> list[dict[str, object]]:
        contexts = {endpoint.id: endpoint.report.context for endpoint in registry.endpoints()}
        return models_document(registry.views(), contexts, started)

    body_schema = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ChatRequest.model_json_schema()}},
        }
    }

    @app.post(CHAT_PATH, openapi_extra=body_schema)
    async def chat() -> Response:
        """Answer a conversation, plain or streamed, as OpenAI's API does."""
        return ProxyResponse(proxy)

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        """List the models."""
        return JSONResponse({"object": "list", "data": entries()})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> JSONResponse:
        """Describe one model."""
        found = [entry for entry in entries() if entry["id"] == name]
        if not found:
            raise model_not_found(name)
        return JSONResponse(found[0])

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Say that the process is alive and does all it should; 503 once a background task has died."""
        if registry.fault:
            return JSONResponse({"status": f"died: {registry.fault}", "version": __version__}, 503)
        return JSONResponse({"status": "ok", "version": __version__})

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Say whether a model server can take a request; 503 with the reasons if none can."""
        ready, document = readiness(registry.views())
        return JSONResponse(document, 200 if ready else 503)

    @app.get("/metrics")
    async def scrape() -> Response:
        """Return the metrics for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_error_shapes(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{error.detail}: {request.method} {request.url.path}"
        return ApiError(error.status_code, message).response(error.headers)


@asynccontextmanager
async def running(gateway: Gateway, settings: Settings) -> AsyncIterator[None]:
    """Keep the registry fed while the context is open."""
    watcher: asyncio.Task[None] | None = None
    if settings.static_endpoints:
        gateway.registry.sync(parse_static(settings.static_endpoints))
    elif settings.nomad_socket:
        follow = NomadWatcher(
            settings.nomad_socket,
            settings.nomad_token.get_secret_value(),
            settings.model_service_prefix,
            gateway.registry.sync,
            settings.nomad_namespace,
            gateway.registry.fail,
        )
        watcher = spawn(follow.run(), "nomad discovery", gateway.registry.fail)
    else:
        gateway.registry.sync(())
    try:
        yield
    finally:
        if watcher:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        await gateway.registry.close()


def client_session() -> aiohttp.ClientSession:
    """Return the session for all traffic to model servers: no limit of connections, bytes as they come."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    return aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )
