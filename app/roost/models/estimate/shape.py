"""A model's header without the file: made from the hyperparameters that the catalogue lists.

Which tensors an architecture has is what the `load_arch_tensors` of llama.cpp's src/models/*.cpp ask for. Types of
tensors follow `llama_tensor_get_type` of src/llama-quant.cpp; who published a file may have chosen others, so the sum
is close to the file's size but not equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from roost.models.estimate.hyperparameters import Hyperparameters, Layer, hyperparameters
from roost.models.estimate.quantise import Mix
from roost.models.gguf_header import Header, Tensor, Value
from roost.ops.errors import RoostError

ShapeValue = bool | int | float | str | Sequence[bool | int | float]
TIED = "tied_embeddings"
Tensors = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class _Model:
    """What the lists of tensors are made from."""

    shape: Hyperparameters
    keys: Mapping[str, Value]

    def number(self, key: str, default: int = 0) -> int:
        value = self.keys.get(f"{self.shape.architecture}.{key}", default)
        return value if isinstance(value, int) else default


def header_of_shape(architecture: str, shape: Mapping[str, ShapeValue], quantisation: str) -> Header:
    """Return the header that a file of this shape would have.

    `shape` has the keys of a GGUF file without the architecture's name, `vocab_size`, and `tied_embeddings` where the
    output uses the token embedding.

    Raises:
        RoostError: the architecture's tensors are not known here, or the shape lacks something.
    """
    builder = ARCHITECTURES.get(architecture)
    if builder is None:
        raise RoostError(
            f"The tensors of the architecture {architecture!r} are not known.",
            fix=f"Give a file to read its header from; known are: {', '.join(sorted(ARCHITECTURES))}.",
        )
    metadata: dict[str, Value] = {"general.architecture": architecture}
    for key, value in shape.items():
        if key != TIED:
            metadata[f"{architecture}.{key}"] = value if isinstance(value, bool | int | float | str) else tuple(value)
    model = _Model(hyperparameters(Header(metadata, ())), metadata)
    if not model.shape.vocabulary:
        raise RoostError("The shape has no vocab_size.", fix="Add it to the shape in the catalogue.")
    listed = [*_ends(model, tied=bool(shape.get(TIED, False)))]
    for index, layer in enumerate(model.shape.layers):
        listed += [(f"blk.{index}.{name}", size) for name, size in builder(model, layer, index)]
    mix = Mix(quantisation, model.shape, tied=bool(shape.get(TIED, False)))
    return Header(metadata, tuple(Tensor(name, size, mix.type_of(name, size)) for name, size in listed if all(size)))


def _ends(model: _Model, *, tied: bool) -> Tensors:
    shape = model.shape
    wide, words = shape.embedding, shape.vocabulary
    yield "token_embd.weight", (wide, words)
    if not tied and shape.architecture not in ENCODERS:
        yield "output.weight", (wide, words)
    if shape.architecture in ENCODERS:
        yield "token_embd_norm.weight", (wide,)
        yield "token_embd_norm.bias", (wide,)
        yield "token_types.weight", (wide, max(1, model.number("token_type_count", 2)))
        if shape.architecture == "bert":
            yield "position_embd.weight", (wide, shape.context_length)
        return
    # the engine knows this one by another name: LLM_TENSOR_OUTPUT_NORM_LFM2
    yield ("token_embd_norm.weight" if shape.architecture.startswith("lfm2") else "output_norm.weight"), (wide,)
    if shape.architecture == "gemma3n":
        per_layer, layers, streams = shape.per_layer_embedding, len(shape.layers), shape.streams
        yield "altup_proj.weight", (wide, wide, streams - 1)
        yield "altup_unembd_proj.weight", (wide, wide, streams - 1)
        yield "per_layer_token_embd.weight", (per_layer * layers, words)
        yield "per_layer_model_proj.weight", (wide, per_layer * layers)
        yield "per_layer_proj_norm.weight", (per_layer,)


def _attention(
    model: _Model, layer: Layer, *, biased: bool = False, normed: bool = False, gated: bool = False
) -> Tensors:
    wide, query = model.shape.embedding, layer.heads * layer.key_length
    yield "attn_norm.weight", (wide,)
    yield "attn_q.weight", (wide, query * (2 if gated else 1))
    yield "attn_k.weight", (wide, layer.key_width)
    yield "attn_v.weight", (wide, layer.value_width)
    yield "attn_output.weight", (layer.heads * layer.value_length, wide)
    if biased:
        yield "attn_q.bias", (query,)
        yield "attn_k.bias", (layer.key_width,)
        yield "attn_v.bias", (layer.value_width,)
    if normed:
        yield "attn_q_norm.weight", (layer.key_length,)
        yield "attn_k_norm.weight", (layer.key_length,)


def _forward(model: _Model, width: int) -> Tensors:
    wide = model.shape.embedding
    yield "ffn_norm.weight", (wide,)
    yield "ffn_gate.weight", (wide, width)
    yield "ffn_up.weight", (wide, width)
    yield "ffn_down.weight", (width, wide)


def _experts(model: _Model, width: int, shared: int = 0, *, biased: bool = False) -> Tensors:
    wide, count = model.shape.embedding, model.shape.experts
    yield "ffn_norm.weight", (wide,)
    yield "ffn_gate_inp.weight", (wide, count)
    yield "ffn_gate_exps.weight", (wide, width, count)
    yield "ffn_up_exps.weight", (wide, width, count)
    yield "ffn_down_exps.weight", (width, wide, count)
    if biased:
        yield "exp_probs_b.bias", (count,)
    if shared:
        yield "ffn_gate_shexp.weight", (wide, shared)
        yield "ffn_up_shexp.weight", (wide, shared)
        yield "ffn_down_shexp.weight", (shared, wide)


def _llama(model: _Model, layer: Layer, _index: int) -> Tensors:
    yield from _attention(model, layer)
    if model.shape.experts:
        yield from _experts(model, layer.feed_forward)
    else:
        yield from _forward(model, layer.feed_forward)


def _qwen2(model: _Model, layer: Layer, _index: int) -> Tensors:
    yield from _attention(model, layer, biased=True)
    yield from _forward(model, layer.feed_forward)


def _qwen3(model: _Model, layer: Layer, _index: int) -> Tensors:
    yield from _attention(model, layer, normed=True)
    yield from _forward(model, layer.feed_forward)


def _qwen3moe(model: _Model, layer: Layer, _index: int) -> Tensors:
    yield from _attention(model, layer, normed=True)
    yield from _experts(model, model.shape.expert_feed_forward)


def _gemma3(model: _Model, layer: Layer, _index: int) -> Tensors:
    yield from _attention(model, layer, normed=True)
    yield from _forward(model, layer.feed_forward)
    yield "post_attention_norm.weight", (model.shape.embedding,)
    yield "post_ffw_norm.weight", (model.shape.embedding,)


def _gemma3n(model: _Model, layer: Layer, index: int) -> Tensors:
    yield from _gemma3(model, layer, index)
    wide, per_layer, streams = model.shape.embedding, model.shape.per_layer_embedding, model.shape.streams
    rank = model.number("laurel_rank", 64)
    yield "inp_gate.weight", (wide, per_layer)
    yield "proj.weight", (per_layer, wide)
    yield "post_norm.weight", (wide,)
    yield "altup_correct_coef.weight", (streams, streams)
    yield "altup_correct_scale.weight", (wide,)
    yield "altup_predict_coef.weight", (streams, streams * streams)
    yield "altup_router.weight", (wide, streams)
    yield "altup_router_norm.weight", (wide,)
    yield "laurel_l.weight", (wide, rank)
    yield "laurel_r.weight", (rank, wide)
    yield "laurel_post_norm.weight", (wide,)


def _phi3(model: _Model, layer: Layer, _index: int) -> Tensors:
    wide = model.shape.embedding
    yield "attn_norm.weight", (wide,)
    yield "attn_qkv.weight", (wide, layer.heads * layer.key_length + layer.key_width + layer.value_width)
    yield "attn_output.weight", (wide, wide)
    yield "ffn_norm.weight", (wide,)
    yield "ffn_up.weight", (wide, 2 * layer.feed_forward)
    yield "ffn_down.weight", (layer.feed_forward, wide)


def _lfm2(model: _Model, layer: Layer, index: int) -> Tensors:
    wide = model.shape.embedding
    if layer.recurrent:
        yield "attn_norm.weight", (wide,)
        yield "shortconv.conv.weight", (model.number("shortconv.l_cache"), wide)
        yield "shortconv.in_proj.weight", (wide, 3 * wide)
        yield "shortconv.out_proj.weight", (wide, wide)
    else:
        yield from _attention(model, layer, normed=True)
    if model.shape.experts and index >= model.number("leading_dense_block_count"):
        yield from _experts(model, model.shape.expert_feed_forward, biased=True)
    else:
        yield from _forward(model, layer.feed_forward)


def _mamba2(model: _Model) -> Tensors:
    shape = model.shape
    wide, heads = shape.embedding, shape.time_step_rank
    conv = shape.inner + 2 * shape.groups * shape.state
    yield "ssm_in.weight", (wide, shape.inner + conv + heads)
    yield "ssm_conv1d.weight", (model.number("ssm.conv_kernel"), conv)
    yield "ssm_conv1d.bias", (conv,)
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (1, heads)
    yield "ssm_d", (1, heads)
    yield "ssm_norm.weight", (shape.inner // max(1, shape.groups), shape.groups)
    yield "ssm_out.weight", (shape.inner, wide)


def _granitehybrid(model: _Model, layer: Layer, _index: int) -> Tensors:
    if layer.recurrent:
        yield "attn_norm.weight", (model.shape.embedding,)
        yield from _mamba2(model)
    else:
        yield from _attention(model, layer)
    if model.shape.experts:
        yield from _experts(model, layer.feed_forward, model.shape.shared_feed_forward)
    else:
        yield from _forward(model, layer.feed_forward)


def _falcon_h1(model: _Model, layer: Layer, _index: int) -> Tensors:
    yield from _attention(model, layer)
    yield from (item for item in _mamba2(model) if not item[0].startswith("ssm_norm"))
    # the engine asks for this one without the usual ending
    yield from (
        (name.replace("ffn_norm.weight", "ffn_norm"), size) for name, size in _forward(model, layer.feed_forward)
    )


def _jamba(model: _Model, layer: Layer, index: int) -> Tensors:
    shape = model.shape
    wide, inner, state, rank = shape.embedding, shape.inner, shape.state, shape.time_step_rank
    if layer.recurrent:
        yield "attn_norm.weight", (wide,)
        yield "ssm_in.weight", (wide, 2 * inner)
        yield "ssm_conv1d.weight", (model.number("ssm.conv_kernel"), inner)
        yield "ssm_conv1d.bias", (inner,)
        yield "ssm_x.weight", (inner, rank + 2 * state)
        yield "ssm_dt_norm.weight", (rank,)
        yield "ssm_dt.weight", (rank, inner)
        yield "ssm_dt.bias", (inner,)
        yield "ssm_b_norm.weight", (state,)
        yield "ssm_c_norm.weight", (state,)
        yield "ssm_a", (state, inner)
        yield "ssm_d", (inner,)
        yield "ssm_out.weight", (inner, wide)
    else:
        yield from _attention(model, layer)
    if shape.experts and index % 2:
        yield from _experts(model, layer.feed_forward)
    else:
        yield from _forward(model, layer.feed_forward)


def _deepseek2(model: _Model, layer: Layer, index: int) -> Tensors:
    shape = model.shape
    wide, rank, (key, value) = shape.embedding, shape.latent_rank, shape.latent_heads
    rope, query_rank = model.number("rope.dimension_count"), model.number("attention.q_lora_rank")
    yield "attn_norm.weight", (wide,)
    if query_rank:
        yield "attn_q_a_norm.weight", (query_rank,)
        yield "attn_q_a.weight", (wide, query_rank)
        yield "attn_q_b.weight", (query_rank, layer.heads * key)
    else:
        yield "attn_q.weight", (wide, layer.heads * key)
    yield "attn_kv_a_norm.weight", (rank,)
    yield "attn_kv_a_mqa.weight", (wide, rank + rope)
    yield "attn_k_b.weight", (key - rope, rank, layer.heads)
    yield "attn_v_b.weight", (rank, value, layer.heads)
    yield "attn_output.weight", (layer.heads * value, wide)
    if index < model.number("leading_dense_block_count"):
        yield from _forward(model, layer.feed_forward)
    else:
        yield from _experts(
            model, shape.expert_feed_forward, shape.shared_feed_forward, biased=model.number("expert_gating_func") == 2
        )


def _qwen35(model: _Model, layer: Layer, _index: int) -> Tensors:
    shape = model.shape
    wide, heads = shape.embedding, shape.time_step_rank
    value, key = shape.state * heads, shape.state * shape.groups
    if layer.recurrent:
        yield "attn_norm.weight", (wide,)
        yield "attn_qkv.weight", (wide, 2 * key + value)
        yield "attn_gate.weight", (wide, value)
        yield "ssm_conv1d.weight", (model.number("ssm.conv_kernel"), 2 * key + value)
        yield "ssm_dt.bias", (heads,)
        yield "ssm_a", (heads,)
        yield "ssm_beta.weight", (wide, heads)
        yield "ssm_alpha.weight", (wide, heads)
        yield "ssm_norm.weight", (shape.state,)
        yield "ssm_out.weight", (value, wide)
    else:
        yield from _attention(model, layer, normed=True, gated=True)
    yield "post_attention_norm.weight", (wide,)
    if shape.experts:
        yield from (
            item
            for item in _experts(model, shape.expert_feed_forward, shape.shared_feed_forward)
            if item[0] != "ffn_norm.weight"
        )
        yield "ffn_gate_inp_shexp.weight", (wide,)
    else:
        yield from (item for item in _forward(model, layer.feed_forward) if item[0] != "ffn_norm.weight")


def _gpt_oss(model: _Model, layer: Layer, _index: int) -> Tensors:
    wide, width, count = model.shape.embedding, model.shape.expert_feed_forward, model.shape.experts
    yield from _attention(model, layer, biased=True)
    yield "attn_output.bias", (wide,)
    yield "attn_sinks.weight", (layer.heads,)
    yield "post_attention_norm.weight", (wide,)
    yield from (item for item in _experts(model, width) if item[0] != "ffn_norm.weight")
    yield "ffn_gate_inp.bias", (count,)
    yield "ffn_gate_exps.bias", (width, count)
    yield "ffn_up_exps.bias", (width, count)
    yield "ffn_down_exps.bias", (wide, count)


def _bert(model: _Model, layer: Layer, _index: int) -> Tensors:
    wide, width = model.shape.embedding, layer.feed_forward
    yield from (item for item in _attention(model, layer, biased=True) if item[0] != "attn_norm.weight")
    yield "attn_output.bias", (wide,)
    for norm in ("attn_output_norm", "layer_output_norm"):
        yield f"{norm}.weight", (wide,)
        yield f"{norm}.bias", (wide,)
    yield "ffn_up.weight", (wide, width)
    yield "ffn_up.bias", (width,)
    yield "ffn_down.weight", (width, wide)
    yield "ffn_down.bias", (wide,)


def _nomic_bert(model: _Model, layer: Layer, _index: int) -> Tensors:
    wide = model.shape.embedding
    yield "attn_qkv.weight", (wide, layer.heads * layer.key_length + layer.key_width + layer.value_width)
    yield "attn_output.weight", (layer.heads * layer.value_length, wide)
    for norm in ("attn_output_norm", "layer_output_norm"):
        yield f"{norm}.weight", (wide,)
        yield f"{norm}.bias", (wide,)
    yield from (item for item in _forward(model, layer.feed_forward) if item[0] != "ffn_norm.weight")


ENCODERS = frozenset({"bert", "nomic-bert"})
ARCHITECTURES: Mapping[str, Callable[[_Model, Layer, int], Tensors]] = {
    "llama": _llama, "mistral3": _llama, "qwen2": _qwen2, "qwen2vl": _qwen2, "qwen3": _qwen3, "qwen3vl": _qwen3,
    "qwen3moe": _qwen3moe, "qwen3vlmoe": _qwen3moe, "qwen35": _qwen35, "qwen35moe": _qwen35, "gemma3": _gemma3,
    "gemma-embedding": _gemma3, "gemma3n": _gemma3n, "phi3": _phi3, "lfm2": _lfm2, "lfm2moe": _lfm2,
    "granitehybrid": _granitehybrid, "falcon-h1": _falcon_h1, "jamba": _jamba, "deepseek2": _deepseek2,
    "gpt-oss": _gpt_oss, "bert": _bert, "nomic-bert": _nomic_bert,
}  # fmt: skip
