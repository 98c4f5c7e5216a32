"""Resolve and fetch Debian packages of any suite in a private apt root; the host's own apt state is not touched.

Signatures are checked by apt against the host's debian-archive-keyring, and every file against its SHA-256.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict

from roost.fleet.artifacts.store import require_space
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file
from roost.ops.run import run
from roost.ops.trust import write_trust

KEYRINGS = Path("/usr/share/keyrings")
KEYRING = KEYRINGS / "debian-archive-keyring.gpg"
HELPERS = (Path("/usr/lib/apt/apt-helper"), Path("/usr/libexec/apt-helper"))
URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<name>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")
NETWORK_SIGNS = (
    "Could not resolve",
    "Could not connect",
    "Failed to fetch",
    "Temporary failure",
    "Connection failed",
    "Unable to connect",
    "timed out",
)
NOT_THERE = "404  Not Found"
FETCH_BATCH = 40


class Package(BaseModel):
    """One binary package as resolved: `suite` names the source it came from, `filename` its place in the archive."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    suite: str
    filename: str

    @property
    def deb(self) -> str:
        """The file name apt and debootstrap give it, e.g. `wget_1.25.0-3_amd64.deb`."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"


@dataclass(frozen=True, slots=True)
class Source:
    """An archive's suite to take packages from."""

    uri: str
    suite: str
    any_age: bool = False  # a frozen mirror of a testing suite is older than its Release file allows
    components: str = "main"

    def line(self, keyring: Path = KEYRING) -> str:
        """Return the line of sources.list."""
        age = " check-valid-until=no" if self.any_age else ""
        return f"deb [signed-by={keyring}{age}] {self.uri} {self.suite} {self.components}"


def is_released(suite: str, keyrings: Path = KEYRINGS) -> bool:
    """Tell a released suite from testing: Debian makes a key for each stable release when it is made."""
    return (keyrings / f"debian-archive-{suite}-stable.gpg").is_file()


def architecture() -> str:
    """Return the host's Debian architecture, e.g. `amd64`."""
    return run(["dpkg", "--print-architecture"]).strip()


def parse_uris(output: str, sources: Sequence[Source]) -> list[Package]:
    """Read what `apt-get --print-uris install` prints; sorted by name.

    Raises:
        RoostError: a file is not of one of `sources`.
    """
    found = []
    for line in output.splitlines():
        match = URI_LINE.match(line.strip())
        if match is None:
            continue
        uri = match["uri"]
        source = next((s for s in sources if uri.startswith(s.uri + "/")), None)
        if source is None:
            raise RoostError(f"apt wants {uri}, which is in none of the given archives.")
        name, version, arch = unquote(match["name"]).removesuffix(".deb").split("_")
        path = uri.removeprefix(source.uri + "/")
        found.append(
            Package(
                name=name,
                version=version,
                arch=arch,
                sha256=match["sha256"],
                size=int(match["size"]),
                suite=source.suite,
                filename=path,
            )
        )
    return sorted(found, key=lambda p: p.name)


def explain(error: RoostError, what: str) -> RoostError:
    """Turn apt's words into a sentence with a way out."""
    text = error.message
    fix = "See apt's words above."
    if "certificate verif" in text.lower() or "cannot verify" in text:
        fix = "Give the proxy's CA as extra_ca_bundle (a PEM file), or set debian_mirror to an http address."
    elif NOT_THERE in text:
        fix = "The mirror has newer versions now: run `roost images update`, or ./bootstrap.sh --upgrade."
    elif any(sign in text for sign in NETWORK_SIGNS):
        fix = "Check the network and its proxy settings, set debian_mirror to another one, or use --offline DIR."
    elif "Unable to locate package" in text or "no installation candidate" in text:
        fix = "Check the names in engine_packages and images_base_packages, and the suite."
    elif "signature" in text or "GPG error" in text or "NO_PUBKEY" in text:
        fix = "Update the package debian-archive-keyring, and check that the mirror is Debian's own archive."
    elif "No space left" in text:
        fix = "Free disk space and run it again."
    return RoostError(f"{what}: {text}", fix=fix)


