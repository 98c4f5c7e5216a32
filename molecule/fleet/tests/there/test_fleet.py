"""Two machines with a registry, zones, operators and a clock, seen from each and from a stranger."""

from __future__ import annotations

import json
import os

import pytest
import testinfra
from testinfra.host import Host
from tests.hosts import probe
from tests.hosts.scenario import Scenario

SSH, REGISTRY = 22, 8466
NAMES = ["fleet-a", "fleet-b"]
testinfra_hosts = [f"docker://{name}" for name in NAMES]
TLS = "/etc/roost/tls"


def images(host: Host) -> dict[str, str]:
    """Our images by name and tag."""
    listed = host.check_output("docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'")
    return dict(line.split() for line in listed.splitlines())


def test_nomad_is_one_cluster_over_the_overlay() -> None:
    state = json.loads(testinfra.get_host("docker://fleet-a").check_output("roost fleet status --json"))
    assert {(m["name"], m["state"]) for m in state["machines"]} == {(name, "ready") for name in NAMES}
    addresses = {m["address"].split(":")[0] for m in state["machines"]}
    assert addresses == {Scenario(os.environ).address(name, "overlay") for name in NAMES}


def test_both_have_the_same_images_and_no_name_of_the_registry_is_left(host: Host) -> None:
    first = images(testinfra.get_host("docker://fleet-a"))
    assert first
    assert images(host) == first
    assert all(name.startswith("roost/") for name in first)


def test_the_second_machine_was_given_no_file_of_an_image() -> None:
    second = testinfra.get_host("docker://fleet-b")
    assert second.run("ls /var/cache/roost/artifacts/*.tar").rc != 0, "they came as files, not from the registry"


def test_the_registry_answers_the_fleets_certificates_only(host: Host) -> None:
    address = Scenario(os.environ).address("fleet-a", "overlay")
    program = f"""
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="{TLS}/ca.pem")
if sys.argv[1:]:
    context.load_cert_chain(*sys.argv[1:])
print(urllib.request.urlopen("https://{address}:{REGISTRY}/v2/_catalog", context=context).read().decode())
"""
    ask = f"python3 - %s <<'EOF'{program}EOF"
    # Which of the two alerts it is depends on the Go that the registry was built with.
    refused = host.run(ask % "").stderr.upper()
    assert "CERTIFICATE_REQUIRED" in refused or "ALERT_BAD_CERTIFICATE" in refused
    catalogue = json.loads(host.check_output(ask % f"{TLS}/node.pem {TLS}/node-key.pem"))
    assert "roost/agent" in catalogue["repositories"]


@pytest.mark.parametrize("lan", ["underlay", "overlay"])
def test_a_stranger_finds_ssh_and_nothing_else_on_either_network(host: Host, lan: str) -> None:
    stranger = testinfra.get_host("docker://fleet-stranger")
    found = Scenario(os.environ)
    name = host.check_output("hostname")
    assert probe.open_ports(stranger, host, found.address(name, lan)) == {SSH}


def test_the_fleets_ports_do_not_answer_its_own_machines_over_the_underlay() -> None:
    found, second = Scenario(os.environ), testinfra.get_host("docker://fleet-b")
    overlay, underlay = found.address("fleet-a", "overlay"), found.address("fleet-a", "underlay")
    assert probe.answers(second, overlay, REGISTRY)
    # It is the same machine by whatever way a packet comes; this one comes by the underlay.
    second.check_output(
        f"ip route replace {overlay}/32 via {underlay} dev eth0 src {found.address('fleet-b', 'overlay')}"
    )
    try:
        assert not probe.answers(second, overlay, REGISTRY)
    finally:
        second.check_output(f"ip route del {overlay}/32 dev eth0")


def test_operators_log_in_with_their_keys_and_rule_with_a_password_only(host: Host) -> None:
    ada, brian = host.user("ada"), host.user("brian")
    assert "sudo" in ada.groups
    assert "sudo" not in brian.groups
    keys = host.file("/home/ada/.ssh/authorized_keys")
    assert keys.content_string.strip().endswith("ada@desk")
    assert (keys.user, keys.mode) == ("ada", 0o600)
    for name in ("ada", "brian"):
        assert host.check_output(f"passwd --status {name}").split()[1] in {"L", "LK"}
    assert host.run("su ada -c 'sudo -n true'").rc != 0


def test_the_clock_is_kept_by_what_was_asked_for(host: Host) -> None:
    assert host.package("chrony").is_installed
    assert host.service("chrony").is_enabled
    assert host.file("/etc/chrony/sources.d/roost.sources").content_string.splitlines()[1:] == [
        "server 192.0.2.123 iburst",
        "server ntp.example.org iburst",
    ]
    assert host.run("chronyd -p -f /etc/chrony/chrony.conf").rc == 0
