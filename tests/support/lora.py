"""A LoRA adapter with random weights for the smallest model: it teaches nothing, but it shows."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

RANK = 4
ALPHA = 8.0


def write_adapter(path: Path, model: Path, strength: float = 0.5) -> Path:
    """Write an adapter to `path` that changes the queries of every layer of `model`; the same each time.

    Layout as of llama.cpp's convert_lora_to_gguf.py: `NAME.lora_a` of RANK rows, `NAME.lora_b` of RANK columns.
    """
    chance = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    for tensor in gguf.GGUFReader(model).tensors:
        if tensor.name.endswith("attn_q.weight"):
            inputs, outputs = (int(size) for size in tensor.shape)
            down = chance.normal(0, strength, (RANK, inputs)).astype(np.float32)
            up = chance.normal(0, strength, (outputs, RANK)).astype(np.float32)
            writer.add_tensor(f"{tensor.name}.lora_a", down)
            writer.add_tensor(f"{tensor.name}.lora_b", up)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
