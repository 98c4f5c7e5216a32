"""Do several things side by side, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread

from roost.ops.errors import RoostError


def run_all(tasks: Sequence[Callable[[], None]], at_most: int) -> None:
    """Run all tasks in threads, at most so many at a time; one task alone runs in the caller's thread.

    The threads are daemons: an interrupted program ends at once instead of waiting for them.

    Raises:
        RoostError, OSError: the first failure of a task, when all have been tried.
    """
    todo: SimpleQueue[Callable[[], None]] = SimpleQueue()
    for task in tasks:
        todo.put(task)
    failures: list[RoostError | OSError] = []
    if len(tasks) == 1:
        _work(todo, failures)
    else:
        crew = [Thread(target=_work, args=(todo, failures), daemon=True) for _ in range(min(at_most, len(tasks)))]
        for one in crew:
            one.start()
        for one in crew:
            one.join()
    if failures:
        raise failures[0]


def _work(todo: SimpleQueue[Callable[[], None]], failures: list[RoostError | OSError]) -> None:
    while True:
        try:
            task = todo.get_nowait()
        except Empty:
            return
        try:
            task()
        except (RoostError, OSError) as error:
            failures.append(error)
