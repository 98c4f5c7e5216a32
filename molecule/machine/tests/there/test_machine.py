"""What the playbook brought to one machine, seen from the machine. Runs after it, after a reboot, and after kills."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host
from tests.hosts.host import wait_until

testinfra_hosts = ["docker://machine-1"]
TLS = "/etc/roost/tls"
NOMAD = "https://127.0.0.1:4646/v1"
SAVED_S = 200.0  # one try more than the first, half a minute after it; Raft may have it wait
SERVICES = ["docker", "roost-nomad", "roost-nomad-watch", "roost-shutdown", "roost-firewall", "roost-snapshots"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_and_start_at_boot(host: Host, name: str) -> None:
    assert host.service(name).is_running
    assert host.service(name).is_enabled


def test_docker_keeps_containers_and_bounds_their_logs(host: Host) -> None:
    info = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert info["LiveRestoreEnabled"]
    assert info["LoggingDriver"] == "json-file"
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert settings["log-opts"] == {"max-file": "3", "max-size": "10m"}


def test_apt_leaves_the_version_of_docker_alone(host: Host) -> None:
    assert host.check_output("apt-mark showhold").split() == ["docker.io"]


def test_nomad_answers_nobody_without_a_certificate(host: Host) -> None:
    program = f"""
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="{TLS}/ca.pem")
if sys.argv[1:]:
    context.load_cert_chain(*sys.argv[1:])
print(urllib.request.urlopen("{NOMAD}/status/leader", context=context).status)
"""
    ask = f"python3 - %s <<'EOF'{program}EOF"
    assert "CERTIFICATE_REQUIRED" in host.run(ask % "").stderr.upper()
    given = ask % f"{TLS}/cli.pem {TLS}/cli-key.pem"
    wait_until("it answers who has one", lambda: host.run(given).stdout.strip() == "200", 60)


def test_secrets_and_state_are_private(host: Host) -> None:
    for path, mode in {
        "/etc/roost/secrets": 0o700,
        "/etc/roost/secrets/nomad-operator-token": 0o600,
        "/etc/roost/nomad.d/nomad.hcl": 0o600,
        "/var/lib/roost/snapshots": 0o700,
    }.items():
        assert host.file(path).mode == mode, path
        assert host.file(path).user == "root", path
    assert not host.user("roost-agent").shell.endswith("sh")
    assert host.user("roost-engine").uid == 8362


def test_a_snapshot_was_saved_and_is_whole(host: Host) -> None:
    found: list[dict[str, Any]] = []

    def saved() -> bool:
        found[:] = json.loads(host.check_output("roost fleet snapshot list --json"))
        return bool(found)

    wait_until("the first one is saved", saved, SAVED_S)
    assert all(one["index"] > 0 for one in found)
    assert host.file(found[0]["path"]).mode == 0o600
