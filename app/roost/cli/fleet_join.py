"""`roost fleet token`, `join` and `receive`: a machine joins with a token instead of being added over SSH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives import serialization

from roost.cli.fleet_inventory import follow_bootstrap, inventory_path, present_inventory
from roost.cli.show import print_json
from roost.fleet import inventory
from roost.fleet.artifacts.from_site import site_variables
from roost.fleet.join.guest import Machine, join
from roost.fleet.join.reception import Json, Reception, serve
from roost.fleet.join.ssh import Controller, host_keys
from roost.fleet.join.store import Store
from roost.fleet.join.token import Token
from roost.ops.authority import Authority
from roost.ops.errors import RoostError
from roost.ops.ownership import Manifest
from roost.ops.pki import load_authority
from roost.ops.site import DEFAULT_PATH, Site, load_site

BAD_INPUT = 2
STATE_DIR = Path("/var/lib/roost")
LOG = "join.log"
START_S = 20.0
POLL_S = 0.1
ENVIRONMENT = "ROOST_JOIN_TOKEN"
# The inventory does not have the machine, so `roost fleet remove` does not know it; --uninstall keeps certificates.
NOT_JOINED = (
    "Correct what is said above, and have {name} join again with a new token: sudo roost fleet token. To give it up: "
    "./bootstrap.sh --purge on {name}, which until then keeps its certificate, the fleet's SSH key and, where it came "
    "so far, its Nomad in the fleet; Nomad forgets a node a day after it went."
)


@dataclass(frozen=True)
class Office:
    """The controller's side: its site, the folders of the fleet's authority and secrets, where it listens."""

    site: Site
    authority: Authority
    port: int
    ttl_s: int
    region: str
    loopback: str

    @classmethod
    def here(cls) -> Office:
        """Return that of this machine.

        Raises:
            RoostError: it is no controller, or this user is not root.
        """
        site = load_site()
        if site.fleet and site.fleet != socket.gethostname() and not inventory_path(site).exists():
            raise RoostError(f"This fleet is set up from {site.fleet}.", fix=f"Run it on {site.fleet}.")
        if os.geteuid() != 0:
            raise RoostError("Tokens are made by root.", fix="Run the command with sudo.", exit_code=4)
        variables = site_variables(site)
        authority = Authority(Path(str(variables["fleet_tls_dir"])), Path(str(variables["fleet_secrets_dir"])))
        return cls(
            site, authority, int(str(variables["fleet_join_port"])), int(str(variables["fleet_join_ttl_s"])),
            str(variables["nomad_region"]), str(variables["loopback_address"]),
        )  # fmt: skip

    @property
    def store(self) -> Store:
        """The tokens given out."""
        return Store(self.authority.secrets_dir)

    @property
    def log(self) -> Path:
        """What was asked of the reception."""
        return self.site.log_dir / LOG


def token(
    *,
    ttl: Annotated[
        int | None, typer.Option(min=1, help="Seconds for which it is good; default: fleet_join_ttl_s.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a token with which one machine may join, once and soon; this machine listens as long as it is open.

    The new machine runs ./bootstrap.sh --join SERVER --token TOKEN. It needs an SSH server, by which it is set up.

    Example: sudo roost fleet token --ttl 600
    """
    office = Office.here()
    if not shutil.which("ssh"):
        raise RoostError(
            "There is no ssh on this machine; others are set up over it.", fix="apt-get install openssh-client"
        )
    ca, _ = load_authority(office.authority.tls_dir)
    made = Token.new(ca.public_bytes(serialization.Encoding.DER), office.port)
    now = time.time()
    expires = now + (ttl or office.ttl_s)
    office.store.add(made, expires=expires, now=now)
    listen(office)
    if as_json:
        print_json({"token": str(made), "expires": int(expires), "port": office.port})
        return
    until = datetime.fromtimestamp(expires, UTC).strftime("%H:%M:%S UTC")
    print(f"On the machine that is to join, from a clone of the repository, until {until}:\n")
    print(f"  sudo ./bootstrap.sh --join {_address(office.site)} --token {made}")


