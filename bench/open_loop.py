"""Requests at random moments, whatever the answers do (open loop), and how late each answer was.

A loop of its own, for two reasons. The timers of uvloop and of asyncio's selectors are whole milliseconds: at some
thousand requests a second what was to come at random moments came in heaps of several, and waited for one another. And
an event loop needs a task and a future for each request; when thousands of them were kept, Python's garbage collector
went through all of them again and again, up to 95 ms at a time in which nothing was sent, followed by all at once.
Here `select` waits to some 50 µs, nothing but numbers is kept, and the collector rests meanwhile.
"""

from __future__ import annotations

import gc
import random
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httptools

from bench.load import PATIENCE_S, Target

TO_BEGIN_WITH = 16  # connections to each target
MOST_BYTES = 1 << 16  # of an answer, at once


@dataclass(frozen=True)
class Lateness:
    """What came of a load, in ms after each request was due: its whole answer, by target; that it was sent, of all."""

    answered: list[list[float]]
    sent: list[float]


class _Line:
    """One connection; one request at a time."""

    def __init__(self, pool: _Pool) -> None:
        self.pool = pool
        self.socket = socket.create_connection(("127.0.0.1", pool.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number, self.due, self.complete = 0, 0.0, True

    def send(self, number: int, due: float) -> None:
        """Send the request that was due then."""
        self.number, self.due, self.complete = number, due, False
        self._parser = httptools.HttpResponseParser(self)
        self.socket.sendall(self.pool.request)

    def on_message_complete(self) -> None:
        """Take note of the end."""
        self.complete = True

    def take(self) -> None:
        """Take what came of the answer.

        Raises:
            ConnectionResetError: it broke off.
            RuntimeError: it says that the request failed.
        """
        data = self.socket.recv(MOST_BYTES)
        if not data:
            raise ConnectionResetError("closed before the answer was complete")
        self._parser.feed_data(data)
        if self.complete and (status := self._parser.get_status_code()) != 200:
            raise RuntimeError(f"port {self.pool.port} answered {status}")


class _Pool:
    """The connections to one target. The one that was free longest is taken: none is idle until it is closed."""

    def __init__(self, target: Target, count: int) -> None:
        self.port, self.request = target.port, target.request()
        self.late_ms = [0.0] * count
        self.all: list[_Line] = []
        self.free = deque(self._opened() for _ in range(TO_BEGIN_WITH))

    def send(self, number: int, due: float) -> _Line:
        """Send a request on a free connection, or on another one."""
        line = self.free.popleft() if self.free else self._opened()
        line.send(number, due)
        return line

    def _opened(self) -> _Line:
        line = _Line(self)
        self.all.append(line)
        return line

    def back(self, line: _Line, now: float) -> None:
        """Take a connection whose answer is complete."""
        self.late_ms[line.number] = (now - line.due) * 1000
        self.free.append(line)


def moments(per_s: float, seconds: float, seed: int, targets: int) -> list[float]:
    """Return when the requests are due, in s from the start: Poisson, `per_s` to each target, in turn, a whole number
    of turns."""
    chance = random.Random(seed)  # noqa: S311  # moments of a load, no secret
    found: list[float] = []
    at = 0.0
    while at < seconds:
        for _ in range(targets):
            at += chance.expovariate(per_s * targets)
            found.append(at)
    return found


def open_loop(targets: Sequence[Target], per_s: float, seconds: float, seed: int) -> Lateness:
    """Send requests at random moments, `per_s` to each target, in turn.

    Latency counts from the moment at which the request was due: a queue that forms is not left out.

    Raises:
        ConnectionResetError: an answer broke off.
        RuntimeError: a request failed, or nothing came for PATIENCE_S.
    """
    due = moments(per_s, seconds, seed, len(targets))
    pools = [_Pool(target, len(due) // len(targets)) for target in targets]
    try:
        with _collector_at_rest():
            _warm(pools)
            sent = _send_all(pools, due)
    finally:
        for line in (line for pool in pools for line in pool.all):
            line.socket.close()
    return Lateness([pool.late_ms for pool in pools], sent)


def _warm(pools: Sequence[_Pool]) -> None:
    """Use each connection once."""
    for pool in pools:
        lines = [pool.send(0, 0.0) for _ in range(len(pool.free))]
        while lines:
            lines = [line for line in lines if not _finished(line, time.monotonic())]


def _finished(line: _Line, now: float) -> bool:
    line.take()
    if line.complete:
        line.pool.back(line, now)
    return line.complete


def _send_all(pools: Sequence[_Pool], due: Sequence[float]) -> list[float]:
    began = time.monotonic()
    sent: list[float] = []
    waiting: dict[int, _Line] = {}
    number, now = 0, began
    while number < len(due) or waiting:
        while number < len(due) and began + due[number] <= now:
            turn, which = divmod(number, len(pools))
            line = pools[which].send(turn, began + due[number])
            waiting[line.socket.fileno()] = line
            sent.append((now - began - due[number]) * 1000)
            number += 1
            now = time.monotonic()
        wait = began + due[number] - now if number < len(due) else PATIENCE_S
        readable, _, _ = select.select(waiting, (), (), max(0.0, wait))
        if not readable and number == len(due):
            raise RuntimeError(f"nothing came for {PATIENCE_S} s")
        now = time.monotonic()
        for handle in readable:
            if _finished(waiting[handle], now):
                del waiting[handle]
    return sent


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
