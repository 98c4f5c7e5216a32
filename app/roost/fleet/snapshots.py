"""Snapshots of Nomad's state: saved on each server, the newest kept, looked at, restored.

What is in one: jobs, variables (the keys of `roost keys`), ACL tokens and policies. An archive is a packed tar of
`meta.json`, `state.bin` and `SHA256SUMS` (https://developer.hashicorp.com/nomad/api-docs/operator/snapshot).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import re
import tarfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from roost.fleet.nomad_api import NomadRefusedError
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

NAME = re.compile(r"nomad-(\d{8}T\d{6}Z)\.snap")
STAMP = "%Y%m%dT%H%M%SZ"
TIMEOUT_S = 120.0
RAFT_WAITS = "cannot take snapshot now, wait until"  # takeSnapshot of github.com/hashicorp/raft, with status 500
SETTLE_S, POLL_S = 150.0, 0.25  # it waits for any further write; Nomad's leader has one each minute
SUMS = "SHA256SUMS"
SAVE_ANOTHER = "Save another one, or take an older one: `roost fleet snapshot list`."


class Nomad(Protocol):
    """What is asked of Nomad; the one adapter is `NomadClient`."""

    def download(self, path: str, *, timeout_s: float) -> tuple[bytes, str]:
        """GET as bytes, with the answer's `Digest` header."""

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float | None = None) -> object:
        """Send one request."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One file: when it was saved (UTC), its bytes, and up to where in Raft's log it goes."""

    path: Path
    saved: datetime
    size_bytes: int
    index: int
    term: int


def file_name(when: datetime) -> str:
    """Return the name of a snapshot saved at `when`; names sort as times do."""
    return f"nomad-{when.astimezone(UTC).strftime(STAMP)}.snap"


def superfluous(names: Sequence[str], keep: int) -> list[str]:
    """Return the snapshots among `names` beyond the `keep` newest; what is called otherwise is never among them."""
    ours = sorted((name for name in names if NAME.fullmatch(name)), reverse=True)
    return ours[max(keep, 1) :]


def inspect(content: bytes, where: str) -> tuple[int, int]:
    """Return the index and the term of an archive whose parts are as its own sums say.

    Raises:
        RoostError: it is no snapshot, or was damaged.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            parts = {m.name: stream.read() for m in tar.getmembers() if (stream := tar.extractfile(m))}
        pairs = [line.split() for line in parts[SUMS].decode().splitlines() if line.strip()]
        sums = {name: sha for sha, name in pairs}
        wrong = [name for name, sha in sums.items() if hashlib.sha256(parts[name]).hexdigest() != sha]
        meta = json.loads(parts["meta.json"])
        index, term = int(meta["Index"]), int(meta["Term"])
    except (tarfile.TarError, zlib.error, EOFError, OSError, KeyError, ValueError) as error:
        raise RoostError(f"{where} is no whole snapshot of Nomad: {error}.", fix=SAVE_ANOTHER) from None
    if wrong or not {"meta.json", "state.bin"} <= sums.keys():
        raise RoostError(f"{where} is damaged: {', '.join(wrong) or SUMS} does not fit.", fix=SAVE_ANOTHER)
    return index, term


def _downloaded(nomad: Nomad) -> tuple[bytes, str]:
    """Return a snapshot's bytes and digest; right after its servers became others, Raft says to wait."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            return nomad.download("operator/snapshot", timeout_s=TIMEOUT_S)
        except NomadRefusedError as error:
            if RAFT_WAITS not in error.text or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def save(nomad: Nomad, folder: Path, *, keep: int, now: datetime, out: Path | None = None) -> Snapshot:
    """Save a snapshot, readable by root only, and remove those beyond the `keep` newest.

    With `out` it is written there, and nothing is removed.

    Raises:
        RoostError: Nomad gives none (no leader, say), it came damaged, or it cannot be written.
    """
    content, digest = _downloaded(nomad)
    if digest and not fits(content, digest):
        raise RoostError("The snapshot came damaged.", fix="Save it again.")
    index, term = inspect(content, "What Nomad gave")
    path = out or folder / file_name(now)
    try:
        write_atomic(path, content, mode=0o600)
        if out is None:
            for name in superfluous([p.name for p in folder.iterdir()], keep):
                (folder / name).unlink()
    except OSError as error:
        raise RoostError(
            f"The snapshot cannot be written to {path}: {error.strerror}.",
            fix="Make room, or give another place with --out.",
        ) from None
    return Snapshot(path, now.astimezone(UTC), len(content), index, term)


def fits(content: bytes, digest: str) -> bool:
    """Whether a `Digest` header (SHA-256=BASE64, RFC 3230) is that of the content; other algorithms fit always."""
    algorithm, _, value = digest.partition("=")
    if algorithm.upper() != "SHA-256":
        return True
    try:
        return base64.b64decode(value, validate=True) == hashlib.sha256(content).digest()
    except binascii.Error:
        return False


def listing(folder: Path) -> list[Snapshot]:
    """Return the snapshots of a folder, the newest first; a damaged one has index and term 0.

    Raises:
        RoostError: they may be read by root only.
    """
    found = []
    try:
        paths = sorted((p for p in folder.iterdir() if NAME.fullmatch(p.name)), reverse=True)
        for path in paths:
            content = path.read_bytes()
            try:
                index, term = inspect(content, str(path))
            except RoostError:
                index, term = 0, 0
            when = datetime.strptime(path.name, f"nomad-{STAMP}.snap").replace(tzinfo=UTC)
            found.append(Snapshot(path, when, len(content), index, term))
    except FileNotFoundError:
        return []
    except PermissionError:
        raise RoostError(f"{folder} can only be read by root.", fix="Run the command with sudo.", exit_code=4) from None
    return found


def restore(nomad: Nomad, path: Path) -> tuple[int, int]:
    """Have Nomad go back to a snapshot's state; return its index and term.

    Raises:
        RoostError: the file is missing or damaged, or Nomad refuses it. Then nothing was changed.
    """
    index, term = check(path)
    nomad.request("PUT", "operator/snapshot", path.read_bytes(), timeout_s=TIMEOUT_S)
    return index, term


def check(path: Path) -> tuple[int, int]:
    """Return the index and the term of a snapshot's file.

    Raises:
        RoostError: it is missing, unreadable or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RoostError(f"{path} cannot be read: {error.strerror}.", fix="See `roost fleet snapshot list`.") from None
    return inspect(content, str(path))
