"""What belongs into the offline folder of an installed Roost: everything that `./bootstrap.sh` would fetch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts import wheels
from roost.fleet.artifacts.apt import Package, Source, apt_root, cached_deb
from roost.fleet.artifacts.engine_python import other_requirements
from roost.fleet.artifacts.ensure import Workshop, ensure, known_plan
from roost.fleet.artifacts.images import archive_name
from roost.fleet.artifacts.llama_wheel import BUILT, ensure_wheel, recipe_of
from roost.fleet.artifacts.plan import AGENT, BASE, Plan
from roost.fleet.artifacts.sources import os_release
from roost.fleet.artifacts.store import Checked
from roost.fleet.artifacts.wheels import Target, host_glibc
from roost.fleet.bundle import Item, copy_of, text_of
from roost.models.catalogue import load_catalogue
from roost.models.store import model_path
from roost.ops.errors import RoostError
from roost.ops.offline import ENGINE_DEBS, HOST_DEBS, IMAGES, WHEELS
from roost.ops.site import Site

REQUIREMENTS = ("roost.txt", "agent.txt")
HOST_TOOLS = ("python3", "python3-venv", "ca-certificates", "sudo", "iproute2", "iptables", "nftables", "gpgv")


@dataclass(frozen=True)
class BundleWish:
    """What a bundle is for: Python versions of the machines, and the Debian packages they need."""

    python: tuple[str, ...]
    host_packages: tuple[str, ...]
    split_packages: tuple[str, ...] = ()  # parts of those that only some releases have as packages of their own


def host_packages(variables: dict[str, object]) -> tuple[str, ...]:
    """Return the Debian packages that the roles install, with these variables."""
    tools = variables.get("images_tools")
    named = [str(variables["docker_package"])] if variables["roost_runtime"] == "docker" else []
    if variables.get("worker_sandbox"):
        named.append(str(variables["worker_sandbox_package"]))
    return tuple(sorted({*HOST_TOOLS, *named, *(map(str, tools) if isinstance(tools, list) else [])}))


def split_packages(variables: dict[str, object]) -> tuple[str, ...]:
    """Return the Debian packages that the roles install too where the release has them, with these variables."""
    return (str(variables["docker_client_package"]),) if variables["roost_runtime"] == "docker" else ()


def collect_items(site: Site, workshop: Workshop, wish: BundleWish, notify: Callable[[str], None]) -> list[Item]:
    """Return every file of the bundle; makes or fetches into the cache what is not there.

    Raises:
        RoostError: something cannot be made or fetched, or the installation lacks a part.
    """
    ensure(workshop)
    plan = known_plan(workshop)
    items = [*nomad_items(site), *model_items(site), *image_items(workshop, plan)]
    items += engine_deb_items(workshop, plan)
    items += wheel_items(workshop, plan, wish, notify)
    items += host_deb_items(workshop, wish, notify)
    return items


def nomad_items(site: Site) -> list[Item]:
    """Return the Nomad program of this installation."""
    program = site.install_dir / "bin" / "nomad"
    if not program.is_file():
        raise RoostError(f"{program} is missing.", fix="Run ./bootstrap.sh, which installs it.")
    return [copy_of(program, "nomad/nomad")]


def model_items(site: Site) -> list[Item]:
    """Return the files of the models that the slots serve."""
    catalogue = load_catalogue(site.catalogue)
    files = {file for slot in site.slots for file in catalogue.needed_files(slot.model)}
    items = []
    for file in sorted(files, key=lambda f: f.relative_path):
        path = model_path(site.models_dir, file)
        if not path.is_file():
            raise RoostError(f"{path} is missing.", fix="Run ./bootstrap.sh, which fetches it.")
        items.append(copy_of(path, f"models/{file.relative_path}"))
    return items


def image_items(workshop: Workshop, plan: Plan) -> list[Item]:
    """Return the images and the decisions that name them."""
    items = []
    for resolution in (plan.engine, plan.base, plan.monitoring):
        if resolution is not None:
            name = f"{IMAGES}/resolved-{resolution.wanted.key}.json"
            items.append(text_of(resolution.model_dump_json(indent=1) + "\n", name))
    if plan.runtime == "docker":
        items += [_image_item(workshop, plan, name) for name in plan.tags]
    return items


def _image_item(workshop: Workshop, plan: Plan, name: str) -> Item:
    file = archive_name(name, plan.tags[name])
    cached = Checked(workshop.choices.cache_dir / "artifacts" / file)
    if cached.is_intact():
        return copy_of(cached.path, f"{IMAGES}/{file}")
    names = (AGENT, BASE) if name == AGENT else (name,)

    def write(target: Path) -> None:
        workshop.docker.save([plan.reference(other) for other in names], target)

    size = workshop.docker.call("image", "inspect", "--format", "{{.Size}}", plan.reference(name))
    return Item(f"{IMAGES}/{file}", int(size), write)


def engine_deb_items(workshop: Workshop, plan: Plan) -> list[Item]:
    """Return the packages of the engine and of Prometheus, for machines that run them without a container."""
    found: dict[str, Item] = {}
    for resolution in (plan.engine, plan.monitoring):
        if resolution is None:
            continue
        missing = [p for p in resolution.packages if not cached_deb(workshop.debs, p).is_file()]
        if missing:
            with workshop.stack:
                workshop.apt(resolution.wanted).fetch(missing, workshop.debs, workshop.notify)
        for package in resolution.packages:
            name = cached_deb(workshop.debs, package).name
            found[name] = _deb_item(workshop, ENGINE_DEBS, package, name)
    return list(found.values())


def _deb_item(workshop: Workshop, folder: str, package: Package, name: str) -> Item:
    return copy_of(cached_deb(workshop.debs, package), f"{folder}/{name}")


def wheel_items(workshop: Workshop, plan: Plan, wish: BundleWish, notify: Callable[[str], None]) -> list[Item]:
    """Return the wheels of the command line and of the agent, for each Python asked for and for the agent's image."""
    arch = workshop.choices.arch
    wanted = [(name, Target(python, arch, host_glibc())) for python in wish.python for name in REQUIREMENTS]
    if plan.target is not None:
        wanted.append(("agent.txt", plan.target))
    found: dict[str, Path] = {}
    for name, target in wanted:
        requirements = workshop.choices.release_dir / "requirements" / name
        folder = workshop.choices.cache_dir / "wheels"
        ca = workshop.choices.extra_ca_bundle
        found |= {p.name: p for p in wheels.download(requirements, target, folder, ca=ca, notify=notify)}
        if plan.level:
            with other_requirements(workshop.choices.release_dir) as others:
                found |= {p.name: p for p in wheels.download(others, target, folder, ca=ca, notify=notify)}
    items = [copy_of(path, f"{WHEELS}/{name}") for name, path in sorted(found.items())]
    return [*items, *compiled_items(workshop, plan, notify)]


