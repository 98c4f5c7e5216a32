"""What memory and skills bring into a conversation: a part of the frozen head, and what bears on one request.

The head is made once a session, by percentages of the context (`context/lite`), and made anew only when something of it
is no longer so. What bears on a request goes to the volatile end of Main's prompt, and to Router and Specialist as
facts. Where memory or skills cannot be used the user is told, and the conversation goes on without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from roost.agent.memory.facts import AGENT, Fact, Kind, as_lines
from roost.agent.memory.meaning import Embedder
from roost.agent.memory.memory import Memory
from roost.agent.memory.tools import bearing
from roost.agent.receipts import Receipt
from roost.agent.skills.skill import Skill
from roost.agent.skills.store import SkillStore
from roost.agent.skills.suggest import mark_of, suggestion
from roost.agent.skills.tools import as_text
from roost.context.budget import Bounds
from roost.context.events import ContextEvent
from roost.context.gate import Gate
from roost.context.lite import Part, lite_head
from roost.context.pack import Head
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)
RECALLED = "[What you remember that may bear on this]"
WAYS = "[A way that worked before]"
CHANGED = "what is remembered changed"
"""Why a head is another one than before."""

Notice = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Bearing:
    """What bears on a request: for Main's tail, and for Router and Specialist. '' for nothing."""

    recalled: str = ""
    ways: str = ""


@dataclass
class Knowledge:
    """Memory and skills of a hub. `versions` counts, by owner, what makes heads no longer true."""

    memory: Memory
    skills: SkillStore
    versions: dict[str, int] = field(default_factory=dict)

    def changed(self, owner: str) -> None:
        """Note that heads of an owner's sessions are to be made anew."""
        self.versions[owner] = self.versions.get(owner, 0) + 1

    def version(self, owner: str) -> int:
        """Return how often that happened."""
        return self.versions.get(owner, 0)

    async def head(
        self, owner: str, system: str, limits: Bounds, gate: Gate, notice: Notice
    ) -> tuple[Head, tuple[ContextEvent, ...]]:
        """Return Main's head for an owner, and what had no room in it."""
        parts: dict[str, Part] = {}
        try:
            facts = await asyncio.to_thread(self.memory.store.all_of, owner)
            parts |= parts_of(facts)
        except (RoostError, OSError) as error:
            await self._told(notice, "Memory", error)
        try:
            skills, _ = await asyncio.to_thread(self.skills.all_of, owner)
            parts["skills"] = [f"- {skill.name}: {skill.description}" for skill in skills]
        except OSError as error:
            await self._told(notice, "The folder of skills", error)
        try:
            return await lite_head(system, parts, (), limits, gate)
        except OSError as error:  # what is shortened has no room on the disk
            await self._told(notice, "What is remembered", error)
            return Head(system), ()

    async def bearing(
        self, owner: str, request: str, embedder: Embedder, limits: Bounds, gate: Gate, notice: Notice
    ) -> Bearing:
        """Return what bears on a request; also what the head has: small models heed what stands near the question."""
        recalled = ways = ""
        try:
            lines = await bearing(self.memory, owner, request, embedder)
            recalled = "\n".join([RECALLED, *lines]) if lines else ""
        except (RoostError, OSError) as error:
            await self._told(notice, "Memory", error)
        try:
            found = await asyncio.to_thread(self.skills.search, owner, request, 1)
            if found:
                ways = await self._admitted(f"{WAYS}\n{as_text(found[0])}", limits, gate)
        except OSError as error:
            await self._told(notice, "The folder of skills", error)
        return Bearing(recalled, ways)

    @staticmethod
    async def _admitted(text: str, limits: Bounds, gate: Gate) -> str:
        most = limits.lite_tokens("skills")
        admitted = await gate.admit(text, most, name="skill.md")
        return admitted.text if admitted.tokens <= most else ""

    async def suggested(self, owner: str, request: str, receipts: Sequence[Receipt]) -> Skill | None:
        """Return the skill to suggest after a success, once."""
        try:
            return await asyncio.to_thread(self._suggested, owner, request, receipts)
        except OSError as error:
            log.warning("no_skill_suggested", reason=str(error))
            return None

    def _suggested(self, owner: str, request: str, receipts: Sequence[Receipt]) -> Skill | None:
        skills, _ = self.skills.all_of(owner)
        found = suggestion(request, receipts, skills, self.skills.suggested(owner))
        if found:
            self.skills.note_suggested(owner, mark_of(request, receipts))
        return found

    @staticmethod
    async def _told(notice: Notice, what: str, error: Exception) -> None:
        log.warning("knowledge_not_available", what=what, reason=str(error))
        await notice(f"{what} cannot be used now: {error}")


def parts_of(facts: Sequence[Fact]) -> dict[str, Part]:
    """Return the parts of a head that facts make, by `LITE_SHARES`' names; nothing private, no notes of models."""
    names = {Kind.INSTRUCTION: "bootstrap", Kind.PROFILE: "profiles", Kind.FACT: "memory"}
    open_to_all = [fact for fact in facts if not fact.sensitive and fact.source != AGENT]
    return {
        name: as_lines(fact for fact in open_to_all if fact.kind is kind)
        if kind is Kind.FACT
        else [f"- {fact.text}" for fact in open_to_all if fact.kind is kind]
        for kind, name in names.items()
    }
