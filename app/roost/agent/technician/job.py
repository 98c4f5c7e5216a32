"""A technician's job as data: where it stands, what was called and what came of it, and what is asked of the user."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from roost.agent.permission.policy import Answer
from roost.agent.tool import ToolCall, ToolResult

MOST_CALLS = 60
MOST_REFLECTIONS = 4
QUESTION_ID_DIGITS = 8


class Phase(StrEnum):
    """What a job does next."""

    PLANNING = "planning"
    ACTING = "acting"
    REFLECTING = "reflecting"
    ASKING = "asking"
    """It waits for the user: see `question`."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Say whether nothing more happens."""
        return self in {Phase.DONE, Phase.FAILED, Phase.CANCELLED}


class CallState(StrEnum):
    """How far a call has come. Each is on disk before what follows it is begun."""

    INTENDED = "intended"
    """Decided, and certainly not made."""
    STARTED = "started"
    """Handed over: it may or may not have been made."""
    ENDED = "ended"
    """Its outcome is known."""


class Reply(StrEnum):
    """What the user says of a call whose outcome is unknown."""

    DONE = "done"
    AGAIN = "again"
    STOP = "stop"


class Step(BaseModel):
    """One call of a job."""

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1)
    why: str
    call: ToolCall
    state: CallState
    result: ToolResult | None = None
    attempts: int = 0
    """How often it was handed over: more than once where nobody knew what had come of it."""
    mark: str = ""
    """What the user was asked about, or allowed, as `permission/policy` marks it: a tool may change meanwhile."""


class Job(BaseModel):
    """A job with its steps."""

    model_config = ConfigDict(frozen=True)

    id: str
    owner: str
    goal: str
    workspace: str | None = None
    phase: Phase = Phase.PLANNING
    plan: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What reflection found missing, the oldest first."""
    question: str = ""
    reply: Reply | Answer | None = None
    allowed: tuple[str, ...] = ()
    """What may be called in this job without a question: names of tools, and marks of `permission/policy`."""
    answer: str = ""
    """What the technician says that it achieved, or why it gave up."""
    steps: tuple[Step, ...] = ()
    created: str = ""
    updated: str = ""

    @property
    def open_step(self) -> Step | None:
        """Return the step whose outcome is not known yet."""
        last = self.steps[-1] if self.steps else None
        return last if last and last.state != CallState.ENDED else None

    @property
    def question_id(self) -> str:
        """Return the id of what is asked: another call, attempt or tool is another question. '' if nothing is asked.

        It follows from what is asked, so also what was asked by a version before has one. Needs the job's steps.
        """
        step = self.open_step
        if self.phase is not Phase.ASKING or step is None:
            return ""
        asked = [self.id, self.question, step.call.id, step.attempts, step.mark]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:QUESTION_ID_DIGITS]

    @property
    def replies(self) -> tuple[Reply, ...] | tuple[Answer, ...]:
        """Return what may be answered: whether a call may be made, or whether one was that was interrupted."""
        step = self.open_step
        return tuple(Answer) if step and step.state is CallState.INTENDED else tuple(Reply)


class Call(BaseModel):
    """A decision to call a tool."""

    kind: Literal["call"] = "call"
    why: str = ""
    tool: str
    arguments: dict[str, JsonValue]


class Finish(BaseModel):
    """A decision that the goal is reached, or cannot be."""

    kind: Literal["finish"] = "finish"
    answer: str
    reached: bool = True


Decision = Call | Finish


class Verdict(BaseModel):
    """What reflection says of a job: whether its results show that the goal is reached, else what is missing."""

    reached: bool
    missing: str = ""
    by_model: bool = False
    """Whether a model said so; else it was computed."""
