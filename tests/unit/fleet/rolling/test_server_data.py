"""What a machine that is no server any more keeps of it on its disk: nothing, in the end."""

from __future__ import annotations

from pathlib import Path

from roost.fleet.rolling.server_data import discard, put_aside
from tests.support.ansible_module import run_module


def test_what_a_server_knew_is_put_aside_once_and_for_root_only(tmp_path: Path) -> None:
    assert not put_aside(tmp_path)
    for word in ("first", "second"):
        (tmp_path / "server" / "raft").mkdir(parents=True)
        (tmp_path / "server" / "raft" / "raft.db").write_text(word)
        assert put_aside(tmp_path)
        assert not (tmp_path / "server").exists()
        assert (tmp_path / "server-before" / "raft" / "raft.db").read_text() == word
    assert (tmp_path / "server-before").stat().st_mode & 0o777 == 0o700
    assert not put_aside(tmp_path)
    assert discard(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not discard(tmp_path)


def test_a_machine_that_is_no_server_any_more_keeps_nothing_of_it(tmp_path: Path) -> None:
    arguments = {
        "state": "discarded",
        "data_dir": str(tmp_path),
        "address": "https://[::1]:9",
        "tls_dir": str(tmp_path),
    }
    (tmp_path / "server-before" / "keystore").mkdir(parents=True)
    assert run_module("roost_nomad_server", {**arguments, "token": ""}, check=True)["changed"]
    assert (tmp_path / "server-before").is_dir()
    assert run_module("roost_nomad_server", {**arguments, "token": ""})["changed"]
    assert not run_module("roost_nomad_server", {**arguments, "token": ""})["changed"]
    assert list(tmp_path.iterdir()) == []
