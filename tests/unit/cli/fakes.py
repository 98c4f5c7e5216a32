"""Scripted stand-ins for the agent's API and for Nomad, with a site file that points at them.

They say nothing about how the real ones behave beyond what is written here.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from roost.hosts.bandwidth import Bandwidth
from roost.hosts.collect import collect
from roost.hosts.remembered import keep
from roost.ops.pki import LeafSpec, ensure_pki

KEY = "roost-test-key"
WORDS = ("The", " capital", " is", " Paris", ".")
PATIENCE_S = 60.0
CATALOGUE = Path(__file__).resolve().parents[3] / "group_vars" / "models.yaml"
MODEL = "smollm2-135m-instruct"
FACTS = collect(["/"])
MEASURED = Bandwidth(20.0, 2, 64, 0.2, "2 processes copying 64 MiB buffers for 0.2 s, read plus written")


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the function that the server was made with."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, status: int, document: object) -> None:
        """Send a JSON document."""
        self.answer(status, json.dumps(document).encode())

    def do_GET(self) -> None:
        """Serve one request."""
        server = self.server
        assert isinstance(server, Server)
        server.serve_one(self)

    def do_POST(self) -> None:
        """Serve one request with a body."""
        self.do_GET()


class Server(ThreadingHTTPServer):
    """A server on loopback."""

    daemon_threads = True

    def __init__(self, serve_one: Callable[[Handler], None], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.serve_one = serve_one
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is part of the tests."""


