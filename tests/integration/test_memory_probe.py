"""The memory probe on this machine: it starts processes and ends them."""

from __future__ import annotations

import time

from roost.hosts.bandwidth import START_TIMEOUT_S, probe


def test_probe() -> None:
    start = time.monotonic()
    found = probe(2, 0, 4096, seconds=0.1)
    assert found.processes == 2
    assert 0.1 < found.gbs < 10_000
    assert 0.1 <= found.seconds < START_TIMEOUT_S
    assert time.monotonic() - start < START_TIMEOUT_S
    assert found.measured.startswith("2 processes copying 64 MiB")
