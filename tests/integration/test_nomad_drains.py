"""Who took a machine out of work: what a real Nomad keeps of its drains tells it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from roost.fleet.deploy import stop
from roost.fleet.membership import await_drained, begin_drain, gets_work, resume, taken_out, was_to_leave
from roost.fleet.nomad_api import NomadClient
from tests.support.ansible_module import run_module
from tests.support.net import wait_until
from tests.support.nomad_tls import nomad_server

SLEEPER = {
    # batch: it runs until a drain's time is over
    "ID": "sleeper", "Name": "sleeper", "Type": "batch", "Datacenters": ["dc1"],
    "TaskGroups": [{
        "Name": "g", "Count": 1,
        "Tasks": [{"Name": "t", "Driver": "raw_exec", "Config": {"command": "sleep", "args": ["600"]}}],
    }],
}  # fmt: skip


@pytest.fixture(scope="module")
def nomad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NomadClient]:
    with nomad_server(tmp_path_factory.mktemp("drains")) as client:
        yield client
        for job in client.list_jobs():
            stop(client, str(job["ID"]), purge=True, timeout_s=30)


def node(client: NomadClient) -> Any:  # noqa: ANN401 (Nomad's JSON)
    (found,) = client.get("nodes")
    return found


def by_hand(client: NomadClient, word: str) -> None:
    """Do what `nomad node eligibility` does."""
    found = node(client)["ID"]
    client.put(f"node/{found}/eligibility", {"NodeID": found, "Eligibility": word})


def drain_by_hand(client: NomadClient) -> None:
    """Do what `nomad node drain -enable` does."""
    spec = {"DrainSpec": {"Deadline": int(60e9), "IgnoreSystemJobs": False}, "Meta": {"message": "its fan is loud"}}
    client.put(f"node/{node(client)['ID']}/drain", spec)
    wait_until(lambda: not node(client)["Drain"], 30, "the end of the drain")


def passed(client: NomadClient) -> dict[str, Any]:
    """Have the gate look at it, as at the end of an update."""
    access = client._access
    arguments = {
        "state": "passed", "node": node(client)["Name"], "address": access.address, "tls_dir": str(access.ca.parent),
        "token": access.token, "timeout": 10,
    }  # fmt: skip
    result = run_module("roost_gate", arguments)
    assert not result["failed"], result
    return result


def test_who_was_to_leave_has_work_again_and_who_is_taken_out_later_stays_out(nomad: NomadClient) -> None:
    name = str(node(nomad)["Name"])
    for _ in ("the first time", "once it was returned"):
        assert begin_drain(nomad, [name], 5) == [name]
        await_drained(nomad, [name], 5)
        wait_until(lambda: not node(nomad)["Drain"], 30, "the end of the drain")
        assert was_to_leave(node(nomad))
        result = passed(nomad)
        assert (result["done"], "note" in result) == (True, False)
        assert gets_work(node(nomad))
        by_hand(nomad, "ineligible")
        assert taken_out(node(nomad))
        assert "by hand" in passed(nomad)["note"]
        assert not gets_work(node(nomad))
        by_hand(nomad, "eligible")


def test_a_drain_of_somebody_elses_stays_theirs_also_where_the_machine_does_not_leave_after_all(
    nomad: NomadClient,
) -> None:
    name = str(node(nomad)["Name"])
    drain_by_hand(nomad)
    assert begin_drain(nomad, [name], 5) == []
    await_drained(nomad, [name], 5)
    wait_until(lambda: not node(nomad)["Drain"], 30, "the end of the drain")
    assert not resume(nomad, [name])
    assert node(nomad)["LastDrain"]["Meta"] == {"message": "its fan is loud"}
    begin_drain(nomad, [name], 5)
    drain_by_hand(nomad)
    assert taken_out(node(nomad))
    by_hand(nomad, "eligible")


def test_a_drain_that_still_runs_is_taken_back(nomad: NomadClient) -> None:
    name = str(node(nomad)["Name"])
    nomad.put("jobs", {"Job": SLEEPER})
    try:
        wait_until(lambda: [a["ClientStatus"] for a in nomad.allocations("sleeper")] == ["running"], 30, "the sleeper")
        begin_drain(nomad, [name], 600)
        assert node(nomad)["Drain"]
        assert was_to_leave(node(nomad))
        assert resume(nomad, [name])
        assert gets_work(node(nomad))
        assert [a["ClientStatus"] for a in nomad.allocations("sleeper")] == ["running"]
        by_hand(nomad, "ineligible")
        assert taken_out(node(nomad))
    finally:
        nomad.request("DELETE", "job/sleeper", params={"purge": "true"})
        wait_until(lambda: not _runs(nomad, "sleeper"), 30, "the sleeper's end")
        by_hand(nomad, "eligible")


def _runs(client: NomadClient, job: str) -> bool:
    return any(a["JobID"] == job and a["ClientStatus"] == "running" for a in client.get("allocations"))
