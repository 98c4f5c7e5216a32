"""From what was seen on an installed machine to findings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from roost.hosts.certificates import Certificate
from roost.hosts.doctor import (
    Job,
    Needed,
    Observation,
    Offloaded,
    SecretFile,
    Service,
    Version,
    diagnose,
    not_checked,
)
from roost.hosts.facts import Disk, HostFacts, facts_from
from roost.hosts.gpus import Gpu
from roost.ops.pki import RENEW_BEFORE_DAYS
from tests.unit.hosts.machines import machine

LISTEN = Needed("warning", "Clients are refused.")
NOW = 1_800_000_000.0
DAY = 86400.0


def host() -> HostFacts:
    return dataclasses.replace(
        facts_from(machine("systemd-container")),
        clock=NOW,
        disks=(Disk("/var/lib/roost", 1, 9000, 5000, writable=True),),
    )


GOOD = Observation(
    services=[
        Service("roost-nomad", running=True, log="roost logs nomad", start="x"),
        Service("docker", running=None, log="x", start="x"),
    ],
    nomad_leader="192.0.2.2:4647",
    jobs=[Job("roost-agent", 1, 1, 0)],
    secrets=[SecretFile("/etc/roost/secrets/api-key", 0o600), SecretFile("/etc/roost/secrets/gossip-key", 0o400)],
    certificates=[Certificate("/etc/roost/tls/ca.pem", NOW + 400 * DAY)],
    versions=[Version("Nomad", "1.11.3", "1.11.3"), Version("The agent", "0.1.0", "")],
)


def test_nothing_is_wrong() -> None:
    assert diagnose(host(), GOOD) == []


@pytest.mark.parametrize(
    ("change", "found", "fix"),
    [
        (
            {"services": [Service("docker", running=False, log="journalctl -u docker", start="x")]},
            "error service:docker",
            "docker",
        ),
        (
            {
                "services": [
                    Service("roost-listen", running=False, log="x", start="systemctl start roost-listen", needed=LISTEN)
                ]
            },
            "warning service:roost-listen",
            "systemctl start roost-listen",
        ),
        (
            {"services": [Service("roost-listen", running=True, log="x", start="y", again="z restart", answers=False)]},
            "error service:roost-listen",
            "z restart",
        ),
        ({"nomad_problem": "refused"}, "error nomad", "roost logs nomad"),
        ({"nomad_leader": ""}, "error nomad-leader", "roost logs nomad"),
        ({"nomad_leader": None}, "", ""),
        ({"missing_jobs": ["roost-agent"]}, "error job:roost-agent", "bootstrap.sh"),
        ({"jobs": [Job("roost-model-main", 0, 1, 4, "OOM")]}, "error job:roost-model-main", "roost logs main"),
        ({"jobs": [Job("roost-agent", 1, 1, 4)]}, "info restarts:roost-agent", "roost logs agent"),
        ({"api_reachable": False, "api_ready": False}, "error api", "roost logs agent"),
        ({"api_ready": False, "api_reasons": ["coding: loading"]}, "error api", "roost logs coding"),
        ({"secrets": [SecretFile("/k", 0o644)]}, "error secret:/k", "chmod 600 /k"),
        ({"secrets": [SecretFile("/k", 0o600, 1000)]}, "error secret:/k", "chown root /k"),
        ({"secrets": [SecretFile("/k", None)]}, "error secret:/k", "backup"),
        (
            {"certificates": [Certificate("/c", NOW + RENEW_BEFORE_DAYS * DAY)]},
            "warning certificate:/c",
            "bootstrap.sh",
        ),
        ({"certificates": [Certificate("/c", NOW + RENEW_BEFORE_DAYS * DAY + 1)]}, "", ""),
        ({"certificates": [Certificate("/c", NOW + DAY, last=True)]}, "warning certificate:/c", "docs/operations.md"),
        ({"certificates": [Certificate("/c", NOW - DAY)]}, "error certificate:/c", "bootstrap.sh"),
        ({"certificates": [Certificate("/c", problem="no PEM")]}, "error certificate:/c", "bootstrap.sh"),
        ({"versions": [Version("Nomad", "1.11.3", "1.11.2")]}, "warning version:Nomad", "bootstrap.sh"),
        ({"firewall": False}, "error firewall", "bootstrap.sh"),
        ({"firewall": True}, "", ""),
    ],
)
def test_each_check(change: dict[str, Any], found: str, fix: str) -> None:
    findings = diagnose(host(), dataclasses.replace(GOOD, **change))
    assert [f"{f.severity} {f.id}" for f in findings] == ([found] if found else [])
    assert all(fix in f.fix and f.why for f in findings)


@pytest.mark.parametrize(("free", "severity"), [(5000, []), (2000, ["warning"]), (100, ["error"])])
def test_disk(free: int, severity: list[str]) -> None:
    disks = tuple(Disk(path, 1, 9000, free, writable=True) for path in ("/var/lib/roost", "/var/cache/roost"))
    findings = diagnose(dataclasses.replace(host(), disks=disks), GOOD)
    assert [f.severity for f in findings] == severity
    assert all("/var/lib/roost, /var/cache/roost" in f.what for f in findings)


def test_a_gpu_that_is_not_used_is_named() -> None:
    facts = dataclasses.replace(host(), gpus=(Gpu("0000:01:00.0", "NVIDIA", "RTX 4090", "nvidia", 24564),))
    (finding,) = diagnose(facts, GOOD)
    assert finding.severity == "info"
    assert "NVIDIA RTX 4090, 24564 MiB" in finding.what


def test_a_machine_that_starts_nothing_is_named() -> None:
    (finding,) = diagnose(dataclasses.replace(host(), init="none"), GOOD)
    assert (finding.severity, finding.id) == ("info", "boot")
    assert "/etc/init.d/roost-*" in finding.fix


@pytest.mark.parametrize(
    ("facts", "change", "what"),
    [
        ({}, {"firewall": True, "services": []}, []),
        ({}, {"unseen": ["The key cannot be read."], "firewall": True, "services": []}, ["The key cannot be read."]),
        ({"is_root": False}, {"firewall": True, "services": []}, ["secrets and their modes"]),
        ({}, {"services": []}, ["whether the firewall's rules are loaded"]),
        ({}, {"firewall": True}, ["the service docker"]),
        (
            {},
            {"firewall": True, "services": [Service("roost-listen", running=True, log="x", start="x", answers=None)]},
            ["whether the service roost-listen answers"],
        ),
        ({}, {"firewall": True, "services": [], "nomad_leader": None}, ["Nomad and its jobs"]),
        ({}, {"firewall": True, "services": [], "nomad_leader": None, "nomad_problem": "refused"}, []),
        ({}, {"firewall": True, "services": [], "versions": [Version("Nomad", "1", "")]}, ["the version of Nomad"]),
    ],
)
def test_what_was_not_looked_at_is_listed(facts: dict[str, Any], change: dict[str, Any], what: list[str]) -> None:
    seen = dataclasses.replace(GOOD, **{"versions": [], **change})
    items = not_checked(dataclasses.replace(host(), **{"is_root": True, **facts}), seen)
    assert [item.what for item in items] == what
    assert all(item.why for item in items)


def test_a_card_that_a_server_uses_is_not_called_unused() -> None:
    facts = dataclasses.replace(host(), gpus=(Gpu("0000:01:00.0", "NVIDIA", "RTX 4090", "nvidia", 24564),))
    used = dataclasses.replace(GOOD, offloaded=[Offloaded("roost-model-main", gpu_slots=("0000:01:00.0",))])
    assert not [finding for finding in diagnose(facts, used) if finding.id.startswith(("gpu:", "offload:"))]


@pytest.mark.parametrize(
    ("server", "severity", "word"),
    [
        (Offloaded("roost-model-main", "0 of 31 layers are on graphics processors"), "error", "0 of 31"),
        (Offloaded("roost-model-main", told=False), "info", "no longer says"),
    ],
)
def test_layers_that_are_not_where_they_belong(server: Offloaded, severity: str, word: str) -> None:
    found = [f for f in diagnose(host(), dataclasses.replace(GOOD, offloaded=[server])) if f.id.startswith("offload:")]
    assert [(f.id, f.severity) for f in found] == [("offload:roost-model-main", severity)]
    assert word in found[0].what
    assert found[0].fix
