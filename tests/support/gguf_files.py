"""GGUF files for tests: sparse ones with a real model's shape, and tiny ones with random weights for a server."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from roost.models.gguf_header import Header, Tensor, Value

Writable = Value | Sequence[str] | Sequence[float] | Sequence[int]
ARRAY, STRING, BOOL, FLOAT, UNSIGNED = 9, 8, 7, 6, 4


def text(value: str) -> bytes:
    """Return a string as GGUF writes it."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value_bytes(value: Writable) -> bytes:
    """Return a value with its type as GGUF writes it."""
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UNSIGNED, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + text(value)
    assert isinstance(value, list | tuple)
    first = value[0]
    kind = STRING if isinstance(first, str) else BOOL if isinstance(first, bool) else FLOAT
    kind = 5 if isinstance(first, int) and not isinstance(first, bool) else kind
    layout = {BOOL: "<?", FLOAT: "<f", 5: "<i"}.get(kind, "")
    items = b"".join(text(str(item)) if kind == STRING else struct.pack(layout, item) for item in value)
    return struct.pack("<IIQ", ARRAY, kind, len(value)) + items


def header_bytes(header: Header, extra: Mapping[str, Writable]) -> bytes:
    """Return a file's bytes up to where the tensors' content begins, padded."""
    metadata: dict[str, Writable] = {**header.metadata, **extra}
    data = b"GGUF" + struct.pack("<IQQ", 3, len(header.tensors), len(metadata))
    for key, value in metadata.items():
        data += text(key) + value_bytes(value)
    offset = 0
    for tensor in header.tensors:
        data += text(tensor.name) + struct.pack("<I", len(tensor.shape))
        data += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape) + struct.pack("<IQ", tensor.type, offset)
        offset += padded(tensor.bytes)
    return data + bytes(padded(len(data)) - len(data))


def padded(size: int) -> int:
    """Return where what follows so many bytes begins."""
    return -(-size // 32) * 32


def write_sparse(header: Header, path: Path) -> None:
    """Write a file with the header's tensors, all zero and not on the disk; without a vocabulary."""
    data = header_bytes(header, {"tokenizer.ggml.model": "none"})
    with path.open("wb") as stream:
        stream.write(data)
        stream.truncate(len(data) + sum(padded(tensor.bytes) for tensor in header.tensors))


def tokens(count: int) -> dict[str, Writable]:
    """Return the metadata of a vocabulary of single bytes and filling, as the smallest models of Llama have it."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [f"w{index}" for index in range(count - len(names))]
    kinds = [2, 3, 3, *([6] * 256), *([1] * (count - 259))]
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": names[:count],
        "tokenizer.ggml.scores": [0.0] * count, "tokenizer.ggml.token_type": kinds[:count],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
    }  # fmt: skip


def write_random(header: Header, path: Path, vocabulary: int, seed: int = 0) -> None:
    """Write a file with random 32-bit weights and a vocabulary; every tensor of the header must be F32."""
    random = np.random.default_rng(seed)
    with path.open("wb") as stream:
        stream.write(header_bytes(header, tokens(vocabulary)))
        for tensor in header.tensors:
            stream.write(_content(tensor, random))
            stream.write(bytes(padded(tensor.bytes) - tensor.bytes))


def _content(tensor: Tensor, random: np.random.Generator) -> bytes:
    assert tensor.type == 0, f"{tensor.name} is not F32"
    if "norm" in tensor.name:
        return np.ones(tensor.elements, np.float32).tobytes()
    return (random.standard_normal(tensor.elements) * 0.02).astype(np.float32).tobytes()
