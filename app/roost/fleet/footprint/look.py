"""Looks at what a run makes on a machine: files, accounts, packages, services, rules, images, Nomad's part."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roost.fleet.gate import Asker, problem
from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.rolling.restore_point import machine_jobs
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file
from roost.ops.ownership import Manifest, user_present
from roost.ops.pki import wants_renewal
from roost.ops.run import run
from roost.ops.services import STAMPS, service_files, state_of
from roost.ops.units import Places

Json = Any
HASHED_BYTES = 1 << 20  # of a larger file size and time of change are looked at: images and models have gigabytes
COMMAND_S = 30.0
# Whose change is seen as a whole: accounts and groups; packages that came, went, or are held.
SYSTEM = (Path("/etc/passwd"), Path("/etc/group"), Path("/var/lib/dpkg/status"))
ABSENT = "absent"
# Of a job what Nomad writes itself, and the count, which is the gateway's affair while it runs.
BY_NOMAD = {
    "CreateIndex", "JobModifyIndex", "ModifyIndex", "Stable", "Status", "StatusDescription", "SubmitTime", "Version",
}  # fmt: skip


@dataclass(frozen=True)
class Sights:
    """What is looked at. `trees` are files, links or folders with all below them."""

    trees: Sequence[Path] = ()
    but: Sequence[Path] = ()  # what others than a run's roles write there
    accounts: Sequence[str] = ()  # whose keys are looked at
    manifest: Path | None = None
    certificates: Path | None = None
    services: Sequence[str] = ()  # beside ours, which the manifest names
    commands: Sequence[Sequence[str]] = field(default_factory=tuple)  # whose output is to be the same


def look(sights: Sights, places: Places | None = None) -> dict[str, str]:
    """Return the state of each thing by name.

    Raises:
        RoostError: the manifest cannot be read.
        OSError: a file cannot.
    """
    found: dict[str, str] = {}
    for tree in (*SYSTEM, *sights.trees, *map(keys_of, sights.accounts)):
        found |= tree_states(tree)
    services = list(sights.services)
    if sights.manifest:
        manifest = Manifest(sights.manifest)
        found |= {name: found.get(name) or path_state(Path(name), deep=False) for name in manifest.owned("path")}
        found["manifest"] = sha256_file(sights.manifest) if sights.manifest.is_file() else ABSENT
        services += manifest.owned("unit")
        # By themselves: once the init system has read a unit that was changed by hand, its word of it is as before.
        stamps = sights.manifest.parent / STAMPS
        for path in (path for name in manifest.owned("unit") for path in service_files(name, stamps, places)):
            found[str(path)] = path_state(path)
    for name in dict.fromkeys(services):
        found[f"service {name}"] = state_of(name, places)
    if sights.certificates:
        for path in sorted(sights.certificates.glob("*.pem")):
            if not path.stem.endswith("-key"):
                found[f"end of {path}"] = "near" if wants_renewal(path) else "far"
    for command in sights.commands:
        found[" ".join(command)] = output_of(command)
    return {name: state for name, state in found.items() if name not in set(map(str, sights.but))}


def keys_of(account: str) -> Path:
    """Return the folder of an account's keys; of one that is not there a path that is not, either."""
    return Path(f"~{account}").expanduser() / ".ssh" if user_present(account) else Path(f"~{account}")


def tree_states(top: Path) -> dict[str, str]:
    """Return the state of a path and of all below it; links are not followed."""
    found = {str(top): path_state(top)}
    if top.is_dir() and not top.is_symlink():
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = Path(folder) / name
                found[str(path)] = path_state(path)
    return found


def path_state(path: Path, *, deep: bool = True) -> str:
    """Return owner, mode, and what a path holds; without `deep` only of what kind it is."""
    try:
        facts = path.lstat()
        about = f"{stat.filemode(facts.st_mode)} {facts.st_uid}:{facts.st_gid}"
        if stat.S_ISLNK(facts.st_mode):
            return f"{about} to {path.readlink()}"
        if not stat.S_ISREG(facts.st_mode) or not deep:
            return about
        if facts.st_size > HASHED_BYTES:
            return f"{about} {facts.st_size} {facts.st_mtime_ns}"
        return f"{about} {sha256_file(path)}"
    except FileNotFoundError:
        return ABSENT


def output_of(command: Sequence[str]) -> str:
    """Return a hash of what a command prints, its lines sorted; or that it fails."""
    try:
        said = run(command, timeout_s=COMMAND_S)
    except RoostError:
        return "fails"
    return hashlib.sha256("\n".join(sorted(said.splitlines())).encode()).hexdigest()


def look_at_nomad(
    client: NomadClient, node: str, ask: Asker, version: str, *, first: bool
) -> tuple[dict[str, str], str]:
    """Return the state of a machine's jobs, of policies and names of variables; and why its models do not answer."""
    try:
        jobs = {f"job {job['ID']}": hash_of_job(job) for job in machine_jobs(client, node, first=first)}
        policies = {f"policy {p['Name']}": str(p.get("Hash", "")) for p in client.get("acl/policies") or []}
        variables = {f"variable {v['Path']}": "there" for v in client.get("vars") or []}
        return {**jobs, **policies, **variables}, problem(client, node, ask, version)
    except (NomadUnreachableError, NomadRefusedError) as error:
        return {}, error.message


def hash_of_job(job: Json) -> str:
    """Return a hash of a job's definition, as far as it is ours."""
    ours = {name: value for name, value in job.items() if name not in BY_NOMAD}
    ours["TaskGroups"] = [
        {name: value for name, value in group.items() if name != "Count"} for group in job["TaskGroups"]
    ]
    return hashlib.sha256(repr(_sorted(ours)).encode()).hexdigest()


def _sorted(value: Json) -> Json:
    if isinstance(value, dict):
        return [(name, _sorted(value[name])) for name in sorted(value)]
    return [_sorted(each) for each in value] if isinstance(value, list) else value
