"""What is left of a foreign tool's words: bounded, known, and always a schema that can stand in a grammar."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.agent.calls import check
from roost.agent.mcp.connection import Listed
from roost.agent.mcp.schema import MOST_DESCRIPTION, MOST_SCHEMA_BYTES, described, reduced, spec_name
from roost.agent.mcp.servers import McpServer
from roost.agent.mcp.tools import spec_of
from tests.support.mcp_hostile import SCHEMAS

KNOWN = {"type", "properties", "required", "items", "anyOf", "enum", "description", "additionalProperties"}
SERVER = McpServer(name="s", owner="anna", command=("x",))

schemas: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.text(max_size=20) | st.integers(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["type", "properties", "items", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "required",
                         "a", "b", "pattern", "description", "definitions"]), inner, max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


def words_of(schema: object, names: bool = False) -> set[str]:
    if isinstance(schema, list):
        return {word for one in schema for word in words_of(one)}
    if not isinstance(schema, dict):
        return set()
    found = set() if names else set(schema)
    for key, value in schema.items():
        found |= words_of(value, names=not names and key == "properties") if key != "enum" else set()
    return found


@given(schemas)
def test_whatever_it_says_only_known_words_are_left_within_bounds(schema: object) -> None:
    found = reduced(schema if isinstance(schema, dict) else {"type": schema})
    if found is None:
        return
    assert found["type"] == "object"
    assert words_of(found) <= KNOWN
    assert len(json.dumps(found)) <= MOST_SCHEMA_BYTES
    assert isinstance(found["required"], list)
    assert isinstance(found["properties"], dict)
    assert set(map(str, found["required"])) <= set(found["properties"])


USUAL: dict[str, Any] = {
    "at": {"$ref": "#/$defs/place"},
    "unit": {"enum": ["m", "ft"], "default": "m"},
    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 100_000},
    "limit": {"type": ["integer", "null"]},
    "one": {"allOf": [{"type": "boolean"}]},
    "kind": {"const": "x"},
    "text": {"type": "string", "description": "a\nb"},
}
KEPT: dict[str, Any] = {
    "at": {
        "type": "object", "properties": {"lat": {"type": "number"}}, "required": [], "additionalProperties": False
    },
    "unit": {"enum": ["m", "ft"]},
    "tags": {"type": "array", "items": {"type": "string"}},
    "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "one": {"type": "boolean"},
    "kind": {"enum": ["x"]},
    "text": {"type": "string", "description": "a b"},
}  # fmt: skip


def test_what_is_usual_is_kept() -> None:
    place = {"type": "object", "properties": {"lat": {"type": "number", "minimum": -90}}}
    found = reduced({"type": "object", "$defs": {"place": place}, "properties": USUAL, "required": ["at"]})
    assert found == {"type": "object", "additionalProperties": False, "required": ["at"], "properties": KEPT}
    call = check("t", {"at": {"lat": 1}, "limit": 3}, {"t": found}, "test")
    assert call.arguments == {"at": {"lat": 1}, "limit": 3}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_hostile_schemas_are_bounded_or_left_out(kind: str) -> None:
    began = time.process_time()
    found = reduced({"type": "object", **SCHEMAS[kind]})
    assert time.process_time() - began < 1.0
    if kind == "large":
        assert found is not None
        assert len(json.dumps(found)) <= MOST_SCHEMA_BYTES
    assert "pattern" not in json.dumps(found)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**5000, 10**400, 1 << 63, "x" * 200], ids=range(6))
def test_a_choice_that_not_every_reader_of_json_takes_is_left_out(value: object) -> None:
    found = reduced({"type": "object", "properties": {"a": {"enum": [1, value]}}})
    assert found is None or found["properties"] == {"a": {}}


def test_a_tool_whose_needed_argument_cannot_be_given_is_left_out() -> None:
    many = {f"p{n}": {"type": "string"} for n in range(40)}
    assert reduced({"type": "object", "properties": many, "required": list(many)}) is None
    assert reduced({"type": "object", "properties": {"a\n b": {}}, "required": ["a\n b"]}) is None


@given(st.text(max_size=300), st.text(max_size=3000))
def test_names_and_descriptions_are_ours_in_form(tool: str, words: str) -> None:
    found = spec_of(SERVER, Listed(tool, words, {"type": "object"}))
    assert found is not None
    assert found.name.startswith("mcp__s__")
    assert "\n" not in found.description
    assert "not Roost's" in found.description
    assert len(found.description) <= MOST_DESCRIPTION + 200
    assert found.description.isprintable()
    assert found.description.count('"') <= 2  # its words do not end before their end


def test_two_tools_never_have_one_name() -> None:
    taken: set[str] = set()
    for tool in ("a b", "a-b", "a_b", "A.B", "n" * 200, "n" * 201):
        name = spec_name("srv-1", tool, taken)
        assert name not in taken
        assert len(name) <= 64
        taken.add(name)
    assert spec_name("srv-1", "a b") == "mcp__srv_1__a_b"
    assert described("s", "t", None).endswith("says nothing of it.")
