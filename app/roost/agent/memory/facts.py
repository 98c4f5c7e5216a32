"""Facts as plain data, what may not be remembered, and what is only given to who asks for it. Nothing here has effects.

A secret is refused: what is remembered is read by models and lies in backups. What is private (an address, a diagnosis,
an account) is marked: it is never put before a model unasked, but a search finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from roost.ops.errors import RoostError

MOST_CHARACTERS = 1000
MOST_SOURCE_CHARACTERS = 80
MOST_IDS = 1000
"""Facts that one request names."""
REFUSED = 7
USER, SAID, AGENT = "user", "said", "agent"
"""Sources: a user's own hand; what a user asked for, in a conversation, in these words; what a model kept by itself,
which may be the text of a page or a file, and is never shown as if it were the user's."""


class Kind(StrEnum):
    """What a fact is for. Only users make profiles and instructions: what a model writes is never an instruction."""

    FACT = "fact"
    PROFILE = "profile"
    """About who asks: shown to the model in every conversation, as far as there is room."""
    INSTRUCTION = "instruction"
    """How to begin: what is to hold in every conversation."""


@dataclass(frozen=True)
class Fact:
    """One fact. `at` is ISO 8601, UTC; `session` is the conversation that it is from, '' for none."""

    id: str
    text: str
    kind: Kind
    source: str
    session: str
    at: str
    sensitive: bool


class RefusedError(RoostError):
    """A text may not be remembered."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix=fix, exit_code=REFUSED)


PASSWORD = re.compile(
    r"\b(?:pass(?:word|wd|phrase|code)|pwd|pin|secret|token|kennwort|passwort)\b[^.:=\n]{0,20}"
    r"(?:[:=]\s*\S{4,}|\bis\s+[\"'`]?(?=\S*[\d!@#$%^&*_+=])\S{4,})",
    re.IGNORECASE,
)
KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|\broost-[A-Za-z0-9_-]{20,}|\bsk-[A-Za-z0-9_-]{16,}|\beyJ[\w-]+\.[\w-]+\.[\w-]+"
    r"|\b(?i:bearer)\s+(?=\S*\d)[\w.~+/-]{6,}|(?i:api[-_ ]?key|authorization)[\"']?\s*(?:[:=]|\bis\b)\s*\S{6,}"
)
"""Private keys; keys of common services by how they begin; headers that hold one."""
CARD = re.compile(r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)")
PRIVATE: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("a mail address", r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w"),
        ("an account", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,4})?\b"),
        ("a telephone number", r"(?<![\w.])\+?\d(?:[ /()-]{0,2}\d){8,14}(?![\w.])"),
        ("an official number", r"\b(?:passport|social security|tax|insurance|id card)\s+(?:number|no|id)\b"),
        ("health", r"\b(?:diagnos\w+|allerg\w+|medication|pregnan\w+|illness|disease|therap\w+|disabilit\w+)\b"),
        ("belief or origin", r"\b(?:religio\w+|ethnic\w*|political views?|sexual\w*|trade union)\b"),
        ("money", r"\b(?:salary|income|debts?|earns?)\b"),
        ("a birthday", r"\b(?:born on|birthday|date of birth)\b"),
        ("a home address", r"\b(?:lives? at|home address|address is)\b"),
    )
)


def checked(text: str) -> str:
    """Return a text as it is kept: one line, without blanks at its ends.

    Raises:
        RefusedError: it is empty, too long, or holds what looks like a secret.
    """
    plain = " ".join(text.split())
    if not plain:
        raise RefusedError("There is nothing to remember.", "Say what.")
    if len(plain) > MOST_CHARACTERS:
        raise RefusedError(
            f"A fact has at most {MOST_CHARACTERS} characters, this has {len(plain)}.", "Make several of it, or a file."
        )
    if any("\ud800" <= letter <= "\udfff" or (letter < " " and letter != "\t") for letter in plain):
        raise RefusedError("A fact is readable text.", "Leave out control characters.")
    if what := secret_in(plain):
        raise RefusedError(
            f"It holds what looks like {what}: that is not remembered.", "Keep secrets in a password manager."
        )
    return plain


def secret_in(text: str) -> str:
    """Return what kind of secret a text seems to hold, '' for none."""
    if KEY.search(text):
        return "a key"
    if PASSWORD.search(text):
        return "a password"
    if any(_is_card("".join(filter(str.isdigit, found.group()))) for found in CARD.finditer(text)):
        return "a card number"
    return ""


def private_in(text: str) -> str:
    """Return what is private in a text, '' for nothing that is known."""
    return next((name for name, pattern in PRIVATE if pattern.search(text)), "")


def sameness(text: str) -> str:
    """Return what two facts have in common that say the same in the same words."""
    return " ".join(text.casefold().split()).rstrip(".!")


def quoted(facts: Iterable[Fact]) -> list[str]:
    """Return facts that a model kept by itself: quoted, with where they are from."""
    return [f"- {json.dumps(fact.text, ensure_ascii=False)} ({fact.source}, {fact.at[:10]})" for fact in facts]


def as_lines(facts: Iterable[Fact]) -> list[str]:
    """Return facts as a model reads them: what, and since when it is known."""
    return [f"- {fact.text} ({fact.at[:10]})" for fact in facts]


def _is_card(digits: str) -> bool:
    """Say whether digits pass the check of card numbers (Luhn, ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return len(set(digits)) > 1 and total % 10 == 0
