"""Nomad's servers in an update: how many there may be, what comes before one begins anew, how one stops being one.

Upgrades: https://developer.hashicorp.com/nomad/docs/upgrade (server by server, the leader last, a snapshot before).
API: https://developer.hashicorp.com/nomad/api-docs/operator
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.snapshots import save
from roost.ops.errors import RoostError

Json = Any
GOOD_NUMBERS = (1, 3, 5)
KEPT_SNAPSHOTS = 5
HAND_OVER_S = 20.0
TRIES_FOR_ONE = 3  # then another one is asked to lead
REFUSED_PAUSE_S = 1.0  # while a transfer is tried Raft takes no writes
HEALTHY_S = 60.0
REMOVE_S = 20.0
NO_PEER = "was not found in the Raft configuration"  # how Nomad's leader says it, with status 500 as for all else
POLL_S = 0.25
BRING_BACK = "See `roost fleet status`; once those servers are there and vote, run it again."
ASK_AGAIN = "See that the file secrets/nomad-operator-token has a management token of Nomad, and run it again."


def choice_problem(chosen: Sequence[str], machines: Sequence[str]) -> str:
    """Return what is wrong with the machines that are to be servers, or nothing. Pure."""
    if strangers := [name for name in chosen if name not in machines]:
        return f"The group fleet_servers names {', '.join(strangers)}, not of the group fleet."
    if len(chosen) in GOOD_NUMBERS:
        return ""
    return (
        f"The group fleet_servers has {len(chosen)} machines, and Nomad's state is kept by 1, 3 or 5: "
        "of 2 or 4 no more may be lost than of 1 or 3."
    )


@dataclass(frozen=True)
class RaftServer:
    """One server as autopilot sees it. `address` is that of its RPC, HOST:PORT."""

    id: str
    name: str
    address: str
    leader: bool
    voter: bool
    healthy: bool
    version: str


def servers(client: NomadClient) -> list[RaftServer]:
    """Return all servers, with autopilot's word on each.

    Raises:
        NomadUnreachableError, NomadRefusedError
    """
    try:
        found = client.get("operator/autopilot/health")["Servers"] or []
    except NomadRefusedError as error:
        if error.status != http.client.TOO_MANY_REQUESTS:  # stands for "not healthy", and holds the same document
            raise
        found = json.loads(error.text)["Servers"] or []
    return [
        RaftServer(s["ID"], s["Name"], s["Address"], s["Leader"], s["Voter"], s["Healthy"], s.get("Version", ""))
        for s in found
    ]


def restart_problem(found: Sequence[RaftServer], mine: str) -> str:
    """Return why a server may not be begun anew now: the others would be no majority. Pure.

    `mine` is its RPC address; of one that is no server, or the only one, nothing can be lost.
    """
    voters = [server for server in found if server.voter]
    if len(voters) <= 1 or mine not in {server.address for server in found}:
        return ""
    others = [server for server in voters if server.address != mine]
    healthy = [server for server in others if server.healthy]
    if len(healthy) > len(voters) // 2:
        return ""
    return f"without it {len(healthy)} of {len(voters)} servers would be left, no majority{_lacking(found, mine)}"


def leave_problem(found: Sequence[RaftServer], mine: str) -> str:
    """Return why a server may not leave the others for good now: those that stay would decide nothing. Pure.

    The majority is then one of those that stay. `mine` is its RPC address; of one that is no server nothing is lost.
    """
    if mine not in {server.address for server in found}:
        return ""
    others = [server for server in found if server.voter and server.address != mine]
    healthy = [server for server in others if server.healthy]
    if not others:
        return "no other server would be left"
    if len(healthy) > len(others) // 2:
        return ""
    return f"{len(healthy)} of the {len(others)} that stay would be in order, no majority{_lacking(found, mine)}"


def _lacking(found: Sequence[RaftServer], mine: str) -> str:
    others = [server for server in found if server.address != mine]
    reasons = {
        "not healthy": [server.name for server in others if not server.healthy],
        "no vote yet": [server.name for server in others if server.healthy and not server.voter],
    }
    said = [f"{reason}: {', '.join(sorted(map(machine, names)))}" for reason, names in reasons.items() if names]
    return f" ({'; '.join(said)})" if said else ""


def machine(member: str) -> str:
    """Return the machine of a server, whose name ends with its region."""
    return member.rpartition(".")[0] or member


def snapshot(client: NomadClient, folder: Path, label: str) -> Path:
    """Keep the servers' state in a file, and the latest `KEPT_SNAPSHOTS` of them.

    Raises:
        RoostError: it cannot be had, is damaged, or cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}-{label}.snap"
    save(client, folder, keep=KEPT_SNAPSHOTS, now=now, out=path)
    for old in sorted(folder.glob("*.snap"))[:-KEPT_SNAPSHOTS]:
        old.unlink()
    return path


