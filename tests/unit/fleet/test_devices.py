"""Which devices a job gets, and how the engine calls them."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.devices import (
    Backend,
    DeviceAccess,
    GpuDevice,
    access,
    backend_for,
    chosen,
    devices_of,
    engine_packages,
    shader_cache,
)
from roost.ops.errors import RoostError

INTEGRATED = GpuDevice(
    0, "AMD", "0000:00:08.0", integrated=True, nodes=("/dev/dri/renderD128", "/dev/kfd"), gids=(105,)
)
CARD = GpuDevice(1, "AMD", "0000:03:00.0", nodes=("/dev/dri/renderD129", "/dev/kfd"), gids=(44, 105))
OTHER = GpuDevice(2, "NVIDIA", "0000:01:00.0")
SECOND = GpuDevice(3, "NVIDIA", "0000:41:00.0")
HOST = (INTEGRATED, CARD, OTHER, SECOND)


def test_vulkan_counts_cards_before_integrated_ones_and_hip_by_address() -> None:
    both = access(HOST, (0, 1), "vulkan", container=True)
    assert both.names == ("Vulkan1", "Vulkan0")
    assert access(HOST, (0, 1), "hip", container=True).names == ("ROCm0", "ROCm1")
    assert access(HOST, (0,), "vulkan", container=False).env["GGML_VK_VISIBLE_DEVICES"] == "1"
    assert access(HOST, (1,), "hip", container=False).env["ROCR_VISIBLE_DEVICES"] == "1"


def test_only_hip_needs_kfd_and_only_the_chosen_cards_nodes_are_given() -> None:
    assert access(HOST, (1,), "vulkan", container=True).nodes == ("/dev/dri/renderD129",)
    assert access(HOST, (1,), "hip", container=True).nodes == ("/dev/dri/renderD129", "/dev/kfd")
    assert access(HOST, (1,), "vulkan", container=True).gids == (44, 105)


def test_nvidia_s_number_is_its_own_and_not_the_host_s() -> None:
    found = access(HOST, (3,), "cuda", container=True)
    assert (found.names, found.runtime) == (("CUDA0",), "nvidia")
    assert found.env["NVIDIA_VISIBLE_DEVICES"] == "1"
    plain = access(HOST, (3,), "cuda", container=False)
    assert (plain.runtime, plain.env["CUDA_VISIBLE_DEVICES"], plain.env["CUDA_DEVICE_ORDER"]) == ("", "1", "PCI_BUS_ID")


def test_vulkan_s_software_renderer_is_out_of_reach() -> None:
    env = access(HOST, (1,), "vulkan", container=False, tree="/tree").env
    assert env["VK_DRIVER_FILES"] == "/tree/usr/share/vulkan/icd.d/radeon_icd.json"
    assert env["NODEVICE_SELECT"] == "1"


def test_compiled_shaders_outlive_a_server_on_vulkan() -> None:
    """Without a folder an H100 answers four requests at 147 tokens/s together after a start, with it at 1,087."""
    nvidia = access(HOST, (3,), "vulkan", container=False)
    assert shader_cache(nvidia, "/srv/slots")["__GL_SHADER_DISK_CACHE_PATH"] == "/srv/slots"
    amd = access(HOST, (1,), "vulkan", container=True)
    assert shader_cache(amd, "/slots") == {"MESA_SHADER_CACHE_DIR": "/slots"}
    assert shader_cache(nvidia, "") == {}
    assert shader_cache(access(HOST, (3,), "cuda", container=False), "/srv/slots") == {}
    assert shader_cache(DeviceAccess(), "/srv/slots") == {}


def test_nothing_wanted_gives_nothing() -> None:
    assert access(HOST, (), "vulkan", container=True) == DeviceAccess()


@pytest.mark.parametrize(
    ("wanted", "word"), [((9,), "no graphics processor 9"), ((1, 2), "together"), ((1, 1), "together")]
)
def test_wrong_choices_are_refused(wanted: tuple[int, ...], word: str) -> None:
    with pytest.raises(RoostError, match=word) as caught:
        chosen(HOST, wanted)
    assert caught.value.fix


def test_a_card_without_a_node_is_refused() -> None:
    with pytest.raises(RoostError, match="no render node"):
        access((GpuDevice(0, "Intel", "0000:09:00.0"),), (0,), "vulkan", container=True)


@pytest.mark.parametrize(
    ("vendor", "packages", "cuda", "backend"),
    [
        ("NVIDIA", ["libggml0-backend-vulkan"], True, "cuda"),
        ("NVIDIA", ["libggml0-backend-vulkan"], False, "vulkan"),
        ("AMD", ["libggml0-backend-vulkan", "libggml0-backend-hip"], False, "hip"),
        ("Intel", ["libggml0-backend-vulkan"], True, "vulkan"),
    ],
)
def test_backends(vendor: str, packages: list[str], cuda: bool, backend: Backend) -> None:
    assert backend_for(vendor, packages, cuda=cuda) == backend


@pytest.mark.parametrize("vendor", ["NVIDIA", "AMD", "Intel", "Apple"])
def test_an_engine_without_a_backend_is_refused(vendor: str) -> None:
    with pytest.raises(RoostError, match=vendor):
        backend_for(vendor, ["llama.cpp-tools"], cuda=False)


def test_packages_without_a_graphics_processor_are_as_ever() -> None:
    base = ["llama.cpp-tools-extra", "llama.cpp-tools"]
    assert engine_packages(base, {"AMD": ["x"]}, []) == tuple(sorted(base))
    assert "x" in engine_packages(base, {"AMD": ["x"]}, ["AMD"])
    with pytest.raises(RoostError, match="Apple"):
        engine_packages(base, {"AMD": ["x"]}, ["Apple"])


def test_facts_become_devices() -> None:
    facts = [{"vendor": "AMD", "slot": "0000:03:00.0", "integrated": False, "nodes": ["/dev/kfd"], "gids": [44]}]
    assert devices_of(facts) == (GpuDevice(0, "AMD", "0000:03:00.0", nodes=("/dev/kfd",), gids=(44,)),)


@given(
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)))),
    st.sampled_from(["hip", "vulkan"]),
    st.booleans(),
)
def test_names_follow_the_wish_and_are_complete(
    drawn: tuple[int, list[int]], backend: Backend, container: bool
) -> None:
    count, order = drawn
    host = [
        GpuDevice(i, "AMD", f"0000:{0x10 - i:02x}:00.0", integrated=i == 1, nodes=(f"/dev/dri/renderD{i}",), gids=(7,))
        for i in range(count)
    ]
    found = access(host, order, backend, container=container)
    base = access(host, range(count), backend, container=container)
    assert sorted(found.names) == sorted(base.names)
    assert dict(zip(order, found.names, strict=True)) == dict(enumerate(base.names))
    assert found.nodes == base.nodes


def test_every_order_of_two_cards_names_the_same_card_alike() -> None:
    names = {order: access(HOST, order, "vulkan", container=True).names for order in permutations((0, 1))}
    assert names[0, 1] == tuple(reversed(names[1, 0]))
