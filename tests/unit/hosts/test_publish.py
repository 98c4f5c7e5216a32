"""What a node says of itself: written once, truthful before, and readable by whoever asks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from roost.hosts.publish import Change, Published, publish

MEASURED = {"machine": "m", "bandwidth": {"gbs": 10.0}}


@pytest.fixture
def files(tmp_path: Path) -> Published:
    return Published(tmp_path / "opt/collect.pyz", tmp_path / "facts d/roost.fact", tmp_path / "state/bandwidth.json")


def put(files: Published, tmp_path: Path, *, measured: bool = True, dry_run: bool = False) -> list[Change]:
    """Publish for a machine."""
    manifest = tmp_path / "manifest"
    return publish(files, [str(tmp_path / "a b")], manifest, MEASURED if measured else {}, dry_run=dry_run)


def test_a_dry_run_says_what_the_run_then_does(files: Published, tmp_path: Path) -> None:
    would = put(files, tmp_path, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert put(files, tmp_path) == would
    assert [change.path for change in would] == [files.collector, files.script, files.bandwidth]
    assert put(files, tmp_path) == put(files, tmp_path, dry_run=True) == []


def test_a_check_tells_of_the_measurement_that_it_does_not_make(files: Published, tmp_path: Path) -> None:
    would = put(files, tmp_path, measured=False, dry_run=True)
    assert [change.path for change in would] == [files.collector, files.script, files.bandwidth]
    put(files, tmp_path)
    assert put(files, tmp_path, measured=False, dry_run=True) == []


def test_only_what_is_not_right_is_written(files: Published, tmp_path: Path) -> None:
    put(files, tmp_path)
    files.collector.chmod(0o644)
    (change,) = put(files, tmp_path)
    assert change.before.endswith(" 0644\n")
    assert change.after.endswith(" 0755\n")
    files.bandwidth.write_text("{}")
    assert [c.path for c in put(files, tmp_path, measured=False)] == []
    assert [c.path for c in put(files, tmp_path)] == [files.bandwidth]
    assert json.loads(files.bandwidth.read_text()) == MEASURED


def test_the_script_tells_what_ansible_may_read(files: Published, tmp_path: Path) -> None:
    put(files, tmp_path)
    done = subprocess.run([files.script], env={}, cwd="/", capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["facts"]["disks"][0]["path"] == str(tmp_path / "a b")
    assert found["bandwidth"] is None  # that of another machine does not count
