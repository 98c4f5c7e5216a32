"""The technician step by step, without a process around it: budgets, refusals, questions, what is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from roost.agent.audit.log import AuditLog
from roost.agent.technician.job import MOST_CALLS, Call, Decision, Finish, Job, Phase, Reply, Verdict
from roost.agent.technician.journal import MIGRATIONS, JobNotFoundError, Journal
from roost.agent.technician.technician import Finding, Technician
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec
from roost.durable.database import open_database
from roost.durable.driver import Next
from roost.ops.errors import RoostError
from tests.support.technician import NothingAllowed, cannot_tell, tools_of_all


class Mind:
    """Calls `tool` so often, then is finished."""

    def __init__(self, calls: int = 1, *, reached: bool = True) -> None:
        self.calls, self.reached = calls, reached

    async def plan(self, _job: Job, _tools: list[ToolSpec]) -> list[str]:
        return ["do it"]

    async def decide(self, job: Job, _tools: list[ToolSpec]) -> Decision:
        if len(job.steps) < self.calls:
            return Call(why="it is needed", tool="tool", arguments={"n": len(job.steps)})
        return Finish(answer="done", reached=self.reached)

    async def reflect(self, _job: Job, _tools: list[ToolSpec]) -> Verdict:
        return Verdict(reached=True)


class Doubtful(Mind):
    def __init__(self, *, by_model: bool = False) -> None:
        super().__init__()
        self.by_model = by_model

    async def reflect(self, _job: Job, _tools: list[ToolSpec]) -> Verdict:
        return Verdict(reached=False, missing="everything", by_model=self.by_model)


class Absent(Mind):
    async def plan(self, _job: Job, _tools: list[ToolSpec]) -> list[str]:
        raise RoostError("No model answers.", fix="See roost status.")


class Runner:
    """Answers with what is scripted, one outcome a call."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[ToolCall] = []

    def tools(self) -> Sequence[ToolSpec]:
        return [ToolSpec(name="tool", description="", parameters={}, permission=Permission.RUN)]

    async def run(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome.OK
        return ToolResult(id=call.id, outcome=outcome, text=outcome.value)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "jobs.sqlite")
    yield made
    made.close()


def driven(technician: Technician, journal: Journal, job: str) -> Job:
    """Advance a job until it rests."""
    while asyncio.run(technician.advance(job)) == Next.GO_ON:
        pass
    return journal.job(job)


def made(tmp_path: Path, journal: Journal, mind: Mind, runner: Runner) -> Technician:
    return Technician(journal, mind, tools_of_all(runner), AuditLog(tmp_path / "audit"), cannot_tell, NothingAllowed())


def test_a_job_is_planned_done_and_reflected_upon(tmp_path: Path, journal: Journal) -> None:
    runner = Runner(Outcome.OK, Outcome.FAILED)
    job = driven(made(tmp_path, journal, Mind(2), runner), journal, journal.add("alice", "goal", "home").id)
    assert (job.phase, job.answer, job.plan) == (Phase.DONE, "done", ("do it",))
    assert [step.result.outcome for step in job.steps if step.result] == [Outcome.OK, Outcome.FAILED]
    assert {call.workspace for call in runner.calls} == {"home"}
    actions = [entry.action for entry in AuditLog(tmp_path / "audit").tail(20)]
    assert actions == ["tool.call", "tool.result", "tool.call", "tool.result", "job.done"]


def test_a_mind_that_never_ends_is_ended(tmp_path: Path, journal: Journal) -> None:
    runner = Runner()
    job = driven(made(tmp_path, journal, Mind(10**6), runner), journal, journal.add("alice", "goal", None).id)
    assert (job.phase, len(runner.calls)) == (Phase.FAILED, MOST_CALLS)
    assert "calls did not reach the goal" in job.answer


def test_a_goal_that_is_never_reached_is_given_up(tmp_path: Path, journal: Journal) -> None:
    job = driven(made(tmp_path, journal, Doubtful(), Runner()), journal, journal.add("alice", "goal", None).id)
    assert job.phase == Phase.FAILED
    assert job.answer.startswith("The goal is not reached after 4 attempts. Missing: everything. Fix: ")


def test_what_the_model_says_is_missing_is_told_as_its_words(tmp_path: Path, journal: Journal) -> None:
    job = driven(made(tmp_path, journal, Doubtful(by_model=True), Runner()), journal, journal.add("a", "goal", None).id)
    assert job.answer.startswith("The goal is not reached after 4 attempts. The model says: “everything”. Fix: ")


def test_who_says_that_it_cannot_be_done_has_failed(tmp_path: Path, journal: Journal) -> None:
    technician = made(tmp_path, journal, Mind(reached=False), Runner())
    job = driven(technician, journal, journal.add("alice", "goal", None).id)
    assert job.phase == Phase.FAILED
    assert job.answer.startswith("The model gave up. The model says: “done”. Fix: ")


