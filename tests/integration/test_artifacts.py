"""Real trees: Debian's packages by apt, Python's by pip, from downloads in the shared cache."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from roost.fleet.artifacts.engine import engine_command
from roost.fleet.artifacts.ensure import Outcome, check, ensure
from roost.fleet.artifacts.resolution import Resolution
from roost.ops.errors import RoostError
from roost.ops.run import run
from tests.support.artifacts import NO_OP_SECONDS, Bench, cache_folder, make_bench, without_programs


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Outcome]:
    """Make the trees."""
    bench = make_bench(tmp_path_factory.mktemp("local"), "local")
    return bench, ensure(bench.workshop())


def test_the_engines_tree_runs_without_a_container(local: tuple[Bench, Outcome]) -> None:
    argv, folder = engine_command(Path(local[1].engine_tree))
    done = subprocess.run([*argv, "--version"], cwd=folder, capture_output=True, text=True, check=True)
    assert "version:" in done.stderr


def test_the_agents_tree_imports_what_it_needs_from_itself(local: tuple[Bench, Outcome]) -> None:
    tree = Path(local[1].agent_tree)
    code = "import uvicorn, fastapi, aiohttp, pydantic, roost; print(fastapi.__file__, roost.__file__)"
    path = {"PYTHONPATH": f"{tree}/app:{tree}/site-packages", "PATH": os.environ["PATH"]}
    printed = run([os.path.realpath("/proc/self/exe"), "-S", "-c", code], env=path)
    assert all(Path(word).is_relative_to(tree) for word in printed.split())


def test_the_second_time_nothing_is_done_and_nothing_fetched(
    local: tuple[Bench, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, first = local
    bench.said.clear()
    with without_programs(monkeypatch, tmp_path / "bin", "apt-get", "dpkg-deb", "debootstrap"):
        begin = time.process_time()  # what else runs makes it no slower
        again = ensure(bench.workshop())
    assert time.process_time() - begin < NO_OP_SECONDS
    assert again == replace(first, changed=False, built=[], before=first.after)
    assert bench.said == []


def test_another_machine_with_the_same_cache_needs_no_apt(
    local: tuple[Bench, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, first = local
    with without_programs(monkeypatch, tmp_path / "bin", "apt-get", "debootstrap"):
        made = ensure(bench.workshop(artifacts_dir=tmp_path / "artifacts"))
    assert Path(made.engine_tree).name == Path(first.engine_tree).name
    assert (Path(made.engine_tree) / "roost.json").is_file()


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, "local")
    before = sorted(tmp_path.rglob("*"))
    found = check(bench.workshop(cache_dir=tmp_path / "cache"))
    assert found.changed
    assert found.engine_tree.endswith("engine-unresolved")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_check_without_docker_tells_what_would_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(tmp_path, "docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    found = check(bench.workshop())
    assert found.changed
    assert len(found.built) == 3
    with pytest.raises(RoostError, match="daemon does not answer"):
        ensure(bench.workshop())


def test_versions_that_left_the_mirror_are_resolved_anew_if_another_machine_decided(
    local: tuple[Bench, Outcome], tmp_path: Path
) -> None:
    bench, _ = local
    wanted = bench.choices.engine
    known, _ = bench.workshop().book.find(wanted)
    assert known is not None
    gone = known.packages[0].model_copy(update={"sha256": "0" * 64, "filename": "pool/main/gone_1_all.deb"})
    outdated = Resolution(wanted=wanted, packages=(gone, *known.packages[1:]))
    own = tmp_path / "cache"
    (own / "artifacts").mkdir(parents=True)
    for name in ("debs", "wheels"):
        (own / name).symlink_to(cache_folder() / name)
    (own / "artifacts" / f"resolved-{wanted.key}.json").write_text(outdated.model_dump_json())
    changed = {"cache_dir": own, "artifacts_dir": tmp_path / "artifacts", "extra_ca_bundle": None}
    made = ensure(bench.workshop(**changed))
    assert (Path(made.engine_tree) / "roost.json").is_file()
    # Once it is this machine's own decision, only an update changes it.
    (tmp_path / "artifacts/resolved.json").write_text(
        json.dumps({wanted.key: outdated.model_dump(mode="json")}),
    )
    with pytest.raises(RoostError, match="404") as caught:
        ensure(bench.workshop(**changed))
    assert "roost images update" in caught.value.fix
