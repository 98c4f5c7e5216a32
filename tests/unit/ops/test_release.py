"""What a release is made of is the same for bootstrap.sh and for the controller of a fleet."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from roost.ops.errors import RoostError
from roost.ops.release import pack, product_files, release_id

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_shell_names_a_release_alike(tmp_path: Path) -> None:
    script = (REPOSITORY / "bootstrap.sh").read_text().replace('\nmain "$@"\n', "\n")
    library = tmp_path / "bootstrap.sh"
    library.write_text(f'{script}\nset +e\nsource_dir="{REPOSITORY}"\nsettings\nparts\nrelease_id\n')
    told = subprocess.run(["sh", str(library)], check=True, capture_output=True, text=True).stdout.strip()
    names = product_files(REPOSITORY)
    assert release_id(REPOSITORY, names) == told


def test_another_content_or_right_is_another_release(tmp_path: Path) -> None:
    (tmp_path / "bootstrap.sh").write_text('    products="bootstrap.sh app"\n')
    (tmp_path / "app").mkdir()
    (tmp_path / "app/a.py").write_text("1")
    (tmp_path / "app/.hidden").write_text("1")
    names = product_files(tmp_path)
    assert names == ["app/a.py", "bootstrap.sh"]
    seen = {release_id(tmp_path, names)}
    (tmp_path / "app/a.py").chmod(0o755)
    seen.add(release_id(tmp_path, names))
    (tmp_path / "app/a.py").write_text("2")
    seen.add(release_id(tmp_path, names))
    assert len(seen) == 3
    pack(tmp_path, names, tmp_path / "out.tar.gz")
    with tarfile.open(tmp_path / "out.tar.gz") as tar:
        assert sorted(tar.getnames()) == names


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="not a whole release"):
        product_files(tmp_path)
