"""Binary wheels of a locked requirements file, for this or another Python, in a shared cache folder."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

from roost.fleet.artifacts.store import locked
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file
from roost.ops.run import run
from roost.ops.trust import write_trust

PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
OLDEST_GLIBC = 17  # manylinux2014, the oldest any locked wheel is built for
LEGACY = {17: "manylinux2014"}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
NETWORK_SIGNS = (
    "NewConnectionError",
    "Connection refused",
    "Name or service",
    "timed out",
    "ConnectTimeout",
    "Temporary failure",
    "No matching distribution",
)


@dataclass(frozen=True, slots=True)
class Target:
    """The Python a set of wheels is for."""

    python: str  # e.g. 3.11
    arch: str  # Debian's word, e.g. amd64
    glibc: int  # minor version of glibc 2

    def flags(self) -> list[str]:
        """Return pip's options that choose this target whatever Python runs pip."""
        machine = MACHINES.get(self.arch, self.arch)
        names = [f"manylinux_2_{minor}_{machine}" for minor in range(self.glibc, OLDEST_GLIBC - 1, -1)]
        names += [f"{LEGACY[17]}_{machine}", f"linux_{machine}"]
        abi = f"cp{self.python.replace('.', '')}"
        flags = ["--python-version", self.python, "--implementation", "cp"]
        flags += ["--abi", abi, "--abi", "abi3", "--abi", "none"]
        return flags + [word for name in names for word in ("--platform", name)]


def host_glibc() -> int:
    """Return the minor version of the running glibc.

    Raises:
        RoostError: this is not a glibc system.
    """
    text = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    match = re.match(r"glibc 2\.(\d+)", text or "")
    if match is None:
        raise RoostError("This system has no GNU C library, for which the wheels are built.", fix="Use a glibc system.")
    return int(match[1])


def normalised(name: str) -> str:
    """Return a project's name as it stands in wheel file names."""
    return re.sub(r"[-_.]+", "_", name).lower()


def pins(text: str) -> dict[tuple[str, str], frozenset[str]]:
    """Read a locked requirements file: allowed hashes by (normalised name, version)."""
    found: dict[tuple[str, str], set[str]] = {}
    current: set[str] = set()
    for line in text.splitlines():
        if match := PIN.match(line):
            current = found.setdefault((normalised(match["name"]), match["version"]), set())
        current.update(HASH.findall(line))
    return {key: frozenset(hashes) for key, hashes in found.items()}


def for_python(text: str, python: str) -> str:
    """Return a locked requirements file with only what applies to a Python version, environment markers resolved.

    pip decides markers by the Python that runs it, whatever it is asked to download for.
    """
    kept: list[str] = []
    applies = True
    for line in text.splitlines():
        if PIN.match(line):
            requirement, _, marker = line.removesuffix("\\").partition(";")
            environment = {"python_version": python, "python_full_version": f"{python}.0"}
            applies = not marker.strip() or Marker(marker.strip()).evaluate(environment)
            line = requirement.rstrip() + " \\" if line.endswith("\\") else requirement.rstrip()
        if applies:
            kept.append(line)
    return "\n".join([*kept, ""])


def divided(text: str, project: str) -> tuple[str, str]:
    """Divide a locked requirements file: what it says of one project, and of all others."""
    mine: list[str] = []
    others: list[str] = []
    chosen = others
    for line in text.splitlines():
        if match := PIN.match(line):
            chosen = mine if normalised(match["name"]) == normalised(project) else others
        chosen.append(line)
    return "\n".join([*mine, ""]), "\n".join([*others, ""])


def damaged(wheels: Path, allowed: dict[tuple[str, str], frozenset[str]]) -> list[Path]:
    """Return the wheels of locked projects whose content is none of the locked ones: cut short, or tampered with."""
    found = []
    for path in sorted(wheels.glob("*.whl")):
        name, version, *_ = path.name.split("-")
        hashes = allowed.get((normalised(name), version))
        if hashes is not None and sha256_file(path) not in hashes:
            found.append(path)
    return found


