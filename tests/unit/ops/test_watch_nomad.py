"""What has Nomad begin anew: when its clock jumped or its servers refuse it, then once, and never else."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

SCRIPT = Path(__file__).parents[3] / "app/roost/ops/watch_nomad.sh"
# Doubles: a nap takes no time and moves the clock by as much as it says, `offset` is what somebody set it by.
PROGRAMS = {
    "sleep": "echo $(($(cat clock) + $1)) >clock.new && mv clock.new clock && echo nap >>naps; exec /bin/sleep 0.01",
    "date": 'if [ "$1" = +%s ]; then echo $(($(cat clock) + $(cat offset))); else exec /bin/date "$@"; fi',
    "service": '[ "$2" != status ] || exit $(cat down); echo "$*" >>restarts; exit $(cat code)',
    "uname": "echo host-$(cat name)",
}
EMPTY = ("nomad.log", "restarts", "naps")
CONTENT = {"clock": "1000000", "offset": "0", "code": "0", "down": "0", "name": "1", **dict.fromkeys(EMPTY, "")}
DAY_S = 86400
ZONES = ["UTC", "Asia/Kolkata", "America/New_York"]
REFUSED = 'client: error heartbeating. retrying: error="failed to update status: rpc error: Permission denied"'


@pytest.fixture
def zone(request: pytest.FixtureRequest) -> str:
    """The machine's time zone."""
    return str(getattr(request, "param", "UTC"))


@pytest.fixture
def world(tmp_path: Path, zone: str) -> Iterator[Path]:
    """A folder in which the script runs with doubles of what it calls."""
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    for name, text in CONTENT.items():
        (tmp_path / name).write_text(text + "\n" * bool(text))
    environment = {**os.environ, "TZ": zone, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    argv = ["dash", str(SCRIPT), "roost-nomad", str(tmp_path / "nomad.log")]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=said, stderr=said)
    try:
        wait_for(lambda: naps(tmp_path) > 1)
        yield tmp_path
    finally:
        process.terminate()
        assert process.wait(10) == 0


def wait_for(check: Callable[[], bool]) -> None:
    for _ in range(2400):
        if check():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 120 s")


def naps(world: Path) -> int:
    return len((world / "naps").read_text().split())


def restarts(world: Path) -> list[str]:
    return (world / "restarts").read_text().splitlines()


def pass_by(world: Path, ticks: int) -> None:
    """Wait until it has looked at the clock so many times more."""
    begin = naps(world)
    wait_for(lambda: naps(world) >= begin + ticks)


def put(path: Path, text: str) -> None:
    path.with_suffix(".put").write_text(text)
    path.with_suffix(".put").replace(path)


def line(ago_s: float, level: str, text: str, zone: str = "UTC") -> str:
    """A line as Nomad writes it: the machine's time with its offset, Z for none."""
    at = (datetime.now(UTC) - timedelta(seconds=ago_s)).astimezone(ZoneInfo(zone))
    offset = "Z" if zone == "UTC" else f"{at:%z}"
    return f"    {at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}{offset} {f'[{level}]':7} {text}\n"


def refusals(count: int, ago_s: float, zone: str = "UTC") -> str:
    return line(ago_s, "ERROR", f"{REFUSED} period=27.3s", zone) * count


@pytest.mark.parametrize("by_s", [DAY_S, -DAY_S])
def test_a_clock_that_was_set_has_it_begin_anew_once(world: Path, by_s: int) -> None:
    put(world / "offset", f"{by_s}\n")
    wait_for(lambda: restarts(world) == ["roost-nomad restart"])
    pass_by(world, 30)
    assert restarts(world) == ["roost-nomad restart"]
    assert f"The clock was set by {by_s} s" in (world / "said").read_text()


def test_a_clock_that_is_corrected_by_minutes_changes_nothing(world: Path) -> None:
    put(world / "offset", "600\n")
    pass_by(world, 30)
    assert restarts(world) == []


@pytest.mark.parametrize("zone", ZONES, indirect=True)
def test_heartbeats_that_are_refused_have_it_begin_anew(world: Path, zone: str) -> None:
    put(world / "nomad.log", refusals(3, 10, zone))
    wait_for(lambda: restarts(world) == ["roost-nomad restart"])
    pass_by(world, 60)
    assert restarts(world) == ["roost-nomad restart"], "it is given time"


def test_where_that_does_not_help_it_is_tried_again_later(world: Path) -> None:
    put(world / "nomad.log", refusals(3, 10))
    wait_for(lambda: len(restarts(world)) == 1)
    begin = naps(world)
    wait_for(lambda: len(restarts(world)) == 2)
    assert naps(world) - begin >= 120


OTHER_TROUBLES: dict[str, Callable[[], str]] = {
    "few": lambda: refusals(2, 10),
    "long ago": lambda: refusals(9, 900),
    "of the future": lambda: refusals(9, -DAY_S),
    "no leader": lambda: refusals(9, 10).replace("Permission denied", "No cluster leader"),
    "others": lambda: refusals(9, 10).replace("error heartbeating", "error querying node allocations"),
    "registered since": lambda: refusals(9, 90) + line(20, "INFO", "client: node registration complete"),
    "a job says so": lambda: line(10, "INFO", f'client.alloc_runner.task_runner: Task event: msg="{REFUSED}"') * 9,
    "a task says so": lambda: f"{REFUSED}\n" * 9,
}


@pytest.mark.parametrize("name", OTHER_TROUBLES)
def test_other_troubles_are_left_to_nomad(world: Path, name: str) -> None:
    put(world / "nomad.log", OTHER_TROUBLES[name]())  # now: what is older than five minutes does not count anyway
    pass_by(world, 60)
    assert restarts(world) == []


@pytest.mark.parametrize("what", ["clock", "refusals"])
def test_what_somebody_stopped_is_not_started(world: Path, what: str) -> None:
    put(world / "down", "3\n")
    if what == "clock":
        put(world / "offset", f"{DAY_S}\n")
    else:
        put(world / "nomad.log", refusals(3, 10))
    pass_by(world, 30)
    put(world / "nomad.log", "")
    pass_by(world, 15)
    put(world / "down", "0\n")
    pass_by(world, 15)
    assert restarts(world) == []


def test_a_restart_that_fails_is_tried_again(world: Path) -> None:
    put(world / "code", "1\n")
    put(world / "offset", f"{DAY_S}\n")
    wait_for(lambda: len(restarts(world)) >= 3)
    put(world / "code", "0\n")
    pass_by(world, 3)
    tried = len(restarts(world))
    pass_by(world, 20)
    assert len(restarts(world)) <= tried + 1
