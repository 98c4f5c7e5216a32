"""What each Nomad job is made of, and its text: pure, the same for the playbook, the CLI and the tests.

`model_server_job` and `agent_job` decide; `render_job` writes HCL from a template of `nomad/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

Driver = Literal["docker", "raw_exec"]
Engine = Literal["llama.cpp", "llama-cpp-python"]

MODEL_SERVICE_PREFIX = "roost-model-"
KEEP_WARM_TAG = "keep_warm=true"  # of a model server's service; the other tags are read by roost.gateway.tags
AGENT_JOB = "roost-agent"
MODELS_MOUNT = "/models"
MODEL_TEMPLATE = "model-server.nomad.hcl.j2"
AGENT_TEMPLATE = "agent.nomad.hcl.j2"
ENGINE_KEY_FILE = "${NOMAD_SECRETS_DIR}/engine-key"
PORT = "${NOMAD_PORT_http}"
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

    def command(self, driver: Driver, program: str, args: Sequence[str]) -> tuple[str, list[str]]:
        """Return the command and arguments that run `program` as this user.

        With `user = ...`, raw_exec of Nomad 1.11 leaves root's group with the process (seen), so setpriv drops the
        user, every group and every capability instead.
        """
        if driver == "docker":
            return program, list(args)
        drop = ["--reuid", self.name, "--regid", self.group, "--clear-groups", "--no-new-privs"]
        return SETPRIV, [*drop, "--bounding-set=-all", "--inh-caps=-all", program, *args]


@dataclass(frozen=True)
class SlotChoice:
    """One model server that is wanted. Sizes in tokens and MiB; `temperature` None leaves it to the client."""

    slot: str
    model: str
    file: str  # below the models folder: <16 hex>/<name>
    context_size: int
    parallel: int
    cache_ram_mib: int
    memory_mib: int  # limit of the job, from roost.models.memory
    temperature: float | None = None


@dataclass(frozen=True)
class EnginePlace:
    """How the engine is started: an image, or a command in `work_dir` with leading arguments."""

    driver: Driver
    engine: Engine
    models_dir: str
    image: str = ""
    command: str = ""
    leading_args: tuple[str, ...] = ()
    work_dir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0  # that compute; 0 leaves it to the engine


@dataclass(frozen=True)
class ModelServerJob:
    """Everything the model server's template shows."""

    name: str
    datacenter: str
    driver: Driver
    engine: Engine
    slot: str
    model: str
    user: str
    uid: int
    gid: int
    image: str
    command: str
    work_dir: str
    args: list[str]
    env: dict[str, str]
    health_path: str
    models_mount: str
    cpu_mhz: int
    memory_mib: int


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
    secret_files: list[str]
    port: int
    cpu_mhz: int
    memory_mib: int


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


def _llama_server_args(choice: SlotChoice, path: str, bind: str, threads: int) -> list[str]:
    """Return the arguments of llama.cpp's server; flags as in its `--help` of version 0.7.0."""
    args = [
        "--model", path, "--alias", choice.model, "--host", bind, "--port", PORT,
        "--ctx-size", str(choice.context_size * choice.parallel), "--parallel", str(choice.parallel),
        "--cache-ram", str(choice.cache_ram_mib), "--api-key-file", ENGINE_KEY_FILE,
        "--metrics", "--no-ui", "--offline",
    ]  # fmt: skip
    if threads:
        args += ["--threads", str(threads)]
    if choice.temperature is not None:
        args += ["--temp", str(choice.temperature)]
    return args


def model_server_job(
    choice: SlotChoice, place: EnginePlace, who: Identity, *, datacenter: str, bind: str
) -> ModelServerJob:
    """Decide a model server's job. The engine listens on `bind` only and needs its key."""
    in_container = place.driver == "docker"
    models = MODELS_MOUNT if in_container else place.models_dir
    path = f"{models}/{choice.file}"
    env = dict(place.env)
    if place.engine == "llama.cpp":
        args = [*place.leading_args, *_llama_server_args(choice, path, bind, place.threads)]
        health_path = "/health"
    else:
        args = list(place.leading_args)
        env |= {
            "ROOST_ENGINE_MODEL": path,
            "ROOST_ENGINE_ALIAS": choice.model,
            "ROOST_ENGINE_HOST": bind,
            "ROOST_ENGINE_PORT": PORT,
            "ROOST_ENGINE_CONTEXT": str(choice.context_size),
            "ROOST_ENGINE_KEY_FILE": ENGINE_KEY_FILE,
        }
        if choice.temperature is not None:
            env["ROOST_ENGINE_TEMPERATURE"] = str(choice.temperature)
        health_path = "/health"
    command, args = who.command(place.driver, place.command, args)
    return ModelServerJob(
        name=f"{MODEL_SERVICE_PREFIX}{choice.slot}",
        datacenter=datacenter,
        driver=place.driver,
        engine=place.engine,
        slot=choice.slot,
        model=choice.model,
        user=who.user(place.driver),
        uid=who.uid,
        gid=who.gid,
        image=place.image,
        command=command,
        work_dir=place.work_dir,
        args=args,
        env=dict(sorted(env.items())),
        health_path=health_path,
        models_mount=MODELS_MOUNT,
        cpu_mhz=500,
        memory_mib=choice.memory_mib,
    )


def agent_job(choice: AgentChoice, who: Identity, *, datacenter: str) -> AgentJob:
    """Decide the agent's job: it finds model servers through the Task API, with its own identity only."""
    secret_files = ["engine_key", "api_key_sha256"]
    env = {
        **choice.env,
        "ROOST_BIND": choice.bind,
        "ROOST_PORT": str(choice.port),
        "ROOST_API_KEYS_FILE": "${NOMAD_SECRETS_DIR}/api_key_sha256",
        "ROOST_ENGINE_KEY_FILE": "${NOMAD_SECRETS_DIR}/engine_key",
        "ROOST_NOMAD_SOCKET": "${NOMAD_SECRETS_DIR}/api.sock",
        "ROOST_MODEL_SERVICE_PREFIX": MODEL_SERVICE_PREFIX,
        "ROOST_LOG_LEVEL": choice.log_level,
    }
    if choice.listen:
        secret_files += ["tls_cert", "tls_key"]
        env |= {
            "ROOST_LISTEN": choice.listen,
            "ROOST_TLS_CERT": "${NOMAD_SECRETS_DIR}/tls_cert",
            "ROOST_TLS_KEY": "${NOMAD_SECRETS_DIR}/tls_key",
        }
    command, args = who.command(choice.driver, choice.command, choice.args)
    return AgentJob(
        name=AGENT_JOB,
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
        port=choice.port,
        cpu_mhz=200,
        memory_mib=choice.memory_mib,
    )


def hcl_string(value: object) -> str:
    """Quote a value as an HCL string. `${NOMAD_…}` stays, so that Nomad fills it in at run time."""
    return json.dumps(str(value), ensure_ascii=False)


def render_job(templates: Path, job: ModelServerJob | AgentJob) -> str:
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
    name = MODEL_TEMPLATE if isinstance(job, ModelServerJob) else AGENT_TEMPLATE
    return environment.get_template(name).render(job=asdict(job))
