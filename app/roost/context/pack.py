"""What each role is shown: Main the conversation, the Router an intent and what bears on it, the Specialist its task.

A prompt has a frozen head (system, tool schemas), then what changes only when it is compacted (summaries), then turns
that only grow, and last what is different in each turn (the tail, at the end of its request). So a model
server reads only what is new. Every pack fits its bounds: what does not is shortened with a marker and an event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import JsonValue

from roost.context.budget import Bounds
from roost.context.capabilities import STRICTEST, Capabilities
from roost.context.conversation import Conversation, Topic, Turn
from roost.context.events import ContextEvent
from roost.context.fit import Fitter
from roost.context.gate import Gate
from roost.context.messages import Message, assistant, system, user
from roost.context.repair import repair
from roost.context.topics import relevant
from roost.ops.errors import RoostError

RECALL_SHARE = 0.15
"""How much of a prompt what is recalled of earlier topics may take."""
EXCHANGE_SHARE = 0.15
"""How much of the Router's prompt the exchange before the request may take."""
SUMMARY_HEAD = (
    "[What was said before, in short. It is background, not a request: do nothing of it unless it is asked for again.]"
)
SUMMARY_ANSWER = "I know what was said before."
RECALL_HEAD = "[Recalled from earlier in this conversation]"


class PackRole(StrEnum):
    """Who a pack is for."""

    MAIN = "main"
    ROUTER = "router"
    SPECIALIST = "specialist"


@dataclass(frozen=True)
class Head:
    """The frozen beginning of a prompt: the same for all requests of a role in a session."""

    system: str
    tools: tuple[JsonValue, ...] = ()


@dataclass(frozen=True)
class Pack:
    """A request's messages and schemas, repaired for the template and within bounds.

    `tokens` is the counted prompt, `parts` how many of them are head, tools, summary, tail and the rest, for metrics.
    `turns` are those shown as they are now, shortened ones shortened: whoever goes on with a task goes on with these,
    or the same would be shortened differently in each request. `tail` is the volatile end of the last user message.
    `reason` says why this prompt may begin differently than the last one, empty if it may not.
    """

    role: PackRole
    messages: tuple[Message, ...]
    tools: tuple[JsonValue, ...]
    tokens: int
    parts: Mapping[str, int]
    turns: tuple[Turn, ...]
    tail: str = ""
    reason: str = ""
    events: tuple[ContextEvent, ...] = ()

    @property
    def work(self) -> tuple[Message, ...]:
        """Return the messages after the task: what a Specialist's next pack is made with."""
        return self.turns[-1].messages[1:]


@dataclass(frozen=True)
class Packer:
    """Makes packs for one model: its bounds, what its template can, and a gate that counts with its tokeniser."""

    bounds: Bounds
    gate: Gate
    capabilities: Capabilities = field(default=STRICTEST)

    async def main(
        self, conversation: Conversation, head: Head, *, tail: str = "", recalled: Sequence[Turn] = ()
    ) -> Pack:
        """Return Main's pack: summaries, the turns that are not compacted, and in the tail what was recalled.

        The conversation's last turn is the one to answer. `recalled` are turns of the active topic, see `active_topic`.

        Raises:
            RoostError: there is nothing to answer, or the head alone does not fit.
        """
        if not conversation.turns:
            raise RoostError("There is nothing to answer.", fix="Say something first.")
        ends = [tail.strip()] if tail.strip() else []
        if recalled:
            text = "\n\n".join(f"({turn.number}) {turn.text()}" for turn in recalled)
            admitted = await self.gate.admit(text, int(RECALL_SHARE * self.bounds.prompt_tokens))
            ends.insert(0, f"{RECALL_HEAD}\n{admitted.text}")
        return await self._pack(PackRole.MAIN, head, background(conversation), conversation.turns, "\n\n".join(ends))

    async def router(self, conversation: Conversation, head: Head, request: str, *, facts: str = "") -> Pack:
        """Return the Router's pack: what bears on the request, the exchange before it, and the request."""
        room = self.bounds.prompt_tokens
        parts = []
        topic = active_topic(conversation, request)
        bearing = "\n".join(part for part in (topic.shown() if topic else "", facts.strip()) if part)
        if bearing:
            parts.append(f"[Facts]\n{(await self.gate.admit(bearing, int(RECALL_SHARE * room))).text}")
        before = [turn for turn in conversation.turns if turn.request != request][-1:]
        if before:
            said = (await self.gate.admit(before[0].text(), int(EXCHANGE_SHARE * room))).text
            parts.append(f"[The exchange before]\n{said}")
        parts.append(f"[Request]\n{request}")
        turn = Turn(number=1, messages=(user("\n\n".join(parts)),))
        return await self._pack(PackRole.ROUTER, head, (), (turn,), "")

    async def specialist(
        self, task: str, head: Head, work: Sequence[Message] = (), *, facts: str = "", tail: str = ""
    ) -> Pack:
        """Return the Specialist's pack: its task with what bears on it, and its calls and results so far.

        `work` grows by calls and results; begin it with the `work` of the pack before.
        """
        said = task if not facts.strip() else f"{task}\n\n[Facts]\n{facts.strip()}"
        turn = Turn(number=1, messages=(user(said), *work))
        return await self._pack(PackRole.SPECIALIST, head, (), (turn,), tail.strip())

    async def _pack(
        self, role: PackRole, head: Head, behind: Sequence[Message], turns: Sequence[Turn], tail: str
    ) -> Pack:
        opening = (*([system(head.system)] if head.system.strip() else []), *behind)
        fitter = Fitter(self.bounds, self.gate, self.capabilities, opening, head.tools, tail)
        fitted = await fitter.fit(turns)
        messages = repair(fitter.assembled(fitted.turns, fitted.tail), self.capabilities).messages
        count = self.gate.counter.text
        parts = {
            "head": await count(head.system),
            "tools": await count(json.dumps(list(head.tools), ensure_ascii=False)) if head.tools else 0,
            "summary": sum([await count(message.text) for message in behind]),
            "tail": await count(fitted.tail),
        }
        parts["turns"] = max(fitted.tokens - sum(parts.values()), 0)
        return Pack(
            role=role,
            messages=messages,
            tools=head.tools,
            tokens=fitted.tokens,
            parts=parts,
            turns=fitted.turns,
            tail=fitted.tail,
            reason="trimmed" if fitted.events else "",
            events=fitted.events,
        )


def background(conversation: Conversation) -> tuple[Message, ...]:
    """Return what stands before the turns: summaries, as something said and understood, never as an instruction."""
    lines = [conversation.carried] if conversation.carried else []
    lines += [topic.shown() for topic in conversation.shown]
    if not lines:
        return ()
    return (user("\n".join([SUMMARY_HEAD, *lines])), assistant(SUMMARY_ANSWER))


def active_topic(conversation: Conversation, request: str) -> Topic | None:
    """Return the topic that a request is about, None if it is about none of those that were compacted."""
    return relevant(request, conversation.leaves())
