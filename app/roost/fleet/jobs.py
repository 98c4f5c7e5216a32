"""What the jobs of model servers and what runs beside them are made of: pure, the same for playbook, CLI and tests.

The agent's is in `agent_jobs`; `job_text` writes HCL from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Literal

from roost.fleet.artifacts.engine import RPC_WORKER, program_path
from roost.fleet.devices import DeviceAccess, shader_cache
from roost.fleet.engine_args import ENGINE_KEY_FILE, PORT, Offload, RpcWorker, ServerFiles, rpc_worker_args, server_args
from roost.fleet.engine_start import planned_text
from roost.models.footprint import LayerSplit, ServerSettings
from roost.ops.errors import RoostError

Driver = Literal["docker", "raw_exec"]
Engine = Literal["llama.cpp", "llama-cpp-python"]

MODEL_SERVICE_PREFIX = "roost-model-"
KEEP_WARM_TAG = "keep_warm=true"  # of a model server's service; the other tags are read by roost.gateway.tags
RPC_JOB_PREFIX = "roost-rpc-"
MONITORING_JOB = "roost-monitoring"
MONITORING_KEY = "monitoring"  # name of its key of the API
SEARCH_JOB = "roost-search"  # and its service
MODELS_MOUNT = "/models"
SLOTS_MOUNT = "/slots"
META_LAYERS = "roost_gpu_layers"  # of a job: how many layers belong on which device
META_SLOTS = "roost_gpu_slots"  # PCI addresses of the cards it uses
META_NODE = "roost_node"  # the machine of a fleet whose own slot the job is, and whose playbook run registers it
META_PLANNED = "roost_planned"  # the same of a slot that may run anywhere: it stays when the machine leaves
NODE_ADDRESS = "${NOMAD_IP_http}"  # of the machine where Nomad runs the job, planned or spare
LOOPBACK_NETWORK = "loopback"
FLEET_NETWORK = "fleet"  # Nomad's name of a machine's address in the fleet
TLS_MOUNT = "/tls"
TLS_TAG = "tls=true"
MOVES_TAG = "moves=true"  # other machines may run it
START_S = 180  # where nobody says otherwise (`model_start_s`)
NOT_IN_NAMES = re.compile(r"[^a-z0-9-]")  # of a job whose Nomad variables have its name
SETPRIV = "/usr/bin/setpriv"  # of util-linux, which every Debian has


@dataclass(frozen=True)
class Identity:
    """Who a task runs as. `name` and `group` are those on the host, used by `raw_exec`; containers use the numbers."""

    name: str
    group: str
    uid: int
    gid: int

    def user(self, driver: Driver) -> str:
        """Return the value of a task's `user`; empty for `raw_exec`, where `command` changes the user."""
        return f"{self.uid}:{self.gid}" if driver == "docker" else ""

    def command(
        self, driver: Driver, program: str, args: Sequence[str], gids: Sequence[int] = ()
    ) -> tuple[str, list[str]]:
        """Return the command and arguments that run `program` as this user, with the groups `gids` besides its own.

        With `user = ...`, raw_exec of Nomad 1.11 leaves root's group with the process (seen), so setpriv drops the
        user, every group and every capability instead.
        """
        if driver == "docker":
            return program, list(args)
        groups = ["--groups", ",".join(map(str, gids))] if gids else ["--clear-groups"]
        drop = ["--reuid", self.name, "--regid", self.group, *groups, "--no-new-privs"]
        return SETPRIV, [*drop, "--bounding-set=-all", "--inh-caps=-all", program, *args]


