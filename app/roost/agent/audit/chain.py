"""The chain as data: an entry carries the hash of the one before it, and its own over all that it says.

`hash = SHA-256(line without its hash)`, where the line has `previous`: the construction of a linked time-stamp
(Haber and Stornetta, How to time-stamp a digital document, 1991). Each entry is one line of JSON, written in one form
only (keys in order, no blanks), and a line that is not byte for byte in that form is a broken one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, JsonValue

START = "0" * 64
"""What the first entry names as the hash before it."""


class Entry(BaseModel):
    """One action. `at` is ISO 8601, UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int = Field(ge=1)
    at: str
    owner: str
    """Name of the key on whose behalf it was done."""
    action: str
    """What was done: `tool.call`, `tool.result`, `session.purge` ..."""
    session: str = ""
    detail: dict[str, JsonValue] = {}
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Head:
    """The end of a chain: the number of its last entry and that entry's hash."""

    seq: int = 0
    hash: str = START


@dataclass(frozen=True)
class Fault:
    """Where a chain is broken: the line in its file, from 1, and what is wrong there."""

    line: int
    problem: str


def sealed(entry: Entry) -> tuple[bytes, str]:
    """Return an entry as its line, with its end, and its hash."""
    said = entry.model_dump(mode="json")
    digest = _digest(said)
    return _canonical({**said, "hash": digest}) + b"\n", digest


def opened(line: bytes) -> tuple[Entry, str]:
    """Return the entry of a line without its end, and its hash.

    Raises:
        ValueError: it is no entry, is written in another form, or its hash is not that of what it says.
    """
    document = json.loads(line)
    if not isinstance(document, dict) or _canonical(document) != line:
        raise ValueError("is not as it was written")
    digest = document.pop("hash", None)
    entry = Entry.model_validate(document)
    if digest != _digest(entry.model_dump(mode="json")):
        raise ValueError("does not have the hash of what it says")
    return entry, digest


def follow(lines: Iterable[bytes], head: Head) -> tuple[Head, Fault | None]:
    """Go along the lines of a file (with their ends) from `head`; return how far they hold, and what is wrong then."""
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            return head, Fault(number, "was cut off")
        try:
            entry, digest = opened(line[:-1])
        except ValueError as error:
            said = str(error) if str(error).startswith(("is ", "does ")) else "is no entry"
            return head, Fault(number, said)
        if (entry.seq, entry.previous) != (head.seq + 1, head.hash):
            return head, Fault(number, f"does not follow entry {head.seq}")
        head = Head(entry.seq, digest)
    return head, None


def _canonical(document: dict[str, JsonValue]) -> bytes:
    # ASCII only: a byte that is no UTF-8, or another form of the same letter, cannot hide in a line
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _digest(said: dict[str, JsonValue]) -> str:
    return hashlib.sha256(_canonical(said)).hexdigest()
