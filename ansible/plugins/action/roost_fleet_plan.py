"""Action plugin: one plan for all machines of the fleet, decided on the controller; changes nothing.

Arguments: `surveys`, what each machine's task `roost_plan` returned as such; `machines`, the names of the inventory;
`catalogue`, the catalogue file; `file`, where the plan of the last run is kept on the controller.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from roost.fleet.fleet_file import document_of, read_fleet_plan
from roost.fleet.place_fleet import Share, place_fleet
from roost.fleet.plan_file import document_of as plan_document
from roost.fleet.survey import read_survey
from roost.ops.errors import RoostError, user_message


class ActionModule(ActionBase):
    """Reads the machines' surveys and returns each one's share of the plan."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `shares` by machine, `document` to be kept, and `explanation`, a line a decision."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args: dict[str, Any] = dict(self._task.args)
        try:
            surveys = [read_survey(survey) for survey in args["surveys"]]
            kept = read_fleet_plan(Path(str(args["file"])))
            machines = [str(name) for name in args["machines"]]
            decided = place_fleet(surveys, Path(str(args["catalogue"])), machines, kept)
        except (RoostError, OSError) as error:
            return {**result, "failed": True, "msg": user_message(error)}
        return {
            **result,
            "changed": False,
            "shares": {machine: as_facts(share) for machine, share in decided.shares.items()},
            "document": document_of(decided.kept),
            "explanation": list(decided.explanation),
        }


def as_facts(share: Share) -> dict[str, Any]:
    """Return a machine's share as variables."""
    return {**asdict(share), "plan": plan_document(share.plan)}
