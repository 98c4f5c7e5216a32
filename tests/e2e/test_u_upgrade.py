"""A fleet that an earlier revision set up becomes this one, under the eyes of its clients."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import story
from tests.e2e.fleet import API_PORT, CLONE, UNDER_LOAD, Fleet, booted
from tests.e2e.load import Load, asking
from tests.hosts.host import lan, wait_until

pytestmark = pytest.mark.long  # three machines set up twice: only with --long

Measure = Callable[[str, float], None]
NAMES = ["fleet-1", "fleet-2", "fleet-3"]
# The last one in which all gateways of a fleet had one certificate; nobody watched Nomad for jumps of the clock.
BEFORE = "c2579847e28ec1ef5af98ee6d639b98e618c0820"
NAME = "gateway.roost.internal"  # has the addresses of all gateways, as a fleet's name should


@pytest.fixture(scope="module")
def earlier(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the revision before, from this one's history."""
    folder = tmp_path_factory.mktemp("earlier") / "roost"
    git = ["git", "-c", "advice.detachedHead=false"]
    subprocess.run([*git, "clone", "--quiet", "--shared", "--no-checkout", repository, folder], check=True)
    found = subprocess.run([*git, "-C", folder, "checkout", "--quiet", BEFORE], check=False)
    assert found.returncode == 0, f"{BEFORE} is not in the history of this clone; fix: git fetch --unshallow"
    return folder


@pytest.fixture(scope="module")
def fleet(cache: Path, earlier: Path) -> Iterator[Fleet]:
    """Three hosts as the revision before leaves them."""
    with lan("upgrade") as net, booted(net, NAMES, cache=cache, repository=earlier) as found:
        fleet = Fleet(net, found, NAMES)
        # It could place its gateways before its agent, on the agent's own machine.
        fleet.deploy(variables=UNDER_LOAD | {"gateway_replicas": 0})
        fleet.deploy(variables=UNDER_LOAD)
        yield fleet


@pytest.fixture(scope="module")
def load(fleet: Fleet) -> Iterator[Load]:
    """Clients that know one name."""
    first = fleet.controller
    for host in fleet.hosts.values():
        first.exec(f"echo '{host.address} {NAME}' >> /etc/hosts")
    wait_until("each gateway answers", lambda: all(fleet.greets(host, NAME) for host in fleet.hosts.values()), 60)
    with asking(first, [f"https://{NAME}:{API_PORT}"]) as load:
        yield load


def test_the_next_revision_comes_without_a_failed_request(
    fleet: Fleet, load: Load, repository: Path, measure: Measure
) -> None:
    first, others = fleet.controller, [fleet.hosts[name] for name in NAMES[1:]]
    assert not any(fleet.greets(host, host.name) for host in others), "each had its own certificate before"
    first.exec("roost keys add guest --json")
    first.exec(f"rm -rf {CLONE}")
    first.copy_clone(repository)
    asked = load.look()
    done = fleet.deploy(variables=UNDER_LOAD)
    measure("u: upgrade of three hosts under load", done.seconds)
    counted = load.since(asked)
    measure("u: requests in that (count)", sum(counted.values()))
    assert min(counted.values()) > 0
    for host in fleet.hosts.values():
        assert fleet.greets(host, host.name), host.name
        assert fleet.greets(host, host.address), host.name
        assert host.exec("systemctl is-active roost-nomad-watch", check=False).out.strip() == "active", host.name
    assert "guest" in first.exec("roost keys list --json").out


def test_after_that_a_run_changes_nothing_and_every_host_answers(fleet: Fleet, load: Load) -> None:
    before = fleet.pids()
    done = fleet.deploy(variables=UNDER_LOAD)
    assert story.changes(done.out) == 0, done.out
    assert fleet.pids() == before
    for host in fleet.hosts.values():
        assert "Paris" in fleet.ask(host), host.name
    load.since({"plain": 0, "streamed": 0})


def test_purge_leaves_nothing_of_either(fleet: Fleet) -> None:
    fleet.controller.bootstrap("--purge", "--yes")
    for host in fleet.hosts.values():
        left = host.exec("ls -d /etc/roost /opt/roost /var/lib/roost 2>/dev/null", check=False)
        assert left.out == "", f"{host.name}: {left.out}"
        assert not host.pids(), host.name


def test_bare_machines_get_agent_and_gateways_in_one_run(fleet: Fleet, measure: Measure) -> None:
    """An agent and two gateways on three machines with one port: the agent's own machine is taken by no gateway."""
    done = fleet.deploy(variables=UNDER_LOAD)
    measure("u: three bare hosts with two gateways, first run", done.seconds)
    for host in fleet.hosts.values():
        assert "Paris" in fleet.ask(host, gateway=host), host.name
        assert fleet.greets(host, host.name), host.name
    again = fleet.deploy(variables=UNDER_LOAD)
    assert story.changes(again.out) == 0, again.out
