"""Ports, and waiting for something to become true."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable

STEP_S = 0.02


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until(true: Callable[[], bool], timeout_s: float, what: str, step_s: float = STEP_S) -> None:
    """Return as soon as `true()`, asked every `step_s` seconds; fail after `timeout_s` seconds."""
    end = time.monotonic() + timeout_s
    never = threading.Event()
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        never.wait(step_s)


async def eventually(true: Callable[[], bool | Awaitable[bool]], timeout_s: float, what: str) -> None:
    """Like `wait_until`, on the event loop; `true` may be a coroutine function."""
    never = asyncio.Event()
    end = time.monotonic() + timeout_s
    while True:
        result = true()
        if result if isinstance(result, bool) else await result:
            return
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        try:
            await asyncio.wait_for(never.wait(), STEP_S)
        except TimeoutError:
            continue
