"""A list in a file that several programs of one user change."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.ops.errors import RoostError


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a file for one program at a time, by a lock beside it; its folder is made.

    Raises:
        RoostError: the folder cannot be made, or written to.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RoostError(
            f"{file} cannot be written: {error.strerror}.",
            fix=f"Make {file.parent} a folder of yours with room in it, or name another place by XDG_CONFIG_HOME.",
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
