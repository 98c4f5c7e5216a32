"""The side of the machine that joins: makes its keys, asks, installs what it gets, and has itself set up."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from roost.fleet.join.messages import ENVIRONMENT, LEAVES, Welcome, Wish
from roost.fleet.join.reception import HOST, REQUEST_S
from roost.fleet.join.ssh import admit
from roost.fleet.join.token import Token
from roost.ops.authority import Node
from roost.ops.errors import RoostError
from roost.ops.ownership import Manifest
from roost.ops.pki import LeafSpec

SILENCE_S = 1800.0  # building an image takes minutes without a line
Json = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """This machine: its name, its folders, the manifest of what Roost brought to it."""

    name: str
    tls_dir: Path
    secrets_dir: Path
    manifest: Manifest
    home: Path = Path("/root")


def join(
    server: str,
    token: Token,
    machine: Machine,
    host_keys: Sequence[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
    address: str = "",
) -> str:
    """Join the fleet; return the controller's name. `address` is this machine's in the fleet; empty: as it gets there.

    Raises:
        RoostError: the server is not the token's, refuses it, or could not set this machine up.
    """
    ca = authority_of(server, token)
    node = Node(machine.tls_dir, machine.secrets_dir, [LeafSpec(name, (machine.name,)) for name in LEAVES], renew=True)
    made = [path for path in (machine.tls_dir.parent, machine.tls_dir, machine.secrets_dir) if not path.exists()]
    machine.manifest.own("path", *map(str, made))
    machine.tls_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    machine.secrets_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    passed = {name: environment[name] for name in ENVIRONMENT if environment.get(name)}
    wish = Wish(
        number=token.number, secret=token.secret.hex(), name=machine.name,
        address=address or own_address(server, token), host_keys=list(host_keys), requests=dict(node.requests(ca)),
        environment=passed,
    )  # fmt: skip
    status, answer = _ask(server, token.port, ca, "POST", "/join", wish.model_dump())
    if status != http.client.OK:
        node.forget_requests()
        raise RoostError(str(answer.get("error", "The server refuses.")), fix=str(answer.get("fix", "")))
    welcome = Welcome.model_validate(answer)
    node.install(ca, welcome.signed, {})
    peer = address_of(server, token.port)
    admit(welcome.ssh_key, [peer], machine.home)
    say(f"{welcome.controller} knows this machine as {machine.name}, and sets it up.")
    _follow(server, token.port, ca, welcome.visit, say)
    return welcome.controller


def authority_of(server: str, token: Token) -> str:
    """Return the authority's certificate as PEM, once it is the one that the token names.

    Raises:
        RoostError: nobody answers there, or another fleet.
    """
    _, answer = _ask(server, token.port, "", "GET", "/fleet")
    pem = str(answer.get("ca", ""))
    try:
        der = ssl.PEM_cert_to_DER_cert(pem)
    except ValueError:
        der = b""
    if sha256(der).digest() != token.authority:
        raise RoostError(
            f"{server} is not the fleet that this token is for: its authority is another one.",
            fix="Name the server that made the token; if you did, somebody may be in between.",
        )
    return pem


def _connect(server: str, port: int, ca: str, timeout_s: float) -> http.client.HTTPConnection:
    """Connect with TLS; without `ca` to whomever, who is then told nothing and believed nothing but a fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if ca:
        context.load_verify_locations(cadata=ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection((server, port), timeout=REQUEST_S)
        connection = http.client.HTTPConnection(server, port)
        connection.sock = context.wrap_socket(plain, server_hostname=HOST)
        connection.sock.settimeout(timeout_s)
    except (OSError, ssl.SSLError) as error:
        raise RoostError(
            f"{server} does not answer at port {port}: {error}.",
            fix="Is the token still good? The server listens only that long: sudo roost fleet token, there. See that "
            "no firewall is in between.",
        ) from None
    return connection


def _ask(server: str, port: int, ca: str, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
    connection = _connect(server, port, ca, REQUEST_S)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        document = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RoostError(f"{server} broke off: {error}.", fix="Look at the server's /var/log/roost/join.log.") from None
    finally:
        connection.close()
    return response.status, document if isinstance(document, dict) else {}


def _follow(server: str, port: int, ca: str, visit: str, say: Callable[[str], None]) -> None:
    """Say that this machine is ready, and repeat what the server says until it is done."""
    connection = _connect(server, port, ca, SILENCE_S)
    try:
        connection.request("POST", "/ready", json.dumps({"visit": visit}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        while text := response.readline():
            told = json.loads(text)
            if "line" in told:
                say(str(told["line"]))
            elif told.get("code") == 0:
                return
            else:
                raise RoostError(str(told.get("error")), fix=str(told.get("fix", "")), exit_code=int(told["code"]) or 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RoostError(
            f"The connection to {server} was lost: {error}.",
            fix="It goes on by itself; see there: sudo roost fleet status.",
        ) from None
    finally:
        connection.close()
    raise RoostError(f"{server} ended without a word.", fix="See there: sudo roost fleet status.")


def own_address(server: str, token: Token) -> str:
    """Return the address by which this machine reaches the server."""
    with socket.create_connection((server, token.port), timeout=REQUEST_S) as found:
        return str(found.getsockname()[0])


def address_of(server: str, port: int) -> str:
    """Return the server's address as this machine sees it."""
    with socket.create_connection((server, port), timeout=REQUEST_S) as found:
        return str(found.getpeername()[0])
