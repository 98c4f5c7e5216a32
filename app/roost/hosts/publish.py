"""What a node says of itself to others: the collector, Ansible's local facts, the remembered bandwidth.

Ansible runs what is executable in its folder of local facts and reads the answer as `ansible_local.roost`
(ansible.builtin.setup, fact_path), so these facts are always those of the moment and the file stays the same.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost.hosts.collector_zip import pack
from roost.ops.files import write_atomic

PROGRAM_MODE = 0o755
DATA_MODE = 0o644
SCRIPT = """#!/bin/sh
# Written by Roost: what it knows of this machine. Ansible reads it as ansible_local.roost:
# ansible all -m ansible.builtin.setup -a filter=ansible_local
exec {command}
"""


@dataclass(frozen=True)
class Published:
    """Files of one node: the collector, the script that Ansible runs, and what the memory probe found."""

    collector: Path
    script: Path
    bandwidth: Path


@dataclass(frozen=True)
class Change:
    """A file that was written, or would be; lines for a diff."""

    path: Path
    before: str
    after: str


def publish(
    files: Published,
    paths: Sequence[str],
    manifest: Path,
    bandwidth: Mapping[str, Any],
    *,
    dry_run: bool = False,
) -> list[Change]:
    """Have the files as they should be; return what was changed.

    `paths` are those whose disk the facts tell, `bandwidth` is what `remembered.as_dict` returned, or empty if nothing
    was measured: what is there then stays.

    Raises:
        RoostError: the collector cannot be packed from this release.
        OSError: a file cannot be written.
    """
    wanted: list[tuple[Path, bytes, int]] = [
        (files.collector, pack(), PROGRAM_MODE),
        (files.script, _script(files, paths, manifest).encode(), PROGRAM_MODE),
    ]
    if bandwidth:
        wanted.append((files.bandwidth, (json.dumps(bandwidth, indent=1) + "\n").encode(), DATA_MODE))
    changes = [change for path, content, mode in wanted if (change := _change(path, content, mode))]
    if dry_run and not bandwidth and not files.bandwidth.exists():  # nothing is measured in a check
        changes.append(Change(files.bandwidth, "", f"{files.bandwidth}: how fast the memory is\n"))
    if not dry_run:
        changed = {change.path for change in changes}
        for path, content, mode in wanted:
            if path in changed:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, content, mode=mode)
    return changes


def _script(files: Published, paths: Sequence[str], manifest: Path) -> str:
    python = Path(sys.executable).resolve()  # not that of our environment, which the next release replaces
    words: list[str | Path] = [python, "-I", "-S", files.collector, "--manifest", manifest]
    for path in paths:
        words += ["--path", path]
    return SCRIPT.format(command=shlex.join(map(str, [*words, "--bandwidth", files.bandwidth])))


def _change(path: Path, content: bytes, mode: int) -> Change | None:
    try:
        before, had = path.read_bytes(), path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return Change(path, "", f"{path}: {len(content)} bytes, {mode:04o}\n")
    if before == content and had == mode:
        return None
    return Change(path, f"{path}: {len(before)} bytes, {had:04o}\n", f"{path}: {len(content)} bytes, {mode:04o}\n")
