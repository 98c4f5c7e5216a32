"""Sessions of the page: what is kept of them, and when they are over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.web import sealing
from roost.web.sessions import FILE, LONGEST_S, MOST, MOST_OF_A_KEY, SKEW_S, Sessions

HOUR = 3600.0
KEY = "roost-a-key"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@given(st.text(min_size=0, max_size=200), st.integers(min_value=0))
def test_what_is_sealed_opens_with_its_token_only_and_unaltered(secret: str, position: int) -> None:
    token = sealing.new_token()
    sealed = sealing.seal(token, secret)
    assert sealing.unseal(token, sealed) == secret
    if len(secret) > 8:
        assert secret not in sealed
    with pytest.raises(ValueError, match="does not open"):
        sealing.unseal(sealing.new_token(), sealed)
    broken = bytearray(sealed.encode())
    at = position % (len(broken) - 4)
    broken[at] = ord("B") if broken[at] == ord("A") else ord("A")
    with pytest.raises(ValueError, match="does not open"):
        sealing.unseal(token, broken.decode())


def test_what_is_derived_of_a_token_is_of_no_use_for_another_purpose() -> None:
    token = sealing.new_token()
    assert len({sealing.name_of(token), sealing.form_token_of(token), token}) == 3


async def test_a_session_ends_when_it_was_not_used_and_at_its_longest(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, HOUR, clock)
    opened = await sessions.begin(KEY)
    clock.now += HOUR - 1
    assert sessions.find(opened.token)
    clock.now += 1
    assert sessions.find(opened.token) is None
    opened = await sessions.begin(KEY)
    began = clock.now
    while (found := sessions.find(opened.token)) is not None:
        await sessions.renew(found)
        clock.now += HOUR * 0.6
    assert LONGEST_S <= clock.now - began < LONGEST_S + HOUR


async def test_sessions_survive_a_restart_and_their_file_holds_neither_key_nor_token(tmp_path: Path) -> None:
    clock = Clock()
    opened = await Sessions(tmp_path, HOUR, clock).begin(KEY)
    text = (tmp_path / FILE).read_text()
    assert KEY not in text
    assert opened.token not in text
    assert opened.form_token not in text
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    again = Sessions(tmp_path, HOUR, clock)
    found = again.find(opened.token)
    assert found is not None
    assert (found.secret, found.form_token) == (KEY, opened.form_token)
    await again.end(found)
    assert Sessions(tmp_path, HOUR, clock).find(opened.token) is None


async def test_a_file_that_is_broken_or_altered_ends_sessions_and_nothing_else(tmp_path: Path) -> None:
    clock = Clock()
    opened = await Sessions(tmp_path, HOUR, clock).begin(KEY)
    document = json.loads((tmp_path / FILE).read_text())
    document["sessions"][0]["sealed"] = sealing.seal(sealing.new_token(), "another key")
    (tmp_path / FILE).write_text(json.dumps(document))
    assert Sessions(tmp_path, HOUR, clock).find(opened.token) is None
    (tmp_path / FILE).write_text("{")
    assert len(Sessions(tmp_path, HOUR, clock)) == 0


async def test_a_clock_that_is_set_back_a_little_ends_no_session_and_one_that_was_wrong_does(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, HOUR, clock)
    opened = await sessions.begin(KEY)
    clock.now -= SKEW_S
    assert sessions.find(opened.token)
    clock.now -= 1
    assert sessions.find(opened.token) is None


async def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    sessions = Sessions(folder, HOUR)
    folder.rmdir()
    opened = await sessions.begin(KEY)
    assert sessions.find(opened.token)


async def test_the_number_of_sessions_is_bounded() -> None:
    sessions = Sessions(None, HOUR)
    first = await sessions.begin(KEY)
    other = await sessions.begin("another")
    for _ in range(MOST_OF_A_KEY):
        await sessions.begin(KEY)
    assert len(sessions) == MOST_OF_A_KEY + 1
    assert sessions.find(first.token) is None
    assert sessions.find(other.token)
    for number in range(MOST + 5):
        await sessions.begin(f"key {number}")
    assert len(sessions) == MOST


async def test_all_sessions_of_a_key_end_together() -> None:
    sessions = Sessions(None, HOUR)
    mine, also, other = await sessions.begin(KEY), await sessions.begin(KEY), await sessions.begin("another")
    assert await sessions.end_all_of(mine) == 2
    assert sessions.find(also.token) is None
    assert sessions.find(other.token)
