"""How a token is written and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.join.token import PREFIX, Token
from roost.ops.errors import RoostError


@given(st.binary(min_size=1, max_size=300), st.integers(1, 65535))
def test_it_is_read_as_it_was_written(authority: bytes, port: int) -> None:
    token = Token.new(authority, port)
    assert Token.read(f"  {token}\n") == token
    assert str(token).startswith(PREFIX)


@given(st.integers(0), st.sampled_from("ABCxyz019-_"))
def test_a_slip_is_told_before_anybody_is_asked(place: int, letter: str) -> None:
    text = str(Token.new(b"authority", 8466))
    at = len(PREFIX) + place % (len(text) - len(PREFIX) - 1)  # the last letter has bits that say nothing
    if text[at] == letter:
        return
    with pytest.raises(RoostError, match="not the whole of one"):
        Token.read(text[:at] + letter + text[at + 1 :])


@pytest.mark.parametrize("text", ["", "roost-join-", "roost-join-AAAA", "nonsense", "roost-join-äöü"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(RoostError, match="no join token") as caught:
        Token.read(text)
    assert caught.value.exit_code == 2


def test_two_tokens_are_never_the_same() -> None:
    assert len({str(Token.new(b"authority", 8466)) for _ in range(100)}) == 100
