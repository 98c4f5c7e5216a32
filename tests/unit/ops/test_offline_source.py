"""The packages of an offline folder: apt sees only what the folder's list vouches for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from roost.ops import packages
from roost.ops.errors import RoostError
from roost.ops.offline import HOST_DEBS, OfflineBundle


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an offline folder that lists one package and has a second, unlisted one."""
    monkeypatch.setattr(packages, "run", lambda *_args: "Package: jq\n")
    debs = tmp_path / HOST_DEBS
    debs.mkdir(parents=True)
    (debs / "jq.deb").write_text("jq")
    (debs / "other.deb").write_text("other")
    listed = {f"{HOST_DEBS}/jq.deb": {"sha256": hashlib.sha256(b"jq").hexdigest(), "bytes": 2}}
    contents = {"roost_version": "0", "arch": "amd64", "runtime": "docker", "python": [], "files": listed}
    (tmp_path / "bundle.json").write_text(json.dumps(contents))
    return tmp_path


def test_apt_sees_the_listed_packages_only(folder: Path) -> None:
    with packages.offline_source(OfflineBundle(folder)) as options:
        sources = Path(options[0].partition("=")[2]).parent
        assert [file.name for file in (sources / "repository").glob("*.deb")] == ["jq.deb"]


def test_a_changed_package_is_refused(folder: Path) -> None:
    (folder / HOST_DEBS / "jq.deb").write_text("no")
    with (
        pytest.raises(RoostError, match=r"jq\.deb has the wrong checksum"),
        packages.offline_source(OfflineBundle(folder)),
    ):
        pass
