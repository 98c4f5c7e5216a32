"""From what the playbook says to jobs: which ones, on what, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from roost.fleet.job_secrets import job_secrets
from roost.fleet.job_text import Job
from roost.fleet.jobs import ModelServerJob, RpcWorkerJob
from roost.fleet.site_jobs import endpoint, site_jobs, stale_jobs, unlocked_slots, used_backends
from roost.fleet.site_wish import SlotWish
from roost.models.schema import ListedDownload, Quirks
from roost.ops.errors import RoostError
from tests.unit.fleet.golden_jobs import AMD, BASE, NVIDIA, ONE, RPC_WORKER, catalogue, programs, wish


def jobs(slot: dict[str, Any], facts: list[dict[str, Any]], runtime: str = "docker", **more: object) -> list[Job]:
    return site_jobs(wish(runtime, facts, slot, more), catalogue(), programs(runtime))


def test_a_worker_comes_before_the_server_that_needs_it_and_knows_no_secret() -> None:
    found = jobs({**BASE, "rpc": [RPC_WORKER]}, [])
    assert [job.name for job in found] == ["roost-rpc-main-0", "roost-model-main", "roost-agent"]
    assert isinstance(found[0], RpcWorkerJob)
    secrets = job_secrets(found, engine_key="k", api_keys=["a"], tls=None)
    assert set(secrets) == {"nomad/jobs/roost-model-main", "nomad/jobs/roost-agent"}


def test_the_server_of_a_file_that_is_not_locked_is_left_out_where_that_is_asked_for() -> None:
    listed = catalogue()
    name = str(BASE["model"])
    hub = {"kind": "hub", "repository": "o/r", "file": "f.gguf", "revision": "main"}
    download = ListedDownload.model_validate({"file": {"name": "f.gguf"}, "sources": [hub]})
    projected = listed.model_copy(
        update={"entries": {name: listed.entries[name].model_copy(update={"projector": download})}}
    )
    other = {**BASE, "slot": "other", "model": name, "rpc": [RPC_WORKER]}
    asked = wish("docker", [], other, {})
    assert unlocked_slots(asked, listed) == {}
    assert unlocked_slots(asked, projected) == {"other": [f"{name}:projector"]}
    with pytest.raises(RoostError, match="not known yet"):
        site_jobs(asked, projected, programs("docker"))
    found = site_jobs(asked, projected, programs("docker"), without=["other"])
    assert [job.name for job in found] == ["roost-rpc-other-0", "roost-agent"]


def test_workers_that_nobody_needs_any_more_are_stale() -> None:
    found = jobs(BASE, [])
    assert stale_jobs(["roost-rpc-main-0", "roost-model-old", "roost-model-main", "other"], found) == [
        "roost-model-old",
        "roost-rpc-main-0",
    ]


def test_an_engine_without_devices_is_refused_a_card() -> None:
    with pytest.raises(RoostError, match="computes on the processor only"):
        jobs(ONE, AMD, runtime="local", engine="llama-cpp-python")


def test_a_card_that_is_not_there_is_refused() -> None:
    with pytest.raises(RoostError, match="no graphics processor 0"):
        jobs(ONE, [])


def test_a_vendor_without_packages_is_refused() -> None:
    with pytest.raises(RoostError, match="NVIDIA"):
        jobs(ONE, NVIDIA, engine_gpu_packages={"AMD": ["libggml0-backend-vulkan"]})


def test_the_image_with_cuda_is_for_containers_only() -> None:
    image = "registry.example/cuda"
    inside, outside = (jobs(ONE, NVIDIA, runtime=r, engine_cuda_image=image)[0] for r in ("docker", "local"))
    assert isinstance(inside, ModelServerJob)
    assert isinstance(outside, ModelServerJob)
    assert (inside.image, inside.foreign, inside.devices.names) == (image, True, ("CUDA0",))
    assert (outside.image, outside.foreign, outside.devices.names) == ("", False, ("Vulkan0",))


def test_the_limit_is_the_plan_s_where_it_named_one() -> None:
    planned, own = jobs(ONE, AMD)[0], jobs({**ONE, "memory_mib": 0}, AMD)[0]
    assert planned.memory_mib == 512
    assert 352 < own.memory_mib < 512  # the layers lie on the processor's card, overhead and prompt cache do not


def test_one_host_has_no_constraint_and_a_spare_makes_one() -> None:
    alone, spared = jobs({**BASE, "host": "a"}, [])[0], jobs({**BASE, "host": "a", "spares": ["b"]}, [])[0]
    assert isinstance(alone, ModelServerJob)
    assert isinstance(spared, ModelServerJob)
    assert (alone.nodes, spared.nodes) == ([], ["a", "b"])


def test_what_the_engine_computes_on_is_what_slots_use() -> None:
    slots = [SlotWish.model_validate(slot) for slot in (BASE, {**ONE, "slot": "b"}, {**ONE, "slot": "c"})]
    assert used_backends(slots, AMD) == ["AMD"]
    assert used_backends(slots[:1], AMD) == []
    assert used_backends([SlotWish.model_validate({**BASE, "rpc": [RPC_WORKER]})], []) == ["RPC"]


@pytest.mark.parametrize("layers", [[], [1, 2], [0]])
def test_layers_belong_to_processors(layers: list[int]) -> None:
    with pytest.raises(ValidationError, match="gpu_layers"):
        SlotWish.model_validate({**ONE, "gpu_layers": layers})


def test_an_address_of_the_newer_kind_is_bracketed() -> None:
    assert (endpoint("fd00::7", 1), endpoint("192.0.2.7", 1)) == ("[fd00::7]:1", "192.0.2.7:1")


def test_slots_are_saved_where_that_helps() -> None:
    saved = jobs(BASE, [])[0]
    assert isinstance(saved, ModelServerJob)
    assert (saved.slots_mount, "--slot-save-path" in saved.args) == ("/slots", True)
    unsaved = jobs({**BASE, "save_slots": False}, [])[0]
    assert isinstance(unsaved, ModelServerJob)
    assert (unsaved.slots_mount, "--slot-save-path" in unsaved.args) == ("", False)


def test_an_adapter_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(RoostError, match="no adapter 'poet'"):
        jobs({**BASE, "adapters": ["poet"]}, [])


def test_projector_adapter_and_template_come_from_the_catalogue() -> None:
    listed = catalogue()
    name, digits = BASE["model"], "0123456789abcdef" * 4
    source = {"kind": "url", "url": "https://example.org/f"}
    entry = listed.entries[str(name)].model_copy(
        update={
            "projector": ListedDownload.model_validate(
                {"file": {"name": "mmproj.gguf", "bytes": 9, "sha256": digits}, "sources": [source]}
            ),
            "adapters": {
                "poet": ListedDownload.model_validate(
                    {"file": {"name": "poet.gguf", "bytes": 9, "sha256": digits[::-1]}, "sources": [source]}
                )
            },
            "quirks": Quirks(chat_template="chatml"),
            "roles": {"embedding": 50},
        }
    )
    extended = listed.model_copy(update={"entries": {**listed.entries, str(name): entry}})
    job = site_jobs(wish("docker", [], {**BASE, "adapters": ["poet"]}, {}), extended, programs("docker"))[0]
    assert isinstance(job, ModelServerJob)
    text = " ".join(job.args)
    assert "--mmproj /models/0123456789abcdef/mmproj.gguf --no-mmproj-offload" in text
    assert "--lora /models/fedcba9876543210/poet.gguf --lora-init-without-apply" in text
    assert "--chat-template chatml" in text
    assert "--embedding" in text
