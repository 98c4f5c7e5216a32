"""Action plugin: what preflight found on all machines, in one table; ends the run where something stands in the way."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from roost.hosts.findings import Finding, errors, table, warnings


class ActionModule(ActionBase):
    """Runs on the controller alone, once for all machines."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with all errors of all machines; what is only worth a look comes as a note."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given: dict[str, list[dict[str, Any]]] = self._task.args["findings"]
        found = {machine: [Finding(**entry) for entry in entries] for machine, entries in given.items()}
        wrong = [finding for findings in found.values() for finding in errors(findings)]
        result |= {"changed": False, "of_all": True}
        if wrong:
            text = table(found)
            count = f"{len(wrong)} thing{'s' if len(wrong) > 1 else ''} must be put right first"
            where = sum(bool(errors(findings)) for findings in found.values())
            on = f", on {where} of {len(found)} machines; nothing was changed on any" if len(found) > 1 else ""
            return {**result, "failed": True, "msg": f"{count}{on}:\n{text}"}
        doubts = {machine: warnings(findings) for machine, findings in found.items() if warnings(findings)}
        if doubts:
            result["warnings"] = [
                f"{f'{machine}: ' if len(found) > 1 else ''}{finding.what} {finding.why} {finding.fix}"
                for machine, findings in doubts.items()
                for finding in findings
            ]
        return result
