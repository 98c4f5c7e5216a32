"""The driver: steps, waiting, a start after a kill, work of a release that is not there any more."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from roost.durable.driver import Driver, Next
from roost.ops.errors import RoostError
from tests.support.net import wait_until

PROGRAM = """
import os, signal, sys
from pathlib import Path
from roost.durable.driver import Driver, Next

def advance(key):
    seen = Path(sys.argv[1]) / "seen"
    with seen.open("a") as stream:
        stream.write(key + "\\n")
    if len(seen.read_text().splitlines()) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Next.GO_ON

driver = Driver(Path(sys.argv[1]), {"count": advance})
driver.launch()
driver.start("count", "one")
import threading
threading.Event().wait(30)
"""


class Counting:
    """Work that is finished after so many steps, or waits in between."""

    def __init__(self, steps: int, wait_at: int = -1) -> None:
        self.steps, self.wait_at = steps, wait_at
        self.calls = 0
        self.answered = False
        self.done = threading.Event()

    def __call__(self, _key: str) -> Next:
        if self.calls == self.wait_at and not self.answered:
            return Next.REST
        self.calls += 1
        if self.calls < self.steps:
            return Next.GO_ON
        self.done.set()
        return Next.REST


def test_work_goes_on_step_by_step_until_it_is_finished(tmp_path: Path) -> None:
    work = Counting(5)
    driver = Driver(tmp_path, {"count": work})
    driver.launch()
    try:
        driver.start("count", "one")
        assert work.done.wait(20)
    finally:
        driver.close()
    assert work.calls == 5


def test_work_waits_until_it_is_woken(tmp_path: Path) -> None:
    work = Counting(4, wait_at=2)
    driver = Driver(tmp_path, {"count": work})
    driver.launch()
    try:
        driver.start("count", "one")
        wait_until(lambda: work.calls == 2, 20, "the step before the wait")
        assert not work.done.is_set()
        work.answered = True
        driver.start("count", "one")
        assert work.done.wait(20)
    finally:
        driver.close()


def test_killed_work_is_taken_up_at_the_next_start(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -9
    assert (tmp_path / "seen").read_text() == "one\n" * 3
    work = Counting(2)
    driver = Driver(tmp_path, {"count": work})
    driver.launch()
    try:
        assert work.done.wait(20)
    finally:
        driver.close()
    # the step that was cut off is made again; the two whose end was recorded are not
    assert work.calls == 2


def test_work_of_a_kind_that_is_not_known_is_left_to_the_release_that_knows_it(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -9
    without = Driver(tmp_path, {})
    without.launch()
    without.close()
    work = Counting(2)
    again = Driver(tmp_path, {"count": work})
    again.launch()
    try:
        again.ensure("count", ["one"])
        assert work.done.wait(20)
    finally:
        again.close()


def test_what_is_driven_is_not_started_once_more(tmp_path: Path) -> None:
    inside, go = threading.Event(), threading.Event()
    calls: list[str] = []

    def advance(key: str) -> Next:
        calls.append(key)
        inside.set()
        assert go.wait(20)
        return Next.REST

    driver = Driver(tmp_path, {"count": advance})
    driver.launch()
    try:
        driver.start("count", "one")
        assert inside.wait(20)
        driver.ensure("count", ["one", "two"])
        go.set()
        wait_until(lambda: len(calls) >= 2, 20, "the other one")
    finally:
        driver.close()
    assert sorted(calls) == ["one", "two"]


def test_there_is_one_driver_in_a_process(tmp_path: Path) -> None:
    driver = Driver(tmp_path, {})
    driver.launch()
    try:
        with pytest.raises(RoostError, match="driven already"):
            Driver(tmp_path / "other", {}).launch()
    finally:
        driver.close()
