"""Which servers were named, for whom; and the form in which other clients keep theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from roost.agent.mcp.servers import (
    MOST_SERVERS,
    SERVERS,
    WRONG,
    McpServer,
    McpServers,
    imported,
    made,
    said,
    unfit_url,
)
from roost.ops.errors import RoostError

COMMON: dict[str, object] = {"owner": "anna", "hub": "1"}


def server(name: str = "time", **values: object) -> McpServer:
    return made({**COMMON, "command": ["mcp-time"], "name": name, **values})


def test_they_are_for_one_key_of_one_hub(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "mcp.json"
    mine, other = McpServers(file, "1"), McpServers(file, "2")
    mine.add([server(environment={"TOKEN": "secret"})])
    mine.add([server(environment={"TOKEN": "secret"})])  # the same again
    assert [one.name for one in mine.of("anna")] == ["time"]
    assert other.of("anna") == mine.of("bert") == []
    assert file.stat().st_mode & 0o077 == 0
    assert mine.of("anna")[0].shown()["environment"] == ["TOKEN"]
    assert "secret" not in repr(mine.of("anna"))
    with pytest.raises(RoostError, match="another MCP server"):
        mine.add([server(command=["else"])])
    with pytest.raises(RoostError, match="no MCP server"):
        other.remove("anna", "time")
    other.pass_on("anna", "1")
    assert other.remove("anna", "time").environment == {"TOKEN": "secret"}
    assert McpServers(file).all() == []


def test_no_more_than_a_bound_and_all_or_none(tmp_path: Path) -> None:
    servers = McpServers(tmp_path / "mcp.json", "1")
    with pytest.raises(RoostError, match="already"):
        servers.add([server(f"s{number}") for number in range(MOST_SERVERS + 1)])
    assert servers.of("anna") == []


@pytest.mark.parametrize(
    "values",
    [
        {"name": "Time"}, {"name": ""}, {"name": "a" * 30}, {"command": []}, {"url": "https://a.example/mcp"},
        {"command": ["a\0b"]}, {"environment": {"A B": "x"}}, {"timeout_s": 0}, {"timeout_s": 601}, {"read": ["x"]},
        {"command": [], "url": "http://a.example/mcp"}, {"command": [], "url": "ftp://a.example"},
        {"command": [], "url": "https://user:word@a.example/"}, {"command": [], "url": "https://a.example:x/"},
        {"command": [], "url": "https://a.example", "headers": {"A": "x\r\nB: y"}},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence_that_shows_no_value(values: dict[str, object]) -> None:
    with pytest.raises(RoostError) as refused:
        made({**COMMON, "command": ["mcp-time"], "name": "time", "environment": {"TOKEN": "heliotrope"}, **values})
    assert refused.value.exit_code == 2
    assert "heliotrope" not in str(refused.value)
    for raw in ("Value error", "pattern", "Input", "should", "^["):
        assert raw not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": ""}, "An MCP server needs a name."),
        ({"name": "BAD"}, "'BAD' is no name of an MCP server: it is made of"),
        ({"command": []}, "time: it has neither a program nor an address."),
        ({"url": "https://a.example/mcp"}, "time: it has both a program and an address."),
        ({"timeout_s": 601}, "time: timeout_s: it is more than 600"), ({"read": 3}, "time: read: it is no list."),
        ({"network": "x"}, "time: network: it is neither true nor false."),
        ({"colour": 1}, "time: colour: it is not known."),
        ({"environment": {"A": 3}}, "time: environment.A: it is no text."),
        ({"command": ["x" * 9000]}, "time: command.0: it is longer than 8192 characters."),
    ],
)  # fmt: skip
def test_it_says_plainly_what_is_wrong_and_the_form(values: dict[str, object], words: str) -> None:
    with pytest.raises(RoostError) as refused:
        made({**COMMON, "command": ["mcp-time"], "name": "time", **values})
    assert refused.value.message.startswith(words)
    assert "roost mcp add NAME -- PROGRAM ARGS" in refused.value.fix


def test_addresses() -> None:
    for fine in ("https://a.example/mcp", "http://127.0.0.1:9/mcp", "http://[::1]/", "http://localhost:8000/mcp"):
        assert not unfit_url(fine)


def test_the_form_of_other_clients_is_read() -> None:
    text = json.dumps({"other": 1, "mcpServers": {
        "Git Hub": {"command": "npx", "args": ["-y", "pkg"], "env": {"TOKEN": "x"}},
        "far": {"url": "https://a.example/mcp", "headers": {"Authorization": "Bearer x"}},
    }})  # fmt: skip
    found = imported(text, {**COMMON, "network": True})
    assert [(before, one.name, one.command, one.network) for before, one in found] == [
        ("Git Hub", "git-hub", ("npx", "-y", "pkg"), True), ("far", "far", (), True),
    ]  # fmt: skip
    assert found[0][1].environment == {"TOKEN": "x"}
    assert found[1][1].headers == {"Authorization": "Bearer x"}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"mcpServers": 3}', '{"mcpServers": {"a": 3}}', '{"mcpServers": {"a": {}}}',
     '{"mcpServers": {"a": {"command": "x", "args": "y"}}}', '{"mcpServers": {"a": {"command": "x", "args": [1]}}}',
     '{"mcpServers": {"!!": {"command": "x"}}}', "[" * 100_000],
)  # fmt: skip
def test_what_is_not_of_that_form_is_refused(text: str) -> None:
    with pytest.raises(RoostError):
        imported(text, COMMON)


def test_every_kind_of_error_has_its_words() -> None:
    for document in ("[", "{}", "[3]", '[{"name": "A"}]', '[{"name": "a"}]', '[{"name": "a", "owner": "b", "url": 3}]'):
        with pytest.raises(ValidationError) as wrong:
            SERVERS.validate_json(document)
        assert wrong.value.errors()[0]["type"] in WRONG
        assert "right kind" not in said(wrong.value)
        assert "should" not in said(wrong.value)


def test_a_damaged_file_is_told_without_its_values(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text('[{"name": "x", "owner": "a", "command": ["y"], "environment": {"a b": "heliotrope"}}]')
    with pytest.raises(RoostError, match="cannot be read") as refused:
        McpServers(file).all()
    assert "heliotrope" not in str(refused.value)
