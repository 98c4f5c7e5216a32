"""When a server that refused is asked again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.ops.retry import ATTEMPTS, FIRST_WAIT_S, LONGEST_ASKED_S, LONGEST_WAIT_S, asked_wait_s, wait_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": " 17 "}, 17),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:35 GMT"}, 30),
        ({"Retry-After": "Fri, 02 Jan 2026 03:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "-3"}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=10;t=55'}, 0),
        ({"Retry-After": "3", "RateLimit": '"api";r=0;t=55'}, 3),
    ],
)
def test_what_a_server_asks_for(headers: dict[str, str], seconds: float) -> None:
    assert asked_wait_s(headers, NOW) == seconds


@given(st.integers(1, ATTEMPTS - 1), st.floats(0, LONGEST_ASKED_S), st.floats(0, 1))
def test_waits_are_bounded_and_no_shorter_than_asked(attempt: int, asked: float, chance: float) -> None:
    delay = wait_s(attempt, asked, chance)
    assert delay is not None
    assert asked + FIRST_WAIT_S / 2 <= delay <= asked + LONGEST_WAIT_S


def test_waits_grow_and_end() -> None:
    waits = [wait_s(attempt, 0, 1) for attempt in range(1, ATTEMPTS + 1)]
    assert waits == [1, 2, 4, 8, 16, None]
    assert wait_s(1, LONGEST_ASKED_S + 1, 0) is None
    assert wait_s(1, 0, 0) == 0.5
