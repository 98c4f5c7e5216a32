"""What keys allowed for good: one file, each entry for one key; and what is asked just now, for after a crash."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from roost.agent.sessions.records import now
from roost.ops.errors import RoostError
from roost.ops.file_lock import locked
from roost.ops.files import write_atomic
from roost.ops.validation import in_words

log = structlog.get_logger(__name__)
MOST = 200
"""Entries of a key; its oldest are asked about again. Only administrators make keys: that bounds the file."""
FOLDER_MODE = 0o700


class Allowed(BaseModel):
    """One entry: calls with this mark run without a question."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str
    tool: str
    mark: str
    at: str


FILE: TypeAdapter[list[Allowed]] = TypeAdapter(list[Allowed])


class _DamagedError(RoostError):
    """The file is there and can be read, and is no list of entries."""


class AllowedStore:
    """The file. Several processes may change it. What cannot be read allows nothing, and is never written over."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, owner: str) -> list[Allowed]:
        """Return a key's entries, the oldest first.

        Raises:
            RoostError: the file cannot be read, or is damaged.
        """
        return [one for one in self._all() if one.owner == owner]

    def has(self, owner: str, mark: str) -> bool:
        """Say whether a key allowed calls with this mark; where that cannot be known it is asked about."""
        try:
            return any(one.mark == mark for one in self.of(owner))
        except RoostError as error:
            log.warning("allowed_not_read", reason=error.message)
            return False

    def add(self, owner: str, tool: str, mark: str) -> None:
        """Note that a key allows calls with this mark.

        Raises:
            RoostError, OSError: it cannot be kept.
        """
        with locked(self._file):
            kept = [one for one in self._all_or_aside() if (one.owner, one.mark) != (owner, mark)]
            self._write([*kept, Allowed(owner=owner, tool=tool, mark=mark, at=now().isoformat())])

    def remove(self, owner: str, name: str) -> list[Allowed]:
        """Take back what a key allowed of a tool, or by a mark; return what that was.

        Raises:
            RoostError, OSError: it cannot be kept.
        """
        with locked(self._file):
            entries = self._all_or_aside()
            gone = [one for one in entries if one.owner == owner and name in (one.tool, one.mark)]
            if gone:
                self._write([one for one in entries if one not in gone])
        return gone

    def _all(self) -> list[Allowed]:
        try:
            return FILE.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RoostError(
                f"{self._file} cannot be read: {error.strerror}. Until it can, nothing is allowed for good.",
                fix="Give it to the user of the service, with mode 0600; see its disk.",
            ) from None
        except ValidationError as error:
            raise _DamagedError(
                f"{self._file} is damaged ({in_words(error)}). Nothing of it is allowed.",
                fix="Put back a copy of it, or allow something: it is kept aside then, and a new one begun.",
            ) from None

    def _all_or_aside(self) -> list[Allowed]:
        """Return all entries for a change; a damaged file is kept beside the new one."""
        try:
            return self._all()
        except _DamagedError as error:
            aside = self._file.with_name(f"{self._file.name}.broken-{time.time_ns()}")
            self._file.rename(aside)
            log.critical("allowed_file_broken", reason=error.message, moved_to=str(aside))
            return []

    def _write(self, entries: list[Allowed]) -> None:
        kept = FILE.dump_json(_bounded(entries), indent=1).decode()
        write_atomic(self._file, f"{kept}\n", mode=0o600)


def _bounded(entries: list[Allowed]) -> list[Allowed]:
    """Return the latest entries of each key, in their order."""
    seen: Counter[str] = Counter()
    kept = []
    for one in reversed(entries):
        seen[one.owner] += 1
        if seen[one.owner] <= MOST:
            kept.append(one)
    return kept[::-1]


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
