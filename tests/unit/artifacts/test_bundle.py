"""Filling the offline folder: atomic, resumable, nobody else's files touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.bundle import Filled, Item, copy_of, fill, text_of
from roost.fleet.bundle_parts import host_packages, split_packages
from roost.ops.errors import RoostError
from roost.ops.offline import OfflineBundle


def run(folder: Path, items: list[Item], said: list[str] | None = None) -> Filled:
    """Fill a folder for tests."""
    notify = (said if said is not None else []).append
    return fill(folder, items, arch="amd64", runtime="docker", python=["3.11"], notify=notify)


def failing(name: str, error: BaseException) -> Item:
    """Return an item that breaks half way."""

    def write(target: Path) -> None:
        target.write_text("half")
        raise error

    return Item(name, 4, write)


def test_a_filled_folder_verifies(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("program")
    filled = run(tmp_path / "out", [copy_of(tmp_path / "program", "nomad/nomad"), text_of("{}", "artifacts/a.json")])
    assert (filled.files, filled.kept) == (2, 0)
    OfflineBundle(tmp_path / "out").verify()


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = text_of("one", "debs/host/a.deb")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [first, failing("wheels/b.whl", KeyboardInterrupt())])
    with pytest.raises(RoostError, match="not an offline folder"):
        OfflineBundle(tmp_path)
    said: list[str] = []
    assert run(tmp_path, [first, text_of("two", "wheels/b.whl")], said).kept == 1
    assert [line.split()[1] for line in said] == ["wheels/b.whl"]
    OfflineBundle(tmp_path).verify()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "bundle.json",
        "debs/host/a.deb",
        "wheels/b.whl",
    ]


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="No space left"):
        run(tmp_path, [failing("models/m.gguf", OSError(28, "No space left on device"))])
    assert not list((tmp_path / "models").iterdir())


def test_a_file_that_was_changed_is_made_again(tmp_path: Path) -> None:
    item = text_of("one", "wheels/a.whl")
    run(tmp_path, [item])
    (tmp_path / "wheels/a.whl").write_text("two")
    assert run(tmp_path, [item]).kept == 0
    OfflineBundle(tmp_path).verify()


def test_what_an_older_bundle_held_goes(tmp_path: Path) -> None:
    run(tmp_path, [text_of("one", "models/x/a.gguf"), text_of("two", "wheels/b.whl")])
    run(tmp_path, [text_of("two", "wheels/b.whl")])
    assert not (tmp_path / "models/x").exists()
    assert OfflineBundle(tmp_path).names() == ["wheels/b.whl"]


def test_somebody_elses_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    with pytest.raises(RoostError, match="not empty"):
        run(tmp_path, [text_of("one", "wheels/a.whl")])
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="MB are needed"):
        run(tmp_path, [Item("models/m", 1 << 60, lambda _target: None)])
    assert list(tmp_path.iterdir()) == []


def test_the_packages_follow_the_variables() -> None:
    common: dict[str, object] = {"docker_package": "docker.io", "images_tools": ["debootstrap"]}
    common["docker_client_package"] = "docker-cli"
    assert {"docker.io", "debootstrap", "python3-venv"} <= set(host_packages({**common, "roost_runtime": "docker"}))
    assert "docker.io" not in host_packages({**common, "roost_runtime": "local"})
    assert split_packages({**common, "roost_runtime": "docker"}) == ("docker-cli",)
    assert split_packages({**common, "roost_runtime": "local"}) == ()
    workers = {**common, "roost_runtime": "local", "worker_sandbox": True, "worker_sandbox_package": "bubblewrap"}
    assert "bubblewrap" in host_packages(workers)
    assert "bubblewrap" not in host_packages({**workers, "worker_sandbox": False})
