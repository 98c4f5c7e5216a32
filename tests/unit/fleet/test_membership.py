"""The machines of a fleet, from what Nomad says of them."""

from __future__ import annotations

from typing import Any

from roost.fleet.membership import compose


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
