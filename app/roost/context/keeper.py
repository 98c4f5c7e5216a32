"""One conversation kept within its bounds: each append is held to the mode, each prompt to the slot's context.

The keeper decides nothing by itself: bounds come from `budget`, compactions from `compaction`, packs from `pack`. It
holds the conversation between them and tells what it did as events, which its owner writes into the session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import JsonValue

from roost.context.blobs import BlobStore
from roost.context.budget import REPLY_TOKENS, Bounds, CostMode, bounds
from roost.context.capabilities import STRICTEST, Capabilities
from roost.context.compaction import FOLDED_TOKENS, Compactor, turns_due
from roost.context.conversation import Compaction, Conversation, Turn
from roost.context.events import ContextEvent, Kind
from roost.context.gate import Gate
from roost.context.messages import Message, Role
from roost.context.pack import Head, Pack, Packer, active_topic
from roost.context.prefix import PrefixGuard
from roost.context.summarise import Summariser
from roost.context.tokens import TokenCounter

RECALLED_TURNS = 6
"""The most turns of an earlier topic that are put before the model again."""


class TurnArchive(Protocol):
    """Where turns that were compacted are still whole: the session's own file."""

    async def turns(self, numbers: Sequence[int]) -> Sequence[Turn]:
        """Return those of the turns that there are."""
        ...


class MemoryArchive:
    """Turns in memory."""

    def __init__(self) -> None:
        self._turns: dict[int, Turn] = {}

    def keep(self, turns: Iterable[Turn]) -> None:
        """Keep turns as they are now."""
        self._turns |= {turn.number: turn for turn in turns}

    async def turns(self, numbers: Sequence[int]) -> Sequence[Turn]:
        """Return those of the turns that there are."""
        return [self._turns[number] for number in numbers if number in self._turns]


@dataclass(frozen=True)
class Slot:
    """What is known of the model that answers: context of one request in tokens, tokeniser, template."""

    context_tokens: int
    counter: TokenCounter
    capabilities: Capabilities = STRICTEST
    reply_tokens: int = REPLY_TOKENS


def rollover_due(session_bytes: int, limits: Bounds) -> bool:
    """Say whether a session is full; asked by every append and by what looks after sessions in the background."""
    return limits.session_bytes is not None and session_bytes >= limits.session_bytes


