"""Which model suits which role. Pure: plain data in and out.

A model of the catalogue says its roles; of a stranger they are guessed from its name and its GGUF metadata
(`guess_roles`). Which of them fills a slot is placement's matter (`fleet.place`): it knows what fits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from roost.models.schema import Role

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


@dataclass(frozen=True)
class Ranked:
    """A candidate for a role: its worth (1 to 100) and the reason in words."""

    reference: str
    worth: int
    why: str


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


def _worth(role: Role, seen: Seen) -> tuple[int, str]:
    roles = seen.roles or guess_roles(seen)
    by = "the catalogue gives" if seen.roles else "its name and metadata speak for"
    if roles.get(role, 0):
        return roles[role], f"{by} {seen.reference} {roles[role]} of 100 as {role}"
    if role in FROM_MAIN and roles.get("main", 0):
        worth = max(1, roles["main"] // FROM_MAIN_DIVISOR)
        return worth, f"{seen.reference} talks, and nothing speaks against it as {role}"
    return 0, ""
