"""From a host's slots, catalogue and reach to a plan, and from the plan to slots that say everything.

The playbook, `roost plan` and `roost setup` come through here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from roost.fleet.figures import Figures, header_figures, place_known
from roost.fleet.place import Candidate, Wish
from roost.fleet.place.wishes import SHAPES
from roost.fleet.plan import HostCapacity, Placed, Plan
from roost.fleet.site_wish import HOST_POOL
from roost.models.catalogue import Catalogue
from roost.models.choose import Seen, guess_roles
from roost.models.footprint import HOST
from roost.models.model_slots import ModelSlot
from roost.models.obtainable import Obtainable, Reach, WhyNot, files_here
from roost.models.schema import ListedModel
from roost.models.source_types import PathSource
from roost.ops.errors import RoostError

FromHub = Literal["auto", "yes", "no"]


def from_hub_of(value: object) -> FromHub:
    """Return what the variable `models_from_hub` says; YAML reads a bare yes or no as true or false."""
    return "yes" if value in {True, "yes"} else "no" if value in {False, "no"} else "auto"


def reach_of(
    catalogue: Catalogue, *, models_dir: Path, cache_dir: Path, offline_dir: str, from_hub: FromHub, mirror: str
) -> Reach:
    """Return what an automatic choice may take on this machine.

    A model that only a hub has would be fetched without being asked for, so `from_hub` must be `yes`, or `auto` with a
    `mirror` named (HF_ENDPOINT).
    """
    problem = ""
    if from_hub == "no":
        problem = "models_from_hub is no"
    elif from_hub == "auto" and not mirror:
        problem = "models_from_hub is auto, and HF_ENDPOINT names no mirror"
    here = files_here(models_dir, cache_dir, catalogue)
    return Reach(here, Path(offline_dir) if offline_dir else None, problem)


class Supply(Protocol):
    """Says of a model why it cannot be had, or None: on one machine `Obtainable`, in a fleet all machines together."""

    def why_not(self, model: ListedModel) -> WhyNot | None:
        """Return why a model cannot be had, or None if it can."""


def candidates_of(catalogue: Catalogue, obtainable: Supply) -> list[Candidate]:
    """Return every model of the catalogue in every quantisation as placement sees it."""
    found: list[Candidate] = []
    ranks: dict[str, int] = {}
    for model in catalogue.all():
        rank = ranks.get(model.name, 0)
        ranks[model.name] = rank + 1
        why = obtainable.why_not(model)
        found.append(
            Candidate(
                model=model.name,
                quantisation=model.quantisation,
                roles=tuple(sorted(_roles(model).items())),
                tier=model.tier,
                context_length=model.context_length,
                rank=rank,
                active_share=model.parameters.active / model.parameters.total,
                available=why is None,
                why_not=f"cannot be had: {why.reason}" if why else "",
                remedy=f"Set models_from_hub to yes, or run roost models pull {model.reference}." if why else "",
            )
        )
    return found


def _roles(model: ListedModel) -> dict[str, int]:
    roles = model.roles or guess_roles(Seen(model.reference, model.title, model.architecture))
    return {str(role): worth for role, worth in roles.items()}


def wishes_of(
    slots: Sequence[ModelSlot], host: HostCapacity, catalogue: Catalogue, optional: Collection[str] = (),
    *, failover: bool = False,
) -> list[Wish]:  # fmt: skip
    """Return what a host's slots ask of placement; with `failover` others may run it when the host is lost.

    Raises:
        RoostError: a slot names a model that the catalogue does not have, or the path of a file that it does not know.
    """
    found = []
    for slot in slots:
        name, quantisation = _named(slot, catalogue)
        found.append(
            Wish(
                slot=slot.slot,
                role=slot.role,
                model=name,
                quantisation=quantisation,
                gpu=tuple(slot.gpu) if isinstance(slot.gpu, list) else slot.gpu,
                context_size=slot.context_size,
                parallel=slot.parallel,
                cache_ram_mib=slot.cache_ram_mib,
                adapters=tuple(slot.adapters),
                host=host.name,
                optional=slot.slot in optional,
                failover=failover,
            )
        )
    return found


def _named(slot: ModelSlot, catalogue: Catalogue) -> tuple[str, str]:
    if slot.path:
        for model in catalogue.all():
            if any(isinstance(source, PathSource) and str(source.path) == slot.path for source in model.sources):
                return model.name, model.quantisation
        raise RoostError(
            f"Slot {slot.slot} names the file {slot.path}, of which nothing is known.",
            fix=f"Run roost models add {slot.path}, then ./bootstrap.sh.",
        )
    if not slot.model:
        return "", ""
    listed = catalogue.listed(slot.model)
    return listed.name, listed.quantisation if ":" in slot.model else ""


def with_shape(slots: Sequence[ModelSlot], tier: str) -> tuple[list[ModelSlot], set[str]]:
    """Return the slots of a host, and which of them are optional.

    Who names a model decides how many there are. Where all are left to be chosen, those of the host's tier are added,
    with the settings of the first.
    """
    if not slots or any(slot.is_explicit for slot in slots):
        return list(slots), set()
    there = {slot.slot for slot in slots}
    more = [name for name in SHAPES[tier] if name not in there]
    return [*slots, *(slots[0].model_copy(update={"slot": name}) for name in more)], set(more)


@dataclass(frozen=True)
class HostPlanner:
    """Places slots on one host, keeping what runs."""

    host: HostCapacity
    catalogue: Catalogue
    candidates: Sequence[Candidate]
    figures: Figures
    present: Plan | None = None

    def __call__(self, slots: Sequence[ModelSlot], optional: Collection[str] = ()) -> Plan:
        """Return the plan; of the slots in `optional` another one may do the work.

        Raises:
            RoostError: a slot names what there is not.
        """
        wishes = wishes_of(slots, self.host, self.catalogue, optional)
        return place_known([self.host], self.candidates, wishes, self.figures, self.present)


def host_planner(
    host: HostCapacity,
    catalogue: Catalogue,
    reach: Reach,
    *,
    models_dir: Path | None = None,
    figures: Figures | None = None,
    present: Plan | None = None,
) -> HostPlanner:
    """Return the planner of one host; without `figures` headers tell what models need."""
    candidates = candidates_of(catalogue, Obtainable(catalogue, reach))
    return HostPlanner(host, catalogue, candidates, figures or header_figures(catalogue, models_dir), present)


def need_placed(plan: Plan) -> None:
    """See that nothing was refused.

    Raises:
        RoostError: something was; names all of it, the fix has what would have to change.
    """
    if plan.refused:
        what = "\n".join(f"  {r.slot}{f' ({r.model})' if r.model else ''}: {r.reason}" for r in plan.refused)
        fixes = " ".join(dict.fromkeys(f"{r.slot}: {r.remedy}" for r in plan.refused))
        raise RoostError(f"Not every slot can be placed:\n{what}", fix=fixes)


def resolved_slots(plan: Plan, slots: Iterable[ModelSlot], catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return the slots as jobs want them (`site_jobs.SlotWish`): what was asked for, and what the plan decided."""
    placed = {p.slot: p for p in plan.placed}
    return [resolved_slot(slot, placed[slot.slot], catalogue) for slot in slots if slot.slot in placed]


