"""Where machines that join are received: on the controller, over TLS, as long as a token is open.

Three questions, in this order: `GET /fleet` says which authority this is (nothing secret, so anybody may ask);
`POST /join` uses a token up and gives certificates for the machine's own keys; `POST /ready` has the machine set up,
and tells the lines of that as they come, one JSON object each, the last one with the exit code.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from roost.fleet.join.messages import LARGEST, Welcome, Wish, leaves_of, parse
from roost.fleet.join.ssh import Controller
from roost.fleet.join.store import Store
from roost.ops.authority import Authority
from roost.ops.errors import RoostError
from roost.ops.pki import LeafSpec, load_authority, private_pem, sign_leaf

HOST = "join.roost.internal"  # in the certificate; the machine looks for it whatever address it came by
REQUEST_S = 15.0
READY_S = 300.0  # within which a welcomed machine says that it is ready
LOOK_EVERY_S = 1.0
Json = dict[str, Any]
Admit = Callable[[str, Json], Iterator[str]]  # a machine's name, its inventory entry


@dataclass(frozen=True)
class Guest:
    """A machine that was welcomed and is not set up yet."""

    name: str
    entry: Json
    until: float


@dataclass
class Reception:
    """Decides who is let in. `check` refuses a name; `admit` sets a machine up, yields lines, raises RoostError.

    Nobody joins as a server: there are 1, 3 or 5, never one more. So nothing that only servers hold is given out here.
    """

    store: Store
    authority: Authority
    ssh: Controller
    controller: str
    region: str
    loopback: str
    check: Callable[[str], None]
    admit: Admit
    clock: Callable[[], float] = time.time
    guests: dict[str, Guest] = field(default_factory=dict)
    busy: threading.Lock = field(default_factory=threading.Lock)
    working: int = 0

    def fleet(self) -> Json:
        """Say whose reception this is."""
        return {"ca": self.authority.certificate(), "controller": self.controller}

    def welcome(self, wish: Wish, peer: str) -> Welcome:
        """Use the token up, and return what the machine needs.

        Raises:
            RoostError: the token is refused, or the name is taken; then the token stays good.
        """
        self.check(wish.name)
        now = self.clock()
        self.store.use(wish.number, bytes.fromhex(wish.secret), wish.name, now)
        specs = leaves_of(wish, region=self.region, loopback=self.loopback)
        signed = self.authority.sign(specs, dict(wish.requests))
        self.ssh.know(peer, wish.host_keys)
        described: Json = {
            "ansible_host": peer,
            "ansible_user": "root",
            "node_address": wish.address,
            **self.ssh.variables(),
        }
        if wish.environment:
            described["node_environment"] = dict(wish.environment)
        visit = secrets.token_urlsafe(24)
        self.guests[visit] = Guest(wish.name, described, now + READY_S)
        return Welcome(
            ca=self.authority.certificate(),
            signed=signed,
            ssh_key=self.ssh.public_key(),
            controller=self.controller,
            visit=visit,
        )

    def ready(self, visit: str) -> Iterator[Json]:
        """Set a welcomed machine up; yield `{"line": ...}` and at the end `{"code": ..., "error": ..., "fix": ...}`."""
        guest = self.guests.pop(visit, None)
        if guest is None or guest.until < self.clock():
            yield {"code": 1, "error": "This visit is not known, or took too long.", "fix": "Join with a new token."}
            return
        self.working += 1
        try:
            if self.busy.locked():
                yield {"line": "Another machine is being set up; waiting for it."}
            with self.busy:
                for line in self.admit(guest.name, guest.entry):
                    yield {"line": line}
            yield {"code": 0}
        except RoostError as error:
            yield {"code": error.exit_code, "error": error.message, "fix": error.fix}
        finally:
            self.working -= 1

    def is_needed(self) -> bool:
        """Say whether a token is open, or somebody is being received."""
        now = self.clock()
        waiting = any(guest.until > now for guest in self.guests.values())
        return bool(self.working or waiting or self.store.open_until(now))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_S
    reception: Reception

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name in the standard library)
        """Write to the log what was asked, never what was said with it."""
        print(
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {self.client_address[0]} {format % args}", flush=True
        )

    def do_GET(self) -> None:
        """Answer `/fleet`."""
        if self.path == "/fleet":
            self._answer(HTTPStatus.OK, self.reception.fleet())
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "There is nothing here.", "fix": ""})

    def do_POST(self) -> None:
        """Answer `/join` and `/ready`."""
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = LARGEST + 1
        if not 0 < length <= LARGEST:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "The request is empty or too long.", "fix": ""})
            return
        body = self.rfile.read(length)
        if self.path == "/join":
            self._join(body)
        elif self.path == "/ready":
            self._ready(body)
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "There is nothing here.", "fix": ""})

    def _join(self, body: bytes) -> None:
        peer = str(self.client_address[0]).removeprefix("::ffff:")
        try:
            answer = self.reception.welcome(parse(body), peer)
        except RoostError as error:
            self.log_message("refused: %s", error.message)
            self._answer(HTTPStatus.FORBIDDEN, {"error": error.message, "fix": error.fix})
            return
        self._answer(HTTPStatus.OK, answer.model_dump())

    def _ready(self, body: bytes) -> None:
        try:
            visit = str(json.loads(body)["visit"])
        except (ValueError, LookupError, TypeError):
            visit = ""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        heard = True
        for line in self.reception.ready(visit):
            try:
                if heard:
                    self.wfile.write(json.dumps(line).encode() + b"\n")
                    self.wfile.flush()
            except OSError:  # who asked is gone; what was begun is brought to its end all the same
                heard = False

    def _answer(self, status: HTTPStatus, document: Json) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    """Each handshake in its connection's own thread, so that one who says nothing keeps nobody else waiting."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[_Handler], context: ssl.SSLContext) -> None:
        self.context = context
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Listen for both families where it is all of IPv6."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as in the standard library)
        request.settimeout(REQUEST_S)
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except OSError:  # no TLS, or none of ours
            return
        try:
            super().finish_request(wrapped, client_address)
        finally:
            wrapped.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as in the standard library)
        """Say in one line that a connection ended badly."""
        del request
        print(f"a connection from {client_address[0]} broke off", flush=True)


