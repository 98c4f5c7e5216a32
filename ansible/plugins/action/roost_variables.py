"""Action plugin: variables, before anything else.

Old names and values that cannot be end the run; unknown names are said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from roost.ops.variable_names import examine
from roost.ops.variable_values import load_specs, problems

FIX = "Correct it where it is set: `roost config show --origin` says where; --set NAME= goes back to a default."


class ActionModule(ActionBase):
    """Runs on the controller alone, once for all machines; changes nothing."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every old name and bad value of any machine at once; return the rest as warnings."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        folder = Path(str(self._task.args["group_vars"]))
        defaults = _variables(folder / "all.yaml")
        known = set(defaults)
        computed = set(_variables(folder / "fleet.yaml"))
        specs = load_specs(Path(str(self._task.args["roles"])))
        hosts: Any = (task_vars or {}).get("hostvars", {})
        errors: dict[str, list[str]] = {}
        warned: dict[str, list[str]] = {}
        for machine in (task_vars or {}).get("ansible_play_hosts_all", []):
            # What the group's file computes is there too: that it is set elsewhere cannot be told from here.
            found = examine([str(name) for name in hosts[machine]], known | computed)
            # As they are written: a template is not resolved here.
            raw = hosts.raw_get(machine) if hasattr(hosts, "raw_get") else hosts[machine]
            # Ansible's texts are of a class of its own, which a parser of YAML does not take.
            values = {name: "".join(value) if isinstance(value, str) else value for name, value in raw.items()}
            for said in (*found.errors, *problems(values, defaults, specs)):
                errors.setdefault(said, []).append(machine)
            for said in found.warnings:
                warned.setdefault(said, []).append(machine)
        many = len((task_vars or {}).get("ansible_play_hosts_all", [])) > 1
        lines = [f"{said}{_where(machines, many=many)}" for said, machines in errors.items()]
        warnings = [f"{said}{_where(machines, many=many)}" for said, machines in warned.items()]
        result |= {"changed": False, "warnings": warnings}
        if warnings:
            result["note"] = " ".join(warnings)
        if lines:
            return {**result, "failed": True, "msg": " ".join(lines) + " Fix: " + FIX}
        return result


def _variables(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    return loaded


def _where(machines: list[str], *, many: bool) -> str:
    return f" (set for {', '.join(machines)})" if many else ""
