"""The gateway as an ASGI application: its routes, what stands in front of them, and what runs beside them."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roost import __version__
from roost.engines.http_server import Pace
from roost.engines.wire import KEEP_ALIVE_S, Wire
from roost.gateway.access import guard
from roost.gateway.account.key_routes import add_key_routes
from roost.gateway.account.meter import Meter
from roost.gateway.auth import Keys, RequireKey, caller_of
from roost.gateway.balance.balancer import Balancer
from roost.gateway.choice.chooser import Chooser
from roost.gateway.choice.chooser import Policy as ChoicePolicy
from roost.gateway.choice.routes import add_choice_routes
from roost.gateway.choice.semantic import WatchedRouter
from roost.gateway.connection.fields import fields_of
from roost.gateway.discovery import NomadWatcher, given_members
from roost.gateway.documents import find_model, models_document, readiness
from roost.gateway.endpoints.connect import Connector
from roost.gateway.endpoints.hand import HandEndpoints, PlainFile, Store, VariableStore, untold
from roost.gateway.endpoints.hosts import HostUses
from roost.gateway.endpoints.routes import EndpointRoutes, add_endpoint_routes
from roost.gateway.endpoints.snapshot import SnapshotKeeper
from roost.gateway.errors import SERVER_ERROR, ApiError, model_not_found
from roost.gateway.load.recorder import LoadRecorder, add_load_route
from roost.gateway.metrics import Metrics
from roost.gateway.observe.context import CURRENT, TRACEPARENT, Current, begin, traceparent, with_trace
from roost.gateway.observe.engines import EngineMetrics, Prefixes
from roost.gateway.observe.routes import add_engine_metrics
from roost.gateway.observe.tracing import Tracer, tracer_of
from roost.gateway.paths import is_anthropic
from roost.gateway.registry import Hooks, Registry, Timing
from roost.gateway.replicas.exchange import EXCHANGE_PATH, HttpTransport, Replicas
from roost.gateway.replicas.peers import PeerWatcher, parse_peers
from roost.gateway.replicas.routes import add_replica_routes
from roost.gateway.replicas.sharing import Sharing
from roost.gateway.request.proxy import Proxy
from roost.gateway.request.surface import Surface, add_surface
from roost.gateway.routing import visible_to
from roost.gateway.secret_file import WatchedFile
from roost.gateway.settings import Settings
from roost.gateway.tags import parse_pools
from roost.gateway.task_api import TaskApi
from roost.gateway.tasks import spawn
from roost.gateway.warm.keeper import Keeper, Policy
from roost.gateway.warm.keeping import SlotsKeeper
from roost.gateway.warm.planned import JobWatcher, Planned
from roost.gateway.warm.restarts import Restarter
from roost.ops.api_keys import ApiKey
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

ENDPOINTS_FILE = "endpoints.json"
OPEN_PATHS = frozenset({"/healthz", "/readyz", EXCHANGE_PATH})  # the last has a key of its own
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class Gateway:
    """The application and what it is made of."""

    app: ASGIApp
    registry: Registry
    metrics: Metrics
    keeper: Keeper
    slots: SlotsKeeper
    restarter: Restarter
    api: TaskApi | None
    meter: Meter
    balancer: Balancer
    hand: HandEndpoints
    hosts: HostUses
    snapshot: SnapshotKeeper
    load: LoadRecorder
    routes: Sequence[BaseRoute]
    tracer: Tracer | None
    wire: Wire


class Envelope:
    """Outermost ASGI middleware: names each request, and turns what nobody caught into a 500 in OpenAI's shape."""

    def __init__(self, app: ASGIApp, sample_ratio: float = 0.0) -> None:
        self._app = app
        self._sample_ratio = sample_ratio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = fields_of(scope)
        given = headers.get("x-request-id", "")
        request_id = given if given and REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        scope["roost.request_id"] = request_id
        scope["roost.trace"] = trace = begin(headers.get(TRACEPARENT, ""), request_id, self._sample_ratio)
        CURRENT.set(Current(request_id, trace.trace_id))  # of the server's task for this request
        own = [(b"x-request-id", request_id.encode())]
        if is_anthropic(scope["path"]):  # as its clients call it
            own.append((b"request-id", request_id.encode()))
        begun = False

        async def named(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *own]
            await send(message)

        try:
            await self._app(scope, receive, named)
        except ClientDisconnect:  # while its request was read: nobody is there to be told
            log.info("client_left", request_id=request_id, path=scope["path"])
        except Exception:
            log.exception("unhandled", request_id=request_id, path=scope["path"])
            if begun:
                raise
            error = ApiError(500, "Something went wrong inside the gateway.", kind=SERVER_ERROR)
            await error.response()(scope, receive, named)


