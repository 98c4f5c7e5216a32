"""A memory with its routes on a real socket, and an embedder that knows two subjects. The key is the owner's name."""

from __future__ import annotations

import socket
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from roost.agent.audit.log import AuditLog
from roost.agent.memory.meaning import EmbeddingError, unit
from roost.agent.memory.memory import Memory
from roost.agent.memory.routes import memory_routes
from roost.agent.memory.store import FactStore
from roost.gateway.errors import ApiError
from tests.support.net import wait_until

SUBJECTS = {"pet": ("dog", "cat", "animal", "rex"), "town": ("berlin", "city", "capital", "lives")}


class Subjects:
    """Embeds by subject: texts about the same one are alike, whatever their words."""

    def __init__(self, name: str = "subjects", *, broken: bool = False, refuses: str = "") -> None:
        self.name, self.broken, self.refuses = name, broken, refuses
        self.embedded: list[str] = []

    async def model(self) -> str:
        return self.name

    async def embed(self, model: str, texts: Sequence[str]) -> list[array[float]]:
        if self.broken or (self.refuses and any(self.refuses in text for text in texts)):
            raise EmbeddingError(f"The embedding model {model} answered 503.")
        self.embedded += texts
        return [unit([float(any(w in text.lower() for w in words)) for words in SUBJECTS.values()]) for text in texts]


class World:
    """The memory, and the address of the API in front of it."""

    def __init__(self, folder: Path, embedder: Subjects) -> None:
        self.changed: list[str] = []
        self.audit = AuditLog(folder / "audit")
        self.memory = Memory(FactStore(folder / "memory"), self.audit)
        app = FastAPI()
        app.include_router(memory_routes(self.memory, owner_of, lambda _request: embedder, self.changed.append))

        @app.exception_handler(ApiError)
        async def refused(_request: Request, error: ApiError) -> Response:
            return error.response()

        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> World:
        self._thread.start()
        wait_until(lambda: self._server.started, 20, "the server")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self.memory.store.close()

    def client(self, owner: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {owner}"}, trust_env=False)


def owner_of(request: Request) -> str:
    return request.headers["authorization"].removeprefix("Bearer ")
