"""Whose Docker it is: one that Roost brought may have come to be used by somebody else, or been replaced by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from roost.ops.dpkg import installed
from roost.ops.errors import RoostError
from roost.ops.ownership import Manifest
from roost.ops.run import run

LABEL = "org.roost.image"
REPOSITORY = "roost/"
UNNAMED = re.compile(r"[0-9a-f]{64}")  # a volume that came with a container
ASK_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Brought:
    """What the manifest holds because Docker came with Roost."""

    packages: Sequence[str]
    paths: Sequence[str]
    groups: Sequence[str]


def hand_over(manifest: Manifest, brought: Brought, *, dry_run: bool = False) -> list[str]:
    """Forget that Docker is ours, so that nothing of it is ever removed; return what was, or would be, forgotten.

    Its packages are no longer held at their version: that was ours, and with it apt could not even say that what they
    need has to stay.
    """
    kinds = (("package", brought.packages), ("path", brought.paths), ("group", brought.groups))
    gone = []
    for kind, names in kinds:
        owned = manifest.owned(kind)
        known = [name for name in names if name in owned]
        gone += [f"{kind} {name}" for name in known]
        if known and not dry_run:
            manifest.forget(kind, *known)
            if theirs := sorted(installed(known)) if kind == "package" else []:
                run(["apt-mark", "unhold", *theirs])
    return gone


def used_by_others() -> list[str]:
    """Name what the running Docker holds that is not ours: containers, tagged images and named volumes.

    Empty where no Docker answers. An image of ours has our label and one of our names: what is built from it inherits
    the label only.
    """
    try:
        run(["docker", "version"], timeout_s=ASK_TIMEOUT_S)
    except RoostError:
        return []
    every = _images()
    ours = {image for name, image in _images("--filter", f"label={LABEL}") if name.startswith(REPOSITORY)}
    found = [f"image {name}" for name, image in every if image not in ours and "<none>" not in name]
    ids = _ask("container", "ls", "-aq", "--no-trunc").split()
    if ids:
        rows = _ask("container", "inspect", "--format", "{{.Image}} {{.Name}}", *ids).splitlines()
        pairs = (row.split(" ", 1) for row in rows if row.strip())
        found += [f"container {name.lstrip('/')}" for image, name in pairs if image not in ours]
    volumes = _ask("volume", "ls", "--quiet").split()
    return found + [f"volume {name}" for name in volumes if not UNNAMED.fullmatch(name)]


def _ask(*words: str) -> str:
    return run(["docker", *words], timeout_s=ASK_TIMEOUT_S)


def _images(*filters: str) -> list[tuple[str, str]]:
    text = _ask("image", "ls", "--no-trunc", *filters, "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    return [(name, image) for name, _, image in (line.partition(" ") for line in text.splitlines()) if image]
