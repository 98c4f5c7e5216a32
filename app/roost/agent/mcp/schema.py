"""What somebody else's tool says of itself, as it may stand before a model: bounded, and marked as not ours.

Its description is text of strangers: one line, short, with whose it is before it. Its schema becomes a part of the
grammar for all tools, and one that a model server cannot read would silence them all: what is not of a small known
subset of JSON Schema is left out, for the server checks its own arguments. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence

from pydantic import JsonValue

MOST_DESCRIPTION = 300
MOST_HINT = 120
"""Characters of a tool's, and of an argument's description."""
MOST_SCHEMA_BYTES = 6_000
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
    name = f"mcp__{server.replace('-', '_')}__{plain}"
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
    found = _reduced(schema, schema, 0)
    properties = found.get("properties")
    result: Schema = {
        "type": "object", "properties": properties if isinstance(properties, dict) else {},
        "required": found.get("required", []), "additionalProperties": False,
    }  # fmt: skip
    needed = schema.get("required")
    if isinstance(needed, list) and len(needed) > len(_list(result["required"])):
        return None  # it asks for an argument that cannot be given
    return result if len(json.dumps(result)) <= MOST_SCHEMA_BYTES else None


def _reduced(schema: object, root: Mapping[str, object], depth: int) -> Schema:
    """Return a schema, or {} (anything) for what is not known."""
    if not isinstance(schema, Mapping) or depth > MOST_DEPTH:
        return {}
    if isinstance(reference := schema.get("$ref"), str):
        return _reduced(_resolved(reference, root), root, depth + 1)
    whole = schema.get("allOf")
    if isinstance(whole, list) and len(whole) == 1:
        return _reduced(whole[0], root, depth + 1)
    about: Schema = {}
    if isinstance(description := schema.get("description"), str) and depth:
        about["description"] = one_line(description, MOST_HINT)
    variants = _variants(schema)
    if variants:
        return {**about, "anyOf": [_reduced(one, root, depth + 1) for one in variants]}
    if choices := _choices(schema):
        return {**about, "enum": choices}
    return about | _typed(schema, root, depth)


def _variants(schema: Mapping[str, object]) -> Sequence[object]:
    """Return the schemas of which one has to fit; a list of types is one of each."""
    given = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(given, list):
        return given if len(given) <= MOST_VARIANTS else ()
    kinds = [one for one in _list(schema.get("type")) if isinstance(one, str) and one in TYPES]
    return [{**schema, "type": one} for one in kinds]


def _typed(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> Schema:
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return {}
    found: Schema = {"type": kind}
    if kind == "array":
        found["items"] = _reduced(schema.get("items", {}), root, depth + 1)
    return found | (_members(schema, root, depth) if kind == "object" else {})


def _members(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> Schema:
    given, needed = schema.get("properties"), schema.get("required")
    if not isinstance(given, Mapping):
        return {}
    required = [name for name in _list(needed) if isinstance(name, str)]
    names = [name for name in given if isinstance(name, str) and KEY.fullmatch(name)]
    kept = sorted(names, key=lambda name: name not in required)[:MOST_PROPERTIES]
    properties: dict[str, JsonValue] = {name: _reduced(given[name], root, depth + 1) for name in kept}
    must: list[JsonValue] = [name for name in dict.fromkeys(required) if name in properties]
    return {"properties": properties, "required": must, "additionalProperties": False}


def _choices(schema: Mapping[str, object]) -> list[JsonValue]:
    """Return the values that an argument may have, if it is one of a few short ones."""
    values = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
    fine = all(value is None or isinstance(value, str | bool | int | float) for value in values)
    if not fine or len(values) > MOST_CHOICES or any(len(str(value)) > MOST_HINT for value in values):
        return []
    return [value for value in values if value is None or isinstance(value, str | bool | int | float)]


def _resolved(reference: str, root: Mapping[str, object]) -> object:
    """Return what a reference within the document names (RFC 6901); nothing is ever fetched."""
    if not reference.startswith("#/"):
        return {}
    found: object = root
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []
