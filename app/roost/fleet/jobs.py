"""What each Nomad job is made of, and its text: pure, the same for the playbook, the CLI and the tests.

`model_server_job` and `agent_job` decide; `render_job` writes HCL from a template of `nomad/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from roost.fleet.agent_variables import AGENT_JOB, ENDPOINTS_ITEM, ENDPOINTS_VARIABLE
from roost.fleet.artifacts.engine import RPC_WORKER, program_path
from roost.fleet.devices import DeviceAccess
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
GATEWAY_JOB = "roost-gateway"  # further gateways, on other nodes; all of them, the agent too, register this service
PEER_NAME = "gateway.roost.internal"  # what the certificates of gateways are made out to, whatever their address
# The keys of the API. A job may read the variables nomad/jobs/JOB and nomad/jobs/JOB/GROUP without any policy
# (https://developer.hashicorp.com/nomad/docs/concepts/workload-identity): the first is the playbook's, this one that of
# `roost keys`.
KEYS_VARIABLE = f"nomad/jobs/{AGENT_JOB}/agent"
KEYS_ITEM = "keys"
ROUTE_VARIABLE = f"{KEYS_VARIABLE}/agent"  # of the task: a variable has room for one large thing
ROUTE_ITEM = "router"
MODELS_MOUNT = "/models"
SLOTS_MOUNT = "/slots"
STATE_MOUNT = "/state"
MODEL_TEMPLATE = "model-server.nomad.hcl.j2"
AGENT_TEMPLATE = "agent.nomad.hcl.j2"
RPC_TEMPLATE = "rpc-worker.nomad.hcl.j2"
MONITORING_TEMPLATE = "monitoring.nomad.hcl.j2"
META_LAYERS = "roost_gpu_layers"  # of a job: how many layers belong on which device
META_SLOTS = "roost_gpu_slots"  # PCI addresses of the cards it uses
META_NODE = "roost_node"  # the machine of a fleet whose playbook run registers the job
LOOPBACK_NETWORK = "loopback"
FLEET_NETWORK = "fleet"  # Nomad's name of a machine's address in the fleet
TLS_MOUNT = "/tls"
TLS_TAG = "tls=true"
# What HCL would not take for itself in a string: quotes, control characters, interpolation (but not of Nomad's own
# variables, which it fills in when a task starts) and directives.
HCL_SPECIAL = re.compile(r'[\\"\x00-\x1f\x7f]|\$(?=\{(?!NOMAD_\w+\}))|%(?=\{)')
HCL_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
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


@dataclass(frozen=True)
class EnginePlace:
    """How the engine is started: an image, or a command in `work_dir` with leading arguments.

    `backends`: it could compute on devices. `foreign`: an image that is not ours. `slots_dir`: where slots are saved,
    a folder of the host; empty where they are not. `node`: the machine of a fleet that it is for; there the server
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
    node: str = ""
    tls_dir: str = ""


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
    count: int
    tags: list[str]
    devices: DeviceAccess
    meta: dict[str, str]
    nodes: list[str]
    cpu_mhz: int
    memory_mib: int


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
class SecretFile:
    """A file in the task's secrets folder: an item of a Nomad variable. `reread`: a new content needs no restart."""

    name: str
    variable: str
    item: str
    reread: bool = False


@dataclass(frozen=True)
class AgentJob:
    """Everything the agent's template shows."""

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
    secret_files: list[SecretFile]
    nodes: list[str]
    state_mount: str
    port: int
    listen_port: int  # of its address with TLS, where several gateways are one service; else 0
    peer_service: str
    count: int
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
class AgentChoice:
    """The agent that is wanted. `listen` is ADDR:PORT for TLS on the LAN, or empty."""

    driver: Driver
    bind: str
    port: int
    memory_mib: int
    log_level: str
    image: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    listen: str = ""
    state_dir: str = ""  # on the host
    replicas: int = 0  # further gateways on other nodes
    node: str = ""  # the machine of a fleet where its state lies; empty: any
    engine_ca: bool = False  # model servers answer with certificates of the fleet's authority


