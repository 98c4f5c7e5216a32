"""The technician's mind: a model behind the API that plans, decides and reflects, each answer held to a schema.

A model is not believed where receipts say otherwise, and what it wants again and again ends the job: whatever a model
writes, a job comes to an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from pydantic import JsonValue

from roost.agent.calls import BadCallError, check, load
from roost.agent.delegation import Candidate
from roost.agent.guards import Work, fingerprint
from roost.agent.history import call_messages
from roost.agent.models import Ask, Models
from roost.agent.receipts import Receipt, missing
from roost.agent.router import listed
from roost.agent.technician.job import Call, CallState, Decision, Finish, Job, Step, Verdict
from roost.agent.tool import Permission, ToolSpec
from roost.agent.work import explained
from roost.context.messages import Message, assistant, user
from roost.context.pack import Head, Packer
from roost.context.repair import without_thinking
from roost.ops.errors import RoostError

MOST_STEPS = 5
CORRECTIONS = 2
DECISION_TOKENS = 512
"""For a decision: the text of a file that is written stands in it."""
WORDS_TOKENS = 192
"""For a plan or a verdict, as bounded by their schemas."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Between attempts to reach a model: a gateway that is started anew ends no job."""
BESIDE_CHARACTERS = 400
T = TypeVar("T")
SHORT: JsonValue = {"type": "string", "maxLength": 160}

PLAN = """You plan work that is done with tools, step by step. Say in a few short steps what the goal needs.

Tools:
"""
DECIDE = """You work towards a goal with tools, one call at a time. Look at what was called and what came of it.
Say why, then make the next call. When the goal is reached, or cannot be, finish and say what was achieved or why not.

Tools:
"""
REFLECT = """You check whether a goal is reached. Only results of calls count, not what was said.
Say true only if they show it; else say what is missing.
"""


