"""Debian packages of the host: what is there, what an installation would bring, what a removal would take along."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roost.ops.dpkg import on_disk
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, write_atomic
from roost.ops.offline import HOST_DEBS, OfflineBundle
from roost.ops.ownership import Manifest
from roost.ops.processes import terminations_raised
from roost.ops.run import run

# A package that is new has no old version in brackets: `Inst wget (1.21.3-1 Debian:12 [amd64])`.
NEW = re.compile(r"^Inst (?P<name>[^ ]+) \(")
REMOVED = re.compile(r"^(?:Remv|Purg) (?P<name>[^ ]+) ")
LOCK_WAIT_S = 300
# A package of ours may be held at its version (role docker); that keeps upgrades away, not its removal with Roost.
HELD_TOO = ("--allow-change-held-packages",)
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Roost installs packages; their services are started afterwards.\nexit 101\n"
STALE_LISTS = ("Unable to locate package", "no installation candidate", "404  Not Found", "Failed to fetch")
NOTHING_FETCHED = ("Could not resolve", "Could not connect", "Temporary failure", "Connection failed", "timed out")


@dataclass(frozen=True, slots=True)
class Plan:
    """What apt would do: packages newly installed, and packages removed, sorted."""

    new: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def parse_simulation(output: str) -> Plan:
    """Read what `apt-get --simulate` prints."""
    new = {m["name"] for line in output.splitlines() if (m := NEW.match(line))}
    removed = {m["name"] for line in output.splitlines() if (m := REMOVED.match(line))}
    return Plan(sorted(new), sorted(removed))


def explain(error: RoostError, what: str) -> RoostError:
    """Turn apt's words into a sentence with a way out."""
    text = error.message
    fix = "See apt's words above."
    if "certificate" in text.lower():
        fix = "Give the proxy's CA: ROOST_EXTRA_CA_BUNDLE=/path/ca.pem ./bootstrap.sh"
    elif "No space left" in text or "enough free space" in text:
        fix = "Free disk space and run it again."
    elif "Could not get lock" in text:
        fix = "Another package manager is running; let it finish and run it again."
    elif any(sign in text for sign in NOTHING_FETCHED):
        fix = "Check the network and its proxy settings, or use --offline DIR."
    elif "Unable to locate package" in text or "no installation candidate" in text:
        fix = "Check the package sources in /etc/apt, and the name."
    elif "unmet dependencies" in text or "held broken" in text:
        fix = "Run `apt-get -f install`, look at held packages (`apt-mark showhold`), and run it again."
    return RoostError(f"{what}: {text}", fix=fix)


class Apt:
    """The host's apt with our options. Nothing of its configuration is changed."""

    def __init__(self, *, extra_ca: Path | None = None, options: Sequence[str] = ()) -> None:
        """`extra_ca`: PEM file with the CA of https mirrors; `options`: further `Name=value`."""
        self.options = [f"DPkg::Lock::Timeout={LOCK_WAIT_S}", "Acquire::Retries=2", *options]
        if extra_ca is not None:
            self.options.append(f"Acquire::https::CAInfo={extra_ca}")

    def _run(self, *words: str) -> str:
        flags = [flag for option in self.options for flag in ("-o", option)]
        env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
        return run(["apt-get", "-q", "-y", *flags, *words], env=env)

    def update(self) -> None:
        """Fetch the package lists.

        Raises:
            RoostError: none could be fetched.
        """
        try:
            self._run("update")
        except RoostError as error:
            raise explain(error, "The package lists could not be fetched") from error

    def simulate_install(self, names: Sequence[str]) -> Plan:
        """Say what installing `names` would do, as far as apt's present lists know.

        Raises:
            RoostError: apt does not know a name, or cannot install it.
        """
        return parse_simulation(self._run("--simulate", "install", "--no-install-recommends", "--", *names))

    def simulate_purge(self, names: Sequence[str]) -> Plan:
        """Say what purging `names` would take along."""
        return parse_simulation(self._run("--simulate", *HELD_TOO, "purge", "--", *names))

    def install(self, names: Sequence[str]) -> None:
        """Install `names` without their recommendations; configuration files that were there stay."""
        keep = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
        self._run(*keep, "install", "--no-install-recommends", "--", *names)

    def purge(self, names: Sequence[str]) -> None:
        """Remove `names` with their configuration."""
        self._run(*HELD_TOO, "purge", "--", *names)


