"""A machine becomes a fleet of three servers, which is then changed again and again while clients ask all the time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import story
from tests.e2e.fleet import API_PORT, CLONE, UNDER_LOAD, Fleet, booted
from tests.e2e.load import Load, asking
from tests.hosts.docker import Result
from tests.hosts.host import Host, lan, wait_until

Json = Any
# Of the kernel's clock, which the hosts share.
BEGUN = "systemctl show --property=ActiveEnterTimestampMonotonic --value roost-nomad"
LONG = pytest.mark.long  # changed again and again: only with --long

Measure = Callable[[str, float], None]
NAMES = ["fleet-1", "fleet-2", "fleet-3"]
REQUESTS = 2000
VOTERS_S = 60.0
KEY_S = 20.0
ENDED_S = 30.0  # for what Nomad gave to others in between
DOCKERFILE = f"{CLONE}/images/llama-server/Dockerfile"
RPC_PORT = 4647  # of Nomad
SLOT = {"slot": "main", "parallel": 2, "cache_ram_mib": 256, "temperature": None}


@dataclass
class Grown:
    """The fleet, and what the machine had when it was alone."""

    fleet: Fleet
    before: dict[str, str]


KEPT = {
    "node": "cat /var/lib/roost/nomad/client/client-id",
    "models": "cd /var/lib/roost/models && find . -name '*.gguf' -exec stat -c '%n %i %Y' {} + | sort",
    "key": "sha256sum /etc/roost/secrets/api-key",
    "usage": "roost usage --json",
    "keys": "roost keys list --json",
}


@pytest.fixture(scope="module")
def grown(cache: Path, repository: Path, measure: Measure, pytestconfig: pytest.Config) -> Iterator[Grown]:
    with lan("rolling") as net, booted(net, NAMES, cache=cache, repository=repository) as found:
        fleet = Fleet(net, found, NAMES)
        first = fleet.controller
        done = first.bootstrap("--yes")
        measure("r: one host, first run", done.seconds)
        first.exec("roost keys add guest --json > /root/guest.json")
        key = json.loads(first.exec("cat /root/guest.json").out)["key"]
        ask = f"ROOST_API_KEY={key} roost chat 'Hello' --max-tokens 4"
        wait_until("the gateway knows the key", lambda: first.exec(ask, check=False).code == 0, KEY_S)
        before = {name: first.exec(command).out for name, command in KEPT.items()}
        if pytestconfig.getoption("--long"):
            grow_in_vain(fleet)
        done = fleet.deploy(variables=UNDER_LOAD)
        measure("r: one host becomes three servers", done.seconds)
        yield Grown(fleet, before)


def grow_in_vain(fleet: Fleet) -> None:
    """Have the first machine's turn fail when the others vote already: it goes back, and does not shut them out."""
    poison(fleet, ', "--version"')
    try:
        done = fleet.deploy(variables=UNDER_LOAD, check=False)
    finally:
        poison(fleet, "")
    story.failed_clearly(done, "does not stay up")
    assert "put back to what it had" in done.text
    assert "lets in fleet-2, fleet-3" in done.text
    await_voters(fleet)

    def at_work() -> set[str]:
        allocations = fleet.nomad("operator api /v1/allocations")
        return {a["NodeName"] for a in allocations if a["ClientStatus"] == "running"}

    wait_until("its jobs run on it alone", lambda: at_work() == {"fleet-1"}, ENDED_S)
    for name in NAMES[1:]:
        fleet.hosts[name].exec(f"timeout 5 bash -c '</dev/tcp/{fleet.controller.address}/{RPC_PORT}'")


def await_voters(fleet: Fleet) -> None:
    def voters() -> list[str]:
        servers = fleet.nomad("operator api /v1/operator/raft/configuration")["Servers"]
        return sorted(s["Node"].partition(".")[0] for s in servers if s["Voter"])

    wait_until("three servers vote", lambda: voters() == NAMES, VOTERS_S)


