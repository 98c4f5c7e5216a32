"""The Nomad program: from the first source that can deliver the wanted version, verified, installed whole.

Installed is `<install_dir>/nomad/<version>/nomad` with a stamp beside it, and the link `<install_dir>/bin/nomad`.
Versions that were there before stay, so that an upgrade can go back. Cached is `<cache_dir>/nomad/<key>/nomad` with
its hash beside it in `nomad.sha256`.
"""

from __future__ import annotations

import errno
import fcntl
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.nomad_install import (
    PARTIAL,
    STAMP,
    NomadBinary,
    NomadRequest,
    Refusal,
    install,
    installed,
    nomad_version,
    point,
    require_folder,
    stamped,
)
from roost.fleet.nomad_sources import DELIVER, at_hand, check_version
from roost.ops.errors import RoostError

__all__ = ["NomadBinary", "NomadPreview", "NomadRequest", "Refusal", "ensure_nomad", "nomad_version", "preview_nomad"]

SOURCES = tuple(DELIVER)
NETWORK_SOURCES = ("release", "source")
VERSION = re.compile(r"\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?")

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NomadPreview:
    """What `ensure_nomad` would do."""

    changed: bool
    words: str


def ensure_nomad(request: NomadRequest, notify: Notify = lambda _line: None) -> NomadBinary:
    """Install the wanted Nomad from the first source that can deliver it; do nothing when it is installed.

    `notify` gets lines for the user. Others who call this at the same time wait, and then find the work done.

    Raises:
        RoostError: the request is not valid, no source could deliver (the message says why, for each), or the
            program cannot be installed.
    """
    _validate(request)
    if (done := installed(request)) is not None:
        return done
    home = request.cache_dir / "nomad"
    require_folder(home)
    with _alone(home, notify):
        if (done := installed(request)) is not None:
            return done
        for stale in home.glob(f"{PARTIAL}work-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=f"{PARTIAL}work-", ignore_cleanup_errors=True) as work:
            return _from_sources(request, Path(work), notify)


def preview_nomad(request: NomadRequest) -> NomadPreview:
    """Say what `ensure_nomad` would do; change nothing and use no network.

    Raises:
        RoostError: the request is not valid, or no source can deliver.
    """
    _validate(request)
    if installed(request) is not None:
        return NomadPreview(False, f"Nomad {request.version} is installed")
    if stamped(request) is not None:
        return NomadPreview(True, f"would go over to Nomad {request.version}, which is installed")
    for index, source in enumerate(request.sources):
        if source in NETWORK_SOURCES:
            names = [name for name in request.sources[index:] if name in NETWORK_SOURCES]
            return NomadPreview(True, f"would install Nomad {request.version} from {' or '.join(names)}")
        if at_hand(request, source):
            return NomadPreview(True, f"would install Nomad {request.version} from {source}")
    raise RoostError(
        f"Nomad {request.version} is in none of the sources {', '.join(request.sources)}.",
        fix="Allow release or source in nomad_sources, or give a complete offline folder.",
    )


def _validate(request: NomadRequest) -> None:
    if not VERSION.fullmatch(request.version):
        raise RoostError(f"{request.version!r} is not a version of Nomad.", fix="Set nomad_version, e.g. 1.11.3.")
    unknown = [name for name in request.sources if name not in SOURCES]
    if unknown or not request.sources:
        raise RoostError(
            f"nomad_sources names {unknown[0]!r}, which does not exist." if unknown else "nomad_sources is empty.",
            fix=f"Choose from {', '.join(SOURCES)}.",
        )


@contextmanager
def _alone(home: Path, notify: Notify) -> Iterator[None]:
    with (home / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notify("Another process is getting Nomad; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _from_sources(request: NomadRequest, work: Path, notify: Notify) -> NomadBinary:
    refusals: list[Refusal] = []
    if (kept := stamped(request)) is not None:
        point(request)
        return NomadBinary(kept.path, kept.version, kept.source, kept.sha256, changed=True)
    if request.program.exists() and (request.program.parent / STAMP).exists():
        notify(f"{request.program} is not the file that was installed; installing it again")
    for source in request.sources:
        try:
            found = DELIVER[source](request, work, notify)
            check_version(found.path, request.version)
        except RoostError as error:
            refusals.append(Refusal(source, error.message, error.fix))
            notify(f"Source {source}: {error.message}")
            continue
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _disk_full(error) from error
            refusals.append(Refusal(source, str(error), "Check the permissions of that file."))
            continue
        try:
            install(request, found, source)
            point(request)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _disk_full(error) from error
            raise RoostError(f"Nomad cannot be installed: {error}.", fix="Run it as root.") from error
        notify(f"Installed Nomad {request.version} from {source}")
        return NomadBinary(request.program, request.version, source, found.sha256, True, tuple(refusals))
    raise _no_source(request.version, refusals)


def _disk_full(error: OSError) -> RoostError:
    where = f" ({error.filename})" if error.filename else ""
    return RoostError(f"The disk is full{where}.", fix="Free disk space, then run it again.")


def _no_source(version: str, refusals: list[Refusal]) -> RoostError:
    lines = [f"  {refusal.source}: {refusal.reason}" for refusal in refusals]
    fixes = dict.fromkeys(f"  {refusal.source}: {refusal.fix}" for refusal in refusals if refusal.fix)
    return RoostError(
        "\n".join([f"Nomad {version} could be had from no source.", *lines]),
        fix="\n".join(["One of these is enough.", *fixes]),
    )
