"""GGUF headers from files, from memory, and over HTTP without downloading the file; models of several files too."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from roost.models.gguf_header import Header, Tensor, parse_header
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher

SPLIT_NAME = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MAX_PARTS = 512
MAX_TRANSFER_BYTES = 20_000_000  # for a model, all its parts together
FIRST_BLOCK_BYTES = 1 << 18
LARGEST_BLOCK_BYTES = 1 << 22
FIX = "Get the file again, or another one."


def _ends_early() -> RoostError:
    return RoostError("This is not a usable GGUF file: it ends within its header.", fix=FIX)


class FileReader:
    """Reads a header from an open file of `size` bytes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.left = size

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        self._take(count)
        data = self.stream.read(count)
        if len(data) != count:
            raise _ends_early()
        return data

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        self._take(count)
        self.stream.seek(count, 1)

    def _take(self, count: int) -> None:
        if count > self.left:
            raise _ends_early()
        self.left -= count


class HttpReader:
    """Reads a header by range requests, in blocks that grow; long arrays of numbers are not fetched.

    `allowance` are the bytes that may still be transferred, in a list of one, shared by the parts of a model.
    """

    def __init__(self, fetcher: Fetcher, url: str, allowance: list[int]) -> None:
        self.fetcher = fetcher
        self.url = url
        self.allowance = allowance
        self.block = FIRST_BLOCK_BYTES
        self.buffer = memoryview(b"")
        self.position = 0  # of the buffer's first byte in the file
        self.size = 0

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        while len(self.buffer) < count:
            self._more(count - len(self.buffer))
        found = bytes(self.buffer[:count])
        self._advance(count)
        return found

    def skip(self, count: int) -> None:
        """Pass over `count` bytes; those that are not here yet are not fetched."""
        if self.size and self.position + count > self.size:
            raise _ends_early()
        self._advance(count)

    def _advance(self, count: int) -> None:
        self.buffer = self.buffer[count:]
        self.position += count

    def _more(self, missing: int) -> None:
        start = self.position + len(self.buffer)
        if self.size and start + missing > self.size:
            raise _ends_early()
        count = min(max(self.block, missing), self.allowance[0])
        if missing > count:
            raise RoostError(
                f"The header at {self.url} does not end within {MAX_TRANSFER_BYTES // 1_000_000} MB.",
                fix="Download the file, and name its path instead.",
            )
        data, self.size = self.fetcher.part(self.url, start, count)
        self.allowance[0] -= len(data)
        if len(data) < missing:
            raise _ends_early()
        self.block = min(2 * self.block, LARGEST_BLOCK_BYTES)
        self.buffer = memoryview(bytes(self.buffer) + data)


def header_of_file(path: Path) -> Header:
    """Read the header of a file, and those of its other parts if it is the first of several.

    Raises:
        RoostError: it cannot be read, a part is missing, or one is not a usable GGUF file.
    """

    def read(name: str) -> Header:
        part = path.with_name(name)
        try:
            with part.open("rb") as stream:
                return parse_header(FileReader(stream, part.stat().st_size))
        except OSError as error:
            raise RoostError(f"{part} cannot be read: {error.strerror}.", fix="Name a file that is there.") from None

    return _all_parts(path.name, read)


def header_of_url(url: str, fetcher: Fetcher) -> Header:
    """Read the header of a file on a server, and those of its other parts, without downloading it.

    At most MAX_TRANSFER_BYTES are transferred.

    Raises:
        RoostError: it cannot be reached, cannot send a part of a file, or the file is not a usable GGUF file.
    """
    allowance = [MAX_TRANSFER_BYTES]
    address, mark, query = url.partition("?")
    folder, _, name = address.rpartition("/")

    def read(part: str) -> Header:
        return parse_header(HttpReader(fetcher, f"{folder}/{part}{mark}{query}", allowance))

    header = _all_parts(name, read)
    return replace(header, read_bytes=MAX_TRANSFER_BYTES - allowance[0])


def part_names(name: str) -> list[str]:
    """Return the names of all parts of a model of several files; a name that is of no part stands alone.

    Raises:
        RoostError: it is a part, but not the first.
    """
    match = SPLIT_NAME.match(name)
    if match is None:
        return [name]
    stem, count = match["stem"], int(match["count"])
    if int(match["number"]) != 1:
        raise RoostError(f"{name} is not the first part of the model.", fix=f"Name {stem}-00001-of-{count:05}.gguf.")
    if not 1 <= count <= MAX_PARTS:
        raise RoostError(f"{name} claims {count} parts.", fix=FIX)
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def _all_parts(name: str, read: Callable[[str], Header]) -> Header:
    first, *others = part_names(name)
    header = read(first)
    if header.parts != 1 + len(others):
        raise RoostError(
            f"{name} is one of {header.parts} files by its header, and one of {1 + len(others)} by its name.",
            fix="Give the files the names they were published with.",
        )
    tensors: list[Tensor] = list(header.tensors)
    for part in others:
        tensors += read(part).tensors
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise RoostError(f"Parts of {name} hold the same tensor twice.", fix=FIX)
    return replace(header, tensors=tuple(tensors))
