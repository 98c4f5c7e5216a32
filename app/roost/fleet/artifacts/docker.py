"""The docker command line, with its failures explained. The daemon is the one the caller's environment names."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.run import run

LABEL = "org.roost.image"
REPOSITORY = "roost"


@dataclass(frozen=True, slots=True)
class Image:
    """One tagged image of ours: `name` as in the label (base, agent, llama-server)."""

    name: str
    tag: str
    id: str
    created: str  # as docker prints it: sorts by age
    size: str = ""

    @property
    def reference(self) -> str:
        """The name containers are started with."""
        return reference(self.name, self.tag)


def reference(name: str, tag: str) -> str:
    """Return `roost/<name>:<tag>`."""
    return f"{REPOSITORY}/{name}:{tag}"


def explain(error: RoostError) -> RoostError:
    """Turn docker's words into a sentence with a way out."""
    text = error.message
    if "Cannot connect to the Docker daemon" in text or "error during connect" in text:
        return RoostError(
            f"The Docker daemon does not answer: {text}", fix="Start it (service docker start), or set DOCKER_HOST."
        )
    if "permission denied" in text and "docker" in text.lower() and "sock" in text:
        return RoostError(f"Docker's socket may not be used: {text}", fix="Run the command as root.", exit_code=4)
    if "no space left on device" in text.lower():
        return RoostError(
            f"Docker's disk is full: {text}", fix="Free space (`roost images gc`, `docker system df`) and run it again."
        )
    return RoostError(text, fix=error.fix or "See docker's words above.")


def parse_images(output: str) -> list[Image]:
    """Read `docker image ls --format '{{json .}}'`; untagged and foreign names are left out."""
    found = []
    for line in output.splitlines():
        row = json.loads(line)
        repository, _, name = row["Repository"].rpartition("/")
        if repository == REPOSITORY and row["Tag"] != "<none>":
            found.append(Image(name, row["Tag"], row["ID"], row["CreatedAt"], row.get("Size", "")))
    return found


@dataclass(frozen=True)
class Docker:
    """Calls of the docker client. `environment` replaces the process environment when given."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def call(self, *words: str | Path, timeout_s: float | None = None) -> str:
        """Run `docker WORDS` and return what it printed.

        Raises:
            RoostError: docker is missing, its daemon does not answer, or the command failed.
        """
        # The classic builder: it needs no plugin and fetches nothing of its own.
        environment = {**self.environment, "DOCKER_BUILDKIT": "0"}
        try:
            return run(["docker", *words], env=environment, timeout_s=timeout_s)
        except RoostError as error:
            raise explain(error) from error

    def installed(self) -> bool:
        """Say whether there is a docker client."""
        return shutil.which("docker", path=self.environment.get("PATH")) is not None

    def images(self) -> list[Image]:
        """Return our images, by label."""
        return parse_images(
            self.call("image", "ls", "--no-trunc", "--filter", f"label={LABEL}", "--format", "{{json .}}", timeout_s=60)
        )

    def images_or_none(self) -> list[Image]:
        """Return our images; none when Docker is not installed or not running (a check before the first run)."""
        if not self.installed():
            return []
        try:
            return self.images()
        except RoostError:
            return []

    def used_images(self, *, attempts: int = 3) -> set[str]:
        """Return the ids of images that a container, running or stopped, was made from."""
        ids = self.call("container", "ls", "-aq", "--no-trunc").split()
        try:
            return set(self.call("container", "inspect", "--format", "{{.Image}}", *ids).split()) if ids else set()
        except RoostError as error:
            # One of them may have been removed meanwhile: ask again.
            if attempts == 1 or "no such container" not in error.message.lower():
                raise
        return self.used_images(attempts=attempts - 1)

    def has(self, image: str) -> bool:
        """Say whether there is an image of this name, ours or not.

        Raises:
            RoostError: the daemon does not answer.
        """
        try:
            self.call("image", "inspect", "--format", "{{.Id}}", image)
        except RoostError as error:
            if "no such image" not in error.message.lower():
                raise
            return False
        return True

    def root_dir(self) -> Path | None:
        """Return the daemon's data folder if it is on this machine's disks."""
        path = Path(self.call("info", "--format", "{{.DockerRootDir}}").strip() or "/nonexistent")
        return path if path.is_dir() else None

    def load(self, tar: Path) -> None:
        """Load images from a file made by `save`."""
        self.call("image", "load", "--quiet", "--input", tar)

    def save(self, references: Sequence[str], tar: Path) -> None:
        """Write images with their tags to a file."""
        self.call("image", "save", "--output", tar, *references)

    def import_root(self, tar: Path, name: str, tag: str, changes: Sequence[str]) -> None:
        """Make an image of one layer from a root file system's tar. `changes` are Dockerfile lines."""
        words = [word for change in changes for word in ("--change", change)]
        self.call("image", "import", *words, tar, reference(name, tag))

    def build(self, context: Path, name: str, tag: str, arguments: Mapping[str, str]) -> None:
        """Build an image from a folder with a Dockerfile; the build has no network."""
        words: list[str | Path] = ["build", "--quiet", "--force-rm", "--network", "none", "--tag", reference(name, tag)]
        for key, value in arguments.items():
            words += ["--build-arg", f"{key}={value}"]
        self.call(*words, context)

    def remove(self, references: Sequence[str]) -> None:
        """Remove tags; Docker refuses those a container uses."""
        if references:
            self.call("image", "rm", *references)

    def remove_containers(self) -> None:
        """Remove containers made from exactly our images, running or not.

        The label alone does not tell: an image that somebody built from ours inherits it, and so do its containers.
        """
        ours = {image.id for image in self.images()}
        ids = self.call("container", "ls", "-aq", "--no-trunc", "--filter", f"label={LABEL}").split()
        if not ids:
            return
        pairs = self.call("container", "inspect", "--format", "{{.Id}} {{.Image}}", *ids).splitlines()
        doomed = [container for container, _, image in (pair.partition(" ") for pair in pairs) if image in ours]
        if doomed:
            self.call("container", "rm", "--force", "--volumes", *doomed)

    def prune_untagged(self) -> None:
        """Remove what an interrupted build of ours left."""
        self.call("image", "prune", "--force", "--filter", f"label={LABEL}")
