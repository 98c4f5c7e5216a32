"""A change of a file that can be looked at first, appears whole or not at all, and can be taken back once.

The text before the change is kept beside the file as `NAME.before-setup`; an empty one stands for no file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

KEPT = ".before-setup"
FILE_MODE = 0o600  # as bootstrap.sh writes host.yaml: a value may be a secret


@dataclass(frozen=True)
class Change:
    """What a file says, and what it shall say; an empty text is no file."""

    path: Path
    before: str
    after: str

    def __bool__(self) -> bool:
        """Say whether there is anything to change."""
        return self.before != self.after

    def diff(self) -> str:
        """Return the change as a unified diff."""
        old = f"{self.path}{'' if self.before else ' (new)'}"
        new = f"{self.path}{'' if self.after else ' (gone)'}"
        texts = (self.before.splitlines(keepends=True), self.after.splitlines(keepends=True))
        lines = difflib.unified_diff(*texts, fromfile=old, tofile=new, n=2)
        return "".join(lines)


def read_text(path: Path) -> str:
    """Return a file's text, empty if there is none.

    Raises:
        RoostError: it may not be read.
    """
    with _explained(path, "read"):
        return path.read_text() if path.exists() else ""


def apply(change: Change) -> None:
    """Write the new text, and keep the one before.

    Raises:
        RoostError: the file was changed meanwhile, or may not be written; then nothing is.
    """
    if read_text(change.path) != change.before:
        raise RoostError(f"{change.path} was changed meanwhile; it stays as it is.", fix="Run it again.")
    with _explained(change.path, "written"):
        change.path.parent.mkdir(parents=True, exist_ok=True)
        # the kept text first: whatever happens in between, the file is then as it was, and so is what is kept of it
        write_atomic(kept_path(change.path), change.before, mode=FILE_MODE)
        _write(change.path, change.after)


def kept_path(path: Path) -> Path:
    """Return where the text before the last change is kept."""
    return path.with_name(path.name + KEPT)


def undo_change(path: Path) -> Change:
    """Return what would take back the last change.

    Raises:
        RoostError: nothing is kept.
    """
    if not kept_path(path).exists():
        raise RoostError(
            f"There is nothing to take back: no earlier {path} is kept.", fix="Change it with `roost setup`."
        )
    return Change(path, read_text(path), read_text(kept_path(path)))


def undo(change: Change) -> None:
    """Put the kept text back; it is kept no longer then.

    Raises:
        RoostError: the file may not be written.
    """
    with _explained(change.path, "written"):
        _write(change.path, change.after)
        kept_path(change.path).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    if text:
        write_atomic(path, text, mode=FILE_MODE)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RoostError(
            f"{path} cannot be {what}: {error.strerror}.", fix="Run it as root (sudo roost setup).", exit_code=4
        ) from None
