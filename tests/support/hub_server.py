"""A model hub on loopback that speaks the real one's protocol, and misbehaves when told to.

The protocol is that of huggingface_hub 2.4 (`get_hf_file_metadata`, `hf_raise_for_status`): `HEAD` and `GET` of
`/REPOSITORY/resolve/REVISION/FILE` redirect to a storage under another host name, and carry `X-Repo-Commit`,
`X-Linked-Size` and `X-Linked-Etag`. Storage answers ranges. Refusals carry `X-Error-Code`.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "5c4e2c7d1e0a9b8f7a6b5c4d3e2f1a0b9c8d7e6f"
REPOSITORY = "tiny/tiny-gguf"
FILE = "tiny.Q4_K_M.gguf"
TOKEN = "hf_test_token"
PIECE_BYTES = 1 << 12


@dataclass(frozen=True)
class Sent:
    """One answer of the storage: the first byte it sent and how many."""

    start: int
    count: int


@dataclass
class HubState:
    """What the hub holds, how it misbehaves, and what it saw.

    Each of `hub_faults` and `storage_faults` spoils one answer, in order. A number is a status (429 comes with
    Retry-After), `drop` no answer at all. Of the storage, `cut` ends and `stall` stands still half way, `dead` stands
    still before the first byte, and `wrong` sends other bytes.
    """

    content: bytes
    repository: str = REPOSITORY
    file: str = FILE
    commit: str = COMMIT
    gated: bool = False
    says_hash: bool = True
    others: dict[str, bytes] = field(default_factory=dict)  # more files, by name
    old_commits: dict[str, bytes] = field(default_factory=dict)
    hub_faults: list[str] = field(default_factory=list)
    storage_faults: list[str] = field(default_factory=list)
    relative_redirects: int = 0
    seconds_per_piece: float = 0.0
    release: threading.Event = field(default_factory=threading.Event)  # ends stalls
    together: int = 0  # the first so many answers of the storage wait for each other
    gathered: threading.Event = field(default_factory=threading.Event)
    tokens: list[tuple[str, str]] = field(default_factory=list)  # host asked, Authorization
    asked: list[str] = field(default_factory=list)  # method, path
    sent: list[Sent] = field(default_factory=list)
    counting: threading.Lock = field(default_factory=threading.Lock)
    active: int = 0  # answers of the storage under way
    most_active: int = 0
    hub_url: str = ""
    storage_url: str = ""

    def bytes_of(self, commit: str, file: str) -> bytes:
        """Return what a file holds at a commit."""
        return self.others[file] if file != self.file else self.old_commits.get(commit, self.content)

    def ranges(self) -> list[int]:
        """Return the first byte of every answer of the storage."""
        return [sent.start for sent in self.sent]


class Handler(BaseHTTPRequestHandler):
    """Both the hub and its storage; the Host header says which."""

    def setup(self) -> None:
        """Keep the kernel from taking in far more than what went out: `sent` counts what was handed to it."""
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    @property
    def state(self) -> HubState:
        """Return what the server works with."""
        server = self.server
        assert isinstance(server, HubServer)
        return server.state

    def do_HEAD(self) -> None:
        """Serve a request for metadata."""
        self.do_GET()

    def do_GET(self) -> None:
        """Serve one request."""
        state = self.state
        host = self.headers.get("Host", "")
        state.tokens.append((host.split(":")[0], self.headers.get("Authorization", "")))
        state.asked.append(f"{self.command} {self.path}")
        if host.startswith("localhost"):
            self._storage(*unquote(self.path).removeprefix("/storage/").split("/", 1))
        else:
            self._hub()

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _hub(self) -> None:
        state = self.state
        if state.hub_faults:
            fault = state.hub_faults.pop(0)
            if fault == "drop":
                return
            self._answer(int(fault), **({"Retry_After": "7"} if fault == "429" else {}))
            return
        if self.path.startswith("/api/models/"):
            self._listing()
            return
        repository, _, rest = unquote(self.path).lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if repository != state.repository:
            self._answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif state.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, X_Error_Code="GatedRepo", X_Error_Message="Access to the model is restricted.")
        elif revision not in {"main", state.commit, *state.old_commits}:
            self._answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        elif file not in {state.file, *state.others}:
            self._answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        elif state.relative_redirects:
            state.relative_redirects -= 1
            self._answer(307, Location=self.path)
        else:
            commit = revision if revision in state.old_commits else state.commit
            content = state.bytes_of(commit, file)
            sha256 = hashlib.sha256(content).hexdigest()
            etag = sha256 if state.says_hash else sha256[:40]
            self._answer(
                302, Location=f"{state.storage_url}/storage/{commit}/{file}", X_Repo_Commit=commit,
                X_Linked_Size=str(len(content)), X_Linked_Etag=f'"{etag}"', Accept_Ranges="bytes",
            )  # fmt: skip

    def _listing(self) -> None:
        """Answer `GET /api/models/REPOSITORY/revision/REVISION`: what the repository is and holds."""
        state = self.state
        if self.path != f"/api/models/{state.repository}/revision/main":
            self._answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return
        files = [{"rfilename": name} for name in (state.file, *state.others)]
        body = json.dumps({"id": state.repository, "sha": state.commit, "siblings": files}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _storage(self, commit: str, file: str) -> None:
        state = self.state
        content = state.bytes_of(commit, file)
        fault = state.storage_faults.pop(0) if state.storage_faults else ""
        if fault.isdigit():
            self._answer(int(fault), **({"Retry_After": "7"} if fault == "429" else {}))
            return
        if fault == "drop":
            return
        wanted = self.headers.get("Range", "")
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first or 0)
        if start >= len(content):
            self._answer(416)  # not every storage says how long the file is
            return
        body = content[start : int(last) + 1] if last else content[start:]
        if fault == "wrong":
            body = bytes(len(body))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        share = {"dead": 0, "stall": len(body) // 2, "cut": len(body) // 2}.get(fault, len(body))
        self._send(start, body[:share])
        if fault in {"dead", "stall"}:
            state.release.wait(60)

    def _send(self, start: int, body: bytes) -> None:
        """Send piece by piece, at the wanted speed; note how much went out before the client left."""
        state, count = self.state, 0
        with state.counting:
            state.active += 1
            state.most_active = max(state.active, state.most_active)
            if state.active >= state.together:
                state.gathered.set()
        state.gathered.wait(60)
        with suppress(ConnectionError):
            for at in range(0, len(body), PIECE_BYTES):
                if state.seconds_per_piece:
                    threading.Event().wait(state.seconds_per_piece)
                self.wfile.write(body[at : at + PIECE_BYTES])
                count += len(body[at : at + PIECE_BYTES])
        with state.counting:
            state.active -= 1
            state.sent.append(Sent(start, count))


class HubServer(ThreadingHTTPServer):
    """A server on loopback; its hub is `127.0.0.1`, its storage `localhost`."""

    daemon_threads = True

    def __init__(self, state: HubState, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.state = state
        scheme = "https" if tls else "http"
        state.hub_url = f"{scheme}://127.0.0.1:{self.server_port}"
        state.storage_url = f"{scheme}://localhost:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is part of the tests."""


@contextmanager
def hub(content: bytes, tls: ssl.SSLContext | None = None) -> Iterator[HubState]:
    """Serve a hub with one file until the context ends."""
    state = HubState(content)
    with HubServer(state, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            state.release.set()
            server.shutdown()
            thread.join()
