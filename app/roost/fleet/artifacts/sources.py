"""Which Debian mirror this host uses, read from its apt sources (one-line and deb822 formats)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from roost.ops.errors import RoostError

ONE_LINE = re.compile(
    r"^(?P<type>deb(?:-src)?)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)$"
)
MIRROR_LIST = "mirror+file:"


@dataclass(frozen=True, slots=True)
class Entry:
    """One usable line of apt's sources: an archive of binary packages and one of its suites."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Base addresses of the archive and of its security updates; empty where none is known."""

    main: str = ""
    security: str = ""


def parse_one_line(text: str) -> list[Entry]:
    """Read the one-line format (`deb [options] URI SUITE COMPONENT...`); lines it cannot read are left out."""
    found = []
    for raw in text.splitlines():
        match = ONE_LINE.match(raw.split("#", 1)[0].strip())
        if match is None or match["type"] != "deb":
            continue
        options = dict(word.split("=", 1) for word in (match["options"] or "").split() if "=" in word)
        components = tuple(match["components"].split())
        found.append(Entry(match["uri"].rstrip("/"), match["suite"], components, options.get("signed-by", "")))
    return found


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t" and name:
            fields[name] += f"\n{line.strip()}"
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()


def parse_deb822(text: str) -> list[Entry]:
    """Read the deb822 format (stanzas of `Types`, `URIs`, `Suites`, `Components`); disabled stanzas are left out."""
    found = []
    for fields in _stanzas(text):
        if fields.get("enabled", "yes").lower() in {"no", "false", "0"} or "deb" not in fields.get("types", "").split():
            continue
        components = tuple(fields.get("components", "").split())
        signed_by = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            found += [
                Entry(uri.rstrip("/"), suite, components, signed_by) for suite in fields.get("suites", "").split()
            ]
    return found


def _is_debian(entry: Entry) -> bool:
    """Tell Debian's own archive from a third party that uses the same suite name."""
    return "main" in entry.components and (not entry.signed_by or "debian-archive" in entry.signed_by)


def choose(entries: Iterable[Entry], codename: str) -> Mirrors:
    """Pick the archive and the security archive of the host's own release; anything else is somebody else's."""
    own = [e for e in entries if _is_debian(e)]
    main = next((e.uri for e in own if e.suite == codename), "")
    security = next((e.uri for e in own if e.suite in {f"{codename}-security", f"{codename}/updates"}), "")
    return Mirrors(main, security)


def _first_of_list(uri: str) -> str:
    """Follow `mirror+file:LIST`, which only apt understands, to the first address of the list."""
    if not uri.startswith(MIRROR_LIST):
        return uri
    path = Path(re.sub(r"^/*", "/", uri.removeprefix(MIRROR_LIST)))
    try:
        lines = [line.split("#", 1)[0].split() for line in path.read_text().splitlines()]
    except OSError:
        return ""
    return next((words[0].rstrip("/") for words in lines if words), "")


def os_release(root: Path = Path("/")) -> dict[str, str]:
    """Return the fields of os-release; empty where there is none."""
    try:
        lines = (root / "etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def host_mirrors(root: Path = Path("/")) -> Mirrors:
    """Return the mirrors the host's apt uses for its own Debian release; empty on another system."""
    release = os_release(root)
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        return Mirrors()
    apt = root / "etc/apt"
    entries: list[Entry] = []
    if (apt / "sources.list").is_file():
        entries += parse_one_line((apt / "sources.list").read_text(errors="replace"))
    for path in sorted((apt / "sources.list.d").glob("*")):
        if path.suffix == ".sources":
            entries += parse_deb822(path.read_text(errors="replace"))
        elif path.suffix == ".list":
            entries += parse_one_line(path.read_text(errors="replace"))
    chosen = choose(entries, codename)
    return Mirrors(_first_of_list(chosen.main), _first_of_list(chosen.security))


def default_mirror() -> str:
    """Return debootstrap's own default archive.

    Raises:
        RoostError: debootstrap is not installed or names none.
    """
    program = shutil.which("debootstrap", path="/usr/sbin:/sbin:/usr/bin:/bin")
    match = re.search(r'^DEF_MIRROR="([^"]+)"', Path(program).read_text(), re.MULTILINE) if program else None
    if match is None:
        raise RoostError(
            "No Debian mirror is known on this machine.",
            fix="Set debian_mirror, or install debootstrap, which has a default.",
        )
    return match[1]


def mirrors(variable: str, root: Path = Path("/")) -> Mirrors:
    """Decide the mirrors: the variable, else the host's own, else debootstrap's default."""
    host = host_mirrors(root)
    return Mirrors(variable.rstrip("/") or host.main or default_mirror(), host.security)
