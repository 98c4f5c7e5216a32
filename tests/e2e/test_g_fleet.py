"""Three clean machines become one fleet, from the first of them over SSH: one cluster, answers from each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.fleet.capacity import SYSTEM_SHARE
from roost.hosts.tiers import SYSTEM_MIB
from tests.e2e import story
from tests.e2e.fleet import CLONE, NOMAD, Fleet, booted
from tests.hosts import host as hosts
from tests.hosts.docker import docker
from tests.hosts.host import Host, lan, wait_until

Json = Any
Measure = Callable[[str, float], None]
NAMES = ["fleet-1", "fleet-2", "fleet-3"]
ROUTER, CODING = "roost-model-router-1", "roost-model-coding-fleet-3"
ELSEWHERE_S = 60.0
BACK_S = 120.0
WRITES_S = 10.0


def slots(*more: dict[str, object]) -> list[dict[str, object]]:
    """One of its own for each machine, one somewhere in the fleet, and more."""
    small = {"model": "smollm2-135m-instruct", "context_size": 4096, "cache_ram_mib": 64}
    named: list[dict[str, object]] = [{"slot": "router", "copies": 1, **small}, *({**small, **one} for one in more)]
    return [{"slot": "main", "parallel": 2, "cache_ram_mib": 256}, *named]


@pytest.fixture(scope="module")
def bare(cache: Path, repository: Path) -> Iterator[Fleet]:
    """The first has room for its own model only; only the last one has the slot coding."""
    with lan("fleet") as net, booted(net, NAMES, cache=cache, repository=repository) as found:
        total = int(found["fleet-1"].exec("awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo").out)
        full = total - min(SYSTEM_MIB, int(total * SYSTEM_SHARE)) - 700
        own: dict[str, dict[str, object]] = {name: {"gateway_replicas": 2, "model_slots": slots()} for name in NAMES}
        own["fleet-1"] |= {"reserved_memory_mib": full}
        own["fleet-3"] |= {"model_slots": slots({"slot": "coding"})}
        yield Fleet(net, found, NAMES, own=own)


@pytest.fixture(scope="module")
def fleet(bare: Fleet, measure: Measure) -> Fleet:
    done = bare.deploy()
    measure("g: three hosts, first run", done.seconds)
    assert story.changes(done.out) > 0
    return bare


def test_three_bare_hosts_become_one_cluster(fleet: Fleet) -> None:
    peers = fleet.nomad("operator api /v1/operator/raft/configuration")["Servers"]
    assert {p["Address"].split(":")[0] for p in peers} == {h.address for h in fleet.hosts.values()}
    assert all(p["Voter"] for p in peers)
    nodes = fleet.nomad("node status -json")
    assert {(n["Name"], n["Status"]) for n in nodes} == {(name, "ready") for name in NAMES}


def test_every_host_gets_an_answer(fleet: Fleet) -> None:
    for host in fleet.hosts.values():
        assert "Paris" in fleet.ask(host), host.name


def planned(fleet: Fleet) -> dict[str, dict[str, Json]]:
    """What the fleet's plan says of each job."""
    jobs = json.loads(fleet.controller.exec("roost fleet plan --json").out)["jobs"]
    return {job["job"]: job for job in jobs}


def runs_on(fleet: Fleet, job: str) -> list[str]:
    """Where a job runs by Nomad's word."""
    return [node for node, wanted, status in allocations(fleet, job) if (status, wanted) == ("running", "run")]


def test_one_plan_says_where_each_model_runs_and_who_stands_in(fleet: Fleet) -> None:
    plan = planned(fleet)
    assert set(plan) == {*(f"roost-model-main-{name}" for name in NAMES), ROUTER, CODING}
    for name in NAMES:  # each others' spares
        assert (plan[f"roost-model-main-{name}"]["machine"], plan[f"roost-model-main-{name}"]["spares"]) == (name, [])
    assert (plan[CODING]["machine"], plan[CODING]["spares"]) == ("fleet-3", ["fleet-2"])
    assert {plan[ROUTER]["machine"], *plan[ROUTER]["spares"]} == {"fleet-2", "fleet-3"}
    for job, at in plan.items():
        assert runs_on(fleet, job) == [at["machine"]], job


