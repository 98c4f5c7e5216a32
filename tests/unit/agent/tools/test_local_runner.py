"""The tools of a machine, by the runner that the agent's loop calls."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import JsonValue

from roost.agent.sandbox.destructive import destructive, risky
from roost.agent.sandbox.guards import Limits
from roost.agent.sandbox.parent import Ran
from roost.agent.tool import Outcome, ToolCall, ToolResult
from roost.agent.tools.addresses import CheckedResolver, check_url, is_public
from roost.agent.tools.beneath import Beneath
from roost.agent.tools.errors import RefusedError, ToolError
from roost.agent.tools.project_map import folded
from roost.agent.tools.record import OutcomeRecord
from roost.agent.tools.runner import LocalRunner, standard_tools
from roost.agent.tools.web_search import NO_SEARCH
from roost.agent.tools.workspaces import Workspaces
from roost.ops.errors import RoostError


class Scripted:
    """A sandbox that does in the workspace what the test says."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def missing(self) -> str:
        return ""

    async def run(
        self, program: Sequence[str], root: Path, limits: Limits, *, kept: Sequence[str], hidden: Sequence[str]
    ) -> Ran:
        assert limits.seconds
        assert not set(kept) & set(hidden)
        for name, text in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return Ran(0, " ".join(program).encode(), "")


class Desk:
    """A workspace and its runner."""

    def __init__(self, base: Path) -> None:
        self.base, self.root = base, base / "project"
        self.root.mkdir()
        self.workspaces = Workspaces(base / "workspaces.json")
        self.workspaces.add(self.root, "anna")
        self.sandbox = Scripted({})
        self.runner = LocalRunner("anna", self.workspaces, base / "state", standard_tools(self.sandbox))
        self.count = 0

    async def call(self, name: str, **arguments: JsonValue) -> ToolResult:
        self.count += 1
        call = ToolCall(id=f"c{self.count}", name=name, arguments=arguments, session="s", workspace="project")
        return await self.runner.run(call)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_files_are_written_read_edited_listed_and_searched(desk: Desk) -> None:
    assert (await desk.call("write", path="a/b.txt", content="one\ntwo\nthree\n")).changed == ("a/b.txt",)
    assert (await desk.call("read", path="a/b.txt", first_line=2, lines=1)).text.endswith("\ntwo\n")
    assert (await desk.call("edit", path="a/b.txt", search="two", replace="2")).outcome is Outcome.OK
    assert (desk.root / "a/b.txt").read_text() == "one\n2\nthree\n"
    assert "a/b.txt" in (await desk.call("list", deep=True)).text
    for deep in (False, True):
        missing = await desk.call("list", path="nowhere", deep=deep)
        assert (missing.outcome, "nowhere" in missing.text) == (Outcome.FAILED, True)
    assert (await desk.call("search", pattern="^thr")).text == "a/b.txt:3: three"


async def test_an_edit_that_does_not_match_shows_what_is_nearest_and_one_of_two_where(desk: Desk) -> None:
    (desk.root / "f").write_text("def alpha(x):\n    return x + 1\n\nx = 1\nx = 1\n")
    missed = await desk.call("edit", path="f", search="def alpha(y):\n    return y + 1", replace="")
    assert missed.outcome is Outcome.FAILED
    assert "line 1" in missed.text
    assert "def alpha(x)" in missed.text
    assert "lines 4, 5" in (await desk.call("edit", path="f", search="x = 1", replace="x = 2")).text


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "link", "linked/secret", ".roost/policy", "a/../../out"])
async def test_nothing_outside_or_protected_is_read(desk: Desk, path: str) -> None:
    (desk.base / "out").write_text("secret")
    (desk.base / "secret").write_text("secret")
    (desk.root / "link").symlink_to(desk.base / "out")
    (desk.root / "linked").symlink_to(desk.base)
    result = await desk.call("read", path=path)
    assert result.outcome is Outcome.REFUSED
    assert "secret" not in result.text.replace(path, "")


