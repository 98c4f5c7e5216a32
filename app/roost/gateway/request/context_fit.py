"""Whether a request fits the context that one slot of a model server has, and what to leave out if asked to. Pure.

Nothing is ever left out silently: what does not fit is refused with the numbers, or cut where the client asks for that
and told what was cut. llama-server refuses a prompt that is too long by itself, and without context shift (which is its
default: `--help` of build 11669) it ends an answer at the end of the context and says so: what is missed here is still
never lost unnoticed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

# What a chat template may add to a request, in tokens: a system message of its own, a date, how to call tools. A guess
# on the safe side, and no more than a guess is needed: it decides only whether the model server is asked to count.
TEMPLATE_TOKENS = 256
TEMPLATE_TOKENS_WITH_TOOLS = 2048
INSTRUCTIONS = frozenset({"system", "developer"})
ANSWER_SHARE = 4  # where messages are cut, a quarter of the context is kept for the answer, or all it asks for


@dataclass(frozen=True)
class Size:
    """Tokens: the prompt as counted, the longest answer asked for (None: as long as there is room), the context."""

    prompt: int
    answer: int | None
    context: int

    @property
    def fits(self) -> bool:
        """Say whether the prompt and the whole answer, or one token of it, have room."""
        return self.prompt + (1 if self.answer is None else max(1, self.answer)) <= self.context

    @property
    def room(self) -> int:
        """Return how many tokens are left for the answer."""
        return self.context - self.prompt


def surely_fits(body: bytes, answer: int | None, context: int) -> bool:
    """Say that a request fits without counting: no tokeniser makes more tokens than there are bytes.

    JSON writes a text with at least as many bytes as it has, and its punctuation is more than a template's marks.
    """
    template = TEMPLATE_TOKENS_WITH_TOOLS if b'"tools"' in body else TEMPLATE_TOKENS
    return len(body) + template + (answer or 1) <= context


def prompt_budget(answer: int | None, context: int) -> int:
    """Return how long the prompt may be after messages were cut."""
    share = context // ANSWER_SHARE
    return context - max(1, share if answer is None else min(answer, share))


def cut_points(messages: Sequence[Mapping[str, object]]) -> list[int]:
    """Return where a conversation may begin instead: at each later user's turn, so that no call lacks its answer."""
    first = sum(1 for _ in _head(messages))
    return [at for at in range(first + 1, len(messages)) if messages[at].get("role") == "user"]


def _head(messages: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the instructions at the beginning; they always stay."""
    head: list[Mapping[str, object]] = []
    for message in messages:
        if message.get("role") not in INSTRUCTIONS:
            break
        head.append(message)
    return head


def without_oldest(messages: Sequence[Mapping[str, object]], begin: int) -> list[Mapping[str, object]]:
    """Return the conversation from `begin` on, with its instructions."""
    return [*_head(messages), *messages[begin:]]


async def first_that_fits(points: Sequence[int], fits: Callable[[int], Awaitable[bool]]) -> int | None:
    """Return the earliest of the points from which on everything fits, or None; asks for few of them.

    What fits must still fit with less.
    """
    low, high = 0, len(points)
    while low < high:
        middle = (low + high) // 2
        if await fits(points[middle]):
            high = middle
        else:
            low = middle + 1
    return points[low] if low < len(points) else None
