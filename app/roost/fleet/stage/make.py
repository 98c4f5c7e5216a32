"""From an installation and a wish to the parts of a staged host: makes what has to be made for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost.fleet.artifacts.agent import build_agent, build_code
from roost.fleet.artifacts.engine import engine_command
from roost.fleet.artifacts.ensure import Workshop
from roost.fleet.artifacts.from_site import release_dir, site_choices, site_docker
from roost.fleet.stage.hosts_parts import Made, freebsd_parts, linux_parts
from roost.fleet.stage.parts import Part
from roost.fleet.stage.root_of import look_at_freebsd, look_at_linux
from roost.fleet.stage.wish import ENGINE_FOLDER, ENGINE_ON_FREEBSD, Account, System, Wish, WorkerWish, state_dir
from roost.hosts.collector_zip import pack
from roost.models.catalogue import Catalogue
from roost.models.schema import Model
from roost.models.store import State, model_path, state_of
from roost.ops.errors import RoostError
from roost.ops.site import Site

HOST_PROGRAM = "roost.hosts.host_program"
LONGEST_CONTEXT = 8192  # of one request, unless the user says more: a staged host is not planned by what it has
MODELS = "models"
TREES = "stage"  # in the cache: what is made for images


@dataclass(frozen=True)
class Request:
    """What the user asks for; an empty model means the one that this machine serves, a context of 0 chooses.

    `worker_api` is the address of the fleet's API for a worker on FreeBSD; without it there is none.
    """

    root: Path
    system: System
    model: str = ""
    context_size: int = 0
    worker_api: str = ""


@dataclass(frozen=True)
class Stage:
    """What is to be put into the root: its parts, and what was found and chosen, in words."""

    parts: list[Part]
    release: str
    model: str


def stage_of(
    request: Request, site: Site, variables: Mapping[str, Any], catalogue: Catalogue, notify: Callable[[str], None]
) -> Stage:
    """Return what to put into a root; makes the engine and the agent for a Linux root in the cache.

    Raises:
        RoostError: the root is not what it should be, the model's file is not here, or something cannot be made.
    """
    model, file = _model(request, site, catalogue)
    accounts = _accounts(variables)
    worker = WorkerWish(accounts[2], request.worker_api) if request.worker_api else None
    slot = variables["model_slots"][0] if variables["model_slots"] else {}

    def wish(engine: tuple[str, ...], engine_folder: str) -> Wish:
        return Wish(
            system=request.system,
            model_name=model.name,
            model_path=f"{state_dir(request.system)}/{MODELS}/{model.file.relative_path}",
            engine=engine,
            engine_folder=engine_folder,
            engine_account=accounts[0],
            agent_account=accounts[1],
            group=str(variables["roost_group"]),
            context_size=request.context_size or min(model.context_length, LONGEST_CONTEXT),
            parallel=int(slot.get("parallel") or 1),
            cache_ram_mib=int(slot.get("cache_ram_mib") or 0),
            loopback=str(variables["loopback_address"]),
            engine_port=int(variables["stage_engine_port"]),
            api_port=int(variables["api_port"]),
            chat_template=model.quirks.chat_template,
            worker=worker,
        )

    program = pack(program=HOST_PROGRAM)
    if request.system == "freebsd":
        release = look_at_freebsd(request.root)
        code = build_code(release_dir(), site.cache_dir / TREES, notify=notify) if worker else None
        made = Made(program, file, worker_tree=code)
        return Stage(freebsd_parts(wish((ENGINE_ON_FREEBSD,), "/"), made), release, model.reference)
    found = look_at_linux(request.root)
    choices = site_choices(site, dict(variables))
    workshop = Workshop(choices, site_docker(site), notify)
    if found.target.arch != choices.arch:
        raise RoostError(
            f"{request.root} is for {found.target.arch}, this machine is {choices.arch}.",
            fix="Stage it on a machine of its own kind.",
        )
    trees = site.cache_dir / TREES
    trees.mkdir(parents=True, exist_ok=True)
    with workshop.stack:
        engine = workshop.engine_tree(workshop.decide(choices.engine, update=False), trees)
    offline = workshop.bundle.directory("wheels") if workshop.bundle is not None else None
    agent = build_agent(
        release_dir(), found.target, trees, site.cache_dir / "wheels",
        ca=choices.extra_ca_bundle, notify=notify, offline=offline,
    )  # fmt: skip
    command, backends = engine_command(engine)
    moved = tuple(word.replace(str(engine), ENGINE_FOLDER) for word in command)
    staged = wish(moved, str(backends).replace(str(engine), ENGINE_FOLDER))
    return Stage(linux_parts(staged, Made(program, file, engine, agent)), found.release, model.reference)


def _model(request: Request, site: Site, catalogue: Catalogue) -> tuple[Model, Path]:
    name = request.model or next((slot.model for slot in site.slots), "")
    if not name:
        raise RoostError("This machine serves no model.", fix="Name one: roost stage ROOT --model NAME")
    model = catalogue.get(name)
    if state_of(site.models_dir, model.file) is not State.VERIFIED:
        raise RoostError(f"The file of {name} is not here.", fix=f"Fetch it first: roost models pull {name}")
    if len(model.files) > 1:
        raise RoostError(f"{name} comes in several files.", fix="Choose one that is a single file.")
    return model, model_path(site.models_dir, model.file)


def _accounts(variables: Mapping[str, Any]) -> tuple[Account, Account, Account]:
    return (
        Account(str(variables["roost_engine_user"]), int(variables["roost_engine_uid"]), "Roost model servers"),
        Account(str(variables["roost_agent_user"]), int(variables["roost_agent_uid"]), "Roost agent"),
        Account(str(variables["stage_worker_user"]), int(variables["stage_worker_uid"]), "Roost worker"),
    )