def test_without_a_model_a_job_fails_with_the_reason(tmp_path: Path, journal: Journal) -> None:
    job = driven(made(tmp_path, journal, Absent(), Runner()), journal, journal.add("alice", "goal", None).id)
    assert (job.phase, job.answer) == (Phase.FAILED, "No model answers. Fix: See roost status.")


@pytest.mark.parametrize(
    ("reply", "phase", "calls"),
    [(Reply.DONE, Phase.DONE, 1), (Reply.AGAIN, Phase.DONE, 2), (Reply.STOP, Phase.FAILED, 1)],
)
def test_an_outcome_that_nobody_knows_is_asked_about(
    tmp_path: Path, journal: Journal, reply: Reply, phase: Phase, calls: int
) -> None:
    runner = Runner(Outcome.UNKNOWN)
    technician = made(tmp_path, journal, Mind(), runner)
    job = driven(technician, journal, journal.add("alice", "goal", None).id)
    assert job.phase == Phase.ASKING
    assert "interrupted while it called tool" in job.question
    assert driven(technician, journal, job.id).phase == Phase.ASKING  # it goes on waiting
    with pytest.raises(JobNotFoundError):
        journal.reply(job.id, "bob", job.question_id, reply)
    journal.reply(job.id, "alice", job.question_id, reply)
    after = driven(technician, journal, job.id)
    assert (after.phase, len(runner.calls)) == (phase, calls)
    assert len({call.id for call in runner.calls}) == calls  # another attempt has another id
    with pytest.raises(RoostError, match="asks nothing"):
        journal.reply(job.id, "alice", job.question_id, reply)


@pytest.mark.parametrize(("finding", "calls"), [(Finding.MADE, 1), (Finding.NOT_MADE, 2)])
def test_a_look_settles_it(tmp_path: Path, journal: Journal, finding: Finding, calls: int) -> None:
    async def look(_call: ToolCall) -> Finding:
        return finding

    runner = Runner(Outcome.UNKNOWN)
    technician = Technician(journal, Mind(), tools_of_all(runner), AuditLog(tmp_path / "audit"), look, NothingAllowed())
    job = driven(technician, journal, journal.add("alice", "goal", None).id)
    assert (job.phase, len(runner.calls)) == (Phase.DONE, calls)


def test_a_cancelled_job_rests(tmp_path: Path, journal: Journal) -> None:
    runner = Runner()
    job = journal.add("alice", "goal", None).id
    with pytest.raises(JobNotFoundError):
        journal.cancel(job, "bob")
    journal.cancel(job, "alice")
    assert driven(made(tmp_path, journal, Mind(), runner), journal, job).phase == Phase.CANCELLED
    assert runner.calls == []


class Unreachable(Runner):
    """Hears of every call, and never says what came of one."""

    def __init__(self, *, repeatable: bool) -> None:
        super().__init__()
        self.repeatable = repeatable

    def tools(self) -> Sequence[ToolSpec]:
        return [super().tools()[0].model_copy(update={"safe_to_repeat": self.repeatable})]

    async def run(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        return ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text="lost")


class Forgetful(Unreachable):
    async def recall(self, _call: ToolCall) -> ToolResult | None:
        return None


@pytest.mark.parametrize("runner", [Unreachable(repeatable=True), Forgetful(repeatable=False)])
def test_a_call_that_is_never_known_counts_each_time(tmp_path: Path, journal: Journal, runner: Runner) -> None:
    job = driven(made(tmp_path, journal, Mind(), runner), journal, journal.add("alice", "goal", None).id)
    assert (job.phase, len(runner.calls), job.steps[0].attempts) == (Phase.FAILED, MOST_CALLS, MOST_CALLS)
    assert len(job.steps) == 1


def test_a_job_of_an_earlier_release_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    open_database(path, MIGRATIONS[:1]).execute(
        "INSERT INTO job (id, owner, goal, phase, created, updated) VALUES ('old', 'alice', 'goal', 'acting', '', '')"
    )
    journal = Journal(path)
    job = driven(made(tmp_path, journal, Mind(2), Runner()), journal, "old")
    journal.close()
    assert (job.phase, [step.attempts for step in job.steps]) == (Phase.DONE, [1, 1])


def test_one_that_was_answered_is_under_way_again(tmp_path: Path, journal: Journal) -> None:
    job = driven(made(tmp_path, journal, Mind(), Runner(Outcome.UNKNOWN)), journal, journal.add("alice", "x", None).id)
    assert journal.under_way() == []
    journal.reply(job.id, "alice", job.question_id, Reply.DONE)
    assert journal.under_way() == [job.id]
