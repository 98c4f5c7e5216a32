"""How many examples a costly property test takes."""

from __future__ import annotations

from hypothesis import settings

MORE = 5  # times as many in `tests/run full`, whose profile draws new ones


def examples(count: int) -> settings:
    """Return the settings of a test that takes `count` examples in the fast run, and more of them in the full one."""
    searches = not settings().derandomize
    return settings(max_examples=count * MORE if searches else count)
