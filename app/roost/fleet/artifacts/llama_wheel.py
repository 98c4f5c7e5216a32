"""The wheel of llama-cpp-python, compiled from its locked sources for a kind of processor, and kept in the cache.

Not for the very processor of this machine (`GGML_NATIVE`): the cache may be shared, and an offline folder carries the
wheel elsewhere. What the levels of x86-64 promise is enough for all but AVX-512. Without OpenMP, so that only the
machine that compiles needs more than the C++ library every Debian has.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts import wheels
from roost.fleet.artifacts.agent import running_python
from roost.fleet.artifacts.store import Checked, locked, publishing, require_space, tag_of
from roost.fleet.artifacts.wheels import Target
from roost.hosts.parse import cpu_info, memory_mib
from roost.ops.building import follow
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, write_atomic
from roost.ops.offline import WHEELS, OfflineBundle
from roost.ops.trust import write_trust

PROJECT = "llama-cpp-python"
REQUIREMENTS = Path("requirements/engine-llama-cpp-python.txt")
BACKEND = Path("requirements/engine-build.txt")
BUILT = "built"
FORMAT = 1  # raise it when the way of compiling changes
SPACE = 1 << 30
MEMORY_PER_JOB_MIB = 1024
PROGRAMS = ("c++", "cmake", "ninja")
TAIL_LINES = 15
STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")
# Each level of x86-64: what the processor must say it has, and the instructions that ggml may use then.
LEVELS = (
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}, "SSE42 AVX AVX2 BMI2 FMA F16C"),
    ("x86-64-v2", {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}, "SSE42"),
    ("x86-64", set[str](), ""),
)
INSTRUCTIONS = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
FIXED = ("-DLLAVA_BUILD=OFF", "-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF", "-DGGML_CCACHE=OFF")
# llama.cpp's "common" library is for its own programs, and takes as long to compile as all the rest together.
PROJECT_INCLUDE = "set(LLAMA_BUILD_COMMON OFF)\n"
DECIDING = re.compile(r"^(C|CXX|CPP|LD)FLAGS$|^(CC|CXX)$|^(CMAKE|SKBUILD|GGML|LLAMA)_")


def cpu_level(arch: str, flags: frozenset[str]) -> str:
    """Return for which processors to compile on a machine with these flags; `arch` is Debian's word."""
    if arch != "amd64":
        return arch
    return next(name for name, wanted, _ in LEVELS if wanted <= flags)


def host_level(arch: str) -> str:
    """Return this machine's level."""
    return cpu_level(arch, frozenset(cpu_info(Path("/proc/cpuinfo").read_text())[2]))


def cmake_flags(level: str) -> list[str]:
    """Return CMake's options for a level."""
    chosen = next((words.split() for name, _, words in LEVELS if name == level), None)
    if chosen is None:
        return list(FIXED)
    return [*FIXED, *(f"-DGGML_{name}={'ON' if name in chosen else 'OFF'}" for name in INSTRUCTIONS)]


@dataclass(frozen=True, slots=True)
class WheelRecipe:
    """What is compiled, and `key`, which names the result: the same wherever the result would be."""

    release: Path
    version: str
    arch: str
    glibc: int  # minor version of glibc 2: what is compiled with a newer one does not start with an older one
    level: str
    key: str

    @property
    def folder(self) -> str:
        """Name of the wheel's folder."""
        return f"{PROJECT}-{self.key}"


def recipe_of(release: Path, target: Target, level: str) -> WheelRecipe:
    """Read what the release pins. The wheel suits every Python 3, so the target's Python does not count.

    Raises:
        RoostError: the folder is not a release, or pins no llama-cpp-python.
    """
    try:
        mine, _ = wheels.divided((release / REQUIREMENTS).read_text(), PROJECT)
        backend = sha256_file(release / BACKEND)
    except FileNotFoundError as error:
        raise RoostError(
            f"{release} is not a release of Roost ({error.filename} is missing).", fix="Run ./bootstrap.sh again."
        ) from error
    pinned = wheels.pins(mine)
    if not pinned:
        raise RoostError(f"{release / REQUIREMENTS} pins no {PROJECT}.", fix="Restore it from Roost's repository.")
    (_, version), hashes = next(iter(pinned.items()))
    inputs = {"format": FORMAT, "sources": sorted(hashes), "backend": backend, "flags": cmake_flags(level)}
    key = tag_of({**inputs, "arch": target.arch, "glibc": target.glibc, "include": PROJECT_INCLUDE})
    return WheelRecipe(release, version, target.arch, target.glibc, level, key)


def cached_wheel(recipe: WheelRecipe, wheels_dir: Path) -> Path | None:
    """Return the wheel in the cache, if it is there and intact."""
    found = sorted((wheels_dir / BUILT / recipe.folder).glob("*.whl"))
    return found[0] if found and Checked(found[0]).is_intact() else None


def bundled_wheel(recipe: WheelRecipe, bundle: OfflineBundle) -> Path:
    """Return the wheel in the offline folder.

    Raises:
        RoostError: it holds none for this kind of machine.
    """
    names = bundle.names(f"{WHEELS}/{BUILT}/{recipe.folder}/")
    if not names:
        raise RoostError(
            f"The offline folder has no {PROJECT} {recipe.version} compiled for {recipe.level} and glibc "
            f"2.{recipe.glibc}.",
            fix="Make it with `roost bundle DIR` on a machine with the same Debian and processor whose engine is "
            f"{PROJECT}, or set engine to llama.cpp.",
        )
    return bundle.path(names[0])


