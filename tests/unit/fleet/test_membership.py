"""The machines of a fleet, from what Nomad says of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from roost.fleet.membership import begin_drain, compose, forget, leave_servers, names_of, resume
from roost.fleet.nomad_api import NomadClient
from roost.ops.errors import RoostError


def node(number: int, status: str = "ready", eligible: str = "eligible") -> dict[str, Any]:
    return {
        "ID": f"id{number}", "Name": f"m{number}", "Address": "127.0.0.1", "Status": status,
        "SchedulingEligibility": eligible, "Version": "1.11.3",
    }  # fmt: skip


def server(number: int, *, leader: bool = False) -> dict[str, Any]:
    return {"Node": f"m{number}.global", "Address": f"192.0.2.{number}:4647", "Leader": leader, "Voter": True}


def member(number: int, status: str = "alive") -> dict[str, Any]:
    return {"Name": f"m{number}.global", "Addr": f"192.0.2.{number}", "Status": status}


def test_three_servers_may_lose_one() -> None:
    running = [{"JobID": "roost-model-main-m1", "NodeID": "id1", "ClientStatus": "running"}]
    state = compose(
        [node(2), node(1)], [server(1, leader=True), server(2), server(3)], [member(3)], running, {"id1": "192.0.2.1"}
    )
    assert state.tolerates == 1
    assert [(m.name, m.server, m.leader, m.jobs) for m in state.machines] == [
        ("m1", True, True, ("roost-model-main-m1",)),
        ("m2", True, False, ()),
        ("m3", True, False, ()),
    ]
    assert state.healthy
    assert [m.address for m in state.machines] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_what_is_down_or_gets_no_work_is_not_healthy() -> None:
    assert not compose([node(1, "down")], [server(1, leader=True)], [member(1)], [], {}).healthy
    assert not compose([node(1, eligible="ineligible")], [server(1, leader=True)], [member(1)], [], {}).healthy
    assert not compose([node(1)], [server(1, leader=True), server(2)], [member(2, "failed")], [], {}).healthy
    assert compose([node(1)], [server(1, leader=True)], [], [], {}).tolerates == 0


class FakeNomad:
    """Three servers that call themselves otherwise than the inventory does, each with its token for snapshots."""

    def __init__(self) -> None:
        self.numbers = [5, 6, 7]
        self.tokens = [f"roost-role-snapshots-m{number}" for number in self.numbers]
        self.nodes = [node(number) for number in self.numbers]
        self.members = [member(number) for number in self.numbers]
        self.leading = 5
        self.removed_by: list[int] = []  # who led when a server was removed
        self.removes = True
        self.drains: list[tuple[str, bool]] = []  # nodes, and whether they may have work from then on

    def get(self, path: str) -> Any:  # noqa: ANN401 (Nomad's JSON)
        if path.startswith("node/"):
            number = path.removeprefix("node/id")
            return {"HostNetworks": {}, "Attributes": {"unique.network.ip-address": f"192.0.2.{number}"}}
        return {
            "nodes": self.nodes,
            "agent/members": {"Members": self.members},
            "operator/raft/configuration": {
                "Servers": [
                    {**server(number, leader=number == self.leading), "ID": f"raft{number}"} for number in self.numbers
                ]
            },
            "operator/autopilot/health": {
                "Servers": [
                    {
                        **server(number, leader=number == self.leading),
                        "ID": f"raft{number}",
                        "Name": f"m{number}.global",
                        "Healthy": True,
                    }
                    for number in self.numbers
                ]
            },
            "acl/tokens": [
                {"Name": name, "Type": "client", "Policies": ["roost-role-snapshots"], "AccessorID": name}
                for name in self.tokens
            ],
        }[path]

    def list_jobs(self) -> list[dict[str, Any]]:
        return []

    def leader(self) -> str:
        return f"192.0.2.{self.leading}:4647"

    def put(self, path: str, body: Any, **params: str) -> None:  # noqa: ANN401 (Nomad's JSON)
        if path.endswith("/drain"):
            self.drains.append((path, body["MarkEligible"]))
        elif path == "operator/raft/transfer-leadership":
            self.leading = int(params["id"].removeprefix("raft"))
        elif path == "agent/force-leave":
            self.members = [m for m in self.members if m["Name"] != params["node"]]
        else:
            self.nodes = [n for n in self.nodes if path != f"node/{n['ID']}/purge"]

    def request(self, _method: str, path: str, *, params: dict[str, str] | None = None) -> None:
        if path == "operator/raft/peer" and params:
            if not self.removes:
                raise RoostError("No leader.")
            self.removed_by.append(self.leading)
            self.numbers.remove(int(params["id"].removeprefix("raft")))
        self.tokens = [name for name in self.tokens if path != f"acl/token/{name}"]


LEFT = ["192.0.2.7", "two"]  # as leave.yaml gives a machine: its address, and what the inventory calls it


@pytest.mark.parametrize("left", [leave_servers, forget])
def test_whoever_leaves_keeps_no_token_whatever_it_calls_itself(left: Any) -> None:  # noqa: ANN401 (either)
    nomad = FakeNomad()
    done = left(cast("NomadClient", nomad), LEFT)
    assert "snapshots-m7" in done
    assert nomad.tokens == ["roost-role-snapshots-m5", "roost-role-snapshots-m6"]


@pytest.mark.parametrize("leading", [5, 6, 7])
def test_servers_are_taken_out_by_one_that_stays(leading: int) -> None:
    nomad = FakeNomad()
    nomad.leading = leading
    assert {"m6.global", "m7.global"} <= set(leave_servers(cast("NomadClient", nomad), ["192.0.2.6", "192.0.2.7"]))
    assert nomad.numbers == [5]
    assert nomad.removed_by == [5, 5]


def test_a_server_that_lost_its_node_is_still_known_by_name() -> None:
    nomad = FakeNomad()
    nomad.nodes = []
    assert names_of(cast("NomadClient", nomad), LEFT) == {"m7", *LEFT}


def test_who_could_not_be_taken_out_keeps_its_token() -> None:
    nomad = FakeNomad()
    nomad.removes = False
    with pytest.raises(RoostError):
        leave_servers(cast("NomadClient", nomad), LEFT)
    assert "roost-role-snapshots-m7" in nomad.tokens


def test_where_one_of_them_cannot_be_drained_the_others_have_work_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nomad = FakeNomad()
    nomad.nodes = [node(6) | {"Drain": False}, node(7) | {"Drain": False}]
    put = nomad.put

    def drains_one_only(path: str, body: Any, **params: str) -> None:  # noqa: ANN401 (Nomad's JSON)
        if path == "node/id7/drain":
            raise RoostError("Nomad is gone.")
        put(path, body, **params)
        nomad.nodes[0] |= {"SchedulingEligibility": "eligible" if body["MarkEligible"] else "ineligible"}

    monkeypatch.setattr(nomad, "put", drains_one_only)
    with pytest.raises(RoostError, match="gone"):
        begin_drain(cast("NomadClient", nomad), ["m6", "m7"], 30)
    assert nomad.drains == [("node/id6/drain", False), ("node/id6/drain", True)]


def test_only_who_had_work_has_it_again() -> None:
    nomad = FakeNomad()
    nomad.nodes = [node(6, eligible="ineligible") | {"Drain": False}, node(7) | {"Drain": False}]
    client = cast("NomadClient", nomad)
    had = begin_drain(client, ["m6", "m7"], 30)
    assert had == ["m7"]
    assert nomad.drains == [("node/id6/drain", False), ("node/id7/drain", False)]
    nomad.nodes[1] |= {"SchedulingEligibility": "ineligible", "Drain": True}
    resume(client, had)
    assert nomad.drains[2:] == [("node/id7/drain", True)]
