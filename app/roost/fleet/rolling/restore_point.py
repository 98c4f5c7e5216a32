"""What a machine had before its update, and the way back to it: files, links, and the definitions of its jobs.

Kept below one folder that only root may read (Nomad's configuration holds the gossip key): `index.json` describes the
files and links, `files/` holds their content, `jobs.json` the jobs as Nomad had them, `machines.json` whom the fleet
had.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from roost.fleet import deploy
from roost.fleet.jobs import machine_of
from roost.fleet.nomad_api import NomadClient
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

Json = Any
FOLDER = "before"
INDEX, JOBS, MACHINES, FILES = "index.json", "jobs.json", "machines.json", "files"
OURS = "roost-"


@dataclass(frozen=True)
class Kept:
    """One path as it was. `content` is the name of its copy, `target` that of a link; both empty: it was absent."""

    path: str
    kind: Literal["file", "link", "absent"]
    mode: int = 0
    uid: int = 0
    gid: int = 0
    content: str = ""
    target: str = ""


def of_machine(listed: Mapping[str, Json], node: str, *, first: bool) -> bool:
    """Say whether a job is changed by this machine's update: its own ones, on the first those of the whole fleet."""
    if not str(listed["ID"]).startswith(OURS):
        return False
    named = machine_of(listed)
    return named == node or (first and not named)


def machine_jobs(client: NomadClient, node: str, *, first: bool) -> list[Json]:
    """Return the definitions of the jobs that a machine's update may change, as they are now; stopped ones are none."""
    listed = [job for job in client.list_jobs() if not job.get("Stop") and of_machine(job, node, first=first)]
    found = [client.job(str(job["ID"])) for job in listed]
    return [job for job in found if job is not None]


def keep(
    folder: Path, paths: Sequence[Path], jobs: Sequence[Json] | None, machines: Sequence[str] | None = None
) -> None:
    """Write down what is there now, in place of what was written down before; the folder appears whole.

    `jobs` None: they are not known, since Nomad does not answer; they will then not be put back. So `machines`, those
    of the fleet by name: nobody will count as one that joined.

    Raises:
        RoostError: it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-", ignore_cleanup_errors=True) as made:
            new = Path(made)
            (new / FILES).mkdir()
            kept = [_keep_one(path, new / FILES, f"{number:03}") for number, path in enumerate(paths)]
            write_atomic(new / INDEX, json.dumps([asdict(one) for one in kept], indent=1) + "\n", mode=0o600)
            write_atomic(new / JOBS, json.dumps(None if jobs is None else list(jobs)) + "\n", mode=0o600)
            write_atomic(new / MACHINES, json.dumps(None if machines is None else list(machines)) + "\n", mode=0o600)
            forget(folder)
            new.rename(folder / FOLDER)
    except OSError as error:
        raise RoostError(
            f"What {os.uname().nodename} has now cannot be written down below {folder}: {error}.",
            fix="Free disk space there; nothing was changed.",
        ) from None


def forget(folder: Path) -> None:
    """Remove what was kept: there is nothing to go back from any more."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def exists(folder: Path) -> bool:
    """Say whether there is something to go back to."""
    return (folder / FOLDER / INDEX).is_file()


def _keep_one(path: Path, folder: Path, name: str) -> Kept:
    if path.is_symlink():
        return Kept(str(path), "link", target=str(path.readlink()))
    if not path.is_file():
        return Kept(str(path), "absent")
    facts = path.stat()
    shutil.copyfile(path, folder / name)
    return Kept(str(path), "file", facts.st_mode & 0o7777, facts.st_uid, facts.st_gid, content=name)


