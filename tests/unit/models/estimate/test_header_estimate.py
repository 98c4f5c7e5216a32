"""The estimate by header: published vectors, what the engine was seen to need, and how it must behave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.models.estimate.best import BestEstimator
from roost.models.estimate.header import MIB, HeaderEstimator, estimate_header
from roost.models.estimate.hyperparameters import hyperparameters
from roost.models.estimate.kv_cache import cache_bytes_by_layer, cells
from roost.models.estimate.shape import ARCHITECTURES, ShapeValue, header_of_shape
from roost.models.footprint import HOST, CacheType, LayerSplit, ServerSettings
from roost.models.gguf_header import Header
from roost.ops.errors import RoostError
from tests.support.model_shapes import (
    DEEPSEEK_V31,
    GEMMA3_4B,
    GEMMA3_27B,
    GEMMA3N_E4B,
    LFM2_12B,
    LLAMA_31_8B,
    PUBLISHED,
    QWEN3_8B,
    QWEN35_27B,
    SMOLLM2,
)

GIB = 1 << 30
CPU_ONLY = LayerSplit()


def _kv(architecture: str, shape: Mapping[str, ShapeValue], settings: ServerSettings) -> int:
    header = header_of_shape(architecture, shape, "Q4_K_M")
    return sum(cache_bytes_by_layer(hyperparameters(header), settings))


# --- published vectors -------------------------------------------------------------------------------------------


def test_deepseek_v31_latent_attention() -> None:
    assert round(_kv("deepseek2", dict(DEEPSEEK_V31), ServerSettings(163840)) / GIB, 2) == 10.72


def test_gemma3_27b_windows() -> None:
    """The published 10.41 GiB has the window's 1,024 cells alone; the engine adds a batch of 512."""
    engine = _kv("gemma3", dict(GEMMA3_27B), ServerSettings(131072))
    a_windowed_cell = 52 * 16 * 128 * 2 * 2  # bytes, all layers with a window
    assert round((engine - 512 * a_windowed_cell) / GIB, 2) == 10.41
    assert round(engine / GIB, 2) == 10.61


def test_qwen35_27b_hybrid() -> None:
    settings = ServerSettings(262144)
    shape = hyperparameters(header_of_shape("qwen35", QWEN35_27B, "Q4_K_M"))
    attending = [size for layer, size in zip(shape.layers, cache_bytes_by_layer(shape, settings), strict=True)
                 if not layer.recurrent]  # fmt: skip
    assert len(attending) == 16
    assert sum(attending) == 16 * GIB


def test_smollm2_as_its_server_says() -> None:
    """What llama-server 0.7.0 logs at 8,192 tokens and 4 slots."""
    found = estimate_header(header_of_shape("llama", SMOLLM2, "Q4_1"), ServerSettings(2048, 4), CPU_ONLY).on(HOST)
    assert round(found.weights / MIB, 2) == 92.10
    assert round(found.kv / MIB, 2) == 180.00
    assert round(found.output / MIB, 2) == 0.75
    assert 16.64 <= found.compute / MIB <= 16.64 + 1


# --- cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "full", "windowed", "streams"),
    [
        (ServerSettings(4096, 1), 4096, 1536, 1),
        (ServerSettings(4096, 4), 4096, 1536, 4),
        (ServerSettings(4096, 4, kv_unified=True), 16384, 4608, 1),
        (ServerSettings(1000, 3), 1024, 1024, 3),
        (ServerSettings(300, 1), 512, 512, 1),
    ],
)
def test_cells(settings: ServerSettings, full: int, windowed: int, streams: int) -> None:
    shape = hyperparameters(header_of_shape("gemma3", GEMMA3_27B, "Q4_K_M"))
    found = cells(shape, settings)
    assert (found.full, found.windowed, found.streams) == (full, windowed, streams)


def test_only_layers_with_a_cache_of_their_own_count() -> None:
    shape = hyperparameters(header_of_shape("gemma3n", GEMMA3N_E4B, "Q4_K_M"))
    sizes = cache_bytes_by_layer(shape, ServerSettings(4096))
    assert all(sizes[:20])
    assert not any(sizes[20:])


def test_layers_without_key_value_heads_hold_a_state() -> None:
    shape = hyperparameters(header_of_shape("lfm2", LFM2_12B, "Q4_K_M"))
    sizes = cache_bytes_by_layer(shape, ServerSettings(4096, 2))
    assert sizes[0] == 2 * 2048 * 2 * 4
    assert sizes[2] == 2 * 4096 * 8 * 64 * 2 * 2