def test_one_machine_becomes_three_servers_with_its_data(grown: Grown) -> None:
    fleet, first = grown.fleet, grown.fleet.controller
    await_voters(fleet)
    for name in ("node", "models", "key"):
        assert first.exec(KEPT[name]).out == grown.before[name], name
    assert "guest" in first.exec(KEPT["keys"]).out
    assert "guest" in first.exec(KEPT["usage"]).out
    assert "guest" in grown.before["usage"]
    key = json.loads(first.exec("cat /root/guest.json").out)["key"]
    assert first.exec(f"ROOST_API_KEY={key} roost chat 'Hello' --max-tokens 4", check=False).code == 0
    jobs = {job["ID"] for job in fleet.nomad("operator api /v1/jobs") if not job["Stop"]}
    assert {j for j in jobs if "model" in j} == {f"roost-model-main-{name}" for name in NAMES}


@pytest.fixture(scope="module")
def load(grown: Grown) -> Iterator[Load]:
    urls = [f"https://{grown.fleet.hosts[name].address}:{API_PORT}" for name in NAMES[1:]]
    wait_until("three gateways", lambda: gateways(grown.fleet) == 3, 60)
    with asking(grown.fleet.controller, urls) as load:
        yield load


def gateways(fleet: Fleet) -> int:
    """How many gateways run: the agent's own and the further ones."""
    return sum(found["Port"] == API_PORT for found in fleet.nomad("operator api /v1/service/roost-gateway"))


def versions(fleet: Fleet) -> dict[str, int]:
    """The version of each machine's model server's job."""
    return {name: int(fleet.nomad(f"operator api /v1/job/roost-model-main-{name}")["Version"]) for name in NAMES}


def arguments(fleet: Fleet) -> dict[str, list[str]]:
    """What each machine's model server is started with, and from which image."""
    found = {}
    for name in NAMES:
        config = fleet.nomad(f"operator api /v1/job/roost-model-main-{name}")["TaskGroups"][0]["Tasks"][0]["Config"]
        found[name] = [config["image"], *config["args"]]
    return found


def update(grown: Grown, *args: str, check: bool = True, **variables: object) -> Result:
    return grown.fleet.deploy(*args, check=check, variables=UNDER_LOAD | variables)


def test_an_update_of_every_model_server_is_not_noticed_by_clients(grown: Grown, load: Load, measure: Measure) -> None:
    fleet, before, asked = grown.fleet, arguments(grown.fleet), load.look()
    done = update(grown, model_slots=[SLOT | {"parallel": 3}])
    measure("r: update of three hosts under load", done.seconds)
    after = arguments(fleet)
    assert all(after[name] != before[name] for name in NAMES)
    counted = load.since(asked)
    assert min(counted.values()) > 0
    measure("r: requests in that (count)", sum(counted.values()))
    drained = json.loads(fleet.controller.exec("roost endpoints list --json").out)
    assert not [e for e in drained if e.get("drained")], "an endpoint is still drained"


@LONG
def test_settings_of_docker_are_changed_on_every_machine_without_a_container_lost(
    grown: Grown, load: Load, measure: Measure
) -> None:
    fleet, before, asked = grown.fleet, grown.fleet.pids(), load.look()
    done = update(grown, model_slots=[SLOT | {"parallel": 3}], docker_log_files=2)
    measure("r: Docker begins anew on three hosts under load", done.seconds)
    for name, host in fleet.hosts.items():
        after = host.pids()
        assert after["dockerd"] != before[name]["dockerd"]
        assert after["model-server"] == before[name]["model-server"], "a model server began anew"
        assert '"max-file": "2"' in host.exec("cat /etc/docker/daemon.json").out
    counted = load.since(asked)
    measure("r: requests in that (count)", sum(counted.values()))


def poison(fleet: Fleet, words: str) -> None:
    """Have the model server's image start its program with more arguments, in the clone."""
    entry = f'ENTRYPOINT ["/usr/bin/llama-server"{words}]'
    fleet.controller.exec(f"sed -i 's|^ENTRYPOINT .*|{entry}|' {DOCKERFILE}")


POISONS = [
    pytest.param(', "--version"', "does not stay up", id="exits", marks=LONG),
    pytest.param(', "--api-prefix", "/nowhere"', "did not become healthy", id="starts-and-never-answers"),
]