def machines(folder: Path) -> list[str] | None:
    """Return the machines that the fleet had; None where they were not known, or an earlier release kept none.

    Raises:
        RoostError: what was kept cannot be read.
    """
    kept = folder / FOLDER / MACHINES
    try:
        found: list[str] | None = json.loads(kept.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RoostError(f"The machines that were kept in {kept} cannot be read: {error}.") from None
    return found


def joined(had: Collection[str] | None, has: Collection[str] | None, wanted: Collection[str]) -> list[str]:
    """Return the machines that came into the fleet since it `had` those. Pure.

    `has` None: Nomad does not say whom it has now; any of the inventory, `wanted`, may be there then.
    """
    return [] if had is None else sorted(set(wanted if has is None else has) - set(had))


def had(folder: Path, path: Path) -> bool:
    """Say whether a path was there when it was kept; of one that nobody kept it is taken that it was not.

    Raises:
        RoostError: what was kept cannot be read.
    """
    index = folder / FOLDER / INDEX
    try:
        kept = [Kept(**entry) for entry in json.loads(index.read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise RoostError(f"What was kept in {index.parent} cannot be read: {error}.") from None
    return any(one.path == str(path) and one.kind != "absent" for one in kept)


def put_back_files(folder: Path, stay: Collection[str] = ()) -> list[str]:
    """Make files and links what they were, but for those that `stay`; return the paths that were something else.

    Raises:
        RoostError: one cannot be written.
    """
    home = folder / FOLDER
    changed: list[str] = []
    try:
        for entry in json.loads((home / INDEX).read_text()):
            kept = Kept(**entry)
            if kept.path not in stay and _put_back(kept, home / FILES):
                changed.append(kept.path)
    except (OSError, ValueError, TypeError) as error:
        raise RoostError(f"What was kept in {home} cannot be put back: {error}.") from None
    return changed


def _put_back(kept: Kept, folder: Path) -> bool:
    path = Path(kept.path)
    if kept.kind == "absent":
        there = path.is_symlink() or path.is_file()
        if there:
            path.unlink()
        return there
    if kept.kind == "link":
        if path.is_symlink() and str(path.readlink()) == kept.target:
            return False
        fresh = path.with_name(f".{path.name}.back")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(kept.target)
        fresh.replace(path)
        return True
    before = (folder / kept.content).read_bytes()
    if path.is_file() and not path.is_symlink() and path.read_bytes() == before:
        return False
    write_atomic(path, before, mode=kept.mode)
    os.chown(path, kept.uid, kept.gid)
    return True


def pinned(job: Json, node: str) -> Json:
    """Return the definition of a job that runs on one machine alone; of one that names machines its own. Pure."""
    others = job.get("Constraints") or []
    if any(constraint["LTarget"] == deploy.BY_NAME for constraint in others):
        return job
    return {**job, "Constraints": [*others, {"LTarget": deploy.BY_NAME, "RTarget": node, "Operand": "="}]}


def put_back_jobs(
    client: NomadClient, folder: Path, node: str, *, first: bool, timeout_s: float, alone: bool = False
) -> list[str]:
    """Make a machine's jobs what they were; return the names of those that were something else.

    `alone`: the fleet was this machine, and others have joined meanwhile. Its jobs name no machine, and would be given
    to those, which are not set up for them.

    Raises:
        RoostError: what was kept cannot be read, or one does not become healthy again within `timeout_s` seconds.
    """
    kept = folder / FOLDER / JOBS
    try:
        before: list[Json] | None = json.loads(kept.read_text())
    except (OSError, ValueError) as error:
        raise RoostError(f"The jobs that were kept in {kept} cannot be put back: {error}.") from None
    if before is None:
        return []
    if alone:
        before = [pinned(job, node) for job in before]
    names = {str(job["ID"]) for job in before}
    changed: list[str] = []
    for job in client.list_jobs():
        if not job.get("Stop") and of_machine(job, node, first=first) and job["ID"] not in names:
            deploy.stop(client, str(job["ID"]), purge=True, timeout_s=timeout_s)
            changed.append(str(job["ID"]))
    changed += [str(job["ID"]) for job in before if deploy.restore(client, job, timeout_s=timeout_s)]
    return changed
