"""What keeps a small model from running in circles. Pure: state in, verdict out; who calls acts on it.

A call that was made is not made again but answered from its result, unless something was changed since. Rounds in which
every call was blocked, the same call again and again, or a work that is mostly failures end the work: what was found so
far is still answered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import JsonValue

from roost.agent.tool import Outcome, Permission, ToolResult

BLOCKED_ROUNDS = 2
STUCK_AT = 3
POLLUTED_AT = 0.6
POLLUTION_LEAST = 5
REPEATED_LINES = 4
REPEATED_PIECES = 8
PIECE_CHARACTERS = (8, 160)
CHANGING = frozenset({Permission.WRITE, Permission.RUN, Permission.MEMORY, Permission.FOREIGN})


@dataclass(frozen=True)
class Budget:
    """What work may take: rounds of thinking, seconds, tokens of prompts and answers together."""

    rounds: int = 12
    seconds: float = 600.0
    tokens: int = 400_000

    def share(self, part: float) -> Budget:
        """Return what somebody gets to whom a part of the work is given."""
        return Budget(max(int(self.rounds * part), 1), self.seconds * part, int(self.tokens * part))


class Stop(StrEnum):
    """Why the work ends before the model says so."""

    BLOCKED = "blocked"
    STUCK = "stuck"
    POLLUTED = "polluted"
    ROUNDS = "rounds"
    TIME = "time"
    TOKENS = "tokens"
    CANCELLED = "cancelled"
    FAILED = "failed"
    """No model answered, or its prompt could not be made to fit."""
    ASKED = "asked"
    """The user has to say something first."""
    UNDONE = "undone"
    """The model says that it is done, and the receipts say otherwise."""


def fingerprint(name: str, arguments: Mapping[str, JsonValue]) -> str:
    """Return what is the same for the same call, however its arguments are written."""
    text = json.dumps([name, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Work:
    """What was called in one turn, and what that says of the model."""

    results: dict[str, ToolResult] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    blocked_rounds: int = 0
    attempts: int = 0
    failures: int = 0

    def known(self, mark: str) -> ToolResult | None:
        """Return the result of the same call, if nothing was changed since."""
        return self.results.get(mark)

    def asked(self, mark: str) -> None:
        """Note that a model asks for a call."""
        self.seen[mark] += 1
        self.attempts += 1

    def ran(self, mark: str, permission: Permission, result: ToolResult) -> None:
        """Note what came of a call."""
        if permission in CHANGING and result.outcome not in {Outcome.REFUSED, Outcome.CANCELLED}:
            self.results.clear()  # what was read before may read otherwise now
            self.seen.clear()
        if result.outcome == Outcome.OK:
            self.results[mark] = result
        else:
            self.failures += 1

    def blocked(self) -> None:
        """Note that a call was answered without running."""
        self.failures += 1

    def round_over(self, calls: int, blocked: int) -> Stop | None:
        """Note the end of a round; return why the work has to end, if it has to."""
        self.blocked_rounds = self.blocked_rounds + 1 if calls and blocked == calls else 0
        if self.blocked_rounds >= BLOCKED_ROUNDS:
            return Stop.BLOCKED
        if self.seen and max(self.seen.values()) >= STUCK_AT:
            return Stop.STUCK
        if self.attempts >= POLLUTION_LEAST and self.pollution >= POLLUTED_AT:
            return Stop.POLLUTED
        return None

    @property
    def pollution(self) -> float:
        """Return which part of the attempts failed, was blocked or came again: from 0 to 1."""
        return self.failures / self.attempts if self.attempts else 0.0


def collapse_babble(text: str) -> str:
    """Return an answer without what it says again and again: the first is kept, and a mark says that there was more."""
    lines: list[str] = []
    repeated = 0
    for line in text.splitlines():
        if line.strip() and len(lines) >= 1 and line.strip() == lines[-1].strip():
            repeated += 1
            if repeated >= REPEATED_LINES - 1:
                continue
        else:
            repeated = 0
        lines.append(line)
    return _collapse_pieces("\n".join(lines))


_PIECES = re.compile(rf"(.{{{PIECE_CHARACTERS[0]},{PIECE_CHARACTERS[1]}}}?)\1{{{REPEATED_PIECES - 1},}}", re.DOTALL)
BABBLE_WINDOW = PIECE_CHARACTERS[1] * REPEATED_PIECES


def _collapse_pieces(text: str) -> str:
    return _PIECES.sub(lambda found: f"{found.group(1)}…", text)


def babbles(text: str) -> bool:
    """Say whether an answer has come to repeat itself at its end: nothing new is to be expected of it."""
    end = text[-BABBLE_WINDOW:]
    for size in range(PIECE_CHARACTERS[0], PIECE_CHARACTERS[1] + 1):
        piece = end[-size:]
        if len(end) >= size * REPEATED_PIECES and end.endswith(piece * REPEATED_PIECES) and piece.strip():
            return True
    return False


FORMAT_ANCHOR = 'Answer with one JSON object only, of this form: {"tool": NAME, "arguments": {…}}, or {"done": true}.'
