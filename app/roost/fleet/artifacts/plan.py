"""Which artifacts should exist: a pure function of the variables, the release and the resolved packages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from roost.fleet.artifacts.agent import agent_tag, running_python
from roost.fleet.artifacts.base import base_tag, glibc_of, python_of
from roost.fleet.artifacts.deb_tree import deb_tree_tag
from roost.fleet.artifacts.docker import reference
from roost.fleet.artifacts.engine_python import FOLDER as PYTHON_FOLDER
from roost.fleet.artifacts.engine_python import engine_python_tag
from roost.fleet.artifacts.llama_wheel import PROJECT, host_level
from roost.fleet.artifacts.monitoring import KIND
from roost.fleet.artifacts.resolution import Resolution, Wanted
from roost.fleet.artifacts.store import tag_of
from roost.fleet.artifacts.wheels import Target, host_glibc
from roost.fleet.devices import engine_packages
from roost.ops.errors import RoostError
from roost.ops.files import sha256_tree

UNRESOLVED = "unresolved"
ENGINE = "llama-server"
AGENT = "agent"
BASE = "base"
MONITORING = KIND
SEARCH = "search"


class Choices(BaseModel):
    """The variables that decide what is made; named as in group_vars, without the `images_` of the base."""

    model_config = ConfigDict(frozen=True)

    runtime: Literal["docker", "local"]
    release_dir: Path
    cache_dir: Path
    artifacts_dir: Path
    offline_dir: Path | None = None
    extra_ca_bundle: Path | None = None
    mirror: str = ""
    base_suite: str = "bookworm"
    base_packages: tuple[str, ...] = ()
    engine_suite: str = "forky"
    engine_packages: tuple[str, ...] = ()
    engine_gpu_packages: dict[str, tuple[str, ...]] = {}
    engine_gpus: tuple[str, ...] = ()  # keys of engine_gpu_packages that slots use
    monitoring_suite: str = "trixie"
    monitoring_packages: tuple[str, ...] = ()  # none: no monitoring
    web_search_image: str = ""  # SearXNG's own, which ours is made of; empty: none, as without containers
    python_version: str = ""
    keep_previous: int = 1
    arch: str = "amd64"
    engine_name: Literal["llama.cpp", "llama-cpp-python"] = "llama.cpp"

    @model_validator(mode="after")
    def _has_an_image(self) -> Choices:
        if self.compiled and self.runtime == "docker":
            raise RoostError(
                f"The engine {PROJECT} runs only without containers: it is compiled on the machine, no image holds it.",
                fix="Use --run-local, or set engine to llama.cpp.",
            )
        return self

    @property
    def compiled(self) -> bool:
        """Say whether the engine is the one that is compiled instead of taken from Debian."""
        return self.engine_name == PROJECT

    @property
    def engine(self) -> Wanted:
        """What the engine is made of."""
        packages = engine_packages(self.engine_packages, self.engine_gpu_packages, self.engine_gpus)
        return Wanted(kind="engine", suite=self.engine_suite, packages=packages, arch=self.arch)

    @property
    def base(self) -> Wanted:
        """What the base image is made of."""
        return Wanted(
            kind="base", suite=self.base_suite, packages=tuple(sorted(set(self.base_packages))), arch=self.arch
        )

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """All that has to be resolved for the runtime."""
        monitoring = (self.monitoring,) if self.monitoring else ()
        if self.compiled:
            return monitoring
        return ((self.engine, self.base) if self.runtime == "docker" else (self.engine,)) + monitoring

    @property
    def monitoring(self) -> Wanted | None:
        """What Prometheus is made of, where it is wanted."""
        packages = tuple(sorted(set(self.monitoring_packages)))
        return Wanted(kind=KIND, suite=self.monitoring_suite, packages=packages, arch=self.arch) if packages else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What should exist: the tag of each artifact by name, and what it is made of. A tag may be `unresolved`."""

    runtime: str
    tags: dict[str, str]
    engine: Resolution | None
    base: Resolution | None
    target: Target | None
    level: str = ""  # kind of processor the engine is compiled for; empty when it is not
    monitoring: Resolution | None = None

    @property
    def resolved(self) -> bool:
        """Say whether every tag is known."""
        return UNRESOLVED not in self.tags.values()

    def reference(self, name: str) -> str:
        """Return the image's reference, or the tree's folder name."""
        return (
            reference(name, self.tags[name]) if self.runtime == "docker" else f"{self.folder(name)}-{self.tags[name]}"
        )

    def folder(self, name: str) -> str:
        """Return how the trees of an artifact are called."""
        if name != ENGINE:
            return name
        return PYTHON_FOLDER if self.level else "engine"


def make_plan(
    choices: Choices, engine: Resolution | None, base: Resolution | None, monitoring: Resolution | None = None
) -> Plan:
    """Decide the tags. A resolution that is not known yet makes the tags that depend on it `unresolved`.

    Raises:
        RoostError: the release is not whole, or the base image would have no Python.
    """
    plan = _with_search(choices, _without_monitoring(choices, engine, base))
    if choices.monitoring is None:
        return plan
    tag = deb_tree_tag(monitoring) if monitoring else UNRESOLVED
    if monitoring and choices.runtime == "docker":
        tag = tag_of({"tree": tag, "recipe": sha256_tree(choices.release_dir / "images", [MONITORING])})
    return replace(plan, tags={**plan.tags, MONITORING: tag}, monitoring=monitoring)


def _with_search(choices: Choices, plan: Plan) -> Plan:
    if choices.runtime != "docker" or not choices.web_search_image:
        return plan
    recipe = sha256_tree(choices.release_dir / "images", [SEARCH])
    return replace(plan, tags={**plan.tags, SEARCH: tag_of({"image": choices.web_search_image, "recipe": recipe})})


def _without_monitoring(choices: Choices, engine: Resolution | None, base: Resolution | None) -> Plan:
    release = choices.release_dir
    if choices.runtime == "local":
        target = Target(choices.python_version or running_python(), choices.arch, host_glibc())
        if choices.compiled:
            level = host_level(choices.arch)
            tags = {ENGINE: engine_python_tag(release, target, level), AGENT: agent_tag(release, target)}
            return Plan("local", tags, None, None, target, level)
        tags = {ENGINE: deb_tree_tag(engine) if engine else UNRESOLVED, AGENT: agent_tag(release, target)}
        return Plan("local", tags, engine, None, target)
    recipes = {name: sha256_tree(release / "images", [name]) for name in (ENGINE, AGENT)}
    engine_image = tag_of({"engine": deb_tree_tag(engine), "recipe": recipes[ENGINE]}) if engine else UNRESOLVED
    if base is None:
        return Plan("docker", {BASE: UNRESOLVED, AGENT: UNRESOLVED, ENGINE: engine_image}, engine, None, None)
    target = Target(python_of(base), choices.arch, glibc_of(base))
    tags = {BASE: base_tag(base), ENGINE: engine_image}
    tags[AGENT] = agent_tag(release, target, {"base": tags[BASE], "recipe": recipes[AGENT]})
    return Plan("docker", tags, engine, base, target)
