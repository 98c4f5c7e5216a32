"""What somebody else's tool says of itself, as it may stand before a model: bounded, and marked as not ours.

Its description is text of strangers: one line, short, with whose it is before it. Its schema becomes a part of the
grammar for all tools, and one that a model server cannot read would silence them all: what is not of a small known
subset of JSON Schema is left out, for the server checks its own arguments. Neither its size nor references that lead
back to it make this work for long: both are bounded before anything is looked at. Pure.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from roost.agent.foreign import PREFIX

MOST_DESCRIPTION = 300
MOST_HINT = 120
"""Characters of a tool's, and of an argument's description."""
MOST_SCHEMA_BYTES = 6_000
MOST_GIVEN_BYTES = 1 << 20
"""Of a schema as its server gives it."""
MOST_STEPS = 50_000
"""Schemas, names and values that are looked at for one tool: references let one be looked at many times."""
MOST_REFERENCE = 1_000
LARGEST_NUMBER = 1 << 63
MOST_DEPTH = 5
MOST_PROPERTIES = 24
MOST_CHOICES = 32
MOST_VARIANTS = 6
MOST_NAME = 64
TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$-]{0,63}")
Schema = dict[str, JsonValue]


def spec_name(server: str, tool: str, taken: Collection[str] = ()) -> str:
    """Return what a tool is called here: `mcp__SERVER__TOOL` in the letters that names of tools have, and not taken."""
    plain = re.sub(r"[^a-z0-9]+", "_", tool.lower()).strip("_") or "tool"
    name = f"{PREFIX}{server.replace('-', '_')}__{plain}"
    if len(name) > MOST_NAME or name in taken:
        mark = hashlib.sha256(tool.encode(errors="surrogatepass")).hexdigest()[:8]
        name = f"{name[: MOST_NAME - 9].rstrip('_')}_{mark}"
    return name


def one_line(text: str, most: int) -> str:
    """Return text of strangers as one short line without what is no letter, sign or space."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: most * 8]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def described(server: str, tool: str, description: str | None) -> str:
    """Return what a model reads of a tool."""
    words = one_line(description or "", MOST_DESCRIPTION).replace('"', "'")
    about = f' says of it: "{words}"' if words else " says nothing of it."
    return f"{one_line(tool, MOST_NAME)} of the MCP server {server}, which is not Roost's and{about}"


def reduced(schema: Mapping[str, object]) -> Schema | None:
    """Return a schema of arguments in the subset that is known; None where nothing useful is left of it."""
    try:
        if len(json.dumps(schema)) > MOST_GIVEN_BYTES:
            return None
        found = _Reduction(schema).of(schema, 0)
    except (ValueError, TypeError, RecursionError):  # of what JSON cannot hold, or too much of it
        return None
    properties = found.get("properties")
    result: Schema = {
        "type": "object", "properties": properties if isinstance(properties, dict) else {},
        "required": found.get("required", []), "additionalProperties": False,
    }  # fmt: skip
    needed = schema.get("required")
    if isinstance(needed, list) and len(needed) > len(_list(result["required"])):
        return None  # it asks for an argument that cannot be given
    return result if len(json.dumps(result)) <= MOST_SCHEMA_BYTES else None


class _TooMuchError(ValueError):
    """More would have to be looked at than is."""


@dataclass
class _Reduction:
    """Reduces the parts of one document."""

    root: Mapping[str, object]
    left: int = MOST_STEPS

    def of(self, schema: object, depth: int) -> Schema:
        """Return a schema, or {} (anything) for what is not known.

        Raises:
            _TooMuchError: it takes too many steps.
        """
        self._look_at(1)
        if not isinstance(schema, Mapping) or depth > MOST_DEPTH:
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            return self.of(_resolved(reference, self.root), depth + 1)
        whole = schema.get("allOf")
        if isinstance(whole, list) and len(whole) == 1:
            return self.of(whole[0], depth + 1)
        about: Schema = {}
        if isinstance(description := schema.get("description"), str) and depth:
            about["description"] = one_line(description, MOST_HINT)
        if variants := self._variants(schema):
            return {**about, "anyOf": [self.of(one, depth + 1) for one in variants]}
        if choices := _choices(schema):
            return {**about, "enum": choices}
        return about | self._typed(schema, depth)

    def _look_at(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _TooMuchError

    def _variants(self, schema: Mapping[str, object]) -> Sequence[object]:
        """Return the schemas of which one has to fit; a list of types is one of each."""
        given = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(given, list):
            return given if len(given) <= MOST_VARIANTS else ()
        types = _list(schema.get("type"))
        self._look_at(len(types))
        kinds = dict.fromkeys(one for one in types if isinstance(one, str) and one in TYPES)
        self._look_at(len(kinds) * len(schema))
        return [{**schema, "type": one} for one in kinds]

    def _typed(self, schema: Mapping[str, object], depth: int) -> Schema:
        kind = schema.get("type")
        if not isinstance(kind, str) or kind not in TYPES:
            return {}
        found: Schema = {"type": kind}
        if kind == "array":
            found["items"] = self.of(schema.get("items", {}), depth + 1)
        return found | (self._members(schema, depth) if kind == "object" else {})

    def _members(self, schema: Mapping[str, object], depth: int) -> Schema:
        given, needed = schema.get("properties"), _list(schema.get("required"))
        if not isinstance(given, Mapping):
            return {}
        self._look_at(len(given) + len(needed))
        required = dict.fromkeys(name for name in needed if isinstance(name, str))
        names = [name for name in given if isinstance(name, str) and KEY.fullmatch(name)]
        kept = sorted(names, key=lambda name: name not in required)[:MOST_PROPERTIES]
        properties: dict[str, JsonValue] = {name: self.of(given[name], depth + 1) for name in kept}
        must: list[JsonValue] = [name for name in required if name in properties]
        return {"properties": properties, "required": must, "additionalProperties": False}


def _choices(schema: Mapping[str, object]) -> list[JsonValue]:
    """Return the values that an argument may have, if it is one of a few short ones."""
    values = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
    if len(values) > MOST_CHOICES:
        return []
    found: list[JsonValue] = []
    for value in values:
        if not (value is None or isinstance(value, str | bool | int | float)) or not _is_short(value):
            return []
        found.append(value)
    return found


def _is_short(value: str | float | None) -> bool:
    """Say whether a value may stand in a schema: a short text, or a number that every reader of JSON takes."""
    if isinstance(value, str):
        return len(value) <= MOST_HINT
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or abs(value) < LARGEST_NUMBER


def _resolved(reference: str, root: Mapping[str, object]) -> object:
    """Return what a reference within the document names (RFC 6901); nothing is ever fetched."""
    if not reference.startswith("#/") or len(reference) > MOST_REFERENCE:
        return {}
    found: object = root
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []
