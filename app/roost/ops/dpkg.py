"""Which Debian packages a host has, from dpkg's own status file; standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from roost.ops.errors import RoostError

STATUS = Path("/var/lib/dpkg/status")


def installed(names: Sequence[str]) -> set[str]:
    """Return those of `names` that are installed completely."""
    return {name for name, state in _states(names).items() if state == "installed"}


def on_disk(names: Sequence[str]) -> set[str]:
    """Return those of `names` that are installed, completely or interrupted halfway."""
    return {name for name, state in _states(names).items() if state not in {"not-installed", "config-files"}}


def _states(names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    # A name that dpkg never heard of is simply not in its file.
    try:
        listing = STATUS.read_text(errors="replace")
    except FileNotFoundError:
        raise RoostError(
            "This is not a Debian system: dpkg's status is missing.", fix="Use Debian 12 or newer."
        ) from None
    wanted = set(names)
    found: dict[str, str] = {}
    for block in listing.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1].strip() and ": " in line)
        name = fields.get("Package", "")
        if name in wanted and found.get(name) != "installed":  # another architecture's may come after it
            found[name] = fields.get("Status", "").rpartition(" ")[2]
    return found
