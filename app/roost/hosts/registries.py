"""Can the package clients reach their registries? Asked of the clients themselves, with their own settings."""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.run import run
from roost.ops.trust import write_trust

TIMEOUT_S = 60.0
COMPLAINTS = ("E:", "Err:", "ERROR:", "W: Failed")
ONLY_RELEASE_FILES = [
    option
    for target in ("Packages", "Translations", "DEP-11", "Contents-deb")
    for option in ("-o", f"Acquire::IndexTargets::deb::{target}::DefaultEnabled=false")
]


def reach(clients: Sequence[str], *, extra_ca_bundle: Path | None = None) -> dict[str, str]:
    """Return for each of `apt` and `pip` an empty string, or why it cannot reach its registry.

    Writes to a temporary folder only.
    """
    asked = {"apt": _apt, "pip": _pip}
    found: dict[str, str] = {}
    for client in clients:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                ca = write_trust(extra_ca_bundle, Path(scratch, "ca.pem")) if extra_ca_bundle else None
                asked[client](Path(scratch), ca)
            found[client] = ""
        except RoostError as error:
            found[client] = reason(error.message)
    return found


def _apt(scratch: Path, ca: Path | None) -> None:
    """Fetch the signed release files into a folder of ours."""
    (scratch / "lists" / "partial").mkdir(parents=True)
    trust = ["-o", f"Acquire::https::CAInfo={ca}"] if ca else []
    run(
        ["apt-get", "update", "-q", "--error-on=any", "-o", f"Dir::State::lists={scratch}/lists",
         "-o", f"Dir::Cache={scratch}", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1",
         "-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15", *ONLY_RELEASE_FILES, *trust],
        timeout_s=TIMEOUT_S, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip


def _pip(_scratch: Path, ca: Path | None) -> None:
    """Ask for the versions of pip itself, which every index has."""
    trust = ["--cert", str(ca)] if ca else []
    run(
        [sys.executable, "-m", "pip", "index", "versions", "pip", "--no-cache-dir", "--retries", "1", "--timeout", "15",
         *trust],
        timeout_s=TIMEOUT_S, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
    )  # fmt: skip


SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
PROXY_LINE = re.compile(r'^Acquire::https?::Proxy "[^"]', re.IGNORECASE | re.MULTILINE)
MOST_NAMES = 4


def unresolved(resolve: Callable[[str], object] = lambda name: socket.getaddrinfo(name, None)) -> list[str]:
    """Return the names of apt's registries that cannot be resolved; none where a proxy does that."""
    if any(os.environ.get(name) for name in PROXIES) or PROXY_LINE.search(_apt_settings()):
        return []
    found: list[str] = []
    for name in registry_names("".join(_texts()))[:MOST_NAMES]:
        try:
            resolve(name)
        except OSError:
            found.append(name)
    return found


def _apt_settings() -> str:
    try:
        return run(["apt-config", "dump"], timeout_s=TIMEOUT_S, env={**os.environ, "LC_ALL": "C"})
    except RoostError:
        return ""


def _texts() -> list[str]:
    paths = [path for top in map(Path, SOURCES) for path in ([top] if top.is_file() else sorted(top.glob("*")))]
    return [path.read_text(errors="replace") for path in paths if path.suffix in {".list", ".sources"}]


def registry_names(sources: str) -> list[str]:
    """Return the machines that apt's sources name, in order; addresses need no resolving."""
    lines = [line for line in sources.splitlines() if not line.lstrip().startswith("#")]
    names = [name for line in lines for name in re.findall(r"https?://([A-Za-z0-9.-]+)", line)]
    return [name for name in dict.fromkeys(names) if not re.fullmatch(r"[\d.]+", name)]


def reason(output: str) -> str:
    """Return the one line of a client's output that says most: the connection's error, else the first complaint."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    broken = [found.group(1) for line in lines if (found := re.search("after connection broken by '(.*)'", line))]
    marked = [line for line in lines if line.startswith(COMPLAINTS)]
    return (broken or marked or lines or ["no reason given"])[0]