def pip() -> list[str]:
    """Return the words that start a pip.

    Raises:
        RoostError: this machine has none.
    """
    for python in (sys.executable, shutil.which("python3") or ""):
        if python and Path(python).is_file():
            try:
                run([python, "-m", "pip", "--version"])
            except RoostError:
                continue
            return [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    raise RoostError("pip is not installed.", fix="apt-get install python3-venv python3-pip")


def explain(error: RoostError) -> RoostError:
    """Turn pip's words into a sentence with a way out."""
    text = error.message
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSLError" in text:
        return RoostError(
            f"The package index's certificate is not trusted: {text}", fix="Give the proxy's CA as extra_ca_bundle."
        )
    if "DO NOT MATCH THE HASHES" in text:
        return RoostError(
            f"A wheel is not the one that was locked: {text}", fix="Check the package index or mirror pip uses."
        )
    if any(sign in text for sign in NETWORK_SIGNS):
        return RoostError(
            f"Python wheels could not be fetched: {text}",
            fix="Check the network and pip's settings (PIP_INDEX_URL, proxy), or use --offline DIR.",
        )
    return RoostError(text, fix=error.fix)


def pip_environment(ca: Path | None) -> dict[str, str]:
    """Return the environment for pip; `ca` is a complete file of trusted certificates, or None for pip's own."""
    # PYTHONPATH holds our own package and would shadow pip's view; pip's own settings (index, proxy) stay.
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    return environment if ca is None else {**environment, "PIP_CERT": str(ca)}


def _install(requirements: Path, target: Target, wheels: Path, folder: Path) -> None:
    words: list[str | Path] = [*pip(), "install", "--quiet", "--no-index", "--find-links", wheels]
    words += ["--require-hashes", "--only-binary", ":all:", "--no-compile", "--no-deps", *target.flags()]
    words += ["--target", folder, "--requirement", requirements]
    run(words, env={**pip_environment(None), "PIP_FIND_LINKS": ""})


def forget_damaged(requirements: Path, wheels: Path, notify: Callable[[str], None]) -> None:
    """Remove wheels from the cache that are not the locked ones."""
    for path in damaged(wheels, pins(requirements.read_text())):
        notify(f"{path.name} in the cache is damaged and is fetched again")
        path.unlink()


def download(
    requirements: Path, target: Target, wheels: Path, *, ca: Path | None, notify: Callable[[str], None]
) -> list[Path]:
    """Fetch the wheels of a requirements file into the cache folder and return them; each appears there whole.

    Raises:
        RoostError: no index can be reached, or a wheel is not the locked one.
    """
    forget_damaged(requirements, wheels, notify)
    wheels.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheels, prefix=".partial-") as name:
        locked_versions = Path(name) / "requirements.txt"
        locked_versions.write_text(for_python(requirements.read_text(), target.python))
        words: list[str | Path] = [*pip(), "download", "--quiet", "--require-hashes", "--only-binary", ":all:"]
        words += ["--no-deps", "--find-links", wheels, *target.flags(), "--dest", name]
        words += ["--requirement", locked_versions]
        try:
            run([*words, "--no-index"], env={**pip_environment(None), "PIP_FIND_LINKS": ""})
        except RoostError:
            notify(f"Fetching Python wheels of {requirements.name} for Python {target.python}")
            from_index(words, write_trust(ca, Path(name) / "ca.pem") if ca is not None else None)
        return sorted(path.replace(wheels / path.name) for path in Path(name).glob("*.whl"))


def from_index(words: list[str | Path], ca: Path | None, more: Mapping[str, str] | None = None) -> None:
    """Run pip where it needs an index; `more` is added to its environment.

    Raises:
        RoostError: what went wrong in words of ours, with a way out.
    """
    try:
        run(words, env={**pip_environment(ca), **(more or {})})
    except RoostError as error:
        raise explain(error) from error


def install(
    requirements: Path,
    target: Target,
    wheels: Path,
    folder: Path,
    *,
    ca: Path | None,
    notify: Callable[[str], None],
    more: Path | None = None,
) -> None:
    """Install a requirements file into `folder`, from the cache alone when it holds every wheel.

    `more` is a read-only folder of wheels (an offline bundle) that is used instead of the cache and the network.

    Raises:
        RoostError: a wheel is missing or not the locked one and cannot be fetched.
    """
    if more is not None:
        _from_bundle(requirements, target, more, folder)
        return
    with locked(wheels, "wheels"):
        forget_damaged(requirements, wheels, notify)
        try:
            _install(requirements, target, wheels, folder)
        except RoostError:
            shutil.rmtree(folder, ignore_errors=True)
            download(requirements, target, wheels, ca=ca, notify=notify)
            _install(requirements, target, wheels, folder)
    shutil.rmtree(folder / "bin", ignore_errors=True)


def _from_bundle(requirements: Path, target: Target, wheels: Path, folder: Path) -> None:
    try:
        _install(requirements, target, wheels, folder)
    except RoostError as error:
        raise RoostError(
            f"The offline folder lacks wheels of {requirements.name} for Python {target.python}: {error.message}",
            fix=f"Make it again with `roost bundle DIR --python {target.python}` from the same version of Roost.",
        ) from error
    shutil.rmtree(folder / "bin", ignore_errors=True)