def hand_over(client: NomadClient, mine: str, to: str, timeout_s: float = HAND_OVER_S) -> bool:
    """Have another server lead, if this one does; `to` is preferred. Return whether that was so.

    Raises:
        RoostError: the leadership did not move.
    """
    found = servers(client)
    others = [server for server in found if server.address != mine and server.voter and server.healthy]
    if not others or not any(server.leader and server.address == mine for server in found):
        return False
    chosen = next((server for server in others if machine(server.name) == to), others[0])
    order = [chosen, *(server for server in others if server != chosen)]
    deadline = time.monotonic() + timeout_s
    refusals, why = 0, ""
    while True:
        moved, problem = _transferred(client, mine, order[refusals // TRIES_FOR_ONE % len(order)].id)
        if moved:
            return True
        if problem:
            refusals, why = refusals + 1, f": {problem}"
        if time.monotonic() > deadline:
            raise RoostError(
                f"Nomad's leadership did not move to {machine(chosen.name)} within {timeout_s:.0f} s{why}.",
                fix="See `roost fleet status` and `roost logs nomad`.",
            )
        time.sleep(REFUSED_PAUSE_S if problem else POLL_S)


def _transferred(client: NomadClient, mine: str, to: str) -> tuple[bool, str]:
    """Ask once more for a transfer where this server still leads.

    Return whether another one leads, and what Nomad had against it. Raft gives a transfer a second, which a busy
    machine may miss, and says so with status 500, as Nomad does of an election that lasts.
    """
    try:
        leader = client.leader()
        if leader == mine:
            client.put("operator/raft/transfer-leadership", None, id=to)
    except NomadRefusedError as error:
        if error.status != http.client.INTERNAL_SERVER_ERROR:
            raise
        return False, error.text.strip()
    return leader not in ("", mine), ""


def get_ready(
    client: NomadClient,
    mine: str,
    *,
    folder: Path,
    label: str,
    leader: str,
    timeout_s: float,
    set_up_anew: Callable[[], bool],
) -> tuple[str, bool]:
    """Do what comes before a server is begun anew; return the snapshot's path, and whether another leads now.

    Where Nomad does not answer here there is nothing to lose, and nothing is done; so where nobody leads for
    `timeout_s` seconds, and where access control was never set up, or the state is lost: `set_up_anew` does so, and
    says whether it had to be done. Who is refused otherwise cannot know what would be lost. Servers that are not
    healthy are waited for: right after a change autopilot calls one so that was late once with an answer to the leader.
    So are new ones without a vote, which autopilot gives after ten quiet seconds, one server after the other: of two
    that vote neither may begin anew.

    Raises:
        RoostError: the others would be no majority, Nomad does not say whether, or one of the steps failed.
    """
    try:
        found, problem = _look_until_led(client, mine, restart_problem, timeout_s)
    except NomadUnreachableError:
        return "", False
    except NomadRefusedError as error:
        unled = error.status == http.client.INTERNAL_SERVER_ERROR
        if unled or (error.status == http.client.FORBIDDEN and set_up_anew()):
            return "", False
        raise RoostError(f"Nomad on {mine} is not begun anew: {error.message}.", fix=ASK_AGAIN) from None
    if problem:
        raise RoostError(f"Nomad on {_name(found, mine)} is not begun anew: {problem}.", fix=BRING_BACK)
    return str(snapshot(client, folder, label)), hand_over(client, mine, leader, timeout_s)


def _look_until_fit(
    client: NomadClient, mine: str, problem_of: Callable[[Sequence[RaftServer], str], str], timeout_s: float
) -> tuple[list[RaftServer], str]:
    """Return the servers and what is the matter, after a time in which new ones get a vote and ill ones get well."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = servers(client)
        problem = problem_of(found, mine)
        joining = any(server.healthy and not server.voter for server in found)
        may_get_well = problem and any(not server.healthy for server in found)
        if not (joining or may_get_well) or time.monotonic() > deadline:
            return found, problem
        time.sleep(POLL_S)


def _name(found: Sequence[RaftServer], mine: str) -> str:
    return next((machine(server.name) for server in found if server.address == mine), mine)


def step_down(
    client: NomadClient,
    mine: str,
    *,
    folder: Path,
    label: str,
    leader: str,
    timeout_s: float,
    set_up_anew: Callable[[], bool],
) -> tuple[str, bool]:
    """Have a server leave the others before it begins anew as a client; return the snapshot's path and whether it left.

    Its vote is given up while all are there, so that they need no majority of one that is gone. Until its process ends
    they may take it in again, but without a vote: that comes only after ten quiet seconds. Where Nomad does not answer
    here, lost its state (`set_up_anew`, as in `get_ready`), or it is no server, nothing is done. Servers without a
    leader are waited for.

    Raises:
        RoostError: those that stay would be no majority, Nomad does not say whether, or one of the steps failed.
    """
    try:
        found, problem = _look_until_led(client, mine, leave_problem, timeout_s)
    except NomadUnreachableError:
        return "", False
    except NomadRefusedError as error:
        if error.status == http.client.FORBIDDEN and set_up_anew():
            return "", False
        fix = BRING_BACK if error.status == http.client.INTERNAL_SERVER_ERROR else ASK_AGAIN
        raise RoostError(f"{mine} may still be a server of Nomad: {error.message}.", fix=fix) from None
    if problem:
        raise RoostError(f"{_name(found, mine)} stays a server of Nomad: {problem}.", fix=BRING_BACK)
    me = next((server for server in found if server.address == mine), None)
    if me is None:
        return "", False
    kept = str(snapshot(client, folder, label))
    hand_over(client, mine, leader, timeout_s)
    remove_peer(client, me.id, timeout_s)
    return kept, True


def _look_until_led(
    client: NomadClient, mine: str, problem_of: Callable[[Sequence[RaftServer], str], str], timeout_s: float
) -> tuple[list[RaftServer], str]:
    """Return the servers and what is the matter, once there is a leader that says it."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return _look_until_fit(client, mine, problem_of, timeout_s)
        except NomadRefusedError as error:
            if error.status != http.client.INTERNAL_SERVER_ERROR or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def remove_peer(client: NomadClient, peer_id: str, timeout_s: float = REMOVE_S) -> None:
    """Take a server out of Raft, and see that it votes there no more; one that has left meanwhile is fine.

    Right after the leadership moved there may be nobody who does it, so it is tried again. One that still runs may be
    taken in again by the others, without a vote: nothing depends on that.

    Raises:
        NomadUnreachableError, NomadRefusedError
        RoostError: it still votes after `timeout_s` seconds, or nobody can say whether it does.
    """
    deadline = time.monotonic() + timeout_s
    while problem := _removal_problem(client, peer_id):
        if time.monotonic() > deadline:
            raise RoostError(
                f"Nomad's server {peer_id} was not taken from the others within {timeout_s:.0f} s: {problem}.",
                fix="See `roost fleet status` and `roost logs nomad`, and run it again once the servers have a leader.",
            )
        time.sleep(POLL_S)


def _removal_problem(client: NomadClient, peer_id: str) -> str:
    """Ask once for a server's removal; return why it may still vote, or nothing."""
    try:
        try:
            client.request("DELETE", "operator/raft/peer", params={"id": peer_id})
        except NomadRefusedError as error:
            if NO_PEER not in error.text:
                raise
        left = client.get("operator/raft/configuration")["Servers"]
    except NomadRefusedError as error:
        if error.status != http.client.INTERNAL_SERVER_ERROR:
            raise
        return error.message
    return "it still votes" if any(peer["ID"] == peer_id and peer["Voter"] for peer in left) else ""


def forget_server(client: NomadClient, address: str) -> bool:
    """Take a machine that is no server any more from what the others know; return whether there was anything.

    `address` is its RPC address. It is asked of one that stays: clients cannot do it.
    """
    known = False
    for peer in client.get("operator/raft/configuration")["Servers"]:
        if peer["Address"] == address:
            remove_peer(client, peer["ID"])
            known = True
    host = address.rpartition(":")[0].strip("[]")
    for member in client.get("agent/members")["Members"]:
        if member["Addr"] == host:
            client.put("agent/force-leave", None, node=member["Name"], prune="true")
            known = True
    return known


def wait_healthy(client: NomadClient, mine: str, timeout_s: float = HEALTHY_S) -> None:
    """Wait until a server that was begun anew votes and keeps up, as autopilot judges; of no server nothing.

    Raises:
        RoostError: not within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    problem = "it is not among the servers"
    while True:
        try:
            found = {server.address: server for server in servers(client)}
            server = found.get(mine)
            if server is not None and server.healthy and server.voter:
                return
            problem = problem if server is None else "it does not vote" if server.healthy else "autopilot calls it ill"
        except (NomadUnreachableError, NomadRefusedError) as error:
            problem = error.message
        if time.monotonic() > deadline:
            raise RoostError(
                f"Nomad's server at {mine} is not in order after {timeout_s:.0f} s: {problem}.",
                fix="Read its log with `roost logs nomad`.",
            )
        time.sleep(POLL_S)