def build(
    settings: Settings,
    session: aiohttp.ClientSession,
    *,
    on_secrets: Callable[[Collection[str]], None] = untold,
) -> Gateway:
    """Assemble the application. `extra_routes` are further pages; of them `open_paths` need no key.

    `on_secrets` is told of the keys of other services that come while it runs: the log must not show them.
    """
    key_file = WatchedFile(settings.engine_key_file, str.strip, "") if settings.engine_key_file else None
    pace = Pace(settings.canary_every_s, settings.canary_timeout_s, settings.stall_s, settings.health_timeout_s)

    wire = Wire(partial(engine_trust, settings.engine_ca_file), traceparent if settings.otel_endpoint else dict)
    connect = Connector(session, key_file.value if key_file else str, pace, wire)
    timing = Timing(settings.probe_every_s, settings.probe_unready_every_s, settings.remember_s)
    registry = Registry(connect, timing)
    metrics = Metrics(registry.views)
    api = None
    if settings.nomad_socket and not settings.static_endpoints:
        api = TaskApi(settings.nomad_socket, settings.nomad_token.get_secret_value(), settings.nomad_namespace)
    hand = HandEndpoints(registry, endpoints_file(settings), endpoint_store(settings, api), on_secrets)
    hosts = HostUses(api, registry)
    snapshot = SnapshotKeeper(registry, settings.state_dir)
    slots = SlotsKeeper(metrics, settings.slots_timeout_s)
    restarter = Restarter(api, metrics, settings.stuck_restart_s)
    policy = Policy(parse_pools(settings.memory_pools), settings.idle_stop_s, settings.min_stay_s)
    keeper = Keeper(registry, api, slots.save, metrics, policy)
    registry.hooks = Hooks(slots.restore, slots.drain, restarter.probed)
    keys = Keys(settings.api_keys_file, settings.keys_file, settings.tiers)
    meter = Meter(settings, keys, metrics)
    peer_key = WatchedFile(settings.peer_key_file, str.strip, "") if settings.peer_key_file else None
    if peer_key and (settings.peers or settings.peer_service):
        meter.replicas = _replicas(settings, session, peer_key, meter, keeper)
    wanted = ChoicePolicy(settings.auto_choice, tuple(settings.model_ladder), settings.cascade_steps)
    router = WatchedRouter(settings.route_file)
    chooser = Chooser(registry, router, metrics, settings.model_aliases, wanted)
    metrics.waits_for_key(meter.limiter.waiting)
    tracer = tracer_of(settings)
    proxy = Proxy(settings, registry, metrics, keeper, meter, chooser, tracer)
    app = FastAPI(title="Roost", version=__version__, docs_url=None, redoc_url=None)
    add_surface(app, proxy)
    _add_routes(app, registry, metrics, meter, settings.model_aliases)
    prefixes = Prefixes(settings.model_service_prefix, settings.worker_job_prefix)
    engines = EngineMetrics(session, registry.endpoints, registry.planned, api, prefixes, settings.engine_metrics_s)
    add_engine_metrics(app, engines)
    add_key_routes(app, keys, meter, settings.cost_mode)
    add_replica_routes(app, meter.replicas, peer_key)
    add_choice_routes(app, chooser, router, settings)
    add_endpoint_routes(app, EndpointRoutes(registry, hand, connect, hosts))
    load = LoadRecorder(metrics.registry, registry.views)
    add_load_route(app, load)
    _add_error_shapes(app)
    guard(app.routes, OPEN_PATHS)
    keyed = RequireKey(
        Surface(app, proxy),
        keys=keys,
        is_public=OPEN_PATHS.__contains__,
        on_wrong=metrics.wrong_key,
        slowdown=meter.wrong_keys,
    )
    outermost = Envelope(keyed, settings.otel_sample_ratio if tracer else 0.0)
    return Gateway(
        outermost, registry, metrics, keeper, slots, restarter, api, meter, proxy.balancer,
        hand, hosts, snapshot, load, app.routes, tracer, wire
    )  # fmt: skip


def endpoints_file(settings: Settings) -> Path | None:
    """Return the document of endpoints added by hand: the one that is named, else one in the folder of the state."""
    if settings.endpoints_file or settings.state_dir is None or settings.nomad_socket:
        return settings.endpoints_file
    return settings.state_dir / ENDPOINTS_FILE


def endpoint_store(settings: Settings, api: TaskApi | None) -> Store | None:
    """Return where changes of that document go."""
    if api and settings.endpoints_variable:
        return VariableStore(api, settings.endpoints_variable)
    file = None if settings.nomad_socket else endpoints_file(settings)
    return PlainFile(file) if file else None


