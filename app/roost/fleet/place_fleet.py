"""One plan for all machines of a fleet, and what each of them has to know of it.

The playbook asks every machine for its survey; the controller decides (`ansible/plugins/action/roost_fleet_plan.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roost.fleet.better_plan import better_plan
from roost.fleet.figures import Figures, header_figures, host_figures, place_known
from roost.fleet.fleet_file import FleetPlan
from roost.fleet.host_plan import candidates_of, memory_pools, need_placed, resolved_slot, wishes_of, with_shape
from roost.fleet.jobs import job_name
from roost.fleet.place import Candidate, Wish
from roost.fleet.plan import HostCapacity, Placed, Plan
from roost.fleet.survey import Survey
from roost.models.catalogue import Catalogue, load_catalogue, parse_custom
from roost.models.estimate.measured import NAME as FIGURES_FILE
from roost.models.footprint import HOST, Estimate, Estimator, LayerSplit, ServerSettings
from roost.models.model_slots import ModelSlot
from roost.models.obtainable import Reach, WhyNot
from roost.models.schema import ListedModel
from roost.ops.errors import RoostError


@dataclass(frozen=True)
class Share:
    """What one machine has to know of the plan.

    `slots` is what runs there, as jobs want it (`site_wish.SlotWish`). `elsewhere` are jobs of slots with copies that
    other machines have. `spare_models` may have to run here and their files are missing; `fetch_from` names machines
    that have what is missing, and `lend` says that others miss what lies here. `hashes` are models of files that were
    found here and are used now.
    """

    slots: list[dict[str, Any]]
    custom: dict[str, Any]
    hashes: list[str]
    pools: dict[str, int]
    plan: Plan
    better: str
    elsewhere: list[str]
    spare_models: list[str]
    fetch_from: list[str]
    lend: bool


@dataclass(frozen=True)
class Decided:
    """The whole plan, and each machine's share of it by its name in the inventory."""

    kept: FleetPlan
    shares: dict[str, Share]
    explanation: tuple[str, ...] = ()


def place_fleet(
    surveys: Sequence[Survey], catalogue_file: Path, machines: Sequence[str], kept: FleetPlan | None = None
) -> Decided:
    """Decide for all machines that were looked at; `machines` are those of the inventory.

    Where some were not looked at (`--limit`, a check of machines that are new) nothing moves between machines: what may
    run anywhere stays where it is.

    Raises:
        RoostError: something cannot be placed, or machines contradict each other; says what would have to change.
    """
    catalogue = _catalogue(surveys, catalogue_file)
    anywhere = slots_for_anywhere(surveys)
    kept = kept or FleetPlan()
    seen = {survey.machine for survey in surveys}
    away = {kept.machines.get(machine, machine) for machine in machines if machine not in seen}
    present = _present(surveys, kept)
    fixed = [p for p in present if p.host in away or p.slot in anywhere] if away else []
    hosts = [without(survey.host, [p for p in fixed if p.host == survey.host.name]) for survey in surveys]
    wishes = _wishes(surveys, {} if away else anywhere, catalogue)
    before = Plan(tuple(p for p in present if p not in fixed))
    with tempfile.TemporaryDirectory() as folder:
        figures = _figures(catalogue, surveys, Path(folder))
        plan = place_known(hosts, _candidates(surveys, catalogue), wishes, figures, before)
    need_placed(plan)
    _need_whole(plan)
    if away:
        plan = _with_fixed(plan, fixed, present)
    nodes = {machine: node for machine, node in kept.machines.items() if machine in machines}
    nodes |= {survey.machine: survey.host.name for survey in surveys}
    made = FleetPlan(dict(sorted(nodes.items())), plan, tuple(sorted(anywhere)))
    return Decided(made, _shares(surveys, plan, catalogue, anywhere), plan.explanation)


def slots_for_anywhere(surveys: Sequence[Survey]) -> dict[str, ModelSlot]:
    """Return the slots with copies, each once.

    Raises:
        RoostError: two machines say different things of one.
    """
    found: dict[str, tuple[str, ModelSlot]] = {}
    for survey in surveys:
        for slot in survey.slots:
            who, other = found.setdefault(slot.slot, (survey.machine, slot))
            if other != slot and (slot.copies or other.copies):
                raise RoostError(
                    f"The slot {slot.slot} is placed in the whole fleet, and {who} and {survey.machine} say different "
                    "things of it.",
                    fix="Write a slot with copies once, in the variables of the group fleet; give others other names.",
                )
    return {name: slot for name, (_, slot) in found.items() if slot.copies}


