"""Which model suits which role, and which of those at hand fills an empty slot. Pure: plain data in and out.

A model of the catalogue says its roles; of a stranger they are guessed from its name and its GGUF metadata
(`guess_roles`). Whether a model fits into memory is placement's matter: it may rank its candidates for a slot with
`rank`, and leave out what does not fit; `fill_slots` fills every slot from what is present.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from roost.models.model_slots import ModelSlot
from roost.models.schema import ROLES, Role

# A model that only talks can do these in a pinch, with a quarter of its worth as main model.
FROM_MAIN: frozenset[Role] = frozenset({"router", "specialist", "rlm", "memory", "coding"})
FROM_MAIN_DIVISOR = 4
# general.architecture of models that turn a text into a vector (llama.cpp's src/llama-arch.cpp)
ENCODERS = frozenset({
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert",
    "gemma-embedding", "t5encoder",
})  # fmt: skip
# (pattern in the name, roles it speaks for); the first that matches counts. Word borders: `-`, `_`, `.` and blanks.
NAMES: tuple[tuple[str, dict[Role, int]], ...] = (
    ("rerank(er)?", {}),
    ("embed(ding|dings|der)?|bge|gte|e5|minilm|embeddinggemma", {"embedding": 60}),
    ("orchestrator|router|arch-router", {"router": 80, "specialist": 40, "main": 20}),
    ("vl|vision|llava|pixtral|minicpm-v|moondream|smolvlm[0-9]*", {"vision": 60, "main": 30, "specialist": 20}),
    ("coder|code|codestral|devstral|starcoder[0-9]*|codegemma|codellama", {"coding": 70, "specialist": 50, "main": 20}),
    ("extract|summar(y|ise|ize|iser|izer)|rag|transcript|memory", {"memory": 60, "main": 10}),
    ("tool|tools|function|functionary|toolcalling|xlam", {"specialist": 60, "router": 50, "main": 20}),
    ("think|thinking|reason|reasoning|reasoner|r1|qwq|magistral", {"rlm": 50, "main": 40, "specialist": 40}),
    ("instruct|it|chat|assistant|sft|dpo", {"main": 50, "memory": 30}),
    ("base|pt|pretrained", {"main": 5}),
)
UNKNOWN: dict[Role, int] = {"main": 30}
WITH_TOOLS: dict[Role, int] = {"specialist": 40, "router": 35}  # a chat template that knows tools


@dataclass(frozen=True)
class Seen:
    """A model that could be served: of the catalogue (`roles` are its preferences), or a file that lies there.

    `name` is general.name or the file's name, `architecture` general.architecture, `chat_template`
    tokenizer.chat_template; `parameters` counts weights, 0 where it is not known.
    """

    reference: str
    name: str = ""
    architecture: str = ""
    chat_template: str = ""
    has_projector: bool = False
    parameters: int = 0
    roles: Mapping[Role, int] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Return the name without the quantisation."""
        return self.reference.partition(":")[0]


@dataclass(frozen=True)
class Ranked:
    """A candidate for a role: its worth (1 to 100) and the reason in words."""

    reference: str
    worth: int
    why: str


@dataclass(frozen=True)
class Filled:
    """Slots by name with their model's reference; of those that stay empty, the reason. A line of reason for each."""

    models: dict[str, str]
    reasons: dict[str, str]


def guess_roles(seen: Seen) -> dict[Role, int]:
    """Return the roles that name and metadata speak for, with a preference of 0 to 100; empty: for none."""
    name = re.sub(r"[\s_.:/]+", "-", f"{seen.reference} {seen.name}".lower())
    if seen.architecture in ENCODERS:
        return {"embedding": 60}
    roles: dict[Role, int] = dict(UNKNOWN)
    for pattern, speaks_for in NAMES:
        if re.search(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", name):
            roles = dict(speaks_for)
            break
    if seen.has_projector:
        roles["vision"] = max(60, roles.get("vision", 0))
    if roles and "embedding" not in roles and "tool" in seen.chat_template:
        roles |= {role: max(worth, roles.get(role, 0)) for role, worth in WITH_TOOLS.items()}
    return roles


def rank(role: Role, candidates: Sequence[Seen]) -> list[Ranked]:
    """Return the candidates that can do a role, best first: by worth, then by size, then by reference."""
    found: list[tuple[int, Seen, str]] = []
    for seen in candidates:
        worth, why = _worth(role, seen)
        if worth:
            found.append((worth, seen, why))
    found.sort(key=lambda item: (-item[0], -item[1].parameters, item[1].reference))
    return [Ranked(seen.reference, worth, why) for worth, seen, why in found]


def fill_slots(slots: Sequence[ModelSlot], present: Sequence[Seen]) -> Filled:
    """Choose a model for each slot that names none; what is named stays, whatever is present.

    Main and router never share a model when another can take either part. Other slots take what no slot has yet, where
    that is of the same worth. The order of `present` does not matter.
    """
    models = {slot.slot: slot.model or slot.path for slot in slots if slot.is_explicit}
    reasons = dict.fromkeys(models, "named in model_slots")
    empty = sorted((slot for slot in slots if not slot.is_explicit), key=lambda slot: ROLES.index(slot.role))
    ranked = {slot.slot: rank(slot.role, present) for slot in empty}
    pair = _main_and_router(empty, slots, ranked)
    for slot in empty:
        options = ranked[slot.slot]
        if not options:
            reasons[slot.slot] = f"nothing that is here can be {slot.role}"
            continue
        taken = {_name(reference) for reference in models.values()}
        best = pair.get(slot.slot) or min(
            (o for o in options if o.worth == options[0].worth), key=lambda o: _name(o.reference) in taken
        )
        models[slot.slot] = best.reference
        reasons[slot.slot] = best.why
    return Filled({slot.slot: models[slot.slot] for slot in slots if slot.slot in models}, reasons)


def _main_and_router(
    empty: Sequence[ModelSlot], slots: Sequence[ModelSlot], ranked: Mapping[str, list[Ranked]]
) -> dict[str, Ranked]:
    """Return the choice for the first main and the first router slot, where one of them is to be chosen."""
    first = {role: next((s for s in slots if s.role == role), None) for role in ("main", "router")}
    main, router = first["main"], first["router"]
    if main is None or router is None or not {main.slot, router.slot} & {slot.slot for slot in empty}:
        return {}
    options = [
        ranked[slot.slot] if slot.slot in ranked else [Ranked(slot.model or slot.path, 0, "")]
        for slot in (main, router)
    ]
    pairs = [(m, r) for m, r in product(*options) if _name(m.reference) != _name(r.reference)]
    if not pairs:
        return {}
    # the best sum; of equal ones the better main model, then the first in the order of `rank`
    best = max(pairs, key=lambda pair: (pair[0].worth + pair[1].worth, pair[0].worth))
    return {slot.slot: choice for slot, choice in zip((main, router), best, strict=True) if slot.slot in ranked}


def _name(reference: str) -> str:
    return reference if reference.startswith("/") else reference.partition(":")[0]


def _worth(role: Role, seen: Seen) -> tuple[int, str]:
    roles = seen.roles or guess_roles(seen)
    by = "the catalogue gives" if seen.roles else "its name and metadata speak for"
    if roles.get(role, 0):
        return roles[role], f"{by} {seen.reference} {roles[role]} of 100 as {role}"
    if role in FROM_MAIN and roles.get("main", 0):
        worth = max(1, roles["main"] // FROM_MAIN_DIVISOR)
        return worth, f"{seen.reference} talks, and nothing speaks against it as {role}"
    return 0, ""
