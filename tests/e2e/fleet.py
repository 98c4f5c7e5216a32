"""A fleet of disposable hosts on one network: the first one is the controller, and reaches the others over SSH."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.hosts import host as hosts
from tests.hosts.docker import Result
from tests.hosts.host import CLONE, Host, Lan, node_environment

Json = Any
INVENTORY = "/root/fleet.yaml"
KEY = "/root/.ssh/id_ed25519"
TLS = "/etc/roost/tls"
NOMAD = (
    f"NOMAD_ADDR=https://127.0.0.1:4646 NOMAD_CACERT={TLS}/ca.pem NOMAD_CLIENT_CERT={TLS}/cli.pem "
    f"NOMAD_CLIENT_KEY={TLS}/cli-key.pem NOMAD_TOKEN=$(cat /etc/roost/secrets/nomad-operator-token) "
    "/opt/roost/bin/nomad"
)


API_PORT = 8443
# A fleet with several gateways; what an update may take of its time is short: the model is small.
UNDER_LOAD: dict[str, object] = {
    "api_listen_address": "{{ node_address }}",
    "gateway_replicas": 2,
    "model_start_s": 30,
    "update_gate_s": 120,
    "update_drain_s": 20,
}
GREETING = f"""python3 -c '
import socket, ssl, sys
context = ssl.create_default_context(cafile="{TLS}/ca.pem")
address, port, name = sys.argv[1:]
context.wrap_socket(socket.create_connection((address, int(port)), 10), server_hostname=name).close()
'"""


@dataclass
class Fleet:
    """Hosts by name, in the order of the inventory; `servers` are those that keep Nomad's state."""

    lan: Lan
    hosts: dict[str, Host]
    servers: list[str]
    runs: int = field(default=0)
    own: dict[str, dict[str, object]] = field(default_factory=dict)  # variables of single hosts

    @property
    def controller(self) -> Host:
        """The first one."""
        return next(iter(self.hosts.values()))

    def inventory(
        self,
        variables: Mapping[str, object] | None = None,
        host_variables: Mapping[str, Mapping[str, object]] | None = None,
    ) -> dict[str, Any]:
        """The inventory of these hosts."""
        environment = node_environment(os.environ)
        entries: dict[str, dict[str, Any]] = {}
        for host in self.hosts.values():
            entry: dict[str, Any] = {"node_address": host.address}
            if host is self.controller:
                entry |= {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
            else:
                entry |= {"ansible_host": host.address, "ansible_user": "root"}
            more = (host_variables or {}).get(host.name, {})
            entries[host.name] = entry | self.own.get(host.name, {}) | dict(more)
        return {
            "fleet": {
                "hosts": entries,
                "vars": {"node_environment": environment, "ansible_ssh_private_key_file": KEY, **(variables or {})},
                "children": {"fleet_servers": {"hosts": dict.fromkeys(self.servers)}},
            }
        }

    def trust(self) -> None:
        """Let the controller's root log in on the others, whose host keys it knows."""
        first = self.controller
        first.exec(f"mkdir -p -m 700 /root/.ssh; [ -e {KEY} ] || ssh-keygen -q -t ed25519 -N '' -f {KEY}")
        public = first.exec(f"cat {KEY}.pub").out
        known = ""
        for host in list(self.hosts.values())[1:]:
            host.exec("mkdir -p -m 700 /root/.ssh")
            host.write("/root/.ssh/authorized_keys", public)
            known += f"{host.address} {host.exec('cat /etc/ssh/ssh_host_ed25519_key.pub').out}"
        first.write("/root/.ssh/known_hosts", known)

    def deploy(
        self,
        *args: str,
        check: bool = True,
        variables: Mapping[str, object] | None = None,
        host_variables: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Result:
        """Write the inventory and run `./bootstrap.sh --inventory` on the controller."""
        self.trust()
        self.controller.write(INVENTORY, yaml.safe_dump(self.inventory(variables, host_variables), sort_keys=False))
        return self.controller.bootstrap("--inventory", INVENTORY, "--yes", *args, check=check, timeout_s=1200)

    def nomad(self, command: str, on: Host | None = None) -> Json:
        """The JSON that a nomad command prints on a server."""
        return json.loads((on or self.controller).exec(f"{NOMAD} {command}").out)

    def greets(self, host: Host, name: str) -> bool:
        """Say whether a host's gateway has a certificate of the fleet for a name or an address.

        Raises:
            AssertionError: it is not the certificate that keeps a client out.
        """
        program = f"{GREETING} {host.address} {API_PORT} {name}"
        done = self.controller.exec(program, check=False)
        assert done.code == 0 or "CERTIFICATE_VERIFY_FAILED" in done.text, done.text
        return done.code == 0

    def pids(self) -> dict[str, dict[str, int]]:
        """PIDs of what must not restart by itself, by host."""
        return {name: host.pids() for name, host in self.hosts.items()}

    def all_pids(self) -> dict[str, dict[str, set[int]]]:
        """PIDs of each process that must not restart by itself, by host."""
        return {name: host.all_pids() for name, host in self.hosts.items()}

    def ask(self, host: Host, limit_s: float = 60, *, gateway: Host | None = None, slot: str = "auto") -> str:
        """The model's answer, asked with the command line of one host; only servers hold a key.

        `gateway` is the host whose gateway is asked, by a server; else it is the one that the host knows.
        """
        key = self.controller.exec("cat /etc/roost/secrets/api-key").out.strip()
        access = f"ROOST_API=https://{gateway.address}:{API_PORT}" if gateway else f"ROOST_API_KEY={key}"
        command = f"{access} roost verify --json --model {slot} --timeout {limit_s:.0f}"
        done = host.exec(command, check=False, timeout_s=limit_s + 60)
        assert done.code == 0, f"{host.name}: {done.text}"
        return str(json.loads(done.out)["answer"])


def own_cache(cache: Path, name: str) -> Path:
    """A host's own folder of downloads: Python's wheels lie there, and nothing that was built."""
    folder = cache / "fleet" / name
    for built in ("go", "nomad", "artifacts", "models", "debs"):
        shutil.rmtree(folder / built, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    for wheel in (cache / "host" / "wheels").glob("*.whl"):
        if not (folder / "wheels" / wheel.name).exists():
            os.link(wheel, folder / "wheels" / wheel.name)
    return folder


@contextlib.contextmanager
def booted(net: Lan, names: list[str], *, cache: Path, repository: Path, first: int = 11) -> Iterator[dict[str, Host]]:
    """Boot hosts; the first one has the clone and the shared cache, the others a cache of their own."""
    with contextlib.ExitStack() as stack:

        def boot(number: int, name: str) -> Host:
            folder = None if name == "fleet-1" else own_cache(cache, name)
            return Host.start(hosts.FLEET, name, lan=net, number=first + number, cache=cache, host_cache=folder)

        with ThreadPoolExecutor() as pool:
            started = list(pool.map(boot, range(len(names)), names))
        found = {host.name: stack.enter_context(hosts.running(host)) for host in started}
        if "fleet-1" in found:
            found["fleet-1"].copy_clone(repository)
        yield found


__all__ = ["API_PORT", "CLONE", "INVENTORY", "NOMAD", "UNDER_LOAD", "Fleet", "booted", "own_cache"]
