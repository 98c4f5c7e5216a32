"""What is read of many machines: each lies in `machines/`, see `records`."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from roost.hosts.facts import facts_from
from roost.hosts.tiers import tier_of
from tests.unit.hosts.records import FOLDER, names, record, sections

AT_LEAST = 25
FIELDS = (
    "addresses", "cpu_cores", "cpu_model", "default_address", "level_zero", "listeners", "memory_available_mib",
    "memory_limit_mib", "memory_total_mib", "nvidia", "rocm", "virtualisation",
)  # fmt: skip


def test_there_are_enough_machines_and_each_names_its_source() -> None:
    assert len(names()) >= AT_LEAST
    assert all(len(sections(name)["source"].strip()) > 20 for name in names())


@pytest.mark.parametrize("name", names())
def test_machine(name: str) -> None:
    facts = facts_from(record(name))
    found = json.loads(json.dumps(facts.as_dict()))
    wanted = json.loads((FOLDER / name / "expected.json").read_text())
    tier = tier_of(facts)
    seen = {"tier": tier.name, "kind": tier.kind, "usable_mib": tier.usable_bytes >> 20}
    assert seen == {key: wanted.pop(key) for key in seen}
    assert wanted.pop("reason", "") in tier.reason
    assert [disk.kind for disk in facts.disks] == wanted.pop("disk_kinds", [])
    cpu = wanted.pop("cpu", {})
    assert {key: found["cpu"][key] for key in cpu} == cpu
    for gpu, want in zip(found["gpus"], wanted.pop("gpus", found["gpus"]), strict=True):
        assert {key: gpu[key] for key in want} == want
    assert set(wanted) <= set(FIELDS)
    assert {key: found[key] for key in wanted} == wanted


def test_a_tier_is_plain_data() -> None:
    assert set(asdict(tier_of(facts_from(record("nvidia-l4"))))) == {"name", "usable_bytes", "kind", "reason"}
