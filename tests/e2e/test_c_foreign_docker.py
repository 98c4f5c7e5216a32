"""A host that had a Docker before us, with an image, a running container and settings of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import story
from tests.e2e.story import Site
from tests.hosts import host as hosts
from tests.hosts.host import Host, wait_until

Measure = Callable[[str, float], None]
SETTINGS = '{"labels": ["theirs=1"], "log-opts": {"max-size": "3m"}}\n'


def give_docker(host: Host) -> None:
    """Install Docker as its owner would, and run something in it."""
    host.exec("mkdir -p /etc/docker")
    host.write("/etc/docker/daemon.json", SETTINGS)
    host.exec("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install docker.io")
    host.exec("tar -C / -c bin sbin lib lib64 usr/bin usr/lib64 usr/lib/x86_64-linux-gnu | docker import - theirs:1")
    host.exec("docker run -d --name theirs --restart unless-stopped --publish 9999:9999 theirs:1 sleep 100000")


def theirs(host: Host) -> tuple[str, int, str]:
    """Identity, PID and start of their container."""
    state = json.loads(host.exec("docker inspect theirs").out)[0]
    return str(state["Id"]), int(state["State"]["Pid"]), str(state["State"]["StartedAt"])


@pytest.fixture(scope="module")
def clean(cache: Path, repository: Path) -> Iterator[Site]:
    with story.clean_site(hosts.SYSTEMD, "host-c", cache=cache, repository=repository) as site:
        give_docker(site.host)
        yield Site(site.host, site.host.snapshot(), site.cache)


@pytest.fixture(scope="module")
def installed(clean: Site, measure: Measure) -> Site:
    measure("c: first run", story.first_run(clean).seconds)
    return clean


def test_first_run_uses_it_and_leaves_theirs_alone(clean: Site, request: pytest.FixtureRequest) -> None:
    before, daemon = theirs(clean.host), clean.host.pids()["dockerd"]
    request.getfixturevalue("installed")
    assert theirs(clean.host) == before
    assert clean.host.pids()["dockerd"] == daemon
    assert clean.host.exec("cat /etc/docker/daemon.json").out == SETTINGS


def test_second_run_changes_nothing(installed: Site, measure: Measure) -> None:
    before = theirs(installed.host)
    story.second_run_changes_nothing(installed.host, measure)
    assert theirs(installed.host) == before


def test_purge_leaves_docker_and_theirs_running(installed: Site) -> None:
    before = theirs(installed.host)
    story.purge_leaves_no_trace(installed)
    assert theirs(installed.host) == before
    wait_until("their container runs", lambda: "theirs" in installed.host.exec("docker ps").out, 10)