@dataclass(frozen=True)
class PlainFile:
    """A file in the task's own folder, its text given."""

    name: str
    text: str


@dataclass(frozen=True)
class MonitoringJob:
    """Everything the template of Prometheus shows; `service` is that of the gateways."""

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
    files: list[PlainFile]
    targets_file: str
    service: str
    key_name: str
    state_mount: str
    port: int
    cpu_mhz: int
    memory_mib: int


Job = ModelServerJob | RpcWorkerJob | AgentJob | MonitoringJob
TEMPLATES = {
    ModelServerJob: MODEL_TEMPLATE,
    RpcWorkerJob: RPC_TEMPLATE,
    AgentJob: AGENT_TEMPLATE,
    MonitoringJob: MONITORING_TEMPLATE,
}


def _llama_server(choice: SlotChoice, place: EnginePlace, models: str, bind: str) -> list[str]:
    slots = place.slots_dir and (SLOTS_MOUNT if place.driver == "docker" else place.slots_dir)
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


def job_name(slot: str, node: str = "") -> str:
    """Return the name of a slot's job: with the machine where each of a fleet has its own."""
    return f"{MODEL_SERVICE_PREFIX}{slot}" + (f"-{NOT_IN_NAMES.sub('-', node.lower())}" if node else "")


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


def _tags(choice: SlotChoice, place: EnginePlace) -> list[str]:
    """Return what the agent reads of a model server, running or not: `roost.gateway.tags`."""
    tags = [f"engine={place.engine}", f"slot={choice.slot}", f"model={choice.model}"]
    tags += [f"tier={choice.tier}"] if choice.tier else []
    tags += [f"memory={pool}:{count}" for pool, count in sorted(choice.memory.items())]
    tags += [f"adapter={PurePath(adapter).stem}" for adapter in choice.adapters]
    tags += [KEEP_WARM_TAG] if choice.keep_warm else []
    tags += [TLS_TAG] if place.tls_dir else []
    return [*tags, "keeps_slots=true"] if place.slots_dir else tags


def model_server_job(
    choice: SlotChoice, place: EnginePlace, who: Identity, *, datacenter: str, bind: str
) -> ModelServerJob:
    """Decide a model server's job. The engine listens on `bind` only and needs its key."""
    models = MODELS_MOUNT if place.driver == "docker" else place.models_dir
    env = {**place.env, **choice.devices.env}
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
        name=job_name(choice.slot, place.node),
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
        slots_mount=SLOTS_MOUNT if place.slots_dir else "",
        count=0 if choice.on_demand else 1,
        tags=_tags(choice, place),
        devices=choice.devices,
        meta=_plan_meta(choice) | ({META_NODE: place.node} if place.node else {}),
        nodes=choice.node.names,
        cpu_mhz=500,
        memory_mib=choice.memory_mib,
    )


def gateway_job(choice: AgentChoice, who: Identity, *, datacenter: str) -> AgentJob:
    """Decide the job of the further gateways: like the agent's, without the page.

    A fixed port has room for one of them a node, so each stands on a node of its own.
    """
    return replace(
        agent_job(
            replace(choice, args=(*choice.args, "gateway"), node=""), who, datacenter=datacenter, name=GATEWAY_JOB
        ),
        count=choice.replicas,
    )


