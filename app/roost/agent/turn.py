"""One turn: what the user said, through Router and Specialist, to what Main answers. Each step is told and recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from pydantic import JsonValue

from roost.agent.calls import is_call
from roost.agent.delegation import AgentRole, Delegation
from roost.agent.guards import Stop, babbles, collapse_babble
from roost.agent.intent import guess, needs_tools
from roost.agent.models import Ask, Hear, Models, Reply, Usage
from roost.agent.receipts import Receipt, missing
from roost.agent.router import Routed, instructions, route
from roost.agent.sessions.records import Body, EventBody, MessageBody, MetricsBody, ToolCallBody, ToolResultBody
from roost.agent.skills.skill import Skill
from roost.agent.skills.tools import SUGGESTED
from roost.agent.specialist import Specialist, short
from roost.agent.thinking import Splitter
from roost.agent.tool import ToolRunner
from roost.agent.turn_metrics import RoleUse, TurnMetrics
from roost.agent.work import Tell, Told, Worked, explained
from roost.context.events import ContextEvent
from roost.context.keeper import Keeper
from roost.context.messages import assistant, user
from roost.context.pack import Head, Pack, Packer
from roost.context.repair import without_thinking
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

MAIN_SYSTEM = (
    "You are Roost, an assistant that runs on the user's own machines. Answer in plain language, to the point. "
    "Tools are used for you: what they returned stands in the conversation. Never claim that something was done "
    "unless a result there shows it."
)
TOLD_CHARACTERS = 2000
"""Of a result, to whoever watches; the session has all of it."""
OFFER = 'That was new and worked. Say "save it as a skill" to keep the way as {}.'
NO_WORDS = "The model wrote a call instead of an answer."
IN_WORDS = "That is a call, and no tool is to be called now. Answer in words, from the results above: {}"
CUT_OFF = "The answer is cut off: it came to the most that it may be."
NOTHING_WENT_WELL = "Nothing of what was tried went well."
DID_NOT_END = "[The answer repeated itself and was ended]"

Emit = Callable[[dict[str, JsonValue]], Awaitable[None]]
"""Takes a live event: `type` and what belongs to it."""
Suggest = Callable[[str, Sequence[Receipt]], Awaitable[Skill | None]]
Record = Callable[..., Awaitable[None]]
"""Takes bodies of records, and returns when they are on disk."""


@dataclass(frozen=True)
class Setting:
    """What a turn works with. `injected` gives what the user said since the turn began, and forgets it."""

    session: str
    models: Models
    delegation: Delegation
    runner: ToolRunner
    keeper: Keeper
    router_packer: Packer
    specialist_packer: Packer
    record: Record
    emit: Emit
    injected: Callable[[], Sequence[str]] = tuple
    workspace: str | None = None
    think: bool = False
    count: Callable[[TurnMetrics], None] = lambda _metrics: None
    workers: Callable[[], str] = str
    """Says which helpers work and gives their reports: put before Main in each turn."""
    recalled: str = ""
    """What is remembered that this turn may be about: at the end of Main's prompt, and not part of the conversation."""
    ways: str = ""
    """A skill for what this turn is about: told to Router and Specialist."""
    events: Sequence[ContextEvent] = ()
    """What had to be done for the head of this turn's prompts."""
    suggest: Suggest | None = None
    """Says whether what was done is worth keeping as a skill."""
    questions: Callable[[], dict[str, int]] = dict
    """Counts what the user was asked since the last time."""
    waited_s: Callable[[], float] = float
    """Says how long the user was waited for, in seconds: no part of what the work may take."""
    absent: str = ""
    """Why there is nothing to act with; told where a request needs it."""


async def take_turn(setting: Setting, text: str, turn: str) -> TurnMetrics:
    """Answer what the user said.

    Raises:
        RoostError: no model answers. What the user said is in the session all the same.
    """
    return await _Turn(setting, turn).take(text)


