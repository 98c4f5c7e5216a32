"""Who could answer: the models that are there, with what is known of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from roost.engines.base import Report, Skill, State
from roost.gateway.choice.features import Features
from roost.gateway.routing import MAIN_SLOT, View, embeds

BYTES_PER_TOKEN = 3  # of JSON; on the safe side, for the choice only: what does not fit is refused by exact counts
BEST_FIRST = (State.READY, State.LOADING, State.COLD, State.DOWN)
FOR_ALL = (MAIN_SLOT, "router", "specialist", "memory")  # a slot of another name is for its own subject only


@dataclass(frozen=True)
class Candidate:
    """A slot and the model it serves.

    `strength` grows with what the model can be trusted with and can only be compared; 0 where nothing is known.
    `sees` and `calls` (tools) and `context` (tokens for one request) are None where the server does not say.
    """

    slot: str
    model: str
    ready: bool
    strength: int = 0
    context: int | None = None
    sees: bool | None = None
    calls: bool | None = None
    listed: bool = False  # the site's ladder names it
    why_not: str = ""  # why it is out of the question, if it is

    def expert_in(self, subject: str) -> bool:
        """Say whether the slot is for a subject: it has its name, or begins with it, as in `coding-2`."""
        return self.slot == subject or self.slot.startswith(f"{subject}-")

    @property
    def for_all(self) -> bool:
        """Say whether how hard a request is can lead to the slot, whatever its subject."""
        return self.listed or any(self.expert_in(subject) for subject in FOR_ALL)


def candidates(views: Sequence[View], reports: Mapping[str, Report], ladder: Sequence[str] = ()) -> list[Candidate]:
    """Return the slots that make text, each once with its best server, in a stable order.

    What is used by its own name only takes no part. `reports` are by endpoint. `ladder` names slots or models, the
    weakest first; without it they are compared by the number of parameters if all servers say it, else by the memory
    that is planned.
    """
    slots: dict[str, list[View]] = {}
    for view in sorted(views, key=lambda view: (BEST_FIRST.index(view.state), view.id)):
        if _makes_text(view, reports.get(view.id)) and not view.by_name:
            slots.setdefault(view.slot, []).append(view)
    chosen = {slot: found[0] for slot, found in slots.items()}
    sizes = _sizes(list(chosen.values()), reports)
    found = []
    for slot, view in sorted(chosen.items()):
        report = reports.get(view.id)
        model = view.models[0] if view.models else ""
        place = next((number for number, name in enumerate(ladder, 1) if name in (slot, model)), 0)
        found.append(
            Candidate(
                slot,
                model,
                view.state is State.READY and not view.drained,
                place if ladder else sizes[view.id],
                report.context_of(model) if report else None,
                report.sees if report else None,
                report.calls if report else None,
                listed=place > 0,
            )
        )
    return found


def _makes_text(view: View, report: Report | None) -> bool:
    """Say whether a server makes text; the slot main is taken for one before it was ever seen."""
    if not view.models:
        return view.slot == MAIN_SLOT
    return not embeds(view.slot) and not (report and Skill.GENERATE in report.lacks_of(view.models[0]))


def _sizes(views: Sequence[View], reports: Mapping[str, Report]) -> dict[str, int]:
    parameters = {view.id: (reports[view.id].parameters or 0) if view.id in reports else 0 for view in views}
    ready = [view for view in views if view.state is State.READY]
    if all(parameters[view.id] for view in ready):
        return parameters
    return {view.id: view.memory for view in views}


def sifted(found: Sequence[Candidate], features: Features) -> list[Candidate]:
    """Say of each candidate why it cannot take a request, where it cannot.

    A need that nobody is known to meet rules nobody out: then the model server is who says so.
    """
    found = [_why(one, "not ready") if not one.ready and one.slot != MAIN_SLOT else one for one in found]
    if features.images:
        found = _those_who(found, {one.slot for one in _able(found) if one.sees}, "cannot see")
    tokens = features.prompt_bytes // BYTES_PER_TOKEN + max(1, features.answer_tokens)
    if features.images:  # their bytes are no text
        tokens = features.chars // BYTES_PER_TOKEN + max(1, features.answer_tokens)
    fits = {one.slot for one in _able(found) if one.context is None or tokens <= one.context}
    found = _those_who(found, fits, "context too small")
    if features.tools:
        found = _those_who(found, {one.slot for one in _able(found) if one.calls}, "no tool calls")
    return found


def _able(found: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in found if not one.why_not]


def _those_who(found: Sequence[Candidate], slots: set[str], why: str) -> list[Candidate]:
    if not slots:
        return list(found)
    return [one if one.why_not or one.slot in slots else _why(one, why) for one in found]


def _why(one: Candidate, why: str) -> Candidate:
    return replace(one, why_not=why)


def stronger(found: Sequence[Candidate], slot: str) -> list[Candidate]:
    """Return the candidates that are stronger than a slot and can take the request, the next stronger first."""
    present = next((one for one in found if one.slot == slot), None)
    if present is None:
        return []
    able = [one for one in _able(found) if one.ready and one.strength > present.strength > 0]
    return sorted(able, key=lambda one: (one.strength, one.slot))
