"""The buffer in which the engine computes, and the one for its output.

llama.cpp reserves it for the largest graph before it serves (`sched_reserve` of src/llama-context.cpp): `ubatch`
tokens, one output a slot. ggml's allocator (ggml/src/ggml-alloc.c) gives room to each tensor from where it is made to
where it is used last. So the peak is in one of a few places of the largest layer; this module adds up what is alive in
each, after src/llama-graph.cpp and src/models/*.cpp, and takes the largest. docs/memory-estimate.md compares with the
engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from roost.models.estimate.hyperparameters import HYBRID_BOTH, HYBRID_BY_INTERVAL, Hyperparameters, Layer
from roost.models.estimate.kv_cache import Cells, cells, ubatch_size
from roost.models.footprint import ServerSettings

F32, F16 = 4, 2
INPUTS = 3  # of the embedding's width: from tokens, from vectors, and mixed (`build_inp_embd`)
SMALL_BYTES = 1 << 20  # positions, indices, rotations of quantised caches


@dataclass(frozen=True)
class _Graph:
    """The largest graph: how many tokens it computes at once, and the cache it sees."""

    shape: Hyperparameters
    settings: ServerSettings
    tokens: int
    size: Cells

    def rows(self, *widths: int) -> int:
        """Return the bytes of f32 tensors of these widths, a row a token."""
        return sum(widths) * self.tokens * F32

    @property
    def masks(self) -> int:
        """Return the bytes of the attention masks: a column a cell, a row a token (`build_attn_inp_kq_mask`)."""
        if not self.shape.has_cache:
            return self.tokens * self.tokens * F32
        element = F16 if self.settings.flash_attention else F32
        kinds = {layer.windowed for layer in self.shape.layers if layer.cached}
        return sum((self.size.windowed if windowed else self.size.full) * self.tokens * element for windowed in kinds)

    @property
    def streams(self) -> int:
        """Return what the embedding's further streams and the inputs of each layer take (src/models/gemma3n.cpp)."""
        shape = self.shape
        if shape.streams == 1:
            return 0
        return self.rows(shape.per_layer_embedding * len(shape.layers), shape.streams * shape.embedding)

    def attention(self, layer: Layer) -> int:
        """Return what is alive while a layer attends: `build_attn_mha`."""
        shape = self.shape
        wide, query = shape.embedding, layer.heads * layer.key_length
        alive = [wide, query, layer.key_width, layer.value_width, layer.heads * layer.value_length]
        if shape.architecture in HYBRID_BY_INTERVAL:
            alive += [wide, query]  # the gate
        if shape.architecture == "gpt-oss":
            alive.append(query)  # with its bias
        if shape.architecture in HYBRID_BOTH:
            alive.append(wide)  # the other half's result
        total = self.rows(*alive)
        if self.settings.flash_attention:
            return total
        seen = self.size.windowed if layer.windowed else self.size.full
        total += seen * self.tokens * layer.heads * F32
        if shape.latent:  # values are a transposed copy of keys, and what comes of them is unfolded
            total += self.rows(2 * wide, layer.heads * shape.latent_heads[1])
            total += seen * self.size.streams * shape.latent_rank * F16
        if shape.architecture.startswith("gemma"):
            total += self.rows(wide)  # the scaled embedding
        return total

    def forward(self, width: int) -> int:
        """Return what is alive in a dense feed-forward block: gate, up and their product (`build_ffn`)."""
        wide = self.shape.embedding
        return self.rows(2 * wide, 3 * width, 2 * wide if self.shape.streams > 1 else 0)

    def experts(self) -> int:
        """Return what is alive in a block of experts (`build_moe_ffn`)."""
        shape = self.shape
        wide, used = shape.embedding, shape.experts_used
        hidden = self.rows(2 * wide, 3 * used * shape.expert_feed_forward)
        joined = self.rows(3 * wide, 2 * used * wide)
        return max(hidden, joined) + self.rows(2 * shape.experts)

    def recurrent(self) -> int:
        """Return what is alive in a recurrent layer (src/models/mamba-base.cpp, delta-net-base.cpp, lfm2.cpp)."""
        shape = self.shape
        wide, inner = shape.embedding, shape.inner
        states = 2 * shape.recurrent_state * self.settings.parallel * F32
        conv = inner + 2 * shape.groups * shape.state
        if shape.architecture in HYBRID_BY_INTERVAL:
            return self.rows(2 * wide, 3 * conv, 5 * inner) + states
        if not inner:
            return self.rows(6 * wide)
        if not shape.groups:
            return self.rows(6 * inner) + states
        return self.rows(4 * wide, inner + conv + shape.time_step_rank, conv, inner) + states

    def places(self) -> Iterator[int]:
        """Return what is alive at each place that may be the largest."""
        for layer in set(self.shape.layers):
            if layer.recurrent:
                yield self.recurrent()
            if layer.cached or not layer.recurrent:
                yield self.attention(layer)
            yield self.forward(layer.feed_forward)
        if self.shape.experts:
            yield self.experts()
        yield self.rows(3 * self.shape.per_layer_embedding * len(self.shape.layers))  # `project_per_layer_inputs`

    def peak(self) -> int:
        """Return the size of the whole buffer."""
        return self.rows(INPUTS * self.shape.embedding) + self.streams + self.masks + max(self.places()) + SMALL_BYTES


def compute_bytes(shape: Hyperparameters, settings: ServerSettings) -> int:
    """Return the size in bytes of the compute buffer when all of it is on one device."""
    size = cells(shape, settings)
    tokens = min(ubatch_size(shape, settings), size.full * size.streams)
    return _Graph(shape, settings, tokens, size).peak()


def host_compute_bytes(shape: Hyperparameters, settings: ServerSettings) -> int:
    """Return what of the compute buffer stays in the machine's memory where all layers are on graphics processors.

    Rows of the embedding, from which the first layer's input is made, and the masks of attention: as an engine with
    all layers on one NVIDIA H100 names it (bench/card.py, tests/unit/models/estimate/card).
    """
    size = cells(shape, settings)
    tokens = min(ubatch_size(shape, settings), size.full * size.streams)
    graph = _Graph(shape, settings, tokens, size)
    return graph.rows((INPUTS + 1) * shape.embedding) + graph.masks + SMALL_BYTES


def output_bytes(shape: Hyperparameters, settings: ServerSettings) -> int:
    """Return the size in bytes of the output buffer: a row of probabilities a slot (`output_reserve`)."""
    return shape.vocabulary * settings.parallel * F32