@pytest.mark.parametrize(("kind", "share"), [("f16", 1.0), ("q8_0", 34 / 64), ("q4_0", 18 / 64)])
def test_cache_types(kind: CacheType, share: float) -> None:
    whole = _kv("qwen3", dict(QWEN3_8B), ServerSettings(8192))
    assert _kv("qwen3", dict(QWEN3_8B), ServerSettings(8192, cache_type_k=kind, cache_type_v=kind)) == whole * share


def test_what_the_engine_refuses() -> None:
    with pytest.raises(RoostError, match="without flash attention"):
        _kv("qwen3", dict(QWEN3_8B), ServerSettings(8192, cache_type_v="q8_0", flash_attention=False))
    odd = dict(QWEN3_8B) | {"attention.key_length": 36, "attention.value_length": 36, "attention.head_count_kv": 1}
    with pytest.raises(RoostError, match="no whole blocks"):
        _kv("qwen3", odd, ServerSettings(8192, cache_type_k="q8_0"))


# --- devices -----------------------------------------------------------------------------------------------------


def test_the_last_layers_go_to_graphics_processors_first() -> None:
    header = header_of_shape("llama", LLAMA_31_8B, "Q4_K_M")
    settings = ServerSettings(8192)
    whole = estimate_header(header, settings, CPU_ONLY).on(HOST)
    some = estimate_header(header, settings, LayerSplit((1,), (9,)))
    assert [device.device for device in some.devices] == [HOST, "GPU1"]
    output = next(tensor.bytes for tensor in header.tensors if tensor.name == "output.weight")
    assert some.on("GPU1").weights > output
    assert some.on(HOST).weights + some.on("GPU1").weights == whole.weights
    assert some.on("GPU1").kv == whole.kv * 8 // 32
    assert some.on("GPU1").output == 0


def test_the_input_stays_on_the_host() -> None:
    header = header_of_shape("llama", LLAMA_31_8B, "Q4_K_M")
    found = estimate_header(header, ServerSettings(8192), LayerSplit((0, 1), (20, 13)))
    embedding = next(tensor.bytes for tensor in header.tensors if tensor.name == "token_embd.weight")
    assert found.on(HOST).weights == embedding
    assert found.on(HOST).kv == 0
    assert found.on("GPU0").kv == found.on("GPU1").kv * 20 // 12


def test_tied_embeddings_are_there_twice() -> None:
    header = header_of_shape("gemma3", GEMMA3_27B, "Q4_K_M")
    whole = estimate_header(header, ServerSettings(8192), CPU_ONLY).on(HOST).weights
    split = estimate_header(header, ServerSettings(8192), LayerSplit((0,), (63,)))
    embedding = next(tensor.bytes for tensor in header.tensors if tensor.name == "token_embd.weight")
    assert split.on(HOST).weights + split.on("GPU0").weights == whole + embedding


def test_more_layers_than_there_are() -> None:
    header = header_of_shape("llama", LLAMA_31_8B, "Q4_K_M")
    with pytest.raises(RoostError, match="the model has 33"):
        estimate_header(header, ServerSettings(8192), LayerSplit((0,), (34,)))
    assert HeaderEstimator(lambda _name, _quantisation: header).layers("m", "q") == 33


def test_projector_and_adapters_count() -> None:
    from roost.models.gguf_header import Tensor

    header = header_of_shape("llama", LLAMA_31_8B, "Q4_K_M")
    sight: dict[str, int] = {
        "clip.vision.patch_size": 14, "clip.vision.image_size": 896, "clip.vision.embedding_length": 1152,
        "clip.vision.feed_forward_length": 4304, "clip.vision.attention.head_count": 16,
    }  # fmt: skip
    projector = Header(dict(sight), (Tensor("v.w", (1024, 1024), 0),))
    adapter = Header({}, (Tensor("blk.31.attn_q.weight.lora_a", (1024, 512), 0),))
    split = LayerSplit((0,), (33,))
    without = estimate_header(header, ServerSettings(8192), split)
    found = estimate_header(header, ServerSettings(8192), split, projector=projector, adapters=[adapter])
    assert found.on("GPU0").weights - without.on("GPU0").weights == 4 * MIB + 2 * MIB
    assert found.on("GPU0").compute > without.on("GPU0").compute
    with pytest.raises(RoostError, match="not that of an encoder"):
        estimate_header(header, ServerSettings(8192), split, projector=adapter)


# --- how it must behave ------------------------------------------------------------------------------------------

HEADERS = {
    published.name: header_of_shape(published.architecture, published.shape, published.quantisation)
    for published in PUBLISHED
}
A_SETTING = st.builds(
    ServerSettings,
    st.integers(256, 131072),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from(["f16", "q8_0", "q4_0"]),
    st.just("f16"),
    st.just(value=True),
    st.sampled_from([512, 2048]),
    st.sampled_from([64, 512, 2048]),
)


