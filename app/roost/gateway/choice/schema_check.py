"""Whether a value is what a JSON schema asks for, as far as the schema says so in plain words. Pure.

Known are type, enum, const, required, properties, additionalProperties, items, anyOf, oneOf and allOf, as JSON Schema
2020-12 has them. What is not known asks for nothing, so that no good answer is refused for want of understanding.
"""

from __future__ import annotations

from collections.abc import Mapping

TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}
DEEPEST = 64  # levels; what lies deeper asks for nothing


def fits(value: object, schema: object, depth: int = 0) -> bool:
    """Say whether a value is what a schema asks for."""
    if schema is False:
        return False
    if not isinstance(schema, dict) or depth > DEEPEST:
        return True
    if "const" in schema and value != schema["const"]:
        return False
    if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
        return False
    return (
        _has_type(value, schema.get("type"))
        and _alternatives(value, schema, depth + 1)
        and _object(value, schema, depth + 1)
        and _array(value, schema, depth + 1)
    )


def _has_type(value: object, wanted: object) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = [name for name in names if isinstance(name, str) and name in TYPES]
    if not known or len(known) < len(names):
        return True
    return any(_is(value, name) for name in known)


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name])


def _alternatives(value: object, schema: Mapping[str, object], depth: int) -> bool:
    for name, enough in (("anyOf", any), ("oneOf", any), ("allOf", all)):
        inner = schema.get(name)
        if isinstance(inner, list) and inner and not enough(fits(value, one, depth) for one in inner):
            return False
    return True


def _object(value: object, schema: Mapping[str, object], depth: int) -> bool:
    if not isinstance(value, dict):
        return True
    required, properties = schema.get("required"), schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    if isinstance(required, list) and any(name not in value for name in required):
        return False
    if (
        schema.get("additionalProperties") is False
        and "patternProperties" not in schema
        and value.keys() - known.keys()
    ):
        return False
    return all(fits(value[name], inner, depth) for name, inner in known.items() if name in value)


def _array(value: object, schema: Mapping[str, object], depth: int) -> bool:
    items = schema.get("items")
    if not isinstance(value, list) or not isinstance(items, dict) or "prefixItems" in schema:
        return True
    return all(fits(one, items, depth) for one in value)
