"""What the user is asked about: by permission class, by command, by what a foreign tool says of itself."""

from __future__ import annotations

import json

import mcp_types as types
import pytest
from pydantic import JsonValue

from roost.agent.mcp.connection import listed_of
from roost.agent.mcp.servers import McpServer
from roost.agent.mcp.tools import spec_of
from roost.agent.permission.policy import SHOWN_CHARACTERS, Answer, answer_of, asked_text, needed
from roost.agent.tool import Permission, ToolCall, ToolSpec
from tests.unit.agent.permission.world import SHELL, TEXT, foreign


def call(name: str = "t", **arguments: str) -> ToolCall:
    return ToolCall.model_validate({"id": "1", "name": name, "arguments": arguments, "session": "s"})


def spec(permission: Permission, **more: bool) -> ToolSpec:
    return ToolSpec(name="t", description="", parameters=TEXT, permission=permission, **more)


@pytest.mark.parametrize("permission", [Permission.READ, Permission.WRITE, Permission.MEMORY])
def test_what_reads_or_can_be_undone_runs(permission: Permission) -> None:
    assert needed(spec(permission), call(text="rm -rf .")) is None


@pytest.mark.parametrize("command", ["rm -rf .", "cd x && git reset --hard", "find . -name x -delete", "shred a"])
def test_a_command_that_throws_work_away_is_asked_about_by_what_it_does(command: str) -> None:
    found = needed(SHELL, call("shell", command=command))
    assert found
    assert found.mark.startswith("shell: ")
    assert needed(SHELL, call("shell", command="git status")) is None


def test_kinds_of_harm_are_allowed_one_by_one() -> None:
    marks = {needed(SHELL, call("shell", command=text)).mark for text in ("rm -rf .", "git reset --hard")}  # type: ignore[union-attr]
    assert len(marks) == 2


def test_a_command_line_with_several_kinds_of_harm_is_allowed_by_all_of_them() -> None:
    one, both, other_way = (
        needed(SHELL, call("shell", command=text))
        for text in ("find . -name x -delete", "find . -name x -delete; shred -u k", "shred -u k\nfind . -delete")
    )
    assert one
    assert both
    assert other_way
    assert one.mark != both.mark == other_way.mark
    assert "removes what it finds and destroys files" in both.why


def test_a_foreign_tool_is_asked_about_unless_it_says_that_it_only_reads() -> None:
    assert needed(foreign(), call(text="x"))
    assert needed(foreign(safe_to_repeat=True), call(text="x"))
    assert needed(foreign(read_only=True), call(text="x")) is None


def test_what_was_allowed_is_asked_about_again_once_the_tool_is_another_one() -> None:
    before, after = (needed(foreign(about=text), call(text="x")) for text in ("Sends a text.", "Sends all files."))
    assert before
    assert after
    assert before.mark != after.mark


def test_the_network_is_asked_about_where_it_may_have_an_effect_there() -> None:
    assert needed(spec(Permission.NETWORK, safe_to_repeat=True), call(text="x")) is None
    assert needed(spec(Permission.NETWORK), call(text="x"))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("y", Answer.YES), ("YES ", Answer.YES), ("n", Answer.NO), ("no", Answer.NO), ("a", Answer.ALWAYS),
        ("always", Answer.ALWAYS), ("c", Answer.CONVERSATION), ("", None), ("yeah", None), ("yn", None),
    ],
)  # fmt: skip
def test_words_of_people(word: str, meant: Answer | None) -> None:
    assert answer_of(word) is meant


def test_only_what_a_server_says_of_its_tool_makes_it_one_that_reads() -> None:
    server = McpServer(name="ex", owner="anna", command=("x",))
    hints = [None, types.ToolAnnotations(), types.ToolAnnotations(read_only_hint=True, idempotent_hint=True)]
    tools = [
        types.Tool(name=f"t{n}", input_schema={"type": "object"}, annotations=hint) for n, hint in enumerate(hints)
    ]
    specs = [found for listed in listed_of(tools) if (found := spec_of(server, listed))]
    assert [spec.read_only for spec in specs] == [False, False, True]
    assert [spec.safe_to_repeat for spec in specs] == [False, False, True]


@pytest.mark.parametrize(
    "server",
    [
        McpServer(name="ex", owner="anna", url="https://mcp.example/mcp"),
        McpServer(name="ex", owner="anna", command=("x",), network=True),
        McpServer(name="ex", owner="anna", command=("x",), sandbox=False),
    ],
    ids=["elsewhere", "network", "no sandbox"],
)
def test_who_can_pass_on_what_the_arguments_hold_is_asked_about_whatever_it_says_of_itself(server: McpServer) -> None:
    hint = types.ToolAnnotations(read_only_hint=True, idempotent_hint=True)
    (listed,) = listed_of([types.Tool(name="t", input_schema={"type": "object"}, annotations=hint)])
    spec = spec_of(server, listed)
    assert spec is not None
    assert needed(spec, call(text="x"))


def test_of_a_long_call_a_question_shows_the_beginning_the_end_and_how_much_is_missing() -> None:
    arguments: dict[str, JsonValue] = {"command": f"echo {'x' * 5000}; rm -rf ."}
    text = asked_text("shell", arguments, "w")
    assert "echo xxx" in text
    assert "; rm -rf ." in text
    assert f"({len(json.dumps(arguments)) - SHOWN_CHARACTERS} characters more)" in text
    assert "more" not in asked_text("shell", {"command": "rm -rf ."}, "w")


def test_a_question_has_no_mark_that_turns_the_direction_of_writing() -> None:
    text = asked_text("shell", {"command": "rm -rf . # \u202etxt.a olleh"}, "w")
    assert "\u202e" not in text
    assert "\\u202etxt" in text
