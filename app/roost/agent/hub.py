"""The agent's routes before the rest of a hub: who asks is found out from the API, as everywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import aiohttp
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roost.agent.audit.log import AuditLog
from roost.agent.channel.calls import call_routes
from roost.agent.channel.desk import Desk
from roost.agent.channel.routes import worker_routes
from roost.agent.channel.wire import HUB_PATH
from roost.agent.channel.wire import PATH as WORKERS_PATH
from roost.agent.events.routes import event_routes
from roost.agent.events.stream import Still
from roost.agent.identity import HubIdentity, identity_routes
from roost.agent.knowledge import Knowledge
from roost.agent.measures import Measures
from roost.agent.memory.memory import Memory
from roost.agent.memory.routes import PATH as MEMORY_PATH
from roost.agent.memory.routes import memory_routes
from roost.agent.memory.store import FactStore
from roost.agent.permission.allowed import AllowedStore, OpenQuestions
from roost.agent.permission.policy import ALLOWED_PATH
from roost.agent.permission.routes import permission_routes
from roost.agent.routes import turn_routes
from roost.agent.search_routes import search_routes
from roost.agent.service import Agents, Asker, NoTools, RunnerOf
from roost.agent.sessions.routes import PATH, session_routes
from roost.agent.sessions.store import FileSessionStore
from roost.agent.skills.routes import PATH as SKILLS_PATH
from roost.agent.skills.routes import skill_routes
from roost.agent.skills.store import SkillStore
from roost.agent.tools.searxng import NOWHERE, Where
from roost.agent.tools.web_search import FLEET_PATH
from roost.agent.turn_metrics import TurnMetrics
from roost.context.blobs import FileBlobs
from roost.gateway.errors import ApiError, not_allowed
from roost.gateway.telemetry import Redactor
from roost.ops.api_keys import Role
from roost.ops.asgi import ask
from roost.ops.metric_names import AGENT_PAGE
from roost.ops.validation import in_words, place

WHO_PATH = "/v1/key"
OPENAPI_PATH = "/openapi.json"
ASKER, STILL = "roost.asker", "roost.still"
CONNECTIONS = frozenset({"http", "websocket"})
MOST_BODY_BYTES = 1 << 20
BODY_TIMEOUT_S = 30.0
MINE = (PATH, WORKERS_PATH, MEMORY_PATH, SKILLS_PATH, HUB_PATH, ALLOWED_PATH, FLEET_PATH)
USERS = frozenset({Role.ADMIN.value, Role.USER.value})
NAMES = frozenset({b"authorization", b"x-api-key", b"host"})


class AgentHub:
    """ASGI application: the agent's routes for keys that may use models; everything else from `api`."""

    def __init__(
        self,
        api: ASGIApp,
        agents: Agents,
        measures: Measures,
        desk: Desk | None = None,
        *,
        identity: HubIdentity,
        search: Where = NOWHERE,
    ) -> None:
        self._api = api
        self.desk = desk or Desk()
        self._measures = measures
        self.agents = agents
        self._app = FastAPI(title="Roost agent", docs_url=None, redoc_url=None)
        self._app.include_router(
            session_routes(
                agents.store,
                lambda request: asker_of(request).name,
                agents.audit,
                agents.forget,
                agents.sweeper.soon,
            )
        )
        self._app.include_router(turn_routes(agents, asker_of, still_of))
        self._app.include_router(permission_routes(agents, asker_of))
        self._app.include_router(event_routes(agents, asker_of, still_of))
        self._app.include_router(
            memory_routes(
                agents.knowledge.memory,
                lambda request: asker_of(request).name,
                lambda request: agents.embedder(asker_of(request)),
                agents.knowledge.changed,
            )
        )
        self._app.include_router(
            skill_routes(
                agents.knowledge.skills, lambda request: asker_of(request).name, agents.audit, agents.knowledge.changed
            )
        )  # fmt: skip
        self._app.include_router(call_routes(self.desk, lambda request: asker_of(request).name, agents.audit))
        self._app.include_router(worker_routes(self.desk, lambda request: asker_of(request).name))
        self._app.include_router(identity_routes(identity, lambda request: asker_of(request).name))
        self._app.include_router(search_routes(search))
        _shape_errors(self._app)

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Return the agent's own routes: method and path."""
        paths = self._app.openapi()["paths"]
        return [(method.upper(), path) for path, methods in paths.items() for method in methods]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] == OPENAPI_PATH:
            await self._openapi(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == AGENT_PAGE:
            await self._metrics(scope, receive, send)
        elif scope["type"] in CONNECTIONS and is_mine(scope["path"]):
            await self._mine(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the agent's metrics to who may see the gateway's."""
        headers = [(name, value) for name, value in scope["headers"] if name in NAMES]
        status, answered, body = await ask(self._api, scope, AGENT_PAGE, headers)
        if status == 200:
            body = self._measures.text()
        await Response(body, status, media_type=answered.get("content-type"))(scope, receive, send)

    async def _who(self, scope: Scope) -> tuple[int, Headers, bytes]:
        """Ask the API who has this key."""
        headers = [(name, value) for name, value in scope["headers"] if name in NAMES]
        asking = {**scope, "type": "http", "scheme": scope["scheme"].replace("ws", "http")}
        return await ask(self._api, asking, WHO_PATH, headers)

    async def _mine(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, answered, body = await self._who(scope)
        if status != 200:  # the API's own refusal, which slows down those who guess
            kept = {name: answered[name] for name in ("content-type", "retry-after") if name in answered}
            await Response(body, status, kept)(scope, receive, send)
            return
        key = json.loads(body)
        if key["role"] not in USERS:
            method = scope.get("method", "GET")
            await not_allowed(Role(key["role"]), method, scope["path"]).response()(scope, receive, send)
            return
        asker = Asker(
            key["name"], _secret(scope), key["role"], key.get("cost_mode") or "", key.get("cost_mode_default") or ""
        )

        async def still() -> bool:
            now, _, about = await self._who(scope)
            # what cannot be asked just now is no refusal
            return now >= 500 or (now == 200 and json.loads(about)["role"] in USERS)

        known = {**scope, ASKER: asker, STILL: still}
        if scope["type"] == "websocket":
            await self._app(known, receive, send)
            return
        body_read = await _body(receive)
        if body_read is None:
            await ApiError(413, f"At most {MOST_BODY_BYTES} bytes, within {BODY_TIMEOUT_S:.0f} s.").response()(
                scope, receive, send
            )
            return
        await self._app(known, _again(body_read, receive), send)

    async def _openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Describe the API and the agent's routes in one document."""
        headers = [(name, value) for name, value in scope["headers"] if name in NAMES]
        status, answered, body = await ask(self._api, scope, OPENAPI_PATH, headers)
        if status == 200:
            document, more = json.loads(body), self._app.openapi()
            document["paths"] |= more["paths"]
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in more.get("components", {}).get("schemas", {}).items():
                schemas.setdefault(name, schema)
            body = json.dumps(document).encode()
        await Response(body, status, media_type=answered.get("content-type"))(scope, receive, send)


def agents_of(
    folder: Path,
    http: aiohttp.ClientSession,
    base_url: str,
    *,
    redactor: Redactor | None = None,
    runner_of: RunnerOf = lambda _owner, _workspace: NoTools(),
    count: Callable[[TurnMetrics], None] = lambda _metrics: None,
) -> Agents:
    """Return the service with its stores below `folder`; models are asked for at `base_url`."""
    audit = AuditLog(folder / "audit", redactor)
    knowledge = Knowledge(Memory(FactStore(folder / "memory"), audit), SkillStore(folder / "skills"))
    return Agents(
        FileSessionStore(folder / "sessions"), knowledge, FileBlobs(folder / "blobs"),
        audit, http, base_url, runner_of, AllowedStore(folder / "allowed.json"), OpenQuestions(folder / "questions"),
        count,
    )  # fmt: skip


def is_mine(path: str) -> bool:
    """Say whether a path is one of the agent's routes, whose answers belong to the key that asks."""
    return any(path == mine or path.startswith(f"{mine}/") for mine in MINE)


def asker_of(request: HTTPConnection) -> Asker:
    """Return who asks."""
    asker = request.scope[ASKER]
    if not isinstance(asker, Asker):
        raise TypeError(asker)
    return asker


def still_of(request: HTTPConnection) -> Still:
    """Return what says whether the key that asked is still good."""
    still: Still = request.scope[STILL]
    return still


def _secret(scope: Scope) -> str:
    """Return the key of a request that has a good one."""
    given: dict[bytes, str] = {name: value.decode("latin-1") for name, value in scope["headers"] if name in NAMES}
    word, _, secret = given.get(b"authorization", "").partition(" ")
    return secret.strip() if word.lower() == "bearer" else given.get(b"x-api-key", "")


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body; None if it is too long, or takes too long."""
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                parts.append(message.get("body", b""))
                if sum(map(len, parts)) > MOST_BODY_BYTES:
                    return None
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        return None


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read to who reads it next, and then whatever comes."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


def _shape_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path}").response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        where = place(error.errors()[0], beyond=1)
        return ApiError(422, in_words(error, beyond=1), param=where or None).response()
