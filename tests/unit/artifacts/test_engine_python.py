"""The engine that is compiled: for which processors, what its names follow, what happens without a compiler."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from roost.fleet import job_programs
from roost.fleet.artifacts import engine_python, gc, llama_wheel, wheels
from roost.fleet.artifacts.llama_wheel import build_environment, cmake_flags, cpu_level, ensure_wheel, recipe_of
from roost.fleet.artifacts.plan import AGENT, ENGINE, make_plan
from roost.fleet.artifacts.wheels import Target
from roost.fleet.bundle import copy_of, fill
from roost.ops.errors import RoostError
from roost.ops.offline import OfflineBundle
from tests.unit.artifacts.making import choices, wheel

V3 = "x86-64-v3"
TARGET = Target("3.11", "amd64", 36)
PINNED = "llama-cpp-python==0.3 \\\n    --hash=sha256:" + "a" * 64 + "\n    # via -r x\n"
MODERN = frozenset(
    ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"]
)


def release(folder: Path, others: str = "") -> Path:
    """Complete the release of the tests with what this engine is made of."""
    root = choices(folder).release_dir
    for name in engine_python.CODE:
        (root / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "app" / name).write_text("")
    (root / llama_wheel.REQUIREMENTS).write_text(PINNED + others)
    (root / llama_wheel.BACKEND).write_text("")
    return root


def compiled(root: Path, wheels_dir: Path, level: str = V3) -> Path:
    """Put a wheel where the compiled one is kept."""
    path, _ = wheel(wheels_dir / llama_wheel.BUILT / recipe_of(root, TARGET, level).folder, "llama_cpp")
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  x\n")
    return path


@pytest.mark.parametrize(
    ("arch", "flags", "level"),
    [
        ("amd64", MODERN, V3),
        ("amd64", MODERN - {"fma"}, "x86-64-v2"),
        ("amd64", frozenset({"sse2"}), "x86-64"),
        ("arm64", frozenset({"asimd"}), "arm64"),
    ],
)
def test_the_level_follows_what_the_processor_can(arch: str, flags: frozenset[str], level: str) -> None:
    assert cpu_level(arch, flags) == level


def test_only_instructions_of_the_level_are_used() -> None:
    assert "-DGGML_AVX2=ON" in cmake_flags(V3)
    assert {"-DGGML_SSE42=ON", "-DGGML_AVX=OFF", "-DGGML_FMA=OFF"} <= set(cmake_flags("x86-64-v2"))
    assert not any("AVX" in flag for flag in cmake_flags("arm64"))
    for level in (V3, "x86-64", "arm64"):
        assert "-DGGML_NATIVE=OFF" in cmake_flags(level)


def test_the_wheels_name_follows_all_that_decides_it_and_no_python(tmp_path: Path) -> None:
    root = release(tmp_path)
    key = recipe_of(root, TARGET, V3).key
    assert recipe_of(root, Target("3.13", "amd64", 36), V3).key == key
    others = {
        recipe_of(root, Target("3.11", "amd64", 41), V3).key,
        recipe_of(root, TARGET, "x86-64-v2").key,
        recipe_of(root, Target("3.11", "arm64", 36), "arm64").key,
    }
    (root / llama_wheel.BACKEND).write_text("# newer\n")
    others.add(recipe_of(root, TARGET, V3).key)
    assert len(others | {key}) == 5


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("app/roost/engines/llama_cpp_python_server.py", {AGENT, ENGINE}),
        ("app/roost/gateway/new.py", {AGENT}),
        ("requirements/engine-build.txt", {ENGINE}),
    ],
)
def test_the_tree_follows_its_own_code_only(tmp_path: Path, file: str, changed: set[str]) -> None:
    root = release(tmp_path)
    chosen = choices(tmp_path, "local", engine_name="llama-cpp-python")
    release(tmp_path)
    before = make_plan(chosen, None, None)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text("other\n")
    after = make_plan(chosen, None, None)
    assert {name for name in before.tags if before.tags[name] != after.tags[name]} == changed
    assert before.reference(ENGINE) == f"engine-python-{before.tags[ENGINE]}"
    assert before.resolved
    assert chosen.wanted == ()


def test_there_is_no_image_of_it(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="only without containers") as caught:
        choices(tmp_path, "docker", engine_name="llama-cpp-python")
    assert "--run-local" in caught.value.fix


def test_a_wheel_in_the_cache_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, line = wheel(tmp_path / "cache")
    root = release(tmp_path, line)
    built = compiled(root, path.parent)
    monkeypatch.setattr(llama_wheel, "PROGRAMS", ("no-such-compiler",))
    said: list[str] = []
    tree = engine_python.build_engine_python(
        root, TARGET, V3, tmp_path / "trees", path.parent, ca=None, notify=said.append
    )
    assert (tree / "site-packages/tiny.py").is_file()
    assert (tree / "site-packages/llama_cpp.py").is_file()
    assert (tree / "app/roost/engines/llama_cpp_python_server.py").is_file()
    assert [found.name for found in gc.trees(tmp_path / "trees")] == ["engine-python"]
    assert len(said) == 1
    built.write_bytes(b"cut short")
    with pytest.raises(RoostError, match="no-such-compiler not found"):
        ensure_wheel(recipe_of(root, TARGET, V3), path.parent, ca=None, notify=said.append)


def test_an_offline_folder_brings_it_or_says_which_it_lacks(tmp_path: Path) -> None:
    root = release(tmp_path)
    recipe = recipe_of(root, TARGET, V3)
    path = compiled(root, tmp_path / "there")
    name = f"wheels/built/{recipe.folder}/{path.name}"
    fill(
        tmp_path / "out",
        [copy_of(path, name)],
        arch="amd64",
        runtime="local",
        python=["3.11"],
        notify=lambda _line: None,
    )
    bundle = OfflineBundle(tmp_path / "out")
    found = ensure_wheel(recipe, tmp_path / "here", ca=None, notify=lambda _line: None, bundle=bundle)
    assert found == tmp_path / "out" / name
    other = recipe_of(root, TARGET, "x86-64")
    with pytest.raises(RoostError, match=r"compiled for x86-64 and glibc 2\.36") as caught:
        ensure_wheel(other, tmp_path / "here", ca=None, notify=lambda _line: None, bundle=bundle)
    assert "roost bundle" in caught.value.fix


def test_what_would_change_the_result_does_not_reach_the_compiler(tmp_path: Path) -> None:
    dirty = {"CXXFLAGS": "-O0", "CMAKE_ARGS": "-DGGML_CUDA=ON", "CC": "x", "HTTPS_PROXY": "p", "PATH": "/bin"}
    env = build_environment(dirty, V3, tmp_path, 3)
    assert not {"CXXFLAGS", "CC"} & set(env)
    assert "CUDA" not in env["CMAKE_ARGS"]
    assert (env["HTTPS_PROXY"], env["CMAKE_BUILD_PARALLEL_LEVEL"]) == ("p", "3")


def test_little_memory_means_fewer_compilers() -> None:
    assert [llama_wheel.jobs_for(8, mib) for mib in (500, 3100, 64000)] == [1, 3, 8]


@pytest.mark.parametrize(
    ("words", "fix"), [("c++: fatal error: Killed signal", "memory"), ("No space left on device", "disk")]
)
def test_a_failed_compilation_says_what_to_do(words: str, fix: str) -> None:
    assert fix in llama_wheel.explain(words).fix


def test_a_locked_file_is_divided() -> None:
    other = "tiny==1 \\\n    --hash=sha256:bb\n"
    assert wheels.divided(f"# head\n{PINNED}{other}", "llama_cpp_python") == (PINNED, f"# head\n{other}")


def test_an_interrupted_compilation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = release(tmp_path)
    monkeypatch.setattr(llama_wheel, "PROGRAMS", ())

    def interrupted(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_wheel(recipe_of(root, TARGET, V3), tmp_path / "wheels", ca=None, notify=lambda _line: None)
    assert [p.name for p in (tmp_path / "wheels/built").iterdir()] == [".lock-llama-cpp-python"]


def test_the_job_runs_its_server_from_the_tree() -> None:
    made = job_programs.Made(engine_tree="/a/engine-python-1", agent_tree="/a/agent-1")
    programs = job_programs.programs_of("local", made, Path("/usr/bin/python3"), "llama-cpp-python")
    assert programs.engine_command == ("/usr/bin/python3", "-m", engine_python.MODULE)
    assert programs.engine_env["PYTHONPATH"] == "/a/engine-python-1/app:/a/engine-python-1/site-packages"
    assert programs.engine_work_dir == "/a/engine-python-1"
