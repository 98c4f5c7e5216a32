"""How fast a download goes, and when it will be done."""

from __future__ import annotations

import pytest

from roost.ops.rate import MEBIBYTE, WINDOW_S, Rate, duration


def test_rate_and_time_left() -> None:
    rate = Rate(10 * MEBIBYTE, 100.0)
    assert rate.line(110 * MEBIBYTE) == "Downloaded 10 of 110 MiB, 0.0 MiB/s"
    rate.note(20 * MEBIBYTE, 105.0)
    assert rate.per_second == 2 * MEBIBYTE
    assert rate.line(110 * MEBIBYTE) == "Downloaded 20 of 110 MiB, 2.0 MiB/s, 45 s left"
    assert rate.line(None) == "Downloaded 20 MiB, 2.0 MiB/s"


def test_only_the_last_seconds_count() -> None:
    rate = Rate(0, 0.0)
    for second in range(1, 101):
        rate.note(second * MEBIBYTE, float(second))
    for second in range(101, 101 + int(WINDOW_S)):
        rate.note(100 * MEBIBYTE, float(second))
    assert rate.per_second == 0.0
    assert len(rate.seen) <= WINDOW_S + 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "2 h 0 min"), (12000, "3 h 20 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