def without(host: HostCapacity, placed: Sequence[Placed]) -> HostCapacity:
    """Return what a machine has beside some servers."""
    taken: dict[str, int] = {}
    for one in placed:
        for device in one.estimate.devices:
            taken[device.device] = taken.get(device.device, 0) + device.total
    gpus = [replace(g, free_bytes=max(0, g.free_bytes - taken.get(f"GPU{g.index}", 0))) for g in host.gpus]
    shared = sum(taken.get(f"GPU{g.index}", 0) for g in host.gpus if g.integrated)
    return replace(host, free_bytes=max(0, host.free_bytes - taken.get(HOST, 0) - shared), gpus=tuple(gpus))


def _present(surveys: Sequence[Survey], kept: FleetPlan) -> list[Placed]:
    """Return what runs: on machines that were looked at as they say, on others as it was planned."""
    here = {survey.host.name for survey in surveys}
    own = [p for survey in surveys for p in survey.present.placed if p.host == survey.host.name]
    known = {(p.slot, p.host, p.copy) for p in own}
    gone = [p for p in kept.plan.placed if p.host not in here and (p.slot, p.host, p.copy) not in known]
    return [*own, *gone]


def _wishes(surveys: Sequence[Survey], anywhere: Mapping[str, ModelSlot], catalogue: Catalogue) -> list[Wish]:
    found: list[Wish] = []
    for survey in surveys:
        own, optional = _own(survey)
        found += wishes_of(own, survey.host, catalogue, optional, failover=True)
    for slot in anywhere.values():
        (wish,) = wishes_of([slot], surveys[0].host, catalogue)
        found.append(replace(wish, host="", copies=slot.copies))
    return found


def _own(survey: Survey) -> tuple[list[ModelSlot], set[str]]:
    """Return the slots that a machine has for itself, and which of them are optional."""
    own = [slot for slot in survey.slots if not slot.copies]
    if any(slot.is_explicit for slot in survey.slots):
        return own, set()
    others = {slot.slot for slot in survey.slots if slot.copies}
    shaped, optional = with_shape(own, survey.host.tier)
    return [slot for slot in shaped if slot.slot not in others], optional - others


def _with_fixed(plan: Plan, fixed: Sequence[Placed], present: Sequence[Placed]) -> Plan:
    """Return the plan of some machines as part of the fleet's; spares are on machines that were not looked at."""
    before = {(p.slot, p.host, p.copy): p for p in present}
    placed = []
    for one in plan.placed:
        was = before.get((one.slot, one.host, one.copy))
        same = was is not None and (was.model, was.quantisation, was.split) == (one.model, one.quantisation, one.split)
        placed.append(replace(one, spares=was.spares) if was is not None and same else one)
    return replace(plan, placed=(*placed, *fixed))


def _need_whole(plan: Plan) -> None:
    """See that every server has one machine: the playbook starts no workers for layers of others.

    Raises:
        RoostError: a model was split over machines.
    """
    for placed in plan.placed:
        if placed.rpc:
            raise RoostError(
                f"{placed.slot} ({placed.model}): no machine holds it, and the playbook splits none over several.",
                fix="Name a smaller model or quantisation, or a shorter context.",
            )


# --- What all machines know together ------------------------------------------------------------------------------


def _catalogue(surveys: Sequence[Survey], file: Path) -> Catalogue:
    """Return the catalogue with what the operator added anywhere, and with the files that lie on machines.

    Raises:
        RoostError: machines have different models of one name.
    """
    custom: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for survey in surveys:
        for added, into in ((survey.custom, custom), (survey.found, found)):
            for name, entry in added.items():
                if name in into and into[name] != entry and name not in survey.local:
                    raise RoostError(
                        f"Machines have different models called {name}; {survey.machine} is one of them.",
                        fix="Write models_custom once, in the variables of the group fleet.",
                    )
                into.setdefault(name, entry)
    listed = load_catalogue(file, custom=custom)
    beside = {name: entry for name, entry in parse_custom(found).items() if name not in listed.entries}
    return listed.model_copy(update={"entries": {**listed.entries, **beside}})


class _Together:
    """Says what all machines together can have: one that has a file gives it to the others."""

    def __init__(self, surveys: Sequence[Survey]) -> None:
        self.surveys = surveys

    def why_not(self, model: ListedModel) -> WhyNot | None:
        """Return why no machine can have it, or None."""
        reasons = [survey.missing.get(model.reference) for survey in self.surveys]
        return None if None in reasons else reasons[0]


def _candidates(surveys: Sequence[Survey], catalogue: Catalogue) -> list[Candidate]:
    only: dict[str, set[str]] = {}
    for survey in surveys:
        for name in survey.local:
            only.setdefault(name, set()).add(survey.host.name)
    found = candidates_of(catalogue, _Together(surveys))
    return [replace(one, only=frozenset(only.get(one.model, ()))) for one in found]


