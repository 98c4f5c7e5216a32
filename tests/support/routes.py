"""Some of an agent's routes behind a real server, without a gateway before them: a key is its owner's name."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from roost.gateway.errors import ApiError
from tests.support.net import wait_until


class RoutesServer:
    """Serves a router on loopback at `url` while the context is open; `close` is called at its end."""

    def __init__(self, router: APIRouter, close: Callable[[], None]) -> None:
        self._close = close
        app = FastAPI()
        app.include_router(router)

        @app.exception_handler(ApiError)
        async def refused(_request: Request, error: ApiError) -> Response:
            return error.response()

        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started, 20, "the server")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._close()

    def client(self, owner: str) -> httpx.Client:
        """Return a client with the key of `owner`."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {owner}"}, trust_env=False)


def owner_of(request: Request) -> str:
    """Return whose key a request has."""
    return request.headers["authorization"].removeprefix("Bearer ")