def agent_job(choice: AgentChoice, who: Identity, *, datacenter: str, name: str = AGENT_JOB) -> AgentJob:
    """Decide the agent's job: it finds model servers through the Task API, with its own identity only."""
    own = f"nomad/jobs/{name}"
    secret_files = [
        SecretFile("engine_key", own, "engine_key"),
        SecretFile("api_key_sha256", own, "api_key_sha256", reread=True),
        SecretFile("keys.json", KEYS_VARIABLE, KEYS_ITEM, reread=True),
        SecretFile("router.json", ROUTE_VARIABLE, ROUTE_ITEM, reread=True),
        SecretFile("endpoints.json", ENDPOINTS_VARIABLE, ENDPOINTS_ITEM, reread=True),
    ]
    env = {
        **choice.env,
        "ROOST_BIND": choice.bind,
        "ROOST_PORT": str(choice.port),
        "ROOST_API_KEYS_FILE": "${NOMAD_SECRETS_DIR}/api_key_sha256",
        "ROOST_KEYS_FILE": "${NOMAD_SECRETS_DIR}/keys.json",
        "ROOST_ROUTE_FILE": "${NOMAD_SECRETS_DIR}/router.json",
        "ROOST_ENDPOINTS_FILE": "${NOMAD_SECRETS_DIR}/endpoints.json",
        "ROOST_ENDPOINTS_VARIABLE": ENDPOINTS_VARIABLE,
        "ROOST_STATE_DIR": STATE_MOUNT if choice.driver == "docker" else choice.state_dir,
        "ROOST_ENGINE_KEY_FILE": "${NOMAD_SECRETS_DIR}/engine_key",
        "ROOST_NOMAD_SOCKET": "${NOMAD_SECRETS_DIR}/api.sock",
        "ROOST_MODEL_SERVICE_PREFIX": MODEL_SERVICE_PREFIX,
        "ROOST_LOG_LEVEL": choice.log_level,
    }
    if choice.listen:
        secret_files += [SecretFile(name, own, name) for name in ("tls_cert", "tls_key")]
        env |= {
            "ROOST_LISTEN": choice.listen,
            "ROOST_TLS_CERT": "${NOMAD_SECRETS_DIR}/tls_cert",
            "ROOST_TLS_KEY": "${NOMAD_SECRETS_DIR}/tls_key",
        }
    if choice.replicas:
        secret_files += [SecretFile("peer_key", own, "peer_key", reread=True), SecretFile("peer_ca", own, "peer_ca")]
        env |= {
            "ROOST_LISTEN": "${NOMAD_IP_tls}:${NOMAD_PORT_tls}",
            "ROOST_PEER_SERVICE": GATEWAY_JOB,
            "ROOST_PEER_KEY_FILE": "${NOMAD_SECRETS_DIR}/peer_key",
            "ROOST_PEER_CA": "${NOMAD_SECRETS_DIR}/peer_ca",
            "ROOST_PEER_NAME": PEER_NAME,
        }
    if choice.engine_ca:
        secret_files.append(SecretFile("engine_ca", own, "engine_ca"))
        env["ROOST_ENGINE_CA_FILE"] = "${NOMAD_SECRETS_DIR}/engine_ca"
    command, args = who.command(choice.driver, choice.command, choice.args)
    return AgentJob(
        name=name,
        datacenter=datacenter,
        driver=choice.driver,
        user=who.user(choice.driver),
        uid=who.uid,
        gid=who.gid,
        image=choice.image,
        command=command,
        args=args,
        env=dict(sorted(env.items())),
        secret_files=secret_files,
        nodes=[choice.node] if choice.node else [],
        state_mount=STATE_MOUNT,
        port=choice.port,
        listen_port=int(choice.listen.rpartition(":")[2]) if choice.replicas else 0,
        peer_service=GATEWAY_JOB if choice.replicas else "",
        count=1,
        cpu_mhz=200,
        memory_mib=choice.memory_mib,
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


def hcl_string(value: object) -> str:
    """Quote a value as an HCL string. `${NOMAD_…}` stays, so that Nomad fills it in at run time; nothing else is code.

    What begins an interpolation or a directive is written as an escape, which HCL reads as the plain character
    (https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md, Template Literals).
    """
    escaped = HCL_SPECIAL.sub(lambda found: HCL_ESCAPES.get(found[0], f"\\u{ord(found[0]):04x}"), str(value))
    return f'"{escaped}"'


def render_job(templates: Path, job: Job) -> str:
    """Return the job's HCL text from the template of its kind in the folder `templates`."""
    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=select_autoescape(enabled_extensions=()),  # HCL, not HTML
    )
    environment.filters["hcl"] = hcl_string
    return environment.get_template(TEMPLATES[type(job)]).render(job=asdict(job))
