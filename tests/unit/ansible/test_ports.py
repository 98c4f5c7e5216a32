"""Ports that one machine may listen at, all of them at the same time."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_no_two_services_have_the_same_port() -> None:
    settings = yaml.safe_load((ROOT / "group_vars/all.yaml").read_text())
    ports = {name: value for name, value in settings.items() if "_port" in name and isinstance(value, int)}
    assert len(ports) > 8
    assert len(set(ports.values())) == len(ports), sorted((value, name) for name, value in ports.items())
