"""Machines of a fleet as Nomad sees them: who is there, and how one leaves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from roost.fleet import own_token
from roost.fleet.jobs import FLEET_NETWORK, META_NODE
from roost.fleet.nomad_api import NomadClient
from roost.fleet.rolling.servers import hand_over, machine, remove_peer
from roost.ops.errors import RoostError

Json = Any
READY = "ready"
RUNNING = ("running", "pending")
POLL_S = 0.5
GRACE_S = 10.0  # for tasks to end once the time to move them is over
# What a drain of ours says of itself. Nomad keeps it when the drain is over, until another drain says something else.
LEAVES, RETURNED = {"roost": "leaves"}, {"roost": "returned"}


@dataclass(frozen=True)
class Machine:
    """One machine. `models` are the jobs that run there by name; `state` is that of its Nomad client, or of its server
    where it runs no jobs."""

    name: str
    address: str
    state: str
    server: bool
    leader: bool
    eligible: bool
    version: str
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class FleetState:
    """All machines. `tolerates` is how many servers may be lost before nothing can be changed any more."""

    machines: tuple[Machine, ...]
    tolerates: int

    @property
    def healthy(self) -> bool:
        """Say whether every machine is there and may be given work."""
        return all(m.state == READY and m.eligible for m in self.machines)


def compose(
    nodes: Sequence[Json],
    servers: Sequence[Json],
    members: Sequence[Json],
    running: Sequence[Json],
    addresses: Mapping[str, str],
) -> FleetState:
    """Put Nomad's answers together: its nodes, Raft's servers, gossip's members, allocations. Pure.

    `addresses` has those of nodes by their ID; a node itself only says where its HTTP API is, which is on loopback.
    """
    alive = {m["Name"]: m["Status"] == "alive" for m in members}
    by_name = {machine(s["Node"]): s for s in servers}
    found: list[Machine] = []
    for node in sorted(nodes, key=lambda n: str(n["Name"])):
        server = by_name.pop(node["Name"], None)
        jobs = {a["JobID"] for a in running if a["NodeID"] == node["ID"] and a["ClientStatus"] in RUNNING}
        found.append(
            Machine(
                name=node["Name"],
                address=_host(server["Address"]) if server else addresses.get(node["ID"], ""),
                state=node["Status"],
                server=server is not None,
                leader=bool(server and server["Leader"]),
                eligible=node["SchedulingEligibility"] == "eligible",
                version=node.get("Version", ""),
                jobs=tuple(sorted(jobs)),
            )
        )
    for name, server in by_name.items():
        state = READY if alive.get(server["Node"]) else "down"
        found.append(Machine(name, _host(server["Address"]), state, True, bool(server["Leader"]), True, "", ()))
    voters = sum(bool(s["Voter"]) for s in servers)
    return FleetState(tuple(found), (voters - 1) // 2 if voters else 0)


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def address_of(client: NomadClient, node_id: str) -> str:
    """Return a node's address in the fleet; on a machine alone that of its network card."""
    node = client.get(f"node/{node_id}")
    network = (node.get("HostNetworks") or {}).get(FLEET_NETWORK) or {}
    return str(network.get("CIDR", "")).partition("/")[0] or str(
        (node.get("Attributes") or {}).get("unique.network.ip-address", "")
    )


def look(client: NomadClient) -> FleetState:
    """Ask Nomad for all machines.

    Raises:
        RoostError: it does not answer, or there is no leader.
    """
    nodes = client.get("nodes") or []
    return compose(
        nodes,
        client.get("operator/raft/configuration")["Servers"],
        client.get("agent/members")["Members"],
        client.get("allocations") or [],
        {node["ID"]: address_of(client, node["ID"]) for node in nodes},
    )


def _nodes(client: NomadClient, who: Collection[str]) -> list[Json]:
    """Return the nodes with one of these names or addresses."""
    nodes = client.get("nodes") or []
    return [n for n in nodes if n["Name"] in who or address_of(client, n["ID"]) in who]


def names_of(client: NomadClient, who: Collection[str]) -> set[str]:
    """Return the names in Nomad of machines that are given by name or address, and what was given itself.

    The inventory may call a machine otherwise than it calls itself, which is what its node and its token go by.
    """
    members = client.get("agent/members")["Members"]
    servers = {machine(m["Name"]) for m in members if machine(m["Name"]) in who or m["Addr"] in who}
    return {str(node["Name"]) for node in _nodes(client, who)} | servers | set(who)


def server_names(client: NomadClient) -> set[str]:
    """Return the names of the machines that are servers now, as Raft has them."""
    return {machine(server["Node"]) for server in client.get("operator/raft/configuration")["Servers"]}


def machine_names(client: NomadClient) -> list[str]:
    """Return the names of all machines: nodes, and servers whose client Nomad does not know."""
    return sorted({str(node["Name"]) for node in client.get("nodes") or []} | server_names(client))


