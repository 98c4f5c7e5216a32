"""What is read from start logs, and what is missing compared with a plan. Each log names its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.engine_start import (
    Buffers,
    EngineStart,
    FoundDevice,
    planned_layers,
    planned_text,
    read_start,
    shortfall,
)

LOGS = Path(__file__).parent / "start_logs"


def start(name: str) -> EngineStart:
    found = read_start((LOGS / f"{name}.txt").read_text())
    assert found is not None
    return found


def test_every_log_names_its_source() -> None:
    assert all(path.read_text().startswith("source: ") for path in LOGS.glob("*.txt"))


def test_processor_only() -> None:
    found = start("cpu")
    assert (found.layers, found.of, found.context, found.slots) == (0, 31, 16384, 2)
    assert found.buffers == {"CPU": Buffers(model=92.10, kv=360.0, compute=22.64, output=0.38)}


def test_weights_that_a_processor_repacks_are_on_no_card() -> None:
    found = start("cpu-amx")
    assert found.buffers == {"CPU": Buffers(model=95.34 + 28.69, kv=22.5, compute=15.14, output=0.38)}


def test_layers_on_two_cards() -> None:
    found = start("cuda-two-cards")
    assert (found.layers, found.of) == (33, 33)
    assert [(device.id, device.free_mib) for device in found.devices] == [("CUDA0", 23600), ("CUDA1", 23700)]
    assert found.buffers["CUDA1"] == Buffers(model=1700.0, kv=1536.0, compute=420.0)
    assert found.buffers["CPU"] == Buffers(model=281.81, compute=72.0)
    assert shortfall(found, {"CUDA0": 20, "CUDA1": 13}) == ""
    assert "found no CUDA2" in shortfall(found, {"CUDA2": 20})
    assert "33 of 40" in shortfall(found, {"CUDA0": 20, "CUDA1": 20})


def test_workers_of_other_hosts_are_known_by_their_address() -> None:
    found = start("rpc")
    assert found.buffers["127.0.0.1:28781"] == Buffers(model=31.71, kv=180.0, compute=59.05)
    assert shortfall(found, {"127.0.0.1:28781": 15, "127.0.0.1:28782": 16}) == ""
    assert "no weights lie on 127.0.0.1:9" in shortfall(found, {"127.0.0.1:28781": 15, "127.0.0.1:9": 16})


def test_a_software_renderer_is_no_card_however_many_layers_it_took() -> None:
    found = start("vulkan-software")
    assert (found.layers, found.of) == (31, 31)
    assert "llvmpipe" in shortfall(found, {"Vulkan0": 31})


def test_all_layers_on_a_card_of_nvidia() -> None:
    found = start("vulkan-nvidia")
    assert (found.layers, found.of, found.context, found.slots) == (31, 31, 32768, 4)
    assert found.devices[0] == FoundDevice("Vulkan0", "NVIDIA H100 80GB HBM3", 81062)
    assert found.buffers["Vulkan0"] == Buffers(model=68.91, kv=720.0, compute=21.51)
    assert found.buffers["CPU"] == Buffers(model=15.19, compute=12.52, output=0.75)
    assert shortfall(found, {"Vulkan0": 31}) == ""


def test_an_older_log_without_a_list_of_devices() -> None:
    found = start("vulkan-amd")
    assert (found.layers, found.buffers["Vulkan0"].model) == (29, 604.15)
    assert shortfall(found, {"Vulkan0": 29}) == ""


@pytest.mark.parametrize("name", ["cpu", "rocm-fallen-back"])
def test_layers_that_fell_back_to_the_processor_are_missed(name: str) -> None:
    assert shortfall(start(name), {"ROCm0": 41})
    assert not shortfall(start(name), {})


def test_the_newest_of_several_starts_counts() -> None:
    both = "\n".join((LOGS / f"{name}.txt").read_text() for name in ("cuda-two-cards", "cpu"))
    found = read_start(both)
    assert found is not None
    assert found.layers == 0
    assert "CUDA0" not in found.buffers


@pytest.mark.parametrize("text", ["", "load_tensors: loading model tensors", "\x00 buffer size = 1 MiB", "x" * 10000])
def test_a_log_that_does_not_say_gives_nothing(text: str) -> None:
    assert read_start(text) is None


@given(st.dictionaries(st.sampled_from(["CUDA0", "Vulkan1", "192.0.2.7:50052", "[fd00::7]:50052"]), st.integers(1, 99)))
def test_a_plan_is_read_as_it_was_written(planned: dict[str, int]) -> None:
    assert planned_layers(planned_text(planned)) == planned


@pytest.mark.parametrize("text", ["", ",", "=", "a", "a=b", "=3"])
def test_what_is_no_plan_counts_for_nothing(text: str) -> None:
    assert planned_layers(text) == {}