class AptRoot:
    """A private apt: own sources, lists, cache and dpkg status, in a folder that lives as long as the context."""

    def __init__(self, folder: Path, sources: Sequence[Source], *, ca: Path | None, arch: str, status: str) -> None:
        self.folder = folder
        self.sources = tuple(sources)
        self.arch = arch
        for name in ("lists/partial", "cache/archives/partial", "state", "log", "empty"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text(status)
        (folder / "sources.list").write_text("".join(f"{s.line()}\n" for s in self.sources))
        config: dict[str, str | Path] = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": folder / "empty",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": folder / "empty",
            "Dir::Etc::Trusted": "/dev/null",
            "Dir::Etc::TrustedParts": folder / "empty",
            "Dir::State": folder / "state",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::Status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Log": folder / "log",
            "APT::Architecture": arch,
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::ForceHash": "SHA256",
        }
        if ca is not None:
            # In this folder it is readable for apt's unprivileged user.
            config["Acquire::https::CAInfo"] = write_trust(ca, folder / "ca.pem")
        # The host's own apt settings (its proxy above all) hold, but not what it does after its updates.
        cleared = (
            "APT::Update::Pre-Invoke",
            "APT::Update::Post-Invoke",
            "APT::Update::Post-Invoke-Success",
            "APT::Architectures",
            "Acquire::Check-Valid-Until",
        )
        lines = [f"#clear {name};" for name in cleared] + [f'{key} "{value}";' for key, value in config.items()]
        (folder / "apt.conf").write_text("\n".join([*lines, f'APT::Architectures "{arch}";', ""]))

    @staticmethod
    def _apt(*words: str | Path) -> str:
        return run([*words], env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})

    def update(self) -> None:
        """Fetch the package lists; signatures are checked here.

        Raises:
            RoostError: a list could not be fetched or its signature is not valid.
        """
        try:
            self._apt("apt-get", "-c", self.folder / "apt.conf", "-qq", "--error-on=any", "update")
        except RoostError as error:
            where = ", ".join(f"{s.uri} {s.suite}" for s in self.sources)
            raise explain(error, f"The package lists of {where} could not be fetched") from error

    def known(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` that the archives have."""
        asked = [self._apt("apt-cache", "-c", self.folder / "apt.conf", "pkgnames", name).split() for name in names]
        return [name for name, found in zip(names, asked, strict=True) if name in found]

    def resolve(self, packages: Sequence[str]) -> list[Package]:
        """Return `packages` and all they need beyond the dpkg status, sorted by name.

        Raises:
            RoostError: a package does not exist or cannot be installed.
        """
        words: list[str | Path] = [
            "apt-get",
            "-c",
            self.folder / "apt.conf",
            "-qq",
            "-y",
            "--print-uris",
            "install",
            "--",
            *packages,
        ]
        try:
            return parse_uris(self._apt(*words), self.sources)
        except RoostError as error:
            raise explain(error, f"The packages {', '.join(packages)} could not be resolved") from error

    def fetch(self, packages: Sequence[Package], debs: Path, notify: Callable[[str], None]) -> dict[str, Path]:
        """Put the .debs of `packages` into the folder `debs` and return their paths by package name.

        A file is moved there only once its hash is right; a damaged one found there is fetched again.

        Raises:
            RoostError: the disk is too small, or a file cannot be fetched or is not what was resolved.
        """
        debs.mkdir(parents=True, exist_ok=True)
        paths = {p.name: cached_deb(debs, p) for p in packages}
        missing = [p for p in packages if not is_intact(paths[p.name], p.sha256)]
        require_space(debs, sum(p.size for p in missing))
        helper = next((h for h in HELPERS if h.is_file()), HELPERS[0])
        for start in range(0, len(missing), FETCH_BATCH):
            batch = missing[start : start + FETCH_BATCH]
            notify(f"Fetching {len(batch)} Debian packages ({sum(p.size for p in batch) / 1e6:.0f} MB)")
            words: list[str | Path] = [helper, "-c", self.folder / "apt.conf", "download-file"]
            for package in batch:
                words.append(self._uri(package))
                words.append(self.folder / "cache" / package.deb)
                words.append(f"SHA256:{package.sha256}")
            try:
                self._apt(*words)
            except RoostError as error:
                raise explain(error, "Debian packages could not be fetched") from error
            for package in batch:
                keep_deb(self.folder / "cache" / package.deb, paths[package.name], package.sha256)
        return paths

    def _uri(self, package: Package) -> str:
        source = next((s for s in self.sources if s.suite == package.suite), self.sources[0])
        return f"{source.uri}/{package.filename}"


@contextmanager
def apt_root(
    sources: Sequence[Source], *, ca: Path | None = None, arch: str = "", status: str = ""
) -> Iterator[AptRoot]:
    """Make a private apt root in a temporary folder that apt's own unprivileged user can read.

    `status` is the text of a dpkg status file: what counts as installed already.

    Raises:
        RoostError: apt or the keyring is missing on this machine.
    """
    if not KEYRING.is_file():
        raise RoostError(
            f"{KEYRING} is missing, so signatures cannot be checked.", fix="apt-get install debian-archive-keyring"
        )
    with tempfile.TemporaryDirectory(prefix="roost-apt-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield AptRoot(folder, sources, ca=ca, arch=arch or architecture(), status=status)


def cached_deb(debs: Path, package: Package) -> Path:
    """Return where a package's file lies in the cache folder."""
    return debs / f"{package.sha256[:16]}-{package.deb}"


def is_intact(path: Path, sha256: str) -> bool:
    """Say whether a file exists with this content."""
    return path.is_file() and sha256_file(path) == sha256


def keep_deb(fetched: Path, path: Path, sha256: str) -> None:
    """Move a fetched file into the cache, only if its content is right, so that no reader sees a part of it."""
    if not is_intact(fetched, sha256):
        raise RoostError(
            f"{fetched.name} is not the file the archive announced.",
            fix="Run it again; if it stays, use another mirror.",
        )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        shutil.copyfile(fetched, temporary)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fetched.unlink()
