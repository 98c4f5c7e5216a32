"""What the Specialist's work comes to, as data: calls and results, what they took, why it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from roost.agent.guards import Stop
from roost.agent.models import Usage
from roost.agent.receipts import Receipt
from roost.agent.tool import ToolCall, ToolResult
from roost.context.messages import Message


@dataclass
class Counts:
    """Of one turn: tool calls by what became of them, and corrections."""

    asked: int = 0
    run: int = 0
    blocked: int = 0
    repaired: int = 0
    malformed: int = 0


@dataclass
class Worked:
    """What came of the work: calls and results as messages, why it ended (None: because it was done), what it took."""

    messages: list[Message] = field(default_factory=list)
    stop: Stop | None = None
    counts: Counts = field(default_factory=Counts)
    usage: Usage = field(default_factory=Usage)
    rounds: int = 0
    summary: str = ""
    failed: bool = False
    receipts: list[Receipt] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What the request asks for and no receipt shows."""


@dataclass(frozen=True)
class Told:
    """Something for whoever watches, and for the session: a call before it is made, and its result."""

    call: ToolCall | None = None
    result: ToolResult | None = None
    note: str = ""


Tell = Callable[[Told], Awaitable[None]]


def explained(stop: Stop) -> str:
    """Return a sentence for Main, which tells the user, on why the work ended early."""
    reasons = {
        Stop.BLOCKED: "the calls that were wanted may not be made",
        Stop.STUCK: "the same call was wanted again and again",
        Stop.POLLUTED: "most of what was tried failed",
        Stop.ROUNDS: "so many rounds were not enough",
        Stop.TIME: "it took too long",
        Stop.TOKENS: "it took too many tokens",
        Stop.CANCELLED: "it was cancelled",
        Stop.FAILED: "the model that works could not go on",
        Stop.ASKED: "something has to be known first",
        Stop.UNDONE: "something that was asked for was not done",
    }
    return f"The work ended early: {reasons[stop]}."
