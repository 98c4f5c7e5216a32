"""What keys allowed for good: one file, each entry for one key; and what is asked just now, for after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from roost.agent.sessions.records import now
from roost.ops.file_lock import locked
from roost.ops.files import write_atomic

log = structlog.get_logger(__name__)
MOST = 1000
"""Entries of a file; the oldest are asked about again."""
FOLDER_MODE = 0o700


class Allowed(BaseModel):
    """One entry: calls with this mark run without a question."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str
    tool: str
    mark: str
    at: str


FILE: TypeAdapter[list[Allowed]] = TypeAdapter(list[Allowed])


class AllowedStore:
    """The file. Several processes may change it. What cannot be read allows nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, owner: str) -> list[Allowed]:
        """Return a key's entries, the oldest first."""
        return [one for one in self._all() if one.owner == owner]

    def has(self, owner: str, mark: str) -> bool:
        """Say whether a key allowed calls with this mark."""
        return any(one.mark == mark for one in self.of(owner))

    def add(self, owner: str, tool: str, mark: str) -> None:
        """Note that a key allows calls with this mark.

        Raises:
            RoostError, OSError: it cannot be kept.
        """
        with locked(self._file):
            kept = [one for one in self._all() if (one.owner, one.mark) != (owner, mark)]
            self._write([*kept, Allowed(owner=owner, tool=tool, mark=mark, at=now().isoformat())])

    def remove(self, owner: str, name: str) -> list[Allowed]:
        """Take back what a key allowed of a tool, or by a mark; return what that was.

        Raises:
            RoostError, OSError: it cannot be kept.
        """
        with locked(self._file):
            entries = self._all()
            gone = [one for one in entries if one.owner == owner and name in (one.tool, one.mark)]
            if gone:
                self._write([one for one in entries if one not in gone])
        return gone

    def _all(self) -> list[Allowed]:
        try:
            return FILE.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            log.warning("allowed_not_read", file=str(self._file), reason=str(error).splitlines()[0])
            return []

    def _write(self, entries: list[Allowed]) -> None:
        write_atomic(self._file, FILE.dump_json(entries[-MOST:], indent=1).decode() + "\n", mode=0o600)


class Open(BaseModel):
    """A question that waits for its answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    owner: str
    session: str
    turn: str
    call: str
    tool: str
    why: str


class OpenQuestions:
    """A file for each question while it waits: what is left of a process that was killed is settled by the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, question: Open) -> None:
        """Keep a question. Raises OSError."""
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        write_atomic(self._folder / f"{question.id}.json", question.model_dump_json(), mode=0o600)

    def remove(self, question: str) -> None:
        """Forget a question that is over. Raises OSError."""
        (self._folder / f"{question}.json").unlink(missing_ok=True)

    def left(self) -> Iterator[Open]:
        """Yield those of a process that is gone; one that cannot be read is forgotten."""
        for file in sorted(self._folder.glob("*.json")):
            try:
                yield Open.model_validate(json.loads(file.read_bytes()))
            except (OSError, ValueError) as error:
                log.warning("question_not_read", file=file.name, reason=str(error).splitlines()[0])
                file.unlink(missing_ok=True)