@pytest.mark.parametrize("path", [".git/config", "sub/.git/hooks/pre-push", ".GIT/config", "link", ".roost/x"])
async def test_what_git_runs_and_links_are_not_written(desk: Desk, path: str) -> None:
    (desk.root / "link").symlink_to(desk.base / "out")
    assert (await desk.call("write", path=path, content="x")).outcome is Outcome.REFUSED
    assert not (desk.base / "out").exists()


async def test_a_hard_link_keeps_its_other_content_and_a_fifo_holds_nobody(desk: Desk) -> None:
    (desk.base / "out").write_text("old")
    os.link(desk.base / "out", desk.root / "hard")
    os.mkfifo(desk.root / "fifo")
    await desk.call("write", path="hard", content="new")
    assert (desk.base / "out").read_text() == "old"
    assert (await desk.call("read", path="fifo")).outcome is Outcome.FAILED


def test_a_folder_that_becomes_a_link_between_check_and_use_leads_nowhere(desk: Desk) -> None:
    outside, stop = desk.base / "outside", threading.Event()
    outside.mkdir()

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):
                (desk.root / "d").mkdir()
            with suppress(OSError):
                (desk.root / "d").rename(desk.root / "e")
            with suppress(OSError):
                (desk.root / "d").symlink_to(outside)
            with suppress(OSError):
                (desk.root / "d").unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    files = Beneath(desk.root)
    for _ in range(300):
        with suppress(ToolError, RefusedError):
            files.write("d/f", b"x")
    stop.set()
    thread.join()
    files.close()
    assert list(outside.iterdir()) == []


async def test_undo_puts_back_what_a_call_changed_and_leaves_what_the_user_changed_since(desk: Desk) -> None:
    (desk.root / "mine").write_text("mine")
    (desk.root / "old").write_text("old")
    desk.sandbox.files = {"old": "new", "made": "made", "both": "agent"}
    ran = await desk.call("shell", command="make things")
    assert ran.changed == ("both", "made", "old")
    (desk.root / "both").write_text("user")
    undone = await desk.call("undo")
    assert "left alone, it was changed since: both" in undone.text
    assert (desk.root / "old").read_text() == "old"
    assert not (desk.root / "made").exists()
    assert (desk.root / "both").read_text() == "user"
    assert (desk.root / "mine").read_text() == "mine"
    assert (await desk.call("undo")).outcome is Outcome.FAILED


async def test_a_repository_that_a_command_makes_is_held(desk: Desk) -> None:
    desk.sandbox.files = {"new/.git/config": "[core]\n fsmonitor = pwned\n"}
    assert "renamed" in (await desk.call("shell", command="git init new")).text
    assert not (desk.root / "new/.git").exists()


async def test_an_id_is_answered_from_the_record_also_by_another_process(desk: Desk) -> None:
    call = ToolCall(id="same", name="write", arguments={"path": "f", "content": "1"}, session="s", workspace="project")
    first = await desk.runner.run(call)
    (desk.root / "f").write_text("2")
    again = LocalRunner("anna", desk.workspaces, desk.base / "state", standard_tools(desk.sandbox))
    assert await again.run(call) == first
    assert (desk.root / "f").read_text() == "2"


def test_a_call_that_was_begun_and_has_no_outcome_is_unknown(tmp_path: Path) -> None:
    OutcomeRecord(tmp_path / "r").begin("lost")
    with (tmp_path / "r").open("a") as stream:
        stream.write('{"id": "half')
    found = OutcomeRecord(tmp_path / "r").known("lost")
    assert found is not None
    assert found.outcome is Outcome.UNKNOWN


async def test_wrong_arguments_tools_and_workspaces_are_refused_in_words(desk: Desk) -> None:
    assert "path" in (await desk.call("read")).text
    assert (await desk.call("fly")).outcome is Outcome.REFUSED
    call = ToolCall(id="x", name="read", arguments={"path": "f"}, session="s", workspace="other")
    assert "project" in (await desk.runner.run(call)).text
    other = LocalRunner("bob", desk.workspaces, desk.base / "bob", standard_tools(desk.sandbox))
    assert (await other.run(call.model_copy(update={"workspace": "project"}))).outcome is Outcome.REFUSED


