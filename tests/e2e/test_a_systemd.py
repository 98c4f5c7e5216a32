"""A clean Debian 12 with systemd: everything a user does with one machine, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import story
from tests.e2e.story import Site
from tests.hosts import host as hosts
from tests.hosts.docker import docker
from tests.hosts.host import CLONE, Host, Lan, lan
from tests.hosts.snapshot import compare

Measure = Callable[[str, float], None]
LISTEN_PORT = 8443
# Raft's log, the client's state and the tasks' logs change while Nomad runs, and the agent counts every question.
NOMAD_AT_WORK = (r"^/var/lib/roost/nomad/", r"^/var/lib/roost/agent/")


@pytest.fixture(scope="module")
def net() -> Iterator[Lan]:
    with lan("host-a") as made:
        yield made


@pytest.fixture(scope="module")
def clean(net: Lan, cache: Path, repository: Path) -> Iterator[Site]:
    with story.site_on(net, hosts.SYSTEMD, "host-a", cache=cache, repository=repository) as site:
        yield site


@pytest.fixture(scope="module")
def installed(clean: Site, measure: Measure) -> Site:
    measure("a: first run", story.first_run(clean).seconds)
    return clean


@pytest.fixture(scope="module")
def neighbour(net: Lan, cache: Path, repository: Path) -> Iterator[Host]:
    with hosts.running(Host.start(hosts.NEIGHBOUR, "a-neighbour", lan=net, number=20, cache=cache)) as host:
        host.copy_clone(repository)
        yield host


def open_ports(neighbour: Host, address: str) -> list[int]:
    found: list[int] = json.loads(neighbour.exec(f"python3 {CLONE}/tests/hosts/scan.py {address}").out)
    return found


def test_check_before_the_first_run_changes_nothing(clean: Site) -> None:
    said = story.check_changes_nothing(clean).text.lower()
    assert "docker" in said
    assert "nomad" in said


def test_first_run_ends_with_an_answer(installed: Site) -> None:
    story.state_is_private(installed.host)


def test_second_run_changes_nothing(installed: Site, measure: Measure) -> None:
    story.second_run_changes_nothing(installed.host, measure)


def test_nothing_answers_on_the_network(installed: Site, neighbour: Host) -> None:
    assert open_ports(neighbour, installed.host.address) == []


def test_check_of_an_installed_host_is_truthful(installed: Site) -> None:
    host = installed.host
    before, pids = host.snapshot(), host.pids()
    assert "A run would change nothing." in host.bootstrap("--check").text
    other = host.bootstrap("--check", "--verbose", "--set", "agent_log_level=debug").text
    assert "roost-agent" in other
    assert "roost-model-main" not in other
    difference = compare(before, host.snapshot(), ignore_paths=NOMAD_AT_WORK)
    assert not difference, str(difference)
    assert host.pids() == pids


def test_the_host_says_what_it_is(installed: Site) -> None:
    story.says_what_it_is(installed.host)


def test_the_agent_answers_and_remembers(installed: Site) -> None:
    host = installed.host
    events = host.exec("roost agent --json 'What is the capital of France?'", timeout_s=300).out.splitlines()
    said = "".join(event["text"] for event in map(json.loads, events) if event["type"] == "text")
    assert "Paris" in said
    (kept,) = json.loads(host.exec("roost sessions list --json").out)
    assert said.strip() in host.exec(f"roost sessions show {kept['id']}").out
    assert [hit["session"] for hit in json.loads(host.exec("roost sessions search france --json").out)][:1] == [
        kept["id"]
    ]
    host.exec(f"roost sessions purge {kept['id']} --yes")
    assert "intact: 1 entries" in host.exec("roost audit verify").out


@pytest.mark.parametrize("process", story.FAULTS)
def test_a_killed_process_comes_back(installed: Site, process: str, measure: Measure) -> None:
    story.survives_kill(installed.host, process, measure)


def test_dockerd_restart(installed: Site, measure: Measure) -> None:
    host = installed.host
    story.survives(host, "dockerd restart", lambda: host.exec("systemctl restart docker"), measure)


def test_reboot(installed: Site, measure: Measure) -> None:
    story.survives_reboot(installed.host, measure)
    story.second_run_changes_nothing(installed.host, measure)


def test_agent_configuration_moves_only_the_agent(installed: Site) -> None:
    before = installed.host.pids()
    story.the_port_is_kept(installed.host)
    with story.nobody_is_refused(installed.host):
        installed.host.bootstrap("--yes", "--set", "agent_log_level=debug")
    story.only_agent_moves(installed.host, before)


def test_settings_of_docker_are_read_without_a_container_lost(installed: Site) -> None:
    host = installed.host
    before, containers = host.pids(), host.exec("docker ps --quiet --no-trunc | sort").out
    with story.nobody_is_refused(host):
        host.bootstrap("--yes", "--set", "docker_log_files=2")
    after = host.pids()
    assert after["dockerd"] != before["dockerd"]
    assert '"max-file": "2"' in host.exec("cat /etc/docker/daemon.json").out
    assert host.exec("docker ps --quiet --no-trunc | sort").out == containers
    assert {name: after[name] for name in ("agent", "model-server")} == {
        name: before[name] for name in ("agent", "model-server")
    }
    assert "A run would change nothing." in host.bootstrap("--check").text


def test_agent_image_moves_only_the_agent(installed: Site) -> None:
    host = installed.host
    source = f"{CLONE}/app/roost/web/__init__.py"
    for edit in (f"cp {source} /root/was; echo '# another build' >> {source}", f"mv /root/was {source}"):
        before = host.pids()
        host.exec(edit)
        host.bootstrap("--yes")
        story.only_agent_moves(host, before)


def test_an_upgrade_that_does_not_answer_goes_back(installed: Site, measure: Measure) -> None:
    host = installed.host
    host.bootstrap("--yes", "--upgrade")  # brings what Debian has new: after it the code alone is new
    before, current = host.pids(), host.exec("readlink /opt/roost/current").out
    routes = f"{CLONE}/app/roost/gateway/paths.py"
    host.exec(f"cp {routes} /root/was && sed -i 's|^CHAT_PATH = .*|CHAT_PATH = \"/v1/elsewhere\"|' {routes}")
    done = host.bootstrap("--yes", "--upgrade", check=False)
    host.exec(f"mv /root/was {routes}")
    measure("a: upgrade that goes back", done.seconds)
    story.failed_clearly(done, "API refused: Not Found")
    assert "going back" in done.text
    assert "runs as before" in done.text
    assert host.exec("readlink /opt/roost/current").out == current
    story.only_agent_moves(host, before)


def test_an_upgrade_brings_what_is_new_and_the_previous_release_comes_back_by_hand(
    installed: Site, measure: Measure
) -> None:
    host = installed.host
    before, current = host.pids(), host.exec("readlink /opt/roost/current").out
    source = f"{CLONE}/app/roost/web/__init__.py"
    host.exec(f"cp {source} /root/was && echo '# a newer one' >> {source}")
    measure("a: upgrade", host.bootstrap("--yes", "--upgrade").seconds)
    host.exec(f"mv /root/was {source}")
    assert host.exec("readlink /opt/roost/current").out != current
    assert host.exec("readlink /opt/roost/previous").out == current
    story.only_agent_moves(host, before)
    before = host.pids()
    host.exec("/opt/roost/previous/bootstrap.sh --yes")
    assert host.exec("readlink /opt/roost/current").out == current
    story.only_agent_moves(host, before)


def test_wrong_checksum_leaves_what_runs(installed: Site) -> None:
    host = installed.host
    before = host.pids()
    catalogue = f"{CLONE}/group_vars/models.yaml"
    files = host.exec("find /var/lib/roost/models | sort").out
    host.exec(f"cp {catalogue} /root/models.yaml && sed -i 's/sha256: .*/sha256: {'f' * 64}/' {catalogue}")
    done = host.bootstrap("--yes", check=False)
    host.exec(f"mv /root/models.yaml {catalogue}")
    story.failed_clearly(done, "wrong checksum")
    assert host.exec("find /var/lib/roost/models | sort").out == files
    assert host.pids() == before
    story.ask(host)
    assert host.bootstrap("--yes").code == 0
    assert host.pids()["model-server"] == before["model-server"]


def test_listen_opens_one_port_with_tls(installed: Site, neighbour: Host) -> None:
    host = installed.host
    before = host.pids()
    host.bootstrap("--yes", "--listen", host.address)
    story.only_agent_moves(host, before)
    neighbour.write("/root/ca.pem", host.exec("cat /etc/roost/tls/ca.pem").out)
    key = host.exec("cat /etc/roost/secrets/api-key").out.strip()
    url = f"https://{host.address}:{LISTEN_PORT}/v1/models"
    asks = f"curl --silent --show-error --cacert /root/ca.pem --noproxy '*' --write-out '%{{http_code}}' {url}"
    assert "smollm2" in neighbour.exec(f"{asks} --header 'Authorization: Bearer {key}'").out
    assert neighbour.exec(asks).out.endswith("401")
    untrusting = neighbour.exec(
        f"curl --silent --noproxy '*' --cacert /etc/ssl/certs/ca-certificates.crt {url}", check=False
    )
    assert untrusting.code == 60  # curl: the certificate is not from an authority it knows
    assert open_ports(neighbour, host.address) == [LISTEN_PORT]


def test_a_bundle_installs_a_host_without_a_network(
    installed: Site, cache: Path, repository: Path, tmp_path: Path, measure: Measure
) -> None:
    installed.host.exec("roost bundle /root/bundle", timeout_s=1200)
    empty = tmp_path / "cache"
    with (
        lan("a-cut", internal=True) as cut,
        story.site_on(cut, hosts.SYSTEMD, "a-offline", cache=cache, repository=repository, host_cache=empty) as site,
    ):
        copy_folder(installed.host, site.host, "/root/bundle")
        measure("a-offline: first run from a bundle", story.first_run(site, "--offline", "/root/bundle").seconds)


def copy_folder(source: Host, target: Host, path: str) -> None:
    """Carry a folder from host to host, as an USB stick would."""
    stick = source.logs / "stick.tar"
    docker("exec", source.name, "tar", "-cf", "/root/stick.tar", path)
    docker("cp", f"{source.name}:/root/stick.tar", str(stick))
    docker("cp", str(stick), f"{target.name}:/root/stick.tar")
    stick.unlink()
    source.exec("rm /root/stick.tar")
    target.exec("tar -C / -xf /root/stick.tar && rm /root/stick.tar")


def test_uninstall_keeps_models_and_runs_again(installed: Site) -> None:
    host = installed.host
    host.bootstrap("--uninstall", "--yes")
    assert host.pids() == {}
    assert "SmolLM2" in host.exec("find /var/lib/roost/models -type f").out
    story.first_run(installed)


def test_purge_leaves_nothing_of_ours(installed: Site) -> None:
    installed.host.exec(f"cd {CLONE} && rm -rf /root/bundle")
    story.purge_leaves_no_trace(installed)
