"""Fitting a prompt into its bounds, in steps from harmless to grave; each step leaves an event, none is silent.

1. tool results and long arguments outside the last turns are shortened
2. so are those of the last turns
3. the oldest steps and turns are left out, with a line in their place
4. whatever is longest is shortened: the user sees that
Once something has to go, the prompt is brought down to `compact_to_tokens`, so that the next requests are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from roost.context.budget import BYTES_PER_TOKEN, VERBATIM_TURNS, Bounds
from roost.context.capabilities import Capabilities
from roost.context.conversation import Turn, numbers_of, reference
from roost.context.events import ContextEvent, Kind
from roost.context.gate import Gate
from roost.context.messages import Message, Role, user
from roost.context.repair import repair
from roost.context.trim import LEAST_TOKENS, level, shorten
from roost.ops.errors import RoostError

ROUNDS = 4
LATEST_STEPS = 2
"""Steps at the end of the last turn that are never left out: what was just asked and answered."""
LEFT_OUT = "[Left out here: {} of {}, to be read by that reference]"
_LEFT_OUT = re.compile(r"^\[Left out here: (\d+) steps? of (turns:[0-9,-]+), to be read by that reference\]$")

Place = tuple[int, int]
"""A message: index of its turn, index in the turn."""


@dataclass(frozen=True)
class Fitted:
    """Turns that fit, the tail, and what it took."""

    turns: tuple[Turn, ...]
    tail: str
    tokens: int
    events: tuple[ContextEvent, ...] = ()


class Fitter:
    """Fits turns behind an opening (system, summaries) that stays as it is."""

    def __init__(
        self,
        bounds: Bounds,
        gate: Gate,
        capabilities: Capabilities,
        opening: Sequence[Message],
        tools: Sequence[JsonValue],
        tail: str,
    ) -> None:
        self._bounds = bounds
        self._gate = gate
        self._capabilities = capabilities
        self._opening = tuple(opening)
        self._tools = tuple(tools)
        self._tail = tail

    def assembled(self, turns: Sequence[Turn], tail: str) -> list[Message]:
        """Return all messages, the tail at the end of the last turn's request."""
        messages = [*self._opening, *(message for turn in turns[:-1] for message in turn.messages)]
        for message in turns[-1].messages if turns else ():
            if tail and message.role is Role.USER:
                message, tail = user(f"{message.text}\n\n{tail}"), ""
            messages.append(message)
        return [*messages, user(tail)] if tail else messages

    async def measure(self, turns: Sequence[Turn], tail: str) -> tuple[int, int]:
        """Return tokens and bytes of the prompt as it would be sent."""
        messages = repair(self.assembled(turns, tail), self._capabilities).messages
        tokens = await self._gate.counter.prompt(messages, self._tools)
        return tokens, sum(message.size for message in messages)

    async def fit(self, turns: Sequence[Turn]) -> Fitted:
        """Return the turns so that the prompt fits.

        Raises:
            RoostError: what may not be shortened does not fit alone.
        """
        now, tail = tuple(turns), self._tail
        tokens, size = await self.measure(now, tail)
        if self._bounds.fits(tokens, size):
            return Fitted(now, tail, tokens)
        before = tokens
        events: list[ContextEvent] = []
        old = len(now) - VERBATIM_TURNS
        for step, places in (
            ("old results", lambda t: _places(t, lambda p, m: p[0] < old and _is_work(m))),
            ("results", lambda t: _places(t, lambda _, m: _is_work(m))),
        ):
            now, tokens, size = await self._shortened(now, tail, places)
            events.append(_event(Kind.TRIMMED, f"Long tool results were shortened ({step}).", step, before, tokens))
            if self._enough(tokens, size):
                return Fitted(now, tail, tokens, tuple(events[-1:]))
        dropped, tokens, size = await self._left_out(now, tail)
        if dropped != now:
            now = dropped
            text = "Compaction was not enough: the oldest steps were left out of the prompt."
            events.append(_event(Kind.ESCALATED, text, "left out", before, tokens))
        if self._bounds.fits(tokens, size):
            return Fitted(now, tail, tokens, tuple(events[-1:]))
        if tail:
            tail = (await self._gate.admit(tail, LEAST_TOKENS)).text
        now, tokens, size = await self._shortened(now, tail, lambda t: _places(t, lambda _p, _m: True))
        text = "Compaction was not enough: even the latest messages had to be shortened."
        events.append(_event(Kind.ESCALATED, text, "latest", before, tokens))
        if not self._bounds.fits(tokens, size):
            raise RoostError(
                f"The prompt needs {tokens} tokens even when all that may be is shortened; "
                f"{self._bounds.prompt_tokens} are there ({self._bounds.context_tokens} of context).",
                fix="Give the slot a larger context, or this role fewer tools and a shorter system prompt.",
            )
        return Fitted(now, tail, tokens, tuple(events[-1:]))

    def _enough(self, tokens: int, size: int) -> bool:
        return self._excess(tokens, size) <= 0

    def _excess(self, tokens: int, size: int) -> int:
        """Return how many tokens have to go, to reach what compaction aims at."""
        room = self._bounds.prompt_bytes
        by_size = 0 if room is None else -(-(size - room) // BYTES_PER_TOKEN)
        return max(tokens - self._bounds.compact_to_tokens, by_size)

    async def _shortened(
        self, turns: tuple[Turn, ...], tail: str, places: Callable[[Sequence[Turn]], list[Place]]
    ) -> tuple[tuple[Turn, ...], int, int]:
        """Shorten the longest of some messages to one level, until the prompt is down or they are at their least."""
        tokens, size = await self.measure(turns, tail)
        cap = 0
        for _ in range(ROUNDS):
            excess = self._excess(tokens, size)
            chosen = places(turns)
            if excess <= 0 or not chosen or cap == LEAST_TOKENS:
                break
            sizes = [await self._tokens(turns[t].messages[m]) for t, m in chosen]
            cap = max(level(sizes, sum(sizes) - excess), LEAST_TOKENS)
            longest = [place for place, tokens_of in zip(chosen, sizes, strict=True) if tokens_of > cap]
            if not longest:
                break
            changed = [list(turn.messages) for turn in turns]
            for t, m in longest:
                changed[t][m] = await shorten(changed[t][m], cap, self._gate)
            turns = tuple(
                turn.model_copy(update={"messages": tuple(new)}) for turn, new in zip(turns, changed, strict=True)
            )
            tokens, size = await self.measure(turns, tail)
        return turns, tokens, size

    async def _tokens(self, message: Message) -> int:
        texts = [message.text, *(call.arguments for call in message.calls)]
        return sum([await self._gate.counter.text(text) for text in texts if text])

    async def _left_out(self, turns: tuple[Turn, ...], tail: str) -> tuple[tuple[Turn, ...], int, int]:
        """Leave out the oldest steps, as few as bring the prompt down; the request of the last turn stays."""
        steps = [step for turn in turns for step in _steps(turn)]
        protected = [s for s in steps if s.turn == turns[-1].number and (s.first or s in steps[-LATEST_STEPS:])]
        loose = [step for step in steps if step not in protected]
        low, high = 0, len(loose)
        best, figures = turns, await self.measure(turns, tail)
        while low < high:  # the least number that is enough, if any is
            middle = (low + high) // 2
            trial = _without(turns, steps, loose[: middle + 1])
            tokens, size = await self.measure(trial, tail)
            if self._enough(tokens, size):
                best, figures, high = trial, (tokens, size), middle
            else:
                low = middle + 1
        if loose and not self._enough(*figures):
            best = _without(turns, steps, loose)
            figures = await self.measure(best, tail)
        return best, *figures


@dataclass(frozen=True, eq=False)
class _Step:
    """Messages that belong together: the request that begins a turn, or an answer with its calls' results."""

    turn: int
    first: bool
    messages: tuple[Message, ...]


def _steps(turn: Turn) -> list[_Step]:
    groups: list[list[Message]] = []
    for message in turn.messages:
        if not groups or message.role is not Role.TOOL:
            groups.append([message])
        else:
            groups[-1].append(message)
    return [_Step(turn.number, number == 0, tuple(group)) for number, group in enumerate(groups)]


def _without(turns: Sequence[Turn], steps: Sequence[_Step], out: Sequence[_Step]) -> tuple[Turn, ...]:
    """Return the turns without some steps; where the first of them stood stands a line that says so."""
    gone = {id(step) for step in out}
    numbers: list[int] = []
    count = 0
    for step in out:
        steps_before, turns_before = _left_out_before(step)
        count += steps_before
        numbers += turns_before
    said = f"{count} step{'' if count == 1 else 's'}"
    line = user(LEFT_OUT.format(said, reference(numbers)))
    placed = False
    kept: list[Turn] = []
    for turn in turns:
        messages: list[Message] = []
        for step in steps:
            if step.turn != turn.number:
                continue
            if id(step) not in gone:
                messages += step.messages
            elif not placed:
                messages.append(line)
                placed = True
        if messages:
            kept.append(turn.model_copy(update={"messages": tuple(messages)}))
    return tuple(kept)


def _left_out_before(step: _Step) -> tuple[int, tuple[int, ...]]:
    """Return how many steps of which turns one that is left out stands for: itself, or those that its line names."""
    match = _LEFT_OUT.match(step.messages[0].text)
    try:
        named = numbers_of(match.group(2)) if match else ()
    except ValueError:
        named = ()
    if match is None or not named or max(named) > step.turn:  # somebody else's words that look like ours
        return 1, (step.turn,)
    return int(match.group(1)), named


def _places(turns: Sequence[Turn], wanted: Callable[[Place, Message], bool]) -> list[Place]:
    return [
        (t, m) for t, turn in enumerate(turns) for m, message in enumerate(turn.messages) if wanted((t, m), message)
    ]


def _is_work(message: Message) -> bool:
    return message.role is Role.TOOL or bool(message.calls)


def _event(kind: Kind, text: str, step: str, before: int, after: int) -> ContextEvent:
    return ContextEvent(kind=kind, message=text, detail={"step": step, "tokens_before": before, "tokens_after": after})