class Keeper:
    """Keeps one conversation of one owner. Not for several tasks at a time: a conversation has one turn at a time."""

    def __init__(
        self,
        *,
        owner: str,
        slot: Slot,
        mode: Callable[[], CostMode],
        head: Head,
        blobs: BlobStore,
        summariser: Summariser,
        archive: TurnArchive | None = None,
        conversation: Conversation | None = None,
        session_bytes: int = 0,
        guard: PrefixGuard | None = None,
    ) -> None:
        self._owner = owner
        self._slot = slot
        self._mode = mode
        self._head = head
        self._blobs = blobs
        self._summariser = summariser
        self._archive = archive
        self._guard = guard or PrefixGuard()
        self._reasons: list[str] = []
        self._held = mode()
        self.conversation = conversation or Conversation()
        self.session_bytes = session_bytes
        """What the session holds, all appends together: what was compacted counts, too, it is still on the disk."""

    @property
    def bounds(self) -> Bounds:
        """Return every threshold as it is now."""
        return bounds(self._mode(), self._slot.context_tokens, self._slot.reply_tokens)

    @property
    def gate(self) -> Gate:
        """Return the gate for the owner's texts."""
        return Gate(self._blobs, self._owner, self._slot.counter)

    def move(self, slot: Slot) -> None:
        """Go on with another model or slot: the next prompt is read anew there."""
        self._slot = slot
        self._reasons.append("another model")

    def change_head(self, head: Head, reason: str) -> None:
        """Go on with another head, for a reason: a tool came or went, another language."""
        if head != self._head:
            self._head = head
            self._reasons.append(reason)

    async def begin(self, message: Message) -> list[ContextEvent]:
        """Append a message that begins a turn; return what had to be done for it."""
        return await self._append(message, new=True)

    async def append(self, *messages: Message, name: str = "") -> list[ContextEvent]:
        """Append to the turn under way: answers, calls, results.

        `name` is the file name or address that results are of: it tells how to put a long one in short.
        """
        events: list[ContextEvent] = []
        for message in messages:
            events += await self._append(message, new=False, name=name)
        return events

    async def _append(self, message: Message, *, new: bool, name: str = "") -> list[ContextEvent]:
        limits = self.bounds
        events = self._mode_events(limits)
        message, gated = await self._admitted(message, limits, name)
        events += gated
        talk = self.conversation
        self.conversation = talk.begin(message) if new or not talk.turns else talk.go_on(message)
        self.session_bytes += message.size
        if rollover_due(self.session_bytes, limits):
            events += await self._roll_over(limits)
        events += await self._compact_if_due(limits)
        return events

    def _mode_events(self, limits: Bounds) -> list[ContextEvent]:
        if limits.mode is self._held:
            return []
        before, self._held = self._held, limits.mode
        self._reasons.append(f"cost mode {limits.mode}")
        text = f"Cost mode {limits.mode} instead of {before}: every bound changed with it."
        return [ContextEvent(kind=Kind.MODE_CHANGED, message=text, detail={"from": before, "to": limits.mode})]

    async def _admitted(self, message: Message, limits: Bounds, name: str) -> tuple[Message, list[ContextEvent]]:
        """Return a message as it comes in: results as the mode asks for, others unless they fit no prompt."""
        result = message.role is Role.TOOL
        tokens = limits.result_tokens if result else limits.message_tokens
        most = limits.entry_bytes if result else limits.message_bytes
        admitted = await self.gate.admit(message.text, tokens, name=name, most_bytes=most)
        if not admitted.reference:
            return message, []
        form = admitted.form.value
        text = f"A {'result' if result else 'message'} of {admitted.size} bytes came in as {form}; "
        detail: dict[str, JsonValue] = {"size": admitted.size, "reference": admitted.reference, "form": form}
        event = ContextEvent(
            kind=Kind.GATED if result else Kind.ESCALATED,
            message=f"{text}the whole is {admitted.reference}.",
            detail={**detail, "tokens": admitted.tokens},
        )
        return message.model_copy(update={"text": admitted.text}), [event]

    async def _opening(self) -> int:
        count = self._slot.counter.text
        schemas = json.dumps(list(self._head.tools), ensure_ascii=False) if self._head.tools else ""
        return await count(self._head.system) + await count(schemas)

    async def _compact_if_due(self, limits: Bounds, measured: int = 0) -> list[ContextEvent]:
        """Compact what is due; `measured` is how many tokens a prompt really had, if that is known to be too many."""
        compactor = Compactor(self._summariser, self._slot.counter)
        sizes = await compactor.sizes(self.conversation, await self._opening())
        unseen = max(measured - sizes.opening - sum(sizes.turns), 0)
        due = turns_due(replace(sizes, opening=sizes.opening + unseen), limits)
        if not due:
            return []
        return [await self._compact(due, limits, compactor)]

    async def _compact(self, due: int, limits: Bounds, compactor: Compactor) -> ContextEvent:
        before = self.conversation
        compaction = await compactor.compact(before, due, limits)
        self.conversation = before.after(compaction)
        self._reasons.append("compaction")
        text = f"{due} turns are now {len(self.conversation.shown)} summaries; what was said is still in the session."
        return ContextEvent(
            kind=Kind.COMPACTED,
            message=text,
            detail={
                "record": compaction.model_dump(mode="json"),
                "without_model": compactor.fallbacks,
                "bytes_before": before.size,
                "bytes_after": self.conversation.size,
            },
        )

    async def _roll_over(self, limits: Bounds) -> list[ContextEvent]:
        """Go on as a new session: it knows the summary and has the last turns."""
        compactor = Compactor(self._summariser, self._slot.counter)
        events: list[ContextEvent] = []
        keep = min(2, len(self.conversation.turns))
        if len(self.conversation.turns) > keep:
            events.append(await self._compact(len(self.conversation.turns) - keep, limits, compactor))
        talk = self.conversation
        told = "\n".join([*([talk.carried] if talk.carried else []), *(t.shown() for t in talk.shown)])
        carried = await compactor.summary(told, min(FOLDED_TOKENS, limits.summary_tokens)) if told else ""
        was = self.session_bytes
        roomy = replace(limits, prompt_bytes=(limits.session_bytes or 0) // 2)  # or it would be full again at once
        packer = Packer(roomy, self.gate, self._slot.capabilities)
        kept = await packer.main(Conversation(carried=carried, turns=talk.turns), self._head)
        self.conversation = Conversation(carried=carried, turns=kept.turns)
        self.session_bytes = self.conversation.size
        self._reasons.append("a new session")
        text = f"The session reached {was} bytes, the most of mode {limits.mode}: it goes on in a new one."
        numbers: list[JsonValue] = [turn.number for turn in kept.turns]
        detail: dict[str, JsonValue] = {"bytes": was, "carried": carried, "turns": numbers}
        return [*events, *kept.events, ContextEvent(kind=Kind.ROLLED_OVER, message=text, detail=detail)]

    async def pack(self, tail: str = "") -> tuple[Pack, list[ContextEvent]]:
        """Return Main's prompt for the turn under way, and what had to be done for it.

        Raises:
            RoostError: there is nothing to answer, or the head alone does not fit.
        """
        limits = self.bounds
        events = [*self._mode_events(limits), *await self._compact_if_due(limits)]
        packer = Packer(limits, self.gate, self._slot.capabilities)
        pack = await packer.main(self.conversation, self._head, tail=tail, recalled=await self._recalled())
        while pack.events:  # it did not fit: what can be summarised is neither shortened nor left out
            compacted = await self._compact_if_due(limits, int(str(pack.events[0].detail["tokens_before"])))
            if not compacted:
                break
            events += compacted
            pack = await packer.main(self.conversation, self._head, tail=tail, recalled=await self._recalled())
        self.conversation = self.conversation.model_copy(update={"turns": pack.turns})
        events += pack.events
        reason = ", ".join([*self._reasons, *([pack.reason] if pack.reason else [])])
        broken = self._guard.check("main", pack.messages, pack.tools, tail=pack.tail, reason=reason)
        self._reasons.clear()
        return pack, [*events, *([broken] if broken else [])]

    async def _recalled(self) -> Sequence[Turn]:
        """Return turns of the compacted topic that the request under way is about."""
        if self._archive is None or not self.conversation.turns:
            return ()
        topic = active_topic(self.conversation, self.conversation.turns[-1].request)
        return await self._archive.turns(topic.turns[-RECALLED_TURNS:]) if topic else ()


def replayed(conversation: Conversation, event: ContextEvent) -> Conversation:
    """Return a conversation as an event of its session left it, to have it back after a restart."""
    if event.kind is Kind.COMPACTED:
        return conversation.after(Compaction.model_validate(event.detail["record"]))
    if event.kind is Kind.ROLLED_OVER:
        return Conversation(carried=str(event.detail["carried"]), turns=conversation.turns)
    return conversation
