"""The technician: plans, acts, reflects; each step is on disk before the next one begins.

Killed at any point it goes on where it was. The one thing that cannot be known after a kill is whether a call that was
handed over was made. Then, in this order: the runner may remember its outcome; the tool may be safe to repeat; a look
may show whether it was made; else the user is asked. It is never made again blindly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Protocol

from roost.agent.audit.log import AuditLog
from roost.agent.permission.policy import ALLOWS, SAID_NO, Answer, asked_text, gone, mark_of, needed, refusal
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
from roost.agent.tool import Outcome, Permission, Remembering, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.durable.driver import Next
from roost.ops.errors import RoostError

KIND = "technician"
OTHERWISE = "Say the goal otherwise, or make it smaller; `roost technician show JOB` has what was called."


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


class Finding(StrEnum):
    """What a look at the world says of a call."""

    MADE = "made"
    NOT_MADE = "not made"
    UNCLEAR = "unclear"


Inspect = Callable[[ToolCall], Awaitable[Finding]]
"""Looks whether a call was made, without changing anything."""


def _nowhere(_place: str) -> None:
    """Do nothing between two steps; tests kill the process there."""


class Permits(Protocol):
    """What the user allowed for good."""

    async def has(self, mark: str) -> bool:
        """Say whether calls with this mark are allowed."""
        ...

    async def add(self, tool: str, mark: str) -> None:
        """Allow them. Raises RoostError where it cannot be kept."""
        ...


ToolsOf = Callable[[Job], Awaitable[ToolRunner]]
"""Gives a job's tools as they are now. Raises RoostError where they cannot be had."""


