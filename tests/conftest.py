"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Hear Ctrl-C, and let programs under test hear it, where whoever started the tests made them deaf to it.

    Shells start background jobs with SIGINT ignored, and what is ignored stays so in every program started from there.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
