"""What a machine remembers of its last update, so that the next run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from roost.ops.files import write_atomic

FILE = "record.json"

State = Literal["", "changing", "passed", "restored"]
STATES: tuple[State, ...] = ("changing", "passed", "restored")


@dataclass(frozen=True)
class UpdateRecord:
    """One machine's last update. `settings` and `made` are hashes of what it was brought to: its variables, and what
    the first machine had made for all. `reason` says why it was put back, `at` when (UTC, ISO 8601)."""

    state: State = ""
    settings: str = ""
    made: str = ""
    release: str = ""
    at: str = ""
    reason: str = ""

    def differs(self, settings: str, made: str = "") -> bool:
        """Say whether a run with these would bring the machine something new; an empty `made` is not known yet."""
        return self.state != "passed" or self.settings != settings or bool(made and self.made != made)


def hash_of(settings: object) -> str:
    """Return the hash of a machine's settings, in whatever form they come."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read(folder: Path) -> UpdateRecord:
    """Return what is remembered in a folder; nothing, or something unreadable, is an update that never was."""
    try:
        found = json.loads((folder / FILE).read_text())
        state: State = next((known for known in STATES if known == found["state"]), "")
        words = {name: str(found[name]) for name in ("settings", "made", "release", "at", "reason")}
        return UpdateRecord(state, **words)
    except (OSError, ValueError, TypeError, KeyError):
        return UpdateRecord()


def write(folder: Path, record: UpdateRecord) -> None:
    """Remember an update."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / FILE, json.dumps(asdict(record), indent=1) + "\n", mode=0o600)
