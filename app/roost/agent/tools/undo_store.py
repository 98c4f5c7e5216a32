"""Puts back what calls changed: content-addressed copies from before, and what stood there after.

A file is put back only while it is as the call left it: what the user changed since is named and left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from roost.agent.tools.beneath import Beneath
from roost.agent.tools.errors import RefusedError, ToolError
from roost.ops.files import write_all, write_atomic

State = tuple[str, int] | None
"""The digest of a file's content, and its mode; None where there is none."""
SNAPSHOT_FILES = 20_000
SNAPSHOT_BYTES = 256 << 20
KEPT_ACCOUNTS = 1_000
KEPT_BYTES = 1 << 30
KEPT_S = 30 * 86_400.0
SPARED_S = 3_600.0
"""A copy of so long ago belongs to no call that still runs."""
PRUNED_EVERY_S = 600.0


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
    at: float = 0.0
    """When, in seconds since 1970."""


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
    allowed: bool = False
    """Whether the user was asked about the call and allowed it."""


class UndoStore:
    """Copies and accounts below one folder."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._log = folder / "changes.jsonl"
        self._blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.RLock()
        self._pruned = 0.0

    @contextmanager
    def changing(self, place: Place, paths: Iterable[str]) -> Iterator[None]:
        """Keep what stands at `paths`; note afterwards what the body changed there, also if it failed half-way."""
        before = {path: self.state(place.files, path, keep=True) for path in paths}
        try:
            yield
        finally:
            self.note(place, before, {path: self.state(place.files, path) for path in before})

    def state(self, files: Beneath, path: str, *, keep: bool = False) -> State:
        """Return how a file is; its content is kept if wanted.

        Raises:
            ToolError: it cannot be read, or is too large.
        """
        found = files.state(path)
        if found is None:
            return None
        data, mode = found
        digest = hashlib.sha256(data).hexdigest()
        if keep:
            blob = self._blobs / digest
            try:
                os.utime(blob)
            except FileNotFoundError:
                write_atomic(blob, data, mode=0o600)
        return digest, mode

    def note(self, place: Place, before: dict[str, State], after: dict[str, State]) -> tuple[str, ...]:
        """Note what a call changed; return the paths.

        Raises:
            ToolError: the disk does not take it.
        """
        changes = tuple(
            Change(path=path, before=_content(old), mode=old[1] if old else None, after=_content(after.get(path)))
            for path, old in sorted(before.items())
            if old != after.get(path)
        )
        if changes:
            account = Changed(
                call=place.call, session=place.session, root=str(place.root), changes=changes, at=time.time()
            )
            try:
                self._append(account)
            except OSError as error:
                text = f"It was done and cannot be undone: the worker's disk took no account of it ({error.strerror})."
                raise ToolError(text, tuple(change.path for change in changes)) from error
        if time.monotonic() > self._pruned + PRUNED_EVERY_S:
            with suppress(OSError):
                self.prune(time.time())
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
        if _content(self.state(files, change.path)) != change.after:
            return False
        if change.before is None:
            files.remove(change.path)
        else:
            files.write(change.path, (self._blobs / change.before).read_bytes(), change.mode)
        return True

    def _append(self, changed: Changed) -> None:
        with self._lock:
            self._write(_line(changed))

    def _write(self, line: bytes) -> None:
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

    def prune(self, now: float) -> None:
        """Forget accounts that are undone, old, too many or too large, and copies that no account needs.

        `now`: seconds since 1970. Copies that a call may have made that still runs stay.
        """
        with self._lock:
            self._pruned = time.monotonic()
            found = self._all()
            kept: list[Changed] = []
            sizes: dict[str, int] = {}
            for account in reversed(found):
                wanted = {change.before for change in account.changes if change.before} - sizes.keys()
                more = {digest: _size(self._blobs / digest) for digest in wanted}
                if len(kept) >= KEPT_ACCOUNTS or sum(sizes.values()) + sum(more.values()) > KEPT_BYTES:
                    break
                if not account.undone and account.at >= now - KEPT_S:
                    kept.append(account)
                    sizes |= more
            if len(kept) < len(found):
                write_atomic(self._log, b"".join(map(_line, reversed(kept))), mode=0o600)
            for blob in self._blobs.iterdir():
                with suppress(FileNotFoundError):
                    if blob.name not in sizes and blob.stat().st_mtime < now - SPARED_S:
                        blob.unlink()


def snapshot(files: Beneath, store: UndoStore, *, keep: bool = True) -> dict[str, State] | None:
    """Return how all files of a workspace are, their contents kept if wanted; None if they are too many."""
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
            states[entry.path] = store.state(files, entry.path, keep=keep)
        except (ToolError, RefusedError):
            continue  # not ours to read
    return states


def _is_of(changed: Changed, place: Place) -> bool:
    return changed.session == place.session and changed.root == str(place.root)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _content(state: State) -> str | None:
    return None if state is None else state[0]


def _line(changed: Changed) -> bytes:
    """Return an account as a line: ASCII, in which a name that is not UTF-8 comes back as it was."""
    return f"{json.dumps(changed.model_dump())}\n".encode()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
