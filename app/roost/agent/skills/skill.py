"""A skill as plain data and as a file: a head of `name: value` lines between lines `---`, then steps in Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from roost.agent.memory.facts import secret_in
from roost.ops.errors import RoostError

NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
FENCE = "---"
MOST_DESCRIPTION = 300
MOST_STEPS_BYTES = 8192
REFUSED = 7
BETWEEN = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Skill:
    """One skill. `at` is ISO 8601, UTC; `session` is the conversation that it is from, '' for none."""

    name: str
    description: str
    steps: str
    source: str
    session: str = ""
    at: str = ""

    @property
    def said(self) -> str:
        """Return all its words, to search in."""
        return f"{self.name.replace('-', ' ')} {self.description} {self.steps}"


class BadSkillError(RoostError):
    """A text is no skill, or may not be one."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix=fix, exit_code=REFUSED)


def checked(skill: Skill) -> Skill:
    """Return a skill as it is kept.

    Raises:
        BadSkillError: it has no proper name, nothing in it, too much, or what looks like a secret.
    """
    if not NAME.match(skill.name):
        raise BadSkillError(f"{skill.name!r} is no name of a skill.", "Use small letters, digits and dashes.")
    description, steps = " ".join(skill.description.split()), skill.steps.strip()
    if not description or len(description) > MOST_DESCRIPTION:
        raise BadSkillError(f"A description has 1 to {MOST_DESCRIPTION} characters.", "Say when it helps.")
    if not steps or len(steps.encode("utf-8", "replace")) > MOST_STEPS_BYTES:
        raise BadSkillError(f"The steps have 1 to {MOST_STEPS_BYTES} bytes.", "Say what to do, step by step.")
    if what := secret_in(f"{description}\n{steps}"):
        raise BadSkillError(f"It holds what looks like {what}.", "Say where it is to be found instead.")
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in description + steps):
        raise BadSkillError("A skill is readable text.", "Leave out control characters.")
    return Skill(skill.name, description, steps, " ".join(skill.source.split())[:80], skill.session, skill.at)


def text_of(skill: Skill) -> str:
    """Return a skill as its file."""
    head = {
        "name": skill.name, "description": skill.description, "source": skill.source, "session": skill.session,
        "at": skill.at,
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in head.items() if value]
    return "\n".join([FENCE, *lines, FENCE, "", skill.steps, ""])


def parse(text: str) -> Skill:
    """Return the skill of a file; names that are not known here are passed over.

    Raises:
        BadSkillError: it has no head, or says too little or too much.
    """
    lines = text.splitlines()
    fences = [number for number, line in enumerate(lines) if line.strip() == FENCE]
    if len(fences) < 2 or fences[0] != 0:
        raise BadSkillError(
            "A skill begins with a head.", f"Write {FENCE}, name: …, description: …, {FENCE}, then the steps."
        )
    end = fences[1]
    head = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:end])}
    return checked(
        Skill(
            head.get("name", ""), head.get("description", ""), "\n".join(lines[end + 1 :]),
            head.get("source", "user"), head.get("session", ""), head.get("at", ""),
        )
    )  # fmt: skip


def name_of(text: str) -> str:
    """Return a name made of words; 'skill' where there are none."""
    words = [part for part in BETWEEN.split(text.lower()) if part]
    return "-".join(words[:6])[:60].strip("-") or "skill"
