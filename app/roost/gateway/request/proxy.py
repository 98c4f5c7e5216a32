"""Every kind of request: from a client to whichever model server will answer, byte for byte."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from roost.engines.base import Skill
from roost.gateway.account.meter import Meter
from roost.gateway.account.places import Ticket
from roost.gateway.auth import caller_of
from roost.gateway.balance.balancer import Balancer
from roost.gateway.balance.measures import Measures
from roost.gateway.choice.cascade import RejectedAnswerError, cascade_wish
from roost.gateway.choice.chooser import Chooser
from roost.gateway.connection.client import told_when_left
from roost.gateway.connection.outlet import Outlet, Outlets, StalledError
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.errors import ApiError, grammar_not_allowed, stream_interrupted
from roost.gateway.metrics import Metrics
from roost.gateway.observe.marks import ADMITTED, SEATED
from roost.gateway.observe.tracing import Tracer
from roost.gateway.registry import Registry
from roost.gateway.request.asking import forgiving, session_in, wait_in
from roost.gateway.request.attempt import Attempts
from roost.gateway.request.bookkeeping import Books
from roost.gateway.request.exchange import NO_TRACE, Exchange, response_headers, send_whole
from roost.gateway.request.fitting import wants_cut
from roost.gateway.request.kinds import Kind
from roost.gateway.request.requests import ParsedRequest, parse, read_body
from roost.gateway.request.serving import Serving, Staff
from roost.gateway.request.shape import ShapeLimits
from roost.gateway.settings import Settings
from roost.gateway.warm.keeper import Keeper
from roost.ops.api_keys import ApiKey, Role

CLIENT_LEFT = 499  # for metrics and logs only; nobody is there to read it
NOT_READING = "the client does not read"


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
        self._metrics = metrics
        self._meter = meter
        self._chooser = chooser
        self._violations = meter.violations
        self._outlets = Outlets(settings.send_timeout_s)
        self._shape = ShapeLimits(
            settings.max_messages, settings.max_image_bytes, settings.max_schema_depth, settings.max_schema_nodes
        )
        self._books = Books(metrics, meter, tracer)
        attempts = Attempts(settings, registry, self._books)
        self._measures = Measures(metrics.registry)
        self.balancer = Balancer(self._measures, queue_limit=settings.queue_limit, warm_wait_s=settings.warm_wait_s)
        metrics.waits_for_slot(lambda: self.balancer.waiting)
        registry.hooks.changed = self.balancer.changed
        warmed, gone = registry.hooks.warmed, registry.hooks.gone

        async def renewed(endpoint: Endpoint) -> None:
            self.balancer.renewed(endpoint.id)
            await warmed(endpoint)

        def left(endpoint: Endpoint) -> None:
            self.balancer.gone(endpoint.id)
            gone(endpoint)

        registry.hooks.warmed, registry.hooks.gone = renewed, left
        self._staff = Staff(settings, registry, keeper, chooser, self.balancer, attempts, metrics, self._measures)

    async def handle(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI request to the end; the client leaving ends the work on the model server too."""
        exchange = Exchange(scope.get("roost.request_id", ""), kind, trace=scope.get("roost.trace", NO_TRACE))
        self._metrics.in_flight.inc()
        try:
            body, request = await self._read(kind, scope, receive)
            exchange.stream, exchange.asked = request.stream, request.model
            exchange.forgiving = forgiving(scope) and kind.skill is Skill.GENERATE
            exchange.may_cut = wants_cut(scope)
            wish = cascade_wish(scope)
            exchange.wait_s = wait_in(scope, self._settings.wait_s, self._settings.start_wait_s)
            exchange.move_wait_s = wait_in(scope, self._settings.move_wait_s, self._settings.start_wait_s)
            exchange.session = session_in(scope, body)
            exchange.ticket = await self._meter.admit(caller_of(scope), len(body))
            exchange.mark(ADMITTED)
            async with Outlet(send, self._outlets) as outlet:
                with told_when_left(scope, receive, outlet.left):
                    await self._seated(exchange.ticket, request, exchange, outlet, wish)
        except ApiError as error:
            exchange.status, exchange.error_code = error.status, error.code
            await error.response(response_headers(exchange))(scope, receive, send)
        except ClientDisconnect:
            # Clients hang up once they have read the last event; then nothing was cut.
            if not exchange.ended:
                exchange.status = CLIENT_LEFT
        except StalledError:
            exchange.status, exchange.cut = CLIENT_LEFT, NOT_READING
        except asyncio.CancelledError:
            exchange.cut = "the service is stopping"
            raise
        finally:
            self._metrics.in_flight.dec()
            self._books.close(exchange)

    async def _read(self, kind: Kind, scope: Scope, receive: Receive) -> tuple[bytes, ParsedRequest]:
        """Receive and check a request; a key that keeps sending what is not valid is answered later.

        Raises:
            ApiError: 400, 408, 413.
        """
        try:
            body = await read_body(
                scope, receive, limit=self._settings.max_body_bytes, timeout_s=self._settings.body_timeout_s
            )
            request = parse(kind, body, self._shape)
            if request.grammar and caller_of(scope).role is not Role.ADMIN:
                raise grammar_not_allowed()
        except ApiError as error:
            name = caller_of(scope).name
            self._metrics.invalid(name, error.status)
            await self._violations.hold(name)
            raise
        return body, request

    async def _seated(
        self, ticket: Ticket, request: ParsedRequest, exchange: Exchange, outlet: Send, wish: bool | None
    ) -> None:
        """Serve a request once it has a place among those of its key.

        Raises:
            ApiError: it was refused before anything reached the client.
        """
        async with ticket.place(exchange.wait_s):
            exchange.mark(SEATED)
            name, exchange.decided = self._chooser.name(request, ticket.key, exchange.request_id)
            exchange.cascade = self._chooser.cascade(request, ticket.key, name, exchange.decided, wish)
            try:
                await self._serve(ticket.key, name, request, exchange, outlet)
            except ApiError as error:
                if not exchange.begun:
                    raise
                await self._break_off(exchange, outlet, error)
            else:
                if exchange.continued:
                    self._measures.broken("continued")

    async def _serve(self, key: ApiKey, name: str, request: ParsedRequest, exchange: Exchange, outlet: Send) -> None:
        """Serve a request, and once more by a stronger model while the answer is not good enough.

        Raises:
            ApiError: there is no answer, not even such a one.
        """
        rejected: tuple[RejectedAnswerError, tuple[str, str, str]] | None = None
        while True:
            try:
                await Serving(self._staff, key, name, request, exchange, outlet).run()
            except RejectedAnswerError as error:
                rejected = error, (exchange.model, exchange.endpoint, exchange.adapter)
                self._books.reject(exchange, error)
                name = exchange.cascade.left.popleft() if exchange.cascade else name
            except ApiError:
                if rejected is None or exchange.begun:
                    raise
                answer, by = rejected
                exchange.model, exchange.endpoint, exchange.adapter = by
                exchange.instead_of = exchange.why_instead = ""
                self._books.settle_rejected(exchange)
                await send_whole(exchange, outlet, answer.content_type, answer.body)
                return
            else:
                return

    async def _break_off(self, exchange: Exchange, send: Send, error: ApiError) -> None:
        """End a stream that nobody goes on with, with an error that its clients understand."""
        self._measures.broken("interrupted")
        exchange.status = 502  # for metrics and the log; the client already has a 200
        exchange.cut, exchange.error_code = exchange.broke or error.message, "stream_interrupted"
        if exchange.broke and error.code != "stream_interrupted":
            error = stream_interrupted(exchange.broke, error.message)
        await send({"type": "http.response.body", "body": error.event(exchange.kind.path)})


class ProxyResponse(Response):
    """Lets the proxy take over the raw ASGI connection from inside a route."""

    def __init__(self, proxy: Proxy, kind: Kind) -> None:
        super().__init__()
        self._proxy = proxy
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the connection to the proxy."""
        await self._proxy.handle(self._kind, scope, receive, send)