@pytest.mark.parametrize(("words", "reason"), POISONS)
def test_a_poisoned_image_never_reaches_the_second_host(
    grown: Grown, load: Load, measure: Measure, words: str, reason: str
) -> None:
    fleet, before, asked = grown.fleet, arguments(grown.fleet), load.look()
    others = {name: pids for name, pids in fleet.pids().items() if name != "fleet-1"}
    version = versions(fleet)
    poison(fleet, words)
    try:
        done = update(grown, model_slots=[SLOT | {"parallel": 3}], check=False)
    finally:
        poison(fleet, "")
    measure(f"r: a poisoned image ({reason})", done.seconds)
    story.failed_clearly(done, reason)
    assert "put back to what it had" in done.text
    assert "Not begun: fleet-2, fleet-3" in done.text
    assert arguments(fleet) == before
    assert {name: fleet.hosts[name].pids() for name in others} == others, "another host was touched"
    assert {name: n for name, n in versions(fleet).items() if name != "fleet-1"} == {
        name: n for name, n in version.items() if name != "fleet-1"
    }
    assert "Paris" in fleet.ask(fleet.controller)
    assert sum(load.since(asked).values()) > 0


@LONG
def test_servers_of_nomad_are_upgraded_one_by_one_the_leader_last(grown: Grown, load: Load, measure: Measure) -> None:
    fleet, first, asked = grown.fleet, grown.fleet.controller, load.look()
    old, new = make_second_build(first)
    pids = fleet.pids()
    done = update(grown, model_slots=[SLOT | {"parallel": 3}], nomad_version=new)
    measure("r: upgrade of Nomad on three hosts under load", done.seconds)
    nodes = fleet.nomad("operator api /v1/nodes")
    assert {(n["Name"], n["Version"]) for n in nodes} == {(name, new) for name in NAMES}
    for name, host in fleet.hosts.items():
        assert host.exec("ls /var/lib/roost/update/snapshots/*.snap | wc -l").out.strip() >= "1", name
        assert host.pids()["nomad"] != pids[name]["nomad"]
        assert host.pids()["model-server"] == pids[name]["model-server"], "a model server began anew"
    begun = [int(host.exec(BEGUN).out) for host in fleet.hosts.values()]
    assert begun == sorted(begun)
    assert old != new
    counted = load.since(asked)
    measure("r: requests in that (count)", sum(counted.values()))


def make_second_build(host: Host) -> tuple[str, str]:
    """Make a build of Nomad that says another version, in the host's cache of releases; return old and new version.

    It is the same program with another version string of the same length, as the linker would have written it: what an
    upgrade brings is another matter, but each step of it is the real one.
    """
    python = "PYTHONPATH=/opt/roost/current/app $(ls /opt/roost/venvs/*/bin/python | head -n 1)"
    words = "/opt/roost/bin/nomad /var/cache/roost/nomad"
    old, new = host.exec(f"{python} {CLONE}/tests/hosts/second_nomad.py {words}").out.split()
    return old, new


@LONG
def test_it_was_many_requests(load: Load) -> None:
    wait_until("enough requests", lambda: sum(load.since({"plain": 0, "streamed": 0}).values()) >= REQUESTS, 240)


def test_all_requests_were_answered(load: Load, measure: Measure) -> None:
    found = load.look()
    measure("r: plain requests (count)", found["plain"])
    measure("r: streamed requests (count)", found["streamed"])
    measure("r: failed requests (count)", found["failed"])
    measure("r: the slowest answer", found["slowest_s"])
    assert found["failed"] == 0
    assert found["plain"] > 0
    assert found["streamed"] > 0


def test_an_even_number_of_servers_is_refused_before_anything_changes(grown: Grown) -> None:
    fleet, before = grown.fleet, grown.fleet.pids()
    fleet.servers = NAMES[:2]
    try:
        done = update(grown, check=False)
    finally:
        fleet.servers = NAMES
    story.failed_clearly(done, "1, 3 or 5")
    assert fleet.pids() == before