@dataclass(frozen=True)
class NodeChoice:
    """Where Nomad may run a job, by node names: at best on `planned`, else on a spare. Nothing named: anywhere."""

    planned: str = ""
    spares: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Return every node that may run it, the planned one first."""
        return [self.planned, *self.spares] if self.planned else []


@dataclass(frozen=True)
class SlotChoice:
    """One model server that is wanted. `temperature` None leaves it to the client; files are below the models folder.

    `memory_mib` limits the job, in the machine's own memory: what lies on a graphics processor is no part of it.
    `memory` is what it is planned to hold, in bytes by pool. It is never stopped for being idle if `keep_warm`, and at
    first not started if `on_demand`.
    """

    slot: str
    model: str
    file: str  # <16 hex>/<name>
    settings: ServerSettings
    memory_mib: int
    temperature: float | None = None
    split: LayerSplit = field(default_factory=LayerSplit)
    devices: DeviceAccess = field(default_factory=DeviceAccess)
    rpc: tuple[RpcWorker, ...] = ()
    projector: str = ""
    adapters: tuple[str, ...] = ()
    embedding: bool = False
    chat_template: str = ""  # of the engine's own; empty: the model's
    memory: Mapping[str, int] = field(default_factory=dict)
    tier: str = ""
    keep_warm: bool = False
    on_demand: bool = False
    node: NodeChoice = field(default_factory=NodeChoice)
    number: int = 0  # of a slot that may run anywhere in a fleet, from 1


@dataclass(frozen=True)
class EnginePlace:
    """How the engine is started: an image, or a command in `work_dir` with leading arguments.

    `backends`: it could compute on devices. `foreign`: an image that is not ours. `slots_dir`: where slots are saved,
    a folder of the host; empty where they are not. `shaders_dir`: the same folder, where compiled shaders are kept.
    `node`: the machine of a fleet that it is for; there the server
    answers others with the certificate of `tls_dir`, a folder of the host with cert.pem and key.pem.
    """

    driver: Driver
    engine: Engine
    models_dir: str
    image: str = ""
    command: str = ""
    leading_args: tuple[str, ...] = ()
    work_dir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0  # that compute; 0 leaves it to the engine
    backends: bool = False
    foreign: bool = False
    slots_dir: str = ""
    shaders_dir: str = ""
    node: str = ""
    tls_dir: str = ""
    start_s: int = START_S  # within which it must be healthy


@dataclass(frozen=True)
class ModelServerJob:
    """Everything the model server's template shows. `meta` says what its start log must show."""

    name: str
    service: str
    network: str
    tls_mount: str
    datacenter: str
    driver: Driver
    engine: Engine
    slot: str
    model: str
    user: str
    uid: int
    gid: int
    image: str
    foreign: bool
    command: str
    work_dir: str
    args: list[str]
    env: dict[str, str]
    health_path: str
    models_mount: str
    slots_mount: str
    saves_slots: bool
    count: int
    tags: list[str]
    devices: DeviceAccess
    meta: dict[str, str]
    nodes: list[str]
    cpu_mhz: int
    memory_mib: int
    start_s: int  # within which it must be healthy


@dataclass(frozen=True)
class RpcWorkerJob:
    """Everything the template of a worker that holds layers of another host's server shows."""

    name: str
    datacenter: str
    driver: Driver
    slot: str
    user: str
    image: str
    entrypoint: str
    command: str
    work_dir: str
    args: list[str]
    env: dict[str, str]
    devices: DeviceAccess
    node: str
    network: str
    port: int
    cpu_mhz: int
    memory_mib: int


@dataclass(frozen=True)
class RpcWorkerChoice:
    """A worker that is wanted on `node`; `number` counts those of one slot, `network` is Nomad's name of an address."""

    slot: str
    number: int
    node: str
    port: int
    memory_mib: int
    devices: DeviceAccess = field(default_factory=DeviceAccess)
    network: str = LOOPBACK_NETWORK


@dataclass(frozen=True)
class PlainFile:
    """A file in the task's own folder, its text given."""

    name: str
    text: str


@dataclass(frozen=True)
class Job:
    """What the templates of all jobs beside the model servers show: who runs what, and how."""

    name: str
    datacenter: str
    driver: Driver
    user: str
    uid: int
    gid: int
    image: str
    command: str
    args: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class MonitoringJob(Job):
    """Everything the template of Prometheus shows; `service` is that of the gateways."""

    files: list[PlainFile]
    targets_file: str
    service: str
    key_name: str
    state_mount: str
    port: int
    cpu_mhz: int
    memory_mib: int


@dataclass(frozen=True)
class SearchJob(Job):
    """Everything the template of SearXNG shows."""

    settings_file: str
    settings_item: str
    signing_item: str
    port: int
    cpu_mhz: int
    memory_mib: int


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


def job_name(slot: str, node: str = "", number: int = 0) -> str:
    """Return the name of a slot's job: with the machine where each of a fleet has its own, else with its number."""
    if number:
        return f"{MODEL_SERVICE_PREFIX}{slot}-{number}"
    return f"{MODEL_SERVICE_PREFIX}{slot}" + (f"-{NOT_IN_NAMES.sub('-', node.lower())}" if node else "")


def machine_of(listed: Mapping[str, Any]) -> str:
    """Return the machine whose playbook run registers a job of Nomad's list; empty on a machine for itself."""
    meta = listed.get("Meta") or {}
    return str(meta.get(META_NODE) or meta.get(META_PLANNED) or "")


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
