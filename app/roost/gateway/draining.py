"""The end of a service: what runs may go on for a while, then it is cut off with an error that clients understand."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roost.gateway.errors import ApiError, service_stopping, stream_stopped

log = structlog.get_logger(__name__)

SERVICE_RESTART = 1012
"""Of RFC 6455's registry of close codes."""
LAST_WORDS_S = 1.0  # a client that does not read does not keep the service from ending


class _Flight:
    """One request under way."""

    def __init__(self, path: str, send: Send) -> None:
        self.cut = False
        self._path = path
        self._send = send
        self._socket = False
        self._begun = False
        self._stream = False
        self._ended = False

    async def send(self, message: Message) -> None:
        """Pass on what goes to the client, and note how far it is."""
        if message["type"] == "http.response.start":
            self._begun = True
            self._stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        self._socket = self._socket or message["type"] == "websocket.accept"
        await self._send(message)
        self._ended = self._ended or message["type"] == "websocket.close"
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._ended = True

    async def last_words(self, scope: Scope, receive: Receive) -> None:
        """Say why there is no more. Half of an answer that is no stream is left as it is: the connection breaks."""
        if self._ended:
            return
        if self._socket:
            await self._send({"type": "websocket.close", "code": SERVICE_RESTART})
        elif not self._begun:
            await service_stopping().response({"connection": "close"})(scope, receive, self._send)
        elif self._stream:
            error: ApiError = stream_stopped()
            await self._send({"type": "http.response.body", "body": error.event(self._path), "more_body": False})


class Drain:
    """Outermost ASGI application: knows what runs, and can end it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: dict[asyncio.Task[object], _Flight] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __len__(self) -> int:
        """Return how many requests run."""
        return len(self._running)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        task = asyncio.current_task()
        if scope["type"] not in {"http", "websocket"} or task is None:
            await self._app(scope, receive, send)
            return
        flight = self._running[task] = _Flight(scope["path"], send)
        self._quiet.clear()
        try:
            await self._app(scope, receive, flight.send)
        except asyncio.CancelledError:
            if not flight.cut:
                raise
            task.uncancel()
            # What was used is counted by now; only then may the client have the end of its answer.
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await flight.last_words(scope, receive)
        finally:
            del self._running[task]
            if not self._running:
                self._quiet.set()

    def cut(self) -> None:
        """End what still runs: a stream with a last event, what has not begun with 503."""
        if self._running:
            log.warning("cut_off", requests=len(self._running))
        for task, flight in self._running.items():
            if not flight.cut:
                flight.cut = True
                task.cancel()

    async def quiet(self, timeout_s: float) -> bool:
        """Wait until nothing runs; say whether that came within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True
