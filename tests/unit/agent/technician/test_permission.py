"""Jobs ask before what cannot be undone, with the same words and by the same policy as a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from roost.agent.audit.log import AuditLog
from roost.agent.permission.policy import Answer, mark_of
from roost.agent.technician.job import Call, CallState, Decision, Finish, Job, Phase, Reply, Verdict
from roost.agent.technician.journal import Journal
from roost.agent.technician.technician import Permits, Technician
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolSpec
from roost.ops.errors import RoostError
from tests.support.technician import cannot_tell, tools_of_all
from tests.unit.agent.permission.world import foreign
from tests.unit.agent.technician.test_advance import driven

SEND = "mcp__ex__send"


class Mind:
    """Sends two texts, and is finished."""

    async def plan(self, _job: Job, _tools: list[ToolSpec]) -> list[str]:
        return ["send"]

    async def decide(self, job: Job, _tools: list[ToolSpec]) -> Decision:
        if len(job.steps) < 2:
            return Call(why="it is wanted", tool=SEND, arguments={"text": str(len(job.steps))})
        return Finish(answer="sent")

    async def reflect(self, _job: Job, _tools: list[ToolSpec]) -> Verdict:
        return Verdict(reached=True)


class Runner:
    """Has one foreign tool; calls come to the outcomes that are scripted, and are recalled as `knows` says."""

    def __init__(self, *outcomes: Outcome, spec: ToolSpec | None = None) -> None:
        self.spec = spec or foreign()
        self.outcomes = list(outcomes)
        self.calls: list[ToolCall] = []

    def tools(self) -> Sequence[ToolSpec]:
        return [self.spec]

    async def run(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        return ToolResult(id=call.id, outcome=self.outcomes.pop(0) if self.outcomes else Outcome.OK, text="")

    async def recall(self, call: ToolCall) -> ToolResult:
        return ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text="")


class Kept:
    """What is allowed for good."""

    def __init__(self, *, broken: bool = False) -> None:
        self.marks: list[str] = []
        self.broken = broken

    async def has(self, mark: str) -> bool:
        return mark in self.marks

    async def add(self, _tool: str, mark: str) -> None:
        if self.broken:
            raise RoostError("The hub does not answer.")
        self.marks.append(mark)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "jobs.sqlite")
    yield made
    made.close()


def technician(folder: Path, journal: Journal, runner: Runner, permits: Permits | None = None) -> Technician:
    audit = AuditLog(folder / "audit")
    return Technician(journal, Mind(), tools_of_all(runner), audit, cannot_tell, permits or Kept())


def begun(folder: Path, journal: Journal, runner: Runner, *allowed: str) -> Job:
    return driven(technician(folder, journal, runner), journal, journal.add("anna", "send", None, allowed).id)


def answered(folder: Path, journal: Journal, runner: Runner, job: Job, said: Answer, permits: Permits) -> Job:
    journal.reply(job.id, "anna", job.question_id, said)
    return driven(technician(folder, journal, runner, permits), journal, job.id)


def test_each_call_is_asked_about_before_it_is_made(tmp_path: Path, journal: Journal) -> None:
    runner = Runner()
    job = begun(tmp_path, journal, runner)
    assert (job.phase, job.replies, runner.calls) == (Phase.ASKING, tuple(Answer), [])
    assert "May mcp__ex__send be called" in job.question
    with pytest.raises(RoostError, match="there are yes, conversation, always, no"):
        journal.reply(job.id, "anna", job.question_id, Reply.DONE)
    job = answered(tmp_path, journal, runner, job, Answer.YES, Kept())
    assert (job.phase, [call.allowed for call in runner.calls]) == (Phase.ASKING, [True])
    job = answered(tmp_path, journal, runner, job, Answer.NO, Kept())
    assert (job.phase, len(runner.calls)) == (Phase.DONE, 1)
    assert job.steps[1].result
    assert job.steps[1].result.outcome is Outcome.REFUSED
    said = [e.detail["answer"] for e in AuditLog(tmp_path / "audit").tail(50) if e.action == "tool.answered"]
    assert said == ["yes", "no"]


def test_an_answer_is_for_the_question_that_it_names(tmp_path: Path, journal: Journal) -> None:
    """The job asks about one call after the other: a yes to the first, given late or twice, is none to the second."""
    runner = Runner()
    first = begun(tmp_path, journal, runner)
    assert first.question_id
    for wrong in ("", "yes", "0" * 8):
        with pytest.raises(RoostError, match=f"but {first.question_id}"):
            journal.reply(first.id, "anna", wrong, Answer.YES)
    journal.reply(first.id, "anna", first.question_id, Answer.NO)
    with pytest.raises(RoostError, match="answered with no already"):
        journal.reply(first.id, "anna", first.question_id, Answer.YES)
    second = driven(technician(tmp_path, journal, runner), journal, first.id)
    assert (second.phase, runner.calls) == (Phase.ASKING, [])
    assert second.question_id not in ("", first.question_id)
    with pytest.raises(RoostError, match=f"does not ask {first.question_id} now"):
        journal.reply(first.id, "anna", first.question_id, Answer.YES)
    over = answered(tmp_path, journal, runner, second, Answer.YES, Kept())
    assert (over.phase, len(runner.calls), over.question_id) == (Phase.DONE, 1, "")


@pytest.mark.parametrize(
    ("said", "broken"), [(Answer.CONVERSATION, False), (Answer.ALWAYS, False), (Answer.ALWAYS, True)]
)
def test_what_is_allowed_for_longer_is_asked_about_once(
    tmp_path: Path, journal: Journal, said: Answer, *, broken: bool
) -> None:
    runner, kept = Runner(), Kept(broken=broken)
    job = answered(tmp_path, journal, runner, begun(tmp_path, journal, runner), said, kept)
    assert (job.phase, len(runner.calls)) == (Phase.DONE, 2)
    assert bool(kept.marks) is (said is Answer.ALWAYS and not broken)


def test_a_call_whose_tool_is_not_there_when_it_is_due_is_not_made(tmp_path: Path, journal: Journal) -> None:
    """The hub does not answer just then, or the tool is out of the first few: that is no word of the user."""
    runner = Runner()
    listed = iter([[runner.spec]] * 2 + [[]])
    runner.tools = lambda: next(listed, [runner.spec])  # type: ignore[method-assign]
    worker = technician(tmp_path, journal, runner)
    job = journal.add("anna", "send", None)
    for _ in range(3):
        asyncio.run(worker.advance(job.id))
    result = journal.job(job.id).steps[0].result
    assert result
    assert (result.outcome, runner.calls) == (Outcome.REFUSED, [])


def test_a_yes_to_what_became_another_tool_meanwhile_is_none(tmp_path: Path, journal: Journal) -> None:
    runner, kept = Runner(), Kept()
    job = begun(tmp_path, journal, runner)
    before = job.question_id
    runner.spec = foreign(about="Deletes the account.")
    job = answered(tmp_path, journal, runner, job, Answer.ALWAYS, kept)
    assert (job.phase, runner.calls, kept.marks) == (Phase.ASKING, [], [])  # asked again
    assert job.question_id != before
    job = answered(tmp_path, journal, runner, job, Answer.ALWAYS, kept)
    assert (job.phase, kept.marks) == (Phase.DONE, [mark_of(runner.spec)])


def test_an_allowed_call_that_was_not_made_yet_is_asked_about_once_its_tool_is_another(
    tmp_path: Path, journal: Journal
) -> None:
    runner = Runner()
    job = begun(tmp_path, journal, runner)
    journal.reply(job.id, "anna", job.question_id, Answer.YES)
    worker = technician(tmp_path, journal, runner)
    asyncio.run(worker.advance(job.id))
    runner.spec = foreign(about="Deletes the account.")
    asyncio.run(worker.advance(job.id))
    assert (journal.job(job.id).phase, runner.calls) == (Phase.ASKING, [])


def test_a_tool_that_was_allowed_with_the_job_is_not_asked_about(tmp_path: Path, journal: Journal) -> None:
    runner = Runner()
    assert begun(tmp_path, journal, runner, SEND).phase is Phase.DONE
    assert len(runner.calls) == 2


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("says_so", [True, False])
def test_a_foreign_tool_whose_outcome_is_lost_is_repeated_only_if_it_says_so_and_is_allowed(
    tmp_path: Path, journal: Journal, *, says_so: bool, allowed: bool
) -> None:
    spec = foreign(read_only=True, safe_to_repeat=says_so)
    runner = Runner(Outcome.UNKNOWN, spec=spec)
    job = begun(tmp_path, journal, runner, *([SEND] if allowed else []))
    if says_so and allowed:
        assert (job.phase, len(runner.calls)) == (Phase.DONE, 3)
        return
    assert (job.phase, job.replies, len(runner.calls)) == (Phase.ASKING, tuple(Reply), 1)
    step = job.open_step
    assert step
    assert step.state is CallState.STARTED
