"""The header of a GGUF file, read as a stream: metadata and the list of tensors, never their content.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package's own reader maps the whole
file, so it cannot read from a network; its table of quantisations is used here.

Headers come from strangers: what a header claims is checked against bounds before anything is kept, and long arrays
(the tokenizer's) are passed over.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from roost.ops.errors import RoostError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_NAME_BYTES = 1 << 16  # the specification's limit for keys
MAX_STRING_BYTES = 1 << 24  # a chat template is far smaller
KEPT_STRING_BYTES = 1 << 16
KEPT_ITEMS = 4096  # an array by layer fits; a vocabulary does not
MAX_KEPT_BYTES = 1 << 25  # of all that is kept of one header
MAX_HEADER_BYTES = 1 << 26  # four times that of a vocabulary of 260,000
MAX_DIMENSIONS = 4
MAX_NESTING = 2
MAX_ELEMENTS = 1 << 50
DEFAULT_ALIGNMENT = 32
STRING, ARRAY = 8, 9
ARCHITECTURE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it is shown on terminals and written into files
# Scalar types by their number in the specification: size in bytes and how `struct` unpacks them.
SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Skipped:
    """A value that was passed over: an array with many items, or a long string; only the number of items is known."""

    count: int


Value = Scalar | tuple[Scalar, ...] | Skipped


class Reader(Protocol):
    """A stream of bytes from the file's beginning."""

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            RoostError: the file ends before, or cannot be read.
        """
        ...

    def skip(self, count: int) -> None:
        """Pass over `count` bytes; where they need not be fetched, they are not."""
        ...


@dataclass(frozen=True)
class Tensor:
    """One tensor: name, elements by dimension (the fastest first), type by its number in ggml."""

    name: str
    shape: tuple[int, ...]
    type: int

    @property
    def elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Return the size of its content in bytes.

        Raises:
            RoostError: this version does not know the type.
        """
        block, size = quantisation_block(self.type)
        return self.elements // block * size


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself."""

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    version: int = 3
    alignment: int = DEFAULT_ALIGNMENT
    read_bytes: int = field(default=0, compare=False)  # transferred to read it, where that is known

    @property
    def architecture(self) -> str:
        """Return `general.architecture`; empty if there is none, or what is there is no name."""
        value = self.metadata.get("general.architecture", "")
        return value if isinstance(value, str) and ARCHITECTURE_NAME.fullmatch(value) else ""

    @property
    def parts(self) -> int:
        """Return of how many files the model consists."""
        value = self.metadata.get("split.count", 1)
        return value if isinstance(value, int) and value > 0 else 1


def quantisation_block(ggml_type: int) -> tuple[int, int]:
    """Return elements and bytes of one block of a tensor type.

    Raises:
        RoostError: this version does not know the type.
    """
    try:
        return _blocks()[ggml_type]
    except KeyError:
        raise _bad(f"it has a tensor of the unknown type {ggml_type}", "Use a newer version of Roost.") from None


def type_number(name: str) -> int:
    """Return the number in ggml of a tensor type, such as `q4_K` or `F16`.

    Raises:
        RoostError: there is none of that name.
    """
    try:
        return _numbers()[name.lower()]
    except KeyError:
        raise RoostError(f"There is no tensor type {name!r}.") from None


@cache
def _numbers() -> dict[str, int]:
    from gguf import GGMLQuantizationType  # takes long: it brings numpy

    return {known.name.lower(): int(known) for known in GGMLQuantizationType}


def type_name(number: int) -> str:
    """Return a tensor type's name in ggml, such as `Q4_K`, by its number.

    Raises:
        RoostError: this version does not know the type.
    """
    from gguf import GGMLQuantizationType  # takes long: it brings numpy

    try:
        return GGMLQuantizationType(number).name
    except ValueError:
        raise _bad(f"it has a tensor of the unknown type {number}", "Use a newer version of Roost.") from None


@cache
def _blocks() -> Mapping[int, tuple[int, int]]:
    from gguf import GGML_QUANT_SIZES  # takes long: it brings numpy

    return {int(known): sizes for known, sizes in GGML_QUANT_SIZES.items()}


def _bad(what: str, fix: str = "Get the file again, or another one.") -> RoostError:
    return RoostError(f"This is not a usable GGUF file: {what}.", fix=fix)


def parse_header(reader: Reader) -> Header:
    """Read a header from the beginning of a file.

    Raises:
        RoostError: it is no GGUF file of a known version, ends too early, or claims what cannot be.
    """
    return _Parser(reader).header()


class _Bounded:
    """Counts what is read of a header, and ends it where no real header goes on."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.left = MAX_HEADER_BYTES

    def read(self, count: int) -> bytes:
        self.take(count)
        return self.reader.read(count)

    def skip(self, count: int) -> None:
        self.take(count)
        self.reader.skip(count)

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _bad(f"its header has more than {MAX_HEADER_BYTES >> 20} MiB")


