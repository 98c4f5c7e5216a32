"""bootstrap.sh under dash: as it is, or with its parts and without its last line, to call one function alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "bootstrap.sh"
PARTS = ROOT / "bootstrap"
LAST_LINE = 'main "$@"\n'


@dataclass(frozen=True)
class Done:
    """What a run did."""

    code: int
    out: str
    err: str


def sh(
    words: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout_s: float = 30
) -> Done:
    """Run a program and return what it did; its environment holds PATH and `env` only."""
    done = subprocess.run(
        words, env={"PATH": os.environ["PATH"], **(env or {})}, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=timeout_s,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def script(*args: str, env: Mapping[str, str] | None = None) -> Done:
    """Run the script itself. Only with arguments that end before anything is done."""
    return sh(["dash", str(SCRIPT), *args], env=env)


def functions(folder: Path) -> str:
    """Return the script without its last line and with its parts, with every place it writes to below `folder`."""
    text = SCRIPT.read_text()
    assert text.endswith(LAST_LINE), "the last line calls main, so that a script cut off on its way does nothing"
    text = "\n".join(part.read_text() for part in sorted(PARTS.glob("*.sh"))) + text
    for place in (
        "/etc/roost",
        "/var/lib/roost",
        "/opt/roost",
        "/var/log/roost",
        "/usr/local/bin/roost",
        "/run/roost-",
        "/root/.ssh/authorized_keys",
    ):
        text = text.replace(f"={place}", f"={folder}{place}")
    return text.removesuffix(LAST_LINE)


def call(folder: Path, body: str, *, env: Mapping[str, str] | None = None, timeout_s: float = 30) -> Done:
    """Run `body` with the script's functions and settings."""
    path = folder / "bootstrap-functions.sh"
    path.write_text(f'{functions(folder)}\nsource_dir={ROOT}\nsettings\ntmp={folder}/work\nmkdir -p "$tmp"\n{body}\n')
    return sh(["dash", str(path)], env=env, timeout_s=timeout_s)


def stub(folder: Path, name: str, body: str = "exit 0") -> None:
    """Put a program of this name into a folder of programs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def only(folder: Path, *names: str) -> str:
    """Make a PATH that has these programs of the machine and what lies in `folder` already; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = shutil.which(name)
        assert found is not None, name
        (folder / name).symlink_to(found)
    return str(folder)