@given(st.sampled_from(sorted(HEADERS)), A_SETTING)
def test_more_context_never_needs_less(name: str, settings: ServerSettings) -> None:
    less = estimate_header(HEADERS[name], settings, CPU_ONLY).on(HOST)
    more = estimate_header(HEADERS[name], replace(settings, context_size=settings.context_size * 2), CPU_ONLY)
    assert more.on(HOST).total >= less.total > 0
    assert more.on(HOST).weights == less.weights


@given(st.sampled_from(sorted(HEADERS)), A_SETTING, st.data())
def test_a_split_loses_nothing(name: str, settings: ServerSettings, data: st.DataObject) -> None:
    header = HEADERS[name]
    count = hyperparameters(header).layer_count + 1
    on_gpu = data.draw(st.integers(1, count))
    first = data.draw(st.integers(0, on_gpu))
    split = LayerSplit((0, 1), (first, on_gpu - first))
    whole = estimate_header(header, settings, CPU_ONLY).on(HOST)
    parts = estimate_header(header, settings, split).devices
    assert sum(part.kv for part in parts) == whole.kv
    twice = sum(part.weights for part in parts) - whole.weights
    tied = not any(tensor.name == "output.weight" for tensor in header.tensors)
    embedding = next(tensor.bytes for tensor in header.tensors if tensor.name == "token_embd.weight")
    assert twice == (embedding if tied else 0)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_shape_that_lacks_something_is_an_error(architecture: str) -> None:
    with pytest.raises(RoostError):
        header_of_shape(architecture, {"block_count": 2}, "Q4_K_M")
    with pytest.raises(RoostError, match="vocab_size"):
        header_of_shape(architecture, {"block_count": 2, "embedding_length": 64, "attention.head_count": 2}, "Q4_K_M")


def test_an_unknown_architecture_or_quantisation_is_said() -> None:
    with pytest.raises(RoostError, match="'new-thing' are not known"):
        header_of_shape("new-thing", LLAMA_31_8B, "Q4_K_M")
    with pytest.raises(RoostError, match="'Q99' is not known"):
        header_of_shape("llama", LLAMA_31_8B, "Q99")


def test_an_unknown_architecture_with_a_header_is_taken_for_full_attention() -> None:
    known = header_of_shape("llama", LLAMA_31_8B, "Q4_K_M")
    metadata = {key.replace("llama.", "brandnew."): value for key, value in known.metadata.items()}
    new = Header(
        metadata | {"general.architecture": "brandnew", "brandnew.attention.sliding_window": 128}, known.tensors
    )
    settings = ServerSettings(8192)
    assert estimate_header(new, settings, CPU_ONLY) == estimate_header(known, settings, CPU_ONLY)


def test_files_of_published_models_are_about_this_large() -> None:
    """Sizes of the files of well-known repositories, in GB (10^9 bytes)."""
    published = {"llama-3.1-8b": 4.92, "qwen3-8b": 5.03, "qwen3-30b-a3b": 18.56, "gemma-3-4b": 2.49, "lfm2-1.2b": 0.73}
    for name, size in published.items():
        assert sum(tensor.bytes for tensor in HEADERS[name].tensors) / 1e9 == pytest.approx(size, rel=0.01), name


def test_without_a_store_the_best_is_the_headers() -> None:
    best = BestEstimator(lambda _name, _quantisation: HEADERS["qwen3-8b"])
    found = best.estimate("qwen3-8b", "Q4_K_M", ServerSettings(8192), CPU_ONLY)
    assert found.origin == "header"
    assert best.layers("qwen3-8b", "Q4_K_M") == 37


@pytest.mark.parametrize(
    ("architecture", "shape", "mib"),
    [
        ("qwen3", QWEN3_8B, 0),  # its cache forgets nothing
        # 29 layers with a window: 1024 tokens of keys and values, 4 heads of 256, f16; 2 slots, 3 states of each
        ("gemma3", GEMMA3_4B, 29 * (1024 * 2 * 4 * 256 * 2 >> 20) * 2 * 3),
    ],
)
def test_states_to_go_back_to_are_counted(architecture: str, shape: dict[str, ShapeValue], mib: int) -> None:
    settings = ServerSettings(8192, parallel=2, cache_ram_mib=256)
    found = estimate_header(header_of_shape(architecture, shape, "Q4_K_M"), settings, LayerSplit())
    assert found.on(HOST).other == (96 + 256 + mib) << 20
