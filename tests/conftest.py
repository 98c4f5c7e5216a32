"""What holds for every test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Examples are the same in every run, so that a change breaks a test and not the day; `tests/run full` searches on with
# new ones (--hypothesis-profile search). No deadline: a machine that is busy makes no example wrong.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Hear Ctrl-C, and let programs under test hear it, where whoever started the tests made them deaf to it.

    Shells start background jobs with SIGINT ignored, and what is ignored stays so in every program started from there.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _loopback_is_behind_no_proxy() -> Iterator[None]:
    """Where this machine has a proxy, downloads need it; what the tests start on loopback it cannot reach."""
    with pytest.MonkeyPatch.context() as patch:
        if any(name.lower().endswith("_proxy") for name in os.environ):
            given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
            for name in ("no_proxy", "NO_PROXY"):
                patch.setenv(name, ",".join(filter(None, (given, "localhost", "127.0.0.1"))))
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Take away what a test had log: a handler on a stream that is closed by then would write into the next test's."""
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access")]
    kept = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in kept:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
