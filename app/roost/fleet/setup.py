"""What `roost setup` proposes: which slots are asked for, a plan as offers to a user, and the variable that keeps them.

Pure: plain data in and out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roost.fleet.plan import Placed, Plan, Refused
from roost.models.catalogue import Catalogue
from roost.models.model_slots import ModelSlot, parse_slots
from roost.models.obtainable import Obtainable
from roost.ops.errors import RoostError

VARIABLE = "model_slots"
CHOOSE = ("auto", "choose")  # what a user may write for "choose one"
USAGE = 2


class Planner(Protocol):
    """Places slots on this machine; of those in `optional` another slot may do the work."""

    def __call__(self, slots: Sequence[ModelSlot], optional: Collection[str] = ()) -> Plan:
        """Return the plan.

        Raises:
            RoostError: a slot names what there is not.
        """
        ...


@dataclass(frozen=True)
class Offer:
    """One model server as a user is offered it. Sizes in bytes; `memory` by device, the machine's own (`CPU`) first.

    `origin` says where the figure comes from. `download` is what has to be fetched, None where nobody knows yet.
    `model` is `NAME:QUANT`, or the path of a file.
    """

    slot: str
    model: str
    title: str
    licence: str
    context_size: int
    parallel: int
    memory: tuple[tuple[str, int], ...]
    origin: str
    download: int | None
    reason: str


@dataclass(frozen=True)
class Proposal:
    """All slots: what is offered, what was refused, and the slots as they were asked for."""

    slots: tuple[ModelSlot, ...]
    offers: tuple[Offer, ...]
    refused: tuple[Refused, ...]
    explanation: tuple[str, ...] = ()

    @property
    def download(self) -> int:
        """Return the bytes to fetch, as far as they are known; a file that two slots serve counts once."""
        return sum({offer.model: offer.download or 0 for offer in self.offers}.values())

    def offer(self, slot: str) -> Offer | None:
        """Return what is offered for a slot."""
        return next((offer for offer in self.offers if offer.slot == slot), None)


@dataclass(frozen=True)
class Asked:
    """What a user says by options: models and contexts by slot (an empty slot is for all), and whether to choose anew.

    A model of None takes the slot out; an empty one has it chosen.
    """

    models: Mapping[str, str | None]
    contexts: Mapping[str, int]
    anew: bool = False


def parse_asked(slots: Sequence[str], contexts: Sequence[str], *, anew: bool = False) -> Asked:
    """Read `SLOT=MODEL[:QUANT]` (`SLOT=auto`, `SLOT=none`, `SLOT=/a/file.gguf`), and `[SLOT=]TOKENS`.

    Raises:
        RoostError: one is written in another way, or says two things of one slot.
    """
    models: dict[str, str | None] = {}
    for word in slots:
        slot, equals, model = word.partition("=")
        if not equals or not slot:
            raise RoostError(f"--slot {word!r} is not SLOT=MODEL.", fix="Write e.g. --slot main=auto.", exit_code=USAGE)
        _once("--slot", slot, models)
        models[slot] = None if model in {"none", ""} else "" if model in CHOOSE else model
    sizes: dict[str, int] = {}
    for word in contexts:
        slot, _, number = word.rpartition("=")
        if not number.isdigit():
            raise RoostError(
                f"--context {word!r} is not a number of tokens.", fix="Write e.g. --context 8192.", exit_code=USAGE
            )
        _once("--context", slot, sizes)
        sizes[slot] = int(number)
    return Asked(models, sizes, anew)


def _once(option: str, slot: str, seen: Collection[str]) -> None:
    if slot in seen:
        raise RoostError(f"{option} names {slot or 'all slots'} twice.", fix="Name it once.", exit_code=USAGE)


def wished_slots(
    own: Sequence[ModelSlot] | None, defaults: Sequence[ModelSlot], shape: Sequence[str], asked: Asked
) -> tuple[tuple[ModelSlot, ...], frozenset[str]]:
    """Return the slots to place, and those of them of which another may do the work.

    `own` are those that the operator's file names: what it names is kept to, unless it shall be chosen anew. Without
    them `shape` names slots for a machine of this size, the first of them needed; settings are the defaults'.

    Raises:
        RoostError: an option is about a slot that there is not, or is not valid; or no slot is left.
    """
    if own is None:
        base = [_like(name, defaults) for name in shape]
        optional = set(shape[1:])
    else:
        base = [_unnamed(slot) for slot in own] if asked.anew else list(own)
        optional = set()
    names = [slot.slot for slot in base]
    base += [_like(name, defaults) for name, model in asked.models.items() if name not in names and model is not None]
    unknown = [name for name in asked.contexts if name and name not in {slot.slot for slot in base}]
    if unknown:
        raise RoostError(
            f"There is no slot {unknown[0]!r} to give a context.",
            fix=f"Slots are {', '.join(s.slot for s in base)}; --slot {unknown[0]}=auto adds one.", exit_code=USAGE,
        )  # fmt: skip
    found = [_asked(slot, asked) for slot in base if asked.models.get(slot.slot, "") is not None]
    if not found:
        raise RoostError("No slot would be left; a fleet needs one.", fix="Keep at least main.", exit_code=USAGE)
    return tuple(found), frozenset(optional - set(asked.models))


def _like(name: str, defaults: Sequence[ModelSlot]) -> ModelSlot:
    """Return a slot with nothing chosen, and the settings of the default one with its name, else of the first."""
    like = next((slot for slot in defaults if slot.slot == name), defaults[0] if defaults else ModelSlot(slot=name))
    return _unnamed(_checked(like, {"slot": name}))


def _unnamed(slot: ModelSlot) -> ModelSlot:
    return _checked(slot, {"model": "", "path": "", "context_size": 0, "adapters": []})


def _asked(slot: ModelSlot, asked: Asked) -> ModelSlot:
    changes: dict[str, object] = {}
    model = asked.models.get(slot.slot)
    if model is not None:
        changes |= {"path": model, "model": ""} if model.startswith("/") else {"path": "", "model": model}
    context = asked.contexts.get(slot.slot, asked.contexts.get(""))
    if context is not None:
        changes["context_size"] = context
    return _checked(slot, changes) if changes else slot


def _checked(slot: ModelSlot, changes: Mapping[str, object]) -> ModelSlot:
    """Return the slot with changes, checked as if it had been written so."""
    return parse_slots([{**slot.model_dump(), **changes}])[0]


def propose(plan: Plan, slots: Sequence[ModelSlot], catalogue: Catalogue, obtainable: Obtainable) -> Proposal:
    """Return a plan as offers, in the order of the slots."""
    by_slot = {placed.slot: placed for placed in plan.placed}
    offers = tuple(_offer(by_slot[s.slot], s, catalogue, obtainable) for s in slots if s.slot in by_slot)
    return Proposal(tuple(slots), offers, plan.refused, plan.explanation)


def _offer(placed: Placed, slot: ModelSlot, catalogue: Catalogue, obtainable: Obtainable) -> Offer:
    reference, title, licence = slot.path, Path(slot.path).name, "its owner's"
    download: int | None = 0
    if not slot.path:
        listed = catalogue.listed(placed.model, placed.quantisation)
        reference, title, licence = listed.reference, listed.title, listed.licence
        download = obtainable.download_bytes(listed)
    return Offer(
        slot=slot.slot,
        model=reference,
        title=title,
        licence=licence,
        context_size=placed.settings.context_size,
        parallel=placed.settings.parallel,
        memory=tuple((device.device, device.total) for device in placed.estimate.devices if device.total),
        origin=placed.estimate.origin,
        download=download,
        reason=placed.reason,
    )


def slot_entries(proposal: Proposal, catalogue: Catalogue) -> list[dict[str, object]]:
    """Return the variable `model_slots` that makes what was offered so: models and contexts are named."""
    wanted = {slot.slot: slot for slot in proposal.slots}
    return [_entry(wanted[offer.slot], offer, catalogue) for offer in proposal.offers]


def _entry(slot: ModelSlot, offer: Offer, catalogue: Catalogue) -> dict[str, object]:
    entry: dict[str, object] = {
        "slot": slot.slot,
        **({"path": slot.path} if slot.path else {"model": _short(offer.model, catalogue)}),
        "context_size": offer.context_size,
        "parallel": slot.parallel,
        "cache_ram_mib": slot.cache_ram_mib,
        "temperature": slot.temperature,
    }
    if slot.gpu != "auto":
        entry["gpu"] = slot.gpu
    if slot.adapters:
        entry["adapters"] = slot.adapters
    return entry


def _short(reference: str, catalogue: Catalogue) -> str:
    """Return a reference without its quantisation where the model has no other."""
    name = reference.partition(":")[0]
    return name if len(catalogue.entries[name].quantisations) == 1 else reference
