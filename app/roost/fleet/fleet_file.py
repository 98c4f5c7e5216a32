"""The fleet's plan as a file on the controller: for a run over some machines only, and for people to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from roost.fleet.jobs import job_name
from roost.fleet.plan import Placed, Plan
from roost.fleet.plan_file import document_of as plan_document

NAME = "fleet-plan.json"  # beside a machine's own plan


@dataclass(frozen=True)
class FleetPlan:
    """What was decided for all machines.

    `machines` are the nodes' names by those of the inventory, `anywhere` the slots that are placed in the whole fleet.
    """

    machines: Mapping[str, str] = field(default_factory=dict)
    plan: Plan = field(default_factory=lambda: Plan(()))
    anywhere: tuple[str, ...] = ()

    def job(self, placed: Placed) -> str:
        """Return the name of a server's job."""
        number = placed.copy + 1 if placed.slot in self.anywhere else 0
        return job_name(placed.slot, placed.host, number)


_FLEET_PLAN: TypeAdapter[FleetPlan] = TypeAdapter(FleetPlan)


def document_of(kept: FleetPlan) -> dict[str, Any]:
    """Return what is kept as plain data; the same decisions give the same document."""
    return {"machines": dict(kept.machines), "anywhere": list(kept.anywhere), "plan": plan_document(kept.plan)}


def read_fleet_plan(path: Path) -> FleetPlan | None:
    """Return the plan that is kept, or None where there is none that can be read.

    Raises:
        PermissionError: this user may not read it.
    """
    try:
        return _FLEET_PLAN.validate_json(path.read_text())
    except PermissionError:
        raise
    except (OSError, ValidationError, ValueError):
        return None
