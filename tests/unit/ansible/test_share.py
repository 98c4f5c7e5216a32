"""How long a machine gives others what it made: machines at work ask for it at their turns, minutes apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("changed", [{}, {"model_start_s": 1800}, {"update_drain_s": 900, "update_gate_s": 600}])
def test_it_outlasts_the_turn_of_a_machine(changed: dict[str, int]) -> None:
    settings: dict[str, Any] = yaml.safe_load((ROOT / "group_vars/all.yaml").read_text()) | changed
    text = yaml.safe_load((ROOT / "ansible/roles/share/vars/main.yml").read_text())["share_idle_s"]
    idle_s = NativeEnvironment().from_string(text).render(settings)
    # Drained; begun anew and healthy for autopilot; its models healthy for Nomad; the gate.
    turn_s = sum(settings[name] for name in ("update_drain_s", "update_gate_s", "model_start_s", "update_gate_s"))
    assert idle_s >= turn_s + 300
    run = yaml.safe_load((ROOT / "ansible/roles/share/tasks/main.yml").read_text())
    assert run[0]["roost_share"]["idle"] == "{{ share_idle_s }}"
