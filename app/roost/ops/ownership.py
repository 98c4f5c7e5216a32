"""The ownership manifest: what Roost brought to this machine, so that only that is ever taken away.

A text file, one `kind<TAB>name` a line, so that a shell can read it too. A thing is recorded before it is made,
and only if it is absent at that moment; what was there before us is never in it.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

# python-package: what bootstrap.sh installed to have a Python; the playbook runs on it, so only the shell removes it.
KINDS = ("path", "user", "group", "package", "python-package", "image", "unit")


class Manifest:
    """One host's manifest. Every change is on the disk when the call returns."""

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self.path = path

    def _entries(self) -> list[tuple[str, str]]:
        try:
            lines = self.path.read_text().splitlines()
        except FileNotFoundError:
            return []
        except PermissionError:
            raise RoostError(f"{self.path} cannot be read.", fix="Run it as root.", exit_code=4) from None
        pairs = [line.partition("\t") for line in lines if line.strip()]
        for number, (kind, tab, name) in enumerate(pairs, 1):
            if kind not in KINDS or not tab or not name:
                raise RoostError(
                    f"{self.path}, line {number} is not `kind<TAB>name`.",
                    fix="Correct that line; the file says what may be removed, so it is not guessed.",
                )
        return [(kind, name) for kind, _, name in pairs]

    def _write(self, entries: Iterable[tuple[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, "".join(f"{kind}\t{name}\n" for kind, name in entries))

    def owned(self, kind: str) -> list[str]:
        """Return the names of one kind, oldest first."""
        _check(kind)
        return [name for k, name in self._entries() if k == kind]

    def own(self, kind: str, *names: str) -> list[str]:
        """Record names of things that are absent now; return those that were not recorded yet."""
        _check(kind, *names)
        entries = self._entries()
        new = [name for name in dict.fromkeys(names) if (kind, name) not in entries]
        if new:
            self._write([*entries, *((kind, name) for name in new)])
        return new

    def forget(self, kind: str, *names: str) -> list[str]:
        """Take names out, once they are removed; return those that were in it."""
        _check(kind, *names)
        entries = self._entries()
        gone = [name for name in names if (kind, name) in entries]
        if gone:
            self._write(entry for entry in entries if entry[0] != kind or entry[1] not in gone)
        return gone


def _check(kind: str, *names: str) -> None:
    if kind not in KINDS:
        raise RoostError(f"{kind!r} is not a kind of thing that can be owned.", fix=f"Use one of {', '.join(KINDS)}.")
    for name in names:
        if not name or not name.isprintable():
            raise RoostError(f"{name!r} cannot be recorded.", fix="Use a name without line breaks and the like.")


def path_present(name: str) -> bool:
    """Say whether anything, a dangling link included, is at this path."""
    return os.path.lexists(name)


def user_present(name: str) -> bool:
    """Say whether the host has this user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def group_present(name: str) -> bool:
    """Say whether the host has this group."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def unit_present(name: str, roots: Iterable[str] = ("/etc/systemd/system", "/lib/systemd/system")) -> bool:
    """Say whether the host has a service of this name, for systemd or SysV init."""
    units = (f"{root}/{name}.service" for root in roots)
    return any(map(os.path.lexists, (*units, f"/etc/init.d/{name}")))


# How the presence of a thing is seen; packages and images are asked for by whoever installs them.
PRESENT: dict[str, Callable[[str], bool]] = {
    "path": path_present,
    "user": user_present,
    "group": group_present,
    "unit": unit_present,
}
