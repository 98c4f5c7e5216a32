"""A file to which finished requests are appended before their answer ends, so that a killed process loses none.

A line is the CRC-32 of its text in hex, a blank, and the text. `write` hands it to the kernel, which keeps it whatever
happens to the process; only `sync` makes it safe against a power cut.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

PATTERN = "usage-*.spool"


def path_of(folder: Path, number: int) -> Path:
    """Return the path of the n-th spool."""
    return folder / f"usage-{number:09d}.spool"


def numbers(folder: Path) -> list[int]:
    """Return the numbers of all spools in a folder."""
    return sorted(int(path.stem.partition("-")[2]) for path in folder.glob(PATTERN) if path.stem[6:].isdigit())


class Spool:
    """One file, open for appending."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.path = path_of(folder, number)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._file).st_size

    def append(self, text: bytes) -> None:
        """Write a line whole, or leave the file as it was.

        Raises:
            OSError: the disk is full, or fails.
        """
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            written = os.write(self._file, line)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        if written != len(line):
            os.ftruncate(self._file, self.size)
            raise OSError(errno.ENOSPC, "the disk is full", str(self.path))
        self.size += written

    def sync(self) -> None:
        """Make what was written safe against a power cut."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file; who appends from now on gets an error, whatever has its number then."""
        handle, self._file = self._file, -1
        os.close(handle)

    def remove(self) -> None:
        """Close the file and delete it."""
        self.close()
        self.path.unlink(missing_ok=True)


def read(path: Path, start: int = 0) -> Iterator[bytes]:
    """Yield the texts of the lines that are whole, from a position on."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text):
                yield text
