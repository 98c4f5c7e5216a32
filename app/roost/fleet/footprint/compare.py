"""Whether a machine is as the last run left it: kept, read again and compared. A file beside the update's record.

`docs/decisions/0028-a-run-with-nothing-to-do.md` says what is looked at, and why that is enough.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

FILE = "footprint.json"


@dataclass(frozen=True)
class Footprint:
    """What a machine is like: `wish` is a hash of what it was brought to, `things` what is there, a name to its state.

    `fault` says why it does not do its work; such a one is never kept.
    """

    wish: str
    things: Mapping[str, str]
    fault: str = ""


def hash_of(wish: object) -> str:
    """Return the hash of what a machine is to be brought to, in whatever form."""
    return hashlib.sha256(json.dumps(wish, sort_keys=True, default=str).encode()).hexdigest()


def differences(before: Footprint | None, now: Footprint) -> list[str]:
    """Return what is another thing than before, by name and sorted; nothing: a run has nothing to do. Pure."""
    if before is None:
        return ["nothing is known of the last run"]
    found = {
        name for name in before.things.keys() | now.things.keys() if before.things.get(name) != now.things.get(name)
    }
    fault = [now.fault] if now.fault else []
    return fault + (["what it shall be"] if before.wish != now.wish else []) + sorted(found)


def read(folder: Path) -> Footprint | None:
    """Return what was kept in a folder; nothing, or something unreadable, is None."""
    try:
        found = json.loads((folder / FILE).read_text())
        return Footprint(str(found["wish"]), {str(name): str(state) for name, state in found["things"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def keep(folder: Path, footprint: Footprint) -> None:
    """Keep it for the next run; of a machine that does not do its work nothing, and what was kept before is gone.

    Raises:
        RoostError: it cannot be written.
    """
    try:
        if footprint.fault:
            (folder / FILE).unlink(missing_ok=True)
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(folder / FILE, json.dumps(asdict(footprint), indent=1, sort_keys=True) + "\n", mode=0o600)
    except OSError as error:
        raise RoostError(
            f"What this machine is like cannot be written down below {folder}: {error}.",
            fix="Free disk space there, and run it again.",
        ) from None