@contextmanager
def running(serve_one: Callable[[Handler], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve until the context ends; yields the port."""
    with Server(serve_one, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@dataclass
class FakeApi:
    """The agent. `not_ready` counts the answers of /readyz that say no; `mode` says how a chat goes.

    stall: after the first word nothing comes until the client leaves. break: ends without the end mark.
    fail: an error inside the stream. length: the answer was cut.
    """

    not_ready: int = 0
    mode: str = "ok"
    words: tuple[str, ...] = WORDS
    refuse: tuple[int, str] | None = None
    models: list[dict[str, Any]] = field(default_factory=list)
    version: str = "0.1.0"
    chats: list[dict[str, Any]] = field(default_factory=list)
    probes: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def serve(self, request: Handler) -> None:
        """Serve one request."""
        if request.path == "/readyz":
            self.probes += 1
            ready = self.probes > self.not_ready
            reasons = [] if ready else ["main: loading the model"]
            slots = {"main": {"ready": int(ready), "loading": int(not ready), "down": 0}}
            request.answer_json(200 if ready else 503, {"ready": ready, "reasons": reasons, "slots": slots})
        elif request.path == "/healthz":
            request.answer_json(200, {"status": "ok", "version": self.version})
        elif request.headers.get("Authorization") != f"Bearer {KEY}":
            request.answer_json(401, {"error": {"message": "Incorrect API key provided."}})
        elif request.path == "/v1/models":
            request.answer_json(200, {"object": "list", "data": self.models})
        else:
            self._chat(request)

    def _chat(self, request: Handler) -> None:
        self.chats.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        if self.refuse:
            request.answer_json(self.refuse[0], {"error": {"message": self.refuse[1]}})
            return
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        for number, word in enumerate(self.words):
            self._event(request, {"choices": [{"delta": {"content": word}, "finish_reason": None}]})
            if number == 0 and self.mode == "stall":
                self._stall(request)
                return
        if self.mode == "fail":
            self._event(request, {"error": {"message": "out of memory"}})
        if self.mode in {"fail", "break"}:
            return
        reason = "length" if self.mode == "length" else "stop"
        self._event(request, {"choices": [{"delta": {}, "finish_reason": reason}]})
        usage = {"prompt_tokens": 9, "completion_tokens": len(self.words)}
        self._event(request, {"choices": [], "usage": usage, "timings": {"predicted_per_second": 61.234}})
        request.wfile.write(b"data: [DONE]\n\n")

    def _event(self, request: Handler, event: Mapping[str, object]) -> None:
        request.wfile.write(b"data: " + json.dumps({"model": MODEL, **event}).encode() + b"\n\n")

    def _stall(self, request: Handler) -> None:
        self.stalled.set()
        request.connection.settimeout(PATIENCE_S)
        with suppress(ConnectionResetError):  # so it looks when the client leaves before it read what was sent
            if request.connection.recv(1) != b"":
                return
        self.left.set()


@dataclass(frozen=True)
class Broken:
    """An answer that ends in the middle."""

    begun: bytes


@dataclass
class FakeNomad:
    """Nomad with a fixed set of answers by path below /v1/; anything else is 404."""

    answers: dict[str, object] = field(default_factory=dict)

    def serve(self, request: Handler) -> None:
        """Serve one request."""
        found = self.answers.get(request.path.removeprefix("/v1/").partition("?")[0])
        if found is None:
            request.answer(404, b"not found", "text/plain")
        elif isinstance(found, bytes):
            request.answer(200, found, "text/plain")
        elif isinstance(found, Broken):
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.send_header("Connection", "close")
            request.end_headers()
            request.wfile.write(b"%x\r\n%s\r\n5\r\nno" % (len(found.begun), found.begun))
        else:
            request.answer_json(200, found)


def nomad_job(answers: dict[str, object], name: str, *, status: str = "running", log: bytes = b"") -> None:
    """Add a job with one allocation to a Nomad's answers."""
    stubs = answers.setdefault("jobs", [])
    assert isinstance(stubs, list)
    stubs.append({"ID": name, "Name": name, "Status": "running"})
    answers[f"job/{name}"] = {"ID": name, "TaskGroups": [{"Name": "g", "Count": 1}]}
    events = [{"DisplayMessage": "Task started"}, {"DisplayMessage": "Exit Code: 1"}]
    state = {"StartedAt": "2026-01-02T03:04:05.678Z", "Restarts": 2, "Events": events}
    answers[f"job/{name}/allocations"] = [
        {
            "ID": f"alloc-{name}", "ClientStatus": status, "DesiredStatus": "run", "NodeName": "box", "CreateIndex": 9,
            "TaskStates": {"task": state},
        }
    ]  # fmt: skip
    answers[f"client/fs/logs/alloc-{name}"] = log


@dataclass(frozen=True)
class Installation:
    """A made-up installation: folder, site file and the two it talks to."""

    folder: Path
    site_file: Path
    api: FakeApi
    nomad: FakeNomad


def healthy_models() -> list[dict[str, Any]]:
    """Return what /v1/models says when all is well."""
    return [{"id": MODEL, "roost": {"slot": "main", "state": "ready", "reason": "", "context": 8192}}]


def healthy_nomad() -> FakeNomad:
    """Return a Nomad that runs both jobs."""
    nomad = FakeNomad({
        "status/leader": "192.0.2.2:4647",
        "agent/self": {"config": {"Version": {"Version": "1.11.3"}}},
    })  # fmt: skip
    nomad_job(nomad.answers, "roost-agent", log=b"one\ntwo\nthree\n")
    nomad_job(nomad.answers, "roost-model-main", log=b"loading\nloaded")
    return nomad


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """Make keys, certificates, site file, the agent and Nomad."""
    tls, secrets = folder / "tls", folder / "secrets"
    for made in (tls, secrets, folder / "state", folder / "log", folder / "models"):
        made.mkdir()
    ensure_pki(tls, [LeafSpec("node", ("127.0.0.1",)), LeafSpec("cli", ("cli.global.nomad",))])
    for name in ("api-key", "engine-key", "nomad-operator-token", "gossip-key"):
        (secrets / name).write_text(f"{KEY}\n")
        (secrets / name).chmod(0o600)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls / "node.pem", tls / "node-key.pem")
    api, nomad = FakeApi(models=healthy_models()), healthy_nomad()
    with running(api.serve) as api_port, running(nomad.serve, context) as nomad_port:
        site = {
            "release": "0123456789abcdef", "runtime": "local", "api": f"http://127.0.0.1:{api_port}",
            "web": f"http://127.0.0.1:{api_port}/", "nomad": f"https://127.0.0.1:{nomad_port}",
            "nomad_ca": str(tls / "ca.pem"), "nomad_cert": str(tls / "cli.pem"), "nomad_key": str(tls / "cli-key.pem"),
            "nomad_token_file": str(secrets / "nomad-operator-token"), "api_key_file": str(secrets / "api-key"),
            "agent_job": "roost-agent", "slots": [{"slot": "main", "model": MODEL, "job": "roost-model-main"}],
            "catalogue": str(CATALOGUE), "models_dir": str(folder / "models"), "state_dir": str(folder / "state"),
            "cache_dir": str(folder / "cache"), "log_dir": str(folder / "log"), "artifacts_dir": str(folder),
            "install_dir": str(folder), "bandwidth_file": str(folder / "bandwidth.json"),
        }  # fmt: skip
        # As after any bootstrap: a probe of seconds at each `roost setup` would measure the other tests.
        keep(folder / "bandwidth.json", FACTS, MEASURED)
        site_file = folder / "site.json"
        site_file.write_text(json.dumps(site))
        yield Installation(folder, site_file, api, nomad)
