"""The docker client, where the daemon changes under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.artifacts.docker import Docker
from roost.ops.errors import RoostError

# The list names "gone" as often as the file says; inspecting it fails.
FAKE = """#!/bin/sh
left=$(cat "{folder}/left")
case $2 in
ls)
    echo here
    [ "$left" -eq 0 ] || echo gone
    ;;
inspect)
    case $* in *gone*)
        echo $((left - 1)) >"{folder}/left"
        echo "Error: No such container: gone" >&2
        exit 1
        ;;
    esac
    echo sha256:image
    ;;
esac
"""


def docker(folder: Path, left: int) -> Docker:
    program = folder / "docker"
    program.write_text(FAKE.format(folder=folder))
    program.chmod(0o755)
    (folder / "left").write_text(f"{left}\n")
    return Docker({"PATH": f"{folder}:/usr/bin:/bin"})


def test_a_container_that_goes_while_looked_at_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert docker(tmp_path, 2).used_images() == {"sha256:image"}
    with pytest.raises(RoostError, match="gone"):
        docker(tmp_path, 9).used_images()
