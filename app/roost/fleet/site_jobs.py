"""From the playbook's variables to this site's jobs: what `group_vars` says becomes job descriptions."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from roost.fleet.agent_jobs import GATEWAY_JOB, AgentChoice, agent_job, gateway_job
from roost.fleet.devices import (
    BACKEND_PACKAGES,
    RPC,
    RPC_PACKAGE,
    DeviceAccess,
    access,
    backend_for,
    chosen,
    devices_of,
    engine_packages,
    shader_cache,
)
from roost.fleet.engine_args import RpcWorker
from roost.fleet.job_memory import JobMemory, job_memory
from roost.fleet.job_programs import Programs, driver_of
from roost.fleet.job_text import Job
from roost.fleet.jobs import (
    MODEL_SERVICE_PREFIX,
    MONITORING_JOB,
    NODE_ADDRESS,
    RPC_JOB_PREFIX,
    SEARCH_JOB,
    EnginePlace,
    NodeChoice,
    RpcWorkerChoice,
    RpcWorkerJob,
    SlotChoice,
)
from roost.fleet.model_jobs import model_server_job, rpc_worker_job
from roost.fleet.monitoring.job import monitoring_job
from roost.fleet.search.job import search_job
from roost.fleet.site_wish import HOST_POOL, RpcWish, SiteWish, SlotWish
from roost.models.catalogue import Catalogue
from roost.models.estimate.beside import beside_bytes
from roost.models.estimate.on_host import HostEngine
from roost.models.memory import MIB
from roost.models.schema import Model
from roost.models.slot_reuse import slots_reusable
from roost.ops.errors import RoostError


def used_backends(slots: Sequence[SlotWish], gpus: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the engine of a host has to compute on: vendors of the processors that slots use, and `RPC`.

    Raises:
        RoostError: a slot names a processor that is not there.
    """
    devices = devices_of(gpus)
    used = {device.vendor for slot in slots for device in chosen(devices, slot.gpus)}
    return sorted(used) + ([RPC] if any(slot.rpc for slot in slots) else [])


def unlocked_slots(wish: SiteWish, catalogue: Catalogue) -> dict[str, list[str]]:
    """Return the slots whose model has files that must be locked first, with those files' names in the lock file.

    Raises:
        RoostError: a slot names a model that the catalogue does not have.
    """
    found = {slot.slot: catalogue.unlocked(slot.model) for slot in wish.slots}
    return {slot: names for slot, names in found.items() if names}


def site_jobs(
    wish: SiteWish,
    catalogue: Catalogue,
    programs: Programs,
    memory: JobMemory | None = None,
    *,
    without: Collection[str] = (),
) -> list[Job]:
    """Decide this site's jobs: a model server a slot, workers that hold layers of one, and the agent.

    `memory` knows what this host's engine said of its needs; without it they are computed from headers. The model
    servers of the slots in `without` are left out: of those nothing can be said yet.

    Raises:
        RoostError: a slot names a model that the catalogue does not have, or a graphics processor that is not there or
            on which the engine cannot compute.
    """
    driver = driver_of(wish.runtime)
    memory = memory or job_memory(catalogue, Path(wish.models_dir), None, HostEngine(""))
    jobs: list[Job] = []
    bind = NODE_ADDRESS if wish.engine_address else wish.bind
    for slot in wish.slots:
        for number, worker in enumerate(slot.rpc):
            jobs.append(_rpc_worker(worker, number, slot, wish, programs))
        if slot.slot in without:
            continue
        choice, place = _slot(slot, wish, catalogue, programs, memory)
        jobs.append(model_server_job(choice, place, wish.engine_identity, datacenter=wish.datacenter, bind=bind))
    if not wish.with_agent:
        return jobs
    agent_program, *agent_args = programs.agent_command or ("",)
    agent = AgentChoice(
        driver=driver,
        bind=wish.bind,
        port=wish.api_port,
        memory_mib=wish.agent_memory_mib,
        log_level=wish.agent_log_level,
        cost_mode=wish.agent_cost_mode,
        image=programs.agent_image,
        command=agent_program,
        args=tuple(agent_args),
        env={
            **programs.agent_env,
            **warmth_env(wish),
            **{name: _environment(value) for name, value in wish.agent_settings.items()},
        },
        state_dir=wish.agent_state_dir,
        listen=wish.listen,
        replicas=wish.gateway_replicas,
        node=wish.node,
        engine_ca=bool(wish.node),
        tls_dir=wish.gateway_tls_dir,
    )
    if wish.gateway_replicas:
        if not wish.listen:
            raise RoostError(
                "Several gateways must reach each other, and api_listen_address is empty.",
                fix="Set api_listen_address on every host, or gateway_replicas to 0.",
            )
        jobs.append(gateway_job(agent, wish.agent_identity, datacenter=wish.datacenter))
    jobs.append(agent_job(agent, wish.agent_identity, datacenter=wish.datacenter))
    if wish.monitoring:
        watching = programs.monitoring
        jobs.append(monitoring_job(wish.monitoring, watching, driver, datacenter=wish.datacenter, bind=wish.bind))
    if wish.search:
        jobs.append(search_job(wish.search, programs.search, driver, datacenter=wish.datacenter, bind=wish.bind))
    return jobs


