"""What each role may do in a real Nomad, and what not."""

from __future__ import annotations

import dataclasses
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.fleet import own_token
from roost.fleet.access import POLICIES, ROLES, ensure_role, grant, grants, revoke
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.errors import RoostError
from tests.support.ansible_module import run_module
from tests.support.nomad_tls import nomad_agent, nomad_server

JOB = {
    "ID": "sleeper", "Name": "sleeper", "Type": "service", "Datacenters": ["dc1"],
    "TaskGroups": [{
        # none of it has to run: Nomad ended with it when it was purged while it began
        "Name": "g", "Count": 0,
        "Tasks": [{"Name": "t", "Driver": "raw_exec", "Config": {"command": "sleep", "args": ["9"]}}],
    }],
}  # fmt: skip
Ask = Callable[[NomadClient], Any]


@pytest.fixture(scope="module")
def nomad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NomadClient]:
    with nomad_server(tmp_path_factory.mktemp("access")) as client:
        yield client


def look_at_jobs(client: NomadClient) -> Any:  # noqa: ANN401 (Nomad's JSON)
    return client.get("jobs")


def run_a_job(client: NomadClient) -> Any:  # noqa: ANN401 (Nomad's JSON)
    answer = client.put("jobs", {"Job": JOB})
    client.request("DELETE", "job/sleeper", params={"purge": "true"})
    return answer


def look_at_nodes(client: NomadClient) -> Any:  # noqa: ANN401 (Nomad's JSON)
    return client.get("nodes")


def drain(client: NomadClient) -> Any:  # noqa: ANN401 (Nomad's JSON)
    node = client.get("nodes")[0]["ID"]
    return client.put(f"node/{node}/eligibility", {"NodeID": node, "Eligibility": "eligible"})


def read_variables(client: NomadClient) -> Any:  # noqa: ANN401 (Nomad's JSON)
    return client.get("var/nomad/jobs/secret")


def make_tokens(client: NomadClient) -> Any:  # noqa: ANN401 (Nomad's JSON)
    return client.put("acl/token", {"Name": "x", "Type": "management"})


def save_a_snapshot(client: NomadClient) -> Any:  # noqa: ANN401 (bytes)
    return client.download("operator/snapshot", timeout_s=30)


MAY = {
    "operator": {look_at_jobs, run_a_job, look_at_nodes, drain, save_a_snapshot},
    "read-only": {look_at_jobs, look_at_nodes},
    "worker": {look_at_jobs, look_at_nodes},
    "snapshots": {save_a_snapshot},
}
EVERYTHING: list[Ask] = [
    look_at_jobs, run_a_job, look_at_nodes, drain, read_variables, make_tokens, save_a_snapshot
]  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_it_says_and_nothing_else(nomad: NomadClient, role: str) -> None:
    nomad.put("var/nomad/jobs/secret", {"Namespace": "default", "Path": "nomad/jobs/secret", "Items": {"a": "b"}})
    _, secret = grant(nomad, f"one-{role}", role)
    theirs = NomadClient(dataclasses.replace(nomad._access, token=secret))
    for ask in EVERYTHING:
        if ask in MAY[role]:
            ask(theirs)
        else:
            with pytest.raises(NomadRefusedError) as caught:
                ask(theirs)
            assert caught.value.status == 403, ask.__name__
    revoke(nomad, f"one-{role}")
    with pytest.raises(NomadRefusedError):
        look_at_jobs(theirs)


def test_tokens_are_listed_and_named_once(nomad: NomadClient) -> None:
    made, _ = grant(nomad, "dashboard", "read-only", ttl_s=3600)
    assert made.expires
    assert [(g.name, g.role) for g in grants(nomad)] == [("dashboard", "read-only")]
    with pytest.raises(RoostError, match="There is a token called dashboard"):
        grant(nomad, "dashboard", "operator")
    revoke(nomad, "dashboard")
    assert grants(nomad) == []
    with pytest.raises(RoostError, match="no token called dashboard"):
        revoke(nomad, "dashboard")