def ensure_wheel(
    recipe: WheelRecipe,
    wheels_dir: Path,
    *,
    ca: Path | None,
    notify: Callable[[str], None],
    bundle: OfflineBundle | None = None,
) -> Path:
    """Return the wheel: from the cache, from the offline folder, or compiled now, which takes minutes.

    Raises:
        RoostError: no compiler, too little disk, sources that cannot be fetched, or a compilation that failed.
    """
    store = wheels_dir / BUILT
    with locked(store, PROJECT):
        found = cached_wheel(recipe, wheels_dir)
        if found is not None:
            return found
        if bundle is not None:
            return bundled_wheel(recipe, bundle)
        _require_programs()
        require_space(store, SPACE)
        with publishing(store / recipe.folder) as partial:
            _compile(recipe, wheels_dir, partial, ca, notify)
    found = cached_wheel(recipe, wheels_dir)
    if found is None:
        raise RoostError(f"Compiling {PROJECT} gave no wheel.", fix="Check the pinned version.")
    return found


def _require_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise RoostError(
            f"{', '.join(missing)} not found; {PROJECT} has to be compiled.",
            fix="apt-get install build-essential cmake ninja-build, or set engine to llama.cpp.",
        )


def jobs_for(cpus: int, available_mib: int) -> int:
    """Return how many files are compiled at a time."""
    return max(1, min(cpus, available_mib // MEMORY_PER_JOB_MIB))


def build_environment(environ: Mapping[str, str], level: str, work: Path, jobs: int) -> dict[str, str]:
    """Return the environment of the build: the caller's, without what would change the result."""
    kept = {name: value for name, value in environ.items() if not DECIDING.search(name)}
    flags = [f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={work / 'only.cmake'}", *cmake_flags(level)]
    return {
        **kept,
        "PYTHONPATH": str(work / "backend"),
        "TMPDIR": str(work / "tmp"),  # /tmp may be a small file system in memory
        "CMAKE_ARGS": " ".join(flags),
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
    }


def _compile(
    recipe: WheelRecipe, wheels_dir: Path, folder: Path, ca: Path | None, notify: Callable[[str], None]
) -> None:
    work = folder / "work"
    for name in ("tmp", "sources", "wheel"):
        (work / name).mkdir(parents=True)
    (work / "only.cmake").write_text(PROJECT_INCLUDE)
    here = Target(running_python(), recipe.arch, wheels.host_glibc())
    wheels.install(recipe.release / BACKEND, here, wheels_dir, work / "backend", ca=ca, notify=notify)
    mine, _ = wheels.divided((recipe.release / REQUIREMENTS).read_text(), PROJECT)
    (work / "sources.txt").write_text(mine)
    trust = write_trust(ca, work / "ca.pem") if ca is not None else None
    cpus = len(os.sched_getaffinity(0))
    jobs = jobs_for(cpus, memory_mib(Path("/proc/meminfo").read_text())[1])
    environment = build_environment(wheels.pip_environment(trust), recipe.level, work, jobs)
    notify(f"Fetching the sources of {PROJECT} {recipe.version}")
    words: list[str | Path] = [*wheels.pip(), "download", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes"]
    words += ["--no-binary", ":all:", "--no-build-isolation", "--dest", work / "sources"]
    wheels.from_index([*words, "--requirement", work / "sources.txt"], trust, environment)
    source = next((work / "sources").iterdir())
    notify(f"Compiling {PROJECT} {recipe.version} for {recipe.level} with {jobs} at a time; it takes minutes")
    argv = [*wheels.pip(), "wheel", "--verbose", "--no-cache-dir", "--no-index", "--no-deps", "--no-build-isolation"]
    _run_build([*argv, "--wheel-dir", str(work / "wheel"), str(source)], environment, notify)
    for wheel in (work / "wheel").glob("*.whl"):
        target = wheel.rename(folder / wheel.name)
        write_atomic(Checked(target).sidecar, f"{sha256_file(target)}  {target.name}\n")
    shutil.rmtree(work)


def _run_build(argv: list[str], env: Mapping[str, str], notify: Callable[[str], None]) -> None:
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    done = ""

    def heard(line: str) -> None:
        nonlocal done
        tail.append(line.rstrip()[:500])
        if step := STEP.match(line):
            done = f"{step[1]} of {step[2]} files, "

    code, seconds = follow(argv, env, heard, lambda s: notify(f"Compiling {PROJECT}: {done}{s:.0f} s"))
    if code != 0:
        raise explain("\n".join(tail))
    notify(f"Compiled {PROJECT} in {seconds:.0f} s")


def explain(tail: str) -> RoostError:
    """Turn the end of a failed build's output into an error with a way out."""
    signs = {
        "No space left": "Free disk space.",
        "Killed": "The compiler was killed, most likely for lack of memory: use a larger machine, or add swap.",
        "CMAKE_CXX_COMPILER": "apt-get install build-essential",
    }
    fix = next((words for sign, words in signs.items() if sign in tail), "Read the lines above.")
    return RoostError(f"{PROJECT} could not be compiled:\n{tail}", fix=fix)