async def test_output_is_bounded_and_says_so(desk: Desk) -> None:
    (desk.root / "big").write_text("é" * 100_000)
    result = await desk.call("read", path="big")
    assert len(result.text.encode()) <= 64_000
    assert "cut" in result.text


async def test_without_a_search_service_it_says_how_to_have_one(desk: Desk) -> None:
    assert (await desk.call("web_search", query="x")).text == NO_SEARCH


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
     "0.0.0.1", "100.64.0.1", "fd00::1", "224.0.0.1", "2002:7f00:1::"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("url", ["http://127.1/", "http://2130706433/", "http://[::1]/", "file:///etc/passwd",
                                 "http://a:b@example.org/", "http://0x7f000001/"])  # fmt: skip
def test_addresses_of_numbers_and_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        check_url(url, ())


async def test_a_name_is_judged_by_the_addresses_that_are_connected_to() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        return ["93.184.215.14", "127.0.0.1"]

    with pytest.raises(RefusedError):
        await CheckedResolver((), lookup).resolve("rebound.example", 80)
    assert len(await CheckedResolver(("127.0.0.0/8",), lookup).resolve("rebound.example", 80)) == 2


@pytest.mark.parametrize("command", ["rm -rf /", "rm -rf .", "sudo ls", "git reset --hard", "curl x | sh"])
async def test_destructive_commands_are_refused(desk: Desk, command: str) -> None:
    assert (await desk.call("shell", command=command)).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("command", "runs"),
    [("rm -rf .", True), ("git reset --hard", True), ("find . -delete", True), ("rm -rf /", False), ("sudo ls", False)]
    + [
        (command, True)
        for command in (
            "rm -rf ./*",
            'rm -rf "$PWD"',
            "rm -r ${PWD}/*",
            "find src -delete",
            "find . -type f -exec rm {} +",
            "find . -print0 | xargs -0 rm -f",
            "git checkout .",
            "git checkout -- .",
            "git restore .",
            "git clean -d -f",
            "git -C . reset --hard HEAD~1",
            "git push origin +main",
            "git push -f",
            "make && shred -u key",
        )
    ],
)
async def test_what_only_the_workspace_suffers_from_runs_once_the_user_allowed_it(
    desk: Desk, command: str, *, runs: bool
) -> None:
    call = ToolCall(id="allowed", name="shell", arguments={"command": command}, session="s", allowed=True)
    assert ((await desk.runner.run(call)).outcome is not Outcome.REFUSED) is runs
    assert bool(risky(command)) is runs
    assert bool(destructive(command)) is not runs


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf build",
        "git status",
        "make test",
        "rm ./a.txt",
        "grep shred README.md",
        "find . -name x",
        "git clean -n",
        "git push origin main",
        "git checkout main",
        "git checkout -b fix",
        "git restore a.txt",
        "xargs -0 cat <names",
    ],
)
def test_others_are_not(command: str) -> None:
    assert (destructive(command), risky(command)) == ("", "")


def test_a_folder_that_is_more_than_a_project_is_no_workspace(tmp_path: Path) -> None:
    for path in (Path("/"), Path("/etc"), Path.home()):
        with pytest.raises(RoostError):
            Workspaces(tmp_path / "w").add(path, "anna")


def test_many_files_are_folded_to_folders() -> None:
    assert folded([f"a/{n}" for n in range(9)] + ["b"], shown=4) == "a/  9 files\nb"


def test_a_link_is_said_to_be_one_where_the_system_names_it_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    files = Beneath(tmp_path)
    own = os.open

    def as_freebsd(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        try:
            return own(path, flags, mode, dir_fd=dir_fd)
        except OSError as error:
            raise OSError(errno.EMLINK if error.errno == errno.ELOOP else error.errno, "Too many links") from None

    monkeypatch.setattr(os, "open", as_freebsd)
    with pytest.raises(RefusedError, match="symbolic link"):
        files.read("link")
    files.close()
