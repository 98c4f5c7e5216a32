"""What a model's header says of its layers, as far as memory depends on it.

The same reading as llama.cpp's `llama_model_base::load_hparams` (src/llama-model.cpp), the `load_arch_hparams` of each
architecture (src/models/*.cpp) and src/llama-hparams.cpp. An architecture that is not listed here is taken for an
ordinary transformer: full attention in each layer, which is the most that it can need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roost.models.gguf_header import Header, Skipped, Value
from roost.ops.errors import RoostError

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS of src/llama-hparams.h
MAX_VALUE = 1 << 32

# Sliding windows (`load_swa_pattern`): every how many layers one has full attention, whether that is the first of them,
# and the window in tokens where the header leaves it out. The others ignore `attention.sliding_window`.
WINDOWED = {
    "afmoe": (4, False, 0), "cohere2": (4, False, 0), "cohere2moe": (4, True, 0), "exaone4": (4, False, 4096),
    "exaone-moe": (4, False, 128), "gemma2": (2, False, 4096), "gemma3": (6, False, 0), "gemma3n": (5, False, 0),
    "gemma4": (1, False, 0), "gpt-oss": (2, False, 0), "llama4": (4, False, 8192), "mellum": (4, False, 0),
    "olmo2": (4, False, 0), "plamo3": (8, False, 0), "smallthinker": (4, True, 4096), "mimo2": (1, False, 0),
    "step35": (1, False, 0), "granite-swa": (1, False, 0), "laguna": (4, True, 0),
}  # fmt: skip
# `create_memory`: these have no cache, each request is read as a whole.
WITHOUT_CACHE = frozenset({
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding", "dream", "llada", "llada-moe", "rnd1", "wavtokenizer-dec",
})  # fmt: skip
# `llm_arch_is_recurrent`: each layer holds a state and none has a cache.
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
# `llm_arch_is_hybrid`: layers without key-value heads are the recurrent ones …
HYBRID_BY_HEADS = frozenset({
    "jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "kimi-linear",
    "bailingmoe3",
})  # fmt: skip
# … or all but every n-th …
HYBRID_BY_INTERVAL = frozenset({"qwen3next", "qwen35", "qwen35moe"})
# … or every layer is both.
HYBRID_BOTH = frozenset({"falcon-h1"})
FULL_ATTENTION_INTERVAL = 4
GEMMA3N_LAYERS_WITH_CACHE = 20  # later ones use the cache of an earlier layer: src/models/gemma3n.cpp


@dataclass(frozen=True)
class Layer:
    """One repeating layer; sizes in elements. `cached` says whether it has keys and values of its own."""

    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    feed_forward: int
    windowed: bool = False
    recurrent: bool = False
    cached: bool = True

    @property
    def key_width(self) -> int:
        """Return the elements of the keys of one token."""
        return self.kv_heads * self.key_length

    @property
    def value_width(self) -> int:
        """Return the elements of the values of one token."""
        return self.kv_heads * self.value_length


@dataclass(frozen=True)
class Hyperparameters:
    """A model's shape. `prediction_layers` are behind the repeating ones and are not loaded by default."""

    architecture: str
    embedding: int
    vocabulary: int
    context_length: int
    layers: tuple[Layer, ...]
    prediction_layers: int = 0
    window: int = 0  # tokens that a windowed layer sees
    latent: bool = False  # multi-head latent attention: keys only, values are computed from them
    causal: bool = True
    has_cache: bool = True
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0
    conv_state: int = 0  # f32 elements a recurrent layer holds for one sequence
    recurrent_state: int = 0  # the same, of its second buffer
    inner: int = 0  # width of a recurrent layer
    state: int = 0
    groups: int = 0
    time_step_rank: int = 0
    latent_rank: int = 0
    latent_heads: tuple[int, int] = (0, 0)  # key and value length of a head after it was unfolded
    per_layer_embedding: int = 0
    streams: int = 1  # of the embedding that run in parallel (gemma3n's altup)

    @property
    def layer_count(self) -> int:
        """Return how many layers the engine counts for `--gpu-layers`, without the output layer."""
        return len(self.layers) + self.prediction_layers


