"""Asking the user of one conversation before a call runs: the question is an event, the answer comes over the API."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import structlog
from pydantic import JsonValue

from roost.agent.audit.log import AuditLog
from roost.agent.guards import fingerprint
from roost.agent.permission.allowed import AllowedStore, Open, OpenQuestions
from roost.agent.permission.policy import (
    ALLOWS,
    NOT_ANSWERED,
    SAID_NO,
    Answer,
    Needed,
    asked_text,
    changed,
    gone,
    needed,
    nobody,
    refusal,
)
from roost.agent.storage import MissingError
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)
ANSWER_WITHIN_S = 300.0
"""A question that nobody answers for so long counts as answered with no."""
ASKED, ANSWERED = "question", "question.answered"
"""Names of the two records of a question; the events of who watches are of the same types."""
NOTICE = "notice"
UNANSWERED, STOPPED = "unanswered", "stopped"
"""How a question ends that nobody answers, beside the answers themselves."""
Tell = Callable[[str, dict[str, JsonValue]], Awaitable[None]]
"""Records something of the conversation under a name, and tells it to who watches."""


class QuestionNotFoundError(MissingError):
    """There is no such question, or it was answered."""

    code = "question_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such question, or it was answered already.")


class Audience(Protocol):
    """Who is at the other end of a conversation now."""

    @property
    def turn(self) -> str:
        """Return the turn under way."""
        ...

    @property
    def answers(self) -> bool:
        """Say whether somebody is there who can answer."""
        ...

    @property
    def allows(self) -> Collection[str]:
        """Return the tools that whoever asks allowed beforehand."""
        ...


@dataclass(frozen=True)
class Question:
    """What is asked. `until_s` is how many seconds there are for an answer, `text` all of it in words."""

    id: str
    call: str
    tool: str
    arguments: dict[str, JsonValue]
    why: str
    text: str
    until_s: float


@dataclass
class Asking:
    """The questions of one conversation. `counts`: asked, allowed, refused, since they were last looked at."""

    owner: str
    session: str
    audience: Audience
    tell: Tell
    audit: AuditLog
    allowed: AllowedStore
    kept: OpenQuestions
    before: Callable[[], Collection[str]] = tuple
    """Reads from the conversation's file what was allowed in it; asked for once, in a thread."""
    within_s: float = ANSWER_WITHIN_S
    clock: Callable[[], float] = time.monotonic
    counts: Counter[str] = field(default_factory=Counter)
    _open: dict[str, tuple[Question, asyncio.Future[tuple[str, str]]]] = field(default_factory=dict)
    _waited_s: float = 0.0
    _since: dict[str, float] = field(default_factory=dict)
    """When the open questions were asked, by their id."""
    _marks: set[str] | None = None
    _denied: set[tuple[str, str]] = field(default_factory=set)
    """Calls that were not allowed in the turn under way: a model that wants them again asks nobody again."""

    @property
    def open(self) -> list[Question]:
        """Return what waits for an answer, the oldest first."""
        return [question for question, _ in self._open.values()]

    @property
    def waited_s(self) -> float:
        """Return how long all questions together waited for answers, open ones too: no part of what the work took."""
        now = self.clock() if self._since else 0.0
        return self._waited_s + sum(now - asked for asked in self._since.values())

    def end(self) -> None:
        """End what is open, as not answered: the turn is over, and whoever could answer is not asked any more."""
        for _, future in self._open.values():
            if not future.done():
                future.set_result((STOPPED, ""))

    def answer(self, question: str, answer: Answer, by: str) -> Question:
        """Take an answer; `by` is the key that gives it.

        Raises:
            QuestionNotFoundError: there is no such question.
        """
        found = self._open.get(question)
        if found is None or found[1].done():
            raise QuestionNotFoundError
        found[1].set_result((answer, by))
        return found[0]

    def counted(self) -> dict[str, int]:
        """Return the counts, and begin anew."""
        counts, self.counts = dict(self.counts), Counter()
        return counts

    async def refused(self, spec: ToolSpec, call: ToolCall, turn: str) -> str | None:
        """Return None for a call that may run, '' for one that may because it was allowed, else what a model reads.

        `turn` is whose call it is: a helper's may come after that is over, and no other turn's user speaks for it.
        """
        need = needed(spec, call)
        if need is None:
            return None
        if by := await self._allowed_by(spec, need, turn):
            self.counts["allowed"] += 1
            await self._note("tool.allowed", {"call": call.id, "tool": call.name, "by": by})
            return ""
        again = (turn, fingerprint(call.name, call.arguments))
        if again in self._denied:
            return refusal(call.name, need.why, SAID_NO)
        if turn != self.audience.turn or not self.audience.answers:
            self.counts["refused"] += 1
            await self._note("tool.not_asked", {"call": call.id, "tool": call.name, "why": need.why})
            return refusal(call.name, need.why, nobody(call.name))
        said = await self._ask(call, need)
        if said in ALLOWS:
            self.counts["allowed"] += 1
            return ""
        self.counts["refused"] += 1
        self._denied = {again, *(one for one in self._denied if one[0] == again[0])}
        late = f"{NOT_ANSWERED} {'before the turn was over' if said == STOPPED else f'within {self.within_s:.0f} s'}"
        return refusal(call.name, need.why, SAID_NO if said == Answer.NO else f"{late}, which counts as no")

    async def _allowed_by(self, spec: ToolSpec, need: Needed, turn: str) -> str:
        """Return what allowed a call beforehand: the request, this conversation, or for good; '' for nothing."""
        if turn == self.audience.turn and spec.name in self.audience.allows:
            return "request"
        if self._marks is None:
            self._marks = set(await asyncio.to_thread(self.before))
        if need.mark in self._marks:
            return Answer.CONVERSATION.value
        if await asyncio.to_thread(self.allowed.has, self.owner, need.mark):
            return Answer.ALWAYS.value
        return ""

    async def _ask(self, call: ToolCall, need: Needed) -> str:
        """Ask and wait; return the answer, or how else it ended."""
        text = asked_text(call.name, call.arguments, need.why)
        question = Question(secrets.token_hex(8), call.id, call.name, call.arguments, need.why, text, self.within_s)
        future: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        kept = Open(
            id=question.id, owner=self.owner, session=self.session, turn=self.audience.turn, call=call.id,
            tool=call.name, why=need.why,
        )  # fmt: skip
        self.counts["asked"] += 1
        self._since[question.id] = self.clock()
        said, by = STOPPED, ""
        try:
            await asyncio.to_thread(self.kept.add, kept)
            self._open[question.id] = (question, future)
            await self._note("tool.asked", {"question": question.id, "call": call.id, "tool": call.name})
            await self.tell(ASKED, asdict(question))
            try:
                async with asyncio.timeout(self.within_s):
                    said, by = await future
            except TimeoutError:
                said = UNANSWERED
        finally:
            self._open.pop(question.id, None)
            self._waited_s += self.clock() - self._since.pop(question.id)
            await _to_end(self._over(question, need, said, by))
        return said

    async def _over(self, question: Question, need: Needed, said: str, by: str) -> None:
        """Keep what came of a question: whoever is told that a call is allowed can look up who said so."""
        detail = {"id": question.id, "call": question.call, "tool": question.tool, "answer": said, "by": by}
        await self._note("tool.answered", {**detail, "question": question.id})
        await self.tell(ANSWERED, {**detail, "mark": need.mark})
        await asyncio.to_thread(self.kept.remove, question.id)
        if said == Answer.CONVERSATION and self._marks is not None:
            self._marks.add(need.mark)
        if said == Answer.ALWAYS:
            try:
                await asyncio.to_thread(self.allowed.add, self.owner, question.tool, need.mark)
            except (OSError, RoostError) as error:  # this call is allowed all the same
                log.warning("allowed_not_kept", reason=str(error))
                await self.tell(NOTICE, {"text": f"{question.tool} is allowed this once only: {error}"})

    async def _note(self, action: str, detail: dict[str, JsonValue]) -> None:
        await asyncio.to_thread(self.audit.add, self.owner, action, detail, self.session)


async def _to_end(work: Awaitable[None]) -> None:
    """Wait for something that has to happen also where whoever waits is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


class AskingRunner:
    """A `ToolRunner` of one turn that asks before calls which need the user's word."""

    def __init__(self, runner: ToolRunner, asking: Asking, turn: str) -> None:
        self._runner = runner
        self._asking = asking
        self._turn = turn

    def tools(self) -> Sequence[ToolSpec]:
        """Return what can be called, asked about or not."""
        return self._runner.tools()

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call, if it may be."""
        spec = self._spec(call)
        if spec is None:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=gone(call.name))
        refused = await self._asking.refused(spec, call, self._turn)
        if refused:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=refused)
        now = self._spec(call)
        if now is None or needed(now, call) not in {None, needed(spec, call)}:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=changed(call.name))
        return await self._runner.run(call if refused is None else call.model_copy(update={"allowed": True}))

    def _spec(self, call: ToolCall) -> ToolSpec | None:
        return next((one for one in self.tools() if one.name == call.name), None)
