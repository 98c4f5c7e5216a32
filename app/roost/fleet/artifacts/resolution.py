"""Which package versions an artifact is made of: resolved once, written down, and kept until an update is asked for.

Looked for in this order: the state folder (this machine's own decision), the offline folder, the cache (another
machine's decision), and last apt, which needs the network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roost.fleet.artifacts.apt import Package
from roost.fleet.artifacts.store import tag_of
from roost.ops.files import write_atomic

BOOK = "resolved.json"


class Wanted(BaseModel):
    """What is asked of Debian, before versions are known."""

    model_config = ConfigDict(frozen=True)

    kind: str  # engine or base
    suite: str
    packages: tuple[str, ...]
    arch: str

    @property
    def key(self) -> str:
        """Name of this wish: the same on every machine that wishes the same."""
        return f"{self.kind}-{tag_of(self.model_dump())}"


class Resolution(BaseModel):
    """A wish with the versions that fulfil it, sorted by package name."""

    model_config = ConfigDict(frozen=True)

    wanted: Wanted
    packages: tuple[Package, ...]

    @property
    def versions(self) -> dict[str, str]:
        """Return version and architecture by package name: what the tags count."""
        return {p.name: f"{p.version}_{p.arch}_{p.sha256[:16]}" for p in self.packages}

    @property
    def size(self) -> int:
        """Bytes of all .debs."""
        return sum(p.size for p in self.packages)

    def version_of(self, *names: str) -> str:
        """Return the version of the first of `names` that is in it; empty when none is."""
        return next((p.version for name in names for p in self.packages if p.name == name), "")


class ResolutionBook:
    """The decisions of this machine in `<artifacts>/resolved.json`, and those other machines left in shared folders."""

    def __init__(self, artifacts_dir: Path, shared: Sequence[Path]) -> None:
        """`shared`: folders that hold `resolved-<key>.json`, the first one found wins; the last one is written to."""
        self.path = artifacts_dir / BOOK
        self.shared = tuple(shared)

    def _own(self) -> dict[str, object]:
        try:
            content = json.loads(self.path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return content if isinstance(content, dict) else {}

    def find(self, wanted: Wanted) -> tuple[Resolution | None, bool]:
        """Return the resolution already decided for a wish, and whether this machine itself decided it."""
        own = self._own().get(wanted.key)
        if own is not None:
            try:
                return Resolution.model_validate(own), True
            except ValidationError:
                pass
        for folder in self.shared:
            path = folder / f"resolved-{wanted.key}.json"
            try:
                return Resolution.model_validate_json(path.read_text()), False
            except (FileNotFoundError, ValidationError):
                continue
        return None, False

    def share(self, resolution: Resolution) -> None:
        """Write a decision into the cache only: for other machines, and for this one's next try."""
        if not self.shared:
            return
        text = json.dumps(resolution.model_dump(mode="json"), indent=1) + "\n"
        cached = self.shared[-1] / f"resolved-{resolution.wanted.key}.json"
        if not cached.is_file() or cached.read_text() != text:
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cached, text)

    def keep(self, resolution: Resolution) -> bool:
        """Write a decision down here and in the cache; return whether it is new here."""
        self.share(resolution)
        entry = resolution.model_dump(mode="json")
        content = self._own()
        if content.get(resolution.wanted.key) == entry:
            return False
        # One wish of a kind: an older one belongs to variables that were changed.
        kept = {key: value for key, value in content.items() if not key.startswith(f"{resolution.wanted.kind}-")}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps({**kept, resolution.wanted.key: entry}, indent=1, sort_keys=True) + "\n")
        return True
