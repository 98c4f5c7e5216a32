"""Whether work is done, by what calls show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.agent.receipts import Receipt, missing, paths, shown, urls
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec

KINDS = {
    "read": Permission.READ, "list": Permission.READ, "search": Permission.READ, "write": Permission.WRITE,
    "edit": Permission.WRITE, "shell": Permission.RUN, "web_fetch": Permission.NETWORK,
}  # fmt: skip
TOOLS = [
    ToolSpec(name=name, description="d", parameters={"type": "object"}, permission=kind) for name, kind in KINDS.items()
]


def receipt(name: str, outcome: Outcome = Outcome.OK, **arguments: str) -> Receipt:
    call = ToolCall(id="1", name=name, arguments=dict(arguments), session="s")
    return Receipt(call, KINDS[name], ToolResult(id="1", outcome=outcome, text=""))


READ_A = receipt("read", path="a.txt")
WRITE_B = receipt("write", path="b.txt", content="x")
RUN = receipt("shell", command="make test")
FAILED_RUN = receipt("shell", Outcome.FAILED, command="make test")


@pytest.mark.parametrize(
    ("request_text", "receipts", "lacks"),
    [
        ("Read a.txt", [], ["a.txt was not used"]),
        ("Read a.txt", [receipt("read", Outcome.FAILED, path="a.txt")], ["a.txt was not used"]),
        ("Read a.txt", [READ_A], []),
        ("Read ./a.txt", [READ_A], []),
        ("Copy: read a.txt and write it to b.txt", [READ_A], ["b.txt was not used", "nothing was changed"]),
        ("Copy: read a.txt and write it to b.txt", [READ_A, WRITE_B], []),
        ("Write b.txt", [receipt("read", path="b.txt")], ["nothing was changed"]),
        ("Fetch https://a.example/ and https://b.example/", [receipt("web_fetch", url="https://a.example/")],
         ["https://b.example/ was not read"]),
        ("Run `make test`", [], ["`make test` was not run"]),
        ("Run `make test`", [receipt("shell", Outcome.REFUSED, command="make test")], ["`make test` was not run"]),
        ("Run `make test`", [FAILED_RUN], []),
        ("Fix b.txt and run `make test` again", [FAILED_RUN, WRITE_B], ["nothing was run after the last change"]),
        ("Fix b.txt and run `make test` again", [FAILED_RUN, WRITE_B, RUN], []),
        ("Read a.txt", [receipt("list", path="a.txt.html")], ["a.txt was not used"]),
        ("Read src/", [receipt("list", path="./src/")], []),
        ("Create b.txt with this content: x y", [WRITE_B], ["the text that was asked for was not written"]),
        ("Create b.txt with this content: `x`", [WRITE_B], []),
        ("Create b.txt with this content: x y", [receipt("write", path="b.txt", content="x\n  y\n")], []),
        ("Create b.txt with this content: x y", [receipt("shell", command="printf 'x%sy' ' ' > b.txt")], []),
        ("Edit b.txt: replace `a` by `y`.", [WRITE_B], ["the text that was asked for was not written"]),
        ("Edit b.txt: replace `a` by `y`.", [receipt("edit", path="b.txt", old="a", new="y")], []),
        ('Search for "owl"', [receipt("list", path=".")], ["the tool search was not used"]),
        ('Search for "owl"', [receipt("search", pattern="owl")], []),
        ("What is the capital of France?", [], []),
        ("List three advantages of bread", [], []),
        ("Hello!", [], []),
        ("What is Node.js?", [], []),
        ("How do I find a good restaurant?", [], []),
    ],
)  # fmt: skip
def test_what_is_missing(request_text: str, receipts: list[Receipt], lacks: list[str]) -> None:
    assert missing(request_text, TOOLS, receipts) == lacks


@pytest.mark.parametrize(
    ("request_text", "receipts", "all_of_it"),
    [
        ("Read a.txt", [READ_A], True),
        ("Read a.txt", [READ_A, receipt("shell", Outcome.REFUSED, command="rm -rf /")], True),
        ("Read a.txt and b.txt", [READ_A], False),
        ("Read a.txt", [], False),
        ("Run `make test`", [RUN], True),
        ("Do what is best", [READ_A], False),  # nothing is named: what it takes cannot be seen
        ("Hello!", [], False),
    ],
)
def test_what_shows_that_all_was_done(request_text: str, receipts: list[Receipt], *, all_of_it: bool) -> None:
    assert shown(request_text, TOOLS, receipts) is all_of_it


def test_nothing_is_wanted_of_tools_that_are_not_there() -> None:
    assert missing("Fetch https://a.example/ and run `make test`", [TOOLS[0]], []) == []


def test_names_are_found() -> None:
    assert urls("See https://a.example/x, and https://a.example/x.") == ["https://a.example/x"]
    assert paths("Read src/a.py and `b c`, not https://a.example/d.txt") == ["src/a.py"]


@given(st.text(max_size=200), st.lists(st.sampled_from([READ_A, WRITE_B, RUN, FAILED_RUN]), max_size=4))
def test_more_receipts_of_reading_never_add_to_what_is_missing(text: str, receipts: list[Receipt]) -> None:
    without = missing(text, TOOLS, receipts)
    assert set(missing(text, TOOLS, [READ_A, *receipts])) <= {*without, *missing(text, TOOLS, [READ_A])}


def test_a_foreign_tool_that_is_named_is_the_one_that_has_to_be_called() -> None:
    asked = "Use mcp__ex__add to add 20 and 22"
    specs = [
        ToolSpec(name=name, description="", parameters={}, permission=Permission.FOREIGN)
        for name in ("mcp__ex__add", "mcp__ex__look")
    ]

    def made(tool: str, outcome: Outcome = Outcome.OK) -> Receipt:
        call = ToolCall(id="1", name=tool, arguments={}, session="s")
        return Receipt(call, Permission.FOREIGN, ToolResult(id="1", outcome=outcome, text=""))

    assert missing(asked, specs, []) == ["the tool mcp__ex__add was not used"]
    assert missing("Do not call mcp__ex__add, only tell me what it is for", specs, []) == []
    assert missing(asked, specs, [made("mcp__ex__look")]) != []
    assert missing(asked, specs, [made("mcp__ex__add", Outcome.REFUSED)]) != []
    assert missing(asked, specs, [made("mcp__ex__add")]) == []