class _Keys:
    """Reads `<architecture>.<key>` with bounds."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.prefix = f"{header.architecture}."

    def raw(self, key: str) -> Value | None:
        return self.header.metadata.get(self.prefix + key)

    def number(self, key: str, default: int = 0) -> int:
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, tuple) and value:
            value = value[0]
        return self.whole(key, value)

    def by_layer(self, key: str, count: int, default: int) -> list[int]:
        value = self.raw(key)
        if value is None:
            return [default] * count
        if isinstance(value, tuple):
            if len(value) < count:
                raise _unusable(f"{self.prefix}{key} has {len(value)} values for {count} layers")
            return [self.whole(key, item) for item in value[:count]]
        return [self.whole(key, value)] * count

    def flags(self, key: str, count: int) -> list[bool] | None:
        value = self.raw(key)
        if not isinstance(value, tuple):
            return None
        if len(value) < count:
            raise _unusable(f"{self.prefix}{key} has {len(value)} values for {count} layers")
        return [bool(item) for item in value[:count]]

    def whole(self, key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_VALUE:
            raise _unusable(f"{self.prefix}{key} is {value!r}")
        return value


def _unusable(what: str) -> RoostError:
    return RoostError(
        f"The memory of this model cannot be estimated: {what}.", fix="Get the file again, or another one."
    )


def hyperparameters(header: Header) -> Hyperparameters:
    """Return a model's shape.

    Raises:
        RoostError: the header lacks what every language model has, or holds what cannot be.
    """
    keys = _Keys(header)
    architecture = header.architecture
    total, embedding = keys.number("block_count"), keys.number("embedding_length")
    nextn = keys.number("nextn_predict_layers")
    if not architecture or not 0 < total <= MAX_LAYERS or not embedding or nextn >= total:
        raise _unusable("its header is not that of a language model")
    heads = keys.by_layer("attention.head_count", total, 0)
    kv_heads = keys.by_layer("attention.head_count_kv", total, 0)
    if keys.raw("attention.head_count_kv") is None:
        kv_heads = heads
    by_head = embedding // heads[0] if heads[0] else 0
    inner, state, groups = keys.number("ssm.inner_size"), keys.number("ssm.state_size"), keys.number("ssm.group_count")
    conv, recurrent = _states(keys, embedding, heads[0], inner, state, groups)
    latent = (keys.number("attention.key_length_mla"), keys.number("attention.value_length_mla"))
    return Hyperparameters(
        architecture=architecture,
        embedding=embedding,
        vocabulary=_vocabulary(header, keys),
        context_length=keys.number("context_length"),
        layers=_layers(keys, architecture, heads, kv_heads, by_head)[: total - nextn],
        prediction_layers=nextn,
        window=_window(keys, architecture),
        latent=all(latent),
        causal=keys.raw("attention.causal") is not False,
        has_cache=architecture not in WITHOUT_CACHE,
        experts=keys.number("expert_count"),
        experts_used=keys.number("expert_used_count"),
        expert_feed_forward=keys.number("expert_feed_forward_length") or keys.number("feed_forward_length"),
        shared_feed_forward=keys.number("expert_shared_feed_forward_length")
        or keys.number("expert_shared_count") * keys.number("expert_feed_forward_length"),
        conv_state=conv,
        recurrent_state=recurrent,
        inner=inner,
        state=state,
        groups=groups,
        time_step_rank=keys.number("ssm.time_step_rank"),
        latent_rank=keys.number("attention.kv_lora_rank"),
        latent_heads=latent,
        per_layer_embedding=keys.number("embedding_length_per_layer_input"),
        streams=max(1, keys.number("altup.num_inputs", 1)),
    )


def _vocabulary(header: Header, keys: _Keys) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Skipped):
        return tokens.count
    declared = keys.number("vocab_size")
    embedded = next((t.shape[-1] for t in header.tensors if t.name == "token_embd.weight" and t.shape), 0)
    return declared or embedded


def _window(keys: _Keys, architecture: str) -> int:
    if architecture in {"lfm2", "lfm2moe"}:
        return keys.number("attention.sliding_window")
    if architecture not in WINDOWED:
        return 0
    return keys.number("attention.sliding_window", WINDOWED[architecture][2])


def _windowed(keys: _Keys, architecture: str, recurrent: Sequence[bool]) -> list[bool]:
    count = len(recurrent)
    if not _window(keys, architecture):
        return [False] * count
    if architecture not in WINDOWED:
        return [not state for state in recurrent]
    given = keys.flags("attention.sliding_window_pattern", count)
    if given is not None:
        return given
    every, dense_first, _ = WINDOWED[architecture]
    every = keys.number("attention.sliding_window_pattern", every)
    if every == 0:
        return [True] * count
    return [index % every != 0 if dense_first else index % every < every - 1 for index in range(count)]


def _recurrent(keys: _Keys, architecture: str, kv_heads: Sequence[int], forward: Sequence[int]) -> list[bool]:
    count = len(kv_heads)
    if architecture in RECURRENT | HYBRID_BOTH:
        return [True] * count
    if architecture in HYBRID_BY_HEADS:
        mixers = architecture.startswith("nemotron_h")
        return [heads == 0 and not (mixers and width) for heads, width in zip(kv_heads, forward, strict=True)]
    if architecture in HYBRID_BY_INTERVAL:
        given = keys.flags("attention.recurrent_layers", count)
        if given is not None:
            return given
        every = keys.number("full_attention_interval", FULL_ATTENTION_INTERVAL) or FULL_ATTENTION_INTERVAL
        return [(index + 1) % every != 0 for index in range(count)]
    return [False] * count


def _layers(
    keys: _Keys, architecture: str, heads: Sequence[int], kv_heads: Sequence[int], by_head: int
) -> tuple[Layer, ...]:
    count = len(heads)
    forward = keys.by_layer("feed_forward_length", count, 0)
    recurrent = _recurrent(keys, architecture, kv_heads, forward)
    windowed = _windowed(keys, architecture, recurrent)
    with_cache = count
    if architecture == "gemma3n":
        with_cache = GEMMA3N_LAYERS_WITH_CACHE
    elif architecture == "gemma4":
        with_cache = count - keys.number("attention.shared_kv_layers")
    key, value = keys.number("attention.key_length", by_head), keys.number("attention.value_length", by_head)
    lengths = {
        False: (key, value),
        True: (keys.number("attention.key_length_swa", key), keys.number("attention.value_length_swa", value)),
    }
    return tuple(
        Layer(
            heads=heads[index],
            kv_heads=kv_heads[index],
            key_length=lengths[windowed[index]][0],
            value_length=lengths[windowed[index]][1],
            feed_forward=forward[index],
            windowed=windowed[index],
            recurrent=recurrent[index],
            cached=index < with_cache
            and architecture not in RECURRENT
            and (not recurrent[index] or architecture in HYBRID_BOTH),
        )
        for index in range(count)
    )


def _states(keys: _Keys, embedding: int, heads: int, inner: int, state: int, groups: int) -> tuple[int, int]:
    """Return the f32 elements that a recurrent layer holds for one sequence: `n_embd_r`, `n_embd_s`."""
    if head_size := keys.number("wkv.head_size"):
        return keys.number("token_shift_count", 2) * embedding, embedding * head_size
    if cache := keys.number("shortconv.l_cache"):
        return embedding * (cache - 1), 0
    kernel = keys.number("ssm.conv_kernel")
    if kda := keys.number("kda.head_dim"):
        return 3 * (kernel - 1 if kernel else 3) * heads * kda, kda * kda * heads
    conv = (kernel - 1 if kernel else 0) * (inner + 2 * groups * state)
    return conv, state * inner
