#!/usr/bin/python
"""Ansible module: which model serves each slot of this machine, or what a fleet's plan must know; changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from pydantic import TypeAdapter, ValidationError

from roost.fleet.better_plan import better_plan
from roost.fleet.capacity import capacity_of
from roost.fleet.figures import host_figures
from roost.fleet.host_plan import host_planner, memory_pools, need_placed, reach_of, resolved_slots, with_shape
from roost.fleet.plan import HostCapacity, Plan
from roost.fleet.plan_file import document_of, read_plan
from roost.fleet.survey import Survey, held_models, out_of_reach, read_headers
from roost.fleet.survey import document_of as survey_document
from roost.hosts.bandwidth import Bandwidth
from roost.hosts.facts import HostFacts
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.custom_file import listed_entry
from roost.models.estimate.measured import NAME as FIGURES_FILE
from roost.models.model_slots import ModelSlot, parse_slots
from roost.models.obtainable import Obtainable, Reach, files_here
from roost.models.path_slots import entries_of_paths
from roost.models.present import Found, found_models, with_hashes
from roost.ops.errors import RoostError, user_message
from roost.ops.validation import in_words

DOCUMENTATION = r"""
module: roost_plan
short_description: Decide which model serves each slot of this machine
description:
  - Turns facts, catalogue and slots into slots of which everything is known (model and quantisation, context, layers on
    graphics processors, memory). What the slots name is kept to; what runs stays where it can.
  - An automatic choice takes only models that lie here, that need no hub, or for which I(from_hub) allows one.
  - Fails with everything that cannot be placed, and what would have to change.
  - Model files that lie in I(models_dir) or I(present_dirs) without an entry are candidates, too.
  - Changes nothing; another task keeps I(plan) in I(file). What was seen of model files is remembered in I(models_dir).
  - With I(survey) it decides nothing, and says what the plan of a whole fleet has to know of this machine.
options:
  slots:
    description: The variable C(model_slots).
    type: list
    elements: dict
    required: true
  facts:
    description: The machine's facts, as the module roost_facts returned them.
    type: dict
    required: true
  bandwidth:
    description: What the memory probe found, as that module returned it.
    type: dict
    default: {}
  host:
    description: Name of the machine in the plan; its own if empty.
    type: str
    default: ""
  gpu_vendors:
    description: Vendors whose graphics processors the engine can compute on.
    type: list
    elements: str
    default: []
  reserved_memory_mib:
    description: Memory of the machine that other programs need, beside what is always left to the system.
    type: int
    default: 0
  catalogue:
    description: The catalogue file.
    type: path
    required: true
  models_custom:
    description: Models of the operator, merged over the catalogue's.
    type: dict
    default: {}
  models_dir:
    description: Folder of the models.
    type: path
    required: true
  present_dirs:
    description: More folders in which model files may lie.
    type: list
    elements: path
    default: []
  cache_dir:
    description: Folder of downloads, safe to delete.
    type: path
    required: true
  state_dir:
    description: Where it is kept what model servers took; empty to plan with what headers say.
    type: path
    default: ""
  offline_dir:
    description: Folder made by C(roost bundle), or empty.
    type: str
    default: ""
  from_hub:
    description: Whether an automatic choice may take models that must be fetched from a hub.
    type: str
    choices: [auto, "yes", "no"]
    default: auto
  file:
    description: Where the plan of the last run is kept; it need not exist.
    type: path
    required: true
  survey:
    description: Only say what the fleet's plan has to know, for the machine that the inventory calls so.
    type: str
    default: ""
  kind:
    description: How jobs are run here; machines of a fleet that say the same run each other's.
    type: str
    default: ""
  hashes:
    description: With I(survey), models of files that were found here and are used now; each file is hashed once.
    type: list
    elements: str
    default: []
author: Roost developers
"""

EXAMPLES = r"""
- name: Decide what runs here
  roost_plan:
    slots: "{{ model_slots }}"
    facts: "{{ hardware_host }}"
    catalogue: group_vars/models.yaml
    models_dir: /var/lib/roost/models
    cache_dir: /var/cache/roost
    file: /var/lib/roost/plan.json
  register: found
"""

RETURN = r"""
slots:
  description: The slots, everything decided; as in roost.fleet.site_wish.SlotWish.
  type: list
  returned: always
models_custom:
  description: Models of the operator, with an entry for each file that a slot names or that was found and chosen.
  type: dict
  returned: always
pools:
  description: Bytes that models may hold together, by graphics processor.
  type: dict
  returned: always
plan:
  description: What is kept for the next run.
  type: dict
  returned: always
better:
  description: What the machine could serve if a model hub were allowed, in one line; empty if nothing better.
  type: str
  returned: always
explanation:
  description: A line a decision.
  type: list
  returned: always
survey:
  description: What the fleet's plan has to know, as in roost.fleet.survey.Survey.
  type: dict
  returned: with I(survey)
