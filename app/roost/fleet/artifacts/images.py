"""Make the images that a plan wants and this Docker lacks: load them from a shared folder, else build them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from roost.fleet.artifacts import base as base_root
from roost.fleet.artifacts.agent import fill_agent
from roost.fleet.artifacts.apt import AptRoot
from roost.fleet.artifacts.docker import LABEL, Docker, reference
from roost.fleet.artifacts.plan import AGENT, BASE, ENGINE, MONITORING, SEARCH, Choices, Plan
from roost.fleet.artifacts.sources import Mirrors
from roost.fleet.artifacts.store import PARTIAL, Checked, locked, remove_stale, require_space
from roost.ops.errors import RoostError
from roost.ops.offline import OfflineBundle

TITLES = {
    BASE: "Roost base", AGENT: "Roost agent", ENGINE: "llama.cpp server", MONITORING: "Prometheus", SEARCH: "SearXNG"
}  # fmt: skip
IMAGE_SPACE = {BASE: 300 << 20, AGENT: 400 << 20, ENGINE: 300 << 20, MONITORING: 250 << 20, SEARCH: 400 << 20}
SAVED_AGENTS = 4  # one comes with every change of the code


def labels(name: str, tag: str) -> dict[str, str]:
    """Return the labels of an image."""
    return {
        LABEL: name,
        "org.opencontainers.image.title": TITLES[name],
        "org.opencontainers.image.version": tag,
        "org.opencontainers.image.vendor": "Roost",
    }


def archive_name(name: str, tag: str) -> str:
    """Return what an image's file is called in a shared folder."""
    return f"image-{name}-{tag}.tar"


