"""Make the artifacts that should exist, and say what that changed: one way for the playbook and the command line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from roost.fleet.artifacts import base as base_root
from roost.fleet.artifacts import gc
from roost.fleet.artifacts.agent import build_agent
from roost.fleet.artifacts.apt import NOT_THERE, AptRoot, Source, apt_root, is_released
from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.engine import build_engine
from roost.fleet.artifacts.engine_python import build_engine_python
from roost.fleet.artifacts.images import ImageMaker
from roost.fleet.artifacts.monitoring import build_monitoring, needed
from roost.fleet.artifacts.plan import AGENT, ENGINE, MONITORING, Choices, Plan, make_plan
from roost.fleet.artifacts.resolution import Resolution, ResolutionBook, Wanted
from roost.fleet.artifacts.sources import Mirrors, mirrors
from roost.fleet.artifacts.store import is_tree
from roost.fleet.artifacts.wheels import Target
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.offline import ENGINE_DEBS, OfflineBundle

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What exists now, or would after a run without check."""

    changed: bool
    runtime: str
    engine_tree: str
    agent_tree: str
    monitoring_tree: str
    images: dict[str, str]
    built: list[str]
    removed: list[str]
    before: list[str]
    after: list[str]


@dataclass
class Workshop:
    """The places and programs artifacts are made with; opens a private apt root only when one is needed."""

    choices: Choices
    docker: Docker
    notify: Notify
    stack: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def bundle(self) -> OfflineBundle | None:
        """The offline folder, when one was given."""
        return OfflineBundle(self.choices.offline_dir) if self.choices.offline_dir is not None else None

    @cached_property
    def mirrors(self) -> Mirrors:
        """Where Debian packages come from.

        Raises:
            RoostError: with an offline folder there is no such place.
        """
        if self.choices.offline_dir is not None:
            raise RoostError(
                f"The offline folder {self.choices.offline_dir} lacks something that this machine's variables ask for.",
                fix="Make it again with `roost bundle DIR` from the same version and the same variables.",
            )
        return mirrors(self.choices.mirror)

    @cached_property
    def book(self) -> ResolutionBook:
        """The decisions made so far."""
        offline = [self.choices.offline_dir / "artifacts"] if self.choices.offline_dir is not None else []
        return ResolutionBook(self.choices.artifacts_dir, [*offline, self.choices.cache_dir / "artifacts"])

    @property
    def debs(self) -> Path:
        """The cache of .debs."""
        return self.choices.cache_dir / "debs"

    def sources(self, wanted: Wanted) -> list[Source]:
        """Return where a wish is fulfilled."""
        if wanted.kind == "base":
            return base_root.base_sources(wanted, self.mirrors)
        return [Source(self.mirrors.main, wanted.suite, any_age=not is_released(wanted.suite))]

    def apt(self, wanted: Wanted) -> AptRoot:
        """Open a private apt root for a wish; it lives as long as the workshop."""
        sources = self.sources(wanted)
        return self.stack.enter_context(apt_root(sources, ca=self.choices.extra_ca_bundle, arch=wanted.arch))

    def resolve(self, wanted: Wanted) -> Resolution:
        """Ask apt for the versions of today."""
        self.notify(f"Resolving {wanted.kind} packages of Debian {wanted.suite}")
        names = list(wanted.packages)
        if wanted.kind == "base":
            names = base_root.package_names(wanted, self.mirrors, self.choices.extra_ca_bundle)
        apt = self.apt(wanted)
        apt.update()
        found = apt.resolve(names)
        return Resolution(wanted=wanted, packages=tuple(needed(found) if wanted.kind == MONITORING else found))

    def decide(self, wanted: Wanted, *, update: bool) -> Resolution:
        """Return the known resolution of a wish, or ask apt."""
        known, _ = self.book.find(wanted)
        if known is not None and not update:
            return known
        found = self.resolve(wanted)
        if not update:
            self.book.share(found)
        return found

    def engine_tree(self, resolution: Resolution, folder: Path) -> Path:
        """Make the engine tree in a folder."""
        if self.bundle is not None:
            self.use_bundled_debs(self.bundle)
        return build_engine(resolution, folder, self.debs, apt=lambda: self.apt(resolution.wanted), notify=self.notify)

    def monitoring_tree(self, plan: Plan, folder: Path) -> Path:
        """Make the tree of Prometheus in a folder."""
        resolution = plan.monitoring
        if resolution is None:
            raise RoostError("The packages of Prometheus are not resolved.")
        if self.bundle is not None:
            self.use_bundled_debs(self.bundle)
        return build_monitoring(
            resolution, folder, self.debs, apt=lambda: self.apt(resolution.wanted), notify=self.notify
        )

    def use_bundled_debs(self, bundle: OfflineBundle) -> None:
        """Bring the .debs of the offline folder that trees are made of into the cache."""
        self.debs.mkdir(parents=True, exist_ok=True)
        for name in bundle.names(f"{ENGINE_DEBS}/"):
            target = self.debs / Path(name).name
            if not target.is_file():
                write_atomic(target, bundle.path(name).read_bytes())


