"""True shapes of published models, by their GGUF keys, for the estimate's tests.

Facts are those of the models' public `config.json` and GGUF metadata; a shape is that of the catalogue's `shape`.
"""

from __future__ import annotations

from dataclasses import dataclass

from roost.models.estimate.shape import ShapeValue

RMS = "attention.layer_norm_rms_epsilon"


@dataclass(frozen=True)
class Published:
    """A published model: its architecture, shape and the quantisation it is mostly used in."""

    name: str
    architecture: str
    shape: dict[str, ShapeValue]
    quantisation: str = "Q4_K_M"


def _dense(
    layers: int, wide: int, forward: int, heads: int, kv: int, words: int, **more: ShapeValue
) -> dict[str, ShapeValue]:
    shape: dict[str, ShapeValue] = {
        "block_count": layers, "embedding_length": wide, "feed_forward_length": forward, "attention.head_count": heads,
        "attention.head_count_kv": kv, "vocab_size": words, "context_length": 131072, RMS: 1e-6,
    }  # fmt: skip
    return shape | {key.replace("__", "."): value for key, value in more.items()}


def _heads(length: int, layers: dict[str, ShapeValue]) -> dict[str, ShapeValue]:
    return layers | {"attention.key_length": length, "attention.value_length": length}


SMOLLM2 = _dense(30, 576, 1536, 9, 3, 49152, context_length=8192, rope__dimension_count=64, tied_embeddings=True)
LLAMA_31_8B = _dense(32, 4096, 14336, 32, 8, 128256, rope__dimension_count=128)
QWEN25_7B = _dense(28, 3584, 18944, 28, 4, 152064, context_length=32768)
QWEN3_8B = _heads(128, _dense(36, 4096, 12288, 32, 8, 151936, context_length=40960))
QWEN3_30B_A3B = _heads(128, _dense(48, 2048, 6144, 32, 4, 151936, context_length=40960)) | {
    "expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768,
}  # fmt: skip
GEMMA3_4B = _heads(256, _dense(34, 2560, 10240, 8, 4, 262208, tied_embeddings=True)) | {
    "attention.sliding_window": 1024
}
GEMMA3_27B = _heads(128, _dense(62, 5376, 21504, 32, 16, 262208, tied_embeddings=True)) | {
    "attention.sliding_window": 1024
}
GEMMA3N_E4B = _heads(256, _dense(35, 2048, 16384, 8, 2, 262400, context_length=32768, tied_embeddings=True)) | {
    "attention.sliding_window": 512, "attention.sliding_window_pattern": [*([True] * 4), False] * 7,
    "altup.num_inputs": 4, "altup.active_idx": 0, "embedding_length_per_layer_input": 256,
    "attention.shared_kv_layers": 15,
}  # fmt: skip
PHI35_MINI = _dense(32, 3072, 8192, 32, 32, 32064, rope__dimension_count=96) | {"attention.sliding_window": 262144}
LFM2_KV = [0, 0, 8, 0, 0, 8, 0, 0, 8, 0, 8, 0, 8, 0, 8, 0]
LFM2_12B = _dense(16, 2048, 8192, 32, 8, 65536, context_length=128000, tied_embeddings=True) | {
    "attention.head_count_kv": LFM2_KV, "shortconv.l_cache": 3,
}  # fmt: skip
GRANITE_H_TINY = _dense(40, 1536, 512, 12, 4, 100352, tied_embeddings=True) | {
    "attention.head_count_kv": [4 if index % 10 == 5 else 0 for index in range(40)], "expert_count": 64,
    "expert_used_count": 6, "expert_shared_feed_forward_length": 1024, "ssm.conv_kernel": 4, "ssm.inner_size": 3072,
    "ssm.state_size": 128, "ssm.time_step_rank": 48, "ssm.group_count": 1, "rope.dimension_count": 128,
}  # fmt: skip
FALCON_H1_15B = _heads(128, _dense(24, 2048, 4096, 8, 2, 65537)) | {
    "ssm.conv_kernel": 4, "ssm.inner_size": 3072, "ssm.state_size": 256, "ssm.time_step_rank": 48,
    "ssm.group_count": 1,
}  # fmt: skip
JAMBA_3B = _dense(28, 2560, 8192, 20, 1, 65536, context_length=262144, tied_embeddings=True) | {
    "attention.head_count_kv": [1 if index % 14 == 7 else 0 for index in range(28)], "ssm.conv_kernel": 4,
    "ssm.inner_size": 5120, "ssm.state_size": 16, "ssm.time_step_rank": 160,
}  # fmt: skip
DEEPSEEK_V2_LITE = _dense(27, 2048, 10944, 16, 1, 102400, context_length=163840) | {
    "attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 192,
    "attention.value_length_mla": 128, "attention.kv_lora_rank": 512, "rope.dimension_count": 64, "expert_count": 64,
    "expert_used_count": 6, "expert_shared_count": 2, "expert_feed_forward_length": 1408,
    "leading_dense_block_count": 1,
}  # fmt: skip
GLM_47_FLASH = _dense(47, 2048, 10240, 20, 1, 154880, context_length=202752) | {
    "attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 256,
    "attention.value_length_mla": 256, "attention.kv_lora_rank": 512, "attention.q_lora_rank": 768,
    "rope.dimension_count": 64, "expert_count": 64, "expert_used_count": 4, "expert_shared_count": 1,
    "expert_feed_forward_length": 1536, "leading_dense_block_count": 1, "expert_gating_func": 2,
}  # fmt: skip
DEEPSEEK_V31 = _dense(61, 7168, 18432, 128, 1, 129280, context_length=163840) | {
    "attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 192,
    "attention.value_length_mla": 128, "attention.kv_lora_rank": 512, "attention.q_lora_rank": 1536,
    "rope.dimension_count": 64, "expert_count": 256, "expert_used_count": 8, "expert_shared_count": 1,
    "expert_feed_forward_length": 2048, "leading_dense_block_count": 3, "expert_gating_func": 2,
}  # fmt: skip
MINISTRAL3_8B = _heads(128, _dense(34, 4096, 14336, 32, 8, 131072, context_length=262144))
QWEN35_27B = _heads(256, _dense(64, 5120, 17408, 24, 4, 248320, context_length=262144)) | {
    "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 48,
    "ssm.inner_size": 6144, "full_attention_interval": 4, "rope.dimension_count": 64,
    "rope.dimension_sections": [11, 11, 10, 0],
}  # fmt: skip
QWEN35_35B_A3B = _heads(256, _dense(40, 2048, 0, 16, 2, 248320, context_length=262144)) | {
    "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 32,
    "ssm.inner_size": 4096, "full_attention_interval": 4, "rope.dimension_count": 64,
    "rope.dimension_sections": [11, 11, 10, 0], "expert_count": 256, "expert_used_count": 8,
    "expert_feed_forward_length": 512, "expert_shared_feed_forward_length": 512,
}  # fmt: skip
LLAMA_32_1B = _heads(64, _dense(16, 2048, 8192, 32, 8, 128256, rope__dimension_count=64, tied_embeddings=True))
GPT_OSS_20B = _heads(64, _dense(24, 2880, 2880, 64, 8, 201088)) | {
    "expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 2880, "attention.sliding_window": 128,
    "rope.dimension_count": 64,
}  # fmt: skip