@pytest.mark.parametrize(("role", "ttl"), [("root", 0), ("operator", 5), ("operator", 10**6)])
def test_what_cannot_be_is_refused(nomad: NomadClient, role: str, ttl: int) -> None:
    with pytest.raises(RoostError) as caught:
        grant(nomad, "x", role, ttl)
    assert caught.value.exit_code == 2


def test_a_changed_policy_is_told_once(nomad: NomadClient) -> None:
    ensure_role(nomad, "worker")
    assert not ensure_role(nomad, "worker")
    nomad.put("acl/policy/roost-role-worker", {"Name": "roost-role-worker", "Rules": 'node { policy = "write" }'})
    assert ensure_role(nomad, "worker")


def test_a_server_holds_a_token_for_snapshots_of_its_own(nomad: NomadClient, tmp_path: Path) -> None:
    path = tmp_path / own_token.FILE
    assert own_token.ensure(nomad, path, "one", dry_run=True)
    assert not path.exists()
    assert own_token.ensure(nomad, path, "one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not own_token.ensure(nomad, path, "one")
    theirs = NomadClient(dataclasses.replace(nomad._access, token=path.read_text().strip()))
    save_a_snapshot(theirs)
    path.write_text("another\n")  # as after a restored state
    assert own_token.ensure(nomad, path, "one")
    with pytest.raises(NomadRefusedError) as caught:
        save_a_snapshot(theirs)
    assert caught.value.status == 403  # by which `roost fleet snapshot save` knows it
    assert [g.name for g in grants(nomad)] == ["snapshots-one"]
    assert own_token.forget(nomad, ["two", "one"]) == ["snapshots-one"]
    assert own_token.ensure(nomad, path, "one")
    assert own_token.drop(nomad, path, "one")
    assert (path.exists(), grants(nomad)) == (False, [])
    assert not own_token.drop(nomad, path, "one")
    assert own_token.ensure(nomad, path, "one")
    path.unlink()
    assert own_token.drop(nomad, path, "one", dry_run=True)
    assert own_token.drop(nomad, path, "one"), "that its file is missing ends no token"
    assert grants(nomad) == []


def test_tokens_of_machines_that_are_no_servers_any_more_end(nomad: NomadClient, tmp_path: Path) -> None:
    for node in ("one", "two", "gone"):
        assert own_token.ensure(nomad, tmp_path / node, node)
    grant(nomad, "of-a-person", own_token.ROLE)
    grant(nomad, "snapshots-viewer", "read-only")
    assert own_token.sweep(nomad, ["one", "two"], dry_run=True) == ["snapshots-gone"]
    assert own_token.sweep(nomad, ["one", "two"]) == ["snapshots-gone"]
    assert own_token.sweep(nomad, ["one", "two"]) == []
    assert own_token.sweep(nomad, []) == ["snapshots-one", "snapshots-two"]
    assert [g.name for g in grants(nomad)] == ["of-a-person", "snapshots-viewer"]
    for name in ("of-a-person", "snapshots-viewer"):
        revoke(nomad, name)


def test_a_run_ends_what_is_left_of_servers_that_are_none(nomad: NomadClient, tmp_path: Path) -> None:
    node = str(nomad.get("nodes")[0]["Name"])
    for other in ("another", "gone"):
        assert own_token.ensure(nomad, tmp_path / other, other)
    access = nomad._access
    arguments = {
        "address": access.address, "tls_dir": str(access.ca.parent), "token": access.token, "driver": "raw_exec",
        "node": node, "snapshot_token": str(tmp_path / own_token.FILE), "saves_snapshots": True,
        "snapshot_nodes": ["another"],
    }  # fmt: skip
    result = run_module("roost_nomad_setup", arguments)
    assert not result["failed"], result
    assert "end of snapshots-gone" in result["made"]
    assert {g.name for g in grants(nomad)} == {"snapshots-another", f"snapshots-{node}"}
    assert not run_module("roost_nomad_setup", arguments)["changed"]
    assert run_module("roost_nomad_setup", {**arguments, "snapshot_nodes": []})["made"] == ["end of snapshots-another"]
    assert own_token.sweep(nomad, []) == [f"snapshots-{node}"]


def test_a_wrong_token_ends_a_drain_instead_of_passing_for_a_lost_state(nomad: NomadClient) -> None:
    access = nomad._access
    arguments = {"state": "drained", "node": "one", "address": access.address, "tls_dir": str(access.ca.parent)}
    assert not run_module("roost_gate", {**arguments, "token": access.token})["failed"]
    result = run_module("roost_gate", {**arguments, "token": str(uuid.uuid4())})
    assert result["failed"]
    assert "does not know our operator token" in result["msg"]
    _, secret = grant(nomad, "of-little-use", "worker")
    result = run_module("roost_gate", {**arguments, "token": secret})
    assert result["failed"]
    assert "403" in result["msg"]
    revoke(nomad, "of-little-use")


@pytest.mark.parametrize("state", ["ready", "left"])
def test_a_server_is_not_begun_anew_nor_leaves_where_a_wrong_token_may_not_ask(
    nomad: NomadClient, tmp_path: Path, state: str
) -> None:
    arguments = server_arguments(nomad, tmp_path, state)
    first = run_module("roost_nomad_server", arguments)
    assert (first["failed"], first["set_up"]) == (False, []), first
    _, little = grant(nomad, f"for-{state}", "worker")
    for token, reason in ((str(uuid.uuid4()), "does not know our operator token"), (little, "403")):
        result = run_module("roost_nomad_server", {**arguments, "token": token})
        assert result["failed"]
        assert reason in result["msg"]
    revoke(nomad, f"for-{state}")


@pytest.mark.parametrize("state", ["ready", "left"])
def test_of_a_nomad_that_lost_its_state_a_server_is_begun_anew_and_that_is_told(tmp_path: Path, state: str) -> None:
    with nomad_agent(tmp_path) as agent:
        agent.stop()
        shutil.rmtree(agent.state)
        agent.start(set_up=False)
        arguments = server_arguments(agent.client, tmp_path, state)
        result = run_module("roost_nomad_server", arguments)
        assert (result["failed"], result["set_up"], result["changed"]) == (False, ["acl"], True), result
        agent.client.get("nodes")
        assert run_module("roost_nomad_server", arguments)["set_up"] == []


def server_arguments(client: NomadClient, folder: Path, state: str) -> dict[str, object]:
    """Return what has the only server begin anew, or a machine leave that is none."""
    access = client._access
    mine = client.leader() if state == "ready" else "192.0.2.9:4647"
    return {
        "state": state, "rpc_address": mine, "folder": str(folder / "kept"),
        "address": access.address, "tls_dir": str(access.ca.parent), "token": access.token,
    }  # fmt: skip


def test_before_a_nomad_that_lost_its_state_a_drain_passes(tmp_path: Path) -> None:
    with nomad_agent(tmp_path) as agent:
        agent.stop()
        shutil.rmtree(agent.state)
        agent.start(set_up=False)
        access = agent.client._access
        arguments = {
            "state": "drained", "node": "one", "address": access.address, "tls_dir": str(access.ca.parent),
            "token": access.token,
        }  # fmt: skip
        setup = {
            "address": access.address, "tls_dir": str(access.ca.parent), "token": access.token, "driver": "raw_exec",
            "snapshot_token": str(tmp_path / own_token.FILE),
        }  # fmt: skip
        check = run_module("roost_nomad_setup", setup, check=True)
        assert check["made"] == ["acl", "policy"]
        other = {**setup, "first": False, "set_up": check["made"], "at_work": True}
        assert run_module("roost_nomad_setup", other, check=True)["made"] == ["Nomad begun anew"]
        assert run_module("roost_nomad_setup", {**other, "begun": True}, check=True)["made"] == []
        result = run_module("roost_gate", arguments)
        assert not result["failed"], result
        assert "lost its state" in result["note"]
        assert result["set_up"] == ["acl"]
        assert "note" not in run_module("roost_gate", arguments), "it knows the token now"


def test_every_policy_file_is_used() -> None:
    assert {path.stem for path in POLICIES.glob("*.hcl")} == {*ROLES, "agent", "gateway"}