def test_gateways_on_other_machines_answer_for_all_models(fleet: Fleet) -> None:
    for name in NAMES[1:]:
        host = fleet.hosts[name]
        for slot in ("coding", "router"):
            assert "Paris" in fleet.ask(host, gateway=host, slot=slot), f"{slot} from {name}"
    assert "Paris" in fleet.ask(fleet.controller, gateway=fleet.controller), "at its address on the LAN"


def test_each_gateway_s_certificate_is_of_its_own_machine(fleet: Fleet) -> None:
    for host in fleet.hosts.values():
        for name in (host.address, host.name, "gateway.roost.internal"):
            assert fleet.greets(host, name), f"{host.name} as {name}"
    assert not fleet.greets(fleet.hosts["fleet-2"], fleet.hosts["fleet-3"].address)


@pytest.mark.long
def test_gateways_come_to_a_fleet_at_work_that_had_none(fleet: Fleet) -> None:
    others = [fleet.hosts[name] for name in NAMES[1:]]
    for host in others:  # as on a machine that never had one
        host.exec("rm -f /etc/roost/tls/api.pem /etc/roost/tls/api-key.pem /var/lib/roost/gateway-tls/*")
    fleet.deploy(host_variables={name: {"gateway_replicas": 0} for name in NAMES})
    assert runs_on(fleet, "roost-gateway") == []
    fleet.deploy()
    assert set(runs_on(fleet, "roost-gateway")) == set(NAMES[1:])
    for host in others:
        assert "Paris" in fleet.ask(host, gateway=host), host.name


def test_second_run_changes_nothing(fleet: Fleet, measure: Measure) -> None:
    before = fleet.pids()
    done = fleet.deploy()
    assert story.changes(done.out) == 0, done.out
    assert "layout" not in done.out, f"roles ran though nothing was to be done:\n{done.out}"
    assert fleet.pids() == before
    measure("g: three hosts, second run", done.seconds)


@pytest.mark.long
def test_what_was_changed_by_hand_on_one_machine_is_put_right(fleet: Fleet) -> None:
    before = fleet.pids()
    second = fleet.hosts["fleet-2"]
    unit = "/etc/systemd/system/roost-snapshots.service"
    as_written = second.exec(f"cat {unit}").out
    second.exec("chmod 0777 /etc/roost/firewall.nft")
    # What systemd has read of it is as it was: only the file tells.
    second.exec(f"echo '# by hand' >>{unit} && systemctl daemon-reload")
    assert story.changes(fleet.deploy().out) == 2
    assert second.exec("stat -c %a /etc/roost/firewall.nft").out.strip() == "644"
    assert second.exec(f"cat {unit}").out == as_written
    assert fleet.pids() == before


def test_nodes_made_nothing_that_the_first_one_has(fleet: Fleet) -> None:
    for name in NAMES[1:]:
        steps = fleet.hosts[name].exec("ls /var/cache/roost").out.split()
        assert "go" not in steps, "Nomad was built here"
    command = "docker image ls --no-trunc --quiet --filter label=org.roost.image | sort"
    listed = {host.exec(command).out for host in fleet.hosts.values()}
    assert len(listed) == 1, "an image is another one here"


def test_nothing_of_the_fleet_answers_a_stranger(fleet: Fleet, cache: Path, repository: Path) -> None:
    with hosts.running(Host.start(hosts.NEIGHBOUR, "g-stranger", lan=fleet.lan, number=99, cache=cache)) as stranger:
        stranger.copy_clone(repository)
        for host in fleet.hosts.values():
            found = json.loads(stranger.exec(f"python3 {CLONE}/tests/hosts/scan.py {host.address}").out)
            assert set(found) == {22}, host.name


