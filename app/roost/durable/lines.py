"""Files of lines that only grow: where the last whole line ends, and adding behind it, wholly or not at all.

Who appends holds a lock of its own; these are the steps under it.
"""

from __future__ import annotations

import os

BLOCK_BYTES = 1 << 16


def end_of_last_line(handle: int, size: int) -> int:
    """Return the offset behind the last line feed among the first `size` bytes, 0 if there is none."""
    end = size
    while end > 0:
        begin = max(0, end - BLOCK_BYTES)
        found = os.pread(handle, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def line_before(handle: int, end: int) -> tuple[int, bytes]:
    """Return where the line that ends at `end` (behind its line feed) begins, and the line without its end."""
    begin = end_of_last_line(handle, end - 1)
    return begin, os.pread(handle, end - 1 - begin, begin)


def write_at_end(handle: int, size: int, data: bytes) -> None:
    """Write behind the first `size` bytes and bring it to the disk.

    Raises:
        OSError: it failed; the file is as it was.
    """
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(handle, data[done:], size + done)
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise
