"""Bring a model's file to this node: once, whole and verified, whatever interrupts it."""

from __future__ import annotations

import errno
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.models.catalogue import Model, ModelFile, PathSource, Source
from roost.models.sources import Workplace, needed_bytes, obtain, share
from roost.models.store import (
    FILE_MODE,
    State,
    free_bytes,
    has_fitting_stamp,
    is_read_only,
    model_path,
    state_of,
    write_stamp,
)
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file

MIB = 1 << 20
SPARE_BYTES = 64 * MIB  # left free on a disk that a model is written to
SCRATCH_PREFIX = ".fetch-"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Places:
    """Folders of one node: where models lie, where downloads are kept, and an offline folder if there is one."""

    models_dir: Path
    cache_dir: Path
    offline_dir: Path | None = None
    extra_ca_bundle: Path | None = None

    def cached(self, file: ModelFile) -> Path:
        """Return where the cache keeps a file."""
        return self.cache_dir / "models" / file.sha256

    def partial(self, file: ModelFile) -> Path:
        """Return where a download lies until it is whole."""
        return self.cache_dir / "models" / f".{file.sha256}.part"


@dataclass(frozen=True)
class Outcome:
    """What was done for one model, or would be; `before` and `after` are lines for a diff."""

    name: str
    path: Path
    changed: bool
    source: str = ""
    before: str = ""
    after: str = ""


def ensure_model(name: str, model: Model, places: Places, *, dry_run: bool = False, rehash: bool = False) -> Outcome:
    """Have the model's file at its place, verified and read-only; with `dry_run` only say what would be done.

    Looks into the cache, then the offline folder, then the catalogue's sources in order; with an offline folder the
    network is not used. With `rehash` a file that is there is hashed even where its stamp fits.

    Raises:
        RoostError: no source gave the right file, or the disk has no room; what was there before is untouched.
    """
    path = model_path(places.models_dir, model.file)
    with _one_at_a_time(places.models_dir, wanted=not dry_run):
        state = state_of(places.models_dir, model.file, rehash=rehash)
        if state is State.VERIFIED:
            return _settle(name, path, model.file, dry_run=dry_run)
        _need_room(places.models_dir, model.file.bytes, name)
        source = "" if dry_run else _fetch(name, model, path, places)
        return Outcome(
            name,
            path,
            changed=True,
            source=source,
            before="" if state is State.MISSING else f"{path}: {state.value}\n",
            after=f"{path}: sha256 {model.file.sha256}\n",
        )


def _settle(name: str, path: Path, file: ModelFile, *, dry_run: bool) -> Outcome:
    """Put the mode and the stamp of a right file right; the stamp is only our memory and no change."""
    writable = not is_read_only(path)
    if not dry_run:
        if writable:
            path.chmod(FILE_MODE)
        if not has_fitting_stamp(path):
            write_stamp(path, file.sha256)
    if not writable:
        return Outcome(name, path, changed=False)
    return Outcome(name, path, changed=True, before=f"{path}: writable\n", after=f"{path}: read-only\n")


def _fetch(name: str, model: Model, path: Path, places: Places) -> str:
    """Obtain and verify the file, then move it into place in one step; return where it came from."""
    folder = path.parent
    try:
        with _full_disk_explained(name):
            _make_folder(folder)
            for left in folder.glob(f"{SCRATCH_PREFIX}*"):  # of a run that was killed; we hold the lock
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH_PREFIX) as scratch:
                got, source = _first_good(name, model, Path(scratch), places)
                got.chmod(FILE_MODE)
                got.replace(path)
                write_stamp(path, model.file.sha256)
                return source
    except BaseException:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _first_good(name: str, model: Model, scratch: Path, places: Places) -> tuple[Path, str]:
    """Try the cache and every source; return a verified file in `scratch` and where it came from."""
    file, cached = model.file, places.cached(model.file)
    if cached.is_file():
        copy = share(cached, scratch / file.name)
        if not _what_is_wrong(copy, file):
            return copy, f"the cache {cached}"
        copy.unlink()
        cached.unlink()
    work = Workplace(scratch, places.partial(file), places.extra_ca_bundle)
    failures: list[str] = []
    for source in _sources(model, places):
        try:
            _need_room(scratch, needed_bytes(source, file), name)
            got = obtain(source, file, work)
        except RoostError as error:
            failures.append(f"  {source}: {error.message}")
            continue
        if problem := _what_is_wrong(got, file):
            got.unlink()
            failures.append(f"  {source}: {problem}")
            continue
        return _share_with_cache(got, scratch / file.name, cached), str(source)
    raise RoostError(
        f"The model {name} could not be fetched:\n" + "\n".join(failures),
        fix=f"Let this machine reach one of these sources; or put {file.name} into a folder and name it with "
        "`bootstrap.sh --offline DIR`.",
    )


def _sources(model: Model, places: Places) -> list[Source]:
    """Return the sources in the order to try them; an offline folder shuts out the network."""
    if places.offline_dir is None:
        return list(model.sources)
    local = [s for s in model.sources if isinstance(s, PathSource)]
    return [PathSource(kind="path", path=places.offline_dir), *local]


def _what_is_wrong(got: Path, file: ModelFile) -> str:
    """Return why this is not the wanted file, or an empty string."""
    size = got.stat().st_size
    if size != file.bytes:
        return f"the file has {size} bytes instead of {file.bytes}."
    found = sha256_file(got)
    return "" if found == file.sha256 else f"wrong checksum: sha256 {found} instead of {file.sha256}."


def _share_with_cache(got: Path, target: Path, cached: Path) -> Path:
    """Keep the verified file `got` in the cache when there is room, and have it at `target`."""
    if got != target:  # a finished download lies in the cache already
        got.chmod(FILE_MODE)
        got.replace(cached)
        return share(cached, target)
    try:
        _make_folder(cached.parent)
        if free_bytes(cached.parent) > got.stat().st_size + SPARE_BYTES:
            whole = share(got, cached.with_name(f".{cached.name}.new"))
            whole.chmod(FILE_MODE)
            whole.replace(cached)
    except OSError:
        cached.with_name(f".{cached.name}.new").unlink(missing_ok=True)  # the cache is a convenience
    return target


def _need_room(folder: Path, size: int, name: str) -> None:
    free = free_bytes(folder)
    if free < size + SPARE_BYTES:
        need, have = (size + SPARE_BYTES + MIB - 1) // MIB, free // MIB
        raise RoostError(
            f"The model {name} needs {need} MiB in {folder}, {have} MiB are free.",
            fix=f"Free {need - have} MiB on that disk.",
        )


def _make_folder(folder: Path) -> None:
    """Make a folder that everyone may read, whatever the umask."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)


@contextmanager
def _one_at_a_time(models_dir: Path, *, wanted: bool) -> Iterator[None]:
    """Hold the node's lock for fetching models: a second run waits and then finds the file there."""
    if not wanted:
        yield
        return
    _make_folder(models_dir)
    with (models_dir / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _full_disk_explained(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise RoostError(f"The model {name} could not be written: {error}.") from None
        raise RoostError(
            f"The disk became full while the model {name} was fetched.", fix="Free space on it and run it again."
        ) from None
