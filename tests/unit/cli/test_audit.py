"""`roost audit` on folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.agent.audit.log import NAME, AuditLog
from roost.cli import audit
from roost.ops.errors import RoostError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit")
    log.add("alice", "tool.call", {"tool": "read"}, "s1")
    log.add("bob", "session.purge")
    return tmp_path / "audit"


def test_verify_tail_and_anchor(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchors = tmp_path / "anchors"
    audit.anchor(to=anchors, folder=folder)
    audit.anchor(command=f"cat >>{anchors}", folder=folder, as_json=True)
    assert len(anchors.read_text().splitlines()) == 2
    capsys.readouterr()
    audit.verify(folder=folder, anchors=anchors)
    assert capsys.readouterr().out.startswith("intact: 2 entries in 1 files, 1 anchors agree")
    audit.verify(folder=folder, as_json=True)
    assert json.loads(capsys.readouterr().out)["head"]["entry"] == 2
    audit.tail(folder=folder)
    assert "tool=read" in capsys.readouterr().out
    audit.tail(folder=folder, owner="bob", as_json=True)
    assert [entry["action"] for entry in json.loads(capsys.readouterr().out)] == ["session.purge"]


def test_a_broken_chain_is_an_error_with_its_own_code(folder: Path) -> None:
    path = folder / NAME
    path.write_text(path.read_text().replace("alice", "carol"))
    with pytest.raises(RoostError, match="line 1: does not have the hash") as caught:
        audit.verify(folder=folder)
    assert caught.value.exit_code == audit.BROKEN


def test_mistakes_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="no agent has acted"):
        audit.verify(folder=tmp_path / "nothing")
    with pytest.raises(RoostError, match="cannot be read"):
        audit.verify(folder=folder, anchors=tmp_path / "nothing")
    with pytest.raises(RoostError, match="ended with 3"):
        audit.anchor(command="exit 3", folder=folder)
    with pytest.raises(RoostError, match="cannot be written"):
        audit.anchor(to=tmp_path / "no" / "such", folder=folder)
