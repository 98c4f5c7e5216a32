"""`roost fleet`: the machines of the fleet; one more, one fewer."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from roost.cli import fleet_access, fleet_join, fleet_plan, fleet_snapshots
from roost.cli.certificates import look_at_certificates
from roost.cli.fleet_inventory import inventory_path, present_inventory, run_bootstrap
from roost.cli.show import print_json, print_table
from roost.fleet import inventory
from roost.fleet.membership import FleetState, look
from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.rolling import servers as raft
from roost.fleet.rolling.order import batches
from roost.fleet.rolling.progress import Turn, published, turns
from roost.hosts.certificates import certificate_findings
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

app = typer.Typer(no_args_is_help=True, help="Show and change the machines of the fleet.")
app.command("plan")(fleet_plan.show)
app.add_typer(fleet_snapshots.app, name="snapshot")
BAD_INPUT = 2
ServersOption = Annotated[
    str, typer.Option(help="The machines that keep Nomad's state from now on, e.g. one,two,three: 1, 3 or 5.")
]

app.command("token")(fleet_join.token)
app.command("join")(fleet_join.join_fleet)
app.command("receive", hidden=True)(fleet_join.receive)
app.add_typer(fleet_access.app, name="access")


@app.command("status")
def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every machine: whether it is there, what it runs, which servers decide; certificates here near their end.

    Ends with 0 when all machines are ready, else with 1.

    Example: sudo roost fleet status
    """
    site = load_site()
    found = look(NomadClient.from_site(site))
    ending = list(certificate_findings(look_at_certificates(site), time.time()))
    if as_json:
        print_json({
            **asdict(found),
            "healthy": found.healthy,
            "certificates": [asdict(finding) for finding in ending],
        })  # fmt: skip
    else:
        show(found)
        for finding in ending:
            print(f"\n{finding.what} {finding.fix}")
    raise typer.Exit(0 if found.healthy else 1)


def show(state: FleetState) -> None:
    """Print the machines as a table."""
    rows = []
    for machine in state.machines:
        server = "leader" if machine.leader else "server" if machine.server else ""
        word = machine.state if machine.eligible else f"{machine.state}, gets no work"
        rows.append([machine.name, machine.address, word, server, machine.version, " ".join(machine.jobs)])
    print_table(["machine", "address", "state", "server", "nomad", "runs"], rows)
    servers = sum(machine.server for machine in state.machines)
    many = f"{state.tolerates} of {servers} servers" if servers > 1 else "The only server may not"
    print(f"\n{many} may be lost before changes have to wait." if servers > 1 else f"\n{many} be lost.")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call the machine: its host name.")],
    *,
    address: Annotated[str, typer.Option(help="Its address in the fleet (node_address).")],
    ssh: Annotated[str, typer.Option(help="Where SSH reaches it, [USER@]HOST; default root@ADDRESS.")] = "",
    servers: ServersOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Add a machine that this one reaches over SSH, and set it up.

    A machine alone becomes a fleet by it, with its models and data. With a third machine the fleet can have three
    servers.

    Example: sudo roost fleet add three --address 192.0.2.13 --servers one,two,three
    """
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise RoostError(f"{address} is no address.", fix="Write 192.0.2.12, say.", exit_code=BAD_INPUT) from None
    site = load_site()
    user, _, host = ssh.rpartition("@")
    entry = {"ansible_host": host or address, "ansible_user": user or "root", "node_address": address}
    changed = inventory.with_machine(present_inventory(site), name, entry)
    apply(site, chosen(changed, servers), dry_run=dry_run)


def chosen(document: inventory.Json, servers: str) -> inventory.Json:
    """Return the inventory with the servers that an option names, if it names some.

    Raises:
        RoostError: they are no good choice; exit code 2.
    """
    names = [name.strip() for name in servers.split(",") if name.strip()]
    return inventory.with_servers(document, names) if names else inventory.checked(document)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="The machine, as the inventory calls it.")],
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its models and data too.")] = False,
    servers: ServersOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Take a machine out of the fleet: its work goes elsewhere, Roost is removed from it. It need not answer any more.

    Example: sudo roost fleet remove three
    """
    site = load_site()
    changed = chosen(inventory.without_machine(inventory.read(inventory_path(site)), name), servers)
    if not dry_run:
        run_bootstrap(site, ["--remove", name, *(["--purge-too"] if purge else [])])
    apply(site, changed, dry_run=dry_run)


