"""GGUF files of a model's true size with random weights in its own quantisation, for measurements on real hardware.

A block's bytes are random but for its scales, which are set so that weights are about 0.02 around zero: a server
computes with them as with real ones, and its answers mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from roost.models.gguf_header import Header, Tensor, quantisation_block, type_name
from tests.support.gguf_files import header_bytes, padded, tokens

Bytes = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
TILE_BLOCKS = 1 << 14  # random blocks, repeated
# Type -> offset and value of each 16-bit scale of a block (ggml/src/ggml-common.h); what is not here has none.
SCALES: dict[str, tuple[tuple[int, float], ...]] = {
    "Q8_0": ((0, 0.0003),),
    "Q4_0": ((0, 0.004),),
    "Q4_1": ((0, 0.004), (2, -0.03)),
    "Q5_0": ((0, 0.002),),
    "Q5_1": ((0, 0.002), (2, -0.03)),
    "IQ4_NL": ((0, 0.0003),),
    "Q4_K": ((0, 0.0001), (2, 0.00075)),
    "Q5_K": ((0, 0.00005), (2, 0.000775)),
    "Q6_K": ((208, 0.000015),),
}
EXPONENT = 120  # of MXFP4, 2^(120 - 127)


def write_blocks(header: Header, path: Path, vocabulary: int, seed: int = 0) -> None:
    """Write a file with the header's tensors and a vocabulary of that many tokens.

    Raises:
        ValueError: a tensor's type is not known here.
    """
    random = np.random.default_rng(seed)
    tiles: dict[int, bytes] = {}
    with path.open("wb") as stream:
        stream.write(header_bytes(header, tokens(vocabulary)))
        for tensor in header.tensors:
            name = type_name(tensor.type)
            if name in {"F32", "F16"}:
                pieces: Iterator[bytes] = iter((_plain(tensor, name, random),))
            else:
                if tensor.type not in tiles:
                    tiles[tensor.type] = _tile(tensor.type, name, random)
                pieces = _repeated(tiles[tensor.type], tensor.bytes)
            for piece in pieces:
                stream.write(piece)
            stream.write(bytes(padded(tensor.bytes) - tensor.bytes))


def _plain(tensor: Tensor, name: str, random: np.random.Generator) -> bytes:
    kind = np.float32 if name == "F32" else np.float16
    if "norm" in tensor.name:
        return np.ones(tensor.elements, kind).tobytes()
    if "ssm_a" in tensor.name:  # decay of a state: below zero
        return np.full(tensor.elements, -1, kind).tobytes()
    return (random.standard_normal(tensor.elements) * 0.02).astype(kind).tobytes()


def _tile(number: int, name: str, random: np.random.Generator) -> bytes:
    size = quantisation_block(number)[1]
    blocks: Bytes = random.integers(0, 256, (TILE_BLOCKS, size), np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = EXPONENT
    elif name not in SCALES:
        raise ValueError(f"no scales are known for {name}")
    for offset, value in SCALES.get(name, ()):
        blocks[:, offset : offset + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
    return blocks.tobytes()


def _repeated(tile: bytes, size: int) -> Iterator[bytes]:
    for _ in range(size // len(tile)):
        yield tile
    yield tile[: size % len(tile)]
