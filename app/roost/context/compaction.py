"""Matryoshka compaction: turns into topics, topics into a summary each, summaries into summaries of summaries.

Incremental: what was summarised stays as it is until its summary becomes part of another; the latest turns stay as
they were said. Between two compactions a prompt only grows, so the server's prefix cache holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from roost.context.budget import VERBATIM_TURNS, Bounds
from roost.context.conversation import Compaction, Conversation, Topic, Turn
from roost.context.summarise import Extractive, Summariser, SummariserError, step_tokens, within
from roost.context.tokens import PER_MESSAGE, Estimate, TokenCounter
from roost.context.topics import clusters, strongest, vectors

TOPIC_TOKENS = 3000
"""The most of a topic, in tokens of its turns."""
SUMMARY_TOKENS = 400
"""The most of a topic's summary."""
FOLDED_TOKENS = 500
"""The most of a summary of summaries."""
SUMMARIES_AT_ONCE = 4
"""How many summaries have room in a prompt at the least."""
LEAST_SUMMARY = 16
MARKER_TOKENS = 24
"""What marks a summary and refers to its turns, held high."""
SHRINK = 0.7
"""A summary has to be shorter than this share of what it stands for; else the model's is not taken."""
PARALLEL = 2


@dataclass(frozen=True)
class Sizes:
    """What is known of a conversation before it is decided upon: tokens of each turn, and of all before the turns."""

    turns: tuple[int, ...]
    opening: int


