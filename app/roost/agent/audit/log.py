"""The audit log on disk: many processes append, one chain comes of it.

`FOLDER/audit.jsonl` is the present file; a full one is kept as `audit-FIRST.jsonl`, by the number of its first entry.
The lock is a file of its own, held while the end is read, an entry added and brought to the disk: no process adds to an
end that another has moved on from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from roost.agent.audit.chain import Entry, Fault, Head, follow, opened, sealed
from roost.durable.lines import end_of_last_line, line_before, write_at_end
from roost.gateway.telemetry import Redactor
from roost.ops.errors import RoostError
from roost.ops.files import sync_folder

NAME = "audit.jsonl"
LOCK = "lock"
ROTATE_BYTES = 64 << 20
FILE_MODE = 0o600
FOLDER_MODE = 0o700
DETAIL: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


@dataclass(frozen=True)
class Verdict:
    """What a check of the whole log found. `fault` is empty where the chain holds; `file` is where it is broken."""

    entries: int
    files: int
    head: Head
    file: str = ""
    fault: Fault | None = None
    anchors: int = 0
    """How many anchors were compared."""

    @property
    def intact(self) -> bool:
        """Say whether nothing is wrong."""
        return self.fault is None


class AuditLog:
    """The log of a folder. An object may be used by several threads, and several objects by several processes."""

    def __init__(self, folder: Path, redactor: Redactor | None = None, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._folder = folder
        self._redactor = redactor or Redactor()
        self._rotate_bytes = rotate_bytes
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        # made by whoever makes the log: another user who only looks must not be the one who owns it
        if not (folder / LOCK).exists() and folder.stat().st_uid == os.geteuid():
            os.close(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))

    def add(self, owner: str, action: str, detail: Mapping[str, object] | None = None, session: str = "") -> Head:
        """Record an action, without secrets; it is on disk when this returns. Returns the new end of the chain.

        Raises:
            RoostError: the end of the log is damaged: nothing is added to a chain that does not hold.
            OSError: the disk is full, or failed; then nothing is added.
        """
        clean = DETAIL.validate_python(self._redactor(None, action, dict(detail or {})))
        with self._locked():
            path = self._folder / NAME
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            try:
                size, lines, head = self._mended(handle)
                line, head = _next(head, owner, action, clean, session)
                write_at_end(handle, size, b"".join([*lines, line]))
                whole = os.fstat(handle).st_size
            finally:
                os.close(handle)
            if size == 0:
                sync_folder(self._folder)
            if whole >= self._rotate_bytes:
                self._rotate(path)
        return head

    def head(self) -> Head:
        """Return the end of the chain.

        Raises:
            RoostError: the end of the log is damaged.
        """
        with self._locked():
            path = self._folder / NAME
            if not path.exists():
                return self._end_of_kept()
            return self._end_of(path)

    def verify(self, anchors: Mapping[int, str] | None = None) -> Verdict:
        """Go along the whole chain, file by file; compare it with anchors: hashes by number of their entry."""
        with self._locked():  # the end does not move while it is read
            return self._verify(anchors or {})

    def tail(self, count: int, owner: str = "") -> list[Entry]:
        """Return the last entries, the oldest first; of one owner only if it is named. Damaged lines are left out."""
        found: list[Entry] = []
        for path in reversed(self.files()):
            for line in reversed(path.read_bytes().splitlines()):
                try:
                    entry, _ = opened(line)
                except ValueError:
                    continue
                if not owner or entry.owner == owner:
                    found.append(entry)
                if len(found) == count:
                    return found[::-1]
        return found[::-1]

    def files(self) -> list[Path]:
        """Return the files, the oldest first."""
        kept = sorted(self._folder.glob("audit-*.jsonl"), key=_first_number)
        return [*kept, *(path for path in [self._folder / NAME] if path.exists())]

    def _verify(self, anchors: Mapping[int, str]) -> Verdict:
        head, files = Head(), self.files()
        wanted = dict(anchors)
        for path in files:
            with path.open("rb") as stream:
                head, fault = follow(_comparing(stream, wanted), head)
            if fault:
                return Verdict(head.seq, len(files), head, path.name, fault)
        for seq, digest in sorted(wanted.items()):
            problem = "is missing: the log was cut off" if seq > head.seq else "is not the one that was anchored"
            return Verdict(head.seq, len(files), head, NAME, Fault(0, f"Entry {seq} ({digest[:12]}…) {problem}"))
        return Verdict(head.seq, len(files), head, anchors=len(anchors))

    def _mended(self, handle: int) -> tuple[int, list[bytes], Head]:
        """Return where to add to the present file, what has to be added first, and the end of the chain.

        What stands behind the last whole line is what a crash left of an entry that nobody was told of. It is cut off,
        and the chain says so: who changed the end of the last line has not made an entry go unseen.
        """
        size = os.fstat(handle).st_size
        end = end_of_last_line(handle, size)
        rest = os.pread(handle, size - end, end)
        head = self._end(handle, end)
        if not rest:
            return size, [], head
        found, fault = follow([rest + b"\n"], head)
        if fault is None:  # a whole entry, and only its end is missing
            return size, [b"\n"], found
        os.ftruncate(handle, end)
        detail: dict[str, JsonValue] = {"bytes": len(rest), "sha256": hashlib.sha256(rest).hexdigest()}
        line, head = _next(head, "", "audit.mended", detail, "")
        return end, [line], head

    def _end(self, handle: int, end: int) -> Head:
        """Return the end of the chain, where `end` is the one of the last whole line."""
        if end == 0:
            return self._end_of_kept()
        try:
            entry, digest = opened(line_before(handle, end)[1])
        except ValueError as error:
            raise RoostError(
                f"The last entry of the audit log {self._folder / NAME} {error}: nothing is added to it.",
                fix="Run `roost audit verify`; then move the folder away and keep it: a new chain begins.",
            ) from None
        return Head(entry.seq, digest)

    def _end_of_kept(self) -> Head:
        kept = [path for path in self.files() if path.name != NAME]
        if not kept:
            return Head()
        return self._end_of(kept[-1])

    def _end_of(self, path: Path) -> Head:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._end(handle, end_of_last_line(handle, os.fstat(handle).st_size))
        finally:
            os.close(handle)

    def _rotate(self, path: Path) -> None:
        with path.open("rb") as stream:
            first, _ = opened(stream.readline()[:-1])
        path.rename(path.with_name(f"audit-{first.seq}.jsonl"))
        sync_folder(self._folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            handle = os.open(self._folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # nobody has written here yet
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def read_anchors(text: str) -> dict[int, str]:
    """Return the anchors of a text with `NUMBER HASH` a line, as `roost audit anchor` writes them.

    Raises:
        RoostError: a line is none.
    """
    found: dict[int, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        seq, _, digest = line.partition(" ")
        if not (seq.isdigit() and len(digest) == len(Head().hash)):
            raise RoostError(f"{line!r} is no anchor.", fix="Give the file that `roost audit anchor --to` wrote.")
        found[int(seq)] = digest
    return found


def _comparing(lines: Iterable[bytes], wanted: dict[int, str]) -> Iterator[bytes]:
    """Pass lines on, and strike out the anchors that they agree with."""
    for line in lines:
        yield line
        if wanted:
            entry, digest = opened(line[:-1])
            if wanted.get(entry.seq) == digest:
                del wanted[entry.seq]


def _first_number(path: Path) -> int:
    digits = path.stem.partition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _next(head: Head, owner: str, action: str, detail: dict[str, JsonValue], session: str) -> tuple[bytes, Head]:
    entry = Entry(
        seq=head.seq + 1, at=datetime.now(UTC).isoformat(timespec="milliseconds"), owner=owner, action=action,
        session=session, detail=detail, previous=head.hash,
    )  # fmt: skip
    line, digest = sealed(entry)
    return line, Head(entry.seq, digest)
