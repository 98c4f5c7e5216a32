"""The plan as a file on a host: what the playbook decided, so that the next run keeps what runs and can compare."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from roost.fleet.plan import Plan

NAME = "plan.json"  # in the folder of what must survive
_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


def document_of(plan: Plan) -> dict[str, Any]:
    """Return what is kept of a plan as plain data: the decisions, with the figures that they were taken with.

    The words to each run's changes are not kept, nor what became known of a server since it was placed.
    """
    decided = tuple(replace(p, estimate=p.planned or p.estimate) for p in plan.placed)
    found: dict[str, Any] = json.loads(_PLAN.dump_json(replace(plan, placed=decided)))
    for placed in found["placed"]:
        del placed["planned"]
    return {"placed": found["placed"], "refused": found["refused"]}


def read_plan(path: Path) -> Plan | None:
    """Return the plan that is kept, or None where there is none, or one that cannot be read: then all is decided anew.

    Raises:
        PermissionError: this user may not read it.
    """
    try:
        return _PLAN.validate_json(path.read_text())
    except PermissionError:
        raise
    except (OSError, ValidationError, ValueError):
        return None