class _Turn:
    def __init__(self, setting: Setting, turn: str) -> None:
        self._s = setting
        self._turn = turn
        self._added: list[str] = []
        self._metrics = TurnMetrics(mode=setting.delegation.mode.value)

    async def take(self, text: str) -> TurnMetrics:
        began = time.monotonic()
        await self._s.record(MessageBody(role="user", text=text, turn=self._turn))
        await self._context(self._s.events)
        await self._context(await self._s.keeper.begin(user(text)))
        try:
            routed = await self._route(text)
            worked = await self._work(text, routed)
            await self._answer(text, routed, worked)
            await self._suggest(text, worked)
        except asyncio.CancelledError:
            self._metrics.stop = Stop.CANCELLED.value
            await asyncio.shield(self._over(began))
            raise
        except RoostError as error:
            self._metrics.stop = "error"
            await self._note("turn.failed", {"reason": error.message})
            await self._over(began)
            raise
        await self._over(began)
        return self._metrics

    async def _route(self, text: str) -> Routed:
        began = time.monotonic()
        player = self._s.delegation[AgentRole.ROUTER]
        tools = list(self._s.runner.tools())
        if tools:
            await self._s.emit({"type": "status", "text": "deciding"})
            pack = await self._s.router_packer.router(
                self._s.keeper.conversation, Head(instructions(tools)), text, facts=self._s.ways
            )
            routed = await route(self._s.models, player.name, pack.messages, text, tools, self._s.session)
        else:
            routed = await route(self._s.models, player.name, (), text, tools)
        self._used(AgentRole.ROUTER, player.name, routed.usage, time.monotonic() - began)
        self._metrics.preflight, self._metrics.routed_by = routed.preflight, routed.by
        log.info(
            "preflight", preflight=routed.preflight, by=routed.by, problems=list(routed.problems),
            delegation_mode=self._metrics.mode, session=self._s.session,
        )  # fmt: skip
        await self._note(
            "preflight",
            {
                "outcome": routed.preflight, "by": routed.by, "problems": list(routed.problems),
                "actions": [{"tool": one.tool, "arguments": one.arguments} for one in routed.actions],
            },
        )  # fmt: skip
        return routed

    async def _work(self, text: str, routed: Routed) -> Worked:
        if not routed.actions and (routed.question or not missing(text, self._s.runner.tools(), ())):
            return Worked()
        began = time.monotonic()
        player = self._s.delegation[AgentRole.SPECIALIST]
        specialist = Specialist(
            self._s.models, player, self._s.runner, self._told, self._s.session, self._s.workspace, facts=self._s.ways,
            waited_s=self._s.waited_s,
        )  # fmt: skip
        try:
            worked = await specialist.work(text, routed, self._s.specialist_packer, self._turn, self._injected)
        except RoostError as error:
            # what was done stays done, and Main tells the user
            worked = specialist.so_far
            await self._note("specialist.failed", {"reason": error.message})
            worked.summary = f"The work could not go on: {error.message}"
            worked.stop, worked.failed = Stop.FAILED, True
        for added in self._added:
            await self._note("message.added", {"text": added})
        self._used(AgentRole.SPECIALIST, player.name, worked.usage, time.monotonic() - began)
        for name in ("asked", "run", "blocked", "repaired", "malformed"):
            setattr(self._metrics, name, getattr(worked.counts, name))
        if worked.stop:
            self._metrics.stop = worked.stop.value
            await self._note("work.stopped", {"why": worked.stop.value})
        self._metrics.missing = worked.missing
        await self._context(await self._s.keeper.append(*worked.messages))
        return worked

    def _injected(self) -> Sequence[str]:
        texts = self._s.injected()
        self._added += texts
        return texts

    async def _answer(self, text: str, routed: Routed, worked: Worked) -> None:
        absent = self._s.absent if needs_tools(text) and not worked.messages else ""
        if routed.question and not worked.messages and not absent:
            self._metrics.stop = Stop.ASKED.value
            await self._s.emit({"type": "text", "text": routed.question})
            await self._said(routed.question, Reply(routed.question))
            return
        began = time.monotonic()
        player = self._s.delegation[AgentRole.MAIN]
        undone = absent or not_done(worked)
        tail = "\n".join(part for part in (undone, worked.summary if not undone or worked.failed else "") if part)
        ends = [self._s.recalled, self._s.workers(), f"[About the work] {tail}" if tail else ""]
        pack, events = await self._s.keeper.pack("\n".join(end for end in ends if end))
        await self._context(events)
        self._metrics.parts = dict(pack.parts)
        splitter, heard = Splitter(), [""]
        ask = Ask(player.name, pack.messages, self._s.keeper.bounds.reply_tokens, session=self._s.session)
        reply = await self._s.models.ask(ask, self._hear(splitter, heard))
        await self._tell_parts(splitter.end())
        self._used(AgentRole.MAIN, reply.model or player.name, reply.usage, time.monotonic() - began)
        answer = collapse_babble(without_thinking(reply.text)).strip()
        if reply.finish == "ended":
            answer = f"{answer}\n{DID_NOT_END}"
            await self._note("answer.ended", {"why": "it repeated itself"})
        lacks = CUT_OFF if reply.finish == "length" else ""
        if worked.messages and is_call(answer):
            answer, lacks = await self._in_words(text, worked, pack, answer)
            await self._s.emit({"type": "text", "text": f"\n{answer}"})
        undone = " ".join(part for part in (undone, lacks) if part)
        if not answer:
            answer = "(no answer)"
            await self._s.emit({"type": "text", "text": answer})
        elif not undone and reply.finish != "ended":
            self._metrics.finished = True
        if undone:
            answer = f"{answer}\n\n[{undone}]"
            await self._s.emit({"type": "notice", "text": undone})
        await self._said(answer, reply)

    async def _in_words(self, text: str, worked: Worked, pack: Pack, call: str) -> tuple[str, str]:
        """Ask once more where Main wrote a call, as small models do that go on as the history reads.

        Return the answer, or what the tools returned if it is none again, and what is to be said of it.
        """
        began = time.monotonic()
        room = self._s.keeper.bounds.reply_tokens
        # The call and its correction are shown once, and never become part of the history.
        beside = (assistant(short(call, room)), user(IN_WORDS.format(short(text, room))))
        player = self._s.delegation[AgentRole.MAIN]
        ask = Ask(player.name, [*pack.messages, *beside], room // 2, session=self._s.session)
        reply = await self._s.models.ask(ask)
        first = self._metrics.roles[AgentRole.MAIN]
        self._used(AgentRole.MAIN, first.model, first.usage + reply.usage, first.seconds + time.monotonic() - began)
        answer = collapse_babble(without_thinking(reply.text)).strip()
        if answer and not is_call(answer):
            return answer, CUT_OFF if reply.finish == "length" else ""
        return last_result(worked, text), NO_WORDS

    async def _suggest(self, text: str, worked: Worked) -> None:
        """Offer to keep a way that worked and is new; the user decides."""
        if not (self._s.suggest and self._metrics.finished and worked.receipts):
            return
        skill = await self._s.suggest(text, worked.receipts)
        if skill:
            await self._note(SUGGESTED, {"skill": skill.name, "description": skill.description, "steps": skill.steps})
            await self._s.emit({"type": "notice", "text": OFFER.format(skill.name)})

    def _hear(self, splitter: Splitter, heard: list[str]) -> Hear:
        async def hear(piece: str, thought: bool) -> bool:
            await self._tell_parts([(piece, True)] if thought else splitter.feed(piece))
            heard[0] += piece
            return not babbles(heard[0])

        return hear

    async def _tell_parts(self, parts: list[tuple[str, bool]]) -> None:
        for text, thought in parts:
            if not thought:
                await self._s.emit({"type": "text", "text": text})
            elif self._s.think:
                await self._s.emit({"type": "thought", "text": text})

    async def _said(self, text: str, reply: Reply) -> None:
        body = MessageBody(
            role="assistant", text=text, speaker=AgentRole.MAIN.value, model=reply.model, reasoning=reply.reasoning,
            turn=self._turn,
        )  # fmt: skip
        await self._s.record(body)
        await self._context(await self._s.keeper.append(assistant(text)))

    async def _told(self, told: Told) -> None:
        await tell_call(told, self._turn, self._s.record, self._s.emit)

    async def helper_told(self, told: Told) -> None:
        """Record and tell a sub-agent's call; its messages are not part of the conversation."""
        if told.call and told.result is None:
            await self._note("helper.call", {"tool": told.call.name, "arguments": told.call.arguments})
        elif told.call and told.result:
            detail: dict[str, JsonValue] = {"tool": told.call.name, "outcome": told.result.outcome.value}
            await self._note("helper.result", {**detail, "text": told.result.text[:TOLD_CHARACTERS]})

    async def _context(self, events: Sequence[ContextEvent]) -> None:
        for event in events:
            self._metrics.compactions += event.kind.value == "compacted"
            self._metrics.mode_changes += event.kind.value == "mode_changed"
            await self._s.record(
                EventBody(name=f"context.{event.kind}", detail=event.model_dump(mode="json"), turn=self._turn)
            )
            if event.visible:
                await self._s.emit({"type": "notice", "text": event.message})

    async def _note(self, name: str, detail: dict[str, JsonValue]) -> None:
        await self._s.record(EventBody(name=name, detail=detail, turn=self._turn))
        await self._s.emit({"type": "event", "name": name, **detail})

    async def _over(self, began: float) -> None:
        self._metrics.seconds = time.monotonic() - began
        self._metrics.questions = self._s.questions()
        self._s.count(self._metrics)
        document = self._metrics.document()
        await self._s.record(MetricsBody(values=document, turn=self._turn))
        await self._s.emit({"type": "metrics", **document})

    def _used(self, role: AgentRole, model: str, usage: Usage, seconds: float) -> None:
        self._metrics.roles[role] = RoleUse(model, usage, seconds)


async def tell_call(told: Told, turn: str, record: Record, emit: Emit) -> None:
    """Record a call or its result, and tell it to who watches: what was done is recorded also if the turn ends here."""
    bodies: list[Body] = []
    events: list[dict[str, JsonValue]] = []
    if told.call and (told.result is None or told.note):
        bodies.append(ToolCallBody(call=told.call, turn=turn))
        events.append(
            {"type": "tool_call", "id": told.call.id, "tool": told.call.name, "arguments": told.call.arguments}
        )
    if told.call and told.result:
        bodies.append(ToolResultBody(result=told.result, turn=turn))
        events.append(
            {
                "type": "tool_result", "id": told.call.id, "outcome": told.result.outcome.value,
                "text": told.result.text[:TOLD_CHARACTERS], "seconds": round(told.result.seconds, 3),
                "changed": list(told.result.changed),
                "bytes": len(told.result.text.encode("utf-8", "surrogatepass")),
            }
        )  # fmt: skip
    if told.note:
        bodies.append(EventBody(name="work.note", detail={"text": told.note}, turn=turn))
    await asyncio.shield(asyncio.ensure_future(record(*bodies)))
    for event in events:
        await emit(event)


def helper_told(setting: Setting, turn: str) -> Tell:
    """Return what tells and records the calls of a sub-agent: they belong to the turn, and say whose they are."""
    return _Turn(setting, turn).helper_told


def not_done(worked: Worked) -> str:
    """Return what is to be said of work that is not finished, whatever a model says of it; '' where it is."""
    parts = [*([explained(worked.stop)] if worked.stop else []), *(f"Not done: {one}." for one in worked.missing)]
    if not parts and worked.receipts and not any(one.happened for one in worked.receipts):
        parts.append(NOTHING_WENT_WELL)
    return " ".join(parts)


def last_result(worked: Worked, request: str) -> str:
    """Return what the last call that went well returned, of the tool that the request is about if one was; or ''."""
    well = [one for one in worked.receipts if one.well and one.result.text.strip()]
    wanted = guess(request, {one.call.name for one in well}).tool
    well.sort(key=lambda one: one.call.name == wanted)
    return f"{well[-1].call.name} returned:\n{well[-1].result.text[:TOLD_CHARACTERS]}" if well else ""