def _replicas(
    settings: Settings, session: aiohttp.ClientSession, key: WatchedFile[str], meter: Meter, keeper: Keeper
) -> Replicas:
    """Return this gateway's part in a service of several.

    Raises:
        RoostError: the authority of the others' certificates cannot be read.
    """
    try:
        transport = HttpTransport(session, key, settings.peer_ca, settings.peer_name)
    except (OSError, ssl.SSLError) as error:
        raise RoostError(
            f"The authority of the other gateways, {settings.peer_ca}, cannot be used: {error}.",
            fix="Name the file of the fleet's authority in ROOST_PEER_CA.",
        ) from None
    sharing = Sharing(meter.limiter, meter.accountant.replica, uses_of=keeper.use_ages)
    keeper.used_elsewhere = sharing.used_elsewhere
    own = {f"http://{settings.bind}:{settings.port}", f"https://{settings.listen}"}
    replicas = Replicas(sharing, meter.accountant, transport, settings.peer_every_s, own)
    meter.limiter.on_short = replicas.hurry
    return replicas


def _add_routes(app: FastAPI, registry: Registry, metrics: Metrics, meter: Meter, aliases: Mapping[str, str]) -> None:
    started = int(time.time())

    def entries(key: ApiKey) -> list[dict[str, object]]:
        reports = {endpoint.id: endpoint.report for endpoint in registry.endpoints()}
        return models_document(visible_to(key, registry.views()), reports, aliases, started)

    @app.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        """List the models that the key may use."""
        return JSONResponse({"object": "list", "data": entries(caller_of(request.scope))})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> JSONResponse:
        """Describe one model."""
        entry = find_model(entries(caller_of(request.scope)), name)
        if entry is None:
            raise model_not_found(name)
        return JSONResponse(entry)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Say that the process is alive and does all it should; 503 once a background task has died."""
        if registry.fault:
            return JSONResponse({"status": f"died: {registry.fault}", "version": __version__}, 503)
        alive: dict[str, object] = {"status": "ok", "version": __version__}
        if not_kept := meter.accountant.not_kept:  # it serves all the same
            alive["not_kept"] = sorted(not_kept)
        return JSONResponse(alive)

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
    registry = gateway.registry
    gateway.snapshot.restore()
    gateway.hand.look()
    tasks = [
        spawn(gateway.snapshot.run(), "keeping the registry's state", registry.fail),
        spawn(gateway.hand.run(), "endpoints by hand", registry.fail),
        spawn(gateway.hosts.run(), "use of hosts", registry.fail),
        spawn(gateway.load.run(), "load history", registry.fail),
    ]
    if settings.static_endpoints:
        registry.sync(given_members(settings.static_endpoints))
    elif gateway.api:

        def take(jobs: Collection[Planned]) -> None:
            registry.plan(jobs)
            gateway.keeper.poke()

        members = NomadWatcher(gateway.api, settings.model_service_prefix, registry.sync, registry.fail)
        jobs = JobWatcher(gateway.api, settings.model_service_prefix, take)
        tasks += [
            spawn(members.run(), "nomad discovery", registry.fail),
            spawn(jobs.run(), "nomad jobs", registry.fail),
            spawn(gateway.keeper.run(), "keeping models warm", registry.fail),
        ]
    else:
        registry.sync(())
    try:
        async with gateway.meter.running(registry.fail):
            if replicas := gateway.meter.replicas:
                if settings.peers:
                    replicas.sync(parse_peers(settings.peers))
                elif gateway.api:
                    watcher = PeerWatcher(gateway.api, settings.peer_service, replicas.sync)
                    tasks.append(spawn(watcher.run(), "nomad replicas", registry.fail))
                # What is spent already, before the first request is let in.
                await replicas.first_answers()
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await registry.close()
        gateway.wire.close()
        gateway.snapshot.close()
        await gateway.slots.close()
        await gateway.restarter.close()
        if gateway.tracer:
            await asyncio.to_thread(gateway.tracer.close)


def engine_trust(engine_ca: Path | None) -> ssl.SSLContext:
    """Return whose certificates model servers may have: the system's authorities, and those in a PEM file.

    Raises:
        OSError, ssl.SSLError: the file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    if engine_ca is not None:
        context.load_verify_locations(cafile=engine_ca)
    return context


def client_session(engine_ca: Path | None = None, *, traced: bool = False) -> aiohttp.ClientSession:
    """Return the session for our own questions to model servers: no limit of connections, bytes as they come.

    `engine_ca` is a PEM file that is trusted beside the system's authorities. With `traced` they are told which trace
    a request belongs to.
    """
    context: ssl.SSLContext | bool = True if engine_ca is None else engine_trust(engine_ca)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=context)
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        middlewares=(with_trace,) if traced else (),
    )