def known_plan(workshop: Workshop) -> Plan:
    """Return the plan as far as it can be known without a network."""
    choices = workshop.choices
    engine, _ = workshop.book.find(choices.engine)
    base = workshop.book.find(choices.base)[0] if choices.runtime == "docker" else None
    monitoring = workshop.book.find(choices.monitoring)[0] if choices.monitoring else None
    return make_plan(choices, engine, base, monitoring)


def _present(workshop: Workshop) -> list[str]:
    if workshop.choices.runtime == "docker":
        return sorted(image.reference for image in workshop.docker.images_or_none())
    return sorted(Path(tree.id).name for tree in gc.trees(workshop.choices.artifacts_dir))


def outcome_of(workshop: Workshop, plan: Plan, present: list[str], *, noted: bool) -> Outcome:
    """Compare what is there with what should be. `noted`: a decision would be written down that was not before."""
    choices = workshop.choices
    history = gc.read_history(choices.artifacts_dir)
    wanted = {name: plan.reference(name) for name in plan.tags}
    before = []
    for name, tag in plan.tags.items():
        known = history.get(_history_name(plan, name), [])[:1]
        before += [ref for ref in (wanted[name].removesuffix(tag) + old for old in known) if ref in present]
        noted = noted or known != [tag]
    missing = sorted(ref for ref in wanted.values() if ref not in present)
    local, watched = plan.runtime == "local", MONITORING in plan.tags
    return Outcome(
        changed=bool(missing) or noted,
        runtime=plan.runtime,
        engine_tree=str(choices.artifacts_dir / plan.reference(ENGINE)) if local else "",
        agent_tree=str(choices.artifacts_dir / plan.reference(AGENT)) if local else "",
        monitoring_tree=str(choices.artifacts_dir / plan.reference(MONITORING)) if local and watched else "",
        images={} if local else {name.replace("-", "_"): plan.reference(name) for name in plan.tags},
        built=missing,
        removed=[],
        before=sorted(before),
        after=sorted(wanted.values()),
    )


def _history_name(plan: Plan, name: str) -> str:
    return plan.folder(name) if plan.runtime == "local" else name


def check(workshop: Workshop, *, update: bool = False) -> Outcome:
    """Say what `ensure` would change, and change nothing. An update asks the mirror; anything else needs no network."""
    choices = workshop.choices
    if not update:
        plan = known_plan(workshop)
    else:
        with workshop.stack:
            found = {wanted.kind: workshop.resolve(wanted) for wanted in choices.wanted}
        plan = make_plan(choices, found.get("engine"), found.get("base"), found.get(MONITORING))
    own = [workshop.book.find(wanted) for wanted in choices.wanted]
    return outcome_of(workshop, plan, _present(workshop), noted=not all(mine for _, mine in own))


