"""The inventory that a fleet is set up from, as `bootstrap.sh --inventory` keeps it: machines come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from roost.fleet.rolling.servers import choice_problem
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.files import write_atomic

FLEET, SERVERS = "fleet", "fleet_servers"
LOCAL: Mapping[str, object] = {
    "ansible_connection": "local",
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
}
BAD_INPUT = 2
Json = dict[str, Any]


def read(path: Path) -> Json:
    """Return the kept inventory.

    Raises:
        RoostError: there is none, or it is of a kind that is not changed by commands.
    """
    try:
        document: Json = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RoostError(
            "No fleet is set up from this machine.", fix="Make an inventory, and run ./bootstrap.sh --inventory FILE."
        ) from None
    except PermissionError:
        raise RoostError(f"{path} can only be read by root.", fix="Run the command with sudo.", exit_code=4) from None
    except yaml.YAMLError as error:
        raise RoostError(f"{path} is not valid YAML: {error}.") from None
    hosts = document.get(FLEET, {}).get("hosts") if isinstance(document, dict) else None
    if not isinstance(hosts, dict) or not hosts:
        raise RoostError(
            f"{path} is written in a way that commands cannot change.",
            fix="Edit your inventory, and run ./bootstrap.sh --inventory FILE.",
        )
    return document


def alone(name: str, address: str) -> Json:
    """Return the inventory of a machine that begins a fleet with itself."""
    entry = {**LOCAL, "node_address": address}
    return {FLEET: {"hosts": {name: entry}, "children": {SERVERS: {"hosts": {name: None}}}}}


def write(path: Path, document: Json) -> None:
    """Write the inventory, for its owner only: its variables may hold secrets."""
    write_atomic(path, "---\n" + yaml.safe_dump(document, sort_keys=False), mode=0o600)


def servers(document: Json) -> list[str]:
    """Return the names of the servers; without a group of them the first machine is the only one."""
    group = (document[FLEET].get("children") or {}).get(SERVERS, {}).get("hosts")
    return list(group) if group else [next(iter(document[FLEET]["hosts"]))]


def variable(document: Json, name: str, default: object) -> dict[str, object]:
    """Return a variable by machine, as far as the inventory itself says it: the machine's own, else the fleet's."""
    fleet = document[FLEET]
    common = (fleet.get("vars") or {}).get(name, default)
    return {host: (entry or {}).get(name, common) for host, entry in fleet["hosts"].items()}


def with_machine(document: Json, name: str, entry: Json) -> Json:
    """Return the inventory with one more machine; which are servers is said of all at once, by `with_servers`.

    Raises:
        RoostError: it is there already; exit code 2.
    """
    hosts = document[FLEET]["hosts"]
    if name in hosts:
        raise RoostError(f"{name} is in the inventory already.", fix="Choose another name.", exit_code=BAD_INPUT)
    return _of(document, {**hosts, name: entry}, servers(document))


def without_machine(document: Json, name: str) -> Json:
    """Return the inventory without a machine.

    Raises:
        RoostError: it is not there, or the first one, from which the fleet is set up; exit code 2.
    """
    hosts = document[FLEET]["hosts"]
    if name not in hosts:
        known = ", ".join(hosts)
        raise RoostError(f"{name} is not in the inventory.", fix=f"Name one of: {known}.", exit_code=NOT_FOUND)
    if name == next(iter(hosts)):
        raise RoostError(
            f"{name} is the machine from which the fleet is set up.",
            fix="./bootstrap.sh --uninstall removes the whole fleet.",
            exit_code=BAD_INPUT,
        )
    group = [other for other in servers(document) if other != name]
    return _of(document, {n: e for n, e in hosts.items() if n != name}, group)


def _of(document: Json, hosts: Json, group: list[str]) -> Json:
    fleet = document[FLEET]
    children = {**(fleet.get("children") or {}), SERVERS: {"hosts": dict.fromkeys(group)}}
    return {**document, FLEET: {**fleet, "hosts": hosts, "children": children}}


def with_servers(document: Json, names: Sequence[str]) -> Json:
    """Return the inventory with these machines, and no others, as servers.

    Raises:
        RoostError: one is not in the inventory, or they are not 1, 3 or 5; exit code 2.
    """
    chosen = list(dict.fromkeys(names))
    if problem := choice_problem(chosen, list(document[FLEET]["hosts"])):
        raise RoostError(problem, fix="Name 1, 3 or 5 machines of the fleet.", exit_code=BAD_INPUT)
    return _of(document, document[FLEET]["hosts"], chosen)


def checked(document: Json) -> Json:
    """Return the inventory.

    Raises:
        RoostError: it has no good number of servers; exit code 2.
    """
    if problem := choice_problem(servers(document), list(document[FLEET]["hosts"])):
        raise RoostError(
            problem, fix="Say which 1, 3 or 5 machines it shall be: --servers one,two,three", exit_code=BAD_INPUT
        )
    return document