class MostOf:
    """An estimator for a fleet: the most that the engine of any machine said, else what the header says."""

    def __init__(self, own: Sequence[Estimator], header: Estimator) -> None:
        """Ask `own`, the best estimators of machines."""
        self.own, self.header = own, header

    def layers(self, model: str, quantisation: str) -> int:
        """Return how many layers can go to a graphics processor, the output layer included."""
        return self.header.layers(model, quantisation)

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        """Return the bytes on each device.

        Raises:
            RoostError: nothing is known of this model's shape.
        """
        said = [one.estimate(model, quantisation, settings, split) for one in self.own]
        known = [estimate for estimate in said if estimate.origin != "header"]
        if not known:
            return self.header.estimate(model, quantisation, settings, split)
        return max(known, key=lambda estimate: sum(device.total for device in estimate.devices))


def _figures(catalogue: Catalogue, surveys: Sequence[Survey], folder: Path) -> Figures:
    """Return what is known of memory: from headers, and what engines on the machines said; files are in `folder`."""
    given = {reference: header for survey in surveys for reference, header in survey.headers.items()}
    header = header_figures(catalogue, None, given)
    own: list[Estimator] = []
    for number, survey in enumerate(surveys):
        if survey.figures:
            place = folder / str(number)
            place.mkdir()
            (place / FIGURES_FILE).write_text(survey.figures)
            found = host_figures(catalogue, None, place, survey.gpu_names, given)
            own += [] if found.alike else [found.best]
    return Figures(MostOf(own, header.best), header.header) if own else header


# --- What each machine has to know --------------------------------------------------------------------------------


def _shares(
    surveys: Sequence[Survey], plan: Plan, catalogue: Catalogue, anywhere: Mapping[str, ModelSlot]
) -> dict[str, Share]:
    slots = {survey.host.name: {slot.slot: slot for slot in _own(survey)[0]} | dict(anywhere) for survey in surveys}
    shown = {
        survey.host.name: [
            resolved_slot(slots[p.host][p.slot], p, catalogue, fleet=True)
            for p in plan.placed
            if p.host == survey.host.name
        ]
        for survey in surveys
    }
    spare = {survey.host.name: _spare_models(plan, survey.host.name, catalogue) for survey in surveys}
    held = {survey.host.name: set(survey.held) for survey in surveys}
    needs = {name: [*(s["model"] for s in shown[name]), *spare[name]] for name in held}
    lack = {name: {catalogue.listed(model).reference for model in needs[name]} - held[name] for name in held}
    machines = {survey.host.name: survey.machine for survey in surveys}
    custom = {name: entry for survey in surveys for name, entry in survey.custom.items() if name not in survey.local}
    found = {}
    for survey in surveys:
        name = survey.host.name
        part = replace(plan, placed=tuple(p for p in plan.placed if p.host == name), refused=())
        used = {p.model for p in part.placed}
        found[survey.machine] = Share(
            slots=shown[name],
            custom={**custom, **{n: entry for n, entry in survey.custom.items() if n in survey.local}},
            hashes=sorted(used & survey.found.keys()),
            pools=memory_pools(survey.host),
            plan=part,
            better=_better(part, survey, catalogue),
            elsewhere=sorted(_elsewhere(plan, name, anywhere)),
            spare_models=[model for model in spare[name] if catalogue.listed(model).reference in lack[name]],
            fetch_from=[machines[other] for other in sorted(held) if other != name and held[other] & lack[name]],
            lend=any(held[name] & lack[other] for other in held if other != name),
        )
    return found


def _spare_models(plan: Plan, host: str, catalogue: Catalogue) -> list[str]:
    """Return the models that a machine may have to run for others, as `roost models pull` names them."""
    return list(dict.fromkeys(_name(p, catalogue) for p in plan.placed if host in p.spares))


def _name(placed: Placed, catalogue: Catalogue) -> str:
    preferred = catalogue.listed(placed.model).quantisation == placed.quantisation
    return placed.model if preferred else f"{placed.model}:{placed.quantisation}"


def _elsewhere(plan: Plan, host: str, anywhere: Collection[str]) -> list[str]:
    return [job_name(p.slot, number=p.copy + 1) for p in plan.placed if p.host != host and p.slot in anywhere]


def _better(part: Plan, survey: Survey, catalogue: Catalogue) -> str:
    offline = Path(survey.offline_dir) if survey.offline_dir else None
    reach = Reach(offline_dir=offline, hub_problem=survey.hub_problem)
    own, optional = _own(survey)
    own_part = replace(part, placed=tuple(p for p in part.placed if p.slot in {slot.slot for slot in own}))
    return better_plan(own_part, survey.host, catalogue, reach, own, optional, survey.from_hub)
