"""The secrets of a staged host, made when it starts for the first time. Standard library only, Python 3.9+.

An image holds none: two machines from one image must not share a key.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from roost.hosts.staged import Staged
from roost.ops.files import write_atomic

MODE = 0o400
BYTES = 32


def make_secrets(staged: Staged) -> list[str]:
    """Make what is missing; return the paths written. A secret of which a copy is there keeps its value."""
    written = []
    for secret in staged.secrets:
        copies, hashes = list(secret["files"]), list(secret.get("hashes", []))
        value = _known(copies) or secrets.token_urlsafe(BYTES)
        wanted = [(place, value) for place in copies]
        wanted += [(place, hashlib.sha256(value.encode()).hexdigest()) for place in hashes]
        for place, content in wanted:
            path = Path(place["path"])
            if not path.exists():
                _write(path, content, int(place["uid"]))
                written.append(str(path))
    return written


def _known(copies: list[dict[str, Any]]) -> str:
    for place in copies:
        path = Path(place["path"])
        if path.exists():
            return path.read_text().strip()
    return ""


def _write(path: Path, content: str, uid: int) -> None:
    """Write a file that its owner alone reads; it has that owner before it has its name."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    write_atomic(aside, content + "\n", mode=MODE)
    os.chown(aside, uid, -1)
    aside.replace(path)