class _Parser:
    def __init__(self, reader: Reader) -> None:
        self.reader = _Bounded(reader)
        self.kept = 0

    def header(self) -> Header:
        if (magic := self.reader.read(4)) != MAGIC:
            raise _bad(f"it begins with {magic!r}")
        version = self.number("<I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            raise _bad("it is big-endian" if swapped else f"version {version} is unknown")
        tensor_count, key_count = self.number("<Q"), self.number("<Q")
        if key_count > MAX_KEYS or tensor_count > MAX_TENSORS:
            raise _bad(f"it claims {key_count} metadata entries and {tensor_count} tensors")
        metadata: dict[str, Value] = {}
        for _ in range(key_count):
            key = self.text(MAX_NAME_BYTES)
            metadata[key] = self.value(self.number("<I"))
        tensors = tuple(self.tensor() for _ in range(tensor_count))
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise _bad("two tensors have the same name")
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment > 1 << 20 or alignment & (alignment - 1):
            raise _bad(f"its alignment is {alignment!r}")
        return Header(metadata, tensors, version, alignment)

    def number(self, layout: str) -> int:
        return int(struct.unpack(layout, self.reader.read(struct.calcsize(layout)))[0])

    def keep(self, count: int) -> None:
        self.kept += count
        if self.kept > MAX_KEPT_BYTES:
            raise _bad("its header holds too much")

    def text(self, limit: int) -> str:
        length = self.number("<Q")
        if length > limit:
            raise _bad(f"it claims a text of {length} bytes")
        self.keep(length + 64)
        return self.reader.read(length).decode(errors="replace")

    def value(self, kind: int) -> Value:
        if kind == STRING:
            length = self.number("<Q")
            if length > MAX_STRING_BYTES:
                raise _bad(f"it claims a text of {length} bytes")
            if length > KEPT_STRING_BYTES:
                self.reader.skip(length)
                return Skipped(length)
            self.keep(length + 64)
            return self.reader.read(length).decode(errors="replace")
        if kind == ARRAY:
            return self.array(1)
        return self.scalar(kind)

    def scalar(self, kind: int) -> Scalar:
        layout = SCALARS.get(kind)
        if layout is None:
            raise _bad(f"it has a value of the unknown type {kind}")
        found: Scalar = struct.unpack(layout, self.reader.read(struct.calcsize(layout)))[0]
        return found

    def array(self, depth: int) -> Value:
        kind, count = self.number("<I"), self.number("<Q")
        if kind in SCALARS:
            size = struct.calcsize(SCALARS[kind])
            if count > KEPT_ITEMS:
                self.reader.skip(count * size)
                return Skipped(count)
            self.keep(count * 32)
            return tuple(item for (item,) in struct.iter_unpack(SCALARS[kind], self.reader.read(count * size)))
        if kind == STRING:
            read, skip = self.reader.read, self.reader.skip  # a vocabulary has some 100,000 of them
            for _ in range(count):  # bounded by the file's end: each takes at least eight bytes
                length = int.from_bytes(read(8), "little")
                if length > MAX_STRING_BYTES:
                    raise _bad(f"it claims a text of {length} bytes")
                if length:
                    skip(length)
            return Skipped(count)
        if kind == ARRAY and depth < MAX_NESTING:
            for _ in range(count):
                self.array(depth + 1)
            return Skipped(count)
        raise _bad(f"it has an array of the type {kind}")

    def tensor(self) -> Tensor:
        name = self.text(MAX_NAME_BYTES)
        dimensions = self.number("<I")
        if dimensions > MAX_DIMENSIONS:
            raise _bad(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))
        kind = self.number("<I")
        self.reader.skip(8)  # where its content lies
        tensor = Tensor(name, shape, kind)
        block, _ = quantisation_block(kind)
        if any(size > MAX_ELEMENTS for size in shape) or tensor.elements > MAX_ELEMENTS:
            raise _bad(f"the tensor {name!r} claims {tensor.elements} elements")
        if shape and shape[0] % block:
            raise _bad(f"the rows of the tensor {name!r} are no whole blocks")
        return tensor
