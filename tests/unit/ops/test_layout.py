"""Users and folders: what is recorded, made, and taken away again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from roost.ops import layout
from roost.ops.errors import RoostError
from roost.ops.layout import Folder, SystemUser, ensure_layout, remove_layout
from roost.ops.ownership import Manifest
from tests.support.ansible_module import run_module

pytestmark = pytest.mark.usefixtures("commands")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Keep the host's own users out of it: record what would be run, and whom a folder would belong to."""
    seen: list[list[str]] = []
    owners: dict[int, tuple[int, int]] = {}  # user and group, by inode
    look = os.fstat

    def record(argv: Sequence[str | Path], **_kwargs: object) -> str:
        seen.append([str(word) for word in argv])
        return ""

    def give(handle: int, uid: int, gid: int) -> None:
        owners[look(handle).st_ino] = uid, gid

    def given(handle: int) -> os.stat_result:
        found = look(handle)
        whose = owners.get(found.st_ino, (found.st_uid, found.st_gid))
        return os.stat_result((*found[:4], *whose, *found[6:10]))

    monkeypatch.setattr(layout, "run", record)
    monkeypatch.setattr(os, "fchown", give)
    monkeypatch.setattr(os, "fstat", given)
    return seen


def wanted(tmp_path: Path) -> tuple[Manifest, list[Folder]]:
    return Manifest(tmp_path / "state/manifest"), [Folder(tmp_path / "etc", "0755"), Folder(tmp_path / "etc/s", "0700")]


def test_makes_and_records_what_is_absent(tmp_path: Path, commands: list[list[str]]) -> None:
    manifest, folders = wanted(tmp_path)
    made = ensure_layout(manifest, "r-group", [SystemUser("r-user", 60123, "x")], folders, ["/nonexistent/bin"])
    assert made == [
        "group r-group",
        "user r-user (60123)",
        f"folder {tmp_path}/etc 0755",
        f"folder {tmp_path}/etc/s 0700",
    ]
    assert [c[0] for c in commands] == ["groupadd", "useradd"]
    assert (tmp_path / "etc/s").stat().st_mode & 0o777 == 0o700
    assert manifest.owned("path") == [str(tmp_path / "etc"), str(tmp_path / "etc/s"), "/nonexistent/bin"]
    assert (manifest.owned("user"), manifest.owned("group")) == (["r-user"], ["r-group"])


