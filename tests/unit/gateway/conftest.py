"""What tests of the gateway share."""

from __future__ import annotations

import time

import pytest

DAY_S = 86400.0


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it be noon of this UTC day by `time.time`: no day ends, with its budgets and sums, while the test runs."""
    real = time.time
    to_noon_s = DAY_S / 2 - real() % DAY_S
    monkeypatch.setattr(time, "time", lambda: real() + to_noon_s)
