"""Several things side by side, a few at a time."""

from __future__ import annotations

import threading

import pytest

from roost.ops.errors import RoostError
from roost.ops.parallel import run_all


def test_at_most_so_many_at_a_time() -> None:
    together = threading.Barrier(2)
    lock = threading.Lock()
    active: list[int] = []
    most: list[int] = []

    def task() -> None:
        with lock:
            active.append(1)
            most.append(len(active))
        together.wait(30)  # breaks unless two run
        with lock:
            active.pop()

    run_all([task] * 6, 2)
    assert (max(most), len(most)) == (2, 6)


def test_one_alone_runs_in_the_callers_thread() -> None:
    seen: list[threading.Thread] = []
    run_all([lambda: seen.append(threading.current_thread())], 4)
    assert seen == [threading.current_thread()]
    run_all([], 4)


def test_all_are_tried_and_the_failure_is_told() -> None:
    done: list[int] = []

    def fail() -> None:
        raise RoostError("no")

    with pytest.raises(RoostError, match="no"):
        run_all([fail, lambda: done.append(1), lambda: done.append(2)], 1)
    assert done == [1, 2]