def gets_work(node: Json) -> bool:
    """Say whether Nomad gives a node of its list work."""
    return bool(node["SchedulingEligibility"] == "eligible" and not node["Drain"])


def was_to_leave(node: Json) -> bool:
    """Say whether a node of Nomad's list gets no work because it was to leave the fleet, and did not."""
    return not gets_work(node) and _said(node) == LEAVES


def taken_out(node: Json) -> bool:
    """Say whether a node of Nomad's list gets no work because somebody took it out by hand: it is theirs to return."""
    return not gets_work(node) and _said(node) != LEAVES


def _said(node: Json) -> Json:
    return (node.get("LastDrain") or {}).get("Meta")


def begin_drain(client: NomadClient, who: Collection[str], timeout_s: float) -> list[str]:
    """Have machines, by name or address, give up what they run; return the names of those that had work so far.

    What may run on no other machine ends, within `timeout_s` seconds. Who was taken out by hand has no work if it stays
    after all; who was to leave before, in a run that was broken off, has.

    Raises:
        RoostError: Nomad does not take it for one of them; those that had work so far have it again, if it takes that.
    """
    wanted = _nodes(client, who)
    had = [str(node["Name"]) for node in wanted if not taken_out(node)]
    try:
        for node in wanted:
            _drain(client, node, timeout_s, _said(node) if taken_out(node) else LEAVES)
    except RoostError:
        with contextlib.suppress(RoostError):  # the first reason is the one to tell
            resume(client, had)
        raise
    return had


def await_drained(client: NomadClient, who: Collection[str], timeout_s: float) -> None:
    """Wait until nothing runs on machines that give up what they run. One that is down has nothing left to give up.

    Raises:
        RoostError: something still runs there after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s + GRACE_S
    for node in _nodes(client, who):
        while client.get(f"node/{node['ID']}")["Status"] == READY:
            left = [a for a in client.get(f"node/{node['ID']}/allocations") or [] if a["ClientStatus"] in RUNNING]
            if not left:
                break
            if time.monotonic() > deadline:
                still = ", ".join(sorted({a["JobID"] for a in left}))
                raise RoostError(f"{node['Name']} still runs {still}.", fix="Stop it by hand, and try again.")
            time.sleep(POLL_S)


def resume(client: NomadClient, who: Collection[str]) -> bool:
    """Let machines that were to leave have work again; return whether there was one.

    Who was taken out by hand stays out.

    Raises:
        RoostError: Nomad does not take it.
    """
    back = [node for node in _nodes(client, who) if was_to_leave(node)]
    for node in back:
        _drain(client, node, 0, RETURNED)
        client.put(f"node/{node['ID']}/drain", {"DrainSpec": None, "MarkEligible": True})
    return bool(back)


def _drain(client: NomadClient, node: Json, timeout_s: float, says: Json) -> None:
    spec = {"Deadline": int(timeout_s * 1e9), "IgnoreSystemJobs": False}
    client.put(f"node/{node['ID']}/drain", {"DrainSpec": spec, "MarkEligible": False, "Meta": says})


def leave_servers(client: NomadClient, who: Collection[str]) -> list[str]:
    """Take servers out of Raft, so that the others need no majority of those that are gone, and end their tokens.

    One that stays leads them meanwhile: a leader that removes itself may not have told the others yet that it did. The
    tokens end last: who could not be taken out goes on as before. Return the names of both.

    Raises:
        RoostError: the leadership did not move, or a server was not taken out.
    """
    gone: list[str] = []
    names = names_of(client, who)
    found = client.get("operator/raft/configuration")["Servers"]
    leaving = [server for server in found if machine(server["Node"]) in who or _host(server["Address"]) in who]
    staying = [server for server in found if server not in leaving and server["Voter"]]
    for leader in [server for server in leaving if server["Leader"]]:
        if staying:
            hand_over(client, leader["Address"], machine(staying[0]["Node"]))
    for server in leaving:
        remove_peer(client, server["ID"])
        gone.append(server["Node"])
    return gone + own_token.forget(client, names)


def forget(client: NomadClient, who: Collection[str]) -> list[str]:
    """Remove what is still known of machines that left: token, jobs of theirs, node, member; return what there was."""
    gone = own_token.forget(client, names_of(client, who))  # first: later nobody knows whose name an address was
    nodes = _nodes(client, who)
    names = {str(node["Name"]) for node in nodes} | set(who)
    for job in client.list_jobs():
        if (job.get("Meta") or {}).get(META_NODE) in names:
            client.request("DELETE", f"job/{quote(job['ID'], safe='')}", params={"purge": "true"})
            gone.append(job["ID"])
    for member in client.get("agent/members")["Members"]:
        if machine(member["Name"]) in who or member["Addr"] in who:
            client.put("agent/force-leave", None, node=member["Name"], prune="true")
            gone.append(member["Name"])
    for node in nodes:
        client.put(f"node/{node['ID']}/purge", None)
        gone.append(str(node["Name"]))
    return gone
