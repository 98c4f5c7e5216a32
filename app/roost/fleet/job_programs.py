"""Where the programs of this site's jobs are: images for containers, commands for plain processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from roost.fleet.artifacts.agent import agent_path
from roost.fleet.artifacts.engine import RPC_WORKER, engine_command
from roost.fleet.artifacts.engine_python import engine_python_command
from roost.fleet.artifacts.monitoring import monitoring_command
from roost.fleet.job_memory import image_engine, tree_engine
from roost.fleet.jobs import Driver, Engine
from roost.fleet.monitoring.job import MonitoringPrograms
from roost.fleet.search.job import SearchPrograms
from roost.fleet.site_wish import Runtime, SiteWish
from roost.models.estimate.on_host import HostEngine


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
    engine_tree: str = ""
    rpc_command: tuple[str, ...] = ()
    monitoring: MonitoringPrograms = field(default_factory=MonitoringPrograms)
    search: SearchPrograms = field(default_factory=SearchPrograms)


class Made(BaseModel):
    """What the module roost_artifacts returned."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    engine_tree: str = ""
    agent_tree: str = ""
    monitoring_tree: str = ""
    images: dict[str, str] = Field(default_factory=dict)


def programs_of(runtime: Runtime, made: Made, python: Path, engine: Engine = "llama.cpp") -> Programs:
    """Return how the jobs' programs are started from the artifacts that exist; `python` runs trees of Python code."""
    if runtime == "docker":
        return Programs(
            agent_image=made.images["agent"],
            engine_image=made.images["llama_server"],
            monitoring=MonitoringPrograms(image=made.images.get("monitoring", "")),
            search=SearchPrograms(image=made.images.get("search", "")),
        )
    tree = Path(made.engine_tree)
    rpc: list[str] = []
    if engine == "llama.cpp":
        command, work_dir = engine_command(tree)
        rpc, _ = engine_command(tree, RPC_WORKER)
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
        engine_tree=str(tree),
        rpc_command=tuple(rpc),
        monitoring=MonitoringPrograms(
            command=tuple(monitoring_command(Path(made.monitoring_tree))) if made.monitoring_tree else ()
        ),
    )


def driver_of(runtime: Runtime) -> Driver:
    """Return the Nomad driver that a runtime uses."""
    return "docker" if runtime == "docker" else "raw_exec"


def host_engine(wish: SiteWish, made: Made) -> HostEngine:
    """Return this host's engine, to be asked what models need; of another engine than llama.cpp nothing is known."""
    if wish.engine != "llama.cpp":
        return HostEngine("")
    if wish.runtime == "docker":
        image = made.images.get("llama_server", "")
        return image_engine(image, wish.engine_identity, Path(wish.models_dir), wish.gpus)
    return tree_engine(Path(made.engine_tree), wish.engine_identity, wish.gpus)
