"""Which type each tensor gets when a model is quantised: `llama_tensor_get_type` of llama.cpp's src/llama-quant.cpp."""

from __future__ import annotations

import re
from collections import Counter

from roost.models.estimate.hyperparameters import Hyperparameters
from roost.models.gguf_header import quantisation_block, type_number
from roost.ops.errors import RoostError

LAYER = re.compile(r"^blk\.(\d+)\.")
# Never quantised: one dimension, norms, and these (`tensor_allows_quantization`).
KEPT = ("_norm.weight", "ffn_gate_inp", "altup", "laurel", "per_layer_model_proj", "position_embd", "token_types",
        "ssm_conv1d", "shortconv.conv.weight")  # fmt: skip
PLAIN = {"F32": "F32", "F16": "F16", "BF16": "BF16", "Q8_0": "Q8_0", "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0",
         "Q5_1": "Q5_1", "Q6_K": "Q6_K", "IQ4_NL": "IQ4_NL", "IQ4_XS": "IQ4_XS", "MXFP4": "MXFP4",
         "MXFP4_MOE": "MXFP4"}  # fmt: skip
MIXED = {"Q2_K": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K",
         "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K"}  # fmt: skip
# Where rows are no whole blocks of the wanted type, the next one with blocks of 32 takes its place.
FALLBACK = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


class Mix:
    """The types of one model's tensors; ask for them in the order in which they are in the file."""

    def __init__(self, quantisation: str, shape: Hyperparameters, *, tied: bool) -> None:
        self.name = quantisation.upper().removeprefix("UD-").removesuffix("_XL")
        if self.name in {"Q4_K", "Q5_K", "Q3_K"}:
            self.name += "_M"
        base = {**PLAIN, **MIXED}.get(self.name)
        if base is None:
            raise RoostError(
                f"The quantisation {quantisation!r} is not known.",
                fix=f"Use one of: {', '.join([*PLAIN, *MIXED])}; or give a file to read its header from.",
            )
        self.base = base
        self.shape = shape
        self.tied = tied
        self.seen: Counter[str] = Counter()
        self.values = sum(1 for layer in shape.layers if layer.cached or not shape.causal)

    def type_of(self, name: str, size: tuple[int, ...]) -> int:
        """Return the number in ggml of the type of a tensor with these dimensions."""
        if self.base in {"F32", "F16", "BF16"}:
            return type_number("F32" if self._kept(name, size) else self.base)
        if self._kept(name, size):
            return type_number("F16" if "per_layer_model_proj" in name else "F32")
        chosen = self._chosen(name)
        block, _ = quantisation_block(type_number(chosen))
        if size[0] % block:
            chosen = FALLBACK.get(chosen, "F16")
        block, _ = quantisation_block(type_number(chosen))
        return type_number("F16" if size[0] % block else chosen)

    @staticmethod
    def _kept(name: str, size: tuple[int, ...]) -> bool:
        return len(size) < 2 or not name.endswith(".weight") or any(part in name for part in KEPT)

    def _chosen(self, name: str) -> str:
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return self.base if self.base == "Q8_0" else "Q6_K" if not self.name.startswith("MXFP4") else "Q8_0"
        if self.name.startswith("MXFP4"):
            return "MXFP4" if "_exps." in name else "Q8_0"
        if self.name not in MIXED:
            return self.base
        if "attn_v.weight" in name or "attn_kv_b" in name:
            return self._value(self._turn("value"))
        if "ffn_down" in name:
            return self._down(self._layer(name) if self.shape.experts else self._turn("down"))
        if "attn_output" in name:
            return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(self.name, self.base)
        if "attn_qkv" in name:
            return {"Q3_K_M": "Q4_K", "Q3_K_L": "Q4_K", "Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}.get(self.name, self.base)
        return self.base

    def _turn(self, kind: str) -> int:
        self.seen[kind] += 1
        return self.seen[kind] - 1

    @staticmethod
    def _layer(name: str) -> int:
        match = LAYER.match(name)
        return int(match[1]) if match else 0

    def _value(self, index: int) -> str:
        layer = self.shape.layers[0]
        shared = layer.heads // layer.kv_heads if layer.kv_heads else 0
        if self.shape.experts == 8:
            return "Q8_0"
        if self.name in {"Q4_K_M", "Q5_K_M"} and _more_bits(index, self.values):
            return "Q6_K"
        if self.name == "Q4_K_S" and index < 4:
            return "Q5_K"
        return {
            "Q2_K": "Q4_K" if shared >= 4 else "Q3_K",
            "Q3_K_M": "Q5_K" if index < 2 else "Q4_K",
            "Q3_K_L": "Q5_K",
        }.get(self.name, self.base)

    def _down(self, index: int) -> str:
        count = len(self.shape.layers)
        if self.name in {"Q4_K_M", "Q5_K_M"} and _more_bits(index, count):
            return "Q6_K"
        if self.name == "Q4_K_S" and index < count // 8:
            return "Q5_K"
        return {
            "Q2_K": "Q3_K",
            "Q3_K_M": "Q5_K" if index < count // 16 else "Q4_K",
            "Q3_K_L": "Q5_K",
        }.get(self.name, self.base)


def _more_bits(index: int, count: int) -> bool:
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
