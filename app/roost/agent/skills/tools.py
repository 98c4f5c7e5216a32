"""`save_skill` and `search_skills` as the Specialist calls them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from pydantic import JsonValue

from roost.agent.audit.log import AuditLog
from roost.agent.intent import asks_for_skill
from roost.agent.memory.facts import AGENT
from roost.agent.sessions.records import EventBody
from roost.agent.sessions.store import SessionStore
from roost.agent.skills.skill import BadSkillError, Skill, name_of
from roost.agent.skills.store import SkillStore
from roost.agent.tool import Permission, ToolCall, ToolSpec

SUGGESTED = "skill.suggested"
"""The event of a session that has a suggestion: `save_skill` without steps takes it."""
MOST_HITS = 3
TEXT: JsonValue = {"type": "string"}
ASKED = re.compile(r"\bskills?\b|\bsave (?:that|this|it) (?:way|for later)\b", re.IGNORECASE)

SAVE_SKILL = ToolSpec(
    name="save_skill",
    description=(
        "Keeps a way that worked as a skill: when it helps and the steps. Without steps it keeps what was suggested "
        "last in this conversation."
    ),
    parameters={
        "type": "object", "properties": {"name": TEXT, "description": TEXT, "steps": TEXT},
        "additionalProperties": False,
    },
    permission=Permission.MEMORY,
    safe_to_repeat=True,  # the same skill again is the same file
)  # fmt: skip
SEARCH_SKILLS = ToolSpec(
    name="search_skills",
    description="Searches ways that worked before, with their steps.",
    parameters={
        "type": "object", "properties": {"words": TEXT}, "required": ["words"], "additionalProperties": False
    },
    permission=Permission.MEMORY,
    safe_to_repeat=True,
)  # fmt: skip


class SkillTools:
    """The tools for one key in one session. `changed` is told of a new skill.

    `request` is what the user said: what it does not ask for may be from a page or a file, and becomes no skill.
    """

    def __init__(
        self, skills: SkillStore, sessions: SessionStore, audit: AuditLog, owner: str, session: str,
        changed: Callable[[], None], request: str,
    ) -> None:  # fmt: skip
        self._skills = skills
        self._sessions = sessions
        self._audit = audit
        self._owner = owner
        self._session = session
        self._changed = changed
        self._request = request

    def tools(self, request: str, *, with_others: bool) -> Sequence[ToolSpec]:
        """Return what can be called for a request; `with_others` says that there are other tools anyway."""
        return [SAVE_SKILL, SEARCH_SKILLS] if with_others or ASKED.search(request) else []

    async def run(self, call: ToolCall) -> str:
        """Run one of them, return what the model reads. Raises RoostError, OSError."""
        given = {name: str(value or "").strip() for name, value in call.arguments.items()}
        if call.name == SAVE_SKILL.name:
            return await asyncio.to_thread(self._save, given)
        found = await asyncio.to_thread(self._skills.search, self._owner, given.get("words", ""), MOST_HITS)
        return "\n\n".join(as_text(skill) for skill in found) or "There is no skill for it."

    def _save(self, given: dict[str, str]) -> str:
        if not asks_for_skill(self._request):  # then only what was offered, as it was offered
            if any(given.values()):
                raise BadSkillError("Only a user says what becomes a skill.", "Offer it, and wait for the answer.")
            given = {}
        draft = None if given.get("steps") else self._draft()
        description = given.get("description") or (draft.description if draft else "")
        steps = given.get("steps") or (draft.steps if draft else "")
        if not steps:
            raise BadSkillError("There is nothing to save.", "Give description and steps.")
        name = name_of(given.get("name") or (draft.name if draft else "") or description)
        skill, new = self._skills.save(self._owner, Skill(name, description, steps, AGENT, self._session))
        self._audit.add(self._owner, "skill.save", {"skill": skill.name, "new": new}, self._session)
        self._changed()
        return f"The skill {skill.name} is {'saved' if new else 'saved in place of the one before'}."

    def _draft(self) -> Skill | None:
        """Return what was suggested last in this conversation."""
        for record in reversed(self._sessions.read(self._owner, self._session).records):
            body = record.body
            if isinstance(body, EventBody) and body.name == SUGGESTED:
                said = {name: str(body.detail.get(name) or "") for name in ("skill", "description", "steps")}
                return Skill(said["skill"], said["description"], said["steps"], AGENT, self._session)
        return None


def as_text(skill: Skill) -> str:
    """Return a skill as a model reads it."""
    return f"Skill {skill.name}: {skill.description}\n{skill.steps}"
