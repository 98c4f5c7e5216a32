"""One file of JSON lines that only grows: append, read, repair of what a power cut left behind.

A record counts once its line is complete on disk. Appending holds a lock on the file, ends a line that a crash cut off,
and writes all new lines with one write and one fsync: after it returned, a power cut takes nothing back.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.agent.sessions.records import Body, Record, UnreadableError, line_of, now, parse
from roost.durable.lines import end_of_last_line, line_before, write_at_end
from roost.ops.files import sync_folder

FILE_MODE = 0o600
BROKEN = ".broken"
SEQ = re.compile(rb'^\{"seq":(\d{1,18}),"at":')
"""How `line_of` begins a line."""


@dataclass(frozen=True)
class Contents:
    """What a file holds: its records, and how many lines could not be read."""

    records: tuple[Record, ...]
    damaged: int = 0
    more: bool = False
    """Whether others follow that were not asked for."""


def append(path: Path, bodies: Sequence[Body]) -> list[Record]:
    """Add records to the end of a file, which is made if need be; return them with their numbers.

    Raises:
        OSError: the disk is full or the file may not be written; then nothing is added.
    """
    fresh = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        with _locked(handle):
            size = _repaired(handle, path)
            seq = _last_seq(handle, size)
            at = now()
            made = [Record(seq=seq + number, at=at, body=body) for number, body in enumerate(bodies, start=1)]
            write_at_end(handle, size, b"".join(map(line_of, made)))
    finally:
        os.close(handle)
    if fresh:
        sync_folder(path.parent)
    return made


def read(path: Path, after: int = 0, limit: int | None = None) -> Contents:
    """Return the records numbered above `after`, at most `limit`. A line that a crash cut off is left out, no damage.

    Raises:
        FileNotFoundError: there is no such file.
    """
    records: list[Record] = []
    damaged = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            number = SEQ.match(line)
            if number and int(number.group(1)) <= after:  # told by its beginning: the rest need not be read
                continue
            try:
                record = parse(line)
            except UnreadableError:
                damaged += 1
                continue
            if record.seq > after:
                if limit is not None and len(records) == limit:
                    return Contents(tuple(records), damaged, more=True)
                records.append(record)
    return Contents(tuple(records), damaged)


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _repaired(handle: int, path: Path) -> int:
    """End the file after its last complete line; what stood behind it is kept beside. Returns the size in bytes."""
    size = os.fstat(handle).st_size
    end = end_of_last_line(handle, size)
    if end == size:
        return size
    rest = os.pread(handle, size - end, end)
    try:
        parse(rest)
    except UnreadableError:
        _keep_aside(path, rest)
        os.ftruncate(handle, end)
        os.fsync(handle)
        return end
    # the whole record was written and only its end is missing
    os.pwrite(handle, b"\n", size)
    return size + 1


def _last_seq(handle: int, size: int) -> int:
    """Return the number of the last record that can be read, 0 if there is none. Damaged lines are passed over."""
    end = size
    while end > 0:
        begin, line = line_before(handle, end)
        try:
            return parse(line).seq
        except UnreadableError:
            end = begin
    return 0


def _keep_aside(path: Path, rest: bytes) -> None:
    handle = os.open(path.with_name(path.name + BROKEN), os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
    try:
        os.write(handle, rest + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