def finish_interrupted() -> None:
    """Complete what an interrupted dpkg left half done; without that apt refuses everything."""
    if run(["dpkg", "--audit"]).strip():
        run(
            ["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            fix="Run `dpkg --configure -a` by hand.",
        )


def plan_install(apt: Apt, names: Sequence[str], *, may_update: bool) -> Plan:
    """Return what installing `names` does; the package lists are fetched only if apt cannot say without.

    Raises:
        RoostError: it cannot be installed, or something that is there would have to go.
    """
    try:
        plan = apt.simulate_install(names)
    except RoostError as error:
        if not may_update or not any(sign in error.message for sign in STALE_LISTS):
            raise explain(error, f"{', '.join(names)} cannot be installed") from error
        apt.update()
        try:
            plan = apt.simulate_install(names)
        except RoostError as again:
            raise explain(again, f"{', '.join(names)} cannot be installed") from again
    if plan.removed:
        raise RoostError(
            f"Installing {', '.join(names)} would remove {', '.join(plan.removed)}.",
            fix="Nothing was changed. Remove what is in conflict by hand, or install the package by hand.",
        )
    return plan


def install(apt: Apt, names: Sequence[str], manifest: Manifest) -> list[str]:
    """Install `names`, recording everything new before it comes; return what is new.

    Raises:
        RoostError: it cannot be installed.
    """
    finish_interrupted()
    plan = plan_install(apt, names, may_update=True)
    manifest.own("package", *plan.new)
    try:
        apt.install(names)
    except RoostError as error:
        if not any(sign in error.message for sign in STALE_LISTS):
            raise explain(error, f"{', '.join(names)} could not be installed") from error
        apt.update()
        plan = plan_install(apt, names, may_update=False)
        manifest.own("package", *plan.new)
        try:
            apt.install(names)
        except RoostError as again:
            raise explain(again, f"{', '.join(names)} could not be installed") from again
    return plan.new


def removable(apt: Apt, owned: Sequence[str]) -> list[str]:
    """Return those of `owned`, installed wholly or halfway, whose removal takes along nothing but of `owned`."""
    ours = set(owned)
    present = sorted(on_disk(owned))

    def harmless(names: Sequence[str]) -> bool:
        return set(apt.simulate_purge(names).removed) <= ours

    if not present or harmless(present):
        return present
    single = [name for name in present if harmless([name])]
    return single if single and harmless(single) else []


@contextlib.contextmanager
def services_kept_from_starting(manifest: Manifest, policy: Path = POLICY) -> Iterator[None]:
    """Let packages install without starting their services; a policy that was there is put back.

    One of ours, left by a run that was killed, counts as none. While ours is there the manifest says so.
    """
    saved = policy.read_bytes() if policy.exists() else None
    mode = stat.S_IMODE(policy.stat().st_mode) if saved is not None else 0
    if saved == POLICY_TEXT.encode():
        saved = None
    with terminations_raised():
        try:
            if saved is None:
                manifest.own("path", str(policy))
            write_atomic(policy, POLICY_TEXT, mode=0o755)
            yield
        finally:
            if saved is None:
                policy.unlink(missing_ok=True)
                manifest.forget("path", str(policy))
            else:
                write_atomic(policy, saved, mode=mode)


@contextlib.contextmanager
def kept_archives(cache: Path) -> Iterator[list[str]]:
    """Give apt an archive folder that holds what the cache has, and keep what it adds; yields apt options.

    The folder is this call's own, so that two hosts with one cache do not wait for each other. apt checks every
    file's hash before it believes it.
    """
    kept = cache / "debs" / "host"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=kept) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "partial").mkdir()
        for deb in kept.glob("*.deb"):
            _link(deb, folder / deb.name)
        yield [
            f"Dir::Cache::archives={folder}/",
            "APT::Keep-Downloaded-Packages=true",
            "APT::Clean-Installed=false",
        ]
        for deb in folder.glob("*.deb"):
            if not (kept / deb.name).exists():
                _link(deb, kept / deb.name)


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(FileExistsError):
        try:
            target.hardlink_to(source)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)


@contextlib.contextmanager
def offline_source(bundle: OfflineBundle) -> Iterator[list[str]]:
    """Give apt the host's packages of an offline folder as its only source; yields apt options.

    Only files that `bundle.json` lists, each found right, are shown to apt, which then gets them as trusted.

    Raises:
        RoostError: it holds no package, or one is missing or wrong.
    """
    names = [name for name in bundle.names(f"{HOST_DEBS}/") if name.endswith(".deb")]
    if not names:
        raise RoostError(
            f"{bundle.folder / HOST_DEBS} holds no package.", fix="Make the folder again with `roost bundle DIR`."
        )
    files = [bundle.path(name) for name in names]
    with tempfile.TemporaryDirectory(prefix="roost-debs-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        repository = folder / "repository"
        for part in (repository, folder / "lists" / "partial", folder / "archives" / "partial", folder / "none"):
            part.mkdir(parents=True)
        index = [_index_entry(file) for file in files]
        for file in files:
            (repository / file.name).symlink_to(file.resolve())
        (repository / "Packages").write_text("\n".join(index))
        (folder / "sources.list").write_text(f"deb [trusted=yes] copy:{repository} ./\n")
        yield [
            f"Dir::Etc::SourceList={folder}/sources.list",
            f"Dir::Etc::SourceParts={folder}/none",
            f"Dir::State::Lists={folder}/lists/",
            f"Dir::Cache::archives={folder}/archives/",
            f"Dir::Cache::pkgcache={folder}/pkgcache.bin",
            f"Dir::Cache::srcpkgcache={folder}/srcpkgcache.bin",
            "APT::Sandbox::User=root",
        ]


def _index_entry(deb: Path) -> str:
    control = run(["dpkg-deb", "--field", deb]).strip()
    return f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256_file(deb)}\n"
