"""Puts back what calls changed: content-addressed copies from before, and what stood there after.

A file is put back only while it is as the call left it: what the user changed since is named and left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from roost.agent.tools.beneath import Beneath
from roost.agent.tools.errors import RefusedError, ToolError
from roost.ops.files import write_all, write_atomic

State = tuple[bytes, int] | None
SNAPSHOT_FILES = 20_000
SNAPSHOT_BYTES = 256 << 20


class Change(BaseModel):
    """One file of a call: digests of its content before and after (None: it was not there), mode before."""

    model_config = ConfigDict(frozen=True)

    path: str
    before: str | None
    mode: int | None
    after: str | None


class Changed(BaseModel):
    """What one call changed."""

    model_config = ConfigDict(frozen=True)

    call: str
    session: str
    root: str
    changes: tuple[Change, ...]
    undone: bool = False


@dataclass(frozen=True)
class Undone:
    """What was put back, what was left alone because it is not as the call left it, and what can be tried again.

    `failed` with the reason; `waiting`: how many were not come to, because the undo was ended.
    """

    put_back: tuple[str, ...]
    left: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()
    waiting: int = 0


@dataclass(frozen=True)
class Place:
    """Where a call works: the workspace's files, what can be put back, and whose call it is."""

    root: Path
    files: Beneath
    undo: UndoStore
    call: str
    session: str


class UndoStore:
    """Copies and accounts below one folder."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._log = folder / "changes.jsonl"
        self._blobs.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def changing(self, place: Place, paths: Iterable[str]) -> Iterator[None]:
        """Keep what stands at `paths`; note afterwards what the body changed there, also if it failed half-way."""
        before = {path: place.files.state(path) for path in paths}
        for state in before.values():
            self.keep(state)
        try:
            yield
        finally:
            self.note(place, before, {path: place.files.state(path) for path in before})

    def keep(self, state: State) -> None:
        """Keep a content."""
        if state is None:
            return
        blob = self._blobs / _digest(state[0])
        if not blob.exists():
            write_atomic(blob, state[0], mode=0o600)

    def note(self, place: Place, before: dict[str, State], after: dict[str, State]) -> tuple[str, ...]:
        """Note what a call changed; return the paths."""
        changes = tuple(
            Change(path=path, before=_maybe(old), mode=old[1] if old else None, after=_maybe(after.get(path)))
            for path, old in sorted(before.items())
            if old != after.get(path)
        )
        if changes:
            self._append(Changed(call=place.call, session=place.session, root=str(place.root), changes=changes))
        return tuple(change.path for change in changes)

    def undo(self, place: Place) -> Undone:
        """Put back what the session's last call that changed something here changed.

        Raises:
            ToolError: there is nothing to undo.
        """
        last = next((c for c in reversed(self._all()) if _is_of(c, place) and not c.undone), None)
        if last is None:
            raise ToolError("Nothing of this conversation can be undone here.")
        put_back: list[str] = []
        left: list[str] = []
        failed: dict[str, str] = {}
        open_ = list(last.changes)
        try:
            while open_ and not place.files.stopped.is_set():
                change = open_[0]
                try:
                    (put_back if self._put_back(place.files, change) else left).append(change.path)
                except (RefusedError, ToolError, OSError) as error:
                    failed[change.path] = _reason(error)
                open_.pop(0)
        finally:
            again = tuple(change for change in last.changes if change.path in failed) + tuple(open_)
            self._append(last.model_copy(update={"changes": again, "undone": not again}))
        return Undone(tuple(put_back), tuple(left), tuple(failed.items()), len(open_))

    def _put_back(self, files: Beneath, change: Change) -> bool:
        """Put a file back; False where it is not as the call left it."""
        if _maybe(files.state(change.path)) != change.after:
            return False
        if change.before is None:
            files.remove(change.path)
        else:
            files.write(change.path, (self._blobs / change.before).read_bytes(), change.mode)
        return True

    def _append(self, changed: Changed) -> None:
        line = f"{changed.model_dump_json()}\n".encode()
        handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            write_all(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _all(self) -> list[Changed]:
        """Return each call's latest account, in the order in which they were made."""
        found: dict[str, Changed] = {}
        if self._log.exists():
            for line in self._log.read_text().splitlines():
                try:
                    changed = Changed.model_validate(json.loads(line))
                except ValueError:
                    continue  # the last line of a crash
                found[changed.call] = changed
        return list(found.values())


def snapshot(files: Beneath, store: UndoStore) -> dict[str, State] | None:
    """Keep all files of a workspace before a program runs in it; None if they are too many to keep."""
    states: dict[str, State] = {}
    total = count = 0
    for entry in files.walk(".", SNAPSHOT_FILES + 1):
        count += 1
        if entry.kind != "file" or ".git" in entry.path.split("/"):
            continue
        total += entry.size
        if count > SNAPSHOT_FILES or total > SNAPSHOT_BYTES:
            return None
        try:
            state = files.state(entry.path)
        except (ToolError, RefusedError):
            continue  # not ours to read
        store.keep(state)
        states[entry.path] = state
    return states


def _is_of(changed: Changed, place: Place) -> bool:
    return changed.session == place.session and changed.root == str(place.root)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _maybe(state: State) -> str | None:
    return None if state is None else _digest(state[0])