def ensure(workshop: Workshop, *, update: bool = False) -> Outcome:
    """Make what is missing. With `update` the packages are resolved anew, so newer ones give new artifacts.

    Versions that only another machine decided on, and that the mirror has no more, are resolved anew too.

    Raises:
        RoostError: Docker does not answer, a disk is full, or something cannot be fetched or is not what it should be.
    """
    borrowed = not all(mine for _, mine in (workshop.book.find(wanted) for wanted in workshop.choices.wanted))
    try:
        return _ensure(workshop, update=update)
    except RoostError as error:
        if update or not borrowed or NOT_THERE not in error.message:
            raise
        workshop.notify("The mirror no longer has the versions that were decided on elsewhere")
    return _ensure(workshop, update=True)


def _ensure(workshop: Workshop, *, update: bool) -> Outcome:
    choices = workshop.choices
    if choices.runtime == "docker":
        present = sorted(image.reference for image in workshop.docker.images())  # first: it fails at once or works
    else:
        present = _present(workshop)
    with workshop.stack:
        resolutions = {wanted.kind: workshop.decide(wanted, update=update) for wanted in choices.wanted}
        plan = make_plan(choices, resolutions.get("engine"), resolutions.get("base"), resolutions.get(MONITORING))
        outcome = outcome_of(workshop, plan, present, noted=False)
        if outcome.built:
            _make(workshop, plan)
    noted = [workshop.book.keep(resolution) for resolution in resolutions.values()]
    noted.append(
        gc.remember(choices.artifacts_dir, {_history_name(plan, name): tag for name, tag in plan.tags.items()})
    )
    removed: list[str] = []
    if outcome.built:
        try:
            removed = collect(workshop)
        except (RoostError, OSError) as error:  # what was made is good
            workshop.notify(f"Warning: what is no longer needed could not be removed: {error}")
    return Outcome(
        outcome.changed or any(noted),
        outcome.runtime,
        outcome.engine_tree,
        outcome.agent_tree,
        outcome.monitoring_tree,
        outcome.images,
        outcome.built,
        removed,
        outcome.before,
        outcome.after,
    )


def _make(workshop: Workshop, plan: Plan) -> None:
    if plan.target is None or (plan.engine is None and not plan.level):
        raise RoostError("The packages are not resolved.")
    if plan.runtime == "local":
        _make_trees(workshop, plan, plan.target)
    elif plan.engine is not None:
        choices, engine, base = workshop.choices, plan.engine, workshop.choices.base
        maker = ImageMaker(
            choices,
            plan,
            workshop.docker,
            lambda: workshop.apt(base),
            lambda: workshop.mirrors,
            lambda folder: workshop.engine_tree(engine, folder),
            lambda folder: workshop.monitoring_tree(plan, folder),
            workshop.notify,
            workshop.bundle,
        )
        maker.ensure()


def _make_trees(workshop: Workshop, plan: Plan, target: Target) -> None:
    choices = workshop.choices
    wheels_dir = choices.cache_dir / "wheels"
    if plan.engine is None:
        build_engine_python(
            choices.release_dir,
            target,
            plan.level,
            choices.artifacts_dir,
            wheels_dir,
            ca=choices.extra_ca_bundle,
            notify=workshop.notify,
            bundle=workshop.bundle,
        )
    elif not is_tree(choices.artifacts_dir / plan.reference(ENGINE)):
        workshop.engine_tree(plan.engine, choices.artifacts_dir)
    if plan.monitoring is not None and not is_tree(choices.artifacts_dir / plan.reference(MONITORING)):
        workshop.monitoring_tree(plan, choices.artifacts_dir)
    offline = workshop.bundle.directory("wheels") if workshop.bundle is not None else None
    build_agent(
        choices.release_dir,
        target,
        choices.artifacts_dir,
        wheels_dir,
        ca=choices.extra_ca_bundle,
        notify=workshop.notify,
        offline=offline,
    )


def collect(workshop: Workshop) -> list[str]:
    """Remove what is older than the previous artifacts and not in use; return what was removed."""
    choices = workshop.choices
    removed = gc.collect_trees(choices.artifacts_dir, keep_previous=choices.keep_previous)
    if choices.runtime == "docker":
        removed += gc.collect_images(workshop.docker, choices.artifacts_dir, keep_previous=choices.keep_previous)
    return removed
