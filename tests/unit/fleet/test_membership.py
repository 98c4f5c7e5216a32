"""The machines of a fleet, from what Nomad says of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from roost.fleet.membership import (
    RETURNED,
    begin_drain,
    compose,
    forget,
    gets_work,
    leave_servers,
    names_of,
    resume,
    taken_out,
    was_to_leave,
)
from roost.fleet.nomad_api import NomadClient
from roost.ops.errors import RoostError


def node(number: int, status: str = "ready", eligible: str = "eligible") -> dict[str, Any]:
    return {
        "ID": f"id{number}", "Name": f"m{number}", "Address": "127.0.0.1", "Status": status,
        "SchedulingEligibility": eligible, "Drain": False, "LastDrain": None, "Version": "1.11.3",
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
            (drained,) = [n for n in self.nodes if path == f"node/{n['ID']}/drain"]
            drained["SchedulingEligibility"] = "eligible" if body["MarkEligible"] else "ineligible"
            drained["Drain"] = body["DrainSpec"] is not None
            if body["DrainSpec"]:
                drained["LastDrain"] = {"Meta": body["Meta"]}  # it stays when the drain is over
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
    put = nomad.put

    def drains_one_only(path: str, body: Any, **params: str) -> None:  # noqa: ANN401 (Nomad's JSON)
        if path == "node/id7/drain":
            raise RoostError("Nomad is gone.")
        put(path, body, **params)

    monkeypatch.setattr(nomad, "put", drains_one_only)
    with pytest.raises(RoostError, match="gone"):
        begin_drain(cast("NomadClient", nomad), ["m6", "m7"], 30)
    assert all(map(gets_work, nomad.nodes))


BY_HAND = {"message": "its fan is loud"}


@pytest.mark.parametrize("last", [None, {"Meta": BY_HAND}, {"Meta": RETURNED}])
def test_only_who_had_work_has_it_again(last: dict[str, Any] | None) -> None:
    nomad = FakeNomad()
    nomad.nodes = [node(6, eligible="ineligible") | {"LastDrain": last}, node(7)]
    client = cast("NomadClient", nomad)
    assert begin_drain(client, ["m6", "m7"], 30) == ["m7"]
    assert [was_to_leave(one) for one in nomad.nodes] == [False, True]
    assert resume(client, ["m6", "m7"])
    assert [gets_work(one) for one in nomad.nodes] == [False, True]
    assert taken_out(nomad.nodes[0])
    assert not resume(client, ["m6", "m7"])


@pytest.mark.parametrize("drains", [True, False], ids=["drains", "is drained"])
def test_who_was_to_leave_in_a_run_that_was_broken_off_is_known_by_the_next_and_has_work_again(*, drains: bool) -> None:
    nomad = FakeNomad()
    client = cast("NomadClient", nomad)
    begin_drain(client, ["m7"], 30)
    nomad.nodes[2]["Drain"] = drains
    assert begin_drain(client, ["m7"], 30) == ["m7"], "it leaves now, and stays in work if it does not"
    nomad.nodes[2]["Drain"] = drains
    assert resume(client, ["m7"])
    assert gets_work(nomad.nodes[2])


def test_who_is_taken_out_by_hand_after_it_had_work_again_stays_out() -> None:
    nomad = FakeNomad()
    client = cast("NomadClient", nomad)
    begin_drain(client, ["m7"], 30)
    resume(client, ["m7"])
    nomad.nodes[2]["SchedulingEligibility"] = "ineligible"
    assert not resume(client, ["m7"])
    assert taken_out(nomad.nodes[2])
