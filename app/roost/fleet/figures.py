"""The figures that plans are made with: the best that are known, and what they may change of what runs.

While a plan is new, the best figures decide. What runs was decided with others, and is not moved because better ones
became known: less than was computed makes room only for what would be refused otherwise, and a little more is what the
margins of `fleet.capacity` are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roost.fleet.job_memory import gpu_words
from roost.fleet.place import Candidate, Wish, place
from roost.fleet.plan import HostCapacity, Placed, Plan
from roost.models.catalogue import Catalogue
from roost.models.estimate.beside import WithFiles
from roost.models.estimate.header import HeaderEstimator
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.measured import MeasuredStore
from roost.models.estimate.on_host import HostEngine, HostEstimator
from roost.models.footprint import Estimate, Estimator, LayerSplit, Origin, ServerSettings
from roost.models.gguf_header import Header
from roost.models.memory import TOLERANCE

WORDS: dict[Origin, str] = {
    "measured": "measured when it ran",
    "oracle": "said by the engine",
    "header": "computed from its header",
}


@dataclass(frozen=True)
class Figures:
    """Two estimators: the best that is known, and what headers alone say. They may be one and the same."""

    best: Estimator
    header: Estimator

    @property
    def alike(self) -> bool:
        """Say whether nothing but headers is known."""
        return self.best is self.header


class Calm:
    """An estimator for what runs: the header's figures, as long as the best ones are not more than they allow for."""

    def __init__(self, figures: Figures) -> None:
        """Stay with `figures.header` where possible."""
        self.figures = figures

    def layers(self, model: str, quantisation: str) -> int:
        """Return how many layers can go to a graphics processor, the output layer included."""
        return self.figures.header.layers(model, quantisation)

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        """Return the bytes on each device.

        Raises:
            RoostError: nothing is known of this model's shape.
        """
        header = self.figures.header.estimate(model, quantisation, settings, split)
        best = self.figures.best.estimate(model, quantisation, settings, split)
        return header if allows(header, best) else best


def allows(planned: Estimate, known: Estimate) -> bool:
    """Say whether what was planned is enough for what is known, but for `TOLERANCE`."""
    return all(found.total <= planned.on(found.device).total * (1 + TOLERANCE) for found in known.devices)


def header_figures(
    catalogue: Catalogue, models_dir: Path | None = None, given: Mapping[str, Header] | None = None
) -> Figures:
    """Return what headers say: of files that lie below `models_dir`, those `given`, and else the catalogue's shapes."""
    estimator = WithFiles(HeaderEstimator(CatalogueHeaders(catalogue, models_dir, given)), catalogue, models_dir)
    return Figures(estimator, estimator)


def host_figures(
    catalogue: Catalogue,
    models_dir: Path | None,
    state_dir: Path | None,
    gpu_names: Sequence[str],
    given: Mapping[str, Header] | None = None,
) -> Figures:
    """Return the figures of a host, with those that its engine said: kept in `state_dir` by the last run.

    They hold for the engine that ran last and for graphics processors of these names (of all that the facts have).
    """
    header = header_figures(catalogue, models_dir, given)
    build = MeasuredStore(state_dir).engine if state_dir is not None else ""
    if state_dir is None or not build:
        return header
    engine = HostEngine(build, gpu_words(gpu_names))
    best = HostEstimator(CatalogueHeaders(catalogue, models_dir, given), state_dir, engine)
    return Figures(WithFiles(best, catalogue, models_dir), header.header)


def place_known(
    hosts: Sequence[HostCapacity],
    candidates: Sequence[Candidate],
    wishes: Sequence[Wish],
    figures: Figures,
    present: Plan | None = None,
) -> Plan:
    """Return the plan; of each server the best figures are told, and beside them those that were planned with.

    Raises:
        ValueError: two hosts, models or wishes have the same name.
    """
    if figures.alike or present is None or not present.placed:
        plan = place(hosts, candidates, wishes, figures.best, present)
    else:
        plan = place(hosts, candidates, wishes, Calm(figures), present)
        if plan.refused:
            other = place(hosts, candidates, wishes, figures.best, present)
            plan = other if len(other.refused) < len(plan.refused) else plan
    return plan if figures.alike else _told(plan, figures.best, present or Plan(()))


def _told(plan: Plan, best: Estimator, present: Plan) -> Plan:
    before = {(p.slot, p.host, p.copy): p for p in present.placed}
    placed, words = [], []
    for one in plan.placed:
        known = one.estimate if one.rpc else best.estimate(one.model, one.quantisation, one.settings, one.split)
        if known.origin == "header":
            placed.append(one)
            continue
        was = before.get((one.slot, one.host, one.copy))
        stays = was is not None and _same(was, one) and allows(was.estimate, known)
        placed.append(replace(one, estimate=known, planned=was.estimate if was is not None and stays else None))
        words.append(f"{one.slot}: its memory was {WORDS[known.origin]}, here, with these settings")
    return replace(plan, placed=tuple(placed), explanation=(*plan.explanation, *words))


def _same(one: Placed, other: Placed) -> bool:
    return (one.model, one.quantisation, one.settings, one.split) == (
        other.model,
        other.quantisation,
        other.settings,
        other.split,
    )
