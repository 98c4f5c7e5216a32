"""The installed Nomad program: what is wanted, its place, the stamp beside it, and how it gets there whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from roost.fleet.artifacts.store import require_space
from roost.fleet.nomad_release import PROGRAM, Platform
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.run import run

STAMP = "nomad.json"
PARTIAL = ".partial-"
BLOCK_BYTES = 1 << 20
INSTALL_SPACE = 150 << 20
VERSION_LINE = re.compile(r"^Nomad v(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class NomadRequest:
    """Which Nomad is wanted, where it shall be, and where it may come from."""

    version: str
    sources: tuple[str, ...]  # of SOURCES, in the order in which they are tried
    install_dir: Path
    cache_dir: Path
    build_dir: Path  # folder of go.mod and go.sum
    go_requirements: Path  # locked requirements file of the Go toolchain
    release_url: str
    release_key_url: str
    release_key_fingerprint: str
    offline_dir: Path | None = None
    extra_ca_bundle: Path | None = None
    platform: Platform = field(default_factory=Platform.of_this_machine)

    @property
    def program(self) -> Path:
        """Where the program of this version is installed."""
        return self.install_dir / "nomad" / self.version / PROGRAM

    @property
    def link(self) -> Path:
        """The link that always names the version in use."""
        return self.install_dir / "bin" / PROGRAM


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a source did not deliver."""

    source: str
    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class NomadBinary:
    """The installed program, and whether anything was changed for it."""

    path: Path
    version: str
    source: str
    sha256: str
    changed: bool
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A verified program that a source delivers, and its SHA-256."""

    path: Path
    sha256: str


def nomad_version(program: Path) -> str:
    """Return the version a Nomad program says it is, e.g. 1.11.3.

    Raises:
        RoostError: it does not run, or says no version.
    """
    try:
        output = run([program, "version"], timeout_s=60)
    except OSError as error:
        raise RoostError(f"{program} cannot be run: {error.strerror}.", fix="Remove it.") from error
    match = VERSION_LINE.search(output)
    if match is None:
        raise RoostError(f"{program} does not say a version of Nomad.", fix="Remove it.")
    return match[1]


def trusted(path: Path) -> bool:
    """Say whether only root, or the user who runs this, can change a file and its folder."""
    for one in (path, path.parent):
        facts = one.stat()
        if facts.st_uid not in {0, os.geteuid()} or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
    return True


def require_folder(folder: Path) -> None:
    """Make a folder; raise RoostError when that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RoostError(f"{folder} cannot be made: {error.strerror}.", fix="Run it as root.") from error


def stamped(request: NomadRequest) -> NomadBinary | None:
    """Return what the stamp says, when the program is still the file that it describes; its content is not read."""
    try:
        stamp = json.loads((request.program.parent / STAMP).read_text())
        facts = request.program.stat()
        if (facts.st_size, facts.st_mtime_ns) != (stamp["bytes"], stamp["mtime_ns"]):
            return None
        return NomadBinary(request.program, request.version, str(stamp["source"]), str(stamp["sha256"]), changed=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def installed(request: NomadRequest) -> NomadBinary | None:
    """Return the program when it is installed and the link names it; its content is not read."""
    try:
        linked = request.link.readlink() == request.program
    except OSError:
        return None
    return stamped(request) if linked else None


def require_same(found: Found, digest: str) -> None:
    """Raise RoostError when what was copied is not what was verified."""
    if digest != found.sha256:
        raise RoostError(f"{found.path} changed while it was copied.", fix="Run it again.")


def install(request: NomadRequest, found: Found, source: str) -> None:
    """Copy a program to its place, hashing what is written; it takes its name only when the hash is right."""
    folder = request.program.parent
    require_folder(folder)
    require_space(folder, INSTALL_SPACE)
    for stale in folder.glob(f"{PARTIAL}*"):
        stale.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=PARTIAL)
    partial = Path(name)
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as target, found.path.open("rb") as program:
            while block := program.read(BLOCK_BYTES):
                digest.update(block)
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        require_same(found, digest.hexdigest())
        partial.chmod(0o755)
        facts = partial.stat()
        stamp = {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "sha256": found.sha256, "source": source}
        (folder / STAMP).unlink(missing_ok=True)  # never beside a program that it does not describe
        partial.replace(request.program)
        write_atomic(folder / STAMP, json.dumps(stamp, indent=1) + "\n")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def point(request: NomadRequest) -> None:
    """Let the link name the program."""
    require_folder(request.link.parent)
    fresh = request.link.with_name(f"{PARTIAL}{PROGRAM}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(request.program)
    fresh.replace(request.link)
