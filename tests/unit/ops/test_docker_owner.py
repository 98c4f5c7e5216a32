"""Docker is given up to whoever uses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from roost.ops import docker_owner
from roost.ops.docker_owner import Brought, hand_over, used_by_others
from roost.ops.errors import RoostError
from roost.ops.ownership import Manifest

OURS = "roost/agent:1 sha256:a\n"


def answering(monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
    """Let docker answer: images, all of them, `labelled`, containers, `inspect`, volumes."""

    def run(argv: Sequence[str], **_options: object) -> str:
        if argv[1:3] == ["image", "ls"]:
            return answers.get("labelled" if "--filter" in argv else "images", OURS)
        if argv[1] == "version":
            return ""
        return answers.get(argv[2] if argv[2] == "inspect" else argv[1], "")

    monkeypatch.setattr(docker_owner, "run", run)


def test_with_ours_alone_nobody_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, container="x\n", inspect="sha256:a /job\n", volume=f"{'0a' * 32}\n")
    assert used_by_others() == []


def test_what_others_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = f"{OURS}team/tool:2 sha256:b\n<none>:<none> sha256:c\n"
    inspect = "sha256:a /job\nsha256:b /tool\n"
    answering(monkeypatch, images=theirs, labelled=theirs, container="x\ny\n", inspect=inspect, volume="data\n")
    assert used_by_others() == ["image team/tool:2", "container tool", "volume data"]


def test_where_no_docker_answers_nothing_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_argv: Sequence[str], **_options: object) -> str:
        raise RoostError("no daemon")

    monkeypatch.setattr(docker_owner, "run", run)
    assert used_by_others() == []


def test_handing_over_forgets_docker_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(docker_owner, "run", lambda argv: ran.append(" ".join(argv)))
    monkeypatch.setattr(docker_owner, "installed", lambda names: set(names) & {"docker.io"})
    manifest = Manifest(tmp_path / "manifest")
    manifest.own("package", "docker.io", "jq")
    manifest.own("path", "/var/lib/docker", "/etc/roost")
    manifest.own("group", "docker", "roost")
    brought = Brought(["docker.io", "iptables"], ["/var/lib/docker", "/etc/docker"], ["docker"])
    expected = ["package docker.io", "path /var/lib/docker", "group docker"]
    assert hand_over(manifest, brought, dry_run=True) == expected
    assert ran == []
    assert hand_over(manifest, brought) == expected
    assert ran == ["apt-mark unhold docker.io"], "what it needs could not be left beside it"
    assert [manifest.owned(kind) for kind in ("package", "path", "group")] == [["jq"], ["/etc/roost"], ["roost"]]
    assert hand_over(manifest, brought) == []
