"""The sources of the Nomad program: a copy on the machine, an offline folder, the cache, a release, its own sources."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from roost.fleet import nomad_release, nomad_source
from roost.fleet.artifacts.store import publishing, require_space
from roost.fleet.nomad_install import INSTALL_SPACE, PARTIAL, STAMP, Found, NomadRequest, nomad_version, trusted
from roost.fleet.nomad_release import PROGRAM, Platform, Release
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher
from roost.ops.files import sha256_file, write_atomic

SIDECAR = "nomad.sha256"
RELEASE_SPACE = 400 << 20  # archive, unpacked program, its copy in the cache

Notify = Callable[[str], None]


def release_key(version: str, platform: Platform) -> str:
    """Return the cache key of an official release."""
    return hashlib.sha256(f"release\0{version}\0{platform}".encode()).hexdigest()[:16]


def check_version(program: Path, wanted: str) -> None:
    version = nomad_version(program)
    if version != wanted:
        raise RoostError(f"It delivered Nomad {version} instead of {wanted}.", fix="Set nomad_version accordingly.")


def _present_programs(request: NomadRequest) -> Iterator[Path]:
    folders = [Path(name) for name in os.environ.get("PATH", os.defpath).split(os.pathsep) if name.startswith("/")]
    paths = [path.resolve() for path in (request.program, *(folder / PROGRAM for folder in folders))]
    # With a stamp that does not fit, ours was damaged: whatever it says, it is not what was verified.
    damaged = {request.program.resolve()} if (request.program.parent / STAMP).exists() else set()
    for path in dict.fromkeys(paths):
        if path not in damaged and path.is_file() and os.access(path, os.X_OK):
            yield path


def _present(request: NomadRequest, _work: Path, _notify: Notify) -> Found:
    seen: list[str] = []
    for path in _present_programs(request):
        if not trusted(path):
            seen.append(f"{path} could be changed by another user")
            continue
        try:
            version = nomad_version(path)
        except RoostError as error:
            seen.append(error.message)
            continue
        if version == request.version:
            return Found(path, sha256_file(path))
        seen.append(f"{path} is version {version}")
    raise RoostError("; ".join(seen) or "No nomad is on the PATH.", fix=f"Install Nomad {request.version}.")


def _release(request: NomadRequest) -> Release:
    return Release(request.version, request.platform, request.release_key_fingerprint)


def _offline(request: NomadRequest, work: Path, notify: Notify) -> Found:
    if request.offline_dir is None:
        raise RoostError("No offline folder was given.", fix="Make one with `roost bundle DIR` and use --offline DIR.")
    folder = request.offline_dir / "nomad"
    release = _release(request)
    if (folder / release.archive).is_file():
        notify(f"Taking Nomad from {folder / release.archive}")
        require_space(work, RELEASE_SPACE)
        program = nomad_release.release_in_folder(release, folder, work)
        return Found(program, sha256_file(program))
    program = folder / PROGRAM
    if not program.is_file():
        raise RoostError(
            f"{folder} holds neither {release.archive} nor {PROGRAM}.",
            fix="Make the offline folder again with `roost bundle DIR`, with the same version of Roost.",
        )
    wanted, found = _bundled_digest(request.offline_dir), sha256_file(program)
    if found != wanted:
        raise RoostError(
            f"{program} has the SHA-256 {found}; bundle.json says {wanted}.", fix="Copy the offline folder again."
        )
    copy = work / PROGRAM  # media are often mounted without the right to run programs
    require_space(work, INSTALL_SPACE)
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    return Found(copy, wanted)


def _bundled_digest(folder: Path) -> str:
    try:
        return str(json.loads((folder / "bundle.json").read_text())["files"][f"nomad/{PROGRAM}"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RoostError(
            f"{folder / 'bundle.json'} does not say the SHA-256 of nomad/{PROGRAM}.",
            fix="Make the offline folder again with `roost bundle DIR`.",
        ) from error


def cache_names(request: NomadRequest) -> list[str]:
    """Return the files below the cache folder that hold this Nomad, whichever way it was made, each with its hash."""
    return [f"nomad/{key}/{name}" for key in _cache_keys(request) for name in (SIDECAR, PROGRAM)]


def _cache_keys(request: NomadRequest) -> list[str]:
    keys = [release_key(request.version, request.platform)]
    try:
        recipe = nomad_source.read_recipe(request.build_dir, request.platform)
    except RoostError:
        return keys
    return [*keys, recipe.key] if recipe.version == request.version else keys


def _cache(request: NomadRequest, _work: Path, notify: Notify) -> Found:
    home = request.cache_dir / "nomad"
    for key in _cache_keys(request):
        program = home / key / PROGRAM
        if not program.exists():
            continue
        if not trusted(program):
            raise RoostError(f"{program} could be changed by another user.", fix=f"Remove {program.parent}.")
        digest = sha256_file(program)
        if digest == _sidecar(program):
            return Found(program, digest)
        notify(f"The copy of Nomad in {program.parent} is damaged and is removed")
        shutil.rmtree(program.parent)
    raise RoostError(f"{home} holds no whole copy of Nomad {request.version}.")


def _sidecar(program: Path) -> str:
    try:
        return (program.parent / SIDECAR).read_text().split()[0]
    except (OSError, IndexError):
        return ""


def _keep(request: NomadRequest, program: Path, key: str) -> Found:
    """Move a verified program into the cache."""
    digest = sha256_file(program)
    folder = request.cache_dir / "nomad" / key
    with publishing(folder) as partial:
        program.rename(partial / PROGRAM)
        write_atomic(partial / SIDECAR, f"{digest}  {PROGRAM}\n")
    return Found(folder / PROGRAM, digest)


def _from_release(request: NomadRequest, work: Path, notify: Notify) -> Found:
    require_space(request.cache_dir, RELEASE_SPACE)
    release = _release(request)
    program = nomad_release.fetch_release(
        release,
        Fetcher(request.extra_ca_bundle),
        url=request.release_url,
        key_url=request.release_key_url,
        partial=request.cache_dir / "nomad" / f"{PARTIAL}{release.archive}",
        work=work,
        notify=notify,
    )
    check_version(program, request.version)
    return _keep(request, program, release_key(request.version, request.platform))


def _from_source(request: NomadRequest, work: Path, notify: Notify) -> Found:
    recipe = nomad_source.read_recipe(request.build_dir, request.platform)
    if recipe.version != request.version:
        raise RoostError(
            f"The source build is pinned to Nomad {recipe.version}.",
            fix=f"Set nomad_version to {recipe.version}, or pin another one in {request.build_dir}.",
        )
    toolchain = nomad_source.go_toolchain(
        recipe.go,
        cache_dir=request.cache_dir,
        requirements=request.go_requirements,
        extra_ca=request.extra_ca_bundle,
        notify=notify,
    )
    program = nomad_source.build(
        recipe, toolchain, cache_dir=request.cache_dir, work=work, extra_ca=request.extra_ca_bundle, notify=notify
    )
    check_version(program, request.version)
    return _keep(request, program, recipe.key)


def at_hand(request: NomadRequest, source: str) -> bool:
    if source == "present":
        return any(trusted(path) and _says(path, request.version) for path in _present_programs(request))
    if source == "cache":
        programs = [request.cache_dir / "nomad" / key / PROGRAM for key in _cache_keys(request)]
        return any(path.exists() and trusted(path) and sha256_file(path) == _sidecar(path) for path in programs)
    if request.offline_dir is None:
        return False
    folder = request.offline_dir / "nomad"
    return (folder / _release(request).archive).is_file() or (folder / PROGRAM).is_file()


def _says(program: Path, version: str) -> bool:
    try:
        return nomad_version(program) == version
    except RoostError:
        return False


DELIVER: dict[str, Callable[[NomadRequest, Path, Notify], Found]] = {
    "present": _present,
    "offline": _offline,
    "cache": _cache,
    "release": _from_release,
    "source": _from_source,
}
