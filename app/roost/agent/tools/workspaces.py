"""Folders that a user named for agents to work in; each belongs to a key, and another key's is not there."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TOO_WIDE = frozenset(
    map(Path, ("/", "/home", "/root", "/var", "/var/lib", "/var/tmp", "/tmp", "/opt", "/srv", "/mnt", "/media"))  # noqa: S108 - named to be refused
)
"""Folders that hold more than a project, though a project may lie in them."""
SYSTEM = tuple(
    map(
        Path,
        ("/etc", "/usr", "/boot", "/dev", "/proc", "/sys", "/run", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
         "/var/log", "/var/spool", "/var/cache", "/var/lib/roost", "/var/lib/docker", "/opt/roost"),
    )
)  # fmt: skip
"""Folders in which no project lies."""


def unfit(folder: Path, home: Path, kept: Sequence[Path]) -> str:
    """Say why a folder is none for an agent to change; '' if nothing is against it. All paths are resolved."""
    if folder in TOO_WIDE or folder == home or folder in home.parents:
        return "holds more than a project: a tool could change all of it"
    if any(folder == one or one in folder.parents for one in SYSTEM):
        return "belongs to the system"
    if folder.is_relative_to(home) and folder.relative_to(home).parts[0].startswith("."):
        return "lies where programs keep settings and secrets"
    if any(one == folder or folder in one.parents for one in kept):
        return "holds what Roost itself keeps for the agent"
    return ""


class Workspace(BaseModel):
    """One folder: its name, where it is, and the name of the key that may use it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path
    owner: str


class Workspaces:
    """The list, in one file."""

    def __init__(self, file: Path, kept: Sequence[Path] = ()) -> None:
        """`kept`: what else of ours no workspace may hold."""
        self._file = file
        self._kept = tuple(path.resolve() for path in (file, *kept))

    def of(self, owner: str) -> list[Workspace]:
        """Return a key's workspaces by name."""
        return sorted((w for w in self._load() if w.owner == owner), key=lambda w: w.name)

    def all(self) -> list[Workspace]:
        """Return all, by owner and name."""
        return sorted(self._load(), key=lambda w: (w.owner, w.name))

    def add(self, path: Path, owner: str, name: str = "") -> Workspace:
        """Name a folder; nothing changes where the same is there already.

        Raises:
            RoostError: there is no such folder, it holds more than a project, or the name is taken.
        """
        real = path.expanduser().resolve()
        if not real.is_dir():
            raise RoostError(f"{path} is no folder.", fix=f"mkdir -p {path}", exit_code=2)
        if why := unfit(real, Path.home().resolve(), self._kept):
            raise RoostError(f"{real} {why}.", fix="Name the folder of one project.", exit_code=2)
        called = name or re.sub(r"[^a-z0-9._-]+", "-", real.name.lower()).strip("-._") or "workspace"
        if not NAME.fullmatch(called):
            raise RoostError(f"{called!r} is no name: a-z, 0-9, ., _, -.", fix="--name project", exit_code=2)
        with self._locked():
            found = self._load()
            wanted = Workspace(name=called, path=real, owner=owner)
            if wanted in found:
                return wanted
            if any(w.name == called and w.owner == owner for w in found):
                raise RoostError(f"There is another workspace {called}.", fix="--name another", exit_code=2)
            self._save([*found, wanted])
        return wanted

    def remove(self, name: str, owner: str = "") -> Workspace:
        """Take a folder off the list, by its name or path; its files stay. Without an owner it is found by these.

        Raises:
            RoostError: there is none, or keys have one each.
        """
        path = Path(name).expanduser().resolve()
        with self._locked():
            found = self._load()
            meant = [w for w in found if owner in ("", w.owner) and (w.name == name or w.path == path)]
            if not meant:
                raise RoostError(f"There is no workspace {name}.", fix="roost workspace list", exit_code=2)
            if len(meant) > 1:
                owners = ", ".join(sorted({w.owner for w in meant}))
                raise RoostError(f"More than one is called {name}: of {owners}.", fix="--owner NAME", exit_code=2)
            self._save([w for w in found if w != meant[0]])
        return meant[0]

    def _load(self) -> list[Workspace]:
        try:
            return [Workspace.model_validate(entry) for entry in json.loads(self._file.read_text())]
        except FileNotFoundError:
            return []
        except (ValueError, ValidationError) as error:
            raise RoostError(
                f"{self._file} cannot be read: {error}.", fix=f"Correct or remove {self._file}."
            ) from error

    def _save(self, found: list[Workspace]) -> None:
        text = json.dumps([w.model_dump(mode="json") for w in found], indent=1)
        write_atomic(self._file, f"{text}\n", mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(f"{self._file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
