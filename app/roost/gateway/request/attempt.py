"""One attempt at one endpoint: the request as that gets it, its answer as the client gets it, or why there was none."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp
from pydantic_core import from_json
from starlette.types import Send

from roost.engines.base import Answer, Continues, Skill, State
from roost.engines.wire_connection import NotConnectedError
from roost.gateway import errors
from roost.gateway.balance.continuing import Splice, continued
from roost.gateway.choice.cascade import RejectedAnswerError
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.endpoints.outliers import Result
from roost.gateway.engine_errors import from_engine
from roost.gateway.registry import Registry
from roost.gateway.request.bookkeeping import Books
from roost.gateway.request.exchange import Exchange, send_whole
from roost.gateway.request.fitting import fitted
from roost.gateway.request.relay import InterruptedStreamError, UnansweredError, relay
from roost.gateway.request.requests import ParsedRequest
from roost.gateway.settings import Settings


class CannotContinueError(Exception):
    """An endpoint cannot go on with a stream; the text says why."""


class Attempts:
    """Asks endpoints. One object a service."""

    def __init__(self, settings: Settings, registry: Registry, books: Books) -> None:
        self._registry = registry
        self._books = books
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s)

    async def make(self, endpoint: Endpoint, request: ParsedRequest, exchange: Exchange, send: Send) -> bool | None:
        """Ask one endpoint, and give the client its answer, or the rest of a stream that another one began.

        Returns whether the endpoint did its part; None where that cannot be said.

        Raises:
            UnansweredError: it did not answer; of it nothing has reached the client.
            InterruptedStreamError: it broke off in the middle of a stream.
            CannotContinueError: the stream that was begun cannot go on there.
            RejectedAnswerError: a stronger model shall try.
            ApiError: it refused the request, or cannot do what is asked.
        """
        engine = endpoint.engine
        exchange.sent_on = exchange.sent_on or time.perf_counter()
        exchange.attempt()
        try:
            async with asyncio.timeout(None) as scope:
                with endpoint.lease(scope):
                    if exchange.begun:
                        body = await self._continuation(endpoint, request, exchange)
                    else:
                        body = await self._body(endpoint, request, exchange)
                    if request.kind.counts:
                        await self._count(endpoint, request, body, exchange, send)
                        return True
                    async with engine.send(request.kind.upstream, body, self._timeout) as answer:
                        did = await self._answer(endpoint, answer, request, exchange, send)
            if did is not None:
                self._registry.record(endpoint, Result.SUCCEEDED if did else Result.FAILED)
        except RejectedAnswerError:
            self._registry.record(endpoint, Result.SUCCEEDED)
            raise
        except (UnansweredError, InterruptedStreamError):
            self._registry.record(endpoint, Result.FAILED)
            raise
        except (NotConnectedError, aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            reason = f"cannot connect ({type(error.__cause__ or error).__name__})"
            self._registry.record(endpoint, Result.FAILED)
            self._registry.mark(endpoint, State.DOWN, reason)
            raise UnansweredError(reason) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = "it stopped answering" if isinstance(error, TimeoutError) else "it closed the connection"
            self._registry.suspect(endpoint)
            self._registry.record(endpoint, Result.FAILED)
            if exchange.ended:  # the client has all of it: what is to go on would come after the end
                await send({"type": "http.response.body", "body": b""})
                return False
            if not exchange.begun:
                raise UnansweredError(reason, died=True) from None
            raise InterruptedStreamError(reason) from None
        return did

    async def _body(self, endpoint: Endpoint, request: ParsedRequest, exchange: Exchange) -> bytes:
        """Return what the endpoint gets.

        Raises:
            ApiError: it cannot do what is asked, or there is no room for it.
        """
        kind, report = request.kind, endpoint.report
        request.refuse(endpoint.engine.ignores(kind.upstream))
        body = self._named(endpoint, request, exchange)
        context = report.context_of(exchange.asked_as)
        found = await fitted(endpoint.engine, kind, body, request.answer, context, cut=exchange.may_cut)
        exchange.was_cut = found.cut
        exchange.fingerprint = report.fingerprint
        return found.body

    def _named(self, endpoint: Endpoint, request: ParsedRequest, exchange: Exchange) -> bytes:
        kind, report = request.kind, endpoint.report
        adapters = report.adapters if kind.adapters else ()
        if kind.skill is Skill.GENERATE and report.adapters and not kind.adapters:
            raise errors.not_offered(f"{kind.path} with adapters: the model server cannot be told which one applies")
        return request.body_for(exchange.asked_as, adapters, exchange.adapter)

    async def _continuation(self, endpoint: Endpoint, request: ParsedRequest, exchange: Exchange) -> bytes:
        """Return what makes the endpoint go on after the text that the client has.

        Raises:
            CannotContinueError: it cannot be said to do that exactly.
        """
        transcript, kind, engine = exchange.transcript, request.kind, endpoint.engine
        if transcript is None:
            raise CannotContinueError("it is no stream of text")
        before = self._named(endpoint, request, exchange)
        text = transcript.text()
        if not text:  # nothing was said yet
            exchange.splice = Splice(kind, transcript.first, transcript.block, None, 0)
            return before
        if not isinstance(engine, Continues):
            raise CannotContinueError("the model server has no way to go on with a text")
        document = from_json(before)
        whole = json.dumps(continued(kind, document, text, 0)).encode()
        if why := await engine.why_not_continue(kind.upstream, before, whole, text):
            raise CannotContinueError(why)
        prompt, all_of_it = await engine.count(kind.upstream, before), await engine.count(kind.upstream, whole)
        if prompt is None or all_of_it is None:
            raise CannotContinueError("the model server has no way to count what was written")
        written = all_of_it - prompt
        if request.answer is not None and written >= request.answer:
            raise CannotContinueError("it was as long as asked for, and its end is not known")
        exchange.splice = Splice(kind, transcript.first, transcript.block, prompt, written)
        return json.dumps(continued(kind, document, text, written)).encode()

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
    ) -> bool | None:
        if answer.status == 503:
            await answer.read()
            reason = "it is loading its model"
            self._registry.mark(endpoint, State.LOADING, reason)
            raise UnansweredError(reason)
        if answer.status != 200:
            error = from_engine(answer.status, await answer.read(), request.kind)
            if error.status == 502:
                self._registry.suspect(endpoint)
                self._registry.record(endpoint, Result.FAILED)
            raise error
        if request.stream and answer.content_type == "text/event-stream":
            return await relay(endpoint, answer, exchange, send, lambda: self._books.settle(exchange, 200))
        if exchange.begun:
            raise CannotContinueError("the model server sent no stream")
        body = await answer.read()
        if request.kind.skill is not Skill.TOKENIZE:  # a stuck server still does that
            endpoint.engine.proved()
        exchange.whole, exchange.first_byte = body, time.perf_counter()
        content_type = answer.headers.get("Content-Type", "application/json").encode()
        if exchange.cascade:
            exchange.cascade.check(request.kind, body, content_type)
        self._books.settle(exchange, 200)
        await send_whole(exchange, send, content_type, body)
        return True
