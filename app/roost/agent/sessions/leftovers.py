"""Whole texts of conversations that were removed: those that no other conversation of the key refers to go, too.

A text is referred to where its reference stands (in what was recorded of a shortened one), and where it stands itself:
it would be shortened to the same reference again. What no record shows is in use for as long as a turn may last, and
so is what was put or read lately: nothing goes before it was of no use for `IN_USE_S`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from roost.agent.sessions.records import MessageBody, ToolResultBody, parse
from roost.agent.sessions.store import Seen, SessionStore
from roost.context.blobs import DIGITS, PREFIX, BlobStore, reference_of

IN_USE_S = 3600.0
ANYWHERE = re.compile(rf"{PREFIX}[0-9a-f]{{{DIGITS}}}".encode())


@dataclass(frozen=True)
class Swept:
    """What a sweep did: the references that it removed, and in how many seconds others may go, None if there are none.

    Which others: those that nothing refers to, but that were of use within `IN_USE_S`.
    """

    gone: tuple[str, ...] = ()
    again_s: float | None = None


def references(lines: Iterable[bytes]) -> set[str]:
    """Return the references of all texts that the lines of conversations show, or name.

    Raises:
        UnreadableError: a whole line is damaged, or of a later release: nobody knows what it shows.
    """
    found: set[str] = set()
    for line in lines:
        found.update(name.decode() for name in ANYWHERE.findall(line))
        if not line.endswith(b"\n"):  # a crash cut it off: it is no record
            continue
        body = parse(line).body
        text = body.text if isinstance(body, MessageBody) else ""
        text = body.result.text if isinstance(body, ToolResultBody) else text
        if text:
            found.add(reference_of(text.encode("utf-8", "surrogatepass")))
    return found


def sweep(store: SessionStore, blobs: BlobStore, owner: str) -> Swept:
    """Remove texts of a key that no conversation refers to, and that nobody used for `IN_USE_S` seconds.

    Conversations may change while they are read. So nothing is removed before all changes are held up and what changed
    since was read again; and a text that is put meanwhile is looked at again by `BlobStore.remove`.

    Raises:
        OSError: the disk failed. Nothing is removed where a conversation cannot be read.
        UnreadableError: a line of a conversation cannot be read: nothing is removed.
    """
    if not blobs.kept(owner):
        return Swept()
    seen: Seen = {}
    needed = references(store.lines(owner, seen))
    with store.at_rest():
        needed |= references(store.lines(owner, seen))
        unneeded = {name: age for name, age in blobs.kept(owner).items() if name not in needed}
        old = [name for name, age in unneeded.items() if age > IN_USE_S]
        gone = tuple(name for name in old if blobs.remove(owner, name, IN_USE_S))
    ages = [min(max(age, 0.0), IN_USE_S) for name, age in unneeded.items() if name not in gone]
    return Swept(gone, IN_USE_S - max(ages) + 1.0 if ages else None)
