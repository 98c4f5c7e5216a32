"""Bring a model's file to this node: once, whole and verified, whatever interrupts it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from roost.models.room import SPARE_BYTES, left_bytes, need_room, room_for
from roost.models.schema import Download, ModelFile
from roost.models.source_types import PathSource, Source, UrlSource
from roost.models.sources import Workplace, obtain, share
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
from roost.ops.files import sha256_file, sync_folder
from roost.ops.parallel import run_all

SCRATCH_PREFIX = ".fetch-"
PARALLEL_FILES = 2  # of one node, all processes together: one run at a time holds its lock
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Places:
    """Folders of one node: where models lie, where downloads are kept, and an offline folder if there is one.

    `peers` are addresses of other nodes that serve their models (`roost.models.share`); they are asked first; `peer_ca`
    is trusted for them, `peer_identity` (certificate and key) says who we are. `notify` gets lines for the user.
    """

    models_dir: Path
    cache_dir: Path
    offline_dir: Path | None = None
    extra_ca_bundle: Path | None = None
    peers: tuple[str, ...] = ()
    peer_ca: Path | None = None
    peer_identity: tuple[Path, Path] | None = None
    notify: Callable[[str], None] = lambda _line: None

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


def ensure_models(
    models: Mapping[str, Download], places: Places, *, dry_run: bool = False, rehash: bool = False
) -> list[Outcome]:
    """Have the models' files at their places, verified and read-only; with `dry_run` only say what would be done.

    Looks into the cache, then the offline folder, then peers and the catalogue's sources in order; with an offline
    folder the network is not used. With `rehash` a file that is there is hashed even where its stamp fits. At most
    PARALLEL_FILES are fetched side by side; the disk must have room for all of them before the first begins.

    Raises:
        RoostError: no source gave the right file, or the disk has no room; what was there before is untouched.
    """
    with node_lock(places, wanted=not dry_run):
        states = {name: state_of(places.models_dir, m.file, rehash=rehash) for name, m in models.items()}
        wanted = {name: m for name, m in models.items() if states[name] is not State.VERIFIED}
        left = sum(
            left_bytes(file, places.partial(file), places.models_dir) for file in {m.file for m in wanted.values()}
        )
        if wanted:
            need_room(places.models_dir, left, ", ".join(wanted))
        sources = {} if dry_run else _fetch_all(wanted, places)
        return [
            _fetched(name, models[name], places, states[name], sources.get(name, ""))
            if name in wanted
            else _settle(name, model_path(places.models_dir, m.file), m.file, dry_run=dry_run)
            for name, m in models.items()
        ]


def _fetched(name: str, model: Download, places: Places, before: State, source: str) -> Outcome:
    path = model_path(places.models_dir, model.file)
    return Outcome(
        name,
        path,
        changed=True,
        source=source,
        before="" if before is State.MISSING else f"{path}: {before.value}\n",
        after=f"{path}: sha256 {model.file.sha256}\n",
    )


def _fetch_all(models: Mapping[str, Download], places: Places) -> dict[str, str]:
    """Fetch models, a few at the same time; return where each came from. All are tried; the first failure is raised."""
    by_folder: dict[Path, list[str]] = {}  # names of one content and parts of one model: one after the other
    for name, model in models.items():
        by_folder.setdefault(model_path(places.models_dir, model.file).parent, []).append(name)
    sources: dict[str, str] = {}

    def fetch_in_turn(names: list[str]) -> None:
        for name in names:
            sources[name] = _fetch(name, models[name], model_path(places.models_dir, models[name].file), places)

    run_all([partial(fetch_in_turn, names) for names in by_folder.values()], PARALLEL_FILES)
    return sources


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


def _fetch(name: str, model: Download, path: Path, places: Places) -> str:
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
                _to_disk(got)
                got.replace(path)
                sync_folder(folder)
                write_stamp(path, model.file.sha256)
                return source
    except BaseException:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _first_good(name: str, model: Download, scratch: Path, places: Places) -> tuple[Path, str]:
    """Try the cache and every source; return a verified file in `scratch` and where it came from."""
    file, cached = model.file, places.cached(model.file)
    if cached.is_file():
        copy = share(cached, scratch / file.name)
        if not _what_is_wrong(copy, file):
            return copy, f"the cache {cached}"
        copy.unlink()
        cached.unlink()
    failures: list[str] = []

    def tell(line: str) -> None:
        places.notify(f"{name}: {line}")

    for source, ca, identity in _sources(model, places):
        work = Workplace(scratch, places.partial(file), ca, tell, identity)
        try:
            room_for(source, file, scratch, work.partial, name)
            problem, got = _obtain_right(source, file, work)
        except RoostError as error:
            failures.append(f"  {source}: {error}")
            continue
        if problem:
            failures.append(f"  {source}: {problem}")
            continue
        return _share_with_cache(got, scratch / file.name, cached), str(source)
    raise RoostError(
        f"The model {name} could not be fetched:\n" + "\n".join(failures),
        fix=f"Let this machine reach one of these sources; or put {file.name} into a folder and name it with "
        "`bootstrap.sh --offline DIR`.",
    )


def _obtain_right(source: Source, file: ModelFile, work: Workplace) -> tuple[str, Path]:
    """Get a file; return what is wrong with it (it is gone then) or an empty string, and where it lies.

    What an earlier run left of a download may be spoilt, by a crash of the machine say: then once again from the start.
    """
    went_on = work.partial.exists()
    got = obtain(source, file, work)
    problem = _what_is_wrong(got, file)
    if problem and went_on and got == work.partial:
        got.unlink()
        work.notify("What an earlier download left does not fit; downloading again from the start")
        got = obtain(source, file, work)
        problem = _what_is_wrong(got, file)
    if problem:
        got.unlink()
    return problem, got


def _sources(model: Download, places: Places) -> list[tuple[Source, Path | None, tuple[Path, Path] | None]]:
    """Return the sources in the order to try them, each with the CA to trust and the certificate to show.

    An offline folder shuts out the net.
    """
    if places.offline_dir is None:
        path = f"models/{model.file.relative_path}"
        peers: list[Source] = [UrlSource(kind="url", url=f"{peer.rstrip('/')}/{path}") for peer in places.peers]
        return [
            *((s, places.peer_ca, places.peer_identity) for s in peers),
            *((s, places.extra_ca_bundle, None) for s in model.sources),
        ]
    local = [s for s in model.sources if isinstance(s, PathSource)]
    return [(s, None, None) for s in (PathSource(kind="path", path=places.offline_dir), *local)]


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


def _to_disk(path: Path) -> None:
    """Bring a file's content to the disk before its name: else a power failure could leave the name alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folder(folder: Path) -> None:
    """Make a folder that everyone may read, whatever the umask."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)


@contextmanager
def node_lock(places: Places, *, wanted: bool = True) -> Iterator[None]:
    """Hold the node's lock for changing models: a second run waits and then finds the files there."""
    if not wanted:
        yield
        return
    _make_folder(places.models_dir)
    with (places.models_dir / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            places.notify("Another process is fetching models; waiting for it")
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
