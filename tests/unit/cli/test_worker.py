"""`roost workspace` and what `roost worker` refuses to begin with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from roost.agent.tools.workspaces import unfit
from roost.cli.access import Access
from roost.cli.principal import Principal
from roost.cli.worker import checked_networks, identity, refuse_plain, worker
from roost.cli.worker_lock import holder, only_one
from roost.cli.workspace import app
from roost.ops.errors import RoostError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ordinary user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "site").mkdir()
    return tmp_path


def run(*words: str) -> Result:
    verb = app
    if words[0] == "worker":
        verb = typer.Typer()
        verb.command()(worker)
    return CliRunner().invoke(verb, list(words[1:]), catch_exceptions=True)


def refusal(*words: str) -> str:
    done = run(*words)
    assert isinstance(done.exception, RoostError), done.output
    assert done.exception.exit_code
    assert done.exception.fix
    return done.exception.message


def test_a_folder_is_added_listed_and_removed_and_its_files_stay(home: Path) -> None:
    (home / "site" / "a").write_text("a")
    added = json.loads(run("workspace", "add", str(home / "site"), "--owner", "anna", "--json").stdout)
    assert added == {"name": "site", "path": str(home / "site"), "owner": "anna", "hub": ""}
    assert run("workspace", "add", str(home / "site"), "--owner", "anna").exit_code == 0
    assert json.loads(run("workspace", "list", "--json").stdout) == [added]
    assert "anna" in run("workspace", "list").stdout
    file = home / ".config/roost/workspaces.json"
    assert file.stat().st_mode & 0o077 == 0
    assert json.loads(run("workspace", "remove", str(home / "site"), "--json").stdout) == added
    assert json.loads(run("workspace", "list", "--json").stdout) == []
    assert (home / "site" / "a").read_text() == "a"
    assert "no workspace site" in refusal("workspace", "remove", "site")


def test_two_keys_may_have_one_of_the_same_name(home: Path) -> None:
    for owner in ("anna", "bert"):
        run("workspace", "add", str(home / "site"), "--owner", owner)
    assert "More than one" in refusal("workspace", "remove", "site")
    assert run("workspace", "remove", "site", "--owner", "bert").exit_code == 0
    assert [one["owner"] for one in json.loads(run("workspace", "list", "--json").stdout)] == ["anna"]


@pytest.mark.parametrize(
    "path",
    ["/", "/home", "/etc", "/etc/ssl", "/usr/lib", "/proc", "/var/lib/roost/agent", "~", "~/.ssh", "~/.config/app",
     "~/..", "~/link-to-home", "~/site/missing", "~/file", "~/.local/state/roost/worker"],
)  # fmt: skip
def test_what_holds_more_than_a_project_is_refused(home: Path, path: str) -> None:
    for name in (".ssh", ".config/app", ".local/state/roost/worker"):
        (home / name).mkdir(parents=True)
    (home / "link-to-home").symlink_to(home)
    (home / "file").write_text("")
    refusal("workspace", "add", path.replace("~", str(home), 1), "--owner", "anna")
    assert not (home / ".config/roost/workspaces.json").exists()


@pytest.mark.parametrize("path", ["/var/db/roost", "/var/db/roost/models", "/usr/local/etc/roost"])
def test_what_roost_keeps_on_freebsd_is_none_either(path: str) -> None:
    assert unfit(Path(path), Path("/home/anna"), []) == "belongs to the system"


def test_what_roost_keeps_is_in_no_workspace(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "site" / "state"))
    assert "Roost itself" in refusal("workspace", "add", str(home / "site"), "--owner", "anna")


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"])
def test_folders_of_settings_that_lie_elsewhere_are_in_no_workspace_either(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("site/settings", "site/settings/app", "project"):
        (home / name).mkdir(parents=True)
    monkeypatch.setenv(variable, str(home / "site" / "settings"))
    for name in ("site", "site/settings", "site/settings/app"):
        assert refusal("workspace", "add", str(home / name), "--owner", "anna")
    assert run("workspace", "add", str(home / "project"), "--owner", "anna").exit_code == 0


def test_secret_folders_by_rule() -> None:
    me = Path("/home/anna")
    assert unfit(me / ".gnupg/private", me, ())
    assert unfit(Path("/root"), me, ())
    assert unfit(me / "work/x", me, [me / "work/x/keep"])
    assert unfit(me / "work/x/keep/undo", me, [me / "work/x/keep"])
    assert not unfit(me / "work/x", me, [me / "work/y/keep"])
    assert not unfit(Path("/srv/www"), me, ())


def test_root_is_refused_with_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "root" in refusal("worker")
    assert "root" in refusal("workspace", "add", str(home / "site"))


def test_key_and_files_do_not_go_over_a_network_unencrypted() -> None:
    with pytest.raises(RoostError, match="not encrypted"):
        refuse_plain(Access("http://192.0.2.7:8360", "key"))
    for fine in ("https://192.0.2.7:8360", "http://127.0.0.1:8360", "http://[::1]:8360"):
        refuse_plain(Access(fine, "key"))


def test_networks_are_checked() -> None:
    assert checked_networks(["192.0.2.0/24"]) == ["192.0.2.0/24"]
    with pytest.raises(RoostError, match="allow-network"):
        checked_networks(["192.0.2.1/24"])


def test_a_tool_that_there_is_not_is_refused_before_it_counts_as_running(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_API", "http://127.0.0.1:8360")
    monkeypatch.setenv("ROOST_API_KEY", "key")
    monkeypatch.setattr("roost.cli.worker.identify", lambda: Principal(Access("x", "y"), "anna", "1" * 32))
    assert "no tool 'no-such-tool'" in refusal("worker", "--only", "no-such-tool")
    assert not list(home.rglob("lock"))  # by it `roost worker install` knows that its service works


def test_only_one_runs_and_its_id_stays(tmp_path: Path) -> None:
    assert holder(tmp_path / "state") is None
    with only_one(tmp_path / "state"):
        assert holder(tmp_path / "state") == os.getpid()
        first = identity(tmp_path / "state")
        with pytest.raises(RoostError, match="runs already"), only_one(tmp_path / "state"):
            pass
    with only_one(tmp_path / "state"):
        assert identity(tmp_path / "state") == first
