"""The technician: plans, acts, reflects; each step is on disk before the next one begins.

Killed at any point it goes on where it was. The one thing that cannot be known after a kill is whether a call that was
handed over was made. Then, in this order: the runner may remember its outcome; the tool may be safe to repeat; a look
may show whether it was made; else the user is asked. It is never made again blindly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol, runtime_checkable

from roost.agent.audit.log import AuditLog
from roost.agent.technician.job import (
    MOST_CALLS,
    MOST_REFLECTIONS,
    Call,
    CallState,
    Decision,
    Job,
    Phase,
    Reply,
    Step,
    Verdict,
)
from roost.agent.technician.journal import Journal
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.durable.driver import Next
from roost.ops.errors import RoostError

KIND = "technician"


class Mind(Protocol):
    """What thinks. Each question may be asked again after a crash. Raises RoostError where no model answers."""

    async def plan(self, job: Job, tools: list[ToolSpec]) -> list[str]:
        """Return the steps that the goal seems to need."""
        ...

    async def decide(self, job: Job, tools: list[ToolSpec]) -> Decision:
        """Return what to do next."""
        ...

    async def reflect(self, job: Job, tools: list[ToolSpec]) -> Verdict:
        """Say whether what the calls returned shows that the goal is reached."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A runner that can tell later what came of a call."""

    async def recall(self, call: ToolCall) -> ToolResult | None:
        """Return the outcome of a call, UNKNOWN where it was begun and its end is not recorded, None if never begun.

        Raises:
            RoostError: it cannot be asked now.
        """
        ...


class Finding(StrEnum):
    """What a look at the world says of a call."""

    MADE = "made"
    NOT_MADE = "not made"
    UNCLEAR = "unclear"


Inspect = Callable[[ToolCall], Awaitable[Finding]]
"""Looks whether a call was made, without changing anything."""


async def cannot_tell(_call: ToolCall) -> Finding:
    """Stand for tools of which nobody can tell."""
    return Finding.UNCLEAR


def _nowhere(_place: str) -> None:
    """Do nothing between two steps; tests kill the process there."""


