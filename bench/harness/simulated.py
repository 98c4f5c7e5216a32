"""A model with stated faults: it knows the perfect plan of a scenario, sees only its prompt, and errs at known rates.

What it did it reads from the calls and results in its prompt, so that what a harness loses is lost to it.
Under a grammar it cannot break a form; it can still call the wrong tool, repeat itself, or say that it is done.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pydantic import JsonValue

from bench.harness.scenarios import Scenario, Step
from bench.harness.world import TOOLS
from roost.agent.delegation import Candidate
from roost.agent.models import Ask, Hear, Reply, Usage
from roost.context.messages import Call, Message, Role
from roost.context.tokens import Estimate
from roost.ops.errors import RoostError

CONTEXT = 8192
LINE = "I will now look at the file and then decide. "


@dataclass(frozen=True)
class Faults:
    """Chances, each of one answer in which a call is due. `grammar`: whether the server holds answers to a schema."""

    malformed_arguments: float = 0.0
    wrong_tool: float = 0.0
    call_as_text: float = 0.0
    call_in_thinking: float = 0.0
    repetition: float = 0.0
    false_done: float = 0.0
    lost_format: float = 0.0
    babble: float = 0.0
    grammar: bool = True

    def drawn(self, dice: random.Random) -> str:
        """Return the fault of one answer, '' for none."""
        at = dice.random()
        for field in fields(self):
            if field.name == "grammar":
                continue
            at -= getattr(self, field.name)
            if at < 0:
                return field.name
        return ""


def evenly(rate: float, *, grammar: bool = True) -> Faults:
    """Return faults of all kinds that come together to a rate."""
    each = rate / 8
    return Faults(each, each, each, each, each, each, each, each, grammar)


class TooMuchError(RoostError):
    """A request that does not fit: a server refuses it, or cuts it without a word."""


class TooManyError(RoostError):
    """A loop that does not end."""


class SimulatedModels:
    """The three roles in one. `asks` counts requests; a request larger than the context is refused and counted."""

    def __init__(self, scenario: Scenario, faults: Faults, seed: int, most_asks: int = 80) -> None:
        self._scenario = scenario
        self._faults = faults
        self._dice = random.Random(f"{scenario.name} {seed}")  # noqa: S311  # the same faults each time, no secret
        self._most = most_asks
        self._counter = Estimate()
        self.asks = 0
        self.tokens = 0
        self.largest = 0
        self.overflows = 0
        self.drawn: list[str] = []

    async def candidates(self) -> list[Candidate]:
        """Return a trio."""
        return [Candidate(f"sim-{slot}", slot, CONTEXT) for slot in ("main", "router", "specialist")]

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        """Answer as the role that is asked would, with a fault now and then."""
        await self._took(ask.messages)
        if ask.model == "sim-router":
            reply = self._routed(ask)
        elif ask.model == "sim-specialist":
            reply = self._worked(ask)
        else:
            reply = self.next_reply(ask.messages) if ask.model == "sim-alone" else Reply(self._answer(ask.messages))
        cut = ask.max_tokens * 3  # characters; an answer is never longer than was asked for
        if len(reply.text) > cut:
            reply = Reply(reply.text[:cut], finish="length")
        heard = ""
        for piece in reply.text.splitlines(keepends=True):
            heard += piece
            if hear and not await hear(piece, False):
                return Reply(heard, finish="ended", usage=Usage(1, 1))
        return reply

    async def _took(self, messages: Sequence[Message]) -> None:
        self.asks += 1
        if self.asks > self._most:
            raise TooManyError("It does not end.")
        size = await self._counter.prompt(messages)
        self.tokens += size
        self.largest = max(self.largest, size)
        if size > CONTEXT:
            self.overflows += 1
            raise TooMuchError(f"The request has {size} tokens, the context {CONTEXT}.")

    def next_reply(self, messages: Sequence[Message]) -> Reply:
        """Return the next call of a plain tool loop, or the answer where nothing is left to do."""
        step = self._next(messages)
        if step is None:
            return Reply(self._answer(messages))
        name, arguments = step
        return self._free(self._fault(), name, arguments, messages)

    def _fault(self) -> str:
        fault = self._faults.drawn(self._dice)
        if fault:
            self.drawn.append(fault)
        return fault

    def _free(self, fault: str, name: str, arguments: dict[str, JsonValue], messages: Sequence[Message]) -> Reply:
        """Return a call without a grammar, spoilt by a fault."""
        written = json.dumps({"name": name, "arguments": arguments})
        text = json.dumps(arguments)
        match fault:
            case "malformed_arguments":
                text = self._dice.choice([text[:-1], text.replace('"', "'"), f"{{{text[1:-1]},}}", f"{text} and so on"])
            case "wrong_tool":
                other = self._dice.choice([f"{name}_file", "open_document", self._dice.choice(TOOLS).name])
                name = other
            case "call_as_text":
                return Reply(
                    self._dice.choice([f"<tool_call>{written}</tool_call>", f"```json\n{written}\n```", written])
                )
            case "call_in_thinking":
                return Reply(f"<think>I need this. <tool_call>{written}</tool_call></think>")
            case "repetition":
                if last := last_call(messages):
                    return Reply("", calls=(last,))
            case "false_done":
                return Reply("That is done. Everything went well.")
            case "lost_format":
                return Reply(f"I would use {name} here, shall I?")
            case "babble":
                return Reply(LINE * 200)
        return Reply("", calls=(Call(id=f"call{self.asks}", name=name, arguments=text),))

    def _routed(self, ask: Ask) -> Reply:
        request_at = ask.messages[-1].text
        if self._scenario.request not in request_at:
            return Reply('{"actions": []}')
        fault = self._fault()
        held: list[dict[str, JsonValue]] = []
        for step in self._scenario.plan:
            if callable(step.arguments):
                break
            held.append({"tool": step.tool, "arguments": step.arguments})
        if fault == "wrong_tool":
            held = [{"tool": "list", "arguments": {"path": "."}}]
        elif fault == "repetition":
            held = held[:1] * 3
        elif fault == "false_done":
            held = []
        elif fault in {"malformed_arguments", "lost_format", "babble"} and not self._faults.grammar:
            return Reply(LINE * 50 if fault == "babble" else json.dumps({"actions": held})[:-2])
        actions: JsonValue = [dict(one) for one in held]
        return Reply(json.dumps({"actions": actions}))

    def _worked(self, ask: Ask) -> Reply:
        done = '{"done": true, "summary": "All of it is done."}'
        step = self._next(ask.messages)
        if ask.schema is None:
            if step is None:
                return Reply("Nothing more is needed.")
            fault = self._fault()
            if fault in {"call_as_text", "call_in_thinking", "babble", "malformed_arguments", "false_done"}:
                return self._free(fault, *step, ask.messages)
            return Reply(f"Next I need {step[0]}.")
        if step is None:
            return Reply(done)
        name, arguments = step
        if "anyOf" not in ask.schema:
            return Reply(json.dumps(arguments))
        fault = self._fault()
        if not self._faults.grammar and fault in {"lost_format", "malformed_arguments", "babble"}:
            return Reply(self._free(fault, name, arguments, ask.messages).text or "{'tool': '" + name)
        if fault == "wrong_tool":
            name, arguments = "list", {"path": "."}
        elif fault == "false_done":
            return Reply(done)
        elif fault == "repetition" and (last := last_call(ask.messages)):
            name, arguments = last.name, json.loads(last.arguments)
        return Reply(json.dumps({"tool": name, "arguments": arguments}))

    def _answer(self, messages: Sequence[Message]) -> str:
        seen = seen_in(messages)
        if self._next(messages) is not None and self._fault() not in {"false_done", ""}:
            return "I could not finish that."
        return self._scenario.answer(seen)

    def _next(self, messages: Sequence[Message]) -> tuple[str, dict[str, JsonValue]] | None:
        """Return the first step of the plan that was not done yet as far as the prompt shows; None after the last.

        After a change what was run before it counts no more.
        """
        seen = seen_in(messages)
        made = made_calls(messages)
        at = 0
        for step in self._scenario.plan:
            arguments = step.of(seen)
            if arguments is None:
                return self._look(step)
            found = next((n for n in range(at, len(made)) if made[n] == (step.tool, arguments)), None)
            if found is None:
                return step.tool, arguments
            at = found + 1
        return None

    def _look(self, step: Step) -> tuple[str, dict[str, JsonValue]] | None:
        """Return what to do where the step cannot be known: look again at what comes before it."""
        plan = self._scenario.plan
        before = plan[max(plan.index(step) - 1, 0)]
        arguments = before.of("")
        return None if arguments is None else (before.tool, arguments)


def last_call(messages: Sequence[Message]) -> Call | None:
    """Return the last call that a prompt shows."""
    calls = [call for message in messages for call in message.calls]
    told = _told_calls(messages)
    if told and not calls:
        return Call(id="told", name=told[-1][0], arguments=json.dumps(told[-1][1]))
    return calls[-1] if calls else None


def made_calls(messages: Sequence[Message]) -> list[tuple[str, dict[str, JsonValue]]]:
    """Return the calls that a prompt shows, as long as their result is there."""
    answered = {message.call_id for message in messages if message.role is Role.TOOL}
    made = []
    for message in messages:
        for call in message.calls:
            if call.id in answered:
                try:
                    made.append((call.name, json.loads(call.arguments)))
                except ValueError:
                    continue
    return made + _told_calls(messages)


def _told_calls(messages: Sequence[Message]) -> list[tuple[str, dict[str, JsonValue]]]:
    """Return calls that are told as text, as `repair` does for templates without tools."""
    made = []
    decoder = json.JSONDecoder()
    for message in messages:
        for part in message.text.split("Called ")[1:]:
            name, _, rest = part.partition(" with ")
            try:
                arguments, _ = decoder.raw_decode(rest)
            except ValueError:
                continue
            made.append((name, arguments))
    return made


def seen_in(messages: Sequence[Message]) -> str:
    """Return all that a prompt shows but its head and what a model itself said."""
    return "\n".join(message.text for message in messages if message.role in {Role.USER, Role.TOOL})
