"""What words ask for, without a model: the table of rules, each in several phrasings."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.agent.intent import HACKER_NEWS_URL, asks_for_change, guess, names_something, needs_tools
from roost.agent.receipts import missing
from roost.agent.tool import Permission, ToolSpec

ALL = {"researcher", "web_fetch", "read", "write", "edit", "list", "search", "shell"}

CASES = [
    ("Research https://example.org/paper and compare it with others", "researcher", None),
    ("Can you look into https://example.org/a for me?", "researcher", None),
    ("What's the latest on battery technology?", "researcher", None),
    ("Show me today's news about Mars", "researcher", None),
    ("https://example.org/page", "web_fetch", {"url": "https://example.org/page"}),
    ("What does http://example.org/a/b?x=1 say?", "web_fetch", {"url": "http://example.org/a/b?x=1"}),
    ("Summarise https://example.org.", "web_fetch", {"url": "https://example.org"}),
    ("What is on Hacker News?", "web_fetch", {"url": HACKER_NEWS_URL}),
    ("top stories on HN please", "web_fetch", {"url": HACKER_NEWS_URL}),
    ("Read README.md", "read", {"path": "README.md"}),
    ("show me src/app/main.py please", "read", {"path": "src/app/main.py"}),
    ("What's in `notes.txt`?", "read", {"path": "notes.txt"}),
    ("cat ./setup.cfg", "read", {"path": "./setup.cfg"}),
    ("Write a haiku to poem.txt", "write", {"path": "poem.txt"}),
    ("Create src/util.py with a function that adds", "write", {"path": "src/util.py"}),
    ("Fix the typo in docs/index.md", "edit", {"path": "docs/index.md"}),
    ("Replace foo by bar in config.yaml", "edit", {"path": "config.yaml"}),
    ("List the files here", "list", {"path": "."}),
    ("which files are there?", "list", {"path": "."}),
    ("Search for TODO in the code", "search", {"pattern": "TODO"}),
    ('find "def main" in all files', "search", {"pattern": "def main"}),
    ("Where is parse_args defined?", "search", {"pattern": "parse_args"}),
    ("Run `pytest -q`", "shell", {"command": "pytest -q"}),
    ("execute ls -la", "shell", {"command": "ls -la"}),
]


@pytest.mark.parametrize(("request_text", "tool", "arguments"), CASES)
def test_the_rules(request_text: str, tool: str, arguments: dict[str, str] | None) -> None:
    found = guess(request_text, ALL)
    assert found.tool == tool
    if arguments is not None:
        assert {name: (found.arguments or {})[name] for name in arguments} == arguments


@pytest.mark.parametrize(
    "text", ["Hello!", "Thanks", "What is the capital of France?", "Tell me a joke", "", "  ", "2+2?"]
)
def test_talk_needs_no_tool(text: str) -> None:
    found = guess(text, ALL)
    assert (found.tool, found.question) == ("", "")


@pytest.mark.parametrize(("text", "tool"), [("Read README.md", "read"), ("Run `ls`", "shell"), ("List files", "list")])
def test_a_tool_that_is_not_there_is_asked_about(text: str, tool: str) -> None:
    found = guess(text, ALL - {tool})
    assert found.tool == ""
    assert tool in found.question


@given(text=st.text(max_size=300), tools=st.sets(st.sampled_from(sorted(ALL))))
def test_any_text_gets_a_tool_that_exists_or_none(text: str, tools: set[str]) -> None:
    found = guess(text, tools)
    assert found.tool in tools or not found.tool


@pytest.mark.parametrize(
    ("request_text", "tool", "argument"),
    [
        ("Remember that my dog is called Rex.", "remember", "my dog is called Rex."),
        ("please remember: the build needs `make -j2`", "remember", "the build needs `make -j2`"),
        ("Keep in mind that a.txt must not change", "remember", "a.txt must not change"),
        ("Forget about the dog.", "forget", "the dog"),
        ("Forget everything about Rex!", "forget", "Rex"),
        ("What do you know about my dog?", "recall", "my dog"),
        ("What did we talk about last week?", "recall", "last week"),
        ("Remember to write a.txt", "write", None),
        ("Do you remember when we met", "recall", "when we met"),
    ],
)
def test_memory_is_asked_for_in_words(request_text: str, tool: str, argument: str | None) -> None:
    found = guess(request_text, ALL | {"remember", "recall", "forget"})
    assert found.tool == tool
    if argument is not None:
        assert list((found.arguments or {}).values()) == [argument]
    assert asks_for_change(request_text) == (tool == "write")


@pytest.mark.parametrize("text", ["Forget it.", "Remember how it was?", "Remember?", "A note on style"])
def test_words_of_memory_that_ask_for_nothing(text: str) -> None:
    assert guess(text, ALL | {"remember", "recall", "forget"}).tool == ""


@pytest.mark.parametrize(
    ("request_text", "tool", "arguments"),
    [
        ("Save it as a skill", "save_skill", {}),
        ("keep that as a skill called compare pages", "save_skill", {"name": "compare pages"}),
        ("Which skills are there for bread?", "search_skills", {"words": "bread"}),
    ],
)
def test_skills_are_asked_for_in_words(request_text: str, tool: str, arguments: dict[str, str]) -> None:
    found = guess(request_text, ALL | {"save_skill", "search_skills"})
    assert (found.tool, found.arguments) == (tool, arguments)


MANY = 200_000
LOCAL = [ToolSpec(name=one.value, description="", parameters={}, permission=one) for one in Permission]


@pytest.mark.parametrize(
    "text",
    [
        "forget " + ". " * (MANY // 2) + "x",
        "remember" + " " * MANY + "?",
        "remember " + "a " * (MANY // 2) + "?",
        "what do you know about " + "x " * (MANY // 2),
        "which skills " + "for " * (MANY // 4) + "?",
        "show " + "-" * MANY,
        "run `" + "a" * MANY,
        "read " + "a/" * (MANY // 2),
        "save it as a skill called " + " " * MANY,
        " " * MANY + "?",
        "!" * MANY,
        "http://" * (MANY // 7),
    ],
)
def test_a_long_message_is_read_as_quickly_as_a_short_one(text: str) -> None:
    began = time.process_time()
    guess(text, ALL | {"remember", "forget", "recall", "save_skill", "search_skills"})
    needs_tools(text)
    asks_for_change(text)
    missing(text, LOCAL, [])
    assert time.process_time() - began < 0.5


def test_what_a_long_message_hands_on_is_whole_or_not_there() -> None:
    long = "word " * 1000
    assert guess(f"remember that {long}end", {"remember"}).arguments == {"text": f"{long}end"}
    assert guess(f"run rm {long}", ALL).tool != "shell"
    assert guess(f"fix a.txt: {long}end", ALL).arguments == {"path": "a.txt", "task": f"fix a.txt: {long}end"}
    assert not guess("read " + "x" * 995 + ".txt and more", ALL).tool


@pytest.mark.parametrize(
    ("text", "tool", "rule"),
    [
        ("Use `mcp__ex__add` to add 20 and 22", "mcp__ex__add", "named tool"),
        ("mcp__ex__add, please: 1 and 2", "mcp__ex__add", "named tool"),
        ("Read a.txt with mcp__ex__look", "", "missing"),
        ("What is 20 and 22? Please call the tool mcp__ex__add.", "mcp__ex__add", "named tool"),
        ("Do not use mcp__ex__look but mcp__ex__add", "mcp__ex__add", "named tool"),
        ("Do not call mcp__ex__add, only tell me what it is for", "", "none"),
        ("What does mcp__ex__add do?", "", "none"),
        ("How do I use mcp__ex__add?", "", "none"),
        ("Never use mcp__ex__add again", "", "none"),
        ("Say what cats do and why, by mcp__ex__add", "mcp__ex__add", "named tool"),
        ("I have no idea what it is, can you use mcp__ex__add?", "mcp__ex__add", "named tool"),
        ("You don\u2019t have to use mcp__ex__add", "", "none"),
        ("mcp__ex__add must not be called", "", "none"),
        ("Did you call mcp__ex__add?", "", "none"),
        ("Why did you not use mcp__ex__add?", "", "none"),
        ("Tell me about mcp__ex__add", "", "none"),
        ("Add 20 and 22 with ex add", "", "none"),
    ],
)
def test_a_foreign_tool_is_known_by_its_whole_name_only(text: str, tool: str, rule: str) -> None:
    found = guess(text, {"mcp__ex__add", "read"})
    assert (found.tool, found.rule) == (tool, rule)
    assert names_something(text) is (rule != "none")
    assert needs_tools(text) is (rule != "none")