PUBLISHED = (
    Published("smollm2-135m", "llama", SMOLLM2, "Q4_1"),
    Published("llama-3.1-8b", "llama", LLAMA_31_8B),
    Published("qwen2.5-7b", "qwen2", QWEN25_7B),
    Published("qwen3-8b", "qwen3", QWEN3_8B),
    Published("qwen3-30b-a3b", "qwen3moe", QWEN3_30B_A3B),
    Published("gemma-3-4b", "gemma3", GEMMA3_4B),
    Published("gemma-3n-e4b", "gemma3n", GEMMA3N_E4B),
    Published("phi-3.5-mini", "phi3", PHI35_MINI),
    Published("lfm2-1.2b", "lfm2", LFM2_12B),
    Published("granite-4.0-h-tiny", "granitehybrid", GRANITE_H_TINY),
    Published("falcon-h1-1.5b", "falcon-h1", FALCON_H1_15B),
    Published("jamba-reasoning-3b", "jamba", JAMBA_3B),
    Published("deepseek-v2-lite", "deepseek2", DEEPSEEK_V2_LITE),
    Published("glm-4.7-flash", "deepseek2", GLM_47_FLASH),
    Published("ministral-3-8b", "mistral3", MINISTRAL3_8B),
    Published("qwen3.5-27b", "qwen35", QWEN35_27B),
    Published("qwen3.5-35b-a3b", "qwen35moe", QWEN35_35B_A3B),
    Published("llama-3.2-1b", "llama", LLAMA_32_1B),
    Published("gemma-3-27b", "gemma3", GEMMA3_27B),
    Published("gpt-oss-20b", "gpt-oss", GPT_OSS_20B, "MXFP4"),
)


def tiny(published: Published) -> dict[str, ShapeValue]:
    """Return a shape of the same architecture that a server starts in no time."""
    small: dict[str, ShapeValue] = {
        "block_count": 4, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4,
        "attention.head_count_kv": 2, "vocab_size": 512, "context_length": 4096, "rope.dimension_count": 64,
    }  # fmt: skip
    shape = published.shape
    if "attention.key_length" in shape:
        small |= {"attention.key_length": 64, "attention.value_length": 64}
    if "expert_count" in shape:
        small |= {"expert_count": 8, "expert_used_count": 2}
        small |= {
            key: 64 for key in ("expert_feed_forward_length", "expert_shared_feed_forward_length") if key in shape
        }
    if "attention.sliding_window" in shape:
        small["attention.sliding_window"] = 128
    return {**shape, **small, **TINY.get(published.architecture, {})}


_STATES: dict[str, ShapeValue] = {
    "ssm.inner_size": 512, "ssm.state_size": 16, "ssm.time_step_rank": 8, "attention.head_count_kv": [0, 2, 0, 2],
}  # fmt: skip
_DELTA: dict[str, ShapeValue] = {
    "ssm.state_size": 64, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 256,
    "rope.dimension_sections": [11, 11, 10, 0],
}  # fmt: skip
TINY: dict[str, dict[str, ShapeValue]] = {
    "gemma3n": {"block_count": 22, "attention.sliding_window_pattern": [*([True] * 4), False] * 4 + [True, True]},
    "lfm2": {"attention.head_count_kv": [0, 0, 2, 0]},
    "granitehybrid": _STATES,
    "jamba": _STATES,
    "falcon-h1": _STATES | {"attention.head_count_kv": 2},
    "qwen35": _DELTA,
    "qwen35moe": _DELTA | {"feed_forward_length": 0},
    "deepseek2": {
        "attention.head_count_kv": 1, "attention.kv_lora_rank": 64, "attention.q_lora_rank": 64,
        "rope.dimension_count": 32, "attention.key_length": 96, "attention.value_length": 64,
        "attention.key_length_mla": 64, "attention.value_length_mla": 32,
    },
}  # fmt: skip