def warmth_env(wish: SiteWish) -> dict[str, str]:
    """Return the agent's settings for stopping, starting and replacing models; see `roost.gateway.settings`."""
    env = {
        "ROOST_MEMORY_POOLS": ",".join(f"{pool}={count}" for pool, count in sorted(wish.memory_pools.items())),
        "ROOST_MODEL_FALLBACKS": json.dumps(wish.fallbacks, sort_keys=True) if wish.fallbacks else "",
        "ROOST_IDLE_STOP_S": str(wish.idle_stop_s) if wish.idle_stop_s else "",
        "ROOST_MIN_STAY_S": str(wish.min_stay_s) if wish.min_stay_s else "",
    }
    return {name: value for name, value in env.items() if value}


def _place(wish: SiteWish, programs: Programs, command: Sequence[str], packages: Sequence[str]) -> EnginePlace:
    program, *leading = command or ("",)
    return EnginePlace(
        driver=driver_of(wish.runtime),
        engine=wish.engine,
        models_dir=wish.models_dir,
        image=programs.engine_image,
        command=program,
        leading_args=tuple(leading),
        work_dir=programs.engine_work_dir,
        env=programs.engine_env,
        threads=wish.engine_threads,
        backends=any(package in packages for package in (*BACKEND_PACKAGES.values(), RPC_PACKAGE)),
        node=wish.node,
        tls_dir=wish.engine_tls_dir,
        start_s=wish.start_s,
    )


