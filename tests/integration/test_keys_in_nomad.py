"""Keys in a real Nomad: what `roost keys` writes reaches a running agent without a restart, and no other job."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from roost.fleet import deploy, route_store
from roost.fleet.agent_jobs import KEYS_VARIABLE, AgentChoice, agent_job
from roost.fleet.agent_variables import AGENT_JOB
from roost.fleet.document_store import NomadStore
from roost.fleet.endpoint_list import Drain, with_drain
from roost.fleet.endpoint_store import ENDPOINTS, ensure_endpoints_variable
from roost.fleet.job_text import render_job
from roost.fleet.jobs import Identity
from roost.fleet.key_store import NomadKeyStore, ensure_variable_exists, update
from roost.fleet.nomad_api import NomadClient
from roost.fleet.nomad_setup import AGENT_POLICY, ensure_job_policy, ensure_variable
from roost.gateway.choice.semantic import shipped
from roost.gateway.choice.training.fit import MOST_BYTES
from roost.ops import api_keys
from roost.ops.api_keys import Tier, TierChange, digest_of
from roost.ops.errors import RoostError
from tests.support.engine import REPOSITORY
from tests.support.net import free_port, wait_until
from tests.support.nomad_tls import nomad_server

pytestmark = pytest.mark.timeout(900)
FIRST = "roost-the-first-key"
SOON_S = 90.0  # a few seconds, where nothing else runs
OTHER_JOB = """
job "other" {{
  type = "batch"
  group "other" {{
    task "other" {{
      driver = "raw_exec"
      identity {{
        env = true
      }}
      config {{
        command = "{python}"
        args    = ["{program}"]
      }}
    }}
  }}
}}
"""
ASK = """
import http.client, os, pathlib, socket
answers = []
for path in ("nomad/jobs/other", "{keys}"):
    connection = http.client.HTTPConnection("nomad")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["NOMAD_SECRETS_DIR"] + "/api.sock")
    connection.request("GET", "/v1/var/" + path, headers={{"Authorization": "Bearer " + os.environ["NOMAD_TOKEN"]}})
    answers.append(str(connection.getresponse().status))
made = pathlib.Path("{answers}")
made.with_suffix(".new").write_text(" ".join(answers))
made.with_suffix(".new").rename(made)
"""


@dataclasses.dataclass(frozen=True)
class Running:
    """A Nomad with the agent's job in it."""

    client: NomadClient
    url: str
    state: Path

    def ask(self, path: str, key: str) -> httpx.Response:
        """Ask the agent."""
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=60)

    def started(self) -> str:
        """Return when the agent's task was started."""
        (allocation,) = self.client.allocations(AGENT_JOB)
        return str(allocation["TaskStates"]["agent"]["StartedAt"])


