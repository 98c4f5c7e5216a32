"""What pydantic found wrong, in plain words: no word of pydantic's, no regular expression, and no value, which may be
a secret. All that reaches a user of a ValidationError goes through here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Item = Mapping[str, Any]


class Errors(Protocol):
    """Pydantic's ValidationError, or FastAPI's RequestValidationError."""

    def errors(self) -> Sequence[Any]:
        """Return each mistake: its `type`, `loc`, `msg` and `ctx`."""
        ...


WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "string_type": "should be a text",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "dict_type": "should be a mapping",
    "model_type": "should be a mapping",
    "model_attributes_type": "should be a mapping",
    "dataclass_type": "should be a mapping",
}
OWN = "Value error, ", "Assertion failed, "
"""What pydantic puts before a sentence of ours."""
# Two classes of characters, the first for one character; or one class, so often.
BEGINS = re.compile(r"\^?\(?\[(?P<first>[^\]^]+)\]\[(?P<rest>[^\]^]+)\](?:\{0,(?P<most>\d+)\}|\*)(?P<maybe>\)\?)?\$?")
OF_ONE = re.compile(r"\^?\[(?P<all>[^\]^]+)\](?:\{(?P<count>\d+)\}|[+*])\$?")
ANY_FORM = "is not written as it should be"


def problem(item: Item) -> str:
    """Return what is wrong with one thing, as what follows its name."""
    kind, context = str(item["type"]), item.get("ctx") or {}
    if kind in WORDS:
        return WORDS[kind]
    if kind == "string_pattern_mismatch":
        return form(str(context.get("pattern", "")))
    if kind == "string_too_long":
        return f"should have {context.get('max_length')} characters at most"
    if kind == "string_too_short":
        return f"should have {context.get('min_length')} characters or more"
    said = str(item["msg"])
    for prefix in OWN:
        said = said.removeprefix(prefix)
    return said.removeprefix("Input ").rstrip(".")


def form(pattern: str) -> str:
    """Return what a regular expression of the usual kinds wants, in words; of another kind only that it is not met."""
    if "https?://" in pattern:
        return "should be a URL, http://… or https://…"
    if found := BEGINS.fullmatch(pattern):
        most = f", {int(found['most']) + 1} characters at most" if found["most"] else ""
        same = found["first"] == found["rest"]
        rest = "" if same else f", beginning with one of {_characters(found['first'])}"
        return f"should be made of {_characters(found['rest'])}{rest}{most}"
    if found := OF_ONE.fullmatch(pattern):
        count = f" be {found['count']} characters of" if found["count"] else " be made of"
        return f"should{count} {_characters(found['all'])}"
    return ANY_FORM


def place(item: Item, *, beyond: int = 0) -> str:
    """Return where in a document it is, as `key.key`; '' for the whole. `beyond`: so many steps are left out."""
    return ".".join(str(part) for part in item["loc"][beyond:])


def in_words(error: Errors, *, beyond: int = 0) -> str:
    """Return the first thing that is wrong, with its place where it has one; no full stop."""
    first = error.errors()[0]
    where = place(first, beyond=beyond)
    return f"{where}: {problem(first)}" if where else problem(first)


def _characters(inside: str) -> str:
    """Return the inside of a class of characters as a list: `a-z0-9._-` is `a-z, 0-9, ., _, -`."""
    if inside == "!-~":
        return "visible ASCII characters"
    parts = re.findall(r"\w-\w|\\.|.", inside)
    words = {" ": "blanks", "\\s": "blanks"}
    return ", ".join(words.get(part, part.removeprefix("\\")) for part in parts)
