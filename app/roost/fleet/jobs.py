"""What all jobs are made of: their names, who they run as, what is chosen for each. Pure.

Decided in `model_jobs`, `agent_jobs`, `monitoring/job` and `search/job`; `job_text` writes HCL from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from roost.fleet.devices import DeviceAccess
from roost.fleet.engine_args import RpcWorker
from roost.models.footprint import LayerSplit, ServerSettings

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


def job_name(slot: str, node: str = "", number: int = 0) -> str:
    """Return the name of a slot's job: with the machine where each of a fleet has its own, else with its number."""
    if number:
        return f"{MODEL_SERVICE_PREFIX}{slot}-{number}"
    return f"{MODEL_SERVICE_PREFIX}{slot}" + (f"-{NOT_IN_NAMES.sub('-', node.lower())}" if node else "")


def machine_of(listed: Mapping[str, Any]) -> str:
    """Return the machine whose playbook run registers a job of Nomad's list; empty on a machine for itself."""
    meta = listed.get("Meta") or {}
    return str(meta.get(META_NODE) or meta.get(META_PLANNED) or "")
