"""Results as files: what was measured, on what machine, from which revision."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "bench" / "results"


def machine() -> dict[str, Any]:
    """Describe this machine: cores, processor, memory in MiB, kernel, load before the measurement."""
    return {
        "cores": os.cpu_count(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "memory_mib": int((_field(Path("/proc/meminfo"), "MemTotal") or "0 kB").split()[0]) // 1024,
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
    }


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def revision() -> str:
    """The commit that was measured; `+` when the tree has uncommitted changes."""
    return _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain") else "")


def _git(*args: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, check=True).stdout.strip()


def save(name: str, measured: Mapping[str, Any], *, folder: Path = FOLDER, on: Mapping[str, Any] | None = None) -> Path:
    """Write `<date>-<name>.json`; a second one of the same day replaces the first. Returns its path.

    `on` describes the machine where it is not this one.
    """
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    document = {
        "name": name, "date": date, "revision": revision(), "machine": on or machine(), "measured": dict(measured),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{date}-{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def load(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All results, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
