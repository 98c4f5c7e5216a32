"""Ports, and waiting for something to become true."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable

STEP_S = 0.02
PATIENCE_S = 60.0  # at least: how long something takes is the machine's affair
# Below those that Linux gives to who asks for any port or connects, and that Nomad gives to jobs: nobody gets one of
# these by chance between the look at it and its use. Tests that run beside each other begin at different ones.
PORTS = range(10_000, 20_000)
TAKEN = frozenset({11434, 18372})  # Ollama's, and the tunnel's in docs/operations.md: may begin to listen later
_turns = itertools.count(os.getpid() * 6181)


def free_port() -> int:
    """Return a port that was free at all addresses of IPv4 a moment ago; each one only once before all had their turn.

    Raises:
        RuntimeError: there is none.
    """
    for _ in PORTS:
        port = PORTS[next(_turns) % len(PORTS)]
        if port not in TAKEN and _is_free(port):
            return port
    raise RuntimeError(f"no port of {PORTS.start} to {PORTS.stop - 1} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True


def wait_until(true: Callable[[], bool], timeout_s: float, what: str, step_s: float = STEP_S) -> None:
    """Return as soon as `true()`, asked every `step_s` seconds; fail after `timeout_s` s or more (`PATIENCE_S`)."""
    patience_s = max(timeout_s, PATIENCE_S)
    end = time.monotonic() + patience_s
    never = threading.Event()
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience_s:.0f} s for {what}")
        never.wait(step_s)


async def eventually(true: Callable[[], bool | Awaitable[bool]], timeout_s: float, what: str) -> None:
    """Like `wait_until`, on the event loop; `true` may be a coroutine function."""
    never = asyncio.Event()
    patience_s = max(timeout_s, PATIENCE_S)
    end = time.monotonic() + patience_s
    while True:
        result = true()
        if result if isinstance(result, bool) else await result:
            return
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience_s:.0f} s for {what}")
        try:
            await asyncio.wait_for(never.wait(), STEP_S)
        except TimeoutError:
            continue
