"""Skills on disk: `FOLDER/<SHA-256 of the owner>/NAME.md`, each whole or not there; and what was suggested already.

Names of owners are hashed because they are chosen by people and may hold what a path may not.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from roost.agent.memory.facts import AGENT
from roost.agent.sessions.records import now
from roost.agent.skills.skill import NAME, BadSkillError, Skill, checked, parse, text_of
from roost.agent.storage import MissingError
from roost.context.topics import cosine, vectors, words
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.files import sync_folder, write_atomic

SUFFIX = ".md"
SUGGESTED = "suggested.json"
MOST_SKILLS = 200
MOST_SUGGESTED = 300
FOLDER_MODE, FILE_MODE = 0o700, 0o600
RELEVANT = 0.15
"""Cosine from which a skill is taken to be about a request."""


class SkillNotFoundError(MissingError):
    """There is no such skill, or it is another key's: both look the same."""

    code = "skill_not_found"

    def __init__(self, skill: str) -> None:
        super().__init__(f"There is no skill {skill!r}.", fix="See `roost skills list`.", exit_code=NOT_FOUND)


class SkillStore:
    """The folder. May be used by several threads of one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def all_of(self, owner: str) -> tuple[list[Skill], list[str]]:
        """Return an owner's skills by name, and the files that could not be read: a damaged one hides no other."""
        found: list[Skill] = []
        damaged: list[str] = []
        for path in sorted(self._home(owner).glob(f"*{SUFFIX}")):
            try:
                found.append(self._read(path))
            except (RoostError, OSError, UnicodeDecodeError):
                damaged.append(path.name)
        return found, damaged

    def get(self, owner: str, name: str) -> Skill:
        """Return a skill.

        Raises:
            SkillNotFoundError: it is not the owner's.
            RoostError: its file is damaged.
        """
        path = self._path(owner, name)
        try:
            return self._read(path)
        except FileNotFoundError:
            raise SkillNotFoundError(name) from None
        except (BadSkillError, UnicodeDecodeError) as error:
            raise RoostError(
                f"The file of the skill {name} cannot be read: {error}", fix=f"Put {path} right, or remove it."
            ) from None

    def save(self, owner: str, skill: Skill) -> tuple[Skill, bool]:
        """Keep a skill, in place of one of its name; on disk when this returns. Return it, and whether it is new.

        Raises:
            BadSkillError: it is none, there is no more room, or it is an agent's in place of a user's.
            OSError: the disk is full.
        """
        kept = checked(replace(skill, at=now().isoformat()))
        path = self._path(owner, kept.name)
        with self._lock:
            new = not path.exists()
            if not new and kept.source == AGENT:
                self._may_replace(path)
            if new and len(list(path.parent.glob(f"*{SUFFIX}"))) >= MOST_SKILLS:
                raise BadSkillError(f"There are {MOST_SKILLS} skills already.", "Remove some: `roost skills remove`.")
            self._write(path, text_of(kept))
        return kept, new

    def remove(self, owner: str, name: str) -> None:
        """Remove a skill.

        Raises:
            SkillNotFoundError: it is not the owner's.
        """
        path = self._path(owner, name)
        with self._lock:
            try:
                path.unlink()
            except FileNotFoundError:
                raise SkillNotFoundError(name) from None
            sync_folder(path.parent)

    def search(self, owner: str, request: str, limit: int = 5) -> list[Skill]:
        """Return skills that a request may be about, the most alike first."""
        return alike(request, self.all_of(owner)[0], RELEVANT)[:limit]

    def suggested(self, owner: str) -> list[str]:
        """Return what was suggested to an owner already; nothing where that cannot be read."""
        try:
            known = json.loads((self._home(owner) / SUGGESTED).read_text())
        except (OSError, ValueError):
            return []
        return [str(one) for one in known] if isinstance(known, list) else []

    def note_suggested(self, owner: str, mark: str) -> None:
        """Note a suggestion, so that it is not made again. Raises OSError."""
        with self._lock:
            marks = [*self.suggested(owner), mark][-MOST_SUGGESTED:]
            self._write(self._home(owner) / SUGGESTED, json.dumps(marks, ensure_ascii=False))

    def _may_replace(self, path: Path) -> None:
        try:
            source = self._read(path).source
        except (RoostError, UnicodeDecodeError):
            source = ""  # whose it was cannot be known
        if source != AGENT:
            raise BadSkillError(
                f"The skill {path.stem} is the user's own.", "Take another name, or have the user remove it."
            )

    @staticmethod
    def _read(path: Path) -> Skill:
        return replace(parse(path.read_text()), name=path.stem)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        write_atomic(path, text, mode=FILE_MODE)

    def _home(self, owner: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _path(self, owner: str, name: str) -> Path:
        if not NAME.match(name):
            raise SkillNotFoundError(name)
        return self._home(owner) / f"{name}{SUFFIX}"


def alike(request: str, skills: Sequence[Skill], least: float) -> list[Skill]:
    """Return the skills that share words with a request, the most alike first; cosine of TF-IDF at least `least`."""
    weighed = vectors([skill.said for skill in skills])
    asked = {word: float(count) for word, count in Counter(words(request)).items()}
    ranked = sorted(((cosine(asked, vector), skill) for vector, skill in zip(weighed, skills, strict=True)),
                    key=lambda one: (-one[0], one[1].name))  # fmt: skip
    return [skill for likeness, skill in ranked if likeness >= least]
