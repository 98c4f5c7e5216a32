"""What a staged image says of itself (`staged.json`), read inside it. Standard library only, Python 3.9+."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost.ops.errors import RoostError

PLACES = (Path("/etc/roost/staged.json"), Path("/usr/local/etc/roost/staged.json"))


@dataclass(frozen=True)
class StagedService:
    """A service of the image: `pidfiles` and `rotation` are paths, empty where the init system keeps no such thing."""

    name: str
    daemon: bool
    pidfiles: tuple[str, ...]
    log: str
    rotation: str


@dataclass(frozen=True)
class Staged:
    """A staged host; addresses are base URLs, empty where there is no such process."""

    system: str
    services: tuple[StagedService, ...]
    secrets: tuple[dict[str, Any], ...]
    api: str
    engine: str
    engine_key: str
    api_key: str
    start_timeout_s: float


def load(path: Path | None = None) -> Staged:
    """Read the description.

    Raises:
        RoostError: this host was not staged, or its description cannot be read.
    """
    where = path or next((place for place in PLACES if place.exists()), PLACES[0])
    try:
        found = json.loads(where.read_text())
        services = tuple(
            StagedService(s["name"], s["type"] == "daemon", tuple(s["pidfiles"]), s["log"], s["rotation"])
            for s in found["services"]
        )
        return Staged(
            found["system"], services, tuple(found["secrets"]), found["api"], found["engine"],
            found["engine_key"], found["api_key"], float(found["start_timeout_s"]),
        )  # fmt: skip
    except FileNotFoundError:
        raise RoostError(
            f"This host was not staged ({where} is missing).", fix="Stage its image with `roost stage ROOT`."
        ) from None
    except PermissionError:
        raise RoostError(f"{where} cannot be read.", fix="Run it as root.", exit_code=4) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RoostError(f"{where} is not valid: {error}.", fix="Stage the image again.") from None