def test_status_shows_every_machine(fleet: Fleet) -> None:
    state = json.loads(fleet.controller.exec("roost fleet status --json").out)
    assert state["healthy"]
    assert state["tolerates"] == 1
    assert {(m["name"], m["server"], m["state"]) for m in state["machines"]} == {(n, True, "ready") for n in NAMES}
    assert all(f"roost-model-main-{m['name']}" in m["jobs"] for m in state["machines"])


def test_after_a_run_a_check_finds_nothing_to_change(fleet: Fleet) -> None:
    done = fleet.deploy("--check", "--verbose")
    assert "A run would change nothing." in done.out, done.out
    assert not [line for line in done.out.splitlines() if line.startswith(("+++ ", "--- "))], done.out


def lead(fleet: Fleet, name: str) -> None:
    """Make a server the leader."""
    address = f"{fleet.hosts[name].address}:4647"
    ask = f"{NOMAD} operator api /v1/status/leader"

    def leads() -> bool:
        if address in fleet.controller.exec(ask, check=False).out:
            return True
        # Raft gives it a second, which a busy machine may miss.
        fleet.controller.exec(f"{NOMAD} operator raft transfer-leadership -peer-address={address}", check=False)
        return False

    wait_until(f"{name} leads", leads, 60, pause_s=1)


def test_a_lost_leader_restarts_nothing_and_its_models_answer_elsewhere(fleet: Fleet, measure: Measure) -> None:
    lead(fleet, "fleet-3")
    others = {name: pids for name, pids in fleet.pids().items() if name != "fleet-3"}
    docker("kill", "fleet-3")
    try:
        # What was on its way to the lost one hangs until its connection is given up: each attempt is a new request.
        write = f"timeout 3 sh -c '{NOMAD} var put -force test/after-the-loss a=1'"
        writes = wait_until("writes resume", lambda: fleet.controller.exec(write, check=False).code == 0, 60)
        measure("g: writes resume after the leader is lost", writes)
        begin = time.monotonic()
        assert "Paris" in fleet.ask(fleet.hosts["fleet-2"])
        measure("g: answer after a machine is lost", time.monotonic() - begin)
        assert writes <= WRITES_S
        assert {name: fleet.hosts[name].pids() for name in others} == others
    finally:
        docker("start", "fleet-3")
    fleet.hosts["fleet-3"].wait_booted()
    wait_until("it is back", lambda: fleet.controller.exec("roost fleet status", check=False).code == 0, BACK_S)
    wait_until("its model is back", lambda: "model-server" in fleet.hosts["fleet-3"].pids(), BACK_S)


def test_a_lost_client_s_models_answer_from_their_spares_and_go_back_to_it(fleet: Fleet, measure: Measure) -> None:
    lead(fleet, "fleet-1")  # seldom anew: the one before it was lost, and who leads anew believes in each for 40 s
    others = {name: pids for name, pids in fleet.pids().items() if name != "fleet-3"}
    docker("kill", "fleet-3")
    try:
        begin = time.monotonic()
        assert "Paris" in fleet.ask(fleet.hosts["fleet-2"], gateway=fleet.hosts["fleet-2"], slot="coding")
        seconds = time.monotonic() - begin
        measure("g: a lost client's only model answers from its spare", seconds)
        assert seconds <= ELSEWHERE_S
        assert runs_on(fleet, CODING) == ["fleet-2"]
        assert {name: fleet.hosts[name].pids() for name in others} == others
    finally:
        docker("start", "fleet-3")
    fleet.hosts["fleet-3"].wait_booted()
    try:
        back = wait_until("all is as planned", lambda: not astray(fleet), ELSEWHERE_S)
        measure("g: a lost client's models are back on it", back)
    except TimeoutError:
        # Nomad's client may ask its own server before that can answer, and fails what it restores: the spare keeps it.
        assert given_up(fleet, CODING, "fleet-3"), allocations(fleet, CODING)
        measure("g: the next run brings them back", fleet.deploy().seconds)
        assert not astray(fleet)
    assert "Paris" in fleet.ask(fleet.controller, slot="coding")
    assert {name: fleet.hosts[name].pids() for name in others} == others


