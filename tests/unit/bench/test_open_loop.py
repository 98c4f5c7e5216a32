"""The load of the benchmarks comes when it is due, whatever the answers do."""

from __future__ import annotations

import socket
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import pytest
from bench.load import Target
from bench.open_loop import TO_BEGIN_WITH, moments, open_loop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}"


class _Server:
    """Answers each request by its number, but from `held_from` on nobody until `until` requests have come."""

    def __init__(self, answers: Callable[[int], bytes], held_from: int, until: int) -> None:
        self._answers, self._held_from, self._until = answers, held_from, until
        self._came, self._reached = 0, threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                length = 0
                while line != b"\r\n":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                    line = lines.readline()
                lines.read(length)
                if not (answer := self._answers(self._turn())):
                    return
                connection.sendall(answer)

    def _turn(self) -> int:
        with self._reached:
            self._came += 1
            number = self._came
            self._reached.notify_all()
            if number >= self._held_from:
                self._reached.wait_for(lambda: self._came >= self._until)
            return number


@contextmanager
def server(answers: Callable[[int], bytes], held_from: int = 1 << 30, until: int = 0) -> Iterator[int]:
    running = _Server(answers, held_from, until)
    try:
        yield running.listener.getsockname()[1]
    finally:
        running.listener.shutdown(socket.SHUT_RDWR)
        running.listener.close()


def test_the_moments_are_random_and_not_in_heaps() -> None:
    due = moments(1000, 20, seed=1, targets=2)
    pauses = [later - earlier for earlier, later in pairwise(due)]
    assert len(due) % 2 == 0
    assert statistics.mean(pauses) == pytest.approx(1 / 2000, rel=0.02)
    assert statistics.stdev(pauses) == pytest.approx(1 / 2000, rel=0.03)  # of an exponential it is the mean
    assert moments(1000, 20, seed=1, targets=2) == due


def test_who_is_not_answered_does_not_hold_the_others_up() -> None:
    count = len(moments(400, 0.2, seed=3, targets=1))
    with server(lambda _: OK, held_from=TO_BEGIN_WITH + 1, until=TO_BEGIN_WITH + count) as port:
        found = open_loop([Target(port)], 400, 0.2, seed=3)
    assert len(found.sent) == len(found.answered[0]) == count > 40
    # each counts from when it was due: the first ones waited for almost all the others
    assert found.answered[0][0] > 100
    assert found.answered[0][-1] < found.answered[0][0]


def test_answers_are_of_the_target_that_was_asked() -> None:
    with server(lambda _: OK) as one, server(lambda _: OK) as other:
        found = open_loop([Target(one), Target(other)], 200, 0.2, seed=4)
    assert len(found.answered[0]) == len(found.answered[1]) == len(found.sent) / 2
    assert all(late > 0 for answers in found.answered for late in answers)


@pytest.mark.parametrize(("bad", "error"), [(BUSY, "answered 503"), (b"", "closed before")])
def test_a_request_that_fails_ends_the_measurement(bad: bytes, error: str) -> None:
    with (
        server(lambda number: bad if number == TO_BEGIN_WITH + 3 else OK) as port,
        pytest.raises((RuntimeError, ConnectionResetError), match=error),
    ):
        open_loop([Target(port)], 200, 0.2, seed=5)