@app.command("servers")
def set_servers(
    names: Annotated[list[str], typer.Argument(help="Machines of the fleet: 1, 3 or 5.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Say which machines keep Nomad's state: of three servers one may be lost, of five two.

    Example: sudo roost fleet servers one two three
    """
    site = load_site()
    apply(site, inventory.with_servers(inventory.read(inventory_path(site)), names), dry_run=dry_run)


@app.command("update")
def update(
    *,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Also renew packages and images.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, in which order.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the order and where each machine stands, as JSON.")
    ] = False,
) -> None:
    """Bring all machines to what the inventory and the variables say, one failure domain after the other.

    Of each machine others take over the work first; it is done when its models answer. The first one that fails is put
    back to what it had, and no other is touched; run it again, and it goes on there. Ends with 0 when all are done.

    Example: sudo roost fleet update --dry-run
    """
    site = load_site()
    document = inventory.checked(inventory.read(inventory_path(site)))
    if not as_json or dry_run:
        show_turns(look_turns(site, document), as_json=as_json)
    if dry_run and as_json:
        return
    words = [*(["--check"] if dry_run else []), *(["--upgrade"] if upgrade else [])]
    try:
        run_bootstrap(site, words, quiet=as_json)
    finally:
        if not dry_run:
            show_turns(look_turns(site, document), as_json=as_json)


def look_turns(site: Site, document: inventory.Json) -> list[Turn]:
    """Return the order of an update, and how far each machine came in the last one, as far as Nomad says it."""
    domains = {name: str(domain) for name, domain in inventory.variable(document, "failure_domain", "").items()}
    at_once = next(iter(inventory.variable(document, "update_at_once", 1).values()))
    servers = inventory.servers(document)
    were: list[str] = []
    known: dict[str, dict[str, str]] = {}
    try:
        client = NomadClient.from_site(site)
        known = published(client)
        were = machines_of(raft.servers(client), document)
    except (NomadUnreachableError, NomadRefusedError):
        pass
    order = batches(list(document[inventory.FLEET]["hosts"]), domains, servers, at_once=int(str(at_once)), were=were)
    return turns(order, domains, servers, known)


def machines_of(servers: Sequence[raft.RaftServer], document: inventory.Json) -> list[str]:
    """Return servers as the inventory calls them: by their addresses, as the playbook does it, else by their names."""
    named = {str(address): name for name, address in inventory.variable(document, "node_address", "").items()}
    hosts = {server: server.address.rpartition(":")[0].strip("[]") for server in servers}
    return [named.get(host, raft.machine(server.name)) for server, host in hosts.items()]


def show_turns(found: list[Turn], *, as_json: bool) -> None:
    """Print the order of an update, with each machine's last one."""
    if as_json:
        print_json({"machines": [asdict(turn) for turn in found]})
        return
    rows = [
        [
            turn.batch,
            turn.machine,
            turn.domain,
            "server" if turn.server else "",
            turn.state or "never",
            turn.at,
            turn.reason,
        ]
        for turn in found
    ]
    print_table(["turn", "machine", "fails with", "", "last update", "at", "reason"], rows)
    print()


@app.command("renew-certs")
def renew_certs() -> None:
    """Make every certificate of the fleet anew, machine by machine. Those near their end are made anew by any run.

    Example: sudo roost fleet renew-certs
    """
    run_bootstrap(load_site(), ["--renew-certs"])


def apply(site: Site, document: inventory.Json, *, dry_run: bool) -> None:
    """Write the inventory and run bootstrap.sh; with `dry_run` say what it would be."""
    if dry_run:
        print_json(document)
        return
    inventory.write(inventory_path(site), document)
    run_bootstrap(site, [])
