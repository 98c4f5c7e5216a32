"""Secrets that lie in files and may be replaced while the service runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger(__name__)


class WatchedFile(Generic[T]):
    """A small file, parsed again whenever it changes; while it cannot be read the last good value stays."""

    def __init__(self, path: Path, parse: Callable[[str], T], missing: T) -> None:
        self._path = path
        self._where = os.fspath(path)
        self._parse = parse
        self._value = missing
        self._seen: tuple[int, int, int] | None = None
        self._complained = ""

    def value(self) -> T:
        """Return the parsed content; costs one stat while the file is unchanged."""
        try:
            stat = os.stat(self._where)  # noqa: PTH116  # on every request's path: a Path costs thrice as much
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._value = self._parse(self._path.read_text())
                self._seen = seen
                self._complained = ""
        except (OSError, ValueError) as error:
            if str(error) != self._complained:
                self._complained = str(error)
                log.warning("secret_file_unreadable", path=str(self._path), error=self._complained)
        return self._value
