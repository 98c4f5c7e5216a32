"""The registry's state in a file, so that a gateway that starts again answers at once.

A snapshot that is young is believed: its endpoints are used before they were probed again, and before Nomad has said
which there are. An old one says only who was ejected. It holds no secret.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from roost.engines.base import State
from roost.gateway.endpoints.beliefs import Belief, Beliefs
from roost.gateway.endpoints.endpoint import Member
from roost.gateway.registry import Registry
from roost.ops.files import write_atomic

log = structlog.get_logger(__name__)

NAME = "registry.json"
PROVISIONAL = "snapshot"  # the registry's name for members that nobody has confirmed yet
EVERY_S = 2.0
BELIEVED_S = 60.0
FILE_MODE = 0o600


@dataclass(frozen=True)
class Snapshot:
    """What is kept. `members` are those of the fleet itself; those added by hand have a document of their own."""

    format: int = 1
    members: tuple[Member, ...] = ()
    beliefs: tuple[Belief, ...] = field(default=())


SNAPSHOT = TypeAdapter(Snapshot)


def read(path: Path, now: float) -> tuple[Snapshot, float]:
    """Return what was kept and how old it is, in seconds; nothing where it cannot be read."""
    try:
        age_s = now - path.stat().st_mtime
        found = SNAPSHOT.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Snapshot(), 0.0
    except (OSError, ValueError) as error:
        log.warning("snapshot_not_read", path=str(path), error=type(error).__name__)
        return Snapshot(), 0.0
    return (found if found.format == 1 else Snapshot()), age_s


def aged(snapshot: Snapshot, age_s: float) -> Snapshot:
    """Return what of a snapshot can be believed now. A clock that went back makes it as good as old."""
    young = 0.0 <= age_s <= BELIEVED_S
    beliefs = []
    for belief in snapshot.beliefs:
        left_s = max(0.0, belief.left_s - max(0.0, age_s))
        report = belief.report if young else replace(belief.report, state=State.LOADING, reason="it was not probed yet")
        beliefs.append(replace(belief, left_s=left_s, report=report))
    return Snapshot(members=snapshot.members if young else (), beliefs=tuple(beliefs))


class SnapshotKeeper:
    """Writes the registry's state every now and then, and once at the end; without a folder it does nothing."""

    def __init__(self, registry: Registry, folder: Path | None) -> None:
        self._registry = registry
        self._path = folder / NAME if folder else None
        self._written = b""
        self._complained = False

    def restore(self) -> None:
        """Have the registry believe what was kept."""
        if self._path is None:
            return
        kept, age_s = read(self._path, time.time())
        found = aged(kept, age_s)
        self._registry.recall(Beliefs({belief.id: belief for belief in found.beliefs}))
        if found.members:
            log.info("snapshot_believed", members=len(found.members), age_s=round(age_s, 1))
            self._registry.sync(found.members, PROVISIONAL)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await asyncio.to_thread(self.write, self.take())

    def take(self) -> bytes:
        """Return the present state."""
        members = [endpoint.member for endpoint in self._registry.endpoints() if endpoint.member.hand is None]
        return SNAPSHOT.dump_json(Snapshot(members=tuple(members), beliefs=tuple(self._registry.beliefs())))

    def write(self, content: bytes) -> None:
        """Write what has changed; what has not gets the present time only."""
        if self._path is None:
            return
        try:
            if content == self._written:
                os.utime(self._path)
            else:
                write_atomic(self._path, content, mode=FILE_MODE)
            self._written, self._complained = content, False
        except OSError as error:
            self._written = b""
            if not self._complained:
                self._complained = True
                log.warning("snapshot_not_written", path=str(self._path), error=error.strerror or type(error).__name__)

    def close(self) -> None:
        """Write the state as it is at the end."""
        with suppress(OSError):
            self.write(self.take())
