"""The engine's arguments: nothing that its defaults say already, and every layer in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.engine_args import Offload, RpcWorker, ServerFiles, memory_args, offload_args, server_args
from roost.models.footprint import LayerSplit, ServerSettings
from roost.models.slot_reuse import slots_reusable

FILES = ServerFiles("/models/a.gguf")


def value(args: list[str], flag: str) -> str:
    return args[args.index(flag) + 1]


def test_the_processor_alone_needs_no_word_of_devices() -> None:
    args = server_args(FILES, ServerSettings(8192), Offload(), alias="a", bind="127.0.0.1")
    named = ("--device", "--gpu-layers", "--flash-attn", "--batch-size", "--kv-unified", "--mmproj", "--lora", "--rpc")
    assert not set(named) & set(args)
    assert value(args, "--fit") == "off"


def test_an_engine_that_could_use_a_card_is_told_when_it_shall_not() -> None:
    assert offload_args(Offload(backends=True)) == ["--device", "none", "--gpu-layers", "0"]


def test_one_device_holds_all_and_several_share() -> None:
    one = offload_args(Offload(LayerSplit((0,), (31,)), ("Vulkan0",)))
    assert (value(one, "--split-mode"), value(one, "--gpu-layers")) == ("none", "31")
    two = offload_args(Offload(LayerSplit((0, 1), (20, 11)), ("Vulkan1", "Vulkan0")))
    assert (value(two, "--tensor-split"), value(two, "--device")) == ("20,11", "Vulkan1,Vulkan0")


def test_workers_hold_the_first_layers() -> None:
    workers = (RpcWorker("192.0.2.7:1", 9), RpcWorker("192.0.2.8:1", 8))
    args = offload_args(Offload(LayerSplit((0,), (14,)), ("CUDA0",), workers))
    assert value(args, "--rpc") == "192.0.2.7:1,192.0.2.8:1"
    assert (value(args, "--device"), value(args, "--tensor-split")) == ("RPC0,RPC1,CUDA0", "9,8,14")


@given(st.lists(st.integers(1, 99), min_size=1, max_size=6))
def test_no_layer_is_lost(layers: list[int]) -> None:
    split = LayerSplit(tuple(range(len(layers))), tuple(layers))
    args = offload_args(Offload(split, tuple(f"CUDA{i}" for i in range(len(layers)))))
    assert int(value(args, "--gpu-layers")) == sum(layers)
    if len(layers) > 1:
        assert sum(map(int, value(args, "--tensor-split").split(","))) == sum(layers)


@pytest.mark.parametrize(
    ("settings", "offloaded", "flag"),
    [
        (ServerSettings(1024), False, None),
        (ServerSettings(1024), True, "on"),
        (ServerSettings(1024, cache_type_v="q8_0"), False, "on"),
        (ServerSettings(1024, flash_attention=False), True, "off"),
    ],
)
def test_flash_attention(settings: ServerSettings, offloaded: bool, flag: str | None) -> None:
    args = memory_args(settings, offloaded=offloaded)
    assert (value(args, "--flash-attn") if "--flash-attn" in args else None) == flag


def test_a_projector_stays_on_the_processor_with_the_layers() -> None:
    files = ServerFiles("/m.gguf", projector="/p.gguf")
    alone = server_args(files, ServerSettings(1024), Offload(), alias="a", bind="::1")
    beside = server_args(
        files, ServerSettings(1024), Offload(LayerSplit((0,), (9,)), ("CUDA0",)), alias="a", bind="::1"
    )
    assert "--no-mmproj-offload" in alone
    assert "--no-mmproj-offload" not in beside


@pytest.mark.parametrize(
    ("architecture", "shape", "reusable"),
    [
        ("llama", {"block_count": 30}, True),
        ("llama", {}, False),
        ("llama4", {"block_count": 30}, False),
        ("gemma3", {"attention.sliding_window": 512}, False),
        ("qwen2", {"attention.sliding_window": 0}, True),
        ("lfm2", {"shortconv.l_cache": 3}, False),
        ("granitehybrid", {"ssm.state_size": 128}, False),
    ],
)
def test_saved_slots(architecture: str, shape: dict[str, object], reusable: bool) -> None:
    assert slots_reusable(architecture, shape) is reusable
