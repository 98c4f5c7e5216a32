"""What happens to a request, noted with its time while it runs: a few tuples, of which spans are made afterwards."""

from __future__ import annotations

from typing import NamedTuple

ADMITTED = "admitted"  # its key may send it now
SEATED = "seated"  # its key has a place for it
ATTEMPT = "attempt"  # a model server gets it
LOST = "lost"  # that one did not answer; another attempt follows, or an error


class Mark(NamedTuple):
    """One moment. `at` is of `time.perf_counter`; `span` is the id that an attempt has in its trace."""

    at: float
    what: str
    endpoint: str = ""
    reason: str = ""
    span: str = ""
    model: str = ""
