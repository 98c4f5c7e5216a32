"""A real Nomad loses all that it knew, is set up anew with the secrets that are left, and goes back to a snapshot."""

from __future__ import annotations

import dataclasses
import http.client
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roost.fleet import snapshots
from roost.fleet.access import grant
from roost.fleet.node_identity import heartbeat, is_silent, renew
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.fleet.nomad_setup import wait_for_node
from roost.ops.errors import RoostError
from tests.support.net import wait_until
from tests.support.nomad_tls import READY_S, Agent, nomad_agent

KEPT = "roost/kept"
ITEMS = {"word": "remembered"}
JOB: dict[str, Any] = {
    "ID": "kept", "Name": "kept", "Type": "service", "Datacenters": ["dc1"],
    "TaskGroups": [{
        "Name": "g", "Count": 0,
        "Tasks": [{"Name": "t", "Driver": "raw_exec", "Config": {"command": "sleep", "args": ["9"]}}],
    }],
}  # fmt: skip


@pytest.fixture(scope="module")
def nomad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with nomad_agent(tmp_path_factory.mktemp("restore")) as agent:
        yield agent


def kept(client: NomadClient) -> object:
    try:
        return client.get(f"var/{KEPT}")["Items"]
    except NomadRefusedError as error:
        if error.status != http.client.NOT_FOUND:
            raise
        return None


def test_what_was_lost_is_there_again_with_keys_tokens_and_jobs(nomad: Agent, tmp_path: Path) -> None:
    client = nomad.client
    client.put(f"var/{KEPT}", {"Namespace": "default", "Path": KEPT, "Items": ITEMS})
    client.put("jobs", {"Job": JOB})
    _, secret = grant(client, "ada", "operator")
    hers = NomadClient(dataclasses.replace(client._access, token=secret))
    (node,) = hers.get("nodes")
    saved = snapshots.save(client, tmp_path, keep=3, now=datetime.now(UTC))

    nomad.stop()
    shutil.rmtree(nomad.state)
    assert nomad.start(), "its access control was still there"
    assert (kept(client), client.job("kept")) == (None, None)
    with pytest.raises(NomadRefusedError) as caught:
        hers.get("nodes")
    assert caught.value.status == 403

    assert snapshots.restore(client, saved.path) == (saved.index, saved.term)
    assert kept(client) == ITEMS
    assert client.job("kept")
    wait_for_node(client, READY_S, "raw_exec")
    (back,) = hers.get("nodes")
    assert back["ID"] == node["ID"]
    assert renew(client) == []

    nomad.stop()
    assert not nomad.start(), "it did not know its operator's token"
    assert kept(client) == ITEMS, "what was restored was not kept"


def test_a_damaged_snapshot_changes_nothing(nomad: Agent, tmp_path: Path) -> None:
    client = nomad.client
    client.put(f"var/{KEPT}", {"Namespace": "default", "Path": KEPT, "Items": ITEMS})
    path = snapshots.save(client, tmp_path, keep=3, now=datetime.now(UTC)).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RoostError, match=r"damaged|no whole snapshot"):
        snapshots.restore(client, path)
    assert kept(client) == ITEMS


def test_a_client_that_is_accepted_says_so(nomad: Agent) -> None:
    def heard() -> bool:
        found = heartbeat(nomad.client)
        return found is not None and found.ttl_s > 0

    wait_until(heard, READY_S, "the client's first heartbeat")
    assert not is_silent(nomad.client)
    assert heartbeat(nomad.anonymous) is None
