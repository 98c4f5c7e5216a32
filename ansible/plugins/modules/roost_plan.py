#!/usr/bin/python
"""Ansible module: which model serves each slot of this machine, where, and with how much context; changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from pydantic import TypeAdapter, ValidationError

from roost.fleet.better_plan import better_plan
from roost.fleet.capacity import capacity_of
from roost.fleet.figures import host_figures
from roost.fleet.host_plan import host_planner, memory_pools, need_placed, reach_of, resolved_slots, with_shape
from roost.fleet.plan import Plan
from roost.fleet.plan_file import document_of, read_plan
from roost.hosts.facts import HostFacts
from roost.models.catalogue import load_catalogue
from roost.models.model_slots import parse_slots
from roost.models.path_slots import entries_of_paths
from roost.models.present import found_models, with_hashes
from roost.ops.errors import RoostError, user_message

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
  description: The slots, everything decided; as in roost.fleet.site_jobs.SlotWish.
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
"""


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
        },
        supports_check_mode=True,
    )
    params = module.params
    models_dir = Path(params["models_dir"])
    measured = (params["bandwidth"].get("bandwidth") or {}).get("gbs")
    try:
        wanted = parse_slots(params["slots"])
        custom = entries_of_paths(wanted, params["models_custom"], models_dir, dry_run=module.check_mode)
        listed = load_catalogue(Path(params["catalogue"]), custom=custom)
        folders = [Path(folder) for folder in params["present_dirs"]]
        found = found_models(listed, models_dir, folders, dry_run=module.check_mode)
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
        host = capacity_of(
            facts,
            measured,
            name=params["host"],
            running=present.placed,
            vendors=params["gpu_vendors"],
            others_mib=params["reserved_memory_mib"],
        )
        slots, optional = with_shape(wanted, host.tier)
        state_dir = Path(params["state_dir"]) if params["state_dir"] else None
        figures = host_figures(catalogue, models_dir, state_dir, [gpu.name for gpu in facts.gpus])
        plan = host_planner(host, catalogue, reach, figures=figures, present=present)(slots, optional)
        need_placed(plan)
        better = better_plan(plan, host, catalogue, reach, slots, optional, params["from_hub"])
        custom |= with_hashes(found, {p.model for p in plan.placed}, models_dir, dry_run=module.check_mode)
    except ValidationError as error:
        module.fail_json(msg=f"The facts are not those of a machine: {error}")
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    for placed in plan.placed:
        if placed.slowed:
            module.warn(f"{placed.slot}: {placed.model}:{placed.quantisation}: {placed.reason}.")
    module.exit_json(
        changed=False,
        slots=resolved_slots(plan, slots, catalogue),
        models_custom=custom,
        pools=memory_pools(host),
        plan=document_of(plan),
        better=better,
        explanation=[*plan.explanation, *(f"{path}: passed over, {why}" for path, why in found.passed_over.items())],
    )


if __name__ == "__main__":
    main()
