"""`roost hosts`: with and without an installation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from roost.cli.hosts import rows
from roost.hosts.bandwidth import Bandwidth
from roost.hosts.facts import facts_from
from roost.hosts.tiers import tier_of
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation
from tests.unit.hosts.records import names, record


def test_json_before_anything_is_installed(roost: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "none.json"))
    done = roost("hosts", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["tier"]["reason"]
    assert found["bandwidth"] is None
    assert 1 <= found["facts"]["cpu_cores"] <= (os.cpu_count() or 1)
    assert [disk["path"] for disk in found["facts"]["disks"]] == ["/"]
    assert found["facts"]["disks"][0]["filesystem"]


def test_the_installations_folders_are_looked_at(site: Installation, roost: Run) -> None:
    disks = json.loads(roost("hosts", "--json").stdout)["facts"]["disks"]
    assert len(disks) == 2
    assert all(str(site.folder.parent) in disk["path"] for disk in disks)
    shown = roost("hosts").stdout
    assert "because" in shown
    assert "processor" in shown


@pytest.mark.parametrize("name", names())
def test_every_machine_can_be_shown(name: str) -> None:
    facts = facts_from(record(name))
    shown = rows(facts, tier_of(facts), None)
    # the number is what a slot's `gpu` names
    assert [what for what, _ in shown if "graphics" in what] == [f"graphics {i}" for i in range(len(facts.gpus))]
    assert all(text.strip() for _, text in shown)


def test_what_people_see_of_slices_quota_and_bandwidth() -> None:
    facts = facts_from(record("nvidia-mig-h100"))
    shown = dict(rows(facts, tier_of(facts), Bandwidth(32.6, 2, 64, 0.5, "2 processes")))
    assert shown["graphics 0"] == ("NVIDIA H100 NVL: 93.6 GiB, driver nvidia, MIG: 24.0 GiB 24.0 GiB 24.0 GiB 12.0 GiB")
    assert shown["bandwidth"] == "32.6 GB/s: 2 processes"
    limited = facts_from(record("container-quota-v2"))
    assert dict(rows(limited, tier_of(limited), None))["cores"].startswith("3 usable, 2.5 by its cgroup; 64 physical")