class Technician:
    """Takes jobs one step on at a time."""

    def __init__(
        self,
        journal: Journal,
        mind: Mind,
        tools_of: ToolsOf,
        audit: AuditLog,
        inspect: Inspect,
        permits: Permits,
        between: Callable[[str], None] = _nowhere,
    ) -> None:
        self._journal = journal
        self._mind = mind
        self._tools_of = tools_of
        self._permits = permits
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
        runner = await self._tools_of(job)
        tools = list(runner.tools())
        if job.phase == Phase.PLANNING:
            plan = await self._mind.plan(job, tools)
            self._between("planned")
            self._journal.planned(job.id, plan)
        elif job.phase == Phase.ASKING:
            return await self._answered(job, tools)
        elif job.phase == Phase.REFLECTING:
            return await self._reflect(job, tools)
        elif step := job.open_step:
            if step.state == CallState.INTENDED:
                if await self._permitted(job, step, tools):
                    await self._make(job, step, runner)
            else:
                await self._find_out(job, step, runner)
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
                raise RoostError(f"The model gave up.{_of_model(decision.answer)}", fix=OTHERWISE)
            return
        number = len(job.steps) + 1
        call = ToolCall(
            id=f"{job.id}-{number}", name=decision.tool, arguments=decision.arguments, session=job.id,
            workspace=job.workspace,
        )  # fmt: skip
        self._journal.intend(job.id, decision.why, call)

    async def _permitted(self, job: Job, step: Step, tools: list[ToolSpec]) -> bool:
        """Say whether a call may be made now; else it is asked about, or noted that it is allowed already."""
        spec = _spec(step.call, tools)
        if spec is None:
            self._end(job, step, ToolResult(id=step.call.id, outcome=Outcome.REFUSED, text=gone(step.call.name)))
            return False
        need = needed(spec, step.call)
        if need is None or (step.call.allowed and step.mark == need.mark):
            return True
        by = "job" if {step.call.name, need.mark} & set(job.allowed) else ""
        if not by and await self._permits.has(need.mark):
            by = Answer.ALWAYS.value
        detail = {"tool": step.call.name, "call": step.call.id}
        if by:
            self._audit.add(job.owner, "tool.allowed", {**detail, "by": by}, job.id)
            self._journal.call_again(job.id, step.number, _allowed(step.call), need.mark)
            return False
        self._audit.add(job.owner, "tool.asked", detail, job.id)
        self._between("asking")
        text = asked_text(step.call.name, step.call.arguments, need.why)
        self._journal.ask_whether(job.id, step.number, _allowed(step.call, is_so=False), text, need.mark)
        return False

    async def _make(self, job: Job, step: Step, runner: ToolRunner) -> None:
        if sum(one.attempts for one in job.steps) >= MOST_CALLS:  # one whose outcome stays unknown counts each time
            raise RoostError(f"{MOST_CALLS} calls did not reach the goal.", fix="Make the goal smaller.")
        self._audit.add(
            job.owner, "tool.call",
            {"tool": step.call.name, "arguments": step.call.arguments, "call": step.call.id, "why": step.why}, job.id,
        )  # fmt: skip
        self._between("audited")
        self._journal.started(job.id, step.number)
        self._between("started")
        result = await runner.run(step.call)
        self._between("made")
        if result.outcome != Outcome.UNKNOWN:  # else found out at the next step
            self._end(job, step, result)

    async def _find_out(self, job: Job, step: Step, runner: ToolRunner) -> None:
        """Settle a call that was handed over and whose outcome is not on disk."""
        if isinstance(runner, Remembering):
            known = await runner.recall(step.call)
            if known is None:  # never begun: by now it may be another tool
                self._journal.call_again(job.id, step.number, step.call)
                return
            if known.outcome != Outcome.UNKNOWN:
                self._end(job, step, known)
                return
        if await self._repeatable(job, _spec(step.call, runner.tools())):
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

    async def _repeatable(self, job: Job, spec: ToolSpec | None) -> bool:
        """Say whether a call may be made again without looking; a foreign tool's word counts if it is allowed."""
        if spec is None or not spec.safe_to_repeat:
            return False
        if spec.permission is not Permission.FOREIGN or spec.name in job.allowed:
            return True
        return await self._permits.has(mark_of(spec))

    async def _answered(self, job: Job, tools: list[ToolSpec]) -> Next:
        step = job.open_step
        if job.reply is None or step is None:
            return Next.REST
        if isinstance(job.reply, Answer):
            await self._said(job, step, job.reply, tools)
            return Next.GO_ON
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

    async def _said(self, job: Job, step: Step, answer: Answer, tools: list[ToolSpec]) -> None:
        """Do what the user said of a call that was asked about. Done twice after a crash it is the same."""
        said = {"tool": step.call.name, "call": step.call.id, "answer": answer.value, "by": job.owner}
        self._audit.add(job.owner, "tool.answered", said, job.id)
        self._between("answered")
        spec = _spec(step.call, tools)
        need = needed(spec, step.call) if spec else None
        if answer not in ALLOWS:
            text = refusal(step.call.name, need.why if need else "it was asked about", SAID_NO)
            self._end(job, step, ToolResult(id=step.call.id, outcome=Outcome.REFUSED, text=text))
            return
        if need is None or need.mark != step.mark:  # another tool by now: what it needs is seen anew
            self._journal.call_again(job.id, step.number, step.call)
            return
        if answer is Answer.CONVERSATION:
            self._journal.allow(job, need.mark)
        if answer is Answer.ALWAYS:
            try:
                await self._permits.add(step.call.name, need.mark)
            except RoostError:
                self._journal.allow(job, need.mark)  # for this job at least
        self._journal.call_again(job.id, step.number, _allowed(step.call))

    async def _reflect(self, job: Job, tools: list[ToolSpec]) -> Next:
        verdict = await self._mind.reflect(job, tools)
        self._between("reflected")
        if verdict.reached:
            self._journal.end(job.id, Phase.DONE, job.answer)
            self._audit.add(job.owner, "job.done", session=job.id)
            return Next.REST
        if len(job.notes) + 1 >= MOST_REFLECTIONS:
            missing = _of_model(verdict.missing) if verdict.by_model else f" Missing: {verdict.missing}."
            raise RoostError(f"The goal is not reached after {MOST_REFLECTIONS} attempts.{missing}", fix=OTHERWISE)
        self._journal.go_on(job.id, (*job.notes, verdict.missing))
        return Next.GO_ON

    def _end(self, job: Job, step: Step, result: ToolResult) -> None:
        self._journal.ended(job.id, step.number, result)
        self._between("ended")
        detail = {"call": step.call.id, "outcome": result.outcome.value, "changed": result.changed}
        self._audit.add(job.owner, "tool.result", detail, job.id)


def _spec(call: ToolCall, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    return next((tool for tool in tools if tool.name == call.name), None)


def _of_model(text: str) -> str:
    """Return what a model said, as that and no more: it need not be so."""
    return f" The model says: “{text.strip()}”." if text.strip() else " The model does not say why."


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


def _allowed(call: ToolCall, *, is_so: bool = True) -> ToolCall:
    return call.model_copy(update={"allowed": is_so})


def _said(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(id=call.id, outcome=Outcome.OK, text=text)