def turns_due(sizes: Sizes, bounds: Bounds) -> int:
    """Return how many of the oldest turns are to be compacted; 0 while both bounds hold.

    Once there are more turns than the mode has, or the prompt is over its bound, it goes on to half of the turns and to
    `compact_to_tokens`. The last `VERBATIM_TURNS` are left alone if the prompt fits with them, else as many as do; the
    turn under way always is.
    """
    count, total = len(sizes.turns), sizes.opening + sum(sizes.turns)
    allowed = bounds.uncompacted_turns
    too_many = allowed is not None and count > allowed
    if not too_many and total <= bounds.prompt_tokens:
        return 0
    due = 0
    for keep in range(VERBATIM_TURNS, 0, -1):
        if too_many:
            due = max(due, count - max((allowed or 0) // 2, keep))
        while due < count - keep and sizes.opening + sum(sizes.turns[due:]) > bounds.compact_to_tokens:
            due += 1
        if sizes.opening + sum(sizes.turns[due:]) <= bounds.prompt_tokens:
            break
    return due


def to_fold(levels: Sequence[int]) -> tuple[int, int] | None:
    """Return which shown topics become one, as a range of indices: all of the lowest level that has two or more.

    Where each level has one the last two are taken; None if there are not two. So what is old is summarised again only
    as often as the number of topics has doublings.
    """
    if len(levels) < 2:
        return None
    for wanted in sorted(set(levels)):
        indices = [number for number, found in enumerate(levels) if found == wanted]
        if len(indices) >= 2 and indices[-1] - indices[0] + 1 == len(indices):
            return indices[0], indices[-1] + 1
    return len(levels) - 2, len(levels)


def summary_tokens(level: int, bounds: Bounds) -> int:
    """Return the most that a summary of a level may have, so that several fit into the prompt's share for them."""
    most = SUMMARY_TOKENS if level == 0 else FOLDED_TOKENS
    return max(min(most, bounds.summary_tokens // SUMMARIES_AT_ONCE - MARKER_TOKENS), LEAST_SUMMARY)


class Compactor:
    """Carries compactions out, with a summariser and, where that fails, without a model."""

    def __init__(self, summariser: Summariser, counter: TokenCounter, parallel: int = PARALLEL) -> None:
        self._summariser = summariser
        self._counter = counter
        self._plain = Extractive(Estimate())  # asks no server about each sentence
        self._gate = asyncio.Semaphore(parallel)
        self.fallbacks = 0
        """How many summaries were made without a model because the model's did not come or was no shorter."""

    async def sizes(self, conversation: Conversation, opening: int) -> Sizes:
        """Return how large the turns are; `opening` is head and schemas, in tokens."""
        shown = [topic.shown() for topic in conversation.shown]
        before = [conversation.carried, *shown]
        summaries = sum([await self._counter.text(text) for text in before if text])
        turns = [await self._turn_tokens(turn) for turn in conversation.turns]
        return Sizes(tuple(turns), opening + summaries + 4 * PER_MESSAGE)

    async def _turn_tokens(self, turn: Turn) -> int:
        texts = [m.text for m in turn.messages] + [c.arguments + c.name for m in turn.messages for c in m.calls]
        return sum([await self._counter.text(text) for text in texts if text]) + PER_MESSAGE * len(turn.messages)

    async def compact(self, conversation: Conversation, due: int, bounds: Bounds) -> Compaction:
        """Return what compacting the oldest `due` turns comes to. Never raises for what the summariser does."""
        turns = conversation.turns[:due]
        texts = [turn.text() for turn in turns]
        tokens = [await self._counter.text(text) for text in texts]
        room = summary_tokens(0, bounds)
        most = min(TOPIC_TOKENS, step_tokens(self._summariser.context_tokens, room))
        groups = await asyncio.to_thread(clusters, texts, tokens, most)
        weights = await asyncio.to_thread(vectors, ["\n".join(texts[at] for at in group) for group in groups])
        summaries = await asyncio.gather(
            *(self.summary("\n\n".join(texts[at] for at in group), room) for group in groups)
        )
        first = len(conversation.topics()) + 1
        made = [
            Topic(
                id=str(first + number),
                level=0,
                turns=tuple(turns[at].number for at in group),
                summary=summary,
                terms=strongest(weight),
            )
            for number, (group, summary, weight) in enumerate(zip(groups, summaries, weights, strict=True))
        ]
        shown = [*conversation.shown, *made]
        folded = await self._folded(shown, first + len(made), bounds)
        return Compaction(
            turns=tuple(turn.number for turn in turns),
            topics=(*made, *folded[1]),
            shown=tuple(topic.id for topic in folded[0]),
        )

    async def _folded(self, shown: list[Topic], first: int, bounds: Bounds) -> tuple[list[Topic], list[Topic]]:
        """Return the topics to show so that their summaries fit their share, and those that were made for it."""
        made: list[Topic] = []
        while await self._shown_tokens(shown) > bounds.summary_tokens:
            chosen = to_fold([topic.level for topic in shown])
            if chosen is None:
                break
            begin, end = chosen
            parts = shown[begin:end]
            level = max(topic.level for topic in parts) + 1
            text = "\n".join(topic.summary for topic in parts)
            topic = Topic(
                id=str(first + len(made)),
                level=level,
                turns=tuple(sorted(number for part in parts for number in part.turns)),
                summary=await self.summary(text, summary_tokens(level, bounds)),
            )
            made.append(topic)
            shown = [*shown[:begin], topic, *shown[end:]]
        return shown, made

    async def _shown_tokens(self, topics: Sequence[Topic]) -> int:
        return sum([await self._counter.text(topic.shown()) for topic in topics])

    async def summary(self, text: str, tokens: int) -> str:
        """Return a summary in at most `tokens`; a text too long for one step is summarised piece by piece."""
        size = await self._counter.text(text)
        if size <= tokens:
            return text
        room = step_tokens(self._summariser.context_tokens, tokens)
        if size > room:
            pieces = await self._pieces(text, room)
            each = max(min(tokens, room // max(len(pieces), 1)), LEAST_SUMMARY)
            parts = await asyncio.gather(*(self.summary(piece, each) for piece in pieces))
            joined = "\n".join(part for part in parts if part)
            if await self._counter.text(joined) >= SHRINK * size:  # nothing more can be gained by doing it again
                return await within(await self._plain.summarise(joined, tokens), tokens, self._counter)
            return await self.summary(joined, tokens)
        most = min(tokens, max(int(SHRINK * size), 1))
        async with self._gate:
            try:
                found = await self._summariser.summarise(text, most)
            except SummariserError:
                found = ""
        if found and await self._counter.text(found) <= SHRINK * size:
            return await within(found, tokens, self._counter)
        self.fallbacks += 1
        return await within(await self._plain.summarise(text, most), most, self._counter)

    async def _pieces(self, text: str, room: int) -> list[str]:
        """Return a text in pieces of at most `room` tokens, split between lines where there are some."""
        size = await self._counter.text(text)
        if size <= room or len(text) < 2:
            return [text]
        middle = len(text) // 2
        line = text.rfind("\n", middle // 2, middle)
        at = line + 1 if line > 0 else middle
        return [*await self._pieces(text[:at], room), *await self._pieces(text[at:], room)]
