"""Folders that a user named for agents to work in; each belongs to a key, and another key's is not there."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TOO_WIDE = frozenset(
    map(Path, ("/", "/etc", "/usr", "/var", "/home", "/root", "/boot", "/dev", "/proc", "/sys", "/run", "/opt", "/bin"))
)
OURS = (Path("/etc/roost"), Path("/var/lib/roost"), Path("/opt/roost"))


class Workspace(BaseModel):
    """One folder: its name, where it is, and the name of the key that may use it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path
    owner: str


class Workspaces:
    """The list, in one file."""

    def __init__(self, file: Path) -> None:
        self._file = file

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
        inside_ours = any(real == ours or ours in real.parents for ours in OURS)
        if real in TOO_WIDE or real == Path.home() or inside_ours:
            raise RoostError(
                f"{real} holds more than a project: a tool could change all of it.",
                fix="Name a folder of one project.",
                exit_code=2,
            )  # fmt: skip
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

    def remove(self, name: str, owner: str) -> Workspace:
        """Take a folder off the list; its files stay.

        Raises:
            RoostError: this key has none of that name.
        """
        with self._locked():
            found = self._load()
            gone = next((w for w in found if w.name == name and w.owner == owner), None)
            if gone is None:
                raise RoostError(f"There is no workspace {name}.", fix="roost workspace list", exit_code=2)
            self._save([w for w in found if w != gone])
        return gone

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
