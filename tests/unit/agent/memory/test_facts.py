"""What may be remembered: secrets are refused, private things marked, everything else is kept as it was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.agent.memory.facts import MOST_CHARACTERS, RefusedError, checked, private_in, sameness, secret_in
from roost.agent.memory.store import any_word

SECRETS = [
    ("The key is roost-0123456789abcdefghijABCDEFGHIJ", "a key"),
    ("sk-abcdefghijklmnopqrstuvwx is for the API", "a key"),
    ("Authorization: Bearer abcdef", "a key"),
    ("-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXk", "a key"),
    ("ghp_0123456789abcdefghijABCD", "a key"),
    ("AKIAIOSFODNN7EXAMPLE", "a key"),
    ("My password is hunter2", "a password"),
    ("password: correcthorse", "a password"),
    ("the wifi passphrase = letmein", "a password"),
    ("the PIN is 4711", "a password"),
    ("My card is 4111 1111 1111 1111", "a card number"),
]


@pytest.mark.parametrize(("text", "what"), SECRETS)
def test_secrets_are_refused_and_not_repeated(text: str, what: str) -> None:
    assert secret_in(text) == what
    with pytest.raises(RefusedError, match=what) as refused:
        checked(text)
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "The dog is called Rex", "The password is on the fridge", "We meet at 10:30", "Build 4111111111111112 failed",
        "The basic idea is simple", "The secret of good bread is time",
    ],
)  # fmt: skip
def test_what_is_no_secret_is_kept(text: str) -> None:
    assert checked(f"  {text}\n") == text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Write to ann@example.org", "a mail address"), ("Her number is +49 30 1234567", "a telephone number"),
        ("IBAN DE89 3704 0044 0532 0130 00", "an account"), ("He is allergic to nuts", "health"),
        ("She lives at 5 Mill Lane", "a home address"), ("His salary went up", "money"), ("Tea is better", ""),
        ("The release of 2026-11-26 has 3981 tests", ""),
    ],
)  # fmt: skip
def test_private_things_are_known(text: str, what: str) -> None:
    assert private_in(text) == what


@pytest.mark.parametrize("text", ["", " \n", "x" * (MOST_CHARACTERS + 1), "a\x00b", "\ud800"])
def test_what_is_no_fact_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        checked(text)


@given(st.text(max_size=200))
def test_any_text_is_kept_whole_or_refused_and_any_question_is_a_query(text: str) -> None:
    try:
        kept = checked(text)
    except RefusedError:
        return
    assert kept.split() == text.split()
    assert sameness(kept) == sameness(kept.upper().lower()) or kept.upper().lower() != kept.lower()
    assert '""' not in any_word(text)
