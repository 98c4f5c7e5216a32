"""What is wrong with a document, without a word of pydantic's and without a regular expression."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from roost.ops.validation import ANY_FORM, form, in_words

ROOT = Path(__file__).parents[3]
PATTERN = re.compile(r"pattern=\s*r?f?\"([^\"]+)\"|^[A-Z_0-9]+ = r\"(\^[^\"]+\$)\"", re.MULTILINE)


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] = "a"
    port: int = Field(default=1, le=65535)
    mode: Literal["fast", "max"] = "fast"
    on: bool = True
    inner: list[dict[str, int]] = Field(default_factory=list)
    text: str = Field(default="", max_length=3)

    @field_validator("text")
    @classmethod
    def said(cls, text: str) -> str:
        if text == "no":
            raise ValueError("no is no text")
        return text


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"name": "A B"},
            "name: should be made of a-z, 0-9, ., _, -, beginning with one of a-z, 0-9, 63 characters at most",
        ),
        ({"port": 99999}, "port: should be less than or equal to 65535"),
        ({"port": "x"}, "port: should be a whole number"),
        ({"mode": "slow"}, "mode: should be 'fast' or 'max'"),
        ({"on": "perhaps"}, "on: should be true or false"),
        ({"inner": [{"a": "x"}]}, "inner.0.a: should be a whole number"),
        ({"inner": {}}, "inner: should be a list"),
        ({"text": "long"}, "text: should have 3 characters at most"),
        ({"text": "no"}, "text: no is no text"),
        ({"nope": 1}, "nope: is not known"),
    ],
)
def test_it_says_where_and_what_in_plain_words(document: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(document)
    assert in_words(caught.value) == words


def test_the_whole_document_has_no_place() -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate_json("{")
    assert in_words(caught.value).lower().startswith("invalid json")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"^[0-9a-f]{64}$", "should be 64 characters of 0-9, a-f"),
        (r"^(https?://[^\s/@]+(/[^\s@]*)?)?$", "should be a URL, http://… or https://…"),
        (r"^([a-z0-9][a-z0-9._-]{0,62})?$", "should be made of a-z, 0-9, ., _, -, beginning with one of a-z, 0-9, 63"),
        (r"(?i)odd|even", ANY_FORM),
    ],
)
def test_a_regular_expression_becomes_words(pattern: str, words: str) -> None:
    assert form(pattern).startswith(words)


def test_every_pattern_of_a_field_has_words() -> None:
    found = {
        one
        for path in (ROOT / "app/roost").rglob("*.py")
        for groups in PATTERN.findall(path.read_text())
        if (one := next(filter(None, groups), "")).startswith("^") and "Field(" in path.read_text()
    }
    assert len(found) > 10
    unclear = {one for one in found if form(one) == ANY_FORM and "{NAME" not in one}
    # of a repository's name and of an owner's, in two parts
    assert all("/" in one or "!" in one for one in unclear), unclear


def test_pydantics_own_words_go_to_no_user_from_elsewhere() -> None:
    raw = re.compile(r"\[['\"]msg['\"]\]|\{error\.errors|str\(error\.errors")
    places = [p for p in (ROOT / "app/roost").rglob("*.py") if raw.search(p.read_text())]
    # the module itself; the body's JSON, in pydantic's words for syntax; and a program that has nothing of ours
    allowed = {"ops/validation.py", "gateway/request/requests.py", "engines/llama_cpp_python_server.py"}
    assert {str(p.relative_to(ROOT / "app/roost")) for p in places} <= allowed
