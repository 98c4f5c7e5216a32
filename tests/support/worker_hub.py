"""A double of a hub, for a worker that is a process of its own: its routes, and what was asked with which key."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Stands for the fleet's API: takes one worker, and notes what was asked with which key."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.identity = "1" * 32
        self.worker: dict[str, Any] | None = None
        self.said: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def keys(self, request: str) -> list[str]:
        """Return with which keys something was asked."""
        return [key for what, key in self.said if what == request]


class Asked(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def answer(self) -> None:
        """Answer as the channel has it."""
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.said.append((f"{self.command} {path}", self.headers["Authorization"].removeprefix("Bearer ")))
        document: dict[str, Any] | None = None
        status = 200
        if path == "/v1/key":
            document = {"object": "key", "name": "anna"}
        elif path == "/roost/v1/hub":
            document = {"object": "hub", "id": self.server.identity, "owner": "anna"}
        elif path == "/roost/v1/workers" and self.command == "POST":
            self.server.worker = json.loads(body)
            status, document = 201, {"lease": "lease-1", "owner": "anna"}
        elif path == "/roost/v1/workers":
            document = {"object": "list", "data": [self.server.worker] if self.server.worker else []}
        elif path.endswith("/requests"):
            document = {"requests": []}
        else:
            status = 204
            if self.command == "DELETE":
                self.server.worker = None
        content = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Roost-Protocol", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - names of http.server

    def log_message(self, *_words: object) -> None:
        """Say nothing."""