def _address(site: Site) -> str:
    """Return how others reach this machine, as far as its inventory says; else its name."""
    try:
        hosts = inventory.read(inventory_path(site))[inventory.FLEET]["hosts"]
        return str(next(iter(hosts.values()))["node_address"])
    except (RoostError, LookupError, TypeError):
        return socket.gethostname()


def listen(office: Office) -> None:
    """Have a process receive machines; one that is there already goes on.

    Raises:
        RoostError: it does not start.
    """
    if _answers(office.port):
        return
    words = [sys.executable, "-X", "utf8", "-P", "-m", "roost", "fleet", "receive"]
    office.log.parent.mkdir(parents=True, exist_ok=True)
    with office.log.open("ab") as log:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + START_S
    while not _answers(office.port):
        if child.poll() is not None or time.monotonic() > deadline:
            child.kill()
            raise RoostError(
                f"Nothing listens at port {office.port}.",
                fix=f"See {office.log}; is the port taken? Another one: ./bootstrap.sh --set fleet_join_port=NUMBER.",
            )
        time.sleep(POLL_S)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


def receive() -> None:
    """Receive machines that join, until no token is open any more; `roost fleet token` starts it."""
    office = Office.here()

    def check(name: str) -> None:
        if name in present_inventory(office.site)[inventory.FLEET]["hosts"]:
            raise RoostError(
                f"{name} is in the inventory already.",
                fix=f"Give the machine another host name, or take the old one out: sudo roost fleet remove {name}.",
            )

    def admit(name: str, entry: Json) -> Iterator[str]:
        return set_up(office.site, name, entry)

    reception = Reception(
        office.store, office.authority, Controller(office.authority.secrets_dir),
        office.site.fleet or socket.gethostname(), office.region, office.loopback, check, admit,
    )  # fmt: skip
    everywhere = "::" if socket.has_dualstack_ipv6() else ""
    serve(reception, (everywhere, office.port))


def set_up(site: Site, name: str, entry: Json) -> Iterator[str]:
    """Take a machine into the inventory and apply it, yielding what is said; a failure leaves the inventory as it was.

    Raises:
        RoostError: it could not be set up; its fix says what stays on the machine.
    """
    path = inventory_path(site)
    before = path.read_bytes() if path.exists() else None
    document = inventory.checked(inventory.with_machine(present_inventory(site), name, entry))
    inventory.write(path, document)
    try:
        yield from follow_bootstrap(site, [])
    except RoostError as error:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
        raise RoostError(error.message, fix=NOT_JOINED.format(name=name), exit_code=error.exit_code) from error


def join_fleet(
    server: Annotated[str, typer.Argument(help="Name or address of the machine that made the token.")],
    *,
    token_text: Annotated[str, typer.Option("--token", help=f"The token; default: ${ENVIRONMENT}.")] = "",
    name: Annotated[str, typer.Option(help="What to call this machine; default: its host name.")] = "",
    address: Annotated[str, typer.Option(help="Its address in the fleet; default: as it reaches the server.")] = "",
) -> None:
    """Make this machine a part of a fleet; ./bootstrap.sh --join does it on a bare one.

    Example: sudo roost fleet join 192.0.2.11 --token roost-join-...
    """
    if os.geteuid() != 0:
        raise RoostError("A machine joins as root.", fix="Run the command with sudo.", exit_code=4)
    given = Token.read(token_text or os.environ.get(ENVIRONMENT, ""))
    site_file = Path(os.environ.get("ROOST_SITE", str(DEFAULT_PATH)))
    if site_file.exists() and not load_site(site_file).fleet:
        raise RoostError(
            "Roost is set up on this machine for itself.", fix="Take it away first: ./bootstrap.sh --uninstall."
        )
    folder = site_file.parent
    machine = Machine(
        name or socket.gethostname(), folder / "tls", folder / "secrets", Manifest(STATE_DIR / "manifest")
    )
    host = server.strip("[]")
    controller = join(host, given, machine, host_keys(), os.environ, lambda line: print(line, flush=True), address)
    print(f"\n{machine.name} is a machine of the fleet that is set up from {controller}.")
