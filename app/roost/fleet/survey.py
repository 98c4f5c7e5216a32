"""What one machine says to the fleet's plan: what it has, what its variables ask for, what it can get. Plain data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from roost.fleet.host_plan import FromHub
from roost.fleet.plan import HostCapacity, Plan
from roost.models.catalogue import Catalogue
from roost.models.estimate.known import CatalogueHeaders
from roost.models.gguf_header import Header
from roost.models.model_slots import ModelSlot
from roost.models.obtainable import Obtainable, WhyNot
from roost.ops.errors import RoostError
from roost.ops.validation import in_words


@dataclass(frozen=True)
class Survey:
    """One machine. `machine` is its name in the inventory, `host.name` the one that Nomad knows.

    `slots` are the entries of its `model_slots`. `custom` are models of the operator, and those made of files that
    slots name; `found` those made of files that only lie there: their hashes are not known. `local` are the names of
    all that are made of files: only this machine has them. `missing` says by `NAME:QUANT` why a model cannot be had
    here, `held` which ones lie in the models folder, verified. `headers` are those of files that run here, or of whose
    shape the catalogue says nothing. `figures` is the text of what its engine said, which
    holds for graphics
    processors of the names `gpu_names`.
    """

    machine: str
    host: HostCapacity
    slots: tuple[ModelSlot, ...]
    custom: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    local: tuple[str, ...] = ()
    missing: dict[str, WhyNot] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    headers: dict[str, Header] = field(default_factory=dict)
    figures: str = ""
    gpu_names: tuple[str, ...] = ()
    present: Plan = field(default_factory=lambda: Plan(()))
    hub_problem: str = ""
    offline_dir: str = ""
    from_hub: FromHub = "auto"


_SURVEY: TypeAdapter[Survey] = TypeAdapter(Survey)


def document_of(survey: Survey) -> dict[str, Any]:
    """Return a survey as JSON's plain data."""
    found: dict[str, Any] = _SURVEY.dump_python(survey, mode="json")
    return found


def read_survey(document: Mapping[str, Any]) -> Survey:
    """Return the survey that a machine gave.

    Raises:
        RoostError: it is none, for another release made it.
    """
    try:
        return _SURVEY.validate_python(dict(document))
    except ValidationError as error:
        raise RoostError(
            f"What a machine says of itself is not understood: {in_words(error)}.",
            fix="Run it again: every machine then has this release.",
        ) from None


def out_of_reach(obtainable: Obtainable) -> dict[str, WhyNot]:
    """Return why models cannot be had on this machine, by `NAME:QUANT`."""
    found = {model.reference: obtainable.why_not(model) for model in obtainable.models()}
    return {reference: why for reference, why in found.items() if why}


def held_models(obtainable: Obtainable) -> tuple[str, ...]:
    """Return the models of which nothing needs fetching, as `NAME:QUANT`."""
    return tuple(model.reference for model in obtainable.models() if obtainable.lies_here(model))


def read_headers(catalogue: Catalogue, models_dir: Path, held: Collection[str], present: Plan) -> dict[str, Header]:
    """Return the headers that the catalogue's shapes do not replace, of models that lie here."""
    headers = CatalogueHeaders(catalogue, models_dir)
    running = {f"{placed.model}:{placed.quantisation}" for placed in present.placed}
    wanted = [catalogue.listed(reference) for reference in held]
    return {
        one.reference: headers(one.name, one.quantisation)
        for one in wanted
        if headers.file(one.name, one.quantisation) and (one.reference in running or not one.shape)
    }
