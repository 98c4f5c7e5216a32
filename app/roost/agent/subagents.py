"""Sub-agents: somebody with a context and a budget of its own looks into something, and hands back a report.

One that takes longer than the caller waits goes on beside the conversation: what runs is told in each turn, and the
report is put into the first turn after it. A sub-agent reads, reaches the network and uses foreign tools, which the
user is asked about as in the turn itself; it has no tool of ours that changes files,
and no sub-agents itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from roost.agent.delegation import Candidate
from roost.agent.foreign import tool_set
from roost.agent.guards import Budget
from roost.agent.models import Ask, Models
from roost.agent.router import Routed
from roost.agent.specialist import WHOLE, Specialist
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.agent.work import Tell, explained
from roost.context.messages import user
from roost.context.pack import Head, Packer
from roost.context.repair import without_thinking
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)
NAME = "researcher"
SHARE = 0.5
"""The part of a turn's budget that a sub-agent gets."""
PATIENCE_S = 90.0
"""How long a turn waits for a report before it goes on without."""
LEAST_WAIT_S = 0.5
"""While the user is asked something: what is left then does not become less."""
MOST_AT_ONCE = 3
MAY = frozenset({Permission.READ, Permission.NETWORK, Permission.FOREIGN})
"""A foreign tool that may change something is asked about, as in the turn itself."""
OUTSIDE = frozenset({Permission.NETWORK, Permission.FOREIGN})
REPORT_SYSTEM = (
    "You report what was found out. Only what stands in the results below counts. Name sources. What was not found, "
    "say so."
)
SPEC = ToolSpec(
    name=NAME,
    description="Hands a question to a helper that reads pages and files by itself and comes back with a report.",
    parameters={
        "type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"],
        "additionalProperties": False,
    },
    permission=Permission.NETWORK,
    timeout_s=PATIENCE_S,
    safe_to_repeat=True,
)  # fmt: skip


class Limited:
    """A runner with only those tools that a sub-agent may use for its task."""

    def __init__(self, runner: ToolRunner, task: str = "") -> None:
        self._runner = runner
        self._task = task

    def tools(self) -> Sequence[ToolSpec]:
        """Return them."""
        return tool_set(self._task, self._runner.tools(), MAY)

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call if it may be made."""
        if call.name not in {spec.name for spec in self.tools()}:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=f"A helper may not use {call.name}.")
        return await self._runner.run(call)


@dataclass(frozen=True)
class Means:
    """What sub-agents of a session work with now."""

    models: Models
    player: Candidate
    packer: Packer
    runner: ToolRunner
    tell: Tell
    budget: Budget = WHOLE
    waited_s: Callable[[], float] = float
    """See `Specialist`."""


@dataclass
class _Running:
    task: asyncio.Task[str]
    about: str
    began: float


class SubAgents:
    """Those of one session."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, patience_s: float = PATIENCE_S) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._running: dict[str, _Running] = {}

    def tools(self, runner: ToolRunner) -> Sequence[ToolSpec]:
        """Return the sub-agent as a tool, where it has anything to look into the world with."""
        outside = any(spec.permission in OUTSIDE for spec in runner.tools())
        return [SPEC] if outside else []

    async def run(self, call: ToolCall, means: Means) -> ToolResult:
        """Have a task worked on; return the report, or that it goes on."""
        if len(self._running) >= MOST_AT_ONCE:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=f"{MOST_AT_ONCE} helpers work already.")
        about = str(call.arguments.get("task", ""))
        began = self._clock()
        work = asyncio.create_task(self._work(call, about, means))
        self._running[call.id] = _Running(work, about, began)
        try:
            done = await self._waited_for(work, means)
        except asyncio.CancelledError:
            work.cancel()
            self._running.pop(call.id, None)
            raise
        if not done:
            text = f"It is still being worked on; the report comes with one of the next messages (helper {call.id})."
            return ToolResult(id=call.id, outcome=Outcome.OK, text=text, seconds=self._clock() - began)
        self._running.pop(call.id, None)  # `cancel` may have ended it
        outcome, text = _outcome(work)
        return ToolResult(id=call.id, outcome=outcome, text=text, seconds=self._clock() - began)

    @property
    def pending(self) -> bool:
        """Say whether one works, or a report was not told yet."""
        return bool(self._running)

    def status(self) -> str:
        """Return what runs, and the reports that came since the last time, each once; '' for nothing."""
        lines = []
        for number, one in list(self._running.items()):
            if one.task.done():
                del self._running[number]
                lines.append(f"[Report of helper {number} on: {one.about}]\n{_outcome(one.task)[1]}")
            else:
                lines.append(f"[Helper {number} works since {self._clock() - one.began:.0f} s on: {one.about}]")
        return "\n".join(lines)

    async def cancel(self) -> None:
        """End all."""
        tasks = [one.task for one in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _waited_for(self, work: asyncio.Task[str], means: Means) -> bool:
        """Wait for work as long as there is patience, which the user's time does not use up; say whether it is done."""
        end = self._clock() + self._patience_s - means.waited_s()
        left = self._patience_s
        while left > 0 and not work.done():
            await asyncio.wait({work}, timeout=max(left, LEAST_WAIT_S))
            left = end + means.waited_s() - self._clock()
        return work.done()

    async def _work(self, call: ToolCall, about: str, means: Means) -> str:
        specialist = Specialist(
            means.models, means.player, Limited(means.runner, about), means.tell, call.session, call.workspace,
            means.budget.share(SHARE), waited_s=means.waited_s,
        )  # fmt: skip
        worked = await specialist.work(about, Routed(by="words"), means.packer, call.id)
        pack = await means.packer.specialist(
            about, Head(REPORT_SYSTEM), (*worked.messages, user(f"Write the report on: {about}"))
        )
        ask = Ask(means.player.name, pack.messages, means.packer.bounds.reply_tokens, session=f"{call.session}-{NAME}")
        report = without_thinking((await means.models.ask(ask)).text).strip() or "(no report)"
        ends = [explained(worked.stop)] if worked.stop else []
        return "\n".join([report, *ends, *(f"Not done: {one}." for one in worked.missing)])


def _outcome(work: asyncio.Task[str]) -> tuple[Outcome, str]:
    if work.cancelled():
        return Outcome.CANCELLED, "It was cancelled."
    error = work.exception()
    if isinstance(error, RoostError):
        return Outcome.FAILED, error.message
    if error is not None:
        log.error("helper_failed", exc_info=error)
        return Outcome.FAILED, f"A fault of ours ended it: {type(error).__name__}."
    return Outcome.OK, work.result()
