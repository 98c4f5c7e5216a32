"""Folders that a user named for agents to work in; each belongs to a key of a hub, and another's is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.file_lock import locked
from roost.ops.files import write_atomic
from roost.ops.validation import in_words

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TOO_WIDE = frozenset(
    map(Path, ("/", "/home", "/root", "/var", "/var/lib", "/var/tmp", "/tmp", "/opt", "/srv", "/mnt", "/media"))  # noqa: S108 - named to be refused
)
"""Folders that hold more than a project, though a project may lie in them."""
SYSTEM = tuple(
    map(
        Path,
        ("/etc", "/usr", "/boot", "/dev", "/proc", "/sys", "/run", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
         "/var/log", "/var/spool", "/var/cache", "/var/lib/roost", "/var/db/roost", "/var/lib/docker", "/opt/roost"),
    )
)  # fmt: skip
"""Folders in which no project lies."""


def unfit(folder: Path, home: Path, kept: Sequence[Path], private: Sequence[Path] = ()) -> str:
    """Say why a folder is none for an agent to change; '' if nothing is against it. All paths are resolved.

    `private` are the folders of settings and secrets that lie elsewhere than in the home folder (XDG_CONFIG_HOME ...).
    """
    if folder in TOO_WIDE or folder == home or folder in home.parents:
        return "holds more than a project: a tool could change all of it"
    if any(folder == one or one in folder.parents for one in SYSTEM):
        return "belongs to the system"
    if folder.is_relative_to(home) and folder.relative_to(home).parts[0].startswith("."):
        return "lies where programs keep settings and secrets"
    if any(one == folder or folder in one.parents or one in folder.parents for one in kept):
        return "holds what Roost itself keeps for the agent"
    if any(one == folder or folder in one.parents or one in folder.parents for one in private):
        return "lies where programs keep settings and secrets, or holds that"
    return ""


class Workspace(BaseModel):
    """One folder: its name, where it is, the name of the key that may use it, and the identity of that key's hub.

    Without a hub it waits for the first one at which a worker of that key works.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path
    owner: str
    hub: str = ""


class Named(Protocol):
    """Whoever knows the folders of a key."""

    def of(self, owner: str) -> list[Workspace]:
        """Return a key's workspaces by name."""
        ...


@dataclass(frozen=True)
class Together:
    """Two lists as one; of two with the same name that of the first counts."""

    first: Named
    second: Named

    def of(self, owner: str) -> list[Workspace]:
        """Return a key's workspaces by name."""
        found = {w.name: w for w in (*self.second.of(owner), *self.first.of(owner))}
        return [found[name] for name in sorted(found)]


class Workspaces:
    """The list, in one file. `hub` is the identity of the hub that is worked for; another's are not there."""

    def __init__(self, file: Path, kept: Sequence[Path] = (), private: Sequence[Path] = (), hub: str = "") -> None:
        """`kept`: what else of ours no workspace may hold; `private`: see `unfit`."""
        self._file = file
        self._kept = tuple(path.resolve() for path in (file, *kept))
        self._private = tuple(path.resolve() for path in private)
        self._hub = hub

    def at(self, hub: str) -> Workspaces:
        """Return the same list as a hub may see it."""
        return Workspaces(self._file, self._kept, self._private, hub)

    def kept_in(self, file: Path) -> Workspaces:
        """Return another list, in a file of its own, under the same rules."""
        return Workspaces(file, (self._file, *self._kept), self._private)

    def of(self, owner: str) -> list[Workspace]:
        """Return a key's workspaces by name."""
        return sorted((w for w in self._load() if (w.owner, w.hub) == (owner, self._hub)), key=lambda w: w.name)

    def pass_on(self, owner: str, before: str) -> list[Workspace]:
        """Give this hub what a key had at `before`, or '' for what waits for a hub; return what it got.

        What has the name of one that is there already stays where it is.
        """
        with locked(self._file):
            found = self._load()
            taken = {w.name for w in found if (w.owner, w.hub) == (owner, self._hub)}
            got = [w for w in found if (w.owner, w.hub) == (owner, before) and w.name not in taken]
            if got and before != self._hub:
                self._save([w.model_copy(update={"hub": self._hub}) if w in got else w for w in found])
        return got

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
            fix = "Name the folder that it is in." if real.exists() else f"mkdir -p {path}"
            raise RoostError(f"{path} is no folder.", fix=fix, exit_code=2)
        if why := unfit(real, Path.home().resolve(), self._kept, self._private):
            raise RoostError(f"{real} {why}.", fix="Name the folder of one project.", exit_code=2)
        called = name or re.sub(r"[^a-z0-9._-]+", "-", real.name.lower()).strip("-._") or "workspace"
        if not NAME.fullmatch(called):
            raise RoostError(f"{called!r} is no name: a-z, 0-9, ., _, -.", fix="--name project", exit_code=2)
        with locked(self._file):
            found = self._load()
            wanted = Workspace(name=called, path=real, owner=owner, hub=self._hub)
            if wanted in found:
                return wanted
            if any((w.name, w.owner, w.hub) == (called, owner, self._hub) for w in found):
                raise RoostError(f"There is another workspace {called}.", fix="--name another", exit_code=2)
            self._save([*found, wanted])
        return wanted

    def remove(self, name: str, owner: str = "") -> Workspace:
        """Take a folder off the list, by its name or path; its files stay. Without an owner it is found by these.

        It may be that of any hub: who takes a folder away has named it.

        Raises:
            RoostError: there is none, or several keys or hubs have one.
        """
        path = Path(name).expanduser().resolve()
        with locked(self._file):
            found = self._load()
            meant = [w for w in found if owner in ("", w.owner) and (w.name == name or w.path == path)]
            if not meant:
                raise RoostError(f"There is no workspace {name}.", fix="roost workspace list", exit_code=NOT_FOUND)
            if len(meant) > 1:
                here = [w for w in meant if w.hub == self._hub]
                owners = ", ".join(sorted({w.owner for w in meant}))
                if len({w.owner for w in meant}) > 1 or len(here) != 1:
                    raise RoostError(
                        f"More than one is called {name}: of {owners}.", fix="--owner NAME, or its path.", exit_code=2
                    )
                meant = here
            self._save([w for w in found if w != meant[0]])
        return meant[0]

    def _load(self) -> list[Workspace]:
        try:
            return [Workspace.model_validate(entry) for entry in json.loads(self._file.read_text())]
        except FileNotFoundError:
            return []
        except ValueError as error:
            why = in_words(error) if isinstance(error, ValidationError) else str(error)
            raise RoostError(f"{self._file} cannot be read: {why}.", fix=f"Correct or remove {self._file}.") from error

    def _save(self, found: list[Workspace]) -> None:
        text = json.dumps([w.model_dump(mode="json") for w in found], indent=1)
        write_atomic(self._file, f"{text}\n", mode=0o600)