"""


@dataclass(frozen=True)
class Seen:
    """What is known of this machine before anything is decided."""

    wanted: list[ModelSlot]
    custom: dict[str, Any]
    found: Found
    catalogue: Catalogue
    reach: Reach
    host: HostCapacity
    present: Plan
    gpu_names: list[str]


def look(params: dict[str, Any], *, dry_run: bool) -> Seen:
    """Look at this machine's models, facts and kept plan.

    Raises:
        RoostError: a slot or a variable is not valid.
    """
    models_dir = Path(params["models_dir"])
    wanted = parse_slots(params["slots"])
    custom = entries_of_paths(wanted, params["models_custom"], models_dir, dry_run=dry_run)
    listed = load_catalogue(Path(params["catalogue"]), custom=custom)
    folders = [Path(folder) for folder in params["present_dirs"]]
    found = found_models(listed, models_dir, folders, dry_run=dry_run)
    catalogue = found.beside(listed)
    reach = reach_of(
        catalogue,
        models_dir=models_dir,
        cache_dir=Path(params["cache_dir"]),
        offline_dir=params["offline_dir"],
        from_hub=params["from_hub"],
        mirror=os.environ.get("HF_ENDPOINT", ""),
    )
    present = read_plan(Path(params["file"])) or Plan(())
    facts = TypeAdapter(HostFacts).validate_python(params["facts"])
    measured = TypeAdapter(Bandwidth | None).validate_python(params["bandwidth"].get("bandwidth") or None)
    host = capacity_of(
        facts,
        measured,
        name=params["host"],
        running=present.placed,
        vendors=params["gpu_vendors"],
        others_mib=params["reserved_memory_mib"],
        kind=params["kind"],
    )
    return Seen(wanted, custom, found, catalogue, reach, host, present, [gpu.name for gpu in facts.gpus])


def survey_of(seen: Seen, params: dict[str, Any]) -> Survey:
    """Return what the fleet's plan has to know."""
    verified = files_here(Path(params["models_dir"]), Path(os.devnull), seen.catalogue)
    held = held_models(Obtainable(seen.catalogue, Reach(verified)))
    figures = Path(params["state_dir"]) / FIGURES_FILE if params["state_dir"] else None
    by_path = set(seen.custom) - set(params["models_custom"])
    return Survey(
        machine=params["survey"],
        host=seen.host,
        slots=tuple(seen.wanted),
        custom=seen.custom,
        found={name: listed_entry(entry) for name, entry in seen.found.entries.items()},
        local=tuple(sorted(by_path | set(seen.found.entries))),
        missing=out_of_reach(Obtainable(seen.catalogue, seen.reach)),
        held=held,
        headers=read_headers(seen.catalogue, Path(params["models_dir"]), held, seen.present),
        figures=figures.read_text() if figures and figures.exists() else "",
        gpu_names=tuple(seen.gpu_names),
        present=seen.present,
        hub_problem=seen.reach.hub_problem,
        offline_dir=params["offline_dir"],
        from_hub=params["from_hub"],
    )


def decide(module: AnsibleModule, seen: Seen) -> dict[str, Any]:
    """Return the plan of this machine for itself, as the module returns it.

    Raises:
        RoostError: something cannot be placed.
    """
    params = module.params
    models_dir = Path(params["models_dir"])
    slots, optional = with_shape(seen.wanted, seen.host.tier)
    state_dir = Path(params["state_dir"]) if params["state_dir"] else None
    figures = host_figures(seen.catalogue, models_dir, state_dir, seen.gpu_names)
    planner = host_planner(seen.host, seen.catalogue, seen.reach, figures=figures, present=seen.present)
    plan = planner(slots, optional)
    need_placed(plan)
    better = better_plan(plan, seen.host, seen.catalogue, seen.reach, slots, optional, params["from_hub"])
    hashed = with_hashes(seen.found, {p.model for p in plan.placed}, models_dir, dry_run=module.check_mode)
    for placed in plan.placed:
        if placed.slowed:
            module.warn(f"{placed.slot}: {placed.model}:{placed.quantisation}: {placed.reason}.")
    passed_over = [f"{path}: passed over, {why}" for path, why in seen.found.passed_over.items()]
    return {
        "slots": resolved_slots(plan, slots, seen.catalogue),
        "models_custom": seen.custom | hashed,
        "pools": memory_pools(seen.host),
        "plan": document_of(plan),
        "better": better,
        "explanation": [*plan.explanation, *passed_over],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "slots": {"type": "list", "elements": "dict", "required": True},
            "facts": {"type": "dict", "required": True},
            "bandwidth": {"type": "dict", "default": {}},
            "host": {"type": "str", "default": ""},
            "gpu_vendors": {"type": "list", "elements": "str", "default": []},
            "reserved_memory_mib": {"type": "int", "default": 0},
            "catalogue": {"type": "path", "required": True},
            "models_custom": {"type": "dict", "default": {}},
            "models_dir": {"type": "path", "required": True},
            "present_dirs": {"type": "list", "elements": "path", "default": []},
            "cache_dir": {"type": "path", "required": True},
            "state_dir": {"type": "path", "default": ""},
            "offline_dir": {"type": "str", "default": ""},
            "from_hub": {"type": "str", "choices": ["auto", "yes", "no"], "default": "auto"},
            "file": {"type": "path", "required": True},
            "survey": {"type": "str", "default": ""},
            "kind": {"type": "str", "default": ""},
            "hashes": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        seen = look(params, dry_run=module.check_mode)
        if params["survey"]:
            models_dir = Path(params["models_dir"])
            hashed = with_hashes(seen.found, params["hashes"], models_dir, dry_run=module.check_mode)
            found = {"survey": survey_document(survey_of(seen, params)), "models_custom": hashed}
        else:
            found = decide(module, seen)
    except ValidationError as error:
        module.fail_json(msg=f"The facts or the bandwidth are not those of a machine: {in_words(error)}.")
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
