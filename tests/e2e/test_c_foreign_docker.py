"""Whose Docker it is: one that was there before us, with a container and settings, and ours that others came to use."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roost.ops.packages import parse_simulation
from tests.e2e import story
from tests.e2e.person import person
from tests.e2e.searxng_image import pages_served, searxng_loaded
from tests.e2e.story import AFTER_PURGE, Site
from tests.hosts import host as hosts
from tests.hosts.host import Host, wait_until
from tests.hosts.snapshot import Difference, compare
from tests.support.searxng import engine_of_pages

Measure = Callable[[str, float], None]
IMPORT = "tar -C / -c bin sbin lib lib64 usr/bin usr/lib64 usr/lib/x86_64-linux-gnu | docker import -"
# What Nomad and the agent do all the time, what Python and a run leave, and history.json: what was current, by which
# older images are told. SearXNG's is in it from then on, as its image stays for another `enable`.
AFTER_A_RUN = (
    r"^/var/lib/roost/(nomad|agent)/",
    r"^/var/lib/roost/(last-verify|artifacts/history)\.json$",
    r"/__pycache__(/|$)",
)
STRANGERS = "stranger:1"
# What Docker makes beside the files of its packages, and what it shows while it runs.
DOCKERS = (
    r"^file: (/var/lib/(docker|containerd)|/opt/containerd|/etc/docker|/var/log/docker\.log)(/|:|$)",
    r"^file: /etc/(rc\d\.d/[SK]\d\ddocker|systemd/system/.*\.wants/(docker|containerd)\.(service|socket))$",
    r"^file: /etc/(cni|cni/net\.d|systemd/system/sockets\.target\.wants)$",
    r"^file: (/usr/sbin/(ip|ip6|arp|eb)tables(-restore|-save)?|/etc/networks)$",  # by scripts of what its package needs
    r"^(units|groups|processes|tables|mounts): .*(docker|containerd)",
    rf"^images: {STRANGERS} ",
)
SETTINGS = '{"labels": ["theirs=1"], "log-opts": {"max-size": "3m"}}\n'


def give_docker(host: Host) -> None:
    """Install Docker as its owner would, and run something in it."""
    host.exec("mkdir -p /etc/docker")
    host.write("/etc/docker/daemon.json", SETTINGS)
    host.exec("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install docker.io")
    host.exec(f"{IMPORT} theirs:1")
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


def test_web_search_comes_answers_and_goes(installed: Site, tmp_path: Path, measure: Measure) -> None:
    """SearXNG itself, with one engine that asks a web server of the test, asked by the agent's tool through the hub."""
    host = installed.host
    before, pids = host.snapshot(), host.pids()
    with searxng_loaded(host, tmp_path) as image, pages_served(host) as address:
        entry = json.dumps([engine_of_pages(address)])
        host.exec(f"printf 'web_search_engines: %s\\n' {shlex.quote(entry)} >>/etc/roost/host.yaml")
        done = host.exec(f"roost search enable --json --image {image}")
        measure("c: roost search enable", done.seconds)
        told = json.loads(done.out)
        assert (told["healthy"], told["answered"]["results"]) == (True, 1)
        found = json.loads(host.exec("roost search status --json --query owls").out)
        assert (found["enabled"], found["healthy"], found["answered"]["results"]) == (True, True, 1)
        with person(host, "anna") as anna:
            assert "About barn owls\nhttps://example.org/a" in anna.tool("web_search", query="barn owls")
        story.second_run_changes_nothing(host, measure)
        host.exec("roost search disable")
        assert json.loads(host.exec("roost search status --json").out)["enabled"] is False
    difference = compare(before, host.snapshot(), ignore_paths=AFTER_A_RUN)
    ours = tuple(line for line in difference.added if line.startswith("images: roost/search:"))
    assert (len(ours), difference) == (1, Difference(ours, (), ())), str(difference)
    assert host.pids() == pids


def test_purge_leaves_docker_and_theirs_running(installed: Site) -> None:
    before = theirs(installed.host)
    story.purge_leaves_no_trace(installed)
    assert theirs(installed.host) == before
    wait_until("their container runs", lambda: "theirs" in installed.host.exec("docker ps").out, 10)


@pytest.fixture(scope="module")
def brought(cache: Path, repository: Path, measure: Measure) -> Iterator[Site]:
    """A host whose Docker came with Roost, and holds an image of somebody else's."""
    with story.clean_site(hosts.SYSTEMD, "c-brought", cache=cache, repository=repository) as site:
        measure("c-brought: first run", story.first_run(site).seconds)
        site.host.exec(f"{IMPORT} {STRANGERS}")
        yield site


def test_uninstall_leaves_a_docker_that_somebody_came_to_use(brought: Site) -> None:
    """With its packages, free to be upgraded, its service and what is theirs in it; none of ours."""
    host = brought.host
    daemon, image = host.pids()["dockerd"], host.exec(f"docker image inspect --format '{{{{.Id}}}}' {STRANGERS}").out
    said = host.bootstrap("--uninstall", "--yes").text
    assert f"Docker stays, with its data: it holds image {STRANGERS}." in said
    assert host.pids() == {"dockerd": daemon}
    assert host.exec("systemctl is-active docker containerd", check=False).out.split() == ["active", "active"]
    assert host.exec("docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'").out == (
        f"{STRANGERS} {image}"
    )
    assert host.exec("docker container ls --all --quiet").out == ""
    assert host.exec("apt-mark showhold").out == ""
    listed = host.exec("dpkg-query --show --showformat '${db:Status-Abbrev}\\n' docker.io containerd runc iptables").out
    assert listed.split() == ["ii"] * 4
    host.exec(f"docker run --rm {STRANGERS} true")
    assert host.exec("ls -d /opt/roost /usr/local/bin/roost 2>/dev/null", check=False).out == ""


def test_purge_after_that_leaves_docker_and_nothing_of_ours(brought: Site) -> None:
    """What is there now and was not before is what goes where its owner removes it with apt, and what Docker made."""
    host = brought.host
    host.bootstrap("--purge", "--yes")
    gone = parse_simulation(host.exec("apt-get --simulate purge --auto-remove docker.io iptables").out).removed
    files = set(host.exec(f"dpkg --listfiles {' '.join(gone)}").out.splitlines())
    expected = {f"file: {prefix}{file}" for file in files for prefix in ("", "/usr")}  # /lib is /usr/lib
    containerd = host.exec("ss -Hltnp | awk '/containerd/ {print $4}'").out.split()
    expected |= {f"listening: {address}" for address in containerd}
    difference = compare(brought.before, host.snapshot(), ignore_paths=AFTER_PURGE)
    added = [line for line in difference.added if line not in expected and not re.search("|".join(DOCKERS), line)]
    packages = {line.split()[2]: line for line in added if line.startswith("packages: ")}
    assert set(packages) == set(gone)
    others = set(added) - set(packages.values())
    assert (others, difference.removed, difference.changed) == (set(), (), ()), str(difference)
    assert host.exec("docker image ls --format '{{.Repository}}:{{.Tag}}'").out == f"{STRANGERS}\n"
