"""Action plugin: the names of variables, before anything else: old ones end the run, unknown ones are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from roost.ops.variable_names import examine


class ActionModule(ActionBase):
    """Runs on the controller alone, once for all machines; changes nothing."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every old name of any machine at once; return the rest as warnings."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        folder = Path(str(self._task.args["group_vars"]))
        known = _names(folder / "all.yaml")
        computed = _names(folder / "fleet.yaml")
        hosts: Any = (task_vars or {}).get("hostvars", {})
        errors: dict[str, list[str]] = {}
        warned: dict[str, list[str]] = {}
        for machine in (task_vars or {}).get("ansible_play_hosts_all", []):
            # What the group's file computes is there too: that it is set elsewhere cannot be told from here.
            found = examine([str(name) for name in hosts[machine]], known | computed)
            for said in found.errors:
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
            return {**result, "failed": True, "msg": " ".join(lines) + " Fix: Use the new name where it is set."}
        return result


def _names(path: Path) -> set[str]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    return set(loaded)


def _where(machines: list[str], *, many: bool) -> str:
    return f" (set for {', '.join(machines)})" if many else ""