def _slot(
    slot: SlotWish, wish: SiteWish, catalogue: Catalogue, programs: Programs, memory: JobMemory
) -> tuple[SlotChoice, EnginePlace]:
    """Decide one model server: what it serves, and how its engine is started."""
    model = catalogue.get(slot.model)
    packages = engine_packages(wish.engine_packages, wish.engine_gpu_packages, used_backends(wish.slots, wish.gpus))
    place = _place(wish, programs, programs.engine_command, packages)
    devices = DeviceAccess()
    if slot.gpus:
        if wish.engine != "llama.cpp":
            raise RoostError(
                f"The engine {wish.engine} computes on the processor only, and slot {slot.slot} wants a graphics one.",
                fix="Set engine to llama.cpp, or the slot's `gpu` to none.",
            )
        found = devices_of(wish.gpus)
        cuda = bool(wish.engine_cuda_image) and place.driver == "docker"
        backend = backend_for(chosen(found, slot.gpus)[0].vendor, packages, cuda=cuda)
        if backend == "cuda":
            place = replace(place, image=wish.engine_cuda_image, foreign=True)
        container = place.driver == "docker"
        devices = access(found, slot.gpus, backend, container=container, tree="" if container else programs.engine_tree)
    if _saves_slots(slot, model, wish):
        place = replace(place, slots_dir=wish.slots_dir)
    if shader_cache(devices, wish.slots_dir):
        place = replace(place, shaders_dir=wish.slots_dir)
    projector, adapters = _beside(slot, model, catalogue)
    memory_mib = slot.memory_mib or (
        memory.limit_mib(model.name, model.quantisation, slot.settings, slot.split)
        + -(-beside_bytes(catalogue, model.name, slot.adapters, Path(wish.models_dir)) // MIB)
    )
    choice = SlotChoice(
        slot=slot.slot,
        model=model.name,
        file=model.file.relative_path,
        settings=slot.settings,
        memory_mib=memory_mib,
        memory=_pools(slot.memory or {HOST_POOL: memory_mib << 20}, wish.node),
        tier=model.tier,
        keep_warm=slot.keep_warm,
        on_demand=slot.on_demand,
        temperature=slot.temperature,
        split=slot.split,
        devices=devices,
        rpc=tuple(RpcWorker(endpoint(worker.address, worker.port), worker.layers) for worker in slot.rpc),
        projector=projector,
        adapters=adapters,
        embedding=slot.embedding or set(model.roles) == {"embedding"},
        chat_template=model.quirks.chat_template,
        node=_nodes(slot, wish),
        number=slot.number,
    )
    return choice, place


def _nodes(slot: SlotWish, wish: SiteWish) -> NodeChoice:
    if wish.node:
        return NodeChoice(wish.node, tuple(slot.spares))
    return NodeChoice(slot.host, tuple(slot.spares)) if slot.spares or slot.rpc else NodeChoice()


def _pools(memory: Mapping[str, int], node: str) -> dict[str, int]:
    """Name each machine's memory apart from that of the others of a fleet."""
    return {f"{node}/{pool}" if node else pool: count for pool, count in memory.items()}


def _saves_slots(slot: SlotWish, model: Model, wish: SiteWish) -> bool:
    if slot.save_slots is not None:
        return slot.save_slots
    return wish.engine == "llama.cpp" and slots_reusable(model.architecture, model.shape)


def _beside(slot: SlotWish, model: Model, catalogue: Catalogue) -> tuple[str, tuple[str, ...]]:
    """Return the files of the projector and of the adapters, below the models folder.

    Raises:
        RoostError: the model has no such adapter, or its file is not known yet.
    """
    if not (model.extras or slot.adapters):
        return slot.projector, ()
    files = catalogue.known_files()
    unknown = next((name for name in model.extras if name not in files), None)
    if unknown is not None:
        raise RoostError(
            f"Size and hash of {unknown} are not known yet.", fix=f"Run `sudo roost models pull {model.reference}`."
        )
    found: list[str] = []
    for adapter in slot.adapters:
        if adapter not in model.adapters and "/" not in adapter:
            raise RoostError(
                f"The model {model.name} has no adapter {adapter!r}.",
                fix=f"Use one of: {', '.join(model.adapters) or 'none'}; or add it to the model's adapters.",
            )
        name = f"{model.name}:adapter:{adapter}"
        found.append(files[name].relative_path if name in files else adapter)
    projector = files.get(f"{model.name}:projector")
    return slot.projector or (projector.relative_path if projector else ""), tuple(found)


def _rpc_worker(worker: RpcWish, number: int, slot: SlotWish, wish: SiteWish, programs: Programs) -> RpcWorkerJob:
    found = devices_of(worker.gpu_facts)
    vendors = {device.vendor for device in chosen(found, worker.gpus)}
    packages = engine_packages(wish.engine_packages, wish.engine_gpu_packages, [*sorted(vendors), RPC])
    place = _place(wish, programs, programs.rpc_command, packages)
    devices = DeviceAccess()
    if worker.gpus:
        container = place.driver == "docker"
        backend = backend_for(vendors.pop(), packages, cuda=False)
        tree = "" if container else programs.engine_tree
        devices = access(found, worker.gpus, backend, container=container, tree=tree)
    choice = RpcWorkerChoice(
        slot=slot.slot,
        number=number,
        node=worker.host,
        port=worker.port,
        memory_mib=worker.memory_mib,
        devices=devices,
        network=worker.network,
    )
    return rpc_worker_job(choice, place, wish.engine_identity, datacenter=wish.datacenter, bind=worker.address)


def endpoint(address: str, port: int) -> str:
    """Write where a worker listens; an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _environment(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def stale_jobs(existing: Sequence[str], wanted: Sequence[Job], elsewhere: Collection[str] = ()) -> list[str]:
    """Return the model servers, workers, gateways, Prometheus and SearXNG of ours that nothing wants any more.

    `elsewhere` are names of jobs that other machines of the fleet want.
    """
    names = {job.name for job in wanted} | set(elsewhere)
    ours = (MODEL_SERVICE_PREFIX, RPC_JOB_PREFIX, GATEWAY_JOB)
    single = {MONITORING_JOB, SEARCH_JOB}
    return sorted(name for name in existing if (name.startswith(ours) or name in single) and name not in names)


def templates_dir(release_dir: Path) -> Path:
    """Return the folder of the job templates in a release."""
    return release_dir / "nomad"