class Technician:
    """Takes jobs one step on at a time."""

    def __init__(
        self,
        journal: Journal,
        mind: Mind,
        runner: ToolRunner,
        audit: AuditLog,
        inspect: Inspect = cannot_tell,
        between: Callable[[str], None] = _nowhere,
    ) -> None:
        self._journal = journal
        self._mind = mind
        self._runner = runner
        self._audit = audit
        self._inspect = inspect
        self._between = between

    async def advance(self, job_id: str) -> Next:
        """Take a job one step on. What goes wrong for good ends the job with the reason; it raises nothing for that."""
        job = self._journal.job(job_id)
        if job.phase.over:
            return Next.REST
        try:
            return await self._step(job)
        except RoostError as error:
            self._journal.end(job.id, Phase.FAILED, str(error))
            self._audit.add(job.owner, "job.failed", {"reason": error.message}, job.id)
            return Next.REST

    async def _step(self, job: Job) -> Next:
        tools = list(self._runner.tools())
        if job.phase == Phase.PLANNING:
            plan = await self._mind.plan(job, tools)
            self._between("planned")
            self._journal.planned(job.id, plan)
        elif job.phase == Phase.ASKING:
            return self._answered(job)
        elif job.phase == Phase.REFLECTING:
            return await self._reflect(job, tools)
        elif step := job.open_step:
            if step.state == CallState.INTENDED:
                await self._make(job, step)
            else:
                await self._find_out(job, step, tools)
        else:
            await self._decide(job, tools)
        self._between("stepped")
        return Next.GO_ON

    async def _decide(self, job: Job, tools: list[ToolSpec]) -> None:
        if len(job.steps) >= MOST_CALLS:
            raise RoostError(f"{MOST_CALLS} calls did not reach the goal.", fix="Make the goal smaller.")
        decision = await self._mind.decide(job, tools)
        self._between("decided")
        if not isinstance(decision, Call):
            if decision.reached:
                self._journal.reflect(job.id, decision.answer)
            else:
                self._journal.end(job.id, Phase.FAILED, decision.answer)
            return
        number = len(job.steps) + 1
        call = ToolCall(
            id=f"{job.id}-{number}", name=decision.tool, arguments=decision.arguments, session=job.id,
            workspace=job.workspace,
        )  # fmt: skip
        self._journal.intend(job.id, decision.why, call)

    async def _make(self, job: Job, step: Step) -> None:
        if sum(one.attempts for one in job.steps) >= MOST_CALLS:  # one whose outcome stays unknown counts each time
            raise RoostError(f"{MOST_CALLS} calls did not reach the goal.", fix="Make the goal smaller.")
        self._audit.add(
            job.owner, "tool.call",
            {"tool": step.call.name, "arguments": step.call.arguments, "call": step.call.id, "why": step.why}, job.id,
        )  # fmt: skip
        self._between("audited")
        self._journal.started(job.id, step.number)
        self._between("started")
        result = await self._runner.run(step.call)
        self._between("made")
        if result.outcome != Outcome.UNKNOWN:  # else found out at the next step
            self._end(job, step, result)

    async def _find_out(self, job: Job, step: Step, tools: list[ToolSpec]) -> None:
        """Settle a call that was handed over and whose outcome is not on disk."""
        if isinstance(self._runner, Remembering):
            known = await self._runner.recall(step.call)
            if known is None:
                await self._make(job, step)
                return
            if known.outcome != Outcome.UNKNOWN:
                self._end(job, step, known)
                return
        spec = next((tool for tool in tools if tool.name == step.call.name), None)
        if spec and spec.safe_to_repeat:
            self._journal.call_again(job.id, step.number, _renewed(step.call))
            return
        finding = await self._inspect(step.call)
        self._between("inspected")
        if finding == Finding.MADE:
            self._end(job, step, _said(step.call, "It was interrupted; a look shows that it was done."))
        elif finding == Finding.NOT_MADE:
            self._journal.call_again(job.id, step.number, _renewed(step.call))
        else:
            self._journal.ask(job.id, question_of(step))

    def _answered(self, job: Job) -> Next:
        step = job.open_step
        if job.reply is None or step is None:
            return Next.REST
        self._audit.add(job.owner, "job.reply", {"reply": job.reply.value, "call": step.call.id}, job.id)
        if job.reply == Reply.DONE:
            self._end(job, step, _said(step.call, "It was interrupted; the user says that it was done."))
        elif job.reply == Reply.AGAIN:
            self._journal.call_again(job.id, step.number, _renewed(step.call))
        else:
            self._journal.end(
                job.id, Phase.FAILED, "Stopped by the user: it was not clear what an interrupted call did."
            )
            return Next.REST
        return Next.GO_ON

    async def _reflect(self, job: Job, tools: list[ToolSpec]) -> Next:
        verdict = await self._mind.reflect(job, tools)
        self._between("reflected")
        if verdict.reached:
            self._journal.end(job.id, Phase.DONE, job.answer)
            self._audit.add(job.owner, "job.done", session=job.id)
            return Next.REST
        if len(job.notes) + 1 >= MOST_REFLECTIONS:
            raise RoostError(
                f"The goal is not reached after {MOST_REFLECTIONS} attempts: {verdict.missing}", fix="Make it smaller."
            )
        self._journal.go_on(job.id, (*job.notes, verdict.missing))
        return Next.GO_ON

    def _end(self, job: Job, step: Step, result: ToolResult) -> None:
        self._journal.ended(job.id, step.number, result)
        self._between("ended")
        detail = {"call": step.call.id, "outcome": result.outcome.value, "changed": result.changed}
        self._audit.add(job.owner, "tool.result", detail, job.id)


def question_of(step: Step) -> str:
    """Return what to ask of a call whose outcome nobody knows."""
    return (
        f"The work was interrupted while it called {step.call.name} with {step.call.arguments}. "
        "Was that done? Answer done, again (it was not: do it), or stop."
    )


def _renewed(call: ToolCall) -> ToolCall:
    """Return the call under an id of its own: a runner answers a known id with what it recorded."""
    base, _, attempt = call.id.partition("/")
    return call.model_copy(update={"id": f"{base}/{int(attempt or 1) + 1}"})


def _said(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(id=call.id, outcome=Outcome.OK, text=text)