class ModelMind:
    """One model with its context. `packer` keeps what it is shown within bounds."""

    def __init__(
        self,
        models: Models,
        player: Candidate,
        packer: Packer,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._models = models
        self._player = player
        self._packer = packer
        self._pauses_s = pauses_s

    async def plan(self, job: Job, tools: list[ToolSpec]) -> list[str]:
        """Return the steps that the goal seems to need.

        Raises:
            RoostError: no model answers, or nothing that is a plan.
        """
        schema: dict[str, JsonValue] = {
            "type": "object",
            "properties": {"steps": {"type": "array", "minItems": 1, "maxItems": MOST_STEPS, "items": SHORT}},
            "required": ["steps"],
            "additionalProperties": False,
        }
        return await self._answer(job, Head(PLAN + listed(tools)), f"Goal: {job.goal}", (), schema, _plan)

    async def decide(self, job: Job, tools: list[ToolSpec]) -> Decision:
        """Return what to do next.

        Raises:
            RoostError: no model answers, nothing that is a decision, or it wants the same again and again.
        """
        specs = {tool.name: tool for tool in tools}
        schemas = {tool.name: tool.parameters for tool in tools}
        work = work_of(job, specs)
        if stop := work.round_over(0, 0):
            raise RoostError(explained(stop), fix="Say the goal otherwise, or make it smaller.")

        def read(document: Mapping[str, object]) -> Decision:
            if "finish" in document:
                said = str(document.get("answer") or "").strip()
                if not said:
                    raise BadCallError("Say what was achieved, or why it cannot be.")
                return Finish(answer=said, reached=document.get("reached") is True)
            found = check(document.get("tool"), document.get("arguments"), schemas, "technician")
            if work.known(fingerprint(found.name, found.arguments)):
                raise BadCallError("That call was made already, its result stands above, and nothing changed since.")
            return Call(why=str(document.get("why") or ""), tool=found.name, arguments=found.arguments)

        lines = [f"Goal: {job.goal}", "Plan:", *(f"{number}. {step}" for number, step in enumerate(job.plan, 1))]
        lines += [f"Still missing: {note}" for note in job.notes]
        shown = tuple(message for step in job.steps if step.result for message in call_messages(step.call, step.result))
        return await self._answer(
            job, Head(DECIDE + listed(tools)), "\n".join(lines), shown, decision_schema(tools), read, DECISION_TOKENS
        )

    async def reflect(self, job: Job, tools: list[ToolSpec]) -> Verdict:
        """Say whether what the calls returned shows that the goal is reached. Receipts overrule the model.

        Raises:
            RoostError: no model answers, or nothing that is a verdict.
        """
        if open_ends := missing(job.goal, tools, receipts_of(job, {tool.name: tool for tool in tools})):
            return Verdict(reached=False, missing="; ".join(open_ends))
        schema: dict[str, JsonValue] = {
            "type": "object", "properties": {"reached": {"type": "boolean"}, "missing": SHORT},
            "required": ["reached", "missing"], "additionalProperties": False,
        }  # fmt: skip
        shown = tuple(message for step in job.steps if step.result for message in call_messages(step.call, step.result))
        task = f"Goal: {job.goal}\nSaid to be achieved: {job.answer}"
        return await self._answer(job, Head(REFLECT), task, shown, schema, _verdict)

    async def _answer(
        self,
        job: Job,
        head: Head,
        task: str,
        shown: Sequence[Message],
        schema: dict[str, JsonValue],
        read: Callable[[Mapping[str, object]], T],
        tokens: int = WORDS_TOKENS,
    ) -> T:
        """Ask until the answer can be read; mistakes and their corrections are shown once, and kept nowhere."""
        pack = await self._packer.specialist(task, head, shown)
        beside: tuple[Message, ...] = (user("Write your answer as one JSON object."),) if shown else ()
        said = ""
        for _ in range(CORRECTIONS):
            said = await self._ask(job, [*pack.messages, *beside], schema, tokens)
            try:
                document = load(said)
                if not isinstance(document, dict):
                    raise BadCallError("It is no JSON object.")  # noqa: TRY301 - read like the other mistakes below
                return read(document)
            except (ValueError, BadCallError) as error:
                wrong = error if isinstance(error, BadCallError) else "It is no JSON."
                beside = (assistant(said[:BESIDE_CHARACTERS] or "?"), user(f"That was wrong: {wrong} Write another."))
        raise RoostError(
            f"The model {self._player.name} wrote nothing that can be used: {said[:BESIDE_CHARACTERS]!r}",
            fix="Use a larger model for the slot `specialist`, or say the goal otherwise.",
        )

    async def _ask(self, job: Job, messages: Sequence[Message], schema: dict[str, JsonValue], tokens: int) -> str:
        ask = Ask(
            self._player.name,
            messages,
            min(self._packer.bounds.reply_tokens // 2, tokens),
            schema,
            session=f"technician-{job.id}",
        )
        reply = await patient(lambda: self._models.ask(ask), self._pauses_s)
        return without_thinking(reply.text).strip()


async def patient(ask: Callable[[], Awaitable[T]], pauses_s: Sequence[float] = PAUSES_S) -> T:
    """Return what is answered, asked for again after each pause while nobody answers.

    Raises:
        RoostError: nobody answers after the last pause either.
    """
    for pause_s in pauses_s:
        try:
            return await ask()
        except RoostError:
            await asyncio.sleep(pause_s)
    return await ask()


def decision_schema(tools: Sequence[ToolSpec]) -> dict[str, JsonValue]:
    """Return the schema of a decision: a call of one of the tools with why, or that it is over."""
    over: JsonValue = {
        "type": "object",
        "properties": {"finish": {"const": True}, "reached": {"type": "boolean"}, "answer": SHORT},
        "required": ["finish", "reached", "answer"],
        "additionalProperties": False,
    }
    calls: list[JsonValue] = [
        {
            "type": "object",
            "properties": {"why": SHORT, "tool": {"const": tool.name}, "arguments": dict(tool.parameters)},
            "required": ["why", "tool", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return {"anyOf": [*calls, over]}


def receipts_of(job: Job, specs: Mapping[str, ToolSpec]) -> list[Receipt]:
    """Return what the job's calls show to have happened."""
    return [
        Receipt(step.call, _permission(step, specs), step.result)
        for step in job.steps
        if step.state is CallState.ENDED and step.result
    ]


def work_of(job: Job, specs: Mapping[str, ToolSpec]) -> Work:
    """Return what was called, and what that says of the model, from the job's steps."""
    work = Work()
    for step in job.steps:
        if step.result:
            mark = fingerprint(step.call.name, step.call.arguments)
            work.asked(mark)
            work.ran(mark, _permission(step, specs), step.result)
    return work


def _permission(step: Step, specs: Mapping[str, ToolSpec]) -> Permission:
    """Return what a call may do; the gravest where its tool is no longer there."""
    spec = specs.get(step.call.name)
    return spec.permission if spec else Permission.RUN


def _plan(document: Mapping[str, object]) -> list[str]:
    steps = document.get("steps")
    found = [str(step).strip() for step in steps if str(step).strip()] if isinstance(steps, list) else []
    if not found:
        raise BadCallError("It has no steps.")
    return found[:MOST_STEPS]


def _verdict(document: Mapping[str, object]) -> Verdict:
    reached = document.get("reached")
    if not isinstance(reached, bool):
        raise BadCallError("reached is true or false.")
    said = str(document.get("missing") or "").strip()
    if not said and not reached:
        return Verdict(reached=False, missing="the model did not say what")
    return Verdict(reached=reached, missing=said, by_model=True)
