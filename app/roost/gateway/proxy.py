"""Every kind of request: from a client to whichever model server will answer, byte for byte."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp
import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from roost.engines.base import Answer, Skill, State
from roost.gateway import accounting, errors
from roost.gateway.auth import caller_of
from roost.gateway.choice.chooser import Chooser, finished
from roost.gateway.endpoints.outliers import Result
from roost.gateway.engine_errors import from_engine
from roost.gateway.errors import ApiError
from roost.gateway.exchange import NO_TRACE, Exchange, response_headers, send_whole, start
from roost.gateway.fitting import fitted, wants_cut
from roost.gateway.keeper import Keeper
from roost.gateway.kinds import Kind
from roost.gateway.limits import Ticket
from roost.gateway.meter import Meter, Outcome
from roost.gateway.metrics import Metrics
from roost.gateway.observe.ended import report
from roost.gateway.observe.marks import ADMITTED, SEATED
from roost.gateway.observe.tracing import Tracer
from roost.gateway.penalties import Slowdown
from roost.gateway.registry import Endpoint, Registry
from roost.gateway.requests import ParsedRequest, parse, read_body
from roost.gateway.routing import Route, choose
from roost.gateway.settings import Settings
from roost.gateway.shape import ShapeLimits
from roost.gateway.tasks import unless_gone
from roost.ops.api_keys import ApiKey

log = structlog.get_logger(__name__)

FALLBACK_HEADER = "x-roost-fallback"
CLIENT_LEFT = 499  # for metrics and logs only; nobody is there to read it
DEATHS_ALLOWED = 2  # a request under which two model servers died is not tried on a third
EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
STREAM_TYPE = b"text/event-stream; charset=utf-8"


class _UnansweredError(Exception):
    """This endpoint did not answer; nothing has reached the client yet."""

    def __init__(self, reason: str, *, died: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.died = died


def whole_events(data: bytes) -> int:
    """Return how many bytes of `data` are complete server-sent events."""
    return max((at + len(end) for end in EVENT_ENDS if (at := data.rfind(end)) >= 0), default=0)


class Proxy:
    """Forwards requests. One object a service."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        metrics: Metrics,
        keeper: Keeper,
        meter: Meter,
        chooser: Chooser,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._metrics = metrics
        self._keeper = keeper
        self._meter = meter
        self._chooser = chooser
        self._tracer = tracer
        self._violations = Slowdown()
        self._shape = ShapeLimits(
            settings.max_messages, settings.max_image_bytes, settings.max_schema_depth, settings.max_schema_nodes
        )
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s)

    async def handle(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI request to the end; the client leaving ends the work on the model server too."""
        exchange = Exchange(scope.get("roost.request_id", ""), kind, trace=scope.get("roost.trace", NO_TRACE))
        self._metrics.in_flight.inc()
        try:
            body, request = await self._read(kind, scope, receive)
            exchange.stream, exchange.asked = request.stream, request.model
            exchange.forgiving = forgiving(scope) and kind.skill is Skill.GENERATE
            exchange.may_cut = wants_cut(scope)
            exchange.ticket = self._meter.admit(caller_of(scope), len(body))
            exchange.mark(ADMITTED)
            await unless_gone(receive, self._seated(exchange.ticket, request, exchange, send))
        except ApiError as error:
            exchange.status, exchange.error_code = error.status, error.code
            await error.response(response_headers(exchange))(scope, receive, send)
        except ClientDisconnect:
            # Clients hang up once they have read the last event; then nothing was cut.
            if not exchange.ended:
                exchange.status = CLIENT_LEFT
        except asyncio.CancelledError:
            exchange.cut = "the service is stopping"
            raise
        finally:
            self._metrics.in_flight.dec()
            self._account(exchange)

    async def _read(self, kind: Kind, scope: Scope, receive: Receive) -> tuple[bytes, ParsedRequest]:
        """Receive and check a request; a key that keeps sending what is not valid is answered later.

        Raises:
            ApiError: 400, 408, 413.
        """
        try:
            body = await read_body(
                scope, receive, limit=self._settings.max_body_bytes, timeout_s=self._settings.body_timeout_s
            )
            return body, parse(kind, body, self._shape)
        except ApiError as error:
            name = caller_of(scope).name
            self._metrics.invalid(name, error.status)
            await self._violations.hold(name)
            raise

    async def _seated(self, ticket: Ticket, request: ParsedRequest, exchange: Exchange, send: Send) -> None:
        async with ticket.place(self._settings.wait_s):
            exchange.mark(SEATED)
            await self._serve(ticket.key, request, exchange, send)

    async def _serve(self, key: ApiKey, request: ParsedRequest, exchange: Exchange, send: Send) -> None:
        """Find an endpoint, try it, and go on to others while the client has nothing yet.

        Raises:
            ApiError: no endpoint could answer.
        """
        began = time.monotonic()
        patience = self._settings.wait_s
        name, exchange.decided = self._chooser.name(request, key, exchange.request_id)
        tried: set[str] = set()
        deaths = 0
        while True:
            name = self._chooser.again(exchange.decided, key, name)
            route = self._registry.route(name, key)
            if not (route.ready or route.known):
                raise errors.model_not_found(request.model)
            used = route
            if not route.ready:
                for job in route.cold:
                    patience = max(self._settings.wait_s, self._settings.start_wait_s)
                    self._keeper.want(job, patience)
                used = self._substitute(key, name, route, exchange, time.monotonic() - began) or route
            able = self._able(request, used)
            chosen = choose(self._registry.views(), able, tried)
            endpoint = self._registry.get(chosen) if chosen else None
            if endpoint:
                self._name(exchange, endpoint, request, route, used)
                try:
                    await self._attempt(endpoint, request, exchange, send)
                except _UnansweredError as problem:
                    if endpoint.id in tried and not problem.died and time.monotonic() - began >= patience:
                        raise errors.model_unavailable(request.model, problem.reason) from None
                    tried.add(endpoint.id)
                    deaths += problem.died
                    self._metrics.failover("died" if problem.died else "unavailable")
                    exchange.lost(problem.reason)
                    log.warning(
                        "failover",
                        request_id=exchange.request_id,
                        endpoint=endpoint.id,
                        reason=problem.reason,
                    )
                    if deaths >= DEATHS_ALLOWED:
                        raise errors.engine_failed(problem.reason) from None
                    continue
                return
            waited = time.monotonic() - began
            if waited >= patience:
                raise errors.model_unavailable(request.model, route.reason)
            until = self._settings.fallback_after_s if waited < self._settings.fallback_after_s else patience
            with self._metrics.waiting("model"):
                await self._registry.changed(min(until, patience) - waited)

    def _able(self, request: ParsedRequest, route: Route) -> list[str]:
        """Return the ready endpoints of a route that have what the request needs.

        Raises:
            ApiError: there are ready ones, and none has it.
        """
        able = []
        for name in route.ready:
            endpoint = self._registry.get(name)
            if endpoint and request.kind.skill not in endpoint.report.lacks_of(route.ready[name]):
                able.append(name)
        if route.ready and not able:
            raise errors.not_able(request.model, request.kind.skill)
        return able

    def _substitute(self, key: ApiKey, name: str, route: Route, exchange: Exchange, waited_s: float) -> Route | None:
        """Return who may answer while the chosen model cannot; a moment's absence is waited for."""
        if not exchange.forgiving or (not route.cold and waited_s < self._settings.fallback_after_s):
            return None
        return self._registry.substitute(name, self._settings.model_fallbacks, key)

    def _name(self, exchange: Exchange, endpoint: Endpoint, request: ParsedRequest, route: Route, used: Route) -> None:
        exchange.model, exchange.endpoint, exchange.adapter = used.ready[endpoint.id], endpoint.id, used.adapter
        exchange.engine = endpoint.member.engine
        if used is route:
            exchange.instead_of = exchange.why_instead = ""
            return
        exchange.instead_of = request.model
        exchange.why_instead = route.state.value

    async def _attempt(self, endpoint: Endpoint, request: ParsedRequest, exchange: Exchange, send: Send) -> None:
        engine = endpoint.engine
        exchange.sent_on = time.perf_counter()
        exchange.attempt()
        try:
            async with asyncio.timeout(None) as scope:
                with endpoint.lease(scope):
                    body = await self._body(endpoint, request, exchange)
                    if request.kind.counts:
                        await self._count(endpoint, request, body, exchange, send)
                        return
                    async with engine.send(request.kind.upstream, body, self._timeout) as answer:
                        await self._answer(endpoint, answer, request, exchange, send)
            self._registry.record(endpoint.id, Result.SUCCEEDED)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            reason = f"cannot connect ({type(error).__name__})"
            self._registry.record(endpoint.id, Result.FAILED)
            self._registry.mark(endpoint, State.DOWN, reason)
            raise _UnansweredError(reason) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = "it stopped answering" if isinstance(error, TimeoutError) else "it closed the connection"
            self._registry.suspect(endpoint)
            self._registry.record(endpoint.id, Result.FAILED)
            if not exchange.begun:
                raise _UnansweredError(reason, died=True) from None
            await self._break_off(exchange, send, reason)

    async def _body(self, endpoint: Endpoint, request: ParsedRequest, exchange: Exchange) -> bytes:
        """Return what the endpoint gets.

        Raises:
            ApiError: it cannot do what is asked, or there is no room for it.
        """
        kind, report = request.kind, endpoint.report
        adapters = report.adapters if kind.adapters else ()
        if kind.skill is Skill.GENERATE and report.adapters and not kind.adapters:
            raise errors.not_offered(f"{kind.path} with adapters: the model server cannot be told which one applies")
        request.refuse(endpoint.engine.ignores(kind.upstream))
        body = request.body_for(exchange.model, adapters, exchange.adapter)
        context = report.context_of(exchange.model)
        found = await fitted(endpoint.engine, kind, body, request.answer, context, cut=exchange.may_cut)
        exchange.was_cut = found.cut
        return found.body

    async def _count(
        self, endpoint: Endpoint, request: ParsedRequest, body: bytes, exchange: Exchange, send: Send
    ) -> None:
        """Answer with how many tokens a request's prompt has at this endpoint, which gets it as `body`."""
        tokens = await endpoint.engine.count(request.like(), body)
        if tokens is None:
            raise errors.not_offered("counting: the model server has no way to count this request")
        context = endpoint.report.context_of(exchange.model)
        left = None if context is None else max(0, context - tokens)
        document: dict[str, object] = {"object": "token_count", "model": exchange.served, "tokens": tokens}
        document |= {"context": context, "left": left}
        await send_whole(exchange, send, b"application/json", json.dumps(document).encode())

    async def _answer(
        self,
        endpoint: Endpoint,
        answer: Answer,
        request: ParsedRequest,
        exchange: Exchange,
        send: Send,
    ) -> None:
        if answer.status == 503:
            await answer.read()
            reason = "it is loading its model"
            self._registry.mark(endpoint, State.LOADING, reason)
            raise _UnansweredError(reason)
        if answer.status != 200:
            error = from_engine(answer.status, await answer.read(), request.kind)
            if error.status == 502:
                self._registry.suspect(endpoint)
                self._registry.record(endpoint.id, Result.FAILED)
            raise error
        if request.stream and answer.content_type == "text/event-stream":
            await self._relay_stream(endpoint, answer, exchange, send)
            return
        body = await answer.read()
        if request.kind.skill is not Skill.TOKENIZE:  # a stuck server still does that
            endpoint.engine.proved()
        exchange.tail, exchange.first_byte = body, time.perf_counter()
        self._settle(exchange, 200)
        await send_whole(exchange, send, answer.headers.get("Content-Type", "application/json").encode(), body)

    async def _relay_stream(self, endpoint: Endpoint, answer: Answer, exchange: Exchange, send: Send) -> None:
        """Pass chunks on as they come, cut only between events so that a broken stream still parses."""
        held = b""
        while chunk := await answer.content.readany():
            endpoint.engine.proved()
            exchange.piece()
            data = held + chunk if held else chunk
            end = len(data) if data.endswith(b"\n\n") else whole_events(data)
            held = data[end:]
            if not end:
                continue
            if not exchange.begun:
                exchange.first_byte = time.perf_counter()
                exchange.head = data[:end]
                await start(
                    exchange,
                    send,
                    [
                        (b"content-type", STREAM_TYPE),
                        (b"cache-control", b"no-cache"),
                        (b"x-accel-buffering", b"no"),
                    ],
                )
            exchange.ended = exchange.kind.ended(data[:end])
            # The last event holds the whole answer in some kinds of stream; what is to be counted stands at its end.
            keep = max(accounting.TAIL_BYTES, end) if exchange.ended else accounting.TAIL_BYTES
            exchange.tail = (exchange.tail + data[:end])[-keep:]
            exchange.events += data.count(accounting.DATA, 0, end)
            if exchange.ended:
                self._settle(exchange, 200)
            await send({"type": "http.response.body", "body": data[:end], "more_body": True})
        if not exchange.begun:
            self._registry.record(endpoint.id, Result.FAILED)
            raise _UnansweredError("it sent an empty stream", died=True)
        await send({"type": "http.response.body", "body": held})

    async def _break_off(self, exchange: Exchange, send: Send, reason: str) -> None:
        """End a stream whose model server is gone, with an error that its clients understand."""
        exchange.cut, exchange.status = reason, 502  # for metrics and the log; the client already has a 200
        event = errors.engine_failed(reason).event(exchange.kind.path)
        await send({"type": "http.response.body", "body": event})

    def _settle(self, exchange: Exchange, status: int) -> None:
        """Count the request, once; before its last byte goes out, so that nobody has an answer that was not counted."""
        if exchange.settled:
            return
        exchange.settled = True
        if exchange.tail:
            if exchange.stream:
                exchange.tokens = accounting.of_stream(exchange.tail, exchange.head)
            else:
                exchange.tokens = accounting.of_answer(exchange.tail)
        if exchange.ticket:
            busy_ms = (time.perf_counter() - exchange.sent_on) * 1000 if exchange.sent_on else 0.0
            outcome = Outcome(exchange.model, status, exchange.tokens, exchange.events, busy_ms)
            self._meter.settle(exchange.ticket, outcome)

    def _account(self, exchange: Exchange) -> None:
        self._settle(exchange, exchange.status)
        finished(exchange.decided, exchange.served, exchange.status)
        now = time.perf_counter()
        tokens = exchange.tokens
        if exchange.instead_of and exchange.begun:
            self._metrics.fell_back(exchange.endpoint.partition("@")[0], exchange.why_instead)
        first_s = exchange.first_byte - exchange.started if exchange.first_byte else None
        report(exchange, self._metrics, self._tracer)
        log.info(
            exchange.kind.name,
            request_id=exchange.request_id,
            key=exchange.ticket.key.name if exchange.ticket else None,
            model=exchange.served,
            instead_of=exchange.instead_of or None,
            endpoint=exchange.endpoint,
            status=exchange.status,
            stream=exchange.stream,
            first_ms=round(first_s * 1000, 1) if first_s is not None else None,
            total_ms=round((now - exchange.started) * 1000, 1),
            tokens_in=tokens.prompt if tokens else None,
            tokens_out=tokens.completion if tokens else None,
            cut=exchange.cut or None,
            left_out=exchange.was_cut or None,
        )


class ProxyResponse(Response):
    """Lets the proxy take over the raw ASGI connection from inside a route."""

    def __init__(self, proxy: Proxy, kind: Kind) -> None:
        super().__init__()
        self._proxy = proxy
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the connection to the proxy."""
        await self._proxy.handle(self._kind, scope, receive, send)


def forgiving(scope: Scope) -> bool:
    """Say whether another model may answer: not if the client says `X-Roost-Fallback: never`."""
    return Headers(scope=scope).get(FALLBACK_HEADER, "").strip().lower() != "never"
