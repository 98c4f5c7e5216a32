"""From the playbook's variables to this site's jobs: what `group_vars` says becomes job descriptions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from roost.fleet.artifacts.agent import agent_path
from roost.fleet.artifacts.engine import engine_command
from roost.fleet.artifacts.engine_python import engine_python_command
from roost.fleet.jobs import (
    AGENT_JOB,
    MODEL_SERVICE_PREFIX,
    AgentChoice,
    AgentJob,
    Driver,
    Engine,
    EnginePlace,
    Identity,
    ModelServerJob,
    SlotChoice,
    agent_job,
    model_server_job,
)
from roost.models.catalogue import Catalogue
from roost.models.memory import job_memory_mib

Runtime = Literal["docker", "local"]


class SlotWish(BaseModel):
    """One entry of the variable `model_slots`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slot: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    model: str
    context_size: int = Field(ge=256)
    parallel: int = Field(default=1, ge=1, le=64)
    cache_ram_mib: int = Field(default=256, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=2)


class SiteWish(BaseModel):
    """What the playbook's variables say of this site's jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: Runtime
    engine: Engine
    datacenter: str
    bind: str
    api_port: int
    listen: str = ""
    agent_memory_mib: int
    agent_log_level: str
    models_dir: str
    slots: list[SlotWish] = Field(min_length=1)
    engine_threads: int = Field(default=0, ge=0)
    agent_identity: Identity
    engine_identity: Identity


@dataclass(frozen=True)
class Programs:
    """Where the jobs' programs are: images for containers, commands for plain processes."""

    agent_image: str = ""
    engine_image: str = ""
    agent_command: tuple[str, ...] = ()
    agent_env: Mapping[str, str] = field(default_factory=dict)
    engine_command: tuple[str, ...] = ()
    engine_work_dir: str = ""
    engine_env: Mapping[str, str] = field(default_factory=dict)


class Made(BaseModel):
    """What the module roost_artifacts returned."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    engine_tree: str = ""
    agent_tree: str = ""
    images: dict[str, str] = Field(default_factory=dict)


def programs_of(runtime: Runtime, made: Made, python: Path, engine: Engine = "llama.cpp") -> Programs:
    """Return how the jobs' programs are started from the artifacts that exist; `python` runs trees of Python code."""
    if runtime == "docker":
        return Programs(agent_image=made.images["agent"], engine_image=made.images["llama_server"])
    tree = Path(made.engine_tree)
    if engine == "llama.cpp":
        command, work_dir = engine_command(tree)
        environment: dict[str, str] = {}
    else:
        work_dir = tree
        command, environment = engine_python_command(python, tree)
    return Programs(
        agent_command=(str(python), "-m", "roost.cli.serve"),
        agent_env={"PYTHONPATH": agent_path(Path(made.agent_tree))},
        engine_command=tuple(command),
        engine_work_dir=str(work_dir),
        engine_env=environment,
    )


def driver_of(runtime: Runtime) -> Driver:
    """Return the Nomad driver that a runtime uses."""
    return "docker" if runtime == "docker" else "raw_exec"


def site_jobs(wish: SiteWish, catalogue: Catalogue, programs: Programs) -> list[ModelServerJob | AgentJob]:
    """Decide this site's jobs: a model server a slot, and the agent.

    Raises:
        RoostError: a slot names a model that the catalogue does not have.
    """
    driver = driver_of(wish.runtime)
    command, *leading = programs.engine_command or ("",)
    place = EnginePlace(
        driver=driver,
        engine=wish.engine,
        models_dir=wish.models_dir,
        image=programs.engine_image,
        command=command,
        leading_args=tuple(leading),
        work_dir=programs.engine_work_dir,
        env=programs.engine_env,
        threads=wish.engine_threads,
    )
    jobs: list[ModelServerJob | AgentJob] = []
    for slot in wish.slots:
        model = catalogue.get(slot.model)
        choice = SlotChoice(
            slot=slot.slot,
            model=model.name,
            file=model.file.relative_path,
            context_size=slot.context_size,
            parallel=slot.parallel,
            cache_ram_mib=slot.cache_ram_mib,
            memory_mib=job_memory_mib(
                model,
                context_tokens=slot.context_size * slot.parallel,
                cache_ram_mib=slot.cache_ram_mib,
            ),
            temperature=slot.temperature,
        )
        jobs.append(model_server_job(choice, place, wish.engine_identity, datacenter=wish.datacenter, bind=wish.bind))
    agent_program, *agent_args = programs.agent_command or ("",)
    agent = AgentChoice(
        driver=driver,
        bind=wish.bind,
        port=wish.api_port,
        memory_mib=wish.agent_memory_mib,
        log_level=wish.agent_log_level,
        image=programs.agent_image,
        command=agent_program,
        args=tuple(agent_args),
        env=dict(programs.agent_env),
        listen=wish.listen,
    )
    return [*jobs, agent_job(agent, wish.agent_identity, datacenter=wish.datacenter)]


def job_secrets(
    jobs: Sequence[ModelServerJob | AgentJob], *, engine_key: str, api_keys: Sequence[str], tls: tuple[str, str] | None
) -> dict[str, dict[str, str]]:
    """Return what each job may read as its own Nomad variable: path -> items. API keys go as hashes only."""
    hashed = "".join(f"{hashlib.sha256(key.encode()).hexdigest()}\n" for key in api_keys)
    secrets: dict[str, dict[str, str]] = {}
    for job in jobs:
        items = {"engine_key": engine_key}
        if job.name == AGENT_JOB:
            items["api_key_sha256"] = hashed
            if tls is not None:
                items |= {"tls_cert": tls[0], "tls_key": tls[1]}
        secrets[f"nomad/jobs/{job.name}"] = items
    return secrets


def stale_jobs(existing: Sequence[str], wanted: Sequence[ModelServerJob | AgentJob]) -> list[str]:
    """Return the model servers of ours in Nomad that no slot wants any more."""
    names = {job.name for job in wanted}
    return sorted(name for name in existing if name.startswith(MODEL_SERVICE_PREFIX) and name not in names)


def templates_dir(release_dir: Path) -> Path:
    """Return the folder of the job templates in a release."""
    return release_dir / "nomad"