@contextmanager
def agent_in_nomad(folder: Path) -> Iterator[Running]:
    """Run the agent as a job of a real Nomad, from the product's own template."""
    state = folder / "state"
    state.mkdir()
    with nomad_server(folder) as client:
        ensure_job_policy(client, AGENT_JOB, AGENT_POLICY)
        ensure_variable(
            client, f"nomad/jobs/{AGENT_JOB}", {"engine_key": "k", "api_key_sha256": digest_of(FIRST) + "\n"}
        )
        assert ensure_variable_exists(client)
        assert route_store.ensure_variable_exists(client)
        assert ensure_endpoints_variable(client)
        port = free_port()
        choice = AgentChoice(
            "raw_exec",
            "127.0.0.1",
            port,
            256,
            "info",
            state_dir=str(state),
            env={"PYTHONPATH": str(REPOSITORY / "app"), "ROOST_TIERS": '{"bulk": {"requests": 7}}'},
        )
        job = agent_job(choice, Identity("", "", os.getuid(), os.getgid()), datacenter="dc1")
        job = dataclasses.replace(job, command=sys.executable, args=["-P", "-m", "roost.cli.serve"])
        deploy.apply(client, render_job(REPOSITORY / "nomad", job), dry_run=False, timeout_s=180)
        try:
            yield Running(client, f"http://127.0.0.1:{port}", state)
        finally:
            deploy.stop(client, AGENT_JOB, purge=True, timeout_s=60)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Return a Nomad with the agent, for all tests of this file."""
    # Not below pytest's folder: the path of the Task API's socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="n", ignore_cleanup_errors=True) as folder,
        agent_in_nomad(Path(folder)) as found,
    ):
        yield found


def test_a_key_is_good_within_seconds_and_worthless_within_seconds_without_a_restart(running: Running) -> None:
    started, store, secret = running.started(), NomadKeyStore(running.client), api_keys.new_secret()
    assert running.ask("/v1/key", FIRST).json()["role"] == "admin"
    assert running.ask("/v1/key", secret).status_code == 401
    key = api_keys.made_key({"name": "alice", "sha256": digest_of(secret), "tier": "bulk"})
    update(store, lambda document: api_keys.with_key(document, key))
    took = {}
    begun = time.monotonic()
    wait_until(lambda: running.ask("/v1/key", secret).status_code == 200, SOON_S, "the new key", step_s=0.1)
    took["add"] = time.monotonic() - begun
    assert running.ask("/v1/key", secret).json()["limits"]["requests"] == 7
    update(store, lambda document: api_keys.with_tier(document, Tier.BULK, TierChange(requests=3)))
    wait_until(
        lambda: running.ask("/v1/key", secret).json()["limits"]["requests"] == 3, SOON_S, "the new limit", step_s=0.1
    )
    begun = time.monotonic()
    update(store, lambda document: api_keys.without_key(document, "alice", key.created or _now(), purge=False))
    wait_until(lambda: running.ask("/v1/key", secret).status_code in (401, 429), SOON_S, "its end", step_s=0.1)
    took["revoke"] = time.monotonic() - begun
    assert running.started() == started


def test_a_trained_router_is_used_within_seconds_without_a_restart(running: Running) -> None:
    started, store = running.started(), route_store.NomadRouteStore(running.client)
    mine = shipped().file.model_copy(update={"origin": "of the test"})

    def used() -> str:
        return str(running.ask("/roost/v1/router", FIRST).json()["origin"])

    assert used() == "shipped"
    route_store.replace_router(store, mine.text())
    wait_until(lambda: used() == "of the test", SOON_S, "the new router", step_s=0.1)
    assert not route_store.ensure_variable_exists(running.client)
    route_store.undo(store)
    wait_until(lambda: used() == "shipped", SOON_S, "the router before", step_s=0.1)
    assert running.started() == started


def test_two_of_the_largest_routers_have_room(running: Running) -> None:
    store = route_store.NomadRouteStore(running.client)
    kept, _ = store.load()
    for number in range(2):
        route_store.replace_router(store, str(number) * MOST_BYTES)
    assert [len(text) for text in (store.load()[0].present, store.load()[0].previous)] == [MOST_BYTES, MOST_BYTES]
    with pytest.raises(RoostError, match="does not take the router"):
        route_store.replace_router(store, "x" * 2 * MOST_BYTES)
    store.save(kept, store.load()[1])


def test_an_endpoint_added_over_the_api_is_kept_in_the_variable_and_outlives_the_agent(running: Running) -> None:
    path, added = "/roost/v1/endpoints", {"name": "box", "url": "https://127.0.0.1:9", "engine": "vllm", "key": "k-1"}
    headers = {"Authorization": f"Bearer {FIRST}"}
    wait_until(lambda: running.ask("/healthz", FIRST).status_code == 200, SOON_S, "the agent", step_s=0.1)
    made = httpx.post(running.url + path, json=added, headers=headers, trust_env=False, timeout=60)
    assert made.status_code == 201, made.text
    store = NomadStore(running.client, ENDPOINTS)
    assert [(e.name, e.key.get_secret_value()) for e in store.load()[0].endpoints] == [("box", "k-1")]
    assert "k-1" not in running.ask(path, FIRST).text
    update(store, lambda document: with_drain(document, Drain(endpoint="box")))  # as another gateway would

    def drained() -> bool:
        return any(entry.get("drained") for entry in running.ask(path, FIRST).json()["data"])

    wait_until(drained, SOON_S, "the drain", step_s=0.1)
    (allocation,) = running.client.allocations(AGENT_JOB)
    started = running.started()
    running.client.put(f"client/allocation/{allocation['ID']}/restart", {})
    wait_until(lambda: running.started() != started, SOON_S, "the restart", step_s=0.1)
    wait_until(lambda: _answers(running) and drained(), SOON_S, "what was added", step_s=0.1)
    gone = httpx.delete(f"{running.url}{path}/box", headers=headers, trust_env=False, timeout=60)
    assert (gone.status_code, store.load()[0].endpoints) == (200, ())


def _answers(running: Running) -> bool:
    try:
        return running.ask("/healthz", FIRST).status_code == 200
    except httpx.HTTPError:
        return False


def test_two_at_once_lose_nothing(running: Running) -> None:
    def add(number: int) -> None:
        key = api_keys.made_key({"name": f"both-{number}", "sha256": digest_of(str(number))})
        update(NomadKeyStore(running.client), lambda document: api_keys.with_key(document, key))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    names = {key.name for key in NomadKeyStore(running.client).load()[0].keys}
    assert {f"both-{number}" for number in range(12)} <= names


def test_a_later_run_of_the_playbook_keeps_the_keys(running: Running) -> None:
    before = NomadKeyStore(running.client).load()
    items = {"engine_key": "k", "api_key_sha256": digest_of(FIRST) + "\n"}
    assert not ensure_variable_exists(running.client)
    assert not ensure_variable(running.client, f"nomad/jobs/{AGENT_JOB}", items)
    assert NomadKeyStore(running.client).load() == before


def test_a_variable_that_is_full_says_so(running: Running) -> None:
    """How many keys fit: docs/operations.md says at least 300."""
    plain = [
        api_keys.made_key(
            {"name": f"key-{n:04d}", "sha256": digest_of(str(n)), "created": _now(), "owner": "somebody@example.org"}
        )
        for n in range(300)
    ]
    store = NomadKeyStore(running.client)
    kept, _ = store.load()
    update(store, lambda document: document.model_copy(update={"keys": tuple(plain)}))
    many = tuple(key.model_copy(update={"name": f"{key.name}-{n}"}) for key in plain for n in range(9))
    with pytest.raises(RoostError, match="takes no more keys"):
        update(store, lambda document: document.model_copy(update={"keys": many}))
    update(store, lambda _document: kept)


def test_nomad_takes_the_containers_job_too(running: Running) -> None:
    choice = AgentChoice("docker", "127.0.0.1", 8360, 256, "info", image="roost/agent:1", listen="192.0.2.1:8443")
    job = agent_job(choice, Identity("a", "a", 8361, 8361), datacenter="dc1")
    parsed = deploy.parse(running.client, render_job(REPOSITORY / "nomad", job))
    (group,) = parsed["TaskGroups"]
    assert group["Volumes"]["state"]["Source"] == "roost-agent"
    assert not group["Volumes"]["state"]["ReadOnly"]


def test_another_job_may_not_read_the_keys(running: Running, tmp_path: Path) -> None:
    text = OTHER_JOB.format(python=sys.executable, program=tmp_path / "ask.py")
    (tmp_path / "ask.py").write_text(ASK.format(answers=tmp_path / "answers", keys=KEYS_VARIABLE))
    running.client.put("jobs", {"Job": deploy.parse(running.client, text)})
    try:
        wait_until((tmp_path / "answers").exists, SOON_S, "the other job's answers")
    except AssertionError as late:
        (allocation,) = running.client.allocations("other")
        log = b"".join(running.client.logs(allocation["ID"], "other")).decode()
        raise AssertionError(f"{late}: {log}") from None
    deploy.stop(running.client, "other", purge=True, timeout_s=30)
    assert (tmp_path / "answers").read_text().split() == ["404", "403"]  # its own, which is not there, and the keys


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
