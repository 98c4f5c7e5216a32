"""Docker's containers: only those made from exactly our images are ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.fleet.artifacts.docker import Docker


def test_a_container_of_an_image_built_from_ours_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"Repository": "roost/agent", "Tag": "1", "ID": "sha256:a", "CreatedAt": "2026"}
    theirs = {"Repository": "team/tool", "Tag": "1", "ID": "sha256:b", "CreatedAt": "2026"}
    calls: list[tuple[str, ...]] = []

    def call(_self: Docker, *words: str | Path, timeout_s: float | None = None) -> str:
        del timeout_s
        calls.append(tuple(map(str, words)))
        answers: dict[tuple[str | Path, ...], str] = {
            ("image", "ls"): f"{json.dumps(ours)}\n{json.dumps(theirs)}\n",
            ("container", "ls"): "one\ntwo\n",
            ("container", "inspect"): "one sha256:a\ntwo sha256:b\n",
        }
        return answers.get((words[0], words[1]), "")

    monkeypatch.setattr(Docker, "call", call)
    Docker().remove_containers()
    assert calls[-1] == ("container", "rm", "--force", "--volumes", "one")