def allocations(fleet: Fleet, job: str) -> list[tuple[str, str, str]]:
    """Node, what is wanted and what is of each allocation of a job."""
    found = fleet.nomad(f"operator api /v1/job/{job}/allocations") or []
    return [(a["NodeName"], a["DesiredStatus"], a["ClientStatus"]) for a in found]


def given_up(fleet: Fleet, job: str, node: str) -> bool:
    """Whether Nomad gave up what it had of a job on a node, and it runs elsewhere."""
    there = [status for name, _, status in allocations(fleet, job) if name == node]
    return set(there) <= {"failed", "lost", "complete"} and bool(runs_on(fleet, job))


def astray(fleet: Fleet) -> dict[str, dict[str, object]]:
    """Return which models do not run where the plan says, and only there: where they should, and where they do.

    What was told to end and has not yet ended runs, too.
    """

    def there(job: str) -> list[str]:
        return [node for node, _, status in allocations(fleet, job) if status == "running"]

    found = {job: (at["machine"], there(job)) for job, at in planned(fleet).items()}
    return {job: {"planned": machine, "runs": on} for job, (machine, on) in found.items() if on != [machine]}


def test_a_machine_comes_and_goes_and_the_others_do_not_notice(
    fleet: Fleet, cache: Path, repository: Path, measure: Measure
) -> None:
    with booted(fleet.lan, ["fleet-4"], cache=cache, repository=repository, first=14) as more:
        new = more["fleet-4"]
        before = fleet.all_pids()
        plan = planned(fleet)
        wider = Fleet(fleet.lan, {**fleet.hosts, **more}, NAMES)
        wider.trust()
        done = fleet.controller.exec(f"roost fleet add fleet-4 --address {new.address}", timeout_s=900)
        measure("g: a machine is added", done.seconds)
        assert fleet.all_pids() == before
        assert {job: at for job, at in planned(fleet).items() if at["machine"] in NAMES} == plan
        assert "Paris" in fleet.ask(new)
        assert new.exec("ls /etc/roost/secrets").out == "", "a machine that is no server holds no secret"
        fleet.controller.exec("roost fleet remove fleet-4 --purge", timeout_s=900)
        assert fleet.all_pids() == before
        assert new.exec("ls -d /etc/roost /opt/roost /var/lib/roost 2>/dev/null", check=False).out == ""
        assert {n["Name"] for n in fleet.nomad("node status -json")} == set(NAMES)


@pytest.mark.long
def test_the_models_of_a_machine_that_leaves_go_to_their_spares(fleet: Fleet, measure: Measure) -> None:
    at = planned(fleet)[ROUTER]
    (spare,) = at["spares"]
    begin = time.monotonic()
    fleet.controller.exec(f"roost fleet remove {at['machine']} --purge --servers fleet-1", timeout_s=900)
    measure("g: a machine is removed, its model moved", time.monotonic() - begin)
    assert runs_on(fleet, ROUTER) == [spare]
    assert "Paris" in fleet.ask(fleet.controller, slot="router")
    (was_server,) = set(NAMES) - {"fleet-1", at["machine"]}
    assert fleet.hosts[was_server].exec("ls /etc/roost/secrets").out == "", "it is no server any more"


def test_a_machine_of_a_fleet_is_not_set_up_for_itself(fleet: Fleet, repository: Path) -> None:
    other = fleet.hosts["fleet-2"]
    if "fleet-2" not in {n["Name"] for n in fleet.nomad("node status -json")}:
        other = fleet.hosts["fleet-3"]
    other.copy_clone(repository)
    story.failed_clearly(other.bootstrap("--yes", check=False), "belongs to a fleet that is set up from fleet-1")


def test_purge_on_the_controller_removes_it_from_all(fleet: Fleet) -> None:
    fleet.controller.bootstrap("--purge", "--yes")
    for host in fleet.hosts.values():
        left = host.exec("ls -d /etc/roost /opt/roost /var/lib/roost /var/lib/docker/overlay2 2>/dev/null", check=False)
        assert left.out == "", f"{host.name}: {left.out}"
        assert not host.pids(), host.name
