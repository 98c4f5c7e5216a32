"""The jobs of model servers, and of workers that hold layers of one: pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

from roost.fleet.artifacts.engine import RPC_WORKER, program_path
from roost.fleet.devices import shader_cache
from roost.fleet.engine_args import ENGINE_KEY_FILE, PORT, Offload, ServerFiles, rpc_worker_args, server_args
from roost.fleet.engine_start import planned_text
from roost.fleet.jobs import (
    FLEET_NETWORK,
    KEEP_WARM_TAG,
    LOOPBACK_NETWORK,
    META_LAYERS,
    META_NODE,
    META_PLANNED,
    META_SLOTS,
    MODELS_MOUNT,
    MOVES_TAG,
    RPC_JOB_PREFIX,
    SLOTS_MOUNT,
    TLS_MOUNT,
    TLS_TAG,
    EnginePlace,
    Identity,
    ModelServerJob,
    RpcWorkerChoice,
    RpcWorkerJob,
    SlotChoice,
    job_name,
)
from roost.ops.errors import RoostError


def _kept_folder(place: EnginePlace, folder: str) -> str:
    """Return how the server sees the folder that outlives it; empty where it has none."""
    return folder and (SLOTS_MOUNT if place.driver == "docker" else folder)


def _llama_server(choice: SlotChoice, place: EnginePlace, models: str, bind: str) -> list[str]:
    slots = _kept_folder(place, place.slots_dir)
    return server_args(
        ServerFiles(
            model=f"{models}/{choice.file}",
            projector=choice.projector and f"{models}/{choice.projector}",
            adapters=tuple(f"{models}/{adapter}" for adapter in choice.adapters),
            slot_save_dir=slots,
            tls_cert=_tls_files(place)[0],
            tls_key=_tls_files(place)[1],
        ),
        # The engine's cache of prompts does not tell adapters apart (llama.cpp, issue 26207; seen with build 11669).
        replace(choice.settings, cache_ram_mib=0) if choice.adapters else choice.settings,
        Offload(choice.split, choice.devices.names, choice.rpc, backends=place.backends),
        alias=choice.model,
        bind=bind,
        threads=place.threads,
        temperature=choice.temperature,
        embedding=choice.embedding,
        chat_template=choice.chat_template,
    )


def _tls_files(place: EnginePlace) -> tuple[str, str]:
    """Return certificate and key as the server sees them; empty where it answers in the clear, on loopback."""
    if not place.tls_dir:
        return "", ""
    folder = TLS_MOUNT if place.driver == "docker" else place.tls_dir
    return f"{folder}/cert.pem", f"{folder}/key.pem"


def _llama_cpp_python(choice: SlotChoice, models: str, bind: str) -> dict[str, str]:
    env = {
        "ROOST_ENGINE_MODEL": f"{models}/{choice.file}",
        "ROOST_ENGINE_ALIAS": choice.model,
        "ROOST_ENGINE_HOST": bind,
        "ROOST_ENGINE_PORT": PORT,
        "ROOST_ENGINE_CONTEXT": str(choice.settings.context_size),
        "ROOST_ENGINE_KEY_FILE": ENGINE_KEY_FILE,
    }
    if choice.temperature is not None:
        env["ROOST_ENGINE_TEMPERATURE"] = str(choice.temperature)
    return env


def _plan_meta(choice: SlotChoice) -> dict[str, str]:
    planned = {worker.address: worker.layers for worker in choice.rpc}
    planned |= dict(zip(choice.devices.names, choice.split.gpu_layers, strict=True))
    if not planned:
        return {}
    return {META_LAYERS: planned_text(planned), META_SLOTS: " ".join(choice.devices.slots)}


def _fleet_meta(choice: SlotChoice, place: EnginePlace) -> dict[str, str]:
    if not place.node:
        return {}
    return {META_PLANNED if choice.number else META_NODE: place.node}


def _tags(choice: SlotChoice, place: EnginePlace) -> list[str]:
    """Return what the agent reads of a model server, running or not: `roost.gateway.tags`."""
    tags = [f"engine={place.engine}", f"slot={choice.slot}", f"model={choice.model}"]
    tags += [f"tier={choice.tier}"] if choice.tier else []
    tags += [f"memory={pool}:{count}" for pool, count in sorted(choice.memory.items())]
    tags += [f"adapter={PurePath(adapter).stem}" for adapter in choice.adapters]
    tags += [KEEP_WARM_TAG] if choice.keep_warm else []
    tags += [TLS_TAG] if place.tls_dir else []
    tags += [MOVES_TAG] if len(choice.node.names) > 1 else []
    return [*tags, "keeps_slots=true"] if place.slots_dir else tags


def model_server_job(
    choice: SlotChoice, place: EnginePlace, who: Identity, *, datacenter: str, bind: str
) -> ModelServerJob:
    """Decide a model server's job. The engine listens on `bind` only and needs its key."""
    models = MODELS_MOUNT if place.driver == "docker" else place.models_dir
    env = {**place.env, **choice.devices.env}
    env |= shader_cache(choice.devices, _kept_folder(place, place.shaders_dir))
    args = list(place.leading_args)
    if place.engine == "llama.cpp":
        args += _llama_server(choice, place, models, bind)
    else:
        if place.tls_dir:
            raise RoostError(
                f"The engine {place.engine} has no TLS, and in a fleet model servers answer other machines.",
                fix="Set engine to llama.cpp.",
            )
        env |= _llama_cpp_python(choice, models, bind)
    command, args = who.command(place.driver, place.command, args, choice.devices.gids)
    return ModelServerJob(
        name=job_name(choice.slot, place.node, choice.number),
        service=job_name(choice.slot),
        network=FLEET_NETWORK if place.tls_dir else LOOPBACK_NETWORK,
        tls_mount=TLS_MOUNT if place.tls_dir else "",
        datacenter=datacenter,
        driver=place.driver,
        engine=place.engine,
        slot=choice.slot,
        model=choice.model,
        user=who.user(place.driver),
        uid=who.uid,
        gid=who.gid,
        image=place.image,
        foreign=place.foreign,
        command=command,
        work_dir=place.work_dir,
        args=args,
        env=dict(sorted(env.items())),
        health_path="/health",
        models_mount=MODELS_MOUNT,
        slots_mount=SLOTS_MOUNT if place.slots_dir or place.shaders_dir else "",
        saves_slots=bool(place.slots_dir),
        count=0 if choice.on_demand else 1,
        tags=_tags(choice, place),
        devices=choice.devices,
        meta=_plan_meta(choice) | _fleet_meta(choice, place),
        nodes=choice.node.names,
        cpu_mhz=500,
        memory_mib=choice.memory_mib,
        start_s=place.start_s,
    )


def rpc_worker_job(
    choice: RpcWorkerChoice, place: EnginePlace, who: Identity, *, datacenter: str, bind: str
) -> RpcWorkerJob:
    """Decide the job of a worker that holds layers of the slot's server, which runs on another host.

    The protocol knows no key and no encryption, so `bind` is an address that only the fleet reaches.
    """
    args = [*place.leading_args, *rpc_worker_args(bind, str(choice.port), choice.devices.names, place.threads)]
    command, args = who.command(place.driver, place.command, args, choice.devices.gids)
    return RpcWorkerJob(
        name=f"{RPC_JOB_PREFIX}{choice.slot}-{choice.number}",
        datacenter=datacenter,
        driver=place.driver,
        slot=choice.slot,
        user=who.user(place.driver),
        image=place.image,
        entrypoint=f"/{program_path(RPC_WORKER)}",
        command=command,
        work_dir=place.work_dir,
        args=args,
        env=dict(sorted({**place.env, **choice.devices.env}.items())),
        devices=choice.devices,
        node=choice.node,
        network=choice.network,
        port=choice.port,
        cpu_mhz=500,
        memory_mib=choice.memory_mib,
    )
