"""Runs on a host with Roost's own Python: puts a second build of Nomad into the cache, as if a release was fetched.

Usage: second_nomad.py PROGRAM CACHE. Prints the old version and the new one. It is the same program with another
version string of the same length in its data, where the linker's -X writes it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from roost.fleet.nomad_install import nomad_version
from roost.fleet.nomad_release import Platform
from roost.fleet.nomad_sources import release_key


def main(program: Path, cache: Path) -> None:
    """Make it."""
    old = nomad_version(program)
    new = f"{old[:-1]}{'9' if old[-1] != '9' else '8'}"
    data = program.read_bytes()
    # Elsewhere it stands in the paths of the sources: nomad@v1.11.3.
    found = [match.start() for match in re.finditer(rb"(?<![v\d.])" + re.escape(old.encode()) + rb"(?![\d.])", data)]
    if len(found) != 1:
        raise SystemExit(f"the version stands in {len(found)} places")
    data = data[: found[0]] + new.encode() + data[found[0] + len(old) :]
    folder = cache / release_key(new, Platform.of_this_machine())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nomad").write_bytes(data)
    (folder / "nomad").chmod(0o755)
    (folder / "nomad.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  nomad\n")
    if nomad_version(folder / "nomad") != new:
        raise SystemExit("the new build does not say its version")
    print(old, new)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