def tls_context(authority: Authority) -> ssl.SSLContext:
    """Return a context with a certificate of the authority's, made for now; its key is on no disk that lasts."""
    ca, ca_key = load_authority(authority.tls_dir)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = sign_leaf(LeafSpec("join", (HOST,)), key.public_key(), ca, ca_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.touch(mode=0o600)
        chain.write_bytes(private_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(chain)
    return context


def serve(reception: Reception, address: tuple[str, int], told: Callable[[int], None] = lambda _port: None) -> None:
    """Receive until nobody is awaited any more; `told` gets the port once it listens.

    Raises:
        OSError: the port is taken.
    """
    ended = _serve_once(reception, address, told)
    # Whoever makes a token looks whether somebody listens; one made while this closed saw that it still did.
    while reception.is_needed():
        if ended:  # by itself, which it may do again at once
            time.sleep(LOOK_EVERY_S)
        ended = _serve_once(reception, address, told)


def _serve_once(reception: Reception, address: tuple[str, int], told: Callable[[int], None]) -> bool:
    """Receive for as long as somebody is awaited; return whether it ended before that."""
    handler = type("Handler", (_Handler,), {"reception": reception})
    with _Server(address, handler, tls_context(reception.authority)) as server:
        ended = threading.Event()
        thread = threading.Thread(target=_forever, args=(server, ended), daemon=True)
        thread.start()
        told(int(server.server_address[1]))
        while reception.is_needed() and not ended.wait(LOOK_EVERY_S):
            pass
        broke_off = ended.is_set()
        server.shutdown()
        thread.join()
    return broke_off


def _forever(server: BaseServer, ended: threading.Event) -> None:
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        ended.set()
