"""Whole texts of conversations that were removed: those that no other conversation of the key refers to go, too.

A text is referred to where its reference stands (in what was recorded of a shortened one), and where it stands itself:
it would be shortened to the same reference again. What no record shows is in use for as long as a turn may last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from roost.agent.sessions.records import MessageBody, Record, ToolResultBody
from roost.agent.sessions.store import SessionNotFoundError, SessionStore
from roost.context.blobs import DIGITS, PREFIX, BlobStore, reference_of

IN_USE_S = 3600.0
ANYWHERE = re.compile(rf"{PREFIX}[0-9a-f]{{{DIGITS}}}")


def references(records: Iterable[Record]) -> set[str]:
    """Return the references of all texts that records show, or name."""
    found: set[str] = set()
    for record in records:
        found.update(ANYWHERE.findall(record.model_dump_json()))
        body = record.body
        text = body.text if isinstance(body, MessageBody) else ""
        text = body.result.text if isinstance(body, ToolResultBody) else text
        if text:
            found.add(reference_of(text.encode("utf-8", "surrogatepass")))
    return found


def sweep(store: SessionStore, blobs: BlobStore, owner: str, removed: set[str], *, quiet: bool) -> list[str]:
    """Remove texts of a key that no conversation refers to; return their references.

    Those in `removed` (of the conversation that just went) go at once where `quiet` says that nothing is under way in
    another one; all others when nobody has used them for `IN_USE_S` seconds.

    Raises:
        OSError: the disk failed.
    """
    kept = blobs.kept(owner)
    if not kept:
        return []
    needed: set[str] = set()
    for archived in (False, True):
        for info in store.sessions(owner, archived=archived):
            try:
                needed |= references(store.read(owner, info.id).records)
            except (SessionNotFoundError, FileNotFoundError):  # removed meanwhile
                continue
    gone = [
        reference for reference, age in kept.items()
        if reference not in needed and (age > IN_USE_S or (quiet and reference in removed))
    ]  # fmt: skip
    for reference in gone:
        blobs.remove(owner, reference)
    return gone