def compiled_items(workshop: Workshop, plan: Plan, notify: Callable[[str], None]) -> list[Item]:
    """Return the wheel that was compiled, for machines whose processors can do as much as this one's."""
    if plan.target is None or not plan.level:
        return []
    choices = workshop.choices
    recipe = recipe_of(choices.release_dir, plan.target, plan.level)
    wheel = ensure_wheel(recipe, choices.cache_dir / WHEELS, ca=choices.extra_ca_bundle, notify=notify)
    return [copy_of(wheel, f"{WHEELS}/{BUILT}/{recipe.folder}/{wheel.name}")]


def host_deb_items(workshop: Workshop, wish: BundleWish, notify: Callable[[str], None]) -> list[Item]:
    """Return the packages that machines like this one need, with all they depend on: nothing counts as installed.

    apt takes of them what the machine lacks.

    Raises:
        RoostError: this is not Debian, or the packages cannot be fetched.
    """
    codename = os_release().get("VERSION_CODENAME", "")
    if os_release().get("ID") != "debian" or not codename:
        raise RoostError("A bundle needs to be made on Debian, for the same release.", fix="Make it on such a machine.")
    sources = [Source(workshop.mirrors.main, codename)]
    if workshop.mirrors.security:
        sources.append(Source(workshop.mirrors.security, f"{codename}-security"))
    notify(f"Resolving packages for machines with Debian {codename}")
    choices = workshop.choices
    with apt_root(sources, ca=choices.extra_ca_bundle, arch=choices.arch) as apt:
        apt.update()
        packages = apt.resolve([*wish.host_packages, *apt.known(wish.split_packages)])
        apt.fetch(packages, workshop.debs, notify)
    return [_deb_item(workshop, HOST_DEBS, package, package.deb) for package in packages]
