"""Whether work that went well is worth keeping as a skill, and what the skill would say. Pure.

Worth keeping is what took several different calls and is new: no skill says nearly the same, and nothing like it was
suggested before. So nobody is asked twice, whatever they answered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from roost.agent.receipts import Receipt
from roost.agent.skills.skill import MOST_DESCRIPTION, Skill, name_of
from roost.agent.skills.store import alike
from roost.agent.tool import Permission
from roost.context.topics import words

LEAST_CALLS = 2
"""Different calls that went well: what one call does needs no skill."""
SAME_SKILL = 0.3
SAME_MARK = 0.5
"""Jaccard index of the words of two requests done with the same tools, from which they are the same work."""
ARGUMENT_CHARACTERS = 200
MOST_STEPS = 12
MARK_WORDS = 40
MARK_CHARACTERS = 32
"""Of a mark: the first different words of a request, each so long at most. A message may be a whole file."""


def suggestion(request: str, receipts: Sequence[Receipt], skills: Sequence[Skill], seen: Sequence[str]) -> Skill | None:
    """Return the skill to suggest after a turn in which all was done; None where there is nothing new to keep."""
    steps = worth(receipts)
    if len(steps) < LEAST_CALLS or alike(request, skills, SAME_SKILL):
        return None
    mark = mark_of(request, receipts)
    if any(same(mark, other) for other in seen):
        return None
    lines = [f"{number}. `{tool}` with {arguments}" for number, (tool, arguments) in enumerate(steps[:MOST_STEPS], 1)]
    asked = " ".join(request.split())
    description = asked if len(asked) <= MOST_DESCRIPTION else f"{asked[: MOST_DESCRIPTION - 1]}…"
    return Skill(name_of(" ".join(words(request)) or asked), description, "\n".join(lines), "agent")


def worth(receipts: Sequence[Receipt]) -> list[tuple[str, str]]:
    """Return the different calls that went well, in order, as tool and arguments; those of memory aside."""
    found: dict[tuple[str, str], None] = {}
    for receipt in receipts:
        if receipt.well and receipt.permission is not Permission.MEMORY:
            said = json.dumps(receipt.call.arguments, ensure_ascii=False)
            short = said if len(said) <= ARGUMENT_CHARACTERS else f"{said[:ARGUMENT_CHARACTERS]}…"
            found.setdefault((receipt.call.name, short))
    return list(found)


def mark_of(request: str, receipts: Sequence[Receipt]) -> str:
    """Return what tells a suggestion from others: its tools, and the first words of the request, sorted."""
    tools = sorted({tool for tool, _ in worth(receipts)})
    said = list(dict.fromkeys(word[:MARK_CHARACTERS] for word in words(request)))[:MARK_WORDS]
    return f"{','.join(tools)}|{' '.join(sorted(said))}"


def same(mark: str, other: str) -> bool:
    """Say whether two marks are of the same work."""
    tools, _, said = mark.partition("|")
    other_tools, _, other_said = other.partition("|")
    one, two = set(said.split()), set(other_said.split())
    return tools == other_tools and (one == two or len(one & two) / max(len(one | two), 1) >= SAME_MARK)