def resolved_slot(slot: ModelSlot, placed: Placed, catalogue: Catalogue, *, fleet: bool = False) -> dict[str, Any]:
    """Return one slot as jobs want it; of a `fleet` with its spares and, where it may run anywhere, its number."""
    preferred = catalogue.listed(placed.model).quantisation == placed.quantisation
    found: dict[str, Any] = {
        "slot": slot.slot,
        "model": placed.model if preferred else f"{placed.model}:{placed.quantisation}",
        "context_size": placed.settings.context_size,
        "parallel": placed.settings.parallel,
        "cache_ram_mib": placed.settings.cache_ram_mib,
        "temperature": slot.temperature,
        "gpus": list(placed.split.gpus),
        "gpu_layers": list(placed.split.gpu_layers),
    }
    for name in ("adapters", "keep_warm", "on_demand"):
        if getattr(slot, name):
            found[name] = getattr(slot, name)
    if fleet and placed.spares:
        found["spares"] = list(placed.spares)
    if fleet and slot.copies:
        found["number"] = placed.copy + 1
    if placed.split.gpus:
        needs = placed.planned or placed.estimate  # a job that runs is not changed for a better figure
        held = {f"GPU{index}": needs.on(f"GPU{index}").total for index in placed.split.gpus}
        found["memory"] = {HOST_POOL: needs.on(HOST).total, **held}
    return found


def memory_pools(host: HostCapacity) -> dict[str, int]:
    """Return the bytes that the models on each graphics processor may hold together, by its name."""
    return {f"GPU{gpu.index}": gpu.free_bytes for gpu in host.gpus}