def test_accounts_that_others_make_are_ours_with_their_group_unless_they_were_there(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    ensure_layout(manifest, "r-group", [], folders, [], accounts=["r-package", "root"])
    assert manifest.owned("user") == ["r-package"]
    assert manifest.owned("group") == ["r-group", "r-package"]


def test_what_was_there_before_is_not_ours(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    (tmp_path / "etc").mkdir(mode=0o755)
    ensure_layout(manifest, "root", [SystemUser("root", 0, "x")], folders, [])
    assert manifest.owned("path") == [str(tmp_path / "etc/s")]
    assert manifest.owned("user") == []
    remove_layout(manifest, [tmp_path / "etc", tmp_path / "etc/s"])
    assert (tmp_path / "etc").is_dir()
    assert not (tmp_path / "etc/s").exists()


def test_dry_run_touches_nothing(tmp_path: Path, commands: list[list[str]]) -> None:
    manifest, folders = wanted(tmp_path)
    assert len(ensure_layout(manifest, "r-group", [SystemUser("r-user", 60123, "x")], folders, [], dry_run=True)) == 4
    assert list(tmp_path.iterdir()) == []
    assert commands == []


def test_second_pass_changes_nothing_and_a_wrong_mode_is_put_right(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    ensure_layout(manifest, "root", [], folders, [])
    assert ensure_layout(manifest, "root", [], folders, []) == []
    (tmp_path / "etc/s").chmod(0o755)
    assert ensure_layout(manifest, "root", [], folders, []) == [f"folder {tmp_path}/etc/s 0755 -> 0700"]


def test_folders_alone_make_no_group(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    assert all(line.startswith("folder ") for line in ensure_layout(manifest, "", [], folders, []))
    assert (manifest.owned("group"), manifest.owned("user")) == ([], [])


def test_the_module_takes_folders_alone_and_no_users_without_their_group(tmp_path: Path) -> None:
    folder = {"path": str(tmp_path / "agent/listen"), "mode": "0700", "uid": 60123}
    arguments = {"manifest": str(tmp_path / "manifest"), "folders": [folder]}
    done = run_module("roost_layout", arguments, check=True)
    assert (done["failed"], done["made"]) == (False, [f"folder {tmp_path}/agent/listen 0700"]), done
    user = {"name": "r-user", "uid": 60123, "comment": "x"}
    assert "group" in run_module("roost_layout", {**arguments, "users": [user]}, check=True)["msg"]
    assert list(tmp_path.iterdir()) == []


def test_number_of_somebody_else_is_a_clear_error(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    with pytest.raises(RoostError, match="belongs to 'root'") as refused:
        ensure_layout(manifest, "root", [SystemUser("roost-search", 0, "x")], folders, [])
    assert "--set roost_search_uid=" in refused.value.fix


def test_a_reserved_number_is_taken_while_it_is_free_and_left_to_who_has_it(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    users = [SystemUser("r-later", 60123, "x", reserved=True), SystemUser("r-other", 0, "x", reserved=True)]
    made = ensure_layout(manifest, "root", users, folders, [])
    assert [line for line in made if line.startswith("user")] == ["user r-later (60123)"]
    assert manifest.owned("user") == ["r-later"]


def test_a_file_in_the_place_of_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    (tmp_path / "etc").write_text("")
    with pytest.raises(RoostError, match="is not a folder"):
        ensure_layout(manifest, "root", [], folders, [])


def test_a_service_does_not_choose_by_a_link_what_root_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, own = tmp_path / "etc", tmp_path / "agent"
    target.mkdir()
    target.chmod(0o755)
    own.mkdir()
    (own / "listen").symlink_to(target)
    folder = Folder(own / "listen", "0700")
    with monkeypatch.context() as services:
        services.setattr(layout, "_of_service", lambda path: path == own)
        with pytest.raises(RoostError, match="is not a folder"):
            ensure_layout(Manifest(tmp_path / "manifest"), "root", [], [folder], [])
    assert target.stat().st_mode & 0o7777 == 0o755
    # Where nobody else could make the link, it is somebody's wish.
    ensure_layout(Manifest(tmp_path / "manifest"), "root", [], [folder], [])
    assert target.stat().st_mode & 0o7777 == 0o700


def test_a_path_below_an_owned_folder_goes_and_one_elsewhere_stays(tmp_path: Path) -> None:
    manifest, folders = wanted(tmp_path)
    ensure_layout(manifest, "root", [], folders, [])
    (tmp_path / "etc/s/key").write_text("k")
    (tmp_path / "other").mkdir()
    removed = remove_layout(manifest, [tmp_path / "etc/s/key", tmp_path / "other"])
    assert removed == [f"path {tmp_path}/etc/s/key"]
    assert (tmp_path / "other").is_dir()


@pytest.mark.parametrize("others", [[], ["theirs"]])
def test_folders_that_others_use_too_go_only_when_empty(tmp_path: Path, others: list[str]) -> None:
    folder = tmp_path / "ansible/facts.d"
    manifest = Manifest(tmp_path / "manifest")
    manifest.own("path", *map(str, (folder / "ours", folder, folder.parent)))
    folder.mkdir(parents=True)
    for name in ("ours", *others):
        (folder / name).touch()
    shared = [folder, folder.parent]
    would = remove_layout(manifest, [folder / "ours"], if_empty=shared, dry_run=True)
    assert remove_layout(manifest, [folder / "ours"], if_empty=shared) == would
    assert folder.parent.exists() is bool(others)
    assert len(would) == (1 if others else 3)
    assert remove_layout(manifest, [folder / "ours"], if_empty=shared) == []


def test_an_account_that_has_another_number_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.ops.layout.run", lambda *_: pytest.fail("nothing may be made"))
    users = [SystemUser("daemon", 8361, "")]
    with pytest.raises(RoostError, match="'daemon' is there with the number 1, Roost wants 8361") as caught:
        ensure_layout(Manifest(tmp_path / "manifest"), "root", users, [], [])
    assert caught.value.fix == "Keep its number: `--set daemon_uid=1`."