@dataclass
class ImageMaker:
    """Brings images into being; apt and mirrors are asked for only when something has to be built."""

    choices: Choices
    plan: Plan
    docker: Docker
    apt_for_base: Callable[[], AptRoot]
    mirrors: Callable[[], Mirrors]
    engine_tree: Callable[[Path], Path]  # makes the engine's tree in a folder and returns it
    monitoring_tree: Callable[[Path], Path]  # likewise, of Prometheus
    notify: Callable[[str], None]
    bundle: OfflineBundle | None = None
    made: list[str] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """The shared folder of finished images."""
        return self.choices.cache_dir / "artifacts"

    def present(self) -> set[str]:
        """Return the references of our images in this Docker."""
        return {image.reference for image in self.docker.images()}

    def missing(self) -> list[str]:
        """Return the names of wanted images that are not there."""
        here = self.present()
        return [name for name in self.plan.tags if self.plan.reference(name) not in here]

    def ensure(self) -> None:
        """Load or build every image of the plan that is missing.

        Raises:
            RoostError: Docker does not answer, a disk is full, or something cannot be fetched.
        """
        # The agent's file holds its base as well, so it comes first.
        for name in (AGENT, BASE, ENGINE, MONITORING, SEARCH):
            if name in self.missing():
                self._require_docker_space(name)
                self._load(name)
        for name in (BASE, AGENT, ENGINE, MONITORING, SEARCH):
            if name not in self.missing():
                continue
            if self.bundle is not None:
                self.bundle.path(f"artifacts/{archive_name(name, self.plan.tags[name])}")
            with locked(self.store, f"image-{name}"):
                # Another machine that shares the folder may have made it while this one waited.
                if self._load(name):
                    continue
                self._build(name)
                self._save(name)

    def _require_docker_space(self, name: str) -> None:
        folder = self.docker.root_dir()
        if folder is not None:
            require_space(folder, IMAGE_SPACE[name])

    def _load(self, name: str) -> bool:
        """Load an image from the offline folder or the cache; say whether it is there now."""
        tag = self.plan.tags[name]
        file = archive_name(name, tag)
        if self.bundle is not None and self.bundle.has(f"artifacts/{file}"):
            self.notify(f"Loading {reference(name, tag)} from the offline folder")
            self.docker.load(self.bundle.path(f"artifacts/{file}"))
        elif (archive := Checked(self.store / file)).exists():
            if not archive.is_intact():
                self.notify(f"{file} in the cache is damaged and is made again")
                archive.remove()
                return False
            self.notify(f"Loading {reference(name, tag)} from the cache")
            archive.path.touch()
            self.docker.load(archive.path)
        else:
            return False
        if reference(name, tag) in self.present():
            self.made.append(reference(name, tag))
            return True
        return False

    def _save(self, name: str) -> None:
        tag = self.plan.tags[name]
        names = (AGENT, BASE) if name == AGENT else (name,)
        references = [self.plan.reference(other) for other in names]
        require_space(self.store, IMAGE_SPACE[name])
        with Checked(self.store / archive_name(name, tag)).writing() as partial:
            self.docker.save(references, partial)
        if name == AGENT:
            saved = sorted(self.store.glob(f"image-{AGENT}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in saved[SAVED_AGENTS:]:
                Checked(path).remove()

    def _build(self, name: str) -> None:
        tag = self.plan.tags[name]
        require_space(self.store, IMAGE_SPACE[name])
        self.notify(f"Building {reference(name, tag)}")
        makers = {BASE: self._build_base, AGENT: self._build_agent}
        makers |= {ENGINE: self._build_engine, MONITORING: self._build_monitoring, SEARCH: self._build_search}
        makers[name](tag)
        self.made.append(reference(name, tag))

    @contextmanager
    def _workshop(self, name: str, tag: str) -> Iterator[Path]:
        prefix = f"{PARTIAL}{name}-{tag}-"
        for left in self.store.glob(f"{PARTIAL}{name}-*"):
            base_root.release_mounts(left)
        remove_stale(self.store, name)
        remove_stale(self.store, f"image-{name}")
        with tempfile.TemporaryDirectory(dir=self.store, prefix=prefix) as folder:
            Path(folder).chmod(0o755)
            yield Path(folder)

    def _build_base(self, tag: str) -> None:
        resolution = self.plan.base
        if resolution is None:
            raise RoostError("The base image's packages are not resolved.")
        require_space(self.store, base_root.SPACE)
        with self._workshop(BASE, tag) as folder:
            root = folder / "root"
            debs = self.choices.cache_dir / "debs"
            apt = self.apt_for_base()
            base_root.build_root(
                resolution, root, self.mirrors(), apt, debs, ca=self.choices.extra_ca_bundle, notify=self.notify
            )
            base_root.pack(root, folder / "root.tar")
            changes = [f'LABEL {key}="{value}"' for key, value in labels(BASE, tag).items()]
            changes += ["ENV LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", 'CMD ["python3"]']
            self.docker.import_root(folder / "root.tar", BASE, tag, changes)

    def _build_agent(self, tag: str) -> None:
        if self.plan.target is None:
            raise RoostError("The agent's Python is not known.")
        choices = self.choices
        with self._workshop(AGENT, tag) as folder:
            offline = self.bundle.directory("wheels") if self.bundle is not None else None
            fill_agent(
                folder,
                choices.release_dir,
                self.plan.target,
                choices.cache_dir / "wheels",
                ca=choices.extra_ca_bundle,
                notify=self.notify,
                offline=offline,
            )
            shutil.copyfile(choices.release_dir / "images" / AGENT / "Dockerfile", folder / "Dockerfile")
            self.docker.build(folder, AGENT, tag, {"BASE": self.plan.reference(BASE), "TAG": tag})

    def _build_engine(self, tag: str) -> None:
        self._build_of_tree(ENGINE, tag, self.engine_tree)

    def _build_monitoring(self, tag: str) -> None:
        self._build_of_tree(MONITORING, tag, self.monitoring_tree)

    def _build_search(self, tag: str) -> None:
        wanted = self.choices.web_search_image
        fetched = not self.docker.has(wanted)
        if fetched:
            self.notify(f"Fetching {wanted}")
            self._fetch_search(wanted)
        with self._workshop(SEARCH, tag) as folder:
            shutil.copyfile(self.choices.release_dir / "images" / SEARCH / "Dockerfile", folder / "Dockerfile")
            self.docker.build(folder, SEARCH, tag, {"SEARXNG": wanted, "TAG": tag})
        if fetched:  # ours has all of it; a name that is not ours would stay after an uninstall
            self.docker.remove([wanted])

    def _fetch_search(self, wanted: str) -> None:
        try:
            self.docker.call("image", "pull", "--quiet", wanted)
        except RoostError as error:
            raise RoostError(
                f"SearXNG's image cannot be had: {error.message}",
                fix="Name a registry that can be reached: `roost search enable --image HOST/searxng/searxng@sha256:…`. "
                "Or hand it over: `docker image save` where there is a network, `docker image load` here, and its name "
                "with --image. Or take a folder that `roost bundle` made where search is enabled.",
                exit_code=error.exit_code,
            ) from error

    def _build_of_tree(self, name: str, tag: str, make: Callable[[Path], Path]) -> None:
        with self._workshop(name, tag) as folder:
            make(folder).rename(folder / "tree")
            shutil.copyfile(self.choices.release_dir / "images" / name / "Dockerfile", folder / "Dockerfile")
            self.docker.build(folder, name, tag, {"TAG": tag})
